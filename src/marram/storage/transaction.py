"""Batch and Transaction: many changes, one commit.

Owns collecting changes and, for a transaction, noting what was read; the check itself is
Store.changed_since().

X1  a batch or transaction commits whole or not at all, and only when its context ends normally.
X2  a transaction commits only if no key it read and no range it scanned was written since its
    snapshot: so what it wrote is as if it had run alone at its end.

Threading: one thread at a time each.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from marram.coding.batch import Change, delete, delete_range, put
from marram.errors import Conflict, NotFound
from marram.storage.arguments import (
    check_key,
    check_seconds,
    check_value,
    checked_count,
    scan_bounds,
    to_bytes,
)
from marram.storage.store import Position

if TYPE_CHECKING:
    from marram.storage.db import DB

T = TypeVar("T")

_MISSING: Any = object()


class Batch:
    """Collects changes for one atomic commit."""

    __slots__ = ("_changes", "_db")

    def __init__(self, db: DB) -> None:
        self._db = db
        self._changes: list[Change] = []

    def put(self, key: bytes, value: bytes, ttl: float | None = None) -> None:
        """Set a key when the batch commits."""
        db = self._db
        deadline_ms = 0 if ttl is None else db.store.now_ms() + check_seconds(ttl, "ttl")
        key = check_key(key, db.store.options.max_key_bytes)
        self._changes.append(
            put(db.number, key, check_value(value, db.store.options.max_value_bytes), deadline_ms)
        )

    def delete(self, key: bytes) -> None:
        """Remove a key when the batch commits; a missing one is fine."""
        db = self._db
        self._changes.append(delete(db.number, check_key(key, db.store.options.max_key_bytes)))

    def delete_range(self, start: bytes, stop: bytes | None) -> None:
        """Remove every key of [start, stop) when the batch commits; None: to the end."""
        start = to_bytes(start, "start")
        if stop is not None:
            stop = to_bytes(stop, "stop")
        self._changes.append(delete_range(self._db.number, start, stop))

    def __len__(self) -> int:
        return len(self._changes)

    def __enter__(self) -> Self:
        self._db.store.check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        changes, self._changes = self._changes, []
        if kind is None:
            self._db.commit(changes)


class Transaction:
    """Reads one snapshot, collects writes, commits if nothing it read has changed since.

    Reads see the transaction's own writes. Ranges count as read too: a key that another writer
    adds to a scanned range is a conflict.
    """

    __slots__ = ("_changes", "_db", "_keys", "_ranges", "_snapshot", "_written")

    def __init__(self, db: DB) -> None:
        self._db = db
        self._snapshot = db.snapshot()
        self._keys: list[tuple[int, bytes]] = []
        self._ranges: list[tuple[int, bytes, bytes | None]] = []
        self._changes: list[Change] = []
        self._written: dict[bytes, bytes | None] = {}

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
        if key in self._written:
            value = self._written[key]
            return default if value is None else value
        self._keys.append((self._db.number, key))
        return self._snapshot.get(key, default)

    def __getitem__(self, key: bytes) -> bytes:
        value = self.get(key, _MISSING)
        if value is _MISSING:
            raise NotFound(repr(key))
        return value

    def __contains__(self, key: object) -> bool:
        return self.get(to_bytes(key, "key"), _MISSING) is not _MISSING

    def scan(
        self,
        prefix: bytes = b"",
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[bytes, bytes]]:
        """As DB.scan(), with this transaction's own writes in place."""
        low, high = scan_bounds(prefix, start, stop)
        self._ranges.append((self._db.number, low, high))
        written = sorted(
            ((k, v) for k, v in self._written.items() if k >= low and (high is None or k < high)),
            reverse=reverse,
        )
        stored = self._snapshot.scan(prefix, start, stop, reverse)
        merged = _overlay(stored, written, reverse)
        left = checked_count(limit, "limit")
        for pair in merged:
            if left is not None:
                if left == 0:
                    return
                left -= 1
            yield pair

    def put(self, key: bytes, value: bytes, ttl: float | None = None) -> None:
        """Set a key when the transaction commits."""
        db = self._db
        key = check_key(key, db.store.options.max_key_bytes)
        value = check_value(value, db.store.options.max_value_bytes)
        deadline_ms = 0 if ttl is None else db.store.now_ms() + check_seconds(ttl, "ttl")
        self._changes.append(put(db.number, key, value, deadline_ms))
        self._written[key] = value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.put(key, value)

    def delete(self, key: bytes) -> None:
        """Remove a key when the transaction commits; a missing one is fine."""
        key = check_key(key, self._db.store.options.max_key_bytes)
        self._changes.append(delete(self._db.number, key))
        self._written[key] = None

    def __delitem__(self, key: bytes) -> None:
        if key not in self:
            raise NotFound(repr(key))
        self.delete(key)

    def commit(self) -> None:
        """Commit now; the context does it at its end. Raises Conflict: nothing was written."""
        store = self._db.store
        changes, self._changes = self._changes, []
        try:
            if not changes:
                return
            with store.lock:
                if store.changed_since(self._snapshot.pin, self._keys, self._ranges):
                    raise Conflict("something this transaction read has been changed since")
                sequence = store.append_locked(changes)
        finally:
            self._snapshot.close()
        store.wait(sequence)

    def rollback(self) -> None:
        """Forget the writes; the context does it when an exception leaves it."""
        self._changes = []
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


def _overlay(
    stored: Iterator[tuple[bytes, bytes]],
    written: list[tuple[bytes, bytes | None]],
    reverse: bool,
) -> Iterator[tuple[bytes, bytes]]:
    """Merge two ordered runs; on the same key the written one wins, and None hides it."""
    at = 0
    for key, value in stored:
        while at < len(written) and (written[at][0] > key if reverse else written[at][0] < key):
            if written[at][1] is not None:
                yield written[at]  # type: ignore[misc]
            at += 1
        if at < len(written) and written[at][0] == key:
            if written[at][1] is not None:
                yield written[at]  # type: ignore[misc]
            at += 1
        else:
            yield key, value
    for late_key, late_value in written[at:]:
        if late_value is not None:
            yield late_key, late_value
