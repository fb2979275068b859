"""RESP on a connection: read, run, answer. The server's hot path.

Owns the loop from bytes to bytes; not the grammar (marram.protocol.resp), not commands (the node),
not when replies leave (connection.py).

Threading: the event loop's.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from marram.node.deferred import Deferred
from marram.node.settings import OutputLimit
from marram.protocol.replies import NO_REPLY, ErrorReply
from marram.protocol.resp import RequestParser, RespLimits, encode, encode_into
from marram.server.connection import (
    CLOSING,
    DEFERRED,
    LOG_FAILED,
    OUT_HIGH_BYTES,
    TURN_REQUESTS,
    WRITES,
    Clients,
    Connection,
)
from marram.server.logs import event

_logger = logging.getLogger("marram.server")

TOO_MANY: Final = encode(ErrorReply("ERR max number of clients reached"), 2)


class RespConnection(Connection):
    """One client that speaks RESP."""

    __slots__ = ("_authenticated", "_parser")

    def __init__(self, clients: Clients, limits: RespLimits) -> None:
        super().__init__(clients)
        self._parser = RequestParser(limits)
        self._authenticated = False  # as the parser was told

    def connection_made(self, transport: Any) -> None:
        """A client came."""
        super().connection_made(transport)
        if not self._stalled & CLOSING:
            self._authenticated = self._parser.authenticated = self.session.authenticated

    def data_received(self, data: bytes) -> None:
        """Bytes of requests; run those that are whole."""
        self._idle_s = 0
        self._traffic.received_bytes += len(data)
        parser = self._parser
        commands = parser.feed(data)
        if self._stalled:
            if not self._stalled & CLOSING:
                self._todo += commands
            return
        self._committer.note(self)
        self._run(commands)
        if parser.error is not None or self._authenticated != self.session.authenticated:
            self._look_at_parser()

    def _run(self, requests: list[list[bytes]]) -> None:
        # HOT: per command, beyond the node's execute(): an encode() and a few local operations,
        # 0.2 us of the 0.8 us that a pipelined GET takes in all (CPython 3.11).
        if len(requests) > TURN_REQUESTS:
            self._run(requests[:TURN_REQUESTS])
            if not self._stalled:
                self._end_turn(requests[TURN_REQUESTS:])
            elif not self._stalled & CLOSING:
                self._todo += requests[TURN_REQUESTS:]
            return
        node = self._node
        session = self.session
        out = self._out
        size = waits = replies = 0
        node.begin_turn()
        rest = iter(requests)
        for args in rest:
            reply: Any = node.execute(session, args)
            position = node.waits_for
            if type(reply) is Deferred:
                if not reply.done:
                    self._defer(reply)
                    break
                position = reply.waits_for
                reply = reply.reply
            if position > waits:
                if not waits and out:
                    # These wait for nothing, so a failure must not touch them.
                    self._flush(0, size, replies)
                    size = replies = 0
                waits = position
            size += encode_into(out, reply, session.protocol)
            if reply is not NO_REPLY:
                replies += 1
            if size > OUT_HIGH_BYTES:
                self._flush(waits, size, replies)  # may stall: the transport has enough
                size = waits = replies = 0
            if self._stalled:
                break
        self._flush(waits, size, replies)
        if self._stalled and not self._stalled & CLOSING:
            self._todo += rest
        queue = self._queue
        if queue.last != queue.committed:
            self._committer.wake()

    def _look_at_parser(self) -> None:
        """After a run: a login changes what the parser takes, or it gave up."""
        parser = self._parser
        while self._authenticated != self.session.authenticated and not self._stalled:
            self._authenticated = parser.authenticated = self.session.authenticated
            self._run(parser.feed(b""))
        if parser.error is not None and not self._stalled:
            self._clients.protocol_errors += 1
            event(
                _logger, logging.INFO, "protocol error",
                client=self.session.address, error=parser.error,
            )  # fmt: skip
            self._reply(ErrorReply("ERR " + parser.error), 0)
            self.close_when_sent()

    def _go_on(self, todo: list[Any]) -> None:
        self._run(todo)
        self._look_at_parser()
        self._close_if_done()

    def _defer(self, deferred: Deferred) -> None:
        """The reply comes later; nothing more of this client runs until then."""
        self._stall(DEFERRED)

        def done(reply: Any) -> None:
            if not self._transport.is_closing():
                self._reply(reply, deferred.waits_for)
                self._committer.wake()
                self._deferred_over()

        deferred.on_done(done)

    def _reply(self, reply: Any, position: int) -> None:
        """One reply outside of _run()."""
        size = encode_into(self._out, reply, self.session.protocol)
        self._flush(position, size, int(reply is not NO_REPLY))

    def _push(self, reply: Any, position: int) -> None:
        self._queue_push(encode(reply, self.session.protocol), position)

    def _in_doubt(self, replies: int, why: str = LOG_FAILED) -> bytes:
        return encode(ErrorReply(f"OUTCOMEUNKNOWN {why}"), 2) * replies

    def _too_many(self) -> bytes:
        return TOO_MANY

    def _limits(self) -> OutputLimit:
        settings = self._node.settings
        subscriber = self.session.subscriptions or self.session.monitoring
        return settings.pubsub_output if subscriber else settings.normal_output

    def _unparsed_bytes(self) -> int:
        return self._parser.buffered_bytes

    def _idle_limit_s(self) -> int:
        # Subscribers and clients that wait for a reply are silent by nature.
        session = self.session
        if session.subscriptions or session.monitoring or self._stalled & (DEFERRED | WRITES):
            return 0
        return Connection._idle_limit_s(self)
