"""The connection to the upstream, at the replica: what the Follower asks for, done to the store.

Owns the bytes of the greeting, the order of what may block, and back-pressure; when to connect,
what to append and what to refuse is Follower's to say (marram.replication.replica).

V1  jobs of a link that was closed are left undone, or end before the next one is connected.
V2  while the engine or the disk cannot keep up, the connection is not read: what waits here is
    bounded by the replica's window, and what waits for the disk by UNWRITTEN_BYTES and a message.
V3  batches are applied on the node's thread, so that commands see all of a batch or nothing; syncs
    of what came meanwhile are shared.

Threading: the thread that owns the node; jobs in the uplink's Work.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from marram.errors import Error, ProtocolError, StoreFailed, StoreFull
from marram.node.passwords import digest_of
from marram.node.replication.wire import Wire
from marram.node.replication.work import Work
from marram.protocol.frames import FrameReplyParser, Op, Status, encode_request
from marram.replication import effects as fx
from marram.replication.codec import (
    Decoder,
    encode,
    encode_hello,
    refusal_of,
)
from marram.replication.messages import (
    GREETING_FRAME_BYTES,
    NO_STORE,
    Batches,
    Code,
    FromUpstream,
    Hello,
    Mark,
)
from marram.replication.replica import Follower, FollowerOptions, Own, State
from marram.storage.engine import Origin
from marram.storage.frames import changes_of
from marram.storage.install import Installation
from marram.storage.log.tail import Frame

if TYPE_CHECKING:
    from marram.node.replication.role import Replication

_logger = logging.getLogger("marram.node")

UNWRITTEN_BYTES: Final = 32 << 20
"""How much may be applied and not yet be on its way to the disk: acknowledging what is applied lets
the upstream go on, and it reads faster than a slow disk writes.
"""
_STALL_LOOK_S: Final = 0.01
_SHOWN: Final = 60  # bytes of a strange answer


class Uplink:
    """The link to one upstream, renewed whenever it breaks, until stop()."""

    def __init__(
        self,
        part: Replication,
        host: str,
        port: int,
        options: FollowerOptions,
        password: bytes,
        committed: int,
    ) -> None:
        """committed: up to where the history here is known to be; 0 for nothing."""
        self.host = host
        self.port = port
        self._part = part
        self._node = part.node
        self._store = part.node.store
        self._now = part.node.env.monotonic_ns
        self._password = password
        self.follower = Follower(
            part.node_id, part.run_id, options,
            has_password=bool(password), address=part.address, committed=committed,
        )  # fmt: skip
        self.link = 0
        """Which of its links it is on; a connection that was begun for another is of no use."""
        self._wire: Wire | None = None
        self._work = Work(part.node.env, part.node.loop, "marram-follow")
        self._greeting: FrameReplyParser | None = None  # of the answer, until it is there
        self._decoder = Decoder(GREETING_FRAME_BYTES)
        self._out: list[bytes] = []
        self._installation: Installation | None = None
        self._sync_mark = Mark(0, 0, 0)
        self._waiting: deque[Any] = deque()  # messages that came during a stall (V2)
        self._told_trouble = ""

    @property
    def upstream(self) -> str:
        """ "host:port"."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_streaming(self) -> bool:
        """Whether batches come as the upstream writes them."""
        return self.follower.state is State.STREAMING

    def lag_seconds(self) -> float:
        """The age of the oldest batch that is missing here, about; 0.0 where none is known of."""
        follower = self.follower
        if follower.upstream_newest <= self._store.commit.durable:
            return 0.0
        unheard_s = max(0, self._now() - follower.heard_ns) / 1e9
        return round(follower.behind.seconds + unheard_s, 3)

    # -- a life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, now and whenever it is time again."""
        self.do(self.follower.start(self._now()))

    def stop(self, then: Callable[[], None]) -> None:
        """Follow no longer; then() once nothing of it runs any more."""
        self.do(self.follower.stop())
        self._work.do(lambda: None, lambda _: then())

    def tick(self, now_ns: int) -> None:
        """Time passed."""
        if self._waiting:
            self.follower.heard_ns = now_ns  # it is us who do not listen
        due_ns = self.follower.deadline_ns
        if due_ns is not None and due_ns <= now_ns:
            self.do(self.follower.tick(now_ns))

    def connected(self, link: int, wire: Wire) -> bool:
        """The shell has a connection for that link; False: it came too late."""
        if link != self.link or self.follower.state is not State.CONNECTING:
            return False
        self._wire = wire
        self._greeting = FrameReplyParser(GREETING_FRAME_BYTES)
        self._decoder = Decoder(GREETING_FRAME_BYTES)
        nonce = self._node.env.random_bytes(16)
        self.do(self.follower.connected(self._own(), nonce, self._now()))
        return True

    def lost(self, link: int, why: str) -> None:
        """There is no connection, or no longer."""
        if link == self.link:
            self.do(self.follower.lost(why, self._now()))

    def received(self, link: int, data: bytes) -> None:
        """Bytes of the upstream's."""
        if link != self.link:
            return
        if self._greeting is not None:
            messages = self._greeted(self._greeting, data)
        else:
            messages = self._decoder.feed(data)
        for at, message in enumerate(messages):
            if self._waiting or self._must_wait():
                self._stall(messages[at:])
                return
            self.do(self.follower.receive(cast(FromUpstream, message), self._now()))
            if link != self.link:
                return
        self._decoder.max_frame_bytes = self.follower.frame_limit_bytes
        self._check_decoder()

    def synced(self) -> None:
        """More is durable here."""
        if self.follower.state is State.STREAMING:
            self.do(self.follower.synced(self._store.commit.durable, self._now()))

    # -- the greeting ------------------------------------------------------------------------------

    def _greeted(self, parser: FrameReplyParser, data: bytes) -> list[Any]:
        """The answer to the request: the messages in it; none while it is not whole."""
        now_ns = self._now()
        try:
            replies = parser.feed(data)
            if parser.error is not None or len(replies) > 1:
                raise ProtocolError("more than one answer")
        except ProtocolError:
            why = f"{self.upstream} is no frame port of a marram server: it sent {data[:_SHOWN]!r}"
            self.do(self.follower.not_marram(why, now_ns))
            return []
        if not replies:
            return []
        self._greeting = None
        if replies[0].status is Status.OK:
            return self._decoder.feed(replies[0].payload)
        text = replies[0].message
        refusal = refusal_of(text)
        if refusal is not None:
            return [refusal]
        self.do(self.follower.not_marram(f"{self.upstream} answered: {text}", now_ns))
        return []

    def _check_decoder(self) -> None:
        error = self._decoder.error
        if error is not None:
            code = Code.TOO_LARGE if self._decoder.too_large else Code.MALFORMED
            self.do(self.follower.malformed(code, error, self._now()))

    # -- back-pressure -----------------------------------------------------------------------------

    def _must_wait(self) -> bool:
        """Whether engine or disk take nothing now; it is asked before each message."""
        store = self._store
        return self.is_streaming and (
            store.commit.pending_bytes > UNWRITTEN_BYTES or store.engine.throttle() >= 1.0
        )

    def _stall(self, messages: list[Any]) -> None:
        was_waiting = bool(self._waiting)
        self._waiting += messages
        if not was_waiting:
            if self._wire is not None:
                self._wire.pause()
            link = self.link
            self._node.loop.call_later(_STALL_LOOK_S, lambda: self._look(link))

    def _look(self, link: int) -> None:
        """Go on with what waits, where the stall is over."""
        while self._waiting and link == self.link and not self._must_wait():
            self.do(self.follower.receive(self._waiting.popleft(), self._now()))
        if link != self.link:
            return
        if self._waiting:
            self._node.loop.call_later(_STALL_LOOK_S, lambda: self._look(link))
            return
        if self._wire is not None:
            self._wire.resume()
        self._check_decoder()

    # -- effects -----------------------------------------------------------------------------------

    def do(self, todo: list[fx.Effect]) -> None:
        """Do what the machine asks, in order; what leaves in one go, leaves in one write."""
        for effect in todo:
            if effect.__class__ is fx.Send:
                message = effect.message
                if isinstance(message, Hello):
                    value = encode_hello(message)
                    self._out.append(encode_request(Op.REPLICATE, b"", value))
                else:
                    self._out += encode(message)
            else:
                self._flush()
                _STEPS[effect.__class__](self, effect)
        self._flush()

    def _flush(self) -> None:
        if self._out:
            if self._wire is not None:
                self._wire.write(b"".join(self._out))
            self._out.clear()

    def _report(
        self,
        job: Callable[[], Any],
        then: Callable[[Any], list[fx.Effect]],
        always: Callable[[Any], None] | None = None,
    ) -> None:
        """Do a job elsewhere and tell the machine of its outcome, unless the link is over (V1).

        always: is told of what was done, also where the link ended meanwhile.
        """
        link = self.link

        def run() -> tuple[bool, Any]:
            return (True, job()) if link == self.link else (False, None)

        def told(outcome: Any) -> None:
            if isinstance(outcome, Exception):
                if link == self.link:
                    self._failed(outcome)
                return
            was_done, value = outcome
            if was_done and always is not None:
                always(value)
            if was_done and link == self.link:
                self.do(then(value))

        self._work.do(run, told)

    def _failed(self, error: Exception) -> None:
        """What was asked for could not be done."""
        hopeless = isinstance(error, StoreFull | StoreFailed | OSError)
        text = str(error) or type(error).__name__
        self.do(self.follower.failed(text, self._now(), is_hopeless=hopeless))

    # -- effects: the connection -------------------------------------------------------------------

    def _connect(self, effect: fx.Connect) -> None:
        link = self.link
        store = self._store

        def told(outcome: Any) -> None:
            if link != self.link:
                return
            if isinstance(outcome, Exception):
                self._failed(outcome)
                if self.follower.state is State.CONNECTING:  # it has no link to fail yet
                    self.do(self.follower.lost(str(outcome), self._now()))
            else:
                self._part.shell.connect(self.host, self.port, self)

        # After what an earlier link left (V1), and once all it appended is durable.
        self._work.do(lambda: store.wait_durable(store.last), told)

    def _own(self) -> Own:
        store = self._store
        store_id = store.store_id if store.last else NO_STORE
        return Own(store_id, store.epoch, Mark(*store.history.newest()), store.history.oldest)

    def _close(self, effect: fx.Close) -> None:
        self.link += 1
        self._waiting.clear()
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
        if effect.why != self._told_trouble and self.follower.state is not State.STOPPED:
            self._told_trouble = effect.why
            _logger.warning("replication from %s: %s", self.upstream, effect.why)

    def _derive(self, effect: fx.Derive) -> None:
        password, parameters = self._password, effect.parameters
        self._report(
            lambda: digest_of(password, parameters),
            lambda digest: self.follower.derived(digest, self._now()),
        )

    def _find_marks(self, effect: fx.FindMarks) -> None:
        history = self._store.history

        def find() -> list[Mark | None]:
            found = (history.mark(sequence) for sequence in effect.sequences)
            return [None if mark is None else Mark(*mark) for mark in found]

        self._report(find, lambda marks: self.follower.found(marks, self._now()))

    # -- effects: the stream -----------------------------------------------------------------------

    def _raise_epoch(self, effect: fx.RaiseEpoch) -> None:
        self._report(
            lambda: self._store.raise_epoch(effect.epoch),
            lambda _: self.follower.epoch_raised(effect.epoch, self._now()),
            lambda _: self._part.epoch_changed(),
        )

    def _set_aside(self, effect: fx.SetAside) -> None:
        self._report(
            lambda: self._store.set_aside(effect.after),
            lambda _: self.follower.was_set_aside(effect.after, self._now()),
            self._part.note_set_aside,
        )

    def _append(self, effect: fx.Append) -> None:
        # HOT: all that is replicated. One call of the store a message, whatever is in it (V3).
        store, watched = self._store, self._node.transactions.watches
        try:
            for batches in effect.batches:
                frame = Frame(
                    batches.first, batches.count, batches.epoch, batches.time_ms, batches.payload,
                    batches.chain,
                )  # fmt: skip
                if watched.by_key:
                    self._touch(frame)
                store.append_frame(frame)
                self._received_frame(batches)
        except (ValueError, Error, OSError) as error:
            self._failed(error)
            return
        self._part.shell.appended()
        self.do(self.follower.appended(store.last, self._now()))

    def _received_frame(self, batches: Batches) -> None:
        self._part.received_bytes += len(batches.payload)
        self._part.received_batches += batches.count
        if self._told_trouble:
            self._told_trouble = ""
            _logger.info("replication from %s goes on", self.upstream)

    def _touch(self, frame: Frame) -> None:
        """Spoil the transactions that watch what the frame changes."""
        node = self._node
        spaces = node.store.engine.spaces
        for session in node.transactions.watches.touched_by(changes_of(frame), spaces, node.now_ms):
            session.touched = True

    def _committed(self, effect: fx.Committed) -> None:
        self._part.committed_upstream(effect.sequence)

    def _follow_time(self, effect: fx.FollowTime) -> None:
        self._store.clock.hear(effect.time_ms)

    # -- effects: a full sync ----------------------------------------------------------------------

    def _begin_install(self, effect: fx.BeginInstall) -> None:
        mark = self._sync_mark = effect.mark
        origin = Origin(effect.store_id, mark.epoch, mark.sequence, effect.time_ms, mark.chain)
        _logger.info("a full copy of %s begins, as of position %s", self.upstream, mark.sequence)

        def begin() -> None:
            self._installation = self._store.install(origin, effect.epoch, is_committed=False)

        self._report(begin, lambda _: [])

    def _install_rows(self, effect: fx.InstallRows) -> None:
        def add() -> None:
            assert self._installation is not None, "begin() failed, which ended the link"
            self._installation.add(list(effect.rows))

        self._report(add, lambda _: self.follower.rows_added(self._now()))

    def _finish_install(self, effect: fx.FinishInstall) -> None:
        mark = self._sync_mark

        def finish() -> None:
            assert self._installation is not None
            self._installation.finish()
            self._installation = None

        self._report(
            finish,
            lambda _: self.follower.installed(self._now()),
            lambda _: self._part.installed(mark),
        )

    def _abort_install(self, effect: fx.AbortInstall) -> None:
        def abort() -> None:
            installation, self._installation = self._installation, None
            if installation is not None:
                installation.abort()

        self._work.do(abort, lambda _: None)


_STEPS: Final[dict[type[Any], Callable[[Uplink, Any], None]]] = {
    fx.Connect: Uplink._connect,
    fx.Close: Uplink._close,
    fx.Derive: Uplink._derive,
    fx.FindMarks: Uplink._find_marks,
    fx.RaiseEpoch: Uplink._raise_epoch,
    fx.SetAside: Uplink._set_aside,
    fx.Append: Uplink._append,
    fx.Committed: Uplink._committed,
    fx.FollowTime: Uplink._follow_time,
    fx.BeginInstall: Uplink._begin_install,
    fx.InstallRows: Uplink._install_rows,
    fx.FinishInstall: Uplink._finish_install,
    fx.AbortInstall: Uplink._abort_install,
}
