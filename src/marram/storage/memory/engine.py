"""The memory engine: sixteen keyspaces, and the snapshots that pin their older versions.

Owns which keyspaces there are and which positions are pinned; not the order of commits
(storage/commit.py) nor files.

E1  state is a function of the batches applied, in order; nothing here reads a clock.
E2  apply() either applies a whole batch or raises before it touched anything.
E3  revert(apply(batch)) restores the state exactly.

Threading: changes, snapshot() and release() under the store's lock; Snapshot.get needs none.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from typing import NamedTuple

from marram.coding.batch import (
    DELETE,
    DELETE_RANGE,
    EXPIRE,
    KEYSPACES,
    PATCH,
    PUT,
    SWAP,
    Change,
)
from marram.storage.entry import Stored, is_expired, stored
from marram.storage.memory.space import Link, Space

_TRIM_MIN = 4096  # older versions that may pile up before a release looks for garbage


class KeyUndo(NamedTuple):
    """Restores one key."""

    space: Space
    key: bytes
    before: Stored | None


class SpaceUndo(NamedTuple):
    """Puts a keyspace back where it was."""

    keyspace: int
    space: Space


Undo = list[KeyUndo | SpaceUndo]


class MemoryEngine:
    """The whole map in memory."""

    name = "memory"

    def __init__(self) -> None:
        self.spaces: list[Space] = [Space() for _ in range(KEYSPACES)]
        self._pins: list[int] = []  # positions of live snapshots, ascending, with repeats
        self.pinned = -1  # the newest of them, or -1
        self._trimmed_size = 0

    # -- changing --------------------------------------------------------------------------------

    def put(self, keyspace: int, key: bytes, held: Stored, sequence: int) -> None:
        """apply() of a single PUT, without the tuple."""
        self.spaces[keyspace].put(key, held, sequence, self.pinned)

    def apply(self, changes: Iterable[Change], sequence: int) -> Undo:
        """Apply a batch; returns what revert() needs."""
        undo: Undo = []
        pinned = self.pinned
        for kind, keyspace, key, value, number, type_ in changes:
            space = self.spaces[keyspace]
            if kind == PUT:
                assert value is not None
                held = stored(value, number, type_)
                undo.append(KeyUndo(space, key, space.put(key, held, sequence, pinned)))
            elif kind == DELETE:
                undo.append(KeyUndo(space, key, space.delete(key, sequence, pinned)))
            elif kind == EXPIRE:
                undo.append(KeyUndo(space, key, space.expire(key, number, sequence, pinned)))
            elif kind == PATCH:
                assert value is not None
                before = space.patch(key, number, value, sequence, pinned)
                undo.append(KeyUndo(space, key, before))
            elif kind == SWAP:
                undo.append(SpaceUndo(keyspace, space))
                undo.append(SpaceUndo(number, self.spaces[number]))
                self.spaces[keyspace], self.spaces[number] = self.spaces[number], space
            else:
                assert kind == DELETE_RANGE
                self._delete_range(keyspace, key, value, sequence, undo)
        return undo

    def revert(self, undo: Undo, sequence: int) -> None:
        """Undo a batch that was applied at `sequence` and never committed (E3)."""
        for step in reversed(undo):
            if isinstance(step, SpaceUndo):
                self.spaces[step.keyspace] = step.space
            elif step.before is None:
                step.space.delete(step.key, sequence, self.pinned)
            else:
                step.space.put(step.key, step.before, sequence, self.pinned)

    def _delete_range(
        self, keyspace: int, start: bytes, stop: bytes | None, sequence: int, undo: Undo
    ) -> None:
        space = self.spaces[keyspace]
        if start == b"" and stop is None:
            # Snapshots hold the old Space itself, so clearing costs nothing.
            undo.append(SpaceUndo(keyspace, space))
            self.spaces[keyspace] = Space()
            return
        while keys := space.order.chunk(start, stop, 1000):
            for key in keys:
                before = space.delete(key, sequence, self.pinned)
                if before is not None:
                    undo.append(KeyUndo(space, key, before))
            start = keys[-1] + b"\0"

    # -- snapshots -------------------------------------------------------------------------------

    def snapshot(self, position: int) -> Snapshot:
        """Pin the present state, which is the state at `position`."""
        insort(self._pins, position)
        self.pinned = self._pins[-1]
        return Snapshot(self, position, tuple(self.spaces))

    def release(self, snapshot: Snapshot) -> list[dict[bytes, Link]]:
        """Unpin; returns retired versions, which the caller may free at leisure."""
        self._pins.remove(snapshot.position)
        self.pinned = self._pins[-1] if self._pins else -1
        if not self._pins:
            self._trimmed_size = 0
            spaces = {id(space): space for space in (*self.spaces, *snapshot.spaces)}
            return [space.forget_history() for space in spaces.values() if space.history]
        size = sum(len(space.history) for space in self.spaces)
        if snapshot.position < self._pins[0] and size > 2 * self._trimmed_size + _TRIM_MIN:
            for space in self.spaces:
                space.trim_history(self._pins[0])
            self._trimmed_size = sum(len(space.history) for space in self.spaces)
        return []

    # -- figures ---------------------------------------------------------------------------------

    def data_bytes(self) -> int:
        """Keys and values held, bytes, without overhead."""
        return sum(space.data_bytes for space in self.spaces)


class Snapshot:
    """The state at one position; release it when done (MemoryEngine.release)."""

    __slots__ = ("engine", "position", "spaces")

    def __init__(self, engine: MemoryEngine, position: int, spaces: tuple[Space, ...]) -> None:
        self.engine = engine
        self.position = position
        self.spaces = spaces

    def get(self, keyspace: int, key: bytes) -> Stored | None:
        """What the key held at the position, expired or not; needs no lock."""
        return self.spaces[keyspace].get_at(key, self.position)

    def chunk(
        self,
        keyspace: int,
        start: bytes,
        stop: bytes | None,
        limit: int,
        now_ms: int,
        *,
        reverse: bool = False,
    ) -> tuple[list[tuple[bytes, Stored]], bytes | None]:
        """One slice of a range: (rows not expired at now_ms, where the next slice goes on).

        It examines `limit` keys, so a slice may hold fewer rows. The second value is None at the
        end, else the next start (or, in reverse, the next stop). Under the store's lock.
        """
        space = self.spaces[keyspace]
        keys = space.order.chunk(start, stop, limit, reverse=reverse)
        rows = []
        for key in keys:
            held = space.get_at(key, self.position)
            if held is not None and not is_expired(held, now_ms):
                rows.append((key, held))
        if len(keys) < limit:
            return rows, None
        return rows, keys[-1] if reverse else keys[-1] + b"\0"
