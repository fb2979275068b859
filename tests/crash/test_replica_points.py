"""Power fails at every call that changes the disk, in what replication asks of a store.

Kept logs, epochs, frames and installations: what was promised is there, the old state or the new,
and the history that is left is one.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import closing

import pytest

from marram.env.memory import MemoryEnv
from marram.storage.db import DB
from marram.storage.history import Mark
from marram.storage.store import Store
from tests.crash.history import VARIANTS
from tests.storage.replicas import (
    DIRECTORY,
    batches_of,
    marks_of,
    open_store,
    put,
    read_all,
    rows_of,
    state_of,
)

SEED = int(os.environ.get("MARRAM_CRASH_SEED", "0"))
SURVIVALS = (0.0, 0.5, 1.0)
KEEP = 1 << 30


def crash_at_every_call(
    env: MemoryEnv,
    work: Callable[[], None],
    check: Callable[[MemoryEnv, float], None],
    share: float = 1.0,
) -> int:
    """Run `work`; look at what a crash leaves before each call of it, and at its end.

    share: of the calls, drawn. Returns how many crashes there were.
    """
    rng = random.Random(SEED)
    points = 0

    def crash(operation: str, path: str) -> None:
        nonlocal points
        if rng.random() < share:
            for survival in SURVIVALS:
                points += 1
                check(env.crash_clone(survival, rng.getrandbits(32)), survival)

    env.on_call = crash
    work()
    crash("", "")
    env.on_call = None
    return points


def check_history(
    store: Store, marks: dict[int, Mark], batches: list[tuple[int, int, bytes]]
) -> None:
    """What is there is a part of the history, without a gap, up to the store's last batch."""
    oldest, last = store.history.oldest, store.last
    assert store.history.newest() == marks[last]
    assert list(batches_of(read_all(store, oldest))) == batches[oldest:last]
    for sequence in {oldest, (oldest + last) // 2, last}:
        assert store.history.mark(sequence) == marks[sequence]


@pytest.mark.parametrize("engine", VARIANTS)
@pytest.mark.parametrize("kept_bytes", [0, 3000, KEEP])
def test_kept_logs_are_one_history_whatever_a_crash_leaves(kept_bytes: int, engine: str) -> None:
    """Switches, retention, reopenings, raised epochs; recovery is hit as well."""
    env = MemoryEnv(seed=SEED)
    options = {"replica_log_bytes": kept_bytes, "replica_log_age_s": 1000}
    batches: list[tuple[int, int, bytes]] = []
    acknowledged = epoch = 0
    store = open_store(env, engine, **options)
    mirror = open_store(MemoryEnv(), replica_log_bytes=KEEP)  # has all of it, for comparison

    def step(number: int) -> None:
        nonlocal store, acknowledged, epoch, batches
        mirror.wait(mirror.append_put(0, b"k%d" % (number % 7), b"%d" % number * 40))
        batches = list(batches_of(read_all(mirror, 0)))
        put(store, b"k%d" % (number % 7), value=b"%d" % number * 40)
        acknowledged = store.last
        if number % 4 == 3:
            store.checkpoint()
        if number % 7 == 5:
            mirror.raise_epoch(mirror.epoch + 2)
            store.raise_epoch(store.epoch + 2)
            epoch = store.epoch
        if number % 9 == 8:
            env.advance(400_000)
            store.close()
            store = open_store(env, engine, **options)

    nested = random.Random(SEED + 1)

    def check(disk: MemoryEnv, survival: float) -> None:
        if nested.random() < 0.03:
            disk.on_call = lambda operation, path: look(disk.crash_clone(survival, 7))
        look(disk)
        disk.on_call = None

    def look(disk: MemoryEnv) -> None:
        again = open_store(disk, engine, **options)
        assert acknowledged <= again.last <= len(batches)
        assert again.epoch >= epoch, "an epoch that was raised stays so"
        check_history(again, marks_of(batches), batches)
        report = DB(again).verify()
        assert report.ok, report.problems
        again.close()

    def work() -> None:
        for number in range(30):
            step(number)

    points = crash_at_every_call(env, work, check, 0.3 if engine == "memory" else 0.1)
    assert points > 60
    if kept_bytes == KEEP:
        assert store.history.oldest < store.last
    store.close()


@pytest.mark.parametrize("durability", ["sync", "none"])
def test_an_epoch_is_raised_or_not_and_then_for_good(durability: str) -> None:
    env = MemoryEnv(seed=SEED)
    store = open_store(env, durability=durability)
    put(store, b"a", b"b")
    raised = 1

    def work() -> None:
        nonlocal raised
        for epoch in (2, 5, 6):
            store.raise_epoch(epoch)
            raised = epoch
            put(store, b"c")
            store.checkpoint()

    def check(disk: MemoryEnv, survival: float) -> None:
        again = open_store(disk, durability=durability)
        assert raised <= again.epoch <= {1: 2, 2: 5, 5: 6, 6: 6}[raised]
        reigns = [frame.epoch for frame in read_all(again, again.history.oldest)]
        assert reigns == sorted(reigns)
        assert max(reigns, default=0) <= again.epoch
        again.close()

    assert crash_at_every_call(env, work, check) > 60


@pytest.mark.parametrize("engine", VARIANTS)
def test_a_replica_is_a_prefix_of_its_primary_wherever_it_is_cut_off(engine: str) -> None:
    primary = open_store(MemoryEnv(seed=1), replica_log_bytes=KEEP)
    rng = random.Random(SEED)
    states = {0: state_of(primary)}
    for number in range(60):
        primary.append_put(0, b"k%d" % rng.randrange(9), rng.randbytes(rng.choice((3, 90))))
        states[primary.last] = state_of(primary)
        if rng.random() < 0.7:
            primary.wait(primary.last)
        if number == 30:
            primary.raise_epoch(3)
    primary.wait(primary.last)
    batches = list(batches_of(read_all(primary, 0)))
    env = MemoryEnv(seed=SEED)
    replica = open_store(env, engine, replica_log_bytes=KEEP)
    replica.follow()
    acknowledged = 0

    def work() -> None:
        nonlocal acknowledged
        with closing(primary.history.tail(0)) as tail:
            while frames := tail.read(300):
                for frame in frames:
                    replica.append_frame(frame)
                replica.wait(replica.last)
                acknowledged = replica.last
                if rng.random() < 0.1:
                    replica.checkpoint()

    def check(disk: MemoryEnv, survival: float) -> None:
        again = open_store(disk, engine, replica_log_bytes=KEEP)
        assert acknowledged <= again.last <= len(batches)
        assert state_of(again) == states[again.last]
        check_history(again, marks_of(batches), batches)
        # It goes on from there, maybe from within a frame.
        again.follow()
        for frame in read_all(primary, again.last):
            again.append_frame(frame)
        again.wait(again.last)
        assert again.history.newest() == primary.history.newest()
        again.close()

    assert crash_at_every_call(env, work, check) > 60
    assert state_of(replica) == state_of(primary)


@pytest.mark.parametrize("engine", VARIANTS)
@pytest.mark.parametrize("fresh", [True, False])
def test_an_installation_leaves_the_old_state_or_the_new_at_every_call(
    fresh: bool, engine: str
) -> None:
    source = open_store(MemoryEnv(seed=3), directory="/data/source")
    for number in range(150):
        put(source, b"new %d" % number, value=b"x" * (number % 130))
    source.raise_epoch(4)
    put(source, b"last")
    origin, slices = rows_of(source)
    slices = [rows[at : at + 40] for rows in slices for at in range(0, len(rows), 40)]
    env = MemoryEnv(seed=SEED)
    store = open_store(env, engine, replica_log_bytes=KEEP)
    if not fresh:
        copy_all(store, source)
        put(store, *(b"old %d" % number for number in range(200)))
        store.checkpoint()
        put(store, b"old")
    old, new = state_of(store), state_of(source)
    old_newest, new_newest = store.history.newest(), source.history.newest()
    old_id, is_done = store.store_id, False
    seen: set[bool] = set()

    def work() -> None:
        nonlocal is_done
        installation = store.install(origin, source.epoch)
        for rows in slices:
            installation.add(rows)
        installation.finish()
        is_done = True
        env.run_background()

    def check(disk: MemoryEnv, survival: float) -> None:
        again = open_store(disk, engine, replica_log_bytes=KEEP)
        is_new = again.last == origin.sequence
        seen.add(is_new)
        assert is_new or not is_done
        assert state_of(again) == (new if is_new else old)
        assert again.history.newest() == (new_newest if is_new else old_newest)
        assert again.store_id == (origin.store_id if is_new else old_id)
        assert again.history.oldest == (origin.sequence if is_new else again.history.oldest)
        if is_new:
            assert again.epoch == 4
        report = DB(again).verify()
        assert report.ok and not report.orphans, report
        put(again, b"on")
        again.checkpoint()
        again.close()
        again = open_store(disk, engine, replica_log_bytes=KEEP)
        assert again.history.newest().sequence == (origin if is_new else old_newest).sequence + 1
        again.close()

    assert crash_at_every_call(env, work, check) > 45
    assert seen == {True, False}
    assert state_of(store) == new
    assert env.list_dir(DIRECTORY)[-1] == "version"
    store.close()


def copy_all(store: Store, source: Store) -> None:
    """A full copy, so that it is of the source's store and the next one replaces something."""
    origin, slices = rows_of(source)
    installation = store.install(origin)
    for rows in slices:
        installation.add(rows)
    installation.finish()


@pytest.mark.parametrize("engine", VARIANTS)
def test_setting_aside_leaves_the_file_whole_or_the_log_that_it_is_made_of(engine: str) -> None:
    env = MemoryEnv(seed=SEED)
    store = open_store(env, engine)
    put(store, *(b"k%d" % number for number in range(20)))
    state = state_of(store)

    def work() -> None:
        assert store.set_aside(5) is not None

    def check(disk: MemoryEnv, survival: float) -> None:
        again = open_store(disk, engine)
        assert state_of(again) == state
        assert again.set_aside(5) is not None, "and once more"
        assert DB(again).verify().ok
        again.close()

    assert crash_at_every_call(env, work, check) > 15
