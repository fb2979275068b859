"""coding/checksum.py: short runs and place seeds are zlib's values, however they are computed."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from marram.coding import checksum

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)


@given(st.binary(max_size=700), st.data(), u32)
def test_a_part_of_a_buffer_has_the_checksum_of_its_slice(
    data: bytes, draw: st.DataObject, seed: int
) -> None:
    start = draw.draw(st.integers(0, len(data)))
    stop = draw.draw(st.integers(start, len(data)))

    assert checksum.crc32_short(data, start, stop, seed) == zlib.crc32(data[start:stop], seed)


@given(u64, u64 | st.sampled_from([0, 9, 10, 10**16 - 1, 10**16]), st.binary(max_size=40))
def test_a_place_seed_is_the_checksum_of_its_text(number: int, offset: int, owner: bytes) -> None:
    expected = zlib.crc32(b"%d:%d" % (number, offset), zlib.crc32(owner))

    assert checksum.place_seed(number, offset, owner) == expected
    assert checksum.number_seed(offset, checksum.place_start(number, owner)) == expected


@given(st.binary(max_size=700) | st.integers(0, 10**6).map(bytes), u32, u32)
def test_a_checksum_can_be_had_for_another_seed(data: bytes, seed: int, other: int) -> None:
    known = zlib.crc32(data, seed)

    assert checksum.reseeded(data, known, seed, other) == zlib.crc32(data, other)
