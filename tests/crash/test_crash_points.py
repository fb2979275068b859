"""Power fails at every call that changes the disk: P1 and P2 hold, also when recovery is hit."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest

import marram
from marram.env.memory import MemoryEnv
from tests.crash.history import (
    DIRECTORY,
    VARIANTS,
    History,
    check_recovered,
    options_of,
    state_of,
)

SURVIVALS = (0.0, 0.5, 1.0)
POINTS_WANTED = int(os.environ.get("MARRAM_CRASH_POINTS", "12000"))
"""Per seed and process; the suite runs several seeds. An engine with more files gets fewer."""

SHARE = {"memory": 1, "lsm": 5, "lsm-blobs": 8}

SEED = int(os.environ.get("MARRAM_CRASH_SEED", "0"))


class CrashRun:
    """Crash clones at every durable call of a history, each recovered and checked."""

    def __init__(self, seed: int, **options: Any) -> None:
        self.env = MemoryEnv(seed=seed, block_size=random.Random(seed).choice((512, 4096)))
        self.history = History(self.env, seed, **options)
        self.random = random.Random(seed + 1)
        self.points = 0
        self.nested = 0

    def run(self, points_wanted: int) -> None:
        self.env.on_call = self._on_call
        self.history.open()
        while self.points < points_wanted:
            self.history.step()
        self.env.on_call = None

    def _on_call(self, operation: str, path: str) -> None:
        self.crash(self.env, depth=1)
        self.history.interleave()

    def crash(self, env: MemoryEnv, depth: int) -> None:
        """Take the power away right now, at each survival, and look at what is left."""
        history = self.history
        # What is promised now. A sync of which the caller has not heard yet may count or not.
        floor = history.synced
        ceiling = len(history.states) - 1
        for survival in SURVIVALS:
            self.points += 1
            disk = env.crash_clone(survival, self.random.getrandbits(32))
            # A disk that kept everything lost nothing that was acknowledged, synced or not.
            least = history.acknowledged if survival == 1.0 and depth == 1 else floor
            if depth < 3 and self.random.random() < 0.05:
                # Recovery itself is hit, and the recovery of that.
                disk.on_call = lambda operation, path, d=disk: self.crash(d, depth + 1)
                self.nested += 1
                with marram.open(DIRECTORY, env=disk, **history.options) as db:
                    assert state_of(db) == history.states[db.position.sequence]
            else:
                check_recovered(history, disk, least, ceiling)


@pytest.mark.parametrize("engine", VARIANTS)
@pytest.mark.parametrize("seed", [SEED, SEED + 1, SEED + 2])
def test_p1_p2_at_every_durable_call(seed: int, engine: str) -> None:
    started = time.monotonic()
    wanted = POINTS_WANTED // SHARE[engine]
    run = CrashRun(seed, **options_of(engine, durability="sync"))

    run.run(wanted)

    assert run.points >= wanted
    assert run.nested > min(20, wanted // 400)
    print(f"{run.points} crash points, {run.nested} nested, {time.monotonic() - started:.0f} s")


@pytest.mark.parametrize("engine", VARIANTS)
@pytest.mark.parametrize("durability", ["interval", "none"])
def test_p2_holds_without_sync_and_sigkill_loses_nothing(durability: str, engine: str) -> None:
    wanted = POINTS_WANTED // 3 // SHARE[engine]
    run = CrashRun(SEED + 10, **options_of(engine, durability=durability, interval_ms=10**9))

    run.run(wanted)

    assert run.points >= wanted


@pytest.mark.parametrize("engine", VARIANTS)
def test_a_store_is_made_whole_or_not_at_all(engine: str) -> None:
    options = options_of(engine)
    env = MemoryEnv(seed=SEED)
    clones: list[MemoryEnv] = []
    env.on_call = lambda operation, path: clones.extend(
        env.crash_clone(survival, seed) for survival in SURVIVALS for seed in range(8)
    )
    marram.open(DIRECTORY, env=env, **options).close()

    assert len(clones) > 200
    for disk in clones:
        with marram.open(DIRECTORY, env=disk, **options) as db:
            assert len(db) == 0
            db.put(b"a", b"b")
        with marram.open(DIRECTORY, env=disk, create=False, **options) as db:
            assert db.get(b"a") == b"b"


def test_p1_at_every_call_while_values_are_collected_from_blobs() -> None:
    """A compaction that moves values, and removes the blobs they were in."""
    env = MemoryEnv(seed=SEED)
    options = options_of("lsm-blobs", durability="sync")
    rng = random.Random(SEED)
    db = marram.open(DIRECTORY, env=env, **options)
    for _ in range(3):
        db.put_many({b"%02d" % n: rng.randbytes(200) for n in range(12) if rng.random() < 0.7})
        db.checkpoint()
    before, state = db.stats()["lsm"]["blobs"], state_of(db)
    old = {name for name in env.list_dir(f"{DIRECTORY}/tables") if name.endswith(".blob")}
    points = 0

    def crash(operation: str, path: str) -> None:
        nonlocal points
        for survival in SURVIVALS:
            points += 1
            disk = env.crash_clone(survival, rng.getrandbits(32))
            with marram.open(DIRECTORY, env=disk, **options) as again:
                assert state_of(again) == state
                report = again.verify()
                assert report.ok, report.problems
                assert not report.orphans

    env.on_call = crash
    db.compact()
    env.run_background()
    env.on_call = None
    after = db.stats()["lsm"]["blobs"]
    new = {name for name in env.list_dir(f"{DIRECTORY}/tables") if name.endswith(".blob")}
    assert new - old, "no value was moved"
    assert old - new, "no blob was removed"
    assert points > 50
    assert before["garbage_ratio"] == 0, "rows in three tables hide each other, and are counted"
    assert before["bytes"] > after["bytes"]
    assert state_of(db) == state
    db.close()
