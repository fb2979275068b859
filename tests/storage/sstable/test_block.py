"""What a block checks quickly is what the clear check says."""

from __future__ import annotations

import struct
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.storage.sstable.block import _LANES, _ends

u32s = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1])
any_columns = st.lists(u32s, max_size=12)
columns = any_columns | any_columns.map(sorted) | st.lists(st.integers(0, 3), max_size=12)


def accepted(column: list[int]) -> bool:
    """Whether the column is taken, between other bytes; what is taken comes back as it was."""
    count = len(column)
    payload = memoryview(b"\xff" * 3 + struct.pack(f"<{count}I", *column) + b"\x00" * 5)
    try:
        ends = _ends(payload, 3, count)
    except ValueError:
        return False
    assert ends.tolist() == column
    return True


@settings(max_examples=500, deadline=None)
@given(columns)
def test_b2_a_column_of_ends_is_taken_if_and_only_if_it_never_goes_back(column: list[int]) -> None:
    assert accepted(column) == all(a <= b for a, b in pairwise(column))


@pytest.mark.parametrize("count", [2, 3, 250, _LANES - 1, _LANES, _LANES + 1, 2 * _LANES])
def test_b2_one_end_that_goes_back_is_found_wherever_it_is(count: int) -> None:
    column = list(accumulate([124] * count))
    assert accepted(column)
    assert accepted([7] * count)
    for at in {1, 2, count // 2, count - 2, count - 1} & set(range(1, count)):
        assert not accepted([*column[:at], column[at - 1] - 1, *column[at + 1 :]])
        assert not accepted([*column[:at], column[-1] + 1, *column[at:-1]]) or at == count - 1
        assert not accepted([*column[: at - 1], 2**32 - 1, *column[at:]])
