"""A load from its beginning to its end: fill, connect, run, add up; in one process or in several.

Owns `Load`, `Measured` and the processes; not the connections (driver.py).

G1  the records are put before the clock starts, by few connections with deep pipelines.
G2  what several processes measured is added up: histograms by bucket, counts by sum; they start
    together, once all of them are connected, and the slowest one's time is the time.
G3  a server that says nothing for `silence_s` ends the run with an error, not with a hang.
G4  a password reaches a worker by its standard input, never by its arguments.

Threading: run_load() makes its own event loop and ends it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from marram.bench.driver import (
    SECOND_NS,
    Clock,
    ClosedLoop,
    Connection,
    OpenLoop,
    Pace,
    Tally,
)
from marram.bench.histogram import Histogram
from marram.bench.pacing import Alarms, make_alarm
from marram.bench.target import Place
from marram.bench.wire import Wire, make_wire
from marram.bench.workload import (
    FILL_DEPTH,
    KINDS,
    Drawn,
    Fill,
    Stream,
    Workload,
    make_stream,
)
from marram.client.url import Target
from marram.errors import ConnectionLost, InvalidArgument, ServerError

FILL_CLIENTS = 8
SILENCE_S = 30.0
_TOLD_S = 0.2
_CONNECTING = 64  # connections that are made at once
_STOP_S = 10.0

Progress = Callable[[str, int, float], None]
"""progress("fill" or "load", requests done, seconds so far)"""

Connect = Callable[[Callable[[], Connection]], Awaitable[Connection]]
"""Makes a connection and connects it."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to do to a server.

    place: where it is. clients: connections; depth: requests under way on each. requests, seconds:
    when it ends, one of the two. rate: requests a second for an open loop, None for a closed one.
    processes: that share all this. seed: of all draws. fill: whether the records are put first.
    silence_s: how long the server may say nothing. Raises InvalidArgument.
    """

    place: Place
    workload: Workload
    clients: int = 50
    depth: int = 1
    requests: int | None = 100_000
    seconds: float | None = None
    rate: float | None = None
    processes: int = 1
    seed: int = 1
    fill: bool = True
    silence_s: float = SILENCE_S

    def __post_init__(self) -> None:
        if (self.requests is None) == (self.seconds is None):
            raise InvalidArgument(
                "a load ends after a number of requests or of seconds: one of them"
            )
        if self.clients < self.processes or self.processes < 1 or self.depth < 1:
            raise InvalidArgument(
                "every process has at least one client, and one request under way"
            )
        if self.requests is not None and 0 < self.requests < self.processes:
            raise InvalidArgument("every process has at least one request")
        for name in ("requests", "seconds", "rate"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InvalidArgument(f"{name} must be above 0, not {value}")
        if self.workload.scan and not make_wire(self.place).scans:
            raise InvalidArgument(f"{self.place.protocol} has no ranges, which this load asks for")

    @property
    def total(self) -> int | None:
        """Requests in all, where that is known before."""
        if self.requests is None and self.rate is not None and self.seconds is not None:
            return max(1, round(self.rate * self.seconds))
        return self.requests

    def share(self, number: int) -> Load:
        """What process `number`, from 0, does of it; it fills nothing."""

        def part(whole: int) -> int:
            return whole // self.processes + (number < whole % self.processes)

        return replace(
            self,
            clients=part(self.clients),
            requests=None if self.requests is None else part(self.requests),
            rate=None if self.rate is None else self.rate / self.processes,
            processes=1,
            fill=False,
        )

    def as_json(self) -> dict[str, Any]:
        """For a worker: the password is in it."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Load:
        """What as_json() gave."""
        place = Place(given["place"]["protocol"], Target(**given["place"]["target"]))
        workload = Workload.from_json(given["workload"])
        return cls(**{**given, "place": place, "workload": workload})


