"""DB: the embedded API, a mapping from bytes to bytes that survives.

Owns what users of the library touch; every promise it makes is kept below, in store.py.

D1  a method that writes returns after its batch is as durable as the options ask.
D2  a read shows nothing that a crash could still undo: of a key whose newest value is not settled
    it waits for it.
D3  iteration shows the state at one position, whatever is written meanwhile.

Threading: every method from any thread. Not for use after fork(): the child's handle raises.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from itertools import chain
from typing import Any, Self

from marram.coding.batch import Change, delete, delete_range, expire, put
from marram.env.api import Env
from marram.errors import Error, InvalidArgument, NotFound
from marram.storage.arguments import (
    check_key,
    check_seconds,
    check_value,
    to_bytes,
)
from marram.storage.backup import backup as backup_store
from marram.storage.engine import Progress
from marram.storage.entry import Stored, deadline_of, is_expired, string_of
from marram.storage.layout import ROLE
from marram.storage.options import options_from
from marram.storage.points import Points, live, newest, no_replicas, settled
from marram.storage.snapshot import CHUNK_ROWS, Snapshot
from marram.storage.store import Position, Store
from marram.storage.transaction import Batch, Transaction
from marram.storage.verify import Report, verify_store

_logger = logging.getLogger("marram.store")

_MISSING: Any = object()

# What a key holds that is nothing but its value.
_STRINGS = frozenset((bytes, type(None)))


def open_db(
    directory: str | os.PathLike[str],
    *,
    engine: str | None = None,
    durability: str = "sync",
    create: bool = True,
    env: Env | None = None,
    **options: Any,
) -> DB:
    """Open the store in `directory`, making it where there is none, and return it.

    engine: "memory" or "lsm", of a new store, and what an existing one must have; None for
    whichever that has, and "memory" for a new one. durability: "sync", "interval" or "none";
    create: make a missing store.
    env: a stand-in for the operating system; the real one by default.
    options: the other fields of marram.storage.options.Options, by name.
    Raises Locked, NotAStore, Corruption, UnsupportedFormat, InvalidArgument, OSError.
    """
    if env is None:
        from marram.env.posix import PosixEnv

        env = PosixEnv()
    path = os.path.abspath(os.fspath(directory))
    if isinstance(path, bytes):
        raise InvalidArgument("give the directory as str")
    chosen = {"engine": engine, "durability": durability, "create": create, **options}
    store = Store.open(path, env, options_from(chosen))
    if env.exists(f"{path}/{ROLE}"):
        _logger.warning(
            "%s is a replica's, or a deposed primary's: what is written to it here is set aside "
            "when it follows its primary again", path,
        )  # fmt: skip
    return DB(store)


class DB(Points, MutableMapping[bytes, bytes]):
    """An open store, or one of its sixteen keyspaces (keyspace())."""

    __slots__ = ("__weakref__",)

    # -- points: get(), put() and delete() are Points' -------------------------------------------

    def compare_and_set(
        self, key: bytes, expected: bytes | None, new: bytes | None, *, acks: int = 0
    ) -> bool:
        """Set `key` to `new` if it holds `expected`; returns whether it did.

        expected None: the key must be missing; new None: delete it. The deadline goes.
        """
        if acks:
            raise no_replicas()
        key = check_key(key, self._max_key)
        if expected is not None:
            expected = to_bytes(expected, "expected value")
        if new is not None:
            new = check_value(new, self._max_value)

        def change(held: Stored | None) -> list[Change] | None:
            if (None if held is None else string_of(held)) != expected:
                return None
            if new is None:
                return [] if held is None else [delete(self._keyspace, key)]
            return [put(self._keyspace, key, new)]

        return self._modify(key, change)

    def ttl(self, key: bytes) -> float | None:
        """Seconds until `key` stops existing, or None where it has no deadline.

        Raises NotFound.
        """
        key = check_key(key, self._max_key)
        store = self._store
        committed = store.commit.committed
        held = newest(store.appender, self._keyspace, key)
        held = settled(store, self._keyspace, key, held, committed)
        now_ms = store.now_ms()
        if held is None or is_expired(held, now_ms):
            raise NotFound(repr(key))
        deadline_ms = deadline_of(held)
        return (deadline_ms - now_ms) / 1000 if deadline_ms else None

    def expire(self, key: bytes, seconds: float) -> bool:
        """Let `key` stop existing in `seconds`; returns whether it was there."""
        key = check_key(key, self._max_key)
        deadline_ms = self._store.now_ms() + check_seconds(seconds, "seconds")

        def change(held: Stored | None) -> list[Change] | None:
            return None if held is None else [expire(self._keyspace, key, deadline_ms)]

        return self._modify(key, change)

    def persist(self, key: bytes) -> bool:
        """Drop the deadline of `key`; returns whether it had one."""
        key = check_key(key, self._max_key)

        def change(held: Stored | None) -> list[Change] | None:
            if held is None or not deadline_of(held):
                return None
            return [expire(self._keyspace, key, 0)]

        return self._modify(key, change)

    # -- many ------------------------------------------------------------------------------------

    def put_many(
        self,
        items: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]],
        ttl: float | None = None,
        *,
        acks: int = 0,
    ) -> None:
        """Set many keys in one atomic batch."""
        if acks:
            raise no_replicas()
        pairs = items.items() if isinstance(items, Mapping) else items
        deadline_ms = 0 if ttl is None else self._store.now_ms() + check_seconds(ttl, "ttl")
        changes = [
            put(
                self._keyspace,
                check_key(key, self._max_key),
                check_value(value, self._max_value),
                deadline_ms,
            )
            for key, value in pairs
        ]
        self.commit(changes)

    def get_many(
        self, keys: Iterable[bytes], *, at_least: Position | None = None
    ) -> list[bytes | None]:
        """The values of `keys`, in their order, None for missing ones.

        Each is what get() would return; together they are one snapshot only within snapshot().
        """
        if at_least is not None:
            self._check_reached(at_least)
        wanted = [key if type(key) is bytes else to_bytes(key, "key") for key in keys]
        store = self._store
        committed = store.commit.committed
        found = store.engine.spaces[self._keyspace].get_many(wanted)
        if store.commit.last != committed:
            found = [
                settled(store, self._keyspace, key, held, committed)
                for key, held in zip(wanted, found, strict=True)
            ]
        if _STRINGS.issuperset(map(type, found)):
            return found  # type: ignore[return-value]
        return [
            held if type(held) is bytes or held is None else self._unwrap(key, held, None)
            for key, held in zip(wanted, found, strict=True)
        ]

    def batch(self, *, acks: int = 0) -> Batch:
        """A context whose puts and deletes become one atomic batch when it ends without error."""
        if acks:
            raise no_replicas()
        return Batch(self)

    def scan(
        self,
        prefix: bytes = b"",
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
        *,
        at_least: Position | None = None,
    ) -> Iterator[tuple[bytes, bytes]]:
        """The pairs with start <= key < stop and the prefix, in key order, at one position (D3)."""
        # In C from here on: a generator would cost 0.1 us a pair.
        chunks = self.scan_chunks(prefix, start, stop, reverse, limit, at_least=at_least)
        return chain.from_iterable(chunks)

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
    ) -> Iterator[list[tuple[bytes, bytes]]]:
        """scan(), in lists of at most `chunk` pairs: a call a list instead of a call a pair."""
        with self.snapshot(at_least=at_least) as snapshot:
            yield from snapshot.scan_chunks(prefix, start, stop, reverse, limit, chunk)

    def snapshot(self, *, at_least: Position | None = None) -> Snapshot:
        """A read view of the state now, until it is closed; use it as a context."""
        if at_least is not None:
            self._check_reached(at_least)
        return Snapshot(self._store, self._keyspace)

    def transaction(self, *, acks: int = 0) -> Transaction:
        """A context that reads one snapshot and commits only if nothing it read has changed.

        Raises Conflict at its end where another writer came first; run it again then.
        """
        if acks:
            raise no_replicas()
        return Transaction(self)

    def keyspace(self, number: int) -> DB:
        """Another of the sixteen keyspaces of this store, 0 .. 15; it shares this handle's life."""
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 16:
            raise InvalidArgument(f"keyspace must be 0 .. 15, not {number!r}")
        return DB(self._store, number)

    # -- mapping ---------------------------------------------------------------------------------

    def __getitem__(self, key: bytes) -> bytes:
        value = self.get(key, _MISSING)
        if value is _MISSING:
            raise NotFound(repr(key))
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.put(key, value)

    def __delitem__(self, key: bytes) -> None:
        if not self.delete(key):
            raise NotFound(repr(key))

    def __contains__(self, key: object) -> bool:
        return self.get(to_bytes(key, "key"), _MISSING) is not _MISSING

    def __iter__(self) -> Iterator[bytes]:
        return (key for key, _ in self.scan())

    def __reversed__(self) -> Iterator[bytes]:
        """The keys in descending order."""
        return (key for key, _ in self.scan(reverse=True))

    def __len__(self) -> int:
        store = self._store
        with store.lock:
            store.check_open()
            space = store.engine.spaces[self._keyspace]
            size = len(space) - (space.expired_count(store.now_ms()) if space.volatile else 0)
            last = store.last
        store.wait(last)
        return size

    def __bool__(self) -> bool:
        """Always true: an empty store is still a store."""
        return True

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def clear(self) -> None:
        """Remove every key of this keyspace, in one step."""
        self.commit([delete_range(self._keyspace, b"", None)])

    def pop(self, key: bytes, default: Any = _MISSING) -> Any:
        """Remove `key` and return its value, atomically; `default`, or NotFound, where missing."""
        taken: list[bytes] = []

        def change(held: Stored | None) -> list[Change] | None:
            if held is None:
                return None
            taken.append(string_of(held))
            return [delete(self._keyspace, key)]

        key = check_key(key, self._max_key)
        if self._modify(key, change):
            return taken[0]
        if default is _MISSING:
            raise NotFound(repr(key))
        return default

    def popitem(self) -> tuple[bytes, bytes]:
        """Remove and return the first pair in key order. Raises NotFound where there is none."""
        while True:
            first = next(self.scan(limit=1), None)
            if first is None:
                raise NotFound("the keyspace is empty")
            value = self.pop(first[0], None)
            if value is not None:
                return first[0], value

    def setdefault(self, key: bytes, default: bytes = b"") -> bytes:
        """The value of `key`, which is set to `default` first where it is missing; atomic."""
        while True:
            value = self.get(key)
            if value is not None:
                return value
            if self.compare_and_set(key, None, default):
                return bytes(default)

    def update(self, *args: Any, **kwargs: bytes) -> None:
        """put_many(); keyword arguments cannot name bytes and are refused."""
        if kwargs:
            raise InvalidArgument("keys are bytes; pass a mapping or pairs")
        if args:
            (items,) = args
            self.put_many(items)

    # -- the store -------------------------------------------------------------------------------

    @property
    def position(self) -> Position:
        """The newest committed position: (epoch, sequence)."""
        return self._store.position

    @property
    def number(self) -> int:
        """Which keyspace this handle reads and writes."""
        return self._keyspace

    @property
    def store(self) -> Store:
        """The store behind this handle, for the node and the tools."""
        return self._store

    def commit(self, changes: list[Change]) -> None:
        """Commit changes (coding/batch.py) as one batch, as durable as the options ask."""
        if changes:
            self._store.wait(self._store.append(changes))

    def checkpoint(self, progress: Progress | None = None) -> None:
        """Write the present state to a new generation, so that the log starts anew."""
        self._store.checkpoint(progress)

    def compact(
        self,
        start: bytes | None = None,
        stop: bytes | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Flush, and take everything that is of no use any more out of the tables (engine "lsm").

        start, stop: only keys of [start, stop), None for no bound; without either all keyspaces.
        Blocks the caller, not readers and writers; what is written meanwhile may be left out.
        The memory engine has nothing to compact: it makes a checkpoint. Raises Interrupted:
        compactions are paused.
        """
        if start is None and stop is None:
            self._store.compact(None, progress)
            return
        low = b"" if start is None else to_bytes(start, "start")
        high = None if stop is None else to_bytes(stop, "stop")
        if high is None or low < high:
            self._store.compact((self._keyspace, low, high), progress)

    def sync(self) -> None:
        """Make everything written so far durable, whatever the durability. Raises StoreFailed."""
        self._store.sync()

    def backup(self, target: str | os.PathLike[str], progress: Progress | None = None) -> Position:
        """Write a consistent copy of the store, as of now, into the new directory `target`.

        Writers go on meanwhile. Returns the position the copy holds.
        """
        return backup_store(self._store, os.path.abspath(os.fspath(target)), progress)

    def verify(self, progress: Progress | None = None) -> Report:
        """Read every byte of every file and check it. Raises nothing: the report tells."""
        return verify_store(self._store, progress)

    def stats(self) -> dict[str, Any]:
        """Figures about the store, nested, with units in the names."""
        self._store.check_open()
        return self._store.stats()

    def close(self) -> None:
        """Make everything durable and give the directory up; idempotent."""
        self._store.close()

    def __enter__(self) -> Self:
        self._store.check_open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._store.closed is not None else f"at {self.position}"
        return f"<marram.DB {self._store.directory!r} keyspace {self._keyspace} {state}>"

    def __reduce__(self) -> Any:
        raise Error("a DB owns its directory and cannot be pickled; pass the path and open it")

    # -- private ---------------------------------------------------------------------------------

    def _modify(self, key: bytes, change: Callable[[Stored | None], list[Change] | None]) -> bool:
        """Read, decide and write as one step; `change` returns None to leave things as they are."""
        store = self._store
        with store.lock:
            store.check_open()
            changes = change(live(store, self._keyspace, key))
            if changes:
                sequence = store.append_locked(changes)
            else:
                sequence = store.settles_at(key)
        store.wait(sequence)
        return changes is not None
