"""The window, the throttle, and how lag is told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.replication.flow import Throttle, Window
from marram.replication.lag import POINTS_MAX, Lag, Timeline

SECOND = 10**9


def test_l1_what_is_on_its_way_stays_within_the_window() -> None:
    window = Window(100)
    assert window.admits(100)
    window.sent = 60
    assert window.admits(40)
    assert not window.admits(41)
    assert window.consume(30)
    assert window.admits(70)
    assert not window.admits(71)


def test_l1_a_message_larger_than_the_window_goes_alone() -> None:
    window = Window(100)
    assert window.admits(500)
    window.sent = 500
    assert window.room_bytes == -400
    assert not window.admits(1)
    assert window.consume(500)
    assert window.admits(500)


def test_more_cannot_be_consumed_than_was_sent() -> None:
    window = Window(100)
    window.sent = 10
    assert not window.consume(11)
    assert window.consume(10)
    assert window.consume(4)  # overtaken by a later one: nothing is taken back
    assert window.consumed == 10


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 2 * SECOND)), max_size=60))
def test_l2_a_throttle_keeps_its_rate(steps: list[tuple[int, int]]) -> None:
    rate, now, spent, largest = 1000, 0, 0, 0
    throttle = Throttle(rate, 0)
    for size, pause in steps:
        now = max(now + pause, throttle.open_at_ns(now + pause))
        assert throttle.open_at_ns(now) <= now
        throttle.spend(size, now)
        spent, largest = spent + size, max(largest, size)
        assert spent <= rate + rate * now / SECOND + largest + 1


def test_a_throttle_of_nothing_lets_everything_through() -> None:
    throttle = Throttle(0, 0)
    throttle.spend(1 << 40, 5)
    assert throttle.open_at_ns(5) == 5


def test_a_throttle_opens_when_its_debt_is_paid() -> None:
    throttle = Throttle(1000, 0)
    throttle.spend(3000, 0)
    assert throttle.open_at_ns(0) == pytest.approx(2 * SECOND, abs=2)
    assert throttle.open_at_ns(3 * SECOND) == 3 * SECOND


def test_lag_counts_positions_bytes_and_the_age_of_the_first_missing_batch() -> None:
    timeline = Timeline(100, 0)
    timeline.note(101, 50, 1 * SECOND)
    timeline.note(103, 200, 5 * SECOND)

    assert timeline.behind(103, 9 * SECOND) == Lag(0, 0, 0.0)
    assert timeline.behind(101, 9 * SECOND) == Lag(2, 200, 6.0)
    assert timeline.behind(102, 9 * SECOND) == Lag(1, 100, 4.0)
    assert timeline.behind(100, 9 * SECOND) == Lag(3, 250, 8.0)
    assert timeline.behind(200, 9 * SECOND) == Lag(0, 0, 0.0)


def test_e2_what_precedes_the_record_is_as_old_as_its_start() -> None:
    timeline = Timeline(100, 2 * SECOND)
    timeline.note(110, 10, 3 * SECOND)
    assert timeline.behind(0, 10 * SECOND) == Lag(110, 10, 8.0)


def test_e1_memory_is_bounded_and_figures_stay_close() -> None:
    timeline = Timeline(0, 0)
    total = 20 * POINTS_MAX
    for sequence in range(1, total + 1):
        timeline.note(sequence, 7, sequence * 1000)
    assert len(timeline._sequences) <= POINTS_MAX
    for sequence in (1, total // 3, total - 1):
        lag = timeline.behind(sequence, total * 1000)
        assert lag.positions == total - sequence
        assert lag.bytes == 7 * (total - sequence)
        assert lag.seconds == pytest.approx((total - sequence - 1) * 1e-6, abs=1e-8)


def test_a_note_of_nothing_new_changes_nothing() -> None:
    timeline = Timeline(5, 0)
    timeline.note(5, 999, 10)
    timeline.note(4, 999, 20)
    assert timeline.newest == 5
    assert timeline.behind(0, 30).bytes == 0
