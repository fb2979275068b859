"""Connections that keep requests under way, and when each request is sent.

Owns sockets, the two ways to pace a load, and what is measured; not what is asked (workload.py),
not where a connection comes from: it is handed a function that makes one, so that it runs on a
simulated loop as well.

D1  every reply is counted, to its own request: the latency of a request is from its time of sending
    to the arrival of its own reply, also in the middle of a pipeline.
D2  closed loop: a connection sends its next pipeline when the last one is answered. Such a load
    waits for a slow server, so its latencies say nothing about what others would have waited.
D3  open loop: request k is due at start + k / rate, whatever the server does. Its latency counts
    from when it was *due*: a request that waits for a free connection waits in the figures too
    (no coordinated omission). One that could not be sent before the run gave up counts with the
    time it had waited by then, which is less than it would have been.

Threading: one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from marram.bench.histogram import Histogram
from marram.bench.pacing import Alarms
from marram.bench.wire import Wire
from marram.bench.workload import HALF, KINDS, Batch, Stream
from marram.errors import ConnectionLost, Error, ServerError

SECOND_NS = 1_000_000_000
_LEAST_WAIT_NS = 50_000  # an alarm more often than that costs more than it tells
_GRACE_NS = 5 * SECOND_NS

Clock = Callable[[], int]
"""Nanoseconds that never go back."""


class Tally:
    """What all connections of a process measured."""

    def __init__(self) -> None:
        self.latencies = [Histogram() for _ in KINDS]
        self.waited = Histogram()  # how long those had waited that were given up
        self.done = 0
        self.errors = 0
        self.misses = 0
        self.unsent = 0
        self.last_error = ""

    def record(self, kinds: bytes, start: int, stop: int, latency_ns: int) -> None:
        """The requests [start, stop) of a batch were answered after so long."""
        kind = kinds[start]
        count = kinds.count(kind, start, stop)
        if count == stop - start:
            if kind != HALF:
                self.done += count
                self.latencies[kind].record(latency_ns, count)
            return
        for kind, histogram in enumerate(self.latencies):
            count = kinds.count(kind, start, stop)
            if count:
                self.done += count
                histogram.record(latency_ns, count)


class Pace(Protocol):
    """Decides when a connection sends what."""

    ended: asyncio.Future[None]
    """Done when there is nothing more to send and all is answered."""

    def start(self, connections: list[Connection]) -> None:
        """Begin, with connections that are all connected and free."""
        ...

    def free(self, connection: Connection) -> None:
        """A batch of a connection was answered."""
        ...

    def close(self) -> None:
        """Send nothing any more."""
        ...


class _Sent:
    """A batch under way."""

    __slots__ = ("answered", "batch", "since_ns")

    def __init__(self, batch: Batch, since_ns: int) -> None:
        self.batch = batch
        self.since_ns = since_ns
        self.answered = 0


class Connection(asyncio.Protocol):
    """One connection. Not for reuse."""

    def __init__(self, wire: Wire, tally: Tally, stream: Stream, clock: Clock, name: str) -> None:
        """name: of the server, for messages."""
        self.pace: Pace | None = None
        self.listed = False  # open loops: whether it is among the free ones
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wire = wire
        self._name = name
        self._clock = clock
        self._tally = tally
        self._stream = stream
        self._replies = wire.replies()
        self._transport: asyncio.Transport | None = None
        self._greetings = 0
        self._waiting: deque[_Sent] = deque()

    @property
    def under_way(self) -> int:
        """Batches that are not answered yet."""
        return len(self._waiting)

    # -- asyncio's -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        # A cast, as uvloop's transports are no subclass.
        self._transport = cast(asyncio.Transport, transport)
        greeting, self._greetings = self._wire.greeting()
        self._transport.write(greeting)

    def data_received(self, data: bytes) -> None:
        """Count what came, and go on."""
        try:
            count = self._replies.feed(data)
        except Error as error:
            self._fail(error)
            return
        now_ns = self._clock()
        if self._greetings:
            count = self._greeted(count)
        waiting = self._waiting
        answered = []  # what follows is sent afterwards, or it would take the replies of others
        while count and waiting:
            sent = waiting[0]
            kinds = sent.batch.kinds
            start = sent.answered
            sent.answered = stop = min(start + count, len(kinds))
            count -= stop - start
            self._tally.record(kinds, start, stop, now_ns - sent.since_ns)
            if stop == len(kinds):
                answered.append(waiting.popleft())
        if count:
            self._fail(ConnectionLost(f"{self._name} sent more replies than requests came"))
            return
        for sent in answered:
            self._complete(sent)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._fail(ConnectionLost(f"{self._name} closed the connection"))
        if not self.gone.done():
            self.gone.set_result(None)

    # -- the pace's ------------------------------------------------------------------------------

    def send(self, batch: Batch, since_ns: int) -> None:
        """Send a batch whose time counts from `since_ns`."""
        if self._transport is None or self.gone.done():
            self._fail(ConnectionLost(f"{self._name} closed the connection"))
            return
        self._waiting.append(_Sent(batch, since_ns))
        self._transport.write(batch.payload)

    async def close(self) -> None:
        """Note what was counted, close, and wait for that."""
        replies, tally = self._replies, self._tally
        tally.errors += replies.errors
        tally.misses += replies.misses
        tally.last_error = replies.last_error or tally.last_error
        self.pace = None
        if not self.ready.done():
            self.ready.cancel()
        if self._transport is not None:
            self._transport.abort()
            await self.gone

    # -- inside ----------------------------------------------------------------------------------

    def _greeted(self, count: int) -> int:
        taken = min(count, self._greetings)
        self._greetings -= taken
        replies = self._replies
        if replies.errors:
            self._fail(ServerError(replies.last_error))
        elif not self._greetings and not self.ready.done():
            replies.misses = 0
            self.ready.set_result(None)
        return count - taken

    def _complete(self, sent: _Sent) -> None:
        batch = sent.batch
        if batch.then is not None:
            self.send(batch.then, sent.since_ns)
            return
        self._stream.answered(batch)
        if self.pace is not None:
            self.pace.free(self)

    def _fail(self, error: Exception) -> None:
        for future in (self.ready, *((self.pace.ended,) if self.pace is not None else ())):
            if not future.done():
                future.set_exception(error)
                future.exception()  # those of all but one connection are asked for by nobody
        if self._transport is not None:
            self._transport.abort()


class ClosedLoop:
    """As much as the connections can carry (D2)."""

    def __init__(
        self, stream: Stream, clock: Clock, depth: int, requests: int | None, seconds: float | None
    ) -> None:
        """depth: requests a connection sends together. Ends after so many requests, or so long."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stream = stream
        self._clock = clock
        self._depth = depth
        self._left = requests
        self._seconds = seconds
        self._until_ns: float | None = None
        self._active = 0

    def start(self, connections: list[Connection]) -> None:
        """Set them all off."""
        if self._seconds is not None:
            self._until_ns = self._clock() + self._seconds * SECOND_NS
        self._active = len(connections)
        for connection in connections:
            connection.pace = self
            self.free(connection)

    def free(self, connection: Connection) -> None:
        """Send it the next batch, or let it rest."""
        count = self._depth
        if self._left is not None:
            count = min(count, self._left)
            self._left -= count
        batch = self._stream.next(count) if count else None
        now_ns = self._clock()  # not before: drawing a batch is no part of its latency
        if batch and batch.kinds and (self._until_ns is None or now_ns < self._until_ns):
            connection.send(batch, now_ns)
            return
        self._active -= 1
        if not self._active and not self.ended.done():
            self.ended.set_result(None)

    def close(self) -> None:
        """Send nothing any more."""
        self._left = 0


