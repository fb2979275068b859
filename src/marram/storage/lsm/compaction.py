"""Runs one MERGE job: from table files to table files.

Owns opening and checking the inputs, cutting and writing the outputs, and their removal where it
fails; not the choice (picker.py), not the rules of what is kept (merge.py), not where it runs
(worker.py), and not the version: the caller applies job.edit(outcome.tables).

K1  nothing is written before every input was what its TableMeta says.
K2  the outputs of an Outcome are durable: contents first, then names.
K3  where run() raises, no file that it made is left, unless removing one failed, too; what nobody
    names is removed when the store is opened.
K4  outputs ascend, share no key, lie within the job's range, are cut as job.OutputCuts says, and
    have the numbers from first_number on.
K5  memory holds a window of rows for each table of level 0 and each other level, one open table
    each, and one output; besides, all range deletions, and the keys in Outcome.gone.
K6  values in blobs are neither read nor written, but for those of the blobs that job.collect names:
    they go to one new blob, which has the last of the task's numbers.

Hot: 0.3 M rows/s and core, interpreted: four tables of 250000 rows of 16 + 100 bytes into tables
with a filter, 3 to 3.6 s; the same in a helper process, whose parent spends 10 ms on it.

Threading: run() is one thread's; its callbacks are called in it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from marram.compiled import state
from marram.env.api import Env, File
from marram.errors import Corruption, InvalidArgument
from marram.storage.layout import table_path, tables_path
from marram.storage.lsm.blob import BlobWriter
from marram.storage.lsm.blobs import Collector, OpenBlobs, References
from marram.storage.lsm.chain import Part
from marram.storage.lsm.coverage import clip, stored_stop
from marram.storage.lsm.job import GONE_LIMIT, MERGE, Job, OutputCuts
from marram.storage.lsm.merge import Retention, compact, kept_ranges
from marram.storage.lsm.version import BlobRef, TableMeta, stop_after
from marram.storage.lsm.window import Window
from marram.storage.sstable.block import stored_key
from marram.storage.sstable.ranges import RangeDeletion
from marram.storage.sstable.reader import Table
from marram.storage.sstable.writer import TableOptions, TableWriter

STAMP = "stamp"
"""The property that holds a table's stamp: TableMeta.stamp, u64, little-endian."""

# Whether merge.py is compiled, which this module never is.
_IS_COMPILED = state() == "compiled"
# Rows written before it is asked again how large the output is.
_SLICE_ROWS = 256
# How much larger outputs may be than inputs, for numbers_needed(): compression was switched off.
_GROWTH = 4
# What a range deletion adds to a table beside its keys, bytes.
_RANGE_BYTES = 18
# A merge that was held up catches up on no more than that much time at full speed.
_BURST_NS = 200_000_000
# How long it waits before it looks whether it was cancelled, seconds.
_WAIT_S = 0.1
_STAMP_BYTES = 8
# How many blobs it holds open to move values out of them.
_OPEN_BLOBS = 64


class Cancelled(Exception):
    """The merge was told to stop, and left nothing behind (K3). It never leaves the engine."""


