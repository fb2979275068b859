"""Generations: starting a new one from the present state, while writers go on.

Owns which generation is active, which logs are live, and background work on them; not the switch
of the version file (layout.py) nor what a checkpoint holds (the engine's).

G1  a checkpoint never blocks writers for longer than the switch of the log file.
G2  nothing is removed before the version that no longer needs it is durable.
G3  a checkpoint that finds no room leaves the old generation going on; any other error is final.
G4  who removes files holds _running: so do verify and backup, which read them.

A switch, in order: the old log is marked and synced; the next log is made and writers go on in it;
the engine pins its state and writes it (engine.NewGeneration); `version` is switched; old files
are removed. A crash anywhere leaves the old generation with both logs, or the new one.

Threading: any thread; _running serializes checkpoints, the commit queue hands out the log.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from marram.env.api import Env, Task
from marram.errors import Closed, InvalidArgument, StoreFull
from marram.storage import layout
from marram.storage.clock import StoreClock
from marram.storage.commit import CommitQueue
from marram.storage.engine import SPACE_ERRORS, Engine, Home, Origin, Progress, Replacement
from marram.storage.history import History, mark_of
from marram.storage.lock import CloseNote
from marram.storage.log.format import LogHeader, LogStart
from marram.storage.log.writer import LogWriter
from marram.storage.options import Options
from marram.storage.recovery import Recovered, header_at

_logger = logging.getLogger("marram.store")

_EPOCH_LIMIT = 2**63
_RETRY_NS = 30 * 10**9  # after a checkpoint failed: every try costs a log file


class Generations:
    """The generations of one open store."""

    def __init__(
        self,
        env: Env,
        directory: str,
        options: Options,
        engine: Engine,
        commit: CommitQueue,
        clock: StoreClock,
        history: History,
        recovered: Recovered,
    ) -> None:
        self.number = recovered.generation
        self._env = env
        self._directory = directory
        self._options = options
        self._engine = engine
        self._commit = commit
        self._clock = clock
        self._history = history
        self.home = Home(env, directory, options, commit.lock, clock.now_ms)
        self._store_id = recovered.store_id
        self._earlier_log_bytes = recovered.live_log_bytes
        self._running = threading.Lock()
        self._sync_lock = threading.Lock()  # a log is not closed while it is being synced
        self._stop = threading.Event()
        self._tasks: list[Task] = []  # checkpoints
        self._syncing: Task | None = None  # apart: it ends with the store, so nobody waits for it
        self._queued = False  # a background checkpoint was started and has not ended
        self._count = 0
        self.last_ms = 0  # wall clock, ms; 0 for none since opening
        self._last_error = ""
        self._retry_at_ns = 0

    # -- in the order of a life ------------------------------------------------------------------

    def open(self) -> None:
        """Start what runs all the time."""
        self._set_up(self._commit.log)
        try:
            self._release_logs()
        except OSError as error:  # nobody was promised anything; the next switch tries again
            _logger.warning("logs kept for replicas could not be removed: %s", error)
        if self._options.durability == "interval":
            self._syncing = self._env.start("marram-sync", self._sync_now_and_then)

    def log_bytes(self) -> int:
        """Bytes in the live logs: what a recovery would replay."""
        return self._earlier_log_bytes + self._commit.log.end

    def due(self) -> bool:
        """Whether a checkpoint should be made now, by the engine's measure."""
        if self._queued or not self._engine.generation_due(self.log_bytes(), self.home):
            return False
        return not self._last_error or self._env.monotonic_ns() >= self._retry_at_ns

    def start(self) -> bool:
        """Checkpoint in the background; False where one is under way already."""
        if self._queued or self._running.locked() or self._stop.is_set():
            return False
        self._queued = True
        self._tasks = [task for task in self._tasks if not task.join(0)]
        try:
            self._tasks.append(self._env.start("marram-checkpoint", self._in_background))
        except RuntimeError as error:  # no more threads
            self._queued = False
            _logger.error("background checkpoint could not be started: %s", error)
            return False
        return True

    def help(self, timeout_s: float) -> bool:
        """Wait for the background checkpoint, starting one that is due; False where none runs.

        Raises StoreFull: there is no room for it.
        """
        if self.due():
            self.start()
        elif self._last_error and not self._queued:
            raise StoreFull(f"no room for a checkpoint: {self._last_error}")
        tasks = self._tasks if self._queued else []
        for task in tasks[-1:]:
            task.join(timeout_s)
        return bool(tasks)

    def checkpoint(
        self, progress: Progress | None = None, check_open: Callable[[], None] | None = None
    ) -> None:
        """Start a new generation from the present state (G1). Raises StoreFull, StoreFailed.

        check_open: called once it is this checkpoint's turn; raises where the store was closed.
        """
        with self._running:
            if check_open is not None:
                check_open()
            generation = self._commit.log.number + 1
            try:
                self._switch_log(generation)
                self._write(generation, progress)
            except OSError as error:
                self._last_error = str(error)
                self._retry_at_ns = self._env.monotonic_ns() + _RETRY_NS
                if error.errno not in SPACE_ERRORS:
                    self._commit.fail(error)
                self._commit.check()
                raise StoreFull(f"no room for a checkpoint: {error}") from error
            self._last_error = ""
            self._count += 1
            self.last_ms = self._env.wall_ms()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep generations from switching for a while; waits for one that is under way."""
        with self._running:
            yield

    def release_logs(self) -> None:
        """Remove kept logs that have become too old; nothing where something else is under way.

        Raises StoreFailed: the store latches where a file cannot be removed.
        """
        if not self._running.acquire(blocking=False):
            return
        try:
            if not self._stop.is_set():
                self._release_logs()
        except OSError as error:
            self._commit.fail(error)
            self._commit.check()
        finally:
            self._running.release()

    def raise_epoch(self, epoch: int) -> None:
        """Write what is appended from here on in a higher epoch: durably so when this returns.

        Raises InvalidArgument: it is not higher; StoreFull: no room to note it; both change
        nothing. StoreFailed.
        """
        with self._running:
            commit = self._commit
            if not commit.epoch < epoch < _EPOCH_LIMIT:
                raise InvalidArgument(f"epoch {epoch} is not above {commit.epoch}")
            try:
                while (log := commit.take_log_to_reign(epoch)) is None:
                    commit.wait(commit.last, None, True)  # the frames of who reigned before
            except OSError as error:
                if error.errno not in SPACE_ERRORS:
                    commit.fail(error)
                    commit.check()
                raise StoreFull(f"no room to note an epoch: {error}") from error
            try:
                log.mark(commit.last_written, epoch, commit.now_ms())
                self._sync_file(log)
            except OSError as error:
                commit.give_log(error=error)
                commit.check()
            commit.give_log()

    def replace(
        self, origin: Origin, number: int, epoch: int, work: Replacement, *, is_committed: bool
    ) -> None:
        """Go on in generation `number`, which begins with another store's state. With held().

        No batch can be appended meanwhile. is_committed: as CommitQueue.restart() has it.
        Raises OSError: the old generation goes on; StoreFailed.
        """
        commit = self._commit
        commit.wait(commit.last, None, True)
        old = commit.take_log()
        header = header_at(origin, number, max(epoch, origin.epoch, commit.epoch))
        new: LogWriter | None = None
        is_switched = False
        try:
            new = LogWriter.create(self._env, self._directory, header, 0)
            self._set_up(new)
            with work.switching() as take_over:
                self._switch_version(number)
                is_switched = True
                with self._history.restarting(header) as old_logs, commit.lock:
                    take_over()
                    commit.restart(new, origin.sequence, header.epoch, is_committed=is_committed)
            old_number, self.number = self.number, number
            self._store_id = origin.store_id
            self._earlier_log_bytes = 0
            self._remove_replaced(old, old_number, old_logs)
        except BaseException as error:
            if is_switched or commit.failure is not None:
                # The new generation may be the one that counts: nothing of it may go.
                commit.give_log(error=error)
                commit.check()
            self._abandon_log(number, new, error)
            raise

    def _remove_replaced(self, old: LogWriter, number: int, logs: list[int]) -> None:
        """Remove a generation of another history, and all its logs. Raises OSError."""
        with self._sync_lock:
            old.close()
        self._env.remove(layout.checkpoint_path(self._directory, number))
        for log_number in logs:
            self._env.remove(layout.log_path(self._directory, log_number))
        self._history.let_go(logs)

    def sync_log(self) -> None:
        """Make the log durable as it is now. Raises OSError, having latched."""
        log = self._commit.log
        if log.synced < log.end:
            self._sync_file(log)

    def close(self) -> CloseNote | None:
        """End background work and the log; returns how far it is synced, None after a failure.

        Raises StoreFailed: it could not be made durable.
        """
        self._stop.set()
        for task in self._tasks:
            task.join()
        if self._syncing is not None:
            self._syncing.join()
        commit = self._commit
        try:
            # A checkpoint in another thread sees _stop and gives up; wait for that.
            with self._running:
                if commit.failure is not None:
                    return None
                commit.wait(commit.last, None, True)
                return self._finish_log()
        finally:
            with contextlib.suppress(OSError):  # after a failure: the lock must go all the same
                commit.log.close()

    def stats(self) -> dict[str, Any]:
        """Figures about checkpoints."""
        return {
            "count": self._count,
            "running": self._running.locked(),
            "last_ms": self.last_ms,
            "last_error": self._last_error,
        }

    # -- private: the switch ---------------------------------------------------------------------

    def _in_background(self) -> None:
        try:
            self.checkpoint()
        except Exception as error:  # the thread's last line of defence: told, not lost
            self._last_error = str(error)
            _logger.error("background checkpoint failed: %s", error)
        finally:
            self._queued = False

    def _switch_log(self, number: int) -> None:
        """Go on in a new log. Raises OSError: the old one goes on, or the store has failed."""
        commit = self._commit
        old = commit.take_log()
        try:
            # The old log must be whole on disk before the new one can hold anything: recovery
            # would else see a hole.
            old.mark(commit.last_written, commit.epoch, commit.now_ms())
            self._sync_file(old)
        except BaseException as error:
            commit.give_log(error=error)
            raise
        start = LogStart(old.batch_epoch, old.chain, commit.now_ms())
        header = LogHeader(
            self._store_id, number, old.end, commit.last_written, commit.epoch, start
        )
        new: LogWriter | None = None
        try:
            new = LogWriter.create(self._env, self._directory, header, commit.pending_bytes)
            self._set_up(new)
            with self._history.switching(header):
                commit.give_log(new)
        except BaseException as error:
            self._abandon_log(number, new, error)
            raise
        self._earlier_log_bytes += old.end
        with self._sync_lock:
            old.close()

    def _set_up(self, log: LogWriter) -> None:
        """Let a log grow as the engine likes, and write it through memory where that is a gain.

        With a sync after each group there is none: every page would fault again.
        """
        log.max_step = self._engine.log_step_bytes
        log.is_mapped = self._options.mapped_log and self._options.durability != "sync"

    def _abandon_log(self, number: int, new: LogWriter | None, error: BaseException) -> None:
        """Remove a log that could not be made, and go on in the old one (or fail)."""
        path = layout.log_path(self._directory, number)
        try:
            if new is not None:
                new.close()
            if self._env.exists(path):
                self._env.remove(path)
                self._env.sync_dir(self._directory)
        except OSError as second:
            error = second  # it may come back after a crash, and promise an end the old log passed
        is_space = isinstance(error, OSError) and error.errno in SPACE_ERRORS
        self._commit.give_log(error=None if is_space else error)

    def _write(self, generation: int, progress: Progress | None) -> None:
        """Have the engine write its present state and switch to it. Raises OSError."""
        env, directory, commit = self._env, self._directory, self._commit
        with commit.lock:
            work = self._engine.begin_generation(self.home, generation, commit.last)
            unwritten = commit.unwritten()
            # Of the same moment: a row that has expired by then is left out, and a later batch that
            # takes its deadline away finds it gone already.
            now_ms = self._clock.now_ms()
        try:
            commit.wait(work.position, None, True)
            mark = mark_of(unwritten, work.position)
            del unwritten
            origin = Origin(self._store_id, mark.epoch, mark.sequence, now_ms, mark.chain)
            work.write(origin, self._check_going_on, progress)
            # The log may be behind the state that was just written: it would go on with a hole.
            self.sync_log()
            with work.switching():
                self._switch_version(generation)
        finally:
            work.end()
        old_number, self.number = self.number, generation
        self._earlier_log_bytes = 0
        env.remove(layout.checkpoint_path(directory, old_number))
        self._release_logs()

    def _release_logs(self) -> None:
        """Remove the logs that neither recovery nor a replica needs (history.py, Q3).

        What is kept gives back the space that was reserved behind its end. Raises OSError.
        """
        numbers = self._history.release(self.number, self._clock.now_ms())
        for number in numbers:
            self._env.remove(layout.log_path(self._directory, number))
        self._history.let_go(numbers)
        for number, end in self._history.untrimmed():
            file = self._env.open(layout.log_path(self._directory, number), write=True)
            try:
                if file.size() > end:
                    file.truncate(end)
            finally:
                file.close()

    def _switch_version(self, generation: int) -> None:
        try:
            layout.switch_version(self._env, self._directory, generation)
        except OSError as error:
            # Which generation a crash would find is unknown now.
            self._commit.fail(error)
            self._commit.check()

    def _check_going_on(self) -> None:
        if self._stop.is_set():
            raise Closed("the store is closing")

    # -- private: syncing ------------------------------------------------------------------------

    def _sync_now_and_then(self) -> None:
        # Twice an interval: so what is not synced is younger than one, if a sync takes less than
        # half of one. Where it takes longer, writers are held up (commit.py C8).
        while not self._stop.wait(self._options.interval_ms / 2000):
            if self._commit.failure is not None:
                return
            with contextlib.suppress(OSError):  # latched by _sync_file
                self.sync_log()

    def _sync_file(self, log: LogWriter) -> None:
        """Sync a log beside its writers. A failure is final (P4). Raises OSError."""
        with self._sync_lock:
            if log is not self._commit.log:
                return  # switched meanwhile, which synced it
            began_ns = self._env.monotonic_ns()
            try:
                if log.synced < log.end:
                    log.sync()
            except OSError as error:
                self._commit.fail(error)
                raise
            self._commit.note_sync(began_ns)

    def _finish_log(self) -> CloseNote:
        """End the log for a clean close. Raises StoreFailed."""
        commit = self._commit
        log = commit.log
        try:
            log.sync()
            log.mark(commit.last, commit.epoch, commit.now_ms())
            log.sync()
            log.trim()
        except OSError as error:
            commit.fail(error)
            commit.check()
        return CloseNote(log.number, log.end)
