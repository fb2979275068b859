"""The tables of a tree, for reading: look-ups, scans, and when a file may go.

Owns opening tables (through cache.py) and checking that each is the one the manifest means, the
order in which they are asked, and which files no version names any more; not which tables make a
version (version.py) nor what is in front of them (memtable.py).

G1  a look-up asks tables newest first, so what it finds first is the newest row.
G2  a file is removed only when no live version names it: who reads holds the version.
G3  a table that is not what its description says is Corruption, never an answer.

Threading: any thread.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, repeat
from weakref import WeakSet

from marram.env.api import Env
from marram.errors import Corruption
from marram.storage import layout
from marram.storage.engine import Rows
from marram.storage.entry import Entry, Stored
from marram.storage.lsm.blob import is_pointed
from marram.storage.lsm.blobs import OpenBlobs
from marram.storage.lsm.cache import BlockCache, CacheStats, RowCache, TableCache
from marram.storage.lsm.compaction import check_table
from marram.storage.lsm.memtable import GONE, stored_of
from marram.storage.lsm.merge import Source
from marram.storage.lsm.overlay import Part
from marram.storage.lsm.version import TableMeta, Version, stop_after
from marram.storage.sstable.block import TOMBSTONE, Columns, stored_key
from marram.storage.sstable.filter import Probe, probe_of
from marram.storage.sstable.ranges import RangeDeletion
from marram.storage.sstable.reader import Table

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

# One part in so many of the block cache's memory is for single rows.
_ROW_CACHE_SHARE = 4
# The rows that each of several sources has for the first list of a short scan, at least.
_SHARE_MIN = 4

_logger = logging.getLogger("marram.lsm")


class Tables:
    """All tables that live versions name, and those that are to be removed."""

    __slots__ = (
        "_blocks", "_cache", "_directory", "_env", "_lock", "_metas", "_obsolete", "_open_blobs",
        "_removing", "_row_cache", "_versions",
    )  # fmt: skip

    def __init__(
        self,
        env: Env,
        directory: str,
        store_id: bytes,
        *,
        block_cache_bytes: int,
        table_cache_bytes: int,
        max_open_tables: int,
    ) -> None:
        """max_open_tables: files held open at most of tables, and as many of blobs."""
        self._env = env
        self._directory = directory
        row_cache_bytes = block_cache_bytes // _ROW_CACHE_SHARE
        self._blocks = BlockCache(block_cache_bytes - row_cache_bytes)
        self._row_cache = RowCache(row_cache_bytes, None)
        self._cache = TableCache(
            env,
            lambda number: layout.table_path(directory, number),
            store_id,
            self._blocks,
            check=self._check,
            capacity_bytes=table_cache_bytes,
            max_tables=max_open_tables,
        )
        self._open_blobs = OpenBlobs(env, directory, store_id, max_open_tables)
        self._removing = threading.Lock()  # collect() by one at a time
        self._lock = threading.Lock()
        self._metas: dict[int, TableMeta] = {}  # of all files that are there
        self._versions: WeakSet[Version] = WeakSet()  # guarded by _lock
        self._obsolete: set[int] = set()  # guarded by _lock

    # -- which there are -------------------------------------------------------------------------

    def add(self, version: Version, tables: Iterable[TableMeta]) -> None:
        """Know a version, and the tables that it has and none before had."""
        with self._lock:
            for table in tables:
                self._metas[table.number] = table
            self._versions.add(version)

    def retire(self, numbers: Iterable[int]) -> None:
        """These tables and blobs are in no version that is to come; collect() removes them."""
        with self._lock:
            self._obsolete.update(numbers)

    def collect(self) -> None:
        """Remove the files that no live version names (G2). Never raises."""
        with self._removing:
            gone = self._removable()
            self._remove(gone)
            with self._lock:  # only now: until then the files are there, and known
                self._obsolete.difference_update(gone)
                for number in gone:
                    self._metas.pop(number, None)

    def _removable(self) -> list[int]:
        with self._lock:
            if not self._obsolete:
                return []
            versions = list(self._versions)
            return [
                number
                for number in self._obsolete
                if not any(version.has_file(number) for version in versions)
            ]

    def _remove(self, numbers: list[int]) -> None:
        for number in numbers:
            path = self._path(number)
            self._open_blobs.drop(number)
            self._cache.drop(number)
            try:
                self._env.remove(path)
            except OSError as error:  # the next opening removes it as an orphan
                _logger.warning("%s could not be removed: %s", path, error)

    def obsolete(self) -> frozenset[int]:
        """Files kept for those who still read an older version."""
        with self._lock:
            return frozenset(self._obsolete)

    def obsolete_names(self) -> frozenset[str]:
        """Their names."""
        with self._lock:
            return frozenset(self._path(number).rpartition("/")[2] for number in self._obsolete)

    def has_obsolete(self) -> bool:
        """Whether there are any."""
        return bool(self._obsolete)

    def close(self) -> None:
        """Close all files; idempotent."""
        self._cache.close()
        self._open_blobs.close()

    @property
    def blob_memory_bytes(self) -> int:
        """About what open blobs take."""
        return self._open_blobs.memory_bytes

    def row_stats(self) -> CacheStats:
        """What the cache of rows holds and did, since the version is current."""
        return self._row_cache.stats()

    def stats(self) -> tuple[CacheStats, CacheStats]:
        """What the caches of blocks and of tables hold and did."""
        return self._blocks.stats(), self._cache.stats()

    # -- reading ---------------------------------------------------------------------------------

    def get(self, meta: TableMeta) -> Table:
        """An open table. Raises Corruption, UnsupportedFormat, OSError, Closed."""
        return self._cache.get(meta.number)

    def newest(self, version: Version, keyspace: int, key: bytes) -> Stored | None:
        """find() in the version that is current, whose rows are kept for the next look-up.

        Hot: 0.3 us where the row is kept.
        """
        wanted = stored_key(keyspace, key)
        rows = self._row_cache
        if rows.levels is not version.levels:
            rows = self._new_rows(version)
        held = rows.young.get(wanted)
        if held is not None:
            rows.hits += 1
            return held if type(held) is bytes else self._valued(version, held)
        held = rows.old.get(wanted)
        if held is None:
            held = self._find(version, wanted, keyspace, key)
            if held is not None and held is not GONE:
                rows.offer(wanted, held)
        else:
            rows.hits += 1
            rows.put(wanted, held)
        return held if type(held) is bytes or held is None else self._valued(version, held)

    def newest_many(
        self, version: Version, keyspace: int, keys: Sequence[bytes]
    ) -> dict[bytes, Stored]:
        """find_many() in the version that is current, likewise."""
        prefix = stored_key(keyspace, b"")
        rows = self._row_cache
        if rows.levels is not version.levels:
            rows = self._new_rows(version)
        young, old = rows.young, rows.old
        found: dict[bytes, Stored] = {}
        for key in keys:
            wanted = prefix + key
            held = young.get(wanted)
            if held is None:
                held = old.get(wanted)
            if held is not None:
                found[key] = held
        rows.hits += len(found)
        left = [key for key in keys if key not in found] if found else keys
        if left:
            read = self.find_many(version, keyspace, left, False)
            for key, held in read.items():
                if held is not GONE:
                    rows.offer(prefix + key, held)
            found.update(read)
        return self._all_valued(version, found) if version.blobs else found

    def find(
        self, version: Version, keyspace: int, key: bytes, with_value: bool = True
    ) -> Stored | None:
        """The newest the tables say of a key: a value, GONE, or None for nothing (G1).

        with_value: False where it is enough that there is one, and its deadline: a value in a blob
        is not read then, and an Entry that points to it is the answer.
        Hot: interpreted 2 us from one table with its block kept, and 0.4 us for each that has to be
        asked before.
        """
        held = self._find(version, stored_key(keyspace, key), keyspace, key)
        if held is None or type(held) is bytes or not with_value:
            return held
        return self._valued(version, held)

    def _find(self, version: Version, wanted: bytes, keyspace: int, key: bytes) -> Stored | None:
        """find() without values in blobs; wanted: the stored key."""
        probe = probe_of(keyspace, key)
        open_tables = self._cache.open_tables
        for level in version.occupied:
            for number, has_ranges in level.slots(wanted):
                table = open_tables.get(number)
                if table is None:
                    table = self._cache.get(number)
                else:
                    table.recent = True
                found = table.look(wanted, key, probe)
                if found is not None:
                    return found if isinstance(found, bytes) else stored_of(found)
                if has_ranges and _covering(table.ranges, keyspace, key) >= 0:
                    return GONE
        return None

    def find_many(
        self,
        version: Version,
        keyspace: int,
        keys: Iterable[bytes],
        with_values: bool = True,
    ) -> dict[bytes, Stored]:
        """find() for many keys, each block used once; those that nothing is known of are left out.

        A level is asked after the other, for the keys that those above it said nothing of.
        """
        prefix = stored_key(keyspace, b"")
        rows = [prefix + key for key in sorted(set(keys))]
        probes = [probe_of(keyspace, row[1:]) for row in rows]
        found: dict[bytes, Stored] = {}
        for level in version.occupied:
            if not rows:
                break
            for meta in level.overlapping(rows[0], stop_after(rows[-1])):
                first = bisect_left(rows, meta.start)
                end = bisect_left(rows, meta.stop, first)
                if first < end:
                    self._find_in(meta, keyspace, rows[first:end], probes[first:end], found)
                    if not level.ordered:  # its tables overlap
                        rows, probes = _unfound(rows, probes, found)
            if level.ordered:
                rows, probes = _unfound(rows, probes, found)
        return self._all_valued(version, found) if with_values and version.blobs else found

    def with_values(self, version: Version, rows: Rows, limit: int) -> Iterator[Rows]:
        """Rows of a version as a reader gets them, in lists of 1 to `limit`: values in blobs are
        read, about blob.READ_BYTES of them for each list."""
        return self._open_blobs.portions(version.blobs, rows, limit)

    def _valued(self, version: Version, held: Stored) -> Stored:
        """What a row holds, its value read where it is in a blob."""
        return self._open_blobs.stored(version.blobs, held) if is_pointed(held) else held

    def _all_valued(self, version: Version, found: dict[bytes, Stored]) -> dict[bytes, Stored]:
        """What rows hold, by their keys, with values in place of pointers; changes `found`."""
        pointed = [(key, held) for key, held in found.items() if is_pointed(held)]
        for rows in self._open_blobs.portions(version.blobs, pointed, len(pointed) or 1):
            found.update(rows)
        return found

    def _new_rows(self, version: Version) -> RowCache:
        """An empty cache of rows, of a version. Threads may race: no more than rows are lost."""
        self._row_cache = rows = RowCache(self._row_cache.capacity_bytes, version.levels)
        return rows

    def _find_in(
        self,
        meta: TableMeta,
        keyspace: int,
        rows: list[bytes],
        probes: list[Probe],
        found: dict[bytes, Stored],
    ) -> None:
        """Add what a table says of stored keys that ascend."""
        table = self._cache.get(meta.number)
        for row, said in zip(rows, table.look_many(rows, probes), strict=True):
            if said is not None:
                found[row[1:]] = said if isinstance(said, bytes) else stored_of(said)
            elif meta.range_deletions and _covering(table.ranges, keyspace, row[1:]) >= 0:
                found[row[1:]] = GONE

    def newest_sequence(self, version: Version, keyspace: int, key: bytes) -> int:
        """The sequence number of the newest row or range deletion of a key; -1 for none."""
        wanted = stored_key(keyspace, key)
        probe = probe_of(keyspace, key)
        for meta in version.holding(wanted):
            table = self._cache.get(meta.number)
            row = table.find(wanted, probe)
            covering = _covering(table.ranges, keyspace, key) if meta.range_deletions else -1
            if row is not None or covering >= 0:
                return max(covering, -1 if row is None else row[5])
        return -1

    def says(self, meta: TableMeta, row: bytes) -> bool:
        """Whether a table has a row of a stored key, or a range deletion over it."""
        keyspace, key = row[0], row[1:]
        table = self._cache.get(meta.number)
        if meta.range_deletions and _covering(table.ranges, keyspace, key) >= 0:
            return True
        return table.find(row, probe_of(keyspace, key)) is not None

    def sources(
        self, version: Version, start: bytes, stop: bytes, *, reverse: bool, short: bool
    ) -> list[Source]:
        """The rows of stored keys [start, stop), for a merge: newest source first."""
        return [
            chain.from_iterable(
                table.versions(start, stop, reverse=reverse, short=short)
                for table in self._opened(version, run, reverse)
            )
            for run in version.runs(start, stop)
        ]

    def parts(
        self, version: Version, start: bytes, stop: bytes, *, reverse: bool, first: int
    ) -> list[Iterator[Part]]:
        """The rows of stored keys [start, stop), for an overlay: newest source first.

        first: how many rows the reader may want in all, if not many; 0 for many.
        """
        runs = version.runs(start, stop)
        return [
            self._parts(version, run, start, stop, reverse, share)
            for run, share in zip(runs, _shares(runs, first), strict=True)
        ]

    def ranges(self, version: Version, start: bytes, stop: bytes) -> list[RangeDeletion]:
        """The range deletions of all tables that meet stored keys [start, stop)."""
        return [
            deletion
            for level in version.levels
            if level.range_deletions
            for meta in level.overlapping(start, stop)
            if meta.range_deletions
            for deletion in self._cache.get(meta.number).ranges
        ]

    # -- private ---------------------------------------------------------------------------------

    def _opened(
        self,
        version: Version,  # held, so that the files stay (G2)
        run: Sequence[TableMeta],
        reverse: bool,
    ) -> Iterator[Table]:
        """The tables of a run, each opened in its turn."""
        for meta in reversed(run) if reverse else run:
            yield self._cache.get(meta.number)

    def _parts(
        self,
        version: Version,
        run: Sequence[TableMeta],
        start: bytes,
        stop: bytes,
        reverse: bool,
        first: int,
    ) -> Iterator[Part]:
        """The rows of a run, in the shape that is the quickest to merge."""
        for table in self._opened(version, run, reverse):
            if cython.compiled:
                yield from table.stretches(start, stop, reverse=reverse, first=first)
            else:
                columns = table.columns(start, stop, reverse=reverse, first=first)
                yield from map(_column, columns)

    def _path(self, number: int) -> str:
        """Of a table, or of a blob: only of tables is anything kept in _metas."""
        path_of = layout.table_path if number in self._metas else layout.blob_path
        return path_of(self._directory, number)

    def _check(self, table: Table) -> None:
        meta = self._metas.get(table.number)
        assert meta is not None, "only tables of live versions are opened"
        check_table(table, meta, layout.table_path(self._directory, table.number))


def _shares(runs: Sequence[Sequence[TableMeta]], wanted: int) -> list[int]:
    """How many of the rows that a reader wants, about, each run has; 0 for many."""
    if not wanted or len(runs) == 1:
        return [wanted] * len(runs)
    sizes = [sum([meta.rows for meta in run]) for run in runs]
    whole = sum(sizes) or 1
    return [max(_SHARE_MIN, -(-wanted * size // whole)) for size in sizes]


def _column(columns: Columns) -> Part:
    """Keys and what they hold, GONE included, of a table's columns."""
    keys, values, deadlines, types = columns
    if deadlines is None and types is None:
        return keys, values  # type: ignore[return-value]
    held: list[Stored] = [
        (GONE if type_ == TOMBSTONE else Entry(value, deadline, type_))
        if deadline or type_
        else value
        for value, deadline, type_ in zip(
            values, deadlines or repeat(0), types or repeat(0), strict=False
        )
    ]
    return keys, held


