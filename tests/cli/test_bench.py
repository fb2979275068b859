"""The load generator: it sends what it says and counts what comes."""

from __future__ import annotations

import json
from array import array
from typing import Any

import pytest

from marram.cli.load import Load, Measured, run_load
from marram.client.url import Target
from marram.errors import ServerError
from tests.cli.running import Cli
from tests.server.serving import Running, serving


@pytest.fixture
def running(tmp_path: Any) -> Any:
    with serving(tmp_path) as running:
        yield running


def target_of(running: Running, password: str = "") -> Target:
    host, port = running.address()
    return Target(host, port, password=password)


def calls(running: Running, name: str) -> int:
    def count(server: Any) -> int:
        found = {row.name: row.calls for row in server.node.rows.statistics()}
        return found.get(name, 0)

    return running.call(count)


@pytest.mark.parametrize(
    ("clients", "pipeline", "requests"), [(1, 1, 50), (7, 3, 500), (10, 100, 99), (3, 1, 1)]
)
def test_every_request_is_sent_once_and_answered(running, clients, pipeline, requests):
    load = Load(clients, pipeline, requests, 10, 0.0, 20)
    measured = run_load(target_of(running), load)
    assert (measured.requests, measured.errors) == (requests, 0)
    assert calls(running, "set") == requests
    assert calls(running, "get") == 0
    assert 0 < measured.percentile_ms(50) <= measured.percentile_ms(100)
    assert running.call(lambda server: server.store.stats()["num_keys"]) <= 20


def test_reads_find_what_was_made_before(running):
    told: list[int] = []
    load = Load(4, 5, 2000, 10, 0.75, 30)
    run_load(target_of(running), load, lambda done, seconds: told.append(done))
    assert 1300 < calls(running, "get") < 1700
    assert calls(running, "get") + calls(running, "set") == 2000
    assert running.call(lambda server: server.node.rows.lookups()[1]) == 0  # no misses
    assert told[-1] == 2000


def test_a_server_that_refuses_everything_is_told(tmp_path):
    with serving(tmp_path, password="pw") as running:
        load = Load(2, 1, 10, 10, 0.0, 5)
        with pytest.raises(ServerError, match="NOAUTH"):
            run_load(target_of(running), load)
        assert run_load(target_of(running, "pw"), load).requests == 10


def test_l2_error_replies_are_counted(tmp_path):
    with serving(tmp_path, memory_limit=1000) as running:
        measured = run_load(target_of(running), Load(1, 1, 10, 2000, 0.0, 1000))
        assert (measured.requests, measured.errors) == (10, 9)  # the first one found room


def test_percentiles_are_of_the_sorted_latencies():
    measured = Measured(4, 0, 2.0, array("Q", [1000, 2000, 3000, 4000]))
    assert measured.requests_per_s == 2.0
    assert [measured.percentile_ms(p) for p in (0, 50, 75, 99, 100)] == [1.0, 3.0, 4.0, 4.0, 4.0]
    assert Measured(0, 0, 0.0, array("Q")).percentile_ms(50) == 0.0


def test_bench_starts_a_server_of_its_own(monkeypatch, capfdbinary, tmp_path):
    cli = Cli(monkeypatch, capfdbinary)
    text = cli.ok("bench", "--dir", tmp_path, "--requests", "300", "--clients", "3", "--keys", "9")
    assert "300 requests in" in text
    assert "p99.9" in text
    figures = json.loads(
        cli.ok(
            "bench", "--dir", tmp_path, "--durability", "none", "--requests", "300",
            "--read-ratio", "0", "--size", "0", "--keys", "1", "--json",
        )
    )  # fmt: skip
    assert figures["requests"] == 300
    assert set(figures["latency_ms"]) == {"p50", "p95", "p99", "p99.9", "max"}
    assert list(tmp_path.iterdir()) == []
