"""What compact() and installing do beside verify, close, and a disk without room."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import marram
from marram.env.api import Env
from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.errors import Closed, StoreFailed, StoreFull
from marram.storage.db import DB

DIRECTORY = "/data/db"
KIB = 1024


def open_lsm(env: Env, **options: Any) -> DB:
    return marram.open(
        DIRECTORY, env=env, **{"engine": "lsm", "memtable_bytes": 4 * KIB, **options}
    )


def two_tables(env: Env, **options: Any) -> DB:
    """A store with two tables on level 0 over the same keys."""
    db = open_lsm(env, **options)
    for value in (b"old", b"new"):
        db.put_many([(b"%05d" % n, value) for n in range(5000)])
        db.checkpoint()
    return db


def during_compact(db: DB, act: Callable[[], object], began: Callable[[], bool]) -> None:
    """compact(), and in the midst of a merge another thread that does `act`, which began()."""
    others: list[threading.Thread] = []

    def progress(done: int, total: int) -> None:
        if not others:
            others.append(threading.Thread(target=act, daemon=True))
            others[0].start()
            while not began():
                time.sleep(0.001)  # until it is there, however long that takes

    try:
        db.compact(progress=progress)
    finally:
        for other in others:
            other.join(20)
    assert others, "nothing was merged"


def test_compact_goes_on_after_verify_had_its_turn() -> None:
    # Once: compactor.compact() lets Cancelled out: verify's stopped() cancels its job.
    db = two_tables(MemoryEnv())
    compactor = db.store.engine.compactor

    during_compact(db, db.verify, lambda: compactor._holds > 0)

    assert db.stats()["lsm"]["level0_depth"] == 0


def test_o3_compact_raises_closed_where_the_store_is_closed_meanwhile() -> None:
    db = two_tables(MemoryEnv())
    compactor = db.store.engine.compactor

    with pytest.raises(Closed):
        during_compact(db, db.close, lambda: compactor._closing)


def test_compact_without_room_raises_store_full() -> None:
    # Once: its docstring, and CLI and server with it, know StoreFull; OSError comes out.
    env = FaultyEnv(MemoryEnv())
    db = two_tables(env)
    env.add(Fault("write", "*/tables/*", error=errno.ENOSPC, times=None))

    with pytest.raises(StoreFull):
        db.compact()


def test_a_table_that_cannot_be_read_for_the_count_does_not_latch_the_store() -> None:
    # Once: any OSError of installing was taken for the manifest's, one of a look-up (EMFILE) too.
    memory = MemoryEnv()
    env = FaultyEnv(memory)
    db = open_lsm(env)
    db.put(b"k", b"1", ttl=1)
    db.put_many([(b"a", b"1"), (b"z", b"1")])
    db.checkpoint()
    db.put_many([(b"a", b"2"), (b"z", b"2")])
    db.checkpoint()
    memory.advance(2000)
    faults: list[Fault] = []

    def progress(done: int, total: int) -> None:
        if not faults:  # a table comes meanwhile, which is asked whether it hides the expired key
            db.put_many([(b"a", b"3"), (b"z", b"3")])
            db.checkpoint()
            newest = db.store.engine.tree.version.levels[0].tables[0].number
            faults.append(Fault("open", f"*/{newest}.sst", error=errno.EMFILE))
            env.add(faults[0])

    with suppress(OSError, StoreFailed):
        db.compact(progress=progress)

    assert faults[0].fired == 1
    assert db.store.failure is None
    assert db.get(b"a") == b"3"
    db.compact()
    assert db.stats()["lsm"]["level0_depth"] == 0
