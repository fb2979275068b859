"""What a store must answer: dicts that know deadlines, and every position's state.

Owns the oracle of the histories (history.py); knows nothing of engines, files or options.

M1  a state is sixteen dicts that are never changed once made: holding an old one costs nothing.
M2  a key past its deadline is as good as missing, in every answer and at any position.
M3  a crash leaves the state at one position between what was promised and what was sent.

Threading: one thread.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

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

Held = tuple[bytes, int]
"""A value and its deadline, ms since 1970, or 0."""

Space = dict[bytes, Held]
Pair = tuple[bytes, bytes]


@dataclass(frozen=True)
class Bounds:
    """The arguments of a scan."""

    prefix: bytes = b""
    start: bytes | None = None
    stop: bytes | None = None
    reverse: bool = False
    limit: int | None = None

    def has(self, key: bytes) -> bool:
        """Whether the key is in the range."""
        return (
            key.startswith(self.prefix)
            and (self.start is None or key >= self.start)
            and (self.stop is None or key < self.stop)
        )


@dataclass(frozen=True)
class State:
    """The sixteen keyspaces at one position."""

    spaces: tuple[Space, ...] = tuple({} for _ in range(KEYSPACES))

    def held(self, space: int, key: bytes, now_ms: int) -> Held | None:
        """Value and deadline, or None where the key is missing or over (M2)."""
        held = self.spaces[space].get(key)
        return None if held is None or 0 < held[1] <= now_ms else held

    def get(self, space: int, key: bytes, now_ms: int) -> bytes | None:
        """The value, or None."""
        held = self.held(space, key, now_ms)
        return None if held is None else held[0]

    def is_over(self, space: int, key: bytes, now_ms: int) -> bool:
        """Whether the key is past its deadline and nobody deleted it: a store may still hold it."""
        return key in self.spaces[space] and self.held(space, key, now_ms) is None

    def count(self, space: int, now_ms: int) -> int:
        """Keys that exist."""
        return sum(not 0 < deadline <= now_ms for _, deadline in self.spaces[space].values())

    def scan(self, space: int, now_ms: int, bounds: Bounds) -> list[Pair]:
        """The pairs of a range, in order."""
        keys = sorted(filter(bounds.has, self.spaces[space]), reverse=bounds.reverse)
        values = ((key, self.get(space, key, now_ms)) for key in keys)
        return [(key, value) for key, value in values if value is not None][: bounds.limit]

    def after(self, changes: Iterable[Change]) -> State:
        """The state that a batch makes of this one."""
        spaces = list(self.spaces)
        for change in changes:
            kind, number, other = change[0], change[1], change[4]
            if kind == SWAP:
                spaces[number], spaces[other] = spaces[other], spaces[number]
            else:
                spaces[number] = _changed(spaces[number], change)
        return State(tuple(spaces))


def _changed(space: Space, change: Change) -> Space:
    kind, _, key, value, number, _ = change
    if kind == DELETE_RANGE:
        return {
            k: held for k, held in space.items() if k < key or (value is not None and k >= value)
        }
    changed = dict(space)
    if kind == PUT:
        assert value is not None
        changed[key] = (value, number)
    elif kind == DELETE:
        changed.pop(key, None)
    elif kind == EXPIRE:
        if key in changed:
            changed[key] = (changed[key][0], number)
    else:
        assert kind == PATCH and value is not None
        before, deadline = changed.get(key, (b"", 0))
        head = before[:number].ljust(number, b"\0")
        changed[key] = (head + value + before[number + len(value) :], deadline)
    return changed


class Journal:
    """The states a store passed through, by position; and what of them was promised."""

    def __init__(self) -> None:
        self.now = State()
        self.acknowledged = 0
        self.synced = 0
        self._positions = [0]
        self._states = [self.now]

    def record(self, state: State, position: int) -> None:
        """The batch at `position` was sent and made `state`.

        Positions may be skipped: a store logs the end of a key that it finds past its deadline,
        and that changes no answer.
        """
        assert position > self._positions[-1], "a write got no position of its own"
        self.now = state
        self._positions.append(position)
        self._states.append(state)

    def recover(self, position: int) -> None:
        """A crash left the state at `position`: go on from there (M3)."""
        index = bisect_right(self._positions, position) - 1
        del self._positions[index + 1 :], self._states[index + 1 :]
        self.now = self._states[index]
        self.acknowledged = self.synced = position

    def at(self, position: int) -> State:
        """The state at a position."""
        return self._states[bisect_right(self._positions, position) - 1]

    def forget(self) -> None:
        """Drop the states that no crash can bring back any more."""
        index = bisect_right(self._positions, self.synced) - 1
        del self._positions[:index], self._states[:index]
