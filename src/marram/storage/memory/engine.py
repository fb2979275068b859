"""The memory engine: sixteen keyspaces, and the snapshots that pin their older versions.

Owns which keyspaces there are; not which positions are pinned (pins.py), the order of commits
(storage/commit.py) or files (storage/checkpoint.py).

E1  state is a function of the batches applied, in order; nothing here reads a clock.
E2  apply() either applies a whole batch or raises before it touched anything.
E3  revert(apply(batch)) restores the state exactly.

Threading: changes, snapshot() and release() under the store's lock; Snapshot.get needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
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
from marram.storage.checkpoint import MemoryGeneration, MemoryReplacement, RowColumns
from marram.storage.engine import Home, Lock, Origin, Progress, Range, Rows
from marram.storage.entry import Stored, entry_of, is_expired, stored
from marram.storage.log.writer import GROW_MAX
from marram.storage.memory.pins import Pins
from marram.storage.memory.replay import MemoryReplay
from marram.storage.memory.space import Link, Space
from marram.storage.putting import TakesPuts


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

KEY_OVERHEAD = 160
"""Estimated bytes a key costs beyond its bytes: dict slot, objects, order."""


class MemoryEngine(TakesPuts):
    """The whole map in memory. pinned: the newest live snapshot's position, or -1."""

    __slots__ = ("_limit_bytes", "_pins", "pinned", "spaces")

    name = "memory"
    compactor = None

    def __init__(self, limit_bytes: int = 0) -> None:
        """limit_bytes: what it may take, estimated; 0 for no limit."""
        self._limit_bytes = limit_bytes
        self.spaces: list[Space] = [Space(for_scans=True) for _ in range(KEYSPACES)]
        self._pins = Pins()
        self.pinned = -1

    # -- changing --------------------------------------------------------------------------------

    def prepare(self, changes: Sequence[Change]) -> None:
        """Nothing can fail here."""

    def put(self, keyspace: int, key: bytes, held: Stored, sequence: int) -> None:
        """apply() of a single PUT, without the tuple."""
        space: Space = self.spaces[keyspace]
        space.put(key, held, sequence, self.pinned)

    def put_many(
        self, keyspace: int, keys: list[bytes], values: list[Stored], sequence: int
    ) -> None:
        """put() of each."""
        space: Space = self.spaces[keyspace]
        pinned = self.pinned
        for at in range(len(keys)):
            space.put(keys[at], values[at], sequence, pinned)

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

    def replay(self) -> MemoryReplay:
        """What takes a log's batches in recovery."""
        return MemoryReplay(self)

    def revert(self, undo: Undo, sequence: int) -> None:
        """Undo a batch that was applied at `sequence` and never committed (E3)."""
        for step in reversed(undo):
            if isinstance(step, SpaceUndo):
                self.spaces[step.keyspace] = step.space
            elif step.before is None:
                step.space.delete(step.key, sequence, self.pinned)
            else:
                step.space.put(step.key, step.before, sequence, self.pinned)
        for step in undo:  # not sooner: a key may have been changed more than once
            if isinstance(step, KeyUndo):
                step.space.forget_change(step.key, sequence)

    def _delete_range(
        self, keyspace: int, start: bytes, stop: bytes | None, sequence: int, undo: Undo
    ) -> None:
        space = self.spaces[keyspace]
        if start == b"" and stop is None:
            # Snapshots hold the old Space itself, so clearing costs nothing.
            undo.append(SpaceUndo(keyspace, space))
            self.spaces[keyspace] = Space(for_scans=True)
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
        self._pins.add(position)
        self.pinned = position
        return Snapshot(self._pins, position, tuple(self.spaces))

    def release(self, snapshot: Snapshot) -> list[dict[bytes, Link]]:
        """Unpin; returns retired versions, which the caller may free at leisure."""
        pins = snapshot.pins
        spaces: Collection[Space] = snapshot.spaces
        if pins is not self._pins:  # taken before replace()
            return pins.remove(snapshot.position, spaces)
        if spaces != tuple(self.spaces):
            spaces = {*self.spaces, *spaces}
        retired = pins.remove(snapshot.position, spaces)
        self.pinned = pins.newest
        return retired

    def changed_since(
        self, snapshot: Snapshot, keys: Sequence[tuple[int, bytes]], ranges: Sequence[Range]
    ) -> bool:
        """Whether any of the keys, or any key in the ranges, was written after the snapshot."""
        spaces = self.spaces
        position = snapshot.position
        return any(
            spaces[keyspace] is not snapshot.spaces[keyspace]
            or spaces[keyspace].changed_since(key, position)
            for keyspace, key in keys
        ) or any(
            spaces[keyspace] is not snapshot.spaces[keyspace]
            or spaces[keyspace].range_changed_since(start, stop, position)
            for keyspace, start, stop in ranges
        )

    # -- generations -----------------------------------------------------------------------------

    def resume(self) -> list[str]:
        """There is nothing to clear up."""
        return []

    def open(self, home: Home, fail: Callable[[BaseException], None]) -> None:
        """There is no background work but generations."""

    def begin_generation(self, home: Home, number: int, position: int) -> MemoryGeneration:
        """Pin the present state, which generation `number` will start from."""
        return MemoryGeneration(home, number, self, self.snapshot(position))

    def begin_replacement(self, home: Home, number: int, origin: Origin) -> MemoryReplacement:
        """Make generation `number` from the rows of another store."""
        return MemoryReplacement(home, number, origin, self, MemoryEngine())

    def replace(self, other: MemoryEngine) -> None:
        """Hold what `other` holds, which is given up. Snapshots keep the spaces of before."""
        self.spaces[:] = other.spaces
        # Their positions are of another history: compared with new ones they mean nothing.
        self._pins = Pins()
        self.pinned = -1

    def generation_due(self, log_bytes: int, home: Home) -> bool:
        """Whether the log has outgrown both the option's bytes and its ratio to the data."""
        options = home.options
        minimum = options.checkpoint_log_bytes
        if not minimum or log_bytes < minimum:
            return False
        return log_bytes >= options.checkpoint_log_ratio * self.data_bytes()

    def close(self) -> None:
        """Nothing to let go of."""

    # -- figures ---------------------------------------------------------------------------------

    def data_bytes(self) -> int:
        """Keys and values held, bytes, without overhead."""
        return sum(space.data_bytes for space in self.spaces)

    def memory_bytes(self) -> int:
        """About what the map takes, bytes."""
        return self.data_bytes() + KEY_OVERHEAD * sum(len(space) for space in self.spaces)

    def compact(self, where: Range | None, progress: Progress | None) -> None:
        """There is nothing but the last checkpoint."""

    def wait(self, timeout_s: float) -> None:
        """There is no background work but generations."""

    @property
    def log_step_bytes(self) -> int:
        """As much as is cheapest for the log."""
        return GROW_MAX

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit: nothing else holds writers back."""
        return self._limit_bytes > 0

    def is_full(self) -> bool:
        """Whether it takes more than options.memory_limit, estimated."""
        return 0 < self._limit_bytes < self.memory_bytes()

    def throttle(self) -> float:
        """How much writers should be held back: never. Beyond the limit they are refused."""
        return 0.0

    def held(self) -> AbstractContextManager[None]:
        """There are no files but generations'."""
        return nullcontext()

    def files(self) -> Set[str]:
        """None."""
        return frozenset()

    def stats(self) -> dict[str, object]:
        """What this engine alone has to tell: nothing."""
        return {}


