"""Results and loads to test with."""

from __future__ import annotations

from typing import Any

from marram.bench.compare_servers import WORK, Figure, _as_row
from marram.bench.failover import Failover
from marram.bench.generator import Load, Measured
from marram.bench.histogram import Histogram
from marram.bench.measure_replication import Plan, SetUp, _failover_row, _row
from marram.bench.replica_set import LOCAL, Level
from marram.bench.results import envelope, latency_ms, load_result
from marram.bench.target import Place, parse_place
from marram.bench.workload import READ, UPDATE, Workload

COMMAND = "marram bench load --connect marram://:secret@127.0.0.1:7379 --clients 2"
PLACE = parse_place("127.0.0.1:7379")
READS = Workload(read=1, update=0, records=100)


def about(**more: Any) -> dict[str, Any]:
    """What a result was measured on."""
    return {
        "cpu": "Some CPU", "cpus": 2, "memory_bytes": 8 << 30, "file_system": "ext4 on /dev/sda",
        "kernel": "6.1", "python": "3.11.7", "marram": "0.1.0", "commit": "abc1234",
        "command": COMMAND, "started": "2026-01-01T00:00:00Z",
        "versions": {"marram (memory)": "0.1.0"}, "durability": "sync", **more,
    }  # fmt: skip


def load_of(place: Place = PLACE, workload: Workload = READS, **options: Any) -> Load:
    """A load with small defaults."""
    values: dict[str, Any] = {"clients": 2, "requests": 100, "fill": False, **options}
    return Load(place, workload, **values)


def load_sample() -> dict[str, Any]:
    """A load's result."""
    measured = Measured(seconds=2.0, timeline=[(0.5, 400), (1.0, 900), (2.0, 2000), (2.01, 2000)])
    for number in range(1000):
        measured.latencies[READ].record(1_000_000 + 1000 * number)
        measured.latencies[UPDATE].record(2_000_000 + 1000 * number)
    mixed = Workload(records=100)
    return load_result(load_of(workload=mixed, requests=2000), measured, about())


def server_sample(peers: tuple[str, ...] = ("redis-server", "valkey-server")) -> dict[str, Any]:
    """A result of marram bench server: every row, marram twice as fast as the first peer."""
    rows = []
    for work in WORK:
        pair = {name: Figure(1000.0 * (1 + at), 1.5) for at, name in enumerate(peers)}
        better = 2000.0 if work.better == "higher" else 500.0
        rows.append(_as_row(work, [{**pair, "marram": Figure(better, 1.0)}] * 3))
    versions = dict.fromkeys((*peers, "marram"), "1.2.3")
    settings = {"pairs": 3, "quick": False, "engine": "memory", "order": [*peers, "marram"]}
    return envelope("server", about(versions=versions), settings, programs=versions, rows=rows)


def replication_sample() -> dict[str, Any]:
    """A result of marram bench replication: each replica costs a tenth of 1,000 requests/s."""
    one_on_disk = Level(1)
    speeds = {SetUp(0): 1000.0, SetUp(1): 900.0, SetUp(2): 800.0, SetUp(2, one_on_disk): 500.0}
    rounds = [
        {
            set_up.name: {
                "requests_per_s": speed, "p50_ms": 1.5, "p99_ms": 4.5, "caught_up_ms": 3.0,
                "primary_cpu_ms": 2e4 / speed, "replica_cpu_ms": 7.25,
            }
            for set_up, speed in speeds.items()
        }
    ] * 3  # fmt: skip
    lags = Histogram()
    for number in range(100):
        lags.record(1_000_000 * number)
    failovers = {
        LOCAL: [Failover(5.0, 8.0, 9.5, None, 5000, 40)] * 3,
        one_on_disk: [Failover(5.0, 8.0, 9.5, 21.5, 4000, 0)] * 3,
    }
    return envelope(
        "replication", about(), {"quick": False, "replicas": 2, "rounds": 3, "clients": 50,
                                 "size_bytes": 100, "parts": list(Plan().parts)},
        set_ups=[_row(one, rounds, SetUp(0).name, SetUp(2).name) for one in speeds],
        lag={
            "rate_per_s": 5000.0, "requests_per_s": 4999.0, "unsent": 0, "samples": 100,
            "seen_ms": latency_ms(lags), "reported_ms": latency_ms(lags),
            "histograms": {"seen": lags.as_json(), "reported": lags.as_json()},
        },
        failover=[_failover_row(level, found) for level, found in failovers.items()],
        catch_up=[{"writes": 300_000, "size_bytes": 100, "by": "the log", "mb": 40.8,
                   "seconds": 1.25, "mb_per_s": 51.5, "writes_per_s": 378_000.0}],
    )  # fmt: skip
