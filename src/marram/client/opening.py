"""What the asyncio API hands out before anything is awaited, and rows that come in chunks.

Owns two small shapes that the local and the remote classes share:

    Opening     `await opening` and `async with opening` both give the thing that is being opened
    Rows        `async for key, value in rows`, fetched a chunk at a time

Q1  Rows abandoned half-way let go of what they pin as soon as they are no longer referred to; an
    async generator would keep it until the event loop gets round to it.

Threading: on the loop that made them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

T = TypeVar("T", bound=AbstractAsyncContextManager[Any])

Pair = tuple[bytes, bytes]


class Opening(Generic[T]):
    """Something that opens when it is awaited, or entered."""

    __slots__ = ("_open", "_opened")

    def __init__(self, open_: Callable[[], Awaitable[T]]) -> None:
        self._open = open_
        self._opened: T | None = None

    def __await__(self) -> Generator[Any, Any, T]:
        return self._open().__await__()

    async def __aenter__(self) -> T:
        self._opened = await self._open()
        await self._opened.__aenter__()
        return self._opened

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        assert self._opened is not None, "entered before it is left"
        return await self._opened.__aexit__(kind, error, traceback)


class Chunks(Protocol):
    """Where rows come from: each call gives a chunk, an empty one where a slice held nothing."""

    async def fetch(self) -> list[Pair] | None:
        """The next chunk; None at the end."""
        ...


class Rows:
    """An asynchronous iterator of pairs."""

    __slots__ = ("_at", "_chunk", "_chunks")

    def __init__(self, chunks: Chunks) -> None:
        self._chunks: Chunks | None = chunks
        self._chunk: list[Pair] = []
        self._at = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Pair:
        while self._at == len(self._chunk):
            found = None if self._chunks is None else await self._chunks.fetch()
            if found is None:
                self._chunks = None
                raise StopAsyncIteration
            self._chunk = found
            self._at = 0
        pair = self._chunk[self._at]
        self._at += 1
        return pair


class Lists:
    """An asynchronous iterator of lists of pairs."""

    __slots__ = ("_chunks",)

    def __init__(self, chunks: Chunks) -> None:
        self._chunks: Chunks | None = chunks

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Pair]:
        while self._chunks is not None:
            found = await self._chunks.fetch()
            if found:
                return found
            if found is None:
                self._chunks = None
        raise StopAsyncIteration


class Keys:
    """An asynchronous iterator of keys."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return (await self._rows.__anext__())[0]
