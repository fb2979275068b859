"""A merge of files is the merge of what they hold; where it fails, it leaves nothing behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.env import Env
from marram.env.api import File
from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.errors import Corruption, InvalidArgument
from marram.storage.layout import table_path, tables_path
from marram.storage.lsm.compaction import (
    Cancelled,
    Outcome,
    Task,
    check_table,
    finish_table,
    numbers_needed,
    run,
)
from marram.storage.lsm.job import GONE_LIMIT, MERGE, MOVE, Boundary, Job
from marram.storage.lsm.version import TableMeta
from marram.storage.sstable.block import TOMBSTONE, VersionRow, stored_key
from marram.storage.sstable.ranges import RangeDeletion
from marram.storage.sstable.reader import Table
from marram.storage.sstable.writer import TableOptions, TableWriter
from tests.storage.lsm.histories import covers

EXAMPLES = int(os.environ.get("MARRAM_COMPACTION_EXAMPLES", "40"))
"""How many random jobs are tried; more on request."""

STORE_ID = bytes(range(16))
DIR = "/db"
FIRST = 100
OPTIONS = TableOptions(block_bytes=200, filter_bits_per_key=10)


def row(key: bytes, sequence: int, value: bytes = b"v", deadline_ms: int = 0) -> VersionRow:
    return (0, key, value, deadline_ms, 0, sequence)


def gone(key: bytes, sequence: int) -> VersionRow:
    return (0, key, b"", 0, TOMBSTONE, sequence)


def write_table(
    env: Env,
    number: int,
    rows: Sequence[VersionRow],
    ranges: Sequence[RangeDeletion] = (),
    directory: str = DIR,
    options: TableOptions = OPTIONS,
) -> TableMeta:
    """A durable table, as a flush would leave it."""
    env.make_dir(tables_path(directory))
    file = env.open(table_path(directory, number), write=True, create=True)
    writer = TableWriter(file, number, STORE_ID, options)
    writer.add_many([found[:5] for found in rows], [found[5] for found in rows])
    meta = finish_table(env, writer, number, ranges)
    file.sync()
    file.close()
    for path in ("/", directory, tables_path(directory)):
        env.sync_dir(path)
    assert meta is not None
    return meta


def task_of(job: Job, directory: str = DIR, **fields: Any) -> Task:
    task = Task(directory, STORE_ID, job, FIRST, numbers_needed(job), 0, OPTIONS)
    return replace(task, **fields)


def merge_job(*tables: TableMeta, below: Iterable[tuple[bytes, bytes]] = (), **more: Any) -> Job:
    """Tables of level 0, newest first, to level 1."""
    return Job(MERGE, "level0", ((0, tables),), 1, below=tuple(below), **more)


def open_table(env: Env, meta: TableMeta, directory: str = DIR) -> Table:
    file = env.open(table_path(directory, meta.number))
    return Table.open(file, meta.number, STORE_ID, verify=True)


def rows_of(env: Env, tables: Iterable[TableMeta], directory: str = DIR) -> list[VersionRow]:
    opened = [open_table(env, meta, directory) for meta in tables]
    return [found for table in opened for rows in table.versions() for found in rows]


def names(env: Env, directory: str = DIR) -> list[str]:
    return env.list_dir(tables_path(directory))


def two_tables(env: Env, count: int = 60) -> tuple[TableMeta, TableMeta]:
    """A newer and an older table that share every other key."""
    new = write_table(env, 2, [row(b"%04d" % n, 9, b"new" * 9) for n in range(0, count, 2)])
    old = write_table(env, 1, [row(b"%04d" % n, 5, b"old" * 9) for n in range(count)])
    return new, old


# -- what is kept --------------------------------------------------------------------------------

KEYS = [b"", *(b"%c" % n for n in b"abcdefgh"), b"a\x00", b"\xff"]
BOUNDS = [*KEYS, b"cc", b"\xff\xff"]
KEYSPACES = (0, 1)
stored_keys = st.builds(stored_key, st.sampled_from(KEYSPACES), st.sampled_from(BOUNDS))


def cells(sequences: st.SearchStrategy[int]) -> st.SearchStrategy[list[VersionRow]]:
    """Rows of some keys, in order, one a key."""
    cell = st.tuples(sequences, st.sampled_from([0, 0, 50, 150, TOMBSTONE]), st.integers(0, 40))
    places = st.tuples(st.sampled_from(KEYSPACES), st.sampled_from(KEYS))

    def made(found: dict[tuple[int, bytes], tuple[int, int, int]]) -> list[VersionRow]:
        rows: list[VersionRow] = []
        for (keyspace, key), (sequence, kind, size) in sorted(found.items()):
            if kind == TOMBSTONE:
                rows.append((keyspace, key, b"", 0, TOMBSTONE, sequence))
            else:
                rows.append((keyspace, key, b"x" * size, kind, 0, sequence))
        return rows

    return st.dictionaries(places, cell, max_size=16).map(made)


def deletions(sequences: st.SearchStrategy[int]) -> st.SearchStrategy[list[RangeDeletion]]:
    return st.lists(
        st.builds(
            RangeDeletion,
            st.sampled_from(KEYSPACES),
            st.sampled_from(BOUNDS),
            st.sampled_from(BOUNDS) | st.none(),
            sequences,
        ).filter(lambda found: found.stop is None or found.start < found.stop),
        max_size=2,
    )


@st.composite
def jobs(draw: st.DrawFn) -> tuple[MemoryEnv, Job, list[list[VersionRow]], list[RangeDeletion]]:
    """A job over tables in an env, what they hold, newest first, and all their range deletions."""
    env = MemoryEnv()
    sources: list[list[VersionRow]] = []
    ranges: list[RangeDeletion] = []
    level0 = []
    for sequence in range(9, 9 - draw(st.integers(1, 3)), -1):
        rows, deleted = draw(cells(st.just(sequence))), draw(deletions(st.just(sequence)))
        if rows or deleted:
            level0.append(write_table(env, sequence, rows, deleted))
            sources.append(rows)
            ranges += deleted
    rows = draw(cells(st.integers(1, 5)))
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(rows) - 1)), max_size=2)) | {0, len(rows)})
    level1 = []
    for number, (start, stop) in enumerate(pairwise(cuts)):
        part = rows[start:stop]
        if part:
            # A range deletion of its own over keys that lie within it.
            first, last = part[0], part[-1]
            inside = []
            if first[0] == last[0] and first[1] < last[1] and draw(st.booleans()):
                deletion = RangeDeletion(first[0], first[1], last[1], draw(st.integers(1, 5)))
                inside = [deletion]
            level1.append(write_table(env, 20 + number, part, inside))
            ranges += inside
    sources.append(rows)
    inputs = [(n, tuple(tables)) for n, tables in ((0, level0), (1, level1)) if tables]
    if not inputs:
        inputs = [(0, (write_table(env, 9, [row(b"a", 9)]),))]
        sources.append([row(b"a", 9)])
    bounds = sorted(draw(st.sets(stored_keys, max_size=6)))
    below = tuple(zip(bounds[::2], bounds[1::2], strict=False))
    boundaries = sorted(draw(st.sets(stored_keys, max_size=5)))
    job = Job(
        MERGE, "level0", tuple(inputs), 1,
        target_bytes=draw(st.sampled_from([0, 150, 300, 1000])),
        grandparent_bytes=draw(st.sampled_from([50, 250, 10_000])),
        boundaries=tuple(Boundary(key, 100) for key in boundaries),
        below=below,
    )  # fmt: skip
    return env, job, sources, ranges


def expected_rows(
    job: Job, sources: list[list[VersionRow]], ranges: list[RangeDeletion], expired_ms: int
) -> tuple[list[VersionRow], list[bytes]]:
    """What a merge keeps, and the keys it takes away, by the definition."""
    newest: dict[bytes, VersionRow] = {}
    for found in (found for rows in reversed(sources) for found in rows):
        newest[stored_key(found[0], found[1])] = found
    kept: list[VersionRow] = []
    expired = []
    for key, newest_row in sorted(newest.items()):
        found = newest_row
        if any(found[5] < d.sequence and covers(d, found[0], found[1]) for d in ranges):
            continue
        if 0 < found[3] <= expired_ms:
            expired.append(key)
            found = (found[0], found[1], b"", 0, TOMBSTONE, found[5])
        if found[4] != TOMBSTONE or job.may_be_below(key):
            kept.append(found)
    return kept, expired


def newest_over(ranges: Iterable[RangeDeletion], key: bytes) -> int:
    return max((d.sequence for d in ranges if covers(d, key[0], key[1:])), default=0)


@settings(max_examples=EXAMPLES, deadline=None)
@given(jobs(), st.sampled_from([0, 60, 200]))
def test_a_merge_equals_the_model(
    made: tuple[MemoryEnv, Job, list[list[VersionRow]], list[RangeDeletion]], expired_ms: int
) -> None:
    env, job, sources, ranges = made
    inputs = names(env)

    outcome = run(env, task_of(job, expired_ms=expired_ms))

    kept, expired = expected_rows(job, sources, ranges, expired_ms)
    assert rows_of(env, outcome.tables) == kept
    assert list(outcome.gone) == expired
    tables = [open_table(env, meta) for meta in outcome.tables]
    outputs = [deletion for table in tables for deletion in table.ranges]
    for key in {stored_key(n, key) for n in KEYSPACES for key in (*BOUNDS, b"bb", b"gg")}:
        found, wanted = newest_over(outputs, key), newest_over(ranges, key)
        # What has nothing below it may go.
        assert found == wanted or (found == 0 and not job.may_be_below(key))
    check_outputs(env, job, outcome, inputs)


def check_outputs(env: MemoryEnv, job: Job, outcome: Outcome, inputs: list[str]) -> None:
    """K2, K4, the counts, and that descriptions and files agree."""
    metas = outcome.tables
    assert [meta.number for meta in metas] == list(range(FIRST, FIRST + len(metas)))
    assert len(metas) < numbers_needed(job) or not job.target_bytes
    assert all(a.stop <= b.start for a, b in pairwise(metas))
    job.edit(metas)  # within the job's range
    assert names(env) == sorted([*inputs, *(f"{meta.number}.sst" for meta in metas)])
    durable = env.crash_clone(0.0, 1)
    for meta in metas:
        table = open_table(durable, meta)
        check_table(table, meta)
        rows = [found for rows in table.versions() for found in rows]
        timed = [found for found in rows if found[3]]
        assert meta.expirable_rows == len(timed)
        assert meta.expirable_bytes == sum(len(found[1]) + len(found[2]) for found in timed)
        assert meta.earliest_deadline_ms == min((found[3] for found in timed), default=0)
        assert meta.latest_deadline_ms == max((found[3] for found in timed), default=0)
    assert outcome.rows_read == sum(meta.rows for meta in job.tables)
    assert outcome.rows_written == sum(meta.rows for meta in metas)
    assert outcome.bytes_written == sum(meta.size_bytes for meta in metas)
    assert outcome.bytes_read >= outcome.rows_read


def test_what_expired_beyond_the_limit_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert GONE_LIMIT > 1000
    monkeypatch.setattr("marram.storage.lsm.compaction.GONE_LIMIT", 2)
    env = MemoryEnv()
    table = write_table(env, 1, [row(b"%d" % n, 5, deadline_ms=50) for n in range(5)])

    outcome = run(env, task_of(merge_job(table), expired_ms=60))

    assert outcome.gone == (b"\x000", b"\x001")
    assert [found[1] for found in rows_of(env, outcome.tables)] == [b"2", b"3", b"4"]


def test_where_nothing_is_left_there_is_no_output() -> None:
    env = MemoryEnv()
    table = write_table(env, 1, [gone(b"a", 5)], [RangeDeletion(0, b"b", b"c", 5)])

    assert run(env, task_of(merge_job(table))).tables == ()
    assert names(env) == ["1.sst"]


def test_only_a_merge_is_run() -> None:
    env = MemoryEnv()
    job = replace(merge_job(write_table(env, 1, [row(b"a", 5)])), kind=MOVE)
    with pytest.raises(InvalidArgument):
        run(env, task_of(job))


# -- where outputs end ---------------------------------------------------------------------------


def many(count: int, sequence: int = 5) -> list[VersionRow]:
    return [row(b"%06d" % n, sequence, bytes(86)) for n in range(count)]  # of 108 bytes


LARGE_BLOCKS = TableOptions(block_bytes=4096, filter_bits_per_key=10)


def test_k4_without_boundaries_outputs_have_the_target_size() -> None:
    env = MemoryEnv()
    job = merge_job(write_table(env, 1, many(3000)), target_bytes=50_000)

    tables = run(env, task_of(job, options=LARGE_BLOCKS)).tables

    sizes = [found.size_bytes for found in tables]
    assert len(tables) == 7
    assert all(50_000 <= size <= 53_000 for size in sizes[:-1])  # index and filter come on top


def test_k4_outputs_end_at_boundaries_near_the_target() -> None:
    env = MemoryEnv()
    keys = [stored_key(0, b"%06d" % n) for n in range(0, 3000, 120)]
    job = merge_job(
        write_table(env, 1, many(3000)),
        target_bytes=50_000,
        grandparent_bytes=10**9,
        boundaries=tuple(Boundary(key, 10) for key in keys),
    )

    tables = run(env, task_of(job, options=LARGE_BLOCKS)).tables

    assert [found.start for found in tables[1:]] == keys[4::4]
    assert all(found.rows == 480 for found in tables[:-1])


def test_k4_outputs_meet_little_of_the_level_below() -> None:
    env = MemoryEnv()
    keys = [stored_key(0, b"%06d" % n) for n in range(0, 1000, 100)]
    job = merge_job(
        write_table(env, 1, many(1000)),
        target_bytes=10**6,
        grandparent_bytes=300,
        boundaries=tuple(Boundary(key, 100) for key in keys),
    )

    tables = run(env, task_of(job, options=LARGE_BLOCKS)).tables

    assert [found.start for found in tables] == keys[::3]


def test_k4_a_range_deletion_without_rows_is_cut_as_well() -> None:
    env = MemoryEnv()
    keys = [stored_key(0, b"%06d" % n) for n in range(100, 1000, 100)]
    deletion = RangeDeletion(0, b"000050", b"000950", 9)
    job = merge_job(
        write_table(env, 1, [], [deletion]),
        target_bytes=10**6,
        grandparent_bytes=300,
        boundaries=tuple(Boundary(key, 100) for key in keys),
        below=[(b"\0", b"\1")],
    )

    tables = run(env, task_of(job, options=LARGE_BLOCKS)).tables

    assert [found.start for found in tables] == [b"\x00000050", *keys[3::3]]
    assert [found.stop for found in tables] == [*keys[3::3], b"\x00000950"]
    parts = [open_table(env, found).ranges for found in tables]
    assert all(len(part) == 1 and part[0].sequence == 9 for part in parts)


def test_k4_range_deletions_that_start_between_rows_part_no_output_from_its_rows() -> None:
    env = MemoryEnv()
    ranges = [RangeDeletion(0, b"%06d" % n, b"%06d" % (n + 1), 3) for n in range(2, 995, 7)]
    old = write_table(env, 1, [], [*ranges[::2], RangeDeletion(1, b"", None, 3)])
    new = write_table(env, 2, many(1000))
    job = merge_job(new, old, target_bytes=3000, below=[(b"\0", b"\2")])

    tables = run(env, task_of(job)).tables

    assert all(a.stop <= b.start for a, b in pairwise(tables))
    assert sum(found.rows for found in tables) == 1000
    assert sum(found.range_deletions for found in tables) == len(ranges[::2]) + 1


def test_k4_an_output_full_of_range_deletions_ends_before_the_next_mark() -> None:
    """What a range deletion weighs counts after its mark was asked for, so at any moment."""
    env = MemoryEnv()
    ranges = [RangeDeletion(0, b"b%03d" % n, b"b%03d" % (n + 1), 3) for n in range(0, 90, 7)]
    old = write_table(env, 1, [], ranges)
    new = write_table(env, 2, [row(b"b%03d" % n, 5) for n in range(100)])
    for target_bytes in range(300, 500, 7):
        job = merge_job(new, old, target_bytes=target_bytes, below=[(b"\0", b"\1")])

        tables = run(env.crash_clone(1.0, 1), task_of(job)).tables

        assert all(a.stop <= b.start for a, b in pairwise(tables))
        assert sum(found.rows for found in tables) == 100


def test_k4_a_large_row_does_not_swell_the_output_by_its_neighbours() -> None:
    env = MemoryEnv()
    rows = [row(b"%06d" % n, 5, bytes(10 if n < 500 else 20_000)) for n in range(520)]
    job = merge_job(write_table(env, 1, rows), target_bytes=40_000)

    tables = run(env, task_of(job, options=LARGE_BLOCKS)).tables

    assert max(found.size_bytes for found in tables[1:]) < 65_000


def test_k4_the_last_number_takes_all_the_rest() -> None:
    env = MemoryEnv()
    job = merge_job(write_table(env, 1, many(3000)), target_bytes=50_000)

    tables = run(env, task_of(job, numbers=3)).tables

    assert [found.number for found in tables] == [100, 101, 102]
    assert sum(found.rows for found in tables) == 3000


def test_compressed_inputs_do_not_run_out_of_numbers() -> None:
    env = MemoryEnv()
    zlib = TableOptions(compression="zlib", block_bytes=32_000)
    table = write_table(env, 1, many(5000), options=zlib)
    job = merge_job(table, target_bytes=table.size_bytes // 4)

    tables = run(env, task_of(job)).tables

    assert len(tables) <= numbers_needed(job)
    assert sum(found.rows for found in tables) == 5000


# -- inputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"size_bytes": 5000},
        {"rows": 61},
        {"tombstones": 1},
        {"min_sequence": 4},
        {"max_sequence": 6},
        {"range_deletions": 1},
        {"start": b"\x00000"},
        {"stop": b"\x000059\x00\x00"},
        {"stamp": 0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_k1_a_table_that_is_not_the_listed_one_is_refused(changes: dict[str, Any]) -> None:
    env = MemoryEnv()
    new, old = two_tables(env)

    with pytest.raises(Corruption, match="not the table 1 that is listed") as caught:
        run(env, task_of(merge_job(new, replace(old, **changes))))

    assert caught.value.path == "/db/tables/1.sst"
    assert names(env) == ["1.sst", "2.sst"]


def test_k1_an_older_file_in_a_tables_place_is_refused() -> None:
    env = MemoryEnv()
    write_table(env, 1, [row(b"%04d" % n, 5, b"old" * 9) for n in range(60)])
    yesterday = env.contents("/db/tables/1.sst")
    env.remove("/db/tables/1.sst")
    table = write_table(env, 1, [row(b"%04d" % n, 6, b"old" * 9) for n in range(60)])
    env.put_file("/db/tables/1.sst", yesterday)

    with pytest.raises(Corruption, match="sequence 5, listed 6"):
        run(env, task_of(merge_job(table)))


def test_k1_a_table_that_differs_in_nothing_but_its_rows_is_refused() -> None:
    """As of a copy of the store that went on separately."""
    env, other = MemoryEnv(seed=1), MemoryEnv(seed=2)
    table = write_table(env, 1, [row(b"a", 5, b"here")])
    elsewhere = write_table(other, 1, [row(b"a", 5, b"away")])
    assert replace(elsewhere, stamp=table.stamp) == table
    env.put_file("/db/tables/1.sst", other.contents("/db/tables/1.sst"))

    with pytest.raises(Corruption, match="not the table 1 that is listed: stamp") as caught:
        run(env, task_of(merge_job(table)))

    assert caught.value.path == "/db/tables/1.sst"


def test_k1_a_table_without_a_stamp_is_refused() -> None:
    env = MemoryEnv()
    table = write_table(env, 1, [row(b"a", 5)])
    env.remove("/db/tables/1.sst")
    file = env.open("/db/tables/1.sst", write=True, create=True)
    writer = TableWriter(file, 1, STORE_ID, OPTIONS)
    writer.add_many([row(b"a", 5)[:5]], [5])
    size_bytes = writer.finish({}).size_bytes

    with pytest.raises(Corruption, match="stamp None"):
        run(env, task_of(merge_job(replace(table, size_bytes=size_bytes, stamp=0))))


def test_k1_a_missing_or_swapped_table_is_refused() -> None:
    env = MemoryEnv()
    new, old = two_tables(env)
    env.put_file("/db/tables/1.sst", env.contents("/db/tables/2.sst"))
    with pytest.raises(Corruption, match=r"/db/tables/1\.sst"):
        run(env, task_of(merge_job(new, old)))
    env.remove("/db/tables/1.sst")
    with pytest.raises(Corruption, match=r"1\.sst.* missing"):
        run(env, task_of(merge_job(new, old)))


def test_k3_damage_met_half_way_leaves_no_output() -> None:
    env = MemoryEnv()
    table = write_table(env, 1, many(3000))
    env.mutate("/db/tables/1.sst", table.size_bytes // 2, b"!!!!!")

    with pytest.raises(Corruption, match=r"/db/tables/1\.sst @"):
        run(env, task_of(merge_job(table, target_bytes=20_000)))

    assert names(env) == ["1.sst"]


def test_k5_tables_of_an_ordered_level_are_open_one_at_a_time() -> None:
    env = Counting()
    tables = [
        write_table(env, number, many(5000)[number * 1000 : number * 1000 + 1000])
        for number in range(5)
    ]
    env.most = 0
    job = Job(MERGE, "size", ((1, tuple(tables)),), 2, target_bytes=10**6)

    run(env, task_of(job))

    assert env.most == 2  # one input, one output
    assert env.now == 0


class Counting(MemoryEnv):
    """Counts open files."""

    now = most = 0

    def open(self, path: str, **options: Any) -> File:  # type: ignore[override]
        self.now += 1
        self.most = max(self.most, self.now)
        return _Counted(super().open(path, **options), self)  # type: ignore[return-value]


class _Counted:
    def __init__(self, file: File, env: Counting) -> None:
        self._file, self._env, self._closed = file, env, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        self._env.now -= not self._closed
        self._closed = True
        self._file.close()


# -- errors, cancellation ------------------------------------------------------------------------


def test_k3_a_fault_at_any_call_leaves_no_output_and_no_open_file() -> None:
    base = Counting()
    new, old = two_tables(base)
    job = merge_job(new, old, target_bytes=700)
    assert len(run(base.crash_clone(1.0, 1), task_of(job)).tables) >= 3

    nth = 0
    while True:
        nth += 1
        disk = Counting()
        two_tables(disk)
        env = FaultyEnv(disk, Fault("*", nth=nth))
        try:
            run(env, task_of(job))
            break
        except OSError as error:
            assert error.errno == errno.EIO
            # Here, where the error still holds whatever it came through.
            assert names(disk) == ["1.sst", "2.sst"], nth
            assert disk.now == 0, nth
    assert nth > 40


def test_k3_what_cannot_be_removed_does_not_hide_the_error() -> None:
    disk = MemoryEnv()
    new, old = two_tables(disk)
    sync = Fault("sync", error=errno.ENOSPC)
    env = FaultyEnv(disk, sync, Fault("remove", error=errno.EROFS, times=None))

    with pytest.raises(OSError) as caught:
        run(env, task_of(merge_job(new, old)))

    assert caught.value.errno == errno.ENOSPC


def test_k3_a_file_that_was_there_is_not_touched() -> None:
    env = MemoryEnv()
    new, old = two_tables(env)
    env.put_file("/db/tables/100.sst", b"somebody's")

    with pytest.raises(FileExistsError):
        run(env, task_of(merge_job(new, old)))

    assert env.contents("/db/tables/100.sst") == b"somebody's"


def test_k3_cancelled_at_any_block_it_leaves_nothing() -> None:
    disk = MemoryEnv()
    new, old = two_tables(disk)
    job = merge_job(new, old, target_bytes=700)
    stops = 0
    while True:
        stops += 1
        calls = iter([False] * stops)
        env = disk.crash_clone(1.0, 1)
        try:
            run(env, task_of(job), cancelled=lambda calls=calls: next(calls, True))  # type: ignore[misc]
            break
        except Cancelled:
            assert names(env) == ["1.sst", "2.sst"]
    assert stops > 10


def test_what_progress_raises_ends_the_merge() -> None:
    env = MemoryEnv()
    new, old = two_tables(env)

    def progress(read_bytes: int, written_bytes: int) -> None:
        if written_bytes:
            raise EOFError

    with pytest.raises(EOFError):
        run(env, task_of(merge_job(new, old, target_bytes=700)), progress=progress)
    assert names(env) == ["1.sst", "2.sst"]


def test_progress_grows_up_to_the_outcome() -> None:
    env = MemoryEnv()
    new, old = two_tables(env)
    told: list[tuple[int, int]] = []

    outcome = run(
        env,
        task_of(merge_job(new, old)),
        progress=lambda read, written: told.append((read, written)),
    )

    assert told == sorted(told)
    assert told[-1] == (outcome.bytes_read, outcome.bytes_written)


# -- rate ----------------------------------------------------------------------------------------


class Watch(MemoryEnv):
    """Waits by its own clock."""

    waited_s = longest_s = 0.0

    def wait(self, seconds: float) -> None:
        self.waited_s += seconds
        self.longest_s = max(self.longest_s, seconds)
        self.advance(round(seconds * 1000))


def test_a_rate_is_kept_by_waiting() -> None:
    env = Watch()
    table = write_table(env, 1, many(3000))

    outcome = run(env, task_of(merge_job(table), rate_bytes_s=100_000))

    wanted_s = (outcome.bytes_read + outcome.bytes_written) / 100_000
    # The last block's worth is not waited for, and 0.2 s are free at the start.
    assert wanted_s * 0.9 < env.waited_s < wanted_s * 1.05
    assert env.longest_s <= 0.1


def test_without_a_rate_nothing_waits() -> None:
    env = Watch()
    run(env, task_of(merge_job(write_table(env, 1, many(300)))))
    assert env.waited_s == 0


def test_a_merge_that_waits_can_be_cancelled() -> None:
    env = Watch()
    table = write_table(env, 1, many(3000))

    with pytest.raises(Cancelled):
        run(env, task_of(merge_job(table), rate_bytes_s=100), cancelled=lambda: env.waited_s > 5)

    assert env.waited_s < 6


def test_a_clock_that_stands_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    env = Watch()
    monkeypatch.setattr(env, "advance", lambda ms: None)
    table = write_table(env, 1, many(1000))

    outcome = run(env, task_of(merge_job(table), rate_bytes_s=10_000))

    assert env.waited_s * 10_000 <= outcome.bytes_read + outcome.bytes_written


# -- descriptions --------------------------------------------------------------------------------


def test_every_table_has_a_stamp_of_its_own_in_file_and_description() -> None:
    env = MemoryEnv()
    inputs = two_tables(env, 3000)
    outputs = run(env, task_of(merge_job(*inputs, target_bytes=20_000))).tables

    assert len(outputs) > 1
    metas = (*inputs, *outputs)
    assert len({meta.stamp for meta in metas}) == len(metas)
    for meta in metas:
        assert open_table(env, meta).properties["stamp"] == meta.stamp.to_bytes(8, "little")


def test_a_description_covers_rows_and_range_deletions() -> None:
    env = MemoryEnv()
    ranges = [RangeDeletion(0, b"a", b"c", 7), RangeDeletion(1, b"x", None, 7)]
    meta = write_table(env, 3, [row(b"b", 7, deadline_ms=90), gone(b"d", 7)], ranges)

    assert (meta.start, meta.stop) == (b"\0a", b"\2")
    assert (meta.rows, meta.tombstones, meta.range_deletions) == (2, 1, 2)
    assert (meta.min_sequence, meta.max_sequence) == (7, 7)
    assert (meta.expirable_rows, meta.earliest_deadline_ms) == (1, 90)
    check_table(open_table(env, meta), meta)


def test_sequences_are_of_rows_and_range_deletions_together() -> None:
    env = MemoryEnv()
    meta = write_table(env, 3, [row(b"b", 5)], [RangeDeletion(0, b"a", b"c", 3)])
    assert (meta.min_sequence, meta.max_sequence) == (3, 5)
    meta = write_table(env, 4, [], [RangeDeletion(0, b"a", b"c", 3)])
    assert (meta.min_sequence, meta.max_sequence) == (3, 3)


def test_range_deletions_that_the_file_has_once_are_counted_once() -> None:
    env = MemoryEnv()
    ranges = [RangeDeletion(0, b"a", b"c", 7), RangeDeletion(0, b"a", b"d", 7)]
    meta = write_table(env, 3, [], ranges)
    assert (meta.range_deletions, meta.stop) == (1, b"\0d")
    check_table(open_table(env, meta), meta)


def test_an_empty_table_and_one_without_an_end_have_no_description() -> None:
    env = MemoryEnv()
    file = env.open("/3.sst", write=True, create=True)
    assert finish_table(env, TableWriter(file, 3, STORE_ID, OPTIONS), 3, []) is None
    with pytest.raises(InvalidArgument, match="keyspace 255"):
        write_table(env, 4, [], [RangeDeletion(255, b"", None, 7)])
