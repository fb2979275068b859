"""Which record is next: the distributions are what they are called."""

from __future__ import annotations

import itertools
from collections import Counter
from math import sqrt
from random import Random

import pytest

from marram.bench.keys import DISTRIBUTIONS, Latest, Ranks, Zipfian, make_chooser
from marram.errors import InvalidArgument

DRAWS = 100_000


def chi_square(counts: Counter[int], weights: list[float], draws: int) -> float:
    """How far counts are from their weights, in standard deviations of that measure."""
    whole = sum(weights)
    expected = [draws * weight / whole for weight in weights]
    measure = sum((counts[at] - want) ** 2 / want for at, want in enumerate(expected))
    freedom = len(weights) - 1
    return (measure - freedom) / sqrt(2 * freedom)


@pytest.mark.parametrize("theta", [0.3, 0.99, 1.0, 1.7])
@pytest.mark.parametrize("count", [10, 200])  # few ranks show what many drown
def test_k2_ranks_are_zipf_distributed_exactly(theta, count):
    ranks = Ranks(count, theta, Random(7))
    counts = Counter(ranks.next() for _ in range(2 * DRAWS))
    weights = [(rank + 1) ** -theta for rank in range(count)]
    assert abs(chi_square(counts, weights, 2 * DRAWS)) < 4


def test_k2_scrambling_is_one_to_one_and_scatters():
    zipfian = Zipfian(1000, 0.99, Random(1))
    records = [zipfian.record_of(rank) for rank in range(1000)]
    assert sorted(records) == list(range(1000))
    popular = sorted(records[:10])
    assert min(b - a for a, b in itertools.pairwise(popular)) > 20


def test_zipfian_records_have_the_popularity_of_their_rank():
    zipfian = Zipfian(500, 0.99, Random(3))
    counts = Counter(zipfian.next() for _ in range(DRAWS))
    by_rank = Counter({rank: counts[zipfian.record_of(rank)] for rank in range(500)})
    assert abs(chi_square(by_rank, [(rank + 1) ** -0.99 for rank in range(500)], DRAWS)) < 4


def test_uniform_is_uniform():
    chooser = make_chooser("uniform", 100, 0.99, Random(5))
    counts = Counter(chooser.next() for _ in range(DRAWS))
    assert set(counts) == set(range(100))
    assert abs(chi_square(counts, [1.0] * 100, DRAWS)) < 4


def test_sequential_goes_round():
    chooser = make_chooser("sequential", 3, 0.99, Random(0))
    assert [chooser.next() for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_latest_prefers_what_was_inserted_last():
    latest = Latest(100, 0.99, Random(2))
    assert Counter(latest.next() for _ in range(10_000)).most_common(1)[0][0] == 99
    latest.inserted([700, 500])
    counts = Counter(latest.next() for _ in range(50_000))
    assert [number for number, _ in counts.most_common(3)] == [500, 700, 99]
    assert set(counts) <= {*range(100), 500, 700}
    weights = [(rank + 1) ** -0.99 for rank in range(102)]
    by_rank = Counter({0: counts[500], 1: counts[700]})
    by_rank.update({rank: counts[101 - rank] for rank in range(2, 102)})
    assert abs(chi_square(by_rank, weights, 50_000)) < 4


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("count", [1, 2, 10**9])
def test_k1_draws_are_in_range_and_follow_from_the_seed(name, count):
    draws = []
    for _ in range(2):
        chooser = make_chooser(name, count, 0.99, Random(11))
        draws.append([chooser.next() for _ in range(200)])
    assert draws[0] == draws[1]
    assert all(0 <= number < count for number in draws[0])


def test_what_cannot_be_is_refused():
    for name, count, theta in (("normal", 1, 1.0), ("uniform", 0, 1.0), ("zipfian", 0, 1.0),
                               ("zipfian", 5, 0.0), ("latest", 5, 11.0)):  # fmt: skip
        with pytest.raises(InvalidArgument):
            make_chooser(name, count, theta, Random(0))
