"""Work on the store beside commands: expiry, checkpoints, syncs, and waiting for any of them.

Owns when background work starts and who is told of its end; the work itself is the store's, holding
writers back meanwhile stalls.py's.

U1  nothing here blocks the node's thread: checkpoints and syncs run in env's threads.
U2  a caller of checkpoint() or wait_synced() is answered after a run that began after it asked.
U3  a tick spends at most EXPIRY_BUDGET_MS on expired keys.

Threading: the thread that owns the node; the work of Rounds in env's threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from marram.commands.spec import CommandError
from marram.env.api import Env
from marram.errors import Corruption, Error, StoreFull
from marram.node.compaction import Compaction
from marram.node.deferred import Deferred
from marram.node.loop import Loop
from marram.node.settings import Settings
from marram.node.stalls import Gate, Stalls
from marram.protocol.replies import ErrorReply
from marram.storage.backup import backup
from marram.storage.engine import Range
from marram.storage.store import Store
from marram.storage.verify import verify_store

_logger = logging.getLogger("marram.node")

EXPIRY_KEYS: Final = 200  # a batch
EXPIRY_BUDGET_MS: Final = 10
LOGS_EVERY_NS: Final = 60 * 10**9
_POLL_MIN_S: Final = 0.0005  # how often a wait with a timeout looks at what is committed:
_POLL_MAX_S: Final = 0.01  # twice as long after each look

UNBLOCKED: Final = "UNBLOCKED client unblocked via CLIENT UNBLOCK"


class Replies(Protocol):
    """What is asked of the node."""

    def settle(self, deferred: Deferred, reply: Any) -> None:
        """Resolve a deferred."""
        ...

    def depend_on(self, position: int) -> None:
        """Hold the present reply until `position` is committed."""
        ...


class Rounds:
    """Background work that many may ask for: who asks during a run shares the next one (U2)."""

    def __init__(self, env: Env, loop: Loop, name: str, work: Callable[[], None]) -> None:
        self._env = env
        self._loop = loop
        self._name = name
        self._work = work
        self._waiting: list[Callable[[Exception | None], None]] = []
        self.running = False

    def ask(self, answer: Callable[[Exception | None], None]) -> None:
        """Call answer(None), or answer(what went wrong), on the node's thread after a run."""
        self._waiting.append(answer)
        if not self.running:
            self._start()

    def _start(self) -> None:
        self.running = True
        told, self._waiting = self._waiting, []

        def work() -> None:
            failure: Exception | None = None
            try:
                self._work()
            except Exception as error:  # told to whoever asked
                failure = error
            self._loop.call_soon_threadsafe(lambda: self._finish(told, failure))

        self._env.start(self._name, work)

    def _finish(
        self, told: list[Callable[[Exception | None], None]], failure: Exception | None
    ) -> None:
        self.running = False
        if self._waiting:
            self._start()
        for answer in told:
            answer(failure)


