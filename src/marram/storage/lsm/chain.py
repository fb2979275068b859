"""Sources of rows merged row by row, each compared where it is; for compiled code.

Owns which source's row is next, and that of rows of one key the newest counts; not what is done
with it (overlay.py shows it, merge.py keeps it).

A source yields *parts*, none empty:

    (keys, what they hold)          columns of a memtable, as overlay.py describes them
    (block, first row, end)         a stretch of a table's block, whose order was checked
    [rows]                          VersionRows of one keyspace

Within a part keys strictly ascend, and so they do from one to the next; a reverse source yields the
later parts first, each still ascending. Columns do not say of which keyspace they are: where there
are any, all sources are of one.

H1  sources come newest first: of a key in several, the row of the first one is the newest.

Interpreted this is slow, ten times a merge by whole lists, and nothing uses it but the tests.

Threading: a chain is one thread's.
"""

from __future__ import annotations

from collections.abc import Iterator

from marram.storage.engine import Rows
from marram.storage.entry import Stored
from marram.storage.lsm.memtable import is_seen, stored_of
from marram.storage.lsm.window import Window
from marram.storage.sstable.block import DataBlock, VersionRow

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

if not cython.compiled:  # else they are inlined
    from marram.coding.raw import order, view

Column = tuple[list[bytes], list[Stored]]
Stretch = tuple[DataBlock, int, int]
Part = Column | Stretch | list[VersionRow]


class Row:
    """The next row of a source, where it is.

    key, size: its key, as raw.py has it; keyspace: its keyspace, where the part says it. following:
    the row behind it in a chain.
    """

    __slots__ = (
        "_block", "_held", "_keys", "_left", "_reverse", "_row", "_rows", "_source", "age",
        "following", "key", "keyspace", "size",
    )  # fmt: skip

    def __init__(self, source: Iterator[Part], age: int, reverse: bool) -> None:
        """age: its place among the sources, 0 for the newest."""
        self._source = source
        self._reverse = reverse
        self.age = age
        self.following: Row | None = None
        self.keyspace = 0
        # One of the three shapes of a part; the others are None.
        self._block: DataBlock | None = None
        self._keys: list[bytes] | None = None
        self._held: list[Stored] | None = None
        self._rows: list[VersionRow] | None = None
        self._row = 0
        self._left = 0  # of the part, this one included

    def load(self) -> bool:
        """Have the first row of the next part at hand; False at the end."""
        part = next(self._source, None)
        if part is None:
            return False
        self._block = self._keys = self._held = self._rows = None
        if isinstance(part, list):
            self._rows = part
            self.keyspace = part[0][0]
            low, high = 0, len(part)
        elif len(part) == 2:
            self._keys, self._held = part
            low, high = 0, len(part[0])
        else:
            self._block, low, high = part
            self.keyspace = self._block.keyspace
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
        """Add it to what a reader sees, if it does: not what is GONE, or past its deadline."""
        block, keys, held_column = self._block, self._keys, self._held
        held: Stored
        if block is not None:
            key = block.key(self._row)
            held = block.value(self._row) if block.is_plain else stored_of(block.version(self._row))
        elif keys is not None and held_column is not None:
            key, held = keys[self._row], held_column[self._row]
        else:
            version = self._version()
            key, held = version[1], stored_of(version)
        if type(held) is bytes or is_seen(held, now_ms):
            rows.append((key, held))

    def show_rest(self, rows: Rows, now_ms: int, most: int) -> bool:
        """show() and advance() until there are `most` rows, or another part; False at the end."""
        block = self._block
        if block is not None and block.is_plain and not self._reverse:
            count = min(most - len(rows), self._left)
            rows += block.pairs(self._row, self._row + count)
            self._row += count - 1
            self._left -= count - 1
            return self.advance()
        left = self._left
        while left > 0 and len(rows) < most:
            self.show(rows, now_ms)
            if not self.advance():
                return False
            left -= 1
        return True

    def is_plain(self) -> bool:
        """Whether it is certainly a string without a deadline."""
        return self._block is not None and self._block.is_plain

    def give(self, keys: list[bytes], values: list[bytes], sequences: list[int]) -> None:
        """Add it to columns; it is plain."""
        block = self._block
        assert block is not None
        keys.append(block.key(self._row))
        values.append(block.value(self._row))
        sequences.append(block.sequence(self._row))

    def version(self) -> VersionRow:
        """All of it."""
        return self._version() if self._block is None else self._block.version(self._row)

    def _version(self) -> VersionRow:
        assert self._rows is not None
        return self._rows[self._row]

    def _point(self) -> None:
        block = self._block
        if block is not None:
            start = block.key_ends[self._row - 1] if self._row else 0
            stop = block.key_ends[self._row]
            self.key, self.size = view(block.keys, start, stop), stop - start
        else:
            key = self._version()[1] if self._keys is None else self._keys[self._row]
            self.key, self.size = view(key, 0, len(key)), len(key)


