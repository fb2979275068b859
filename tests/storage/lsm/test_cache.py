"""Caches keep what is used within their budgets, and let go without hurting who still reads."""

from __future__ import annotations

import gc
import random
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.env.memory import MemoryEnv
from marram.errors import Closed, Corruption, InvalidArgument
from marram.storage.entry import Entry
from marram.storage.lsm.cache import BlockCache, RowCache, TableCache
from marram.storage.sstable.block import DataBlock, Row, encode_rows, stored_key
from marram.storage.sstable.format import Place
from marram.storage.sstable.reader import Table, block_id, table_of
from tests.storage.sstable.tables import STORE_ID, make_table

MIB = 2**20


def make_block(rows: int = 100, value_bytes: int = 100) -> DataBlock:
    keys = [b"%016d" % n for n in range(rows)]
    zeros = [0] * rows
    columns = (keys, [bytes(value_bytes)] * rows, zeros, zeros, list(range(rows, 0, -1)))
    return DataBlock(memoryview(b"".join(encode_rows(0, *columns))))


# -- blocks --------------------------------------------------------------------------------------


def test_a_kept_block_is_found_and_counted() -> None:
    cache = BlockCache(MIB)
    block = make_block()

    assert cache.get(block_id(3, 7)) is None
    cache.put(block_id(3, 7), block)
    assert cache.get(block_id(3, 7)) is block
    assert cache.get(block_id(7, 3)) is None

    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.evictions, stats.entries) == (1, 2, 0, 1)
    assert block.memory_bytes < stats.bytes < block.memory_bytes + 200
    assert stats.capacity_bytes == MIB


def test_ids_tell_tables_and_blocks_apart() -> None:
    ids = [block_id(table, block) for table in (0, 1, 2**64 - 1) for block in (0, 1, 2**32 - 1)]

    assert len(set(ids)) == len(ids)
    assert [table_of(id_) for id_ in ids[::3]] == [0, 1, 2**64 - 1]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 200_000),
    st.lists(
        st.tuples(st.sampled_from("gpppd"), st.integers(0, 3), st.integers(0, 9)), max_size=120
    ),
)
def test_c1_no_steps_lead_beyond_the_capacity(
    capacity_bytes: int, steps: list[tuple[str, int, int]]
) -> None:
    cache = BlockCache(capacity_bytes)
    put: dict[int, DataBlock] = {}
    for what, table, number in steps:
        wanted = block_id(table, number)
        if what == "g":
            assert cache.get(wanted) in (None, put.get(wanted))
        elif what == "p":
            block = make_block(1 + 7 * number)
            if cache.get(wanted) is None:
                put[wanted] = block
            cache.put(wanted, block)
        else:
            cache.drop_table(table)
            assert not any(cache.get(block_id(table, found)) for found in range(10))
        cache._check()


def test_c1_sizes_are_what_blocks_take() -> None:
    cache = BlockCache(64 * MIB)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(200):
            cache.put(number, make_block(250))
            cache.get(number)  # lists the keys
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 0.9 < (after - before) / cache.stats().bytes < 1.03


def test_c3_what_is_used_again_outlives_a_scan() -> None:
    block = make_block()
    cache = BlockCache(20 * block.memory_bytes)
    hot = range(5)
    for number in hot:
        cache.put(number, make_block())
    for number in range(100, 300):  # a scan: each block once
        for wanted in hot:
            assert cache.get(wanted) is not None
        cache.put(number, make_block())
        cache._check()

    assert cache.stats().evictions > 150
    assert cache.get(100) is None


def test_c3_what_is_no_longer_used_goes() -> None:
    block = make_block()
    cache = BlockCache(20 * block.memory_bytes)
    for number in range(5):
        cache.put(number, make_block())
        cache.get(number)
    for number in range(100, 140):
        cache.put(number, make_block())

    assert not any(cache.get(number) for number in range(5))


def test_c3_if_all_was_used_the_oldest_goes() -> None:
    block = make_block()
    cache = BlockCache(10 * (block.memory_bytes + 200))
    for number in range(10):
        cache.put(number, make_block())
        cache.get(number)
    cache.put(10, make_block())

    assert [number for number in range(11) if cache.get(number)] == list(range(1, 11))


