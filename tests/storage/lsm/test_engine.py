"""storage/lsm/engine.py: one map of memtables and tables; freezing, undoing, pressure."""

from __future__ import annotations

import errno

import pytest

from marram.coding.batch import (
    Change,
    delete,
    delete_range,
    expire,
    patch,
    put,
    swap,
)
from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.storage.db import DB
from marram.storage.entry import entry_of
from marram.storage.lsm.engine import plausible
from marram.storage.lsm.generation import LsmGeneration
from marram.storage.lsm.memtable import GONE, MAX_RANGES
from marram.storage.lsm.version import VersionEdit
from marram.storage.sstable.block import stored_key
from tests.storage.lsm.stores import engine_of, flush, open_lsm

KIB = 1024


def freeze(db: DB) -> LsmGeneration:
    with db.store.lock:
        return engine_of(db).begin_generation(
            db.store.generations.home, db.store.generations.number + 1, db.store.last
        )


def test_x1_the_newest_place_that_says_anything_is_believed() -> None:
    db = open_lsm()
    flush(db, a=b"table", b=b"table", c=b"table")
    db.put_many([(b"b", b"frozen"), (b"c", b"frozen")])
    freeze(db)
    db.put(b"c", b"active")

    assert [db.get(key) for key in (b"a", b"b", b"c")] == [b"table", b"frozen", b"active"]
    assert list(db.scan()) == [(b"a", b"table"), (b"b", b"frozen"), (b"c", b"active")]
    db.delete(b"a")
    db.commit([delete_range(0, b"b", b"c")])
    assert dict(db.scan()) == {b"c": b"active"}
    assert db.get(b"b") is None


def test_x1_who_has_a_tree_reads_on_in_it_whatever_is_frozen_and_flushed() -> None:
    db = open_lsm()
    db.put(b"a", b"1")
    engine = engine_of(db)
    tree = engine.tree

    db.checkpoint()
    db.put(b"a", b"2")

    assert tree.active.get(0, b"a") == b"1"
    assert engine.tree.active is not tree.active
    assert engine.tree.frozen == ()
    assert engine.get(0, b"a") == b"2"


def test_x2_a_batch_that_needs_what_cannot_be_read_is_refused_whole() -> None:
    env = FaultyEnv(MemoryEnv())
    db = open_lsm(env, max_open_tables=1)
    flush(db, k=b"1")
    env.add(Fault("open", "*/tables/*", error=errno.EIO, times=None))
    env.add(Fault("read", "*/tables/*", error=errno.EIO, times=None))

    for change in (expire(0, b"k", 10**15), patch(0, b"k", 0, b"x")):
        with pytest.raises(OSError, match="Input/output"):
            db.commit([put(0, b"a", b"1"), change])
    assert db.get(b"a") is None
    assert db.store.failure is None

    env.clear()
    db.commit([expire(0, b"k", 10**15)])
    assert db.ttl(b"k") is not None


def test_x2_within_a_batch_a_change_sees_those_before_it() -> None:
    db = open_lsm()
    flush(db, k=b"behind", r=b"behind", s=b"behind")

    db.commit([
        put(0, b"k", b"abc"), patch(0, b"k", 1, b"X"),
        delete_range(0, b"r", b"s"), patch(0, b"r", 2, b"Y"),
        delete(0, b"s"), expire(0, b"s", 10**15),
    ])  # fmt: skip

    assert dict(db.scan()) == {b"k": b"aXc", b"r": b"\0\0Y"}


def test_x3_freezing_gives_an_empty_memtable_and_nothing_for_an_empty_one() -> None:
    db = open_lsm()
    db.put(b"a", b"1")

    work = freeze(db)
    again = freeze(db)

    tree = engine_of(db).tree
    assert work._memtables == again._memtables == tree.frozen
    assert not tree.active
    assert tree.active.base == tree.frozen[0].last == db.store.last


def test_a_swap_exchanges_places_and_the_next_listing_says_so() -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    flush(db, k=b"zero")
    db.commit([swap(0, 5)])
    db.checkpoint()
    db.commit([swap(5, 6)])
    db.close()

    with open_lsm(env) as again:
        assert again.keyspace(6).get(b"k") == b"zero"
        assert len(again) == len(again.keyspace(5)) == 0
        assert len(again.keyspace(6)) == 1


BATCHES: list[list[Change]] = [
    [put(0, b"new", b"x"), put(0, b"k", b"x")],
    [put(0, b"k", b"x"), put(0, b"k", b"y"), delete(0, b"k")],
    [delete(0, b"k"), delete(0, b"m"), delete(0, b"none")],
    [delete_range(0, b"", None), put(0, b"k", b"x")],
    [put(0, b"k", b"x"), delete_range(0, b"a", b"l"), put(0, b"k", b"y")],
    [swap(0, 1), put(0, b"k", b"x"), swap(1, 2)],
    [expire(0, b"k", 10**15), patch(0, b"m", 9, b"x")],
]


@pytest.mark.parametrize("changes", BATCHES)
def test_n2_revert_restores_keys_ranges_places_and_counts(changes: list[Change]) -> None:
    db = open_lsm()
    flush(db, k=b"behind", deep=b"behind")
    db.put_many([(b"k", b"1"), (b"m", b"1")])
    db.delete(b"deep")
    db.commit([delete_range(0, b"s", b"t")])
    before = dict(db.scan())
    snapshot = db.snapshot()

    unit = db.store.begin()
    unit.apply(changes)
    unit.rollback()

    assert dict(db.scan()) == before == dict(snapshot.scan())
    assert {key: db.get(key) for key in before} == before
    assert [len(db.keyspace(number)) for number in range(3)] == [2, 0, 0]
    engine = engine_of(db)
    assert len(engine.tree.active.ranges.deletions) == 1
    for space in engine.tree.active.spaces:
        space._check()