class Chain:
    """The rows of several sources, the newest of each key (H1).

    The sources' rows at hand are chained in the order of their keys, those of one key next to each
    other.
    """

    __slots__ = ("_first", "_is_taken", "_reverse", "_several")

    def __init__(self, sources: list[Iterator[Part]], reverse: bool, several: bool) -> None:
        """several: the rows are of several keyspaces; else of one, whatever it is called."""
        self._reverse = reverse
        self._several = several
        self._first: Row | None = None
        self._is_taken = False  # whether next() gave the first row away
        for age, source in enumerate(sources):
            self._add(Row(source, age, reverse))

    def next(self) -> Row | None:
        """The next row; None at the end. It is good until somebody asks again."""
        if self._is_taken:
            self._is_taken = False
            self._pass_first()
        while True:
            first = self._first
            if first is None:
                return None
            second = first.following
            if second is None:
                break
            ordered = self._order(first, second)
            if ordered < 0:
                break
            if ordered > 0:
                self._first = second
                self._put(first, second)
            elif first.age < second.age:  # the older one of a key does not count
                first.following = second.following
                if second.advance():
                    self._put(second, first)
            else:
                self._pass_first()
        self._is_taken = True
        return first

    def show(self, now_ms: int, most: int) -> Rows:
        """The next rows that a reader sees, `most` of them; fewer at the end."""
        found: Rows = []
        while len(found) < most:
            row = self.next()
            if row is None:
                break
            if row.following is None:
                self._is_taken = False
                if not row.show_rest(found, now_ms, most):
                    self._first = None
            else:
                row.show(found, now_ms)
        return found

    def window(self, most: int) -> Window | None:
        """The next rows of a keyspace, `most` of them, or fewer; None at the end.

        Those up to the first one that may not be plain, and from there on all.
        """
        row = self.next()
        if row is None:
            return None
        keyspace = row.keyspace
        if not row.is_plain():
            rows: list[VersionRow] = []
            while row is not None and row.keyspace == keyspace and len(rows) < most:
                rows.append(row.version())
                row = self.next()
            self._is_taken = False  # the last one was looked at only
            return Window.of(rows)
        keys: list[bytes] = []
        values: list[bytes] = []
        sequences: list[int] = []
        while row is not None and row.keyspace == keyspace and len(keys) < most and row.is_plain():
            row.give(keys, values, sequences)
            row = self.next()
        self._is_taken = False
        return Window(keyspace, keys, values, None, None, sequences)

    def _pass_first(self) -> None:
        """Go on to the next row of the first source; it may have to go further back."""
        first = self._first
        if first is not None and not first.advance():
            self._first = first.following

    def _add(self, row: Row) -> None:
        """Chain a source's first row, if it has any."""
        first = self._first
        if row.load():
            if first is not None and self._order(first, row) < 0:
                self._put(row, first)
            else:
                row.following = first
                self._first = row

    def _put(self, row: Row, before: Row) -> None:
        """Chain a row where it belongs behind `before`, whose key does not come after its own."""
        following = before.following
        while following is not None and self._order(following, row) < 0:
            before = following
            following = before.following
        row.following = following
        before.following = row

    def _order(self, left: Row, right: Row) -> int:
        """< 0, 0 or > 0, as their keys come."""
        if self._reverse:
            left, right = right, left
        if self._several and left.keyspace != right.keyspace:
            return left.keyspace - right.keyspace
        return order(left.key, left.size, right.key, right.size)
