"""The writing side of an open store: a batch is numbered, queued for the log and applied.

Owns that step, what is refused before it, and holding writers back; not the order of commits
(commit.py), nor what may be told when (db.py).

A1  append() numbers a batch, queues it for the log and applies it, as one step under the lock.
A2  a batch that the log has no room for changes nothing (StoreFull); a batch it took is committed,
    or in doubt for ever (commit.py C5).
A3  where a batch may be half numbered or half applied, because of an interrupt (Ctrl-C, no memory),
    the store latches.
A4  where the store follows another one, append_frame() alone changes it (read_only).

Threading: every method from any thread, those on the lock with it held; append_frame() by one
thread at a time: whoever follows the primary.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from marram.coding.batch import (
    PATCH,
    PUT,
    Change,
    encode,
    encode_put,
)
from marram.env.api import Env
from marram.errors import Closed, Forked, ReadOnly, StoreFull
from marram.storage.commit import CommitQueue
from marram.storage.engine import SPACE_ERRORS, Engine, Pin
from marram.storage.entry import Stored, stored
from marram.storage.frames import Puts, changes_of, puts_of
from marram.storage.log.format import FRAME_HEADER_SIZE
from marram.storage.log.tail import Frame
from marram.storage.options import Options
from marram.storage.putting import TakesPuts

if TYPE_CHECKING:
    from marram.storage.generations import Generations

_LATE_WAIT_S: Final = 0.001  # what a write is slowed by where compactions are all but too late
_STALL_WAIT_S: Final = 0.05  # how long a writer waits before it looks again


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


class Appender:
    """Appends to one open store.

    holds_back: whether append() waits where the engine cannot keep up. Who runs an event loop says
    no, and holds its clients back by what engine.throttle() says. read_only: why nothing but
    append_frame() and an installation changes it; "" where it takes writes. Set it by refuse().
    """

    __slots__ = (
        "_acquire", "_dropped", "_env", "_generations", "_limited", "_memory_limit", "_pressed",
        "_release", "closed", "commit", "engine", "holds_back", "lock", "read_only", "stalls",
    )  # fmt: skip

    def __init__(
        self,
        env: Env,
        options: Options,
        engine: Engine,
        commit: CommitQueue,
        generations: Generations,
    ) -> None:
        self.engine: Engine = engine
        self.commit = commit
        self.lock = commit.lock
        self.closed: type[Closed] | None = None
        self.holds_back = True
        self.read_only = ""
        self.stalls = Stalls()
        self._env = env
        self._memory_limit = options.memory_limit
        self._generations = generations
        self._limited = engine.is_limited  # every write is looked at before
        self._pressed = False  # the engine was behind when it was last asked
        self._dropped: deque[Pin] = deque()
        self._acquire = self.lock.acquire
        self._release = self.lock.release

    def check_open(self) -> None:
        """Raises Closed, Forked, StoreFailed."""
        if self.closed is Forked:
            raise Forked("the store was opened before fork(); open it anew in this process")
        if self.closed is not None:
            raise Closed("the store is closed")
        self.commit.check()

    def refuse(self, reason: str) -> None:
        """Refuse all writes for this reason (A4), or take them again: "". Under the lock."""
        self.read_only = reason
        self._limited = bool(reason) or self.engine.is_limited

    # -- appending -------------------------------------------------------------------------------

    def append(self, changes: list[Change]) -> int:
        """Number, log and apply one atomic batch; returns the position to wait for (A1, A2).

        Raises StoreFull, StoreFailed, Closed: nothing was changed.
        """
        if self._pressed:
            self.hold_back()
        with self.lock:
            return self.append_locked(changes)

    def append_locked(self, changes: list[Change]) -> int:
        """append() for a caller that holds the lock, having checked something under it."""
        self.check_writable(changes)
        batch = encode(changes)
        self.engine.prepare(changes)
        self.reserve(len(batch))
        try:
            group = self.commit.enter(batch)
            self.commit.note_keys(group, changes)
            self._apply(changes, group.last)
        except BaseException as error:
            self.broken(error)
            raise
        return group.last

    def append_put(self, keyspace: int, key: bytes, value: bytes) -> int:
        """append([put(keyspace, key, value)]), the most frequent batch, without the tuples."""
        return self._put(keyspace, key, value, False)

    def put(self, keyspace: int, key: bytes, value: bytes) -> int:
        """append_put(), committed at once where that is quick: then it returns 0."""
        return self._put(keyspace, key, value, True)

    def _put(self, keyspace: int, key: bytes, value: bytes, at_once: bool) -> int:
        if self._pressed:
            self.hold_back()
        self._acquire()
        try:
            commit = self.commit
            if self.closed is not None or commit.failure is not None or self._limited:
                return self.append_locked([(PUT, keyspace, key, value, 0, 0)])
            if self._dropped:
                self.release_dropped()
            batch = encode_put(keyspace, key, value)
            self.reserve(len(batch))
            try:
                if at_once and commit.enter_through(batch):
                    self._apply_put(keyspace, key, value, commit.last)
                    commit.settle_through()
                    return 0
                group = commit.enter(batch)
                group.keys.add(key)
                self._apply_put(keyspace, key, value, group.last)
            except BaseException as error:
                self.broken(error)
                raise
            return group.last
        finally:
            self._release()

    def _apply(self, changes: list[Change], sequence: int) -> None:
        """Engine.apply() where nobody will want it back: mostly PUTs, at half the time."""
        for change in changes:
            if change[0] != PUT:
                self.engine.apply(changes, sequence)
                return
        for _, keyspace, key, value, deadline_ms, type_ in changes:
            held: Stored = value or b""
            if deadline_ms or type_:
                held = stored(value or b"", deadline_ms, type_)
            self._apply_put(keyspace, key, held, sequence)

    def _apply_put(self, keyspace: int, key: bytes, held: Stored, sequence: int) -> None:
        engine = self.engine
        if isinstance(engine, TakesPuts):
            taker: TakesPuts = engine
            taker.put(keyspace, key, held, sequence)
        else:
            engine.put(keyspace, key, held, sequence)

    def append_frame(self, frame: Frame) -> int:
        """Log and apply batches as a primary wrote them; returns the position to wait for.

        They keep their epoch and time. Frames that are appended before one of them is written share
        its sync. A frame's chain is believed: who has set it has seen that it goes on from what is
        here. Raises ValueError: it is not whole, not the next one, or of an epoch that ended;
        StoreFull, Corruption, OSError; all of these change nothing. StoreFailed, Closed.
        """
        puts = puts_of(frame)
        changes = changes_of(frame) if puts is None else []
        if self._pressed:
            self.hold_back()
        commit = self.commit
        while True:
            with self.lock:
                self.check_open()
                if commit.can_enter_frames:
                    return self._enter_frame(frame, puts, changes)
                before = commit.last
            commit.wait(before, None, True)  # batches of its own, which come first

    def hold_back(self) -> None:
        """Wait until the engine can take more; a little where it is only getting late.

        Raises StoreFull: it cannot flush what it has.
        """
        if not self._pressed:
            return
        throttle = self.engine.throttle()
        self._pressed = throttle > 0.0
        if not self.holds_back or not self._pressed:
            return
        started_ns = self._env.monotonic_ns()
        if throttle < 1.0:
            self._env.wait(throttle * _LATE_WAIT_S)
        while throttle >= 1.0 and self.closed is None and self.commit.failure is None:
            if not self._generations.help(_STALL_WAIT_S):
                self.engine.wait(_STALL_WAIT_S)
                # Another thread's checkpoint may be what to wait for.
                self._env.wait(_LATE_WAIT_S)
            throttle = self.engine.throttle()
        self.stalls.record(self._env.monotonic_ns() - started_ns)

    # -- under the lock --------------------------------------------------------------------------

    def check_writable(self, changes: list[Change]) -> None:
        """Raises Closed, Forked, StoreFailed, ReadOnly; StoreFull: the data exceeds its limit."""
        self.check_open()
        self.release_dropped()
        if not (self._limited or self._pressed):
            return
        if self.read_only:
            raise ReadOnly(self.read_only)
        if _adds_data(changes) and self.engine.is_full():
            limit = self._memory_limit or "the default"
            raise StoreFull(f"the data in memory exceeds memory_limit ({limit})")

    def _enter_frame(self, frame: Frame, puts: Puts | None, changes: list[Change]) -> int:
        """append_frame(), where frames may be entered. changes: what it does, if not puts."""
        commit = self.commit
        self.release_dropped()
        if frame.first_sequence != commit.last + 1:
            raise ValueError(f"batch {frame.first_sequence} does not follow {commit.last}")
        if frame.epoch < commit.newest_epoch:
            raise ValueError(f"epoch {frame.epoch} after {commit.newest_epoch}")
        # What the primary took has to be taken; not so where memory cannot be flushed.
        if self._pressed and not self.engine.is_limited and self.engine.is_full():
            raise StoreFull("the data in memory exceeds its limit, and cannot be flushed")
        self.engine.prepare(changes)
        self.reserve(len(frame.payload) + FRAME_HEADER_SIZE)
        try:
            group = commit.enter_frame(
                frame.payload, frame.count, frame.epoch, frame.time_ms, frame.chain
            )
            # As one batch: nobody can take a snapshot in between.
            if puts is not None:
                commit.note_puts(group, puts.keys)
                self.engine.put_many(puts.keyspace, puts.keys, puts.values, group.last)
            else:
                commit.note_keys(group, changes)
                self._apply(changes, group.last)
        except BaseException as error:
            self.broken(error)
            raise
        return group.last

    def reserve(self, size_bytes: int) -> None:
        """Make room in the log for one more batch. Raises StoreFull, StoreFailed."""
        try:
            if self.commit.reserve(size_bytes):
                if self._generations.due():
                    self._generations.start()
                self._pressed = self.engine.throttle() > 0.0
        except OSError as error:
            if error.errno not in SPACE_ERRORS:
                self.commit._fail(error)
                self.commit.check()
            raise StoreFull(f"no room for {size_bytes} bytes in the log: {error}") from error

    def broken(self, error: BaseException) -> None:
        """Latch after an interrupt between logging and applying a batch (A3)."""
        self.commit._fail(error)

    # -- snapshots dropped -----------------------------------------------------------------------

    def drop(self, pin: Pin) -> None:
        """Unpin a snapshot; never blocks.

        A snapshot may be dropped by the garbage collector, in the middle of anything, even of a
        section that holds the lock. So where the lock is taken, the next writer unpins it.
        """
        self._dropped.append(pin)
        if self.lock.acquire(blocking=False):
            try:
                self.release_dropped()
            finally:
                self.lock.release()

    def release_dropped(self) -> None:
        """Unpin what was dropped while the lock was taken. Under the lock."""
        while self._dropped:
            self.engine.release(self._dropped.popleft())


def _adds_data(changes: list[Change]) -> bool:
    return any(change[0] in (PUT, PATCH) for change in changes)
