"""storage/lsm/tables.py: the order of look-ups, when files go, and that each is the one meant."""

from __future__ import annotations

import errno
import gc
import logging

import pytest

from marram.coding.batch import delete_range
from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.errors import Corruption
from marram.storage.entry import Entry
from marram.storage.lsm.memtable import GONE, stored_of
from marram.storage.lsm.tables import Tables, check_files, remove_orphans
from marram.storage.lsm.version import Version, VersionEdit
from marram.storage.sstable.block import TOMBSTONE, stored_key
from tests.storage.lsm.stores import DIRECTORY, TABLES, engine_of, flush, listed, open_lsm


def layers() -> tuple[Tables, Version]:
    """Tables 1, 2, 3 on level 0, each newer than the one before."""
    db = open_lsm()
    db.put(b"timed", b"1", ttl=1000)
    flush(db, a=b"oldest", covered=b"oldest", deleted=b"oldest", rewritten=b"oldest")
    flush(db, a=b"old", z=b"old")
    db.commit([delete_range(0, b"covered", b"cz"), delete_range(0, b"r", b"s")])
    db.delete(b"deleted")
    db.put(b"rewritten", b"new")
    db.checkpoint()
    engine = engine_of(db)
    assert listed(db) == ["1.sst", "2.sst", "3.sst"]
    return engine.tables, engine.tree.version


# -- looking up ------------------------------------------------------------------------------------


def test_g1_the_newest_table_that_says_anything_is_believed() -> None:
    tables, version = layers()

    assert tables.find(version, 0, b"a") == b"old"
    assert tables.find(version, 0, b"deleted") is GONE
    assert tables.find(version, 0, b"covered") is GONE
    assert tables.find(version, 0, b"rewritten") == b"new", "it is of the same flush as the range"
    assert tables.find(version, 0, b"nothing") is None
    assert tables.find(version, 1, b"a") is None


def test_the_newest_sequence_is_that_of_the_row_or_of_the_range_over_it() -> None:
    tables, version = layers()
    newest, middle, oldest = (table.max_sequence for table in version.levels[0].tables)

    assert oldest < middle < newest
    assert tables.newest_sequence(version, 0, b"a") == middle
    assert tables.newest_sequence(version, 0, b"covered") == newest
    assert tables.newest_sequence(version, 0, b"timed") == oldest
    assert tables.newest_sequence(version, 0, b"nothing") == -1


def test_a_table_says_something_of_rows_tombstones_and_ranges() -> None:
    tables, version = layers()
    newest, middle, _ = version.levels[0].tables

    assert tables.says(newest, stored_key(0, b"deleted"))
    assert tables.says(newest, stored_key(0, b"covered"))
    assert not tables.says(newest, stored_key(0, b"a"))
    assert tables.says(middle, stored_key(0, b"a"))
    assert not tables.says(middle, stored_key(1, b"a"))


def test_a_row_is_held_as_the_engine_holds_it() -> None:
    assert stored_of((0, b"k", b"v", 0, 0, 9)) == b"v"
    assert stored_of((0, b"k", b"v", 50, 0, 9)) == Entry(b"v", 50, 0)
    assert stored_of((0, b"k", b"", 0, TOMBSTONE, 9)) is GONE


# -- when files go ---------------------------------------------------------------------------------


def test_g2_a_file_stays_while_any_version_that_names_it_lives() -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    flush(db, a=b"1", z=b"1")
    flush(db, a=b"2", z=b"2")
    tables, version = engine_of(db).tables, engine_of(db).tree.version

    db.compact()
    kept = env.list_dir(TABLES)
    obsolete = tables.obsolete()
    assert tables.find(version, 0, b"a") == b"2"
    del version
    gc.collect()
    tables.collect()

    assert kept == ["1.sst", "2.sst", "3.sst"]
    assert obsolete == {1, 2}
    assert env.list_dir(TABLES) == listed(db) == ["3.sst"]
    assert not tables.has_obsolete()


