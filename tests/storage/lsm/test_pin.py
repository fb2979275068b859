"""storage/lsm/pin.py: what a pin shows, what it keeps, and what was written since."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import nullcontext

import pytest

from marram.coding.batch import delete_range, put, swap
from marram.env.memory import MemoryEnv
from marram.storage.db import DB
from marram.storage.engine import Range
from marram.storage.lsm.pin import LsmPin, count_rows, pick_key
from tests.storage.lsm.stores import TABLES, engine_of, flush, listed, open_lsm

NOW_MS = 0


def state(pin: LsmPin, *, reverse: bool = False) -> list[tuple[bytes, object]]:
    scan = pin.scan(0, b"", None, NOW_MS, reverse=reverse, chunk=100, lock=nullcontext())
    return [pair for rows in scan for pair in rows]


def written() -> DB:
    """Keys in a table, in a frozen memtable's place, and in the active one."""
    db = open_lsm()
    flush(db, a=b"1", b=b"1", c=b"1", d=b"1")
    db.put(b"b", b"2")
    db.commit([delete_range(0, b"c", b"d")])
    return db


THEN = [(b"a", b"1"), (b"b", b"2"), (b"d", b"1")]


def overwrite(db: DB) -> None:
    db.put(b"b", b"3")
    db.put(b"c", b"3")


def ranges_later(db: DB) -> None:
    db.commit([delete_range(0, b"d", b"e")])


def clear(db: DB) -> None:
    db.clear()


def delete_some(db: DB) -> None:
    db.commit([delete_range(0, b"a", b"c")])


def write_and_flush(db: DB) -> None:
    overwrite(db)
    db.checkpoint()


def write_and_compact(db: DB) -> None:
    delete_some(db)
    db.put(b"c", b"3")
    db.compact()


@pytest.mark.parametrize(
    "later", [overwrite, clear, delete_some, ranges_later, write_and_flush, write_and_compact]
)
def test_n1_n2_a_pin_shows_what_was_whatever_comes_later(later: Callable[[DB], None]) -> None:
    db = written()
    pin = db.store.snapshot()

    later(db)

    assert state(pin) == THEN
    assert state(pin, reverse=True) == THEN[::-1]
    assert [pin.get(0, key) for key in (b"a", b"b", b"c", b"d", b"e")] == [
        b"1", b"2", None, b"1", None,
    ]  # fmt: skip


def test_n1_a_pin_keeps_files_and_versions_until_it_is_released() -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    flush(db, a=b"1", z=b"1")
    flush(db, a=b"2", z=b"2")
    pin = db.store.snapshot()
    version = weakref.ref(engine_of(db).tree.version)
    db.compact()
    kept = env.list_dir(TABLES)

    db.store.release(pin)
    env.run_background()
    gc.collect()

    assert kept == ["1.sst", "2.sst", "3.sst"]
    assert version() is None, "though somebody still has the pin"
    assert env.list_dir(TABLES) == listed(db) == ["3.sst"]


def test_a_released_pin_lets_a_flushed_memtable_go() -> None:
    db = open_lsm()
    db.put(b"k", b"1")
    engine = engine_of(db)
    with db.store.lock:
        work = engine.begin_generation(db.store.generations.home, 1, db.store.last)
    pin = db.store.snapshot()
    assert pin._frozen == (work._memtables[0],)

    db.store.release(pin)

    assert pin._frozen == ()


@pytest.mark.parametrize("reverse", [False, True])
def test_chunks_go_on_where_the_one_before_ended(reverse: bool) -> None:
    pin = written().store.snapshot()
    found, start, stop = [], b"", None
    while True:
        rows, onward = pin.chunk(0, start, stop, 1, NOW_MS, reverse=reverse)
        found += rows
        if onward is None:
            break
        assert len(rows) == 1
        start, stop = (start, onward) if reverse else (onward, stop)

    assert found == (THEN[::-1] if reverse else THEN)