class Snapshot:
    """The state at one position; release it when done (MemoryEngine.release)."""

    __slots__ = ("pins", "position", "spaces")

    def __init__(self, pins: Pins, position: int, spaces: tuple[Space, ...]) -> None:
        self.pins = pins
        self.position = position
        self.spaces = spaces

    def __len__(self) -> int:
        """About how many keys it shows: those there are now."""
        return sum(len(space) for space in self.spaces)

    def get(self, keyspace: int, key: bytes) -> Stored | None:
        """What the key held at the position, expired or not; needs no lock."""
        return self.spaces[keyspace].get_at(key, self.position)

    def get_many(self, keyspace: int, keys: Sequence[bytes]) -> list[Stored | None]:
        """get() of each, in their order."""
        get_at, position = self.spaces[keyspace].get_at, self.position
        return [get_at(key, position) for key in keys]

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
        space: Space = self.spaces[keyspace]
        return space.rows_at(start, stop, limit, self.position, now_ms, reverse)

    def columns(
        self, keyspace: int, start: bytes, limit: int, now_ms: int
    ) -> tuple[RowColumns, bytes | None]:
        """chunk() from `start` on, by column: ((keys, values, deadlines, types), where to go on).

        The last two are None where all are 0. Under the store's lock.
        Hot: nearly always nothing was written since, and no key has a deadline: then no key runs
        interpreted code.
        """
        space = self.spaces[keyspace]
        keys = space.order.chunk(start, None, limit)
        onward = keys[-1] + b"\0" if len(keys) == limit else None
        if space.history:
            held = self.get_many(keyspace, keys)
        else:  # nothing is older, so nothing is gone
            held = list(map(space.map.get, keys))
        if set(map(type, held)) <= {bytes}:
            return (keys, held, None, None), onward  # type: ignore[return-value]
        rows = [
            (key, *entry_of(value))
            for key, value in zip(keys, held, strict=True)
            if value is not None and not is_expired(value, now_ms)
        ]
        if not rows:
            return ([], [], None, None), onward
        columns = [list(column) for column in zip(*rows, strict=True)]
        return (columns[0], columns[1], columns[2], columns[3]), onward

    def scan(
        self,
        keyspace: int,
        start: bytes,
        stop: bytes | None,
        now_ms: int,
        *,
        reverse: bool = False,
        chunk: int,
        lock: Lock,
    ) -> Iterator[Rows]:
        """The rows of a range not expired at now_ms, in order, some at a time (never none).

        chunk: keys examined with the lock held, so the most a list has.
        """
        space: Space = self.spaces[keyspace]
        position = self.position
        onward: bytes | None = b""
        while onward is not None:
            with lock:
                rows, onward = space.rows_at(start, stop, chunk, position, now_ms, reverse)
            if onward is not None:
                start, stop = (start, onward) if reverse else (onward, stop)
            if rows:
                yield rows
