"""One asyncio connection that all tasks of a client share, and its renewal.

Owns the order of requests and replies, time limits and back-pressure; not what is asked (calls.py)
nor whether a broken call may be run again (aio.py).

S1  replies belong to requests in their order; a request that was cancelled still takes its replies.
S2  requests of one turn of the loop leave in one piece; each request's bytes stay together.
S3  a connection in which anything went wrong is closed, and every request on it fails.
S4  while the server takes nothing, requests wait instead of piling up.

Threading: on the loop that made them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import cast

from marram.client.connection import check_handshake, handshake
from marram.client.url import Target
from marram.errors import Closed, ConnectionLost, ProtocolError
from marram.protocol.replies import Push, Reply
from marram.protocol.resp_client import ReplyParser

_SNAPSHOTS = 16  # a connection may have, by a server's defaults


class _Waiting:
    """A request whose replies are not all here."""

    __slots__ = ("future", "missing", "replies")

    def __init__(self, future: asyncio.Future[list[Reply]], missing: int) -> None:
        self.future = future
        self.missing = missing
        self.replies: list[Reply] = []


class Stream(asyncio.Protocol):
    """A connection. Made by connect()."""

    def __init__(self, address: str, timeout_s: float | None) -> None:
        self.closed = False
        self.was_used = False
        self.snapshots = 0  # that live on it; Line.roomy() counts them
        self._address = address
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._parser = ReplyParser()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[_Waiting] = deque()
        self._unsent: list[bytes] = []
        self._flush_due = False
        self._writable: asyncio.Future[None] | None = None  # while the server takes nothing
        self._heard_at = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()

    @classmethod
    async def connect(cls, target: Target, timeout_s: float | None) -> Stream:
        """A connection whose server has been greeted. Raises ConnectionLost, ServerError."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                _, stream = await loop.create_connection(
                    lambda: cls(target.address, timeout_s), target.host, target.port
                )
        except TimeoutError as error:
            raise ConnectionLost(
                f"cannot connect to {target.address}: no answer in time"
            ) from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConnectionLost(f"cannot connect to {target.address}: {reason}") from error
        try:
            greeting, count = handshake(target)
            check_handshake(await stream.exchange(greeting, count))
        except BaseException:
            stream.close()
            await stream.wait_closed()
            raise
        stream.was_used = False
        return stream

    async def exchange(self, request: bytes, count: int) -> list[Reply]:
        """Send a request of `count` commands and return their replies.

        Raises ConnectionLost; its cause is a TimeoutError where the server was silent too long.
        """
        while self._writable is not None and not self.closed:
            await asyncio.shield(self._writable)
        if self.closed:
            raise ConnectionLost(f"the connection to {self._address} was closed")
        waiting = _Waiting(self._loop.create_future(), count)
        if not self._waiting:
            self._heard_at = self._loop.time()
            self._start_watch()
        self._waiting.append(waiting)
        self._send(request)
        self.was_used = True
        return await waiting.future

    def post(self, request: bytes, count: int) -> None:
        """Send a request whose replies nobody wants."""
        if not self.closed:
            self._waiting.append(_Waiting(self._loop.create_future(), count))
            self._send(request)

    def post_soon(self, request: bytes, count: int) -> None:
        """post() from any thread, or after the loop's end, when there is nothing left to do."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.post, request, count)

    def close(self) -> None:
        """Close the connection; what waits fails. Idempotent."""
        self._fail(ConnectionLost(f"the connection to {self._address} was closed"))

    async def wait_closed(self) -> None:
        """Return when the socket is closed, after close()."""
        if self._transport is not None:
            await asyncio.shield(self._gone)

    # -- asyncio.Protocol --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's."""
        # A cast, as uvloop's transports are no subclass.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """asyncio's."""
        self._heard_at = self._loop.time()
        try:
            replies = self._parser.feed(data)
        except ProtocolError as error:
            self._fail(error)
            return
        for reply in replies:
            if isinstance(reply, Push):
                continue
            if not self._waiting:
                self._fail(ProtocolError(f"{self._address} sent a reply to no command"))
                return
            waiting = self._waiting[0]
            waiting.replies.append(reply)
            waiting.missing -= 1
            if not waiting.missing:
                self._waiting.popleft()
                if not waiting.future.done():
                    waiting.future.set_result(waiting.replies)
        if self._parser.error is not None:
            self._fail(self._parser.error)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's."""
        reason = "the server closed it" if exc is None else str(exc)
        self._fail(ConnectionLost(f"the connection to {self._address} broke: {reason}"))
        self._gone.set_result(None)

    def pause_writing(self) -> None:
        """asyncio's (S4)."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """asyncio's (S4)."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # -- private -----------------------------------------------------------------------------------

    def _send(self, request: bytes) -> None:
        self._unsent.append(request)
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and not self.closed:
            self._transport.write(b"".join(unsent))

    def _start_watch(self) -> None:
        if self._timeout_s is not None and self._watch is None:
            self._watch = self._loop.call_later(self._timeout_s, self._look)

    def _look(self) -> None:
        """The time limit of the longest wait may be over."""
        self._watch = None
        if not self._waiting or self._timeout_s is None:
            return
        left_s = self._heard_at + self._timeout_s - self._loop.time()
        if left_s > 0:
            self._watch = self._loop.call_later(left_s, self._look)
        else:
            error = ConnectionLost(f"the connection to {self._address} broke: no answer in time")
            error.__cause__ = TimeoutError()
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Keeps S3."""
        if self.closed:
            return
        self.closed = True
        if self._transport is not None:
            self._transport.abort()
        if self._watch is not None:
            self._watch.cancel()
        self.resume_writing()
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            if not each.future.done():
                each.future.set_exception(error)
                # A post()'s future is awaited by nobody, which is no reason for a complaint.
                each.future.exception()


class Line:
    """The connection to one server and keyspace, made anew when it is gone."""

    __slots__ = ("_connecting", "_more", "_stream", "closed", "target", "timeout_s")

    def __init__(self, target: Target, timeout_s: float | None) -> None:
        self.target = target
        self.timeout_s = timeout_s
        self.closed = False
        self._stream: Stream | None = None
        self._more: list[Stream] = []  # for more snapshots than one connection may have
        self._connecting: asyncio.Task[Stream] | None = None

    async def stream(self) -> Stream:
        """The connection. Raises ConnectionLost, ServerError, Closed."""
        self.check()
        if self._stream is not None and not self._stream.closed:
            return self._stream
        if self._connecting is None:
            self._connecting = asyncio.create_task(Stream.connect(self.target, self.timeout_s))
            self._connecting.add_done_callback(self._connected)
        # Shielded: a caller that gives up must not take the connection from the others.
        return await asyncio.shield(self._connecting)

    async def roomy(self) -> Stream:
        """A connection that may have one more snapshot, which is counted. Raises as stream()."""
        self._more = [stream for stream in self._more if not stream.closed]
        for stream in (await self.stream(), *self._more):
            if stream.snapshots < _SNAPSHOTS and not stream.closed:
                stream.snapshots += 1
                return stream
        stream = await Stream.connect(self.target, self.timeout_s)
        if self.closed:
            stream.close()
        self.check()
        stream.snapshots = 1
        self._more.append(stream)
        return stream

    async def separate(self, timeout_s: float | None) -> Stream:
        """A connection for one caller, who closes it."""
        self.check()
        return await Stream.connect(self.target, timeout_s)

    async def close(self) -> None:
        """Close the connection; idempotent."""
        self.closed = True
        connecting = self._connecting
        if connecting is not None:
            connecting.cancel()
            with suppress(asyncio.CancelledError, ConnectionLost):
                await connecting
        for stream in (self._stream, *self._more):
            if stream is not None:
                stream.close()
                await stream.wait_closed()

    def check(self) -> None:
        """Raises Closed."""
        if self.closed:
            raise Closed("the connection was closed")

    def _connected(self, task: asyncio.Task[Stream]) -> None:
        self._connecting = None
        if task.cancelled() or task.exception() is not None:
            return
        stream = task.result()
        if self.closed:
            stream.close()
        else:
            self._stream = stream
