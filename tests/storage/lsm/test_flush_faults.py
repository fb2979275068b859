"""Flushes beside damage, counts beside flushes, batches that read, undoing beside readers."""

from __future__ import annotations

import errno
import threading
from contextlib import suppress
from typing import Any

import pytest

import marram
from marram import compiled
from marram.coding.batch import DELETE_RANGE, expire, put, swap
from marram.env.api import Env
from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.storage.db import DB
from marram.storage.engine import Origin
from marram.storage.lsm import counts, generation
from marram.storage.lsm.engine import LsmEngine
from marram.storage.lsm.memtable import Memtable, RangeSet

DIRECTORY = "/data/db"


def open_lsm(env: Env, **options: Any) -> DB:
    return marram.open(DIRECTORY, env=env, engine="lsm", **options)


def damage(env: MemoryEnv, table: int, text: bytes) -> None:
    path = f"{DIRECTORY}/tables/{table}.sst"
    env.mutate(path, env.contents(path).index(text), bytes(len(text)))


def test_a_flush_does_not_need_the_tables_that_are_there_damaged() -> None:
    # Once: LsmGeneration._settle() reads them, for the count alone; Corruption ends every flush
    # from then on, each retry costs a log file and a table, and the memtables are never let go of.
    env = MemoryEnv()
    db = open_lsm(env)
    db.put_many([(b"a", b"damaged"), (b"k", b"1"), (b"z", b"1")])
    db.checkpoint()
    damage(env, 1, b"damaged")

    db.put(b"k", b"2")
    db.checkpoint()

    assert db.get(b"k") == b"2"
    assert db.stats()["lsm"]["memtable"]["frozen"] == 0


def test_a_flush_does_not_need_the_tables_that_are_there_unreadable() -> None:
    # Once, as above, with EIO: Generations.checkpoint() takes it for the log's, and latches the
    # store.
    env = FaultyEnv(MemoryEnv())
    db = open_lsm(env)
    db.put_many([(b"a", b"1"), (b"k", b"1"), (b"z", b"1")])
    db.checkpoint()
    db.put(b"k", b"2")
    env.add(Fault("read", "*/tables/1.sst", error=errno.EIO, times=None))
    env.add(Fault("open", "*/tables/1.sst", error=errno.EIO, times=None))

    db.checkpoint()

    assert db.store.failure is None


class Blocking(RangeSet):
    """No range deletions, and who asks for that waits."""

    __slots__ = ("asked", "go_on")

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = threading.Event(), threading.Event()

    def __bool__(self) -> bool:
        self.asked.set()
        self.go_on.wait(10)
        return False


class Written(Exception):
    """A manifest was about to be written."""


def test_t2_counts_are_not_written_down_while_a_key_is_being_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Once: LsmGeneration.switching() asks counts.settled() without the store's lock: in settle() a
    # key is no longer unsure before it is taken off the tally.
    db = open_lsm(MemoryEnv())
    db.put(b"k", b"1")
    db.checkpoint()
    assert len(db) == 1
    db.put(b"k", b"2")
    engine, store = db.store.engine, db.store
    assert isinstance(engine, LsmEngine)
    memtable = engine.tree.active
    with store.lock:
        work = engine.begin_generation(store.generations.home, 9, store.last)
    work._origin = Origin(store.store_id, 1, store.last, 0)  # as write() does, which settles later
    memtable.ranges = blocking = Blocking()
    counting = threading.Thread(target=lambda: len(db), daemon=True)
    counting.start()
    assert blocking.asked.wait(10)
    written: list[Any] = []

    def write_manifest(*args: Any) -> None:
        written.append(args[-1].counts[0])
        raise Written

    monkeypatch.setattr(generation, "write_manifest", write_manifest)

    def switch() -> None:
        with suppress(Written), work.switching():
            pass

    switching = threading.Thread(target=switch, daemon=True)
    switching.start()
    switching.join(0.5)  # it ends now, or waits for who counts
    blocking.go_on.set()
    switching.join(10)
    counting.join(10)

    assert written in ([(1, 0)], [None])


def test_t1_the_writing_thread_counts_right_beside_a_flush(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Once: the server's loop calls len(space) without the lock, as space.py allows; adopt() moves
    # what is frozen into the base under the lock, between the two looks that count() takes.
    db = open_lsm(MemoryEnv())
    db.put(b"k", b"1")
    resolve, flushing = counts.resolve, threading.Thread(target=db.checkpoint, daemon=True)

    def later(*args: Any) -> tuple[int, int]:
        monkeypatch.setattr(counts, "resolve", resolve)
        flushing.start()
        flushing.join(0.5)  # it ends now, or waits for who counts
        return resolve(*args)

    monkeypatch.setattr(counts, "resolve", later)

    assert len(db.store.engine.spaces[0]) == 1
    flushing.join(10)
    assert len(db.store.engine.spaces[0]) == 1


def test_x2_a_batch_with_a_swap_is_refused_where_the_disk_cannot_be_read() -> None:
    # Once: prepare() reads the key of the keyspace that is in the place before the swap; apply()
    # then reads the other one, after the batch was numbered: the store is latched.
    env = FaultyEnv(MemoryEnv())
    db = open_lsm(env)
    db.keyspace(1).put(b"k", b"1")
    db.checkpoint()
    env.add(Fault("read", "*/tables/*", error=errno.EIO, times=None))
    env.add(Fault("open", "*/tables/*", error=errno.EIO, times=None))
    deadline_ms = db.store.now_ms() + 1000

    with pytest.raises(OSError, match="Input/output"):
        db.commit([put(0, b"a", b"1"), swap(0, 1), expire(0, b"k", deadline_ms)])

    assert db.store.failure is None
    assert db.get(b"a") is None


@pytest.mark.skipif(
    compiled.state() == "compiled", reason="compiled, nothing runs between the two assignments"
)
def test_n2_a_reader_beside_a_rollback_of_clear_sees_no_older_value() -> None:
    # Once: revert() takes the range away first and puts the cleared map back afterwards; between
    # the two a look-up without the lock goes through to the tables.
    db = open_lsm(MemoryEnv())
    db.put(b"k", b"old")
    db.checkpoint()
    db.put(b"k", b"new")
    engine = db.store.engine
    seen: list[Any] = []

    class Watched(Memtable):
        __slots__ = ()

        @property
        def ranges(self) -> RangeSet:
            return Memtable.ranges.__get__(self)

        @ranges.setter
        def ranges(self, ranges: RangeSet) -> None:
            Memtable.ranges.__set__(self, ranges)
            seen.append(engine.spaces[0].get(b"k"))

    engine.tree.active.__class__ = Watched
    unit = db.store.begin()
    unit.apply([(DELETE_RANGE, 0, b"", None, 0, 0)])
    unit.rollback()

    assert b"old" not in seen
