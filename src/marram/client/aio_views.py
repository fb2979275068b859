"""Batch, snapshot and transaction of a remote store, for asyncio.

Owns what lives on one connection: the server's snapshots belong to it and end with it.

V1  a snapshot that is dropped without being closed is closed by a message nobody waits for.
V2  a transaction's writes are one command that the server runs whole or not at all.

Threading: on the loop that made them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from marram.client import calls
from marram.client.calls import CHUNK_ROWS, Call, Opened, Pair, Slices, Writes
from marram.client.levels import Acks, acked, checked_acks
from marram.client.opening import Chunks, Rows
from marram.client.reads import Overlay, ReadsAndWrites
from marram.client.stream import Line, Stream
from marram.errors import Conflict, ConnectionLost, InvalidArgument, OutcomeUnknown
from marram.protocol.resp_client import encode_command
from marram.storage.arguments import checked_count, scan_bounds, to_bytes
from marram.storage.store import Position

if TYPE_CHECKING:
    from marram.client.aio import AsyncRemoteDB

T = TypeVar("T")


async def run_on(stream: Stream, call: Call[T]) -> T:
    """Run a call on a connection. Raises ConnectionLost; OutcomeUnknown for a write in doubt."""
    if not call.commands:
        return call.read([])
    request = b"".join(map(encode_command, call.commands))
    try:
        replies = await stream.exchange(request, len(call.commands))
    except ConnectionLost as error:
        if call.writes:
            raise OutcomeUnknown(f"{error}; the write may or may not have happened") from error
        raise
    return call.read(replies)


async def open_snapshot(line: Line) -> Held:
    """A snapshot on a connection of the line. Raises ConnectionLost."""
    while True:
        stream = await line.roomy()
        was_used = stream.was_used
        opening = asyncio.ensure_future(run_on(stream, calls.open_snapshot()))
        try:
            return Held(stream, await asyncio.shield(opening))
        except ConnectionLost as error:
            stream.snapshots -= 1
            if not was_used or isinstance(error.__cause__, TimeoutError):
                raise
        except asyncio.CancelledError:
            # It will be open all the same: whoever gets the answer drops it, which closes it (V1).
            opening.add_done_callback(partial(_abandon, stream))
            raise
        except BaseException:
            stream.snapshots -= 1
            raise


def _abandon(stream: Stream, opening: asyncio.Future[Opened]) -> None:
    if opening.cancelled() or opening.exception() is not None:
        stream.snapshots -= 1
    else:
        Held(stream, opening.result())


class Held:
    """A snapshot and the connection that it lives on."""

    __slots__ = ("_stream", "closed", "opened")

    def __init__(self, stream: Stream, opened: Opened) -> None:
        self._stream = stream
        self.opened = opened
        self.closed = False

    async def run(self, call: Call[T]) -> T:
        """Run a call where the snapshot is. Raises InvalidArgument: it is closed."""
        if self.closed:
            raise InvalidArgument("the snapshot is closed")
        return await run_on(self._stream, call)

    async def end(self, call: Call[None]) -> None:
        """Run the call that ends the snapshot. Raises Conflict, and what run() does."""
        try:
            await self.run(call)
        except (Conflict, ConnectionLost, OutcomeUnknown):
            self._ended()
            raise
        except BaseException:
            self._forget()  # refused, it may be open yet
            raise
        self._ended()

    async def close(self) -> None:
        """Close the snapshot; idempotent."""
        if self.closed:
            return
        self._ended()
        with suppress(ConnectionLost):  # the server forgot the snapshot with the connection
            await run_on(self._stream, calls.close_snapshot(self.opened))

    def __del__(self) -> None:
        if not self.closed:
            self._forget()

    def _ended(self) -> None:
        self.closed = True
        self._stream.snapshots -= 1

    def _forget(self) -> None:
        """Close it without waiting (V1); also from another thread, or after the loop's end."""
        self._ended()
        commands = calls.close_snapshot(self.opened).commands
        self._stream.post_soon(b"".join(map(encode_command, commands)), len(commands))


class RemoteChunks:
    """The chunks of a scan, at a snapshot given, or at one that lasts as long as the scan."""

    __slots__ = ("_at_least", "_db", "_held", "_slices")

    def __init__(
        self,
        db: AsyncRemoteDB | None,
        slices: Slices,
        held: Held | None = None,
        at_least: Position | None = None,
    ) -> None:
        """Either db or held is given."""
        self._db = db
        self._at_least = at_least
        self._slices = slices
        self._held = held

    async def fetch(self) -> list[Pair] | None:
        """One round trip."""
        slices = self._slices
        if slices.done:
            return None
        held = self._held
        if held is None:
            assert self._db is not None
            await self._db.reach(self._at_least)
            held = self._held = await open_snapshot(self._db.line)
        rows = slices.taken(await held.run(slices.call(held.opened)))
        if slices.done and self._db is not None:
            await held.close()  # nothing stays open while the caller works on the last rows
        return rows


class _Overlaid:
    """Chunks of a scan as a transaction sees them."""

    __slots__ = ("_chunks", "_left", "_overlay")

    def __init__(self, chunks: Chunks, overlay: Overlay, limit: int | None) -> None:
        self._chunks: Chunks | None = chunks
        self._overlay = overlay
        self._left = limit

    async def fetch(self) -> list[Pair] | None:
        """The next chunk with the transaction's own writes in place."""
        if self._chunks is None or self._left == 0:
            return None
        found = await self._chunks.fetch()
        if found is None:
            self._chunks = None
            rows = self._overlay.rest()
        else:
            rows = self._overlay.merge(found)
        if self._left is not None:
            rows = rows[: self._left]
            self._left -= len(rows)
        return rows


