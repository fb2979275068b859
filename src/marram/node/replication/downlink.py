"""A replica's connection, on its upstream: what the Feed asks for, done to the store.

Owns the link's tail, pin and hold on the log, and which reading happens where; when what is sent is
Feed's to say (marram.replication.primary).

D1  the live end of the log is read on the node's thread: it was written a moment ago, so reading it
    costs less than a thread's wake-up. Everything older, and every row, is read by the link's
    worker.
D2  whatever ends the link lets go of all it held.

Threading: the thread that owns the node; jobs in the link's Work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from marram.errors import Error, LogGone
from marram.node.replication.wire import Wire
from marram.node.replication.work import Work
from marram.protocol.frames import encode_error, encode_ok
from marram.replication import effects as fx
from marram.replication.codec import Decoder, encode, refusal_line
from marram.replication.lag import Lag
from marram.replication.messages import GREETING_FRAME_BYTES, Code, Hello, Mark, Refusal
from marram.replication.primary import Feed, Phase
from marram.storage.engine import Pin
from marram.storage.history import LogTail

if TYPE_CHECKING:
    from marram.node.replication.role import Replication

LIVE_BYTES: Final = 1 << 20
"""How far behind the end the log is still read on the node's thread (D1)."""

_STATES: Final = {
    Phase.SNAPSHOT: "send_bulk",
    Phase.SWITCHING: "send_bulk",
    Phase.OPENING: "wait_bgsave",
    Phase.TAIL: "online",
}


