"""Ack levels: when a position has reached the replicas it was to reach.

Owns the replicas' acknowledged positions, the bound they put on `committed`, and those who wait for
a write's replicas; not the store's own durability (storage/commit.py) nor how acknowledgements
arrive (primary.py).

A1  the bound never goes past a position that fewer than `need` replicas, each counted once, have
    acknowledged at the level; it takes back nothing it gave, for a replica that has gone still had
    its disk when it acknowledged.
A2  while a write is held, the bound stays below it: until its own level is met or its time is over.
A3  only connected replicas count, a replica of a replica never.
A4  who asked is told once: met, or how many there were when the time was over. Nothing is ever
    told to have reached a level it did not reach.

Acknowledgements belong to one reign: after a promotion, or an install, there is a new AckRules.

Threading: the owner's.
"""

from __future__ import annotations

import heapq
from enum import IntEnum
from typing import NamedTuple


class Level(IntEnum):
    """What a replica has done with a batch that it acknowledges."""

    RECEIVED = 1  # applied it
    ON_DISK = 2  # made it durable


class Verdict(NamedTuple):
    """What became of a wait. replicas: how many are at the level; met: whether that is enough."""

    ticket: int
    met: bool
    replicas: int


class _Wait(NamedTuple):
    sequence: int
    replicas: int
    level: Level
    deadline_ns: int | None


class AckRules:
    """The acknowledged positions of one reign, and what follows from them.

    need: replicas that every write has to reach before it is committed (--min-acks), 0: none;
    level: what they have to have done with it.
    """

    def __init__(self, need: int = 0, level: Level = Level.ON_DISK) -> None:
        self.need = need
        self.level = level
        self._positions: dict[bytes, tuple[int, int]] = {}  # node id: received, durable
        self._reached = 0  # by `need` replicas at `level` (A1)
        self._waits: dict[int, _Wait] = {}  # by ticket
        self._tickets = 0
        # Heaps of tickets, whose waits may have ended meanwhile: by what they ask for, those that
        # hold, those with a deadline. So an acknowledgement looks at the waits that it ends only.
        self._asked: dict[tuple[int, Level], list[tuple[int, int]]] = {}
        self._held: list[tuple[int, int]] = []
        self._timed: list[tuple[int, int]] = []

    # -- what replicas say -------------------------------------------------------------------------

    def acked(self, replica: bytes, received: int, durable: int) -> list[Verdict]:
        """A replica, by its node id, has come so far. Returns the waits this ends."""
        before = self._positions.get(replica, (0, 0))
        self._positions[replica] = (max(before[0], received), max(before[1], durable))
        if self.need:
            self._reached = max(self._reached, self._reached_by(self.need, self.level))
        met: list[Verdict] = []
        for asked, heap in self._asked.items():
            reached = self._reached_by(*asked)
            while heap and (heap[0][0] <= reached or heap[0][1] not in self._waits):
                ticket = heapq.heappop(heap)[1]
                if ticket in self._waits:
                    met.append(self._end(ticket))
        return met

    def left(self, replica: bytes) -> None:
        """A replica's link is gone (A3)."""
        self._positions.pop(replica, None)

    # -- what follows ------------------------------------------------------------------------------

    @property
    def bound(self) -> int | None:
        """Up to where positions may be committed (CommitQueue.set_bound); None: no bound."""
        bound = self._reached if self.need else None
        held = self._first(self._held)
        if held is None:
            return bound
        return held - 1 if bound is None else min(bound, held - 1)

    def has_reached(self, sequence: int) -> bool:
        """Whether `sequence` has reached the level every write needs.

        A node that opens, or is promoted, with a level set asks this of its newest sequence before
        it answers readers: its log may end in batches that never reached their level.
        """
        return not self.need or self._reached >= sequence

    def count(self, sequence: int, level: Level) -> int:
        """How many connected replicas have `sequence` at a level."""
        index = level - 1
        return sum(position[index] >= sequence for position in self._positions.values())

    # -- who waits ---------------------------------------------------------------------------------

    def wait(
        self,
        sequence: int,
        replicas: int,
        level: Level,
        deadline_ns: int | None,
        *,
        holds: bool = False,
    ) -> int | Verdict:
        """Wait until so many `replicas` have `sequence` at a level; at once where they have.

        deadline_ns: on the clock that tick() is told; None: for ever. holds: keep the bound below
        the write meanwhile (A2); only right after it was appended, before its group is written.
        Returns a ticket that a Verdict will name, or the Verdict, whose ticket is then 0.
        """
        have = self.count(sequence, level)
        if have >= replicas:
            return Verdict(0, True, have)
        self._tickets += 1
        ticket = self._tickets
        self._waits[ticket] = _Wait(sequence, replicas, level, deadline_ns)
        heapq.heappush(self._asked.setdefault((replicas, level), []), (sequence, ticket))
        if holds:
            heapq.heappush(self._held, (sequence, ticket))
        if deadline_ns is not None:
            heapq.heappush(self._timed, (deadline_ns, ticket))
        return ticket

    def forget(self, ticket: int) -> None:
        """Whoever waits has gone: the write is not held any longer; unknown tickets are none."""
        self._waits.pop(ticket, None)

    def tick(self, now_ns: int) -> list[Verdict]:
        """End the waits whose time is over (A4)."""
        late: list[Verdict] = []
        while (deadline_ns := self.deadline_ns) is not None and deadline_ns <= now_ns:
            late.append(self._end(heapq.heappop(self._timed)[1]))
        return late

    @property
    def deadline_ns(self) -> int | None:
        """When tick() has something to do."""
        return self._first(self._timed)

    def end(self) -> list[Verdict]:
        """The reign is over: end all waits as they are."""
        return [self._end(ticket) for ticket in list(self._waits)]

    # -- private -----------------------------------------------------------------------------------

    def _reached_by(self, count: int, level: Level) -> int:
        """The newest sequence that `count` replicas have at a level; count: at least 1."""
        index = level - 1
        positions = sorted((p[index] for p in self._positions.values()), reverse=True)
        return positions[count - 1] if len(positions) >= count else 0

    def _first(self, heap: list[tuple[int, int]]) -> int | None:
        """What the first ticket of a heap that still waits is there for."""
        while heap and heap[0][1] not in self._waits:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def _end(self, ticket: int) -> Verdict:
        wait = self._waits.pop(ticket)
        have = self.count(wait.sequence, wait.level)
        return Verdict(ticket, have >= wait.replicas, have)
