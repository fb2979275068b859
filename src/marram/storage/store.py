"""The store: one directory, one owner, one order of batches.

Owns opening, appending, snapshots and closing; everything above (db.py, the node) changes and reads
data through it only. Checkpoints are generations.py's.

O1  append() numbers a batch, queues it for the log and applies it, as one step.
O2  a batch the log has no room for changes nothing (StoreFull); a batch it took is committed, or
    in doubt for ever (commit.py C5).
O3  after close() every use of the store, or of anything it gave out, raises Closed.

Threading: every public method may be called from any thread, begin() ... commit() and everything
documented for the event loop excepted; `lock` guards the engine and the appending side.
append_frame(), follow() and lead() are one thread's at a time: whoever follows the primary.
"""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from marram.coding.batch import (
    PATCH,
    PUT,
    Change,
    delete,
    encode,
    encode_put,
)
from marram.env.api import Env
from marram.errors import Closed, Forked, InvalidArgument, ReadOnly, StoreFull
from marram.storage import recovery
from marram.storage.aside import set_aside
from marram.storage.clock import StoreClock
from marram.storage.commit import CommitQueue, Group
from marram.storage.directory import prepare_directory
from marram.storage.engine import (
    SPACE_ERRORS,
    Engine,
    Home,
    Origin,
    Pin,
    Progress,
    Range,
    rows_of,
)
from marram.storage.entry import is_expired, stored
from marram.storage.frames import changes_of
from marram.storage.generations import Generations
from marram.storage.history import History, Mark, mark_of
from marram.storage.install import Installation
from marram.storage.lock import CloseNote, DirectoryLock
from marram.storage.log.format import FRAME_HEADER_SIZE
from marram.storage.log.tail import Frame
from marram.storage.memory.engine import MemoryEngine
from marram.storage.options import Options
from marram.storage.sstable.block import Row
from marram.storage.view import View

_logger = logging.getLogger("marram.store")

_LATE_WAIT_S = 0.001  # what a write is slowed down by where compactions are all but too late
_STALL_WAIT_S = 0.05  # how long a writer waits before it looks again


class Position(NamedTuple):
    """A place in the commit order; compares in that order."""

    epoch: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.sequence}"


