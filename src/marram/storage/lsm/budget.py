"""One memory budget, and what each part of the engine gets of it.

Owns the shares; keeping to them is each part's own.

The memtables get the most: while one is flushed the next fills, and writers are held back only when
that is full, too. What is left beyond the shares is for what no cache sees: rows under way in
flushes and scans, and the helper process that compacts.

Threading: frozen values.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from marram.storage.options import MIB, Options

DEFAULT_BYTES = 512 * MIB
"""The budget where options.memory_limit is 0."""

_MEMTABLE_MAX = 64 * MIB
_MEMTABLE_MIN = 1 * MIB


class Budget(NamedTuple):
    """Bytes. total_bytes: all of it; memtable_bytes: at which the active memtable is flushed."""

    total_bytes: int
    memtable_bytes: int
    block_cache_bytes: int
    table_cache_bytes: int

    @classmethod
    def of(cls, options: Options) -> Self:
        """The shares that options ask for."""
        total = options.memory_limit or DEFAULT_BYTES
        memtable = options.memtable_bytes
        if not memtable:
            memtable = max(_MEMTABLE_MIN, min(total // 8, _MEMTABLE_MAX))
        return cls(total, memtable, total * 3 // 8, total // 4)
