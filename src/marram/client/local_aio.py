"""open_async(): the embedded store for asyncio.

Owns the asynchronous face of DB; every promise is DB's (storage/db.py).

A1  no method blocks the loop on the disk: changes are applied at once, on the loop, and only the
    wait for their durability is awaited (worker.py). Reads of settled keys wait for nothing.
A2  a method that was cancelled while it waited has done what it does: its change is in the store,
    and other tasks are not affected.

DB's methods end with store.wait(position). Here they run against _NotingStore, the same store but
for wait(), which notes the position; the caller then awaits it. So there is one implementation of
what a method does, and this file holds none of it.

Threading: everything on the loop that opened it. The DB itself may be used by threads besides.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

from marram.client.opening import Keys, Lists, Opening, Pair, Rows
from marram.client.worker import Commits, Worker, aside
from marram.env import posix_env
from marram.env.api import Env
from marram.errors import Error
from marram.storage.db import DB, open_db
from marram.storage.engine import Progress
from marram.storage.snapshot import CHUNK_ROWS, Snapshot
from marram.storage.store import Position, Store
from marram.storage.transaction import Batch, Transaction
from marram.storage.verify import Report

T = TypeVar("T")
P = ParamSpec("P")

_MISSING: Any = object()
_EASE_S = 0.01
"""How often a writer that waits for the engine looks whether it may go on."""


def open_async(
    directory: str | os.PathLike[str],
    *,
    engine: str | None = None,
    durability: str = "sync",
    create: bool = True,
    env: Env | None = None,
    **options: Any,
) -> Opening[AsyncDB]:
    """Open the store in `directory`: `async with marram.open_async(...) as db`, or await it.

    The arguments and errors are marram.open()'s. Recovery runs on a thread.
    """

    async def opened() -> AsyncDB:
        worker = Worker(env or posix_env(), "marram-commit")
        made: list[DB] = []

        def work() -> None:
            made.append(
                open_db(
                    directory,
                    engine=engine,
                    durability=durability,
                    create=create,
                    env=env,
                    **options,
                )
            )

        try:
            await worker.run(work)
        except BaseException:
            # Cancelled, it may open yet: then the directory must be given up again.
            worker.submit(lambda: made[0].close() if made else None)
            worker.stop()
            raise
        store = made[0].store
        store.holds_back = False  # _Face does
        return AsyncDB(made[0], worker, _NotingStore(store), Commits(store, worker))

    return Opening(opened)


class _NotingStore(Store):
    """The store it is made from, sharing all its attributes, but for wait()."""

    __slots__ = ("noted",)

    def __init__(self, store: Store) -> None:
        self.__dict__ = store.__dict__
        self.noted = 0

    def wait(self, sequence: int, timeout_s: float | None = None) -> None:
        """Note the position instead; _Face awaits it before the answer is given away."""
        self.noted = max(self.noted, sequence)


class _Face:
    """What the asynchronous classes share: running a method of DB's, and awaiting its position."""

    __slots__ = ("_commits", "_store")

    def __init__(self, store: _NotingStore, commits: Commits) -> None:
        self._store = store
        self._commits = commits

    async def _run(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        finally:
            # Also where it raised: a refusal tells of the state as much as an answer does.
            if self._store.noted:
                await self._settle()

    async def _settle(self) -> None:
        position, self._store.noted = self._store.noted, 0
        await self._commits.reach(position)
        if self._store.engine.throttle() >= 1.0:
            await self._ease()

    async def _ease(self) -> None:
        """Wait while the engine cannot keep up; the store itself would hold up the whole loop."""
        store = self._store
        started_ns = store.env.monotonic_ns()
        while (
            store.closed is None
            and store.failure is None
            and store.engine.throttle() >= 1.0
            and not store.generations.stats()["last_error"]  # waiting does not help: it refuses
        ):
            await asyncio.sleep(_EASE_S)
        store.stalls.record(store.env.monotonic_ns() - started_ns)


class _LocalChunks(_Face):
    """The chunks of a scan; dropped, it releases its snapshot at once (opening.py Q1)."""

    __slots__ = ("_lists",)

    def __init__(self, store: _NotingStore, commits: Commits, lists: Iterator[list[Pair]]) -> None:
        super().__init__(store, commits)
        self._lists = lists

    async def fetch(self) -> list[Pair] | None:
        """One slice: the loop gets its turn between two of them where a commit is awaited."""
        return await self._run(next, self._lists, None)


class AsyncDB(_Face):
    """An open store, or one of its sixteen keyspaces, on an event loop."""

    __slots__ = ("_blocking", "_db", "_worker")

    def __init__(self, blocking: DB, worker: Worker, store: _NotingStore, commits: Commits) -> None:
        """Use marram.open_async(). blocking: the same keyspace, for threads."""
        super().__init__(store, commits)
        self._blocking = blocking
        self._db = DB(store, blocking.number)
        self._worker = worker

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
        """The value of `key`, or `default` where there is none."""
        try:
            return self._db.get(key, default, at_least=at_least)
        finally:
            if self._store.noted:
                await self._settle()

    async def put(
        self, key: bytes, value: bytes, ttl: float | None = None, *, acks: int = 0
    ) -> None:
        """Set `key` to `value`; ttl: seconds until it stops existing, or None for never."""
        await self._run(self._db.put, key, value, ttl, acks=acks)

    async def delete(self, key: bytes, *, acks: int = 0) -> bool:
        """Remove `key`; returns whether it was there."""
        return await self._run(self._db.delete, key, acks=acks)

    async def contains(self, key: bytes) -> bool:
        """Whether `key` is there."""
        return await self.get(key, _MISSING) is not _MISSING

    async def compare_and_set(
        self, key: bytes, expected: bytes | None, new: bytes | None, *, acks: int = 0
    ) -> bool:
        """Set `key` to `new` if it holds `expected` (None: is missing); whether it did."""
        return await self._run(self._db.compare_and_set, key, expected, new, acks=acks)

    async def ttl(self, key: bytes) -> float | None:
        """Seconds until `key` stops existing, or None. Raises NotFound."""
        return await self._run(self._db.ttl, key)

    async def expire(self, key: bytes, seconds: float) -> bool:
        """Let `key` stop existing in `seconds`; returns whether it was there."""
        return await self._run(self._db.expire, key, seconds)

    async def persist(self, key: bytes) -> bool:
        """Drop the deadline of `key`; returns whether it had one."""
        return await self._run(self._db.persist, key)

    async def pop(self, key: bytes, default: Any = _MISSING) -> Any:
        """Remove `key` and return its value, atomically; `default`, or NotFound, where missing."""
        return await self._run(self._db.pop, key, *(() if default is _MISSING else (default,)))

    async def popitem(self) -> Pair:
        """Remove and return the first pair in key order. Raises NotFound where there is none."""
        return await self._run(self._db.popitem)

    async def setdefault(self, key: bytes, default: bytes = b"") -> bytes:
        """The value of `key`, which is set to `default` first where it is missing; atomic."""
        return await self._run(self._db.setdefault, key, default)

    # -- many ------------------------------------------------------------------------------------

    async def put_many(
        self,
        items: Mapping[bytes, bytes] | Iterable[Pair],
        ttl: float | None = None,
        *,
        acks: int = 0,
    ) -> None:
        """Set many keys in one atomic batch."""
        await self._run(self._db.put_many, items, ttl, acks=acks)

    async def get_many(
        self, keys: Iterable[bytes], *, at_least: Position | None = None
    ) -> list[bytes | None]:
        """The values of `keys`, in their order, None for missing ones."""
        return await self._run(self._db.get_many, keys, at_least=at_least)

    async def count(self) -> int:
        """How many keys there are."""
        return await self._run(self._db.__len__)

    async def clear(self) -> None:
        """Remove every key of this keyspace, in one step."""
        await self._run(self._db.clear)

    def batch(self, *, acks: int = 0) -> AsyncBatch:
        """`async with db.batch() as b`: its puts and deletes become one atomic batch."""
        return AsyncBatch(self._store, self._commits, self._db.batch(acks=acks))

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
        return Rows(self._chunks(prefix, start, stop, reverse, limit, at_least=at_least))

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
        """scan(), in lists of at most `chunk` pairs."""
        return Lists(self._chunks(prefix, start, stop, reverse, limit, chunk, at_least=at_least))

    def __aiter__(self) -> Keys:
        """The keys, in order."""
        return Keys(self.scan())

    def snapshot(self, *, at_least: Position | None = None) -> Opening[AsyncSnapshot]:
        """`async with db.snapshot() as s`: a read view of the state now."""

        async def opened() -> AsyncSnapshot:
            snapshot = await self._run(self._db.snapshot, at_least=at_least)
            return AsyncSnapshot(self._store, self._commits, snapshot)

        return Opening(opened)

    def transaction(self, *, acks: int = 0) -> Opening[AsyncTransaction]:
        """`async with db.transaction() as t`; raises Conflict at its end where it lost a race."""

        async def opened() -> AsyncTransaction:
            transaction = await self._run(self._db.transaction, acks=acks)
            return AsyncTransaction(self._store, self._commits, transaction)

        return Opening(opened)

    def keyspace(self, number: int) -> AsyncDB:
        """Another of the sixteen keyspaces of this store; it shares this handle's life."""
        other = self._blocking.keyspace(number)
        return AsyncDB(other, self._worker, self._store, self._commits)

    # -- the store -------------------------------------------------------------------------------

    async def position(self) -> Position:
        """The newest committed position: (epoch, sequence)."""
        return self._db.position

    async def checkpoint(self, progress: Progress | None = None) -> None:
        """Write the present state to a new generation. progress is called on a thread."""
        await self._aside(lambda: self._blocking.checkpoint(progress))

    async def compact(
        self,
        start: bytes | None = None,
        stop: bytes | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Take everything that is of no use any more out of the tables. progress: on a thread."""
        await self._aside(lambda: self._blocking.compact(start, stop, progress))

    async def sync(self) -> None:
        """Make everything written so far durable, whatever the durability."""
        await self._aside(self._blocking.sync)

    async def backup(
        self, target: str | os.PathLike[str], progress: Progress | None = None
    ) -> Position:
        """Write a consistent copy of the store, as of now, into the new directory `target`."""
        return await self._aside(lambda: self._blocking.backup(target, progress))

    async def verify(self, progress: Progress | None = None) -> Report:
        """Read every byte of every file and check it; the report tells."""
        return await self._aside(lambda: self._blocking.verify(progress))

    async def stats(self) -> dict[str, Any]:
        """Figures about the store, nested, with units in the names."""
        return self._db.stats()

    async def close(self) -> None:
        """Make everything durable and give the directory up; idempotent."""
        if self._store.closed is None:
            try:
                await self._worker.run(self._blocking.close)
            finally:
                self._worker.stop()

    async def __aenter__(self) -> Self:
        self._store.check_open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return repr(self._db).replace("marram.DB", "marram.AsyncDB", 1)

    def __reduce__(self) -> Any:
        raise Error("an AsyncDB owns its directory and cannot be pickled; pass the path")

    @property
    def blocking(self) -> DB:
        """The same keyspace for threads."""
        return self._blocking

    # -- private ---------------------------------------------------------------------------------

    def _chunks(self, *args: Any, at_least: Position | None) -> _LocalChunks:
        chunks = self._db.scan_chunks(*args, at_least=at_least)
        return _LocalChunks(self._store, self._commits, chunks)

    async def _aside(self, work: Callable[[], T]) -> T:
        return await aside(self._store.env, "marram-aside", work)


class AsyncBatch(_Face):
    """Collects changes for one atomic commit."""

    __slots__ = ("_batch",)

    def __init__(self, store: _NotingStore, commits: Commits, batch: Batch) -> None:
        super().__init__(store, commits)
        self._batch = batch

    def put(self, key: bytes, value: bytes, ttl: float | None = None) -> None:
        """Set a key when the batch commits."""
        self._batch.put(key, value, ttl)

    def delete(self, key: bytes) -> None:
        """Remove a key when the batch commits; a missing one is fine."""
        self._batch.delete(key)

    def delete_range(self, start: bytes, stop: bytes | None) -> None:
        """Remove every key of [start, stop) when the batch commits; None: to the end."""
        self._batch.delete_range(start, stop)

    def __len__(self) -> int:
        return len(self._batch)

    async def __aenter__(self) -> Self:
        self._batch.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._run(self._batch.__exit__, kind, error, traceback)


class AsyncSnapshot(_Face):
    """The state at one position; close it to let old versions go."""

    __slots__ = ("_snapshot",)

    def __init__(self, store: _NotingStore, commits: Commits, snapshot: Snapshot) -> None:
        super().__init__(store, commits)
        self._snapshot = snapshot

    @property
    def position(self) -> Position:
        """The position it shows."""
        return self._snapshot.position

    @overload
    async def get(self, key: bytes) -> bytes | None: ...
    @overload
    async def get(self, key: bytes, default: T) -> bytes | T: ...
    async def get(self, key: bytes, default: Any = None) -> Any:
        """The value of `key` at the position, or `default`."""
        return self._snapshot.get(key, default)

    async def get_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """The values of `keys` at the position, None for missing ones."""
        return self._snapshot.get_many(keys)

    async def contains(self, key: bytes) -> bool:
        """Whether `key` is there at the position."""
        return key in self._snapshot

    def scan(
        self,
        prefix: bytes = b"",
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Rows:
        """As AsyncDB.scan(), at the snapshot's position."""
        lists = self._snapshot.scan_chunks(prefix, start, stop, reverse, limit)
        return Rows(_LocalChunks(self._store, self._commits, lists))

    async def close(self) -> None:
        """Let go of the position; idempotent."""
        self._snapshot.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._snapshot.close()


class AsyncTransaction(_Face):
    """Reads one snapshot, collects writes, commits if nothing it read has changed since."""

    __slots__ = ("_transaction",)

    def __init__(self, store: _NotingStore, commits: Commits, transaction: Transaction) -> None:
        super().__init__(store, commits)
        self._transaction = transaction

    @property
    def position(self) -> Position:
        """The position the reads see."""
        return self._transaction.position

    @overload
    async def get(self, key: bytes) -> bytes | None: ...
    @overload
    async def get(self, key: bytes, default: T) -> bytes | T: ...
    async def get(self, key: bytes, default: Any = None) -> Any:
        """The value of `key` as this transaction sees it."""
        return self._transaction.get(key, default)

    async def contains(self, key: bytes) -> bool:
        """Whether `key` is there as this transaction sees it."""
        return key in self._transaction

    def scan(
        self,
        prefix: bytes = b"",
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Rows:
        """As AsyncDB.scan(), with this transaction's own writes in place."""
        pairs = self._transaction.scan(prefix, start, stop, reverse, limit)
        return Rows(_LocalChunks(self._store, self._commits, _sliced(pairs)))

    def put(self, key: bytes, value: bytes, ttl: float | None = None) -> None:
        """Set a key when the transaction commits."""
        self._transaction.put(key, value, ttl)

    def delete(self, key: bytes) -> None:
        """Remove a key when the transaction commits; a missing one is fine."""
        self._transaction.delete(key)

    async def commit(self) -> None:
        """Commit now; the context does it at its end. Raises Conflict: nothing was written."""
        await self._run(self._transaction.commit)

    async def rollback(self) -> None:
        """Forget the writes."""
        self._transaction.rollback()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._run(self._transaction.__exit__, kind, error, traceback)


def _sliced(pairs: Iterator[Pair]) -> Iterator[list[Pair]]:
    """An iterator of pairs as one of lists, at most CHUNK_ROWS long."""
    while found := list(islice(pairs, CHUNK_ROWS)):
        yield found
