"""Large values beside the tables: they are read as written, counted exactly, and collected."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import marram
from marram.coding.batch import KEYSPACES, PUT
from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.errors import Corruption, InvalidArgument, StoreFull
from marram.storage.backup import restore
from marram.storage.convert import convert
from marram.storage.db import DB
from marram.storage.entry import Entry
from marram.storage.layout import blob_number, blob_path, table_path, tables_path
from marram.storage.lsm import manifest
from marram.storage.lsm.blob import (
    is_pointer,
    pointer_of,
)
from marram.storage.lsm.compaction import Outcome, Task
from marram.storage.lsm.edit import decode_edit, encode_edit
from marram.storage.lsm.engine import LsmEngine
from marram.storage.lsm.manifest import Record
from marram.storage.lsm.options import LevelOptions
from marram.storage.lsm.picker import pick, pick_in_range
from marram.storage.lsm.verify import check_listed
from marram.storage.lsm.version import BlobRef, TableMeta, Version, VersionEdit
from marram.storage.sstable.format import HEADER_SIZE
from marram.storage.sstable.reader import Table
from marram.storage.verify import verify_directory

STORE_ID = bytes(range(16))
DIR = "/data/db"
SMALL: dict[str, Any] = {"engine": "lsm", "memtable_bytes": 4096, "blob_bytes": 64}


def engine_of(db: DB) -> LsmEngine:
    engine = db.store.engine
    assert isinstance(engine, LsmEngine)
    return engine


def blobs_on(env: MemoryEnv) -> set[int]:
    """The numbers of the blobs in the store's folder."""
    found = map(blob_number, env.list_dir(tables_path(DIR)))
    return {number for number in found if number is not None}


def recount(db: DB) -> dict[int, tuple[int, int]]:
    """What all rows of all tables point to: blob -> (rows, stored bytes)."""
    engine = engine_of(db)
    sums: dict[int, tuple[int, int]] = {}
    for level in engine.tree.version.levels:
        for meta in level.tables:
            table: Table = engine.tables.get(meta)
            for row in (row for rows in table.versions() for row in rows):
                if is_pointer(row[4]):
                    pointer = pointer_of(row[2])
                    rows_, bytes_ = sums.get(pointer.blob, (0, 0))
                    sums[pointer.blob] = rows_ + 1, bytes_ + pointer.stored_bytes
    return sums


def check_counted(db: DB) -> None:
    """What the version says of its blobs is what its rows say, and the files are there."""
    version = engine_of(db).tree.version
    version._check()
    assert {n: (ref.rows, ref.live_bytes) for n, ref in version.blobs.items()} == recount(db)


# -- a version's account ------------------------------------------------------------------------


def meta(number: int, *blobs: BlobRef, key: bytes = b"k", **more: Any) -> TableMeta:
    start = b"\0" + key
    return TableMeta(number, 1000, start, start + b"\0", 50, blobs=blobs, **more)


def ref(number: int, rows: int, live_bytes: int, size_bytes: int = 1112) -> BlobRef:
    return BlobRef(number, size_bytes, number * 3, rows, live_bytes)


def test_v6_a_version_sums_up_what_its_tables_point_into() -> None:
    first = meta(1, ref(8, 2, 100), ref(9, 1, 10))
    second = meta(2, ref(8, 3, 300), key=b"z")
    version = Version().apply(VersionEdit(((6, first), (6, second))))

    assert version.blobs == {8: ref(8, 5, 400), 9: ref(9, 1, 10)}
    assert version.blobs[8].garbage_bytes == 600
    after = version.apply(VersionEdit((), ((6, 1),)))
    assert after.blobs == {8: ref(8, 3, 300)}
    assert version.apply(VersionEdit(((5, first),), ((6, 1),))).blobs == version.blobs
    assert not after.apply(VersionEdit((), ((6, 2),))).blobs


@pytest.mark.parametrize(
    "other",
    [ref(8, 1, 1, 1113), ref(8, 1, 1)._replace(stamp=1), ref(8, 1, 901)],
    ids=["size", "stamp", "more than there is"],
)
def test_v6_tables_that_do_not_agree_on_a_blob_are_refused(other: BlobRef) -> None:
    tables = ((6, meta(1, ref(8, 2, 100))), (6, meta(2, other, key=b"z")))
    with pytest.raises(InvalidArgument):
        Version().apply(VersionEdit(tables))


