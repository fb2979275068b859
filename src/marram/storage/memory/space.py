"""One keyspace in memory: a dict for points, an order for ranges, older versions while read.

Owns the newest value of each key, the keys' order, the deadlines' calendar, and, while a snapshot
is live, what each changed key held before. Does not own sequence numbers or snapshots (engine.py).

S1  `map` holds the newest value of every key; a missing key is absent.
S2  `order` holds exactly the keys of `map` and `ghosts`; a ghost is a deleted key that a live
    snapshot may still see.
S3  history[key] is a chain (sequence, held_before, older) from new to old: `held_before` is what
    the key held until `sequence`. A reader at position P takes the last link with sequence > P. The
    keys that are new since the last pin share one link, (pin + 1, None, None): no reader tells that
    from the true number, and while a checkpoint reads, a bulk load makes many of them.
S4  a change enters `history` before `map`, and a reader looks in `map` before `history`: so a
    reader without the lock finds either the old value or the link that leads to it.
S5  every key with a deadline is in exactly one bucket of the calendar.

Threading: changes under the store's lock; `get` and `get_at` need none (S4).
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from marram.coding.batch import TYPE_STRING
from marram.storage.entry import Entry, Stored, is_expired, patched, stored
from marram.storage.memory.order import KeyOrder

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

Link = tuple[int, Stored | None, "Link | None"]

# A calendar bucket holds the keys whose deadlines share their upper bits: 256 ms a bucket.
_BUCKET_SHIFT = 8


class Space:
    """One keyspace."""

    __slots__ = (
        "_birth",
        "_birth_at",
        "_bucket_heap",
        "_buckets",
        "data_bytes",
        "ghosts",
        "history",
        "map",
        "order",
        "volatile",
    )

    def __init__(self, *, for_scans: bool = False) -> None:
        """for_scans: spend memory to have them quick (order.py O4)."""
        self.map: dict[bytes, Stored] = {}
        self.order = KeyOrder(has_values=for_scans)
        self.history: dict[bytes, Link] = {}
        self.ghosts: set[bytes] = set()
        self.data_bytes = 0  # keys + values, without overhead
        self.volatile = 0  # keys that have a deadline
        self._birth_at = 0
        self._birth: Link = (0, None, None)  # of the keys that are new since _birth_at - 1
        self._buckets: dict[int, set[bytes]] = {}
        self._bucket_heap: list[int] = []

    def __len__(self) -> int:
        return len(self.map)

    def about(self) -> int:
        """Keys held."""
        return len(self.map)

    # -- reading ---------------------------------------------------------------------------------

    def get(self, key: bytes) -> Stored | None:
        """The newest value, expired or not."""
        return self.map.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        """get() of each, in their order."""
        return list(map(self.map.get, keys))

    def keys(self, start: bytes, stop: bytes | None, limit: int, reverse: bool) -> list[bytes]:
        """Up to `limit` keys of [start, stop) in order, expired ones included."""
        found = self.order.chunk(start, stop, limit, reverse=reverse)
        if not self.ghosts:
            return found
        kept = [key for key in found if key in self.map]
        while len(kept) < limit and len(found) == limit:
            if reverse:
                stop = found[-1]
            else:
                start = found[-1] + b"\0"
            found = self.order.chunk(start, stop, limit, reverse=reverse)
            kept += [key for key in found if key in self.map]
        return kept[:limit]

    def rows(
        self, start: bytes, stop: bytes | None, limit: int, reverse: bool
    ) -> list[tuple[bytes, Stored]]:
        """keys(), with what they hold."""
        held = self.map
        return [(key, held[key]) for key in self.keys(start, stop, limit, reverse)]

    def key_at(self, index: int) -> bytes:
        """The key at `index` in key order, in [0, len); near it while ghosts are about."""
        key = self.order.at(index)
        if key in self.map:
            return key
        following = self.keys(key, None, 1, False) or self.keys(b"", None, 1, False)
        return following[0]

    def get_at(self, key: bytes, position: int) -> Stored | None:
        """The value as of `position`, which a live snapshot pins."""
        held = self.map.get(key)
        link = self.history.get(key)
        while link is not None and link[0] > position:
            held = link[1]
            link = link[2]
        return held

    def rows_at(
        self,
        start: bytes,
        stop: bytes | None,
        limit: int,
        position: int,
        now_ms: int,
        reverse: bool,
    ) -> tuple[list[tuple[bytes, Stored]], bytes | None]:
        """One slice of a range as of `position` (pinned), without what is expired at now_ms.

        limit: keys examined, > 0. Returns the rows and where the next slice goes on, or None.
        """
        if self.history:
            return self._rows_then(start, stop, limit, position, now_ms, reverse)
        # Nothing was changed since, so nothing is a ghost.
        rows = self.order.rows(start, stop, limit, reverse, self.map)
        onward: bytes | None = None
        size = len(rows)
        if size == limit:
            onward = rows[size - 1][0]
            if not reverse:
                onward += b"\0"
        if self.volatile:
            rows = [row for row in rows if not is_expired(row[1], now_ms)]
        return rows, onward

    def _rows_then(
        self,
        start: bytes,
        stop: bytes | None,
        limit: int,
        position: int,
        now_ms: int,
        reverse: bool,
    ) -> tuple[list[tuple[bytes, Stored]], bytes | None]:
        keys = self.order.chunk(start, stop, limit, reverse=reverse)
        rows = []
        for key in keys:
            held = self.get_at(key, position)
            if held is not None and not is_expired(held, now_ms):
                rows.append((key, held))
        if len(keys) < limit:
            return rows, None
        return rows, keys[-1] if reverse else keys[-1] + b"\0"

    def changed_since(self, key: bytes, position: int) -> bool:
        """Whether the key was written after `position`, which a live snapshot pins."""
        link = self.history.get(key)
        return link is not None and link[0] > position

    def range_changed_since(self, start: bytes, stop: bytes | None, position: int) -> bool:
        """Whether any key of [start, stop) was written after `position` (pinned)."""
        return any(
            link[0] > position and key >= start and (stop is None or key < stop)
            for key, link in self.history.items()
        )

    # -- changing --------------------------------------------------------------------------------

    def load(self, keys: list[bytes], values: Sequence[Stored], *, is_plain: bool = False) -> None:
        """Add keys that are all new and ascend beyond those held; for recovery.

        is_plain: all values are bytes. Raises ValueError: a key is not new.
        """
        held = self.map
        size = len(held)
        if len(values) != len(keys):
            raise ValueError(f"{len(values)} values of {len(keys)} keys")
        self.order.append_many(keys)
        if is_plain and cython.compiled:
            self._load_plain(keys, values)
        else:
            held.update(zip(keys, values, strict=True))
            self.data_bytes += sum(map(len, keys))
            if is_plain:
                self.data_bytes += sum(map(len, values))
        if len(held) != size + len(keys):
            raise ValueError("a key comes twice")
        if is_plain:
            return
        for key, value in zip(keys, values, strict=True):
            if isinstance(value, bytes):
                self.data_bytes += len(value)
            else:
                self._account(key, value)

    def _load_plain(self, keys: list[bytes], values: Sequence[Stored]) -> None:
        """Put them all into the map, fast compiled."""
        held, total = self.map, 0
        for at in range(len(keys)):
            key, value = keys[at], values[at]
            held[key] = value
            total += len(key) + len(value)
        self.data_bytes += total

    def put(self, key: bytes, held: Stored, sequence: int, pinned: int) -> Stored | None:
        """Store a value; returns what was held before.

        sequence: of the batch; pinned: the newest live snapshot's position, or -1.
        """
        before = self.map.get(key)
        if pinned >= 0:
            self._remember(key, before, sequence, pinned)
        if before is None:
            if self.ghosts and key in self.ghosts:
                self.ghosts.discard(key)
                self.order.follow(key, held)
            else:
                self.order.add(key, held)
            self.data_bytes += len(key)
        else:
            self.order.follow(key, held)
            if type(before) is bytes:
                self.data_bytes -= len(before)
            else:
                self._forget(key, before)  # type: ignore[arg-type]
        self.map[key] = held
        if type(held) is bytes:
            self.data_bytes += len(held)
        else:
            self._account(key, held)  # type: ignore[arg-type]
        return before

    def delete(self, key: bytes, sequence: int, pinned: int) -> Stored | None:
        """Remove a key; returns what was held before, or None where it was missing."""
        before = self.map.get(key)
        if before is None:
            return None
        if pinned >= 0:
            self._remember(key, before, sequence, pinned)
            self.ghosts.add(key)
            self.order.follow(key, None)
        else:
            self.order.remove(key)
        if type(before) is bytes:
            self.data_bytes -= len(before)
        else:
            self._forget(key, before)  # type: ignore[arg-type]
        self.data_bytes -= len(key)
        del self.map[key]
        return before

    def expire(self, key: bytes, deadline_ms: int, sequence: int, pinned: int) -> Stored | None:
        """Set or drop (0) a deadline; returns what was held before, None where missing."""
        before = self.map.get(key)
        if before is None:
            return None
        value, type_ = (
            (before, TYPE_STRING) if isinstance(before, bytes) else (before[0], before[2])
        )
        return self.put(key, stored(value, deadline_ms, type_), sequence, pinned)

    def patch(
        self, key: bytes, offset: int, data: bytes, sequence: int, pinned: int
    ) -> Stored | None:
        """Overwrite a string from `offset` on, zero-filling a gap; returns what was held before."""
        before = self.map.get(key)
        self.put(key, patched(before, offset, data), sequence, pinned)
        return before

    # -- deadlines -------------------------------------------------------------------------------

    def due(self, now_ms: int, limit: int) -> list[bytes]:
        """Up to `limit` keys whose deadlines passed, oldest buckets first; takes nothing out."""
        found: list[bytes] = []
        heap = self._bucket_heap
        past = now_ms >> _BUCKET_SHIFT
        while heap and heap[0] < past:
            bucket = self._buckets.get(heap[0])
            if not bucket:
                self._buckets.pop(heappop(heap), None)
                continue
            for key in bucket:
                found.append(key)
                if len(found) == limit:
                    break
            break  # the next bucket shows once this one's keys are deleted
        return found

    def expired_count(self, now_ms: int) -> int:
        """How many keys are held past their deadline."""
        last = now_ms >> _BUCKET_SHIFT
        ids = [bucket_id for bucket_id in set(self._bucket_heap) if bucket_id <= last]
        return sum(
            is_expired(self.map[key], now_ms)
            for bucket_id in ids
            for key in self._buckets.get(bucket_id, ())
        )

    # -- older versions --------------------------------------------------------------------------

    def forget_history(self) -> dict[bytes, Link]:
        """Drop all older versions: no snapshot is live. Returns them, for freeing at leisure."""
        for key in self.ghosts:
            self.order.remove(key)
        self.ghosts = set()
        retired, self.history = self.history, {}
        return retired

    def forget_change(self, key: bytes, sequence: int) -> None:
        """A batch that changed the key at `sequence` was undone: it left no version behind."""
        link = self.history.get(key)
        if link is None:
            return
        if link[0] != sequence and (link[1] is not None or link[2] is not None or key in self.map):
            return
        if link[2] is not None:
            self.history[key] = link[2]
            return
        del self.history[key]
        if key in self.ghosts:
            self.ghosts.discard(key)
            self.order.remove(key)

    def trim_history(self, oldest: int) -> None:
        """Drop the links that no snapshot at `oldest` or later can reach."""
        kept: dict[bytes, Link] = {}
        for key, link in self.history.items():
            short = _cut(link, oldest)
            if short is not None:
                kept[key] = short
            elif key in self.ghosts:
                self.ghosts.discard(key)
                self.order.remove(key)
        self.history = kept

    # -- private ---------------------------------------------------------------------------------

    def _remember(self, key: bytes, before: Stored | None, sequence: int, pinned: int) -> None:
        link = self.history.get(key)
        # No snapshot lies between the last change and this one: nobody can ask for `before`.
        if link is None and before is None:
            if self._birth_at != pinned + 1:
                self._birth_at = pinned + 1
                self._birth = (pinned + 1, None, None)
            self.history[key] = self._birth
        elif link is None or link[0] <= pinned:
            self.history[key] = (sequence, before, link)

    def _account(self, key: bytes, entry: Entry) -> None:
        self.data_bytes += len(entry.value)
        if entry.deadline_ms:
            self.volatile += 1
            bucket_id = entry.deadline_ms >> _BUCKET_SHIFT
            bucket = self._buckets.get(bucket_id)
            if bucket is None:
                self._buckets[bucket_id] = {key}
                heappush(self._bucket_heap, bucket_id)
            else:
                bucket.add(key)

    def _forget(self, key: bytes, entry: Entry) -> None:
        self.data_bytes -= len(entry.value)
        if entry.deadline_ms:
            self.volatile -= 1
            # An emptied bucket stays until its time comes: its id is in the heap once (S5).
            self._buckets[entry.deadline_ms >> _BUCKET_SHIFT].discard(key)

    def _check(self) -> None:
        """Verify S2, S5 and the counters; tests call it after every step."""
        self.order._check(self.map)
        in_order = set(self.order.chunk(b"", None, len(self.order)))
        assert in_order == set(self.map) | self.ghosts, "S2"
        assert not self.ghosts & set(self.map), "S2: a ghost is deleted"
        volatile = {k for k, v in self.map.items() if type(v) is Entry and v.deadline_ms}
        held = [k for bucket in self._buckets.values() for k in bucket]
        assert sorted(held) == sorted(volatile), "S5"
        assert self.volatile == len(volatile)
        size = sum(
            len(k) + len(v if isinstance(v, bytes) else v.value) for k, v in self.map.items()
        )
        assert self.data_bytes == size


def _cut(link: Link, oldest: int) -> Link | None:
    """The chain without links at or before `oldest`."""
    if link[0] <= oldest:
        return None
    if link[2] is None:
        return link
    return (link[0], link[1], _cut(link[2], oldest))
