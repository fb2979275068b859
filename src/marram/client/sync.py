"""connect(): a server's store with the methods of the embedded DB.

Owns which connection a call uses and what a broken one means; what a call says is calls.py's.

R1  a write is sent once. If its connection breaks it is in doubt: OutcomeUnknown, never a retry.
R2  a read whose idle connection turns out to be dead is sent once more, on a new connection.
R3  a handle pickles to its URL (password included) and limits, never to a socket; after fork() the
    child makes connections of its own.

Keys past their deadline count in len() until the server has removed them, as in Redis.

Threading: a RemoteDB by any thread; a batch, snapshot or transaction by one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import replace
from typing import Any, Self, TypeVar, overload

from marram.client import calls
from marram.client.calls import CHUNK_ROWS, MISSING, Call, Pair, Slices
from marram.client.connection import Pool
from marram.client.levels import Acks, acked, reached
from marram.client.url import Target, parse_url
from marram.client.views import Reader, RemoteBatch, RemoteSnapshot, RemoteTransaction
from marram.errors import ConnectionLost, InvalidArgument, NotFound, OutcomeUnknown
from marram.protocol.resp_client import encode_command
from marram.storage.arguments import to_bytes
from marram.storage.store import Position
from marram.storage.verify import Report

T = TypeVar("T")


def connect(url: str, *, timeout_s: float | None = 10.0, max_connections: int = 16) -> RemoteDB:
    """Connect to a server: marram://[:password@]host[:port][/keyspace].

    timeout_s: the longest silence of the server to bear, seconds; None for any.
    max_connections: in use at once; more threads wait for each other. Snapshots and transactions
    have one each besides. Raises InvalidArgument, ConnectionLost, ServerError (the password).
    """
    db = RemoteDB(parse_url(url), timeout_s, max_connections)
    db.ping()
    return db


def _reconnect(url: str, timeout_s: float | None, max_connections: int) -> RemoteDB:
    """What a pickled handle becomes; it connects when it is used."""
    return RemoteDB(parse_url(url), timeout_s, max_connections)


class _Pools:
    """A pool for each keyspace in use: SELECT is a property of a connection."""

    __slots__ = ("_pools", "max_connections", "target", "timeout_s")

    def __init__(self, target: Target, timeout_s: float | None, max_connections: int) -> None:
        self.target = target
        self.timeout_s = timeout_s
        self.max_connections = max_connections
        self._pools: dict[int, Pool] = {}

    def pool(self, keyspace: int) -> Pool:
        """The pool of a keyspace."""
        pool = self._pools.get(keyspace)
        if pool is None:
            target = replace(self.target, keyspace=keyspace)
            pool = Pool(target, self.timeout_s, self.max_connections)
            # Of two threads that get here, both go on with the pool that was first.
            pool = self._pools.setdefault(keyspace, pool)
        return pool

    def close(self) -> None:
        """Close them all."""
        for pool in list(self._pools.values()):
            pool.close()


class RemoteDB(MutableMapping[bytes, bytes]):
    """A server's store, or one of its sixteen keyspaces."""

    __slots__ = ("_pool", "_pools")

    def __init__(
        self,
        target: Target,
        timeout_s: float | None = 10.0,
        max_connections: int = 16,
        pools: _Pools | None = None,
    ) -> None:
        """Use marram.connect(). Connects when it is used first."""
        if max_connections < 1:
            raise InvalidArgument(f"max_connections must be at least 1, not {max_connections}")
        if timeout_s is not None and not timeout_s > 0:
            raise InvalidArgument(f"timeout_s must be positive, not {timeout_s!r}")
        self._pools = pools or _Pools(target, timeout_s, max_connections)
        self._pool = self._pools.pool(target.keyspace)

    # -- points ----------------------------------------------------------------------------------

    @overload
    def get(self, key: bytes, *, at_least: Position | None = None) -> bytes | None: ...
    @overload
    def get(self, key: bytes, default: T, *, at_least: Position | None = None) -> bytes | T: ...
    def get(self, key: bytes, default: Any = None, *, at_least: Position | None = None) -> Any:
        """The value of `key`, or `default` where there is none.

        at_least: read a state that holds this position (a replica waits for it). Raises Behind.
        """
        return self._read(calls.get(key, default), at_least)

    def put(
        self, key: bytes, value: bytes, ttl: float | None = None, *, acks: int | Acks = 0
    ) -> None:
        """Set `key` to `value`; ttl: seconds until it stops existing, or None for never.

        acks: replicas that have to have it on disk (Acks for more), 0 for what the server asks.
        Raises InvalidType, InvalidArgument, StoreFull, NoReplicas (nothing changed),
        OutcomeUnknown (R1, or too few replicas had it in time).
        """
        self.run(acked(calls.put(key, value, ttl), acks))

    def delete(self, key: bytes, *, acks: int | Acks = 0) -> bool:
        """Remove `key`; returns whether it was there."""
        return self.run(acked(calls.delete(key), acks))

    def compare_and_set(
        self, key: bytes, expected: bytes | None, new: bytes | None, *, acks: int | Acks = 0
    ) -> bool:
        """Set `key` to `new` if it holds `expected`; returns whether it did.

        expected None: the key must be missing; new None: delete it. The deadline goes.
        """
        return self.run(acked(calls.compare_and_set(key, expected, new), acks))

    def ttl(self, key: bytes) -> float | None:
        """Seconds until `key` stops existing, or None where it has no deadline. Raises NotFound."""
        return self.run(calls.ttl(key))

    def expire(self, key: bytes, seconds: float) -> bool:
        """Let `key` stop existing in `seconds`; returns whether it was there."""
        return self.run(calls.expire(key, seconds))

    def persist(self, key: bytes) -> bool:
        """Drop the deadline of `key`; returns whether it had one."""
        return self.run(calls.persist(key))

    # -- many ------------------------------------------------------------------------------------

    def put_many(
        self,
        items: Mapping[bytes, bytes] | Iterable[Pair],
        ttl: float | None = None,
        *,
        acks: int | Acks = 0,
    ) -> None:
        """Set many keys in one atomic batch."""
        if ttl is None:
            self.run(acked(calls.put_many(items), acks))
        else:
            with self.batch(acks=acks) as batch:
                for key, value in items.items() if isinstance(items, Mapping) else items:
                    batch.put(key, value, ttl)

    def get_many(
        self, keys: Iterable[bytes], *, at_least: Position | None = None
    ) -> list[bytes | None]:
        """The values of `keys`, in their order, None for missing ones."""
        return self._read(calls.get_many(keys), at_least)

    def batch(self, *, acks: int | Acks = 0) -> RemoteBatch:
        """A context whose puts and deletes become one atomic batch when it ends without error."""
        return RemoteBatch(self, acks)

    def scan(
        self,
        prefix: bytes = b"",
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
        *,
        at_least: Position | None = None,
    ) -> Iterator[Pair]:
        """The pairs with start <= key < stop and the prefix, in key order, at one position."""
        for rows in self.scan_chunks(prefix, start, stop, reverse, limit, at_least=at_least):
            yield from rows

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
    ) -> Iterator[list[Pair]]:
        """scan(), in lists of at most `chunk` pairs: what one round trip brings."""
        slices = Slices(prefix, start, stop, reverse, limit, chunk)
        if slices.done:
            return
        # Abandoned half-way, the reader goes with the generator and closes its connection, which
        # makes the server forget the snapshot.
        reader = Reader(self._pool, at_least)
        while not slices.done:
            rows = slices.taken(reader.run(slices.call(reader.opened)))
            if slices.done:
                reader.close()  # nothing stays open while the caller works on the last rows
            if rows:
                yield rows

    def snapshot(self, *, at_least: Position | None = None) -> RemoteSnapshot:
        """A read view of the state now, until it is closed; use it as a context."""
        return RemoteSnapshot(self._pool, at_least)

    def transaction(self, *, acks: int | Acks = 0) -> RemoteTransaction:
        """A context that reads one snapshot and commits only if nothing it read has changed.

        Raises Conflict at its end where another writer came first; run it again then.
        """
        return RemoteTransaction(self, acks)

    def keyspace(self, number: int) -> RemoteDB:
        """Another of the server's sixteen keyspaces; it shares this handle's life."""
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 16:
            raise InvalidArgument(f"keyspace must be 0 .. 15, not {number!r}")
        target = replace(self._pool.target, keyspace=number)
        return RemoteDB(target, pools=self._pools)

    # -- mapping ---------------------------------------------------------------------------------

    def __getitem__(self, key: bytes) -> bytes:
        value = self.get(key, MISSING)
        if value is MISSING:
            raise NotFound(repr(key))
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.put(key, value)

    def __delitem__(self, key: bytes) -> None:
        if not self.delete(key):
            raise NotFound(repr(key))

    def __contains__(self, key: object) -> bool:
        return self.run(calls.exists(to_bytes(key, "key")))

    def __iter__(self) -> Iterator[bytes]:
        return (key for key, _ in self.scan())

    def __reversed__(self) -> Iterator[bytes]:
        """The keys in descending order."""
        return (key for key, _ in self.scan(reverse=True))

    def __len__(self) -> int:
        return self.run(calls.count())

    def __bool__(self) -> bool:
        """Always true: an empty store is still a store."""
        return True

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def clear(self) -> None:
        """Remove every key of this keyspace, in one step."""
        self.run(calls.clear())

    def pop(self, key: bytes, default: Any = MISSING) -> Any:
        """Remove `key` and return its value, atomically; `default`, or NotFound, where missing."""
        return self.run(calls.pop(key, default))

    def popitem(self) -> Pair:
        """Remove and return the first pair in key order. Raises NotFound where there is none."""
        while True:
            key = self.run(calls.first_key())
            if key is None:
                raise NotFound("the keyspace is empty")
            value = self.pop(key, None)
            if value is not None:
                return key, value

    def setdefault(self, key: bytes, default: bytes = b"") -> bytes:
        """The value of `key`, which is set to `default` first where it is missing; atomic."""
        return self.run(calls.setdefault(key, default))

    def update(self, *args: Any, **kwargs: bytes) -> None:
        """put_many(); keyword arguments cannot name bytes and are refused."""
        if kwargs:
            raise InvalidArgument("keys are bytes; pass a mapping or pairs")
        if args:
            (items,) = args
            self.put_many(items)

    # -- the server ------------------------------------------------------------------------------

    @property
    def position(self) -> Position:
        """The newest committed position: (epoch, sequence)."""
        with self.snapshot() as snapshot:
            return snapshot.position

    def ping(self) -> None:
        """Return when the server has answered. Raises ConnectionLost."""
        self.run(calls.ping())

    def promote(self) -> Position:
        """Have the server take writes, in a new epoch, where it is a replica; its position then."""
        self.run(calls.promote())
        return self.position

    def follow(self, host: str, port: int) -> None:
        """Have the server be a read-only replica of the one whose frame port that is."""
        self.run(calls.follow(host, port))

    def checkpoint(self) -> None:
        """Have the server write its state to a new generation; returns when that is done."""
        self.run(calls.checkpoint())

    def compact(self, start: bytes | None = None, stop: bytes | None = None) -> None:
        """Have the server take out of its tables what is of no use any more (engine "lsm").

        start, stop: only keys of [start, stop), None for no bound; without either all keyspaces.
        A server with the memory engine makes a checkpoint. Raises ServerError: compactions are
        paused there, or another was asked for and runs.
        """
        self.run(calls.compact(start, stop))

    def backup(self, name: str) -> Position:
        """Have the server copy its store to a new directory of that name, below its backup_dir.

        Returns the position the copy holds. Raises ServerError: backups are off there.
        """
        return self.run(calls.backup(name))

    def verify(self) -> Report:
        """Have the server read every byte of its files and check it."""
        return self.run(calls.verify())

    def sync(self) -> None:
        """Make everything written so far durable, whatever the server's durability."""
        self.run(calls.sync())

    def stats(self) -> dict[str, Any]:
        """Figures about the server's store, nested, with units in the names."""
        return self.run(calls.stats())

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._pools.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<marram.RemoteDB {self._pool.target}{' closed' if self._pool.closed else ''}>"

    def __reduce__(self) -> Any:
        pool = self._pool
        return _reconnect, (pool.target.url, pool.timeout_s, pool.size)

    @property
    def pool(self) -> Pool:
        """The connections of this keyspace."""
        return self._pool

    # -- calls -----------------------------------------------------------------------------------

    def _read(self, call: Call[T], at_least: Position | None) -> T:
        return self.run(reached(call, at_least, self._pools.timeout_s))

    def run(self, call: Call[T]) -> T:
        """Run one call (calls.py), as R1 and R2 say."""
        if not call.commands:
            return call.read([])
        request = b"".join(map(encode_command, call.commands))
        pool = self._pool
        connection, was_used = pool.take(quiet=call.writes)
        try:
            replies = connection.exchange(request, len(call.commands), patient=call.patient)
        except ConnectionLost as error:
            pool.drop(connection)
            if call.writes:
                raise OutcomeUnknown(f"{error}; the write may or may not have happened") from error
            if not was_used or isinstance(error.__cause__, TimeoutError):
                raise
        except BaseException:
            pool.drop(connection)
            raise
        else:
            pool.give(connection)
            return call.read(replies)
        connection, _ = pool.take(quiet=True, fresh=True)
        try:
            replies = connection.exchange(request, len(call.commands), patient=call.patient)
        except BaseException:
            pool.drop(connection)
            raise
        pool.give(connection)
        return call.read(replies)