def test_v1_a_table_and_a_blob_have_different_numbers() -> None:
    tables = ((6, meta(1, ref(2, 1, 100))), (6, meta(2, key=b"z")))
    with pytest.raises(InvalidArgument):
        Version().apply(VersionEdit(tables))


@pytest.mark.parametrize(
    "blobs",
    [
        (ref(8, 1, 1), ref(8, 1, 1)),
        (ref(9, 1, 1), ref(8, 1, 1)),
        (ref(8, 0, 1),),
        (ref(8, 1, 0),),
        (ref(8, 51, 60),),
        (ref(8, 1, 1001),),
        (ref(1, 1, 1),),
    ],
)
def test_a_table_that_cannot_point_so_is_refused(blobs: tuple[BlobRef, ...]) -> None:
    with pytest.raises(InvalidArgument):
        meta(1, *blobs)


@given(
    st.lists(
        st.builds(
            lambda number, stamp, rows, live, more: BlobRef(
                number, 112 + live + more, stamp, rows, live
            ),
            st.integers(2, 2**63),
            st.integers(0, 2**64 - 1),
            st.integers(1, 5),
            st.integers(1, 2**40),
            st.integers(0, 2**40),
        ),
        max_size=5,
        unique_by=lambda one: one.number,
    )
)
def test_an_edit_comes_back_with_its_blobs(refs: list[BlobRef]) -> None:
    edit = VersionEdit(((3, meta(1, *sorted(refs))), (4, meta(0, key=b"z"))), ((2, 7),))

    assert decode_edit(encode_edit(edit)) == edit


def test_n3_a_blob_numbered_after_what_comes_next_is_refused() -> None:
    tables = VersionEdit(((6, meta(1, ref(8, 2, 100))),))
    counts = (None,) * KEYSPACES

    manifest._applied(Version(), 0, Record(tables, 9, counts))
    with pytest.raises(InvalidArgument, match="blob 8"):
        manifest._applied(Version(), 0, Record(tables, 8, counts))


# -- which blobs are collected ------------------------------------------------------------------

LEVELS = LevelOptions.for_memtable(1 << 20)


def a_tree(*tables: TableMeta, level: int = 6) -> Version:
    return Version().apply(VersionEdit(tuple((level, table) for table in tables)))


def big(number: int, rows: int, live_bytes: int) -> BlobRef:
    return ref(number, rows, live_bytes, 1_000_112)


def test_p7_a_blob_that_is_mostly_garbage_is_collected_from_all_its_tables() -> None:
    version = a_tree(
        meta(1, big(8, 1, 200_000)), meta(2, big(8, 1, 200_000), big(9, 1, 900_000), key=b"z")
    )

    job = pick(version, LEVELS)

    assert job is not None
    assert (job.kind, job.reason, job.collect) == ("merge", "blobs", (8,))
    assert [table.number for table in job.tables] == [1, 2]


def test_p7_a_blob_that_is_half_in_use_is_left_alone() -> None:
    assert pick(a_tree(meta(1, big(8, 1, 500_001))), LEVELS) is None
    assert pick(a_tree(meta(1, big(8, 1, 500_000))), LEVELS) is not None


def test_p7_garbage_that_is_not_worth_a_pass_is_left_alone() -> None:
    little = [big(8, 1, 400_000), *(big(9 + n, 1, 1_000_000) for n in range(9))]
    large = TableMeta(1, 500_000, b"\0a", b"\0b", 50, blobs=tuple(little))

    assert pick(a_tree(large), LEVELS) is None
    assert pick(a_tree(meta(1, *little)), LEVELS) is not None


def test_p7_a_job_moves_a_bounded_amount() -> None:
    limit = LEVELS.job_bytes // 4
    share = limit // 3
    blob = BlobRef(90, 112 + 20 * share, 1, 6, 6 * share)
    tables = [meta(n, blob._replace(rows=1, live_bytes=share), key=b"%d" % n) for n in range(1, 7)]

    job = pick(a_tree(*tables), LEVELS)

    assert job is not None
    assert [table.number for table in job.tables] == [1, 2, 3]


