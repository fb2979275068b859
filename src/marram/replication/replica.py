"""A replica's side of its link to the upstream.

Owns when to connect and how long to wait, the handshake, the order of what is made durable, checks
of every batch before it is appended, acknowledgements; not the bytes (codec.py), not log and state,
which it asks its shell for (effects.py), not who the upstream is: for another one there is another
Follower.

R1  nothing is changed on an upstream's word before its proof.
R2  an upstream whose epoch is below ours is refused; a higher one is durable here before anything
    is appended, installed or acknowledged in it.
R3  a batch is appended only if it is the next one, its epoch does not go back, and the chain over
    it is what the upstream says: a gap, a repetition, damage or another history ends the link.
R4  what is acknowledged as durable, the shell has called durable (synced()) since it was appended
    or installed; in a full sync nothing is acknowledged before installed().
R5  the old state is served until a full sync is whole; whatever ends the link before, aborts it.
R6  own batches that are not the upstream's are set aside, durably, before anything replaces them.
R7  an upstream that sends more than the window is refused: memory here is bounded by it.

A lost or refused link is tried again: soon and then at growing intervals, and at the longest
interval where only an operator can help. `trouble` says why there is none.

Threading: one owner; every method returns effects, to be done in order. Once a link has been closed
its shell reports nothing more of it: what it still had to do is left, or ends before Connect. Times
are of one monotonic clock, ns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from marram.coding.batch import PUT, decode
from marram.coding.checksum import crc32
from marram.replication.credentials import (
    NO_PROOF,
    Greeting,
    is_right,
    prove_replica,
    prove_upstream,
)
from marram.replication.effects import (
    AbortInstall,
    Append,
    BeginInstall,
    Close,
    Committed,
    Connect,
    Derive,
    Effect,
    FindMarks,
    FinishInstall,
    FollowTime,
    InstallRows,
    RaiseEpoch,
    Row,
    Send,
    SetAside,
)
from marram.replication.lag import Lag
from marram.replication.messages import (
    GREETING_FRAME_BYTES,
    MAX_FRAME_BYTES,
    MESSAGE_OVERHEAD_BYTES,
    NO_STORE,
    VERSION,
    Ack,
    Agreed,
    Batches,
    Challenge,
    Code,
    Compare,
    FromUpstream,
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
    Welcome,
    weight_of,
)

_MS_NS: Final = 1_000_000
_HOPELESS: Final = frozenset(
    {
        Code.UNKNOWN_VERSION,
        Code.SELF,
        Code.WRONG_PASSWORD,
        Code.FOREIGN_STORE,
        Code.LOWER_EPOCH,
        Code.TOO_LARGE,
        Code.FAILED,
    }
)
"""Refusals that trying again soon will not change."""


@dataclass(frozen=True, slots=True)
class Own:
    """What the replica's store has as a link begins; see Login.

    store_id: NO_STORE where it is empty and may become any store. newest: all that was appended
    earlier is durable by now.
    """

    store_id: bytes
    epoch: int
    newest: Mark
    oldest: int


@dataclass(frozen=True, slots=True)
class FollowerOptions:
    """Limits of a link.

    max_frame_bytes: the largest frame taken, and so about the largest batch. window_bytes: what the
    upstream may have on its way to us. ack_bytes: how much is consumed
    before it is acknowledged without another reason. heartbeat_ns: how often the upstream hears of
    us. silence_ns: how long it may say nothing. retry_ns, retry_max_ns: the first and the longest
    wait before a new try.
    """

    max_frame_bytes: int = MAX_FRAME_BYTES
    window_bytes: int = 8 << 20
    ack_bytes: int = 1 << 20
    heartbeat_ns: int = 1_000 * _MS_NS
    silence_ns: int = 15_000 * _MS_NS
    retry_ns: int = 100 * _MS_NS
    retry_max_ns: int = 10_000 * _MS_NS


class State(Enum):
    """How far the link has come."""

    WAITING = auto()  # for the next try
    CONNECTING = auto()
    GREETING = auto()  # Hello is out
    DERIVING = auto()  # the shell computes the secret
    LOGIN = auto()  # Login is out; marks may be compared
    PREPARING = auto()  # the epoch is raised, own batches are set aside
    STREAMING = auto()  # batches are appended as they come
    EXPECTING = auto()  # ready for a full sync that has not begun
    SYNCING = auto()  # rows are installed
    FINISHING = auto()  # the new generation is switched to
    STOPPED = auto()


class Follower:
    """The replica's end. Begin with start(); stop() ends it for good.

    node_id: stays with the replica from start to start; run_id: new with each. has_password:
    whether the shell can derive a secret. address: where this replica serves others, or "".
    committed: what is known of its history already: of the Follower before, or of an own reign.
    """

    def __init__(
        self,
        node_id: bytes,
        run_id: bytes,
        options: FollowerOptions,
        *,
        has_password: bool = False,
        address: str = "",
        committed: int = 0,
    ) -> None:
        self.state = State.WAITING
        self.is_verified = False
        """Whether the history here is known to be of the own epoch: it was a prefix of the
        upstream's, and no later epoch was taken over since; see Host.
        """
        self.trouble = ""
        """Why the last link ended; "" once there is one that works."""
        self.primary = ""
        """Where the primary serves clients, as the upstream said; "" where that is not known."""
        self.route: tuple[bytes, ...] = ()
        """Run ids from the upstream to the primary, as the upstream last said."""
        self.committed = committed
        """Up to where the history is known to be committed. A node that opens with an ack level set
        answers no readers before this has come to what it opened with.
        """
        self.behind = Lag(0, 0, 0.0)
        """How far this replica's disk was behind at the last heartbeat, as the upstream sees it."""
        self.upstream_newest = 0
        """The newest sequence the upstream told of."""
        self.heard_ns = 0
        """When the upstream was last heard of."""
        self.links = 0
        self.full_syncs = 0
        self._node_id = node_id
        self._run_id = run_id
        self._options = options
        self._has_password = has_password
        self._address = address
        self._tries = 0  # since the last link that streamed
        self._retry_ns = 0  # when the next try is due
        self._beat_ns = 0
        self._own = Own(NO_STORE, 0, Mark(0, 0, 0), 0)
        self._greeting = Greeting(b"", b"", b"", b"")
        self._digest = b""
        self._welcome: Welcome | None = None
        self._compare: Compare | None = None
        self._todo: list[Effect] = []  # what is still to be made durable before Ready
        self._reset_stream(Mark(0, 0, 0))

    def _reset_stream(self, tip: Mark) -> None:
        self.tip = tip
        """The last batch that was taken over."""
        self._received = self._durable = 0
        self._synced = 0  # what the shell said; it may say so before it says appended()
        self._stream = 0  # messages of the stream taken
        self._taken = self._consumed = self._acked_bytes = 0
        self._appending: deque[tuple[int, int]] = deque()  # last sequence, weight
        self._sync: SnapshotBegin | None = None
        self._lists = 0
        self._checksum = 0

    # -- in the order of a life --------------------------------------------------------------------

    def start(self, now_ns: int) -> list[Effect]:
        """Try to connect at once."""
        assert self.state is State.WAITING
        return self._connect(now_ns)

    def connected(self, own: Own, nonce: bytes, now_ns: int) -> list[Effect]:
        """The connection is there. nonce: 16 fresh random bytes."""
        if self.state is not State.CONNECTING:
            return []
        self.links += 1
        self.heard_ns = now_ns
        self._own = own
        # Of what it does not have yet the next upstream may have another version.
        self.committed = min(self.committed, own.newest.sequence)
        self._welcome = None
        self._compare = None
        self._todo = []
        self._reset_stream(own.newest)
        self._greeting = Greeting(nonce, self._run_id, b"", b"")
        self.state = State.GREETING
        return [Send(Hello(VERSION, VERSION, nonce, self._run_id))]

    def receive(self, message: FromUpstream, now_ns: int) -> list[Effect]:
        """Any message of the upstream's."""
        handler = _HANDLERS.get((self.state, message.__class__))
        if handler is not None:
            self.heard_ns = now_ns
            effects: list[Effect] = handler(self, message, now_ns)
            return effects
        if self.state in (State.WAITING, State.CONNECTING, State.STOPPED):
            return []  # of a link that is gone
        if isinstance(message, Refusal):
            return self._end(f"{message.code.name}: {message.text}", now_ns, message.code)
        what = type(message).__name__
        return self._refuse(Code.MALFORMED, f"{what} in state {self.state.name.lower()}", now_ns)

    def lost(self, why: str, now_ns: int) -> list[Effect]:
        """There is no connection, or no longer."""
        if self.state in (State.WAITING, State.STOPPED):
            return []
        return self._end(why, now_ns, None)

    def not_marram(self, why: str, now_ns: int) -> list[Effect]:
        """The other end is no marram server, or one that has no replicas."""
        return self._end(why, now_ns, Code.UNKNOWN_VERSION)

    def malformed(self, code: Code, why: str, now_ns: int) -> list[Effect]:
        """The decoder gave up: the bytes are no messages, or a frame is too large."""
        return self._refuse(code, why, now_ns)

    def stop(self) -> list[Effect]:
        """Follow no longer: to be promoted, to follow another, to close."""
        effects: list[Effect] = []
        if self.state not in (State.WAITING, State.STOPPED):
            effects = [*self._abort(), Close("this server follows no longer")]
        self.state = State.STOPPED
        return effects

    def tick(self, now_ns: int) -> list[Effect]:
        """Time has passed. Call it at deadline_ns, or every now and then."""
        if self.state is State.STOPPED:
            return []
        if self.state is State.WAITING:
            return self._connect(now_ns) if now_ns >= self._retry_ns else []
        if now_ns - self.heard_ns > self._options.silence_ns:
            if self.state is State.CONNECTING:
                return self._end("no connection in time", now_ns, None)
            return self._refuse(Code.SILENT, "the upstream says nothing", now_ns)
        if self.state in _BEATING and now_ns >= self._beat_ns:
            if self.state is State.PREPARING:
                self._beat_ns = now_ns + self._options.heartbeat_ns
                return [Send(Preparing())]
            return [self._ack(now_ns)]
        return []

    @property
    def deadline_ns(self) -> int | None:
        """When tick() has something to do, unless something happens before; None: never."""
        if self.state is State.STOPPED:
            return None
        if self.state is State.WAITING:
            return self._retry_ns
        silent_ns = self.heard_ns + self._options.silence_ns + 1
        return min(silent_ns, self._beat_ns) if self.state in _BEATING else silent_ns

    @property
    def frame_limit_bytes(self) -> int:
        """The largest frame to take now: little, before the upstream has proved itself (R1)."""
        return self._options.max_frame_bytes if self.state in _BEATING else GREETING_FRAME_BYTES

    # -- what the shell did ------------------------------------------------------------------------

    def derived(self, digest: bytes, now_ns: int) -> list[Effect]:
        """The secret that Derive asked for."""
        if self.state is not State.DERIVING:
            return []
        self._digest = digest
        return self._log_in(prove_replica(digest, self._greeting), now_ns)

    def found(self, marks: Sequence[Mark | None], now_ns: int) -> list[Effect]:
        """The places FindMarks asked for."""
        if self.state is not State.LOGIN or self._compare is None:
            return []
        theirs, self._compare = self._compare.marks, None
        agreeing = [index for index, (a, b) in enumerate(zip(marks, theirs, strict=True)) if a == b]
        return [Send(Agreed(agreeing[-1] if agreeing else None))]

    def epoch_raised(self, epoch: int, now_ns: int) -> list[Effect]:
        """The epoch is durable."""
        if self.state is State.PREPARING and self._todo and self._todo[0] == RaiseEpoch(epoch):
            return self._prepared(now_ns)
        return []

    def was_set_aside(self, after: int, now_ns: int) -> list[Effect]:
        """Own batches after this position are durably in a file of their own, if there were any."""
        if self.state is State.PREPARING and self._todo and self._todo[0] == SetAside(after):
            return self._prepared(now_ns)
        return []

    def appended(self, last: int, now_ns: int) -> list[Effect]:
        """Batches up to this one are applied; the shell may report several Appends at once."""
        if self.state is not State.STREAMING:
            return []
        self._is_well()
        self._received = max(self._received, min(last, self.tip.sequence))
        while self._appending and self._appending[0][0] <= last:
            self._consumed += self._appending.popleft()[1]
        return self._settle(now_ns) or self._maybe_ack(now_ns)

    def synced(self, last: int, now_ns: int) -> list[Effect]:
        """Batches up to this one survive a power cut."""
        if self.state is not State.STREAMING:
            return []
        self._synced = max(self._synced, last)
        return self._settle(now_ns)

    def rows_added(self, now_ns: int) -> list[Effect]:
        """InstallRows is done."""
        if self.state not in (State.SYNCING, State.FINISHING) or not self._appending:
            return []
        self._consumed += self._appending.popleft()[1]
        return self._maybe_ack(now_ns)

    def installed(self, now_ns: int) -> list[Effect]:
        """The store is at the snapshot now, durably."""
        if self.state is not State.FINISHING or self._sync is None:
            return []
        self.full_syncs += 1
        self.committed = 0
        self.tip = self._sync.mark
        self._received = self._durable = self.tip.sequence
        self._consumed = self._taken
        self._appending.clear()
        self._sync = None
        return [*self._streams(), self._ack(now_ns)]

    def failed(self, why: str, now_ns: int, *, is_hopeless: bool = False) -> list[Effect]:
        """What was asked for could not be done; what was done of it stays. Shakes hands anew.

        is_hopeless: only an operator can help: a full disk, a store that failed.
        """
        if self.state in (State.WAITING, State.CONNECTING, State.STOPPED):
            return []
        return self._refuse(Code.FAILED if is_hopeless else Code.RESTART, why, now_ns)

    # -- private: the handshake --------------------------------------------------------------------

    def _connect(self, now_ns: int) -> list[Effect]:
        self.state = State.CONNECTING
        self.heard_ns = now_ns
        self._tries += 1
        return [Connect()]

    def _challenged(self, message: Challenge, now_ns: int) -> list[Effect]:
        if message.version != VERSION:
            text = f"version {message.version}; this replica speaks {VERSION}"
            return self._refuse(Code.UNKNOWN_VERSION, text, now_ns)
        if message.run_id == self._run_id:
            return self._refuse(Code.SELF, "a server cannot be its own replica", now_ns)
        greeting = self._greeting
        self._greeting = Greeting(
            greeting.replica_nonce, greeting.replica_run, message.nonce, message.run_id
        )
        if self._has_password and not message.parameters:
            text = "the upstream has no password, and this replica was given one"
            return self._refuse(Code.WRONG_PASSWORD, text, now_ns)
        if message.parameters and not self._has_password:
            text = "the upstream asks for a password, and this replica was given none"
            return self._refuse(Code.WRONG_PASSWORD, text, now_ns)
        if message.parameters:
            self.state = State.DERIVING
            return [Derive(message.parameters)]
        return self._log_in(NO_PROOF, now_ns)

    def _log_in(self, proof: bytes, now_ns: int) -> list[Effect]:
        own = self._own
        self.state = State.LOGIN
        self.heard_ns = now_ns
        login = Login(
            proof, own.store_id, self._node_id, own.epoch, own.newest, own.oldest,
            self._options.window_bytes, self._address,
        )  # fmt: skip
        return [Send(login)]

    def _compares(self, message: Compare, now_ns: int) -> list[Effect]:
        if self._compare is not None:
            return self._refuse(Code.MALFORMED, "two comparisons at once", now_ns)
        self._compare = message
        return [FindMarks(tuple(mark.sequence for mark in message.marks))]

    def _welcomed(self, message: Welcome, now_ns: int) -> list[Effect]:
        own = self._own
        if self._has_password and not is_right(
            message.proof, prove_upstream(self._digest, self._greeting)
        ):
            text = "the upstream does not know the password"  # (R1)
            return self._refuse(Code.WRONG_PASSWORD, text, now_ns)
        if message.epoch < own.epoch:
            text = f"the upstream is at epoch {message.epoch}, this replica at {own.epoch}"
            return self._refuse(Code.LOWER_EPOCH, text, now_ns)
        if own.store_id not in (NO_STORE, message.store_id):
            text = f"the upstream holds store {message.store_id.hex()}"
            return self._refuse(Code.FOREIGN_STORE, text, now_ns)
        if own.store_id == NO_STORE and message.plan is not Plan.FULL:
            return self._refuse(Code.MALFORMED, "a tail for an empty store", now_ns)
        if self._run_id in message.route:
            text = "the upstream follows this server, by a circle of replicas"
            return self._refuse(Code.SELF, text, now_ns)
        self._welcome = message
        self.primary = message.primary
        self.route = message.route
        self.upstream_newest = message.newest.sequence
        self.state = State.PREPARING
        self._beat_ns = now_ns + self._options.heartbeat_ns
        if message.epoch > own.epoch:
            # Until it streams: nobody may be fed what an earlier reign has in the name of a later.
            self.is_verified = False
            self._todo.append(RaiseEpoch(message.epoch))
        if message.aside is not None and message.aside < own.newest.sequence:
            self._todo.append(SetAside(message.aside))
        return [self._todo[0]] if self._todo else self._ready()

    def _prepared(self, now_ns: int) -> list[Effect]:
        """One of the things to do is durable."""
        del self._todo[0]
        return [self._todo[0]] if self._todo else self._ready()

    def _ready(self) -> list[Effect]:
        assert self._welcome is not None
        if self._welcome.plan is Plan.TAIL:
            self._received = self._durable = self.tip.sequence
            return [Send(Ready()), *self._streams()]
        self.state = State.EXPECTING
        return [Send(Ready())]

    def _streams(self) -> list[Effect]:
        self.state = State.STREAMING
        self.is_verified = True
        return [Committed(self.committed)]  # nothing that comes is, until the upstream says so

    def _is_well(self) -> None:
        """The link does what it is for. Not before: one that fails at its first batch is no use."""
        self.trouble = ""
        self._tries = 0

    # -- private: the stream -----------------------------------------------------------------------

    def _batches(self, message: Batches, now_ns: int) -> list[Effect]:
        tip, welcome = self.tip, self._welcome
        assert welcome is not None
        if message.first != tip.sequence + 1 or message.count < 1:
            text = f"batch {message.first} came, {tip.sequence + 1} is due"
            return self._refuse(Code.GAP, text, now_ns)
        if message.epoch < tip.epoch:
            text = f"a batch of epoch {message.epoch} after one of {tip.epoch}"
            return self._refuse(Code.LOWER_EPOCH, text, now_ns)
        if message.epoch > welcome.epoch:
            text = f"a batch of epoch {message.epoch} from an upstream of {welcome.epoch}"
            return self._refuse(Code.MALFORMED, text, now_ns)
        if crc32(message.payload, tip.chain) != message.chain:
            text = f"the history at {message.first + message.count - 1} is another, or damaged"
            return self._refuse(Code.DIVERGED, text, now_ns)
        overrun = self._take(message)
        if overrun:
            return self._refuse(Code.MALFORMED, overrun, now_ns)
        last = message.first + message.count - 1
        self.tip = Mark(message.epoch, last, message.chain)
        self.upstream_newest = max(self.upstream_newest, last)
        self._appending.append((last, weight_of(message)))
        return [Append((message,)), *self._committed(message.committed)]

    def _heartbeat(self, message: Heartbeat, now_ns: int) -> list[Effect]:
        if message.stream != self._stream:
            text = f"{message.stream} messages were sent, {self._stream} came"
            return self._refuse(Code.GAP, text, now_ns)
        self.upstream_newest = max(self.upstream_newest, message.newest)
        positions = max(0, message.newest - self._durable)
        self.behind = Lag(positions, message.behind_bytes, message.behind_ms / 1000)
        effects: list[Effect] = []
        if self.state is State.STREAMING:
            if self._received >= message.newest:
                self._is_well()
            effects = [FollowTime(message.time_ms), *self._committed(message.committed)]
        return effects

    def _committed(self, committed: int) -> list[Effect]:
        if committed <= self.committed:
            return []
        self.committed = committed
        return [Committed(committed)]

    def _sync_begins(self, message: SnapshotBegin, now_ns: int) -> list[Effect]:
        welcome = self._welcome
        assert welcome is not None
        if message.mark.epoch > welcome.epoch:
            text = f"a snapshot of epoch {message.mark.epoch} under {welcome.epoch}"
            return self._refuse(Code.MALFORMED, text, now_ns)
        self._take(message)
        self._consumed += MESSAGE_OVERHEAD_BYTES
        self._sync = message
        self.state = State.SYNCING
        return [BeginInstall(welcome.store_id, welcome.epoch, message.mark, message.time_ms)]

    def _rows(self, message: Rows, now_ns: int) -> list[Effect]:
        if message.number != self._lists:
            text = f"rows {message.number} came, {self._lists} are due"
            return self._refuse(Code.GAP, text, now_ns)
        try:
            rows = _rows_of(message.payload)
        except ValueError as error:
            return self._refuse(Code.MALFORMED, str(error), now_ns)
        overrun = self._take(message)
        if overrun:
            return self._refuse(Code.MALFORMED, overrun, now_ns)
        self._lists += 1
        self._checksum = crc32(message.payload, self._checksum)
        self._appending.append((0, weight_of(message)))
        return [InstallRows(rows)]

    def _sync_ends(self, message: SnapshotEnd, now_ns: int) -> list[Effect]:
        if (message.lists, message.checksum) != (self._lists, self._checksum):
            return self._refuse(Code.GAP, "the rows are not those that were sent", now_ns)
        self._take(message)
        self.state = State.FINISHING
        return [FinishInstall()]

    def _take(self, message: Batches | Rows | SnapshotBegin | SnapshotEnd) -> str:
        """Count a message of the stream; says what is wrong where it passes the window (R7)."""
        weight = weight_of(message)
        waiting = self._taken - self._consumed
        self._stream += 1
        self._taken += weight
        if waiting and waiting + weight > self._options.window_bytes:
            return f"{waiting + weight} bytes were sent in a window of {self._options.window_bytes}"
        return ""

    def _settle(self, now_ns: int) -> list[Effect]:
        """Acknowledge what is applied and durable (R4)."""
        durable = min(self._synced, self._received)
        if durable <= self._durable:
            return []
        self._durable = durable
        return [self._ack(now_ns)]

    def _maybe_ack(self, now_ns: int) -> list[Effect]:
        waiting = self._consumed - self._acked_bytes
        full = self._taken - self._acked_bytes >= self._options.window_bytes // 2
        if waiting >= self._options.ack_bytes or (waiting and full):
            return [self._ack(now_ns)]
        return []

    def _ack(self, now_ns: int) -> Send:
        self._beat_ns = now_ns + self._options.heartbeat_ns
        self._acked_bytes = self._consumed
        return Send(Ack(self._received, self._durable, self._consumed))

    # -- private: the end --------------------------------------------------------------------------

    def _abort(self) -> list[Effect]:
        return [AbortInstall()] if self.state in (State.SYNCING, State.FINISHING) else []

    def _refuse(self, code: Code, text: str, now_ns: int) -> list[Effect]:
        """End the link and say why."""
        refusal = Send(Refusal(code, self._own.epoch, text))
        return [refusal, *self._end(f"{code.name}: {text}", now_ns, code)]

    def _end(self, why: str, now_ns: int, code: Code | None) -> list[Effect]:
        effects = [*self._abort(), Close(why)]
        self.state = State.WAITING
        self.trouble = why
        options = self._options
        doublings = min(max(0, self._tries - 1), 20)
        wait_ns = min(options.retry_max_ns, options.retry_ns << doublings)
        if code in _HOPELESS:
            wait_ns = options.retry_max_ns
        # Not all replicas of a primary that comes back at the same moment: up to a half sooner.
        spread = crc32(b"%d" % self.links, crc32(self._run_id)) % 1000
        self._retry_ns = now_ns + wait_ns - wait_ns * spread // 2000
        return effects


_BEATING: Final = frozenset(
    {State.PREPARING, State.STREAMING, State.EXPECTING, State.SYNCING, State.FINISHING}
)
_HANDLERS: Final[dict[tuple[State, type[Any]], Callable[..., list[Effect]]]] = {
    (State.GREETING, Challenge): Follower._challenged,
    (State.LOGIN, Compare): Follower._compares,
    (State.LOGIN, Welcome): Follower._welcomed,
    (State.STREAMING, Batches): Follower._batches,
    (State.EXPECTING, SnapshotBegin): Follower._sync_begins,
    (State.SYNCING, Rows): Follower._rows,
    (State.SYNCING, SnapshotEnd): Follower._sync_ends,
    **{(state, Heartbeat): Follower._heartbeat for state in _BEATING},
}


def _rows_of(payload: bytes) -> list[Row]:
    """The rows of a list. Raises ValueError: it is no batch of PUTs."""
    rows: list[Row] = []
    for kind, keyspace, key, value, deadline, type_ in decode(payload, 0, len(payload)):
        if kind != PUT or value is None:
            raise ValueError(f"a change of kind {kind} among rows")
        rows.append((keyspace, key, value, deadline, type_))
    return rows
