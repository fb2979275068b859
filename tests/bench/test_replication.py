"""Replication is measured by what it says it is, and what was lost is found."""

from __future__ import annotations

import os

import pytest

from marram.bench import failover, lag, replica_set
from marram.bench.failover import fail_over, key_of
from marram.bench.lag import LagWatch
from marram.bench.machine import cpu_seconds
from marram.bench.measure_replication import Plan, SetUp, _row, lost_writes, shared_cores
from marram.bench.report import cost_of_one
from marram.errors import Error, InvalidArgument
from tests.bench.samples import replication_sample


def servers_in(directory, replicas, level=replica_set.LOCAL):
    return replica_set.replica_set(str(directory), "memory", "none", replicas, level)


def leave(servers):
    """Have the only replica follow nobody."""
    servers.replicas[0].inquiry.ask(b"REPLICAOF", b"127.0.0.1", b"1")


# -- servers ---------------------------------------------------------------------------------------


def test_s1_a_set_is_ready_when_its_replica_has_what_the_primary_has(tmp_path):
    with servers_in(tmp_path, 1) as servers:
        assert servers.replicas[0].inquiry.ask(b"GET", b"ready") == b"1"
        told = servers.primary.inquiry.replication()
        assert [one["state"] for one in told["replicas"]] == ["online"]
        servers.primary.inquiry.ask(b"SET", b"more", b"2")
        servers.wait_caught_up()
        assert servers.replicas[0].inquiry.durable() == servers.primary.inquiry.committed()
        assert len(servers.cpu_seconds()) == 2
        assert min(servers.cpu_seconds()) > 0
        pids = [one.running.pid for one in servers.members]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_s2_a_replica_that_does_not_come_along_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(replica_set, "CATCH_UP_S", 0.05)
    with servers_in(tmp_path, 0) as servers, pytest.raises(Error, match="0 of 1 replicas"):
        servers.wait_admitted(1)
    monkeypatch.setattr(replica_set, "CATCH_UP_S", 60)
    with servers_in(tmp_path, 1) as servers:
        leave(servers)
        servers.primary.inquiry.ask(b"SET", b"more", b"2")
        monkeypatch.setattr(replica_set, "CATCH_UP_S", 0.05)
        with pytest.raises(Error, match=r"a replica is at \d+ of \d+, its link is"):
            servers.wait_caught_up()


def test_processor_time_is_what_the_kernel_counted():
    def own():
        return sum(os.times()[:4])

    before, told = own(), cpu_seconds(os.getpid())
    while own() < before + 0.2:
        sum(range(1000))
    assert cpu_seconds(os.getpid()) - told == pytest.approx(0.2, abs=0.05)
    assert cpu_seconds(1 << 22) == 0


# -- lag -------------------------------------------------------------------------------------------


def test_lags_are_sampled_both_ways(tmp_path):
    with servers_in(tmp_path, 2) as servers, LagWatch(servers) as watch:
        while watch.seen.count < 5 and watch.error is None:
            servers.primary.inquiry.ask(b"SET", b"load", b"x")
    assert watch.error is None
    assert watch.reported.count >= watch.seen.count >= 5
    assert watch.seen.minimum > 0


def test_a_replica_that_never_gets_the_marker_ends_the_sampling(tmp_path, monkeypatch):
    monkeypatch.setattr(lag, "CATCH_UP_S", 0.05)
    with servers_in(tmp_path, 1) as servers:
        watch = LagWatch(servers)
        leave(servers)
        with watch:
            watch._thread.join(30)
    assert isinstance(watch.error, Error)


# -- failover --------------------------------------------------------------------------------------


def test_k1_an_acknowledged_write_that_is_not_there_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(failover, "_ASKED", 2)
    with servers_in(tmp_path, 0) as servers:
        for writer, number in ((0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 2)):
            servers.primary.inquiry.ask(b"SET", key_of(writer, number), b"x")
        assert failover._found(servers.primary, [4, 2]) == 5  # 1:1 is missing
        assert failover._found(servers.primary, [3, 1]) == 4  # what nobody acknowledged is no find


