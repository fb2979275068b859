"""Several sorted sources as one: for a reader, and for a compaction. Pure.

Owns which rows a reader sees and which a compaction keeps; not where sources come from and not
what becomes of the rows.

A source yields lists as Table.versions() does: of VersionRow, not empty, of one keyspace, in table
order. Keys ascend, and none comes twice: a source is one table, the tables of one ordered level
one after the other, or what a reader sees of one memtable. A reverse source yields the exact
opposite. What is yielded here is in the same order, in lists of some hundred rows.

M1  sources come newest first: of one key, the row of a source is newer than those of all after it.
    So sequence numbers are never compared to find the newest.

A reader sees of each key
M2  the newest row, and no other;
M3  nothing, where that is a tombstone, past its deadline, or hidden by a range deletion over the
    key, of whatever source: one with a higher sequence number than the row's. A flush gives all
    it writes one number, so its range deletions hide nothing of its own. Rows of a memtable come
    with a number that is not below those of its range deletions, and all of these are above what
    is in older memtables and in tables.

A compaction
M4  keeps of each key the newest row, and drops the others;
M5  drops a row that a range deletion hides;
M6  turns a row past its deadline, by a time no reader is behind, into a tombstone: what is older,
    maybe on a deeper level, stays hidden. It reports the key, so that whoever counts keys can
    count one less; what it cannot report it keeps as it is;
M7  drops the tombstones that have nothing left to hide: nothing may be below;
M8  keeps of the range deletions the newest over each key, but for those that have nothing below
    them: all they hide was dropped (M5).

M5 and M8 ask that a compaction takes every table that meets one of its range deletions, on its
output level and, where it takes from level 0, the older ones there.

Hot, interpreted: all sources hand over their rows up to the least of their last keys at a time, in
lists that sort() merges, since it finds the runs: nothing runs once a row but C. Four sources of
250000 rows of 16 + 100 bytes: 0.11 us a row from lists in memory, where heapq.merge takes 0.24;
0.45 us from tables; 0.9 to 1.4 us from tables into a table with a filter. Compiled, a compaction
takes the rows one by one from the blocks they are in (chain.py).

Threading: pure generators; one is one thread's.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, compress
from operator import itemgetter, ne

from marram.errors import InvalidArgument
from marram.storage.lsm.chain import Chain, Part
from marram.storage.lsm.coverage import Coverage, stored_stop
from marram.storage.lsm.job import GONE_LIMIT
from marram.storage.lsm.version import stop_after
from marram.storage.lsm.window import Window
from marram.storage.sstable.block import TOMBSTONE, VersionRow, stored_key
from marram.storage.sstable.ranges import RangeDeletion

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

Source = Iterator[list[VersionRow]]

_KEY = itemgetter(1)
_DEADLINE = itemgetter(3)
_TYPE = itemgetter(4)
_STOP = itemgetter(1)

# Rows that a source has at hand, where it has them: fewer cost up to 20 ns more a row. What a
# reader wants may be less, so its first lists are short.
_WINDOW_ROWS = 256
# Compiled: rows that go from sources to a table at once, between which others may run.
_CHAIN_ROWS = 512

NOTHING = Coverage()
"""No range deletions."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What a compaction has to keep for others. Raises InvalidArgument: out of order.

    expired_ms: a time that no reader is behind, ms since 1970: deadlines at or before it have come
        for everyone; 0 to let none come.
    below: ranges [start, stop) of stored keys, ascending and disjoint, of which a level deeper
        than the output may hold rows (Job.below); () at the bottom, None where it may hold any.
    """

    expired_ms: int = 0
    below: tuple[tuple[bytes, bytes], ...] | None = None

    def __post_init__(self) -> None:
        bounds = [bound for key_range in self.below or () for bound in key_range]
        if bounds != sorted(bounds):
            raise InvalidArgument("the ranges below are out of order")

    def may_be_below(self, start: bytes, stop: bytes | None) -> bool:
        """Whether stored keys in [start, stop) may be on a deeper level; stop None: no bound.

        O(log len(below)).
        """
        if self.below is None:
            return True
        at = bisect_right(self.below, start, key=_STOP)
        return at < len(self.below) and (stop is None or self.below[at][0] < stop)


def merge_versions(
    sources: Iterable[Source],
    now_ms: int,
    *,
    coverage: Coverage = NOTHING,
    reverse: bool = False,
) -> Iterator[list[VersionRow]]:
    """What a reader sees of the sources (M1 to M3), in lists that are not empty.

    now_ms: by which deadlines are judged. coverage: the range deletions of all sources. reverse:
    the sources are.
    """
    for window in _windows(sources, reverse, 1):
        rows = _uncovered(window, coverage)
        seen = [row for row in rows if row[4] != TOMBSTONE and not 0 < row[3] <= now_ms]
        if seen:
            yield seen[::-1] if reverse else seen


def compact(
    sources: Iterable[Iterator[Part]],
    retention: Retention,
    ranges: Iterable[RangeDeletion] = (),
    gone: list[bytes] | None = None,
    gone_limit: int = GONE_LIMIT,
) -> Iterator[Window]:
    """The rows that a compaction of the sources keeps (M4 to M7).

    sources: of lists of rows; compiled, of any parts that chain.py knows but columns.

    ranges: those of all sources; kept_ranges() says which of them the outputs need.
    gone: where the stored keys of rows that expired go, ascending, as those are passed (M6); None
        where nobody counts. Not the keys whose newest row here a range deletion hides: those
        were counted out when the range was deleted. A newer row, or range deletion, may be in
        tables that take no part; the caller looks.
    gone_limit: how many keys `gone` may hold, >= 1. Further expired rows are kept as they are, for
        a later compaction: dropped without report, they would be counted for ever.
    """
    coverage = Coverage(ranges)
    windows = by_chain(sources) if cython.compiled else by_lists(sources)  # type: ignore[arg-type]
    for window in windows:
        if window.is_plain and not coverage:
            yield window
            continue
        rows = _uncovered(window.versions(), coverage)
        rows = _expired_as_tombstones(rows, retention.expired_ms, gone, gone_limit)
        rows = _without_tombstones(rows, retention)
        if rows is window.versions():
            yield window
        elif rows:
            yield Window.of(rows)


def kept_ranges(ranges: Iterable[RangeDeletion], retention: Retention) -> list[RangeDeletion]:
    """The range deletions that the outputs of a compaction need (M8), by their starts; disjoint.

    coverage.clip() cuts them to an output.
    """
    return [
        deletion
        for deletion in Coverage(ranges).segments()
        if retention.may_be_below(
            stored_key(deletion.keyspace, deletion.start), stored_stop(deletion)
        )
    ]


# -- windows --------------------------------------------------------------------------------------


def by_chain(sources: Iterable[Iterator[Part]]) -> Iterator[Window]:
    """The newest rows of all sources (M4), fast compiled."""
    chained = Chain(list(sources), False, True)
    while (window := chained.window(_CHAIN_ROWS)) is not None:
        yield window


def by_lists(sources: Iterable[Source]) -> Iterator[Window]:
    """by_chain() of lists of rows, fast interpreted."""
    return map(Window.of, _windows(sources, False, _WINDOW_ROWS))


def _windows(
    sources: Iterable[Source], reverse: bool, first_rows: int
) -> Iterator[list[VersionRow]]:
    """The newest rows of all sources (M2, M4), merged: a stretch of keys at a time, none empty.

    Always ascending, also where the stretches descend. first_rows: see _Cursor.load().
    """
    cursors = [_Cursor(source, reverse) for source in sources]
    choose = max if reverse else min
    wanted = first_rows
    while True:
        cursors = [cursor for cursor in cursors if cursor.load(wanted)]
        if not cursors:
            return
        keyspace = choose(cursor.keyspace for cursor in cursors)
        active = [cursor for cursor in cursors if cursor.keyspace == keyspace]
        # Beyond this key a source may yield anything yet.
        bounds = [cursor.farthest() for cursor in active if cursor.more]
        bound = choose(bounds) if bounds else None
        if len(active) == 1:
            yield active[0].take(bound)
        else:
            window = list(chain.from_iterable([cursor.take(bound) for cursor in active]))
            # Stable: rows of a key stay in the order of their sources, newest first (M1).
            window.sort(key=_KEY)
            keys = list(map(_KEY, window))
            yield _compress(window, [True, *map(ne, keys[1:], keys)])
        wanted = min(2 * wanted, _WINDOW_ROWS)


class _Cursor:
    """What a source has yielded and nobody has taken yet, of one keyspace; always ascending."""

    __slots__ = (
        "_following",
        "_reverse",
        "_rows",
        "_source",
        "_start",
        "_stop",
        "keyspace",
        "more",
    )

    def __init__(self, source: Source, reverse: bool) -> None:
        self._source = source
        self._reverse = reverse
        self._following: list[VersionRow] | None = None  # of the next keyspace
        self._rows: list[VersionRow] = []  # those at [_start, _stop) are left
        self._start = self._stop = 0
        self.keyspace = 0
        self.more = False  # whether more rows of the keyspace may come

    def load(self, wanted: int) -> bool:
        """Have `wanted` rows at hand, >= 1, or all of the keyspace; False at the end."""
        while True:
            while self.more and self._stop - self._start < wanted:
                rows = next(self._source, None)
                if rows is not None and rows[0][0] == self.keyspace:
                    self._append(rows)
                else:
                    self._following = rows
                    self.more = False
            if self._start < self._stop:
                return True
            rows = self._following or next(self._source, None)
            if rows is None:
                return False
            self._following = None
            self.keyspace = rows[0][0]
            self.more = True
            self._append(rows)

    def farthest(self) -> bytes:
        """The key at hand that is last in the order of the source."""
        return self._rows[self._start if self._reverse else self._stop - 1][1]

    def take(self, bound: bytes | None) -> list[VersionRow]:
        """Take the rows up to `bound`, in the order of the source; all of them for None."""
        start, stop = self._start, self._stop
        if bound is None:
            self._start = stop
        elif self._reverse:
            start = self._stop = bisect_left(self._rows, bound, start, stop, key=_KEY)
        else:
            stop = self._start = bisect_right(self._rows, bound, start, stop, key=_KEY)
        return self._rows[start:stop]

    def _append(self, rows: list[VersionRow]) -> None:
        left = self._rows[self._start : self._stop]
        self._rows = rows[::-1] + left if self._reverse else left + rows
        self._start, self._stop = 0, len(self._rows)


# -- rules ----------------------------------------------------------------------------------------


def _uncovered(rows: list[VersionRow], coverage: Coverage) -> list[VersionRow]:
    """What is not older than the range deletion over it (M3, M5)."""
    if not coverage:
        return rows
    flags: list[bool] = []
    for start, stop, newest in coverage.over(rows[0][0], rows[0][1], rows[-1][1]):
        flags = flags or [True] * len(rows)
        first = bisect_left(rows, start, key=_KEY)
        end = bisect_left(rows, stop, key=_KEY) if stop is not None else len(rows)
        flags[first:end] = [row[5] >= newest for row in rows[first:end]]
    return _compress(rows, flags) if flags else rows


def _expired_as_tombstones(
    rows: list[VersionRow], expired_ms: int, gone: list[bytes] | None, gone_limit: int
) -> list[VersionRow]:
    """Tombstones in place of what is past its deadline, as far as it can be reported (M6)."""
    if not expired_ms or not any(map(_DEADLINE, rows)):
        return rows
    expired = [at for at, row in enumerate(rows) if 0 < row[3] <= expired_ms]
    if not expired:
        return rows
    if gone is not None:
        del expired[max(0, gone_limit - len(gone)) :]
        gone += [stored_key(rows[at][0], rows[at][1]) for at in expired]
    rows = list(rows)
    for at in expired:
        keyspace, key, _, _, _, sequence = rows[at]
        rows[at] = (keyspace, key, b"", 0, TOMBSTONE, sequence)
    return rows


def _without_tombstones(rows: list[VersionRow], retention: Retention) -> list[VersionRow]:
    """All but the tombstones with nothing to hide (M7)."""
    if retention.below is None or TOMBSTONE not in map(_TYPE, rows):
        return rows
    first, last = (stored_key(rows[end][0], rows[end][1]) for end in (0, -1))
    if not retention.may_be_below(first, stop_after(last)):
        return [row for row in rows if row[4] != TOMBSTONE]
    return [row for row in rows if row[4] != TOMBSTONE or _hides(row, retention)]


def _hides(row: VersionRow, retention: Retention) -> bool:
    """Whether a tombstone's key may be on a deeper level."""
    wanted = stored_key(row[0], row[1])
    return retention.may_be_below(wanted, stop_after(wanted))


def _compress(rows: list[VersionRow], flags: list[bool]) -> list[VersionRow]:
    """The rows whose flags are set; `rows` itself where all are. A flag too many does no harm."""
    return rows if all(flags) else list(compress(rows, flags))
