"""The search for the last place two histories have in common."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.replication.agreement import Search
from marram.replication.messages import MARKS_MAX


def found(low: int, high: int, common: int | None) -> tuple[int | None, int]:
    """What a search finds where all up to `common` agrees, and the rounds it took."""
    search, rounds = Search(low, high), 0
    while not search.done:
        assert 1 <= len(search.probes) <= MARKS_MAX
        assert list(search.probes) == sorted(set(search.probes))
        assert low <= search.probes[0] <= search.probes[-1] <= high
        agreeing = [
            i for i, probe in enumerate(search.probes) if common is not None and probe <= common
        ]
        search.answer(agreeing[-1] if agreeing else None)
        rounds += 1
    return search.common, rounds


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 1))
def test_g1_the_last_common_place_is_found(low: int, size: int, part: float) -> None:
    common = low + int(size * part)
    assert found(low, low + size, common)[0] == common


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_histories_that_differ_everywhere_have_nothing_in_common(low: int, size: int) -> None:
    assert found(low, low + size, None) == (None, 1)


@pytest.mark.parametrize("common", [0, 1, 10**9 // 3, 10**9 - 1, 10**9])
def test_g2_a_billion_batches_take_seven_rounds_at_most(common: int) -> None:
    assert found(0, 10**9, common)[1] <= 7


def test_one_place_takes_one_question() -> None:
    assert found(5, 5, 5) == (5, 1)
    assert found(5, 5, None) == (None, 1)


@pytest.mark.parametrize("index", [-1, 5, 255])
def test_an_index_of_no_probe_is_refused(index: int) -> None:
    search = Search(0, 4)
    with pytest.raises(ValueError, match="of 5"):
        search.answer(index)
