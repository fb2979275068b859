"""coding/fields.py: numbers read in place, and nothing outside the buffer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marram.coding.fields import u32, u64


@given(st.binary(min_size=8, max_size=40), st.data())
def test_numbers_are_little_endian(data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data) - 8))

    assert u32(data, at) == int.from_bytes(data[at : at + 4], "little")
    assert u64(data, at) == int.from_bytes(data[at : at + 8], "little")


@given(st.binary(max_size=12), st.integers(-20, 20))
def test_what_is_not_all_in_the_buffer_is_refused(data: bytes, at: int) -> None:
    for read, size in ((u32, 4), (u64, 8)):
        if 0 <= at <= len(data) - size:
            assert read(data, at) >= 0
        else:
            with pytest.raises(IndexError):
                read(data, at)
