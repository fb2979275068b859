"""storage/lsm/picker.py: histories of flushes and jobs against what was written.

What is picked when, with all its reasons, is in scenarios/*.txt.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import NamedTuple

import pytest

from marram.errors import InvalidArgument
from marram.storage.lsm.picker import (
    DROP,
    Job,
    LevelOptions,
    Pressure,
    pick,
    pick_in_range,
    pressure,
)
from marram.storage.lsm.version import TableMeta, Version, VersionEdit
from marram.storage.sstable.ranges import RangeDeletion
from tests.storage.lsm.model import Model, Row, stored

SEED = int(os.environ.get("MARRAM_FUZZ_SEED", "0"))
HISTORIES = int(os.environ.get("MARRAM_EXAMPLES", "30"))

KEYS = 40
SMALL = LevelOptions(
    level0_trigger=2,
    level0_soft=4,
    level0_stop=6,
    base_bytes=60,
    multiplier=3,
    table_bytes=40,
    grandparent_bytes=160,
    job_bytes=400,
)

STEPS = {
    "fill": 40,
    "start": 40,
    "finish": 30,
    "start in range": 4,
    "wait": 5,
}


def key_of(number: int) -> bytes:
    return b"k%02d" % number


class Running(NamedTuple):
    job: Job
    outputs: list[TableMeta]
    reported: list[Row]


class Machine:
    """A tree that is written to, compacted by several workers, and read."""

    def __init__(self, options: LevelOptions, seed: int) -> None:
        self.options = options
        self.random = random.Random(seed)
        self.model = Model()
        self.running: list[Running] = []
        self.sequence = 0
        self.now_ms = 100
        self.picks: Counter[str] = Counter()

    def step(self) -> None:
        what = self.random.choices(list(STEPS), list(STEPS.values()))[0]
        if what == "fill":
            self.fill()
        elif what == "start":
            self.start(self.picked())
        elif what == "start in range":
            self.start(self.picked_in_range(*self.key_range()))
        elif what == "finish" and self.running:
            self.finish(self.random.randrange(len(self.running)))
        elif what == "wait":
            self.now_ms += self.random.randrange(20)

    def fill(self) -> None:
        """Flush a memtable: of random keys, or of a run of keys; maybe with a range deletion."""
        self.sequence += self.random.randint(1, 5)  # the last batch of those that it holds
        first, run = self.random.randrange(KEYS), self.random.random() < 0.3
        rows: dict[bytes, Row] = {}
        for at in range(self.random.randint(1, 12)):
            key = key_of((first + at) % KEYS if run else self.random.randrange(KEYS))
            lives_ms = self.random.choice([0, 0, 0, 5, 50])
            deadline_ms = self.now_ms + lives_ms if lives_ms else 0
            is_tombstone = self.random.random() < 0.25
            rows[key] = Row(key, self.sequence, 0 if is_tombstone else deadline_ms, is_tombstone)
        deletions = []
        if self.random.random() < 0.15:  # rows of the flush stay visible in its range
            deletions.append(RangeDeletion(0, *self.key_range(), self.sequence))
        self.model.flush(rows.values(), deletions)

    def key_range(self) -> tuple[bytes, bytes]:
        first, last = sorted(self.random.choices(range(KEYS), k=2))
        return key_of(first), key_of(last + 1)

    def picked(self) -> Job | None:
        running = [running.job for running in self.running]
        return pick(
            self.model.version, self.options, running,
            now_ms=self.now_ms, deletions=self.model.deletions(),
        )  # fmt: skip

    def picked_in_range(self, start: bytes, stop: bytes) -> Job | None:
        step = pick_in_range(
            self.model.version, self.options, stored(start), stored(stop),
            [running.job for running in self.running], now_ms=self.now_ms,
        )  # fmt: skip
        assert not (step.done and step.job)
        assert step.done or step.job or self.running, "not done, and nothing in the way"
        return step.job

    def start(self, job: Job | None) -> None:
        if job is None or len(self.running) == 3:
            return
        self.picks[f"{job.kind} {job.reason}"] += 1
        self.check_alone(job)
        self.running.append(Running(job, *self.model.outputs(job, self.now_ms)))

    def check_alone(self, job: Job) -> None:
        """P1, and that the inputs are where the job says."""
        for level, tables in job.inputs:
            for table in tables:
                assert self.model.version.level_of(table.number) == level
        for other, *_ in self.running:
            assert not {t.number for t in job.tables} & {t.number for t in other.tables}
            if job.kind != DROP != other.kind and job.output_level == other.output_level > 0:
                assert job.stop <= other.start or other.stop <= job.start

    def finish(self, at: int) -> None:
        self.model.apply(*self.running.pop(at))

    def check(self) -> None:
        self.model.version._check()
        for number in range(KEYS):
            key = key_of(number)
            assert self.model.get(key, self.now_ms) == self.model.expected(key, self.now_ms), key
            assert self.model.get(key, 0) == self.model.counted(key), key

    def settle(self) -> int:
        """Finish everything that is due; returns how many jobs that took."""
        jobs = 0
        while True:
            while self.running:
                self.finish(0)
                self.check()
            job = self.picked()
            if job is None:
                return jobs
            jobs += 1
            assert jobs < 500, "picking does not end (P3)"
            self.start(job)


@pytest.mark.parametrize("seed", range(SEED, SEED + HISTORIES))
def test_p1_p2_p6_any_history_reads_right_and_keeps_the_invariants(seed: int) -> None:
    machine = Machine(SMALL, seed)
    for _ in range(200):
        machine.step()
        machine.check()


@pytest.mark.parametrize("seed", range(SEED, SEED + HISTORIES))
def test_p3_picking_ends_whatever_the_options(seed: int) -> None:
    chosen = random.Random(seed)
    table_bytes = chosen.randint(1, 100)
    options = LevelOptions(
        level0_trigger=chosen.randint(1, 4),
        level0_soft=4,
        level0_stop=6,
        base_bytes=chosen.randint(1, 300),
        multiplier=chosen.randint(2, 10),
        table_bytes=table_bytes,
        grandparent_bytes=chosen.randint(1, 20) * table_bytes,
        job_bytes=chosen.randint(1, 20) * table_bytes,
        garbage_ratio=chosen.choice([0.1, 0.5, 1.0]),
    )
    machine = Machine(options, seed)
    for _ in range(100):
        machine.step()
    machine.settle()

    machine.now_ms += 1000
    machine.settle()
    while (job := machine.picked_in_range(key_of(0), key_of(KEYS))) is not None:
        machine.start(job)
        machine.finish(0)
        machine.check()
    left = [r for level in machine.model.version.levels for t in level.tables
            for r in machine.model.tables[t.number].rows]  # fmt: skip
    assert len({row.key for row in left}) == len(left)
    assert not any(row.is_tombstone or row.deadline_ms for row in left)
    assert not machine.model.deletions()


def test_the_histories_reach_every_kind_of_job() -> None:
    picks: Counter[str] = Counter()
    for seed in range(10):
        machine = Machine(SMALL, seed)
        for _ in range(200):
            machine.step()
        picks += machine.picks
    assert picks.keys() >= {
        "merge level0", "merge size", "merge garbage", "merge range", "merge level0-width",
        "merge expired", "move level0", "move size", "drop dead",
    }, picks  # fmt: skip


def test_j5_below_covers_all_deeper_tables_in_a_bounded_number_of_ranges() -> None:
    def at(number: int) -> bytes:
        return b"\0%04d" % number

    deeper = [TableMeta(n, 100, at(10 * n), at(10 * n + 5), 10) for n in range(1, 701)]
    upper = TableMeta(1000, 10_000, at(0), at(9000), 10)
    added = [(4, upper), *((6, table) for table in deeper)]
    version = Version().apply(VersionEdit(tuple(added)))
    job = pick(version, SMALL)

    assert job is not None
    assert (job.kind, job.output_level) == ("merge", 5)
    assert 128 <= len(job.below) <= 256
    for table in deeper:
        assert job.may_be_below(table.start)
        assert job.may_be_below(table.start + b"~")
    assert not job.may_be_below(at(7006))
    assert not job.may_be_below(at(0))


@pytest.mark.parametrize(("start", "stop"), [(b"b", b"b"), (b"c", b"b")])
def test_a_range_of_no_keys_is_refused(start: bytes, stop: bytes) -> None:
    with pytest.raises(InvalidArgument, match="no keys"):
        pick_in_range(Version(), SMALL, start, stop)


def test_an_empty_tree_has_nothing_to_do() -> None:
    assert pick(Version(), SMALL) is None
    assert pick_in_range(Version(), SMALL, b"a", None).done
    assert pressure(Version(), SMALL) == Pressure(0, 0, 0.0)