@dataclass(slots=True)
class Measured:
    """What came of it.

    latencies: by kind, in the order of workload.KINDS. unsent: requests of an open loop that were
    given up; waited: for how long they had waited. timeline: (seconds, requests done) as time went.
    fill_s: seconds of putting the records, 0 where that was left out.
    """

    seconds: float = 0.0
    errors: int = 0
    misses: int = 0
    unsent: int = 0
    last_error: str = ""
    latencies: list[Histogram] = field(default_factory=lambda: [Histogram() for _ in KINDS])
    waited: Histogram = field(default_factory=Histogram)
    timeline: list[tuple[float, int]] = field(default_factory=list)
    fill_s: float = 0.0

    @property
    def requests(self) -> int:
        """That were answered."""
        return sum(one.count for one in self.latencies)

    @property
    def requests_per_s(self) -> float:
        """Requests answered in a second."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def overall(self) -> Histogram:
        """Latencies of all kinds, and what was given up (D3)."""
        found = Histogram()
        for one in (*self.latencies, self.waited):
            found.merge(one)
        return found

    def add(self, other: Measured) -> None:
        """What another process measured at the same time (G2); not its timeline."""
        self.seconds = max(self.seconds, other.seconds)
        self.errors += other.errors
        self.misses += other.misses
        self.unsent += other.unsent
        self.last_error = other.last_error or self.last_error
        for mine, theirs in zip(self.latencies, other.latencies, strict=True):
            mine.merge(theirs)
        self.waited.merge(other.waited)

    def as_json(self) -> dict[str, Any]:
        """For another process."""
        return {
            "seconds": self.seconds,
            "errors": self.errors,
            "misses": self.misses,
            "unsent": self.unsent,
            "last_error": self.last_error,
            "latencies": [one.as_json() for one in self.latencies],
            "waited": self.waited.as_json(),
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Measured:
        """What as_json() gave."""
        latencies = [Histogram.from_json(one) for one in given["latencies"]]
        waited = Histogram.from_json(given["waited"])
        return cls(**{**given, "latencies": latencies, "waited": waited})


def run_load(load: Load, progress: Progress | None = None, *, apart: bool = False) -> Measured:
    """Put the records, run the load, return what was measured.

    apart: in processes of its own, were it one: a thread of this one measures something meanwhile.
    Raises ConnectionLost: no server, or it went away or silent; ServerError: it refuses everything.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_run(load, progress, apart or load.processes > 1))


def run_fill(place: Place, workload: Workload) -> Measured:
    """Put the records and nothing else. Raises as run_load() does."""
    load = Load(place, workload, clients=FILL_CLIENTS)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(fill(load, tcp_connect(place.target)))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return made


async def _run(load: Load, progress: Progress | None, apart: bool) -> Measured:
    connect, fill_s = tcp_connect(load.place.target), 0.0
    if load.fill:
        filled = await fill(load, connect, progress=progress)
        fill_s = filled.seconds
    measured = await (_shared(load, progress) if apart else _alone(load, progress))
    measured.fill_s = fill_s
    if measured.errors and measured.errors >= measured.requests:
        raise ServerError(measured.last_error)
    return measured


async def _alone(load: Load, progress: Progress | None) -> Measured:
    stream = stream_of(load, 0, 1)
    return await drive(load, tcp_connect(load.place.target), stream, progress=progress)


def tcp_connect(target: Target) -> Connect:
    """Connections over TCP. They raise ConnectionLost: nobody answers."""

    async def connect(make: Callable[[], Connection]) -> Connection:
        try:
            loop = asyncio.get_running_loop()
            _, made = await loop.create_connection(make, target.host, target.port)
        except OSError as error:
            why = error.strerror or error
            raise ConnectionLost(f"cannot connect to {target.address}: {why}") from error
        return made

    return connect


def stream_of(load: Load, share: int, shares: int) -> Stream:
    """The requests of process `share` of `shares`; drawing them takes its time."""
    drawn = Drawn(make_wire(load.place), load.workload, load.seed, share, shares)
    # An open loop sends one by one, whatever may be under way.
    depth = 1 if load.rate is not None else load.depth
    return make_stream(drawn, load.workload, depth, load.total)


async def fill(
    load: Load, connect: Connect, clock: Clock = time.perf_counter_ns,
    progress: Progress | None = None,
) -> Measured:  # fmt: skip
    """Put all records (G1). Raises ServerError: one was refused."""
    clients = min(FILL_CLIENTS, load.clients)
    filling = replace(
        load, clients=clients, depth=FILL_DEPTH, requests=load.workload.records, seconds=None,
        rate=None, processes=1,
    )  # fmt: skip
    stream = Fill(make_wire(load.place), load.workload, load.seed)
    measured = await drive(filling, connect, stream, clock=clock, progress=progress, title="fill")
    if measured.errors:
        raise ServerError(measured.last_error)
    return measured