def test_a_range_is_left_with_little_garbage_in_its_blobs() -> None:
    version = a_tree(meta(1, big(8, 1, 890_000)), meta(2, big(9, 1, 950_000), key=b"z"))

    step = pick_in_range(version, LEVELS, b"\0", None)
    elsewhere = pick_in_range(version, LEVELS, b"\0m", None)
    older = pick_in_range(version, LEVELS, b"\0", None, blobs_below=8)

    assert step.job is not None
    assert step.job.collect == (8,)
    assert elsewhere.done
    assert older.done


# -- a store ------------------------------------------------------------------------------------


@pytest.fixture
def store() -> Iterator[tuple[MemoryEnv, DB]]:
    env = MemoryEnv(seed=5)
    with marram.open(DIR, env=env, **SMALL) as db:
        yield env, db


def value_of(n: int, size: int = 200) -> bytes:
    return random.Random(n).randbytes(size)


def fill(db: DB, count: int = 60, first: int = 0) -> dict[bytes, bytes]:
    data = {b"%04d" % n: value_of(first + n) for n in range(count)}
    db.put_many(data)
    db.checkpoint()
    return data


def test_values_are_read_every_way(store: tuple[MemoryEnv, DB]) -> None:
    _, db = store
    data = fill(db)
    db.put(b"typed", b"t" * 100, ttl=1000)
    db.put(b"short", b"s")
    db.checkpoint()
    data |= {b"typed": b"t" * 100, b"short": b"s"}

    assert engine_of(db).tree.version.blobs
    assert dict(db.scan()) == data
    assert list(db.scan(reverse=True)) == sorted(data.items(), reverse=True)
    assert [db.get(key) for key in data] == list(data.values()) == [db[key] for key in data]
    assert db.get_many([*data, b"none"]) == [*data.values(), None]
    assert db.get_many([*data]) == [*data.values()]
    assert list(db.scan(limit=3)) == sorted(data.items())[:3]
    assert list(db.scan_chunks(chunk=7)) != []
    assert 990 < (db.ttl(b"typed") or 0) <= 1000
    assert len(db) == len(data)


def test_what_is_changed_in_place_comes_from_its_blob(store: tuple[MemoryEnv, DB]) -> None:
    env, db = store
    data = fill(db)
    assert db.expire(b"0003", 500)
    assert db.compare_and_set(b"0004", data[b"0004"], b"new")
    assert db.get(b"0003") == data[b"0003"]
    db.checkpoint()
    env.run_background()

    assert db.get(b"0003") == data[b"0003"]
    assert (db.ttl(b"0003") or 0) > 400
    check_counted(db)


def test_keys_are_listed_and_counted_without_reading_blobs(store: tuple[MemoryEnv, DB]) -> None:
    env, db = store
    data = fill(db)
    engine = engine_of(db)
    for number in blobs_on(env):
        env.mutate(blob_path(DIR, number), 0, b"no more")

    space = engine.spaces[0]
    assert space.keys(b"", None, 100, False) == sorted(data)
    assert space.keys(b"", None, 3, True) == sorted(data)[:-4:-1]
    db.put(b"0007", b"again")  # is it new? the tables are asked
    assert len(db) == len(data)
    assert engine.about(0)[0] > 0
    with pytest.raises(Corruption, match="blob"):
        db.get(b"0003")


def test_a_scan_keeps_deadlines_and_types(store: tuple[MemoryEnv, DB]) -> None:
    env, db = store
    far = env.wall_ms() + 10**6
    db.commit([(PUT, 0, b"list", b"l" * 100, far, 4), (PUT, 0, b"text", b"t" * 100, far, 0)])
    db.checkpoint()
    expected = [(b"list", Entry(b"l" * 100, far, 4)), (b"text", Entry(b"t" * 100, far, 0))]
    space = engine_of(db).spaces[0]

    assert engine_of(db).tree.version.blobs
    assert space.rows(b"", None, 9, False) == expected
    assert space.get_many([b"list", b"text"]) == [held for _, held in expected]
    assert [space.get(key) for key, _ in expected] == [held for _, held in expected]


