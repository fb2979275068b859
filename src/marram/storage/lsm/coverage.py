"""Range deletions laid side by side: which one counts for a key.

Owns the overlay of many range deletions; not their bytes (sstable/ranges.py) and not what is done
with what they hide (merge.py, and whoever looks up a single key).

G1  newest(key) is the highest sequence number among the range deletions that the key is in, 0
    where it is in none. So a row is hidden where that is higher than its own.
G2  segments are disjoint, ascend, and each lies within one keyspace.

n range deletions make at most 2 n segments, in O(n log n): only the newest is kept of those that
lie over each other.

Threading: a Coverage does not change.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

from marram.storage.sstable.block import stored_key
from marram.storage.sstable.ranges import RangeDeletion


class Coverage:
    """The newest of some range deletions, by key."""

    __slots__ = ("_bounds", "_sequences")

    def __init__(self, ranges: Iterable[RangeDeletion] = ()) -> None:
        # Segment n is [_bounds[n], _bounds[n + 1]), stored keys; the last one has no end.
        self._bounds: list[bytes] = []
        self._sequences: list[int] = []
        self._lay(ranges)

    def __bool__(self) -> bool:
        """Whether there is any range deletion."""
        return bool(self._bounds)

    def newest(self, wanted: bytes) -> int:
        """The sequence number of the newest range deletion over a stored key, or 0 (G1)."""
        segment = bisect_right(self._bounds, wanted) - 1
        return self._sequences[segment] if segment >= 0 else 0

    def over(
        self, keyspace: int, first: bytes, last: bytes
    ) -> Iterator[tuple[bytes, bytes | None, int]]:
        """The segments that meet [first, last] of a keyspace: (start, stop, sequence).

        stop is None where the segment goes on to the end of the keyspace.
        """
        segment = max(0, bisect_right(self._bounds, stored_key(keyspace, first)) - 1)
        end = bisect_right(self._bounds, stored_key(keyspace, last))
        for found in range(segment, end):
            deletion = self._segment(found)
            if deletion is not None and deletion.keyspace == keyspace:
                yield deletion[1:]

    def segments(self) -> Iterator[RangeDeletion]:
        """All segments, in order (G2): range deletions that together cover what the given did."""
        for number in range(len(self._bounds)):
            deletion = self._segment(number)
            if deletion is not None:
                yield deletion

    def _segment(self, number: int) -> RangeDeletion | None:
        """Segment `number`, or None where it is a gap."""
        sequence = self._sequences[number]
        if not sequence:
            return None
        start = self._bounds[number]
        stop = self._bounds[number + 1] if number + 1 < len(self._bounds) else b""
        # A segment to the end of a keyspace is bounded by the next keyspace, or by nothing.
        ends_inside = stop[:1] == start[:1]
        return RangeDeletion(start[0], start[1:], stop[1:] if ends_inside else None, sequence)

    def _lay(self, ranges: Iterable[RangeDeletion]) -> None:
        """Make the segments: walk the bounds, and hold the ranges around at hand, newest first."""
        starting = sorted(
            (stored_key(d.keyspace, d.start), -d.sequence, stored_stop(d) or b"") for d in ranges
        )
        bounds = {start for start, _, _ in starting} | {end for _, _, end in starting if end}
        around: list[tuple[int, bytes]] = []  # (-sequence, end or b"" for none), a heap
        following = 0
        for bound in sorted(bounds):
            while following < len(starting) and starting[following][0] == bound:
                heappush(around, starting[following][1:])
                following += 1
            while around and b"" != around[0][1] <= bound:
                heappop(around)
            sequence = -around[0][0] if around else 0
            # One that goes on is one segment, but never beyond its keyspace (G2).
            if (
                not self._bounds
                or sequence != self._sequences[-1]
                or bound[:1] != self._bounds[-1][:1]
            ):
                self._bounds.append(bound)
                self._sequences.append(sequence)


def clip(
    ranges: Iterable[RangeDeletion], start: bytes | None, stop: bytes | None
) -> list[RangeDeletion]:
    """The parts of range deletions within [start, stop), stored keys, None for no bound.

    For the outputs of a compaction, which divide the keys among them.
    """
    parts = []
    for deletion in ranges:
        first = stored_key(deletion.keyspace, deletion.start)
        end = stored_stop(deletion)
        if start is not None and first < start:
            first = start
        if stop is not None and (end is None or end > stop):
            end = stop
        if end is None or first < end:
            inside = end is not None and end[0] == first[0]  # else to the end of its keyspace
            part_stop = end[1:] if end is not None and inside else None
            parts.append(deletion._replace(start=first[1:], stop=part_stop))
    return parts


def stored_stop(deletion: RangeDeletion) -> bytes | None:
    """The stored key at which a range deletion ends, None where no keyspace is beyond."""
    if deletion.stop is not None:
        return stored_key(deletion.keyspace, deletion.stop)
    return bytes((deletion.keyspace + 1,)) if deletion.keyspace < 255 else None
