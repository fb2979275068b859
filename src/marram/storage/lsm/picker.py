"""What a leveled tree should do next: a version in, a job out.

Owns the choice; not the tree's shape (shape.py), not what a job is (job.py), and neither running
jobs nor deciding how many may run.

P1  a job takes no table of a running job, and outputs nothing where a running job outputs.
P2  a job keeps J1 to J5, so that reads go on finding the newest row first.
P3  without new data, picking and applying ends: every job moves data down, or makes level 0
    shallower, or takes away rows; none of that can go on for ever. A merge may leave expired rows
    (GONE_LIMIT), never all: if, that is, it judges deadlines by no earlier time than the one it
    was picked at.
P4  what is no work comes first: dead tables, then those it is enough to read, then moves instead
    of merges.
P5  while level 0 is due and waits for jobs on the base level, the base level starts no others.
P6  a table is dropped unread only where its rows are tombstones or hidden: a row that merely
    expired is still counted as a key, until a merge reports it.

The order of choice: tables that are dead, or hidden whole; tables that have expired; the levels
that are due, by how much; tables that are mostly garbage; blobs that are.

P7  values are moved out of blobs that are mostly garbage, all of these at once wherever a table
    points into one: so all tables are passed once for many blobs. It begins when what it gives back
    is worth passing them, and ends (P3): a new blob has no garbage.

Threading: pure functions over immutable values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from marram.errors import InvalidArgument
from marram.storage.lsm.coverage import stored_stop
from marram.storage.lsm.job import (
    DROP,
    GONE_LIMIT,
    MERGE,
    MOVE,
    Boundary,
    Job,
    OutputCuts,
    Reason,
)
from marram.storage.lsm.options import LevelOptions
from marram.storage.lsm.shape import Pressure, Weights, level0_depth, pressure, shape_of
from marram.storage.lsm.version import LAST_LEVEL, BlobRef, TableMeta, Version
from marram.storage.sstable.block import stored_key
from marram.storage.sstable.ranges import RangeDeletion

__all__ = [
    "DROP",
    "MERGE",
    "MOVE",
    "Boundary",
    "Job",
    "LevelOptions",
    "OutputCuts",
    "Pressure",
    "RangeStep",
    "pick",
    "pick_in_range",
    "pressure",
]

_BELOW_MAX = 256
"""Key ranges in Job.below at most; where there are more, neighbours become one."""

_WIDTH_MIN = 3
"""Tables of level 0 that are merged into one at least, while the base level is busy."""


_PASS_GAIN = 4
"""How many times the tables with pointers the garbage in blobs should be, to pass them for it."""

_BLOB_GARBAGE = 0.1
"""What share of all blobs it is at most before they are passed anyway."""

_RANGE_BLOB_GARBAGE = 0.1
"""What share of a blob may be left garbage by the compaction of a range."""


def pick(
    version: Version,
    options: LevelOptions,
    running: Sequence[Job] = (),
    *,
    now_ms: int = 0,
    deletions: Iterable[RangeDeletion] = (),
) -> Job | None:
    """The job to start next; None where there is none, or the running ones leave no room for it.

    running: the jobs that were picked and whose edits are not applied to `version` yet.
    now_ms: the time up to which deadlines have passed for every reader; whoever runs the job must
        not judge them by an earlier one (P3).
    deletions: the range deletions of the version's tables, or some of them.
    """
    choice = _Choice(version, options, running, now_ms)
    return (
        choice.dead()
        or choice.covered(deletions)
        or choice.expired()
        or choice.due()
        or choice.garbage()
        or choice.blobs()
    )


@dataclass(frozen=True, slots=True)
class RangeStep:
    """Where the compaction of a range stands.

    job: what to do next. done: there is nothing left to do. Where it is neither, running jobs are
    in the way: ask again when one of them has ended.
    """

    job: Job | None
    done: bool


def pick_in_range(
    version: Version,
    options: LevelOptions,
    start: bytes,
    stop: bytes | None,
    running: Sequence[Job] = (),
    *,
    now_ms: int = 0,
    upto_sequence: int | None = None,
    blobs_below: int | None = None,
) -> RangeStep:
    """The next step to have all rows of [start, stop) as deep as they go, without garbage.

    start, stop: stored keys; stop None for no bound. upto_sequence: rows that are newer need not
    take part, so that it ends while writes go on; nor is garbage taken out of blobs whose number is
    not below blobs_below. The others: as for pick(). Raises
    InvalidArgument: an empty range.
    """
    if stop is not None and start >= stop:
        raise InvalidArgument(f"no keys from {start[:32]!r} to {stop[:32]!r}")
    choice = _Choice(version, options, running, now_ms)
    return choice.in_range(start, stop, upto_sequence, blobs_below)


class _Choice:
    """One choice, with what it looks at again and again."""

    def __init__(
        self,
        version: Version,
        options: LevelOptions,
        running: Sequence[Job],
        now_ms: int,
    ) -> None:
        self._version = version
        self._options = options
        self._running = running
        self._now_ms = now_ms
        self._busy = {table.number for job in running for table in job.tables}
        self._shape = shape_of(version, options, running, now_ms)
        self._weigh = Weights(version, now_ms)

    # -- in the order of choice -------------------------------------------------------------------

    def dead(self) -> Job | None:
        """Drop the tables of one level that have nothing but tombstones, and hide nothing."""
        for n, level in enumerate(self._version.levels):
            if not (level.tombstones or level.range_deletions):
                continue
            dead = tuple(
                table
                for table in level.tables
                if table.is_dead() and self._is_free(table) and self._hides_nothing(n, table)
            )
            if dead:
                return Job(DROP, "dead", ((n, dead),), n)
        return None

    def covered(self, deletions: Iterable[RangeDeletion]) -> Job | None:
        """Drop the tables of one level that a newer range deletion hides whole."""
        hidden: dict[int, dict[int, TableMeta]] = {}
        for deletion in deletions:
            start = stored_key(deletion.keyspace, deletion.start)
            stop = stored_stop(deletion)
            for n, level in enumerate(self._version.levels):
                for table in level.overlapping(start, stop):
                    is_inside = start <= table.start and (stop is None or table.stop <= stop)
                    if is_inside and table.max_sequence < deletion.sequence:
                        hidden.setdefault(n, {})[table.number] = table
        for n in sorted(hidden):
            tables = tuple(filter(self._is_free, hidden[n].values()))
            if tables:
                return Job(DROP, "dead", ((n, tables),), n)
        return None

    def expired(self) -> Job | None:
        """Read the tables of one level whose every row is deleted or expired and hides nothing."""
        for n, level in enumerate(self._version.levels):
            if not level.expirable_rows:
                continue
            for at, table in enumerate(level.tables):
                job = self._expired_from(n, at) if self._is_expired(n, table) else None
                if job is not None:
                    return job
        return None

    def _expired_from(self, n: int, at: int) -> Job | None:
        """A job for the expired tables from index `at` on, as far as one report holds their keys.

        Only neighbours with nothing below their gaps: what is left of them must not reach over
        tables that stay. In level 0 that asks for no others at all (V3).
        """
        level = self._version.levels[n]
        job = self._merge(((n, level.tables[at : at + 1]),), n, "expired")
        rows = level.tables[at].expirable_rows
        for end in range(at + 1, len(level) if n and job else 0):
            added = level.tables[end]
            rows += added.expirable_rows
            if (
                not self._is_expired(n, added)
                or self._version.overlaps_below(n, level.tables[at].start, added.stop)
                or level.bytes_between(at, end + 1) > self._options.job_bytes
                or rows > GONE_LIMIT
            ):
                break
            wider = self._merge(((n, level.tables[at : end + 1]),), n, "expired")
            if wider is None:
                break
            job = wider
        return job

    def due(self) -> Job | None:
        """Compact the level that is furthest past what it should hold, and can be."""
        scores = self._shape.scores
        # A level is less urgent where the next one is past its target too: what goes down there
        # would be rewritten together with what has to leave it.
        urgency = {
            n: scores[n] / (max(1.0, scores[n + 1]) if n else 1.0)
            for n in range(LAST_LEVEL)
            if scores[n] >= 1.0
        }
        reserved = 0
        for n in sorted(urgency, key=lambda n: (-urgency[n], n)):
            if n and n == reserved:
                continue  # P5
            job = self._from_level(n) if n else self._from_level0()
            if job is not None:
                return job
            if n == 0:
                reserved = self._shape.base_level
        return None

    def garbage(self) -> Job | None:
        """Rewrite the table that holds the most garbage, of those that are mostly that."""
        if self._shape.scores[0] >= 1.0:
            return None  # level 0 is waiting for a place (P5)
        candidates = []
        for n, level in enumerate(self._version.levels[1:], 1):
            if not (level.tombstones or level.expirable_rows or level.range_deletions):
                continue
            for at, table in enumerate(level.tables):
                share = self._garbage_share(table)
                if share >= self._options.garbage_ratio and self._pays(n, table, share):
                    candidates.append((-share * table.size_bytes, n, at))
        for _, n, at in sorted(candidates):
            job = self._cleaned(n, at, at + 1, "garbage")
            if job is not None:
                return job
        return None

    def blobs(self) -> Job | None:
        """Move values out of blobs that are mostly garbage (P7)."""
        if not self._version.blobs or self._shape.scores[0] >= 1.0:
            return None  # level 0 is waiting for a place (P5)
        victims = self._mostly_garbage(self._options.blob_garbage_ratio)
        gain = sum(ref.garbage_bytes for ref in victims)
        if not victims or gain < self._worth_bytes():
            return None
        return self._collecting(victims, b"", None)

    def in_range(
        self, start: bytes, stop: bytes | None, upto: int | None, blobs_below: int | None
    ) -> RangeStep:
        """See pick_in_range()."""
        for n, level in enumerate(self._version.levels):
            wanted = [
                table
                for table in level.overlapping(start, stop)
                if (upto is None or table.min_sequence <= upto) and self._can_improve(n, table)
            ]
            for table in wanted:
                job = self._level0_with(table, "range") if n == 0 else self._wide(n, table, wanted)
                if job is not None:
                    return RangeStep(job, False)
            if wanted:
                # What is here has to come down before merging what is below is worth it.
                return RangeStep(None, False)
        victims = [
            ref
            for ref in self._mostly_garbage(_RANGE_BLOB_GARBAGE)
            if blobs_below is None or ref.number < blobs_below
        ]
        job = self._collecting(victims, start, stop)
        if job is None and self._points_into(victims, start, stop):
            return RangeStep(None, False)
        return RangeStep(job, job is None)

    # -- from level 0 -----------------------------------------------------------------------------

    def _from_level0(self) -> Job | None:
        for table in reversed(self._version.levels[0].tables):
            job = self._level0_with(table, "level0") if self._is_free(table) else None
            if job is not None:
                return job
        return self._narrowed()

    def _level0_with(self, seed: TableMeta, reason: Reason) -> Job | None:
        """Compact a table of level 0 to the base level, with all that should come along."""
        level, base = self._version.levels[0], self._version.levels[self._shape.base_level]
        chosen = self._with_older(seed)
        if chosen is None:
            return None
        grows = True
        while grows:
            grows = False
            start, stop = _hull(chosen)
            met = base.span(start, stop)
            for table in reversed(level.tables):
                if table in chosen:
                    continue
                more = self._with_older(table)
                if more is None:
                    continue
                union = chosen + [t for t in more if t not in chosen]
                size_bytes = sum(t.size_bytes for t in union)
                # Sharing the base level's tables is what makes level 0 cheap to compact; and
                # what fits into one output, and meets no more, comes for nothing.
                fits = size_bytes <= self._options.table_bytes and base.span(*_hull(union)) == met
                if fits or (table.overlaps(start, stop) and size_bytes <= self._options.job_bytes):
                    chosen, grows = union, True
                    break
        tables = tuple(table for table in level.tables if table in chosen)
        return self._down(0, tables, self._shape.base_level, reason)

    def _with_older(self, table: TableMeta) -> list[TableMeta] | None:
        """A table of level 0 and, to any depth, the older ones that share keys (J1).

        None where one of them is busy.
        """
        tables = self._version.levels[0].tables
        chosen: list[TableMeta] = []
        for other in tables[tables.index(table) :]:
            if other is table or any(other.overlaps(t.start, t.stop) for t in chosen):
                if not self._is_free(other):
                    return None
                chosen.append(other)
        return chosen

    def _narrowed(self) -> Job | None:
        """While the base level is busy, merge tables of level 0 of about one size into one.

        Writers then need not stop so soon; the price is that those rows are written once more, so
        it waits until level 0 is halfway from its soft limit to where they stop.
        """
        tables = self._version.levels[0].tables
        if level0_depth(tables) < (self._options.level0_soft + self._options.level0_stop) // 2:
            return None
        for first in range(len(tables)):
            end, size_bytes = first, 0
            while (
                end < len(tables)
                and self._is_free(tables[end])
                and (end == first or tables[end].size_bytes <= size_bytes)
                and size_bytes + tables[end].size_bytes <= self._options.job_bytes
            ):
                size_bytes += tables[end].size_bytes
                end += 1
            run = tables[first:end]
            if level0_depth(run) >= _WIDTH_MIN and _is_closed_in_time(tables, first, end):
                return self._merge(((0, run),), 0, "level0-width")
        return None

    # -- from the other levels --------------------------------------------------------------------

    def _from_level(self, n: int) -> Job | None:
        """Compact the table that takes the least rewriting below for what it weighs."""
        level, below = self._version.levels[n], self._version.levels[n + 1]
        costs = []
        for at, table in enumerate(level.tables):
            if self._is_free(table):
                met_bytes = below.bytes_between(*below.span(table.start, table.stop))
                costs.append((met_bytes / self._weigh.table(n, table), at))
        for _, at in sorted(costs):
            first, end = self._grown(n, at)
            job = self._down(n, level.tables[first:end], n + 1, "size")
            if job is not None:
                return job
        return None

    def _grown(self, n: int, at: int) -> tuple[int, int]:
        """Indexes [first, end) of a table and the neighbours that cost no more below."""
        level, below = self._version.levels[n], self._version.levels[n + 1]
        met = below.span(level.tables[at].start, level.tables[at].stop)
        first, end = at, at + 1
        if met[0] == met[1]:
            return first, end  # a move: more tables would only leave the level emptier
        room = self._options.job_bytes - below.bytes_between(*met)

        def fits(first: int, end: int) -> bool:
            tables = level.tables[first:end]
            return (
                below.span(tables[0].start, tables[-1].stop) == met
                and level.bytes_between(first, end) <= room
                and self._is_free(tables[0])
                and self._is_free(tables[-1])
            )

        while first > 0 and fits(first - 1, end):
            first -= 1
        while end < len(level) and fits(first, end + 1):
            end += 1
        return first, end

    def _wide(self, n: int, table: TableMeta, wanted: list[TableMeta]) -> Job | None:
        """A job for a table and as many of those wanted after it as job_bytes lets."""
        level = self._version.levels[n]
        below = self._version.levels[min(n + 1, LAST_LEVEL)]
        numbers = {other.number for other in wanted} - self._busy
        first, end = level.span(table.start, table.stop)
        while end < len(level) and level.tables[end].number in numbers:
            met = below.span(table.start, level.tables[end].stop)
            size_bytes = level.bytes_between(first, end + 1) + below.bytes_between(*met)
            if size_bytes > self._options.job_bytes:
                break
            end += 1
        return self._cleaned(n, first, end, "range")

    def _cleaned(self, n: int, first: int, end: int, reason: Reason) -> Job | None:
        """Rewrite tables of a level where nothing is below them; else take them down a level, so
        that their tombstones meet what they hide."""
        tables = self._version.levels[n].tables[first:end]
        if self._version.overlaps_below(n, tables[0].start, tables[-1].stop):
            return self._down(n, tables, n + 1, reason)
        return self._merge(((n, tables),), n, reason)

    # -- blobs ------------------------------------------------------------------------------------

    def _mostly_garbage(self, share: float) -> list[BlobRef]:
        """The blobs of which at least that share is garbage, those with most of it first."""
        found = [
            ref
            for ref in self._version.blobs.values()
            if ref.garbage_bytes and ref.garbage_bytes >= share * ref.data_bytes
        ]
        return sorted(found, key=lambda ref: (ref.live_bytes / ref.data_bytes, ref.number))

    def _worth_bytes(self) -> int:
        """How much garbage is worth passing all tables with pointers."""
        blobs = self._version.blobs.values()
        tables = sum(t.size_bytes for n in self._version.levels for t in n.tables if t.blobs)
        return min(_PASS_GAIN * tables, int(_BLOB_GARBAGE * sum(ref.data_bytes for ref in blobs)))

    def _collecting(self, victims: list[BlobRef], start: bytes, stop: bytes | None) -> Job | None:
        """Move values of keys in [start, stop) out of these blobs: a job for neighbours."""
        numbers = {ref.number for ref in victims}
        for victim in victims:
            for n, level in enumerate(self._version.levels):
                for table in level.overlapping(start, stop):
                    held = {ref.number for ref in table.blobs}
                    job = self._collected(n, table, numbers) if victim.number in held else None
                    if job is not None:
                        return job
        return None

    def _collected(self, n: int, table: TableMeta, victims: set[int]) -> Job | None:
        """A job for a table of level n, and those after it, as long as it moves no more than a
        quarter of job_bytes."""
        tables = self._version.levels[n].tables
        first = tables.index(table)
        end, moved, size_bytes = first, 0, 0
        while end < len(tables) and self._is_free(tables[end]):
            more = sum(ref.live_bytes for ref in tables[end].blobs if ref.number in victims)
            moved += more
            size_bytes += tables[end].size_bytes
            is_much = 4 * moved > self._options.job_bytes or size_bytes > self._options.job_bytes
            if end > first and (n == 0 or not more or is_much):
                break
            end += 1
        if end == first:
            return None
        job = self._merge(((n, tables[first:end]),), n, "blobs")
        if job is None:
            return None
        held = {ref.number for taken in job.tables for ref in taken.blobs}
        return replace(job, collect=tuple(sorted(held & victims)))

    def _points_into(self, victims: list[BlobRef], start: bytes, stop: bytes | None) -> bool:
        """Whether a table that meets [start, stop) points into one of these blobs."""
        numbers = {ref.number for ref in victims}
        return any(
            ref.number in numbers
            for level in self._version.levels
            for table in level.overlapping(start, stop)
            for ref in table.blobs
        )

    # -- jobs -------------------------------------------------------------------------------------

    def _down(
        self, n: int, tables: tuple[TableMeta, ...], output_level: int, reason: Reason
    ) -> Job | None:
        """Tables of level n to a deeper one, with what they meet there; None if P1 forbids it."""
        start, stop = _hull(tables)
        met = self._version.levels[output_level].overlapping(start, stop)
        if met:
            return self._merge(((n, tables), (output_level, met)), output_level, reason)
        # A range deletion that goes down is cut to what is left for it to hide.
        is_move = (n > 0 or len(tables) == 1) and not any(t.range_deletions for t in tables)
        if is_move and output_level < LAST_LEVEL:
            after = self._version.levels[output_level + 1]
            met_bytes = after.bytes_between(*after.span(start, stop))
            is_move = met_bytes <= self._options.grandparent_bytes
        if not is_move:
            return self._merge(((n, tables),), output_level, reason)
        return self._allowed(Job(MOVE, reason, ((n, tables),), output_level))

    def _merge(
        self,
        inputs: tuple[tuple[int, tuple[TableMeta, ...]], ...],
        output_level: int,
        reason: Reason,
    ) -> Job | None:
        tables = [table for _, taken in inputs for table in taken]
        start, stop = _hull(tables)
        boundaries: tuple[Boundary, ...] = ()
        if 0 < output_level < LAST_LEVEL:
            after = self._version.levels[output_level + 1].overlapping(start, stop)
            boundaries = tuple(Boundary(table.start, table.size_bytes) for table in after)
        deeper = [
            table
            for level in self._version.levels[output_level + 1 :]
            for table in level.overlapping(start, stop)
        ]
        if output_level == 0:
            oldest = self._version.levels[0].tables.index(tables[-1])
            deeper += self._version.levels[0].tables[oldest + 1 :]
        return self._allowed(
            Job(
                MERGE,
                reason,
                inputs,
                output_level,
                self._options.table_bytes if output_level else 0,
                self._options.grandparent_bytes,
                boundaries,
                _ranges_of(deeper),
            )
        )

    def _allowed(self, job: Job) -> Job | None:
        """The job, or None where P1 forbids it."""
        if not all(map(self._is_free, job.tables)):
            return None
        for other in self._running:
            # Level 0 has no room to dispute: its tables may overlap.
            is_rival = other.kind != DROP and other.output_level == job.output_level > 0
            if is_rival and other.start < job.stop and job.start < other.stop:
                return None
        return job

    def _is_free(self, table: TableMeta) -> bool:
        return table.number not in self._busy

    # -- of no use to anyone ----------------------------------------------------------------------

    def _hides_nothing(self, n: int, table: TableMeta) -> bool:
        if self._version.overlaps_below(n, table.start, table.stop):
            return False
        tables = self._version.levels[n].tables
        return n > 0 or not any(
            older.overlaps(table.start, table.stop) for older in tables[tables.index(table) + 1 :]
        )

    def _is_expired(self, n: int, table: TableMeta) -> bool:
        """Whether a table of level n is of no use but for the report of its expired rows."""
        return (
            table.is_expired(self._now_ms)
            and self._is_free(table)
            and self._hides_nothing(n, table)
        )

    def _garbage_share(self, table: TableMeta) -> float:
        """The share of its rows that a merge over nothing deeper would take away, 0.0 to 1.0."""
        garbage = table.tombstones + table.expired_rows(self._now_ms) + table.range_deletions
        return garbage / (table.rows + table.range_deletions)

    def _pays(self, n: int, table: TableMeta, share: float) -> bool:
        """Whether taking a table's garbage down gives back enough of what has to be rewritten.

        Where not, it waits until its level is due; that counts what its tombstones hide.
        """
        below = self._version.levels[min(n + 1, LAST_LEVEL)]
        if n == LAST_LEVEL or not below.overlaps(table.start, table.stop):
            return True
        met_bytes = below.bytes_between(*below.span(table.start, table.stop))
        gain = self._weigh.table(n, table) - (1 - share) * table.size_bytes
        return gain >= self._options.garbage_ratio * met_bytes

    def _can_improve(self, n: int, table: TableMeta) -> bool:
        """Whether compacting a range has anything to do with this table."""
        if n == 0 or self._garbage_share(table) > 0:
            return True
        return self._version.overlaps_below(n, table.start, table.stop)


def _hull(tables: Iterable[TableMeta]) -> tuple[bytes, bytes]:
    """The range that all the tables' ranges are in."""
    tables = tuple(tables)
    return min(t.start for t in tables), max(t.stop for t in tables)


def _is_closed_in_time(tables: Sequence[TableMeta], first: int, end: int) -> bool:
    """Whether no other table of level 0 has rows from between those of tables[first:end]: one
    table made of them then has its place among the others (V3)."""
    newest = tables[first].max_sequence
    oldest = min(table.min_sequence for table in tables[first:end])
    return all(table.min_sequence > newest for table in tables[:first]) and all(
        table.max_sequence < oldest for table in tables[end:]
    )


def _ranges_of(tables: Iterable[TableMeta]) -> tuple[tuple[bytes, bytes], ...]:
    """Ranges, ascending and disjoint, that cover those of the tables; at most _BELOW_MAX."""
    ranges: list[tuple[bytes, bytes]] = []
    for start, stop in sorted((table.start, table.stop) for table in tables):
        if ranges and start <= ranges[-1][1]:
            ranges[-1] = ranges[-1][0], max(ranges[-1][1], stop)
        else:
            ranges.append((start, stop))
    group = -(-len(ranges) // _BELOW_MAX) or 1
    return tuple(
        (ranges[at][0], ranges[min(at + group, len(ranges)) - 1][1])
        for at in range(0, len(ranges), group)
    )
