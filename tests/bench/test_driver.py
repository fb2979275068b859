"""When requests are sent and what counts as their latency, in simulated time."""

from __future__ import annotations

from typing import Any

import pytest

from marram.bench.driver import Tally
from marram.bench.generator import Load, Measured, drive, stream_of
from marram.bench.pacing import LoopAlarm
from marram.bench.workload import HALF, READ, UPDATE, Workload
from marram.errors import ConnectionLost, ServerError
from tests.bench.samples import READS, load_of
from tests.bench.simulated import FakeServer, SimulatedLoop, run_simulated

STALL = (3.0, 4.0)
SERVICE_S = 0.0001


def simulate(load: Load, **server: Any) -> tuple[Measured, FakeServer]:
    made: list[FakeServer] = []

    async def main(loop: SimulatedLoop) -> Measured:
        made.append(FakeServer(loop, **{"service_s": SERVICE_S, **server}))
        return await drive(
            load, made[0].connect, stream_of(load, 0, 1), clock=loop.clock_ns, alarms=LoopAlarm
        )

    measured = run_simulated(lambda loop: main(loop))
    return measured, made[0]


def p_ms(measured: Measured, percent: float) -> float:
    return measured.overall.percentile(percent) / 1e6


def test_d2_a_closed_loop_hides_a_stall_behind_the_requests_it_did_not_send():
    measured, _ = simulate(load_of(clients=1, requests=10_000), stall=(0.3, 1.3))
    assert p_ms(measured, 99.9) < 0.2
    assert p_ms(measured, 100) == pytest.approx(1000, rel=0.01)


def test_d3_an_open_loop_counts_the_stall_for_every_request_that_was_due_in_it():
    load = load_of(clients=1, requests=None, seconds=10, rate=1000)
    measured, server = simulate(load, stall=STALL)
    assert measured.requests == server.received == 10_000
    # A tenth of the requests were due during the stall, evenly: they waited 0 .. 1 s, and then for
    # those before them. One request alone was under way.
    assert p_ms(measured, 85) < 0.2
    assert p_ms(measured, 95) == pytest.approx(500, rel=0.25)
    assert p_ms(measured, 99) == pytest.approx(900, rel=0.1)
    assert p_ms(measured, 100) == pytest.approx(1000, rel=0.02)


def test_d3_the_rate_is_kept_evenly():
    load = load_of(clients=5, requests=2000, rate=500)
    measured, _ = simulate(load)
    assert measured.seconds == pytest.approx(4, rel=0.01)
    assert p_ms(measured, 100) == pytest.approx(SERVICE_S * 1000, rel=0.6)
    assert measured.unsent == 0


def test_d3_overdue_requests_go_out_as_soon_as_a_connection_is_free():
    load = load_of(clients=2, depth=3, requests=1000, rate=100_000)
    measured, _ = simulate(load, service_s=0.001)
    assert measured.seconds == pytest.approx(1.0, rel=0.01)  # the server's pace, without a gap
    assert p_ms(measured, 100) == pytest.approx(990, rel=0.02)


def test_d3_what_is_given_up_counts_with_the_time_it_waited():
    load = load_of(clients=2, requests=None, seconds=1, rate=10_000)
    measured, server = simulate(load, service_s=0.01)
    assert measured.requests == server.received == pytest.approx(700, abs=20)
    assert measured.requests + measured.unsent == 10_000
    assert measured.overall.count == 10_000
    assert p_ms(measured, 50) > 6000
    assert measured.latencies[READ].count == measured.requests


def test_d1_each_reply_of_a_pipeline_has_its_own_latency():
    load = load_of(clients=1, depth=10, requests=10)
    measured, _ = simulate(load, service_s=0.01)
    assert [p_ms(measured, percent) for percent in (10, 50, 100)] == [
        pytest.approx(wanted, rel=0.01) for wanted in (10, 50, 100)
    ]


