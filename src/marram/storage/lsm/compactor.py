"""Background compaction: picks jobs, has them run, installs what they made.

Owns when a compaction runs, stops and is tried again; not which one (picker.py), not the merge
(compaction.py), not where it runs (worker.py).

Z1  one job at a time. Readers and writers go on beside it; it runs in a helper process where the
    env has any.
Z2  inputs go only after the edit that replaces them is durable.
Z3  a job that fails leaves its inputs as they are. For want of room it is tried again later; damage
    ends compactions until the store is opened again, and is told in stats; an edit that cannot be
    made durable is final (P4).
Z4  no expired row goes that a replay of the log would need (engine.py X6): jobs are picked and run
    as if it were not later than LsmEngine.spare_ms(), and what came to need one while a job ran
    ends the job.

Threading: poke() and the figures from any thread; jobs run in one background task; compact() in its
caller's thread, in turn with that task.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from weakref import ref

from marram.env.api import Task as Background
from marram.errors import (
    Closed,
    Corruption,
    Error,
    Interrupted,
    StoreFailed,
    StoreFull,
    UnsupportedFormat,
)
from marram.storage.engine import SPACE_ERRORS, Home, Progress
from marram.storage.lsm.compaction import Cancelled, Outcome, Task, numbers_needed
from marram.storage.lsm.flush import remove_tables, table_options
from marram.storage.lsm.job import MERGE, Job
from marram.storage.lsm.options import LevelOptions
from marram.storage.lsm.picker import Pressure, pick, pick_in_range, pressure
from marram.storage.lsm.version import TableMeta, Version, VersionEdit
from marram.storage.lsm.worker import Runner

if TYPE_CHECKING:
    from marram.storage.lsm.engine import LsmEngine

_logger = logging.getLogger("marram.lsm")

_HELD_WAIT_S = 0.01  # how long compact() waits before it looks again whether it may go on
_RETRY_NS = 10 * 10**9  # after a job found no room


@dataclass(slots=True)
class Figures:
    """What compactions did since the store was opened. Bytes and rows of tables."""

    merges: int = 0
    moves: int = 0
    drops: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    rows_read: int = 0
    rows_written: int = 0
    expired_rows: int = 0
    failures: int = 0


class Compactor:
    """Keeps a tree in shape."""

    def __init__(
        self, engine: LsmEngine, home: Home, fail: Callable[[BaseException], None]
    ) -> None:
        self.figures = Figures()
        self.error = ""  # why compactions stopped, or wait
        self.running: Job | None = None
        self.paused = False
        self.options = LevelOptions.for_memtable(engine.budget.memtable_bytes)
        self._engine = engine
        self._home = home
        self._fail = fail
        self._runner = Runner(home.env)
        self._turn = threading.Lock()  # one job at a time (Z1)
        self._gate = threading.RLock()  # a finalizer may poke in the middle of a poke
        self._task: Background | None = None  # guarded by _gate
        self._pending = False  # guarded by _gate
        self._busy = False  # guarded by _gate
        self._holds = 0  # guarded by _gate
        self._closing = False
        self._broken = False
        self._retry_at_ns = 0
        self._pressure: tuple[ref[Version], Pressure] | None = None

    # -- asking for work ---------------------------------------------------------------------------

    def poke(self) -> None:
        """Something changed: see, in the background, whether there is a job. Never blocks long."""
        with self._gate:
            self._pending = True
            if self._busy or self._closing:
                return
            self._busy = True
            try:
                self._task = self._home.env.start("marram-compaction", self._in_background)
            except RuntimeError as error:  # no more threads: somebody pokes again
                self._busy = False
                _logger.error("compaction could not be started: %s", error)

    def pause(self) -> None:
        """Start no further job, and cancel the running one; until resume()."""
        self.paused = True

    def resume(self) -> None:
        """Go on."""
        self.paused = False
        self.poke()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Run no job for a while; one that runs is cancelled."""
        with self._gate:
            self._holds += 1
        try:
            with self._turn:
                yield
        finally:
            with self._gate:
                self._holds -= 1
            self.poke()

    def wait(self, timeout_s: float) -> None:
        """Wait until background work has ended, but not longer than that."""
        task = self._task
        if task is not None:
            task.join(timeout_s)

    def close(self) -> None:
        """Cancel what runs, and start nothing more; idempotent."""
        with self._gate:
            self._closing = True
            task = self._task
        if task is not None:
            task.join()
        with self._turn:
            self._runner.close()

    def compact(self, start: bytes, stop: bytes | None, progress: Progress | None = None) -> None:
        """Bring all rows of stored keys [start, stop) as deep as they go, without garbage.

        Ends although writes go on. progress: of bytes read, about. Raises Interrupted: compactions
        are paused; StoreFull, StoreFailed, Corruption, OSError, Closed.
        """
        engine = self._engine
        upto = max(
            (t.max_sequence for n in engine.tree.version.levels for t in n.tables), default=0
        )
        blobs_below = engine.next_table
        total = sum(
            table.size_bytes
            for level in engine.tree.version.levels
            for table in level.overlapping(start, stop)
        )
        done = 0
        while True:
            with self._turn:
                self._check()
                expired_ms = self._expired_ms()
                step = pick_in_range(
                    engine.tree.version, self.options, start, stop,
                    now_ms=expired_ms, upto_sequence=upto, blobs_below=blobs_below,
                )  # fmt: skip
                if step.job is None:
                    break
                if self.paused:
                    raise Interrupted("compactions are paused")
                before, is_cancelled = done, False

                def told(read: int, written: int, before: int = before) -> None:
                    if progress is not None:
                        progress(before + read, max(total, before + read))

                try:
                    self._run(step.job, expired_ms, told)
                    done += step.job.input_bytes
                except Cancelled:  # by who needs the files for a moment, or a row: once more, then
                    is_cancelled = True
                except OSError as error:
                    if error.errno not in SPACE_ERRORS:
                        raise
                    raise StoreFull(f"no room for a compaction: {error}") from error
            while is_cancelled and self._holds and not self._closing:
                self._home.env.wait(_HELD_WAIT_S)
        if progress is not None:
            progress(max(done, total), max(done, total))

    def pressure(self) -> Pressure:
        """What writers should know of the tree."""
        version = self._engine.tree.version
        if self._pressure is None or self._pressure[0]() is not version:
            # Weakly: a version that is remembered keeps its tables' files (tables.py, G2).
            expired_ms = self._engine.spare_ms(self._now_ms())
            self._pressure = (ref(version), pressure(version, self.options, expired_ms))
        return self._pressure[1]

    def throttle(self) -> float:
        """How much writers should be held back for the tree's sake, 0.0 to 1.0.

        Not at all where no compaction would end it: paused, out of room, stopped by damage.
        """
        if self.error or self._is_stopped():
            return 0.0
        return self.pressure().throttle

    # -- in the background -------------------------------------------------------------------------

    def _in_background(self) -> None:
        try:
            while True:
                with self._gate:
                    self._pending = False
                self._work()
                self._engine.tables.collect()
                with self._gate:
                    if not self._pending or self._closing:
                        self._busy = False
                        return
        except BaseException:
            self._busy = False
            raise

    def _work(self) -> None:
        self._engine.tables.collect()
        while not (self._is_stopped() or self._broken):
            if self.error and self._home.env.monotonic_ns() < self._retry_at_ns:
                return
            try:
                with self._turn:
                    expired_ms = self._expired_ms()
                    job = self._pick(expired_ms)
                    if job is None or self._is_stopped():
                        return
                    self._run(job, expired_ms, None)
            except (Cancelled, Closed):
                return
            except (OSError, Error) as error:
                self._note(error)
                return

    def _pick(self, expired_ms: int) -> Job | None:
        version = self._engine.tree.version
        deletions = [
            deletion
            for level in version.levels
            if level.range_deletions
            for table in level.tables
            if table.range_deletions
            for deletion in self._engine.tables.get(table).ranges
        ]
        return pick(version, self.options, now_ms=expired_ms, deletions=deletions)

    def _run(self, job: Job, expired_ms: int, progress: Callable[[int, int], None] | None) -> None:
        """Run a job, install it. Raises OSError, Error, Cancelled; the inputs are as they were."""
        engine, home = self._engine, self._home
        self.running = job
        try:
            if job.kind != MERGE:
                with engine.editing():
                    self._install(job.edit(), (), expired_ms)
            else:
                outcome = self._merge(job, expired_ms, progress)
                added = tuple(self._described(job, table) for table in outcome.tables)
                try:
                    with engine.editing():
                        self._install(job.edit(added), outcome.gone, expired_ms)
                except (Cancelled, StoreFull, Corruption, UnsupportedFormat):
                    # The manifest is as it was.
                    remove_tables(home.env, home.directory, [table.number for table in added])
                    raise
                self._count(outcome)
            self.figures.merges += job.kind == "merge"
            self.figures.moves += job.kind == "move"
            self.figures.drops += job.kind == "drop"
            self.error = ""
        finally:
            self.running = None
        engine.tables.collect()
        home.env.pause()

    def _merge(
        self, job: Job, expired_ms: int, progress: Callable[[int, int], None] | None
    ) -> Outcome:
        engine, home = self._engine, self._home
        if self._is_stopped():
            raise Cancelled  # before the helper is asked: it would be killed for it
        count = numbers_needed(job)
        with engine.editing():
            first = engine.allot(count)
        task = Task(
            home.directory, engine.store_id, job, first, count, expired_ms,
            table_options(engine.options), engine.options.compaction_rate,
        )  # fmt: skip
        return self._runner.run(task, progress, self._is_stopped)

    def _install(self, edit: VersionEdit, gone: tuple[bytes, ...], expired_ms: int) -> None:
        newest = self._engine.counted(edit, gone)
        if newest:
            # Who read the clock before the job did, and took the lock after it, comes late; not so
            # late, one trusts, as to come while the edit is written, with the merge in between.
            with self._home.lock:
                if self._engine.spare_ms(expired_ms) < expired_ms:
                    raise Cancelled
        try:
            self._engine.install(edit, newest, self._home.lock)
        except OSError as error:
            # Whether a crash would find the edit is not known: nothing may go, and no edit follow.
            self._fail(error)
            raise StoreFailed(f"the manifest could not be written: {error}") from error

    def _described(self, job: Job, table: TableMeta) -> TableMeta:
        """A table as the picker wants it described: with what its range deletions hide below."""
        if not table.range_deletions:
            return table
        covered = self._engine.tree.version.enclosed_bytes(
            job.output_level, table.start, table.stop
        )
        return replace(table, covered_bytes=covered)

    def _count(self, outcome: Outcome) -> None:
        figures = self.figures
        figures.read_bytes += outcome.bytes_read
        figures.written_bytes += outcome.bytes_written
        figures.rows_read += outcome.rows_read
        figures.rows_written += outcome.rows_written
        figures.expired_rows += len(outcome.gone)

    def _note(self, error: Exception) -> None:
        self.figures.failures += 1
        self.error = str(error)
        self._retry_at_ns = self._home.env.monotonic_ns() + _RETRY_NS
        self._broken = isinstance(error, Corruption | UnsupportedFormat | StoreFailed)
        _logger.error("compaction failed: %s", error)

    def _is_stopped(self) -> bool:
        return self._closing or self.paused or self._holds > 0

    def _check(self) -> None:
        if self._closing:
            raise Closed("the store is closing")
        if self._broken:
            raise StoreFailed(f"compactions have stopped: {self.error}")

    def _expired_ms(self) -> int:
        """The deadline up to which rows may go now (Z4)."""
        # Under the lock: who changes a key under it looked at its deadline by an earlier clock.
        with self._home.lock:
            return self._engine.spare_ms(self._now_ms())

    def _now_ms(self) -> int:
        return self._home.now_ms()
