"""What is read of a tree of tables is what was written, whichever way it is asked for."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

import marram
from marram.coding.batch import put
from marram.env.memory import MemoryEnv
from marram.errors import InvalidType
from marram.storage.db import DB
from marram.storage.lsm.engine import LsmEngine
from marram.storage.lsm.tables import Tables
from marram.storage.lsm.version import VersionEdit
from marram.storage.sstable.writer import TableOptions

KEYS = [b"%04d" % n for n in range(3000)]


@pytest.fixture
def db() -> Iterator[DB]:
    with open_lsm() as store:
        yield store


def open_lsm() -> DB:
    env = MemoryEnv()
    env.make_dir("/data")
    return marram.open("/data/db", engine="lsm", durability="none", env=env)


def tables_of(db: DB) -> Tables:
    engine = db.store.engine
    assert isinstance(engine, LsmEngine)
    return engine.tables


def fill(db: DB, *, ranges: bool) -> dict[bytes, bytes]:
    """Several tables that say different things of a key, and a memtable before them."""
    chosen = random.Random(7)
    model: dict[bytes, bytes] = {}
    for step in range(5):
        for key in chosen.sample(KEYS, 2000 if step == 0 else 300):
            if chosen.random() < 0.2:
                db.delete(key)
                model.pop(key, None)
            else:
                model[key] = b"%d of %s" % (step, key)
                # A deadline that is far off: such rows are not plain.
                db.put(key, model[key], ttl=10**6 if chosen.random() < 0.1 else None)
        if ranges and step == 2:
            db.clear()
            model.clear()
        if step == 0:
            db.compact()
        elif step < 4:
            db.checkpoint()
    return model


@pytest.mark.parametrize("ranges", [False, True])
def test_all_ways_to_read_agree(db: DB, ranges: bool) -> None:
    model = fill(db, ranges=ranges)
    wanted = random.Random(8).choices([*KEYS, b"", b"5", b"\xff"], k=4000)
    values = [model.get(key) for key in wanted]
    rows = sorted(model.items())

    with db.snapshot() as snapshot:
        for _ in range(3):  # at first nothing is kept
            assert [db.get(key) for key in wanted] == values
            assert db.get_many(wanted) == values
            assert [snapshot.get(key) for key in wanted] == values
            assert snapshot.get_many(iter(wanted)) == values
        for start, stop, limit in [(b"", None, None), (b"0100", b"2000", 300), (b"11", b"29", 5)]:
            part = [row for row in rows if start <= row[0] and (stop is None or row[0] < stop)]
            for view in (db, snapshot):
                assert list(view.scan(start=start, stop=stop, limit=limit)) == part[:limit]
                backwards = list(view.scan(start=start, stop=stop, limit=limit, reverse=True))
                assert backwards == part[::-1][:limit]


def test_a_kept_row_is_not_what_a_newer_version_says(db: DB) -> None:
    db.put_many(dict.fromkeys(KEYS, b"old"))
    db.checkpoint()
    for _ in range(8):  # until it is kept
        assert db.get(b"0007") == b"old"
        assert db.get_many([b"0008", b"0009"]) == [b"old", b"old"]
    assert tables_of(db).row_stats().hits > 0
    with db.snapshot() as snapshot:
        db.put(b"0007", b"new")
        db.delete(b"0008")
        assert (db.get(b"0007"), db.get(b"0008")) == (b"new", None)
        db.checkpoint()

        assert (db.get(b"0007"), db.get_many([b"0007", b"0008"])) == (b"new", [b"new", None])
        db.compact()
        assert (db.get(b"0007"), db.get_many([b"0007", b"0008"])) == (b"new", [b"new", None])
        # The old version's answers are not kept for the new one's readers.
        for _ in range(8):
            assert snapshot.get_many([b"0007", b"0008"]) == [b"old", b"old"]
            assert (snapshot.get(b"0007"), db.get(b"0007")) == (b"old", b"new")


def test_get_many_reads_each_block_once(db: DB) -> None:
    db.put_many({key: bytes(100) for key in KEYS})
    db.compact()
    wanted = KEYS[::7]
    random.Random(9).shuffle(wanted)
    before = tables_of(db).stats()[0]

    assert db.get_many(wanted) == [bytes(100)] * len(wanted)

    after = tables_of(db).stats()[0]
    blocks = -(-len(KEYS) * 116 // TableOptions().block_bytes)
    assert after.misses - before.misses <= blocks + 1
    assert after.hits == before.hits


def test_get_many_sees_what_a_range_deletion_not_flushed_yet_hides(db: DB) -> None:
    db.put_many(dict.fromkeys(KEYS, b"old"))
    db.checkpoint()
    db.clear()
    db.put(b"0001", b"new")

    with db.snapshot() as snapshot:
        for view in (db, snapshot):
            assert view.get_many([b"0000", b"0001"]) == [None, b"new"]


def test_get_many_sees_the_upper_of_two_ordered_levels(db: DB) -> None:
    db.put_many(dict.fromkeys(KEYS, b"old"))
    db.compact()
    db.put_many(dict.fromkeys(KEYS[::3], b"new"))
    db.checkpoint()
    engine = db.store.engine
    assert isinstance(engine, LsmEngine)
    (table,) = engine.tree.version.levels[0].tables
    with engine.editing():
        edit = VersionEdit(((3, table),), ((0, table.number),))
        engine.install(edit, (), db.store.lock)

    assert db.get_many(KEYS) == [b"old" if n % 3 else b"new" for n in range(len(KEYS))]


def test_get_many_keeps_order_and_duplicates_and_refuses_what_is_no_bytes(db: DB) -> None:
    db.put_many({b"a": b"1", b"b": b""})
    db.checkpoint()

    assert db.get_many([b"b", b"x", b"a", b"b"]) == [b"", None, b"1", b""]
    assert db.get_many([]) == []
    assert db.get_many([bytearray(b"a")]) == [b"1"]  # type: ignore[list-item]
    for view in (db, db.snapshot()):
        with pytest.raises(InvalidType):
            view.get_many([b"a", "b"])  # type: ignore[list-item]


@pytest.mark.parametrize("engine", ["memory", "lsm"])
def test_d2_get_many_waits_for_its_own_unsettled_keys(engine: str) -> None:
    env = MemoryEnv()
    env.make_dir("/data")
    with marram.open("/data/db", engine=engine, env=env) as db:
        db.put(b"settled", b"1")
        db.store.append([put(0, b"key", b"2")])

        assert db.get_many([b"settled", b"none"]) == [b"1", None]
        assert db.store.unsettled
        assert db.get_many([b"settled", b"key"]) == [b"1", b"2"]
        assert not db.store.unsettled


@pytest.mark.parametrize("engine", ["memory", "lsm"])
def test_get_many_shows_no_expired_key(engine: str) -> None:
    env = MemoryEnv()
    env.make_dir("/data")
    with marram.open("/data/db", engine=engine, env=env) as db:
        db.put(b"short", b"1", ttl=5)
        db.put(b"long", b"2", ttl=50)
        with db.snapshot() as snapshot:
            env.advance(10_000)

            assert db.get_many([b"short", b"long"]) == [None, b"2"]
            assert snapshot.get_many([b"short", b"long"]) == [b"1", b"2"]
