"""The memtable: what was written since the last flush, in front of the tables.

Owns the newest changes of every physical keyspace, deletions included, and what pinned positions
may see of older ones; not the tables behind it (engine.py) nor the log. The map is the memory
engine's (memory/space.py).

B1  a key that is not in the map says nothing, unless a range deletion of this memtable covers it:
    then it is gone. GONE in the map says that it was deleted.
B2  range deletions hide what is behind the memtable, never what is in its map: what was in the map
    and in their range was taken out when they came.
B3  a frozen memtable does not change any more, but for versions that nobody may see any longer.
    Its maps do not even then: a flush reads them where they are (sstable/frozen.py Z1).
B4  tallies[n] says how the memtable changes the counts of physical keyspace n (counts.py), by the
    map of spaces[n].
B5  leaned_ms is no later than the deadline of any row behind it that an EXPIRE or a PATCH took its
    value from: the log does not hold that value, so a replay will need the row (engine.py X6).

Threading: changes under the store's lock; get() needs none.
"""

from __future__ import annotations

from collections.abc import Iterator

from marram.coding.batch import KEYSPACES
from marram.storage.engine import SLICE_KEYS, Lock
from marram.storage.entry import Entry, Stored, deadline_of, entry_of
from marram.storage.lsm.coverage import Coverage
from marram.storage.lsm.window import Window
from marram.storage.memory.pins import Pins
from marram.storage.memory.space import Space
from marram.storage.sstable.block import TOMBSTONE, VersionRow, stored_key
from marram.storage.sstable.ranges import RangeDeletion

GONE = Entry(b"", 0, TOMBSTONE)
"""What a deleted key holds in a memtable."""

KEY_OVERHEAD = 200
"""Estimated bytes a key costs beyond its own: a slot in a dict, its place in order, objects, 150 to
175 in all; and where somebody asks for counts, one in a set of those that were looked up."""

MAX_RANGES = 1024
"""Range deletions after which a memtable is to be flushed: each one costs look-ups time."""

_BYTES = {bytes}

_NEVER_MS = 2**64  # later than any deadline

# Of range deletions up to this many are looked at one after the other.
_FEW_RANGES = 4


class RangeSet:
    """Range deletions of one memtable; immutable."""

    __slots__ = ("_coverage", "deletions")

    def __init__(self, deletions: tuple[RangeDeletion, ...] = ()) -> None:
        self.deletions = deletions
        self._coverage: Coverage | None = None

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.deletions)

    def cover(self, keyspace: int, key: bytes) -> bool:
        """Whether any covers a key."""
        if len(self.deletions) > _FEW_RANGES:
            if self._coverage is None:
                self._coverage = Coverage(self.deletions)
            return self._coverage.newest(stored_key(keyspace, key)) > 0
        return any(
            place == keyspace and start <= key and (stop is None or key < stop)
            for place, start, stop, _ in self.deletions
        )

    def cover_since(self, keyspace: int, start: bytes, stop: bytes | None, position: int) -> bool:
        """Whether any that came after `position` meets [start, stop)."""
        return any(
            sequence > position
            and place == keyspace
            and (stop is None or first < stop)
            and (end is None or start < end)
            for place, first, end, sequence in self.deletions
        )

    def with_range(self, added: RangeDeletion) -> RangeSet:
        """These and one more, which makes those it covers whole superfluous."""
        kept = [
            deletion
            for deletion in self.deletions
            if deletion.keyspace != added.keyspace
            or deletion.start < added.start
            or (added.stop is not None and (deletion.stop is None or deletion.stop > added.stop))
        ]
        return RangeSet((*kept, added))