def test_g2_a_scan_under_way_keeps_its_files() -> None:
    env = MemoryEnv()
    db = open_lsm(env, max_open_tables=1)
    for n in range(3):
        flush(db, **{f"{c}{n}": b"1" for c in "abcdef"})
    tables = engine_of(db).tables
    low, high = stored_key(0, b""), b"\1"
    sources = tables.sources(engine_of(db).tree.version, low, high, reverse=False, short=False)

    db.compact()
    tables.collect()

    assert sum(len(rows) for source in sources for rows in source) == 18


def test_g2_a_file_that_is_in_a_live_version_is_not_removed_though_it_is_retired() -> None:
    tables, version = layers()

    tables.retire([1])
    tables.collect()

    assert tables.find(version, 0, b"timed") is not None
    assert tables.obsolete() == {1}


def test_what_cannot_be_removed_is_left_for_the_next_opening(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inner = MemoryEnv()
    env = FaultyEnv(inner)
    db = open_lsm(env)
    flush(db, a=b"1", z=b"1")
    flush(db, a=b"2", z=b"2")
    env.add(Fault("remove", "*/tables/1.sst", error=errno.EIO))

    with caplog.at_level(logging.WARNING):
        db.compact()

    assert "1.sst could not be removed" in caplog.text
    assert inner.list_dir(TABLES) == ["1.sst", "3.sst"]
    db.close()
    with open_lsm(env) as again:
        assert again.store.recovered.removed == ["tables/1.sst"]


# -- the right files -------------------------------------------------------------------------------


def test_g3_a_table_in_the_place_of_another_is_corruption_never_an_answer() -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    flush(db, a=b"1")
    flush(db, a=b"2")
    db.close()
    env.put_file(f"{TABLES}/2.sst", env.contents(f"{TABLES}/1.sst"))

    with pytest.raises(Corruption, match=r"2\.sst"), open_lsm(env) as again:
        again.get(b"a")


def test_g3_a_table_of_a_copy_that_went_on_by_itself_is_corruption() -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    flush(db, a=b"1")
    db.close()
    copy = env.crash_clone(survival=1.0, seed=1)
    for each, values in ((env, (b"2",)), (copy, (b"0", b"3"))):
        with open_lsm(each) as db:
            for value in values:
                db.put(b"a", value)
            db.checkpoint()
    path = f"{TABLES}/2.sst"
    env.put_file(path, copy.contents(path))

    with pytest.raises(Corruption, match=r"2\.sst"), open_lsm(env) as again:
        again.get(b"a")


@pytest.mark.parametrize("harm", ["missing", "longer"])
def test_g3_a_store_with_a_table_missing_or_of_another_size_is_not_opened(harm: str) -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    flush(db, a=b"1")
    db.close()
    path = f"{TABLES}/1.sst"
    if harm == "missing":
        env.remove(path)
    else:
        env.put_file(path, env.contents(path) + b"\0")
    files = env.list_dir(DIRECTORY)

    with pytest.raises(Corruption, match=r"1\.sst"):
        open_lsm(env)
    assert [name for name in env.list_dir(DIRECTORY) if name != "LOCK"] == [
        name for name in files if name != "LOCK"
    ]


def test_a_version_whose_files_are_there_is_accepted() -> None:
    db = open_lsm()
    flush(db, a=b"1")

    check_files(db.store.env, DIRECTORY, engine_of(db).tree.version)


def test_orphans_are_tables_that_the_version_does_not_name_and_no_other_files() -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    flush(db, a=b"1")
    version = engine_of(db).tree.version
    for name in ("7.sst", "notes.txt", "07.sst"):
        env.put_file(f"{TABLES}/{name}", b"x")
    calls: list[tuple[str, str]] = []
    env.on_call = lambda *call: calls.append(call)

    assert remove_orphans(env, DIRECTORY, version) == ["tables/7.sst"]

    assert env.list_dir(TABLES) == ["07.sst", "1.sst", "notes.txt"]
    assert calls[-1] == ("sync_dir", TABLES), "its number is used again: the name must be gone"


def test_an_edit_adds_its_tables_before_anybody_can_ask_for_them() -> None:
    tables, version = layers()
    moved = version.levels[0].tables[0]
    later = version.apply(VersionEdit(((1, moved),), ((0, moved.number),)))

    tables.add(later, [moved])

    assert tables.find(later, 0, b"z") == b"old"
