"""The store: one directory, one owner, one order of batches.

Owns opening, appending, generations, background work and closing; everything above (db.py, the
node) changes and reads data through it only.

O1  append() numbers a batch, queues it for the log and applies it, as one step.
O2  a batch the log has no room for changes nothing (StoreFull); a batch it took is committed, or
    in doubt for ever (commit.py C5).
O3  a checkpoint never blocks writers for longer than the switch of the log file.
O4  nothing is removed before the version that no longer needs it is durable.

A generation switch, in order: the next log is made; the old one is marked, synced and left; a
snapshot is pinned and streamed to checkpoint.N; `version` is switched; old files are removed. A
crash anywhere leaves the old generation with both logs, or the new one.

Threading: every public method may be called from any thread, begin() ... commit() and everything
documented for the event loop excepted; `lock` guards the engine and the appending side.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from marram.coding.batch import (
    DELETE_RANGE,
    PATCH,
    PUT,
    SWAP,
    Change,
    delete,
    encode,
    encode_put,
)
from marram.env.api import Env, Task
from marram.errors import Closed, Forked, NotAStore, StoreFull
from marram.storage import layout, recovery
from marram.storage.checkpoint import Origin, write_checkpoint
from marram.storage.clock import StoreClock
from marram.storage.commit import CommitQueue, Group
from marram.storage.entry import is_expired
from marram.storage.lock import CloseNote, DirectoryLock
from marram.storage.log.format import LogHeader
from marram.storage.log.writer import LogWriter
from marram.storage.memory.engine import MemoryEngine, Snapshot, Undo
from marram.storage.options import Options
from marram.storage.sstable.writer import Row
from marram.storage.view import View

_logger = logging.getLogger("marram.store")

_SLICE_KEYS = 256  # keys a checkpoint takes per step: well under a millisecond of the lock
_KEY_OVERHEAD = 160  # estimated bytes a key costs beyond its bytes: dict slot, objects, order
_RETRY_NS = 30 * 10**9  # after a checkpoint failed: every try costs a log file
_SPACE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Progress = Callable[[int, int], None]
"""progress(done, total): called now and then, from the working thread."""


class Position(NamedTuple):
    """A place in the commit order; compares in that order."""

    epoch: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.sequence}"


class Store:
    """An open store."""

    def __init__(
        self,
        directory: str,
        env: Env,
        options: Options,
        lock: DirectoryLock,
        recovered: recovery.Recovered,
    ) -> None:
        """Use Store.open()."""
        self.directory = directory
        self.env = env
        self.options = options
        self.engine = recovered.engine
        self.store_id = recovered.store_id
        self.clock = StoreClock(env, recovered.time_ms)
        self.now_ms = self.clock.now_ms
        self.commit = CommitQueue(
            recovered.log,
            recovered.last_sequence,
            recovered.epoch,
            sync_each=options.durability == "sync",
            now_ms=self.clock.now_ms,
            monotonic_ns=env.monotonic_ns,
        )
        self.lock = self.commit.lock
        self.recovered = recovered
        self.generation = recovered.generation
        self.expired_keys = 0
        self.checkpoints = 0
        self.last_checkpoint_ms = 0  # wall clock, ms; 0 for none since opening
        self.last_checkpoint_error = ""
        self._retry_at_ns = 0
        self._checkpoint_queued = False  # a background one was started and has not ended
        self.closed: type[Closed] | None = None
        self._directory_lock = lock
        self._earlier_logs = recovered.logs[:-1]
        self._earlier_log_bytes = recovered.live_log_bytes
        self._checkpoint_lock = threading.Lock()
        self._sync_lock = threading.Lock()  # a log is not closed while it is being synced
        self._stop = threading.Event()
        self._tasks: list[Task] = []
        self._dropped: deque[Snapshot] = deque()

    # -- opening ---------------------------------------------------------------------------------

    @classmethod
    def open(cls, directory: str, env: Env, options: Options) -> Store:
        """Open the store in `directory`, an absolute path, making it where options say so.

        Raises Locked, NotAStore, Corruption, UnsupportedFormat, OSError.
        """
        if not env.exists(directory):
            if not options.create:
                raise NotAStore(f"{directory} does not exist")
            _make_directory(env, directory)
        elif not options.create and layout.VERSION not in env.list_dir(directory):
            raise NotAStore(f"{directory} holds no store")
        else:
            recovery.is_store(env, directory)  # refuse a foreign directory before LOCK is made
        lock = DirectoryLock.acquire(env, directory)
        try:
            if not recovery.is_store(env, directory):
                recovery.create_store(env, directory)
            recovered = recovery.recover(env, directory, lock.read_note())
            lock.write_owner()
        except BaseException:
            lock.release()
            raise
        store = cls(directory, env, options, lock, recovered)
        _open_stores.add(store)
        if store.clock.ahead_ms > 60_000:
            _logger.warning(
                "the wall clock is %d s behind the latest time in the log; deadlines go on from "
                "the log's time", store.clock.ahead_ms // 1000,
            )  # fmt: skip
        if options.durability == "interval":
            store._tasks.append(env.start("marram-sync", store._sync_now_and_then))
        return store

    def set_address(self, address: str) -> None:
        """Note in LOCK where this store is served, for those who find it locked."""
        with contextlib.suppress(OSError):  # a courtesy: the lock itself does not depend on it
            self._directory_lock.write_owner(address)

    # -- positions -------------------------------------------------------------------------------

    @property
    def last(self) -> int:
        """The sequence number of the newest batch applied."""
        return self.commit.last

    @property
    def committed(self) -> int:
        """The sequence number up to which batches are as durable as the options ask."""
        return self.commit.committed

    @property
    def epoch(self) -> int:
        """The epoch new batches are written in."""
        return self.commit.epoch

    @property
    def position(self) -> Position:
        """The newest committed position."""
        return Position(self.commit.epoch, self.commit.committed)

    @property
    def failure(self) -> BaseException | None:
        """What made the store fail (P4), or None."""
        return self.commit.failure

    @property
    def unsettled(self) -> bool:
        """Whether any position is not committed yet."""
        return self.commit.unsettled

    def settles_at(self, key: bytes) -> int:
        """The position that settles the key's newest value, or 0 where it is settled."""
        return self.commit.settles_at(key)

    def wait(self, sequence: int) -> None:
        """Block until `sequence` is committed. Raises OutcomeUnknown."""
        self.commit.wait(sequence)

    # -- reading ---------------------------------------------------------------------------------

    def view(self, keyspace: int) -> View:
        """A view of a keyspace's newest state; begin() it for every command."""
        return View(self.engine, self.commit, keyspace)

    def snapshot(self) -> Snapshot:
        """Pin the newest state. What it shows may be told once its position is committed."""
        with self.lock:
            self.check_open()
            self._release_dropped()
            return self.engine.snapshot(self.commit.last)

    def release(self, snapshot: Snapshot) -> None:
        """Unpin a snapshot; never blocks.

        A snapshot may be dropped by the garbage collector, in the middle of anything, even of a
        section that holds the lock. So where the lock is taken, the next writer unpins it.
        """
        self._dropped.append(snapshot)
        if self.lock.acquire(blocking=False):
            try:
                self._release_dropped()
            finally:
                self.lock.release()

    def changed_since(
        self,
        snapshot: Snapshot,
        keys: Sequence[tuple[int, bytes]],
        ranges: Sequence[tuple[int, bytes, bytes | None]],
    ) -> bool:
        """Whether any of the keys, or any key in the ranges, was written after the snapshot.

        Under the lock, or on the one thread that writes.
        """
        spaces = self.engine.spaces
        position = snapshot.position
        return any(
            spaces[keyspace] is not snapshot.spaces[keyspace]
            or spaces[keyspace].changed_since(key, position)
            for keyspace, key in keys
        ) or any(
            spaces[keyspace] is not snapshot.spaces[keyspace]
            or spaces[keyspace].range_changed_since(start, stop, position)
            for keyspace, start, stop in ranges
        )

    # -- writing ---------------------------------------------------------------------------------

    def append(self, changes: list[Change]) -> int:
        """Number, log and apply one atomic batch; returns the position to wait for (O1, O2).

        Raises StoreFull, StoreFailed, Closed: nothing was changed.
        """
        with self.lock:
            return self.append_locked(changes)

    def append_locked(self, changes: list[Change]) -> int:
        """append() for a caller that holds the lock, having checked something under it."""
        self._check_writable(changes)
        batch = encode(changes)
        self._reserve(len(batch))
        try:
            group = self.commit.enter(batch)
            _mark(group, changes)
            self.engine.apply(changes, group.last)
        except BaseException as error:
            self._broken(error)
            raise
        return group.last

    def append_put(self, keyspace: int, key: bytes, value: bytes) -> int:
        """append([put(keyspace, key, value)]), the most frequent batch, without the tuples."""
        with self.lock:
            if (
                self.closed is not None
                or self.commit.failure is not None
                or (self.options.memory_limit)
            ):
                return self.append_locked([(PUT, keyspace, key, value, 0, 0)])
            batch = encode_put(keyspace, key, value)
            self._reserve(len(batch))
            try:
                group = self.commit.enter(batch)
                group.keys.add(key)
                self.engine.put(keyspace, key, value, group.last)
            except BaseException as error:
                self._broken(error)
                raise
            return group.last

    def begin(self) -> Unit:
        """Start a unit: changes applied at once, logged together (see Unit)."""
        self.lock.acquire()
        try:
            self._check_writable([])
        except BaseException:
            self.lock.release()
            raise
        return Unit(self)

    def expire_due(self, limit: int) -> int:
        """Delete up to `limit` keys whose deadlines passed, in one batch; returns how many."""
        with self.lock:
            if self.closed is not None or self.commit.failure is not None:
                return 0
            now_ms = self.now_ms()
            due: list[Change] = []
            for keyspace, space in enumerate(self.engine.spaces):
                if space.volatile and len(due) < limit:
                    keys = space.due(now_ms, limit - len(due))
                    due += [delete(keyspace, key) for key in keys]
            if not due:
                return 0
            self.append_locked(due)
            self.expired_keys += len(due)
            return len(due)

    def expire_key(self, keyspace: int, key: bytes) -> int:
        """Delete a key found past its deadline; returns the position to wait for, or 0."""
        with self.lock:
            held = self.engine.spaces[keyspace].get(key)
            if held is None or not is_expired(held, self.now_ms()):
                return 0
            sequence = self.append_locked([delete(keyspace, key)])
            self.expired_keys += 1
            return sequence

    # -- the event loop's side of commits ----------------------------------------------------------

    def take_group(self) -> Group | None:
        """The batches to write next; None where there are none, or the log is taken."""
        return self.commit.take()

    def complete(self, group: Group, error: BaseException | None) -> None:
        """Say how group.write() ended."""
        self.commit.complete(group, error)

    # -- generations -------------------------------------------------------------------------------

    def log_bytes(self) -> int:
        """Bytes in the live logs: what a recovery would replay."""
        return self._earlier_log_bytes + self.commit.log.end

    def checkpoint_due(self) -> bool:
        """Whether the log has outgrown both the option's bytes and its ratio to the data."""
        minimum = self.options.checkpoint_log_bytes
        size = self.log_bytes()
        if not minimum or size < minimum or self._checkpoint_queued:
            return False
        if self.last_checkpoint_error and self.env.monotonic_ns() < self._retry_at_ns:
            return False
        return size >= self.options.checkpoint_log_ratio * self.engine.data_bytes()

    def start_checkpoint(self) -> bool:
        """Checkpoint in the background; False where one is under way already."""
        if self._checkpoint_queued or self._checkpoint_lock.locked() or self.closed is not None:
            return False
        self._checkpoint_queued = True
        self._tasks = [task for task in self._tasks if not task.join(0)]
        self._tasks.append(self.env.start("marram-checkpoint", self._checkpoint_in_background))
        return True

    def checkpoint(self, progress: Progress | None = None) -> None:
        """Start a new generation from the present state. Blocks the caller, not the writers (O3).

        Raises StoreFull: no room for it, the old generation goes on; StoreFailed; Closed.
        """
        with self._checkpoint_lock:
            self.check_open()
            generation = self.commit.log.number + 1
            try:
                self._switch_log(generation)
                self._write_generation(generation, progress)
            except OSError as error:
                self.last_checkpoint_error = str(error)
                self._retry_at_ns = self.env.monotonic_ns() + _RETRY_NS
                if error.errno not in _SPACE_ERRORS:
                    self.commit.fail(error)
                self.commit.check()
                raise StoreFull(f"no room for a checkpoint: {error}") from error
            self.last_checkpoint_error = ""
            self.checkpoints += 1
            self.last_checkpoint_ms = self.env.wall_ms()

    def slices(
        self, snapshot: Snapshot, now_ms: int, progress: Progress | None
    ) -> Iterator[list[Row]]:
        """The snapshot's rows in order, a slice at a time under the lock."""
        total = sum(len(space) for space in snapshot.spaces)
        done = 0
        for keyspace in range(len(snapshot.spaces)):
            start: bytes | None = b""
            while start is not None:
                if self._stop.is_set():
                    raise Closed("the store is closing")
                with self.lock:
                    rows, start = snapshot.chunk(keyspace, start, None, _SLICE_KEYS, now_ms)
                yield [
                    (keyspace, key, held, 0, 0)
                    if isinstance(held, bytes)
                    else (keyspace, key, held.value, held.deadline_ms, held.type)
                    for key, held in rows
                ]
                done += len(rows)
                if progress is not None:
                    progress(min(done, total), total)

    @contextlib.contextmanager
    def no_checkpoint(self) -> Iterator[None]:
        """Keep generations from switching for a while; waits for one that is under way."""
        with self._checkpoint_lock:
            yield

    # -- closing -----------------------------------------------------------------------------------

    def sync(self) -> None:
        """Make everything appended so far durable, whatever the durability. Raises StoreFailed."""
        self.check_open()
        self.commit.wait(self.commit.last)
        self._sync_log()

    def close(self) -> None:
        """Sync, leave a closing note, give the directory up; idempotent."""
        with self.lock:
            if self.closed is not None:
                return
            self.closed = Closed
        self._stop.set()
        for task in self._tasks:
            task.join()
        try:
            # A checkpoint in another thread sees _stop and gives up; wait for that.
            with self._checkpoint_lock:
                if self.commit.failure is None:
                    self.commit.wait(self.commit.last)
                    self._finish_log()
        finally:
            with contextlib.suppress(OSError):  # after a failure: the lock must go all the same
                self.commit.log.close()
            self.engine = _closed_engine(Closed("the store is closed"))
            self._directory_lock.release()

    def after_fork(self) -> None:
        """In a forked child: every use raises, and the parent's lock and files are left alone."""
        self.closed = Forked
        self.engine = _closed_engine(
            Forked("the store was opened before fork(); open it anew in this process")
        )

    def check_open(self) -> None:
        """Raises Closed, Forked, StoreFailed."""
        if self.closed is Forked:
            raise Forked("the store was opened before fork(); open it anew in this process")
        if self.closed is not None:
            raise Closed("the store is closed")
        self.commit.check()

    # -- figures -----------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Figures about the store, nested, plain values, units in the names."""
        commit, spaces = self.commit, self.engine.spaces
        times = commit.sync_times
        return {
            "engine": self.engine.name,
            "durability": self.options.durability,
            "directory": self.directory,
            "num_keys": sum(len(space) for space in spaces),
            "data_bytes": self.engine.data_bytes(),
            "position": {"epoch": self.epoch, "sequence": self.committed},
            "unsettled_batches": commit.last - commit.committed,
            "keyspaces": {
                str(number): {
                    "keys": len(space),
                    "volatile_keys": space.volatile,
                    "data_bytes": space.data_bytes,
                }
                for number, space in enumerate(spaces)
                if len(space)
            },
            "expired_keys": self.expired_keys,
            "generation": self.generation,
            "log": {
                "number": commit.log.number,
                "bytes": self.log_bytes(),
                "groups": commit.groups,
                "batches": commit.committed - self.recovered.last_sequence,
            },
            "sync": {
                "count": times.total,
                "mean_us": times.sum_ns // max(1, times.total) // 1000,
                "max_us": times.max_ns // 1000,
            },
            "checkpoint": {
                "count": self.checkpoints,
                "running": self._checkpoint_lock.locked(),
                "last_ms": self.last_checkpoint_ms,
                "last_error": self.last_checkpoint_error,
            },
            "recovery": {
                "replayed_batches": self.recovered.replayed_batches,
                "cut_bytes": self.recovered.cut_bytes,
            },
            "failure": None if commit.failure is None else str(commit.failure),
        }

    def over_memory_limit(self) -> bool:
        """Whether the estimated size of keys and values is above options.memory_limit."""
        limit = self.options.memory_limit
        if not limit:
            return False
        keys = sum(len(space) for space in self.engine.spaces)
        return self.engine.data_bytes() + keys * _KEY_OVERHEAD > limit

    # -- private: writing --------------------------------------------------------------------------

    def _slow_append(self) -> bool:
        """Whether append_put() has anything to look at first."""
        return (
            self.closed is not None
            or self.commit.failure is not None
            or self.options.memory_limit > 0
            or bool(self._dropped)
        )

    def _release_dropped(self) -> None:
        while self._dropped:
            self.engine.release(self._dropped.popleft())

    def _check_writable(self, changes: list[Change]) -> None:
        self.check_open()
        self._release_dropped()
        if (
            self.options.memory_limit
            and any(change[0] in (PUT, PATCH) for change in changes)
            and self.over_memory_limit()
        ):
            raise StoreFull(f"keys and values exceed memory_limit {self.options.memory_limit}")

    def _broken(self, error: BaseException) -> None:
        """Latch after an interrupt (Ctrl-C, no memory) between logging and applying a batch."""
        if self.commit.failure is None:
            self.commit.failure = error

    def _reserve(self, size_bytes: int) -> None:
        try:
            if self.commit.reserve(size_bytes) and self.checkpoint_due():
                self.start_checkpoint()
        except OSError as error:
            if error.errno not in _SPACE_ERRORS:
                self.commit._fail(error)
                self.commit.check()
            raise StoreFull(f"no room for {size_bytes} bytes in the log: {error}") from error

    # -- private: generations ----------------------------------------------------------------------

    def _checkpoint_in_background(self) -> None:
        try:
            self.checkpoint()
        except Exception as error:
            self.last_checkpoint_error = str(error)
            _logger.error("background checkpoint failed: %s", error)
        finally:
            self._checkpoint_queued = False

    def _switch_log(self, number: int) -> None:
        """Go on in a new log. Raises OSError: the old one goes on, or the store has failed."""
        commit = self.commit
        old = commit.take_log()
        try:
            # The old log must be whole on disk before the new one can hold anything: recovery
            # would else see a hole.
            old.mark(commit.last_written, commit.epoch, commit.now_ms())
            self._sync_log_file(old)
        except BaseException as error:
            commit.give_log(error=error)
            raise
        header = LogHeader(self.store_id, number, old.end, commit.last_written, commit.epoch)
        new: LogWriter | None = None
        try:
            new = LogWriter.create(self.env, self.directory, header, commit.pending_bytes)
            commit.give_log(new)
        except BaseException as error:
            self._abandon_log(number, new, error)
            raise
        self._earlier_logs.append(old.number)
        self._earlier_log_bytes += old.end
        with self._sync_lock:
            old.close()

    def _abandon_log(self, number: int, new: LogWriter | None, error: BaseException) -> None:
        """Remove a log that could not be made, and go on in the old one (or fail)."""
        path = layout.log_path(self.directory, number)
        try:
            if new is not None:
                new.close()
            if self.env.exists(path):
                self.env.remove(path)
                self.env.sync_dir(self.directory)
        except OSError as second:
            error = second  # it may come back after a crash, and promise an end the old log passed
        is_space = isinstance(error, OSError) and error.errno in _SPACE_ERRORS
        self.commit.give_log(error=None if is_space else error)

    def _write_generation(self, generation: int, progress: Progress | None) -> None:
        """Stream the present state to checkpoint.N and switch to it. Raises OSError."""
        snapshot = self.snapshot()
        try:
            self.commit.wait(snapshot.position)
            origin = Origin(self.store_id, self.epoch, snapshot.position, self.now_ms())
            slices = self.slices(snapshot, origin.time_ms, progress)
            write_checkpoint(
                self.env,
                self.directory,
                generation,
                origin,
                slices,
                self.options.checkpoint_compression,
            )
        except BaseException:
            path = layout.checkpoint_path(self.directory, generation)
            with contextlib.suppress(OSError):  # recovery removes it as well
                if self.env.exists(path):
                    self.env.remove(path)
            raise
        finally:
            with self.lock:
                retired = self.engine.release(snapshot)
            self._free(retired)
        self._sync_log()
        try:
            layout.switch_version(self.env, self.directory, generation)
        except OSError as error:
            # Which generation a crash would find is unknown now.
            self.commit.fail(error)
            self.commit.check()
        old_generation, self.generation = self.generation, generation
        old_logs, self._earlier_logs = self._earlier_logs, []
        self._earlier_log_bytes = 0
        self.env.remove(layout.checkpoint_path(self.directory, old_generation))
        for number in old_logs:
            self.env.remove(layout.log_path(self.directory, number))

    def _free(self, retired: list[dict[bytes, Any]]) -> None:
        """Free old versions a little at a time: one big free would hold every thread up."""
        for links in retired:
            while links:
                for _ in range(min(1000, len(links))):
                    links.popitem()
                self.env.pause()

    # -- private: syncing --------------------------------------------------------------------------

    def _sync_now_and_then(self) -> None:
        while not self._stop.wait(self.options.interval_ms / 1000):
            if self.commit.failure is not None:
                return
            with contextlib.suppress(OSError):  # latched by _sync_log_file
                self._sync_log()

    def _sync_log(self) -> None:
        log = self.commit.log
        if log.synced < log.end:
            self._sync_log_file(log)

    def _sync_log_file(self, log: LogWriter) -> None:
        """Sync a log beside its writers. A failure is final (P4). Raises OSError."""
        with self._sync_lock:
            if log is not self.commit.log:
                return  # switched meanwhile, which synced it
            try:
                log.sync()
            except OSError as error:
                self.commit.fail(error)
                raise

    def _finish_log(self) -> None:
        """End the log for a clean close. Raises StoreFailed."""
        log = self.commit.log
        try:
            log.sync()
            log.mark(self.commit.last, self.epoch, self.now_ms())
            log.sync()
            log.trim()
            self._directory_lock.write_note(CloseNote(log.number, log.end))
        except OSError as error:
            self.commit.fail(error)
            self.commit.check()


