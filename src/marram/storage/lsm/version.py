"""Which tables exist, and on which level: the listing that reads, flushes and compactions share.

Owns table descriptions, levels and edits; not the edits' bytes (edit.py), not files (sstable/) and
not what to do next (picker.py).

V1  a table is on one level: no number appears twice.
V2  a level from 1 on ascends, and no stored key is in the range of two of its tables. So it holds
    one row of a key at most, as each table does.
V3  level 0 is newest first, by (max_sequence, number); where the ranges of two of its tables
    meet, all that is in the one is newer than all that is in the other.
V4  of one key, whatever a level holds is newer than whatever a deeper level holds. So the first
    row found in read order is the newest. A listing cannot show this; the jobs keep it (job.py).
V5  a version never changes: apply() makes another one, which shares the levels left alone. So a
    snapshot is a version that somebody holds; a table's file has to stay while any version that
    is alive names it.
V6  what a version says of a blob is what its tables say: all that share one agree on its file, a
    value has one row that points to it, and a blob that no table points into is not in the version.

Stored keys are a keyspace byte and a key. Ranges of them are half-open, [start, stop), as
everywhere; the range of a table covers its rows and its range deletions, which have no last key.

Threading: frozen values and pure functions.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from marram.errors import InvalidArgument
from marram.storage.sstable.block import SEQUENCE_LIMIT, U64_LIMIT
from marram.storage.sstable.format import HEADER_SIZE

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

if not cython.compiled:  # else they are inlined
    from marram.coding.raw import order, view

LEVELS = 7
"""Level 0 takes the flushes, the last one holds most of the data."""

LAST_LEVEL = LEVELS - 1


def stop_after(key: bytes) -> bytes:
    """The stop of a range whose last stored key is `key`."""
    return key + b"\0"


BLOB_FOOTER_SIZE = 72
"""Of a blob's end, bytes (blob.py)."""


class BlobRef(NamedTuple):
    """A blob, and what points into it from one table, or from all tables of a version.

    number, size_bytes: of the file; stamp: random, as TableMeta.stamp. rows: how many point into
    it; live_bytes: of their values, as they are stored.
    """

    number: int
    size_bytes: int
    stamp: int
    rows: int
    live_bytes: int

    @property
    def data_bytes(self) -> int:
        """What all its values take, live or not."""
        return self.size_bytes - HEADER_SIZE - BLOB_FOOTER_SIZE

    @property
    def garbage_bytes(self) -> int:
        """What its values take that nothing points to."""
        return self.data_bytes - self.live_bytes


