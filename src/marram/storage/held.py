"""Keys whose newest value is on disk here, and not yet on as many replicas as was asked for.

Owns which positions settle them; not when they are settled (commit.py).

H1  settles_at() of a key is the position of the newest batch that changed it, of those that were
    added and are not settled; or a later one, where a whole range was changed since.

Threading: add() and settle() under the commit queue's lock; settles_at() without it: a group is
added here before it is forgotten there, so a reader that looks there first misses nothing.
"""

from __future__ import annotations

from collections import deque


class HeldKeys:
    """The keys of groups that are durable here and not committed."""

    __slots__ = ("_everything", "_groups", "_positions")

    def __init__(self) -> None:
        self._positions: dict[bytes, int] = {}  # of each key, the newest
        self._groups: deque[tuple[int, set[bytes]]] = deque()  # last position, keys; oldest first
        self._everything = 0  # the newest position that changed a range or a keyspace

    def add(self, last: int, keys: set[bytes], everything: bool) -> None:
        """Hold the keys of a group that ends at position `last`, later than all before."""
        self._positions.update(dict.fromkeys(keys, last))
        if everything:
            self._everything = last
        self._groups.append((last, keys))

    def settles_at(self, key: bytes) -> int:
        """The position that settles the key's newest value, 0 where it is settled (H1)."""
        return max(self._positions.get(key, 0), self._everything)

    def settle(self, upto: int) -> bool:
        """Everything up to this position is settled; returns whether nothing is held any more."""
        groups, positions = self._groups, self._positions
        while groups and groups[0][0] <= upto:
            last, keys = groups.popleft()
            for key in keys:
                if positions[key] == last:
                    del positions[key]
        if self._everything <= upto:
            self._everything = 0
        return not groups