def test_values_in_blobs_take_no_room_in_caches(store: tuple[MemoryEnv, DB]) -> None:
    env, db = store
    data = fill(db, 10)
    for _ in range(9):
        assert db.get_many(list(data)) == [db.get(key) for key in data]
    for number in blobs_on(env):
        path = blob_path(DIR, number)
        env.mutate(path, 0, bytes(len(env.contents(path))))

    for key in data:
        with pytest.raises(Corruption):
            db.get(key)


def test_a_flush_counts_keys_without_reading_blobs(
    store: tuple[MemoryEnv, DB], caplog: pytest.LogCaptureFixture
) -> None:
    env, db = store
    fill(db)
    (number,) = blobs_on(env)
    env.mutate(blob_path(DIR, number), 0, b"no more")
    db.put(b"0001", b"again")
    db.checkpoint()

    assert engine_of(db).base[0] == (60, 0)
    assert "not counted" not in caplog.text


def test_l2_a_flush_is_durable_with_its_blob() -> None:
    env = MemoryEnv(seed=5)
    with marram.open(DIR, env=env, **SMALL) as db:
        data = fill(db)
        disk = env.crash_clone(0.0, 1)
    with marram.open(DIR, env=disk, **SMALL) as db:
        assert dict(db.scan()) == data
        assert not db.verify().problems


def test_a_flush_that_finds_no_room_leaves_no_blob() -> None:
    inner = MemoryEnv(seed=5)
    env = FaultyEnv(inner)
    with marram.open(DIR, env=env, **SMALL) as db:
        db.put_many({b"%04d" % n: value_of(n) for n in range(10)})
        env.add(Fault("write", "*.sst", error=errno.ENOSPC))
        with pytest.raises(StoreFull):
            db.checkpoint()
        assert not blobs_on(inner)
        db.checkpoint()
        assert len(blobs_on(inner)) == 1
        assert db.get(b"0003") == value_of(3)


@pytest.mark.parametrize("operation", ["write", "sync", "read"])
def test_k3_collecting_that_fails_leaves_nothing(operation: str) -> None:
    inner = MemoryEnv(seed=5)
    env = FaultyEnv(inner)
    with marram.open(DIR, env=env, **SMALL) as db:
        data = fill(db, 12)
        for n in range(8):
            data[b"%04d" % n] = b"short"
            db.put(b"%04d" % n, b"short")
        db.checkpoint()
        engine = engine_of(db)
        assert engine.compactor is not None
        step = pick_in_range(engine.tree.version, engine.compactor.options, b"\0", None)
        assert step.job is not None
        engine.compactor._run(step.job, 0, None)  # all to the bottom: now there is garbage
        before = set(inner.list_dir(tables_path(DIR)))
        fault = env.add(Fault(operation, "*.blob", error=errno.ENOSPC))
        with pytest.raises((StoreFull, OSError)):
            db.compact()
        assert fault.fired
        assert set(inner.list_dir(tables_path(DIR))) == before
        db.compact()
        assert dict(db.scan()) == data
        check_counted(db)


def test_compactions_carry_pointers_and_no_values(store: tuple[MemoryEnv, DB]) -> None:
    env, db = store
    for start in range(6):
        db.put_many({b"%04d" % n: value_of(n, 1000) for n in range(start, 300, 6)})
        db.checkpoint()
    before = blobs_on(env)
    env.run_background()
    engine = engine_of(db)
    assert engine.compactor is not None

    assert engine.compactor.figures.merges > 0
    assert engine.compactor.figures.written_bytes < 60_000
    assert blobs_on(env) == before
    check_counted(db)


def test_v6_counts_are_exact_after_every_step() -> None:
    rng = random.Random(7)
    env = MemoryEnv(seed=7)
    model: dict[bytes, bytes] = {}
    db = marram.open(DIR, env=env, **SMALL)
    collected = 0
    for step in range(400):
        key = b"%03d" % rng.randrange(60)
        match rng.randrange(12):
            case 0:
                db.delete(key)
                model.pop(key, None)
            case 1:
                db.checkpoint()
            case 2:
                env.run_background()
            case 3 if step % 5 == 0:
                stop = key + b"~"
                with db.batch() as batch:
                    batch.delete_range(key[:2], stop)
                model = {k: v for k, v in model.items() if not key[:2] <= k < stop}
            case 4 if step % 7 == 0:
                db.close()
                db = marram.open(DIR, env=env, **SMALL)
            case 5 if step % 9 == 0:
                db.compact()
            case _:
                model[key] = value_of(step, rng.choice((10, 63, 64, 300)))
                db.put(key, model[key])
        check_counted(db)
        collected += any(number > 200 for number in blobs_on(env))
        if step % 20 == 0:
            assert dict(db.scan()) == model
    assert dict(db.scan()) == model
    db.close()
    assert not verify_directory(env, DIR).problems


