"""A filter never denies a key that is there, denies nearly all others, and is the same for ever."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.env.memory import MemoryEnv
from marram.errors import InvalidArgument
from marram.storage.sstable.block import TOMBSTONE, Row, stored_key
from marram.storage.sstable.filter import (
    DEFAULT_BITS_PER_KEY,
    LINE_BYTES,
    MAX_BITS_PER_KEY,
    Filter,
    FilterBuilder,
    key_hash,
    probe_of,
)
from marram.storage.sstable.format import FILTER
from marram.storage.sstable.reader import Table
from marram.storage.sstable.writer import TableOptions
from tests.storage.sstable.tables import (
    NUMBER,
    PATH,
    STORE_ID,
    handles_of,
    make_table,
    open_table,
)

BITS = DEFAULT_BITS_PER_KEY
NO_LIMIT = 2**32


def encode(keys: list[bytes], keyspace: int = 0, bits: int = BITS) -> bytes:
    builder = FilterBuilder()
    builder.add(keyspace, keys, distinct=True)
    return builder.encode(bits, NO_LIMIT)


def make_filter(keys: list[bytes], keyspace: int = 0, bits: int = BITS) -> Filter:
    return Filter(memoryview(encode(keys, keyspace, bits)))


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.integers(0, 255), st.sets(st.binary(max_size=20), min_size=1), min_size=1),
    st.integers(1, MAX_BITS_PER_KEY),
)
def test_f1_no_key_is_denied(keys: dict[int, set[bytes]], bits: int) -> None:
    builder = FilterBuilder()
    for keyspace, found in sorted(keys.items()):
        builder.add(keyspace, sorted(found), distinct=True)
    made = Filter(memoryview(builder.encode(bits, NO_LIMIT)))

    for keyspace, found in keys.items():
        assert all(made.may_contain(probe_of(keyspace, key)) for key in found)
        made.check(keyspace, sorted(found))


SHAPES: dict[str, Callable[[int], bytes]] = {
    "counters": lambda n: b"user:%012d" % n,
    "strides": lambda n: b"k%d" % (1000 * n),
    "big-endian": lambda n: struct.pack(">Q", n),
    "little-endian": lambda n: struct.pack("<I", n),
    "shifted": lambda n: struct.pack(">Q", n << 20),
    "paths": lambda n: b"/a/%d/b/%d" % (n % 100, n // 100),
    "long": lambda n: b"x" * 50 + b"%d" % n + b"y" * 50,
    "hex": lambda n: hashlib.md5(b"%d" % n).hexdigest().encode(),
    "random": lambda n: hashlib.sha256(b"%d" % n).digest()[:16],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_f1_about_one_of_a_hundred_other_keys_passes_whatever_keys_look_like(shape: str) -> None:
    keys = list(map(SHAPES[shape], range(20_000)))
    present, absent = keys[::2], keys[1::2]
    made = make_filter(present)

    passed = sum(made.may_contain(probe_of(0, key)) for key in absent)
    elsewhere = sum(made.may_contain(probe_of(1, key)) for key in present)

    assert 0.007 < passed / len(absent) < 0.0135
    assert 0.007 < elsewhere / len(present) < 0.0135  # the same keys of another keyspace


@pytest.mark.parametrize(("bits", "most"), [(5, 0.2), (8, 0.04), (12, 0.006), (16, 0.002)])
def test_more_bits_let_fewer_pass(bits: int, most: float) -> None:
    made = make_filter([b"user:%012d" % n for n in range(10_000)], bits=bits)

    passed = sum(made.may_contain(probe_of(0, b"user:%012d" % n)) for n in range(10_000, 20_000))

    assert most / 4 < passed / 10_000 < most


def test_f2_hashes_and_bits_never_change() -> None:
    assert key_hash(0, b"apple") == 0xA92ED050 * 0x9E3779B97F4A7C15 % 2**64
    assert key_hash(255, b"") == 255 * 0x9E3779B97F4A7C15 % 2**64
    for keyspace, key in [(0, b""), (3, b"apple"), (15, bytes(40)), (255, b"\xff" * 9)]:
        checksum = crc32_by_bits(key, keyspace)
        assert key_hash(keyspace, key) == checksum * 0x9E3779B97F4A7C15 % 2**64
    assert encode([b"apple", b"pear", b"plum"]).hex() == (
        "0200010000000004000008440000000000010060000000000000400200008000"
        "0000010000001001020000400010000000080040000400000010000010000800"
    )


def crc32_by_bits(data: bytes, start: int) -> int:
    """CRC-32 (IEEE), as its definition has it."""
    state = start ^ 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0xEDB88320 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def test_the_bits_are_those_of_the_document() -> None:
    keys = [b"%d" % n for n in range(200)]
    expected = bytearray(4 * LINE_BYTES)  # 200 keys at 10 bits are 3.9 lines
    for key in keys:
        number = key_hash(9, key)
        line = (number >> 32) * 4 // 2**32
        for word in range(8):
            bit = number >> 6 * word & 63
            expected[LINE_BYTES * line + 8 * word + bit // 8] |= 1 << bit % 8

    assert encode(keys, keyspace=9) == expected


def test_versions_of_a_key_take_one_place() -> None:
    keys = [b"%05d" % n for n in range(1000)]
    several = FilterBuilder()
    for key in keys:
        several.add(0, [key] * 3, distinct=False)
        several.add(0, [key], distinct=True)  # a key's versions may come in several parts

    assert several.encode(BITS, NO_LIMIT) == encode(keys)


def test_a_filter_is_no_larger_than_it_may_be() -> None:
    builder = FilterBuilder()
    builder.add(0, [b"%d" % n for n in range(1000)], distinct=True)

    assert len(builder.encode(BITS, NO_LIMIT)) == 20 * LINE_BYTES
    assert len(builder.encode(BITS, 10 * LINE_BYTES + 63)) == 10 * LINE_BYTES
    assert FilterBuilder().encode(BITS, NO_LIMIT) == b""


@pytest.mark.parametrize("bits", [-1, MAX_BITS_PER_KEY + 1])
def test_bits_per_key_have_limits(bits: int) -> None:
    assert TableOptions(filter_bits_per_key=MAX_BITS_PER_KEY)
    with pytest.raises(InvalidArgument, match="filter_bits_per_key must be 0 to 64"):
        TableOptions(filter_bits_per_key=bits)


# -- in a table ----------------------------------------------------------------------------------

ROWS: list[Row] = [(n % 3 + 1, b"%06d" % n, b"v", 0, 0) for n in range(3000)]
ROWS.sort()
ROWS[7] = (*ROWS[7][:2], b"", 0, TOMBSTONE)


@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_a_table_finds_its_keys_and_denies_others_without_reading(compression: str) -> None:
    data, _ = make_table(ROWS, filter_bits_per_key=BITS, compression=compression)
    env = MemoryEnv()
    env.put_file(PATH, data)
    file = CountingFile(env.open(PATH))
    table = Table.open(file, NUMBER, STORE_ID, verify=True)  # type: ignore[arg-type]

    assert all(table.get(row[0], row[1]) == row for row in ROWS)
    assert table.get(ROWS[7][0], ROWS[7][1]) == ROWS[7]  # a tombstone is there
    file.reads = 0
    absent = [(keyspace, b"x%06d" % n) for keyspace in range(4) for n in range(500)]
    assert not any(table.get(*key) for key in absent)
    assert file.reads < 0.02 * len(absent)
    passing = [key for key in absent if table.may_contain(probe_of(*key))]
    assert 0 < len(passing) < 0.02 * len(absent)


class CountingFile:
    """Passes calls on, and counts reads."""

    def __init__(self, file: object) -> None:
        self._file = file
        self.reads = 0

    def read(self, size: int, offset: int) -> bytes:
        self.reads += 1
        return self._file.read(size, offset)  # type: ignore[attr-defined, no-any-return]

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def test_a_table_without_a_filter_denies_nothing() -> None:
    data, _ = make_table(ROWS)
    table = open_table(data, verify=True)

    assert FILTER not in {data[handle.offset] for handle in handles_of(data)}
    assert table.may_contain(probe_of(0, b"absent"))
    assert table.get(0, b"absent") is None
    assert table.get(*ROWS[5][:2]) == ROWS[5]


def test_a_filter_is_stored_plain() -> None:
    data, _ = make_table([(0, b"k", b"v", 0, 0)], compression="zlib", filter_bits_per_key=64)
    (handle,) = (handle for handle in handles_of(data) if data[handle.offset] == FILTER)

    assert data[handle.offset + 1] == 0  # though 8 bits of 512 would compress well


def test_a_table_without_rows_has_no_filter() -> None:
    data, _ = make_table([], filter_bits_per_key=BITS)
    table = open_table(data, verify=True)

    assert FILTER not in {data[handle.offset] for handle in handles_of(data)}
    assert table.get(0, b"absent") is None


def test_versions_across_blocks_pass_and_count_once() -> None:
    rows = [(0, b"key-%02d" % (n // 50), bytes(200), 0, 0) for n in range(2000)]
    sequences = list(range(2000, 0, -1))
    data, _ = make_table(rows, sequences, filter_bits_per_key=BITS, block_bytes=1000)
    table = open_table(data, verify=True)
    (handle,) = (handle for handle in handles_of(data) if data[handle.offset] == FILTER)

    assert handle.size == 14 + LINE_BYTES  # 40 keys at 10 bits
    wanted = (stored_key(0, b"key-30"), probe_of(0, b"key-30"))
    assert table.find(*wanted) == (*rows[1500], sequences[1500])
    assert table.find(*wanted, at=sequences[1549]) == (*rows[1549], sequences[1549])
    assert table.find(*wanted, at=sequences[1549] - 1) is None