@dataclass(frozen=True, slots=True)
class Task:
    """A merge to run, as values, so that another process can run it.

    directory: of the store; store_id: 16 bytes. job: of kind MERGE. first_number, numbers: the
    tables it makes have numbers in [first_number, first_number + numbers), which nothing else
    uses; numbers_needed() says how many. expired_ms: rows with 0 < deadline <= this have expired,
    ms since 1970; 0: none. options: of the outputs. rate_bytes_s: about how much it may read and
    write together, bytes per second; 0 for no limit.
    """

    directory: str
    store_id: bytes
    job: Job
    first_number: int
    numbers: int
    expired_ms: int
    options: TableOptions
    rate_bytes_s: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a merge did.

    tables: the outputs, in order, durable; their covered_bytes is 0: only a version knows it.
    gone: stored keys whose newest row among the inputs had expired and was taken away, ascending;
    job.GONE_LIMIT of them at most, further expired rows stay. rows_read, rows_written; bytes_read,
    bytes_written: of the files, headers, indexes and checks included.
    """

    tables: tuple[TableMeta, ...]
    gone: tuple[bytes, ...]
    rows_read: int
    rows_written: int
    bytes_read: int
    bytes_written: int


def _never() -> bool:
    return False


def run(
    env: Env,
    task: Task,
    *,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] = _never,
) -> Outcome:
    """Run a merge. progress(bytes read, bytes written) and cancelled() are asked once a block.

    Raises Cancelled; Corruption, UnsupportedFormat: of an input; InvalidArgument: not a MERGE;
    OSError; and what the callbacks raise.
    """
    if task.job.kind != MERGE:
        raise InvalidArgument(f"a {task.job.kind} is not run")
    pace = _Pace(env, task.rate_bytes_s, progress, cancelled)
    outputs = _Outputs(env, task, pace)
    try:
        merge = _Merge(env, task, pace)
        merge.check_inputs()
        gone = merge.write_to(outputs)
        if outputs.tables:
            env.sync_dir(tables_path(task.directory))  # K2: else a crash may lose a name
    except BaseException:
        outputs.remove()
        raise
    return Outcome(
        tuple(outputs.tables), gone,
        merge.rows_read, sum(table.rows for table in outputs.tables),
        pace.read_bytes, pace.written_bytes,
    )  # fmt: skip


def numbers_needed(job: Job) -> int:
    """How many numbers of tables and blobs a Task for `job` needs; reserving them costs nothing.

    Each output has two thirds of target_bytes, or ends at a boundary, or is the last. Where even
    that does not do, because outputs are compressed much worse than inputs, the last number takes
    all the rest.
    """
    blobs = 1 if job.collect else 0
    if not job.target_bytes:
        return 1 + blobs
    return 2 + blobs + len(job.boundaries) + 3 * _GROWTH * job.input_bytes // (2 * job.target_bytes)


def finish_table(
    env: Env, writer: TableWriter, number: int, ranges: Sequence[RangeDeletion]
) -> TableMeta | None:
    """Finish table `number` with a stamp of its own; returns its description, None: it is empty.

    Its covered_bytes is 0: Version.enclosed_bytes() knows it. Syncing the file is the caller's.
    Raises what TableWriter.finish() raises; InvalidArgument: a range deletion with no end in the
    last keyspace, which no range can cover.
    """
    stamp = env.random_bytes(_STAMP_BYTES)
    info = writer.finish({STAMP: stamp}, ranges)
    if not info.rows and not info.range_deletions:
        return None
    start, stop = _extent(info.smallest, info.largest, ranges)
    lowest, highest = _sequences(
        (info.min_sequence, info.max_sequence) if info.rows else None,
        (info.min_range_sequence, info.max_range_sequence) if info.range_deletions else None,
    )
    return TableMeta(
        number=number,
        size_bytes=info.size_bytes,
        start=start,
        stop=stop,
        rows=info.rows,
        tombstones=info.tombstones,
        min_sequence=lowest,
        max_sequence=highest,
        expirable_rows=info.expirable_rows,
        expirable_bytes=info.expirable_bytes,
        earliest_deadline_ms=info.earliest_deadline_ms,
        latest_deadline_ms=info.latest_deadline_ms,
        range_deletions=info.range_deletions,
        stamp=int.from_bytes(stamp, "little"),
    )


def check_table(table: Table, meta: TableMeta, path: str | None = None) -> None:
    """Check that an open table is the one that `meta` describes, by all that opening it tells.

    So an older file in its place is noticed, and one of a copy of the store that went on
    separately: where all else agrees, their stamps differ. path: for the message. Raises
    Corruption.
    """
    try:
        start, stop = _extent(table.smallest, table.largest, table.ranges)
    except InvalidArgument as error:
        raise Corruption(str(error), path) from error
    properties = table.properties
    deletions = [deletion.sequence for deletion in table.ranges]
    rows = (properties.get("table.min_sequence"), properties.get("table.max_sequence"))
    if not (isinstance(rows[0], int) and isinstance(rows[1], int)):
        raise Corruption("the table does not say its sequence numbers", path)
    lowest, highest = _sequences(
        (rows[0], rows[1]) if table.row_count else None,
        (min(deletions), max(deletions)) if deletions else None,
    )
    for what, found, expected in (
        ("number", table.number, meta.number),
        ("size", table.size_bytes, meta.size_bytes),
        ("rows", table.row_count, meta.rows),
        ("tombstones", properties.get("table.tombstones"), meta.tombstones),
        ("lowest sequence", lowest, meta.min_sequence),
        ("highest sequence", highest, meta.max_sequence),
        ("range deletions", len(deletions), meta.range_deletions),
        ("first key", start, meta.start),
        ("end of the keys", stop, meta.stop),
        ("stamp", properties.get(STAMP), meta.stamp.to_bytes(_STAMP_BYTES, "little")),
    ):
        if found != expected:
            raise Corruption(
                f"not the table {meta.number} that is listed: {what} {_brief(found)}, listed"
                f" {_brief(expected)}",
                path,
            )


class _Pace:
    """How fast a merge goes on, and whether.

    read_bytes, written_bytes: by its files so far.
    """

    __slots__ = (
        "_cancelled", "_due_ns", "_env", "_paid_bytes", "_progress", "_rate_bytes_s",
        "read_bytes", "written_bytes",
    )  # fmt: skip

    def __init__(
        self,
        env: Env,
        rate_bytes_s: int,
        progress: Callable[[int, int], None] | None,
        cancelled: Callable[[], bool],
    ) -> None:
        self._env = env
        self._rate_bytes_s = rate_bytes_s
        self._progress = progress
        self._cancelled = cancelled
        self.read_bytes = 0
        self.written_bytes = 0
        self._paid_bytes = 0  # of those, what is accounted for in _due_ns
        self._due_ns = 0  # when that much is due, at the rate

    def step(self) -> None:
        """Between blocks: tell how far it is, let others run, keep to the rate.

        Raises Cancelled, and what progress() raises.
        """
        if self._cancelled():
            raise Cancelled
        if self._progress is not None:
            self._progress(self.read_bytes, self.written_bytes)
        self._env.pause()
        if self._rate_bytes_s:
            self._keep_rate()

    def _keep_rate(self) -> None:
        total = self.read_bytes + self.written_bytes
        now_ns = self._env.monotonic_ns()
        self._due_ns = max(self._due_ns, now_ns - _BURST_NS)
        self._due_ns += (total - self._paid_bytes) * 1_000_000_000 // self._rate_bytes_s
        self._paid_bytes = total
        left_s = (self._due_ns - now_ns) / 1e9
        # By what was waited, not by the clock: a simulated one need not move (Env.wait).
        while left_s > 0:
            self._env.wait(min(left_s, _WAIT_S))
            left_s -= _WAIT_S
            if self._cancelled():
                raise Cancelled
            if left_s > 0 and self._progress is not None:
                self._progress(self.read_bytes, self.written_bytes)
        self._due_ns = min(self._due_ns, max(now_ns, self._env.monotonic_ns()))


class _MeteredFile:
    """A file whose bytes are counted. Implements env.api.File."""

    __slots__ = ("_file", "_pace", "path")

    def __init__(self, file: File, pace: _Pace) -> None:
        self._file = file
        self._pace = pace
        self.path = file.path

    def size(self) -> int:
        return self._file.size()

    def read(self, size: int, offset: int) -> bytes:
        data = self._file.read(size, offset)
        self._pace.read_bytes += len(data)
        return data

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        self._file.write(data, offset)
        self._pace.written_bytes += len(data)

    def allocate(self, offset: int, size: int) -> None:
        self._file.allocate(offset, size)

    def window(self, offset: int, size: int) -> None:
        """None: what is stored in memory could not be counted."""

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def sync_data(self) -> None:
        self._file.sync_data()

    def sync(self) -> None:
        self._file.sync()

    def close(self) -> None:
        self._file.close()


class _Merge:
    """The inputs, and their way to the outputs."""

    __slots__ = ("_env", "_pace", "_ranges", "_task", "rows_read")

    def __init__(self, env: Env, task: Task, pace: _Pace) -> None:
        self._env = env
        self._task = task
        self._pace = pace
        self._ranges: list[RangeDeletion] = []
        self.rows_read = 0

    def check_inputs(self) -> None:
        """Check each input (K1), and collect the range deletions of all."""
        for meta in self._task.job.tables:
            self._pace.step()
            table = self._open(meta)
            self._ranges += table.ranges
            table.close()

    def write_to(self, outputs: _Outputs) -> tuple[bytes, ...]:
        """Merge everything into the outputs; returns the keys that are gone."""
        retention = Retention(expired_ms=self._task.expired_ms, below=self._task.job.below)
        outputs.begin(kept_ranges(self._ranges, retention))
        sources = [
            self._rows(tables)
            for level, all_tables in self._task.job.inputs
            # Tables of level 0 may share keys; of another level one follows the other.
            for tables in ([[table] for table in all_tables] if level == 0 else [all_tables])
        ]
        gone: list[bytes] = []
        try:
            for window in compact(sources, retention, self._ranges, gone, GONE_LIMIT):
                outputs.take(window)
            outputs.end()
        finally:
            for source in sources:
                source.close()  # and with it the table it is in
        return tuple(gone)

    def _rows(self, tables: Iterable[TableMeta]) -> Generator[Part, None, None]:
        """The rows of tables of which one follows the other, opened in their turn (K5)."""
        for meta in tables:
            table = self._open(meta)
            try:
                parts = table.stretches() if _IS_COMPILED else table.versions()
                for part in parts:
                    self._pace.step()
                    self.rows_read += part[2] - part[1] if isinstance(part, tuple) else len(part)
                    yield part
            finally:
                table.close()

    def _open(self, meta: TableMeta) -> Table:
        """An input, checked against its description. Raises Corruption."""
        path = table_path(self._task.directory, meta.number)
        try:
            file = _MeteredFile(self._env.open(path), self._pace)
        except FileNotFoundError:
            raise Corruption("the file is missing", path) from None
        try:
            table = Table.open(file, meta.number, self._task.store_id)
            check_table(table, meta, path)
        except BaseException:
            file.close()
            raise
        return table


class _Outputs:
    """The outputs: one at hand, those before it whole. tables: these, in order.

    Where an output begins and ends is asked at keys in ascending order: of rows, and of *marks*,
    where a range deletion starts or goes on over a boundary. So what a range deletion covers
    belongs to an output, rows or not, and outputs together leave no part of one out.
    """

    def __init__(self, env: Env, task: Task, pace: _Pace) -> None:
        self._env = env
        self._task = task
        self._pace = pace
        self._cuts = OutputCuts(task.job)
        self._ranges: list[RangeDeletion] = []
        self._marks: list[bytes] = []
        self._next_mark = 0
        self._asked = b""  # the key that was asked for last
        self._made: list[str] = []  # the paths of all tables it made
        self._blobs = {ref.number: ref for table in task.job.tables for ref in table.blobs}
        self._references: list[References] = []  # of each output, where there are blobs
        self._blob: BlobWriter | None = None
        self._collector: Collector | None = None
        self._sources: OpenBlobs | None = None
        if task.job.collect:
            self._begin_collecting()
        self.tables: list[TableMeta] = []
        # The output at hand.
        self._file: File | None = None
        self._writer: TableWriter | None = None
        self._start = b""  # the key it begins at
        self._rows = 0
        self._range_bytes = 0

    def begin(self, ranges: list[RangeDeletion]) -> None:
        """ranges: that the outputs have to keep."""
        self._ranges = ranges
        keys = [boundary.key for boundary in self._task.job.boundaries]
        marks: set[bytes] = set()
        for deletion in ranges:
            start, stop = stored_key(deletion.keyspace, deletion.start), stored_stop(deletion)
            end = bisect_left(keys, stop) if stop is not None else len(keys)
            marks.add(start)
            marks.update(keys[bisect_left(keys, start) : end])
        self._marks = sorted(marks)

    def take(self, window: Window) -> None:
        """Add rows, in order; values to be collected are moved."""
        if self._collector is None:
            self.add(window)
            return
        for portion in self._collector.rows(window.versions()):
            self.add(Window.of(portion))
            self._pace.step()

    def add(self, window: Window) -> None:
        """Add rows, in order, as they are."""
        keyspace, keys = window.keyspace, window.keys
        start = 0
        while start < len(keys):
            first = stored_key(keyspace, keys[start])
            self._pass_marks(first)
            if self._asked != first:
                self._ask(first)
            writer = self._writer
            assert writer is not None
            stop = self._stretch(window, start, writer)
            part = window.part(start, stop)
            writer.add_columns(
                keyspace, part.keys, part.values, part.deadlines, part.types, part.sequences
            )
            if self._blobs and part.types is not None:
                self._references[-1].count(part.versions())
            self._rows += stop - start
            start = stop

    def end(self) -> None:
        """All rows were added."""
        self._pass_marks(None)
        if self._writer is not None:
            self._finish(None)
        if self._blob is not None:
            made = self._blob.finish()
            if made is not None:
                self._blobs[made.number] = made
        if self._sources is not None:
            self._sources.close()
        if self._blobs:
            self.tables = [
                replace(table, blobs=references.refs(self._blobs))
                for table, references in zip(self.tables, self._references, strict=True)
            ]

    def remove(self) -> None:
        """Remove every file it made (K3)."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        if self._sources is not None:
            self._sources.close()
        if self._blob is not None:
            self._blob.abandon()
        for path in self._made:
            # One that stays is a stray, which the error that led here must not be hidden by.
            with suppress(OSError):
                self._env.remove(path)

    def _pass_marks(self, until: bytes | None) -> None:
        """Ask for the marks up to a stored key, None for all."""
        while self._next_mark < len(self._marks):
            mark = self._marks[self._next_mark]
            if until is not None and mark > until:
                return
            self._next_mark += 1
            self._ask(mark)
            self._range_bytes += _RANGE_BYTES + 2 * len(mark)

    def _ask(self, key: bytes) -> None:
        """Have an output at hand that takes a stored key, the next in order."""
        self._asked = key
        size_bytes = 0
        if self._writer is not None:
            size_bytes = self._writer.size_bytes + self._range_bytes
        if self._cuts.cut_before(key, size_bytes) and not self._is_last():
            self._finish(key)
        if self._writer is None:
            self._open(key)

    def _is_last(self) -> bool:
        """Whether the output at hand has the last number, and so takes all the rest."""
        return len(self.tables) + 1 == self._table_numbers

    def _stretch(self, window: Window, start: int, writer: TableWriter) -> int:
        """Up to where rows from `start` on go to the output at hand, without being asked for."""
        size_bytes = writer.size_bytes + self._range_bytes
        keys = window.keys
        row_bytes = len(keys[start]) + len(window.values[start]) + 8
        if self._rows:
            row_bytes = size_bytes // self._rows
        room = self._cuts.small_bytes - size_bytes
        if room <= 0 and self._is_last():
            return len(keys)  # it is asked in vain
        stop = min(len(keys), start + max(1, min(_SLICE_ROWS, room // max(1, row_bytes))))
        mark = self._marks[self._next_mark] if self._next_mark < len(self._marks) else None
        for bound in (self._cuts.next_key, mark):
            if bound is not None and bound[0] == window.keyspace:
                stop = bisect_left(keys, bound[1:], start + 1, stop)
        return stop

    def _open(self, key: bytes) -> None:
        """Begin an output at a stored key."""
        number = self._task.first_number + len(self.tables)
        assert len(self.tables) < self._table_numbers, "the last number takes all the rest"
        path = table_path(self._task.directory, number)
        file = self._env.open(path, write=True, create=True, exclusive=True)
        self._made.append(path)
        self._file = _MeteredFile(file, self._pace)
        self._writer = TableWriter(self._file, number, self._task.store_id, self._task.options)
        self._start = key
        self._rows = self._range_bytes = 0
        if self._blobs:
            self._references.append(References())

    @property
    def _table_numbers(self) -> int:
        """How many of the task's numbers are for tables (K6)."""
        return self._task.numbers - (1 if self._task.job.collect else 0)

    def _begin_collecting(self) -> None:
        task = self._task
        refs: dict[int, BlobRef] = {number: self._blobs[number] for number in task.job.collect}

        def metered(file: File) -> File:
            return _MeteredFile(file, self._pace)

        number = task.first_number + task.numbers - 1
        self._blob = BlobWriter(
            self._env, task.directory, lambda: number, task.store_id, task.options, metered
        )
        self._sources = OpenBlobs(self._env, task.directory, task.store_id, _OPEN_BLOBS, metered)
        self._collector = Collector(self._sources, refs, self._blob)

    def _finish(self, stop: bytes | None) -> None:
        """End the output at hand before a stored key, None: where it ends."""
        assert self._writer is not None
        assert self._file is not None
        ranges = clip(self._ranges, self._start, stop)
        number = self._task.first_number + len(self.tables)
        meta = finish_table(self._env, self._writer, number, ranges)
        assert meta is not None, "an output begins at a row or a range deletion"
        self._pace.step()  # making a filter takes its time, and so does what comes
        self._file.sync()
        file, self._file, self._writer = self._file, None, None
        file.close()
        self.tables.append(meta)


def _extent(
    smallest: bytes, largest: bytes, ranges: Sequence[RangeDeletion]
) -> tuple[bytes, bytes]:
    """The range of a table: [start, stop) of stored keys over its rows and range deletions.

    smallest, largest: stored keys of the first and the last row, b"" where there is none.
    """
    starts = [stored_key(deletion.keyspace, deletion.start) for deletion in ranges]
    stops = [stored_stop(deletion) for deletion in ranges]
    if largest:
        starts.append(smallest)
        stops.append(stop_after(largest))
    ends = [stop for stop in stops if stop is not None]
    if not starts:
        raise InvalidArgument("a table with nothing in it")
    if len(ends) < len(stops):
        raise InvalidArgument("a range deletion to the end of keyspace 255")
    return min(starts), max(ends)


def _sequences(*parts: tuple[int, int] | None) -> tuple[int, int]:
    """The lowest and the highest sequence number of some (lowest, highest), None for nothing."""
    there = [part for part in parts if part is not None]
    return min(part[0] for part in there), max(part[1] for part in there)


def _brief(value: object) -> str:
    return repr(value[:32]) if isinstance(value, bytes) else str(value)