async def drive(
    load: Load, connect: Connect, stream: Stream, *, clock: Clock = time.perf_counter_ns,
    alarms: Alarms = make_alarm, progress: Progress | None = None, title: str = "load",
    ready: Callable[[], Awaitable[None]] | None = None,
) -> Measured:  # fmt: skip
    """Run a load in this process. ready: awaited between connecting and beginning.

    Raises ConnectionLost, ServerError: the greeting was refused.
    """
    wire, tally = make_wire(load.place), Tally()
    connections: list[Connection] = []
    pace: Pace | None = None
    try:
        await _open(load, connect, wire, tally, stream, clock, connections)
        if ready is not None:
            await ready()
        if load.rate is None:
            pace = ClosedLoop(stream, clock, load.depth, load.requests, load.seconds)
        else:
            assert load.total is not None
            pace = OpenLoop(stream, tally, clock, load.depth, load.rate, load.total, alarms)
        measured = Measured()
        gc.collect()
        gc.freeze()  # the pool is large, and nothing of it is garbage
        gc.disable()
        started_ns = clock()
        pace.start(connections)
        await _watch(load, pace, tally, clock, measured.timeline, progress, title)
        measured.seconds = (clock() - started_ns) / SECOND_NS
    finally:
        gc.enable()
        gc.unfreeze()
        if pace is not None:
            pace.close()
        await asyncio.gather(*(one.close() for one in connections))
    for name in ("errors", "misses", "unsent", "last_error", "latencies", "waited"):
        setattr(measured, name, getattr(tally, name))
    return measured


async def _open(
    load: Load, connect: Connect, wire: Wire, tally: Tally, stream: Stream, clock: Clock,
    made: list[Connection],
) -> None:  # fmt: skip
    """Append connections that are connected and greeted to `made`."""
    name = load.place.target.address

    async def one() -> None:
        made.append(await connect(lambda: Connection(wire, tally, stream, clock, name)))

    for at in range(0, load.clients, _CONNECTING):
        await asyncio.gather(*(one() for _ in range(min(_CONNECTING, load.clients - at))))
        try:
            async with asyncio.timeout(load.silence_s):
                await asyncio.gather(*(one.ready for one in made[at:]))
        except TimeoutError:
            raise ConnectionLost(f"{name} accepts connections and does not answer") from None


async def _watch(
    load: Load, pace: Pace, tally: Tally, clock: Clock, timeline: list[tuple[float, int]],
    progress: Progress | None, title: str,
) -> None:  # fmt: skip
    """Wait for the end, note how far it is, and see that it gets on (G3)."""
    started_ns = moved_ns = clock()
    before = 0
    while not pace.ended.done():
        await asyncio.wait([pace.ended], timeout=_TOLD_S)
        now_ns = clock()
        if tally.done != before:
            before, moved_ns = tally.done, now_ns
        elif now_ns - moved_ns > load.silence_s * SECOND_NS and not pace.ended.done():
            name = load.place.target.address
            raise ConnectionLost(f"{name} said nothing for {load.silence_s:g} s")
        seconds = (now_ns - started_ns) / SECOND_NS
        timeline.append((seconds, tally.done))
        if progress is not None:
            progress(title, tally.done, seconds)
    pace.ended.result()


# -- several processes -----------------------------------------------------------------------------


async def _shared(load: Load, progress: Progress | None) -> Measured:
    """G2."""
    workers = [_Worker(load, number) for number in range(load.processes)]
    measured, running = Measured(), None
    try:
        await asyncio.gather(*(worker.start() for worker in workers))
        for worker in workers:
            worker.go()
        started = time.perf_counter()
        running = asyncio.gather(*(worker.result() for worker in workers))
        while not running.done():
            await asyncio.wait([running], timeout=_TOLD_S)
            seconds, done = time.perf_counter() - started, sum(one.done for one in workers)
            measured.timeline.append((seconds, done))
            if progress is not None:
                progress("load", done, seconds)
        for found in await running:
            measured.add(found)
    finally:
        if running is not None and not running.done():
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        await asyncio.gather(*(worker.stop() for worker in workers))
    return measured


class _Worker:
    """A process that runs a share: `python -m marram.bench.worker`."""

    def __init__(self, load: Load, number: int) -> None:
        self.done = 0
        self._load = load
        self._number = number
        self._process: Process | None = None

    async def start(self) -> None:
        """Returns when it is connected and has drawn its requests."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "marram.bench.worker", stdin=PIPE, stdout=PIPE, limit=16 << 20
        )
        share = self._load.share(self._number).as_json()
        self._say({"load": share, "share": self._number, "shares": self._load.processes})
        await self._hear("ready")

    def go(self) -> None:
        """Now."""
        self._say("go")

    async def result(self) -> Measured:
        """What it measured. Raises ConnectionLost: what went wrong in it."""
        return Measured.from_json(await self._hear("measured"))

    async def stop(self) -> None:
        """End it; it has ended by itself where all went well."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
        await process.wait()

    def _say(self, what: Any) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")

    async def _hear(self, name: str) -> Any:
        """The next message of that name; progress that comes before is noted."""
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            if "error" in message:
                raise ConnectionLost(message["error"])
            if name in message:
                return message[name]
            self.done = message["done"]
        raise ConnectionLost("a process of the load generator ended without a word")