def test_counts_are_exact_though_writes_do_not_look() -> None:
    db = open_lsm()
    flush(db, a=b"1", b=b"1")
    db.put_many([(b"b", b"2"), (b"c", b"2")])
    db.delete(b"a")
    engine = engine_of(db)

    assert engine.about(0) == (4, 0), "quick, and about: what was written counts as new"
    assert engine.count(0) == (2, 0)
    assert engine.about(0) == (2, 0)


def test_what_a_range_deletion_hides_is_counted_anew() -> None:
    db = open_lsm()
    flush(db, a=b"1", b=b"1", c=b"1")
    assert len(db) == 3

    db.commit([delete_range(0, b"b", b"c")])
    assert len(db) == 2
    db.checkpoint()
    assert len(db) == 2
    db.clear()
    assert len(db) == 0


def test_n2_a_count_that_was_known_is_right_after_a_rollback() -> None:
    db = open_lsm()
    flush(db, a=b"1", b=b"1", c=b"1")
    db.put(b"b", b"2")
    assert len(db) == 3

    for changes in BATCHES:
        unit = db.store.begin()
        unit.apply(changes)
        assert len(db.store.engine.spaces[0]) >= 0  # now these are known, too
        unit.rollback()
        assert len(db) == 3, changes


def test_the_listing_is_of_the_last_generation_and_its_places() -> None:
    db = open_lsm()
    flush(db, a=b"1")
    db.commit([swap(0, 4)])
    db.checkpoint()
    position = db.store.last
    db.commit([swap(0, 5), put(0, b"later", b"1")])

    with engine_of(db).listing() as listing:
        assert listing.origin.sequence == position
        assert (listing.spaces[0], listing.spaces[4], listing.spaces[5]) == (4, 0, 5)
        assert listing.counts[0] == (1, 0)


def test_only_the_newest_row_of_a_key_counts_where_a_compaction_takes_it_away() -> None:
    db = open_lsm()
    flush(db, a=b"1", covered=b"1", k=b"1", only=b"1")
    db.put(b"k", b"2")
    db.commit([delete_range(0, b"covered", b"d")])
    db.checkpoint()
    engine = engine_of(db)
    rows = [stored_key(0, key) for key in (b"covered", b"k", b"only")]

    with engine.editing():
        older = engine.counted(VersionEdit(removed=((0, 1),)), rows)
        newer = engine.counted(VersionEdit(removed=((0, 2),)), rows[1:2])

    assert older == [stored_key(0, b"only")]
    assert newer == [stored_key(0, b"k")]


def test_numbers_that_cannot_be_are_not_written_down() -> None:
    assert plausible((2, 1)) == (2, 1)
    assert plausible((1, 2)) is None
    assert plausible((-1, -2)) is None
    assert plausible(None) is None


# -- when to flush, and pressure -------------------------------------------------------------------


def test_a_flush_is_due_by_memory_by_log_and_by_ranges() -> None:
    db = open_lsm(memtable_bytes=64 * KIB)
    engine, home = engine_of(db), db.store.generations.home
    assert not engine.generation_due(0, home)
    assert not engine.generation_due(128 * KIB - 1, home)
    assert engine.generation_due(128 * KIB, home)

    db.put(b"k", bytes(63 * KIB))
    assert not engine.generation_due(0, home)
    db.put(b"l", bytes(1 * KIB))
    assert engine.generation_due(0, home)

    db.checkpoint()
    for n in range(MAX_RANGES):
        db.commit([delete_range(0, b"%06d" % n, b"%06dx" % n)])
    assert not engine.generation_due(0, home)
    db.commit([delete_range(0, b"z", b"zz")])
    assert engine.generation_due(0, home)


def test_writers_wait_only_while_one_memtable_is_flushed_and_the_next_is_full() -> None:
    db = open_lsm(memtable_bytes=64 * KIB)
    engine = engine_of(db)
    db.put(b"k", bytes(65 * KIB))
    assert engine.throttle() == 0.0, "it can be frozen"

    freeze(db)
    assert engine.throttle() == 0.0, "the next one is empty"

    engine.put(0, b"l", bytes(65 * KIB), db.store.last + 1)
    assert engine.throttle() == 1.0


def test_it_is_full_where_frozen_memtables_fill_the_budget() -> None:
    db = open_lsm(memory_limit=256 * KIB, memtable_bytes=64 * KIB)
    engine = engine_of(db)
    engine.put(0, b"k", bytes(300 * KIB), 1)
    assert not engine.is_full(), "a flush will make room"

    db.store.commit.last = 1
    freeze(db)

    assert engine.is_full()


def test_a_deadline_moves_with_its_value_from_behind() -> None:
    db = open_lsm()
    flush(db, k=b"v")

    db.commit([expire(0, b"k", 10**15)])

    held = engine_of(db).get(0, b"k")
    assert held is not None
    assert entry_of(held)[:2] == (b"v", 10**15)
    db.delete(b"k")
    assert engine_of(db).get(0, b"k") is GONE
