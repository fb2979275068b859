"""Loading a tree in bulk: rows in table order become tables of the last level.

Owns where one table ends and the next begins, counting, and making a new store that way; not the
tables' bytes (flush.py), and not when a running store does it (replacement.py).

Threading: one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count

from marram.coding.batch import KEYSPACES
from marram.env.api import Env
from marram.storage import layout
from marram.storage.engine import Origin
from marram.storage.lsm.budget import Budget
from marram.storage.lsm.flush import TableFile, separation, table_options
from marram.storage.lsm.manifest import Listing, write_manifest
from marram.storage.lsm.options import LevelOptions
from marram.storage.lsm.version import LAST_LEVEL, TableMeta, Version, VersionEdit
from marram.storage.options import Options
from marram.storage.sstable.block import Row


def write_store(
    env: Env, directory: str, options: Options, origin: Origin, slices: Iterable[list[Row]]
) -> None:
    """Write tables and checkpoint.0 of a store whose rows come in order, on the last level.

    Durable when this returns, but for `version` and the log. Raises OSError.
    """
    folder = layout.tables_path(directory)
    env.make_dir(folder)
    env.sync_dir(directory)
    for name in env.list_dir(folder):  # left by a creation that a crash cut short
        env.remove(f"{folder}/{name}")
    numbers = count(1)
    loader = Loader(env, directory, options, origin.store_id, origin.sequence, numbers.__next__)
    try:
        for rows in slices:
            loader.add(rows)
            env.pause()
        version = loader.finish()
    finally:
        loader.close()
    spaces = tuple(range(KEYSPACES))
    listing = Listing(origin, spaces, version, next(numbers), tuple(loader.counts))
    write_manifest(env, directory, 0, listing).close()


class Loader:
    """Tables being made of rows that come in order; finish() or close() ends it.

    tables: those that are whole. counts: (keys, keys with a deadline) so far, by keyspace.
    numbers: of all files begun.
    """

    def __init__(
        self,
        env: Env,
        directory: str,
        options: Options,
        store_id: bytes,
        sequence: int,
        allot: Callable[[], int],
    ) -> None:
        """sequence: of the rows. allot: gives each file its number, ascending."""
        self.tables: list[TableMeta] = []
        self.counts = [(0, 0)] * KEYSPACES
        self.numbers: list[int] = []
        self._env = env
        self._directory = directory
        self._options = options
        self._store_id = store_id
        self._sequence = sequence
        self._allot = allot
        self._table: TableFile | None = None
        self._size_bytes = 0  # of the rows in it, about
        self._target_bytes = LevelOptions.for_memtable(
            Budget.of(options).memtable_bytes
        ).table_bytes

    def add(self, rows: Sequence[Row]) -> None:
        """Take the next rows. Raises InvalidArgument: they are out of order; OSError."""
        if not rows:
            return
        if self._table is None:
            self._table = TableFile(
                self._env, self._directory, self._store_id, self._numbered(),
                table_options(self._options), separation(self._options, self._numbered),
            )  # fmt: skip
            self._size_bytes = 0
        self._table.add([(*row, self._sequence) for row in rows])
        for keyspace, key, value, deadline_ms, _ in rows:
            keys, volatile = self.counts[keyspace]
            self.counts[keyspace] = keys + 1, volatile + (deadline_ms != 0)
            self._size_bytes += len(key) + len(value) + 8
        if self._size_bytes >= self._target_bytes:
            self._end_table()

    def finish(self) -> Version:
        """There are no more rows; returns what the tables come to, durable. Raises OSError."""
        self._end_table()
        return Version().apply(VersionEdit(tuple((LAST_LEVEL, table) for table in self.tables)))

    def close(self) -> None:
        """Close the file of a table that is not whole; idempotent."""
        table, self._table = self._table, None
        if table is not None:
            table.close()

    def _end_table(self) -> None:
        table = self._table
        if table is not None:
            made = table.finish(())
            self._table = None
            if made is not None:
                self.tables.append(made)

    def _numbered(self) -> int:
        number = self._allot()
        self.numbers.append(number)
        return number
