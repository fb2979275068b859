"""How far a replica is behind: in positions, in bytes and in seconds.

Owns the record of when the log reached which sequence and how many bytes that took, and the figures
made of it; not where the replicas are (acks.py, primary.py).

E1  memory is bounded: at POINTS_MAX points every second one is dropped, but for both ends. So what
    is old is known more coarsely.
E2  between two points bytes and time grow evenly; before the first one all is taken to be as old
    as it.

Threading: the owner's.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, NamedTuple

POINTS_MAX: Final = 1024


class Lag(NamedTuple):
    """How far behind. seconds: the age of the oldest batch that is missing; 0.0: none is."""

    positions: int
    bytes: int
    seconds: float


class Timeline:
    """When the log reached which sequence."""

    __slots__ = ("_bytes", "_sequences", "_times_ns")

    def __init__(self, sequence: int, now_ns: int) -> None:
        """sequence: the newest one at the start."""
        self._sequences = [sequence]
        self._bytes = [0]
        self._times_ns = [now_ns]

    @property
    def newest(self) -> int:
        """The newest sequence noted."""
        return self._sequences[-1]

    def note(self, sequence: int, size_bytes: int, now_ns: int) -> None:
        """The log has come to `sequence`, in batches of size_bytes since the last note."""
        if sequence <= self._sequences[-1]:
            return
        if len(self._sequences) >= POINTS_MAX:
            for points in (self._sequences, self._bytes, self._times_ns):
                del points[1:-1:2]
        self._sequences.append(sequence)
        self._bytes.append(self._bytes[-1] + size_bytes)
        self._times_ns.append(now_ns)

    def behind(self, sequence: int, now_ns: int) -> Lag:
        """The lag of who has come to `sequence`."""
        positions = self.newest - sequence
        if positions <= 0:
            return Lag(0, 0, 0.0)
        missing = self._bytes[-1] - self._between(self._bytes, sequence)
        # What it lacks first is the batch after `sequence`.
        since = self._between(self._times_ns, sequence + 1)
        return Lag(positions, missing, max(0, now_ns - since) / 1e9)

    def _between(self, values: list[int], sequence: int) -> int:
        at = bisect_left(self._sequences, sequence)
        if at == 0:
            return values[0]
        low, high = self._sequences[at - 1], self._sequences[at]
        return values[at - 1] + (values[at] - values[at - 1]) * (sequence - low) // (high - low)
