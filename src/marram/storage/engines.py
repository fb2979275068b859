"""The engines there are: which one a directory holds, making it, loading it.

Owns the choice; not what an engine does. An existing store says itself which engine it is of, by
what its checkpoint is. The lsm engine is imported where a store needs it: others open without.

Threading: runs alone, under the directory's lock.
"""

from __future__ import annotations

from collections.abc import Iterable

from marram.env.api import Env
from marram.errors import InvalidArgument
from marram.storage import checkpoint, layout
from marram.storage.engine import Engine, Origin
from marram.storage.memory.engine import MemoryEngine
from marram.storage.options import Options
from marram.storage.sstable.block import Row
from marram.storage.sstable.format import MAGIC

MEMORY = MemoryEngine.name
LSM = "lsm"


def engine_of(env: Env, directory: str, generation: int) -> str:
    """The name of the engine that checkpoint.N is of. Raises Corruption, OSError."""
    file = checkpoint.open_checkpoint(env, layout.checkpoint_path(directory, generation))
    try:
        if file.read(len(MAGIC), 0) == MAGIC:
            return MEMORY
    finally:
        file.close()
    from marram.storage.lsm import manifest

    return manifest.engine_of(env, directory, generation)


def load(
    env: Env, directory: str, generation: int, store_id: bytes, options: Options
) -> tuple[Engine, Origin]:
    """The engine as generation N begins with it; changes nothing.

    Raises Corruption, UnsupportedFormat; InvalidArgument: options.engine is another one.
    """
    found = engine_of(env, directory, generation)
    if options.engine not in (None, found):
        raise InvalidArgument(
            f"{directory} holds a store of engine {found!r}, not {options.engine!r}; "
            "`marram convert` makes a copy with another engine"
        )
    if found == LSM:
        from marram.storage.lsm.engine import LsmEngine

        return LsmEngine.load(env, directory, generation, store_id, options)
    engine = MemoryEngine(options.memory_limit)
    origin = checkpoint.load_checkpoint(env, directory, generation, store_id, engine)
    return engine, origin


def write_first(
    env: Env, directory: str, options: Options, origin: Origin, slices: Iterable[list[Row]]
) -> None:
    """Write checkpoint.0, and what it names, from rows in table order. Raises OSError."""
    if options.engine == LSM:
        from marram.storage.lsm.loading import write_store

        write_store(env, directory, options, origin, slices)
    else:
        compression = options.compression
        columns = checkpoint.by_column(slices)
        checkpoint.write_checkpoint(env, directory, 0, origin, columns, compression)
