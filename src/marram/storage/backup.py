"""Backup and restore: a consistent copy of a store while it is written, and the way back.

Owns the two copies; not the formats. A backup is a store itself: it can be opened, verified and
copied with ordinary tools. It has the store's id, and of its files hard links where they never
change and the file system has links: an lsm store is backed up in the time of a flush.

B1  a backup holds the state at one committed position.
B2  the target becomes a store in its last step only: an interrupted backup or restore is not one.
B3  nothing that exists is overwritten.

Threading: beside writers; one backup at a time has a target.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from marram.env.api import Env
from marram.errors import Corruption, InvalidArgument, NotAStore
from marram.storage import engines, layout
from marram.storage.engine import Origin, Progress
from marram.storage.recovery import log_headers, start_first_log, write_first_generation
from marram.storage.store import Position, Store
from marram.storage.verify import tables_of, verify_directory

if TYPE_CHECKING:
    from marram.storage.lsm.manifest import Listing

_COPY_SIZE = 1024 * 1024


def backup(store: Store, target: str, progress: Progress | None = None) -> Position:
    """Write the state of `store` as of now into the new or empty directory `target`.

    Returns the position it holds. Raises InvalidArgument: the target is in use; OSError;
    StoreFull, StoreFailed: the flush it begins with could not be done.
    """
    _claim(store.env, target)
    if store.engine.name == engines.LSM:
        return _link_tables(store, target, progress)
    env = store.env
    snapshot, mark = store.marked_snapshot()
    try:
        store.wait(snapshot.position)
        origin = Origin(store.store_id, mark.epoch, mark.sequence, store.now_ms(), mark.chain)
        slices = store.rows(snapshot, origin.time_ms, progress)
        options = replace(store.options, engine=store.engine.name)
        write_first_generation(env, target, options, origin, slices, store.epoch)
    finally:
        store.release(snapshot)
    return Position(store.epoch, origin.sequence)


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
    store_id = log_headers(env, source, [generation])[0][0].store_id
    tables = tables_of(env, source, generation, store_id)
    if tables is not None:
        _make_folder(env, layout.tables_path(target), target)
        names += [f"{layout.TABLES}/{name}" for name in tables]
    total = sum(_size(env, f"{source}/{name}") for name in names)
    done = 0
    for name in names:
        done = _copy(env, f"{source}/{name}", f"{target}/{name}", done, total, progress)
    if tables is not None:
        env.sync_dir(layout.tables_path(target))
    env.sync_dir(target)
    layout.switch_version(env, target, generation)


def _link_tables(store: Store, target: str, progress: Progress | None) -> Position:
    """Flush, and link the tables there are then: they never change."""
    from marram.storage.lsm.engine import LsmEngine

    engine = store.engine
    assert isinstance(engine, LsmEngine)
    env = store.env
    _make_folder(env, layout.tables_path(target), target)
    store.checkpoint()
    with engine.listing() as listing:
        _link_listed(store, target, listing, progress)
        origin = listing.origin
        del listing  # it keeps the files
    store.wait(origin.sequence)
    start_first_log(env, target, origin, store.epoch)
    return Position(store.epoch, origin.sequence)


def _link_listed(store: Store, target: str, listing: Listing, progress: Progress | None) -> None:
    """Link or copy the tables and blobs of a listing, and write it down."""
    from marram.storage.lsm.manifest import write_manifest

    env = store.env
    version = listing.version
    done, total = 0, version.size_bytes + version.blob_bytes
    files = [
        (f"{table.number}.sst", table.size_bytes)
        for level in version.levels
        for table in level.tables
    ]
    files += [(f"{ref.number}.blob", ref.size_bytes) for ref in version.blobs.values()]
    for name, size_bytes in files:
        source = f"{layout.tables_path(store.directory)}/{name}"
        path = f"{layout.tables_path(target)}/{name}"
        try:
            env.link(source, path)
            done += size_bytes
        except OSError:  # another file system, or one without links
            done = _copy(env, source, path, done, total, None)
        if progress is not None:
            progress(done, total)
    env.sync_dir(layout.tables_path(target))
    write_manifest(env, target, 0, listing).close()


def _make_folder(env: Env, path: str, parent: str) -> None:
    env.make_dir(path)
    env.sync_dir(parent)


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
