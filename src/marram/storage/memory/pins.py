"""Which positions live snapshots pin, and when older versions may go.

Owns the positions; the versions themselves are the spaces' (space.py).

Threading: the caller serializes everything (the store's lock).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection

from marram.storage.memory.space import Link, Space

_TRIM_MIN = 4096  # older versions that may pile up before a release looks for garbage


class Pins:
    """Positions of live snapshots. newest: the newest of them, or -1."""

    __slots__ = ("_positions", "_trimmed_size", "newest")

    def __init__(self) -> None:
        self._positions: list[int] = []  # ascending, with repeats
        self._trimmed_size = 0
        self.newest = -1

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, position: int) -> None:
        """Pin a position; none is newer."""
        insort(self._positions, position)
        self.newest = self._positions[-1]

    def remove(self, position: int, spaces: Collection[Space]) -> list[dict[bytes, Link]]:
        """Unpin it, in all spaces that a snapshot may read; returns versions to be freed."""
        positions = self._positions
        positions.remove(position)
        self.newest = positions[-1] if positions else -1
        if not positions:
            self._trimmed_size = 0
            return [space.forget_history() for space in spaces if space.history]
        size = sum(len(space.history) for space in spaces)
        if position < positions[0] and size > 2 * self._trimmed_size + _TRIM_MIN:
            for space in spaces:
                space.trim_history(positions[0])
            self._trimmed_size = sum(len(space.history) for space in spaces)
        return []
