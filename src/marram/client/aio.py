"""connect_async(): a server's store for asyncio.

Owns what a broken call means; what a call says is calls.py's, the connection is stream.py's.

R1  a write is sent once. If its connection breaks it is in doubt: OutcomeUnknown, never a retry.
R2  a read whose connection turns out to be dead is sent once more, on a new connection.
R3  a call that is cancelled may have happened; other tasks' calls are not affected.

All tasks share one connection and their calls are pipelined on it; each keyspace in use has its
own, and so has each checkpoint(), compact() and sync(), which may take long.

Threading: on the loop that opened it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Self, TypeVar, overload

from marram.client import calls
from marram.client.aio_views import (
    AsyncRemoteBatch,
    AsyncRemoteSnapshot,
    AsyncRemoteTransaction,
    RemoteChunks,
    open_snapshot,
    run_on,
)
from marram.client.calls import CHUNK_ROWS, MISSING, Call, Pair, Slices
from marram.client.levels import Acks, acked, behind, wait_ms_of, wait_position
from marram.client.opening import Keys, Lists, Opening, Rows
from marram.client.stream import Line
from marram.client.url import Target, parse_url
from marram.errors import ConnectionLost, Error, InvalidArgument, NotFound
from marram.storage.store import Position
from marram.storage.verify import Report

T = TypeVar("T")


def connect_async(url: str, *, timeout_s: float | None = 10.0) -> Opening[AsyncRemoteDB]:
    """Connect to a server: `async with marram.connect_async("marram://host:port") as db`.

    timeout_s: the longest silence of the server to bear, seconds; None for any.
    Raises InvalidArgument at once; ConnectionLost, ServerError (the password) when awaited.
    """
    if timeout_s is not None and not timeout_s > 0:
        raise InvalidArgument(f"timeout_s must be positive, not {timeout_s!r}")
    target = parse_url(url)

    async def opened() -> AsyncRemoteDB:
        db = AsyncRemoteDB(_Lines(target, timeout_s), target.keyspace)
        await db.ping()
        return db

    return Opening(opened)


class _Lines:
    """A connection for each keyspace in use: SELECT is a property of a connection."""

    __slots__ = ("_lines", "target", "timeout_s")

    def __init__(self, target: Target, timeout_s: float | None) -> None:
        self.target = target
        self.timeout_s = timeout_s
        self._lines: dict[int, Line] = {}

    def line(self, keyspace: int) -> Line:
        """The line of a keyspace."""
        line = self._lines.get(keyspace)
        if line is None:
            line = Line(replace(self.target, keyspace=keyspace), self.timeout_s)
            self._lines[keyspace] = line
        return line

    async def close(self) -> None:
        """Close them all."""
        for line in self._lines.values():
            await line.close()


class AsyncRemoteDB:
    """A server's store, or one of its sixteen keyspaces, on an event loop."""

    __slots__ = ("_line", "_lines")

    def __init__(self, lines: _Lines, keyspace: int) -> None:
        """Use marram.connect_async()."""
        self._lines = lines
        self._line = lines.line(keyspace)

    # -- points ----------------------------------------------------------------------------------

    @overload
    async def get(self, key: bytes, *, at_least: Position | None = None) -> bytes | None: ...
    @overload
    async def get(
        self, key: bytes, default: T, *, at_least: Position | None = None
    ) -> bytes | T: ...
    async def get(
        self, key: bytes, default: Any = None, *, at_least: Position | None = None
    ) -> Any:
        """The value of `key`, or `default` where there is none.

        at_least: read a state that holds this position (a replica waits for it). Raises Behind.
        """
        await self.reach(at_least)
        return await self.run(calls.get(key, default))

    async def put(
        self, key: bytes, value: bytes, ttl: float | None = None, *, acks: int | Acks = 0
    ) -> None:
        """Set `key` to `value`; ttl: seconds until it stops existing, or None for never.

        acks: replicas that have to have it on disk (Acks for more), 0 for what the server asks.
        Raises NoReplicas: nothing changed; OutcomeUnknown: too few had it in time.
        """
        await self.run(acked(calls.put(key, value, ttl), acks))

    async def delete(self, key: bytes, *, acks: int | Acks = 0) -> bool:
        """Remove `key`; returns whether it was there."""
        return await self.run(acked(calls.delete(key), acks))

    async def contains(self, key: bytes) -> bool:
        """Whether `key` is there."""
        return await self.run(calls.exists(key))

    async def compare_and_set(
        self, key: bytes, expected: bytes | None, new: bytes | None, *, acks: int | Acks = 0
    ) -> bool:
        """Set `key` to `new` if it holds `expected` (None: is missing); whether it did."""
        return await self.run(acked(calls.compare_and_set(key, expected, new), acks))

    async def ttl(self, key: bytes) -> float | None:
        """Seconds until `key` stops existing, or None. Raises NotFound."""
        return await self.run(calls.ttl(key))

    async def expire(self, key: bytes, seconds: float) -> bool:
        """Let `key` stop existing in `seconds`; returns whether it was there."""
        return await self.run(calls.expire(key, seconds))

    async def persist(self, key: bytes) -> bool:
        """Drop the deadline of `key`; returns whether it had one."""
        return await self.run(calls.persist(key))

    async def pop(self, key: bytes, default: Any = MISSING) -> Any:
        """Remove `key` and return its value, atomically; `default`, or NotFound, where missing."""
        return await self.run(calls.pop(key, default))

    async def popitem(self) -> Pair:
        """Remove and return the first pair in key order. Raises NotFound where there is none."""
        while True:
            key = await self.run(calls.first_key())
            if key is None:
                raise NotFound("the keyspace is empty")
            value = await self.pop(key, None)
            if value is not None:
                return key, value

    async def setdefault(self, key: bytes, default: bytes = b"") -> bytes:
        """The value of `key`, which is set to `default` first where it is missing; atomic."""
        return await self.run(calls.setdefault(key, default))

    # -- many ------------------------------------------------------------------------------------

    async def put_many(
        self,
        items: Mapping[bytes, bytes] | Iterable[Pair],
        ttl: float | None = None,
        *,
        acks: int | Acks = 0,
    ) -> None:
        """Set many keys in one atomic batch."""
        if ttl is None:
            await self.run(acked(calls.put_many(items), acks))
            return
        async with self.batch(acks=acks) as batch:
            for key, value in items.items() if isinstance(items, Mapping) else items:
                batch.put(key, value, ttl)

    async def get_many(
        self, keys: Iterable[bytes], *, at_least: Position | None = None
    ) -> list[bytes | None]:
        """The values of `keys`, in their order, None for missing ones."""
        await self.reach(at_least)
        return await self.run(calls.get_many(keys))

    async def count(self) -> int:
        """How many keys there are."""
        return await self.run(calls.count())

    async def clear(self) -> None:
        """Remove every key of this keyspace, in one step."""
        await self.run(calls.clear())

    def batch(self, *, acks: int | Acks = 0) -> AsyncRemoteBatch:
        """`async with db.batch() as b`: its puts and deletes become one atomic batch."""
        return AsyncRemoteBatch(self, acks)

    def scan(
        self,
        prefix: bytes = b"",
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
        *,
        at_least: Position | None = None,
    ) -> Rows:
        """The pairs with start <= key < stop and the prefix, in key order, at one position."""
        slices = Slices(prefix, start, stop, reverse, limit, CHUNK_ROWS)
        return Rows(RemoteChunks(self, slices, at_least=at_least))

    def scan_chunks(
        self,
        prefix: bytes = b"",
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
        chunk: int = CHUNK_ROWS,
        *,
        at_least: Position | None = None,
    ) -> Lists:
        """scan(), in lists of at most `chunk` pairs: what one round trip brings."""
        slices = Slices(prefix, start, stop, reverse, limit, chunk)
        return Lists(RemoteChunks(self, slices, at_least=at_least))

    def __aiter__(self) -> Keys:
        """The keys, in order."""
        return Keys(self.scan())

    def snapshot(self, *, at_least: Position | None = None) -> Opening[AsyncRemoteSnapshot]:
        """`async with db.snapshot() as s`: a read view of the state now."""

        async def opened() -> AsyncRemoteSnapshot:
            await self.reach(at_least)
            return AsyncRemoteSnapshot(await open_snapshot(self._line))

        return Opening(opened)

    def transaction(self, *, acks: int | Acks = 0) -> Opening[AsyncRemoteTransaction]:
        """`async with db.transaction() as t`; raises Conflict at its end where it lost a race."""

        async def opened() -> AsyncRemoteTransaction:
            return AsyncRemoteTransaction(await open_snapshot(self._line), acks)

        return Opening(opened)

    def keyspace(self, number: int) -> AsyncRemoteDB:
        """Another of the server's sixteen keyspaces; it shares this handle's life."""
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 16:
            raise InvalidArgument(f"keyspace must be 0 .. 15, not {number!r}")
        return AsyncRemoteDB(self._lines, number)

    # -- the server ------------------------------------------------------------------------------

    async def position(self) -> Position:
        """The newest committed position: (epoch, sequence)."""
        async with self.snapshot() as snapshot:
            return snapshot.position

    async def ping(self) -> None:
        """Return when the server has answered. Raises ConnectionLost."""
        await self.run(calls.ping())

    async def promote(self) -> Position:
        """Have the server take writes, in a new epoch, where it is a replica; its position then."""
        await self._run_aside(calls.promote())
        return await self.position()

    async def follow(self, host: str, port: int) -> None:
        """Have the server be a read-only replica of the one whose frame port that is."""
        await self._run_aside(calls.follow(host, port))

    async def checkpoint(self) -> None:
        """Have the server write its state to a new generation; returns when that is done."""
        await self._run_aside(calls.checkpoint())

    async def compact(self, start: bytes | None = None, stop: bytes | None = None) -> None:
        """Have the server take out of its tables what is of no use any more (engine "lsm").

        start, stop: only keys of [start, stop), None for no bound; without either all keyspaces.
        A server with the memory engine makes a checkpoint. Raises ServerError: compactions are
        paused there, or another was asked for and runs.
        """
        await self._run_aside(calls.compact(start, stop))

    async def backup(self, name: str) -> Position:
        """Have the server copy its store to a new directory of that name, below its backup_dir.

        Returns the position the copy holds. Raises ServerError: backups are off there.
        """
        return await self._run_aside(calls.backup(name))

    async def verify(self) -> Report:
        """Have the server read every byte of its files and check it."""
        return await self._run_aside(calls.verify())

    async def sync(self) -> None:
        """Make everything written so far durable, whatever the server's durability."""
        await self._run_aside(calls.sync())

    async def stats(self) -> dict[str, Any]:
        """Figures about the server's store, nested, with units in the names."""
        return await self.run(calls.stats())

    async def close(self) -> None:
        """Close the connections; idempotent."""
        await self._lines.close()

    async def __aenter__(self) -> Self:
        self._line.check()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<marram.AsyncRemoteDB {self._line.target}{' closed' if self._line.closed else ''}>"

    def __reduce__(self) -> Any:
        raise Error("an AsyncRemoteDB belongs to its event loop; pass the URL and connect anew")

    # -- calls -----------------------------------------------------------------------------------

    @property
    def line(self) -> Line:
        """The connections of this keyspace."""
        return self._line

    async def reach(self, position: Position | None) -> None:
        """Return once the server holds a position, if one is given. Raises Behind.

        Other tasks' calls go on meanwhile: what may take long is asked on a connection of its own.
        """
        if position is None or await self.run(wait_position(position, 1)):
            return
        wait_ms = wait_ms_of(self._line.timeout_s)
        if not await self._run_aside(wait_position(position, wait_ms)):
            raise behind(position)

    async def run(self, call: Call[T]) -> T:
        """Run one call (calls.py), as R1 and R2 say."""
        if not call.commands:
            return call.read([])
        stream = await self._line.stream()
        was_used = stream.was_used
        try:
            return await run_on(stream, call)
        except ConnectionLost as error:
            if not was_used or isinstance(error.__cause__, TimeoutError):
                raise
            self._line.check()
        return await run_on(await self._line.stream(), call)

    async def _run_aside(self, call: Call[T]) -> T:
        stream = await self._line.separate(None)
        try:
            return await run_on(stream, call)
        finally:
            stream.close()
            await stream.wait_closed()
