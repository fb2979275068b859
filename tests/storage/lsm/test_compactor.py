"""storage/lsm/compactor.py: when compactions run, stop and are tried again; installing them."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from marram.coding.batch import Change, expire, patch
from marram.env.api import Task
from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.errors import Closed, Interrupted, StoreFailed, StoreFull
from marram.storage.db import DB
from marram.storage.lsm.compactor import Compactor
from tests.storage.lsm.stores import TABLES, engine_of, flush, listed, open_lsm

TRIGGER = 4  # tables on level 0 that make a job


def compactor_of(db: DB) -> Compactor:
    compactor = engine_of(db).compactor
    assert compactor is not None
    return compactor


def due(env: MemoryEnv, store_env: FaultyEnv | MemoryEnv | None = None) -> DB:
    """A store with a compaction due, which has not begun."""
    db = open_lsm(store_env or env)
    env.run_background()
    for n in range(TRIGGER):
        flush(db, a=b"%d" % n, z=b"%d" % n)
    assert len(listed(db)) == TRIGGER
    return db


def test_what_is_due_is_merged_in_the_background() -> None:
    env = MemoryEnv()
    db = due(env)

    env.run_background()

    assert len(engine_of(db).tree.version.levels[0]) == 0
    assert env.list_dir(TABLES) == listed(db)
    assert db.get(b"a") == b"3"
    assert compactor_of(db).figures.merges == 1
    assert compactor_of(db).figures.rows_read == 2 * TRIGGER


class CountingEnv(MemoryEnv):
    """Counts the compaction tasks that are started."""

    def __init__(self) -> None:
        super().__init__()
        self.started = 0

    def start(self, name: str, work: Callable[[], None]) -> Task:
        self.started += name == "marram-compaction"
        return super().start(name, work)


def test_z1_many_pokes_start_one_task() -> None:
    env = CountingEnv()
    db = open_lsm(env)
    env.run_background()
    env.started = 0

    for _ in range(3):
        compactor_of(db).poke()

    assert env.started == 1


def test_a_poke_while_it_works_is_not_lost() -> None:
    env = MemoryEnv()
    db = due(env)
    compactor = compactor_of(db)
    looked: list[int] = []
    pick = compactor._pick

    def picking(now_ms: int) -> object:
        looked.append(now_ms)
        if len(looked) == 2:
            compactor.poke()
        return pick(now_ms)

    compactor._pick = picking  # type: ignore[method-assign,assignment]
    env.run_background()

    assert len(looked) == 3, "the job, none, and once more for the poke"


def test_z2_inputs_go_only_after_the_edit_is_durable() -> None:
    env = MemoryEnv()
    db = due(env)
    before = db.store.store_id
    lost: list[set[str]] = []

    def on_call(operation: str, path: str) -> None:
        if operation == "remove" and path.endswith(".sst"):
            after = env.crash_clone(survival=0.0, seed=1)
            with open_lsm(after) as again:
                lost.append(set(listed(again)) & {f"{n + 1}.sst" for n in range(TRIGGER)})
                assert again.get(b"a") == b"3"
                assert again.store.store_id == before

    env.on_call = on_call
    env.run_background()

    assert lost == [set()] * TRIGGER, "whoever opens it then reads the outputs"


def test_z3_for_want_of_room_it_is_tried_again_later_and_not_sooner() -> None:
    env = MemoryEnv()
    faulty = FaultyEnv(env)
    db = due(env, faulty)
    fault = faulty.add(Fault("write", "*/tables/*", error=errno.ENOSPC))
    compactor = compactor_of(db)

    env.run_background()
    assert fault.fired == 1
    assert "No space left" in db.stats()["lsm"]["compaction"]["error"]
    assert compactor.figures.failures == 1
    assert len(env.list_dir(TABLES)) == TRIGGER, "inputs are as they were, outputs are gone"

    env.advance(9_000)
    compactor.poke()
    env.run_background()
    assert len(listed(db)) == TRIGGER

    env.advance(2_000)
    compactor.poke()
    env.run_background()
    assert engine_of(db).tree.version.levels[0].tables == ()
    assert db.stats()["lsm"]["compaction"]["error"] == ""
    assert db.store.failure is None


def test_z3_damage_ends_compactions_and_is_told_while_reading_and_writing_go_on() -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    flush(db, a=b"damaged", z=b"0")
    for n in range(1, TRIGGER):
        flush(db, a=b"%d" % n, z=b"%d" % n)
    path = f"{TABLES}/1.sst"
    env.mutate(path, env.contents(path).index(b"damaged"), b"DAMAGED")

    env.run_background()
    env.advance(60_000)
    compactor_of(db).poke()
    env.run_background()

    assert "1.sst" in db.stats()["lsm"]["compaction"]["error"]
    assert compactor_of(db).figures.failures == 1, "it is not tried again"
    with pytest.raises(StoreFailed, match="compactions have stopped"):
        db.compact()
    db.put(b"a", b"new")
    assert db.get(b"a") == b"new"


def test_z3_p4_an_edit_that_cannot_be_made_durable_is_final() -> None:
    env = MemoryEnv()
    faulty = FaultyEnv(env)
    db = due(env, faulty)
    faulty.add(Fault("sync_data", f"*/checkpoint.{TRIGGER}", error=errno.EIO))

    env.run_background()

    assert db.store.failure is not None
    assert {f"{n + 1}.sst" for n in range(TRIGGER)} <= set(env.list_dir(TABLES)), "Z2"
    for survival in (0.0, 1.0):
        with open_lsm(env.crash_clone(survival, seed=1)) as again:
            assert again.get(b"a") == b"3"


def test_a_row_that_expired_is_taken_away_and_off_the_count() -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    db.put(b"t", b"1", ttl=1)
    flush(db, a=b"1", z=b"1")
    flush(db, a=b"2", z=b"2")
    space = db.store.engine.spaces[0]
    assert len(space) == 3

    env.advance(2000)
    db.compact()

    assert len(space) == 2
    assert compactor_of(db).figures.expired_rows == 1
    db.close()
    with open_lsm(env) as again:
        assert len(again.store.engine.spaces[0]) == 2


def test_an_expired_row_under_a_newer_one_is_not_taken_off() -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    db.put(b"t", b"1", ttl=1)
    flush(db, a=b"1", z=b"1")
    flush(db, a=b"2", t=b"again", z=b"2")
    assert len(db) == 3

    env.advance(2000)
    db.compact()

    assert len(db) == 3
    assert len(db.store.engine.spaces[0]) == 3


def compact_tables(db: DB) -> None:
    """compact() without the flush that comes before it."""
    compactor_of(db).compact(b"\0", None)


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (expire(0, b"k", 0), b"value"),
        (expire(0, b"k", 10**15), b"value"),
        (patch(0, b"k", 1, b"A"), b"vAlue"),
    ],
)
def test_z4_a_row_that_a_replay_needs_outlives_its_deadline(change: Change, after: bytes) -> None:
    # Once: the compaction took the row away, as expired, and after a crash the log's EXPIRE found
    # nothing there to keep: an acknowledged write was lost.
    env = MemoryEnv()
    db = open_lsm(env)
    db.put(b"k", b"value", ttl=1)
    flush(db, a=b"1", z=b"1")
    flush(db, a=b"2", z=b"2")
    db.commit([change, expire(0, b"k", 0)])
    env.advance(2000)

    for _ in range(2):  # the second time the memtable is a recovered one
        compact_tables(db)
        assert engine_of(db).tree.version.rows == 3, "a and z once"
        assert (db.get(b"k"), len(db)) == (after, 3)
        env = env.crash_clone(1.0, seed=1)
        db = open_lsm(env)
        assert (db.get(b"k"), len(db)) == (after, 3)

    db.compact()
    with open_lsm(env.crash_clone(1.0, seed=1)) as again:
        assert (again.get(b"k"), len(again)) == (after, 3)


def test_z4_what_expires_before_that_row_goes_and_what_does_later_waits_for_a_flush() -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    for ttl in (1, 2, 3):
        db.put(b"%d" % ttl, b"1", ttl=ttl)
    flush(db, a=b"1", z=b"1")
    flush(db, a=b"2", z=b"2")
    db.persist(b"2")
    env.advance(9000)

    compact_tables(db)
    assert compactor_of(db).figures.expired_rows == 1
    db.compact()
    assert compactor_of(db).figures.expired_rows == 2
    assert (db.get(b"2"), len(db.store.engine.spaces[0])) == (b"1", 3)


def test_z4_a_change_that_is_being_flushed_needs_the_row_still() -> None:
    env = MemoryEnv()
    faulty = FaultyEnv(env)
    db = open_lsm(faulty)
    db.put(b"k", b"1", ttl=1)
    flush(db, a=b"1", z=b"1")
    flush(db, a=b"2", z=b"2")
    db.persist(b"k")
    faulty.add(Fault("write", "*.sst", error=errno.ENOSPC))
    with pytest.raises(StoreFull):
        db.checkpoint()
    assert len(engine_of(db).tree.frozen) == 1
    db.put(b"m", b"1")
    env.advance(2000)

    compact_tables(db)

    assert compactor_of(db).figures.expired_rows == 0
    with open_lsm(env.crash_clone(1.0, seed=1)) as again:
        assert again.get(b"k") == b"1"


def test_z4_a_change_that_comes_late_ends_the_job_that_took_its_row() -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    db.put(b"k", b"1", ttl=1)
    flush(db, a=b"1", z=b"1")
    flush(db, a=b"2", z=b"2")
    env.advance(2000)
    late = [expire(0, b"k", 0)]  # of one who looked when it had not expired

    def come(done: int, total: int) -> None:
        if late:
            db.commit([late.pop()])

    compactor_of(db).compact(b"\0", None, come)

    assert compactor_of(db).figures.expired_rows == 0
    assert env.list_dir(TABLES) == listed(db), "what the first job wrote is gone"
    with open_lsm(env.crash_clone(1.0, seed=1)) as again:
        assert again.get(b"k") == b"1"


# -- being told to stop ----------------------------------------------------------------------------


def test_nothing_runs_while_it_is_paused() -> None:
    env = MemoryEnv()
    db = due(env)
    compactor = compactor_of(db)

    compactor.pause()
    env.run_background()
    assert len(listed(db)) == TRIGGER

    compactor.resume()
    env.run_background()
    assert engine_of(db).tree.version.levels[0].tables == ()


def test_compact_says_so_where_compactions_are_paused() -> None:
    db = due(MemoryEnv())
    compactor_of(db).pause()

    with pytest.raises(Interrupted):
        db.compact()


def test_writers_are_held_back_by_a_deep_level_0_but_not_where_nothing_would_end_it() -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    compactor = compactor_of(db)
    env.run_background()
    for n in range(compactor.options.level0_stop):
        flush(db, a=b"%d" % n, z=b"%d" % n)

    assert compactor.throttle() == 1.0
    compactor.pause()
    assert compactor.throttle() == 0.0
    compactor.paused = False
    compactor.error = "no room"
    assert compactor.throttle() == 0.0


def test_a_merge_that_runs_is_cancelled_by_a_pause_and_leaves_nothing() -> None:
    env = MemoryEnv()
    db = due(env)
    env.on_call = lambda operation, path: compactor_of(db).pause()

    env.run_background()

    assert env.list_dir(TABLES) == listed(db)
    assert len(listed(db)) == TRIGGER
    assert compactor_of(db).figures.failures == 0, "that is no failure"


def test_who_needs_the_files_stops_compactions_and_sets_them_going_again() -> None:
    env = MemoryEnv()
    db = due(env)

    with engine_of(db).held():
        env.run_background()
        assert len(listed(db)) == TRIGGER
        assert engine_of(db)._edits.locked()
    env.run_background()

    assert engine_of(db).tree.version.levels[0].tables == ()


def test_after_close_nothing_is_started() -> None:
    env = CountingEnv()
    db = due(env)
    compactor = compactor_of(db)
    db.close()
    env.started = 0

    compactor.poke()

    assert env.started == 0
    with pytest.raises(Closed):
        compactor.compact(b"\0", None)


# -- compact() -------------------------------------------------------------------------------------


def test_compact_brings_everything_down_and_leaves_no_garbage() -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    flush(db, a=b"1", b=b"1", z=b"1")
    db.delete(b"b")
    flush(db, a=b"2")

    db.compact()

    levels = [level for level in engine_of(db).tree.version.levels if level.tables]
    assert len(levels) == 1
    assert env.list_dir(TABLES) == listed(db), "what nobody reads is gone when it returns"
    assert (levels[0].rows, levels[0].tombstones) == (2, 0)


def test_compact_of_a_range_leaves_other_tables_as_they_are() -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    flush(db, x=b"1", z=b"1")
    db.compact()
    flush(db, a=b"1", b=b"1")
    flush(db, a=b"2", b=b"2")

    db.compact(b"x", None)
    assert set(listed(db)) == {"1.sst", "2.sst", "3.sst"}
    db.compact(b"a", b"c")
    assert "1.sst" in listed(db)
    assert not {"2.sst", "3.sst"} & set(listed(db))


def test_compact_tells_its_progress_to_the_end() -> None:
    db = open_lsm()
    flush(db, a=b"1", z=b"1")
    flush(db, a=b"2", z=b"2")
    told: list[tuple[int, int]] = []

    db.compact(progress=lambda done, total: told.append((done, total)))

    assert told[-1][0] == told[-1][1] > 0


def test_the_pressure_it_remembers_keeps_no_version_alive() -> None:
    env = MemoryEnv()
    db = open_lsm(env)
    flush(db, a=b"1", z=b"1")
    flush(db, a=b"2", z=b"2")
    assert compactor_of(db).pressure().level0_depth == 2

    db.compact()
    env.run_background()

    assert env.list_dir(TABLES) == listed(db) == ["3.sst"]
    assert compactor_of(db).pressure().level0_depth == 0