@dataclass(frozen=True, slots=True)
class TableMeta:
    """What is known of a table without opening it. Raises InvalidArgument where it cannot be.

    number: of the file; size_bytes: of the file. start, stop: the stored keys that its rows and
        range deletions are in, [start, stop).
    rows: tombstones included; tombstones: of them.
    min_sequence, max_sequence: of the rows and the range deletions.
    expirable_rows, expirable_bytes: rows with a deadline (tombstones have none), and the bytes
        of their keys and values; earliest_deadline_ms, latest_deadline_ms: of those rows. All
        four are 0 where no row has a deadline.
    range_deletions: how many; covered_bytes: about how much of deeper levels they hide
        (Version.enclosed_bytes).
    stamp: random, the same in the file; it tells this table from any other that was ever written
        under its number (compaction.check_table).
    blobs: what its rows point into, by ascending number.
    """

    number: int
    size_bytes: int
    start: bytes
    stop: bytes
    rows: int
    tombstones: int = 0
    min_sequence: int = 0
    max_sequence: int = 0
    expirable_rows: int = 0
    expirable_bytes: int = 0
    earliest_deadline_ms: int = 0
    latest_deadline_ms: int = 0
    range_deletions: int = 0
    covered_bytes: int = 0
    stamp: int = 0
    blobs: tuple[BlobRef, ...] = ()

    def __post_init__(self) -> None:
        if not (0 <= self.number < U64_LIMIT and 1 <= self.size_bytes < U64_LIMIT):
            raise InvalidArgument(f"no table: number {self.number}, {self.size_bytes} bytes")
        if not b"" < self.start < self.stop:
            self._refuse(f"a range from {self.start[:32]!r} to {self.stop[:32]!r}")
        counts = (self.rows, self.tombstones, self.expirable_rows)
        if min(counts) < 0 or max(counts) >= U64_LIMIT:
            self._refuse("counts out of range")
        if self.tombstones + self.expirable_rows > self.rows:
            self._refuse("more rows of a kind than rows")
        if not 0 <= self.min_sequence <= self.max_sequence < SEQUENCE_LIMIT:
            self._refuse(f"sequences from {self.min_sequence} to {self.max_sequence}")
        deadlines = (self.earliest_deadline_ms, self.latest_deadline_ms)
        if self.expirable_rows:
            if not (0 < deadlines[0] <= deadlines[1] < U64_LIMIT) or not (
                0 <= self.expirable_bytes < U64_LIMIT
            ):
                self._refuse("deadlines out of range")
        elif self.expirable_bytes or any(deadlines):
            self._refuse("deadlines of no rows")
        if not 0 <= self.range_deletions < U64_LIMIT or not 0 <= self.covered_bytes < U64_LIMIT:
            self._refuse("range deletions out of range")
        if self.covered_bytes and not self.range_deletions:
            self._refuse("range deletions that are none")
        if not 0 <= self.stamp < U64_LIMIT:
            self._refuse(f"the stamp {self.stamp}")
        if not self.rows and not self.range_deletions:
            self._refuse("nothing in it")
        if self.blobs:
            self._check_blobs()

    def _check_blobs(self) -> None:
        numbers = [ref.number for ref in self.blobs]
        if numbers != sorted(set(numbers)):
            self._refuse("blobs out of order")
        if sum(ref.rows for ref in self.blobs) > self.rows - self.tombstones:
            self._refuse("more pointers than rows")
        for ref in self.blobs:
            if self.number == ref.number or not all(0 <= field < U64_LIMIT for field in ref):
                self._refuse(f"a blob {tuple(ref)}")
            if not (ref.rows > 0 and 0 < ref.live_bytes <= ref.data_bytes):
                self._refuse(f"{ref.rows} pointers, {ref.live_bytes} bytes, into blob {ref.number}")

    def _refuse(self, what: str) -> None:
        raise InvalidArgument(f"table {self.number} cannot have {what}")

    def overlaps(self, start: bytes, stop: bytes | None) -> bool:
        """Whether its range meets [start, stop); stop None for no bound."""
        return start < self.stop and (stop is None or self.start < stop)

    def expired_rows(self, now_ms: int) -> int:
        """How many rows are past their deadline at now_ms.

        Exact where that is all or none of the expirable ones. In between deadlines are taken to
        be spread evenly, and at least one row, the earliest, is past.
        """
        return self._expired(self.expirable_rows, now_ms)

    def expired_bytes(self, now_ms: int) -> int:
        """The bytes of those rows, likewise."""
        return self._expired(self.expirable_bytes, now_ms)

    def _expired(self, whole: int, now_ms: int) -> int:
        if not self.expirable_rows or now_ms < self.earliest_deadline_ms:
            return 0
        if now_ms >= self.latest_deadline_ms:
            return whole
        span = self.latest_deadline_ms - self.earliest_deadline_ms
        share = whole * (now_ms - self.earliest_deadline_ms) // span
        return min(whole, max(1, share))

    @property
    def blob_bytes(self) -> int:
        """What the values take that its rows point to."""
        return sum(ref.live_bytes for ref in self.blobs) if self.blobs else 0

    def is_dead(self) -> bool:
        """Whether every row is a tombstone."""
        return self.tombstones == self.rows

    def is_expired(self, now_ms: int) -> bool:
        """Whether all rows are past their deadline at now_ms, but for tombstones; exact.

        False where all are tombstones.
        """
        is_all = self.tombstones + self.expirable_rows == self.rows
        return is_all and 0 < self.latest_deadline_ms <= now_ms


Slot = tuple[int, bool]
"""Of a table: its number, and whether it has range deletions."""


