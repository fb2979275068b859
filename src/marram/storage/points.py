"""Points: reading and writing single keys, the part of the embedded API whose calls are counted.

Owns what DB (db.py) says of one key, its promises D1 and D2; not ranges, nor what is done in one
step with more than one key.

Apart from db.py because DB is a MutableMapping, a Python class, which slows compiled methods down:
this is its base, compiled to a C type.

Threading: every method from any thread.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TypeVar, overload

from marram.coding.batch import delete, put
from marram.errors import Behind, InvalidArgument, StoreFailed, StoreFull
from marram.storage.append import Appender
from marram.storage.arguments import check_key, check_seconds, check_value, to_bytes
from marram.storage.commit import CommitQueue
from marram.storage.entry import Stored, is_expired, string_of
from marram.storage.memory.engine import MemoryEngine
from marram.storage.memory.space import Space
from marram.storage.store import Position, Store

T = TypeVar("T")


class Points:
    """The keys of one keyspace, one at a time."""

    __slots__ = ("_appender", "_commit", "_keyspace", "_max_key", "_max_value", "_store")

    def __init__(self, store: Store, keyspace: int = 0) -> None:
        """Use marram.open()."""
        self._store = store
        self._appender: Appender = store.appender
        self._commit: CommitQueue = store.commit
        self._keyspace = keyspace
        self._max_key = store.options.max_key_bytes
        self._max_value = store.options.max_value_bytes

    @overload
    def get(self, key: bytes, *, at_least: Position | None = None) -> bytes | None: ...
    @overload
    def get(self, key: bytes, default: T, *, at_least: Position | None = None) -> bytes | T: ...
    def get(self, key: bytes, default: Any = None, *, at_least: Position | None = None) -> Any:
        """The value of `key`, or `default` where there is none.

        at_least: of a state that holds this position; for replicas (connect()), here it does, or
        Behind is raised. Raises InvalidType for a key that is not bytes; WrongType for a value that
        is no string.
        """
        if at_least is not None:
            self._check_reached(at_least)
        if type(key) is not bytes:
            key = to_bytes(key, "key")
        commit = self._commit
        committed = commit.committed
        held = newest(self._appender, self._keyspace, key)
        if commit.last != committed:
            held = settled(self._store, self._keyspace, key, held, committed)
        if type(held) is bytes:
            return held
        return default if held is None else self._unwrap(key, held, default)

    def put(self, key: bytes, value: bytes, ttl: float | None = None, *, acks: int = 0) -> None:
        """Set `key` to `value`; ttl: seconds until it stops existing, or None for never.

        acks: replicas that have to have it; 0 here, where there are none. Raises InvalidType,
        InvalidArgument, StoreFull (nothing changed), OutcomeUnknown.
        """
        if acks:
            raise no_replicas()
        key = check_key(key, self._max_key)
        value = check_value(value, self._max_value)
        if ttl is None:
            sequence = self._appender.put(self._keyspace, key, value)
            if sequence:
                self._store.wait(sequence)
        else:
            store = self._store
            deadline_ms = store.now_ms() + check_seconds(ttl, "ttl")
            store.wait(store.append([put(self._keyspace, key, value, deadline_ms)]))

    def delete(self, key: bytes, *, acks: int = 0) -> bool:
        """Remove `key`; returns whether it was there."""
        if acks:
            raise no_replicas()
        key = check_key(key, self._max_key)
        store = self._store
        with store.lock:
            store.check_open()
            if live(store, self._keyspace, key) is None:
                sequence = store.settles_at(key)
                found = False
            else:
                sequence = store.append_locked([delete(self._keyspace, key)])
                found = True
        store.wait(sequence)
        return found

    def _check_reached(self, position: Position) -> None:
        """Raises Behind."""
        reached = self._store.position
        if reached < position:
            raise Behind(f"the store is at {reached}, and {position} was asked for")

    def _unwrap(self, key: bytes, held: Stored, default: Any) -> Any:
        if not is_expired(held, self._store.now_ms()):
            return string_of(held)
        # Seen as gone, it must stay gone: so its end goes into the log. A store that takes no
        # writes just hides it.
        with suppress(StoreFull, StoreFailed):
            self._store.wait(self._store.expire_key(self._keyspace, key))
        return default


def newest(appender: Appender, keyspace: int, key: bytes) -> Stored | None:
    """What a key holds now, expired or not, settled or not."""
    engine = appender.engine
    if type(engine) is MemoryEngine:
        memory: MemoryEngine = engine
        space: Space = memory.spaces[keyspace]
        return space.map.get(key)
    return engine.spaces[keyspace].get(key)


def settled(
    store: Store, keyspace: int, key: bytes, held: Stored | None, committed: int
) -> Stored | None:
    """What a key holds, once no crash can undo it (D2).

    held: what was read without the lock; committed: commit.committed from before that.
    """
    commit: CommitQueue = store.commit
    if commit.stepwise > committed:
        # It may be from between two steps of a batch (commit.py C6), which never was a state.
        with store.lock:
            held = newest(store.appender, keyspace, key)
            position = commit.settles_at(key)
    else:
        position = commit.settles_at(key)
    if position:
        store.wait(position)
    return held


def live(store: Store, keyspace: int, key: bytes) -> Stored | None:
    """What a key holds now, None where it is expired. Under the lock."""
    held = newest(store.appender, keyspace, key)
    return None if held is None or is_expired(held, store.now_ms()) else held


def no_replicas() -> InvalidArgument:
    """What asking an embedded store for acks comes to."""
    return InvalidArgument("acks is for servers (connect()): an embedded store has no replicas")