def test_c4_a_block_of_more_than_an_eighth_is_not_kept() -> None:
    small, large = make_block(100), make_block(101)
    cache = BlockCache(8 * small.memory_bytes)

    cache.put(1, small)
    cache.put(2, large)

    assert cache.get(1) is small
    assert cache.get(2) is None


def test_a_cache_of_no_bytes_keeps_nothing() -> None:
    cache = BlockCache(0)
    cache.put(1, make_block(1, 0))

    assert cache.get(1) is None
    with pytest.raises(InvalidArgument):
        BlockCache(-1)


def test_of_two_threads_that_read_a_block_the_first_is_kept() -> None:
    cache = BlockCache(MIB)
    first, second = make_block(), make_block()

    cache.put(1, first)
    cache.put(1, second)

    assert cache.get(1) is first
    cache._check()


def test_keys_are_listed_when_a_block_is_hit() -> None:
    block = make_block()
    rows = block.versions(0, block.count)
    cache = BlockCache(MIB)
    cache.put(1, block)
    assert cache.get(1) is block

    assert block.versions(0, block.count) == rows
    assert [block.version(row) for row in range(block.count)] == rows
    assert [block.find(row[1]) for row in rows] == list(range(block.count))
    assert block.find(b"") == block.find(b"\xff") == block.find(rows[5][1] + b"\0") == -1


