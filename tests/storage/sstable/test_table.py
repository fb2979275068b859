"""What goes into a table comes out of it, by key and in order; what does not belong is refused."""

from __future__ import annotations

import tracemalloc
from bisect import bisect_left
from collections.abc import Iterator
from itertools import chain, groupby, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.env.memory import MemoryEnv
from marram.env.posix import posix_env
from marram.errors import Closed, InvalidArgument
from marram.storage.sstable import writer as writer_module
from marram.storage.sstable.block import stored_key
from marram.storage.sstable.filter import probe_of
from marram.storage.sstable.format import Place
from marram.storage.sstable.ranges import RangeDeletion
from marram.storage.sstable.reader import READ_BYTES, Table
from marram.storage.sstable.writer import TOMBSTONE, Row, TableInfo, TableOptions, TableWriter
from tests.storage.sstable.tables import (
    NUMBER,
    PATH,
    PLACE,
    STORE_ID,
    ZSTD,
    handles_of,
    make_table,
    open_table,
    read_all,
)

Version = tuple[Row, int]

small_keys = st.binary(max_size=3) | st.sampled_from([b"", b"\x00", b"\xff" * 4, b"k" * 300])
values = st.binary(max_size=40) | st.integers(0, 3000).map(lambda size: b"z" * size)


@st.composite
def histories(draw: st.DrawFn) -> list[Version]:
    """Rows in table order, some of them versions of one key, with their sequence numbers."""
    identities = draw(
        st.sets(
            st.tuples(
                st.integers(0, 3) | st.just(255), small_keys, st.integers(0, 5) | st.just(2**63 - 1)
            ),
            max_size=60,
        )
    )
    versions: list[Version] = []
    for keyspace, key, sequence in sorted(identities, key=lambda i: (i[0], i[1], -i[2])):
        type_ = draw(st.sampled_from([0, 0, 0, 1, 254, TOMBSTONE]))
        value = b"" if type_ == TOMBSTONE else draw(values)
        deadline_ms = draw(st.sampled_from([0, 0, 1, 1_700_000_000_000, 2**64 - 1]))
        versions.append(((keyspace, key, value, deadline_ms, type_), sequence))
    return versions


def build(versions: list[Version], **options: int | str) -> Table:
    rows, sequences = [row for row, _ in versions], [sequence for _, sequence in versions]
    data, info = make_table(rows, sequences, **options)
    assert (info.rows, info.size_bytes) == (len(rows), len(data))
    return open_table(data, verify=True)


def rows_of(chunks: Iterator[list[Row]]) -> list[Row]:
    return list(chain.from_iterable(chunks))


def stored(version: Version) -> bytes:
    return stored_key(*version[0][:2])


@settings(max_examples=150, deadline=None)
@given(
    histories(),
    st.integers(1, 2000),
    st.sampled_from(["none", "zlib"]),
    st.lists(st.binary(max_size=4), max_size=6),
)
def test_a_table_is_the_sorted_list_it_was_made_from(
    model: list[Version], block_bytes: int, compression: str, bounds: list[bytes]
) -> None:
    table = build(model, block_bytes=block_bytes, compression=compression)
    order = [stored(version) for version in model]

    assert read_all(table) == model
    assert read_all(table, reverse=True) == model[::-1]
    assert table.row_count == len(model)
    assert (table.smallest, table.largest) == ((order[0], order[-1]) if model else (b"", b""))
    for start in [None, *bounds, *order[::9]]:
        for stop in [None, *bounds, *order[::7]]:
            first = bisect_left(order, start) if start is not None else 0
            end = bisect_left(order, stop) if stop is not None else len(order)
            expected = [row for row, _ in model[first:end]]
            assert rows_of(table.chunks(start, stop)) == expected
            assert rows_of(table.chunks(start, stop, reverse=True)) == expected[::-1]
    for (keyspace, key), versions in groupby(model, key=lambda version: version[0][:2]):
        history = list(versions)
        assert table.get(keyspace, key) == history[0][0]
        for at in (0, 2, 5, 2**63 - 1):
            visible = [row for row, sequence in history if sequence <= at]
            assert table.get(keyspace, key, at) == (visible[0] if visible else None)
        absent = (keyspace, key + b"\x00")
        if stored_key(*absent) not in order:
            assert table.get(*absent) is None