class Level:
    """The tables of one level in their order, and what lookups bisect. Immutable (V5).

    tables: ascending (V2), or newest first where `ordered` is False: level 0 (V3).
    size_bytes, rows, tombstones, expirable_rows, range_deletions, covered_bytes: sums over the
        tables.
    """

    __slots__ = (
        "_bytes_before", "_slots", "_starts", "_stops", "covered_bytes", "expirable_rows",
        "ordered", "range_deletions", "rows", "size_bytes", "tables", "tombstones",
    )  # fmt: skip

    def __init__(self, tables: Iterable[TableMeta], *, ordered: bool) -> None:
        """Sorts. Raises InvalidArgument: tables that cannot share a level (V2, V3)."""
        self.ordered = ordered
        if ordered:
            self.tables = tuple(sorted(tables, key=_by_start))
            _check_disjoint(self.tables)
        else:
            self.tables = tuple(sorted(tables, key=_by_age, reverse=True))
            _check_ages(self.tables)
        self._starts = [table.start for table in self.tables]
        self._stops = [table.stop for table in self.tables]
        self._slots = [(table.number, table.range_deletions > 0) for table in self.tables]
        self._bytes_before = [0, *accumulate(table.size_bytes for table in self.tables)]
        self.size_bytes = self._bytes_before[-1]
        self.rows = sum(table.rows for table in self.tables)
        self.tombstones = sum(table.tombstones for table in self.tables)
        self.expirable_rows = sum(table.expirable_rows for table in self.tables)
        self.range_deletions = sum(table.range_deletions for table in self.tables)
        self.covered_bytes = sum(table.covered_bytes for table in self.tables)

    def __len__(self) -> int:
        return len(self.tables)

    def holding(self, key: bytes) -> Sequence[TableMeta]:
        """The tables whose range has a stored key, newest first. O(log n), at most one; level 0
        O(n)."""
        if not self.ordered:
            return [t for t in self.tables if t.start <= key < t.stop]
        at = _first_after(self._stops, key)
        if at < len(self._starts) and self._starts[at] <= key:
            return self.tables[at : at + 1]
        return ()

    def slots(self, key: bytes) -> Sequence[Slot]:
        """holding(), of each table what a look-up needs.

        Hot: every point read that misses the memtables asks each level; interpreted, all seven take
        1.7 us with 1800 tables, 2 us with 35000; compiled a fifth.
        """
        if not self.ordered:
            if cython.compiled:
                return self._slots_around(key)
            spans = zip(self._slots, self._starts, self._stops, strict=True)
            return [slot for slot, start, stop in spans if start <= key < stop]
        at = _first_after(self._stops, key)
        if at < len(self._starts) and self._starts[at] <= key:
            return (self._slots[at],)
        return ()

    def _slots_around(self, key: bytes) -> list[Slot]:
        """slots() of level 0, fast compiled."""
        wanted, size = view(key, 0, len(key)), len(key)
        found: list[Slot] = []
        for at in range(len(self._starts)):
            start, stop = self._starts[at], self._stops[at]
            if (
                order(view(start, 0, len(start)), len(start), wanted, size) <= 0
                and order(view(stop, 0, len(stop)), len(stop), wanted, size) > 0
            ):
                found.append(self._slots[at])
        return found

    def span(self, start: bytes, stop: bytes | None) -> tuple[int, int]:
        """Indexes [first, end) of the tables that meet [start, stop); None: no bound. O(log n).

        Only for an ordered level: in level 0 they need not be neighbours.
        """
        assert self.ordered
        first = bisect_right(self._stops, start)
        end = bisect_left(self._starts, stop, first) if stop is not None else len(self._starts)
        return first, end

    def overlapping(self, start: bytes, stop: bytes | None) -> tuple[TableMeta, ...]:
        """The tables that meet [start, stop), in the level's order; stop None for no bound."""
        if not self.ordered:
            return tuple(t for t in self.tables if t.overlaps(start, stop))
        first, end = self.span(start, stop)
        return self.tables[first:end]

    def overlaps(self, start: bytes, stop: bytes | None) -> bool:
        """Whether any table meets [start, stop)."""
        if not self.ordered:
            return any(t.overlaps(start, stop) for t in self.tables)
        first, end = self.span(start, stop)
        return first < end

    def bytes_between(self, first: int, end: int) -> int:
        """The size of the tables with indexes [first, end), bytes. O(1)."""
        return self._bytes_before[end] - self._bytes_before[first]


def _first_after(keys: list[bytes], key: bytes) -> int:
    """bisect_right(), of bytes."""
    if not cython.compiled:
        return bisect_right(keys, key)
    wanted, size = view(key, 0, len(key)), len(key)
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) >> 1
        found = keys[middle]
        if order(view(found, 0, len(found)), len(found), wanted, size) <= 0:
            low = middle + 1
        else:
            high = middle
    return low


def _by_start(table: TableMeta) -> bytes:
    return table.start


def _by_age(table: TableMeta) -> tuple[int, int]:
    return table.max_sequence, table.number