class AsyncRemoteBatch:
    """Collects changes for one atomic commit. A ttl counts from the commit."""

    __slots__ = ("_acks", "_db", "_writes")

    def __init__(self, db: AsyncRemoteDB, acks: int | Acks = 0) -> None:
        self._db = db
        self._acks = checked_acks(acks)
        self._writes = Writes()

    def put(self, key: bytes, value: bytes, ttl: float | None = None) -> None:
        """Set a key when the batch commits."""
        self._writes.put(key, value, ttl)

    def delete(self, key: bytes) -> None:
        """Remove a key when the batch commits; a missing one is fine."""
        self._writes.delete(key)

    def delete_range(self, start: bytes, stop: bytes | None) -> None:
        """Remove every key of [start, stop) when the batch commits; None: to the end."""
        self._writes.delete_range(start, stop)

    def __len__(self) -> int:
        return self._writes.count

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        writes, self._writes = self._writes, Writes()
        if kind is not None or not writes.count:
            return
        now_ms = await self._db.run(calls.time_ms()) if writes.needs_time else 0
        if writes.has_ranges:
            held = await open_snapshot(self._db.line)
            await held.end(acked(writes.commit_at(held.opened, (), (), now_ms), self._acks))
        else:
            await self._db.run(acked(writes.commit_if(now_ms), self._acks))


class AsyncRemoteSnapshot:
    """The state at one position; close it to let the server forget old versions."""

    __slots__ = ("_held",)

    def __init__(self, held: Held) -> None:
        """Use AsyncRemoteDB.snapshot()."""
        self._held = held

    @property
    def position(self) -> Position:
        """The position it shows."""
        return self._held.opened.position

    @overload
    async def get(self, key: bytes) -> bytes | None: ...
    @overload
    async def get(self, key: bytes, default: T) -> bytes | T: ...
    async def get(self, key: bytes, default: Any = None) -> Any:
        """The value of `key` at the position, or `default`."""
        (value,) = await self.get_many([key])
        return default if value is None else value

    async def get_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """The values of `keys` at the position, None for missing ones."""
        wanted = [to_bytes(key, "key") for key in keys]
        return await self._held.run(calls.snapshot_get(self._held.opened, wanted))

    async def contains(self, key: bytes) -> bool:
        """Whether `key` is there at the position."""
        return await self.get(key) is not None

    def scan(
        self,
        prefix: bytes = b"",
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Rows:
        """As AsyncRemoteDB.scan(), at the snapshot's position."""
        slices = Slices(prefix, start, stop, reverse, limit, CHUNK_ROWS)
        return Rows(RemoteChunks(None, slices, self._held))

    async def close(self) -> None:
        """Let go of the position; idempotent."""
        await self._held.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class AsyncRemoteTransaction:
    """Reads one snapshot, collects writes, commits if nothing it read has changed since."""

    __slots__ = ("_acks", "_held", "_log", "_snapshot")

    def __init__(self, held: Held, acks: int | Acks = 0) -> None:
        """Use AsyncRemoteDB.transaction()."""
        self._held = held
        self._acks = checked_acks(acks)
        self._snapshot = AsyncRemoteSnapshot(held)
        self._log = ReadsAndWrites()

    @property
    def position(self) -> Position:
        """The position the reads see."""
        return self._snapshot.position

    @overload
    async def get(self, key: bytes) -> bytes | None: ...
    @overload
    async def get(self, key: bytes, default: T) -> bytes | T: ...
    async def get(self, key: bytes, default: Any = None) -> Any:
        """The value of `key` as this transaction sees it."""
        key = to_bytes(key, "key")
        if self._log.read_key(key):
            return await self._snapshot.get(key, default)
        return self._log.written(key, default)

    async def contains(self, key: bytes) -> bool:
        """Whether `key` is there as this transaction sees it."""
        return await self.get(key) is not None

    def scan(
        self,
        prefix: bytes = b"",
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Rows:
        """As AsyncRemoteDB.scan(), with this transaction's own writes in place."""
        left = checked_count(limit, "limit")
        low, high = scan_bounds(prefix, start, stop)
        slices = Slices(prefix, start, stop, reverse, None, CHUNK_ROWS)
        overlay = self._log.read_range(low, high, reverse=reverse)
        return Rows(_Overlaid(RemoteChunks(None, slices, self._held), overlay, left))

    def put(self, key: bytes, value: bytes, ttl: float | None = None) -> None:
        """Set a key when the transaction commits; the ttl counts from then."""
        self._log.put(key, value, ttl)

    def delete(self, key: bytes) -> None:
        """Remove a key when the transaction commits; a missing one is fine."""
        self._log.delete(key)

    async def commit(self) -> None:
        """Commit now; the context does it at its end. Raises Conflict: nothing was written."""
        log, self._log = self._log, ReadsAndWrites()
        held = self._held
        if not log.writes.count:
            await held.close()
            return
        now_ms = await held.run(calls.time_ms()) if log.writes.needs_time else 0
        call = log.writes.commit_at(held.opened, list(log.keys), log.ranges, now_ms)
        await held.end(acked(call, self._acks))

    async def rollback(self) -> None:
        """Forget the writes; the context does it when an exception leaves it."""
        self._log = ReadsAndWrites()
        await self._held.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.commit()
        else:
            await self.rollback()