class Stalls:
    """How often and how long writers were held back."""

    __slots__ = ("count", "sum_ns")

    def __init__(self) -> None:
        self.count = 0
        self.sum_ns = 0

    def record(self, elapsed_ns: int) -> None:
        """Count one."""
        self.count += 1
        self.sum_ns += elapsed_ns


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
        self.engine: Engine = recovered.engine
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
        self.history = History(env, directory, options, self.commit, recovered.kept)
        self.generations = Generations(
            env, directory, options, self.engine, self.commit, self.clock, self.history, recovered
        )
        self.expired_keys = 0
        # Whether append() waits where the engine cannot keep up. Who runs an event loop says no,
        # and holds its clients back by what engine.throttle() says.
        self.holds_back = True
        self.stalls = Stalls()
        self._limited = self.engine.is_limited  # is_full() has to be asked before every write
        self._pressed = False  # the engine was behind when it was last asked
        self.read_only = ""  # why nothing but append_frame() and install() changes it; "" if not
        self.installation: Installation | None = None
        self.closed: type[Closed] | None = None
        self._directory_lock = lock
        self._dropped: deque[Pin] = deque()

    # -- opening ---------------------------------------------------------------------------------

    @classmethod
    def open(cls, directory: str, env: Env, options: Options) -> Store:
        """Open the store in `directory`, an absolute path, making it where options say so.

        Raises Locked, NotAStore, Corruption, UnsupportedFormat, OSError.
        """
        prepare_directory(env, directory, options)
        lock = DirectoryLock.acquire(env, directory)
        try:
            if not recovery.is_store(env, directory):
                recovery.create_store(env, directory, options)
            recovered = recovery.recover(env, directory, lock.read_note(), options)
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
        store.generations.open()
        store.engine.open(
            Home(env, directory, options, store.lock, store.now_ms), store.commit.fail
        )
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

    def wait(self, sequence: int, timeout_s: float | None = None) -> None:
        """Block until `sequence` is committed. Raises OutcomeUnknown, also past the timeout."""
        if self.commit.committed < sequence:
            self.commit.wait(sequence, timeout_s)

    def wait_durable(self, sequence: int) -> None:
        """Block until `sequence` is durable here, whatever replicas have. Raises OutcomeUnknown."""
        self.commit.wait(sequence, None, True)

    # -- reading ---------------------------------------------------------------------------------

    def view(self, keyspace: int) -> View:
        """A view of a keyspace's newest state; begin() it for every command."""
        return View(self.engine, self.commit, keyspace)

    def snapshot(self) -> Pin:
        """Pin the newest state. What it shows may be told once its position is committed."""
        with self.lock:
            self.check_open()
            self._release_dropped()
            pin: Pin = self.engine.snapshot(self.commit.last)
            return pin

    def marked_snapshot(self) -> tuple[Pin, Mark]:
        """snapshot(), and what the history up to it comes to; returns once that is durable here.

        Raises OutcomeUnknown.
        """
        with self.lock:
            self.check_open()
            self._release_dropped()
            pin: Pin = self.engine.snapshot(self.commit.last)
            unwritten = self.commit.unwritten()
        try:
            self.commit.wait(pin.position, None, True)
            return pin, mark_of(unwritten, pin.position)
        except BaseException:
            self.release(pin)
            raise

    def rows(self, pin: Pin, now_ms: int, progress: Progress | None = None) -> Iterator[list[Row]]:
        """A snapshot's rows not expired at now_ms, in table order, some at a time.

        Raises Closed.
        """
        return rows_of(pin, now_ms, self.lock, self.check_open, progress)

    def release(self, snapshot: Pin) -> None:
        """Unpin a snapshot; never blocks.

        A snapshot may be dropped by the garbage collector, in the middle of anything, even of a
        section that holds the lock. So where the lock is taken, the next writer unpins it.
        """
        if self.closed is not None:
            return  # everything it pinned is gone
        self._dropped.append(snapshot)
        if self.lock.acquire(blocking=False):
            try:
                self._release_dropped()
            finally:
                self.lock.release()

    def changed_since(
        self,
        snapshot: Pin,
        keys: Sequence[tuple[int, bytes]],
        ranges: Sequence[Range],
    ) -> bool:
        """Whether any of the keys, or any key in the ranges, was written after the snapshot.

        Under the lock, or on the one thread that writes. It may say so of what was not, where the
        engine cannot tell any more.
        """
        return self.engine.changed_since(snapshot, keys, ranges)

    # -- writing ---------------------------------------------------------------------------------

    def append(self, changes: list[Change]) -> int:
        """Number, log and apply one atomic batch; returns the position to wait for (O1, O2).

        Raises StoreFull, StoreFailed, Closed: nothing was changed.
        """
        if self._pressed:
            self._hold_back()
        with self.lock:
            return self.append_locked(changes)

    def append_locked(self, changes: list[Change]) -> int:
        """append() for a caller that holds the lock, having checked something under it."""
        self._check_writable(changes)
        batch = encode(changes)
        self.engine.prepare(changes)
        self._reserve(len(batch))
        try:
            group = self.commit.enter(batch)
            self.commit.note_keys(group, changes)
            self.engine.apply(changes, group.last)
        except BaseException as error:
            self._broken(error)
            raise
        return group.last

    def append_put(self, keyspace: int, key: bytes, value: bytes) -> int:
        """append([put(keyspace, key, value)]), the most frequent batch, without the tuples."""
        if self._pressed:
            self._hold_back()
        with self.lock:
            if self._slow_append():
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
        if self._pressed:
            self._hold_back()
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
            if self.closed is not None or self.commit.failure is not None or self.read_only:
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
            if held is None or not is_expired(held, self.now_ms()) or self.read_only:
                return 0
            sequence = self.append_locked([delete(keyspace, key)])
            self.expired_keys += 1
            return sequence

    # -- replication -------------------------------------------------------------------------------

    def follow(self) -> None:
        """Be a replica from now on: only append_frame() and install() change the store (ReadOnly).

        Its clock stands still, but for what it hears of the primary's. Raises Closed, StoreFailed.
        """
        with self.lock:
            self.check_open()
            if not self.read_only:
                # What a replica was told before counts, not what the clock here says.
                is_untouched = self.commit.last == self.recovered.last_sequence
                self.clock.follow(self.recovered.time_ms if is_untouched else self.now_ms())
                self.read_only = "the store follows another one, whose writes alone change it"
                self._limited = True  # every write is looked at

    def lead(self) -> None:
        """Take writes again; the clock runs. Raise the epoch first. Raises OutcomeUnknown."""
        self.wait_durable(self.last)
        with self.lock:
            self.check_open()
            if self.read_only:
                self.read_only = ""
                self._limited = self.engine.is_limited
                self.clock.lead()

    def append_frame(self, frame: Frame) -> int:
        """Log and apply batches as a primary wrote them; returns the position to wait for.

        They keep their epoch and time. Frames that are appended before one of them is written share
        its sync. Raises ValueError: it is not whole, not the next one, or of an epoch that ended;
        StoreFull, Corruption, OSError; all of these change nothing. StoreFailed, Closed.
        """
        changes = changes_of(frame)
        if self._pressed:
            self._hold_back()
        commit = self.commit
        while True:
            with self.lock:
                self.check_open()
                if commit.can_enter_frames:
                    sequence = self._enter_frame(frame, changes)
                    break
                before = commit.last
            self.wait_durable(before)  # batches of its own, which come first
        self.clock.hear(frame.time_ms)
        return sequence

    def raise_epoch(self, epoch: int) -> None:
        """Write in a higher epoch from now on; durable when this returns.

        Raises InvalidArgument: it is not higher; StoreFull, StoreFailed, Closed.
        """
        self.check_open()
        self.generations.raise_epoch(epoch)

    def install(self, origin: Origin, epoch: int = 0, *, is_committed: bool = True) -> Installation:
        """Begin to take over the state of another store, as of `origin` (install.py).

        epoch: of that store, where it is above that of its last batch. is_committed: False where
        readers wait until commit.set_bound() says that replicas have all of it.
        Raises InvalidArgument: another one is under way, or the origin is not to be taken;
        OSError; StoreFailed, Closed.
        """
        self.check_open()
        with self.lock:
            if self.installation is not None:
                raise InvalidArgument("another installation is under way")
            self.installation = Installation(self, origin, epoch, is_committed=is_committed)
            return self.installation

    def set_aside(self, after: int) -> str | None:
        """Write the batches after a position to a file of their own (aside.py); returns its path.

        None where there are none. Raises OSError, Corruption, StoreFailed, Closed.
        """
        self.check_open()
        return set_aside(self, after)

    @contextlib.contextmanager
    def refusing(self, reason: str) -> Iterator[None]:
        """Refuse all writes for a while (ReadOnly); for an installation."""
        with self.lock:
            before = self.read_only, self._limited
            self.read_only, self._limited = reason, True
        try:
            yield
        finally:
            with self.lock:
                self.read_only, self._limited = before

    def taken_over(self, origin: Origin) -> None:
        """An installation switched the store to the state of `origin`."""
        self.store_id = origin.store_id
        self.recovered.last_sequence = origin.sequence
        self.clock.hear(origin.time_ms)

    def arriving_files(self) -> frozenset[str]:
        """Names of tables that an installation has written so far."""
        installation = self.installation
        return frozenset() if installation is None else installation.files()

    # -- the event loop's side of commits ----------------------------------------------------------

    def take_group(self) -> Group | None:
        """The batches to write next; None where there are none, or the log is taken."""
        return self.commit.take()

    def complete(self, group: Group, error: BaseException | None) -> None:
        """Say how group.write() ended."""
        self.commit.complete(group, error)

    # -- generations -------------------------------------------------------------------------------

    def checkpoint_due(self) -> bool:
        """Whether the log has outgrown both the option's bytes and its ratio to the data."""
        return self.generations.due()

    def start_checkpoint(self) -> bool:
        """Checkpoint in the background; False where one is under way already."""
        if self.closed is not None:
            return False
        return self.generations.start()

    def checkpoint(self, progress: Progress | None = None) -> None:
        """Start a new generation from the present state. Blocks the caller, not the writers.

        Raises StoreFull: no room for it, the old generation goes on; StoreFailed; Closed.
        """
        self.generations.checkpoint(progress, self.check_open)

    def compact(self, where: Range | None = None, progress: Progress | None = None) -> None:
        """Flush, and take out of the files what is of no use any more; where: only in that range.

        Blocks the caller, not the writers. Raises StoreFull, StoreFailed, Corruption, Closed.
        """
        self.checkpoint()
        self.engine.compact(where, progress)

    # -- closing -----------------------------------------------------------------------------------

    def sync(self) -> None:
        """Make everything appended so far durable, whatever the durability. Raises StoreFailed."""
        self.check_open()
        self.commit.wait(self.commit.last, None, True)
        try:
            self.generations.sync_log()
        except OSError:
            self.commit.check()

    def close(self) -> None:
        """Sync, leave a closing note, give the directory up; idempotent."""
        with self.lock:
            if self.closed is not None:
                return
            self.closed = Closed
        if self.installation is not None:
            self.installation.abort()
        try:
            note = self.generations.close()
            if note is not None:
                self._leave_note(note)
        finally:
            self.engine.close()
            self.engine = _closed_engine(Closed("the store is closed"))
            self._directory_lock.release()

    def _leave_note(self, note: CloseNote) -> None:
        try:
            self._directory_lock.write_note(note)
        except OSError as error:
            self.commit.fail(error)
            self.commit.check()

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
            "num_keys": sum(space.about() for space in spaces),
            "data_bytes": self.engine.data_bytes(),
            "position": {"epoch": self.epoch, "sequence": self.committed},
            "unsettled_batches": commit.last - commit.committed,
            "durable_sequence": commit.durable,
            "read_only": self.read_only,
            "keyspaces": {
                str(number): {
                    "keys": space.about(),
                    "volatile_keys": space.volatile,
                    "data_bytes": space.data_bytes,
                }
                for number, space in enumerate(spaces)
                if space.about()
            },
            "expired_keys": self.expired_keys,
            "generation": self.generations.number,
            "log": {
                "number": commit.log.number,
                "bytes": self.generations.log_bytes(),
                "groups": commit.groups,
                "batches": commit.committed - self.recovered.last_sequence,
            },
            "history": self.history.stats(),
            "stalls": {"count": self.stalls.count, "ms": self.stalls.sum_ns // 1_000_000},
            "sync": {
                "count": times.total,
                "mean_us": times.sum_ns // max(1, times.total) // 1000,
                "max_us": times.max_ns // 1000,
            },
            "checkpoint": self.generations.stats(),
            "recovery": {
                "replayed_batches": self.recovered.replayed_batches,
                "cut_bytes": self.recovered.cut_bytes,
            },
            "failure": None if commit.failure is None else str(commit.failure),
            **self.engine.stats(),
        }

    def over_memory_limit(self) -> bool:
        """Whether what adds data is refused, for want of memory."""
        return self.engine.is_full()

    # -- private: writing --------------------------------------------------------------------------

    def _slow_append(self) -> bool:
        """Whether append_put() has anything to look at first."""
        return (
            self.closed is not None
            or self.commit.failure is not None
            or self._limited
            or bool(self._dropped)
        )

    def _release_dropped(self) -> None:
        while self._dropped:
            self.engine.release(self._dropped.popleft())

    def _check_writable(self, changes: list[Change]) -> None:
        self.check_open()
        self._release_dropped()
        if not (self._limited or self._pressed):
            return
        if self.read_only:
            raise ReadOnly(self.read_only)
        if any(change[0] in (PUT, PATCH) for change in changes) and self.engine.is_full():
            limit = self.options.memory_limit or "the default"
            raise StoreFull(f"the data in memory exceeds memory_limit ({limit})")

    def _enter_frame(self, frame: Frame, changes: list[Change]) -> int:
        """append_frame(), under the lock, where frames may be entered."""
        commit = self.commit
        self._release_dropped()
        if frame.first_sequence != commit.last + 1:
            raise ValueError(f"batch {frame.first_sequence} does not follow {commit.last}")
        if frame.epoch < commit.newest_epoch:
            raise ValueError(f"epoch {frame.epoch} after {commit.newest_epoch}")
        # What the primary took has to be taken; not so where memory cannot be flushed.
        if self._pressed and not self.engine.is_limited and self.engine.is_full():
            raise StoreFull("the data in memory exceeds its limit, and cannot be flushed")
        self.engine.prepare(changes)
        self._reserve(len(frame.payload) + FRAME_HEADER_SIZE)
        try:
            group = commit.enter_frame(frame.payload, frame.count, frame.epoch, frame.time_ms)
            commit.note_keys(group, changes)
            # As one batch: nobody can take a snapshot in between.
            self._apply_for_good(changes, group.last)
        except BaseException as error:
            self._broken(error)
            raise
        return group.last

    def _apply_for_good(self, changes: list[Change], sequence: int) -> None:
        """Engine.apply() where nobody will want it back: mostly PUTs, at half the time."""
        engine = self.engine
        if {change[0] for change in changes} != {PUT}:
            engine.apply(changes, sequence)
            return
        for _, keyspace, key, value, deadline_ms, type_ in changes:
            engine.put(keyspace, key, stored(value or b"", deadline_ms, type_), sequence)

    def _hold_back(self) -> None:
        """Wait until the engine can take more; a little where it is only getting late.

        Raises StoreFull: it cannot flush what it has.
        """
        throttle = self.engine.throttle()
        self._pressed = throttle > 0.0
        if not self.holds_back or not self._pressed:
            return
        started_ns = self.env.monotonic_ns()
        if throttle < 1.0:
            self.env.wait(throttle * _LATE_WAIT_S)
        while throttle >= 1.0 and self.closed is None and self.commit.failure is None:
            if not self.generations.help(_STALL_WAIT_S):
                self.engine.wait(_STALL_WAIT_S)
                self.env.wait(_LATE_WAIT_S)  # another thread's checkpoint may be what to wait for
            throttle = self.engine.throttle()
        self.stalls.record(self.env.monotonic_ns() - started_ns)

    def _broken(self, error: BaseException) -> None:
        """Latch after an interrupt (Ctrl-C, no memory) between logging and applying a batch."""
        if self.commit.failure is None:
            self.commit.failure = error

    def _reserve(self, size_bytes: int) -> None:
        try:
            if self.commit.reserve(size_bytes):
                if self.generations.due():
                    self.generations.start()
                self._pressed = self.engine.throttle() > 0.0
        except OSError as error:
            if error.errno not in SPACE_ERRORS:
                self.commit._fail(error)
                self.commit.check()
            raise StoreFull(f"no room for {size_bytes} bytes in the log: {error}") from error


_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for store in list(_open_stores):
        store.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)


class Unit:
    """Changes that are applied at once, so that later ones see them, and logged as one batch.

    Holds the store's lock until commit() or rollback(). Single use.
    """

    __slots__ = ("_changes", "_holds_lock", "_store", "_undo")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._holds_lock = True
        self._changes: list[Change] = []
        self._undo: list[Any] = []  # the engine's

    @property
    def changes(self) -> list[Change]:
        """What was applied so far."""
        return self._changes

    def apply(self, changes: list[Change]) -> None:
        """Apply changes now. Raises StoreFull: none of these was applied; roll back."""
        self._store._check_writable(changes)
        self._store.engine.prepare(changes)
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
                store.commit.note_keys(group, self._changes)
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
        if self._holds_lock:
            self._holds_lock = False
            store.lock.release()


class _ClosedEngine(MemoryEngine):
    """Stands where the map was, so that a late reader gets an error and not an answer."""

    def __init__(self, error: Closed) -> None:
        self._error = error

    @property
    def spaces(self) -> Any:  # type: ignore[override]
        raise self._error


def _closed_engine(error: Closed) -> MemoryEngine:
    return _ClosedEngine(error)