class Tally:
    """What a memtable changes in the counts of one physical keyspace (counts.py).

    keys, volatile: to be added to what is behind. cleared: what is behind counts for nothing.
    vague: what is to be added is not known.

    Keys that were counted as if nothing behind the memtable held them are *unsure*. Nearly always
    these are all it has, so the others are noted, in `_sure`: a new key costs nothing then.
    """

    __slots__ = ("_map", "_sure", "cleared", "keys", "vague", "volatile")

    def __init__(self, held: dict[bytes, Stored], *, cleared: bool = False) -> None:
        """held: the space's map, which changes before note() and forget() are told."""
        self.keys = 0
        self.volatile = 0
        self.cleared = cleared
        self.vague = False
        self._map = held
        self._sure: set[bytes] = set()  # keys of the map; none where it is cleared: all are sure

    @property
    def unsure_count(self) -> int:
        """How many keys are unsure."""
        return 0 if self.cleared else len(self._map) - len(self._sure)

    def unsure(self) -> list[bytes]:
        """The keys that are unsure, the newest first; O(1) for each key that is newer or unsure."""
        found: list[bytes] = []
        missing = self.unsure_count
        if not missing:
            return found
        # From the end: what came since all were looked up is there, where somebody asks often.
        for key in reversed(self._map):
            if key not in self._sure:
                found.append(key)
                if len(found) == missing:
                    break
        return found

    def is_unsure(self, key: bytes) -> bool:
        """Whether a key is."""
        return not self.cleared and key in self._map and key not in self._sure

    def make_sure(self, key: bytes) -> None:
        """What is behind the memtable was looked up, or is to be counted otherwise."""
        if key in self._map:
            if not self.cleared:
                self._sure.add(key)
        else:
            self._sure.discard(key)

    def make_all_sure(self) -> None:
        """make_sure() of every key."""
        if not self.cleared:
            self._sure.update(self._map)

    def note(self, key: bytes, before: Stored | None, after: Stored) -> None:
        """Count a change of what the memtable says of a key; before None: nothing."""
        if before is not None and before is not GONE:
            self.keys -= 1
            self.volatile -= deadline_of(before) != 0
        if type(after) is bytes:
            self.keys += 1
        elif after is not GONE:
            self.keys += 1
            self.volatile += deadline_of(after) != 0

    def forget(self, key: bytes, before: Stored) -> None:
        """Count that the memtable says nothing of a key any more; a range deletion hides it."""
        self._sure.discard(key)
        if before is not GONE:
            self.keys -= 1
            self.volatile -= deadline_of(before) != 0


class Memtable:
    """One memtable. base: the last batch before it; last: its last batch, once it is frozen."""

    __slots__ = ("base", "last", "leaned_ms", "pins", "ranges", "spaces", "tallies")

    def __init__(self, base: int) -> None:
        self.base = base
        self.last = base
        self.leaned_ms = _NEVER_MS
        self.spaces: list[Space] = [Space() for _ in range(KEYSPACES)]
        self.ranges = RangeSet()
        self.tallies = [Tally(space.map) for space in self.spaces]
        self.pins = Pins()

    def __bool__(self) -> bool:
        """Whether anything is in it."""
        return bool(self.ranges) or any(space.map for space in self.spaces)

    def get(self, keyspace: int, key: bytes) -> Stored | None:
        """What it says of a key: a value, GONE, or None for nothing (B1)."""
        held = self.spaces[keyspace].map.get(key)
        if held is None and self.ranges and self.ranges.cover(keyspace, key):
            return GONE
        return held

    def lean_on(self, held: Stored) -> None:
        """A change of a key comes to be whose value is in what is held behind it (B5)."""
        deadline_ms = deadline_of(held)
        if deadline_ms:
            self.leaned_ms = min(self.leaned_ms, deadline_ms)

    def memory_bytes(self) -> int:
        """About what it takes, bytes."""
        return sum(space.data_bytes + KEY_OVERHEAD * len(space.map) for space in self.spaces)

    def windows(self, lock: Lock) -> Iterator[Window]:
        """All rows of a frozen memtable, in table order, tombstones included."""
        for keyspace, space in enumerate(self.spaces):
            for keys, held in space_columns(space, b"", None, None, lock, reverse=False):
                yield window_of(keyspace, keys, held, self.last)

    def rows(
        self, keyspace: int, start: bytes, stop: bytes | None, lock: Lock, *, reverse: bool = False
    ) -> Iterator[list[VersionRow]]:
        """The rows of [start, stop) of a frozen memtable, in order, tombstones included."""
        space = self.spaces[keyspace]
        return space_rows(space, keyspace, start, stop, None, self.last, lock, reverse=reverse)