def test_a_failover_at_a_level_loses_nothing_and_takes_its_steps_in_order(tmp_path):
    level = replica_set.Level(1)
    with servers_in(tmp_path, 2, level) as servers:
        found = fail_over(servers, level, clients=5, size=10, seconds=0.3)
        assert servers.primary.running.pid
        roles = {one.inquiry.info()["role"] for one in servers.replicas}
    assert roles == {"master", "slave"}
    assert found.acknowledged > 5
    assert found.lost == 0
    assert found.leveled_ms is not None
    assert 0 < found.noticed_ms < found.promoted_ms < found.written_ms < found.leveled_ms


def test_a_primary_that_refuses_the_load_is_no_failover(tmp_path):
    level = replica_set.Level(1)
    with servers_in(tmp_path, 1, level) as servers:
        leave(servers)
        with pytest.raises(Error, match="the primary refused the load: NOREPLICAS"):
            fail_over(servers, level, clients=2, size=10, seconds=5)


def test_the_replica_with_the_newest_position_is_promoted(monkeypatch):
    class Asked:
        def __init__(self, position):
            self.position = position
            self.links = ["up", "down"]

        def info(self):
            return {"master_link_status": self.links.pop(0)}

        def durable(self):
            assert not self.links, "it was asked while its primary might still send"
            return self.position

    class Standing:
        def __init__(self, position):
            self.inquiry = Asked(position)

    members = [Standing(5), Standing(7), Standing(6)]
    best, others = failover._best(members)
    assert best is members[1]
    assert others == [members[0], members[2]]


# -- plans and results -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replicas", "names"),
    [
        (1, ["local", "1 received", "1 on disk"]),
        (2, ["local", "1 received", "1 on disk", "2 received", "2 on disk"]),
        (4, ["local", "1 received", "1 on disk", "2 received", "2 on disk", "4 received",
             "4 on disk"]),
    ],
)  # fmt: skip
def test_the_levels_are_none_one_a_majority_and_all(replicas, names):
    assert [level.name for level in Plan(replicas=replicas).levels] == names


@pytest.mark.parametrize(
    "options",
    [{"replicas": 0}, {"replicas": 9}, {"rounds": 0}, {"rate": 0}, {"seconds": 0},
     {"catch_up": 0}, {"parts": ("throughput", "nonsense")}],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(options):
    with pytest.raises(InvalidArgument):
        Plan(**options)


def test_ratios_are_taken_round_by_round_against_the_primary_alone_and_the_local_level():
    def run(speed, cpu):
        return {"requests_per_s": speed, "primary_cpu_ms": cpu}

    rounds = [
        {"alone": run(100.0, 10.0), "2 replicas": run(90.0, 11.0), "2 replicas, 1 on disk":
         run(45.0, 22.0)},
        {"alone": run(10.0, 1.0), "2 replicas": run(5.0, 2.0), "2 replicas, 1 on disk":
         run(5.0, 3.0)},
    ]  # fmt: skip
    row = _row(SetUp(2, replica_set.Level(1)), rounds, "alone", "2 replicas")
    assert row["ratios"]["alone"]["requests_per_s"] == {"median": 0.475, "min": 0.45, "max": 0.5}
    assert row["ratios"]["local"]["requests_per_s"] == {"median": 0.75, "min": 0.5, "max": 1.0}
    assert row["ratios"]["local"]["primary_cpu_ms"] == {"median": 1.75, "min": 1.5, "max": 2.0}
    assert row["medians"] == {"requests_per_s": 25.0, "primary_cpu_ms": 12.5}
    assert set(_row(SetUp(0), rounds, "alone", "2 replicas")["ratios"]) == {"local"}


def test_only_levels_that_promised_to_keep_a_write_can_fail():
    result = replication_sample()
    assert lost_writes(result) == []
    result["failover"][0]["lost"] = 9  # of the level local
    assert lost_writes(result) == []
    result["failover"][1]["lost"] = 2
    assert lost_writes(result) == ["2 acknowledged writes were lost at the level 1 on disk"]


def test_the_cost_of_one_replica_is_in_throughput_and_in_processor_time():
    result = replication_sample()
    assert cost_of_one(result) == pytest.approx((0.1, 1 / 9), abs=0.001)
    result["set_ups"] = result["set_ups"][:1]
    assert cost_of_one(result) is None


def test_replicas_that_share_the_primarys_cores_are_told():
    assert "2 cores for a primary, 2 replicas" in shared_cores(2, 2)
    assert shared_cores(4, 2) == ""
