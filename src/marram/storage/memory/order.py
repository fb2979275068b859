"""An ordered set of keys, in blocks: the index that gives a dict its order.

Owns the order of one keyspace's keys, nothing else. A sorted list of short sorted lists: adding
or removing costs one bisection over the blocks and one short memmove, and no step is ever longer
than a block, so nothing holds the interpreter lock for the size of the set.

O1  the blocks hold each key once, ascending, and no block is empty.
O2  _lasts.keys[i] is the last key of _blocks[i].
O3  where a run has heads, _heads[i] is the eight bytes of keys[i] that follow `_common`, which all
    its keys begin with. So heads ascend, and only keys with equal heads have to be compared.
O4  where a block has values, values[i] is what the map holds for keys[i]: who changes the map says
    so by add(), remove() or follow(). `_followed` is how many blocks have them.

Values are there for scans, which would otherwise look each key up in the map, that is, wherever in
memory it and its value lie: 0.4 us a row instead of 0.06. They cost 8 bytes a key and, where a key
is written over, finding its place. So a block lets go of them where it is written to and not
scanned, and takes them up again when it is scanned.

Threading: the caller serializes everything (storage/store.py's lock).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

if not cython.compiled:  # else they are inlined
    from marram.coding.raw import close_gap, head, insert_into, let_go, open_gap, order, resized

# Swept 128..4096 with 1 M random 16-byte keys: flat from 512 to 1500.
BLOCK_KEYS = 512

# A bisection compares twenty keys, wherever they lie in memory: twenty cache misses. Heads lie side
# by side. With eight bytes they nearly always differ: four are only four decimal digits.
# Interpreted, the loops over them would cost more than the misses.
_HAS_HEADS = cython.compiled

# Values changed for each key of a block before it lets go of them.
_PATIENCE = 2


class Run:
    """Keys in ascending order, few enough to be moved at every change; maybe with their values."""

    __slots__ = ("_common", "_heads", "_room", "keys", "unread", "values")

    def __init__(self, keys: list[bytes], values: list[Any] | None = None) -> None:
        """keys: distinct and ascending; values: theirs. The lists are the run's from now on."""
        self.keys = keys
        self.values = values
        self.unread = 0  # values changed since they were read
        if _HAS_HEADS:
            self._index()

    def __dealloc__(self) -> None:
        """Only ever compiled: the interpreter calls no method of this name."""
        let_go(self._heads)

    def find(self, key: bytes) -> int:
        """How many keys are less than `key`."""
        keys = self.keys
        if not _HAS_HEADS:
            return bisect_left(keys, key)
        low, high = 0, len(keys)
        beside = _compare(key, self._common)
        if beside:
            return low if beside < 0 else high
        heads = self._heads
        mine = head(key, len(key), len(self._common))
        while low < high:
            middle = (low + high) >> 1
            if heads[middle] < mine:
                low = middle + 1
            else:
                high = middle
        # Nearly always no key has this head; else those that have it are compared.
        high = len(keys)
        if low == high or heads[low] != mine:
            return low
        while low < high:
            middle = (low + high) >> 1
            if heads[middle] > mine:
                high = middle
                continue
            other = keys[middle]
            if order(other, len(other), key, len(key)) < 0:
                low = middle + 1
            else:
                high = middle
        return low

    def insert(self, at: int, key: bytes, held: Any = None) -> None:
        """Put a key in its place, at = find(key), and what it holds where there are values."""
        if not _HAS_HEADS:
            self.keys.insert(at, key)
            return
        size = len(self.keys)
        insert_into(self.keys, at, key)
        if self.values is not None:
            insert_into(self.values, at, held)
        if _compare(key, self._common):
            self._index()
            return
        if size == self._room:
            self._make_room(size)
        open_gap(self._heads, at, size)
        self._heads[at] = head(key, len(key), len(self._common))

    def extend(self, keys: list[bytes]) -> None:
        """Add keys behind all others; there are no values."""
        self.keys += keys
        if _HAS_HEADS:
            self._index()

    def remove(self, at: int) -> None:
        """Take a key out. The common beginning stays as short as it is."""
        del self.keys[at]
        if self.values is not None:
            del self.values[at]
        if _HAS_HEADS:
            close_gap(self._heads, at, len(self.keys))

    def replace(self, at: int, key: bytes) -> None:
        """Put another key in the place of one; the order stays."""
        self.keys[at] = key
        if _HAS_HEADS:
            if _compare(key, self._common):
                self._index()
            else:
                self._heads[at] = head(key, len(key), len(self._common))

    def split(self, at: int) -> Run:
        """Take out the keys from `at` on, as a run of their own."""
        values = self.values
        if values is None:
            rest = Run(self.keys[at:])
        else:
            rest = Run(self.keys[at:], values[at:])
            self.values = values[:at]
        self.keys = self.keys[:at]  # del would keep the room
        if _HAS_HEADS:
            self._index()
        return rest

    def _index(self) -> None:
        """Set up the heads (O3)."""
        keys = self.keys
        size = len(keys)
        self._common = common = _shared(keys[0], keys[size - 1]) if size else b""
        self._make_room(0 if size < 4 else size)
        heads = self._heads  # type: ignore[has-type]
        for at in range(size):
            key = keys[at]
            heads[at] = head(key, len(key), len(common))

    def _make_room(self, size: int) -> None:
        """Have room for more heads than `size`, or for four; those that are there stay."""
        room = size + size // 4 + 4
        self._heads = resized(self._heads, room)  # type: ignore[has-type]
        self._room = room

    def _check(self) -> None:
        """Verify O3."""
        if _HAS_HEADS:
            skip = len(self._common)
            assert all(key.startswith(self._common) for key in self.keys), "O3: common"
            assert len(self.keys) <= self._room, "O3: room"
            for at, key in enumerate(self.keys):
                mine = int.from_bytes(key[skip:][:8].ljust(8, b"\0"), "big")
                assert self._heads[at] == mine, "O3: heads"