_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for store in list(_open_stores):
        store.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)


class Unit:
    """Changes that are applied at once, so that later ones see them, and logged as one batch.

    Holds the store's lock until commit() or rollback(). Single use.
    """

    __slots__ = ("_changes", "_store", "_undo")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changes: list[Change] = []
        self._undo: Undo = []

    @property
    def changes(self) -> list[Change]:
        """What was applied so far."""
        return self._changes

    def apply(self, changes: list[Change]) -> None:
        """Apply changes now. Raises StoreFull: none of these was applied; roll back."""
        self._store._check_writable(changes)
        self._undo += self._store.engine.apply(changes, self._store.commit.last + 1)
        self._changes += changes

    def commit(self) -> int:
        """Log what was applied; returns the position to wait for, 0 where nothing was.

        Raises StoreFull, StoreFailed: everything was undone.
        """
        store = self._store
        try:
            if not self._changes:
                return 0
            batch = encode(self._changes)
            store._reserve(len(batch))
            try:
                group = store.commit.enter(batch)
                _mark(group, self._changes)
            except BaseException as error:
                store._broken(error)
                raise
            self._undo = []
            return group.last
        finally:
            self.rollback()

    def rollback(self) -> None:
        """Undo what was not committed and let go of the store; idempotent."""
        store = self._store
        if self._undo:
            store.engine.revert(self._undo, store.commit.last + 1)
            self._undo = []
        if store.lock.locked():
            store.lock.release()


def _mark(group: Group, changes: list[Change]) -> None:
    """Note which keys the group unsettles, before the map changes (commit.py C4)."""
    for change in changes:
        if change[0] in (DELETE_RANGE, SWAP):
            group.everything = True
        else:
            group.keys.add(change[2])


def _make_directory(env: Env, directory: str) -> None:
    """Make the directory and its name durable, missing parents included."""
    missing = []
    path = directory
    while path and not env.exists(path):
        missing.append(path)
        path = path.rpartition("/")[0]
    env.make_dir(directory)
    for made in reversed(missing):
        env.sync_dir(made.rpartition("/")[0] or "/")


class _ClosedEngine(MemoryEngine):
    """Stands where the map was, so that a late reader gets an error and not an answer."""

    def __init__(self, error: Closed) -> None:
        self._error = error

    @property
    def spaces(self) -> Any:  # type: ignore[override]
        raise self._error


def _closed_engine(error: Closed) -> MemoryEngine:
    return _ClosedEngine(error)