def overwritten(env: MemoryEnv, db: DB, rounds: int) -> dict[bytes, bytes]:
    """Random overwrites, compacted as they come; 100 keys of 1000 bytes."""
    rng = random.Random(1)
    data: dict[bytes, bytes] = {}
    for n in range(rounds * 100):
        key = b"%03d" % (n if n < 100 else rng.randrange(100))
        data[key] = value_of(n, 1000)
        db.put(key, data[key])
        env.run_background()
    return data


def test_garbage_in_blobs_is_bounded_while_writes_go_on(store: tuple[MemoryEnv, DB]) -> None:
    env, db = store
    data = overwritten(env, db, 10)
    figures = db.stats()["lsm"]

    assert dict(db.scan()) == data
    assert figures["blobs"]["garbage_ratio"] <= 0.5
    assert figures["blobs"]["bytes"] <= 2.5 * 100 * 1000
    assert blobs_on(env) == set(engine_of(db).tree.version.blobs)
    check_counted(db)


def test_a_full_compaction_leaves_little_garbage(store: tuple[MemoryEnv, DB]) -> None:
    env, db = store
    data = overwritten(env, db, 3)
    db.compact()
    env.run_background()
    figures = db.stats()["lsm"]["blobs"]

    assert dict(db.scan()) == data
    assert figures["garbage_ratio"] <= 0.1
    assert sum(len(env.contents(blob_path(DIR, n))) for n in blobs_on(env)) <= 1.2 * 100_000
    assert figures["values"] == 100
    check_counted(db)
    before = blobs_on(env)
    db.compact()
    assert blobs_on(env) == before, "nothing to do, and it was done"


def test_g2_a_snapshot_keeps_its_blobs(store: tuple[MemoryEnv, DB]) -> None:
    env, db = store
    data = fill(db)
    snapshot = db.snapshot()
    old = blobs_on(env)
    fill(db, first=1000)
    db.compact()
    env.run_background()

    assert old <= blobs_on(env)
    assert not db.verify().problems
    assert db.verify().orphans == []
    assert dict(snapshot.scan()) == data
    assert snapshot.get(b"0005") == data[b"0005"]
    snapshot.close()
    env.run_background()
    assert not old & blobs_on(env)


def test_deleted_values_free_their_blobs(store: tuple[MemoryEnv, DB]) -> None:
    env, db = store
    fill(db)
    assert blobs_on(env)
    db.clear()
    db.compact()
    env.run_background()

    assert not blobs_on(env)


def test_a_store_is_read_on_where_the_option_is_off() -> None:
    env = MemoryEnv(seed=5)
    with marram.open(DIR, env=env, **SMALL) as db:
        data = fill(db)
    with marram.open(DIR, env=env, **{**SMALL, "blob_bytes": 0}) as db:
        assert dict(db.scan()) == data
        data |= {b"more": b"m" * 500}
        db.put(b"more", b"m" * 500)
        for n in range(0, 60, 2):
            del data[b"%04d" % n]
            db.delete(b"%04d" % n)
        db.compact()
        assert dict(db.scan()) == data
        check_counted(db)


def test_backup_restore_and_conversion_take_blobs_along(store: tuple[MemoryEnv, DB]) -> None:
    env, db = store
    data = fill(db)
    db.backup("/data/backup")
    restore(env, "/data/backup", "/data/restored")
    db.close()
    convert(env, "/data/restored", "/data/converted", "memory")

    for place in ("/data/backup", "/data/restored", "/data/converted"):
        assert not verify_directory(env, place).problems
        with marram.open(place, env=env, blob_bytes=64) as other:
            assert dict(other.scan()) == data
    with marram.open("/data/restored", env=env, **SMALL) as other:
        check_counted(other)