def space_columns(
    space: Space,
    start: bytes,
    stop: bytes | None,
    position: int | None,
    lock: Lock,
    *,
    reverse: bool,
    first: int = SLICE_KEYS,
) -> Iterator[tuple[list[bytes], list[Stored]]]:
    """What a memtable's space says of [start, stop) at a position, None for the newest.

    In columns: (keys, what they hold), each ascending, also in reverse, where the later ones come
    first. lock: taken for each column. first: keys looked at for the first one; twice as many for
    the next, and so on.
    """
    limit = first
    while True:
        held: list[Stored | None]
        with lock:
            keys = space.order.chunk(start, stop, limit, reverse=reverse)
            # Without history nothing was changed since any position that a snapshot pins.
            if position is None or not space.history:
                held = list(map(space.map.get, keys))
            else:
                held = [space.get_at(key, position) for key in keys]
        last = keys[-1] if keys else b""
        is_last = len(keys) < limit
        if reverse:
            keys.reverse()
            held.reverse()
        if None in held:
            keys = [key for key, value in zip(keys, held, strict=True) if value is not None]
            held = [value for value in held if value is not None]
        if keys:
            yield keys, held  # type: ignore[misc]
        if is_last:
            return
        if reverse:
            stop = last
        else:
            start = last + b"\0"
        limit = min(2 * limit, SLICE_KEYS)


def space_rows(
    space: Space,
    keyspace: int,
    start: bytes,
    stop: bytes | None,
    position: int | None,
    sequence: int,
    lock: Lock,
    *,
    reverse: bool = False,
    first: int = SLICE_KEYS,
) -> Iterator[list[VersionRow]]:
    """The rows that a memtable's space says at a position, as a merge takes them.

    position: None for the newest. sequence: what the rows are given. lock: taken for each list.
    first: keys looked at for the first list; a scan that ends early should not pay for more.
    """
    limit = first
    while True:
        with lock:
            keys = space.order.chunk(start, stop, limit, reverse=reverse)
            if position is None:
                held = [(key, space.map.get(key)) for key in keys]
            else:
                held = [(key, space.get_at(key, position)) for key in keys]
        rows = [row_of(keyspace, key, value, sequence) for key, value in held if value is not None]
        if rows:
            yield rows
        if len(keys) < limit:
            return
        if reverse:
            stop = keys[-1]
        else:
            start = keys[-1] + b"\0"
        limit = SLICE_KEYS


def stored_of(row: VersionRow) -> Stored:
    """What a table's row holds, as a memtable would: a value, or GONE."""
    if row[4] == TOMBSTONE:
        return GONE
    if row[3] or row[4]:
        return Entry(row[2], row[3], row[4])
    return row[2]


def window_of(keyspace: int, keys: list[bytes], held: list[Stored], sequence: int) -> Window:
    """Rows of a memtable, as a flush takes them; >= 1."""
    if {*map(type, held)} == _BYTES:
        return Window(keyspace, keys, held, None, None, [sequence] * len(keys))  # type: ignore[arg-type]
    values: list[bytes] = []
    deadlines: list[int] = []
    types: list[int] = []
    for value in held:
        if isinstance(value, bytes):
            values.append(value)
            deadlines.append(0)
            types.append(0)
        else:
            values.append(value.value)
            deadlines.append(value.deadline_ms)
            types.append(value.type)
    return Window(
        keyspace,
        keys,
        values,
        deadlines if any(deadlines) else None,
        types if any(types) else None,
        [sequence] * len(keys),
    )


def is_seen(held: Stored, now_ms: int) -> bool:
    """Whether a reader sees what is held: it is there, and its deadline has not come by now_ms."""
    if isinstance(held, bytes):
        return True
    return held is not GONE and not 0 < held.deadline_ms <= now_ms


def row_of(keyspace: int, key: bytes, held: Stored, sequence: int) -> VersionRow:
    """What a memtable holds of a key, as a table's row."""
    if isinstance(held, bytes):
        return keyspace, key, held, 0, 0, sequence
    value, deadline_ms, type_ = entry_of(held)
    return keyspace, key, value, deadline_ms, type_, sequence
