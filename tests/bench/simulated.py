"""An event loop whose time is simulated, and a server in it that serves, stalls or falls silent."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from marram.bench.driver import Connection

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Never waits: it moves the loop's clock instead."""

    loop: SimulatedLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        events = super().select(0)
        if not events:
            assert timeout is not None, "nothing will ever happen again"
            self.loop.now_s += max(0.0, timeout)
        return events


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Sleeps take no time."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.now_s

    def clock_ns(self) -> int:
        return round(self.now_s * 1e9)


def run_simulated(make: Callable[[SimulatedLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on a simulated loop."""
    loop = SimulatedLoop()
    try:
        return loop.run_until_complete(make(loop))
    finally:
        loop.close()


class FakeServer:
    """Answers GETs one after the other, each after `service_s`, but not during a stall.

    stall: (from, to), seconds after the server was made; None for none. silent_after: it answers so
    many requests and then nothing.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        service_s: float,
        stall: tuple[float, float] | None = None,
        silent_after: int | None = None,
        reply: bytes = b"$1\r\nx\r\n",
    ) -> None:
        self.received = 0
        self._loop = loop
        self._service_s = service_s
        self._made_s = loop.time()
        self._busy_until_s = loop.time()
        self._stall = stall
        self._silent_after = silent_after
        self._reply = reply

    async def connect(self, make: Callable[[], Connection]) -> Connection:
        connection = make()
        connection.connection_made(_Transport(self, connection))  # type: ignore[arg-type]
        return connection

    def take(self, data: bytes, connection: Connection) -> None:
        """Bytes from a client."""
        if data.startswith(b"*2\r\n$6\r\nSELECT"):
            self._loop.call_soon(connection.data_received, b"+OK\r\n")
            return
        for _ in range(data.count(b"GET")):
            self.received += 1
            if self._silent_after is not None and self.received > self._silent_after:
                continue
            done_s = max(self._busy_until_s, self._loop.time()) + self._service_s
            if self._stall is not None:
                start, stop = (self._made_s + at for at in self._stall)
                if start <= done_s < stop:
                    done_s = stop + self._service_s
            self._busy_until_s = done_s
            self._loop.call_at(done_s, connection.data_received, self._reply)


class _Transport:
    def __init__(self, server: FakeServer, connection: Connection) -> None:
        self._server = server
        self._connection = connection
        self._open = True

    def write(self, data: bytes) -> None:
        if self._open:
            self._server.take(data, self._connection)

    def abort(self) -> None:
        if self._open:
            self._open = False
            self._server._loop.call_soon(self._connection.connection_lost, None)
