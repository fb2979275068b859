"""The framed protocol on a connection: the same node, the same order and limits as RESP.

Owns which command an op stands for and how its reply becomes a frame; not the framing
(marram.protocol.frames), not when replies leave (connection.py).

A Ping with a key logs in: the key is the password. The protocol has no op of its own for that, and
without one a server with a password could not be used through it (docs/protocols/frames.md).

Threading: the event loop's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from marram.node.deferred import Deferred
from marram.protocol.frames import (
    FrameParser,
    FrameRequest,
    Op,
    encode_error,
    encode_not_found,
    encode_ok,
)
from marram.protocol.replies import ErrorReply, Simple
from marram.server.connection import (
    CLOSING,
    DEFERRED,
    LOG_FAILED,
    OUT_HIGH_BYTES,
    TURN_REQUESTS,
    Clients,
    Connection,
)
from marram.server.replication import ReplicaLink

TOO_MANY: Final = encode_error("ERR max number of clients reached")
NOT_FIRST: Final = encode_error(
    "ERR Replicate has to be the first request of its connection, and nothing may follow it before "
    "it is answered"
)
_BEFORE_LOGIN_BYTES: Final = 16 << 10
_OK: Final = encode_ok()


class FrameConnection(Connection):
    """One client that speaks the framed protocol. stats: what op Stats answers, plain values."""

    __slots__ = ("_has_asked", "_max_frame_bytes", "_parser", "_stats")

    def __init__(
        self, clients: Clients, max_frame_bytes: int, stats: Callable[[], dict[str, Any]]
    ) -> None:
        super().__init__(clients)
        self._parser = FrameParser(max_frame_bytes)
        self._max_frame_bytes = max_frame_bytes
        self._has_asked = False
        self._stats = stats

    def connection_made(self, transport: Any) -> None:
        """A client came."""
        super().connection_made(transport)
        if not self._stalled & CLOSING:
            self._set_frame_limit()

    def data_received(self, data: bytes) -> None:
        """Bytes of requests; run those that are whole."""
        self._idle_s = 0
        self._traffic.received_bytes += len(data)
        requests = self._parser.feed(data)
        if requests and requests[0].op is Op.REPLICATE and self._may_replicate(requests):
            transport, peer = self.take_over()
            link = ReplicaLink(self._clients.loop, self._node)
            link.begin(transport, requests[0].value, peer)
            return
        self._has_asked = self._has_asked or bool(requests)
        if self._stalled:
            if not self._stalled & CLOSING:
                self._todo += requests
            return
        self._committer.note(self)
        self._go_on(requests)

    def _run(self, requests: list[FrameRequest]) -> None:
        self._node.begin_turn()
        size = waits = replies = 0
        for index, request in enumerate(requests):
            if index == TURN_REQUESTS:
                self._end_turn(requests[index:])
                break
            answer = self._answer(request)
            if answer is not None:
                data, position = answer
                if position > waits:
                    if not waits:
                        # These wait for nothing, so a failure must not touch them.
                        self._flush(0, size, replies)
                        size = replies = 0
                    waits = position
                self._out.append(data)
                size += len(data)
                replies += 1
                if size > OUT_HIGH_BYTES:
                    self._flush(waits, size, replies)  # may stall: the transport has enough
                    size = waits = replies = 0
            if self._stalled:
                if not self._stalled & CLOSING:
                    self._todo += requests[index + 1 :]
                break
        self._flush(waits, size, replies)
        self._committer.wake()

    def _may_replicate(self, requests: list[FrameRequest]) -> bool:
        """Whether the connection can become a replica's link: nothing else was asked on it."""
        return (
            len(requests) == 1
            and not self._has_asked
            and not self._stalled
            and not self._parser.buffered_bytes
            and self._parser.error is None
        )

    def _answer(self, request: FrameRequest) -> tuple[bytes, int] | None:
        """Run one request: its reply and the position it waits for; None: it comes later."""
        op, key, value = request
        if op is Op.REPLICATE:
            return NOT_FIRST, 0
        if op is Op.STATS:
            args = [b"PING"]  # so that Stats needs a login where the others do
        elif op is Op.GET:
            args = [b"GET", key]
        elif op is Op.PUT:
            args = [b"SET", key, value]
        elif op is Op.DELETE:
            args = [b"DEL", key]
        else:
            args = [b"AUTH", key] if key else [b"PING"]
        reply = self._node.execute(self.session, args)
        position = self._node.waits_for
        if isinstance(reply, Deferred):
            if not reply.done:
                self._defer(op, reply)
                return None
            position = reply.waits_for
            reply = reply.reply
        return self._encode(op, reply), position

    def _encode(self, op: Op, reply: Any) -> bytes:
        if isinstance(reply, ErrorReply):
            return encode_error(reply.text)
        if op is Op.GET:
            return encode_not_found() if reply is None else encode_ok(reply)
        if op is Op.STATS:
            return encode_ok(json.dumps(self._stats()).encode())
        assert isinstance(reply, Simple | int), f"{op.name} answered {reply!r}"
        return _OK

    def _defer(self, op: Op, deferred: Deferred) -> None:
        """The reply comes later; nothing more of this client runs until then."""
        self._stall(DEFERRED)

        def done(reply: Any) -> None:
            if not self._transport.is_closing():
                self._set_frame_limit()
                data = self._encode(op, reply)
                self._out.append(data)
                self._flush(deferred.waits_for, len(data), 1)
                self._committer.wake()
                self._deferred_over()

        deferred.on_done(done)

    def _go_on(self, todo: list[Any]) -> None:
        self._run(todo)
        if self._parser.error is not None and not self._stalled:
            self._clients.protocol_errors += 1
            data = encode_error(f"ERR Protocol error: {self._parser.error}")
            self._out.append(data)
            self._flush(0, len(data), 1)
            self.close_when_sent()
        self._close_if_done()

    def _set_frame_limit(self) -> None:
        limit = self._max_frame_bytes
        if not self.session.authenticated:
            limit = min(limit, _BEFORE_LOGIN_BYTES)
        self._parser.max_frame_bytes = limit

    def _push(self, reply: Any, position: int) -> None:
        """Nothing is ever pushed: no op subscribes."""

    def _unparsed_bytes(self) -> int:
        return self._parser.buffered_bytes

    def _in_doubt(self, replies: int, why: str = LOG_FAILED) -> bytes:
        return encode_error(f"OUTCOMEUNKNOWN {why}") * replies

    def _too_many(self) -> bytes:
        return TOO_MANY
