"""storage/lsm/generation.py: a flush as a generation switch, and what failing leaves."""

from __future__ import annotations

import errno

import pytest

from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.errors import StoreFailed, StoreFull
from marram.storage.db import DB
from marram.storage.lsm import generation, manifest
from tests.storage.lsm.stores import DIRECTORY, TABLES, engine_of, flush, listed, open_lsm

ENOSPC = errno.ENOSPC


def faulty() -> tuple[MemoryEnv, FaultyEnv, DB]:
    """A store with one table, and something in its memtable."""
    inner = MemoryEnv()
    env = FaultyEnv(inner)
    db = open_lsm(env)
    flush(db, a=b"1", b=b"1")
    db.put(b"b", b"2")
    return inner, env, db


def frozen_count(db: DB) -> int:
    return len(engine_of(db).tree.frozen)


def test_w1_the_new_manifest_lists_the_old_tables_and_the_new_one() -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    flush(db, a=b"1")
    flush(db, b=b"1")

    loaded = manifest.load(env, DIRECTORY, 2, db.store.store_id)

    assert [table.number for table in loaded.version.levels[0].tables] == [2, 1]
    assert loaded.origin.sequence == db.store.last
    assert loaded.next_table == 3
    assert loaded.counts[0] == (2, 0)


def test_w1_the_manifest_is_durable_before_version_names_it() -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    db.put(b"a", b"1")
    durable: list[int] = []

    def on_call(operation: str, path: str) -> None:
        if operation == "rename":
            after = env.crash_clone(survival=0.0, seed=1)
            loaded = manifest.load(after, DIRECTORY, 1, db.store.store_id)
            names = after.list_dir(TABLES)
            durable.extend(
                table.number
                for table in loaded.version.levels[0].tables
                if f"{table.number}.sst" in names
            )

    env.on_call = on_call
    db.checkpoint()

    assert durable == [1]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("open", "*/tables/2.sst", error=ENOSPC),
        Fault("write", "*/tables/2.sst", error=ENOSPC),
        Fault("sync", "*/tables/2.sst", error=ENOSPC),
        Fault("sync_dir", "*/tables", error=ENOSPC),
        Fault("open", "*/checkpoint.2", error=ENOSPC),
        Fault("write", "*/checkpoint.2", error=ENOSPC),
        Fault("sync_data", "*/checkpoint.2", error=ENOSPC),
    ],
    ids=lambda fault: f"{fault.operation} {fault.path_glob[2:]}",
)
def test_w2_without_room_the_memtable_is_read_on_and_flushed_by_the_next_generation(
    fault: Fault,
) -> None:
    fault.seen = fault.fired = 0
    inner, env, db = faulty()
    env.add(fault)

    with pytest.raises(StoreFull):
        db.checkpoint()
    assert fault.fired == 1
    assert frozen_count(db) == 1
    assert inner.list_dir(TABLES) == listed(db) == ["1.sst"], "nothing is left of it"
    assert "checkpoint.2" not in inner.list_dir(DIRECTORY)

    db.put(b"c", b"3")
    expected = [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]
    assert list(db.scan()) == expected
    assert len(db) == 3
    db.checkpoint()

    assert frozen_count(db) == 0
    assert len(engine_of(db).tree.version) == 3, "a table each"
    db.close()
    with open_lsm(env) as again:
        assert list(again.scan()) == expected
        assert len(again) == 3


def test_p4_a_table_that_cannot_be_synced_latches_the_store() -> None:
    _, env, db = faulty()
    env.add(Fault("sync", "*/tables/2.sst", error=errno.EIO))

    with pytest.raises(StoreFailed):
        db.checkpoint()
    with pytest.raises(StoreFailed):
        db.put(b"c", b"3")
    assert db.get(b"b") == b"2", "reading goes on"


@pytest.mark.parametrize("survival", [0.0, 1.0])
def test_after_a_switch_in_doubt_either_generation_opens_whole(survival: float) -> None:
    inner, env, db = faulty()
    env.add(Fault("sync_dir", DIRECTORY, nth=3, error=errno.EIO))  # after the rename of version

    with pytest.raises(StoreFailed):
        db.checkpoint()
    assert inner.list_dir(TABLES) == ["1.sst", "2.sst"], "a crash may find the new manifest"

    after = inner.crash_clone(survival, seed=1)
    with open_lsm(after) as again:
        assert list(again.scan()) == [(b"a", b"1"), (b"b", b"2")]
        assert after.list_dir(TABLES) == listed(again)


def test_nothing_is_edited_between_the_manifest_and_the_switch() -> None:
    db = open_lsm()
    db.put(b"a", b"1")
    held: list[bool] = []
    env = db.store.env
    assert isinstance(env, MemoryEnv)
    env.on_call = lambda operation, path: held.append(
        operation != "rename" or engine_of(db)._edits.locked()
    )

    db.checkpoint()

    assert all(held)


def test_counts_are_written_down_exactly_where_few_keys_are_unsure() -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    flush(db, a=b"1", b=b"1", c=b"1")
    db.put(b"b", b"2", ttl=1000)
    db.delete(b"c")
    db.delete(b"never there")
    db.checkpoint()

    loaded = manifest.load(env, DIRECTORY, 2, db.store.store_id)

    assert loaded.counts[0] == (2, 1)


def test_counts_are_left_open_where_many_keys_are_unsure_and_nobody_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generation, "_SETTLE_ALWAYS", 0)
    env = MemoryEnv()
    db = open_lsm(env)
    flush(db, a=b"1")
    db.close()
    with open_lsm(env) as again:
        assert again.store.engine.base[0] is None
        assert len(again) == 1, "then it is counted"
        again.put(b"b", b"1")
        again.checkpoint()  # somebody asked since the last flush
        assert engine_of(again).base[0] == (2, 0)


def test_it_tells_its_progress_in_keys() -> None:
    db = open_lsm()
    db.put_many([(b"%04d" % n, b"") for n in range(1000)])
    told: list[tuple[int, int]] = []

    db.checkpoint(lambda done, total: told.append((done, total)))

    assert told[-1] == (1000, 1000)
    assert told == sorted(told)


def test_a_generation_of_nothing_new_makes_no_table() -> None:
    db = open_lsm()
    flush(db, a=b"1")

    db.checkpoint()

    assert listed(db) == ["1.sst"]
    assert engine_of(db).generation == 2
