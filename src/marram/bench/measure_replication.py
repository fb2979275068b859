"""What replication costs and what it gives: throughput, lag, ack levels, failover, catching up.

Owns the measurements, their order and the result; not the servers (replica_set.py), not what is
shown (report_replication.py).

R1  set-ups are measured in turn, round by round, each on new servers and an empty directory, and
    ratios are taken round by round: a shared machine's speed drifts. While one is measured no
    other server runs.
R2  a run ends for the clock with its last reply; processor time is counted until every replica has
    it all on disk, so that nothing that was put off is left out.
R3  processor time of the primary for 1,000 requests is what a replica costs it. Throughput is not,
    where the replicas run on the primary's own cores: they take from it what another machine's
    would not.

Threading: the main thread, and what lag.py says.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from marram.bench import machine
from marram.bench.failover import Failover, fail_over
from marram.bench.generator import Load, Measured, run_fill, run_load
from marram.bench.lag import POLL_S, SAMPLE_S, LagWatch
from marram.bench.programs import Marram
from marram.bench.replica_set import LOCAL, Level, ReplicaSet, replica_set
from marram.bench.results import envelope, latency_ms, spread
from marram.bench.workload import Workload
from marram.errors import Error, InvalidArgument

PARTS: Final = ("throughput", "levels", "lag", "failover", "catch-up")
QUICK: Final = 10  # a quick run has so many times less to do
REPLICAS_MAX: Final = 8
_RECORDS: Final = 100_000
_WARM_UP: Final = 5  # a warm-up is so many times shorter
_FAILOVER_S: Final = 1.0  # of load before the kill
_LARGE_BYTES: Final = 4096
_LARGE_TIMES: Final = 16  # so many times fewer records of that size
_LOOK_S: Final = 0.005
_BACK_S: Final = 300.0  # by when a replica that was away has caught up
_PROCESSES: Final = 2  # of the load while lags are sampled
COST_MAX: Final = 0.15
"""Of the throughput, for one asynchronous replica: the aim."""

Note = Callable[[str], None]
"""Told what is going on, a line each."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    replicas: at most in one set-up. rounds: of each set-up, and of each failover. seconds: of a
    run; clients, size_bytes: of every load. rate, lag_seconds: of the open loop that lags are
    sampled under. catch_up: writes that a replica misses. parts: of PARTS. Raises InvalidArgument.
    """

    replicas: int = 2
    rounds: int = 3
    seconds: float = 2.0
    clients: int = 50
    size_bytes: int = 100
    rate: float = 5000.0
    lag_seconds: float = 8.0
    catch_up: int = 300_000
    engine: str = "memory"
    durability: str = "sync"
    directory: str | None = None
    parts: tuple[str, ...] = PARTS
    is_quick: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.replicas <= REPLICAS_MAX:
            raise InvalidArgument(f"1 to {REPLICAS_MAX} replicas can be measured")
        if min(self.rounds, self.clients, self.catch_up) < 1:
            raise InvalidArgument("rounds, clients and missed writes are at least 1")
        if min(self.rate, self.seconds, self.lag_seconds) <= 0:
            raise InvalidArgument("rate and seconds are above 0")
        unknown = set(self.parts) - set(PARTS)
        if unknown:
            known = ", ".join(PARTS)
            raise InvalidArgument(f"no part is called {', '.join(unknown)}; there are {known}")

    def quick(self) -> Plan:
        """A tenth of everything, once: to see that it works."""
        return replace(
            self, rounds=1, seconds=self.seconds / QUICK, lag_seconds=self.lag_seconds / QUICK,
            catch_up=max(100, self.catch_up // QUICK), is_quick=True,
        )  # fmt: skip

    @property
    def levels(self) -> tuple[Level, ...]:
        """Ack levels: none, one replica, as many as make a majority with the primary, all."""
        majority = (self.replicas + 1) // 2
        counts = sorted({1, majority, self.replicas})
        return (LOCAL, *(Level(acks, on_disk) for acks in counts for on_disk in (False, True)))

    def workload(self, records: int = _RECORDS, size: int | None = None) -> Workload:
        """SETs."""
        size = self.size_bytes if size is None else size
        return Workload(read=0, update=1, records=records, size_min=size, size_max=size)


class SetUp(NamedTuple):
    """Servers that are compared with others."""

    replicas: int
    level: Level = LOCAL

    @property
    def name(self) -> str:
        """For results."""
        if not self.replicas:
            return "alone"
        plural = "" if self.replicas == 1 else "s"
        asked = "" if self.level == LOCAL else f", {self.level.name}"
        return f"{self.replicas} replica{plural}{asked}"


def measure(plan: Plan, command: str, note: Note) -> dict[str, Any]:
    """Run it all; the result. Raises Error: a server does not start, or fails."""
    program = Marram(plan.engine)
    with tempfile.TemporaryDirectory(prefix="marram-bench-", dir=plan.directory) as scratch:
        about = {
            **machine.hardware(scratch, command),
            "versions": {f"marram ({plan.engine})": program.version()},
            "durability": f"{plan.durability}, of the primary and of every replica",
        }
        steps: dict[str, Callable[[Plan, str, Note], Any]] = {
            "set_ups": _set_ups,
            "lag": _lag,
            "failover": _failovers,
            "catch_up": _catch_ups,
        }
        found = {name: step(plan, scratch, note) for name, step in steps.items()}
    settings = {
        name: value for name, value in asdict(plan).items() if name not in ("directory", "is_quick")
    }
    settings |= {"parts": list(plan.parts), "quick": plan.is_quick}
    return envelope("replication", about, settings, **found)


def lost_writes(result: Mapping[str, Any]) -> list[str]:
    """A line for each ack level that lost writes it had promised to keep; the bench fails then."""
    return [
        f"{row['lost']} acknowledged writes were lost at the level {row['level']}"
        for row in result["failover"]
        if row["acks"] and row["lost"]
    ]


@contextmanager
def _servers(plan: Plan, scratch: str, replicas: int, level: Level = LOCAL) -> Iterator[ReplicaSet]:
    """A set of new servers on empty directories (R1)."""
    with (
        tempfile.TemporaryDirectory(prefix="set-", dir=scratch) as place,
        replica_set(place, plan.engine, plan.durability, replicas, level) as servers,
    ):
        yield servers


# -- throughput, and the cost of ack levels --------------------------------------------------------


def _set_ups(plan: Plan, scratch: str, note: Note) -> list[dict[str, Any]]:
    """The table: every set-up once a round (R1)."""
    chosen: list[SetUp] = []
    if "throughput" in plan.parts:
        chosen += [SetUp(count) for count in range(plan.replicas + 1)]
    if "levels" in plan.parts:
        chosen += [SetUp(plan.replicas, level) for level in plan.levels]
    chosen = list(dict.fromkeys(chosen))
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(plan.rounds if chosen else 0):
        rounds.append({one.name: _run(plan, scratch, one) for one in chosen})
        shown = "; ".join(
            f"{name} {figures['requests_per_s']:,.0f}/s" for name, figures in rounds[-1].items()
        )
        note(f"set-ups, round {number + 1} of {plan.rounds}: {shown}")
    return [_row(one, rounds, SetUp(0).name, SetUp(plan.replicas).name) for one in chosen]


def _run(plan: Plan, scratch: str, set_up: SetUp) -> dict[str, float]:
    """One run of a set-up: its figures."""
    with _servers(plan, scratch, *set_up) as servers:
        place = servers.primary.running.place
        load = Load(
            place, plan.workload(), clients=plan.clients, requests=None, seconds=plan.seconds,
            fill=False,
        )  # fmt: skip
        run_load(replace(load, seconds=plan.seconds / _WARM_UP))
        servers.wait_caught_up()
        before = servers.cpu_seconds()
        measured = _checked(run_load(load))
        behind_s = servers.wait_caught_up()  # R2
        spent = [now - then for now, then in zip(servers.cpu_seconds(), before, strict=True)]
    thousands = max(1, measured.requests) / 1000
    latency = latency_ms(measured.overall)
    return {
        "requests_per_s": round(measured.requests_per_s, 1),
        "p50_ms": latency["p50"],
        "p99_ms": latency["p99"],
        "primary_cpu_ms": round(1e3 * spent[0] / thousands, 3),
        "replica_cpu_ms": round(1e3 * sum(spent[1:]) / thousands / max(1, len(spent) - 1), 3),
        "caught_up_ms": round(1e3 * behind_s, 3),
    }


def _checked(measured: Measured) -> Measured:
    if measured.errors:
        raise Error(f"the primary refused {measured.errors} requests: {measured.last_error}")
    return measured


def _row(
    set_up: SetUp, rounds: Sequence[Mapping[str, Mapping[str, float]]], alone: str, local: str
) -> dict[str, Any]:
    """A set-up as JSON, with its ratios to the primary alone and to replicas nobody waits for."""
    own = [one[set_up.name] for one in rounds]
    ratios = {
        against: {
            figure: spread([
                one[set_up.name][figure] / max(one[other][figure], 1e-9) for one in rounds
            ])
            for figure in ("requests_per_s", "primary_cpu_ms")
        }
        for against, other in (("alone", alone), ("local", local))
        if other in rounds[0] and other != set_up.name
    }  # fmt: skip
    return {
        "name": set_up.name,
        "replicas": set_up.replicas,
        "level": set_up.level.name,
        "acks": set_up.level.acks,
        "on_disk": set_up.level.on_disk,
        "rounds": own,
        "medians": {name: spread([one[name] for one in own])["median"] for name in own[0]},
        "ratios": {
            against: {
                figure: {key: round(value, 4) for key, value in found.items()}
                for figure, found in figures.items()
            }
            for against, figures in ratios.items()
        },
    }


# -- lag -------------------------------------------------------------------------------------------


def _lag(plan: Plan, scratch: str, note: Note) -> dict[str, Any] | None:
    """Lags under an open loop; None where they are left out."""
    if "lag" not in plan.parts:
        return None
    with _servers(plan, scratch, plan.replicas) as servers:
        place = servers.primary.running.place
        load = Load(
            place, plan.workload(), clients=plan.clients, requests=None, seconds=plan.lag_seconds,
            rate=plan.rate, processes=min(_PROCESSES, plan.clients), fill=False,
        )  # fmt: skip
        with LagWatch(servers) as watch:
            measured = _checked(run_load(load, apart=True))
        if watch.error is not None:
            raise watch.error
        servers.wait_caught_up()
    result = {
        "rate_per_s": plan.rate,
        "requests": measured.requests,
        "unsent": measured.unsent,
        "requests_per_s": round(measured.requests_per_s, 1),
        "latency_ms": latency_ms(measured.overall),
        "samples": watch.seen.count,
        "every_ms": SAMPLE_S * 1e3,
        "resolution_ms": POLL_S * 1e3,
        "reported_ms": latency_ms(watch.reported),
        "seen_ms": latency_ms(watch.seen),
        "reported_bytes": {"p50": watch.bytes.percentile(50), "max": watch.bytes.maximum},
        "histograms": {"reported": watch.reported.as_json(), "seen": watch.seen.as_json()},
    }
    seen, reported = latency_ms(watch.seen), latency_ms(watch.reported)
    note(
        f"lag at {plan.rate:,.0f}/s, p50/p99/max ms: seen {seen['p50']:.2f}/{seen['p99']:.2f}/"
        f"{seen['max']:.2f}, reported {reported['p50']:.2f}/{reported['p99']:.2f}/"
        f"{reported['max']:.2f}"
    )
    return result


# -- failover --------------------------------------------------------------------------------------


def _failovers(plan: Plan, scratch: str, note: Note) -> list[dict[str, Any]]:
    """Failovers at every level that asks for disks, in turn.

    Who asks for `received` is no worse off here: the replicas live, and sync what they have.
    """
    if "failover" not in plan.parts:
        return []
    levels = [level for level in plan.levels if level.on_disk]
    found: dict[Level, list[Failover]] = {level: [] for level in levels}
    seconds = _FAILOVER_S / (2 if plan.is_quick else 1)
    for number in range(plan.rounds):
        for level in levels:
            with _servers(plan, scratch, plan.replicas, level) as servers:
                one = fail_over(servers, level, plan.clients, plan.size_bytes, seconds)
            found[level].append(one)
            note(
                f"failover, {level.name}, {number + 1} of {plan.rounds}: written after"
                f" {one.written_ms:.1f} ms, {one.lost} of {one.acknowledged:,} lost"
            )
    return [_failover_row(level, rounds) for level, rounds in found.items()]


def _failover_row(level: Level, rounds: Sequence[Failover]) -> dict[str, Any]:
    times = ("noticed_ms", "promoted_ms", "written_ms", "leveled_ms")
    figures = {name: [getattr(one, name) for one in rounds] for name in times}
    return {
        "level": level.name,
        "acks": level.acks,
        "rounds": [asdict(one) for one in rounds],
        "acknowledged": sum(one.acknowledged for one in rounds),
        "lost": sum(one.lost for one in rounds),
        **{
            name: None if None in found else {
                key: round(value, 3) for key, value in spread(found).items()
            }
            for name, found in figures.items()
        },
    }  # fmt: skip


# -- catching up -----------------------------------------------------------------------------------


def _catch_ups(plan: Plan, scratch: str, note: Note) -> list[dict[str, Any]]:
    """A replica that was away comes back: small values, and larger ones."""
    if "catch-up" not in plan.parts:
        return []
    rows = []
    sizes = {plan.size_bytes: plan.catch_up, _LARGE_BYTES: max(1, plan.catch_up // _LARGE_TIMES)}
    for size, records in sizes.items():
        with _servers(plan, scratch, 1) as servers:
            row = _catch_up(servers, plan.workload(records, size))
        rows.append(row)
        note(
            f"catching up, {records:,} writes of {size} bytes: {row['mb']:.1f} MB in"
            f" {row['seconds']:.2f} s, {row['mb_per_s']:.1f} MB/s"
        )
    return rows


def _catch_up(servers: ReplicaSet, workload: Workload) -> dict[str, Any]:
    """Stop the replica, write, start it again; how fast it comes along, of the log's bytes.

    The rate is of the time it takes batches in: from when it is first seen to do so, for a start
    of the process is not part of it, to when the last one is on its disk.
    """
    away = servers.replicas.pop()
    before = away.inquiry.durable()
    away.stop()
    run_fill(servers.primary.running.place, workload)
    wanted = servers.primary.inquiry.committed()
    started = time.perf_counter()
    replica = servers.follow(Path(away.directory))
    first = (time.perf_counter(), replica.inquiry.replication()["received_bytes"])
    opened = first[0]
    deadline = started + _BACK_S
    while replica.inquiry.durable() < wanted:
        if time.perf_counter() > deadline:
            raise Error(f"the replica is not back after {_BACK_S:g} s")
        time.sleep(_LOOK_S)
        if not first[1]:
            first = (time.perf_counter(), replica.inquiry.replication()["received_bytes"])
    ended = time.perf_counter()
    told = replica.inquiry.replication()
    total = told["received_bytes"]
    window_s, window = ended - first[0], total - first[1]
    # Where most of it came before the first look, the time since the start is what is known.
    rate = window / window_s if window > total / 2 else total / (ended - started)
    return {
        "writes": wanted - before,
        "size_bytes": workload.size_max,
        "by": "a full copy" if told["upstream"]["full_syncs"] else "the log",
        "mb": round(total / 1e6, 3),
        "seconds": round(ended - started, 4),
        "ready_s": round(opened - started, 4),
        "mb_per_s": round(rate / 1e6, 2),
        "writes_per_s": round((wanted - before) * rate / max(1, total), 1),
    }


def shared_cores(cores: int, replicas: int) -> str:
    """What to say where the replicas take the primary's own cores (R3); "" where there is room."""
    if cores >= replicas + 2:
        return ""
    return (
        f"{cores} cores for a primary, {replicas} replicas and the load: the replicas take from the"
        " primary what those on other machines would not. What they cost it is its processor time"
        " for 1,000 requests."
    )
