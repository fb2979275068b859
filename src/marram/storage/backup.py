"""Backup and restore: a consistent copy of a store while it is written, and the way back.

Owns the two copies; not the formats. A backup is a store itself: it can be opened, verified and
copied with ordinary tools.

B1  a backup holds the state at one committed position.
B2  the target becomes a store in its last step only: an interrupted backup or restore is not one.
B3  nothing that exists is overwritten.

Threading: beside writers; one backup at a time has a target.
"""

from __future__ import annotations

from marram.env.api import Env
from marram.errors import Corruption, InvalidArgument, NotAStore
from marram.storage import layout
from marram.storage.checkpoint import Origin
from marram.storage.generations import Progress
from marram.storage.recovery import write_first_generation
from marram.storage.store import Position, Store
from marram.storage.verify import verify_directory

_COPY_SIZE = 1024 * 1024


def backup(store: Store, target: str, progress: Progress | None = None) -> Position:
    """Write the state of `store` as of now into the new or empty directory `target`.

    Returns the position it holds. Raises InvalidArgument: the target is in use; OSError.
    """
    env = store.env
    _claim(env, target)
    snapshot = store.snapshot()
    try:
        store.wait(snapshot.position)
        origin = Origin(store.store_id, store.epoch, snapshot.position, store.now_ms())
        slices = store.generations.slices(snapshot, origin.time_ms, progress)
        write_first_generation(env, target, origin, slices)
    finally:
        store.release(snapshot)
    return Position(origin.epoch, origin.sequence)


def restore(env: Env, source: str, target: str, progress: Progress | None = None) -> None:
    """Copy the backup in `source` into the new or empty directory `target`, checked first.

    Raises NotAStore, Corruption: the backup is damaged; InvalidArgument: the target is in use.
    """
    if not env.exists(f"{source}/{layout.VERSION}"):
        raise NotAStore(f"{source} holds no store")
    report = verify_directory(env, source)
    if report.problems:
        raise Corruption(f"the backup is damaged: {report.problems[0]}")
    _claim(env, target)
    generation = layout.read_version(env, source)
    found = layout.numbered(env.list_dir(source))
    names = [f"checkpoint.{generation}"]
    names += [f"logfile.{number}" for number in found["logfile"] if number >= generation]
    total = sum(_size(env, f"{source}/{name}") for name in names)
    done = 0
    for name in names:
        done = _copy(env, f"{source}/{name}", f"{target}/{name}", done, total, progress)
    env.sync_dir(target)
    layout.switch_version(env, target, generation)


def _claim(env: Env, target: str) -> None:
    """Make sure `target` is an empty directory (B3)."""
    if env.exists(target):
        if env.list_dir(target):
            raise InvalidArgument(f"{target} is not empty; name a new directory")
    else:
        env.make_dir(target)
        env.sync_dir(target.rpartition("/")[0] or "/")


def _size(env: Env, path: str) -> int:
    file = env.open(path)
    try:
        return file.size()
    finally:
        file.close()


def _copy(
    env: Env, source: str, target: str, done: int, total: int, progress: Progress | None
) -> int:
    reader = env.open(source)
    try:
        writer = env.open(target, write=True, create=True, exclusive=True)
        try:
            at = 0
            while piece := reader.read(_COPY_SIZE, at):
                writer.write(piece, at)
                at += len(piece)
                done += len(piece)
                if progress is not None:
                    progress(done, total)
            writer.sync()
        finally:
            writer.close()
    finally:
        reader.close()
    return done
