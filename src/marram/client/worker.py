"""Threads that an event loop hands blocking work to, and the one that commits for it.

Owns a worker thread's queue, and who is told when a position is committed; not what the work is.

K1  no call of the loop's blocks on a sync: a worker makes it, and what arrives meanwhile shares
    the next one.
K2  a waiter that is cancelled takes nothing with it: neither the batch nor the other waiters.
K3  after the log failed every waiter, present and future, gets OutcomeUnknown.

Threading: Worker.run() and Commits on the loop's thread; the jobs on the worker's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

from marram.env.api import Env
from marram.errors import OutcomeUnknown
from marram.storage.store import Store

T = TypeVar("T")


class Worker:
    """One thread that does its jobs in order. stop() it when done."""

    __slots__ = ("_jobs", "_loop")

    def __init__(self, env: Env, name: str) -> None:
        """Start the thread; the running loop is the one that is told of results."""
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        env.start(name, self._work)

    def submit(self, job: Callable[[], None]) -> None:
        """Do `job` after those before it; it must not raise."""
        self._jobs.put(job)

    def tell(self, callback: Callable[[], None]) -> None:
        """From a job: run `callback` on the loop."""
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self._loop.call_soon_threadsafe(callback)

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` after the jobs before it; return or raise what it does."""
        future: asyncio.Future[T] = self._loop.create_future()

        def job() -> None:
            try:
                result = work()
            except BaseException as error:  # whatever it is: carried over to the loop
                failure = error
                self.tell(lambda: None if future.done() else future.set_exception(failure))
            else:
                self.tell(lambda: None if future.done() else future.set_result(result))

        self._jobs.put(job)
        return await future

    def stop(self) -> None:
        """End the thread after the jobs it has."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


async def aside(env: Env, name: str, work: Callable[[], T]) -> T:
    """Do one long piece of work on a thread of its own."""
    worker = Worker(env, name)
    try:
        return await worker.run(work)
    finally:
        worker.stop()


class Commits:
    """Gets positions of a store committed, and resolves those who wait for them."""

    __slots__ = ("_armed", "_busy", "_loop", "_store", "_waiting", "_worker")

    def __init__(self, store: Store, worker: Worker) -> None:
        self._store = store
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._armed = False  # _flush() is scheduled
        self._busy = False  # the worker has a job

    async def reach(self, position: int) -> None:
        """Return once `position` is committed. Raises OutcomeUnknown."""
        if position <= self._store.committed:
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((position, future))
        if not self._armed and not self._busy:
            # After this turn of the loop: what other tasks append in it shares the sync.
            self._armed = True
            self._loop.call_soon(self._flush)
        await future

    def _flush(self) -> None:
        self._armed = False
        self._release()
        if not self._waiting:
            return
        last = self._waiting[-1][0]
        commit = self._store.commit
        if not commit.sync_each and (group := commit.take()) is not None:
            # Without a sync it is one write to the page cache: cheaper than two thread switches.
            error: Exception | None = None
            try:
                group.write()
            except Exception as raised:  # whatever it is, the store latches on it
                error = raised
            commit.complete(group, error)
            self._release()
            if self._waiting:  # for what another thread appended meanwhile
                self._armed = True
                self._loop.call_soon(self._flush)
            return
        self._busy = True
        self._worker.submit(lambda: self._commit(last))

    def _commit(self, position: int) -> None:
        try:
            self._store.commit.wait(position)
        except Exception as error:  # whatever it is: nobody may wait for ever
            self._store.commit.fail(error)  # changes nothing where the store has failed before
        self._worker.tell(self._committed)

    def _committed(self) -> None:
        self._busy = False
        self._flush()

    def _release(self) -> None:
        committed = self._store.committed
        failure = self._store.failure
        waiting, self._waiting = self._waiting, []
        for position, future in waiting:
            if future.done():
                continue  # cancelled (K2)
            if position <= committed:
                future.set_result(None)
            elif failure is not None:
                future.set_exception(
                    OutcomeUnknown(f"the log failed before this was known to be durable: {failure}")
                )
            else:
                self._waiting.append((position, future))
