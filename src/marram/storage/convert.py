"""Convert: a consistent copy of a store with another engine.

Owns reading a store that nobody has open without changing it, and writing its rows anew; not what
the engines' files look like.

E1  the source is read, and not written: neither its torn tail is cut nor anything removed.
E2  the copy holds what the source's next opening would hold: the same keys, values, deadlines,
    types and keyspaces, at the same position and time.
E3  the target becomes a store in the last step only, and nothing that exists is overwritten.
E4  the copy is another store: it has an id of its own.

Why E4, where a backup keeps the id: a backup is there to take the place of a store that was lost.
Here the source is still there and works, so both may be written from now on, and would then have
different batches at the same positions. With one id nothing could tell them apart: the one could
be taken for a replica of the other. The price is that a replica cannot go over to the copy by its
position; it has to start from a full copy. Positions go on from the source's, so that those that
programs have kept still compare rightly.

Threading: runs alone, under the source's lock.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from marram.env.api import Env
from marram.errors import Corruption, InvalidArgument, NotAStore
from marram.storage import engines, layout, recovery
from marram.storage.clock import StoreClock
from marram.storage.engine import Engine, Origin, Progress, rows_of
from marram.storage.lock import CloseNote, DirectoryLock
from marram.storage.options import Options
from marram.storage.sstable.block import Row
from marram.storage.store import Position

_NO_LOCK = contextlib.nullcontext()


class Converted(NamedTuple):
    """What the copy holds. keys: how many, in all keyspaces."""

    position: Position
    keys: int


def convert(
    env: Env, source: str, target: str, engine: str, progress: Progress | None = None
) -> Converted:
    """Copy the store in `source` to the new or empty directory `target`, with engine `engine`.

    Both are absolute paths. Raises Locked, NotAStore, Corruption, UnsupportedFormat, OSError;
    InvalidArgument: the source is of that engine, or the target is not empty.
    """
    options = Options(engine=engine)
    if not env.exists(source):
        raise NotAStore(f"{source} does not exist")
    if not recovery.is_store(env, source):  # before LOCK is made in it
        raise NotAStore(f"{source} holds no store")
    lock = DirectoryLock.acquire(env, source)
    try:
        found, origin, epoch = _read(env, source, lock.read_note(), engine)
        try:
            _claim(env, target)
            return _write(env, target, options, found, origin, epoch, progress)
        finally:
            found.close()
    finally:
        lock.release()


def _read(
    env: Env, directory: str, note: CloseNote | None, other: str
) -> tuple[Engine, Origin, int]:
    """The state of a store, as of when, and its epoch, as recovery would find it (E1)."""
    generation = layout.read_version(env, directory)
    held = engines.engine_of(env, directory, generation)
    if held == other:
        raise InvalidArgument(
            f"{directory} is of engine {held!r} already; `marram backup` makes a plain copy"
        )
    numbers = layout.numbered(env.list_dir(directory))["logfile"]
    logs = [number for number in numbers if number >= generation]
    if not logs or logs[0] != generation:
        raise Corruption("the file is missing", layout.log_path(directory, generation))
    headers, _ = recovery.log_headers(env, directory, logs)
    store_id = headers[0].store_id
    with recovery.uncollected():
        engine, origin = engines.load(env, directory, generation, store_id, Options())
        try:
            replay = recovery.replay_logs(env, directory, engine, origin, headers, note)
        except BaseException:
            engine.close()
            raise
    now_ms = StoreClock(env, replay.time_ms).now_ms()
    epoch, chain = replay.history or (0, 0)
    return engine, Origin(store_id, epoch, replay.sequence, now_ms, chain), replay.epoch


def _write(
    env: Env,
    target: str,
    options: Options,
    engine: Engine,
    origin: Origin,
    epoch: int,
    progress: Progress | None,
) -> Converted:
    pin = engine.snapshot(origin.sequence)
    keys = 0

    def check() -> None:
        """Nobody closes what nobody has open."""

    def counted(rows: list[Row]) -> list[Row]:
        nonlocal keys
        keys += len(rows)
        return rows

    try:
        slices = rows_of(pin, origin.time_ms, _NO_LOCK, check, progress)
        own = origin._replace(store_id=env.random_bytes(16))  # E4
        recovery.write_first_generation(env, target, options, own, map(counted, slices), epoch)
    finally:
        engine.release(pin)
    return Converted(Position(epoch, origin.sequence), keys)


def _claim(env: Env, target: str) -> None:
    """Make sure `target` is an empty directory (E3)."""
    if env.exists(target):
        if env.list_dir(target):
            raise InvalidArgument(f"{target} is not empty; name a new directory")
    else:
        env.make_dir(target)
        env.sync_dir(target.rpartition("/")[0] or "/")
