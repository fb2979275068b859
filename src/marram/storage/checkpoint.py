"""checkpoint.N of the memory engine: the whole map at one position, as one sorted table.

Owns what goes into the table besides the rows (whose position it is), and streaming it in slices;
not the table format (sstable/) and not the generation switch (generations.py).

K1  a checkpoint holds the state at exactly `sequence`; the log is replayed from there.
K2  writing one holds the interpreter for a slice at a time, so that writers go on.

Threading: write_checkpoint runs in the background; load_checkpoint alone, in recovery.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from marram.coding.batch import KEYSPACES
from marram.env.api import Env, File
from marram.errors import Corruption, UnsupportedFormat
from marram.storage.engine import SLICE_KEYS, Home, Lock, Origin, Progress
from marram.storage.entry import Stored, stored
from marram.storage.layout import checkpoint_path
from marram.storage.sstable.block import Columns, Row, stored_key
from marram.storage.sstable.reader import Table
from marram.storage.sstable.writer import TableOptions, TableWriter

if TYPE_CHECKING:
    from marram.storage.memory.engine import MemoryEngine, Snapshot
    from marram.storage.memory.space import Space

RowColumns = tuple[list[bytes], list[bytes], Sequence[int] | None, Sequence[int] | None]
"""Rows of one keyspace: (keys, values, deadlines, types), the last two None where all are 0."""

Slice = tuple[int, RowColumns]
"""Neighbouring rows: (keyspace, their columns)."""

_ENGINE = b"memory"

_END = bytes((KEYSPACES,))  # what the stored keys of all keyspaces are below


class MemoryGeneration:
    """The next generation of the memory engine; an engine.NewGeneration."""

    def __init__(self, home: Home, number: int, engine: MemoryEngine, pin: Snapshot) -> None:
        self.position = pin.position
        self._home = home
        self._number = number
        self._engine = engine
        self._pin = pin
        self._is_ours = False  # whether checkpoint.N is to be removed where this fails

    def write(self, origin: Origin, check: Callable[[], None], progress: Progress | None) -> None:
        """Stream the pinned state to checkpoint.N. Raises OSError."""
        env, directory, options, lock, _ = self._home
        slices = _columns_of(self._pin, origin.time_ms, lock, check, progress)
        self._is_ours = True
        compression = options.compression
        write_checkpoint(env, directory, self._number, origin, slices, compression)

    @contextlib.contextmanager
    def switching(self) -> Iterator[None]:
        """Around the switch of `version`; a switch that failed may yet have happened."""
        self._is_ours = False
        yield

    def end(self) -> None:
        """Unpin the state; remove what did not become a generation."""
        env, directory, _, lock, _ = self._home
        if self._is_ours:
            path = checkpoint_path(directory, self._number)
            with contextlib.suppress(OSError):  # recovery removes it as well
                if env.exists(path):
                    env.remove(path)
        with lock:
            retired = self._engine.release(self._pin)
        _free(env, retired)


class MemoryReplacement:
    """Another store's rows taking the place of the map; an engine.Replacement."""

    def __init__(
        self, home: Home, number: int, origin: Origin, engine: MemoryEngine, into: MemoryEngine
    ) -> None:
        """into: an empty engine, which is filled with them."""
        self._home = home
        self._number = number
        self._origin = origin
        self._engine = engine
        self._into = into
        self._is_ours = True  # whether checkpoint.N is to be removed where this fails
        self._writer = CheckpointWriter(
            home.env, home.directory, number, origin, home.options.compression
        )

    def add(self, rows: list[Row]) -> None:
        """Write the next rows. Raises InvalidArgument, OSError."""
        self._writer.add(rows)

    def finish(self) -> None:
        """Make the checkpoint durable, and read the map from it. Raises OSError, Corruption."""
        self._writer.finish()
        home, origin = self._home, self._origin
        load_checkpoint(home.env, home.directory, self._number, origin.store_id, self._into)

    @contextlib.contextmanager
    def switching(self) -> Iterator[Callable[[], None]]:
        """Around the switch of `version`; what is given changes the map."""
        self._is_ours = False
        yield lambda: self._engine.replace(self._into)

    def files(self) -> frozenset[str]:
        """It has no tables."""
        return frozenset()

    def end(self) -> None:
        """Remove what did not become a generation."""
        with contextlib.suppress(OSError):  # recovery removes it as well
            self._writer.close()
            if self._is_ours:
                self._home.env.remove(checkpoint_path(self._home.directory, self._number))


