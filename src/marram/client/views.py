"""Batch, snapshot and transaction of a remote store.

Owns the connection that a snapshot lives on: the server's snapshots belong to a connection and
end with it.

V1  a snapshot that is dropped without being closed costs its connection, never the server's memory.
V2  a transaction's writes are one command that the server runs whole or not at all.

Threading: one thread at a time each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from marram.client import calls
from marram.client.calls import CHUNK_ROWS, Call, Opened, Pair, Slices, Writes
from marram.client.connection import Connection, Pool
from marram.client.levels import Acks, acked, checked_acks, reached
from marram.client.reads import ReadsAndWrites
from marram.errors import (
    Closed,
    Conflict,
    ConnectionLost,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
)
from marram.protocol.resp_client import encode_command
from marram.storage.arguments import checked_count, scan_bounds, to_bytes
from marram.storage.store import Position

if TYPE_CHECKING:
    from marram.client.sync import RemoteDB

T = TypeVar("T")


class RemoteBatch:
    """Collects changes for one atomic commit. A ttl counts from the commit."""

    __slots__ = ("_acks", "_db", "_writes")

    def __init__(self, db: RemoteDB, acks: int | Acks = 0) -> None:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        writes, self._writes = self._writes, Writes()
        if kind is not None or not writes.count:
            return
        db = self._db
        now_ms = db.run(calls.time_ms()) if writes.needs_time else 0
        if not writes.has_ranges:
            db.run(acked(writes.commit_if(now_ms), self._acks))
            return
        with Reader(db.pool) as reader:
            reader.end(acked(writes.commit_at(reader.opened, (), (), now_ms), self._acks))


class Reader:
    """A snapshot on a connection of its own."""

    __slots__ = ("_connection", "_pool", "opened")

    def __init__(self, pool: Pool, at_least: Position | None = None) -> None:
        """Open the snapshot. Raises Behind."""
        self._pool = pool
        call = reached(calls.open_snapshot(), at_least, pool.timeout_s)
        self._connection: Connection | None = pool.lend()
        self.opened: Opened = self.run(call)

    def run(self, call: Call[T]) -> T:
        """Run a call on the connection. Raises ConnectionLost, OutcomeUnknown, Closed, Forked."""
        connection = self._connection
        if connection is None:
            raise InvalidArgument("the snapshot is closed")
        if not call.commands:
            return call.read([])
        self._pool.check_owner(connection)
        request = b"".join(map(encode_command, call.commands))
        try:
            replies = connection.exchange(request, len(call.commands))
        except ConnectionLost as error:
            self._connection = None
            if call.writes:
                raise OutcomeUnknown(f"{error}; the write may or may not have happened") from error
            raise
        except BaseException:
            self._connection = None
            raise
        return call.read(replies)

    def end(self, call: Call[None]) -> None:
        """Run the call that ends the snapshot, unless it is refused.

        Raises Conflict, which ends it too, and what run() does.
        """
        try:
            self.run(call)
        except Conflict:
            self._give_back()
            raise
        self._give_back()

    def close(self) -> None:
        """Close the snapshot and give the connection back; idempotent."""
        connection = self._connection
        if connection is None:
            return
        try:
            self.run(calls.close_snapshot(self.opened))
        except (ConnectionLost, Closed):
            connection.close()  # the server forgets the snapshot with the connection
            self._connection = None
        else:
            self._give_back()

    def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.adopt(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        # No round trip in the middle of who knows what: the server forgets it with the connection.
        connection = getattr(self, "_connection", None)
        if connection is not None:
            connection.close()


class RemoteSnapshot:
    """The state at one position; close it to let the server forget old versions."""

    __slots__ = ("_reader",)

    def __init__(self, pool: Pool, at_least: Position | None = None) -> None:
        """Use RemoteDB.snapshot()."""
        self._reader = Reader(pool, at_least)

    @property
    def position(self) -> Position:
        """The position it shows."""
        return self._reader.opened.position

    @overload
    def get(self, key: bytes) -> bytes | None: ...
    @overload
    def get(self, key: bytes, default: T) -> bytes | T: ...
    def get(self, key: bytes, default: Any = None) -> Any:
        """The value of `key` at the position, or `default`."""
        (value,) = self.get_many([key])
        return default if value is None else value

    def get_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """The values of `keys` at the position, None for missing ones."""
        wanted = [to_bytes(key, "key") for key in keys]
        return self._reader.run(calls.snapshot_get(self._reader.opened, wanted))

    def __getitem__(self, key: bytes) -> bytes:
        value = self.get(key)
        if value is None:
            raise NotFound(repr(key))
        return value

    def __contains__(self, key: object) -> bool:
        return self.get(to_bytes(key, "key")) is not None

    def __iter__(self) -> Iterator[bytes]:
        return (key for key, _ in self.scan())

    def scan(
        self,
        prefix: bytes = b"",
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Pair]:
        """As RemoteDB.scan(), at the snapshot's position."""
        for rows in self.scan_chunks(prefix, start, stop, reverse, limit):
            yield from rows

    def scan_chunks(
        self,
        prefix: bytes = b"",
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
        chunk: int = CHUNK_ROWS,
    ) -> Iterator[list[Pair]]:
        """scan(), in lists of at most `chunk` pairs."""
        slices = Slices(prefix, start, stop, reverse, limit, chunk)
        while not slices.done:
            rows = slices.taken(self._reader.run(slices.call(self._reader.opened)))
            if rows:
                yield rows

    def close(self) -> None:
        """Let go of the position; idempotent."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class RemoteTransaction:
    """Reads one snapshot, collects writes, commits if nothing it read has changed since."""

    __slots__ = ("_acks", "_db", "_log", "_snapshot")

    def __init__(self, db: RemoteDB, acks: int | Acks = 0) -> None:
        """Use RemoteDB.transaction()."""
        self._db = db
        self._acks = checked_acks(acks)
        self._snapshot = db.snapshot()
        self._log = ReadsAndWrites()

    @property
    def position(self) -> Position:
        """The position the reads see."""
        return self._snapshot.position

    @overload
    def get(self, key: bytes) -> bytes | None: ...
    @overload
    def get(self, key: bytes, default: T) -> bytes | T: ...
    def get(self, key: bytes, default: Any = None) -> Any:
        """The value of `key` as this transaction sees it."""
        key = to_bytes(key, "key")
        if self._log.read_key(key):
            return self._snapshot.get(key, default)
        return self._log.written(key, default)

    def __getitem__(self, key: bytes) -> bytes:
        value = self.get(key)
        if value is None:
            raise NotFound(repr(key))
        return value

    def __contains__(self, key: object) -> bool:
        return self.get(to_bytes(key, "key")) is not None

    def scan(
        self,
        prefix: bytes = b"",
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Pair]:
        """As RemoteDB.scan(), with this transaction's own writes in place."""
        left = checked_count(limit, "limit")
        low, high = scan_bounds(prefix, start, stop)
        overlay = self._log.read_range(low, high, reverse=reverse)
        for rows in self._snapshot.scan_chunks(prefix, start, stop, reverse):
            for row in overlay.merge(rows):
                if left is not None and left <= 0:
                    return
                left = None if left is None else left - 1
                yield row
        yield from overlay.rest()[:left]

    def put(self, key: bytes, value: bytes, ttl: float | None = None) -> None:
        """Set a key when the transaction commits; the ttl counts from then."""
        self._log.put(key, value, ttl)

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.put(key, value)

    def delete(self, key: bytes) -> None:
        """Remove a key when the transaction commits; a missing one is fine."""
        self._log.delete(key)

    def __delitem__(self, key: bytes) -> None:
        if key not in self:
            raise NotFound(repr(key))
        self.delete(key)

    def commit(self) -> None:
        """Commit now; the context does it at its end. Raises Conflict: nothing was written."""
        log, self._log = self._log, ReadsAndWrites()
        reader = self._snapshot._reader
        with reader:
            if log.writes.count:
                now_ms = reader.run(calls.time_ms()) if log.writes.needs_time else 0
                call = log.writes.commit_at(reader.opened, list(log.keys), log.ranges, now_ms)
                reader.end(acked(call, self._acks))

    def rollback(self) -> None:
        """Forget the writes; the context does it when an exception leaves it."""
        self._log = ReadsAndWrites()
        self._snapshot.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.rollback()
