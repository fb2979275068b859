"""Loads on a real server: in one process and in several, over every protocol."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any

import pytest

from marram.bench.generator import Load, Measured, run_fill, run_load
from marram.bench.pacing import LoopAlarm, TimerAlarm, make_alarm
from marram.bench.target import Place
from marram.bench.workload import INSERT, KINDS, READ, SCAN, UPDATE, YCSB, Workload
from marram.client.url import Target
from marram.errors import ConnectionLost, InvalidArgument, ServerError
from tests.bench.samples import PLACE, load_of
from tests.server.serving import Running, serving

MIXED = Workload(records=30, size_min=5, size_max=50)


@pytest.fixture
def running(tmp_path: Any) -> Any:
    with serving(tmp_path, http_port=0, frame_port=0) as running:
        yield running


def place_of(running: Running, protocol: str = "resp", password: str = "") -> Place:
    host, port = running.address(protocol)
    return Place(protocol, Target(host, port, password=password))


def calls(running: Running, name: str) -> int:
    def count(server: Any) -> int:
        return {row.name: row.calls for row in server.node.rows.statistics()}.get(name, 0)

    return running.call(count)


def keys(running: Running) -> int:
    return running.call(lambda server: server.store.stats()["num_keys"])


@pytest.mark.parametrize(
    ("clients", "depth", "requests"), [(1, 1, 50), (7, 3, 500), (10, 100, 99), (3, 1, 1)]
)
def test_every_request_is_sent_once_and_answered(running, clients, depth, requests):
    workload = Workload(read=0, update=1, records=20)
    load = load_of(place_of(running), workload, clients=clients, depth=depth, requests=requests)
    measured = run_load(load)
    assert (measured.requests, measured.errors, measured.unsent) == (requests, 0, 0)
    assert (calls(running, "set"), calls(running, "get")) == (requests, 0)
    assert 0 < measured.overall.percentile(50) <= measured.overall.maximum
    assert keys(running) <= 20


@pytest.mark.parametrize("protocol", ["resp", "http", "frame"])
def test_reads_find_what_was_filled_in_before(running, protocol):
    told: list[tuple[str, int]] = []
    load = load_of(place_of(running, protocol), MIXED, depth=4, requests=400, fill=True)
    measured = run_load(load, lambda title, done, seconds: told.append((title, done)))
    assert (measured.requests, measured.errors, measured.misses) == (400, 0, 0)
    assert keys(running) == 30
    assert 150 < measured.latencies[READ].count < 250
    assert measured.latencies[READ].count + measured.latencies[UPDATE].count == 400
    assert ("fill", 30) in told
    assert told[-1] == ("load", 400)
    assert measured.fill_s > 0


def test_reads_of_what_is_not_there_are_misses(running):
    measured = run_load(load_of(place_of(running), Workload(read=1, update=0), requests=100))
    assert (measured.misses, measured.errors) == (100, 0)


@pytest.mark.parametrize("letter", sorted(YCSB))
def test_every_ycsb_workload_runs_without_a_miss(running, letter):
    workload = Workload(records=200, size_min=20, size_max=20, **YCSB[letter])
    load = load_of(place_of(running), workload, depth=3, requests=600, fill=True)
    measured = run_load(load)
    assert (measured.requests, measured.errors, measured.misses) == (600, 0, 0)
    for kind, share in enumerate(workload.shares):
        assert (measured.latencies[kind].count > 0) == (share > 0), KINDS[kind]
    assert keys(running) == 200 + measured.latencies[INSERT].count
    if letter == "e":
        assert calls(running, "scanrange") == measured.latencies[SCAN].count


def test_scans_work_over_http(running):
    workload = Workload(read=0, update=0, scan=1, records=50)
    measured = run_load(load_of(place_of(running, "http"), workload, requests=50, fill=True))
    assert (measured.requests, measured.errors) == (50, 0)


def test_an_open_loop_keeps_its_rate(running):
    load = load_of(place_of(running), MIXED, requests=300, rate=1000, clients=4)
    measured = run_load(load)
    assert measured.requests == 300
    assert measured.unsent == 0
    # The last one is due after 299 ms: sooner would be too fast, whatever the machine does.
    assert measured.seconds >= 0.299


@pytest.mark.parametrize("rate", [None, 2000.0])
def test_g2_several_processes_share_a_load(running, rate):
    workload = Workload(read=0, update=0.5, insert=0.5, records=10)
    load = load_of(
        place_of(running), workload, clients=5, requests=401, processes=2, rate=rate, fill=True
    )
    told: list[int] = []
    measured = run_load(load, lambda title, done, seconds: told.append(done))
    assert (measured.requests, measured.errors) == (401, 0)
    assert calls(running, "set") == 401 + 10
    assert keys(running) == 10 + measured.latencies[INSERT].count  # none inserted twice
    assert measured.overall.count == 401


def test_g2_what_goes_wrong_in_a_worker_is_told():
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    place = Place("resp", Target("127.0.0.1", port))
    with pytest.raises(ConnectionLost, match="cannot connect"):
        run_load(load_of(place, processes=2))


def test_g4_a_worker_is_told_the_password_but_not_by_its_arguments(tmp_path, monkeypatch):
    started: list[tuple[str, ...]] = []
    original = asyncio.create_subprocess_exec

    async def noting(*arguments: str, **options: Any) -> Any:
        started.append(arguments)
        return await original(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noting)
    with serving(tmp_path, password="a secret") as running:
        place = place_of(running, password="a secret")
        measured = run_load(load_of(place, MIXED, processes=2, requests=20))
    assert measured.requests == 20
    assert started == [(sys.executable, "-m", "marram.bench.worker")] * 2


@pytest.mark.parametrize("protocol", ["resp", "http", "frame"])
def test_a_password_lets_in_and_none_is_refused(tmp_path, protocol):
    with serving(tmp_path, password="pw", http_port=0, frame_port=0) as running:
        with pytest.raises(ServerError, match=r"(?i)noauth|password"):
            run_load(load_of(place_of(running, protocol)))
        place = place_of(running, protocol, "pw")
        assert run_load(load_of(place, MIXED, requests=10)).requests == 10


def test_error_replies_are_counted(tmp_path):
    with serving(tmp_path, memory_limit=1000) as running:
        workload = Workload(read=0, update=1, records=1000, size_min=2000, size_max=2000)
        measured = run_load(load_of(place_of(running), workload, clients=1, requests=10))
        assert (measured.requests, measured.errors) == (10, 9)  # the first one found room
        assert "OOM" in measured.last_error
        with pytest.raises(ServerError, match="OOM"):
            run_load(load_of(place_of(running), workload, clients=1, requests=10))
        with pytest.raises(ServerError, match="OOM"):
            run_fill(place_of(running), workload)


def test_nobody_there_is_told():
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(ConnectionLost, match="cannot connect"):
        run_load(load_of(Place("resp", Target("127.0.0.1", port))))


def test_shares_add_up_to_the_load():
    load = load_of(PLACE, clients=7, requests=100, rate=30.0, processes=3)
    shares = [load.share(number) for number in range(3)]
    assert sum(one.clients for one in shares) == 7
    assert sum(one.requests or 0 for one in shares) == 100
    assert sum(one.rate or 0 for one in shares) == pytest.approx(30)
    assert not any(one.fill for one in shares)


def test_a_load_and_what_it_measured_survive_json():
    load = load_of(Place("http", Target("h", 1, password="p")), MIXED, requests=None, seconds=2.5)
    assert Load.from_json(json.loads(json.dumps(load.as_json()))) == load
    measured = Measured(seconds=1.5, errors=2, last_error="x", unsent=3)
    measured.latencies[READ].record(5)
    measured.waited.record(7)
    again = Measured.from_json(json.loads(json.dumps(measured.as_json())))
    assert again.as_json() == measured.as_json()


@pytest.mark.parametrize(
    "options",
    [{"requests": None}, {"seconds": 1.0}, {"clients": 0}, {"depth": 0}, {"processes": 3},
     {"requests": 1, "processes": 2},
     {"rate": 0.0}, {"requests": 0}, {"requests": None, "seconds": -1.0}],
)  # fmt: skip
def test_what_is_no_load_is_refused(options):
    with pytest.raises(InvalidArgument):
        load_of(**options)
    with pytest.raises(InvalidArgument, match="ranges"):
        load_of(Place("frame", Target("h", 1)), Workload(**YCSB["e"]))


@pytest.mark.parametrize("kind", [LoopAlarm, TimerAlarm])
def test_an_alarm_rings_once_for_its_last_time_and_not_before(kind):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        rung: list[float] = []
        done = asyncio.Event()

        def ring() -> None:
            rung.append(loop.time())
            done.set()

        alarm = kind(ring)
        started = loop.time()
        alarm.set(3600 * 10**9)
        alarm.set(20_000_000)
        await asyncio.wait_for(done.wait(), 20)
        assert rung[0] - started > 0.018
        alarm.set(10**6)
        alarm.close()
        alarm.close()
        await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=0.01)
        assert len(rung) == 1

    asyncio.run(main())


def test_without_a_timer_descriptor_the_loops_own_timer_serves(monkeypatch):
    monkeypatch.setattr("marram.bench.pacing.ctypes.CDLL", lambda *_, **__: object())

    async def main() -> None:
        assert isinstance(make_alarm(lambda: None), LoopAlarm)

    asyncio.run(main())
