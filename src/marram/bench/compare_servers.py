"""marram beside redis-server and valkey-server, in alternating pairs, under equal durability.

Owns the work that is compared, its order and its targets; not the servers (programs.py), not what
is shown (report.py).

F1  a pair takes each server once through the same work, peers first, and the ratios are taken pair
    by pair: a shared machine's speed drifts, and the two of a pair are seconds apart.
F2  all servers of a row promise the same (programs.py); each has its own directory on one disk.
F3  every row is warmed up on each server, and begins when no files change any more.
F4  nobody but the client and the measured server works: the others are idle, and a rewrite or a
    checkpoint that a run sets off belongs to that run, or is waited for before the next row.

Where redis-benchmark is installed it measures single commands; mixes, latencies at a rate and
memory are the load generator's.

Threading: the main thread.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, Final, NamedTuple

from marram.bench import machine, programs
from marram.bench.generator import Load, run_fill, run_load
from marram.bench.programs import Program, Running
from marram.bench.results import envelope, spread
from marram.bench.workload import Workload
from marram.errors import Error, InvalidArgument

SMALL: Final = 100_000
LARGE: Final = 1_000_000
SIZE: Final = 100
QUICK: Final = 10  # a quick run has so many times less to do
_LATENCY_S: Final = 8.0
_WARM_UP: Final = 10  # a warm-up is so many times shorter

Note = Callable[[str], None]
"""Told what is going on, a line each."""

FASTER, SMALLER = "higher", "lower"
BENCHMARK, LOAD, LATENCY, MEMORY = "redis-benchmark", "load", "latency", "memory"


@dataclass(frozen=True, slots=True)
class Work:
    """One row of the table.

    name: for --only. title: for people. durability: of all servers. target: of the ratio of
    marram's figure to redis-server's. measured: by what. better: whether higher or lower is.
    test: redis-benchmark's. requests, clients, depth: as there. records: that are there before.
    """

    name: str
    title: str
    durability: str
    target: float
    measured: str = BENCHMARK
    unit: str = "1/s"
    better: str = FASTER
    test: str = ""
    requests: int = 100_000
    clients: int = 50
    depth: int = 1
    records: int = SMALL


WORK: Final = (
    Work("set-1", "SET, durable, 1 client", "sync", 0.95, test="set", requests=20_000, clients=1),
    Work("set-50", "SET, durable, 50 clients", "sync", 1.2, test="set"),
    Work("set-500", "SET, durable, 500 clients", "sync", 1.2, test="set", clients=500),
    Work("set-50-p16", "SET, durable, 50 clients -P 16", "sync", 1.3, test="set",
         requests=400_000, depth=16),
    Work("get-50", "GET, 50 clients", "sync", 1.1, test="get"),
    Work("get-50-p16", "GET, 50 clients -P 16", "sync", 1.1, test="get",
         requests=800_000, depth=16),
    Work("incr-50", "INCR, durable, 50 clients", "sync", 1.0, test="incr"),
    Work("mset-50", "MSET of 10, durable, 50 clients", "sync", 1.0, test="mset", requests=40_000),
    Work("interval-set-50", "SET, interval, 50 clients", "interval", 1.0, test="set"),
    Work("interval-set-50-p16", "SET, interval, 50 clients -P 16", "interval", 0.9, test="set",
         requests=400_000, depth=16),
    Work("mixed-50", "95 % GET, 5 % SET, zipfian, 50 clients", "sync", 1.0, LOAD, records=LARGE),
    Work("mixed-50-p16", "95 % GET, 5 % SET, zipfian, 50 clients -P 16", "sync", 1.0, LOAD,
         requests=400_000, depth=16, records=LARGE),
    Work("latency", "p99.9 of SET, durable, at half the highest rate", "sync", 1.0, LATENCY, "ms",
         SMALLER),
    Work("memory", "resident, 1 M keys of 16 + 100 bytes", "interval", 1.3, MEMORY, "MB", SMALLER,
         records=LARGE),
)  # fmt: skip


class Figure(NamedTuple):
    """What one server did in one run; p99_ms: None where nobody asked."""

    value: float
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to compare. work: rows; pairs: how often; quick: a tenth of everything."""

    work: tuple[Work, ...]
    pairs: int = 5
    quick: bool = False
    engine: str = "memory"
    directory: str | None = None

    @property
    def scale(self) -> int:
        """By how much less there is to do."""
        return QUICK if self.quick else 1


def chosen_work(names: Sequence[str]) -> tuple[Work, ...]:
    """The rows that match one of some patterns, such as "set-*"; all where there is none.

    Raises InvalidArgument: a pattern matches nothing.
    """
    for name in names:
        if not any(fnmatch(work.name, name) for work in WORK):
            known = ", ".join(work.name for work in WORK)
            raise InvalidArgument(f"no work is called {name!r}; there are {known}")
    return tuple(
        work for work in WORK if not names or any(fnmatch(work.name, name) for name in names)
    )