def run_together(work: Callable[[int], None]) -> None:
    """work(0) to work(3) in threads that take turns as often as can be."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)


def test_threads_that_race_keep_it_whole() -> None:
    cache = BlockCache(12 * make_block().memory_bytes)
    blocks = {number: make_block() for number in range(40)}
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        generator = random.Random(seed)
        try:
            for turn in range(3000):
                number = min(generator.randrange(40), generator.randrange(40))
                block = cache.get(block_id(number % 4, number))
                assert block is None or block is blocks[number]
                if block is None:
                    cache.put(block_id(number % 4, number), blocks[number])
                if turn % 500 == 499:
                    cache.drop_table(turn % 4)
        except BaseException as error:
            failures.append(error)

    run_together(work)

    assert not failures
    cache._check()
    assert cache.stats().hits > 1000


# -- reading through a cache ---------------------------------------------------------------------

ROWS: list[Row] = [(0, b"%06d" % (2 * n), b"value %d" % n, 0, 0) for n in range(4000)]

MIDDLE = stored_key(0, b"003")


class Disk:
    """An environment with tables in it; it counts reads, and which files are open."""

    def __init__(self, numbers: range, filter_bits_per_key: int = 10) -> None:
        self.memory = MemoryEnv()
        self.open_files: set[int] = set()
        self.reads = 0
        for number in numbers:
            data, _ = make_table(
                ROWS, place=Place(number, STORE_ID), block_bytes=2000,
                filter_bits_per_key=filter_bits_per_key,
            )  # fmt: skip
            self.memory.put_file(path_of(number), data)

    def open(self, path: str) -> TrackedFile:
        return TrackedFile(self, self.memory.open(path))


class TrackedFile:
    """A file that is open as long as anything refers to it."""

    def __init__(self, disk: Disk, file: object) -> None:
        self._disk = disk
        self._file = file
        disk.open_files.add(id(self))

    def read(self, size: int, offset: int) -> bytes:
        self._disk.reads += 1
        return self._file.read(size, offset)  # type: ignore[attr-defined, no-any-return]

    def close(self) -> None:
        self._disk.open_files.discard(id(self))

    def __del__(self) -> None:
        self.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def path_of(number: int) -> str:
    return f"/db/{number}.sst"


def tables_of(
    disk: Disk,
    blocks: BlockCache | None = None,
    capacity_bytes: int = 64 * MIB,
    max_tables: int = 100,
    check: Callable[[Table], None] = lambda table: None,
) -> TableCache:
    return TableCache(
        disk, path_of, STORE_ID, blocks,  # type: ignore[arg-type]
        check=check, capacity_bytes=capacity_bytes, max_tables=max_tables,
    )  # fmt: skip


@contextmanager
def no_reads(disk: Disk) -> Iterator[None]:
    before = disk.reads
    yield
    assert disk.reads == before


def test_a_key_that_was_read_is_read_again_without_the_file() -> None:
    disk = Disk(range(2))
    tables = tables_of(disk, BlockCache(8 * MIB))
    for number in range(2):
        assert [tables.get(number).get(0, row[1]) for row in ROWS] == ROWS
    with no_reads(disk):
        for number in range(2):
            assert [tables.get(number).get(0, row[1]) for row in ROWS] == ROWS


def test_short_scans_keep_their_first_blocks_and_long_ones_do_not() -> None:
    disk = Disk(range(1))
    blocks = BlockCache(8 * MIB)
    table = tables_of(disk, blocks).get(0)

    assert sum(map(len, table.versions())) == len(ROWS)
    assert blocks.stats().entries == 0
    for reverse in (False, True):
        first = next(table.versions(MIDDLE, short=True, reverse=reverse))
        assert len(first) == 16
        with no_reads(disk):
            assert next(table.versions(MIDDLE, short=True, reverse=reverse)) == first
    lists = list(map(len, table.versions(short=True)))
    assert sum(lists) == len(ROWS)
    assert lists[0] == 16
    assert lists[-5:] == list(map(len, table.versions()))[-5:]  # soon whole blocks
    assert blocks.stats().entries <= 2 * 4 + 2


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("start", "stop"),
    [(None, None), (b"\x00003", b"\x00006"), (b"\x00000003", b"\x00000009"), (b"\x01", None)],
)
def test_a_short_scan_sees_what_a_long_one_does(
    start: bytes | None, stop: bytes | None, reverse: bool
) -> None:
    table = tables_of(Disk(range(1)), BlockCache(8 * MIB)).get(0)

    long = [row for rows in table.versions(start, stop, reverse=reverse) for row in rows]
    for _ in range(2):  # from the file, then from where blocks are kept
        short = table.versions(start, stop, reverse=reverse, short=True)
        assert [row for rows in short for row in rows] == long


def test_damage_is_never_kept() -> None:
    disk = Disk(range(1))
    blocks = BlockCache(8 * MIB)
    table = tables_of(disk, blocks).get(0)
    file = disk.memory.open(path_of(0), write=True)
    original = file.read(1, 60)
    file.write(bytes([original[0] ^ 1]), 60)

    for _ in range(2):
        with pytest.raises(Corruption):
            table.get(0, ROWS[0][1])
    file.write(original, 60)
    assert table.get(0, ROWS[0][1]) == ROWS[0]


# -- tables --------------------------------------------------------------------------------------


def test_a_table_is_opened_once() -> None:
    disk = Disk(range(2))
    tables = tables_of(disk)

    assert tables.get(1) is tables.get(1)
    assert tables.get(0) is not tables.get(1)
    stats = tables.stats()
    assert (stats.hits, stats.misses, stats.entries) == (2, 2, 2)
    assert stats.bytes >= tables.get(0).memory_bytes + tables.get(1).memory_bytes
    tables._check()


def test_c1_tables_say_what_they_take() -> None:
    disk = Disk(range(8))
    tables = tables_of(disk)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(8):
            tables.get(number)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 0.8 < (after - before) / tables.stats().bytes < 1.1


def test_c1_no_more_files_are_open_than_allowed() -> None:
    disk = Disk(range(10))
    tables = tables_of(disk, max_tables=3)
    generator = random.Random(4)
    for _ in range(200):
        number = generator.randrange(10)
        assert tables.get(number).get(0, ROWS[number][1]) == ROWS[number]
        tables._check()
        assert len(disk.open_files) <= 4  # the one at hand, which may just have gone

    assert tables.stats().evictions > 50


def test_c1_no_more_memory_is_used_than_allowed_but_for_one_table() -> None:
    disk = Disk(range(4))
    one = tables_of(disk).get(0).memory_bytes
    tables = tables_of(disk, capacity_bytes=int(2.5 * one))
    tiny = tables_of(disk, capacity_bytes=0)
    for number in (0, 1, 2, 3, 0):
        tables.get(number)
        tiny.get(number)
        tables._check()
        tiny._check()

    assert tables.stats().entries == 2
    assert tiny.stats().entries == 1


def test_c3_a_table_that_is_used_again_outlives_others() -> None:
    disk = Disk(range(10))
    tables = tables_of(disk, max_tables=3)
    used = tables.get(0)
    for number in range(1, 10):
        assert tables.get(0) is used
        tables.get(number)

    assert tables.stats().misses == 10


def test_c2_whoever_reads_a_table_goes_on_when_it_is_let_go_of() -> None:
    disk = Disk(range(3))
    tables = tables_of(disk, max_tables=1)
    table = tables.get(0)
    scan = table.versions()
    first = next(scan)
    tables.get(1)
    tables.get(2)
    assert len(disk.open_files) == 2

    assert table.get(0, ROWS[3999][1]) == ROWS[3999]
    assert len(first) + sum(map(len, scan)) == len(ROWS)
    del table, scan
    gc.collect()
    assert len(disk.open_files) == 1


def test_a_dropped_table_is_gone_with_its_blocks() -> None:
    disk = Disk(range(2))
    blocks = BlockCache(8 * MIB)
    tables = tables_of(disk, blocks)
    for number in range(2):
        tables.get(number).get(0, ROWS[0][1])
    tables.drop(0)
    tables.drop(0)
    tables.drop(77)

    assert blocks.stats().entries == tables.stats().entries == len(disk.open_files) == 1
    tables._check()
    blocks._check()


def test_a_missing_or_foreign_file_is_corruption() -> None:
    disk = Disk(range(2))
    disk.memory.put_file(path_of(7), make_table(ROWS)[0])
    disk.memory.put_file(path_of(8), make_table(ROWS)[0])
    tables = tables_of(disk)

    with pytest.raises(Corruption, match=r"/db/9\.sst: the file is missing"):
        tables.get(9)
    with pytest.raises(Corruption, match="number 7 by its header, not 8"):
        tables.get(8)
    assert tables.get(7).row_count == len(ROWS)
    assert len(disk.open_files) == 1


def test_a_table_that_the_check_refuses_is_not_kept() -> None:
    def check(table: Table) -> None:
        if table.number:
            raise Corruption("not the one that is listed")

    disk = Disk(range(2))
    tables = tables_of(disk, check=check)
    assert tables.get(0).number == 0
    for _ in range(2):
        with pytest.raises(Corruption, match="not the one"):
            tables.get(1)
    assert len(disk.open_files) == 1


def test_closed_tables_are_refused_but_readers_finish() -> None:
    disk = Disk(range(2))
    tables = tables_of(disk)
    table = tables.get(0)
    tables.close()
    tables.close()

    with pytest.raises(Closed):
        tables.get(0)
    assert table.get(0, ROWS[5][1]) == ROWS[5]
    del table
    assert not disk.open_files


@pytest.mark.parametrize("limits", [{"capacity_bytes": -1}, {"max_tables": 0}])
def test_limits_are_checked(limits: dict[str, int]) -> None:
    with pytest.raises(InvalidArgument):
        tables_of(Disk(range(0)), **limits)


def test_threads_open_each_table_once_and_read_rows() -> None:
    disk = Disk(range(6))
    tables = tables_of(disk, BlockCache(MIB), max_tables=4)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        generator = random.Random(seed)
        try:
            for _ in range(300):
                row = ROWS[generator.randrange(len(ROWS))]
                table: Table = tables.get(generator.randrange(6))
                assert table.get(0, row[1]) == row
        except BaseException as error:
            failures.append(error)

    run_together(work)

    assert not failures
    tables._check()
    assert len(disk.open_files) == 4


# -- rows ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 40_000),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 400)), max_size=200),
)
def test_c1_rows_never_take_more_than_allowed(
    capacity_bytes: int, puts: list[tuple[int, int]]
) -> None:
    cache = RowCache(capacity_bytes)
    for number, size in puts:
        cache.put(b"%d" % number, bytes(size))
        cache._check()
        assert (b"%d" % number in cache.young) or capacity_bytes < 64 * (size + 200)


def test_c1_rows_that_do_not_divide_the_capacity_stay_below_it() -> None:
    cache = RowCache(100_000)
    for number in range(200):
        cache.put(b"%d" % number, bytes(2500))
        cache._check()


def test_rows_that_are_put_again_outlive_others() -> None:
    cache = RowCache(100_000)
    for number in range(5000):
        cache.put(b"hot", b"value")
        cache.put(b"%d" % number, b"value")

    assert cache.young.get(b"hot") or cache.old.get(b"hot")
    assert b"0" not in cache.young and b"0" not in cache.old
    assert cache.stats().bytes <= 100_000


def test_rows_that_are_offered_often_are_kept() -> None:
    cache = RowCache(100_000)
    for _ in range(4):
        cache.offer(b"hot", Entry(b"value", 5))

    assert cache.young == {b"hot": Entry(b"value", 5)}
    assert cache.stats().misses == 4
