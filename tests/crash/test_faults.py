"""The n-th durable call fails: a clear error, nothing acknowledged is lost, a latch (P4)."""

from __future__ import annotations

import errno
import itertools
import random

import pytest

import marram
from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.errors import Error, OutcomeUnknown, StoreFailed, StoreFull
from tests.crash.history import DIRECTORY, VARIANTS, History, check_recovered, options_of
from tests.storage.replicas import open_store, put, read_all, rows_of
from tests.storage.replicas import state_of as state_of_store

OPERATIONS = ["write", "sync", "sync_data", "allocate", "truncate", "rename", "remove", "sync_dir",
              "open", "close", "read", "list_dir", "make_dir"]  # fmt: skip


def run_until_fault(
    env: FaultyEnv, inner: MemoryEnv, seed: int, engine: str
) -> tuple[History, BaseException | None]:
    """A fixed history over a disk that is about to fail; returns the first error, if any."""
    history = History(inner, seed, **options_of(engine))
    history.env = env  # type: ignore[assignment]
    try:
        history.open()
        for _ in history.steps(25):
            pass
        history._checkpoint()
        history._put()
        assert history.db is not None
        history.db.close()
    except (Error, OSError) as error:
        return history, error
    return history, None


@pytest.mark.parametrize("engine", VARIANTS)
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_p4_each_call_of_each_kind_fails_once(operation: str, code: int, engine: str) -> None:
    seen_errors = 0
    for nth in itertools.count(1):
        inner = MemoryEnv(seed=1)
        inner.wall_ms()
        env = FaultyEnv(inner)
        fault = env.add(Fault(operation, nth=nth, error=code))
        history, error = run_until_fault(env, inner, 7, engine)
        env.clear()
        if not fault.fired:
            break
        if error is not None:
            seen_errors += 1
            assert isinstance(error, Error | OSError)
            _assert_latched_or_refused(history, error)
        _abandon(history)
        # What the process knew is gone; what was acknowledged is not. A refused batch may have
        # been counted by the oracle, so the states after the acknowledged one are the ceiling.
        for survival in (0.0, 0.5, 1.0):
            disk = inner.crash_clone(survival, nth)
            check_recovered(history, disk, history.acknowledged, len(history.states) - 1)
    assert nth > 1, "the history never makes that call"
    if operation not in ("remove", "close"):
        assert seen_errors


def _assert_latched_or_refused(history: History, error: BaseException) -> None:
    """After an error: either nothing of the call happened and the store goes on, or it latched."""
    db = history.db
    if db is None or db.store.closed is not None:
        return
    if isinstance(error, StoreFull):
        history.states = history.states[: history.acknowledged + 1]
        history._put()
    elif isinstance(error, StoreFailed):
        assert db.store.failure is not None
        with pytest.raises(StoreFailed):
            db.put(b"more", b"x")
        with pytest.raises(StoreFailed):
            db.checkpoint()


def _abandon(history: History) -> None:
    """Drop the handle as a dead process would."""
    if history.db is not None and history.db.store.closed is None:
        history.db.store.after_fork()


@pytest.mark.parametrize("engine", VARIANTS)
def test_a_failed_sync_says_outcome_unknown_and_is_never_retried(engine: str) -> None:
    inner = MemoryEnv()
    env = FaultyEnv(inner)
    db = marram.open(DIRECTORY, env=env, **options_of(engine))
    db.put(b"safe", b"1")
    env.add(Fault("sync_data", "*logfile*"))

    with pytest.raises(OutcomeUnknown):
        db.put(b"doubt", b"2")
    syncs_before = inner.total_calls
    with pytest.raises(StoreFailed):
        db.put(b"late", b"3")

    assert inner.total_calls == syncs_before, "nothing touches the disk any more"
    assert db.get(b"safe") == b"1"  # settled: still readable
    with pytest.raises(StoreFailed):
        db.get(b"doubt")  # not settled, and never will be
    db.close()
    with marram.open(DIRECTORY, env=inner, **options_of(engine)) as again:
        assert again.get(b"safe") == b"1"
        assert again.get(b"late") is None


