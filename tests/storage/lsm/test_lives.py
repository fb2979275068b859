"""Pins, threads, and files that must live neither too long nor too short."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import marram
from marram.env.api import Env, Task
from marram.env.memory import MemoryEnv
from marram.errors import InvalidArgument
from marram.storage.db import DB
from marram.storage.memory.space import Space

DIRECTORY = "/data/db"


def open_lsm(env: Env, **options: Any) -> DB:
    return marram.open(DIRECTORY, env=env, **{"engine": "lsm", **options})


def flush(db: DB, value: bytes) -> None:
    db.put_many([(b"a", value), (b"m", value), (b"z", value)])
    db.checkpoint()


class DroppingEnv(MemoryEnv):
    """Starting a task runs the garbage collector, which finds what is in `garbage`."""

    def __init__(self) -> None:
        super().__init__()
        self.garbage: list[object] = []

    def start(self, name: str, work: Callable[[], None]) -> Task:
        self.garbage.clear()
        return super().start(name, work)


def test_a_snapshot_dropped_by_the_collector_while_a_task_is_started_blocks_nobody() -> None:
    # Once: poke() holds _gate over env.start(), which allocates: a collection there runs
    # Snapshot.__del__, which takes the free store lock, releases the pin, and pokes: _gate again,
    # in the same thread.
    env = DroppingEnv()
    db = open_lsm(env)
    flush(db, b"1")
    flush(db, b"2")
    env.run_background()
    env.garbage.append(db.snapshot())
    kept, env.garbage = env.garbage, []
    db.compact()  # its inputs are obsolete, and kept for the snapshot
    env.run_background()
    env.garbage = kept
    del kept
    assert db.store.engine.tables.has_obsolete()

    poking = threading.Thread(target=db.store.engine.compactor.poke, daemon=True)
    poking.start()
    poking.join(5)

    assert not poking.is_alive(), "it waits for a lock that it holds"


class NoThreads(MemoryEnv):
    """No thread can be started while `full`."""

    full = False

    def start(self, name: str, work: Callable[[], None]) -> Task:
        if self.full:
            raise RuntimeError("can't start new thread")
        return super().start(name, work)


def test_compactions_go_on_after_a_thread_could_not_be_started() -> None:
    # Once: poke() sets _busy first: it stays so for ever.
    env = NoThreads()
    db = open_lsm(env)
    env.run_background()
    env.full = True
    with suppress(RuntimeError):
        db.store.engine.compactor.poke()
    env.full = False

    for n in range(6):
        flush(db, b"%d" % n)
        env.run_background()

    assert db.stats()["lsm"]["compaction"]["merges"] > 0


@pytest.mark.parametrize("engine", ["memory", "lsm"])
def test_checkpoints_go_on_after_a_thread_could_not_be_started(engine: str) -> None:
    # Once: Generations.start() sets _queued first; the same.
    env = NoThreads()
    db = open_lsm(env, engine=engine)
    env.full = True
    with suppress(RuntimeError):
        db.store.start_checkpoint()
    env.full = False

    assert db.store.start_checkpoint()


def test_verify_beside_flushes_and_compactions_finds_nothing_wrong() -> None:
    # Once: verify_store() pins before it waits for its turn: what was flushed until then is in the
    # manifest it reads, and not in the version it pinned, so a compaction removes the files.
    env = MemoryEnv()
    db = open_lsm(env)
    flush(db, b"1")
    held = db.store.generations.held

    def then_others_flush() -> Any:
        flush(db, b"2")
        flush(db, b"3")
        return held()

    db.store.generations.held = then_others_flush  # type: ignore[method-assign]
    compacted: list[bool] = []

    def progress(done: int, total: int) -> None:
        # Called with the files held at first, and without once it is at the tables.
        if not compacted and not db.store.generations._running.locked():
            compacted.append(True)
            db.compact()

    report = db.verify(progress)

    assert compacted
    assert report.problems == []


def test_verify_takes_no_table_for_an_orphan_that_is_just_being_removed() -> None:
    # Once: collect() forgets what is obsolete first and removes the files then, outside all that
    # held() holds: who looks between finds files that nobody knows.
    env = MemoryEnv()
    db = open_lsm(env)
    flush(db, b"1")
    flush(db, b"2")
    snapshot = db.snapshot()
    db.compact()
    env.run_background()
    snapshot.close()
    reports = []

    def on_call(operation: str, path: str) -> None:
        if operation == "remove":
            env.on_call = None
            reports.append(db.verify())  # in another thread

    env.on_call = on_call
    env.run_background()

    assert [report.orphans for report in reports] == [[]]


def test_a_backup_leaves_no_obsolete_tables_behind() -> None:
    # Once: its listing keeps a version alive; nobody collects when it is let go of, until something
    # is flushed or compacted again.
    env = MemoryEnv()
    db = open_lsm(env)
    flush(db, b"1")
    flush(db, b"2")

    def compact(done: int, total: int) -> None:
        db.compact()
        env.run_background()

    db.backup("/data/copy", compact)
    env.run_background()

    assert env.list_dir(f"{DIRECTORY}/tables") == [
        f"{t.number}.sst" for level in db.store.engine.tree.version.levels for t in level.tables
    ]


def test_n1_a_snapshot_closed_by_another_thread_gives_an_error_and_no_answer() -> None:
    # Once: let_go() puts an empty version in the place of the pin's: a look-up under way says
    # "missing".
    db = open_lsm(MemoryEnv())
    flush(db, b"1")

    class Closing:
        """Stands before the memtable's space: compiled, its class cannot be changed."""

        def __init__(self, space: Space) -> None:
            self._space = space

        def get_at(self, key: bytes, position: int) -> Any:
            snapshot.close()
            return self._space.get_at(key, position)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._space, name)

    spaces = db.store.engine.tree.active.spaces
    spaces[0] = Closing(spaces[0])
    snapshot = db.snapshot()

    found: object = b"1"
    with suppress(InvalidArgument):
        found = snapshot.get(b"a")
    assert found == b"1"


def test_a_random_key_is_none_where_the_last_one_was_just_compacted_away() -> None:
    # Once: View.random_key() on the server's loop, without the lock: between len(space) and
    # key_at() a compaction takes the expired key away; key_at() raises IndexError.
    env = MemoryEnv()
    db = open_lsm(env)
    db.put(b"k", b"1", ttl=1)
    db.checkpoint()
    view = db.store.view(0)
    view.begin(env.wall_ms() + 2000)
    env.advance(2000)
    draw = 0

    class Draw(int):
        """Drawing takes a while: others compact."""

        def __add__(self, other: int) -> int:
            db.compact()
            return int(self) + other

    assert view.random_key(Draw(draw)) is None
