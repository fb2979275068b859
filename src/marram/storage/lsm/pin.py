"""Reading a range of the lsm engine: at a pinned position, or the newest.

Owns laying memtables and tables over each other for scans, and the snapshot's view; not look-ups in
tables (tables.py) and not the merge (merge.py).

N1  a pin holds the memtables and the version there were: flushes and compactions that come later
    change nothing it reads, and its tables' files stay. The price is memory and disk for as long
    as it lives.
N2  of the memtable that was active then, it reads the versions of its position.

Threading: a scan takes the lock it is given for each list of a memtable; without a lock only on the
one thread that writes, or under the store's lock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING

from marram.errors import InvalidArgument
from marram.storage.engine import SLICE_KEYS, Lock, Rows
from marram.storage.entry import Entry, Stored, is_expired
from marram.storage.lsm.coverage import Coverage
from marram.storage.lsm.memtable import GONE, Memtable, RangeSet, space_rows
from marram.storage.lsm.merge import NOTHING, Source, merge_versions
from marram.storage.lsm.overlay import Part, overlay, space_columns
from marram.storage.lsm.tables import Tables
from marram.storage.lsm.version import Version
from marram.storage.memory.space import Space
from marram.storage.sstable.block import SEQUENCE_LIMIT, VersionRow, stored_key
from marram.storage.sstable.ranges import RangeDeletion

if TYPE_CHECKING:
    from marram.storage.lsm.engine import Tree

_NO_LOCK = contextlib.nullcontext()
_EMPTY = Version()

# What rows of an active memtable are given: it has no last batch yet, and hides none of its own.
_NEWEST = SEQUENCE_LIMIT - 1

# Scans of fewer rows at a time than that are taken for short ones.
_SHORT = SLICE_KEYS

# What a short scan takes of a memtable at first, keys, at least.
_SHARE_MIN = 8

# How many rows are compared to see whether a range was changed, with the lock held; if there are
# more it is taken for changed.
_COMPARED_ROWS = 20_000

_DEADLINE = itemgetter(3)
_TYPE = itemgetter(4)


class LsmPin:
    """The state at one position; an engine.Pin. Release it with LsmEngine.release().

    numbers: which physical keyspace each logical one was; memtable: the one that was active;
    spaces: its spaces then; course: the engine's.
    """

    __slots__ = (
        "_frozen", "_ranges", "_tables", "_version", "course", "memtable", "numbers", "position",
        "spaces",
    )  # fmt: skip

    def __init__(
        self,
        tables: Tables,
        active: Memtable,
        frozen: tuple[Memtable, ...],
        version: Version,
        numbers: tuple[int, ...],
        position: int,
        course: int = 0,
    ) -> None:
        self.course = course
        self._tables = tables
        self._frozen = frozen
        self._version = version
        self._ranges = active.ranges
        self.memtable = active
        self.spaces: tuple[Space, ...] = tuple(active.spaces)
        self.numbers = numbers
        self.position = position

    def let_go(self) -> None:
        """It was released: let files and memtables go, even where somebody keeps the pin."""
        self._frozen = ()
        self._version = _EMPTY

    def __len__(self) -> int:
        """About how many keys it shows: a key that was replaced counts again."""
        memtables = [self.spaces, *(memtable.spaces for memtable in self._frozen)]
        rows = sum(len(space.map) for spaces in memtables for space in spaces)
        return rows + sum(level.rows - level.tombstones for level in self._version.levels)

    def get(self, keyspace: int, key: bytes) -> Stored | None:
        """What the key held at the position, expired or not. Raises Corruption, OSError."""
        physical = self.numbers[keyspace]
        held = self.spaces[physical].get_at(key, self.position)
        if held is None and self._ranges and self._ranges.cover(physical, key):
            return None
        if held is None:
            held = self._behind(physical, key)
        self._check_held()
        return None if held is GONE else held

    def get_many(self, keyspace: int, keys: Sequence[bytes]) -> list[Stored | None]:
        """get() of each, in their order; each block of a table is read once."""
        physical = self.numbers[keyspace]
        space, position = self.spaces[physical], self.position
        if space.map or space.history:
            first = [space.get_at(key, position) for key in keys]
        else:
            first = [None] * len(keys)
        found = lay_under(
            self._tables.find_many, keys, first, self._ranges, self._frozen, self._version, physical
        )
        self._check_held()
        return found

    def chunk(
        self,
        keyspace: int,
        start: bytes,
        stop: bytes | None,
        limit: int,
        now_ms: int,
        *,
        reverse: bool = False,
    ) -> tuple[Rows, bytes | None]:
        """One slice of a range: (at most `limit` rows not expired, where the next one goes on)."""
        scan = self.scan(keyspace, start, stop, now_ms, reverse=reverse, chunk=limit, lock=_NO_LOCK)
        found: Rows = []
        for rows in scan:
            found += rows
            if len(found) >= limit:
                del found[limit:]
                return found, found[-1][0] if reverse else found[-1][0] + b"\0"
        return found, None

    def scan(
        self,
        keyspace: int,
        start: bytes,
        stop: bytes | None,
        now_ms: int,
        *,
        reverse: bool = False,
        chunk: int,
        lock: Lock,
    ) -> Iterator[Rows]:
        """All rows of a range not expired at now_ms, in lists of 1 to `chunk`."""
        physical = self.numbers[keyspace]
        version = self._version  # held: blobs are read after what let_go() leaves
        found = seen(
            self._tables, self.spaces[physical], self._ranges, self._frozen, version,
            physical, start, stop, self.position, now_ms, lock, wanted=chunk, reverse=reverse,
        )  # fmt: skip
        left: Rows = []
        for rows in found:
            left = left + rows if left else rows
            while len(left) >= chunk:
                yield from self._with_values(version, left[:chunk])
                left = left[chunk:]
        if left:
            yield from self._with_values(version, left)

    # -- what was written since --------------------------------------------------------------------

    def key_changed(self, tree: Tree, keyspace: int, key: bytes, now_ms: int) -> bool:
        """Whether a key was written after the pin; tree, now_ms: as it is now."""
        physical = self.numbers[keyspace]
        if self._changed_there(physical, key, key + b"\0"):
            return True
        for memtable in tree.memtables:
            if memtable is self.memtable:
                return False
            if memtable.get(physical, key) is not None:
                return True
        # The pin's memtable was flushed, maybe others since. A tombstone may be gone by now.
        newest = self._tables.newest_sequence(tree.version, physical, key)
        if newest > self.memtable.last:
            return True
        then = self.get(keyspace, key)
        now = self._tables.find(tree.version, physical, key, False)
        was_there = then is not None and not is_expired(then, now_ms)
        is_there = now is not None and now is not GONE and not is_expired(now, now_ms)
        return was_there != is_there

    def range_changed(
        self, tree: Tree, keyspace: int, start: bytes, stop: bytes | None, now_ms: int
    ) -> bool:
        """Whether any key of [start, stop) was written after the pin, or may have been."""
        physical = self.numbers[keyspace]
        if self._changed_there(physical, start, stop):
            return True
        for memtable in tree.memtables:
            if memtable is self.memtable:
                return False
            if memtable.spaces[physical].order.chunk(start, stop, 1):
                return True
            if memtable.ranges.cover_since(physical, start, stop, -1):
                return True
        low, high = bounds(physical, start, stop)
        is_suspect = any(
            self._version.level_of(table.number) is None
            and (n > 0 or table.max_sequence > self.memtable.last)
            for n, level in enumerate(tree.version.levels)
            for table in level.overlapping(low, high)
        )
        return is_suspect and self._rows_changed(tree, keyspace, start, stop, now_ms)

    def _rows_changed(
        self, tree: Tree, keyspace: int, start: bytes, stop: bytes | None, now_ms: int
    ) -> bool:
        """range_changed(), by looking at the rows; so it is where there are too many of them."""
        physical = self.numbers[keyspace]
        rows = merged(
            self._tables, (), tree.version, physical, start, stop, now_ms, _NO_LOCK,
            first=iter(()), ranges=(), reverse=False, short=False,
        )  # fmt: skip
        keys: list[bytes] = []
        for found in rows:
            if any(row[5] > self.memtable.last for row in found):
                return True
            keys += [row[1] for row in found]
            if len(keys) > _COMPARED_ROWS:
                return True
        before: list[bytes] = []
        for pairs in seen(
            self._tables, self.spaces[physical], self._ranges, self._frozen, self._version,
            physical, start, stop, self.position, now_ms, _NO_LOCK,
            wanted=SLICE_KEYS, reverse=False,
        ):  # fmt: skip
            before += [key for key, _ in pairs]
            if len(before) > len(keys):
                return True
        return before != keys

    def _changed_there(self, physical: int, start: bytes, stop: bytes | None) -> bool:
        """Whether the memtable that was active had a change in [start, stop) after the pin."""
        memtable = self.memtable
        if memtable.spaces[physical] is not self.spaces[physical]:
            return True
        if memtable.ranges.cover_since(physical, start, stop, self.position):
            return True
        space = self.spaces[physical]
        if stop == start + b"\0":
            return space.changed_since(start, self.position)
        return space.range_changed_since(start, stop, self.position)

    def _check_held(self) -> None:
        """What was read is good only if the pin still held all of it. Raises InvalidArgument."""
        if self._version is _EMPTY:
            raise InvalidArgument("the snapshot is closed")

    def _with_values(self, version: Version, rows: Rows) -> Iterable[Rows]:
        return self._tables.with_values(version, rows, len(rows)) if version.blobs else (rows,)

    def _behind(self, physical: int, key: bytes) -> Stored | None:
        for memtable in self._frozen:
            held = memtable.get(physical, key)
            if held is not None:
                return held
        return self._tables.find(self._version, physical, key)


def lay_under(
    find_many: Callable[[Version, int, list[bytes]], dict[bytes, Stored]],
    keys: Sequence[bytes],
    found: list[Stored | None],
    ranges: RangeSet,
    frozen: tuple[Memtable, ...],
    version: Version,
    physical: int,
) -> list[Stored | None]:
    """`found` with what is behind a memtable for the keys that it says nothing of.

    find_many: the tables'. found: what the memtable says of each of `keys`, GONE included; changed
    and returned, with None for what is gone. ranges: the memtable's.
    """
    left = [at for at, held in enumerate(found) if held is None]
    if left and ranges.deletions:
        left = [at for at in left if not ranges.cover(physical, keys[at])]
    for memtable in frozen:
        for at in left:
            found[at] = memtable.get(physical, keys[at])
        left = [at for at in left if found[at] is None]
    if left:
        behind = find_many(version, physical, [keys[at] for at in left])
        for at in left:
            found[at] = behind.get(keys[at])
    return [None if held is GONE else held for held in found] if GONE in found else found


def newest_rows(
    tables: Tables,
    active: Memtable,
    frozen: tuple[Memtable, ...],
    version: Version,
    physical: int,
    start: bytes,
    stop: bytes | None,
    limit: int,
    reverse: bool,
    *,
    keys_only: bool = False,
) -> Rows:
    """Up to `limit` rows of [start, stop) at the newest state, expired ones included.

    keys_only: what the keys hold is not asked for, and may be a pointer (blob.py).
    """
    if limit <= 0:
        return []
    found: Rows = []
    for rows in seen(
        tables, active.spaces[physical], active.ranges, frozen, version, physical, start, stop,
        None, 0, _NO_LOCK, wanted=limit, reverse=reverse,
    ):  # fmt: skip
        if version.blobs and not keys_only:
            for portion in tables.with_values(version, rows[: limit - len(found)], limit):
                found += portion
        else:
            found += rows
        if len(found) >= limit:
            del found[limit:]
            break
    return found


def seen(
    tables: Tables,
    space: Space,
    ranges: RangeSet,
    frozen: tuple[Memtable, ...],
    version: Version,
    physical: int,
    start: bytes,
    stop: bytes | None,
    position: int | None,
    now_ms: int,
    lock: Lock,
    *,
    wanted: int,
    reverse: bool,
) -> Iterator[Rows]:
    """The rows of [start, stop) that are seen, in lists that are not empty; with pointers to
    values in blobs.

    space, ranges: of the memtable in front of `frozen`, read at a position, None for the newest.
    wanted: how many rows the caller may want; few of them are not made to pay for many.
    """
    if stop is not None and start >= stop:
        return iter(())
    low, high = bounds(physical, start, stop)
    first = most = min(wanted, SLICE_KEYS)
    is_plain = not ranges.deletions and not any(m.ranges.deletions for m in frozen)
    if is_plain and not tables.ranges(version, low, high):
        behind = tables.parts(
            version, low, high, reverse=reverse, first=first if wanted < _SHORT else 0
        )
        if behind and wanted < _SHORT:
            first = _share(first, space, version)
        sources: list[Iterator[Part]] = [
            space_columns(held, start, stop, at, lock, reverse=reverse, first=first)
            for held, at in [(space, position), *((m.spaces[physical], None) for m in frozen)]
            if _has_keys(held, start, stop, lock)
        ]
        return overlay(sources + behind, now_ms, reverse=reverse, most=most)
    newest = space_rows(
        space, physical, start, stop, position, _NEWEST, lock, reverse=reverse, first=first
    )
    merge = merged(
        tables, frozen, version, physical, start, stop, now_ms, lock,
        first=newest, ranges=ranges.deletions, reverse=reverse, short=wanted < _SHORT,
    )  # fmt: skip
    return map(_rows, merge)


def _share(wanted: int, space: Space, version: Version) -> int:
    """How many of `wanted` rows may be in a memtable's space, where tables are behind it."""
    here = len(space.map)
    return max(_SHARE_MIN, wanted * here // (here + version.rows) * 5 // 4)


def _has_keys(space: Space, start: bytes, stop: bytes | None, lock: Lock) -> bool:
    """Whether a memtable's space has any key of [start, stop), deleted ones included.

    What comes later, no reader sees who is there already.
    """
    if not space.order:
        return False
    with lock:
        return bool(space.order.chunk(start, stop, 1))


def count_rows(
    tables: Tables,
    memtables: Sequence[Memtable],
    version: Version,
    physical: int,
    now_ms: int = 0,
) -> tuple[int, int]:
    """(keys, keys with a deadline) that are seen from memtables, newest first, and a version.

    now_ms: those past their deadline by then do not count; 0: all do. Reads everything.
    """
    keys = volatile = 0
    first: Source = iter(())
    ranges: tuple[RangeDeletion, ...] = ()
    if memtables:
        newest = memtables[0]
        first = space_rows(newest.spaces[physical], physical, b"", None, None, _NEWEST, _NO_LOCK)
        ranges = newest.ranges.deletions
    for rows in merged(
        tables, tuple(memtables[1:]), version, physical, b"", None, now_ms, _NO_LOCK,
        first=first, ranges=ranges, reverse=False, short=False,
    ):  # fmt: skip
        keys += len(rows)
        volatile += sum(map(bool, map(_DEADLINE, rows)))
    return keys, volatile


def merged(
    tables: Tables,
    frozen: tuple[Memtable, ...],
    version: Version,
    physical: int,
    start: bytes,
    stop: bytes | None,
    now_ms: int,
    lock: Lock,
    *,
    first: Source,
    ranges: Sequence[RangeDeletion],
    reverse: bool,
    short: bool,
) -> Iterator[list[VersionRow]]:
    """The rows of [start, stop) that are seen; first, ranges: of what is in front of `frozen`."""
    if stop is not None and start >= stop:
        return iter(())
    low, high = bounds(physical, start, stop)
    sources = [first]
    sources += [memtable.rows(physical, start, stop, lock, reverse=reverse) for memtable in frozen]
    sources += tables.sources(version, low, high, reverse=reverse, short=short)
    # What hides the rows of a frozen memtable is newer than all of it: see Memtable.last.
    deletions = [
        *ranges,
        *(
            deletion._replace(sequence=memtable.last)
            for memtable in frozen
            for deletion in memtable.ranges.deletions
        ),
        *tables.ranges(version, low, high),
    ]
    coverage = Coverage(deletions) if deletions else NOTHING
    return merge_versions(sources, now_ms, coverage=coverage, reverse=reverse)


def pick_key(tree: Tree, tables: Tables, physical: int, index: int) -> bytes:
    """A key in about the place `index` among all rows, counted one source after the other."""
    sources: list[tuple[int, object]] = [
        (len(memtable.spaces[physical].order), memtable.spaces[physical])
        for memtable in tree.memtables
    ]
    metas = [
        meta
        for level in tree.version.levels
        for meta in level.tables
        if meta.start[0] == physical and meta.rows
    ]
    total = sum(size for size, _ in sources) + sum(meta.rows for meta in metas)
    at = index % max(1, total)
    for size, space in sources:
        if at < size:
            assert isinstance(space, Space)
            return space.order.at(at)
        at -= size
    for meta in metas:
        if at < meta.rows:
            return tables.get(meta).key_at(at)[1:]
        at -= meta.rows
    return b""


def bounds(physical: int, start: bytes, stop: bytes | None) -> tuple[bytes, bytes]:
    """[start, stop) of a keyspace, as stored keys."""
    low = stored_key(physical, start)
    return low, bytes((physical + 1,)) if stop is None else stored_key(physical, stop)


def _rows(rows: list[VersionRow]) -> Rows:
    """What readers get of rows that are seen."""
    if any(map(_DEADLINE, rows)) or any(map(_TYPE, rows)):
        return [
            (row[1], Entry(row[2], row[3], row[4]) if row[3] or row[4] else row[2]) for row in rows
        ]
    return [(row[1], row[2]) for row in rows]