def test_an_empty_table_has_its_properties_and_no_rows() -> None:
    data, info = make_table([], properties={"sequence": 42, "engine": b"memory"})
    table = open_table(data, verify=True)

    assert info == (0, len(data), b"", b"", *[0] * 10)
    assert (list(table.chunks()), table.get(0, b""), table.row_count) == ([], None, 0)
    assert (table.properties["sequence"], table.properties["engine"]) == (42, b"memory")


def test_the_writer_says_what_it_wrote() -> None:
    rows: list[Row] = [(0, b"%06d" % (n // 2), b"v" * (n % 3), 0, 0) for n in range(4000)]
    deadlines = {1: 900, 2000: 500, 2001: 700, 3999: 600}
    rows = [(*row[:3], deadlines.get(n, 0), 0) for n, row in enumerate(rows)]
    rows[7] = (*rows[7][:2], b"", 0, TOMBSTONE)
    timed = [rows[n] for n in deadlines]

    data, info = make_table(rows, [9 - n % 2 for n in range(4000)])

    assert info == TableInfo(
        rows=4000, size_bytes=len(data), smallest=b"\x00000000", largest=b"\x00001999",
        tombstones=1, min_sequence=8, max_sequence=9, expirable_rows=4,
        expirable_bytes=sum(len(row[1]) + len(row[2]) for row in timed),
        earliest_deadline_ms=500, latest_deadline_ms=900,
        range_deletions=0, min_range_sequence=0, max_range_sequence=0,
    )  # fmt: skip


def test_the_writer_says_which_range_deletions_it_wrote_apart_from_the_rows() -> None:
    longest = RangeDeletion(0, b"a", None, 40)
    ranges = [RangeDeletion(0, b"a", b"b", 40), longest, RangeDeletion(3, b"", b"x", 2)]

    data, info = make_table([(0, b"k", b"", 0, 0)], [7], ranges=ranges)

    assert open_table(data).ranges == (longest, ranges[2])
    assert (info.range_deletions, info.min_range_sequence, info.max_range_sequence) == (2, 2, 40)
    assert (info.rows, info.min_sequence, info.max_sequence) == (1, 7, 7)


def test_properties_say_what_the_rows_add_up_to() -> None:
    rows = [(1, b"a", b"xx", 0, 0), (1, b"b", b"", 0, TOMBSTONE), (2, b"cc", b"y", 9, 3)]
    data, _ = make_table(rows, [5, 9, 7], {"low": -(2**63), "high": 2**63 - 1})
    table = open_table(data)

    assert (table.number, table.size_bytes) == (7, len(data))
    assert table.properties == {
        "table.block_bytes": 16384,
        "table.key_bytes": 4,
        "table.largest": b"\x02cc",
        "table.max_sequence": 9,
        "table.min_sequence": 5,
        "table.rows": 3,
        "table.smallest": b"\x01a",
        "table.tombstones": 1,
        "table.value_bytes": 3,
        "low": -(2**63),
        "high": 2**63 - 1,
    }


def test_rows_added_one_by_one_give_the_same_bytes() -> None:
    rows = [(n // 40, b"%04d" % n, b"v" * (n % 90), n % 3, n % 2) for n in range(120)]
    env = MemoryEnv()
    file = env.open("/one", write=True, create=True)
    writer = TableWriter(file, *PLACE, TableOptions(block_bytes=500))

    for n, (keyspace, key, value, deadline_ms, type_) in enumerate(rows):
        writer.add(keyspace, key, value, deadline_ms, type_, sequence=n)
    writer.add(9, b"gone", b"", tombstone=True)
    writer.finish({"a": 1})

    tombstone = (9, b"gone", b"", 0, TOMBSTONE)
    expected, _ = make_table([*rows, tombstone], [*range(120), 0], {"a": 1}, block_bytes=500)
    assert env.contents("/one") == expected


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (((1, b"b", b"", 0, 0), 0), ((1, b"a", b"", 0, 0), 0)),
        (((1, b"b", b"", 0, 0), 0), ((0, b"c", b"", 0, 0), 0)),
        (((1, b"b", b"", 0, 0), 0), ((1, b"b", b"", 0, 0), 0)),
        (((1, b"b", b"", 0, 0), 4), ((1, b"b", b"", 0, 0), 4)),
        (((1, b"b", b"", 0, 0), 4), ((1, b"b", b"", 0, 0), 5)),
    ],
    ids=["key", "keyspace", "twice", "sequence-twice", "sequence-up"],
)
@pytest.mark.parametrize("together", [True, False])
def test_w1_rows_out_of_order_are_refused(first: Version, second: Version, together: bool) -> None:
    writer = TableWriter(MemoryEnv().open("/t", write=True, create=True), *PLACE)

    with pytest.raises(InvalidArgument, match="out of order"):
        if together:
            writer.add_many([first[0], second[0]], [first[1], second[1]])
        else:
            writer.add_many([first[0]], [first[1]])
            writer.add_many([second[0]], [second[1]])

    with pytest.raises(InvalidArgument, match="earlier error"):
        writer.finish({})


@pytest.mark.parametrize(
    ("row", "sequence"),
    [
        ((256, b"k", b"", 0, 0), 0),
        ((-1, b"k", b"", 0, 0), 0),
        ((0, b"k", b"", 2**64, 0), 0),
        ((0, b"k", b"", -1, 0), 0),
        ((0, b"k", b"", 0, 256), 0),
        ((0, b"k", b"", 0, -1), 0),
        ((0, b"k", b"", 0, 0), 2**63),
        ((0, b"k", b"", 0, 0), -1),
        ((0, b"k", b"left", 0, TOMBSTONE), 0),
    ],
)
def test_numbers_out_of_range_are_refused(row: Row, sequence: int) -> None:
    with pytest.raises(InvalidArgument):
        make_table([row], [sequence])


def test_what_a_writer_is_made_with_is_checked() -> None:
    env = MemoryEnv()
    file = env.open("/t", write=True, create=True)
    for number, store_id in ((-1, STORE_ID), (2**64, STORE_ID), (1, STORE_ID[:15])):
        with pytest.raises(InvalidArgument):
            TableWriter(file, number, store_id)
    for options in (
        {"block_bytes": 0},
        {"block_bytes": 2**26 + 1},
        {"compression": "lz4"},
        {"compression": "zlib", "compression_level": 10},
        {"compression": "zstd", "compression_level": 20},
        {"compression_level": 0},
        {"compression_level": 10},
    ):
        with pytest.raises(InvalidArgument):
            TableOptions(**options)  # type: ignore[arg-type]
    for properties in ({"table.rows": 1}, {"": 1}, {"n": 2**63}, {"n": "text"}):
        with pytest.raises(InvalidArgument):
            make_table([], properties=properties)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="sequence numbers"):
        make_table([(0, b"k", b"", 0, 0)], [])
    file.write(b"x", 0)
    with pytest.raises(InvalidArgument, match="not empty"):
        TableWriter(file, *PLACE)


def test_a_finished_writer_takes_nothing_more() -> None:
    writer = TableWriter(MemoryEnv().open("/t", write=True, create=True), *PLACE)
    writer.finish({})

    with pytest.raises(InvalidArgument, match="finished"):
        writer.add(0, b"k", b"v")
    with pytest.raises(InvalidArgument, match="finished"):
        writer.finish({})


def test_w3_a_failed_write_ends_the_writer() -> None:
    env = MemoryEnv()
    file = env.open("/t", write=True, create=True)
    writer = TableWriter(file, *PLACE)

    def fail(operation: str, path: str) -> None:
        raise OSError(28, "No space left on device", path)

    env.on_call = fail
    with pytest.raises(OSError, match="No space"):
        writer.add_many([(0, b"k", bytes(2**20), 0, 0), (0, b"l", b"", 0, 0)])
    env.on_call = None
    with pytest.raises(InvalidArgument, match="earlier error"):
        writer.finish({})


def test_a_row_that_fits_no_block_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # The real limit is 4 GiB less 48 bytes: too much to allocate in a test.
    monkeypatch.setattr(writer_module, "MAX_ROW_BYTES", 100)
    data, _ = make_table([(0, b"k" * 42, b"v" * 50, 0, 0)])
    assert open_table(data, verify=True).row_count == 1

    with pytest.raises(InvalidArgument, match="does not fit"):
        make_table([(0, b"k" * 43, b"v" * 50, 0, 0)])


def test_a_value_larger_than_a_block_is_alone_in_its_block() -> None:
    rows = [(0, b"%03d" % n, b"v" * (5000 if n == 50 else 10), 0, 0) for n in range(100)]
    data, _ = make_table(rows, block_bytes=1000)

    sizes = [len(rows) for rows in open_table(data).chunks()]
    large = [size for handle, size in zip(handles_of(data), sizes) if handle.size > 1100]  # noqa: B905

    assert large == [1]
    assert sum(sizes) == 100


def test_w2_long_keys_share_blocks_so_that_the_index_stays_small() -> None:
    prefix = b"p" * 8000
    rows = [(0, prefix + b"%06d" % n, b"v" * (n % 3000), 0, 0) for n in range(300)]
    data, _ = make_table(rows, block_bytes=4096)

    table = open_table(data, verify=True)
    index = handles_of(data)[-3]

    assert index.size < len(data) / 8
    assert table.get(0, rows[77][1]) == rows[77]


def test_w2_a_writer_keeps_a_block_and_not_the_table(tmp_path: object) -> None:
    env = posix_env()
    file = env.open(f"{tmp_path}/t.sst", write=True, create=True)
    writer = TableWriter(file, NUMBER, STORE_ID)
    value = bytes(1000)
    tracemalloc.start()
    try:
        for start in range(0, 20_000, 200):
            writer.add_many([(0, b"%08d" % n, value, 0, 0) for n in range(start, start + 200)])
        info = writer.finish({})
        _, written_peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        with_table = Table.open(file, NUMBER, STORE_ID)
        assert sum(map(len, with_table.chunks())) == 20_000
        _, read_peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        file.close()

    assert info.size_bytes > 20_000_000
    assert written_peak < 2 * 2**20
    assert read_peak < 2 * READ_BYTES + 2**20


def test_a_large_value_is_held_twice_at_most_while_it_is_read() -> None:
    size = 16 * 2**20
    data, _ = make_table([(0, b"k", bytes(size), 0, 0)])
    table = open_table(data)
    tracemalloc.start()
    try:
        row = table.get(0, b"k")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert row is not None
    assert len(row[2]) == size
    assert peak < 2.1 * size


def test_a_scan_that_ends_early_reads_little() -> None:
    rows = [(0, b"%06d" % n, bytes(1000), 0, 0) for n in range(4000)]
    data, _ = make_table(rows)
    env = MemoryEnv()
    env.put_file(PATH, data)
    file = CountingFile(env.open(PATH))
    table = Table.open(file, NUMBER, STORE_ID)  # type: ignore[arg-type]
    file.reads.clear()

    assert next(table.chunks())[0] == rows[0]
    assert next(table.chunks(reverse=True))[0] == rows[-1]
    assert len(file.reads) == 2
    assert sum(file.reads) <= 2 * 64 * 1024

    file.reads.clear()
    assert sum(map(len, table.chunks())) == 4000
    assert len(file.reads) <= 8
    assert max(file.reads) <= READ_BYTES


class CountingFile:
    """Passes calls on, and notes the sizes of reads."""

    def __init__(self, file: object) -> None:
        self._file = file
        self.reads: list[int] = []

    def read(self, size: int, offset: int) -> bytes:
        self.reads.append(size)
        return self._file.read(size, offset)  # type: ignore[attr-defined, no-any-return]

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def test_a_closed_table_says_so() -> None:
    table = open_table(make_table([(0, b"k", b"v", 0, 0)])[0])
    scan = table.chunks()
    table.close()
    table.close()

    with pytest.raises(Closed):
        table.get(0, b"k")
    with pytest.raises(Closed):
        next(scan)
    with pytest.raises(Closed):
        table.verify()


@pytest.mark.parametrize("compression", ["zlib", ZSTD])
def test_compressible_blocks_shrink_and_others_stay_plain(compression: str) -> None:
    dull = [(0, b"%05d" % n, b"the same again " * 8, 0, 0) for n in range(1000)]
    plain, _ = make_table(dull)
    packed, _ = make_table(dull, compression=compression)
    noise = [(0, b"a", MemoryEnv(seed=1).random_bytes(50_000), 0, 0)]
    noisy, _ = make_table(noise, compression=compression)

    assert len(packed) < len(plain) / 3
    assert read_all(open_table(packed, verify=True)) == [(row, 0) for row in dull]
    assert noisy[41] == 0
    assert read_all(open_table(noisy, verify=True)) == [(noise[0], 0)]


@settings(max_examples=100, deadline=None)
@given(
    histories(),
    st.integers(1, 2000),
    st.sampled_from([0, 10]),
    st.lists(st.tuples(st.integers(0, 255), small_keys)),
)
def test_a_tree_looks_up_the_newest_version_as_find_does(
    model: list[Version], block_bytes: int, filter_bits: int, absent: list[tuple[int, bytes]]
) -> None:
    table = build(model, block_bytes=block_bytes, filter_bits_per_key=filter_bits)
    wanted = sorted({stored_key(*key) for key in absent} | {stored(version) for version in model})
    probes = [probe_of(row[0], row[1:]) for row in wanted]
    expected = []
    for row, probe in zip(wanted, probes, strict=True):
        found = table.find(row, probe)
        is_plain = found is not None and not found[3] and not found[4]
        answer = table.look(row, row[1:], probe)
        assert answer == found or (is_plain and found is not None and answer == found[2])
        expected.append(answer)

    assert table.look_many(wanted, probes) == expected
    assert table.look_many(wanted[1::2], probes[1::2]) == expected[1::2]


@settings(max_examples=100, deadline=None)
@given(histories(), st.integers(1, 2000), st.sampled_from([0, 1, 4]), st.booleans())
def test_columns_are_the_rows_turned(
    model: list[Version], block_bytes: int, first: int, reverse: bool
) -> None:
    table = build(model, block_bytes=block_bytes)
    order = [stored(version) for version in model]
    for start, stop in [
        (b"\0", b"\xff" * 9),
        (b"\1", b"\2a"),
        *zip(order, order[5:], strict=False),
    ]:
        found = list(table.columns(start, stop, reverse=reverse, first=first))
        if first and found:
            assert len(found[0][0]) <= first
        rows = [
            turned
            for keys, held, deadlines, types in (found[::-1] if reverse else found)
            for turned in zip(keys, held, deadlines or repeat(0), types or repeat(0), strict=False)
        ]
        part = model[bisect_left(order, start) : bisect_left(order, stop)]
        assert rows == [row[1:] for row, _ in part]


def test_the_place_is_part_of_the_table() -> None:
    rows = [(0, b"k", b"v", 0, 0)]
    elsewhere = Place(2**64 - 1, b"\xff" * 16)

    assert open_table(make_table(rows, place=elsewhere)[0], elsewhere, verify=True).row_count == 1
