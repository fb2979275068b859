"""A window: some hundred rows of one keyspace, in columns; how rows go from sources to a table.

Owns that shape, and nothing of what becomes of the rows.

Columns, since that is how a table is written: a row on its way from one table to another is a key
and a value in two lists, and no object of its own. Where the rules of merge.py have to look at rows
one by one, versions() makes them.

Threading: a window is one thread's.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

from marram.storage.sstable.block import TOMBSTONE, VersionRow


class Window:
    """Rows of one keyspace in table order, at least one.

    keyspace, and the columns, of one length: keys, values; sequences; deadlines, types: None where
    all of them are 0. They are not to be changed.
    """

    __slots__ = ("_rows", "deadlines", "keys", "keyspace", "sequences", "types", "values")

    def __init__(
        self,
        keyspace: int,
        keys: list[bytes],
        values: list[bytes],
        deadlines: Sequence[int] | None,
        types: Sequence[int] | None,
        sequences: Sequence[int],
        rows: list[VersionRow] | None = None,
    ) -> None:
        """rows: the same, where they are at hand."""
        self.keyspace = keyspace
        self.keys = keys
        self.values = values
        self.deadlines = deadlines
        self.types = types
        self.sequences = sequences
        self._rows = rows

    @classmethod
    def of(cls, rows: list[VersionRow]) -> Window:
        """The window with these rows, which are not to be changed any more."""
        _, keys, values, deadlines, types, sequences = zip(*rows, strict=True)
        return cls(
            rows[0][0],
            list(keys),
            list(values),
            deadlines if any(deadlines) else None,
            types if any(types) else None,
            sequences,
            rows,
        )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def is_plain(self) -> bool:
        """Whether all rows are strings without a deadline."""
        return self.deadlines is None and self.types is None

    def versions(self) -> list[VersionRow]:
        """The rows."""
        if self._rows is None:
            self._rows = list(
                zip(
                    repeat(self.keyspace),
                    self.keys,
                    self.values,
                    self.deadlines or repeat(0),
                    self.types or repeat(0),
                    self.sequences,
                    strict=False,
                )
            )
        return self._rows

    def part(self, start: int, stop: int) -> Window:
        """The rows [start, stop), 0 <= start < stop <= len; itself where those are all."""
        if stop - start == len(self.keys):
            return self
        return Window(
            self.keyspace,
            self.keys[start:stop],
            self.values[start:stop],
            None if self.deadlines is None else self.deadlines[start:stop],
            None if self.types is None else self.types[start:stop],
            self.sequences[start:stop],
        )

    def without_tombstones(self) -> Window | None:
        """The rows that are none; None where all are."""
        if self.types is None or TOMBSTONE not in self.types:
            return self
        rows = [row for row in self.versions() if row[4] != TOMBSTONE]
        return Window.of(rows) if rows else None
