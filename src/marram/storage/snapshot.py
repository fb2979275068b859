"""Snapshot: what DB.snapshot() gives, the state at one position as a readable object.

Owns the public read view and its scans; the pinning itself is the engine's.

N1  every answer is as of one position and one time: deadlines are judged by the time it was taken.
N2  the position is one no crash can undo before anything is shown.

Threading: any thread; each slice of a scan takes the store's lock for a moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Self, TypeVar, overload

from marram.errors import InvalidArgument, NotFound
from marram.storage.arguments import checked_count, scan_bounds, to_bytes
from marram.storage.engine import SLICE_KEYS, Pin, Rows
from marram.storage.entry import Stored, is_expired, string_of
from marram.storage.store import Position, Store

T = TypeVar("T")

CHUNK_ROWS = SLICE_KEYS
"""Rows a scan yields at a time, if not told otherwise."""

_EXAMINED_MIN = 16

_MISSING: Any = object()


class Snapshot:
    """The state at one position, as of the time it was taken; close it to let old versions go."""

    __slots__ = ("_closed", "_keyspace", "_now_ms", "_pin", "_store")

    def __init__(self, store: Store, keyspace: int) -> None:
        """Use DB.snapshot(). Returns once the position is one no crash can undo."""
        self._closed = True  # until there is something to release
        self._store = store
        self._keyspace = keyspace
        self._pin: Pin = store.snapshot()
        self._closed = False
        self._now_ms = store.now_ms()
        try:
            store.wait(self._pin.position)
        except BaseException:
            self.close()
            raise

    @property
    def pin(self) -> Pin:
        """The engine's snapshot behind it, for Store.changed_since()."""
        return self._pin

    @property
    def position(self) -> Position:
        """The position it shows."""
        return Position(self._store.epoch, self._pin.position)

    @overload
    def get(self, key: bytes) -> bytes | None: ...
    @overload
    def get(self, key: bytes, default: T) -> bytes | T: ...
    def get(self, key: bytes, default: Any = None) -> Any:
        """The value of `key` at the position, or `default`."""
        held = self._held(to_bytes(key, "key"))
        if held is None:
            return default
        return held if isinstance(held, bytes) else string_of(held)

    def get_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """The values of `keys` at the position, None for missing ones."""
        wanted = [to_bytes(key, "key") for key in keys]
        self._check()
        now_ms = self._now_ms
        return [
            held
            if held is None or isinstance(held, bytes)
            else None
            if is_expired(held, now_ms)
            else string_of(held)
            for held in self._pin.get_many(self._keyspace, wanted)
        ]

    def __getitem__(self, key: bytes) -> bytes:
        value = self.get(key, _MISSING)
        if value is _MISSING:
            raise NotFound(repr(key))
        return value

    def __contains__(self, key: object) -> bool:
        return self._held(to_bytes(key, "key")) is not None

    def __iter__(self) -> Iterator[bytes]:
        return (key for key, _ in self.scan())

    def scan(
        self,
        prefix: bytes = b"",
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[bytes, bytes]]:
        """As DB.scan(), at the snapshot's position."""
        return chain.from_iterable(self.scan_chunks(prefix, start, stop, reverse, limit))

    def scan_chunks(
        self,
        prefix: bytes = b"",
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
        chunk: int = CHUNK_ROWS,
    ) -> Iterator[list[tuple[bytes, bytes]]]:
        """scan(), in lists of at most `chunk` pairs."""
        for rows in self.entries(prefix, start, stop, reverse, limit, chunk):
            yield _strings(rows)

    def entries(
        self,
        prefix: bytes = b"",
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
        chunk: int = CHUNK_ROWS,
    ) -> Iterator[list[tuple[bytes, Stored]]]:
        """scan_chunks() with deadlines and types: values as the store holds them (entry.py)."""
        low, high = scan_bounds(prefix, start, stop)
        left = checked_count(limit, "limit")
        size = checked_count(chunk, "chunk") or 1
        # Not below some: a key may turn out deleted or expired, and a list costs a lock.
        wanted = size if left is None else min(size, max(left, _EXAMINED_MIN))
        self._check()
        scan = self._pin.scan(
            self._keyspace, low, high, self._now_ms, reverse=reverse, chunk=wanted,
            lock=self._store.lock,
        )  # fmt: skip
        while left is None or left > 0:
            self._check()
            rows = next(scan, None)
            if rows is None:
                return
            if left is not None:
                rows = rows[:left]
                left -= len(rows)
            yield rows

    def close(self) -> None:
        """Let go of the position; idempotent."""
        if not self._closed:
            self._closed = True
            if self._store.closed is None:
                self._store.release(self._pin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _held(self, key: bytes) -> Stored | None:
        self._check()
        held = self._pin.get(self._keyspace, key)
        return None if held is None or is_expired(held, self._now_ms) else held

    def _check(self) -> None:
        if self._store.closed is not None:
            self._store.check_open()
        if self._closed:
            raise InvalidArgument("the snapshot is closed")


def _strings(rows: Rows) -> list[tuple[bytes, bytes]]:
    """The rows with the strings alone: the same list where they are nothing else."""
    for row in rows:
        if type(row[1]) is not bytes:
            return [(key, string_of(held)) for key, held in rows]
    return rows  # type: ignore[return-value]
