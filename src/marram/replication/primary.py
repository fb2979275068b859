"""One replica's link, on the upstream's side.

Owns the link from the replica's first message to its end: who may log in, whether its history is
ours, tail or full sync, what may be on its way, heartbeats; not the bytes (codec.py), not what
acknowledgements mean for commitment (acks.py), not the log and the state, which it asks its shell
for (effects.py). A replica that feeds others uses it as well.

F1  nothing of the store leaves, and nothing the replica says is believed, before its proof.
F2  batches leave in order and without a gap, and only what the shell read from its durable log.
F3  histories are compared before the first batch; only a replica whose history is a prefix of ours
    gets the tail. Where it has more, or other batches, it is told what to set aside first.
F4  what is on its way stays within the replica's window, and within ours; one reading of the log,
    of about a chunk, may wait beside it.
F5  a replica that may hold a deposed primary's batches feeds nobody: what it would call the truth
    would replace what others acknowledged.
F6  an epoch above ours ends the link, and is reported: HigherEpoch. A lower one is the replica's to
    raise, before it is sent anything.
F7  after the last Close nothing is sent, asked or reported.

Threading: one owner; every method returns effects, to be done in order. Times are of one monotonic
clock, ns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, NamedTuple

from marram.coding.batch import PUT, Change, batch_end, encode
from marram.coding.checksum import crc32
from marram.replication.agreement import Search
from marram.replication.credentials import (
    NO_PROOF,
    Greeting,
    Secret,
    is_right,
    prove_replica,
    prove_upstream,
)
from marram.replication.effects import (
    Acked,
    Admit,
    Close,
    Effect,
    FindMarks,
    HigherEpoch,
    Hold,
    LogFrame,
    OpenTail,
    PinState,
    ReadRows,
    ReadTail,
    ReleaseState,
    Row,
    Send,
)
from marram.replication.flow import Throttle, Window
from marram.replication.lag import Lag, Timeline
from marram.replication.messages import (
    NO_STORE,
    VERSION,
    Ack,
    Agreed,
    Batches,
    Challenge,
    Code,
    Compare,
    FromReplica,
    Heartbeat,
    Hello,
    Login,
    Mark,
    Plan,
    Preparing,
    Ready,
    Refusal,
    Rows,
    SnapshotBegin,
    SnapshotEnd,
    Streamed,
    Welcome,
    weight_of,
)

_MS_NS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Host:
    """Who feeds: constant within a link; a change of it ends the links (Feed.stop).

    run_id: new with every start of the process. epoch: the store's. is_primary: whether it appends
    itself, so that its history is the truth. is_verified: whether its history is that of its epoch:
    of a primary it is; of a replica it is known once its own link has streamed (Follower). Its
    epoch may have been raised by an operator, and its history be that of a deposed primary.
    primary: where the primary serves clients, or "". route: on a replica, run ids from its upstream
    to the primary.
    """

    store_id: bytes
    run_id: bytes
    epoch: int
    is_primary: bool
    is_verified: bool
    primary: str = ""
    route: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """Limits of a link.

    window_bytes: what may be on its way, if the replica allows as much. chunk_bytes: about how much
    is read and sent at a time. sync_rate: bytes a second of a full sync, 0 for as fast as it goes.
    heartbeat_ns: how often the replica hears of us. silence_ns: how long it may say nothing.
    wrong_password_ns: how long a refused login waits for its answer.
    """

    window_bytes: int = 8 << 20
    chunk_bytes: int = 256 << 10
    sync_rate: int = 0
    heartbeat_ns: int = 1_000 * _MS_NS
    silence_ns: int = 15_000 * _MS_NS
    wrong_password_ns: int = 1_000 * _MS_NS


class Standing(NamedTuple):
    """Where the upstream is.

    newest: its last durable sequence. committed: up to where its readers are answered: what its
    store calls committed, and not past AckRules.bound or, on a replica, Follower.committed: a store
    that was just opened calls all it found committed. time_ms: its store's clock.
    """

    newest: int
    committed: int
    time_ms: int


class Phase(Enum):
    """How far a link has come."""

    CHALLENGED = auto()  # the challenge is out
    REFUSING = auto()  # the password was wrong; the answer takes its time
    JUDGING = auto()  # looking our own history up
    COMPARING = auto()  # the replica looks its history up
    WELCOMED = auto()  # the replica makes itself ready
    SNAPSHOT = auto()  # rows go out
    SWITCHING = auto()  # all rows are out; the replica switches to them
    OPENING = auto()  # the shell opens the log
    TAIL = auto()
    CLOSED = auto()


_STREAMING: Final = (Phase.SNAPSHOT, Phase.SWITCHING, Phase.OPENING, Phase.TAIL)
_BEATING: Final = (Phase.WELCOMED, *_STREAMING)
"""When the replica is told that we are there."""


class Feed:
    """One replica's link. Begin with hello(); the shell makes one for every connection."""

    def __init__(
        self,
        host: Host,
        options: FeedOptions,
        secret: Secret | None,
        timeline: Timeline,
        now_ns: int,
    ) -> None:
        """secret: what replicas have to know; None: no password. timeline: of the own log."""
        self.phase = Phase.CHALLENGED
        self.node_id = b""  # who it is, after Admit
        self.address = ""
        self.received = 0  # acknowledged positions, 0 before the tail
        self.durable = 0
        self.sent = Mark(0, 0, 0)  # the last batch sent, or that the replica had
        self.stream = 0  # messages of the stream sent
        self.window = Window(options.window_bytes)
        self._host = host
        self._options = options
        self._secret = secret
        self._timeline = timeline
        self._greeting = Greeting(b"", b"", b"", b"")
        self._login: Login | None = None
        self._search: Search | None = None
        self._newest = Mark(0, 0, 0)  # ours, when we judged
        self._plan = Plan.TAIL
        self._reading = False  # the shell was asked for more
        self._dry = False  # the last reading came to the present end
        self._news = False  # more became durable since the shell was asked
        self._pending: deque[Streamed] = deque()  # read and not sent (F4)
        self._lists = 0
        self._checksum = 0
        self._throttle = Throttle(options.sync_rate, 0)
        self._open_ns = 0  # from when on it lets more through
        self._told = 0  # the last `committed` that was sent
        self._standing = Standing(0, 0, 0)
        self._heard_ns = now_ns
        self._beat_ns = 0  # when the next heartbeat is due
        self._refuse_ns = 0

    # -- in the order of a life --------------------------------------------------------------------

    def hello(self, hello: Hello, nonce: bytes, now_ns: int) -> list[Effect]:
        """The replica's first message. nonce: 16 fresh random bytes."""
        self._heard_ns = now_ns
        if self._greeting.replica_run or self.phase is Phase.CLOSED:
            return self._refuse(Code.MALFORMED, "a second greeting")
        if not hello.oldest <= VERSION <= hello.newest:
            return self._refuse(
                Code.UNKNOWN_VERSION,
                f"versions {hello.oldest} to {hello.newest}; this server speaks {VERSION}",
            )
        if hello.run_id == self._host.run_id:
            return self._refuse(Code.SELF, "a server cannot be its own replica")
        self._greeting = Greeting(hello.nonce, hello.run_id, nonce, self._host.run_id)
        parameters = b"" if self._secret is None else self._secret.parameters
        return [Send(Challenge(VERSION, nonce, self._host.run_id, parameters))]

    def receive(self, message: FromReplica, now_ns: int) -> list[Effect]:
        """Any later message of the replica's."""
        if self.phase in (Phase.CLOSED, Phase.REFUSING):
            return []
        self._heard_ns = now_ns
        if isinstance(message, Refusal):
            return self._refused(message)
        if isinstance(message, Login) and self.phase is Phase.CHALLENGED:
            return self._logged_in(message, now_ns)
        if isinstance(message, Agreed) and self.phase is Phase.COMPARING:
            return self._compared(message, now_ns)
        if isinstance(message, Ready) and self.phase is Phase.WELCOMED:
            return self._begin()
        if isinstance(message, Preparing) and self.phase is Phase.WELCOMED:
            return []
        if isinstance(message, Ack) and self.phase in _STREAMING:
            return self._acknowledged(message, now_ns)
        what = type(message).__name__
        return self._refuse(Code.MALFORMED, f"{what} while the link is {self.phase.name.lower()}")

    def stop(self, code: Code, text: str) -> list[Effect]:
        """End the link from this side: Host changed, bytes came that are no messages, ..."""
        return self._refuse(code, text)

    def lost(self) -> list[Effect]:
        """The connection is gone."""
        return self._close("the connection is gone")

    # -- what the shell found ----------------------------------------------------------------------

    def found(
        self, marks: Sequence[Mark | None], oldest: Mark, newest: Mark, now_ns: int
    ) -> list[Effect]:
        """The places FindMarks asked for, and how far our history can be looked up.

        oldest: up to where the log is gone; newest: the last durable batch.
        """
        if self.phase is not Phase.JUDGING or self._login is None:
            return []
        self._newest = newest
        if self._search is not None:
            if None in marks:  # the log was cut meanwhile: begin anew
                return self._refuse(Code.LOG_GONE, "the log was cut during the comparison")
            self.phase = Phase.COMPARING
            return [Send(Compare(tuple(mark for mark in marks if mark is not None)))]
        return self._judge(self._login, marks[0], oldest, now_ns)

    def tail_opened(self, standing: Standing, now_ns: int) -> list[Effect]:
        """The log is open after the replica's position."""
        if self.phase is not Phase.OPENING:
            return []
        self.phase = Phase.TAIL
        self._standing = standing
        return self._pump(now_ns)

    def log_gone(self) -> list[Effect]:
        """The log does not reach the replica's position any more: it needs a full sync."""
        return self._refuse(Code.LOG_GONE, f"the log after {self.sent.sequence} is gone")

    def frames(self, frames: Sequence[LogFrame], standing: Standing, now_ns: int) -> list[Effect]:
        """What ReadTail gave; nothing at the present end."""
        if self.phase is not Phase.TAIL:
            return []
        self._reading = False
        self._standing = standing
        if frames:
            last = frames[-1]
            # Behind the newest batch there is nothing: a reading to see that is as dear as another.
            self._dry = last.first_sequence + last.count - 1 >= standing.newest
        else:
            self._dry = not self._news
        for frame in _joined(frames, self._options.chunk_bytes):
            self._queue(frame)
        return self._pump(now_ns)

    def pinned(self, mark: Mark, rows: int, standing: Standing, now_ns: int) -> list[Effect]:
        """The state is pinned at `mark`, which is durable. rows: about how many it has."""
        if self.phase is not Phase.SNAPSHOT:
            return [ReleaseState()]
        self._reading = False
        self._standing = standing
        self.sent = mark
        self._throttle = Throttle(self._options.sync_rate, now_ns)
        self._pending.append(SnapshotBegin(mark, standing.time_ms, rows))
        return [Hold(mark.sequence), *self._pump(now_ns)]

    def rows(self, rows: Sequence[Row], now_ns: int) -> list[Effect]:
        """What ReadRows gave; nothing at the end."""
        if self.phase is not Phase.SNAPSHOT:
            return []
        self._reading = False
        if rows:
            self._queue_rows(rows)
            return self._pump(now_ns)
        self._pending.append(SnapshotEnd(self._lists, self._checksum))
        self.phase = Phase.SWITCHING
        return [ReleaseState(), *self._flush(now_ns)]

    def failed(self, why: str) -> list[Effect]:
        """What was asked for could not be read."""
        return self._refuse(Code.FAILED, why)

    # -- as time goes on ---------------------------------------------------------------------------

    def advanced(self, standing: Standing, now_ns: int) -> list[Effect]:
        """More is durable here, or committed."""
        if self.phase is not Phase.TAIL:
            return []
        self._standing = standing
        if standing.newest > self.sent.sequence:
            self._dry = False
            self._news = True
        return self._pump(now_ns)

    def tick(self, standing: Standing, now_ns: int) -> list[Effect]:
        """Time has passed. Call it at deadline_ns, or every now and then."""
        if self.phase is Phase.CLOSED:
            return []
        if self.phase is Phase.REFUSING:
            if now_ns < self._refuse_ns:
                return []
            return self._refuse(Code.WRONG_PASSWORD, "wrong password")
        if now_ns - self._heard_ns > self._options.silence_ns:
            return self._refuse(Code.SILENT, "the replica says nothing")
        if self.phase not in _BEATING:
            return []
        self._standing = standing
        effects = self._pump(now_ns)
        if now_ns >= self._beat_ns:
            effects.append(self._beat(now_ns))
        return effects

    @property
    def deadline_ns(self) -> int:
        """When tick() has something to do, unless something happens before."""
        if self.phase is Phase.REFUSING:
            return self._refuse_ns
        silent_ns = self._heard_ns + self._options.silence_ns + 1
        if self.phase not in _BEATING:
            return silent_ns
        due_ns = min(silent_ns, self._beat_ns)
        if self.phase is Phase.SNAPSHOT and not self._reading and self.window.room_bytes > 0:
            due_ns = min(due_ns, self._open_ns)
        return due_ns

    def lag(self, now_ns: int) -> Lag:
        """How far the replica's disk is behind ours; all of the log before its first Ack."""
        return self._timeline.behind(self.durable, now_ns)

    # -- private: the handshake --------------------------------------------------------------------

    def _logged_in(self, login: Login, now_ns: int) -> list[Effect]:
        host = self._host
        if self._secret is not None and not is_right(
            login.proof, prove_replica(self._secret.digest, self._greeting)
        ):
            self.phase = Phase.REFUSING
            self._refuse_ns = now_ns + self._options.wrong_password_ns
            return []
        if login.store_id not in (NO_STORE, host.store_id):
            return self._refuse(
                Code.FOREIGN_STORE,
                f"the replica holds store {login.store_id.hex()}, this is {host.store_id.hex()}",
            )
        if login.epoch > host.epoch:
            text = f"the replica knows of epoch {login.epoch}, this is {host.epoch}"
            return [HigherEpoch(login.epoch), *self._refuse(Code.LOWER_EPOCH, text)]
        if not host.is_verified:
            return self._refuse(Code.BEHIND, "this replica has not heard of its own upstream yet")
        self._login = login
        self.node_id, self.address = login.node_id, login.address
        self.window.size_bytes = max(1, min(login.window_bytes, self._options.window_bytes))
        self.phase = Phase.JUDGING
        return [Admit(login.node_id, login.address), FindMarks((login.newest.sequence,))]

    def _judge(self, login: Login, here: Mark | None, oldest: Mark, now_ns: int) -> list[Effect]:
        """Compare the replica's newest mark with ours at that place (F3)."""
        if login.store_id == NO_STORE:
            return self._welcome(Plan.FULL, None, now_ns)
        theirs = login.newest
        if here == theirs:
            return self._welcome(Plan.TAIL, None, now_ns)
        if theirs.sequence < oldest.sequence:
            # Our log does not tell any more. Within the reign that wrote our oldest batch there
            # was one history; from an earlier one the replica may have batches of its own.
            is_ours = theirs.epoch == oldest.epoch
            return self._welcome(Plan.FULL, None if is_ours else login.oldest, now_ns)
        low = max(oldest.sequence, login.oldest)
        high = min(self._newest.sequence, theirs.sequence)
        if low > high:
            return self._parted(login, None, now_ns, is_compared=False)
        self._search = Search(low, high)
        return [FindMarks(self._search.probes)]

    def _compared(self, agreed: Agreed, now_ns: int) -> list[Effect]:
        search, login = self._search, self._login
        assert search is not None and login is not None
        try:
            search.answer(agreed.index)
        except ValueError as error:
            return self._refuse(Code.MALFORMED, str(error))
        if search.done:
            return self._parted(login, search.common, now_ns)
        self.phase = Phase.JUDGING
        return [FindMarks(search.probes)]

    def _parted(
        self, login: Login, common: int | None, now_ns: int, *, is_compared: bool = True
    ) -> list[Effect]:
        """The histories part after `common`; None: before both logs begin.

        is_compared: there were places that both could look up.
        """
        ours, theirs = self._newest, login.newest
        # A replica that feeds others may not have come as far as they yet. But in one history
        # epochs do not go back: a later epoch at an earlier place is another history.
        is_further = theirs.sequence > ours.sequence and theirs.epoch >= ours.epoch
        is_common = not is_compared if common is None else common >= ours.sequence
        if is_further and is_common and not self._host.is_primary:
            text = f"the replica is at {theirs.sequence}, this at {ours.sequence}"
            return self._refuse(Code.BEHIND, text)
        return self._welcome(Plan.FULL, login.oldest if common is None else common, now_ns)

    def _welcome(self, plan: Plan, aside: int | None, now_ns: int) -> list[Effect]:
        assert self._login is not None
        host = self._host
        proof = NO_PROOF
        if self._secret is not None:
            proof = prove_upstream(self._secret.digest, self._greeting)
        self._plan = plan
        self.phase = Phase.WELCOMED
        self._beat_ns = now_ns + self._options.heartbeat_ns
        effects: list[Effect] = []
        if plan is Plan.TAIL:
            self.sent = self._login.newest
            effects.append(Hold(self.sent.sequence))
        heartbeat_ms = self._options.heartbeat_ns // _MS_NS
        message = Welcome(
            proof, host.store_id, host.epoch, self._newest, plan, aside, host.primary, heartbeat_ms,
            (host.run_id, *host.route),
        )  # fmt: skip
        return [*effects, Send(message)]

    def _begin(self) -> list[Effect]:
        """The replica is ready."""
        if self._plan is Plan.FULL:
            self.phase = Phase.SNAPSHOT
            self._reading = True
            return [PinState()]
        self.phase = Phase.OPENING
        self.received = self.durable = self.sent.sequence
        return [Acked(self.received, self.durable), OpenTail(self.sent.sequence)]

    # -- private: the stream -----------------------------------------------------------------------

    def _pump(self, now_ns: int) -> list[Effect]:
        """Send what may be sent, and ask for more where there is room (F4)."""
        effects = self._flush(now_ns)
        may_read = not self._reading and not self._pending and self.window.room_bytes > 0
        wanted = min(self._options.chunk_bytes, self.window.room_bytes)
        if self.phase is Phase.TAIL:
            reads = may_read and not self._dry
            # HOT: what is read tells of `committed` as well, and if nothing is, the next pump does:
            # a heartbeat before it doubled what is sent. Only the first one goes ahead: until it is
            # told, a replica may have to show nothing.
            is_told_soon = reads and self._told
            if not is_told_soon and self._told < min(self._standing.committed, self.sent.sequence):
                # Readers of the replica wait for what it has and what was committed only now.
                effects.append(self._beat(now_ns))
            if reads:
                self._reading = True
                self._news = False
                effects.append(ReadTail(wanted))
        elif self.phase is Phase.SNAPSHOT and may_read:
            self._open_ns = self._throttle.open_at_ns(now_ns)
            if self._open_ns <= now_ns:
                self._reading = True
                effects.append(ReadRows(wanted))
        return effects

    def _flush(self, now_ns: int) -> list[Effect]:
        effects: list[Effect] = []
        while self._pending:
            message = self._pending[0]
            weight = weight_of(message)
            if not self.window.admits(weight):
                break
            self._pending.popleft()
            self.window.sent += weight
            self.stream += 1
            if isinstance(message, Batches):
                self._told = message.committed
                self.sent = Mark(message.epoch, message.first + message.count - 1, message.chain)
            elif isinstance(message, Rows):
                self._throttle.spend(weight, now_ns)
            effects.append(Send(message))
        return effects

    def _queue(self, frame: LogFrame) -> None:
        """Make messages of a frame of the log: in parts where it is large, a batch at the least."""
        last = self._pending[-1] if self._pending else None
        if isinstance(last, Batches):
            sequence, chain = last.first + last.count - 1, last.chain
        else:
            sequence, chain = self.sent.sequence, self.sent.chain
        assert frame.first_sequence == sequence + 1, "the log is read without a gap (F2)"
        for count, payload in _parts(frame.payload, frame.count, self._options.chunk_bytes):
            known = frame.chain if count == frame.count else None
            chain = crc32(payload, chain) if known is None else known
            self._pending.append(
                Batches(
                    sequence + 1, count, frame.epoch, frame.time_ms, self._standing.committed,
                    chain, payload,
                )
            )  # fmt: skip
            sequence += count

    def _queue_rows(self, rows: Sequence[Row]) -> None:
        changes: list[Change] = [(PUT, row[0], row[1], row[2], row[3], row[4]) for row in rows]
        payload = encode(changes)
        self._checksum = crc32(payload, self._checksum)
        self._pending.append(Rows(self._lists, payload))
        self._lists += 1

    def _acknowledged(self, ack: Ack, now_ns: int) -> list[Effect]:
        if not self.window.consume(ack.consumed):
            return self._refuse(Code.MALFORMED, "more was consumed than sent")
        effects: list[Effect] = []
        # The end of the snapshot is consumed when the replica has switched to it.
        is_switched = ack.consumed == self.window.sent and not self._pending
        is_first = (
            self.phase is Phase.SWITCHING and is_switched and ack.received == self.sent.sequence
        )
        if is_first:
            self.phase = Phase.OPENING
            effects.append(OpenTail(self.sent.sequence))
        if self.phase in (Phase.OPENING, Phase.TAIL):
            if not ack.durable <= ack.received <= self.sent.sequence:
                text = f"{ack.durable} and {ack.received} of {self.sent.sequence} acknowledged"
                return self._refuse(Code.MALFORMED, text)
            # The first one counts the replica in, were it at position 0.
            if is_first or ack.received > self.received or ack.durable > self.durable:
                self.received = max(self.received, ack.received)
                self.durable = max(self.durable, ack.durable)
                effects += [Acked(self.received, self.durable), Hold(self.durable)]
        return effects + self._pump(now_ns)

    def _beat(self, now_ns: int) -> Send:
        self._beat_ns = now_ns + self._options.heartbeat_ns
        standing = self._standing
        self._told = standing.committed
        behind = self.lag(now_ns)
        return Send(
            Heartbeat(
                standing.newest, standing.committed, standing.time_ms, self.stream,
                behind.bytes, int(behind.seconds * 1000),
            )
        )  # fmt: skip

    # -- private: the end --------------------------------------------------------------------------

    def _refused(self, refusal: Refusal) -> list[Effect]:
        """The replica ends the link."""
        effects: list[Effect] = []
        if self._login is not None and refusal.epoch > self._host.epoch:
            effects.append(HigherEpoch(refusal.epoch))
        why = f"the replica refused: {refusal.code.name}: {refusal.text}"
        return effects + self._close(why)

    def _refuse(self, code: Code, text: str) -> list[Effect]:
        if self.phase is Phase.CLOSED:
            return []
        refusal = Refusal(code, self._host.epoch, text)
        return [Send(refusal), *self._close(f"{code.name}: {text}")]

    def _close(self, why: str) -> list[Effect]:
        if self.phase is Phase.CLOSED:
            return []
        effects: list[Effect] = [ReleaseState()] if self.phase is Phase.SNAPSHOT else []
        self.phase = Phase.CLOSED
        self._pending.clear()
        return [*effects, Close(why)]


