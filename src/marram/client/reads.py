"""What a remote transaction has read and wants to write, and scans that show its own writes.

Owns the bookkeeping that the blocking and the asyncio transaction share; not the commands
(calls.py) nor connections.

Threading: one transaction by one thread, or on one loop.
"""

from __future__ import annotations

from typing import Any

from marram.client.calls import Pair, Writes
from marram.storage.arguments import to_bytes


class ReadsAndWrites:
    """The read set, the read ranges and the writes of a transaction."""

    __slots__ = ("_written", "keys", "ranges", "writes")

    def __init__(self) -> None:
        self.keys: dict[bytes, None] = {}  # in the order they were read first
        self.ranges: list[tuple[bytes, bytes | None]] = []
        self.writes = Writes()
        self._written: dict[bytes, bytes | None] = {}

    def read_key(self, key: bytes) -> bool:
        """Whether the key has to be read from the snapshot; it counts as read then."""
        if key in self._written:
            return False
        self.keys[key] = None
        return True

    def written(self, key: bytes, default: Any) -> Any:
        """What the transaction wrote to a key, or `default` where it deleted it."""
        value = self._written[key]
        return default if value is None else value

    def read_range(self, start: bytes, stop: bytes | None, *, reverse: bool) -> Overlay:
        """Count [start, stop) as read; what the transaction wrote there comes back."""
        if stop != b"":
            self.ranges.append((start, stop))
        written = [
            (key, value)
            for key, value in self._written.items()
            if key >= start and (stop is None or key < stop)
        ]
        return Overlay(sorted(written, reverse=reverse), reverse=reverse)

    def put(self, key: bytes, value: bytes, ttl: float | None) -> None:
        """Write a key when the transaction commits."""
        self.writes.put(key, value, ttl)
        self._written[bytes(key)] = bytes(value)

    def delete(self, key: bytes) -> None:
        """Remove a key when the transaction commits."""
        self.writes.delete(key)
        self._written[to_bytes(key, "key")] = None


class Overlay:
    """Lays written pairs over the ordered chunks of a scan; a written None hides the key."""

    __slots__ = ("_at", "_reverse", "_written")

    def __init__(self, written: list[tuple[bytes, bytes | None]], *, reverse: bool) -> None:
        self._written = written  # in the scan's order
        self._reverse = reverse
        self._at = 0

    def merge(self, rows: list[Pair]) -> list[Pair]:
        """The next chunk as the transaction sees it."""
        if self._at == len(self._written):
            return rows
        merged: list[Pair] = []
        for row in rows:
            hidden = self._take_until(row[0], merged)
            if not hidden:
                merged.append(row)
        return merged

    def rest(self) -> list[Pair]:
        """What was written behind the last chunk."""
        left = self._written[self._at :]
        self._at = len(self._written)
        return [(key, value) for key, value in left if value is not None]

    def _take_until(self, key: bytes, merged: list[Pair]) -> bool:
        """Emit what was written up to `key`; whether `key` itself was."""
        while self._at < len(self._written):
            written, value = self._written[self._at]
            if written != key and (written < key) == self._reverse:
                return False
            self._at += 1
            if value is not None:
                merged.append((written, value))
            if written == key:
                return True
        return False
