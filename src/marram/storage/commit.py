"""The commit queue: batches become a group, a group becomes one frame and one sync.

Owns the sequence counter, the open group, which positions are durable and committed, and which keys
are not settled yet; not the log's bytes (log/) nor the map (the engine).

C1  sequence numbers are consecutive and handed out in the order batches are applied.
C2  `durable` covers a position only after its frame is as durable as the store's durability asks.
    `committed` is durable, or less where a bound says that replicas have not got that far. Neither
    ever decreases, but where another history takes the place of this one (restart()).
C3  one group at most is being written. What arrives meanwhile shares the next one: that is group
    commit, and it needs no timer.
C4  a key's newest value is unsettled from the moment it is applied until its group is committed.
    Writers mark the key before they change the map and readers ask after they read it, so a
    reader without the lock may wait once too often but never once too little.
C6  a batch that shows a state in between to a reader without the lock, because it changes a key
    more than once, says so before it changes anything: `stepwise` is the newest such batch. Who
    read while it was in flight reads again under the lock.
C5  after a failed write or sync nothing ever becomes durable again (P4).
C7  a group of a replica holds the frames that its primary wrote, each with its own epoch and time;
    batches of differing epochs never share a frame.
C8  where syncs come now and then only, what is acknowledged and not synced was written within
    sync_within_ns, first to last: who comes later syncs before it is acknowledged.
C9  whoever waits is woken by what it waits for; and where that leaves batches, the log is handed to
    one of those who wait for them. Whoever is interrupted, while it waits, while it writes, or when
    it was just handed the log, passes it on.

Threading: append side, take() and complete() under `lock`; Group.write() outside it, by whoever
took the group; settles_at() and the counters are read without it (C4).
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from marram.coding.batch import DELETE_RANGE, SWAP, Change
from marram.errors import OutcomeUnknown, StoreFailed
from marram.storage.clock import StoreClock, ask
from marram.storage.held import HeldKeys
from marram.storage.log.format import FRAME_HEADER_SIZE
from marram.storage.log.writer import LogWriter

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

# How much of a primary's frames shares one of a replica, bytes.
_RUN_BYTES = 16 * 1024 * 1024

_WIDE = frozenset((DELETE_RANGE, SWAP))  # changes of more than one key


Point = tuple[int, int, int, int, int]
"""(number of a log, offset in it, last batch before that, its epoch, history checksum there).

