"""Writing tables from rows in memory: a memtable's flush, and loading a store in bulk.

Owns what of a memtable goes into its table; not when (generation.py), and not merging tables
(compaction.py).

F1  a memtable becomes one table, whose rows and range deletions all have the number of its last
    batch: a flush is one moment in the order of tables.
F2  where nothing is behind, tombstones and range deletions have nothing to hide, and are left out.
F3  the lock is held for a slice of keys at a time, and other threads run between slices.
F4  values of blob_bytes and more go to a blob beside the table, in key order; its rows point there.

Threading: in the background, beside readers and writers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from marram.coding.batch import KEYSPACES
from marram.env.api import Env
from marram.storage import layout
from marram.storage.engine import Lock, Origin
from marram.storage.lsm.blob import BlobWriter
from marram.storage.lsm.blobs import References, separated
from marram.storage.lsm.budget import Budget
from marram.storage.lsm.compaction import finish_table
from marram.storage.lsm.manifest import Listing, write_manifest
from marram.storage.lsm.memtable import Memtable
from marram.storage.lsm.options import LevelOptions
from marram.storage.lsm.version import LAST_LEVEL, TableMeta, Version, VersionEdit
from marram.storage.lsm.window import Window
from marram.storage.options import Options
from marram.storage.sstable.block import Row, VersionRow
from marram.storage.sstable.ranges import RangeDeletion
from marram.storage.sstable.writer import TableOptions, TableWriter


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

    def windows() -> Iterator[Window]:
        for window in memtable.windows(lock):
            check()
            told(len(window))
            kept = window.without_tombstones() if bottom else window
            if kept is not None:
                yield kept

    return _write_table(env, directory, store_id, number, windows(), ranges, options, blob)


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
    tally = [(0, 0)] * KEYSPACES
    added: list[tuple[int, TableMeta]] = []
    target = LevelOptions.for_memtable(Budget.of(options).memtable_bytes).table_bytes
    number = 1
    for rows in _portions(_counted(slices, tally, origin.sequence), target):
        blob = separation(options, partial(_after, number))
        written = table_options(options)
        windows = (Window.of(part) for found in rows for part in _by_keyspace(found))
        table = _write_table(env, directory, origin.store_id, number, windows, (), written, blob)
        number += 2 if table is not None and table.blobs else 1
        if table is not None:
            added.append((LAST_LEVEL, table))
    version = Version().apply(VersionEdit(tuple(added)))
    spaces = tuple(range(KEYSPACES))
    listing = Listing(origin, spaces, version, number, tuple(tally))
    write_manifest(env, directory, 0, listing).close()


def separation(options: Options, allot: Callable[[], int]) -> Separation | None:
    """What goes to a blob by the options."""
    return Separation(allot, options.blob_bytes) if options.blob_bytes else None


def remove_tables(env: Env, directory: str, numbers: Iterable[int]) -> None:
    """Remove tables and blobs that did not get into a listing; the next opening would, too."""
    for number in numbers:
        for path in (layout.table_path(directory, number), layout.blob_path(directory, number)):
            with contextlib.suppress(OSError):
                env.remove(path)


def _write_table(
    env: Env,
    directory: str,
    store_id: bytes,
    number: int,
    windows: Iterable[Window],
    ranges: Sequence[RangeDeletion],
    options: TableOptions,
    blob: Separation | None,
) -> TableMeta | None:
    path = layout.table_path(directory, number)
    if env.exists(path):  # left by a flush that failed
        env.remove(path)
    file = env.open(path, write=True, create=True, exclusive=True)
    values = None if blob is None else BlobWriter(env, directory, blob.allot, store_id, options)
    references = References()
    try:
        writer = TableWriter(file, number, store_id, options)
        for found in windows:
            window = found
            if values is not None and blob is not None:
                window = _separated(found, values, blob.least_bytes, references)
            writer.add_columns(
                window.keyspace, window.keys, window.values,
                window.deadlines, window.types, window.sequences,
            )  # fmt: skip
            env.pause()
        table = finish_table(env, writer, number, ranges)
        if table is None:
            env.remove(path)
            return None
        made = None if values is None else values.finish()
        if made is not None:
            table = replace(table, blobs=references.refs({made.number: made}))
        file.sync()
    finally:
        file.close()
        if values is not None:
            values.close()
    env.sync_dir(layout.tables_path(directory))
    return table


def _separated(
    window: Window, values: BlobWriter, least_bytes: int, references: References
) -> Window:
    """The rows with pointers in place of large values, which are counted."""
    if max(map(len, window.values)) < least_bytes:
        return window
    rows = separated(window.versions(), values, least_bytes)
    references.count(rows)
    return Window.of(rows)


def _by_keyspace(rows: list[VersionRow]) -> Iterator[list[VersionRow]]:
    for _, group in groupby(rows, itemgetter(0)):
        yield list(group)


def _after(number: int) -> int:
    return number + 1


def _counted(
    slices: Iterable[list[Row]], tally: list[tuple[int, int]], sequence: int
) -> Iterator[list[VersionRow]]:
    """Rows as versions of one batch; counts them by keyspace."""
    for rows in slices:
        for row in rows:
            keys, volatile = tally[row[0]]
            tally[row[0]] = keys + 1, volatile + (row[3] != 0)
        yield [(*row, sequence) for row in rows]


def _portions(
    slices: Iterable[list[VersionRow]], target_bytes: int
) -> Iterator[Iterator[list[VersionRow]]]:
    """The rows in portions of about target_bytes, each to be used up before the next is taken."""
    source = iter(slices)
    following = next(source, None)

    def portion() -> Iterator[list[VersionRow]]:
        nonlocal following
        size_bytes = 0
        while following is not None and size_bytes < target_bytes:
            size_bytes += sum(len(row[1]) + len(row[2]) + 8 for row in following)
            rows, following = following, next(source, None)
            yield rows

    while following is not None:
        yield portion()
