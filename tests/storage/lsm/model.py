"""A leveled tree of plain lists: jobs run by the letter of job.py, reads go in read order.

It drops whatever a job lets it drop. So a job that takes too little, or says too much about what
is below, shows up as a read that is wrong; and one that takes an expired row without a report, as
a key that is counted and not there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from marram.storage.lsm.job import DROP, MERGE, MOVE, Job, OutputCuts
from marram.storage.lsm.version import TableMeta, Version, VersionEdit, stop_after
from marram.storage.sstable.ranges import RangeDeletion

ROW_BYTES = 10


class Row(NamedTuple):
    key: bytes  # without its keyspace, which is always 0
    sequence: int
    deadline_ms: int  # 0 for none
    is_tombstone: bool


@dataclass
class Table:
    rows: list[Row]  # keys ascend, and differ
    deletions: list[RangeDeletion]  # bounded ones, of keyspace 0


def stored(key: bytes) -> bytes:
    return b"\0" + key


def is_over(deletion: RangeDeletion, key: bytes) -> bool:
    assert deletion.stop is not None
    return deletion.start <= key < deletion.stop


@dataclass
class Model:
    """The tables of a tree, and everything that was ever written to it."""

    version: Version = field(default_factory=Version)
    tables: dict[int, Table] = field(default_factory=dict)
    history: list[Row] = field(default_factory=list)
    history_deletions: list[RangeDeletion] = field(default_factory=list)
    counted_out: set[Row] = field(default_factory=set)
    gone_limit: int = 3  # expired rows that a merge may report
    next_number: int = 1

    def flush(self, rows: Iterable[Row], deletions: Iterable[RangeDeletion]) -> None:
        """A memtable becomes a table of level 0."""
        table = Table(sorted(rows), list(deletions))
        assert len({row.key for row in table.rows}) == len(table.rows)
        self.history += table.rows
        self.history_deletions += table.deletions
        self.version = self.version.apply(VersionEdit(added=((0, self.add(0, table)),)))

    def add(self, level: int, table: Table) -> TableMeta:
        """Describe a new table."""
        number, self.next_number = self.next_number, self.next_number + 1
        self.tables[number] = table
        rows, deletions = table.rows, table.deletions
        sequences = [row.sequence for row in rows] + [d.sequence for d in deletions]
        deadlines = [row.deadline_ms for row in rows if row.deadline_ms]
        stops = [stop_after(stored(row.key)) for row in rows]
        stops += [stored(deletion.stop or b"") for deletion in deletions]
        start = min(stored(item.start if isinstance(item, RangeDeletion) else item.key)
                    for item in (*rows, *deletions))  # fmt: skip
        return TableMeta(
            number=number,
            size_bytes=ROW_BYTES * (len(rows) + len(deletions)),
            start=start,
            stop=max(stops),
            rows=len(rows),
            tombstones=sum(row.is_tombstone for row in rows),
            min_sequence=min(sequences),
            max_sequence=max(sequences),
            expirable_rows=len(deadlines),
            expirable_bytes=ROW_BYTES * len(deadlines),
            earliest_deadline_ms=min(deadlines, default=0),
            latest_deadline_ms=max(deadlines, default=0),
            range_deletions=len(deletions),
            covered_bytes=sum(
                self.version.enclosed_bytes(level, stored(d.start), stored(d.stop or b""))
                for d in deletions
            ),
        )

    def deletions(self) -> list[RangeDeletion]:
        """The range deletions of the version's tables."""
        return [
            deletion
            for level in self.version.levels
            for meta in level.tables
            for deletion in self.tables[meta.number].deletions
        ]

    # -- jobs ------------------------------------------------------------------------------------

    def outputs(self, job: Job, expired_ms: int) -> tuple[list[TableMeta], list[Row]]:
        """What a merge writes if it keeps as little as it may, and the expired rows it reports."""
        if job.kind != MERGE:
            return [], []
        tables = [self.tables[meta.number] for meta in job.tables]
        deletions = [deletion for table in tables for deletion in table.deletions]
        newest: dict[bytes, Row] = {}
        for row in sorted(row for table in tables for row in table.rows):
            newest[row.key] = row
        kept: list[Row] = []
        reported: list[Row] = []
        for key, row in newest.items():
            if any(is_over(d, key) and row.sequence < d.sequence for d in deletions):
                continue
            left = row
            if 0 < row.deadline_ms <= expired_ms and len(reported) < self.gone_limit:
                reported.append(row)
                left = Row(key, row.sequence, 0, True)
            if not left.is_tombstone or job.may_be_below(stored(key)):
                kept.append(left)
        return self._cut(job, kept, self._kept_deletions(job, deletions)), reported

    def _kept_deletions(self, job: Job, deletions: list[RangeDeletion]) -> list[RangeDeletion]:
        return [
            deletion
            for deletion in deletions
            if any(
                start < stored(deletion.stop or b"") and stored(deletion.start) < stop
                for start, stop in job.below
            )
        ]

    def _cut(self, job: Job, rows: list[Row], deletions: list[RangeDeletion]) -> list[TableMeta]:
        parts: list[tuple[bytes, list[Row]]] = [(b"", [])]
        cuts = OutputCuts(job)
        for row in rows:
            part = parts[-1][1]
            if cuts.cut_before(stored(row.key), ROW_BYTES * len(part)):
                parts.append((row.key, [row]))
            else:
                part.append(row)
        outputs = []
        for at, (start, part) in enumerate(parts):
            stop = parts[at + 1][0] if at + 1 < len(parts) else b"\xff"
            clipped = [
                deletion._replace(start=max(deletion.start, start), stop=min(deletion.stop, stop))
                for deletion in deletions
                if deletion.stop is not None
                and max(deletion.start, start) < min(deletion.stop, stop)
            ]
            if part or clipped:
                outputs.append(self.add(job.output_level, Table(part, clipped)))
        return outputs

    def apply(self, job: Job, outputs: list[TableMeta], reported: list[Row]) -> None:
        """A job is done; who counts keys counts out those reported that nothing newer is over."""
        assert job.kind in (MERGE, MOVE, DROP)
        for row in reported:
            if self.expected(row.key, 0) == row.sequence:
                assert row not in self.counted_out, "counted out twice"
                self.counted_out.add(row)
        self.version = self.version.apply(job.edit(outputs))

    # -- reads -----------------------------------------------------------------------------------

    def get(self, key: bytes, now_ms: int) -> int | None:
        """The sequence number of the row that a reader finds, by the read order; None: no row.

        now_ms: 0 to find expired rows as well.
        """
        covered = -1
        for meta in self.version.holding(stored(key)):
            table = self.tables[meta.number]
            covered = max([covered, *(d.sequence for d in table.deletions if is_over(d, key))])
            for row in table.rows:
                if row.key == key:
                    return _shown(row, covered, now_ms)
        return None

    def expected(self, key: bytes, now_ms: int) -> int | None:
        """The same by the history alone."""
        covered = [d.sequence for d in self.history_deletions if is_over(d, key)]
        rows = [row for row in self.history if row.key == key]
        return _shown(max(rows), max(covered, default=-1), now_ms) if rows else None

    def counted(self, key: bytes) -> int | None:
        """Likewise, for who counts keys: expired or not, but not what was counted out."""
        sequence = self.expected(key, 0)
        is_out = any((row.key, row.sequence) == (key, sequence) for row in self.counted_out)
        return None if is_out else sequence


def _shown(row: Row, covered: int, now_ms: int) -> int | None:
    is_gone = row.is_tombstone or 0 < row.deadline_ms <= now_ms or row.sequence < covered
    return None if is_gone else row.sequence
