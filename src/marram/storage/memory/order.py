"""An ordered set of keys, in blocks: the index that gives a dict its order.

Owns the order of one keyspace's keys, nothing else. A sorted list of short sorted lists: adding
or removing costs one bisection over the blocks and one short memmove, and no step is ever longer
than a block, so nothing holds the interpreter lock for the size of the set.

O1  the blocks hold each key once, ascending, and no block is empty.
O2  _lasts[i] is the last key of _blocks[i].

Threading: the caller serializes everything (storage/store.py's lock).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

# Keys a block is split at. Swept 128..4096 with 1 M random 16-byte keys: flat from 512 to 1500.
_BLOCK_MAX = 1024


class KeyOrder:
    """The keys of a map, in order.

    >>> order = KeyOrder([b"a", b"c", b"d"])
    >>> order.add(b"b")
    >>> order.chunk(b"b", None, 2)
    [b'b', b'c']
    >>> order.chunk(b"", b"d", 2, reverse=True)
    [b'c', b'b']
    """

    __slots__ = ("_blocks", "_lasts", "_size")

    def __init__(self, ascending: Iterable[bytes] = ()) -> None:
        """Take keys that are already distinct and ascending; O(n)."""
        keys = list(ascending)
        half = _BLOCK_MAX // 2
        self._blocks = [keys[at : at + half] for at in range(0, len(keys), half)]
        self._lasts = [block[-1] for block in self._blocks]
        self._size = len(keys)

    def __len__(self) -> int:
        return self._size

    def append_many(self, ascending: list[bytes]) -> None:
        """Add keys that are all greater than every key held; O(len(ascending))."""
        if not ascending:
            return
        half = _BLOCK_MAX // 2
        for at in range(0, len(ascending), half):
            block = ascending[at : at + half]
            self._blocks.append(block)
            self._lasts.append(block[-1])
        self._size += len(ascending)

    def add(self, key: bytes) -> None:
        """Add a key that is not there yet; O(log n)."""
        lasts = self._lasts
        self._size += 1
        at = bisect_left(lasts, key)
        if at == len(lasts):
            if not lasts:
                self._blocks.append([key])
                lasts.append(key)
                return
            at -= 1
            block = self._blocks[at]
            block.append(key)
            lasts[at] = key
        else:
            block = self._blocks[at]
            insort(block, key)
        if len(block) > _BLOCK_MAX:
            half = len(block) // 2
            self._blocks.insert(at + 1, block[half:])
            del block[half:]
            lasts.insert(at, block[-1])

    def remove(self, key: bytes) -> None:
        """Remove a key that is there; O(log n)."""
        at = bisect_left(self._lasts, key)
        block = self._blocks[at]
        index = bisect_left(block, key)
        assert block[index] == key
        del block[index]
        self._size -= 1
        if not block:
            del self._blocks[at]
            del self._lasts[at]
        elif index == len(block):
            self._lasts[at] = block[-1]

    def chunk(
        self, start: bytes, stop: bytes | None, limit: int, *, reverse: bool = False
    ) -> list[bytes]:
        """Up to `limit` keys of [start, stop), ascending from start, or descending from stop.

        stop None means no upper bound. O(log n + limit).
        """
        if limit <= 0:
            return []
        return self._backward(start, stop, limit) if reverse else self._forward(start, stop, limit)

    def _forward(self, start: bytes, stop: bytes | None, limit: int) -> list[bytes]:
        blocks = self._blocks
        at = bisect_left(self._lasts, start)
        found: list[bytes] = []
        first = bisect_left(blocks[at], start) if at < len(blocks) else 0
        while at < len(blocks) and len(found) < limit:
            block = blocks[at]
            last = first + limit - len(found)
            if stop is not None and self._lasts[at] >= stop:
                last = min(last, bisect_left(block, stop))
                found += block[first:last]
                break
            found += block[first:last]
            first = 0
            at += 1
        return found

    def _backward(self, start: bytes, stop: bytes | None, limit: int) -> list[bytes]:
        blocks = self._blocks
        at = len(blocks) - 1 if stop is None else bisect_left(self._lasts, stop)
        if at == len(blocks):
            at, stop = at - 1, None
        found: list[bytes] = []
        while at >= 0 and len(found) < limit:
            block = blocks[at]
            end = len(block) if stop is None else bisect_left(block, stop)
            stop = None
            begin = max(0, end - (limit - len(found)))
            begin = max(begin, bisect_left(block, start, 0, end))
            found += block[begin:end][::-1]
            if begin > 0 or block[0] <= start:
                break
            at -= 1
        return found

    def at(self, index: int) -> bytes:
        """The key at `index` in [0, len); O(number of blocks)."""
        for block in self._blocks:
            if index < len(block):
                return block[index]
            index -= len(block)
        raise IndexError(index)

    def _check(self) -> None:
        """Verify O1 and O2; tests call it after every step."""
        flat = [key for block in self._blocks for key in block]
        assert flat == sorted(set(flat)), "O1: order"
        assert all(self._blocks), "O1: no empty block"
        assert self._lasts == [block[-1] for block in self._blocks], "O2"
        assert self._size == len(flat)
