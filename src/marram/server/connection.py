"""One client connection: the order of its replies, back-pressure, and its limits.

Owns what leaves a connection and when; not the bytes of a protocol (resp.py, frames.py), and not
when a position is committed (commit.py).

N1  replies leave in the order of their requests, and none before its position is committed.
N2  what a client can make the server hold is bounded: while its output waits, for the socket or for
    a commit, its requests are not run; while they are not run, its socket is not read.
N3  a connection that closes by our decision first sends the replies it has.

Threading: the event loop's.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any, Final, cast

from marram.node.node import Node
from marram.node.session import Buffers, Session
from marram.node.settings import OutputLimit
from marram.server.commit import STILL_REPLICATING, Committer, Waiter
from marram.server.config import ServerConfig
from marram.server.logs import event

_logger = logging.getLogger("marram.server")

# Why a connection runs no requests. Reading is paused while any of them holds.
DEFERRED: Final = 1  # a reply will come later, and the next request must not overtake it
WRITES: Final = 2  # the socket does not take what we have
HELD: Final = 4  # enough replies wait for commits
TURN: Final = 8  # it had its share of this turn of the loop
CLOSING: Final = 16  # it will close once its replies are out

WRITE_HIGH_BYTES: Final = 256 << 10  # in the transport's buffer
HELD_HIGH_BYTES: Final = 1 << 20  # waiting for commits
OUT_HIGH_BYTES: Final = 256 << 10  # produced in one go
TURN_REQUESTS: Final = 1024  # run in one go
LOG_FAILED: Final = (
    "the log failed before this was known to be durable: it may or may not have happened"
)
CLOSE_GRACE_S: Final = 10  # for taking the last replies
_TICKS_A_SECOND: Final = 10
_ABSTRACT: Final = "every protocol has its own"
# What is sent without being joined first: so much in so few pieces that copying costs more.
_GATHER_BYTES: Final = 64 << 10
_GATHER_PIECES: Final = 8


class Clients:
    """What the connections of all listeners share: who is there, and the counters."""

    def __init__(
        self,
        node: Node,
        committer: Committer,
        config: ServerConfig,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.node = node
        self.committer = committer
        self.config = config
        self.loop = loop
        self.connections: set[Connection] = set()
        self.accepted = 0
        self.timed_out = 0
        self.cut_off = 0  # by output limits
        self.protocol_errors = 0
        self.closing = False  # the server is: nothing new is accepted
        self._round: list[Connection] = []  # who has not been looked at this second
        self._share = 0
        self._ticks = 0

    def tick(self) -> None:
        """Every 100 ms: look at a tenth of the connections, for timeouts and slow readers."""
        if self._ticks % _TICKS_A_SECOND == 0:
            self._round = list(self.connections)
            self._share = -(-len(self._round) // _TICKS_A_SECOND)
        self._ticks += 1
        due, self._round = self._round[: self._share], self._round[self._share :]
        for connection in due:
            connection.tick()  # a second after the last time


class Connection(Waiter):
    """What RESP and the framed protocol have in common. Subclasses parse, run and encode.

    An asyncio.Protocol by its methods; a compiled class cannot inherit from that one.
    """

    __slots__ = (
        "_age_s",
        "_clients",
        "_committer",
        "_eof",
        "_flushing",
        "_held",
        "_held_bytes",
        "_idle_s",
        "_node",
        "_out",
        "_out_bytes",
        "_out_position",
        "_queue",
        "_reading",
        "_slow_s",
        "_stalled",
        "_todo",
        "_traffic",
        "_transport",
        "session",
    )

    session: Session

    def __init__(self, clients: Clients) -> None:
        super().__init__()
        self._clients = clients
        self._node = clients.node
        self._committer = clients.committer
        self._queue = clients.committer.queue
        self._traffic = clients.node.traffic
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._stalled = 0
        self._reading = True
        self._eof = False
        self._todo: list[Any] = []  # requests parsed and not run, while stalled
        # Replies encoded, in pieces, and not yet sent or held: they share one write.
        self._out: list[bytes] = []
        self._out_bytes = 0  # of those that answer no request, ...
        self._out_position = 0  # ... and the position they wait for
        self._flushing = False  # a _flush_pushes() is scheduled
        # (position, bytes, replies in them), in order; `waits_at` is the first position.
        self._held: list[tuple[int, bytes, int]] = []
        self._held_bytes = 0
        self._age_s = 0
        self._idle_s = 0
        self._slow_s = 0

    # -- what subclasses do ------------------------------------------------------------------------

    def _run(self, requests: list[Any]) -> None:
        """Run requests in order, until the end or until stalled; the rest goes to _todo."""
        raise AssertionError(_ABSTRACT)

    def _in_doubt(self, replies: int, why: str = LOG_FAILED) -> bytes:
        """The bytes of that many errors saying that a write's outcome is unknown."""
        raise AssertionError(_ABSTRACT)

    def _too_many(self) -> bytes:
        """The bytes of the refusal by maxclients."""
        raise AssertionError(_ABSTRACT)

    def _push(self, reply: Any, position: int) -> None:
        """Encode a reply nobody asked for now, and _queue_push() it."""
        raise AssertionError(_ABSTRACT)

    def _limits(self) -> OutputLimit:
        """When unread output cuts the client off."""
        return self._node.settings.normal_output

    # -- asyncio.Protocol ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came; it may be one too many."""
        self._transport = cast(asyncio.Transport, transport)
        clients = self._clients
        clients.accepted += 1
        if len(clients.connections) >= self._node.settings.maxclients or clients.closing:
            self._traffic.rejected_connections += 1
            self._stalled = CLOSING
            self._transport.write(self._too_many())
            self._transport.close()
            return
        clients.connections.add(self)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        _keep_alive(self._transport, self._node.settings.tcp_keepalive_s)
        self.session = self._node.open_session(
            _address(self._transport, "peername"),
            _address(self._transport, "sockname"),
            self._push,
            self.close_when_sent,
        )
        self.session.buffers = self._buffers

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over, whoever ended it."""
        clients = self._clients
        if self in clients.connections:
            clients.connections.discard(self)
            self._node.close_session(self.session)
        self._stalled |= CLOSING
        self._todo = []
        self._held.clear()
        self._out.clear()

    def eof_received(self) -> bool:
        """The client sends no more; it still gets its replies."""
        self._eof = True
        self._close_if_done()
        return True

    def pause_writing(self) -> None:
        """The transport's buffer is full: the client reads slower than it asks."""
        self._stall(WRITES)

    def resume_writing(self) -> None:
        """The client caught up."""
        self._resume(WRITES)

    # -- replies -----------------------------------------------------------------------------------

    def release(self, committed: int) -> None:
        """Send what was held up to `committed` (the committer calls this)."""
        held = self._held
        first = held[0] if len(held) == 1 else None
        if first is not None and first[0] <= committed:  # HOT: as where nothing is pipelined
            data = first[1]
            held.clear()
            self._held_bytes -= len(data)
            self._write(data)
        else:
            self._write_held(committed)
        if held:
            self.waits_at = held[0][0]
            self._committer.hold(self)
        if self._stalled & HELD and self._held_bytes <= HELD_HIGH_BYTES // 2:
            self._resume(HELD)
        if self._eof or self._stalled & CLOSING:
            self._close_if_done()

    def _write_held(self, committed: int) -> None:
        held = self._held
        parts = []
        for position, data, _ in held:
            if position > committed:
                break
            self._held_bytes -= len(data)
            parts.append(data)
        if parts:
            del held[: len(parts)]
            self._write(parts[0] if len(parts) == 1 else b"".join(parts))

    def fail(self) -> None:
        """Nothing held will ever be committed: the outcome of each is unknown."""
        parts = [
            data if position <= self._queue.committed else self._in_doubt(replies)
            for position, data, replies in self._held
        ]
        self._held.clear()
        self._held_bytes = 0
        self._write(b"".join(parts))
        self._resume(HELD)
        self._close_if_done()

    def give_up(self, first: int, last: int) -> None:
        """What was held for a position of [first, last] is in doubt; it keeps its place."""
        committed = self._queue.committed
        for at, (position, data, replies) in enumerate(self._held):
            if max(first, committed + 1) <= position <= last:
                doubt = self._in_doubt(replies, STILL_REPLICATING)
                self._held[at] = (0, doubt, replies)
                self._held_bytes += len(doubt) - len(data)
        self.release(committed)

    def take_over(self) -> tuple[asyncio.Transport, str]:
        """Give the connection away, with its peer's address: it is no client's any more."""
        self._clients.connections.discard(self)
        self._node.close_session(self.session)
        self._stalled |= CLOSING
        self._todo = []
        return self._transport, self.session.address

    def finish(self) -> None:
        """The server is closing: end once what runs has been answered."""
        if not self._stalled & DEFERRED:  # else when its reply comes
            self.close_when_sent()

    def close_when_sent(self) -> None:
        """Take no more requests; close once the replies are out (N3)."""
        self._todo = []
        self._stall(CLOSING)
        if not self._flushing:  # what runs now may still produce the last reply
            self._flushing = True
            self._clients.loop.call_soon(self._flush_pushes)

    def abort(self, reason: str) -> None:
        """Close at once, dropping what was not sent."""
        if not self._transport.is_closing():
            event(
                _logger, logging.WARNING, "client cut off",
                reason=reason, client=_address(self._transport, "peername"),
            )  # fmt: skip
        self._stalled |= CLOSING
        self._todo = []
        self._transport.abort()

    def unsent_bytes(self) -> int:
        """Output the client has not been sent, bytes."""
        return self._out_bytes + self._held_bytes + self._transport.get_write_buffer_size()

    def tick(self) -> None:
        """Every second: the timeouts, and the soft output limit."""
        config = self._clients.config
        self._age_s += 1
        self._idle_s += 1
        timeout_s = self._idle_limit_s()
        if self._stalled & CLOSING:
            self._slow_s += 1
            if self._slow_s > CLOSE_GRACE_S:
                self.abort("it did not take its last replies")
        elif not self.session.authenticated and 0 < config.handshake_timeout_s < self._age_s:
            self._clients.timed_out += 1
            self.abort("it did not authenticate in time")
        elif 0 < timeout_s < self._idle_s:
            self._clients.timed_out += 1
            self.close_when_sent()
        else:
            self._check_output()

    # -- private -----------------------------------------------------------------------------------

    def _flush(self, waits: int = 0, size: int = 0, replies: int = 0) -> None:
        """Send what was produced, or hold it until `waits` and its pushes may be told (N1).

        size, replies: of the requests' replies in it, bytes and how many; pushes do not count.
        """
        out = self._out
        if not out:
            return
        if self._out_bytes:
            waits = max(waits, self._out_position)
        if waits > self._queue.committed or self._held:
            self._hold(waits, b"".join(out), replies)
        elif size >= _GATHER_BYTES and len(out) <= _GATHER_PIECES:
            self._traffic.sent_bytes += size + self._out_bytes
            self._transport.writelines(out)  # a large value is not copied
        else:
            data = out[0] if len(out) == 1 else b"".join(out)
            self._traffic.sent_bytes += len(data)
            self._transport.write(data)
        out.clear()
        if self._out_bytes:
            self._out_bytes = self._out_position = 0

    def _write(self, data: bytes) -> None:
        self._traffic.sent_bytes += len(data)
        self._transport.write(data)

    def _hold(self, position: int, data: bytes, replies: int) -> None:
        held = self._held
        held.append((position, data, replies))
        self._held_bytes += len(data)
        if len(held) == 1:
            self.waits_at = position
            self._committer.hold(self)
        if self._held_bytes > HELD_HIGH_BYTES:
            self._stall(HELD)

    def _queue_push(self, data: bytes, position: int) -> None:
        """Something that no request of this client asked for now; in order with its replies."""
        if self._transport.is_closing():
            return
        self._out.append(data)
        self._out_bytes += len(data)
        self._out_position = max(self._out_position, position)
        if not self._flushing:
            self._flushing = True
            self._clients.loop.call_soon(self._flush_pushes)
        if 0 < self._limits().hard_bytes < self.unsent_bytes():
            self._cut_off()

    def _flush_pushes(self) -> None:
        self._flushing = False
        self._flush()
        self._close_if_done()

    def _stall(self, reason: int) -> None:
        self._stalled |= reason
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _resume(self, reason: int) -> None:
        """End one reason; with the last, go on where the requests were left."""
        if not self._stalled & reason:
            return
        self._stalled &= ~reason
        if self._stalled:
            return
        todo, self._todo = self._todo, []
        self._go_on(todo)
        if not self._stalled and not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def _go_on(self, todo: list[Any]) -> None:
        """Run what was left; subclasses look at their parser's state as well."""
        self._run(todo)
        self._close_if_done()

    def _deferred_over(self) -> None:
        """The reply that was late is there: go on, unless the server is closing."""
        if self._clients.closing:
            self.close_when_sent()
        self._resume(DEFERRED)

    def _end_turn(self, rest: list[Any]) -> None:
        """It had its share: the rest in the next turn of the loop."""
        self._todo = rest
        self._stall(TURN)
        self._clients.loop.call_soon(self._resume, TURN)

    def _close_if_done(self) -> None:
        """Close where that was decided, or the client has left, and all replies are out."""
        if self._held or self._out or self._todo or self._transport.is_closing():
            return
        if self._stalled & CLOSING or (self._eof and not self._stalled):
            self._transport.close()

    def _idle_limit_s(self) -> int:
        """Seconds of silence after which to close; 0 for never."""
        return int(self._node.settings.timeout_s)

    def _check_output(self) -> None:
        hard, soft, soft_s = self._limits()
        unsent = self.unsent_bytes()
        self._slow_s = self._slow_s + 1 if 0 < soft < unsent else 0
        if 0 < hard < unsent or (soft > 0 and self._slow_s > soft_s):
            self._cut_off()

    def _cut_off(self) -> None:
        self._clients.cut_off += 1
        self.abort("its unread output passed the limit")

    def _unparsed_bytes(self) -> int:
        """Bytes of an incomplete request."""
        raise AssertionError(_ABSTRACT)

    def _buffers(self) -> Buffers:
        return Buffers(self._unparsed_bytes(), self.unsent_bytes())


def _keep_alive(transport: asyncio.Transport, seconds: int) -> None:
    """Have the system probe a silent peer, so that one that vanished is noticed."""
    sock = transport.get_extra_info("socket")
    if seconds and sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 3))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def _address(transport: asyncio.BaseTransport, which: str) -> str:
    """ "127.0.0.1:7379" or "[::1]:7379"; "?:0" where the peer is gone already."""
    name = transport.get_extra_info(which)
    if not isinstance(name, tuple):
        return "?:0"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


Factory = Callable[[], Connection]
"""What a listener makes its connections with."""
