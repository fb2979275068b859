"""One keyspace of the lsm engine, as the layers above see it.

Owns nothing but which physical keyspace it is: SWAPDB exchanges the places of two of these, and
the keys in tables stay where they are.

Threading: get() any thread; the others under the store's lock, or on the one thread that writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from marram.storage.engine import Rows
from marram.storage.entry import Stored
from marram.storage.lsm.memtable import GONE
from marram.storage.lsm.pin import count_rows, lay_under, newest_rows, pick_key

if TYPE_CHECKING:
    from marram.storage.lsm.engine import LsmEngine


class LsmSpace:
    """A keyspace at its newest state; an engine.Space. number: the physical one's."""

    __slots__ = ("_engine", "number")

    def __init__(self, engine: LsmEngine, number: int) -> None:
        self._engine = engine
        self.number = number

    def __len__(self) -> int:
        """Keys held, expired ones included, exactly: unsure ones are looked up first."""
        return self._engine.count(self.number)[0]

    def about(self) -> int:
        """Keys held, about; quick."""
        return self._engine.about(self.number)[0]

    @property
    def volatile(self) -> int:
        """Keys that have a deadline, about; 0 only where there are none."""
        tree = self._engine.tree
        some = any(memtable.spaces[self.number].volatile for memtable in tree.memtables) or any(
            level.expirable_rows for level in tree.version.levels
        )
        return max(1, self._engine.about(self.number)[1]) if some else 0

    @property
    def data_bytes(self) -> int:
        """Keys and values held, about, bytes: tables count whole."""
        tree = self._engine.tree
        return sum(memtable.spaces[self.number].data_bytes for memtable in tree.memtables) + sum(
            table.size_bytes + table.blob_bytes
            for level in tree.version.levels
            for table in level.tables
            if table.start[0] == self.number
        )

    def get(self, key: bytes) -> Stored | None:
        """The newest value, expired or not. Raises Corruption, OSError: it cannot be read."""
        engine = self._engine
        tree = engine.tree
        active = tree.active
        held = active.spaces[self.number].map.get(key)
        if held is None:
            if active.ranges.deletions and active.ranges.cover(self.number, key):
                return None
            if tree.frozen:
                held = engine.behind(tree, 0, self.number, key)
            else:  # nearly always, so without the call
                held = engine.tables.newest(tree.version, self.number, key)
        return None if held is GONE else held

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        """get() of each, in their order; each block of a table is read once."""
        engine = self._engine
        tree = engine.tree
        active = tree.active
        first = list(map(active.spaces[self.number].map.get, keys))
        return lay_under(
            engine.tables.newest_many,
            keys,
            first,
            active.ranges,
            tree.frozen,
            tree.version,
            self.number,
        )

    def keys(self, start: bytes, stop: bytes | None, limit: int, reverse: bool) -> list[bytes]:
        """Up to `limit` keys of [start, stop) in order, expired ones included."""
        rows = self._newest(start, stop, limit, reverse, keys_only=True)
        return [key for key, _ in rows]

    def rows(self, start: bytes, stop: bytes | None, limit: int, reverse: bool) -> Rows:
        """keys(), with what they hold."""
        return self._newest(start, stop, limit, reverse)

    def _newest(
        self, start: bytes, stop: bytes | None, limit: int, reverse: bool, keys_only: bool = False
    ) -> Rows:
        engine = self._engine
        tree = engine.tree
        return newest_rows(
            engine.tables, tree.active, tree.frozen, tree.version,
            self.number, start, stop, limit, reverse, keys_only=keys_only,
        )  # fmt: skip

    def key_at(self, index: int) -> bytes:
        """A key about at `index` in key order, in [0, len)."""
        near = pick_key(self._engine.tree, self._engine.tables, self.number, index)
        following = self.keys(near, None, 1, False) or self.keys(b"", None, 1, False)
        return following[0]

    def due(self, now_ms: int, limit: int) -> list[bytes]:
        """Up to `limit` keys of the active memtable past their deadlines.

        Those in tables are taken away by compactions, or when they are read.
        """
        return self._engine.tree.active.spaces[self.number].due(now_ms, limit)

    def expired_count(self, now_ms: int) -> int:
        """How many keys are held past their deadline: a scan, where any can be."""
        tree, tables = self._engine.tree, self._engine.tables
        possible = any(
            memtable.spaces[self.number].expired_count(now_ms) for memtable in tree.memtables
        ) or any(
            table.expired_rows(now_ms)
            for level in tree.version.levels
            if level.expirable_rows
            for table in level.tables
        )
        if not possible:
            return 0
        held = count_rows(tables, tree.memtables, tree.version, self.number)[0]
        live = count_rows(tables, tree.memtables, tree.version, self.number, now_ms)[0]
        return held - live