class CheckpointWriter:
    """checkpoint.N being written from rows in table order; finish() or close() ends it.

    On an error the file is left for the caller (or the next recovery) to remove.
    """

    def __init__(
        self, env: Env, directory: str, generation: int, origin: Origin, compression: str
    ) -> None:
        """Raises OSError."""
        self._env = env
        self._directory = directory
        self._origin = origin
        path = checkpoint_path(directory, generation)
        if env.exists(path):  # left by a checkpoint that failed or that a crash cut short
            env.remove(path)
        self._file = env.open(path, write=True, create=True, exclusive=True)
        try:
            options = TableOptions(compression=compression)
            self._table = TableWriter(self._file, generation, origin.store_id, options)
        except BaseException:
            self._file.close()
            raise

    def add(self, rows: list[Row]) -> None:
        """Write the next rows; other threads run then. Raises InvalidArgument, OSError."""
        if rows:
            self._table.add_many(rows)
        self._env.pause()

    def add_columns(
        self,
        keyspace: int,
        keys: list[bytes],
        values: list[bytes],
        deadlines: Sequence[int] | None,
        types: Sequence[int] | None,
    ) -> None:
        """add(), of rows of one keyspace by column. Raises OSError."""
        self._table.add_columns(keyspace, keys, values, deadlines, types)
        self._env.pause()

    def finish(self) -> int:
        """Make it durable; returns its size in bytes. Raises OSError."""
        origin = self._origin
        info = self._table.finish(
            {
                "engine": _ENGINE,
                "epoch": origin.epoch,
                "sequence": origin.sequence,
                "time_ms": origin.time_ms,
                "chain": origin.chain,
            }
        )
        self._file.sync()
        self._env.sync_dir(self._directory)
        self._file.close()
        return info.size_bytes

    def close(self) -> None:
        """Close the file; idempotent. Raises OSError."""
        self._file.close()


def write_checkpoint(
    env: Env,
    directory: str,
    generation: int,
    origin: Origin,
    slices: Iterable[Slice],
    compression: str = "none",
) -> int:
    """Write checkpoint.N and make it durable; returns its size in bytes. Raises OSError.

    slices: of the map, in order; each is written with the interpreter held (K2).
    On an error the file is left for the caller (or the next recovery) to remove.
    """
    writer = CheckpointWriter(env, directory, generation, origin, compression)
    try:
        for keyspace, columns in slices:
            writer.add_columns(keyspace, *columns)
        return writer.finish()
    finally:
        writer.close()


def by_column(slices: Iterable[list[Row]]) -> Iterator[Slice]:
    """Rows in order as write_checkpoint() takes them."""
    for rows in slices:
        for keyspace, group in groupby(rows, key=itemgetter(0)):
            _, keys, values, deadlines, types = (
                list(column) for column in zip(*group, strict=True)
            )
            yield keyspace, (keys, values, deadlines, types)


def _columns_of(
    pin: Snapshot,
    now_ms: int,
    lock: Lock,
    check: Callable[[], None],
    progress: Progress | None,
) -> Iterator[Slice]:
    """engine.rows_of(), by column."""
    total = len(pin)
    done = 0
    for keyspace in range(KEYSPACES):
        start: bytes | None = b""
        while start is not None:
            check()
            with lock:
                columns, start = pin.columns(keyspace, start, SLICE_KEYS, now_ms)
            if columns[0]:
                yield keyspace, columns
                done += len(columns[0])
                if progress is not None:
                    progress(min(done, total), max(done, total))


def open_checkpoint(env: Env, path: str) -> File:
    """The file, for reading. Raises Corruption: it is missing."""
    try:
        return env.open(path)
    except FileNotFoundError:
        raise Corruption("the file is missing", path) from None


def load_checkpoint(
    env: Env, directory: str, generation: int, store_id: bytes, engine: MemoryEngine
) -> Origin:
    """Fill an empty engine from checkpoint.N. Raises Corruption, UnsupportedFormat."""
    path = checkpoint_path(directory, generation)
    file = open_checkpoint(env, path)
    try:
        table = Table.open(file, generation, store_id)
        origin = origin_of(table, path, store_id)
        if table.largest[:1] >= _END:
            raise Corruption(f"keyspace {table.largest[0]} out of range", path)
        for keyspace in range(KEYSPACES):
            start, stop = stored_key(keyspace, b""), stored_key(keyspace + 1, b"")
            for columns in table.columns(start, stop):
                _load(engine.spaces[keyspace], columns, path)
    finally:
        file.close()
    return origin


def _load(space: Space, columns: Columns, path: str) -> None:
    """Add one block's rows.

    Hot: whole columns at a time; a row that is a tuple on its way takes four times as long.
    """
    keys, values, deadlines, types = columns
    held: Sequence[Stored] = values
    is_plain = deadlines is None and types is None
    if not is_plain:
        # Not strict: a column may be missing, and then is endless zeros.
        held = list(map(stored, values, deadlines or repeat(0), types or repeat(0)))
    try:
        space.load(keys, held, is_plain=is_plain)
    except ValueError as error:
        raise Corruption(str(error), path) from None


def origin_of(table: Table, path: str, store_id: bytes) -> Origin:
    """What state a checkpoint holds. Raises Corruption, UnsupportedFormat."""
    properties = table.properties
    engine = properties.get("engine")
    if engine != _ENGINE:
        raise UnsupportedFormat(f"{path}: a checkpoint of engine {engine!r}")
    numbers = [properties.get(name) for name in ("epoch", "sequence", "time_ms")]
    if not all(isinstance(number, int) for number in numbers):
        raise Corruption("the checkpoint does not say its position", path)
    epoch, sequence, time_ms = numbers
    chain = properties.get("chain", 0)  # none in the checkpoints of older versions
    return Origin(store_id, epoch, sequence, time_ms, chain)  # type: ignore[arg-type]


def _free(env: Env, retired: list[dict[bytes, Any]]) -> None:
    """Free old versions a little at a time: one big free would hold every thread up."""
    for links in retired:
        while links:
            for _ in range(min(1000, len(links))):
                links.popitem()
            env.pause()