def test_a_pin_of_a_swapped_keyspace_shows_it_in_its_old_place() -> None:
    db = written()
    pin = db.store.snapshot()

    db.commit([swap(0, 3)])

    assert state(pin) == THEN


# -- what was written since ------------------------------------------------------------------------


def changed(db: DB, pin: LsmPin, *, keys: str = "", ranges: tuple[Range, ...] = ()) -> bool:
    return db.store.changed_since(pin, [(0, key.encode()) for key in keys], ranges)


def nothing(db: DB) -> None:
    pass


def put_b(db: DB) -> None:
    db.put(b"b", b"3")


def delete_b(db: DB) -> None:
    db.delete(b"b")


def delete_range_of_b(db: DB) -> None:
    db.commit([delete_range(0, b"b", b"c")])


def flushed(db: DB) -> None:
    db.checkpoint()


def compacted(db: DB) -> None:
    db.compact()


def frozen(db: DB) -> None:
    with db.store.lock:
        engine_of(db).begin_generation(db.store.generations.home, 9, db.store.last)


def flushed_twice(db: DB) -> None:
    db.checkpoint()
    db.put(b"x", b"1")
    db.checkpoint()


@pytest.mark.parametrize("after", [nothing, frozen, flushed, flushed_twice, compacted])
@pytest.mark.parametrize("change", [put_b, delete_b, delete_range_of_b])
@pytest.mark.parametrize("before", [nothing, frozen, flushed, flushed_twice, compacted])
def test_a_change_is_seen_however_deep_it_and_the_pin_went_since(
    before: Callable[[DB], None], change: Callable[[DB], None], after: Callable[[DB], None]
) -> None:
    db = written()
    pin = db.store.snapshot()

    before(db)
    change(db)
    after(db)

    assert changed(db, pin, keys="b")
    assert changed(db, pin, ranges=((0, b"b", b"b\0"),))
    assert not changed(db, pin, keys="acd")
    assert not changed(db, pin, ranges=((0, b"", b"b"), (0, b"c", b"x"), (1, b"", None)))


@pytest.mark.parametrize("after", [frozen, flushed, flushed_twice, compacted])
def test_a_flush_or_a_compaction_alone_changes_no_key(after: Callable[[DB], None]) -> None:
    db = written()
    pin = db.store.snapshot()

    after(db)

    assert not changed(db, pin, keys="abcd")
    assert not changed(db, pin, ranges=((0, b"", b"x"),))


def test_after_a_swap_all_keys_of_both_places_are_changed() -> None:
    db = written()
    pin = db.store.snapshot()

    db.commit([swap(0, 3)])

    assert changed(db, pin, keys="a")
    assert db.store.changed_since(pin, [], [(3, b"a", b"b")])
    assert not db.store.changed_since(pin, [(1, b"a")], [])


# -- reading the newest ----------------------------------------------------------------------------


def test_rows_are_counted_as_they_are_seen() -> None:
    db = written()
    db.commit([put(0, b"t", b"1", deadline_ms=50)])
    engine = engine_of(db)
    _, _, version = engine.tree

    assert count_rows(engine.tables, engine.tree.memtables, version, 0) == (4, 1)
    assert count_rows(engine.tables, engine.tree.memtables, version, 0, now_ms=49) == (4, 1)
    assert count_rows(engine.tables, engine.tree.memtables, version, 0, now_ms=50) == (3, 0)
    assert count_rows(engine.tables, (), version, 0) == (4, 0), "the tables alone"


def test_a_key_can_be_picked_from_any_source() -> None:
    db = open_lsm()
    flush(db, a=b"1", b=b"1")
    flush(db, c=b"1")
    db.put(b"d", b"1")
    engine = engine_of(db)

    picked = {pick_key(engine.tree, engine.tables, 0, index) for index in range(4)}

    assert picked == {b"a", b"b", b"c", b"d"}
    assert pick_key(engine.tree, engine.tables, 1, 0) == b"", "nothing there"