def test_d1_latencies_go_to_the_kinds_whose_replies_came():
    tally = Tally()
    kinds = bytes((READ, UPDATE, READ, HALF, UPDATE, UPDATE))
    tally.record(kinds, 0, 3, 10)
    tally.record(kinds, 3, 6, 20)
    tally.record(kinds, 4, 6, 30)
    found = [[(low, count) for low, _, count in one.buckets()] for one in tally.latencies]
    assert found[READ] == [(10, 2)]
    assert found[UPDATE] == [(10, 1), (20, 2), (30, 2)]
    assert tally.done == 7  # half a read-modify-write is none
    tally.record(bytes((READ, READ, UPDATE)), 1, 3, 40)
    assert (tally.latencies[READ].count, tally.latencies[UPDATE].count) == (3, 6)


@pytest.mark.parametrize(("clients", "depth", "requests"), [(1, 1, 1), (3, 7, 100), (10, 100, 99)])
def test_every_request_is_sent_once(clients, depth, requests):
    measured, server = simulate(load_of(clients=clients, depth=depth, requests=requests))
    assert measured.requests == server.received == requests


def test_a_load_of_seconds_ends_after_them(monkeypatch):
    monkeypatch.setattr("marram.bench.workload.POOL_REQUESTS_UNKNOWN", 100)
    load = load_of(clients=2, requests=None, seconds=3)
    measured, _ = simulate(load, service_s=0.001)
    assert measured.seconds == pytest.approx(3, abs=0.25)  # it looks five times a second
    assert measured.requests == pytest.approx(3000, abs=5)


def test_d1_a_read_modify_write_takes_until_its_second_reply():
    workload = Workload(read=0, update=0, modify=1, records=10)

    class Answering(FakeServer):
        def take(self, data, connection):
            super().take(data.replace(b"$3\r\nSET", b"$3\r\nGET"), connection)

    async def main(loop: SimulatedLoop) -> Measured:
        load = load_of(workload=workload, clients=1, depth=1, requests=20)
        server = Answering(loop, 0.005)
        return await drive(load, server.connect, stream_of(load, 0, 1), clock=loop.clock_ns)

    measured = run_simulated(lambda loop: main(loop))
    assert measured.requests == 20
    assert p_ms(measured, 0) == pytest.approx(10, rel=0.01)


def test_g3_a_silent_server_ends_the_run_with_an_error():
    for load in (load_of(requests=50), load_of(requests=50, rate=10)):
        with pytest.raises(ConnectionLost, match="said nothing for 30 s"):
            simulate(load, silent_after=5)


def test_a_server_that_does_not_greet_ends_the_run_with_an_error():
    class Mute(FakeServer):
        def take(self, data, connection):
            del data, connection

    async def main(loop: SimulatedLoop) -> Measured:
        load = load_of()
        return await drive(load, Mute(loop, 1).connect, stream_of(load, 0, 1), clock=loop.clock_ns)

    with pytest.raises(ConnectionLost, match="does not answer"):
        run_simulated(lambda loop: main(loop))


def test_more_replies_than_requests_are_an_error():
    with pytest.raises(ConnectionLost, match="more replies"):
        simulate(load_of(clients=1), reply=b"$1\r\nx\r\n$1\r\nx\r\n")


def test_misses_and_errors_are_told_apart():
    measured, _ = simulate(load_of(requests=10), reply=b"$-1\r\n")
    assert (measured.misses, measured.errors) == (10, 0)
    measured, _ = simulate(load_of(requests=10), reply=b"-ERR no\r\n")
    assert (measured.misses, measured.errors, measured.last_error) == (0, 10, "ERR no")


def test_a_refused_greeting_ends_the_run():
    class Refusing(FakeServer):
        def take(self, data, connection):
            self._loop.call_soon(connection.data_received, b"-NOAUTH no\r\n")

    async def main(loop: SimulatedLoop) -> Measured:
        load = load_of(workload=READS)
        return await drive(
            load, Refusing(loop, 1).connect, stream_of(load, 0, 1), clock=loop.clock_ns
        )

    with pytest.raises(ServerError, match="NOAUTH"):
        run_simulated(lambda loop: main(loop))
