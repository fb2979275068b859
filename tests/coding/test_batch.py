"""coding/batch.py: B1 inverse, B2 hostile bytes."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marram.coding import batch as codec

keys = st.binary(max_size=40)
keyspaces = st.integers(0, codec.KEYSPACES - 1)
numbers = st.integers(0, 2**64 - 1)

changes = st.one_of(
    st.builds(codec.put, keyspaces, keys, st.binary(max_size=200), numbers),
    st.builds(codec.delete, keyspaces, keys),
    st.builds(codec.expire, keyspaces, keys, numbers),
    st.builds(codec.patch, keyspaces, keys, numbers, st.binary(max_size=50)),
    st.builds(codec.delete_range, keyspaces, keys, st.none() | keys),
    st.builds(codec.swap, keyspaces, keyspaces),
)


@given(st.lists(changes, max_size=20))
def test_b1_decode_inverts_encode(batch: list[codec.Change]) -> None:
    data = codec.encode(batch)

    assert codec.batch_end(data, 0, len(data)) == len(data)
    assert codec.decode(data, 0, len(data)) == batch


@given(keyspaces, keys, st.binary(max_size=300))
def test_encode_put_is_encode_of_one_put(keyspace: int, key: bytes, value: bytes) -> None:
    assert codec.encode_put(keyspace, key, value) == codec.encode([codec.put(keyspace, key, value)])


@given(st.lists(changes, min_size=1, max_size=5), st.data())
def test_b2_a_cut_batch_is_refused_at_every_length(
    batch: list[codec.Change], data: st.DataObject
) -> None:
    encoded = codec.encode(batch)
    size = data.draw(st.integers(0, len(encoded) - 1))

    with pytest.raises(ValueError):
        codec.decode(encoded[:size], 0, size)


@given(st.lists(changes, min_size=1, max_size=5), st.data())
def test_b2_a_changed_byte_is_refused_or_decodes_to_well_formed_changes(
    batch: list[codec.Change], data: st.DataObject
) -> None:
    encoded = bytearray(codec.encode(batch))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))

    try:
        decoded = codec.decode(bytes(encoded), 0, len(encoded))
    except ValueError:
        return
    # The checksum is the frame's business; here it only has to stay within bounds.
    assert all(codec.PUT <= change[0] <= codec.SWAP for change in decoded)


def test_b2_a_huge_declared_length_costs_no_memory() -> None:
    hostile = codec._BATCH.pack(24, 1) + codec._CHANGE.pack(1, 0, 0, 0, 2**32 - 1, 2**32 - 1)
    hostile = hostile.ljust(28, b"x")

    tracemalloc.start()
    with pytest.raises(ValueError, match="passes the end"):
        codec.decode(hostile, 0, len(hostile))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 64 * 1024


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((7, 0, 0, 0, 1, 1), "unknown change kind 7"),
        ((0, 0, 0, 0, 1, 1), "unknown change kind 0"),
        ((1, 16, 0, 0, 1, 1), "keyspace 16 out of range"),
        ((1, 0, 0, 4, 1, 1), "unknown change flags"),
        ((1, 0, 0, 2, 1, 1), "unknown change flags"),
    ],
)
def test_unknown_numbers_are_refused(fields: tuple[int, ...], message: str) -> None:
    body = codec._CHANGE.pack(*fields) + b"kv"
    data = codec._BATCH.pack(len(body) + 4, 1) + body

    with pytest.raises(ValueError, match=message):
        codec.decode(data, 0, len(data))


def test_the_document_example_is_what_the_code_writes() -> None:
    # docs/formats/batch.md shows these bytes.
    data = codec.encode([codec.put(0, b"k", b"value", 0x0102), codec.delete(3, b"old")])

    assert data.hex(" ") == (
        "2d 00 00 00 02 00 00 00 "
        "01 00 00 01 01 00 00 00 05 00 00 00 02 01 00 00 00 00 00 00 6b 76 61 6c 75 65 "
        "02 03 00 00 03 00 00 00 00 00 00 00 6f 6c 64"
    )
