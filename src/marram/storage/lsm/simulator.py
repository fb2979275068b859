"""What a policy costs: a tree that flushes, picks and merges without touching a file.

Owns a model of tables whose rows are a key and a sequence number, and what comes of a workload:
write, space and read amplification. Jobs, cuts and edits are the real ones (picker.py, job.py,
version.py); so a policy that loses a row loses it here.

M1  the same workload, seed and options give the same figures, on every machine.
M2  figures depend on how sizes relate, not on the sizes: a sixteenth of the keys with a sixteenth
    of the memtable (and options for that) comes out alike, in a sixteenth of the time.

Not modelled: compression, blocks and filters, the log (one more write of each byte), deadlines and
range deletions. 5 M keys and a million overwrites take half a minute on one core.

Threading: one thread a call; calls share nothing.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf

from marram.errors import InvalidArgument
from marram.storage.lsm.job import MERGE, Job, OutputCuts
from marram.storage.lsm.options import MIB, LevelOptions
from marram.storage.lsm.picker import pick
from marram.storage.lsm.shape import pressure
from marram.storage.lsm.version import TableMeta, Version, VersionEdit, stop_after

_PROBES = 10_000
"""Keys that are looked up for the read amplification."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is written. Raises InvalidArgument: a number out of its range.

    keys: distinct keys, each put once, in "random" or "ascending" order; then overwrites and
        deletes of random keys, as shares of `keys`.
    row_bytes, tombstone_bytes: what a row takes in a table.
    memtable_bytes: a flush is due when that much was put.
    compaction_ratio: how many bytes compactions can write in the time that one byte is put;
        inf where they take no time.
    workers: how many jobs share that.
    """

    keys: int
    overwrites: float = 0.0
    deletes: float = 0.0
    order: str = "random"
    row_bytes: int = 1024
    tombstone_bytes: int = 40
    memtable_bytes: int = 64 * MIB
    compaction_ratio: float = inf
    workers: int = 1
    seed: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.keys <= 2**32:
            raise InvalidArgument(f"keys must be 1 to 2**32, not {self.keys}")
        if self.order not in ("random", "ascending"):
            raise InvalidArgument(f"order must be random or ascending, not {self.order!r}")
        if not 0 <= self.overwrites <= 100 or not 0 <= self.deletes <= 1:
            raise InvalidArgument("overwrites must be 0 to 100, deletes 0 to 1")
        if not 1 <= self.tombstone_bytes <= self.row_bytes <= self.memtable_bytes:
            raise InvalidArgument("a tombstone is at least 1 byte, a row one, a memtable one row")
        if not self.compaction_ratio > 0 or self.workers < 1:
            raise InvalidArgument("compactions need a compaction_ratio above 0 and a worker")


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of a workload, after the last job that was due.

    user_bytes: put and deleted. flushed_bytes, compacted_bytes: written to tables.
    live_bytes: what the rows still there take. table_bytes: what all tables take; peak_bytes: the
    most they took. levels: (tables, bytes) by level. jobs: how many, by (kind, reason).
    probes: tables whose range holds the key, up to the one that has it, for a mean key and for
    the worst. level0_depth: the worst. stopped: flushes that had to wait for compactions.
    lost: keys whose newest row is not the first one that a read finds; 0 unless there is a bug.
    """

    user_bytes: int
    flushed_bytes: int
    compacted_bytes: int
    live_bytes: int
    table_bytes: int
    peak_bytes: int
    levels: tuple[tuple[int, int], ...]
    jobs: Mapping[tuple[str, str], int]
    probes_mean: float
    probes_worst: int
    level0_depth: int
    stopped: int
    lost: int

    @property
    def write_amplification(self) -> float:
        """Bytes written to tables for each byte put."""
        return (self.flushed_bytes + self.compacted_bytes) / self.user_bytes

    @property
    def space_amplification(self) -> float:
        """Bytes in tables for each live byte."""
        return self.table_bytes / self.live_bytes if self.live_bytes else inf


def simulate(workload: Workload, options: LevelOptions | None = None) -> Figures:
    """Run a workload, then all compactions that are due, and say what it cost.

    options: the policy; by default the one for the workload's memtable.
    """
    tree = _Tree(workload, options or LevelOptions.for_memtable(workload.memtable_bytes))
    for memtable, user_bytes in _memtables(workload):
        tree.flush(memtable, user_bytes)
    tree.compact(inf)
    return tree.figures()