def _check_disjoint(tables: Sequence[TableMeta]) -> None:
    for left, right in pairwise(tables):
        if left.stop > right.start:
            raise InvalidArgument(
                f"tables {left.number} and {right.number} share keys on an ordered level (V2)"
            )


def _check_ages(tables: Sequence[TableMeta]) -> None:
    """Check V3. Sequence ranges seldom meet, so this is about linear."""
    for at, newer in enumerate(tables):
        for older in tables[at + 1 :]:
            if older.max_sequence < newer.min_sequence:
                break  # and so are all that follow: they descend by max_sequence
            if older.overlaps(newer.start, newer.stop):
                raise InvalidArgument(
                    f"tables {newer.number} and {older.number} on level 0 share keys, and neither"
                    " is newer (V3)"
                )


@dataclass(frozen=True, slots=True)
class VersionEdit:
    """A change of a version, all or nothing: first `removed` go, then `added` come.

    added: (level, table); removed: (level, number). A table that moves is in both.
    """

    added: tuple[tuple[int, TableMeta], ...] = ()
    removed: tuple[tuple[int, int], ...] = ()


class Version:
    """The tables of a tree at one moment (V1 to V6).

    levels: LEVELS of them; each a Level. occupied: those that have tables, for look-ups: most
    levels of most trees are empty. blobs: what all tables together point into, by number.
    """

    # Weak references find the versions that are alive (V5).
    __slots__ = ("__weakref__", "_level_of", "blobs", "levels", "occupied")

    levels: tuple[Level, ...]
    occupied: tuple[Level, ...]
    blobs: Mapping[int, BlobRef]
    _level_of: dict[int, int]  # table number -> level

    def __init__(self) -> None:
        """No tables; others come from apply()."""
        self._take(tuple([Level((), ordered=level > 0) for level in range(LEVELS)]), {}, {})

    def __len__(self) -> int:
        """How many tables there are."""
        return len(self._level_of)

    @property
    def size_bytes(self) -> int:
        """The size of all tables, without blobs."""
        return sum(level.size_bytes for level in self.levels)

    @property
    def rows(self) -> int:
        """The rows of all tables, tombstones and what is replaced included."""
        return sum([level.rows for level in self.occupied])

    def level_of(self, number: int) -> int | None:
        """Which level a table is on; None where there is no such table."""
        return self._level_of.get(number)

    def has_file(self, number: int) -> bool:
        """Whether a table or a blob has that number."""
        return number in self._level_of or number in self.blobs

    @property
    def blob_bytes(self) -> int:
        """The size of all blobs."""
        return sum(ref.size_bytes for ref in self.blobs.values())

    def holding(self, key: bytes) -> Iterator[TableMeta]:
        """The tables that may hold a stored key, in read order: newest first (V4)."""
        for level in self.occupied:
            yield from level.holding(key)

    def runs(self, start: bytes, stop: bytes) -> list[Sequence[TableMeta]]:
        """The tables that meet [start, stop), newest first, as runs: of one that ascends, each
        goes on where the one before ends."""
        found: list[Sequence[TableMeta]] = []
        for level in self.occupied:
            tables = level.overlapping(start, stop)
            if not level.ordered:
                found += [(table,) for table in tables]
            elif tables:
                found.append(tables)
        return found

    def overlaps_below(self, level: int, start: bytes, stop: bytes) -> bool:
        """Whether a level deeper than `level` has tables that meet [start, stop)."""
        return any(deeper.overlaps(start, stop) for deeper in self.levels[level + 1 :])

    def enclosed_bytes(self, level: int, start: bytes, stop: bytes) -> int:
        """The size of the tables on levels deeper than `level` that lie within [start, stop)."""
        total = 0
        for deeper in self.levels[level + 1 :]:
            first, end = deeper.span(start, stop)
            # Only the outermost ones can reach beyond.
            first += first < end and deeper.tables[first].start < start
            end -= first < end and deeper.tables[end - 1].stop > stop
            total += deeper.bytes_between(first, end)
        return total

    def apply(self, edit: VersionEdit) -> Version:
        """The version after an edit; this one stays. O(tables) of the levels that change.

        Raises InvalidArgument: the edit removes what is not there, adds what is there, or breaks
        V1, V2, V3 or V6.
        """
        level_of = dict(self._level_of)
        gone: dict[int, set[int]] = {}
        for level, number in edit.removed:
            if not 0 <= level < LEVELS or level_of.get(number) != level:
                raise InvalidArgument(f"level {level} has no table {number} to remove")
            del level_of[number]
            gone.setdefault(level, set()).add(number)
        new: dict[int, list[TableMeta]] = {}
        for level, table in edit.added:
            if not 0 <= level < LEVELS:
                raise InvalidArgument(f"there is no level {level}")
            if table.number in level_of:
                raise InvalidArgument(f"table {table.number} is added twice (V1)")
            level_of[table.number] = level
            new.setdefault(level, []).append(table)
        levels = list(self.levels)
        for level in gone.keys() | new.keys():
            stay = gone.get(level, set())
            kept = [t for t in levels[level].tables if t.number not in stay]
            levels[level] = Level([*kept, *new.get(level, ())], ordered=level > 0)
        blobs = self._blobs_after(gone, new)
        if not level_of.keys().isdisjoint(blobs):
            raise InvalidArgument("a table and a blob of one number (V1)")
        version = Version.__new__(Version)
        version._take(tuple(levels), level_of, blobs)
        return version

    def _take(
        self, levels: tuple[Level, ...], level_of: dict[int, int], blobs: Mapping[int, BlobRef]
    ) -> None:
        self.levels = levels
        self.occupied = tuple([level for level in levels if level.tables])
        self._level_of = level_of
        self.blobs = blobs

    def _blobs_after(
        self, gone: Mapping[int, set[int]], new: Mapping[int, Sequence[TableMeta]]
    ) -> Mapping[int, BlobRef]:
        """The blobs once tables are gone, and new ones there; both by level."""
        less = [
            ref
            for level, numbers in gone.items()
            for table in self.levels[level].tables
            if table.blobs and table.number in numbers
            for ref in table.blobs
        ]
        more = [ref for tables in new.values() for table in tables for ref in table.blobs]
        if not (less or more):
            return self.blobs
        blobs = dict(self.blobs)
        for sign, refs in ((1, more), (-1, less)):
            for ref in refs:
                held = blobs.get(ref.number, ref._replace(rows=0, live_bytes=0))
                if held[:3] != ref[:3]:
                    raise InvalidArgument(f"tables do not agree on blob {ref.number} (V6)")
                blobs[ref.number] = held._replace(
                    rows=held.rows + sign * ref.rows,
                    live_bytes=held.live_bytes + sign * ref.live_bytes,
                )
        for number in {ref.number for ref in (*less, *more)}:
            after = blobs[number]
            if not after.rows and not after.live_bytes:
                del blobs[number]
            elif not (after.rows > 0 and 0 < after.live_bytes <= after.data_bytes):
                raise InvalidArgument(f"{after.live_bytes} bytes are used of blob {number} (V6)")
        return blobs

    def listing(self) -> VersionEdit:
        """The edit that makes this version out of an empty one."""
        return VersionEdit(
            tuple((n, table) for n, level in enumerate(self.levels) for table in level.tables)
        )

    def _check(self) -> None:
        """Assert V1, V2, V3 and V6, and that sums and lookups agree with the tables."""
        numbers = [table.number for level in self.levels for table in level.tables]
        assert len(self.levels) == LEVELS
        assert self.occupied == tuple(level for level in self.levels if level.tables)
        assert len(set(numbers)) == len(numbers) == len(self)
        for n, level in enumerate(self.levels):
            assert level.ordered == (n > 0)
            assert all(self.level_of(table.number) == n for table in level.tables)
            assert level.size_bytes == sum(table.size_bytes for table in level.tables)
            assert level.rows == sum(table.rows for table in level.tables)
            for newer, older in pairwise(level.tables):
                if n:
                    assert newer.stop <= older.start
                else:
                    assert _by_age(newer) > _by_age(older)
            for at, table in enumerate(level.tables):
                for other in level.tables[at + 1 :] if not n else ():
                    if table.overlaps(other.start, other.stop):
                        assert table.min_sequence > other.max_sequence
                assert table in level.holding(table.start)
                assert table not in level.holding(table.stop)
        sums: dict[int, tuple[int, int]] = {}
        for ref in (ref for level in self.levels for t in level.tables for ref in t.blobs):
            rows, live_bytes = sums.get(ref.number, (0, 0))
            sums[ref.number] = rows + ref.rows, live_bytes + ref.live_bytes
            assert self.blobs[ref.number][:3] == ref[:3]
        assert {n: (ref.rows, ref.live_bytes) for n, ref in self.blobs.items()} == sums