class OpenLoop:
    """A request every 1 / rate seconds (D3)."""

    def __init__(
        self, stream: Stream, tally: Tally, clock: Clock, depth: int, rate: float, requests: int,
        alarms: Alarms,
    ) -> None:  # fmt: skip
        """depth: requests under way on one connection; rate: a second; requests: in all."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stream = stream
        self._tally = tally
        self._clock = clock
        self._depth = depth
        self._interval_ns = SECOND_NS / rate
        self._requests = requests
        self._sent = 0
        self._answered = 0
        self._start_ns = 0
        self._free: deque[Connection] = deque()
        self._alarm = alarms(self._wake)

    def start(self, connections: list[Connection]) -> None:
        """The first request is due now."""
        self._start_ns = self._clock()
        for connection in connections:
            connection.pace = self
            self._list(connection)
        self._wake()

    def free(self, connection: Connection) -> None:
        """Something was answered; what is overdue goes out at once."""
        self._answered += 1
        self._list(connection)
        if self._sent < self._requests:
            self._wake()
        elif self._answered == self._sent and not self.ended.done():
            self.ended.set_result(None)

    def close(self) -> None:
        """Send nothing any more."""
        self._requests = self._sent
        self._alarm.close()

    def _list(self, connection: Connection) -> None:
        if not connection.listed:
            connection.listed = True
            self._free.append(connection)

    def _due_ns(self, number: int) -> int:
        return self._start_ns + int(number * self._interval_ns)

    def _wake(self) -> None:
        now_ns = self._clock()
        free = self._free
        while free and self._sent < self._requests:
            due_ns = self._due_ns(self._sent)
            if due_ns > now_ns:
                self._alarm.set(max(due_ns - now_ns, _LEAST_WAIT_NS))
                return
            connection = free.popleft()
            connection.listed = False
            self._sent += 1
            connection.send(self._stream.next(1), due_ns)
            if connection.under_way < self._depth:
                self._list(connection)
        if self._sent < self._requests and now_ns > self._due_ns(2 * self._requests) + _GRACE_NS:
            self._give_up(now_ns)

    def _give_up(self, now_ns: int) -> None:
        """The server does not keep up by far: stop after twice the time (D3)."""
        self._tally.unsent = self._requests - self._sent
        for number in range(self._sent, self._requests):
            self._tally.waited.record(now_ns - self._due_ns(number))
        self._requests = self._sent
