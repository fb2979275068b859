"""How many keys there are: exact when asked, though writes do not look at what they replace.

Owns the arithmetic; the numbers themselves are the memtables' tallies (memtable.py) and `base`,
what the tables hold, by physical keyspace: (keys, keys with a deadline), or None for not known.

A write cannot afford to read what it replaces. So a key that comes to a memtable is counted as new,
and is unsure; who asks for the count has the unsure ones looked up. A flush looks them up too
where anybody asked since the one before; else the count is not known any more, and the next who
asks has all keys counted, once.

T1  total = what the tallies add, from the newest memtable to the oldest, and the base behind them;
    a tally that was cleared hides all behind it.
T2  the base is what the tables hold, and a tally what its memtable changes of what is behind it:
    each for itself, so that what a flush writes down is right when the log is replayed over it.

Threading: under the store's lock, or on the one thread that writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from marram.storage.entry import Stored, deadline_of
from marram.storage.lsm.memtable import GONE, Memtable

Counts = tuple[int, int] | None

Behind = Callable[[int, bytes], Stored | None]
"""behind(n, key): what is held of a key behind memtable n, GONE or None for nothing."""

CountFrom = Callable[[int], tuple[int, int]]
"""count_from(n): the keys seen from memtable n on, those with a deadline; n past the last: in the
tables."""


def provisional(
    memtables: Sequence[Memtable], base: Sequence[Counts], keyspace: int
) -> tuple[Counts, int]:
    """(the count if no unsure key was there before, how many are unsure). memtables: newest first.

    The count is None where it is not known.
    """
    keys = volatile = unsure = 0
    for memtable in memtables:
        tally = memtable.tallies[keyspace]
        if tally.vague:
            return None, unsure
        keys += tally.keys
        volatile += tally.volatile
        unsure += tally.unsure_count
        if tally.cleared:
            return (keys, volatile), unsure
    known = base[keyspace]
    return (None if known is None else (keys + known[0], volatile + known[1])), unsure


def settled(memtables: Sequence[Memtable], base: Sequence[Counts], keyspace: int) -> Counts:
    """provisional(), None where any key is unsure, or where the numbers cannot be."""
    counts, unsure = provisional(memtables, base, keyspace)
    if unsure or counts is None or not 0 <= counts[1] <= counts[0]:
        return None
    return counts


def resolve(
    memtables: Sequence[Memtable],
    base: list[Counts],
    keyspace: int,
    behind: Behind,
    count_from: CountFrom,
) -> tuple[int, int]:
    """The exact count; everything unsure is looked up, and what is not known counted.

    Raises what behind() and count_from() raise; what was found by then stays so.
    """
    cleared = [n for n, memtable in enumerate(memtables) if memtable.tallies[keyspace].cleared]
    deepest = cleared[0] if cleared else len(memtables) - 1
    keys = volatile = 0
    if not cleared:
        known = base[keyspace]
        if known is None:
            known = base[keyspace] = count_from(len(memtables))
        keys, volatile = known
    for number in range(deepest, -1, -1):
        tally = memtables[number].tallies[keyspace]
        if tally.vague:
            found = count_from(number)
            tally.keys, tally.volatile = found[0] - keys, found[1] - volatile
            tally.make_all_sure()
            tally.vague = False
        else:
            for key in sorted(tally.unsure()):
                settle(memtables[number], keyspace, key, behind(number, key))
        keys += tally.keys
        volatile += tally.volatile
    return keys, volatile


def settle(memtable: Memtable, keyspace: int, key: bytes, held: Stored | None) -> None:
    """Say what is held of an unsure key behind its memtable."""
    tally = memtable.tallies[keyspace]
    if tally.is_unsure(key):
        tally.make_sure(key)
        # What a range deletion of the memtable hides was counted off with the range.
        hidden = bool(memtable.ranges) and memtable.ranges.cover(keyspace, key)
        if held is not None and held is not GONE and not hidden:
            tally.keys -= 1
            tally.volatile -= deadline_of(held) != 0


def take_expired(memtables: Sequence[Memtable], base: list[Counts], row: bytes) -> None:
    """A compaction took a key's newest row in the tables away, which had expired (T2).

    row: its stored key.
    """
    keyspace, key = row[0], row[1:]
    known = base[keyspace]
    if known is not None:
        base[keyspace] = (known[0] - 1, known[1] - 1)
    for memtable in reversed(memtables):
        tally = memtable.tallies[keyspace]
        if tally.cleared:
            return
        if key in memtable.spaces[keyspace].map:
            if not tally.is_unsure(key):  # it took the row off, which is not there to be taken off
                tally.keys += 1
                tally.volatile += 1
            return
        if memtable.ranges and memtable.ranges.cover(keyspace, key):
            tally.vague = True
            return