def _compare(key: bytes, common: bytes) -> int:
    """How `key` sorts beside all that begins with `common`: < 0 before, > 0 after, 0 it does, too.

    Only ever compiled: see _HAS_HEADS.
    """
    return order(key, min(len(key), len(common)), common, len(common))


def _shared(first: bytes, last: bytes) -> bytes:
    """What two keys, and so all between them, begin with, but for the last bytes a head takes."""
    size = min(len(first), len(last)) - 8
    at = 0
    while at < size and first[at] == last[at]:
        at += 1
    return first[:at]


class KeyOrder:
    """The keys of a map, in order.

    >>> order = KeyOrder([b"a", b"c", b"d"])
    >>> order.add(b"b")
    >>> order.chunk(b"b", None, 2)
    [b'b', b'c']
    >>> order.chunk(b"", b"d", 2, reverse=True)
    [b'c', b'b']
    """

    __slots__ = ("_block_keys", "_blocks", "_followed", "_has_values", "_lasts", "_size")

    def __init__(
        self,
        ascending: Iterable[bytes] = (),
        block_keys: int = BLOCK_KEYS,
        *,
        has_values: bool = False,
    ) -> None:
        """Take keys that are already distinct and ascending; O(n).

        block_keys: the most a block has. has_values: keep what keys hold beside them (O4).
        """
        self._block_keys = block_keys
        self._has_values = has_values and _HAS_HEADS
        self._blocks: list[Run] = []
        self._lasts = Run([])
        self._size = 0
        self._followed = 0
        self.append_many(list(ascending))

    def __len__(self) -> int:
        return self._size

    def append_many(self, ascending: list[bytes]) -> None:
        """Add keys that are all greater than every key held; O(len(ascending))."""
        if not ascending:
            return
        # Room is left for keys that come in between.
        part = max(1, self._block_keys * 3 // 4)
        blocks, lasts = self._blocks, self._lasts
        at = 0
        if blocks:
            block = blocks[len(blocks) - 1]
            at = max(0, min(part - len(block.keys), len(ascending)))
            if at:
                if block.values is not None:
                    self._let_go(block)
                block.extend(ascending[:at])
                lasts.replace(len(blocks) - 1, ascending[at - 1])
        while at < len(ascending):
            block = Run(ascending[at : at + part])
            blocks.append(block)
            at += len(block.keys)
            lasts.insert(len(blocks) - 1, ascending[at - 1])
        self._size += len(ascending)

    def refill(self, ascending: list[bytes]) -> None:
        """Hold these keys, distinct and ascending, instead of those so far; O(n)."""
        self._blocks = []
        self._lasts = Run([])
        self._size = 0
        self._followed = 0
        self.append_many(ascending)

    def let_go(self) -> None:
        """Keep no values for now: until a scan, the map may change without follow() (O4)."""
        for block in self._blocks:
            block.values = None
        self._followed = 0

    def add(self, key: bytes, held: Any = None) -> None:
        """Add a key that is not there yet; O(log n). held: what the map holds for it, if known."""
        lasts = self._lasts
        blocks = self._blocks
        self._size += 1
        at = lasts.find(key)
        if at == len(blocks):
            self._add_last(key, held)
            return
        block = blocks[at]
        if held is None and block.values is not None:
            self._let_go(block)
        block.insert(block.find(key), key, held)
        size = len(block.keys)
        if size > self._block_keys:
            half = size // 2
            blocks.insert(at + 1, block.split(half))
            lasts.insert(at, block.keys[half - 1])
            if block.values is not None:
                self._followed += 1

    def _add_last(self, key: bytes, held: Any) -> None:
        """Add a key that is greater than all: keys that come in order fill their blocks."""
        at = len(self._blocks) - 1
        if at < 0 or len(self._blocks[at].keys) >= self._block_keys:
            values = [held] if self._has_values and held is not None else None
            if values is not None:
                self._followed += 1
            self._blocks.append(Run([key], values))
            self._lasts.insert(at + 1, key)
            return
        block = self._blocks[at]
        if held is None and block.values is not None:
            self._let_go(block)
        block.insert(len(block.keys), key, held)
        self._lasts.replace(at, key)

    def follow(self, key: bytes, held: Any) -> None:
        """Say what the map holds now for a key that is there; None: nothing, for now (O4)."""
        if not self._followed:
            return
        block: Run = self._blocks[self._lasts.find(key)]
        values = block.values
        if values is None:
            return
        block.unread += 1
        if block.unread > _PATIENCE * len(values):
            self._let_go(block)
        else:
            values[block.find(key)] = held

    def _let_go(self, block: Run) -> None:
        block.values = None
        self._followed -= 1

    def remove(self, key: bytes) -> None:
        """Remove a key that is there; O(log n)."""
        at = self._lasts.find(key)
        block = self._blocks[at]
        index = block.find(key)
        assert block.keys[index] == key
        block.remove(index)
        self._size -= 1
        size = len(block.keys)
        if not size:
            if block.values is not None:
                self._followed -= 1
            del self._blocks[at]
            self._lasts.remove(at)
        elif index == size:
            self._lasts.replace(at, block.keys[size - 1])

    def chunk(
        self, start: bytes, stop: bytes | None, limit: int, *, reverse: bool = False
    ) -> list[bytes]:
        """Up to `limit` keys of [start, stop), ascending from start, or descending from stop.

        stop None means no upper bound. O(log n + limit).
        """
        if limit <= 0:
            return []
        return self.backward(start, stop, limit) if reverse else self.forward(start, stop, limit)

    def forward(self, start: bytes, stop: bytes | None, limit: int) -> list[bytes]:
        """chunk(), ascending; limit > 0."""
        found: list[bytes] = []
        for block, first, last in self._spans(start, stop, limit):
            found += block.keys[first:last]
        return found

    def backward(self, start: bytes, stop: bytes | None, limit: int) -> list[bytes]:
        """chunk(), descending; limit > 0."""
        found: list[bytes] = []
        for block, first, last in self._spans_back(start, stop, limit):
            found += block.keys[first:last][::-1]
        return found

    def rows(
        self,
        start: bytes,
        stop: bytes | None,
        limit: int,
        reverse: bool,
        held: dict[bytes, Any],
    ) -> list[tuple[bytes, Any]]:
        """chunk(), with what the map `held` holds; every key is in it. limit > 0."""
        if reverse:
            spans = self._spans_back(start, stop, limit)
        else:
            spans = self._spans(start, stop, limit)
        found: list[tuple[bytes, Any]] = []
        for block, first, last in spans:
            keys = block.keys
            if block.values is None and self._has_values and 2 * (last - first) >= len(keys):
                block.values = [held[key] for key in keys]
                self._followed += 1
            values = block.values
            if values is None:
                rows = [(keys[at], held[keys[at]]) for at in range(first, last)]
            else:
                block.unread = 0
                rows = [(keys[at], values[at]) for at in range(first, last)]
            if reverse:
                rows.reverse()
            found = found + rows if found else rows
        return found

    def _spans(self, start: bytes, stop: bytes | None, limit: int) -> list[tuple[Run, int, int]]:
        """Where up to `limit` keys of [start, stop) are, from start on: blocks and places in them.

        limit > 0.
        """
        spans: list[tuple[Run, int, int]] = []
        blocks = self._blocks
        at = self._lasts.find(start)
        if at == len(blocks):
            return spans
        block = blocks[at]
        first = block.find(start)
        while True:
            last = min(first + limit, len(block.keys))
            if stop is not None and self._lasts.keys[at] >= stop:
                last = min(last, block.find(stop))
                limit = 0
            if last > first:
                spans.append((block, first, last))
            limit -= last - first
            at += 1
            if at == len(blocks) or limit <= 0:
                return spans
            block = blocks[at]
            first = 0

    def _spans_back(
        self, start: bytes, stop: bytes | None, limit: int
    ) -> list[tuple[Run, int, int]]:
        """_spans(), from stop on downwards."""
        spans: list[tuple[Run, int, int]] = []
        blocks = self._blocks
        at = len(blocks) - 1 if stop is None else self._lasts.find(stop)
        if at == len(blocks):
            at, stop = at - 1, None
        while at >= 0 and limit > 0:
            block = blocks[at]
            end = len(block.keys) if stop is None else block.find(stop)
            stop = None
            begin = max(0, end - limit, min(end, block.find(start)))
            if end > begin:
                spans.append((block, begin, end))
            limit -= end - begin
            if begin > 0 or block.keys[0] <= start:
                break
            at -= 1
        return spans

    def at(self, index: int) -> bytes:
        """The key at `index` in [0, len); O(number of blocks)."""
        for block in self._blocks:
            size = len(block.keys)
            if index < size:
                return block.keys[index]
            index -= size
        raise IndexError(index)

    def _check(self, held: dict[bytes, Any] | None = None) -> None:
        """Verify O1 .. O4; tests call it after every step. held: the map."""
        flat = [key for block in self._blocks for key in block.keys]
        assert flat == sorted(set(flat)), "O1: order"
        assert all(block.keys for block in self._blocks), "O1: no empty block"
        assert self._lasts.keys == [block.keys[-1] for block in self._blocks], "O2"
        assert self._size == len(flat)
        for run in (self._lasts, *self._blocks):
            run._check()
        followed = [block for block in self._blocks if block.values is not None]
        assert self._followed == len(followed), "O4: count"
        for block in followed:
            assert held is None or block.values == [held.get(key) for key in block.keys], "O4"
