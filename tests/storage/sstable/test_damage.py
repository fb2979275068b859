"""No damage, misplacement or forgery of a table is read as rows, hangs, or costs much memory."""

from __future__ import annotations

import itertools
import os
import random
import struct
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from marram.coding.checksum import crc32
from marram.env.memory import MemoryEnv
from marram.errors import Corruption, UnsupportedFormat
from marram.storage.sstable.block import (
    TOMBSTONE,
    DataBlock,
    decode_index,
    decode_map,
    encode_index,
    encode_map,
    encode_rows,
)
from marram.storage.sstable.filter import Filter, FilterBuilder
from marram.storage.sstable.format import (
    DATA,
    DIRECTORY,
    FILTER,
    FOOTER_SIZE,
    HEADER_SIZE,
    INDEX,
    PROPERTIES,
    RANGES,
    Handle,
    Place,
    check_header,
    pack_footer,
    pack_handle,
    pack_header,
    unpack_footer,
    unseal_block,
)
from marram.storage.sstable.ranges import RangeDeletion, decode_ranges, encode_ranges
from marram.storage.sstable.reader import Table
from marram.storage.sstable.writer import Row
from tests.storage.sstable.tables import (
    NUMBER,
    PATH,
    PLACE,
    STORE_ID,
    ZSTD,
    Forgery,
    handles_of,
    make_table,
    open_table,
    read_all,
    sealed,
)

ROWS: list[Row] = [
    (0, b"apple", b"red", 0, 0),
    (0, b"apple", b"green", 0, 0),
    (0, b"pear", b"", 1_700_000_000_000, 0),
    (3, b"fig", b"purple " * 9, 0, 4),
    (3, b"plum", b"", 0, TOMBSTONE),
    (9, b"quince", b"yellow", 0, 0),
]
SEQUENCES = [8, 3, 5, 1, 9, 2]
MODEL = list(zip(ROWS, SEQUENCES, strict=True))
DELETIONS = (
    RangeDeletion(0, b"", b"orange", 7),
    RangeDeletion(3, b"fig", None, 6),
    RangeDeletion(3, b"fig", b"figs", 4),
)

FUZZ_INPUTS = int(os.environ.get("MARRAM_FUZZ_INPUTS", "200000"))
"""How many mutated inputs the fuzz test tries; more on request."""


def small_table(compression: str = "none", place: Place = PLACE) -> bytes:
    """A table with every kind of block."""
    return make_table(
        ROWS, SEQUENCES, {"epoch": 3}, place, DELETIONS,
        compression=compression, block_bytes=64, filter_bits_per_key=10,
    )[0]  # fmt: skip


def refusal(data: bytes, place: Place = PLACE) -> Corruption:
    """What opening `data` and reading all its rows raises: it must, and name path and offset."""
    with pytest.raises(Corruption) as caught:
        read_all(open_table(data, place))
    assert caught.value.path == PATH
    assert caught.value.offset is not None
    assert 0 <= caught.value.offset <= len(data)
    return caught.value