A plain tuple: one is made for each group.
"""


class Run:
    """Frames of a primary that will be one frame here (C7). time_ms: of the last of them.

    chains: the history checksum before them, and behind each; None where it is not known.
    """

    __slots__ = ("chains", "count", "epoch", "first", "payloads", "size_bytes", "time_ms")

    def __init__(self, first: int, epoch: int, chain: int | None) -> None:
        self.first = first
        self.epoch = epoch
        self.chains = None if chain is None else [chain]
        self.time_ms = 0
        self.count = 0
        self.payloads: list[bytes] = []
        self.size_bytes = 0


class Group:
    """Batches that will share a frame and a sync."""

    __slots__ = ("_commit", "batches", "everything", "first", "keys", "last", "runs", "size_bytes")

    def __init__(self, commit: CommitQueue, first: int) -> None:
        self._commit = commit
        self.first = first
        self.last = first - 1
        self.batches: list[bytes] = []
        self.runs: list[Run] | None = None  # a primary's frames; they come before the batches
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
        if self.runs is None:
            log.write(self.batches, self.first, commit.epoch, commit.now_ms())
        else:
            self._write_runs(log, self.runs)
        if commit.must_sync:
            self._sync(log, commit, started)

    def _sync(self, log: LogWriter, commit: CommitQueue, started_ns: int) -> None:
        before_ns = commit.monotonic_ns()
        log.sync()
        commit.note_sync(before_ns)
        commit.sync_times.record(commit.monotonic_ns() - started_ns)

    def _write_runs(self, log: LogWriter, runs: list[Run]) -> None:
        """Write a primary's frames, and what was appended behind them (C7)."""
        for run in runs:
            if run.chains is None:
                log.write(run.payloads, run.first, run.epoch, run.time_ms, run.count)
            else:
                log.write_known(
                    run.payloads, run.first, run.epoch, run.time_ms, run.count, run.chains
                )
        if self.batches:
            first = self.last - len(self.batches) + 1
            log.write(self.batches, first, self._commit.epoch, self._commit.now_ms())


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

    sequence: what it waits for; 0: for the log itself. is_local: until that is durable here,
    whatever replicas have. gate: a lock, held until it is woken; None where it is awake. is_lost:
    another history took the place of the one with that sequence.
    """

    __slots__ = ("gate", "is_local", "is_lost", "is_writing", "sequence")

    def __init__(self, sequence: int, is_local: bool) -> None:
        self.sequence = sequence
        self.is_local = is_local
        self.gate: Lock | None = None
        self.is_writing = False
        self.is_lost = False


class CommitQueue:
    """Orders the batches of a store and says when they are committed."""

    __slots__ = (
        "_bound", "_chain", "_clock", "_end", "_epoch", "_held", "_number", "_open", "_point",
        "_sleepers", "_taker", "_tip", "_writing", "committed", "durable", "epoch", "failure",
        "groups", "last", "lock", "log", "monotonic_ns", "stepwise", "sync_each", "sync_times",
        "sync_within_ns", "synced_ns",
    )  # fmt: skip

    def __init__(
        self,
        log: LogWriter,
        last: int,
        epoch: int,
        *,
        sync_each: bool,
        sync_within_ns: int = 0,
        clock: StoreClock,
        monotonic_ns: Callable[[], int],
    ) -> None:
        self.lock = Lock()
        self.log = log
        self.last = last
        self.durable = last
        self.committed = last
        self._point: Point | None = (log.number, log.end, last, log.batch_epoch, log.chain)
        self.epoch = epoch
        self.stepwise = 0
        self.sync_each = sync_each
        self.sync_within_ns = sync_within_ns  # 0 for no limit
        self.synced_ns = monotonic_ns()  # when the last sync began that ended well
        self._clock = clock
        self.monotonic_ns = monotonic_ns
        self.failure: BaseException | None = None
        self.groups = 0
        self.sync_times = SyncTimes()
        self._open = Group(self, last + 1)
        self._writing: Group | None = None
        self._bound: int | None = None  # what replicas have, where that counts
        self._held: HeldKeys | None = None  # keys of groups between committed and durable
        self._tip: tuple[int, int] | None = None  # last batch of a primary's, checksum behind it
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

    def enter_frame(
        self, payload: bytes, count: int, epoch: int, time_ms: int, chain: int | None = None
    ) -> Group:
        """enter(), of the batches of a primary's frame; they keep its epoch and time (C7).

        Only into a group without batches of this store's own (can_enter_frames). chain: the history
        checksum behind them, where the caller has checked it against what the payload comes to.
        """
        group = self._open
        assert not group.batches, "a frame comes before batches"
        if group.runs is None:
            group.runs = []
        run = group.runs[-1] if group.runs else None
        if run is None or run.epoch != epoch or run.size_bytes + len(payload) > _RUN_BYTES:
            run = Run(self.last + 1, epoch, self._chain_here())
            group.runs.append(run)
            group.size_bytes += FRAME_HEADER_SIZE
        run.payloads.append(payload)
        run.count += count
        run.time_ms = time_ms
        run.size_bytes += len(payload)
        if chain is None:
            run.chains = None
        elif run.chains is not None:
            run.chains.append(chain)
        self.last += count
        self._tip = None if chain is None else (self.last, chain)
        self.epoch = max(self.epoch, epoch)
        group.last = self.last
        group.size_bytes += len(payload)
        return group

    def _chain_here(self) -> int | None:
        """The history checksum behind the last batch, where it is known."""
        tip = self._tip
        if tip is not None and tip[0] == self.last:
            return tip[1]
        return self.point[4] if self.point[2] == self.last else None

    def enter_through(self, batch: bytes) -> bool:
        """Give `batch` the next number and write it at once; False where that cannot be done.

        It can where it takes no more than storing its frame in memory: the log is free and has a
        window, nothing waits to be written before it, and nothing has to be synced. The caller
        changes the map and then calls settle_through(): so nobody sees what is not in the log, and
        it needs no mark (C4). A failure latches.
        """
        if (
            self._has_to_sync()
            or self._bound is not None
            or self._taker is not None
            or self.failure is not None
            or self._open.size_bytes
            or not self.log.fits(len(batch))
        ):
            return False
        sequence = self.last + 1
        try:
            self.log.write_one(batch, sequence, self.epoch, self._clock.now_ms())
        except OSError as error:
            self._fail(error)
            return False
        self._open.first = sequence + 1
        self._open.last = sequence
        self.last = sequence
        return True

    def settle_through(self) -> None:
        """The batch of enter_through() was applied."""
        log = self.log
        if cython.compiled:  # numbers, stored in one step; who asks for `point` makes the tuple
            self._number, self._end = log.number, log.end
            self._epoch, self._chain = log.batch_epoch, log.chain
            self._point = None
        else:
            self._point = (log.number, log.end, self.last, log.batch_epoch, log.chain)
        self.durable = self.committed = self.last
        self.groups += 1

    def note_puts(self, group: Group, keys: list[bytes]) -> None:
        """note_keys(), of PUTs of these keys.

        A key that the group had already counts as changed more than once: to find out which of the
        two it is would cost more than those who then read again.
        """
        found = group.keys
        size = len(found) + len(keys)
        found.update(keys)
        if len(found) < size:
            self.stepwise = group.last

    def note_keys(self, group: Group, changes: list[Change]) -> None:
        """Note which keys the group unsettles, before the map changes (C4, C6)."""
        keys = group.keys
        added = len(keys)
        is_wide = False
        for change in changes:
            keys.add(change[2])
            if change[0] in _WIDE:
                is_wide = True
        added = len(keys) - added
        if len(changes) > 1 and (
            is_wide or (added < len(changes) and len({c[2] for c in changes}) < len(changes))
        ):
            self.stepwise = group.last
        if is_wide:
            group.everything = True

    @property
    def point(self) -> Point:
        """Up to where the log is durable; always of one moment."""
        point = self._point
        if point is not None:
            return point
        number, end, durable, epoch, chain = (
            self._number, self._end, self.durable, self._epoch, self._chain
        )  # fmt: skip
        return number, end, durable, epoch, chain

    @property
    def newest_epoch(self) -> int:
        """The epoch of the newest batch appended."""
        for group in (self._open, self._writing):
            if group is not None:
                if group.batches:
                    return self.epoch
                if group.runs:
                    return group.runs[-1].epoch
        return self.point[3]

    @property
    def can_enter_frames(self) -> bool:
        """Whether the open group has no batches of this store's own."""
        return not self._open.batches

    def unwritten(self) -> tuple[Point, list[bytes], int]:
        """(what is durable, the bytes of all batches after it, the epoch of the last of them)."""
        pieces: list[bytes] = []
        _, _, durable, epoch, _ = self.point
        for group in (self._writing, self._open):
            if group is not None and group.last > durable:
                for run in group.runs or ():
                    pieces += run.payloads
                    epoch = run.epoch
                if group.batches:
                    pieces += group.batches
                    epoch = self.epoch
        return self.point, pieces, epoch

    # -- syncs -----------------------------------------------------------------------------------

    @property
    def must_sync(self) -> bool:
        """Whether what is written next has to be synced before it is acknowledged (C8)."""
        return self._has_to_sync()

    def now_ms(self) -> int:
        """The store's time, which frames are given."""
        return self._clock.now_ms()

    def note_sync(self, began_ns: int) -> None:
        """The log was synced, beginning then."""
        self.synced_ns = max(self.synced_ns, began_ns)

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
        held = self._held  # after _writing: complete() fills it before it empties that
        return 0 if held is None else held.settles_at(key)

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
                log = self.log
                self._point = (log.number, log.end, group.last, log.batch_epoch, log.chain)
                self.durable = group.last
                self.groups += 1
                if self._bound is None or self._bound >= group.last:
                    # Also where replicas have it already, as on one that catches up.
                    self._writing = None
                    self._advance()
                else:
                    self._hold(group)
            self._taker = None
            self._wake()

    def set_bound(self, sequence: int | None) -> bool:
        """Commit nothing after this position though it is durable here; None: everything that is.

        Returns whether `committed` moved, so that what waits for it may go. Without the lock held.
        """
        with self.lock:
            self._bound = sequence
            moved = self._advance()
            if moved:
                self._wake()
            return moved

    def wait(self, sequence: int, timeout_s: float | None = None, locally: bool = False) -> None:
        """Block until `sequence` is committed, writing groups where nobody else does.

        A lone writer pays no thread hop: it takes its own group. Without the lock held.
        timeout_s: wait for replicas no longer than that; locally: until it is durable here.
        Raises OutcomeUnknown: the log failed first, the time passed first, or another history took
        the place of this one.
        """
        if (self.durable if locally else self.committed) >= sequence:
            return
        deadline_ns = 0
        if timeout_s is not None:
            deadline_ns = self.monotonic_ns() + int(timeout_s * 1e9)
        turn = Turn(sequence, locally)
        while self._taker is turn or not self._is_reached(turn):
            try:
                group = self._begin(turn)
                if group is not None:
                    group.write()
                    self.complete(group, None)
                    turn.is_writing = False
                elif turn.gate is not None:
                    self._await_gate(turn, deadline_ns)
            except BaseException as error:
                self._abandon(turn, error)
                if not isinstance(error, OSError):
                    raise

    def take_log(self) -> LogWriter:
        """Keep groups out of the log, until give_log(); for rotation. Without the lock held.

        Raises StoreFailed.
        """
        turn = Turn(0, True)
        while True:
            try:
                with self.lock:
                    self.check()
                    if self._taker is None or self._taker is turn:
                        self._taker = turn
                        return self.log
                    self._sleep(turn)
                self._await_gate(turn, 0)
            except BaseException as error:
                self._abandon(turn, error)
                raise

    def take_log_to_reign(self, epoch: int) -> LogWriter | None:
        """take_log(), and write what is appended from here on in that epoch.

        None where frames of a primary have to be written first. Raises StoreFailed; OSError: there
        is no room in the log for a mark, and nothing was changed.
        """
        log = self.take_log()
        try:
            with self.lock:
                if self._open.runs is None:
                    log.reserve(self._open.size_bytes + FRAME_HEADER_SIZE)
                    self.epoch = epoch
                    return log
        except BaseException:
            self.give_log()
            raise
        self.give_log()
        return None

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

    def restart(
        self, log: LogWriter, sequence: int, epoch: int, *, is_committed: bool = True
    ) -> None:
        """End take_log(): go on in a log of another history, whose last batch is `sequence`.

        Nothing may be in the open group. What waits for positions beyond it gets OutcomeUnknown.
        is_committed: False where set_bound() will say when all of it is.
        Under the lock, with the engine's map changed in the same step.
        """
        assert not self.pending_bytes, "appended and neither written nor refused"
        self.log = log
        self.last = self.durable = self.committed = sequence
        self._point = (log.number, log.end, sequence, log.batch_epoch, log.chain)
        self.epoch = epoch
        self.stepwise = 0
        self._bound = self._held = self._tip = None
        if not is_committed and sequence:
            self.committed = self._bound = sequence - 1
            self._held = HeldKeys()
            self._held.add(sequence, set(), True)
        self._writing = None
        self._open = Group(self, sequence + 1)
        self._taker = None
        self._lose_after(sequence)
        self._wake()

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

    def _has_to_sync(self) -> bool:
        if self.sync_each or self.sync_within_ns <= 0:
            return self.sync_each
        return ask(self.monotonic_ns) - self.synced_ns > self.sync_within_ns

    def _hold(self, group: Group) -> None:
        """A group became durable, and there is a bound: its keys are held until that is past."""
        if self._held is None:
            self._held = HeldKeys()
        self._held.add(group.last, group.keys, group.everything)
        self._writing = None  # after: a reader looks for the key here first (C4)
        self._advance()

    def _advance(self) -> bool:
        """Commit what is durable and within the bound; returns whether anything was."""
        bound = self._bound
        reached = self.durable if bound is None else min(self.durable, bound)
        if reached <= self.committed:
            return False
        self.committed = reached
        if self._held is not None and self._held.settle(reached):
            self._held = None
        return True

    def _take(self, taker: object) -> Group | None:
        group = self._open
        if group.last < group.first or self.failure is not None:
            return None
        self._taker = taker
        self._writing = group  # before _open is emptied (C4)
        self._open = Group(self, self.last + 1)
        return group

    def _lose_after(self, sequence: int) -> None:
        """What waits for positions beyond it waits in vain."""
        for turn in self._sleepers:
            turn.is_lost = turn.sequence > sequence

    def _is_reached(self, turn: Turn) -> bool:
        """Whether what it waits for has come; with no lock it may say so late."""
        if turn.is_lost:
            return False
        return (self.durable if turn.is_local else self.committed) >= turn.sequence

    def _begin(self, turn: Turn) -> Group | None:
        """The group that the turn is to write; None where it is to sleep, or to look again.

        Takes the lock. Raises OutcomeUnknown.
        """
        with self.lock:
            is_reached = self._is_reached(turn)
            if not is_reached:
                self._check_hope(turn)
            if is_reached or self.durable >= turn.sequence:  # the log is of no use to it
                if self._taker is turn:
                    self._taker = None
                    self._wake()
                if not is_reached:
                    self._sleep(turn)
                return None
            if self._taker is not None and self._taker is not turn:
                self._sleep(turn)
                return None
            turn.is_writing = True  # before it is true: an interrupt in between is no worse then
            return self._take(turn)

    def _check_hope(self, turn: Turn) -> None:
        """Raises OutcomeUnknown: what it waits for will never come."""
        if self.failure is not None:
            raise OutcomeUnknown(
                f"the log failed before this was known to be durable: {self.failure}"
            ) from self.failure
        if turn.is_lost or turn.sequence > self.last:
            raise OutcomeUnknown(
                f"there is no batch {turn.sequence}: another history took the place of the one it "
                "was in"
            )

    def _sleep(self, turn: Turn) -> None:
        gate = Lock()
        gate.acquire()
        turn.gate = gate
        self._sleepers.append(turn)

    def _await_gate(self, turn: Turn, deadline_ns: int) -> None:
        """Sleep until woken; without the lock. Raises OutcomeUnknown: past the deadline.

        deadline_ns: 0 for none. Past it a turn may still be in the list, or have the log by now.
        """
        gate = turn.gate
        assert gate is not None
        if not deadline_ns:
            gate.acquire()
        else:
            left_ns = max(0, deadline_ns - self.monotonic_ns())
            if not gate.acquire(timeout=left_ns / 1e9) and not self._is_reached(turn):
                raise OutcomeUnknown(
                    f"position {turn.sequence} is still replicating: too few replicas had it in "
                    "time"
                )
        turn.gate = None

    def _wake(self) -> None:
        """Wake whoever got what it waits for, and hand the log to one who waits for more (C9).

        That one is woken last. So those who were served may append again before it takes the
        group: 16 threads then share one sync, and not two by turns.
        """
        sleepers = self._sleepers
        if not sleepers:
            return
        is_failed = self.failure is not None
        leader: Turn | None = None
        if self._taker is None and not is_failed:
            leader = self._find_leader()
            self._taker = leader
        asleep: list[Turn] = []
        for turn in sleepers:
            if turn is leader:
                continue
            if is_failed or turn.is_lost or (turn.sequence and self._is_reached(turn)):
                _open_gate(turn)
            else:
                asleep.append(turn)
        self._sleepers = asleep
        if leader is not None:
            _open_gate(leader)

    def _find_leader(self) -> Turn | None:
        """Who is to have the log next: who waits for the log itself, else for what is not in it."""
        leader: Turn | None = None
        for turn in self._sleepers:
            if turn.sequence == 0:  # or it might never get the log
                return turn
            if leader is None and turn.sequence > self.durable and not turn.is_lost:
                leader = turn
        return leader

    def _abandon(self, turn: Turn, error: BaseException) -> None:
        """End a turn that an error ended, wherever it was, so that nobody waits for it (C9)."""
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
