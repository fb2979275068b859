"""coding/batch.py: B1 inverse, B2 hostile bytes."""

from __future__ import annotations

import random
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


def decode_clearly(data: bytes) -> list[codec.Change]:
    """decode() of a whole buffer as docs/formats/batch.md reads; the model of the fast one."""

    class Cut(ValueError):
        pass

    def take(size: int) -> bytes:
        nonlocal data
        if len(data) < size:
            raise Cut
        head, data = data[:size], data[size:]
        return head

    def number(size: int) -> int:
        return int.from_bytes(take(size), "little")

    if number(4) != len(data):
        raise Cut
    found: list[codec.Change] = []
    for _ in range(number(4)):
        kind, keyspace, type_, flags = take(4)
        key_size, value_size = number(4), number(4)
        extra = number(8) if flags & 1 else 0
        key = take(key_size)
        value: bytes | None = take(value_size)
        if flags & 2:
            value = None
        known = 1 <= kind <= 6 and keyspace < 16 and flags < 4
        if not known or (kind == 6 and extra > 15) or (value is None and kind != 5):
            raise ValueError("unknown")
        found.append((kind, keyspace, key, value, extra, type_))
    if data:
        raise Cut
    return found


def outcome_of(data: bytes) -> list[codec.Change] | None:
    """What the clear decoder makes of it; None: it refuses."""
    try:
        return decode_clearly(data)
    except ValueError:
        return None


def check_against_the_model(data: bytes, before: int = 0, after: bytes = b"") -> bool:
    """decode() and plain_put() agree with the model on it, wherever it lies; whether it is good."""
    buffer = b"\xff" * before + data + after
    end = before + len(data)
    expected = outcome_of(data)
    if expected is None:
        with pytest.raises(ValueError):
            codec.decode(buffer, before, end)
    else:
        assert codec.decode(buffer, before, end) == expected
    if int.from_bytes(data[:4], "little") + 4 != len(data):
        return expected is not None  # plain_put() is for what batch_end() found whole
    value_at = codec.plain_put(buffer, before, end)
    # A deadline of 0 may be written out: then its flags say so, and it is not plain.
    is_one = expected is not None and len(expected) == 1 and expected[0][5] == codec.TYPE_STRING
    if expected is not None and is_one and (data[8], data[11]) == (codec.PUT, 0):
        key = buffer[before + codec.SINGLE_KEY : value_at]
        found = (buffer[before + codec.SINGLE_KEYSPACE], key, buffer[value_at:end])
        assert found == expected[0][1:4]
    else:
        assert value_at == -1
    return expected is not None


@given(st.lists(changes, max_size=5), st.integers(0, 9), st.binary(max_size=9))
def test_decode_agrees_with_the_clear_decoder_on_what_encode_writes(
    batch: list[codec.Change], before: int, after: bytes
) -> None:
    assert check_against_the_model(codec.encode(batch), before, after)


@given(st.binary(max_size=80))
def test_decode_agrees_with_the_clear_decoder_on_noise(data: bytes) -> None:
    check_against_the_model(data)
    check_against_the_model(len(data).to_bytes(4, "little") + data)


def test_decode_agrees_with_the_clear_decoder_on_200_000_mangled_batches() -> None:
    rng = random.Random(7)
    samples = [
        codec.encode_put(3, b"key", b"value"),
        codec.encode([codec.put(0, b"k", b"v" * 30, 77), codec.delete(1, b"gone")]),
        codec.encode([codec.delete_range(0, b"a", None), codec.swap(1, 2)]),
    ]
    good = 0
    for _ in range(200_000):
        data = bytearray(rng.choice(samples))
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.randrange(len(data))
            kind = rng.randrange(3)
            if kind == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", bytes(4), b"\1\0\0\0"))
            else:
                del data[rng.randrange(4, len(data) + 1) :]
                data[:4] = (len(data) - 4).to_bytes(4, "little")
        good += check_against_the_model(bytes(data))
    assert 20_000 < good < 180_000


@pytest.mark.parametrize(("start", "end"), [(-1, 20), (0, 10**6), (5, 3), (2**40, 2**40 + 8)])
def test_a_place_outside_the_buffer_is_refused(start: int, end: int) -> None:
    data = codec.encode_put(0, b"k", b"v")

    with pytest.raises(ValueError):
        codec.decode(data, start, end)
    assert codec.plain_put(data, start, end) == -1