# -- accidents ---------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "zlib", ZSTD])
def test_r1_every_flipped_bit_is_found_without_verify(compression: str) -> None:
    data = small_table(compression)
    starts = [0, *(handle.offset for handle in handles_of(data)), len(data) - FOOTER_SIZE]
    table = open_table(data, verify=True)
    assert read_all(table) == MODEL
    assert table.ranges == DELETIONS
    assert {data[handle.offset] for handle in handles_of(data)} == {
        DATA, INDEX, PROPERTIES, DIRECTORY, FILTER, RANGES,
    }  # fmt: skip

    for at, bit in itertools.product(range(len(data)), range(8)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << bit
        # The offset in the message is where the damaged part starts.
        assert refusal(bytes(flipped)).offset == max(start for start in starts if start <= at)


@pytest.mark.parametrize("length", [2, 4, 40, 300])
def test_r1_wiped_stretches_are_found(length: int) -> None:
    data = small_table()
    for at in range(len(data) - length):
        for fill in (b"\x00", b"\xff"):
            wiped = data[:at] + fill * length + data[at + length :]
            if wiped != data:
                refusal(wiped)


def test_r2_every_truncation_and_every_addition_is_found() -> None:
    data = small_table()
    for size in range(len(data)):
        refusal(data[:size])
        refusal(data[:size] + bytes(len(data) - size))
    refusal(data + b"\x00")
    refusal(data + data)
    refusal(data[:100] + b"\x00" + data[100:])
    refusal(bytes(len(data)))


@pytest.mark.parametrize("compression", ["zlib", ZSTD])
def test_damage_costs_no_memory(compression: str) -> None:
    data = small_table(compression)
    tracemalloc.start()
    try:
        for at in range(len(data)):
            for value in (0x00, 0x7F, 0xFF):
                damaged = bytearray(data)
                damaged[at] = value
                if bytes(damaged) != data:
                    refusal(bytes(damaged))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 2**20


def test_t1_exchanged_blocks_are_found() -> None:
    rows = [(0, b"%02d" % n, b"value %02d" % n, 0, 0) for n in range(20)]
    data, _ = make_table(rows, block_bytes=64)
    blocks = handles_of(data)[:-3]
    assert len({handle.size for handle in blocks[:-1]}) == 1
    assert len(blocks) > 4

    for first, second in itertools.combinations(blocks[:-1], 2):
        swapped = bytearray(data)
        swapped[first.offset : first.stop] = data[second.offset : second.stop]
        refusal(bytes(swapped))  # one block twice
        swapped[second.offset : second.stop] = data[first.offset : first.stop]
        refusal(bytes(swapped))


def test_t1_a_block_of_another_file_or_store_is_found() -> None:
    data = small_table()
    for place in (Place(NUMBER + 1, STORE_ID), Place(NUMBER, b"another store id")):
        other = small_table(place=place)
        assert read_all(open_table(other, place)) == MODEL
        for handle in [*handles_of(data), Handle(len(data) - FOOTER_SIZE, FOOTER_SIZE)]:
            refusal(
                data[: handle.offset] + other[handle.offset : handle.stop] + data[handle.stop :]
            )


def test_a_foreign_or_renamed_table_is_called_that() -> None:
    data = small_table()

    assert "another store" in str(refusal(data, Place(NUMBER, bytes(16))))
    assert "number 7 by its header, not 8" in str(refusal(data, Place(NUMBER + 1, STORE_ID)))
    assert "not a table" in str(refusal(b"#!/bin/sh\n" * 30))


def test_t2_a_newer_format_is_refused_as_newer_only_where_it_is_intact() -> None:
    data = small_table()
    for at, message in ((8, "format version 2"), (10, "checksum kind 2")):
        header = bytearray(data[: HEADER_SIZE - 4])
        header[at] += 1
        rest = data[HEADER_SIZE:]
        damaged = bytes(header) + data[HEADER_SIZE - 4 : HEADER_SIZE] + rest
        intact = bytes(header) + struct.pack("<I", crc32(bytes(header))) + rest

        refusal(damaged)
        with pytest.raises(UnsupportedFormat, match=f"{PATH} @ 0: .*{message}"):
            open_table(intact)


def test_a_file_that_shrinks_after_opening_is_corrupt() -> None:
    env = MemoryEnv()
    env.put_file(PATH, make_table([(0, b"k", bytes(100_000), 0, 0)])[0])
    table = Table.open(env.open(PATH), *PLACE)
    env.open(PATH, write=True).truncate(50_000)

    with pytest.raises(Corruption, match=f"{PATH} @ 50000: .*cut short"):
        table.get(0, b"k")


def test_garbage_is_refused() -> None:
    generator = random.Random(5)
    header = pack_header(PLACE)
    for size in range(0, 3000, 7):
        garbage = generator.randbytes(size)
        refusal(garbage)
        refusal(header + garbage)
        directory = Handle(HEADER_SIZE, size)
        if size >= 14:
            refusal(header + garbage + pack_footer(directory, PLACE))


@pytest.mark.parametrize("name", ["filter", "ranges"])
def test_a_damaged_filter_or_ranges_block_is_found_when_the_table_is_opened(name: str) -> None:
    data = small_table()
    kind = {"filter": FILTER, "ranges": RANGES}[name]
    (handle,) = (handle for handle in handles_of(data) if data[handle.offset] == kind)
    for at in range(handle.offset, handle.stop):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        with pytest.raises(Corruption) as caught:
            open_table(bytes(damaged))
        assert caught.value.offset == handle.offset


# -- forgeries: all checksums are right ----------------------------------------------------------


def forged(change: Callable[[Forgery], None]) -> bytes:
    forgery = Forgery()
    forgery.add([(0, b"a", b"1", 0, 0), (0, b"b", b"2", 0, 0)])
    forgery.add([(0, b"c", b"3", 0, 0)])
    change(forgery)
    return forgery.finish()


def test_a_forgery_without_a_flaw_is_a_table() -> None:
    assert read_all(open_table(forged(lambda f: None), verify=True)) == [
        ((0, b"a", b"1", 0, 0), 0),
        ((0, b"b", b"2", 0, 0), 0),
        ((0, b"c", b"3", 0, 0), 0),
    ]


def index_entry(name: str, number: int, value: object) -> Callable[[Forgery], None]:
    return lambda forgery: getattr(forgery, name).__setitem__(number, value)


def own_property(name: str, value: int | bytes) -> Callable[[Forgery], None]:
    return lambda forgery: forgery.properties.__setitem__(name, value)


def more_rows(*rows: Row) -> Callable[[Forgery], None]:
    return lambda forgery: forgery.add(list(rows))


def rows_in_the_wrong_blocks(forgery: Forgery) -> None:
    forgery.rows = [1, 2]


def block_without_rows(forgery: Forgery) -> None:
    forgery.sizes.append(0)
    forgery.rows.append(0)
    forgery.last_keys.append(b"\x00c")


def gap_before_the_index(forgery: Forgery) -> None:
    forgery.data += b"\x00"


def gap_after_the_properties(forgery: Forgery) -> None:
    forgery.named()
    forgery.data += b"\x00"


def overlapping_names(forgery: Forgery) -> None:
    forgery.named()
    forgery.handles["again"] = forgery.handles["index"]


def no_index(forgery: Forgery) -> None:
    forgery.named()
    del forgery.handles["index"]


def index_for_properties(forgery: Forgery) -> None:
    forgery.named()
    handles = forgery.handles
    handles["index"], handles["properties"] = handles["properties"], handles["index"]


def named_block_over_the_header(forgery: Forgery) -> None:
    forgery.named()
    forgery.handles["more"] = Handle(0, forgery.handles["index"].offset)


def named_block_over_the_data(forgery: Forgery) -> None:
    forgery.named()
    forgery.handles["more"] = Handle(HEADER_SIZE, forgery.handles["index"].offset - HEADER_SIZE)


def small_filter(*keys: bytes) -> bytes:
    builder = FilterBuilder()
    builder.add(0, keys, distinct=True)
    return builder.encode(10, 2**32)


def named_block(name: str, kind: int, *payload: bytes) -> Callable[[Forgery], None]:
    def change(forgery: Forgery) -> None:
        forgery.named()
        forgery.handles[name] = forgery.block(kind, *payload)

    return change


def deletion(
    keyspace: int, flags: int, start: bytes, stop: bytes, sequence: int, *, start_size: int = -1
) -> bytes:
    size = len(start) if start_size < 0 else start_size
    return struct.pack("<BBIIQ", keyspace, flags, size, len(stop), sequence) + start + stop


def deletions(*entries: bytes, count: int = -1) -> Callable[[Forgery], None]:
    number = struct.pack("<I", len(entries) if count < 0 else count)
    return named_block("ranges", RANGES, number, *entries)


@pytest.mark.parametrize(
    "change",
    [
        index_entry("rows", 0, 3),
        index_entry("rows", 0, 0),
        index_entry("sizes", 0, 50),
        index_entry("sizes", 1, 2**32 - 1),
        index_entry("last_keys", 0, b"\x00bb"),
        index_entry("last_keys", 0, b"\x00d"),
        index_entry("last_keys", 1, b"\x00cc"),
        index_entry("last_keys", 0, b""),
        own_property("table.rows", 4),
        own_property("table.rows", b"3"),
        own_property("table.largest", b"\x00b"),
        own_property("table.smallest", b""),
        own_property("table.smallest", b"\x00d"),
        own_property("table.smallest", 0),
        more_rows((0, b"b", b"4", 0, 0)),
        more_rows((0, b"b", b"4", 0, 0), (0, b"d", b"5", 0, 0)),
        rows_in_the_wrong_blocks,
        block_without_rows,
        more_rows((0, b"d", b"4", 0, 0), (0, b"d", b"5", 0, 0)),
        more_rows((0, b"e", b"4", 0, 0), (0, b"d", b"5", 0, 0)),
        more_rows((0, b"d", b"left", 0, TOMBSTONE)),
        gap_before_the_index,
        gap_after_the_properties,
        overlapping_names,
        no_index,
        index_for_properties,
        named_block_over_the_header,
        named_block_over_the_data,
        named_block("filter", FILTER),
        named_block("filter", FILTER, bytes(63)),
        named_block("filter", FILTER, bytes(65)),
        named_block("filter", RANGES, bytes(64)),
        named_block("ranges", FILTER, bytes(64)),
        named_block("ranges", RANGES),
        deletions(),
        deletions(deletion(0, 0, b"a", b"b", 1), count=2),
        deletions(deletion(0, 0, b"a", b"b", 1), b"\0"),
        deletions(deletion(0, 0, b"a", b"b", 1), deletion(0, 0, b"a", b"c", 1)),
        deletions(deletion(0, 0, b"a", b"b", 1), deletion(0, 0, b"a", b"b", 2)),
        deletions(deletion(1, 0, b"a", b"b", 1), deletion(0, 0, b"a", b"b", 1)),
        deletions(deletion(0, 0, b"b", b"c", 1), deletion(0, 0, b"a", b"b", 1)),
        deletions(deletion(0, 0, b"b", b"b", 1)),
        deletions(deletion(0, 0, b"b", b"a", 1)),
        deletions(deletion(0, 0, b"b", b"", 1)),
        deletions(deletion(0, 1, b"a", b"b", 1)),
        deletions(deletion(0, 2, b"a", b"b", 1)),
        deletions(deletion(0, 0, b"a", b"b", 2**63)),
        deletions(deletion(0, 0, b"a", b"b", 1, start_size=2)),
        deletions(deletion(0, 0, b"a", b"b", 1, start_size=2**32 - 1)),
    ],
)
def test_a_forgery_is_refused_when_it_is_read(change: Callable[[Forgery], None]) -> None:
    refusal(forged(change))


@pytest.mark.parametrize(
    "change",
    [
        own_property("table.smallest", b"\x00A"),
        own_property("table.key_bytes", 4),
        own_property("table.value_bytes", 0),
        own_property("table.tombstones", 1),
        own_property("table.min_sequence", 1),
        own_property("table.max_sequence", 1),
        more_rows((0, b"c", b"version", 0, 0)),
        named_block("filter", FILTER, small_filter(b"a", b"c")),
        named_block("filter", FILTER, bytes(64)),
    ],
)
def test_what_only_a_whole_scan_can_tell_is_found_by_verify(
    change: Callable[[Forgery], None],
) -> None:
    data = forged(change)
    open_table(data)

    with pytest.raises(Corruption, match=PATH):
        open_table(data, verify=True)


def test_a_forged_filter_and_ranges_without_a_flaw_are_read() -> None:
    both = deletion(0, 0, b"b", b"c", 3), deletion(0, 1, b"b", b"", 2)
    with_ranges = open_table(forged(deletions(*both)), verify=True)
    with_filter = open_table(
        forged(named_block("filter", FILTER, small_filter(b"a", b"b", b"c"))), verify=True
    )

    assert with_ranges.ranges == (RangeDeletion(0, b"b", b"c", 3), RangeDeletion(0, b"b", None, 2))
    assert with_filter.get(0, b"b") is not None


def test_unknown_named_blocks_are_passed_by_but_verified() -> None:
    forgery = Forgery()
    forgery.add([(0, b"a", b"1", 0, 0)])
    forgery.named()
    forgery.handles["later"] = forgery.block(77, b"bits of a later version")
    data = forgery.finish()
    damaged = bytearray(data)
    damaged[forgery.handles["later"].offset + 12] ^= 1

    assert open_table(data, verify=True).row_count == 1
    assert len(read_all(open_table(bytes(damaged)))) == 1
    with pytest.raises(Corruption) as caught:
        open_table(bytes(damaged), verify=True)
    assert caught.value.offset == forgery.handles["later"].offset


@pytest.mark.parametrize(
    ("raw_size", "body"),
    [
        (2**32 - 1, zlib.compress(bytes(10_000_000), 9)),
        (9_999_999, zlib.compress(bytes(10_000_000), 9)),
        (10_000_001, zlib.compress(bytes(10_000_000), 9)),
        (0, zlib.compress(bytes(10_000_000), 9)),
        (100, zlib.compress(bytes(100)) + b"more"),
        (100, zlib.compress(bytes(100))[:-1]),
        (100, zlib.compress(bytes(100))[:-1] + b"!"),
        (100, b"not deflate"),
        (0, b""),
    ],
)
def test_t3_a_block_inflates_to_what_it_says_or_not_at_all(raw_size: int, body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="inflate"):
            unseal_block(sealed(DATA, 1, raw_size, body), DATA, 5)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 2 * min(raw_size, 10_000_001) + 200_000


def test_t3_a_block_as_dense_as_deflate_allows_is_read() -> None:
    data, _ = make_table(
        [(0, b"k", bytes(30_000_000), 0, 0)], compression="zlib", compression_level=9
    )

    row = open_table(data, verify=True).get(0, b"k")

    assert len(data) < 40_000
    assert row is not None
    assert row[2] == bytes(30_000_000)


def test_an_intact_block_of_unknown_compression_is_not_called_damaged() -> None:
    with pytest.raises(UnsupportedFormat, match="compression kind 3"):
        unseal_block(sealed(DATA, 3, 10, b"some later kind"), DATA, 5)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (sealed(INDEX, 0, 2, b"ab"), "kind 2"),
        (sealed(DATA, 0, 3, b"ab"), "plain"),
        (sealed(DATA, 0, 2, b"ab", stored_size=1), "stores 1"),
        (sealed(DATA, 1, 2, zlib.compress(b"ab"), stored_size=9), "stores 9"),
        (sealed(DATA, 0, 2, b"ab")[:13], "too few"),
    ],
)
def test_a_block_must_be_what_is_looked_for(block: memoryview, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unseal_block(block, DATA, 5)


def test_b1_a_data_block_has_no_bytes_without_a_meaning() -> None:
    payload = b"".join(encode_rows(0, [b"a", b"b"], [b"1", b"2"], [0, 0], [0, 0], [0, 0]))
    unknown_flag = payload[:5] + b"\x08" + payload[6:]
    not_zero = payload[:7] + b"\x01" + payload[8:]
    assert DataBlock(memoryview(payload)).count == 2

    for wrong in (unknown_flag, not_zero, payload + b"\x00", payload[:-1], payload[:7], b""):
        with pytest.raises(ValueError, match="data block"):
            DataBlock(memoryview(wrong))


@pytest.mark.parametrize(
    "names",
    [[b"b", b"a"], [b"a", b"a"], [b""], [b"\xff"]],
    ids=["order", "twice", "empty", "not-utf-8"],
)
def test_b1_a_map_has_one_order_and_no_name_twice(names: list[bytes]) -> None:
    pairs = b"".join(struct.pack("<HBI", len(name), 2, 1) + name + b"v" for name in names)

    with pytest.raises(ValueError, match=r"out of order|utf-8"):
        decode_map(memoryview(struct.pack("<I", len(names)) + pairs))


def test_b2_offsets_that_go_back_cannot_multiply_a_block() -> None:
    rows, size = 2000, 1000
    ends = struct.pack(f"<{rows}I", *([size, 0] * (rows // 2 - 1)), 0, size)
    keys = struct.pack(f"<{rows}I", *range(2, 2 * rows + 1, 2))
    names = b"".join(struct.pack(">H", n) for n in range(rows))
    payload = struct.pack("<IBBH", rows, 0, 0, 0) + keys + ends + names + bytes(size)

    with pytest.raises(ValueError, match="goes back"):
        DataBlock(memoryview(payload))


# -- fuzz ----------------------------------------------------------------------------------------


def read_data(payload: bytes) -> None:
    block = DataBlock(memoryview(payload))
    versions = block.versions(0, block.count)
    assert block.version(block.find(block.key(0))) == versions[0]
    assert block.rows(0, block.count) == [version[:5] for version in versions]
    again = DataBlock(memoryview(b"".join(
        encode_rows(block.keyspace, *list(zip(*versions, strict=True))[1:])
    )))  # fmt: skip
    assert again.versions(0, block.count) == versions


def read_index(payload: bytes) -> None:
    index = decode_index(memoryview(payload), HEADER_SIZE)
    sizes = [stop - start for start, stop in itertools.pairwise(index.offsets)]
    assert b"".join(encode_index(index.last_keys, index.rows, sizes)) == payload


def read_map(payload: bytes) -> None:
    assert encode_map(decode_map(memoryview(payload))) == payload


def read_filter(payload: bytes) -> None:
    assert 0 < Filter(memoryview(payload)).memory_bytes < 2 * len(payload)


def read_ranges(payload: bytes) -> None:
    assert encode_ranges(decode_ranges(memoryview(payload))) == payload


def with_checksum(data: bytes, seed: int) -> bytes:
    """The same with its last four bytes put right, so that the rest is looked at."""
    return data[:-4] + struct.pack("<I", crc32(data[:-4], seed))


def read_footer(data: bytes) -> None:
    directory = unpack_footer(with_checksum(data, PLACE.seed(940)), 1000, PLACE)
    assert HEADER_SIZE <= directory.offset < directory.stop == 940
    assert pack_footer(directory, PLACE)[:-4] == data[:-4]


def read_header(data: bytes) -> None:
    fixed = with_checksum(data[:HEADER_SIZE], 0) + data[HEADER_SIZE:]
    check_header(fixed, PLACE)
    assert fixed.startswith(pack_header(PLACE))


def read_block(data: bytes) -> None:
    payload = unseal_block(memoryview(with_checksum(data, 5)), DATA, 5)
    assert len(payload) <= 1032 * len(data)


def seeds() -> list[tuple[Callable[[bytes], None], bytes]]:
    """Decoders, each with inputs to start from."""
    keys = [b"apple", b"apple", b"pear", b"plum"]
    values = [b"red", b"green", b"", b"blue"]
    full = encode_rows(2, keys, values, [0, 1, 2**63, 0], [0, 7, 255, 0], [9, 3, 2, 1])
    plain = encode_rows(0, [b"%02d" % n for n in range(9)], [b"v"] * 9, [0] * 9, [0] * 9, [0] * 9)
    dull = b"".join(encode_rows(0, [b"k"], [bytes(300)], [0], [0], [0]))
    return [
        (read_data, b"".join(full)),
        (read_data, b"".join(plain)),
        (read_index, b"".join(encode_index([b"\0a", b"\0b", b"\1"], [4, 5, 1], [90, 80, 70]))),
        (read_map, encode_map({"a": 1, "b": b"two", "three": -3})),
        (read_map, encode_map({"index": pack_handle(Handle(40, 50))})),
        (read_filter, small_filter(b"apple", b"pear", b"plum")),
        (read_ranges, encode_ranges(DELETIONS)),
        (read_header, pack_header(PLACE)),
        (read_footer, pack_footer(Handle(800, 140), PLACE)),
        (read_block, bytes(sealed(DATA, 0, len(dull), dull))),
        (read_block, bytes(sealed(DATA, 1, len(dull), zlib.compress(dull)))),
    ]


_EDGES = [struct.pack("<I", n) for n in (0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)]


def mutations(data: bytes, generator: random.Random) -> Iterator[bytes]:
    """Endless variations: bytes changed, cut out, put in, repeated; lengths at their edges."""
    draw = generator.random
    while True:
        mutant = bytearray(data)
        for _ in range(1 + int(draw() * 3)):
            at = int(draw() * (len(mutant) + 1))
            kind = int(draw() * 6)
            if kind <= 1 and at < len(mutant):
                mutant[at] = int(draw() * 256)
            elif kind == 2:
                mutant[at : at + 4] = _EDGES[int(draw() * len(_EDGES))]
            elif kind == 3:
                del mutant[at : at + 1 + int(draw() * 8)]
            elif kind == 4:
                mutant[at:at] = mutant[at : at + 8] or b"\x00"
            else:
                del mutant[at:]
        yield bytes(mutant)


def test_b2_fuzzed_payloads_are_refused_or_mean_what_they_say() -> None:
    generator = random.Random(os.environ.get("MARRAM_FUZZ_SEED", "1"))
    sources = [(read, mutations(data, generator)) for read, data in seeds()]
    accepted, refused = Counter[str](), Counter[str]()

    for read, mutants in itertools.islice(itertools.cycle(sources), FUZZ_INPUTS):
        mutant = next(mutants)
        try:
            read(mutant)
        except (ValueError, UnsupportedFormat):
            refused[read.__name__] += 1
        else:
            accepted[read.__name__] += 1

    # The mutations are neither so wild that nothing gets past the first check, nor harmless.
    assert accepted.keys() == refused.keys() == {read.__name__ for read, _ in sources}
    assert FUZZ_INPUTS // 100 < accepted.total() < FUZZ_INPUTS // 2


def test_fuzzed_tables_with_right_checksums_are_refused_or_read() -> None:
    """Payloads mutated under the checksums: every outcome but rows or a refusal is a bug."""
    generator = random.Random(2)
    data = small_table()
    reached: set[int] = set()
    tracemalloc.start()
    try:
        for handle in handles_of(data):
            payload = bytes(data[handle.offset + 10 : handle.stop - 4])
            for mutant in itertools.islice(mutations(payload, generator), 300):
                if len(mutant) != len(payload):
                    continue
                block = data[handle.offset : handle.offset + 10] + mutant
                block += struct.pack("<I", crc32(block, PLACE.seed(handle.offset)))
                reached.add(block[0])
                try:
                    table = open_table(data[: handle.offset] + block + data[handle.stop :])
                    read_all(table)
                    table.verify()
                    table.get(0, b"apple", 5)
                except Corruption as error:
                    assert error.path == PATH
                    assert error.offset is not None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert reached == {DATA, INDEX, PROPERTIES, DIRECTORY, FILTER, RANGES}
    assert peak < 2**20