class Upkeep:
    """The store's housekeeper."""

    active_expiry: bool
    """Whether ticks delete expired keys; reads hide them all the same."""

    def __init__(
        self, store: Store, settings: Settings, env: Env, loop: Loop, replies: Replies, gate: Gate
    ) -> None:
        self.active_expiry = True
        self.stalls = Stalls(store, env, loop, gate)
        self.compaction = Compaction(store)
        self._settings = settings
        self._store = store
        self._env = env
        self._loop = loop
        self._replies = replies
        self._started_s = env.wall_ms() // 1000
        self._checkpoints = Rounds(env, loop, "marram-checkpoint", store.checkpoint)
        self._syncs = Rounds(env, loop, "marram-sync", store.sync)
        self._no_room = False
        self._logs_looked_at_ns = env.monotonic_ns()
        self._running: set[str] = set()  # backups and checks under way

    @property
    def last_save_s(self) -> int:
        """When a checkpoint last ended, or the node started; seconds since 1970."""
        return max(self._started_s, self._store.generations.last_ms // 1000)

    @property
    def all_synced(self) -> bool:
        """Whether all that was written is known to be on disk."""
        return self._store.options.durability == "sync" and not self._store.unsettled

    # -- ticks -------------------------------------------------------------------------------------

    def tick(self, *, expire: bool) -> float:
        """Delete expired keys, start a due checkpoint, hold writers back; returns how long, ms."""
        started_ns = self._env.monotonic_ns()
        if expire and self.active_expiry:
            self._expire(started_ns + EXPIRY_BUDGET_MS * 1_000_000)
        if self._store.failure is None and self._store.checkpoint_due():
            self._store.start_checkpoint()
        if started_ns - self._logs_looked_at_ns >= LOGS_EVERY_NS:
            self._logs_looked_at_ns = started_ns
            self._release_logs()
        self.stalls.look()
        return (self._env.monotonic_ns() - started_ns) / 1e6

    def _release_logs(self) -> None:
        """Have logs removed that were kept for replicas for too long; checkpoints do it as well."""
        store = self._store
        if store.failure is None and store.history.has_overdue(store.now_ms()):

            def release() -> None:
                try:
                    store.generations.release_logs()
                except Error as error:  # the thread's last line of defence; the store is latched
                    _logger.error("old logs could not be removed: %s", error)

            self._env.start("marram-logs", release)

    def _expire(self, until_ns: int) -> None:
        try:
            while self._store.expire_due(EXPIRY_KEYS) == EXPIRY_KEYS:
                if self._env.monotonic_ns() >= until_ns:
                    break
        except StoreFull as error:
            if not self._no_room:
                _logger.warning("expired keys cannot be deleted now: %s", error)
            self._no_room = True
        except Error as error:
            _logger.warning("expired keys cannot be deleted: %s", error)
            self.active_expiry = False
        else:
            self._no_room = False

    # -- checkpoints and syncs ---------------------------------------------------------------------

    def start_checkpoint(self) -> bool:
        """Begin one in the background; False where one is under way."""
        return not self._checkpoints.running and self._store.start_checkpoint()

    def checkpoint(self, reply: Any) -> Deferred:
        """Make a checkpoint; `reply` after it, or an error."""
        deferred = Deferred()

        def answer(failure: Exception | None) -> None:
            self._replies.settle(deferred, reply if failure is None else _refusal(failure))

        self._checkpoints.ask(answer)
        return deferred

    # -- backups and checks ------------------------------------------------------------------------

    def backup(self, name: str, answer: Callable[[Any], Any]) -> Deferred:
        """Copy the store, as of now, to a new directory of that name; answer(its position).

        It is made in the directory that the operator chose for backups. Raises CommandError.
        """
        root = self._settings.backup_dir
        if not root:
            raise CommandError("ERR backups are off: start the server with --backup-dir")
        return self._run("backup", lambda: answer(backup(self._store, f"{root}/{name}")))

    def verify(self, answer: Callable[[Any], Any]) -> Deferred:
        """Read every byte of the store's files; answer(the report)."""
        return self._run("verify", lambda: answer(verify_store(self._store)))

    def compact(self, where: Range | None, answer: Callable[[str], Any]) -> Deferred:
        """Take out of the files what is of no use any more; answer(what was done).

        where: only that range. Raises CommandError: compactions are paused, or one was asked for
        already.
        """
        self.compaction.check()
        return self._run("compact", lambda: answer(self.compaction.run(where)))

    def _run(self, name: str, work: Callable[[], Any]) -> Deferred:
        """Answer with what `work` gives in a thread; one of each name at a time."""
        if name in self._running:
            raise CommandError(f"ERR a {name} is under way")
        self._running.add(name)
        deferred = Deferred()

        def finish(reply: Any) -> None:
            self._running.discard(name)
            refused = isinstance(reply, Exception)
            self._replies.settle(deferred, _refusal(reply) if refused else reply)

        def run() -> None:
            try:
                reply = work()
            except Exception as error:  # told to whoever asked
                reply = error
            with suppress(RuntimeError):  # the loop ended meanwhile, and nobody waits any more
                self._loop.call_soon_threadsafe(lambda: finish(reply))

        self._env.start(f"marram-{name}", run)
        return deferred

    # -- waiting -----------------------------------------------------------------------------------

    def wait_committed(self, position: int, timeout_ms: int, answer: Callable[[bool], Any]) -> Any:
        """answer(True) once `position` is committed, answer(False) when the time is over.

        timeout_ms: 0 for as long as it takes.
        """
        if not timeout_ms or self._store.committed >= position:
            self._replies.depend_on(position)  # the shell holds every reply for its position
            return answer(True)
        store = self._store
        return self.wait_until(lambda: store.committed >= position, timeout_ms, answer)

    def wait_until(
        self, is_met: Callable[[], bool], timeout_ms: int, answer: Callable[[bool], Any]
    ) -> Deferred:
        """answer(True) once is_met(), answer(False) when the time is over (0: never).

        The answer may be deferred once more.
        """
        deferred = self._waiting(timeout_ms, answer)
        store = self._store

        def look(again_s: float) -> None:
            if deferred.done:
                return
            if is_met():
                deferred.on_cancel = None
                self._settle_with(deferred, answer(True))
            elif store.failure is not None:
                self._replies.settle(deferred, _refusal(store.failure))
            else:
                later_s = min(2 * again_s, _POLL_MAX_S)
                self._loop.call_later(again_s, lambda: look(later_s))

        look(_POLL_MIN_S)
        return deferred

    def _settle_with(self, deferred: Deferred, reply: Any) -> None:
        if isinstance(reply, Deferred):
            reply.on_done(lambda value: self._replies.settle(deferred, value))
        else:
            self._replies.settle(deferred, reply)

    def wait_synced(self, timeout_ms: int, answer: Callable[[bool], Any]) -> Any:
        """answer(True) once all that was written so far is on disk, whatever the durability."""
        if self._store.options.durability == "sync":
            return self.wait_committed(self._store.last, timeout_ms, answer)
        deferred = self._waiting(timeout_ms, answer)

        def synced(failure: Exception | None) -> None:
            self._replies.settle(deferred, answer(True) if failure is None else _refusal(failure))

        self._syncs.ask(synced)
        return deferred

    def sleep(self, duration_ms: int, answer: Callable[[bool], Any]) -> Deferred:
        """answer(False) after a while; 0 for never: until it is unblocked."""
        return self._waiting(duration_ms, answer)

    def _waiting(self, timeout_ms: int, answer: Callable[[bool], Any]) -> Deferred:
        """A deferred that ends by timeout, or by CLIENT UNBLOCK."""
        deferred = Deferred()

        def cancel(with_error: bool) -> None:
            self._replies.settle(deferred, ErrorReply(UNBLOCKED) if with_error else answer(False))

        deferred.on_cancel = cancel
        if timeout_ms:
            timer = self._loop.call_later(timeout_ms / 1000, lambda: cancel(False))
            deferred.on_done(lambda _: timer.cancel())
        return deferred


def _refusal(failure: BaseException) -> ErrorReply:
    if isinstance(failure, StoreFull):
        return ErrorReply(f"MISCONF {failure}")
    if isinstance(failure, CommandError):
        return ErrorReply(str(failure))
    if isinstance(failure, Corruption):
        return ErrorReply(f"CORRUPTION {failure}")
    _logger.error("background work failed: %s", failure)
    return ErrorReply(f"ERR {failure}")