# Rows of a memtable or a table: key -> mark. A mark is twice the row's sequence number, and one
# more for a tombstone; so marks compare like sequence numbers.


def _memtables(workload: Workload) -> Iterator[tuple[dict[int, int], int]]:
    """What is flushed, one memtable after the other, and how much was written to each, bytes."""
    memtable: dict[int, int] = {}
    size_bytes = 0
    for sequence, (key, is_delete) in enumerate(_writes(workload), 1):
        memtable[key] = 2 * sequence + is_delete
        size_bytes += workload.tombstone_bytes if is_delete else workload.row_bytes
        if size_bytes >= workload.memtable_bytes:
            yield memtable, size_bytes
            memtable, size_bytes = {}, 0
    if memtable:
        yield memtable, size_bytes


def _writes(workload: Workload) -> Iterator[tuple[int, bool]]:
    """Keys, and whether they are deleted."""
    keys = workload.keys
    order: Iterable[int] = range(keys)
    if workload.order == "random":
        order = _shuffled(keys, workload.seed)
    for key in order:
        yield key, False
    for number in _random_numbers(int(keys * workload.overwrites), workload.seed + 1):
        yield number % keys, False
    for key in _shuffled(keys, workload.seed + 2)[: int(keys * workload.deletes)]:
        yield key, True


def _random_numbers(count: int, seed: int) -> array[int]:
    """64-bit numbers that look random, the same ones for a seed everywhere (M1)."""
    numbers = array("Q", hashlib.shake_256(b"marram %d" % seed).digest(8 * count))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _shuffled(count: int, seed: int) -> list[int]:
    return sorted(range(count), key=_random_numbers(count, seed).__getitem__)


def _stored(key: int) -> bytes:
    return b"\0" + key.to_bytes(8, "big")


@dataclass(slots=True)
class _Table:
    keys: array[int]
    marks: array[int]

    def mark_of(self, key: int) -> int | None:
        at = bisect_left(self.keys, key)
        return self.marks[at] if at < len(self.keys) and self.keys[at] == key else None


@dataclass(slots=True)
class _Running:
    job: Job
    outputs: list[TableMeta]
    left_bytes: float


