"""The commit queue: batches become a group, a group becomes one frame and one sync.

Owns the sequence counter, the open group, which positions are committed and which keys are not
settled yet; not the log's bytes (log/) nor the map (the engine).

C1  sequence numbers are consecutive and handed out in the order batches are applied.
C2  `committed` never decreases, and covers a position only after its frame is as durable as the
    store's durability asks.
C3  one group at most is being written. What arrives meanwhile shares the next one: that is group
    commit, and it needs no timer.
C4  a key's newest value is unsettled from the moment it is applied until its group is committed.
    Writers mark the key before they change the map and readers ask after they read it, so a
    reader without the lock may wait once too often but never once too little.
C6  a batch that shows a state in between to a reader without the lock, because it changes a key
    more than once, says so before it changes anything: `stepwise` is the newest such batch. Who
    read while it was in flight reads again under the lock.
C5  after a failed write or sync nothing is ever committed again (P4).

Threading: append side, take() and complete() under `lock`; Group.write() outside it, by whoever
took the group; settles_at() and the counters are read without it (C4).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from marram.errors import OutcomeUnknown, StoreFailed
from marram.storage.log.writer import LogWriter


class Group:
    """Batches that will share a frame and a sync."""

    __slots__ = ("_commit", "batches", "everything", "first", "keys", "last", "size_bytes")

    def __init__(self, commit: CommitQueue, first: int) -> None:
        self._commit = commit
        self.first = first
        self.last = first - 1
        self.batches: list[bytes] = []
        self.size_bytes = 0
        self.keys: set[bytes] = set()  # changed by the group, whichever keyspace
        self.everything = False  # a range or a whole keyspace changed

    def write(self) -> None:
        """Write the group's frame and, as the durability asks, sync it. Blocks; any thread.

        Raises OSError, which complete() must be told.
        """
        commit = self._commit
        started = commit.monotonic_ns()
        log = commit.log
        log.write(self.batches, self.first, commit.epoch, commit.now_ms())
        if commit.sync_each:
            log.sync()
            commit.sync_times.record(commit.monotonic_ns() - started)


class SyncTimes:
    """How long write-and-sync took: counts in buckets that double, from 32 microseconds up."""

    BOUNDS_US = tuple(32 << shift for shift in range(17))  # 32 us .. 2.1 s

    __slots__ = ("counts", "max_ns", "sum_ns", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(self.BOUNDS_US) + 1)
        self.total = 0
        self.sum_ns = 0
        self.max_ns = 0

    def record(self, elapsed_ns: int) -> None:
        """Count one."""
        bucket = max(0, (elapsed_ns // 32_001).bit_length())
        self.counts[min(bucket, len(self.counts) - 1)] += 1
        self.total += 1
        self.sum_ns += elapsed_ns
        self.max_ns = max(self.max_ns, elapsed_ns)


class CommitQueue:
    """Orders the batches of a store and says when they are committed."""

    def __init__(
        self,
        log: LogWriter,
        last: int,
        epoch: int,
        *,
        sync_each: bool,
        now_ms: Callable[[], int],
        monotonic_ns: Callable[[], int],
    ) -> None:
        self.lock = threading.Lock()
        self._changed = threading.Condition(self.lock)  # committed moved, or the log is free
        self.log = log
        self.last = last
        self.committed = last
        self.epoch = epoch
        self.stepwise = 0
        self.sync_each = sync_each
        self.now_ms = now_ms
        self.monotonic_ns = monotonic_ns
        self.failure: BaseException | None = None
        self.on_idle: Callable[[], None] | None = None
        self.groups = 0
        self.sync_times = SyncTimes()
        self._open = Group(self, last + 1)
        self._writing: Group | None = None
        self._log_taken = False  # a group is being written, or the log is being changed

    # -- appending: under the lock ---------------------------------------------------------------

    def reserve(self, size_bytes: int) -> bool:
        """Make sure the log has room for one more batch; returns whether it had to grow.

        Raises OSError with nothing changed.
        """
        pending = self._open.size_bytes + size_bytes
        if self._writing is not None:
            pending += self._writing.size_bytes
        return self.log.reserve(pending)

    def enter(self, batch: bytes) -> Group:
        """Give `batch` the next sequence number in the open group; returns the group.

        The caller adds the keys to the group before it changes the map (C4).
        """
        self.last += 1
        group = self._open
        group.last = self.last
        group.batches.append(batch)
        group.size_bytes += len(batch)
        return group

    # -- what is settled: no lock ----------------------------------------------------------------

    @property
    def unsettled(self) -> bool:
        """Whether any position is not committed yet."""
        return self.committed != self.last

    def settles_at(self, key: bytes) -> int:
        """The position that settles the key's newest value, or 0 where it is settled (C4)."""
        group = self._open  # before _writing: take() fills _writing first, then empties _open
        if group.everything or key in group.keys:
            return max(group.last, self.last)
        writing = self._writing
        if writing is not None and (writing.everything or key in writing.keys):
            return writing.last
        return 0

    # -- committing ------------------------------------------------------------------------------

    def take(self) -> Group | None:
        """The open group, to be written; None where it is empty, or the log is taken (C3).

        The taker calls group.write() and then complete(). Without the lock held.
        """
        with self.lock:
            return self._take()

    def complete(self, group: Group, error: BaseException | None) -> None:
        """End a group: committed, or in doubt for ever (C5). Without the lock held."""
        with self.lock:
            self._log_taken = False
            if error is not None:
                self._fail(error)
            elif self.failure is None:
                self._writing = None
                self.committed = group.last
                self.groups += 1
            self._changed.notify_all()

    def wait(self, sequence: int) -> None:
        """Block until `sequence` is committed, writing groups where nobody else does.

        A lone writer pays no thread hop: it takes its own group. Without the lock held.
        Raises OutcomeUnknown: the log failed first.
        """
        while self.committed < sequence:
            with self.lock:
                while self.committed < sequence and self._log_taken and self.failure is None:
                    self._changed.wait()
                if self.committed >= sequence:
                    return
                if self.failure is not None:
                    raise OutcomeUnknown(
                        f"the log failed before this was known to be durable: {self.failure}"
                    ) from self.failure
                group = self._take()
            assert group is not None, "an uncommitted position is in a group"
            try:
                group.write()
            except BaseException as error:
                self.complete(group, error)
                if not isinstance(error, OSError):
                    raise
            else:
                self.complete(group, None)

    def take_log(self) -> LogWriter:
        """Keep groups out of the log, until give_log(); for rotation. Without the lock held.

        Raises StoreFailed.
        """
        with self.lock:
            while self._log_taken and self.failure is None:
                self._changed.wait()
            self.check()
            self._log_taken = True
            return self.log

    def give_log(self, log: LogWriter | None = None, error: BaseException | None = None) -> None:
        """End take_log(): go on in `log`, or in the old one, or latch for `error`.

        Raises OSError where `log` has no room for what was appended meanwhile; the log stays taken.
        """
        with self.lock:
            if error is not None:
                self._fail(error)
            elif log is not None:
                # What was appended meanwhile was reserved in the old log; it goes into the new.
                log.reserve(self._open.size_bytes)
                self.log = log
            self._log_taken = False
            self._changed.notify_all()
        if self.on_idle is not None:
            self.on_idle()

    @property
    def last_written(self) -> int:
        """The last sequence number in the log; with the log taken, it stays."""
        return self._open.first - 1

    @property
    def pending_bytes(self) -> int:
        """Batches appended and not yet being written, bytes."""
        return self._open.size_bytes

    def fail(self, error: BaseException) -> None:
        """Latch (C5). Without the lock held."""
        with self.lock:
            self._fail(error)

    def check(self) -> None:
        """Raises StoreFailed where the log failed earlier."""
        if self.failure is not None:
            raise StoreFailed(
                f"the store failed and must be reopened: {self.failure}"
            ) from self.failure

    # -- private, under the lock -----------------------------------------------------------------

    def _take(self) -> Group | None:
        if self._log_taken or not self._open.batches or self.failure is not None:
            return None
        self._log_taken = True
        self._writing = self._open  # before _open is emptied (C4)
        self._open = Group(self, self.last + 1)
        return self._writing

    def _fail(self, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error
        self._changed.notify_all()
