"""Memtables and tables laid over each other for a reader, where no range deletion is in the way.

Owns the merge of columns; the merge that range deletions and compactions need, which looks at
sequence numbers, is merge.py's.

A source yields columns: (keys, what they hold), of one length, not empty, keys strictly ascending
within one, and from one to the next; a reverse source yields the later columns first, each still
ascending. What is deleted holds GONE.

O1  sources come newest first: of a key in several, the first one counts.
O2  what is GONE, or past its deadline, is not shown.

Hot: no interpreted code runs once a row but where a deadline or a deletion is among some hundred
rows. Where one source has rows for a stretch of keys, they are passed on as they are.

Threading: pure generators; one is one thread's.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from marram.storage.engine import SLICE_KEYS, Lock, Rows
from marram.storage.entry import Stored
from marram.storage.lsm.memtable import GONE
from marram.storage.memory.space import Space

Column = tuple[list[bytes], list[Stored]]

_BYTES = {bytes}


def overlay(sources: list[Iterator[Column]], now_ms: int, *, reverse: bool) -> Iterator[Rows]:
    """The rows that are seen (O1, O2), in the order of the sources, in lists that are not empty.

    now_ms: by which deadlines are judged, 0 to let none come.
    """
    if len(sources) == 1:
        columns = sources[0]
    else:
        columns = _merged(sources, reverse)
    for keys, held in columns:
        rows = list(zip(keys, held, strict=True))
        # All plain strings: told by C, without a look at each.
        if {*map(type, held)} != _BYTES:
            rows = [row for row in rows if row[1].__class__ is bytes or _is_seen(row[1], now_ms)]
        if rows:
            yield rows[::-1] if reverse else rows


def space_columns(
    space: Space,
    start: bytes,
    stop: bytes | None,
    position: int | None,
    lock: Lock,
    *,
    reverse: bool,
    first: int = SLICE_KEYS,
) -> Iterator[Column]:
    """What a memtable's space says of [start, stop) at a position, None for the newest.

    lock: taken for each column. first: keys looked at for the first one.
    """
    limit = first
    while True:
        held: list[Stored | None]
        with lock:
            keys = space.order.chunk(start, stop, limit, reverse=reverse)
            if position is None:
                held = list(map(space.map.get, keys))
            else:
                held = [space.get_at(key, position) for key in keys]
        last = keys[-1] if keys else b""
        is_last = len(keys) < limit
        if reverse:
            keys.reverse()
            held.reverse()
        if None in held:
            keys = [key for key, value in zip(keys, held, strict=True) if value is not None]
            held = [value for value in held if value is not None]
        if keys:
            yield keys, held  # type: ignore[misc]
        if is_last:
            return
        if reverse:
            stop = last
        else:
            start = last + b"\0"
        limit = SLICE_KEYS


# -- private ---------------------------------------------------------------------------------------


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


def _is_seen(held: Stored, now_ms: int) -> bool:
    return held is not GONE and not 0 < held.deadline_ms <= now_ms  # type: ignore[union-attr]
