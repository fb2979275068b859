"""Where two histories part: a search for the last place they have in common.

Owns the search; not how marks are looked up or carried (primary.py).

G1  histories that agree at a sequence agree at every earlier one, for marks run over all before
    them; so the places are sorted: first those that agree, then those that do not.
G2  a round asks about at most MARKS_MAX places and leaves a MARKS_MAX-th of the range: a billion
    batches take six rounds.

Threading: one search, one owner.
"""

from __future__ import annotations

from marram.replication.messages import MARKS_MAX


class Search:
    """The last sequence of [low, high] at which the other history agrees.

        while not search.done: search.answer(<index of the last of search.probes that agrees>)

    low, high: where both ends can look their histories up; low <= high.
    """

    __slots__ = ("_agreed", "_high", "common", "done", "probes")

    probes: tuple[int, ...]
    """The sequences to ask about next, ascending; empty when done."""

    common: int | None
    """When done: the last sequence in common; None: they differ in all of the range."""

    def __init__(self, low: int, high: int) -> None:
        assert low <= high
        self._agreed: int | None = None  # the highest place known to agree
        self._high = high  # the highest place that may agree
        self.common = None
        self.done = False
        self.probes = _spread(low, high)

    def answer(self, index: int | None) -> None:
        """Which of the probes was the last to agree; None: none did. Raises ValueError."""
        if index is None:
            if self._agreed is None:
                return self._end(None)  # the first probe was the lowest place there is
            self._high = self.probes[0] - 1
        else:
            if not 0 <= index < len(self.probes):
                raise ValueError(f"mark {index} of {len(self.probes)}")
            self._agreed = self.probes[index]
            if index + 1 < len(self.probes):
                self._high = self.probes[index + 1] - 1
        if self._agreed >= self._high:
            return self._end(self._agreed)
        self.probes = _spread(self._agreed + 1, self._high)
        return None

    def _end(self, common: int | None) -> None:
        self.common = common
        self.done = True
        self.probes = ()


def _spread(low: int, high: int) -> tuple[int, ...]:
    """Up to MARKS_MAX places of [low, high], evenly spaced, both ends among them."""
    count = min(MARKS_MAX, high - low + 1)
    if count == 1:
        return (low,)
    return tuple(low + (high - low) * step // (count - 1) for step in range(count))
