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
from collections.abc import Iterable, Iterator
from contextlib import suppress
from weakref import WeakSet

from marram.env.api import Env
from marram.errors import Corruption
from marram.storage import layout
from marram.storage.entry import Entry, Stored
from marram.storage.lsm.cache import BlockCache, CacheStats, TableCache
from marram.storage.lsm.compaction import check_table
from marram.storage.lsm.memtable import GONE
from marram.storage.lsm.merge import Source
from marram.storage.lsm.version import TableMeta, Version
from marram.storage.sstable.block import TOMBSTONE, VersionRow, stored_key
from marram.storage.sstable.filter import Probe, probe_of
from marram.storage.sstable.ranges import RangeDeletion
from marram.storage.sstable.reader import Table

_logger = logging.getLogger("marram.lsm")


class Tables:
    """All tables that live versions name, and those that are to be removed."""

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
        self._env = env
        self._directory = directory
        self._blocks = BlockCache(block_cache_bytes)
        self._cache = TableCache(
            env,
            lambda number: layout.table_path(directory, number),
            store_id,
            self._blocks,
            check=self._check,
            capacity_bytes=table_cache_bytes,
            max_tables=max_open_tables,
        )
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
        """These are in no version that is to come; collect() removes them in time."""
        with self._lock:
            self._obsolete.update(numbers)

    def collect(self) -> None:
        """Remove the files that no live version names (G2). Never raises."""
        with self._lock:
            if not self._obsolete:
                return
            versions = list(self._versions)
            gone = [
                number
                for number in self._obsolete
                if all(version.level_of(number) is None for version in versions)
            ]
            del versions
            self._obsolete.difference_update(gone)
            for number in gone:
                self._metas.pop(number, None)
        for number in gone:
            self._cache.drop(number)
            path = layout.table_path(self._directory, number)
            try:
                self._env.remove(path)
            except OSError as error:  # the next opening removes it as an orphan
                _logger.warning("%s could not be removed: %s", path, error)

    def obsolete(self) -> frozenset[int]:
        """Files kept for those who still read an older version."""
        with self._lock:
            return frozenset(self._obsolete)

    def has_obsolete(self) -> bool:
        """Whether there are any."""
        return bool(self._obsolete)

    def close(self) -> None:
        """Close all files; idempotent."""
        self._cache.close()

    def stats(self) -> tuple[CacheStats, CacheStats]:
        """What the caches of blocks and of tables hold and did."""
        return self._blocks.stats(), self._cache.stats()

    # -- reading ---------------------------------------------------------------------------------

    def get(self, meta: TableMeta) -> Table:
        """An open table. Raises Corruption, UnsupportedFormat, OSError, Closed."""
        return self._cache.get(meta.number)

    def find(self, version: Version, keyspace: int, key: bytes) -> Stored | None:
        """The newest the tables say of a key: a value, GONE, or None for nothing (G1)."""
        wanted = stored_key(keyspace, key)
        probe: Probe | None = None
        cached = self._cache.get
        for level in version.levels:
            if not level.tables:
                continue
            for meta in level.holding(wanted):
                if probe is None:
                    probe = probe_of(keyspace, key)
                table = cached(meta.number)
                row = table.find(wanted, probe)
                if row is not None:
                    return stored_of(row)
                if meta.range_deletions and _covering(table.ranges, keyspace, key) >= 0:
                    return GONE
        return None

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
        found: list[Source] = [
            self._rows(version, (meta,), start, stop, reverse, short)
            for meta in version.levels[0].overlapping(start, stop)
        ]
        for level in version.levels[1:]:
            metas = level.overlapping(start, stop)
            if metas:
                found.append(self._rows(version, metas, start, stop, reverse, short))
        return found

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

    def _rows(
        self,
        version: Version,  # held, so that the files stay (G2)
        metas: tuple[TableMeta, ...],
        start: bytes,
        stop: bytes,
        reverse: bool,
        short: bool,
    ) -> Iterator[list[VersionRow]]:
        for meta in reversed(metas) if reverse else metas:
            table = self._cache.get(meta.number)
            yield from table.versions(start, stop, reverse=reverse, short=short)

    def _check(self, table: Table) -> None:
        meta = self._metas.get(table.number)
        assert meta is not None, "only tables of live versions are opened"
        check_table(table, meta, layout.table_path(self._directory, table.number))


def stored_of(row: VersionRow) -> Stored:
    """What a table's row holds: a value, or GONE."""
    if row[4] == TOMBSTONE:
        return GONE
    if row[3] or row[4]:
        return Entry(row[2], row[3], row[4])
    return row[2]


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
    """Check that the tables of a version are there. Raises Corruption; changes nothing."""
    for level in version.levels:
        for table in level.tables:
            path = layout.table_path(directory, table.number)
            try:
                file = env.open(path)
            except FileNotFoundError:
                raise Corruption("the file is missing", path) from None
            try:
                size = file.size()
            finally:
                file.close()
            if size != table.size_bytes:
                raise Corruption(f"{size} bytes, the manifest says {table.size_bytes}", path)


def remove_orphans(env: Env, directory: str, version: Version) -> list[str]:
    """Remove the tables that a crash left without a listing; returns their names."""
    folder = layout.tables_path(directory)
    removed = []
    for name in env.list_dir(folder):
        number = layout.table_number(name)
        if number is not None and version.level_of(number) is None:
            with suppress(FileNotFoundError):
                env.remove(f"{folder}/{name}")
            removed.append(f"{layout.TABLES}/{name}")
    if removed:
        env.sync_dir(folder)
    return removed