def _unfound(
    rows: list[bytes], probes: list[Probe], found: dict[bytes, Stored]
) -> tuple[list[bytes], list[Probe]]:
    """The stored keys that nothing was found of, and their probes."""
    left = [at for at, row in enumerate(rows) if row[1:] not in found]
    return [rows[at] for at in left], [probes[at] for at in left]


def _covering(ranges: Iterable[RangeDeletion], keyspace: int, key: bytes) -> int:
    """The sequence number of the newest range deletion over a key, -1 for none."""
    return max(
        (
            deletion.sequence
            for deletion in ranges
            if deletion.keyspace == keyspace
            and deletion.start <= key
            and (deletion.stop is None or key < deletion.stop)
        ),
        default=-1,
    )


def check_files(env: Env, directory: str, version: Version) -> None:
    """Check that tables and blobs of a version are there. Raises Corruption; changes nothing."""
    expected = [
        (layout.table_path(directory, table.number), table.size_bytes)
        for level in version.levels
        for table in level.tables
    ]
    expected += [
        (layout.blob_path(directory, ref.number), ref.size_bytes) for ref in version.blobs.values()
    ]
    for path, size_bytes in expected:
        try:
            file = env.open(path)
        except FileNotFoundError:
            raise Corruption("the file is missing", path) from None
        try:
            size = file.size()
        finally:
            file.close()
        if size != size_bytes:
            raise Corruption(f"{size} bytes, the manifest says {size_bytes}", path)


def remove_orphans(env: Env, directory: str, version: Version) -> list[str]:
    """Remove the tables and blobs that a crash left without a listing; returns their names."""
    folder = layout.tables_path(directory)
    removed = []
    for name in env.list_dir(folder):
        table, blob = layout.table_number(name), layout.blob_number(name)
        if (table is not None and version.level_of(table) is None) or (
            blob is not None and blob not in version.blobs
        ):
            with suppress(FileNotFoundError):
                env.remove(f"{folder}/{name}")
            removed.append(f"{layout.TABLES}/{name}")
    if removed:
        env.sync_dir(folder)
    return removed
