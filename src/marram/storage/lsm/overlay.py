"""Memtables and tables laid over each other for a reader, where no range deletion is in the way.

Owns that merge; the one that range deletions and compactions need, which looks at sequence numbers,
is merge.py's.

A source yields parts, none empty: columns, (keys, what they hold), of one length; or stretches of a
table's block, (block, first row, end), whose order was checked. Keys strictly ascend within one
part, and from one to the next; a reverse source yields the later parts first, each still ascending.
What is deleted holds GONE.

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

from marram.storage.engine import SLICE_KEYS, Lock, Rows
from marram.storage.entry import Stored
from marram.storage.lsm.memtable import GONE, stored_of
from marram.storage.memory.space import Space
from marram.storage.sstable.block import DataBlock

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

if not cython.compiled:  # else they are inlined
    from marram.storage.sstable.raw import order, view

Column = tuple[list[bytes], list[Stored]]
Stretch = tuple[DataBlock, int, int]
Part = Column | Stretch

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

    lock: taken for each column. first: keys looked at for the first one; twice as many for the
    next, and so on.
    """
    limit = first
    while True:
        held: list[Stored | None]
        with lock:
            keys = space.order.chunk(start, stop, limit, reverse=reverse)
            # Without history nothing was changed since any position that a snapshot pins.
            if position is None or not space.history:
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
        limit = min(2 * limit, SLICE_KEYS)


# -- by rows ---------------------------------------------------------------------------------------


def by_rows(sources: list[Iterator[Part]], now_ms: int, reverse: bool, most: int) -> Iterator[Rows]:
    """overlay(), fast compiled.

    Hot: 0.1 us a row from one source, 0.2 us from four; interpreted ten times that.
    """
    merge = _Merge(sources, now_ms, reverse)
    while rows := merge.take(most):
        yield rows


class _Row:
    """The next row of a source, where it is.

    key, size: its key, as raw.py has it. following: the row behind it (_Merge).
    """

    __slots__ = (
        "_block", "_held", "_keys", "_left", "_reverse", "_row", "_source", "age",
        "following", "key", "size",
    )  # fmt: skip

    def __init__(self, source: Iterator[Part], age: int, reverse: bool) -> None:
        """age: its place among the sources, 0 for the newest."""
        self._source = source
        self._reverse = reverse
        self.age = age
        self.following: _Row | None = None
        self._block: DataBlock | None = None  # else the columns:
        self._keys: list[bytes] = []
        self._held: list[Stored] = []
        self._row = 0
        self._left = 0  # of the part, this one included

    def load(self) -> bool:
        """Have the first row of the next part at hand; False at the end."""
        part = next(self._source, None)
        if part is None:
            return False
        if len(part) == 2:
            self._block = None
            self._keys, self._held = part
            low, high = 0, len(self._keys)
        else:
            self._block, low, high = part
        self._row = high - 1 if self._reverse else low
        self._left = high - low
        self._point()
        return True

    def advance(self) -> bool:
        """Go on to the next row; False at the end."""
        if self._left == 1:
            return self.load()
        self._left -= 1
        self._row += -1 if self._reverse else 1
        self._point()
        return True

    def show(self, rows: Rows, now_ms: int) -> None:
        """Add it to `rows`, if it is seen (O2)."""
        block = self._block
        held: Stored
        if block is None:
            key, held = self._keys[self._row], self._held[self._row]
        else:
            key = block.key(self._row)
            held = block.value(self._row) if block.is_plain else stored_of(block.version(self._row))
        if type(held) is bytes or _is_seen(held, now_ms):
            rows.append((key, held))

    def show_rest(self, rows: Rows, now_ms: int, most: int) -> bool:
        """show() and advance() until there are `most` rows; False at the end."""
        block = self._block
        if block is not None and block.is_plain and not self._reverse:
            count = min(most - len(rows), self._left)
            rows += block.pairs(self._row, self._row + count)
            self._row += count - 1
            self._left -= count - 1
            return self.advance()
        while len(rows) < most:
            self.show(rows, now_ms)
            if not self.advance():
                return False
            if self._block is not block:
                break
        return True

    def _point(self) -> None:
        block = self._block
        if block is None:
            key = self._keys[self._row]
            self.key, self.size = view(key, 0, len(key)), len(key)
        else:
            start = block.key_ends[self._row - 1] if self._row else 0
            stop = block.key_ends[self._row]
            self.key, self.size = view(block.keys, start, stop), stop - start


class _Merge:
    """The rows of several sources, the newest of each key (O1).

    The sources' rows at hand are a chain in the order of their keys, those of one key next to each
    other.
    """

    __slots__ = ("_first", "_now_ms", "_reverse")

    def __init__(self, sources: list[Iterator[Part]], now_ms: int, reverse: bool) -> None:
        self._now_ms = now_ms
        self._reverse = reverse
        self._first: _Row | None = None
        for age, source in enumerate(sources):
            self._add(_Row(source, age, reverse))

    def take(self, most: int) -> Rows:
        """The next rows that are seen, `most` of them; fewer at the end."""
        found: Rows = []
        while len(found) < most:
            first = self._first
            if first is None:
                break
            second = first.following
            if second is None:
                if not first.show_rest(found, self._now_ms, most):
                    self._first = None
                continue
            ordered = self._order(first, second)
            if ordered < 0:
                first.show(found, self._now_ms)
                if not first.advance():
                    self._first = second
            elif ordered > 0:
                self._first = second
                self._put(first, second)
            elif first.age < second.age:  # the older one of a key is not shown
                first.following = second.following
                if second.advance():
                    self._put(second, first)
            elif first.advance():
                self._first = second
                self._put(first, second)
            else:
                self._first = second
        return found

    def _add(self, row: _Row) -> None:
        """Chain a source's first row, if it has any."""
        first = self._first
        if row.load():
            if first is not None and self._order(first, row) < 0:
                self._put(row, first)
            else:
                row.following = first
                self._first = row

    def _put(self, row: _Row, before: _Row) -> None:
        """Chain a row where it belongs behind `before`, whose key does not come after its own."""
        following = before.following
        while following is not None and self._order(following, row) < 0:
            before = following
            following = before.following
        row.following = following
        before.following = row

    def _order(self, left: _Row, right: _Row) -> int:
        """< 0, 0 or > 0, as their keys come."""
        if self._reverse:
            return order(right.key, right.size, left.key, left.size)
        return order(left.key, left.size, right.key, right.size)


# -- by columns ------------------------------------------------------------------------------------


def by_columns(sources: list[Iterator[Column]], now_ms: int, reverse: bool) -> Iterator[Rows]:
    """overlay() of columns, fast interpreted."""
    columns = sources[0] if len(sources) == 1 else _merged(sources, reverse)
    for keys, held in columns:
        rows = list(zip(keys, held, strict=True))
        # All plain strings: told by C, without a look at each.
        if {*map(type, held)} != _BYTES:
            rows = [row for row in rows if row[1].__class__ is bytes or _is_seen(row[1], now_ms)]
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


def _is_seen(held: Stored, now_ms: int) -> bool:
    return held is not GONE and not 0 < held.deadline_ms <= now_ms  # type: ignore[union-attr]
