"""The store: one directory, one owner, one order of batches.

Owns opening, snapshots, units and closing; everything above (db.py, the node) changes and reads
data through it only. Appending is append.py's, checkpoints are generations.py's.

O1  a unit's changes are seen at once, and become one batch or none.
O2  after close() every use of the store, or of anything it gave out, raises Closed.

Threading: every public method may be called from any thread, begin() ... commit() and everything
documented for the event loop excepted; `lock` guards the engine and the appending side.
append_frame(), follow() and lead() are one thread's at a time: whoever follows the primary.
"""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from marram.coding.batch import Change, delete, encode
from marram.env.api import Env
from marram.errors import Closed, Forked, InvalidArgument
from marram.storage import recovery
from marram.storage.append import Appender
from marram.storage.aside import set_aside
from marram.storage.clock import StoreClock
from marram.storage.commit import CommitQueue, Group
from marram.storage.directory import prepare_directory
from marram.storage.engine import Engine, Home, Origin, Pin, Progress, Range, rows_of
from marram.storage.entry import is_expired
from marram.storage.generations import Generations
from marram.storage.history import History, Mark, mark_of
from marram.storage.install import Installation
from marram.storage.lock import CloseNote, DirectoryLock
from marram.storage.log.tail import Frame
from marram.storage.memory.engine import MemoryEngine
from marram.storage.options import Options
from marram.storage.sstable.block import Row
from marram.storage.view import View

_logger = logging.getLogger("marram.store")


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
        self.store_id = recovered.store_id
        self.clock = StoreClock(env, recovered.time_ms)
        self.now_ms = self.clock.now_ms
        self.commit = CommitQueue(
            recovered.log,
            recovered.last_sequence,
            recovered.epoch,
            sync_each=options.durability == "sync",
            sync_within_ns=options.sync_within_ns,
            clock=self.clock,
            monotonic_ns=env.monotonic_ns,
        )
        self.lock = self.commit.lock
        self.recovered = recovered
        self.history = History(env, directory, options, self.commit, recovered.kept)
        self.generations = Generations(
            env, directory, options, recovered.engine, self.commit, self.clock, self.history,
            recovered,
        )  # fmt: skip
        self.appender = Appender(env, options, recovered.engine, self.commit, self.generations)
        # Hot: the appender's own methods, without a call in between.
        self.append = self.appender.append
        self.append_locked = self.appender.append_locked
        self.append_put = self.appender.append_put
        self.check_open = self.appender.check_open
        self.stalls = self.appender.stalls
        self.expired_keys = 0
        self.installation: Installation | None = None
        self._directory_lock = lock

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

    @property
    def engine(self) -> Engine:
        """Where the map lives; after close() something that raises Closed."""
        return self.appender.engine

    @engine.setter
    def engine(self, engine: Engine) -> None:
        self.appender.engine = engine

    @property
    def closed(self) -> type[Closed] | None:
        """Why it can no longer be used: Closed or Forked; None while it can."""
        return self.appender.closed

    @property
    def read_only(self) -> str:
        """Why nothing but append_frame() and install() changes it; "" where it takes writes."""
        return self.appender.read_only

    @property
    def holds_back(self) -> bool:
        """Whether append() waits where the engine cannot keep up (append.py)."""
        return self.appender.holds_back

    @holds_back.setter
    def holds_back(self, holds_back: bool) -> None:
        self.appender.holds_back = holds_back

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
            self.appender.release_dropped()
            pin: Pin = self.engine.snapshot(self.commit.last)
            return pin

    def marked_snapshot(self) -> tuple[Pin, Mark]:
        """snapshot(), and what the history up to it comes to; returns once that is durable here.

        Raises OutcomeUnknown.
        """
        with self.lock:
            self.check_open()
            self.appender.release_dropped()
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
        """Unpin a snapshot; never blocks, also in the middle of what holds the lock."""
        if self.closed is None:  # else everything it pinned is gone
            self.appender.drop(snapshot)

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

    def begin(self) -> Unit:
        """Start a unit: changes applied at once, logged together (see Unit)."""
        self.appender.hold_back()
        self.lock.acquire()
        try:
            self.appender.check_writable([])
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
                self.appender.refuse("the store follows another one, whose writes alone change it")

    def lead(self) -> None:
        """Take writes again; the clock runs. Raise the epoch first. Raises OutcomeUnknown."""
        self.wait_durable(self.last)
        with self.lock:
            self.check_open()
            if self.read_only:
                self.appender.refuse("")
                self.clock.lead()

    def append_frame(self, frame: Frame) -> int:
        """Log and apply batches as a primary wrote them (append.py); the clock hears of theirs."""
        sequence = self.appender.append_frame(frame)
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
            before = self.read_only
            self.appender.refuse(reason)
        try:
            yield
        finally:
            with self.lock:
                self.appender.refuse(before)

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
            self.appender.closed = Closed
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
        self.appender.closed = Forked
        self.engine = _closed_engine(
            Forked("the store was opened before fork(); open it anew in this process")
        )

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
        self._store.appender.check_writable(changes)
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
            store.appender.reserve(len(batch))
            try:
                group = store.commit.enter(batch)
                store.commit.note_keys(group, self._changes)
            except BaseException as error:
                store.appender.broken(error)
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
