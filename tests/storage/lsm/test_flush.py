"""storage/lsm/flush.py: what of a memtable goes into its table, and stores made in bulk."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import nullcontext

import pytest

import marram
from marram.env.memory import MemoryEnv
from marram.storage import layout
from marram.storage.engine import Origin
from marram.storage.entry import Entry, Stored
from marram.storage.lsm import manifest
from marram.storage.lsm.flush import Separation, flush, remove_tables, table_options
from marram.storage.lsm.loading import write_store
from marram.storage.lsm.memtable import GONE, Memtable, RangeSet
from marram.storage.lsm.version import LAST_LEVEL, TableMeta
from marram.storage.options import Options
from marram.storage.recovery import start_first_log
from marram.storage.sstable.block import TOMBSTONE, VersionRow
from marram.storage.sstable.ranges import RangeDeletion
from marram.storage.sstable.reader import Table

DIRECTORY = "/db"
STORE_ID = bytes(range(16))
OPTIONS = Options(engine="lsm")


def env_with_folder() -> MemoryEnv:
    env = MemoryEnv()
    env.make_dir(layout.tables_path(DIRECTORY))
    return env


def frozen() -> Memtable:
    """Values, a tombstone, a range deletion; batches 4 to 9."""
    memtable = Memtable(3)
    memtable.spaces[0].put(b"a", b"1", 4, -1)
    memtable.spaces[0].put(b"b", GONE, 5, -1)
    memtable.spaces[2].put(b"c", b"3", 9, -1)
    memtable.ranges = RangeSet((RangeDeletion(1, b"x", None, 6),))
    memtable.last = 9
    return memtable


def flushed(
    env: MemoryEnv,
    memtable: Memtable,
    *,
    bottom: bool = False,
    lock: threading.Lock | None = None,
    check: Callable[[], None] = lambda: None,
    told: Callable[[int], None] = lambda rows: None,
) -> TableMeta | None:
    return flush(
        env, DIRECTORY, STORE_ID, 7, memtable, table_options(OPTIONS), lock or nullcontext(),
        check, told, bottom=bottom,
    )  # fmt: skip


def table_of(env: MemoryEnv) -> Table:
    return Table.open(env.open(layout.table_path(DIRECTORY, 7)), 7, STORE_ID, verify=True)


def rows_of(env: MemoryEnv) -> list[VersionRow]:
    return [row for rows in table_of(env).versions(b"", b"\xff") for row in rows]


def test_f1_all_rows_and_ranges_have_the_number_of_the_last_batch() -> None:
    env = env_with_folder()

    meta = flushed(env, frozen())

    assert meta is not None
    assert (meta.number, meta.rows, meta.tombstones, meta.range_deletions) == (7, 3, 1, 1)
    assert (meta.min_sequence, meta.max_sequence) == (9, 9)
    assert rows_of(env) == [
        (0, b"a", b"1", 0, 0, 9),
        (0, b"b", b"", 0, TOMBSTONE, 9),
        (2, b"c", b"3", 0, 0, 9),
    ]
    assert list(table_of(env).ranges) == [RangeDeletion(1, b"x", None, 9)]


def test_f2_where_nothing_is_behind_only_values_are_written() -> None:
    env = env_with_folder()

    meta = flushed(env, frozen(), bottom=True)

    assert meta is not None
    assert (meta.rows, meta.tombstones, meta.range_deletions) == (2, 0, 0)


def test_f2_a_memtable_of_deletions_alone_makes_no_table() -> None:
    env, memtable = env_with_folder(), Memtable(0)
    memtable.spaces[0].put(b"b", GONE, 5, -1)
    memtable.ranges = RangeSet((RangeDeletion(1, b"x", None, 6),))

    assert flushed(env, memtable, bottom=True) is None
    assert env.list_dir(layout.tables_path(DIRECTORY)) == []


def test_f3_the_lock_is_free_whenever_rows_are_written() -> None:
    env, memtable, lock = env_with_folder(), Memtable(0), threading.Lock()
    for n in range(2000):
        memtable.spaces[0].put(b"%05d" % n, bytes(100), 1, -1)
    memtable.last = 1
    env.on_call = lambda operation, path: _assert(not lock.locked())

    meta = flushed(env, memtable, lock=lock, check=lambda: _assert(not lock.locked()))

    assert meta is not None
    assert meta.rows == 2000


@pytest.mark.parametrize("bottom", [False, True])
@pytest.mark.parametrize("blob_bytes", [0, 150])
def test_a_table_is_the_same_whichever_way_its_rows_went(
    monkeypatch: pytest.MonkeyPatch, blob_bytes: int, bottom: bool
) -> None:
    files: list[dict[str, bytes]] = []
    for way in ("compiled", "interpreted"):
        monkeypatch.setattr("marram.storage.lsm.flush.state", lambda way=way: way)
        env, told = env_with_folder(), list[int]()
        blob = Separation(lambda: 8, blob_bytes) if blob_bytes else None
        memtable = varied()
        flush(
            env, DIRECTORY, STORE_ID, 7, memtable, table_options(OPTIONS), nullcontext(),
            lambda: None, told.append, bottom=bottom, blob=blob,
        )  # fmt: skip
        assert sum(told) == sum(len(space.map) for space in memtable.spaces)
        folder = layout.tables_path(DIRECTORY)
        opened = {name: env.open(f"{folder}/{name}") for name in env.list_dir(folder)}
        files.append({name: file.read(file.size(), 0) for name, file in opened.items()})

    assert files[0] == files[1]
    assert len(files[0]) == (2 if blob_bytes else 1)


def varied() -> Memtable:
    """Plain rows in short and long stretches, and rows of every other kind between them."""
    rng = random.Random(3)
    memtable = Memtable(0)
    for keyspace, often in ((0, 0.0), (1, 0.3), (4, 0.0002), (5, 1.0)):
        for n in rng.sample(range(9000), 4500):
            held: Stored = bytes(rng.randrange(160))
            if rng.random() < often:
                held = rng.choice((GONE, Entry(b"x", 10**13, 0), Entry(b"y", 0, 1), bytes(70_000)))
            memtable.spaces[keyspace].put(b"key:%06d" % n, held, n + 1, -1)
    memtable.spaces[0].put(b"long" * 800, b"1", 9001, -1)
    memtable.last = 9001
    return memtable


def test_it_is_durable_with_its_name_when_flush_returns() -> None:
    env = MemoryEnv()
    env.put_file(f"{layout.tables_path(DIRECTORY)}/kept", b"")  # the folder itself is durable

    flushed(env, frozen())

    after = env.crash_clone(survival=0.0, seed=1)
    assert after.contents(layout.table_path(DIRECTORY, 7)) == env.contents(
        layout.table_path(DIRECTORY, 7)
    )


def test_check_ends_it_between_slices() -> None:
    env = env_with_folder()

    def closing() -> None:
        raise marram.Closed("closing")

    with pytest.raises(marram.Closed):
        flushed(env, frozen(), check=closing)


def test_it_tells_how_many_rows_it_wrote() -> None:
    told: list[int] = []

    flushed(env_with_folder(), frozen(), told=told.append)

    assert sum(told) == 3


def test_what_a_failed_flush_left_is_replaced_and_can_be_removed() -> None:
    env = env_with_folder()
    env.put_file(layout.table_path(DIRECTORY, 7), b"half a table")

    flushed(env, frozen())
    assert len(rows_of(env)) == 3

    remove_tables(env, DIRECTORY, [6, 7])  # 6 was never begun
    assert env.list_dir(layout.tables_path(DIRECTORY)) == []


def test_a_store_made_in_bulk_has_its_rows_on_the_last_level_and_knows_its_counts() -> None:
    env = MemoryEnv()
    options = Options(engine="lsm", memtable_bytes=64 * 1024)
    origin = Origin(STORE_ID, 1, 5, 1000)
    rows = [(0, b"%05d" % n, bytes(100), 0, 0) for n in range(3000)]
    rows += [(3, b"k", b"v", 10**15, 0)]
    env.make_dir(DIRECTORY)
    env.put_file(f"{layout.tables_path(DIRECTORY)}/99.sst", b"left by an earlier try")

    write_store(env, DIRECTORY, options, origin, [rows[:1000], rows[1000:]])

    loaded = manifest.load(env, DIRECTORY, 0, STORE_ID)
    tables = loaded.version.levels[LAST_LEVEL].tables
    assert len(tables) == len(loaded.version) > 1
    assert len(env.list_dir(layout.tables_path(DIRECTORY))) == len(tables)
    assert sum(table.rows for table in tables) == 3001
    assert (loaded.counts[0], loaded.counts[3], loaded.counts[1]) == ((3000, 0), (1, 1), (0, 0))
    assert loaded.next_table == len(tables) + 1
    start_first_log(env, DIRECTORY, origin)
    with marram.open(DIRECTORY, env=env) as db:
        assert [key for key, _ in db.scan()] == [row[1] for row in rows[:-1]]
        assert db.keyspace(3).get(b"k") == b"v"


def _assert(claim: bool) -> None:
    assert claim
