"""storage/sstable/packing.py: its bytes are those of the general way."""

from __future__ import annotations

import random

import pytest

from marram.coding.checksum import crc32
from marram.env.memory import MemoryEnv
from marram.errors import InvalidArgument
from marram.storage.sstable.block import ENDS_SIZE, encode_rows
from marram.storage.sstable.frozen import FrozenMap
from marram.storage.sstable.packing import (
    KEY_RATIO,
    block_of,
    checksums_of,
    extent_of,
    payload_of,
)
from marram.storage.sstable.writer import TableInfo, TableOptions, TableWriter

NUMBER, STORE_ID = 7, bytes(range(16))
Held = dict[bytes, bytes]
Bounds = list[tuple[int, bool]]
"""Up to which rows are added, and whether as rows of a map."""


def begun(options: TableOptions, env: MemoryEnv) -> TableWriter:
    env.make_dir("/t")
    file = env.open("/t/x", write=True, create=True, exclusive=True)
    return TableWriter(file, NUMBER, STORE_ID, options)


def written(
    held: Held, options: TableOptions, sequence: int, bounds: Bounds
) -> tuple[TableInfo, bytes]:
    """A table with these rows in keyspace 3, and one in 1 and 9 each: what it is, its bytes."""
    env = MemoryEnv()
    writer = begun(options, env)
    writer.add_columns(1, [b"first"], [b"1"], None, None, [sequence])
    rows = FrozenMap(held, 1 << 20, lambda: None)
    at = 0
    for bound, is_frozen in bounds:
        while at < bound:
            if is_frozen:
                before, at = at, writer.add_frozen(3, rows, at, bound, sequence)
                assert before < at <= bound
            else:
                keys, values = rows.columns(at, bound)
                writer.add_columns(3, keys, values, None, None, [sequence] * len(keys))
                at = bound
    writer.add_columns(9, [b"last"], [b"9"], None, None, [sequence])
    info = writer.finish({})
    file = env.open("/t/x")
    return info, file.read(file.size(), 0)


def assert_same(held: Held, options: TableOptions, sequence: int, bounds: Bounds) -> None:
    expected = written(held, options, sequence, [(len(held), False)])
    assert written(held, options, sequence, bounds) == expected


@pytest.mark.parametrize("seed", range(60))
def test_the_bytes_are_those_of_columns(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.choice((1, 2, 40, 300, 1500))
    # Keys so long that they rule how many rows share a block, values larger than blocks.
    longest_key = rng.choice((2, 16, 40, 3000 if count < 400 else 30))
    longest_value = rng.choice((1, 100, 3000 if count < 400 else 30))
    held = {
        rng.randbytes(rng.randrange(1, longest_key)): rng.randbytes(rng.randrange(longest_value))
        for _ in range(count)
    }
    options = TableOptions(
        block_bytes=rng.choice((1, 100, 1000, 4096, 32768)),
        filter_bits_per_key=rng.choice((0, 10)),
    )
    cuts = {rng.randrange(1, len(held) + 1) for _ in range(rng.randrange(5))} | {len(held)}
    bounds = [(cut, rng.random() < 0.7) for cut in sorted(cuts)]

    assert_same(held, options, rng.choice((0, 1, 2**62)), bounds)


@pytest.mark.parametrize(
    ("rows", "block_bytes"),
    [
        pytest.param(30_000, 32768, id="more than there is room for"),
        pytest.param(30_000, 3 << 20, id="a block larger than the room"),
        pytest.param(9_000, 1, id="more blocks than are made at once"),
    ],
)
def test_the_bytes_are_those_of_columns_where_room_ends(rows: int, block_bytes: int) -> None:
    held = {b"%07d" % n: bytes(100) for n in range(rows)}
    options = TableOptions(block_bytes=block_bytes, filter_bits_per_key=10)

    assert_same(held, options, 5, [(rows, True)])


@pytest.mark.parametrize(
    ("keyspace", "sequence", "last"),
    [
        pytest.param(256, 1, None, id="no keyspace"),
        pytest.param(0, 2**63, None, id="no sequence number"),
        pytest.param(0, 1, b"b", id="a row before the last one"),
        pytest.param(0, 1, b"a", id="the last one again"),
    ],
)
def test_w1_rows_are_refused(keyspace: int, sequence: int, last: bytes | None) -> None:
    writer = begun(TableOptions(block_bytes=1), MemoryEnv())
    if last is not None:
        writer.add(0, last, b"", sequence=1)
    rows = FrozenMap({b"a": b"", b"c": b""}, 100, lambda: None)

    with pytest.raises(InvalidArgument):
        writer.add_frozen(keyspace, rows, 0, 2, sequence)


def some_rows(seed: int) -> tuple[list[bytes], list[bytes]]:
    """Columns of rows in order, some keys of which are long."""
    rng = random.Random(seed)
    sizes = rng.choices((1, 8, 16, 400), k=rng.randrange(1, 200))
    keys = sorted({rng.randbytes(size) for size in sizes})
    return keys, [rng.randbytes(rng.randrange(200)) for _ in keys]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("block_bytes", [1, 500, 4096, 1 << 20])
def test_a_block_ends_where_a_row_is_too_much_for_its_size_and_its_last_key(
    seed: int, block_bytes: int
) -> None:
    keys, values = some_rows(seed)
    start = expected = random.Random(seed).randrange(len(keys))
    size = 0
    for key, value in zip(keys[start:], values[start:], strict=True):
        total = size + len(key) + len(value) + ENDS_SIZE
        if size and total > max(block_bytes, KEY_RATIO * len(keys[expected - 1]) - 1):
            break
        expected, size = expected + 1, total

    assert block_of(keys, values, start, block_bytes) == (expected, size)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("highest", [0, 1, 2**63 - 1])
def test_a_payload_is_that_of_encode_rows(seed: int, highest: int) -> None:
    keys, values = some_rows(seed)
    rng = random.Random(seed)
    sequences = [rng.randrange(highest + 1) for _ in keys]
    start = rng.randrange(len(keys))
    stop = rng.randrange(start, len(keys)) + 1

    for column in (sequences, []):
        expected = encode_rows(
            9, keys[start:stop], values[start:stop], None, None, column[start:stop] or None
        )
        assert payload_of(9, keys, values, column, start, stop) == b"".join(expected)


def test_checksums_are_those_of_the_filter() -> None:
    keys = [b"", b"a", b"key" * 20, bytes(300)]

    assert list(checksums_of(5, keys)) == [crc32(key, 5) for key in keys]


def test_the_extent_of_numbers() -> None:
    assert extent_of([5]) == (5, 5)
    assert extent_of([5, 2**63 - 1, 3]) == (3, 2**63 - 1)


def test_sequence_numbers_of_more_than_64_bits_are_refused() -> None:
    for sequences in ([-1, 1], [1, 2**64]):
        with pytest.raises(InvalidArgument):
            begun(TableOptions(), MemoryEnv()).add_columns(
                0, [b"a", b"b"], [b"", b""], sequences=sequences
            )
