"""Writing tables from rows in memory: a memtable's flush, and what it shares with loading.py.

Owns what of a memtable goes into its table, and a table's file while it is written; not when
(generation.py), and not merging tables (compaction.py).

F1  a memtable becomes one table, whose rows and range deletions all have the number of its last
    batch: a flush is one moment in the order of tables.
F2  where nothing is behind, tombstones and range deletions have nothing to hide, and are left out.
F3  the lock is held for a slice of keys at a time, and other threads run between slices. Compiled,
    rows that are not compressed are found and written without it: a frozen memtable's maps do not
    change (memtable.py B3).
F4  values of blob_bytes and more go to a blob beside the table, in key order; its rows point there.

Threading: in the background, beside readers and writers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from marram.compiled import state
from marram.env.api import Env
from marram.storage import layout
from marram.storage.engine import SLICE_KEYS, Lock
from marram.storage.lsm.blob import BlobWriter
from marram.storage.lsm.blobs import References, separated
from marram.storage.lsm.compaction import finish_table
from marram.storage.lsm.memtable import Memtable, window_of
from marram.storage.lsm.version import TableMeta
from marram.storage.lsm.window import Window
from marram.storage.options import Options
from marram.storage.sstable.frozen import FrozenMap
from marram.storage.sstable.ranges import RangeDeletion
from marram.storage.sstable.writer import TableOptions, TableWriter

# So many plain rows in a row are worth blocks of their own making; fewer go through windows.
_LONG_STRETCH = 4 * SLICE_KEYS
# Values from here on are never copied into a block's room, bytes.
_LARGE_BYTES = 64 * 1024


def table_options(options: Options) -> TableOptions:
    """How the tables of a store are written."""
    return TableOptions(
        compression=options.compression,
        filter_bits_per_key=options.filter_bits_per_key,
    )


class Separation(NamedTuple):
    """Which values go to a blob. allot: gives it its number; least_bytes: of such a value."""

    allot: Callable[[], int]
    least_bytes: int


def flush(
    env: Env,
    directory: str,
    store_id: bytes,
    number: int,
    memtable: Memtable,
    options: TableOptions,
    lock: Lock,
    check: Callable[[], None],
    told: Callable[[int], None],
    *,
    bottom: bool,
    blob: Separation | None = None,
) -> TableMeta | None:
    """Write a frozen memtable to table `number`, durable when this returns; None: nothing to write.

    bottom: nothing is behind it (F2). blob: None for all values to stay with their keys (F4).
    check: raises to end it; told: how many rows were written.
    Raises OSError; the file is left for the caller to remove.
    """
    ranges: Sequence[RangeDeletion] = ()
    if not bottom:
        ranges = [
            deletion._replace(sequence=memtable.last) for deletion in memtable.ranges.deletions
        ]

    def take(table: TableFile, window: Window) -> None:
        told(len(window))
        kept = window.without_tombstones() if bottom else window
        if kept is not None:
            table.add(kept)
        env.pause()

    table = TableFile(env, directory, store_id, number, options, blob)
    try:
        if state() == "compiled" and options.compression == "none":
            _add_frozen(env, table, memtable, check, told, take)
        else:
            for window in memtable.windows(lock):
                check()
                take(table, window)
        return table.finish(ranges)
    finally:
        table.close()


def separation(options: Options, allot: Callable[[], int]) -> Separation | None:
    """What goes to a blob by the options."""
    return Separation(allot, options.blob_bytes) if options.blob_bytes else None


def remove_tables(env: Env, directory: str, numbers: Iterable[int]) -> None:
    """Remove tables and blobs that did not get into a listing; the next opening would, too."""
    for number in numbers:
        for path in (layout.table_path(directory, number), layout.blob_path(directory, number)):
            with contextlib.suppress(OSError):
                env.remove(path)


def _add_frozen(
    env: Env,
    table: TableFile,
    memtable: Memtable,
    check: Callable[[], None],
    told: Callable[[int], None],
    take: Callable[[TableFile, Window], None],
) -> None:
    """Add the rows of a frozen memtable: long stretches of plain ones from where they are.

    take: adds a window and tells of it.
    """
    for keyspace, space in enumerate(memtable.spaces):
        if not space.map:
            continue
        rows = FrozenMap(space.map, table.least_apart, env.pause)
        at = 0
        while at < rows.count:
            check()
            stop = rows.plain_stop(at)
            if stop - at >= _LONG_STRETCH:
                while at < stop:
                    before, at = at, table.add_frozen(keyspace, rows, at, stop, memtable.last)
                    told(at - before)
                    check()
            else:
                before, at = at, min(at + SLICE_KEYS, rows.count)
                take(table, window_of(keyspace, *rows.columns(before, at), memtable.last))


class TableFile:
    """One table being written from rows in order, and its blob; finish() or close() ends it."""

    def __init__(
        self,
        env: Env,
        directory: str,
        store_id: bytes,
        number: int,
        options: TableOptions,
        blob: Separation | None,
    ) -> None:
        """blob: None for all values to stay with their keys (F4). Raises OSError."""
        self._env = env
        self._directory = directory
        self._number = number
        self._path = layout.table_path(directory, number)
        if env.exists(self._path):  # left by a flush that failed
            env.remove(self._path)
        self._file = env.open(self._path, write=True, create=True, exclusive=True)
        self._blob = blob
        self._values: BlobWriter | None = None
        self._references = References()
        try:
            if blob is not None:
                self._values = BlobWriter(env, directory, blob.allot, store_id, options)
            self._writer = TableWriter(self._file, number, store_id, options)
        except BaseException:
            self._file.close()
            raise

    def add(self, window: Window) -> None:
        """Write the next rows. Raises InvalidArgument: they are out of order; OSError."""
        if self._values is not None and self._blob is not None:
            window = _separated(window, self._values, self._blob.least_bytes, self._references)
        self._writer.add_columns(
            window.keyspace, window.keys, window.values,
            window.deadlines, window.types, window.sequences,
        )  # fmt: skip

    @property
    def least_apart(self) -> int:
        """Values from this size on are not for add_frozen(), bytes."""
        return _LARGE_BYTES if self._blob is None else min(_LARGE_BYTES, self._blob.least_bytes)

    def add_frozen(
        self, keyspace: int, rows: FrozenMap, start: int, stop: int, sequence: int
    ) -> int:
        """add() of rows of a map, as TableWriter.add_frozen() has it; values < least_apart."""
        return self._writer.add_frozen(keyspace, rows, start, stop, sequence)

    def finish(self, ranges: Sequence[RangeDeletion]) -> TableMeta | None:
        """Make it durable; None where there was nothing to write. Raises OSError."""
        table = finish_table(self._env, self._writer, self._number, ranges)
        if table is None:
            self._env.remove(self._path)
            self.close()
            return None
        made = None if self._values is None else self._values.finish()
        if made is not None:
            table = replace(table, blobs=self._references.refs({made.number: made}))
        self._file.sync()
        self.close()
        self._env.sync_dir(layout.tables_path(self._directory))
        return table

    def close(self) -> None:
        """Close the files; idempotent. Raises OSError."""
        self._file.close()
        if self._values is not None:
            self._values.close()


def _separated(
    window: Window, values: BlobWriter, least_bytes: int, references: References
) -> Window:
    """The rows with pointers in place of large values, which are counted."""
    if max(map(len, window.values)) < least_bytes:
        return window
    rows = separated(window.versions(), values, least_bytes)
    references.count(rows)
    return Window.of(rows)
