"""Latencies by bucket: what is lost by that is bounded, and nothing else is lost."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marram.bench.histogram import Histogram
from marram.errors import InvalidArgument

VALUES = st.lists(st.integers(0, 2**43 - 1), min_size=1, max_size=200)
PERCENTS = st.floats(0, 100)


def recorded(values: list[int]) -> Histogram:
    found = Histogram()
    for value in values:
        found.record(value)
    return found


@given(VALUES, PERCENTS)
def test_h1_a_percentile_is_never_below_and_less_than_a_128th_above(values, percent):
    exact = sorted(values)[max(1, math.ceil(len(values) * percent / 100 - 1e-9)) - 1]
    found = recorded(values).percentile(percent)
    assert exact <= found <= exact + exact / 128


@given(VALUES)
def test_h2_count_minimum_maximum_and_sum_are_exact(values):
    found = recorded(values)
    assert (found.count, found.total) == (len(values), sum(values))
    assert (found.minimum, found.maximum) == (min(values), max(values))
    assert found.percentile(100) == max(values)
    assert found.mean == sum(values) / len(values)


@given(VALUES, VALUES, PERCENTS)
def test_h3_merging_is_the_same_as_recording_everything_in_one(some, others, percent):
    merged = recorded(some)
    merged.merge(recorded(others))
    whole = recorded(some + others)
    assert merged.as_json() == whole.as_json()
    assert merged.percentile(percent) == whole.percentile(percent)


@given(VALUES)
def test_json_gives_the_same_histogram_back(values):
    found = recorded(values)
    again = Histogram.from_json(json.loads(json.dumps(found.as_json())))
    assert again.as_json() == found.as_json()
    assert list(again.buckets()) == list(found.buckets())


def test_buckets_cover_every_value_once():
    found = recorded([2**bits + offset for bits in range(43) for offset in (-1, 0)])
    before = -1
    for low, high, _ in found.buckets():
        assert before < low <= high
        before = high
    assert sum(bucket.values for bucket in found.buckets()) == found.count


def test_a_value_counts_as_often_as_it_is_said():
    found = Histogram()
    found.record(1000, 99)
    found.record(5_000_000)
    assert found.count == 100
    assert found.percentile(99) == pytest.approx(1000, rel=1 / 128)
    assert found.percentile(99.5) == 5_000_000


def test_what_is_beyond_the_last_bucket_shows_as_the_maximum():
    found = recorded([5, 2**50])
    assert found.percentile(100) <= found.maximum == 2**50
    assert found.total == 5 + 2**50


def test_a_clock_that_went_back_counts_as_nothing():
    assert recorded([-5]).as_json() == recorded([0]).as_json()


def test_an_empty_histogram_has_figures_too():
    found = Histogram()
    assert (found.percentile(99), found.mean, found.maximum) == (0, 0.0, 0)
    found.merge(Histogram())
    assert found.count == 0


@pytest.mark.parametrize(
    "change",
    [{"sub_bits": 5}, {"count": 7}, {"buckets": [[-1, 1]]}, {"buckets": [[0]]}, {"buckets": None},
     {"buckets": [[1, 0]]}, {"buckets": [[10**6, 1]]}, {"total": "much"}],
)  # fmt: skip
def test_what_is_no_histogram_is_refused(change: dict[str, Any]):
    given_json = {**recorded([1]).as_json(), **change}
    with pytest.raises(InvalidArgument):
        Histogram.from_json(given_json)
    with pytest.raises(InvalidArgument):
        Histogram.from_json({})


@pytest.mark.parametrize("percent", [-1, 100.1])
def test_a_percentile_is_within_0_and_100(percent):
    with pytest.raises(InvalidArgument):
        recorded([1]).percentile(percent)