def compare(plan: Plan, peers: Sequence[Program], command: str, note: Note) -> dict[str, Any]:
    """Run it all; the result. Raises Error: a server does not start, or fails."""
    ours = programs.Marram(plan.engine)
    everyone: list[Program] = [*peers, ours]  # F1
    rows: list[dict[str, Any]] = []
    work = [one for one in plan.work if _possible(one, note)]
    with tempfile.TemporaryDirectory(prefix="marram-bench-", dir=plan.directory) as scratch:
        about = {
            **machine.hardware(scratch, command),
            "versions": {program.name: program.version() for program in everyone},
            "durability": "sync = appendfsync always, interval = appendfsync everysec, row by row",
        }
        for stage in _stages(work):
            if stage[0].measured == MEMORY:
                rows.append(_memory_row(plan, stage[0], everyone, scratch, note))
                continue
            with _serving(everyone, stage[0].durability, scratch) as servers:
                _fill_all(servers, stage[0].records // plan.scale, note)
                for one in stage:
                    rows.append(_row(plan, one, servers, scratch, note))
    rows.sort(key=lambda row: [one.name for one in WORK].index(row["name"]))
    settings = {
        "pairs": plan.pairs,
        "quick": plan.quick,
        "engine": plan.engine,
        "size_bytes": SIZE,
        "order": [program.name for program in everyone],
    }
    names = {program.name: program.version() for program in everyone}
    return envelope("server", about, settings, programs=names, rows=rows)


def _possible(work: Work, note: Note) -> bool:
    """Whether it can be measured here."""
    if work.measured != BENCHMARK or work.test in ("set", "get") or programs.has_redis_benchmark():
        return True
    note(f"{work.name} is left out: redis-benchmark is not installed (Debian's redis-tools)")
    return False


def _stages(work: Sequence[Work]) -> Iterator[list[Work]]:
    """Rows that can share their servers: the same durability, the same records."""
    stages: dict[tuple[str, int, bool], list[Work]] = {}
    for one in work:
        key = (one.durability, one.records, one.measured == MEMORY)
        stages.setdefault(key, []).append(one)
    yield from stages.values()


@contextmanager
def _serving(everyone: Sequence[Program], durability: str, scratch: str) -> Iterator[list[Running]]:
    """All of them, each in a directory of its own."""
    with ExitStack() as stack:
        running = []
        for program in everyone:
            place = stack.enter_context(
                tempfile.TemporaryDirectory(prefix=f"{program.name}-", dir=scratch)
            )
            running.append(stack.enter_context(program.running(place, durability)))
        yield running


def _fill_all(servers: Sequence[Running], records: int, note: Note) -> None:
    for server in servers:
        note(f"{server.name}: {records:,} records")
        workload = Workload(read=0, update=1, records=records, size_min=SIZE, size_max=SIZE)
        run_fill(server.place, workload)


# -- rows ------------------------------------------------------------------------------------------


def _row(
    plan: Plan, work: Work, servers: Sequence[Running], scratch: str, note: Note
) -> dict[str, Any]:
    """A row: warm-up, pairs, ratios."""
    requests = max(100, work.requests // plan.scale)
    records = work.records // plan.scale
    rate: float | None = None
    if work.measured == LATENCY:
        highest = {one.name: _load(work, one, requests, records).value for one in servers}
        rate = min(highest.values()) / 2
        reached = ", ".join(f"{name} {value:,.0f}/s" for name, value in highest.items())
        note(f"{work.name}: highest rates {reached}; measured at {rate:,.0f}/s")
    else:
        for server in servers:
            _measure(work, server, max(100, requests // _WARM_UP), records)
    machine.wait_until_settled(scratch)  # F3
    pairs: list[dict[str, Figure]] = []
    for number in range(plan.pairs):
        pair = {}
        for server in servers:
            if rate is not None:
                pair[server.name] = _latency(server, rate, records, _LATENCY_S / plan.scale)
            else:
                pair[server.name] = _measure(work, server, requests, records)
        pairs.append(pair)
        shown = ", ".join(f"{name} {one.value:,.6g} {work.unit}" for name, one in pair.items())
        note(f"{work.name} {number + 1} of {plan.pairs}: {shown}")
    more = {} if rate is None else {"rate_per_s": round(rate, 1)}
    return {**_as_row(work, pairs), "measured_by": _told(work, requests, records, rate), **more}


def _measure(work: Work, server: Running, requests: int, records: int) -> Figure:
    if work.measured == BENCHMARK and programs.has_redis_benchmark():
        speed = programs.redis_benchmark(
            server.port, work.test, requests, work.clients, work.depth, records, SIZE
        )
        return Figure(speed.per_s, speed.p99_ms)
    return _load(work, server, requests, records)


def _load(work: Work, server: Running, requests: int, records: int) -> Figure:
    """By the load generator, closed loop."""
    load = Load(
        server.place, _workload(work, records), clients=work.clients, depth=work.depth,
        requests=requests, fill=False,
    )  # fmt: skip
    measured = run_load(load)
    if measured.errors:
        raise Error(f"{server.name} refused {measured.errors} requests: {measured.last_error}")
    return Figure(measured.requests_per_s, measured.overall.percentile(99) / 1e6)


def _workload(work: Work, records: int) -> Workload:
    if work.measured == LOAD:
        return Workload(
            read=0.95, update=0.05, records=records, distribution="zipfian", size_min=SIZE,
            size_max=SIZE,
        )  # fmt: skip
    read = 1.0 if work.test == "get" else 0.0
    return Workload(read=read, update=1 - read, records=records, size_min=SIZE, size_max=SIZE)


def _latency(server: Running, rate: float, records: int, seconds: float) -> Figure:
    """p99.9 of durable SETs that come evenly at a rate, from when each was due."""
    workload = Workload(read=0, update=1, records=records, size_min=SIZE, size_max=SIZE)
    measured = run_load(
        Load(server.place, workload, requests=None, seconds=seconds, rate=rate, fill=False)
    )
    found = measured.overall
    return Figure(found.percentile(99.9) / 1e6, found.percentile(99) / 1e6)


def _memory_row(
    plan: Plan, work: Work, everyone: Sequence[Program], scratch: str, note: Note
) -> dict[str, Any]:
    """Servers that hold nothing but the records; each pair's are new."""
    records = work.records // plan.scale
    pairs: list[dict[str, Figure]] = []
    for number in range(plan.pairs):
        pair = {}
        for program in everyone:
            with _serving([program], work.durability, scratch) as servers:
                _fill_all(servers, records, lambda text: None)
                machine.wait_until_settled(scratch)  # rewrites and checkpoints take memory too
                pair[program.name] = Figure(machine.resident_bytes(servers[0].pid) / 1e6)
        pairs.append(pair)
        shown = ", ".join(f"{name} {one.value:,.0f} MB" for name, one in pair.items())
        note(f"{work.name} {number + 1} of {plan.pairs}: {shown}")
    told = f"VmRSS of the server's processes with {records:,} records, nothing running"
    return {**_as_row(work, pairs), "measured_by": told}


def _told(work: Work, requests: int, records: int, rate: float | None) -> str:
    """How a row was measured, for the result."""
    if rate is not None:
        return f"marram bench load --rate {rate:.0f} --clients {work.clients} --read-ratio 0"
    if work.measured == BENCHMARK and programs.has_redis_benchmark():
        return " ".join(
            programs.redis_benchmark_command(
                0, work.test, requests, work.clients, work.depth, records, SIZE
            )
        ).replace("-p 0 ", "-p PORT ")
    ratio = _workload(work, records).read
    return (
        f"marram bench load --clients {work.clients} --pipeline {work.depth} --requests {requests}"
        f" --keys {records} --size {SIZE} --read-ratio {ratio:g}"
        + (" --distribution zipfian" if work.measured == LOAD else "")
    )


def _as_row(work: Work, pairs: Sequence[Mapping[str, Figure]]) -> dict[str, Any]:
    """The row as JSON, with the ratios of marram to each other, pair by pair (F1)."""
    others = [name for name in pairs[0] if name != "marram"]
    ratios = {
        name: [pair["marram"].value / max(pair[name].value, 1e-9) for pair in pairs]
        for name in others
    }
    p99 = {
        name: spread([pair[name].p99_ms or 0.0 for pair in pairs])
        for name in pairs[0]
        if pairs[0][name].p99_ms is not None
    }
    return {
        "name": work.name,
        "title": work.title,
        "unit": work.unit,
        "better": work.better,
        "durability": work.durability,
        "target": work.target,
        "pairs": [{name: round(one.value, 4) for name, one in pair.items()} for pair in pairs],
        "medians": {
            name: spread([pair[name].value for pair in pairs])["median"] for name in pairs[0]
        },
        "ratios": {
            name: {key: round(value, 4) for key, value in spread(found).items()}
            for name, found in ratios.items()
        },
        "p99_ms": {name: round(found["median"], 4) for name, found in p99.items()},
    }


def met(row: Mapping[str, Any], peer: str) -> bool:
    """Whether the median ratio to a peer reaches the row's target."""
    ratio = row["ratios"][peer]["median"]
    return bool(ratio >= row["target"] if row["better"] == FASTER else ratio <= row["target"])


def peers_or_raise(found: Sequence[Program], wanted: Sequence[str]) -> list[Program]:
    """Those to compare with; `wanted`: their names, all where there are none. Raises Error."""
    unknown = set(wanted) - {program.name for program in found}
    if unknown:
        raise InvalidArgument(f"not installed: {', '.join(sorted(unknown))}")
    chosen = [program for program in found if not wanted or program.name in wanted]
    if not chosen:
        raise Error("there is neither redis-server nor valkey-server to compare with")
    return chosen
