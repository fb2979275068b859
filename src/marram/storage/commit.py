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
C7  whoever waits is woken by the end of the group it waits for; and where that leaves batches, the
    log is handed to one of those who wait for them. Whoever is interrupted, while it waits, while
    it writes, or when it was just handed the log, passes it on.

Threading: append side, take() and complete() under `lock`; Group.write() outside it, by whoever
took the group; settles_at() and the counters are read without it (C4).
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

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


class Turn:
    """A thread that waits: it sleeps at its gate, or has the log.

    sequence: what it waits for; 0: for the log itself. gate: a lock, held until it is woken; None
    where it is awake.
    """

    __slots__ = ("gate", "is_writing", "sequence")

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence
        self.gate: Lock | None = None
        self.is_writing = False


class CommitQueue:
    """Orders the batches of a store and says when they are committed."""

    __slots__ = (
        "_open", "_sleepers", "_taker", "_writing", "committed", "epoch", "failure", "groups",
        "last", "lock", "log", "monotonic_ns", "now_ms", "on_idle", "stepwise", "sync_each",
        "sync_times",
    )  # fmt: skip

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
        self.lock = Lock()
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
        self._taker: object = None  # who writes a group, or changes the log
        self._sleepers: list[Turn] = []

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

    def enter_through(self, batch: bytes) -> bool:
        """Give `batch` the next number and write it at once; False where that cannot be done.

        It can where it takes no more than storing its frame in memory: the log is free and has a
        window, nothing waits to be written before it, and nothing has to be synced. The caller
        changes the map and then calls settle_through(): so nobody sees what is not in the log, and
        it needs no mark (C4). A failure latches.
        """
        if (
            self.sync_each
            or self._taker is not None
            or self.failure is not None
            or self._open.size_bytes
            or not self.log.fits(len(batch))
        ):
            return False
        sequence = self.last + 1
        try:
            self.log.write_one(batch, sequence, self.epoch, self.now_ms())
        except OSError as error:
            self._fail(error)
            return False
        self._open.first = sequence + 1
        self._open.last = sequence
        self.last = sequence
        return True

    def settle_through(self) -> None:
        """The batch of enter_through() was applied."""
        self.committed = self.last
        self.groups += 1

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
            return self._take(self) if self._taker is None else None

    def complete(self, group: Group, error: BaseException | None) -> None:
        """End a group: committed, or in doubt for ever (C5). Without the lock held."""
        with self.lock:
            if error is not None:
                self._fail(error)
            elif self.failure is None:
                self._writing = None
                self.committed = group.last
                self.groups += 1
            self._taker = None
            self._wake()

    def wait(self, sequence: int) -> None:
        """Block until `sequence` is committed, writing groups where nobody else does.

        A lone writer pays no thread hop: it takes its own group. Without the lock held.
        Raises OutcomeUnknown: the log failed first.
        """
        if self.committed >= sequence:
            return
        turn = Turn(sequence)
        while self.committed < sequence or self._taker is turn:
            try:
                group = self._begin(turn)
                if group is not None:
                    group.write()
                    self.complete(group, None)
                elif turn.gate is not None:
                    turn.gate.acquire()
                    turn.gate = None
            except BaseException as error:
                self._abandon(turn, error)
                if not isinstance(error, OSError):
                    raise

    def take_log(self) -> LogWriter:
        """Keep groups out of the log, until give_log(); for rotation. Without the lock held.

        Raises StoreFailed.
        """
        turn = Turn(0)
        while True:
            try:
                with self.lock:
                    self.check()
                    if self._taker is None or self._taker is turn:
                        self._taker = turn
                        return self.log
                    self._sleep(turn)
                assert turn.gate is not None
                turn.gate.acquire()
            except BaseException as error:
                self._abandon(turn, error)
                raise

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
            self._taker = None
            self._wake()
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

    def _take(self, taker: object) -> Group | None:
        group = self._open
        if not group.batches or self.failure is not None:
            return None
        self._taker = taker
        self._writing = group  # before _open is emptied (C4)
        self._open = Group(self, self.last + 1)
        return group

    def _begin(self, turn: Turn) -> Group | None:
        """The group that the turn is to write; None where it is to sleep, or to look again.

        Takes the lock. Raises OutcomeUnknown.
        """
        with self.lock:
            if self.failure is not None and self.committed < turn.sequence:
                raise OutcomeUnknown(
                    f"the log failed before this was known to be durable: {self.failure}"
                ) from self.failure
            if self._taker is not None and self._taker is not turn:
                if self.committed < turn.sequence:
                    self._sleep(turn)
                return None
            turn.is_writing = True  # before it is true: an interrupt in between is no worse then
            group = self._take(turn)
            if group is None:  # it was committed before this turn came
                turn.is_writing = False
                self._taker = None
                self._wake()
            return group

    def _sleep(self, turn: Turn) -> None:
        gate = Lock()
        gate.acquire()
        turn.gate = gate
        self._sleepers.append(turn)

    def _wake(self) -> None:
        """Wake whoever got what it waits for, and hand the log to one who waits for more (C7).

        That one is woken last. So those who were served may append again before it takes the
        group: 16 threads then share one sync, and not two by turns.
        """
        sleepers = self._sleepers
        if not sleepers:
            return
        committed = self.committed
        is_failed = self.failure is not None
        leader: Turn | None = None
        if self._taker is None and not is_failed:
            for turn in sleepers:
                if turn.sequence == 0:  # or it might never get the log
                    leader = turn
                    break
                if leader is None and turn.sequence > committed:
                    leader = turn
            self._taker = leader
        asleep: list[Turn] = []
        for turn in sleepers:
            if turn is leader:
                continue
            if is_failed or 0 < turn.sequence <= committed:
                _open_gate(turn)
            else:
                asleep.append(turn)
        self._sleepers = asleep
        if leader is not None:
            _open_gate(leader)

    def _abandon(self, turn: Turn, error: BaseException) -> None:
        """End a turn that an error ended, wherever it was, so that nobody waits for it (C7)."""
        with self.lock:
            if self._taker is turn:
                self._taker = None
                if turn.is_writing:  # a frame may be half written
                    self._fail(error)
            self._sleepers = [other for other in self._sleepers if other is not turn]
            self._wake()

    def _fail(self, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error
        self._wake()


def _open_gate(turn: Turn) -> None:
    gate = turn.gate
    if gate is not None:
        gate.release()
