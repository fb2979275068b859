"""Memtables and tables laid over each other for a reader, where no range deletion is in the way.

Owns that merge; the one that range deletions and compactions need, which looks at sequence numbers,
is merge.py's. What sources yield is in chain.py; what is deleted holds GONE.

O1  sources come newest first: of a key in several, the first one counts.
O2  what is GONE, or past its deadline, is not shown.

There are two ways, which show the same. Compiled, rows are compared where they are, one by one, and
only those that are shown are made. Interpreted, whole columns are merged: no interpreted code runs
once a row but where a deadline or a deletion is among some hundred rows; where one source has rows
for a stretch of keys, they are passed on as they are.

Threading: pure generators; one is one thread's.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from marram.storage.engine import SLICE_KEYS, Rows
from marram.storage.entry import Stored
from marram.storage.lsm.chain import Chain, Column, Part
from marram.storage.lsm.memtable import is_seen

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

_BYTES = {bytes}


def overlay(
    sources: list[Iterator[Part]], now_ms: int, *, reverse: bool, most: int = SLICE_KEYS
) -> Iterator[Rows]:
    """The rows that are seen (O1, O2), in the order of the sources, in lists that are not empty.

    now_ms: by which deadlines are judged, 0 to let none come. most: rows a list, >= 1; interpreted
    they come as the columns do.
    """
    if cython.compiled:
        return by_rows(sources, now_ms, reverse, most)
    return by_columns(sources, now_ms, reverse)  # type: ignore[arg-type]


# -- by rows ---------------------------------------------------------------------------------------


def by_rows(sources: list[Iterator[Part]], now_ms: int, reverse: bool, most: int) -> Iterator[Rows]:
    """overlay(), fast compiled.

    Hot: 0.1 us a row from one source, 0.2 us from four; interpreted ten times that.
    """
    chain = Chain(sources, reverse, False)
    while rows := chain.show(now_ms, most):
        yield rows


# -- by columns ------------------------------------------------------------------------------------


def by_columns(sources: list[Iterator[Column]], now_ms: int, reverse: bool) -> Iterator[Rows]:
    """overlay() of columns, fast interpreted."""
    columns = sources[0] if len(sources) == 1 else _merged(sources, reverse)
    for keys, held in columns:
        rows = list(zip(keys, held, strict=True))
        # All plain strings: told by C, without a look at each.
        if {*map(type, held)} != _BYTES:
            rows = [row for row in rows if row[1].__class__ is bytes or is_seen(row[1], now_ms)]
        if rows:
            yield rows[::-1] if reverse else rows


class _Cursor:
    """What a source has yielded and nobody has taken yet: places [start, stop) of its column."""

    __slots__ = ("held", "keys", "source", "start", "stop")

    def __init__(self, source: Iterator[Column]) -> None:
        self.source = source
        self.keys: list[bytes] = []
        self.held: list[Stored] = []
        self.start = self.stop = 0

    def load(self) -> bool:
        """Have a row at hand; False at the end."""
        if self.start == self.stop:
            column = next(self.source, None)
            if column is None:
                return False
            self.keys, self.held = column
            self.start, self.stop = 0, len(self.keys)
        return True

    def farthest(self, reverse: bool) -> bytes:
        """The key at hand that is last in the order of the source."""
        return self.keys[self.start if reverse else self.stop - 1]

    def take(self, bound: bytes, reverse: bool) -> Column:
        """Take the rows up to `bound`, in the order of the source; ascending."""
        start, stop = self.start, self.stop
        if reverse:
            start = self.stop = bisect_left(self.keys, bound, start, stop)
        else:
            stop = self.start = bisect_right(self.keys, bound, start, stop)
        if stop - start == len(self.keys):
            return self.keys, self.held
        return self.keys[start:stop], self.held[start:stop]


def _merged(sources: list[Iterator[Column]], reverse: bool) -> Iterator[Column]:
    """The newest of each key (O1): a stretch of keys at a time, that no source adds to later."""
    cursors = [_Cursor(source) for source in sources]
    choose = max if reverse else min
    while True:
        cursors = [cursor for cursor in cursors if cursor.load()]
        if len(cursors) < 2:
            break
        bound = choose([cursor.farthest(reverse) for cursor in cursors])
        taken = [column for cursor in cursors if (column := cursor.take(bound, reverse))[0]]
        if len(taken) == 1:
            yield taken[0]
            continue
        newest: dict[bytes, Stored] = {}
        for keys, held in reversed(taken):
            newest.update(zip(keys, held, strict=True))
        # The dict has the keys in runs, which sort() merges.
        order = sorted(newest)
        yield order, [newest[key] for key in order]
    for cursor in cursors:
        yield cursor.take(cursor.farthest(reverse), reverse)
        yield from cursor.source
