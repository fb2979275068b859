"""A load: many RESP connections that each keep a number of requests under way.

Owns what is sent and what is measured; not where the server comes from (bench.py).

L1  a request's latency is from the sending of its pipeline to the arrival of the pipeline's last
    reply: no request is sent before, so a slow server slows the load as well (closed loop).
L2  every reply is parsed and counted; error replies are told apart.

Threading: one event loop; run_load() makes and ends it.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from marram.client.connection import handshake
from marram.client.url import Target
from marram.env import posix_env
from marram.errors import ConnectionLost, Error, ServerError
from marram.protocol.replies import ErrorReply, Reply
from marram.protocol.resp_client import ReplyParser, encode_command

_PREPARED = 4096  # requests of each kind, encoded once and sent again and again
_FILL_KEYS = 1000  # a batch while the keys are made
_PROGRESS_S = 0.2
_MULTIPLIER, _INCREMENT, _MASK = 6364136223846793005, 1442695040888963407, 2**64 - 1


@dataclass(frozen=True, slots=True)
class Load:
    """What to do to a server.

    clients: connections; pipeline: requests under way on each; requests: in all; size_bytes: of
    each value; read_ratio: GETs among the requests, 0 .. 1, the others are SETs; keys: how many
    different ones.
    """

    clients: int
    pipeline: int
    requests: int
    size_bytes: int
    read_ratio: float
    keys: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it. latencies_us: ascending, one a pipeline."""

    requests: int
    errors: int
    seconds: float
    latencies_us: array[int]

    @property
    def requests_per_s(self) -> float:
        """Requests answered in a second."""
        return self.requests / self.seconds if self.seconds else 0.0

    def percentile_ms(self, percent: float) -> float:
        """The latency that `percent` of the requests did not pass, milliseconds."""
        found = self.latencies_us
        if not found:
            return 0.0
        return found[min(len(found) - 1, int(len(found) * percent / 100))] / 1000


Progress = Callable[[int, float], None]
"""progress(requests done, seconds so far)"""


class _Run:
    """What the connections share."""

    def __init__(self, load: Load, seed: int) -> None:
        self.load = load
        self.left = load.requests  # not sent yet
        self.done = 0
        self.errors = 0
        self.last_error = ""
        self.latencies_us: array[int] = array("Q")
        self._state = seed
        count = min(_PREPARED, load.keys)
        self.keys = [b"key:%012d" % number for number in range(load.keys)]
        value = b"x" * load.size_bytes
        chosen = [self.keys[self._draw() % load.keys] for _ in range(count)]
        self._gets = [encode_command([b"GET", key]) for key in chosen]
        self._sets = [encode_command([b"SET", key, value]) for key in chosen]
        self._read_below = int(load.read_ratio * 2**32)

    def next_requests(self) -> list[bytes]:
        """The next pipeline; empty when all is sent."""
        count = min(self.load.pipeline, self.left)
        self.left -= count
        requests = []
        for _ in range(count):
            drawn = self._draw()
            kind = self._gets if drawn % 2**32 < self._read_below else self._sets
            requests.append(kind[(drawn >> 33) % len(kind)])
        return requests

    def _draw(self) -> int:
        # Knuth's linear congruential generator; its upper bits are good enough to pick keys.
        self._state = (self._state * _MULTIPLIER + _INCREMENT) & _MASK
        return self._state >> 11


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, run: _Run, target: Target) -> None:
        loop = asyncio.get_running_loop()
        self._run = run
        self._target = target
        self._time_ns = posix_env().monotonic_ns  # the loop's own clock counts milliseconds
        self._parser = ReplyParser()
        self._transport: asyncio.Transport | None = None
        self._missing = 0
        self._sent_at_ns = 0
        self.ready: asyncio.Future[None] = loop.create_future()
        self.finished: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's."""
        # A cast, as uvloop's transports are no subclass.
        self._transport = cast(asyncio.Transport, transport)
        greeting, self._missing = handshake(self._target)
        self._transport.write(greeting)

    def start(self) -> None:
        """Send the first pipeline."""
        self._send()

    def data_received(self, data: bytes) -> None:
        """asyncio's."""
        try:
            replies = self._parser.feed(data)
        except Error as error:
            self._end(error)
            return
        self._missing -= len(replies)
        if not self.ready.done():
            self._greeted(replies)
            return
        run = self._run
        for reply in replies:
            if reply.__class__ is ErrorReply:
                run.errors += 1
                run.last_error = reply.text
        run.done += len(replies)
        if not self._missing:
            run.latencies_us.append((self._time_ns() - self._sent_at_ns) // 1000)
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's."""
        self._end(ConnectionLost(f"{self._target.address} closed the connection"))
        self.gone.set_result(None)

    async def close(self) -> None:
        """Close the connection and wait for that."""
        self._end(None)
        await self.gone

    def _greeted(self, replies: list[Reply]) -> None:
        if replies and isinstance(replies[0], ErrorReply) and not self.ready.done():
            self._end(ServerError(replies[0].text))
        elif not self._missing:
            self.ready.set_result(None)

    def _send(self) -> None:
        requests = self._run.next_requests()
        if not requests or self._transport is None:
            self._end(None)
            return
        self._missing = len(requests)
        self._sent_at_ns = self._time_ns()
        self._transport.write(b"".join(requests))

    def _end(self, error: Exception | None) -> None:
        for future in (self.ready, self.finished):
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)
                    future.exception()  # that of `finished` may never be asked for
        if self._transport is not None:
            self._transport.abort()


def run_load(target: Target, load: Load, progress: Progress | None = None) -> Measured:
    """Make the keys, run the load, return what was measured. Raises ConnectionLost, ServerError."""
    try:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_run_load(target, load, progress))


async def _run_load(target: Target, load: Load, progress: Progress | None) -> Measured:
    loop = asyncio.get_running_loop()
    run = _Run(load, int.from_bytes(posix_env().random_bytes(8), "little"))
    if load.read_ratio > 0:
        await _fill(target, run)
    clients: list[_Client] = []
    try:
        for _ in range(load.clients):
            _, client = await loop.create_connection(
                lambda: _Client(run, target), target.host, target.port
            )
            clients.append(client)
        await asyncio.gather(*(client.ready for client in clients))
        seconds = await _measure(run, clients, progress)
    except OSError as error:
        raise ConnectionLost(
            f"cannot connect to {target.address}: {error.strerror or error}"
        ) from error
    finally:
        await asyncio.gather(*(client.close() for client in clients))
    if run.errors == run.done and run.errors:
        raise ServerError(run.last_error)
    return Measured(run.done, run.errors, seconds, array("Q", sorted(run.latencies_us)))


async def _measure(run: _Run, clients: list[_Client], progress: Progress | None) -> float:
    """Set the clients off and wait for them; returns the seconds it took."""
    time_ns = posix_env().monotonic_ns
    started_ns = time_ns()
    for client in clients:
        client.start()
    everything = asyncio.gather(*(client.finished for client in clients))
    while not everything.done():
        await asyncio.wait([everything], timeout=_PROGRESS_S)
        if progress is not None:
            progress(run.done, (time_ns() - started_ns) / 1e9)
    seconds = (time_ns() - started_ns) / 1e9
    await everything
    return seconds


async def _fill(target: Target, run: _Run) -> None:
    """Make every key, so that reads find them."""
    from marram.client.aio import connect_async

    value = b"x" * run.load.size_bytes
    async with connect_async(target.url) as db:
        for at in range(0, len(run.keys), _FILL_KEYS):
            await db.put_many([(key, value) for key in run.keys[at : at + _FILL_KEYS]])