class Downlink:
    """One replica."""

    def __init__(self, part: Replication, wire: Wire, feed: Feed, name: str, peer: str) -> None:
        """name: of its hold on the log; peer: "host:port" of its end of the connection."""
        self.feed = feed
        self.name = name
        self.peer = peer
        self.since_ms = part.node.now_ms
        self.full_syncs = 0
        self._part = part
        self._wire = wire
        self._store = part.node.store
        self._now = part.node.env.monotonic_ns
        self._decoder = Decoder(GREETING_FRAME_BYTES)
        self._work = Work(part.node.env, part.node.loop, "marram-feed")
        self._out: list[bytes] = []
        self._is_answered = False
        self._tail: LogTail | None = None
        self._pin: Pin | None = None
        self._rows: Iterator[list[fx.Row]] = iter(())

    @property
    def is_open(self) -> bool:
        """Whether the link lives."""
        return self.feed.phase is not Phase.CLOSED

    @property
    def state(self) -> str:
        """How far the link is, in Redis's words."""
        return _STATES.get(self.feed.phase, "handshake")

    def lag(self) -> Lag:
        """How far the replica is behind, by what it has on disk."""
        return self.feed.lag(self._now())

    # -- what comes in -----------------------------------------------------------------------------

    def hello(self, hello: Hello) -> None:
        """The request that made the connection a link."""
        self.do(self.feed.hello(hello, self._part.node.env.random_bytes(16), self._now()))

    def received(self, data: bytes) -> None:
        """Bytes of the replica's."""
        for message in self._decoder.feed(data):
            if not self.is_open:
                return
            self.do(self.feed.receive(message, self._now()))  # type: ignore[arg-type]
        if self._decoder.error is not None:
            code = Code.TOO_LARGE if self._decoder.too_large else Code.MALFORMED
            self.stop(code, self._decoder.error)

    def lost(self) -> None:
        """The connection is gone."""
        self.do(self.feed.lost())

    def advanced(self) -> None:
        """More is durable, or committed."""
        self.do(self.feed.advanced(self._part.standing(), self._now()))

    def tick(self, now_ns: int) -> None:
        """Time passed."""
        if self.feed.deadline_ns <= now_ns:
            self.do(self.feed.tick(self._part.standing(), now_ns))

    def stop(self, code: Code, text: str) -> None:
        """End the link from this side."""
        self.do(self.feed.stop(code, text))

    # -- effects -----------------------------------------------------------------------------------

    def do(self, todo: list[fx.Effect]) -> None:
        """Do what the machine asks, in order; what leaves in one go, leaves in one write."""
        for effect in todo:
            if effect.__class__ is fx.Send:
                self._send(effect.message)
            else:
                self._flush()
                _STEPS[effect.__class__](self, effect)
        self._flush()

    def _send(self, message: Any) -> None:
        if self._is_answered:
            self._out += encode(message)
            return
        self._is_answered = True  # the first message answers the request
        if isinstance(message, Refusal):
            self._out.append(encode_error(refusal_line(message)))
        else:
            self._out.append(encode_ok(b"".join(encode(message))))

    def _flush(self) -> None:
        if self._out:
            self._wire.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
            self._out.clear()

    def _report(self, job: Callable[[], Any], then: Callable[[Any], list[fx.Effect]]) -> None:
        """Do a job elsewhere and tell the machine of its outcome, if the link still lives."""

        def told(outcome: Any) -> None:
            if not self.is_open:
                return
            if isinstance(outcome, LogGone):
                self.do(self.feed.log_gone())
            elif isinstance(outcome, Exception):
                self._part.note_trouble(self, outcome)
                self.do(self.feed.failed(str(outcome) or type(outcome).__name__))
            else:
                self.do(then(outcome))

        self._work.do(job, told)

    def _close(self, effect: fx.Close) -> None:
        """D2."""
        self._release(None)
        tail, self._tail = self._tail, None
        if tail is not None:
            self._work.do(tail.close, lambda _: None)  # after a reading that is under way
        self._store.history.unhold(self.name)
        self._wire.close()
        self._part.gone(self, effect.why)

    def _find_marks(self, effect: fx.FindMarks) -> None:
        history = self._store.history

        def find() -> tuple[list[Mark | None], Mark, Mark]:
            marks = [_mark(history.mark(sequence)) for sequence in effect.sequences]
            # The log may be cut between the two; then what is oldest has to be asked again.
            while (oldest := _mark(history.mark(history.oldest))) is None:
                pass
            newest = _mark(history.newest())
            assert newest is not None
            return marks, oldest, newest

        self._report(find, lambda found: self.feed.found(found[0], found[1], found[2], self._now()))

    def _admit(self, effect: fx.Admit) -> None:
        self._part.admit(self)

    def _hold(self, effect: fx.Hold) -> None:
        self._store.history.hold(self.name, effect.after)

    def _acked(self, effect: fx.Acked) -> None:
        self._part.acked(self, effect.received, effect.durable)

    def _open_tail(self, effect: fx.OpenTail) -> None:
        def opened(tail: LogTail) -> list[fx.Effect]:
            self._tail = tail
            return self.feed.tail_opened(self._part.standing(), self._now())

        history = self._store.history
        self._report(lambda: history.tail(effect.after), opened)

    def _read_tail(self, effect: fx.ReadTail) -> None:
        tail = self._tail
        assert tail is not None
        if self._part.behind_bytes(self.feed.sent.sequence) > LIVE_BYTES:  # D1
            self._report(
                lambda: tail.read(effect.max_bytes),
                lambda frames: self.feed.frames(frames, self._part.standing(), self._now()),
            )
            return
        try:
            frames = tail.read(effect.max_bytes)
        except LogGone:
            self.do(self.feed.log_gone())
        except (Error, OSError) as error:
            self._part.note_trouble(self, error)
            self.do(self.feed.failed(str(error)))
        else:
            self.do(self.feed.frames(frames, self._part.standing(), self._now()))

    def _pin_state(self, effect: fx.PinState) -> None:
        store = self._store

        def pinned(found: tuple[Pin, Any]) -> list[fx.Effect]:
            self._pin, mark = found
            self._rows = store.rows(self._pin, 0)
            self.full_syncs += 1
            self._part.full_syncs += 1
            about = sum(space.about() for space in store.engine.spaces)
            own = Mark(*mark)
            return self.feed.pinned(own, about, self._part.standing(), self._now())

        def unused(outcome: Any) -> None:
            if not isinstance(outcome, Exception):
                store.release(outcome[0])

        def told(outcome: Any) -> None:
            # A pin that comes too late for its link must not stay.
            if self.is_open and not isinstance(outcome, Exception):
                self.do(pinned(outcome))
            else:
                unused(outcome)
                if self.is_open:
                    self.do(self.feed.failed(str(outcome)))

        self._work.do(store.marked_snapshot, told)

    def _read_rows(self, effect: fx.ReadRows) -> None:
        def read() -> list[fx.Row]:
            rows: list[fx.Row] = []
            size = 0
            while size < effect.max_bytes:
                more = next(self._rows, None)
                if more is None:
                    break
                rows += more
                size += sum(len(row[1]) + len(row[2]) for row in more)
            return rows

        self._report(read, lambda rows: self.feed.rows(rows, self._now()))

    def _release(self, effect: fx.ReleaseState | None) -> None:
        pin, self._pin = self._pin, None
        if pin is not None:
            # After a reading of it that is under way.
            self._work.do(partial(self._store.release, pin), lambda _: None)
        self._rows = iter(())

    def _higher_epoch(self, effect: fx.HigherEpoch) -> None:
        self._part.hears_epoch(effect.epoch)


def _mark(found: Any) -> Mark | None:
    """A mark of the store's history as the machines have it."""
    return None if found is None else Mark(*found)


_STEPS: Final[dict[type[Any], Callable[[Downlink, Any], None]]] = {
    fx.Close: Downlink._close,
    fx.FindMarks: Downlink._find_marks,
    fx.Admit: Downlink._admit,
    fx.Hold: Downlink._hold,
    fx.Acked: Downlink._acked,
    fx.OpenTail: Downlink._open_tail,
    fx.ReadTail: Downlink._read_tail,
    fx.PinState: Downlink._pin_state,
    fx.ReadRows: Downlink._read_rows,
    fx.ReleaseState: Downlink._release,
    fx.HigherEpoch: Downlink._higher_epoch,
}