@dataclass(frozen=True, slots=True)
class _Joined:
    """Frames as one. time_ms, chain: of the last of them."""

    first_sequence: int
    count: int
    epoch: int
    time_ms: int
    payload: bytes
    chain: int | None


def _joined(frames: Sequence[LogFrame], limit: int) -> Iterator[LogFrame]:
    """Make one of small frames that follow one another, up to `limit` bytes, of one epoch each.

    A log of single writes has a frame for each: one message a frame costs 15 times as much.
    """
    start = 0
    while start < len(frames):
        stop, size = start + 1, len(frames[start].payload)
        while stop < len(frames) and frames[stop].epoch == frames[start].epoch:
            size += len(frames[stop].payload)
            if size > limit:
                break
            stop += 1
        run = frames[start:stop]
        first, last = run[0], run[-1]
        if first is last:
            yield first
        else:
            payload = b"".join([frame.payload for frame in run])
            count = sum([frame.count for frame in run])
            yield _Joined(
                first.first_sequence, count, first.epoch, last.time_ms, payload, last.chain
            )
        start = stop


def _parts(payload: bytes, count: int, limit: int) -> Iterator[tuple[int, bytes]]:
    """Cut a frame's batches into runs of up to `limit` bytes, one batch at the least."""
    if len(payload) <= limit:
        yield count, payload
        return
    start = at = batches = 0
    while at < len(payload):
        end = batch_end(payload, at, len(payload))
        if batches and end - start > limit:
            yield batches, payload[start:at]
            start, batches = at, 0
        batches += 1
        at = end
    yield batches, payload[start:]
