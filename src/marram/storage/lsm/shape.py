"""The shape a tree should have, how far it is from that, and what that says to writers.

Owns level targets, scores and pressure; not what is done about them (picker.py, and the layer that
admits writes).

S1  the base level, where level 0 is compacted to, is never below a level that holds tables, or is
    about to: newer data would get below older data otherwise (V4).
S2  levels from the base to the last grow by the multiplier, and the last holds all but one part
    in `multiplier` of the data. So space amplification settles near 1 + 1 / (multiplier - 1),
    however much data there is.
S3  a level above where the base should be is emptied.

Threading: pure functions over immutable values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from marram.storage.lsm.job import DROP, Job
from marram.storage.lsm.options import LevelOptions
from marram.storage.lsm.version import LAST_LEVEL, LEVELS, TableMeta, Version

_EMPTYING_SCORE = 10.0
"""The score of a level that should hold nothing: soon, but level 0 may be more urgent yet."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the levels should hold, and how urgent what they hold beyond is.

    base_level: where level 0 is compacted to. target_bytes: by level, 0 for level 0 and for levels
    that should be empty. scores: by level; from 1.0 on a level is due, the last one never is.
    """

    base_level: int
    target_bytes: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Pressure:
    """What writers should know of the tree; policy only, nothing here waits.

    level0_depth: the most tables of level 0 that one key may be in. debt_bytes: about how much
    compactions have to write until nothing is due. throttle: 0.0 where writers go freely, from
    the soft limits on more than that, 1.0 where they should wait until it is less.
    """

    level0_depth: int
    debt_bytes: int
    throttle: float


def shape_of(
    version: Version, options: LevelOptions, running: Sequence[Job] = (), now_ms: int = 0
) -> Shape:
    """The shape `version` should have, and its scores as if the running jobs were done.

    now_ms: the time up to which deadlines have passed for everyone; rows past them add to the
    weight of their level, as do the rows that tombstones hide further down.
    """
    weigh = Weights(version, now_ms)
    held = [level.size_bytes for level in version.levels]
    weight = [weigh.level(n) for n in range(LEVELS)]
    for job in running:
        for level, tables in job.inputs:
            size_bytes = sum(table.size_bytes for table in tables)
            held[level] -= size_bytes
            weight[level] -= sum(weigh.table(level, table) for table in tables)
            if job.kind != DROP:
                held[job.output_level] += size_bytes
                weight[job.output_level] += size_bytes
    occupied = [n for n in range(1, LEVELS) if version.levels[n].tables]
    arriving = [job.output_level for job in running if job.output_level and job.kind != DROP]
    top = min([LAST_LEVEL, *occupied, *arriving])
    base_level, targets = _targets(sum(held[1:]), top, options)
    scores = [_level0_score(version, options, running, weigh)]
    for n in range(1, LAST_LEVEL):
        if targets[n]:
            scores.append(weight[n] / targets[n])
        else:
            scores.append(_EMPTYING_SCORE if held[n] > 0 else 0.0)
    scores.append(0.0)
    return Shape(min(base_level, top), targets, tuple(scores))


def pressure(version: Version, options: LevelOptions, now_ms: int = 0) -> Pressure:
    """What writers should know; see the class. now_ms: as for shape_of."""
    depth = level0_depth(version.levels[0].tables)
    debt_bytes = _debt_bytes(version, shape_of(version, options, (), now_ms))
    throttle = max(
        _between(depth, options.level0_soft, options.level0_stop),
        _between(debt_bytes, options.debt_soft_bytes, options.debt_stop_bytes),
    )
    return Pressure(depth, debt_bytes, throttle)


def level0_depth(tables: Iterable[TableMeta]) -> int:
    """The most of these tables that any one key may be in. O(n log n)."""
    # At one key, tables end before others begin: their ranges are half-open.
    events = sorted(event for table in tables for event in ((table.stop, -1), (table.start, 1)))
    return max(accumulate((step for _, step in events), initial=0))


class Weights:
    """What tables weigh: their bytes, and those that compacting them would give back."""

    __slots__ = ("_now_ms", "_row_bytes", "_version")

    def __init__(self, version: Version, now_ms: int) -> None:
        self._version = version
        self._now_ms = now_ms
        # By level: the mean size of a row on deeper levels, which is what a tombstone may hide.
        self._row_bytes = [0.0] * LEVELS
        size_bytes = rows = 0
        for n in range(LAST_LEVEL, 0, -1):
            size_bytes += version.levels[n].size_bytes
            rows += version.levels[n].rows
            self._row_bytes[n - 1] = size_bytes / rows if rows else 0.0

    def table(self, level: int, table: TableMeta) -> float:
        """What a table of `level` weighs, bytes."""
        hidden_bytes = table.tombstones * self._row_bytes[level] + table.covered_bytes
        return table.size_bytes + hidden_bytes + table.expired_bytes(self._now_ms)

    def level(self, level: int) -> float:
        """What all its tables weigh together, bytes."""
        held = self._version.levels[level]
        expired_bytes = 0
        if held.expirable_rows:
            expired_bytes = sum(table.expired_bytes(self._now_ms) for table in held.tables)
        hidden_bytes = held.tombstones * self._row_bytes[level] + held.covered_bytes
        return held.size_bytes + hidden_bytes + expired_bytes


def _level0_score(
    version: Version, options: LevelOptions, running: Sequence[Job], weigh: Weights
) -> float:
    """Due by depth; by weight or by number, where flushes share no keys; or because most of what
    the tree holds is hidden by tombstones up here."""
    busy = {table.number for job in running for table in job.tables}
    free = [table for table in version.levels[0].tables if table.number not in busy]
    arriving = sum(job.output_level == 0 and job.kind != DROP for job in running)
    size_bytes = sum(table.size_bytes for table in free)
    weight = sum(weigh.table(0, table) for table in free)
    return max(
        (level0_depth(free) + arriving) / options.level0_trigger,
        weight / options.base_bytes,
        (len(free) + arriving) / options.level0_stop,
        (weight - size_bytes) / (options.garbage_ratio * max(1, version.size_bytes)),
    )


def _targets(total_bytes: int, top: int, options: LevelOptions) -> tuple[int, tuple[int, ...]]:
    """The base level by size alone, and what each level should hold (S2, S3).

    total_bytes: of the levels from 1 on. top: the first of them that holds anything.
    """
    last_bytes = total_bytes - total_bytes // options.multiplier
    targets = [last_bytes // options.multiplier ** (LAST_LEVEL - n) for n in range(LEVELS)]
    base_level = LAST_LEVEL
    while base_level > 1 and targets[base_level] > options.base_bytes:
        base_level -= 1
    # Where data shrinks, the top level stays for a while: emptied at once, it would come and go
    # with every few bytes.
    if top < base_level and targets[top] * 2 * options.multiplier > options.base_bytes:
        base_level = top
    return base_level, tuple(
        max(1, target) if n >= base_level else 0 for n, target in enumerate(targets)
    )


def _debt_bytes(version: Version, shape: Shape) -> int:
    """About what compactions have to write until no level is due."""
    levels = version.levels
    debt = arriving = 0
    if shape.scores[0] >= 1.0:
        arriving = levels[0].size_bytes
        debt = arriving + levels[shape.base_level].size_bytes
    for n in range(shape.base_level, LAST_LEVEL):
        held = levels[n].size_bytes + arriving
        arriving = max(0, held - shape.target_bytes[n])
        if arriving:
            # What leaves a level meets as much more of the next one as that one is larger.
            debt += arriving + arriving * levels[n + 1].size_bytes // held
    return debt


def _between(value: int, soft: int, stop: int) -> float:
    """0.0 below soft, more from soft on, 1.0 at stop."""
    return min(1.0, max(0.0, (value - soft + 1) / (stop - soft + 1)))
