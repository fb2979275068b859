"""checkpoint.N of the memory engine: the whole map at one position, as one sorted table.

Owns what goes into the table besides the rows (whose position it is), and streaming it in slices;
not the table format (sstable/) and not the generation switch (store.py).

K1  a checkpoint holds the state at exactly `sequence`; the log is replayed from there.
K2  writing one holds the interpreter for a slice at a time, so that writers go on.

Threading: write_checkpoint runs in the background; load_checkpoint alone, in recovery.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from marram.coding.batch import KEYSPACES
from marram.env.api import Env
from marram.errors import Corruption, UnsupportedFormat
from marram.storage.entry import stored
from marram.storage.layout import checkpoint_path
from marram.storage.memory.engine import MemoryEngine
from marram.storage.sstable.reader import Table
from marram.storage.sstable.writer import Row, TableOptions, TableWriter


class Origin(NamedTuple):
    """Whose state a checkpoint is, and as of when.

    sequence: the last batch it holds; time_ms: the store's clock then, so that time never goes
    back past it.
    """

    store_id: bytes
    epoch: int
    sequence: int
    time_ms: int


def write_checkpoint(
    env: Env,
    directory: str,
    generation: int,
    origin: Origin,
    slices: Iterable[list[Row]],
    compression: str = "none",
) -> int:
    """Write checkpoint.N and make it durable; returns its size in bytes. Raises OSError.

    On an error the file is left for the caller (or the next recovery) to remove.
    """
    path = checkpoint_path(directory, generation)
    if env.exists(path):  # left by a checkpoint that failed or that a crash cut short
        env.remove(path)
    file = env.open(path, write=True, create=True, exclusive=True)
    try:
        writer = TableWriter(
            file, generation, origin.store_id, TableOptions(compression=compression)
        )
        for rows in slices:
            writer.add_many(rows)
            env.pause()
        info = writer.finish(
            {
                "engine": MemoryEngine.name.encode(),
                "epoch": origin.epoch,
                "sequence": origin.sequence,
                "time_ms": origin.time_ms,
            }
        )
        file.sync()
        env.sync_dir(directory)
    finally:
        file.close()
    return info.size_bytes


def load_checkpoint(
    env: Env, directory: str, generation: int, store_id: bytes, engine: MemoryEngine
) -> Origin:
    """Fill an empty engine from checkpoint.N. Raises Corruption, UnsupportedFormat."""
    path = checkpoint_path(directory, generation)
    try:
        file = env.open(path)
    except FileNotFoundError:
        raise Corruption("the file is missing", path) from None
    try:
        table = Table.open(file, generation, store_id)
        origin = _origin(table, path, store_id)
        for rows in table.chunks():
            for keyspace, group in groupby(rows, key=itemgetter(0)):
                if keyspace >= KEYSPACES:
                    raise Corruption(f"keyspace {keyspace} out of range", path)
                _load(engine, keyspace, list(group))
    finally:
        file.close()
    return origin


def _load(engine: MemoryEngine, keyspace: int, rows: list[Row]) -> None:
    keys = [row[1] for row in rows]
    values = [stored(value, deadline_ms, type_) for _, _, value, deadline_ms, type_ in rows]
    engine.spaces[keyspace].load(keys, values)


def _origin(table: Table, path: str, store_id: bytes) -> Origin:
    properties = table.properties
    engine = properties.get("engine")
    if engine != MemoryEngine.name.encode():
        raise UnsupportedFormat(f"{path}: a checkpoint of engine {engine!r}")
    numbers = [properties.get(name) for name in ("epoch", "sequence", "time_ms")]
    if not all(isinstance(number, int) for number in numbers):
        raise Corruption("the checkpoint does not say its position", path)
    epoch, sequence, time_ms = numbers
    return Origin(store_id, epoch, sequence, time_ms)  # type: ignore[arg-type]