@dataclass(slots=True)
class _Tree:
    """The tables, the jobs that run, and the tally."""

    workload: Workload
    options: LevelOptions
    version: Version = field(default_factory=Version)
    tables: dict[int, _Table] = field(default_factory=dict)
    running: list[_Running] = field(default_factory=list)
    newest: dict[int, int] = field(default_factory=dict)
    jobs: Counter[tuple[str, str]] = field(default_factory=Counter)
    next_number: int = 1
    user_bytes: int = 0
    flushed_bytes: int = 0
    compacted_bytes: int = 0
    peak_bytes: int = 0
    level0_depth: int = 0
    stopped: int = 0

    def flush(self, memtable: dict[int, int], user_bytes: int) -> None:
        """Write a memtable to level 0, and let compactions run for as long as that took."""
        waits = False
        while self._depth() >= self.options.level0_stop and self._advance(inf) is not None:
            waits = True
        self.stopped += waits
        self.newest.update(memtable)
        keys = sorted(memtable)
        meta = self._table(array("Q", keys), array("Q", map(memtable.__getitem__, keys)))
        self.user_bytes += user_bytes
        self.flushed_bytes += meta.size_bytes
        self._apply(VersionEdit(added=((0, meta),)))
        self.level0_depth = max(self.level0_depth, self._depth())
        self.compact(self.workload.compaction_ratio * user_bytes)

    def compact(self, budget_bytes: float) -> None:
        """Run jobs until none is due or they have written budget_bytes."""
        while budget_bytes > 0:
            spent_bytes = self._advance(budget_bytes)
            if spent_bytes is None:
                return
            budget_bytes -= spent_bytes

    def figures(self) -> Figures:
        """The tally."""
        probes = self._probes()
        live_bytes = sum(self._row_bytes(mark) for mark in self.newest.values() if not mark & 1)
        return Figures(
            self.user_bytes,
            self.flushed_bytes,
            self.compacted_bytes,
            live_bytes,
            self.version.size_bytes,
            self.peak_bytes,
            tuple((len(level), level.size_bytes) for level in self.version.levels),
            dict(self.jobs),
            sum(probes) / len(probes),
            max(probes),
            self.level0_depth,
            self.stopped,
            self._lost(),
        )

    # -- jobs -------------------------------------------------------------------------------------

    def _advance(self, budget_bytes: float) -> float | None:
        """Let the running jobs write up to budget_bytes together, at most until one is done.

        Returns what they wrote, None where nothing is to be done.
        """
        while len(self.running) < self.workload.workers:
            job = pick(self.version, self.options, [running.job for running in self.running])
            if job is None:
                break
            outputs = self._merged(job) if job.kind == MERGE else []
            written_bytes = sum(table.size_bytes for table in outputs)
            self.compacted_bytes += written_bytes
            self.jobs[job.kind, job.reason] += 1
            self.running.append(_Running(job, outputs, written_bytes))
        if not self.running:
            return None
        first = min(self.running, key=lambda running: running.left_bytes)
        share = min(first.left_bytes, budget_bytes / len(self.running))
        for running in self.running:
            running.left_bytes -= share
        if first.left_bytes <= 0:
            self.running.remove(first)
            self._apply(first.job.edit(first.outputs))
            for table in first.job.tables:
                if self.version.level_of(table.number) is None:
                    del self.tables[table.number]
        return share * (len(self.running) + (first.left_bytes <= 0))

    def _merged(self, job: Job) -> list[TableMeta]:
        """The outputs of a merge, cut as the job says."""
        rows: dict[int, int] = {}
        for meta in reversed(job.tables):
            table = self.tables[meta.number]
            rows.update(zip(table.keys, table.marks, strict=True))
        keys = sorted(rows)
        if any(meta.tombstones for meta in job.tables):
            keys = [key for key in keys if not rows[key] & 1 or job.may_be_below(_stored(key))]
        marks = [rows[key] for key in keys]
        before = list(accumulate(map(self._row_bytes, marks), initial=0))
        outputs = []
        cuts = OutputCuts(job)
        start = at = 0
        while at < len(keys):
            if cuts.cut_before(_stored(keys[at]), before[at] - before[start]):
                outputs.append(self._table(array("Q", keys[start:at]), array("Q", marks[start:at])))
                start = at
            # The next row that could end the output: all between need not be asked for.
            next_at = bisect_left(before, before[start] + cuts.small_bytes)
            if cuts.next_key is not None:
                boundary = int.from_bytes(cuts.next_key[1:], "big")
                next_at = min(next_at, bisect_left(keys, boundary))
            at = max(at + 1, next_at)
        if start < len(keys):
            outputs.append(self._table(array("Q", keys[start:]), array("Q", marks[start:])))
        return outputs

    def _table(self, keys: array[int], marks: array[int]) -> TableMeta:
        """A new table, not yet part of the version."""
        number = self.next_number
        self.next_number += 1
        self.tables[number] = _Table(keys, marks)
        return TableMeta(
            number=number,
            size_bytes=sum(map(self._row_bytes, marks)),
            start=_stored(keys[0]),
            stop=stop_after(_stored(keys[-1])),
            rows=len(keys),
            tombstones=sum(mark & 1 for mark in marks),
            min_sequence=min(marks) >> 1,
            max_sequence=max(marks) >> 1,
        )

    def _apply(self, edit: VersionEdit) -> None:
        self.version = self.version.apply(edit)
        self.peak_bytes = max(self.peak_bytes, self.version.size_bytes)

    # -- the tally --------------------------------------------------------------------------------

    def _row_bytes(self, mark: int) -> int:
        return self.workload.tombstone_bytes if mark & 1 else self.workload.row_bytes

    def _depth(self) -> int:
        return pressure(self.version, self.options).level0_depth

    def _probes(self) -> list[int]:
        """How many tables a read looks into, for keys spread over all."""
        keys = sorted(self.newest)
        probes = []
        for key in keys[:: -(-len(keys) // _PROBES)]:
            count = 0
            for meta in self.version.holding(_stored(key)):
                count += 1
                if self.tables[meta.number].mark_of(key) is not None:
                    break
            probes.append(count)
        return probes

    def _lost(self) -> int:
        """Keys whose first row in read order is not their newest, or is gone (V4)."""
        found: dict[int, int] = {}
        for level in reversed(self.version.levels):
            for meta in reversed(level.tables):
                table = self.tables[meta.number]
                found.update(zip(table.keys, table.marks, strict=True))
        # A tombstone may be there or not: without one the key has to be missing.
        return sum(
            found.get(key, mark if mark & 1 else None) != mark for key, mark in self.newest.items()
        )