def test_orphaned_blobs_are_reported_and_removed() -> None:
    env = MemoryEnv(seed=5)
    with marram.open(DIR, env=env, **SMALL) as db:
        data = fill(db)
    env.put_file(blob_path(DIR, 999), b"left by a crash")

    assert verify_directory(env, DIR).orphans == ["tables/999.blob"]
    with marram.open(DIR, env=env, **SMALL) as db:
        assert dict(db.scan()) == data
    assert 999 not in blobs_on(env)


def test_verify_reads_every_value_and_recounts_the_pointers() -> None:
    env = MemoryEnv(seed=5)
    with marram.open(DIR, env=env, **SMALL) as db:
        fill(db)
    (number, *_) = blobs_on(env)
    path = blob_path(DIR, number)
    data = env.contents(path)

    assert not verify_directory(env, DIR).problems
    for at in range(HEADER_SIZE, len(data), 97):
        env.mutate(path, at, bytes([data[at] ^ 1]))
        assert verify_directory(env, DIR).problems, at
        env.mutate(path, at, data[at : at + 1])
    env.remove(path)
    assert verify_directory(env, DIR).problems
    with pytest.raises(Corruption, match=path):
        marram.open(DIR, env=env, **SMALL)


def test_verify_recounts_what_rows_point_to(store: tuple[MemoryEnv, DB]) -> None:
    env, db = store
    fill(db)
    (meta_,) = engine_of(db).tree.version.levels[0].tables
    file = env.open(table_path(DIR, meta_.number))
    (held,) = meta_.blobs

    assert check_listed(file, meta_, engine_of(db).store_id) == 60
    for wrong in ((), (held._replace(rows=59),), (held._replace(live_bytes=held.live_bytes - 1),)):
        with pytest.raises(Corruption):
            check_listed(file, replace(meta_, blobs=wrong), engine_of(db).store_id)


def test_p3_a_blob_in_anothers_place_is_refused() -> None:
    env = MemoryEnv(seed=5)
    with marram.open(DIR, env=env, **SMALL) as db:
        fill(db)
        db.put_many({b"more-%04d" % n: value_of(n) for n in range(60)})
        db.checkpoint()
    first, second = sorted(blobs_on(env))[:2]
    assert len(env.contents(blob_path(DIR, first))) == len(env.contents(blob_path(DIR, second)))
    env.put_file(blob_path(DIR, first), env.contents(blob_path(DIR, second)))

    assert verify_directory(env, DIR).problems
    with marram.open(DIR, env=env, **SMALL) as db, pytest.raises(Corruption, match="is number"):
        list(db.scan())


@pytest.mark.parametrize("size", [-1, 1, 63])
def test_thresholds_that_make_no_sense_are_refused(size: int) -> None:
    with pytest.raises(InvalidArgument, match="blob_bytes"):
        marram.open(DIR, env=MemoryEnv(), engine="lsm", blob_bytes=size)


def test_open_blobs_are_bounded(store: tuple[MemoryEnv, DB]) -> None:
    env, db = store
    db.close()
    with marram.open(DIR, env=env, max_open_tables=2, **SMALL) as other:
        for n in range(5):
            other.put(b"%d" % n, value_of(n))
            other.checkpoint()
        assert dict(other.scan()) == {b"%d" % n: value_of(n) for n in range(5)}
        assert engine_of(other).tables.blob_memory_bytes <= 2 * 1500


def test_a_helper_process_collects_as_inline(tmp_path: Path) -> None:
    rng = random.Random(2)
    data: dict[bytes, bytes] = {}
    with marram.open(str(tmp_path / "db"), **SMALL, durability="none") as db:
        compactor = engine_of(db).compactor
        assert compactor is not None
        run = compactor._runner.run
        collected: list[int] = []

        def noted(task: Task, *more: Any) -> Outcome:
            collected.extend(task.job.collect)
            return run(task, *more)

        compactor._runner.run = noted  # type: ignore[method-assign, assignment]
        compactor.pause()
        for n in range(600):
            key = b"%02d" % rng.randrange(50)
            data[key] = value_of(n, 500)
            db.put(key, data[key])
            if n % 40 == 39:
                db.checkpoint()
        compactor.resume()
        db.compact()
        assert dict(db.scan()) == data
        assert collected
        assert compactor._runner.pid is not None
        assert db.stats()["lsm"]["blobs"]["garbage_ratio"] <= 0.1
        assert not db.verify().problems
