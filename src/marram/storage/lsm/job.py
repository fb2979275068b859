"""One thing to do with some tables: what goes in, where it comes out, and where the output is cut.

Owns the description of a job and the edit it ends in; not the choice (picker.py) and not the doing:
whoever runs a merge reads its inputs, writes its outputs, and then applies edit().

A version's V4, newer above older, survives a job because of what it takes and what it leaves:

J1  with a table of level 0 a job takes, or leaves nothing of, every older table of level 0 that
    shares keys with it.
J2  a job takes every table of its output level that meets the tables it takes from above.
J3  no level between an input level and the output level holds tables.
J4  outputs lie within [start, stop) of the job, and no other running job puts tables of its output
    level there.
J5  `below` covers every key in that range which a level deeper than the output level may hold, and
    stays right while the job runs: deeper data only moves deeper, and what could be put there
    meanwhile would have to pass through tables that the job has taken.

What a merge drops (merge.py has the rules): rows that a newer row among the inputs, or a range
deletion of theirs, hides; and tombstones that have nothing left to hide, neither among the inputs
nor below (`may_be_below`). A row past its deadline becomes a tombstone, and its key is reported;
that is why a DROP never takes one.

Threading: frozen values; an OutputCuts belongs to one merge.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from marram.errors import InvalidArgument
from marram.storage.lsm.version import TableMeta, VersionEdit

Kind = Literal["merge", "move", "drop"]

MERGE: Kind = "merge"
"""Inputs become new tables on the output level."""

MOVE: Kind = "move"
"""Inputs go to the output level as they are: nothing is read or written."""

DROP: Kind = "drop"
"""Inputs go unread: all their rows are tombstones with nothing to hide, or hidden themselves."""

GONE_LIMIT = 262_144
"""Expired rows that one merge turns into tombstones at most: it reports their keys, which has to
fit into memory. Where there are more, they are left for another job."""

Reason = Literal["level0", "level0-width", "size", "garbage", "dead", "expired", "range", "blobs"]


class Boundary(NamedTuple):
    """Where a table of the level below the output starts, a stored key, and its size, bytes."""

    key: bytes
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Job:
    """A compaction (J1 to J5).

    kind: MERGE, MOVE or DROP. reason: why it was picked, for people.
    inputs: (level, tables) for each level it takes from, upper levels first, tables in the
        level's order; never empty.
    output_level: where its outputs go; for a DROP, where the inputs are.
    target_bytes: the size outputs aim at; 0 for one table, however large.
    grandparent_bytes: how much of the level below the output one output may meet, bytes.
    boundaries: of the level below the output, ascending; where outputs are best cut.
    below: ranges [start, stop) of stored keys that deeper levels may hold, ascending, disjoint.
    collect: numbers of blobs, ascending, out of which it moves the values of its rows, to a new
        blob; other values stay where they are, and only the pointers to them are written.
    """

    kind: Kind
    reason: Reason
    inputs: tuple[tuple[int, tuple[TableMeta, ...]], ...]
    output_level: int
    target_bytes: int = 0
    grandparent_bytes: int = 0
    boundaries: tuple[Boundary, ...] = ()
    below: tuple[tuple[bytes, bytes], ...] = ()
    collect: tuple[int, ...] = ()

    @property
    def tables(self) -> tuple[TableMeta, ...]:
        """All inputs, newest first where they share keys."""
        return tuple(table for _, tables in self.inputs for table in tables)

    @property
    def start(self) -> bytes:
        """Where the range of its inputs starts, a stored key."""
        return min(table.start for table in self.tables)

    @property
    def stop(self) -> bytes:
        """Where the range of its inputs stops, a stored key that is not in it."""
        return max(table.stop for table in self.tables)

    @property
    def input_bytes(self) -> int:
        """What it takes, bytes: about what a MERGE reads, and the most that it writes."""
        return sum(table.size_bytes for table in self.tables)

    def may_be_below(self, key: bytes) -> bool:
        """Whether a level deeper than the output may hold `key`, a stored key in the job's range.

        Where not, a tombstone has nothing left to hide there. O(log len(below)).
        """
        at = bisect_right(self.below, key, key=_stop)
        return at < len(self.below) and self.below[at][0] <= key

    def edit(self, outputs: Iterable[TableMeta] = ()) -> VersionEdit:
        """What becomes of the version when the job is done.

        outputs: the tables a MERGE wrote, none for the other kinds. Raises InvalidArgument.
        """
        written = tuple(outputs)
        if written and self.kind != MERGE:
            raise InvalidArgument(f"a {self.kind} writes no tables")
        if written and not self._encloses(written):
            raise InvalidArgument("an output reaches beyond its job (J4)")
        if self.kind == MOVE:
            written = self.tables
        removed = tuple((level, table.number) for level, tables in self.inputs for table in tables)
        return VersionEdit(tuple((self.output_level, table) for table in written), removed)

    def _encloses(self, tables: tuple[TableMeta, ...]) -> bool:
        start, stop = self.start, self.stop
        return all(start <= table.start and table.stop <= stop for table in tables)


def _stop(key_range: tuple[bytes, bytes]) -> bytes:
    return key_range[1]


class OutputCuts:
    """Where the outputs of one merge are cut.

    An output ends at the boundary that brings it closest to the job's target_bytes, from two thirds
    of that on; without a boundary, at the target where none are left and at twice the target where
    some are; and before it meets more than grandparent_bytes of the level below. Cuts at boundaries
    keep a later compaction of the output from rewriting tables that it only touches.
    """

    __slots__ = ("_crossed", "_job", "_met_bytes", "_next")

    def __init__(self, job: Job) -> None:
        self._job = job
        self._next = 0  # the boundary that comes next
        self._crossed = 0  # boundaries inside the output at hand
        self._met_bytes = 0  # of the tables below that it meets

    @property
    def next_key(self) -> bytes | None:
        """The boundary that comes next. No output ends before a key below it, while it is small."""
        boundaries = self._job.boundaries
        return boundaries[self._next].key if self._next < len(boundaries) else None

    @property
    def small_bytes(self) -> int:
        """An output below this size is small: it may only end at a boundary."""
        target = self._job.target_bytes
        if not target:
            return 2**63
        return 2 * target if self._next < len(self._job.boundaries) else target

    def cut_before(self, key: bytes, size_bytes: int) -> bool:
        """Whether the output at hand, which has size_bytes, ends before the stored key `key`.

        To be asked for ascending keys, once each; those below next_key may be left out while the
        output is below small_bytes. size_bytes is 0 where no output is at hand, before the first.
        Where a range deletion goes on beyond next_key, that is a key to ask for as well.
        """
        boundaries = self._job.boundaries
        first = self._next
        met_bytes = self._met_bytes
        while self._next < len(boundaries) and boundaries[self._next].key <= key:
            met_bytes += boundaries[self._next].size_bytes
            self._next += 1
        crossed = self._next - first
        is_full = size_bytes > 0 and self._is_full(size_bytes, met_bytes, crossed > 0)
        if is_full or size_bytes == 0:
            # A new output begins, in the table below that was met last.
            self._crossed = 0
            self._met_bytes = boundaries[self._next - 1].size_bytes if self._next else 0
        else:
            self._crossed += crossed
            self._met_bytes = met_bytes
        return is_full

    def _is_full(self, size_bytes: int, met_bytes: int, crossing: bool) -> bool:
        target = self._job.target_bytes
        if not target:
            return False
        if size_bytes >= self.small_bytes:
            return True
        if not crossing:
            return False
        # The next boundary is expected as far off as those before were: cut here if that would
        # miss the target by more than this one does.
        expected_bytes = size_bytes + size_bytes // (self._crossed + 1)
        nearest = size_bytes + expected_bytes >= 2 * target
        return nearest or met_bytes > self._job.grandparent_bytes
