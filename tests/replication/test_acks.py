"""Ack levels: the bound, held writes, and those who wait."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.replication.acks import AckRules, Level, Verdict

A, B, C = b"a", b"b", b"c"


def test_without_a_level_there_is_no_bound() -> None:
    rules = AckRules()
    assert rules.bound is None
    rules.acked(A, 5, 5)
    assert rules.bound is None
    assert rules.has_reached(100)


@pytest.mark.parametrize(
    ("need", "level", "bound"),
    [
        (1, Level.ON_DISK, 7),
        (2, Level.ON_DISK, 5),
        (3, Level.ON_DISK, 0),
        (1, Level.RECEIVED, 9),
        (2, Level.RECEIVED, 8),
    ],
)
def test_a1_the_bound_is_what_so_many_replicas_have(need: int, level: Level, bound: int) -> None:
    rules = AckRules(need, level)
    rules.acked(A, 9, 5)
    rules.acked(B, 8, 7)
    assert rules.bound == bound


def test_a1_a_replica_counts_once_however_often_it_acknowledges() -> None:
    rules = AckRules(2)
    for _ in range(3):
        rules.acked(A, 5, 5)
    assert rules.bound == 0


def test_a1_acknowledgements_out_of_order_take_nothing_back() -> None:
    rules = AckRules(1)
    rules.acked(A, 9, 9)
    rules.acked(A, 3, 3)
    assert rules.count(9, Level.ON_DISK) == 1
    assert rules.bound == 9


def test_a1_the_bound_stays_when_a_replica_goes() -> None:
    rules = AckRules(1)
    rules.acked(A, 9, 9)
    rules.left(A)
    assert rules.bound == 9
    rules.acked(A, 4, 4)  # it came back without what it had only received, say
    assert rules.bound == 9
    assert rules.count(9, Level.ON_DISK) == 0


def test_a2_a_held_write_keeps_the_bound_below_it_until_its_level_is_met() -> None:
    rules = AckRules()
    ticket = rules.wait(10, 1, Level.ON_DISK, None, holds=True)
    assert isinstance(ticket, int)
    assert rules.bound == 9
    assert rules.acked(A, 10, 9) == []
    assert rules.bound == 9
    assert rules.acked(A, 10, 10) == [Verdict(ticket, True, 1)]
    assert rules.bound is None


def test_a2_a_held_write_is_let_go_when_its_time_is_over_and_its_writer_told() -> None:
    rules = AckRules(1)
    rules.acked(A, 20, 20)
    ticket = rules.wait(10, 2, Level.ON_DISK, 500, holds=True)
    assert rules.bound == 9
    assert rules.deadline_ns == 500
    assert rules.tick(499) == []
    assert rules.tick(500) == [Verdict(ticket, False, 1)]
    assert rules.bound == 20
    assert rules.deadline_ns is None


def test_a2_the_bound_is_below_the_earliest_held_write() -> None:
    rules = AckRules()
    later = rules.wait(20, 1, Level.ON_DISK, None, holds=True)
    earlier = rules.wait(10, 1, Level.ON_DISK, None, holds=True)
    assert isinstance(later, int)
    assert isinstance(earlier, int)
    assert rules.bound == 9
    rules.forget(earlier)
    assert rules.bound == 19
    rules.forget(later)
    assert rules.bound is None


def test_a_wait_that_holds_nothing_bounds_nothing() -> None:
    rules = AckRules()
    rules.wait(10, 1, Level.ON_DISK, None)
    assert rules.bound is None


def test_a3_only_connected_replicas_count() -> None:
    rules = AckRules()
    rules.acked(A, 9, 5)
    rules.acked(B, 9, 9)
    assert rules.count(9, Level.RECEIVED) == 2
    assert rules.count(9, Level.ON_DISK) == 1
    rules.left(B)
    assert rules.count(9, Level.RECEIVED) == 1
    assert rules.count(9, Level.ON_DISK) == 0


def test_a4_what_is_met_already_is_told_at_once() -> None:
    rules = AckRules()
    rules.acked(A, 9, 9)
    assert rules.wait(9, 1, Level.ON_DISK, None) == Verdict(0, True, 1)
    assert rules.wait(9, 0, Level.ON_DISK, None) == Verdict(0, True, 1)


def test_a4_redis_wait_is_told_how_many_there_are_when_its_time_is_over() -> None:
    rules = AckRules()
    rules.acked(A, 9, 9)
    rules.acked(B, 4, 4)
    ticket = rules.wait(9, 2, Level.RECEIVED, 100)
    assert rules.tick(100) == [Verdict(ticket, False, 1)]
    assert rules.tick(200) == []


def test_a4_a_wait_is_not_met_by_a_replica_that_left() -> None:
    rules = AckRules()
    ticket = rules.wait(9, 2, Level.RECEIVED, 100)
    rules.acked(A, 9, 9)
    rules.left(A)
    assert rules.acked(B, 9, 9) == []
    assert rules.acked(C, 9, 9) == [Verdict(ticket, True, 2)]


def test_the_end_of_a_reign_ends_all_waits() -> None:
    rules = AckRules(1)
    first = rules.wait(5, 1, Level.ON_DISK, None, holds=True)
    second = rules.wait(6, 1, Level.ON_DISK, 7)
    assert rules.end() == [Verdict(first, False, 0), Verdict(second, False, 0)]
    assert rules.tick(100) == []
    assert rules.bound == 0


def test_what_a_store_opened_with_counts_only_once_replicas_have_it() -> None:
    rules = AckRules(1)
    assert not rules.has_reached(50)
    rules.acked(A, 49, 49)
    assert not rules.has_reached(50)
    rules.acked(A, 50, 50)
    assert rules.has_reached(50)


Step = tuple[str, bytes, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(["ack", "left", "wait", "hold", "tick"]),
        st.sampled_from([A, B, C]),
        st.integers(1, 12),
        st.integers(0, 3),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(st.integers(0, 3), st.sampled_from(Level), steps)
def test_the_heaps_agree_with_looking_at_everything(
    need: int, level: Level, todo: list[Step]
) -> None:
    rules = AckRules(need, level)
    positions: dict[bytes, tuple[int, int]] = {}
    waits: dict[int, tuple[int, int, int | None, bool]] = {}
    reached = now = 0

    def ended(verdicts: list[Verdict]) -> set[int]:
        for verdict in verdicts:
            sequence, replicas, _, _ = waits.pop(verdict.ticket)
            have = sum(p[1] >= sequence for p in positions.values())
            assert (verdict.replicas, verdict.met) == (have, have >= replicas)
        return {verdict.ticket for verdict in verdicts}

    for kind, replica, sequence, number in todo:
        if kind == "ack":
            before = positions.get(replica, (0, 0))
            got = max(before[0], sequence), max(before[1], sequence - number)
            positions[replica] = got
            have = sorted((p[level - 1] for p in positions.values()), reverse=True)
            if need and len(have) >= need:
                reached = max(reached, have[need - 1])
            expected = {
                ticket
                for ticket, (at, replicas, _, _) in waits.items()
                if sum(p[1] >= at for p in positions.values()) >= replicas
            }
            assert ended(rules.acked(replica, *got)) == expected
        elif kind == "left":
            positions.pop(replica, None)
            rules.left(replica)
        elif kind == "tick":
            now += number
            expected = {t for t, w in waits.items() if w[2] is not None and w[2] <= now}
            assert ended(rules.tick(now)) == expected
        else:
            deadline = now + sequence if number else None
            ticket = rules.wait(sequence, number, Level.ON_DISK, deadline, holds=kind == "hold")
            if isinstance(ticket, int):
                waits[ticket] = (sequence, number, deadline, kind == "hold")
        bounds = [w[0] - 1 for w in waits.values() if w[3]] + ([reached] if need else [])
        assert rules.bound == min(bounds, default=None)
        assert rules.deadline_ns == min(
            (w[2] for w in waits.values() if w[2] is not None), default=None
        )
