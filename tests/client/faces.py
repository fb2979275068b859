"""The four faces of the API behind one: what a test does to one it can do to all.

The synchronous two are used as they are; the asynchronous two run on a loop in a thread, and every
call waits for its result.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Awaitable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import marram
from tests.server.serving import DEADLINE_S, Running, config_for

FACES = ("DB", "RemoteDB", "AsyncDB", "AsyncRemoteDB")


class LoopThread:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="loop under test")
        self._thread.start()

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """The result of an awaitable, within the deadline."""

        async def waited() -> Any:
            async with asyncio.timeout(DEADLINE_S):
                return await awaitable

        return asyncio.run_coroutine_threadsafe(waited(), self.loop).result(DEADLINE_S + 1)

    def stop(self) -> None:
        """End the thread; whatever is left on the loop is a mistake."""
        left = self.run(self._left())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DEADLINE_S)
        self.loop.close()
        assert not left, left

    async def _left(self) -> list[asyncio.Task[Any]]:
        await asyncio.sleep(0)
        current = asyncio.current_task()
        ours = "LoopThread.run"
        return [t for t in asyncio.all_tasks() if t is not current and ours not in repr(t)]


class Face:
    """A synchronous DB or RemoteDB with the few names that differ between the faces."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def contains(self, key: bytes) -> bool:
        return key in self._db

    def count(self) -> int:
        return len(self._db)

    def position(self) -> Any:
        return self._db.position

    def keys(self) -> list[bytes]:
        return list(self._db)

    def keyspace(self, number: int) -> Face:
        return Face(self._db.keyspace(number))


class Blocking:
    """Anything of the asynchronous API, every call waited for."""

    def __init__(self, loop: LoopThread, thing: Any) -> None:
        self._loop = loop
        self._thing = thing

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._thing, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._resolved(attribute(*args, **kwargs))

        return call

    def _resolved(self, result: Any) -> Any:
        if inspect.iscoroutine(result):
            return self._loop.run(result)
        if hasattr(result, "__anext__"):
            return self._iterated(result)
        if hasattr(result, "__aenter__"):
            return Blocking(self._loop, result)
        return result

    def _iterated(self, rows: Any) -> Iterator[Any]:
        while True:
            try:
                yield self._loop.run(rows.__anext__())
            except StopAsyncIteration:
                return

    def __enter__(self) -> Blocking:
        entered = self._loop.run(self._thing.__aenter__())
        return self if entered is self._thing else Blocking(self._loop, entered)

    def __exit__(self, *about: Any) -> None:
        self._loop.run(self._thing.__aexit__(*about))

    def __getitem__(self, key: bytes) -> bytes:
        value: bytes | None = self.get(key)
        if value is None:
            raise marram.NotFound(repr(key))
        return value

    def __len__(self) -> int:
        return len(self._thing)

    def keys(self) -> list[bytes]:
        return list(self._iterated(self._thing.__aiter__()))


def awaited(opening: Any) -> Coroutine[Any, Any, Any]:
    """An opening as a coroutine."""

    async def wait() -> Any:
        return await opening

    return wait()


def url_of(running: Running, keyspace: int = 0) -> str:
    """The URL of a server under test."""
    host, port = running.address()
    return f"marram://{host}:{port}" + (f"/{keyspace}" if keyspace else "")


@contextlib.contextmanager
def opened(face: str, directory: Path, **options: Any) -> Iterator[Any]:
    """A store in `directory` behind one of the faces; options: of the store."""
    with contextlib.ExitStack() as stack:
        if face == "DB":
            yield Face(stack.enter_context(marram.open(directory / "data", **options)))
            return
        if face.startswith("Async"):
            loop = LoopThread()
            stack.callback(loop.stop)
        if "Remote" in face:
            running = stack.enter_context(Running(config_for(directory, **options)))
        if face == "RemoteDB":
            yield Face(stack.enter_context(marram.connect(url_of(running), timeout_s=DEADLINE_S)))
            return
        if face == "AsyncDB":
            opening: Any = marram.open_async(directory / "data", **options)
        else:
            opening = marram.connect_async(url_of(running), timeout_s=DEADLINE_S)
        db = loop.run(awaited(opening))
        stack.callback(lambda: loop.run(db.close()))
        yield Blocking(loop, db)