@pytest.mark.parametrize("engine", VARIANTS)
def test_a_full_disk_refuses_writes_and_recovers_without_reopening(engine: str) -> None:
    inner = MemoryEnv()
    env = FaultyEnv(inner)
    with marram.open(DIRECTORY, env=env, **options_of(engine)) as db:
        db.put(b"a", b"1")
        full = env.add(Fault("allocate", error=errno.ENOSPC, times=None))
        refused = 0
        rng = random.Random(1)
        for number in range(200):
            try:
                db.put(b"n%d" % number, rng.randbytes(5000))
            except StoreFull:
                refused += 1
                assert db.get(b"n%d" % number) is None, "a refused write leaves no trace"
        assert refused > 100
        assert full.fired
        assert db.get(b"a") == b"1"
        env.clear()
        db.put(b"b", b"2")
        assert db.get(b"b") == b"2"
    with marram.open(DIRECTORY, env=inner, **options_of(engine)) as again:
        assert again.get(b"b") == b"2"


@pytest.mark.parametrize("engine", VARIANTS)
def test_a_checkpoint_without_room_leaves_the_old_generation(engine: str) -> None:
    inner = MemoryEnv()
    env = FaultyEnv(inner)
    with marram.open(DIRECTORY, env=env, **options_of(engine)) as db:
        db.put(b"a", b"1")
        env.add(Fault("write", "*checkpoint*", error=errno.ENOSPC))
        with pytest.raises(StoreFull):
            db.checkpoint()
        db.put(b"b", b"2")
        db.checkpoint()
        assert db.store.stats()["checkpoint"]["count"] == 1
    with marram.open(DIRECTORY, env=inner, **options_of(engine)) as again:
        assert dict(again) == {b"a": b"1", b"b": b"2"}


REPLICA_OPERATIONS = ["write", "sync", "sync_data", "allocate", "truncate", "rename", "remove",
                      "sync_dir", "open", "close", "read"]  # fmt: skip


@pytest.mark.parametrize("engine", VARIANTS)
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("operation", REPLICA_OPERATIONS)
def test_p4_each_call_of_what_a_replica_does_fails_once(
    operation: str, code: int, engine: str
) -> None:
    """Frames, a raised epoch, a copy, logs that go: afterwards the old state or the new."""
    source = open_store(MemoryEnv(seed=3), directory="/data/source")
    put(source, *(b"k%d" % number for number in range(30)), value=b"x" * 100)
    copy = rows_of(source)
    put(source, b"later")
    frame = read_all(source, source.last - 1)[0]
    states = [{}, state_of_store(source)]
    states.append({place: held for place, held in states[1].items() if place[1] != b"later"})
    for nth in itertools.count(1):
        inner = MemoryEnv(seed=4)
        env = FaultyEnv(inner)
        store = open_store(env, engine, replica_log_bytes=300)
        fault = env.add(Fault(operation, nth=nth, error=code))
        error, reached, epoch = None, 0, 1
        try:
            installation = store.install(copy[0])
            for rows in copy[1]:
                installation.add(rows)
            installation.finish()
            reached = copy[0].sequence
            store.append_frame(frame)
            store.wait(store.last)
            reached = store.last
            store.checkpoint()
            store.raise_epoch(6)
            epoch = 6
            store.checkpoint()
            store.close()
        except (Error, OSError) as raised:
            error = raised
        env.clear()
        if not fault.fired:
            break
        if error is not None and store.closed is None and store.failure is None:
            assert state_of_store(store) in states, "it goes on, with a state that was one"
            put(store, b"on")
            reached = store.last
        if store.closed is None:
            store.after_fork()
        for survival in (0.0, 0.5, 1.0):
            disk = inner.crash_clone(survival, nth)
            again = open_store(disk, engine, replica_log_bytes=300)
            assert again.last >= reached
            assert again.epoch >= epoch
            state = {k: v for k, v in state_of_store(again).items() if k[1] != b"on"}
            assert state in states
            count = sum(frame.count for frame in read_all(again, again.history.oldest))
            assert count == again.last - again.history.oldest, "and a history without a gap"
            again.close()
    assert nth > 1 or operation == "read", "it never makes that call"
