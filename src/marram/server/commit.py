"""Drives the store's commit groups from the event loop and releases the replies that wait.

Owns when a group is written, on which thread, and who is told; not what is in it, nor the log.

M1  a waiter is released only after its position is committed, in the order of positions.
M2  after the log failed every waiter, present and future, is failed: its outcome is unknown.
M3  the loop never blocks on a sync while more than one client is at work.

All batches appended while one group is being written share the next one. A group is written on the
loop itself where that costs nobody anything: without a sync, or with one client alone, which would
wait for the sync anyway and is spared two thread switches. Otherwise the sync thread writes it.

Threading: everything on the loop's thread but _write_groups(), which is the sync thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from marram.env.api import Env, Task
from marram.errors import OutcomeUnknown, StoreFailed
from marram.server.logs import event
from marram.storage.store import Store

_logger = logging.getLogger("marram.server")

STILL_REPLICATING: Final = (
    "this is still replicating: too few replicas had it in time; it may yet reach them, or be lost"
)

_ALONE_AFTER: Final = 8
"""Groups in a row that one client caused before it counts as alone."""


class Waiter:
    """Whoever holds something back until a position is committed, `waits_at`."""

    __slots__ = ("waits_at",)

    def __init__(self, waits_at: int = 0) -> None:
        self.waits_at = waits_at

    def release(self, committed: int) -> None:
        """Everything up to `committed` may go; what still waits registers anew with hold()."""

    def fail(self) -> None:
        """Nothing that waits will ever be committed."""

    def give_up(self, first: int, last: int) -> None:
        """What waits for a position of [first, last] is in doubt; the rest registers anew."""


class Committer:
    """The one driver of a store's commits. `client` says who caused work; see note()."""

    __slots__ = (
        "_alone",
        "_armed",
        "_client",
        "_client_changed",
        "_jobs",
        "_loop",
        "_store",
        "_task",
        "_waiting",
        "_writing",
        "on_advance",
        "queue",
    )

    def __init__(self, store: Store, env: Env, loop: asyncio.AbstractEventLoop) -> None:
        self.on_advance: Callable[[], None] = _nobody
        """Called after each group: replicas are sent it, primaries told of it."""
        self.queue = store.commit  # hot: connections compare its `committed`
        self._store = store
        self._loop = loop
        self._waiting: list[Waiter] = []
        self._armed = False  # _flush() is scheduled
        self._writing = False  # the sync thread has a job
        self._client: object = None
        self._client_changed = False
        self._alone = 0  # groups in a row that one client caused
        self._jobs: SimpleQueue[int | None] = SimpleQueue()
        self._task: Task = env.start("marram-commit", self._write_groups)

    @property
    def failed(self) -> bool:
        """Whether the log failed (M2)."""
        return self.queue.failure is not None

    def note(self, client: object) -> None:
        """Say whose commands run now, so that a client alone is known as such (M3)."""
        if client is not self._client:
            self._client = client
            self._client_changed = True

    def note_stream(self) -> None:
        """What runs now is a primary's stream: a sync must not keep us from its next part."""
        self._client_changed = True

    def wake(self) -> None:
        """Something may have been appended: write it once this turn of the loop is over.

        At once where one client is alone: then there is nothing to be had by waiting.
        """
        if self.queue.last == self.queue.durable:
            return
        if self._alone >= _ALONE_AFTER and not (
            self._client_changed or self._armed or self._writing
        ):
            self._flush()
        else:
            self._arm()

    def advance(self) -> None:
        """`committed` moved without a group being written: replicas acknowledged."""
        self._release()

    def give_up(self, first: int, last: int) -> None:
        """Tell those who wait for a position of [first, last] that its outcome is unknown."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if waiter.waits_at <= last:
                waiter.give_up(first, last)
            else:
                self._waiting.append(waiter)

    def hold(self, waiter: Waiter) -> None:
        """Release `waiter` when its waits_at is committed, or fail it."""
        if self.queue.failure is not None and waiter.waits_at > self.queue.committed:
            waiter.fail()
        else:
            self._waiting.append(waiter)
            # Whatever `last` says: another thread may have committed it after the caller looked,
            # and nobody else would look again.
            self._arm()

    async def wait(self, position: int) -> None:
        """Return once `position` is committed. Raises OutcomeUnknown."""
        if position > self.queue.committed:
            waiter = _Future(self, position, self._loop.create_future())
            self.hold(waiter)
            await waiter.future

    def close(self) -> None:
        """End the sync thread, after the job it has."""
        self._jobs.put(None)
        self._task.join()

    # -- private -----------------------------------------------------------------------------------

    def _arm(self) -> None:
        if not self._armed and not self._writing:
            self._armed = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Get what was appended so far written."""
        self._armed = False
        if self._writing:
            return  # _written() goes on
        queue = self.queue
        if self._client_changed:
            self._client_changed = False
            self._alone = 0
        else:
            self._alone += 1
        if queue.last == queue.durable or queue.failure is not None:
            self._advanced()  # another thread wrote it (a checkpoint waits for positions, too)
        elif queue.must_sync and self._alone < _ALONE_AFTER:
            self._writing = True
            self._jobs.put(queue.last)
        elif (group := queue.take()) is not None:
            error: Exception | None = None
            try:
                group.write()
            except Exception as raised:  # whatever it is, the store latches on it
                error = raised
                _logger.exception("writing a commit group failed")
            queue.complete(group, error)
            self._advanced()
        else:
            # The log is being changed by a checkpoint; the sync thread waits until it is free.
            self._writing = True
            self._jobs.put(queue.last)

    def _write_groups(self) -> None:
        """The sync thread: a job is the position to have committed."""
        while (position := self._jobs.get()) is not None:
            try:
                self._store.wait_durable(position)
            except StoreFailed:
                pass  # the store is latched: _release() finds it
            except Exception:  # the thread's last line of defence; the store is latched as well
                _logger.exception("writing a commit group failed")
            self._loop.call_soon_threadsafe(self._written)

    def _written(self) -> None:
        self._writing = False
        self._advanced()
        self.wake()

    def _advanced(self) -> None:
        self._release()
        self.on_advance()

    def _release(self) -> None:
        committed = self.queue.committed
        waiting, self._waiting = self._waiting, []
        keep = self._waiting.append
        for waiter in waiting:
            if waiter.waits_at <= committed:
                waiter.release(committed)
            else:
                keep(waiter)
        if self.queue.failure is not None:
            self._fail()

    def _fail(self) -> None:
        waiting, self._waiting = self._waiting, []
        event(
            _logger, logging.ERROR, "store failed",
            error=str(self.queue.failure), replies_in_doubt=len(waiting),
        )  # fmt: skip
        for waiter in waiting:
            waiter.fail()


class _Future(Waiter):
    """A waiter that is a future; for requests that are coroutines anyway."""

    __slots__ = ("committer", "future")

    def __init__(self, committer: Committer, position: int, future: asyncio.Future[None]) -> None:
        super().__init__(position)
        self.committer = committer
        self.future = future

    def release(self, committed: int) -> None:
        if not self.future.done():
            self.future.set_result(None)

    def fail(self) -> None:
        if not self.future.done():
            self.future.set_exception(
                OutcomeUnknown("the log failed before this was known to be durable")
            )

    def give_up(self, first: int, last: int) -> None:
        if first <= self.waits_at <= last and not self.future.done():
            self.future.set_exception(OutcomeUnknown(STILL_REPLICATING))
        elif not self.future.done():
            self.committer.hold(self)


def _nobody() -> None:
    """Nothing is to be told to anybody."""
