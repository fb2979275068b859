"""What a tree of tables keeps in memory to read: decoded blocks, and open tables.

Owns the two budgets and who has to go; not reading (sstable/reader.py) and not which tables exist.

C1  what is kept never takes more than its capacity, bytes, by the sizes blocks and tables say of
    themselves; but for tables, that the one opened last is kept however large.
C2  nothing is pinned: what goes is let go of, and whoever still uses it goes on undisturbed. A
    table's file is closed when the last of them is done (the reference to it counts).
C3  a hit takes no lock. What was hit since it was last considered is spared once (CLOCK); what
    never was goes in the order it came, so a scan cannot push out what is used again and again.
C4  what does not fit an eighth of the capacity is not kept: one large value would cost hundreds of
    others their place.

Blocks are kept decoded, not as their bytes: a look-up then takes 1.8 us instead of 15 us, for 1.4
times the memory (rows of 16 + 100 bytes). A block's keys are listed when it is hit first, so that
blocks which are read once do not pay for it.

Single rows are kept, too, in a quarter of the blocks' memory: hot keys lie scattered, so a block
is kept for one of its 250 rows. Microseconds of CPU a DB.get, of 1000000 keys of 16 + 100 bytes
in one level, 200000 look-ups, one run each; the look-up below it became faster at the same time,
which is the least of the difference where keys are hot, and most of it where they are uniform:

    memory_limit  keys                before   with
    512 MiB       zipfian, 0.99           20.4  11.8
    128 MiB       zipfian, 0.99           37.4  17.9
    512 MiB       uniform                 42.8  40.3
    512 MiB       40000 keys, uniform      4.3   1.4

Threading: any thread may call anything. Counts of hits and misses may miss some where threads race,
since counting them exactly would take the lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Set
from typing import Any, NamedTuple

from marram.env.api import Env
from marram.errors import Closed, Corruption, InvalidArgument
from marram.storage.entry import Stored
from marram.storage.sstable.block import DataBlock, Kept
from marram.storage.sstable.reader import BlockStore, Table, table_of

# What keeping an entry takes: its id, its places in the dict and in the ring.
_ENTRY_BYTES = 150
# What keeping a row takes beside key and value: two objects around bytes, its place in a dict.
_ROW_BYTES = 180
# Which rows that were read are kept: those whose count has none of these bits.
_OFFER_MASK = 3


class CacheStats(NamedTuple):
    """What a cache holds and did. hits, misses, evictions: since it was made.

    entries: blocks or tables; bytes, capacity_bytes: what they take, and may take.
    """

    hits: int
    misses: int
    evictions: int
    entries: int
    bytes: int
    capacity_bytes: int


class BlockCache(BlockStore):
    """Decoded blocks of all tables, by their id (reader.block_id)."""

    __slots__ = ("_blocks", "_clock", "_hits", "_lock", "_misses", "capacity_bytes")

    def __init__(self, capacity_bytes: int) -> None:
        """capacity_bytes: >= 0; with 0 nothing is kept. Raises InvalidArgument."""
        if capacity_bytes < 0:
            raise InvalidArgument(f"a cache of {capacity_bytes} bytes")
        self.capacity_bytes = capacity_bytes
        self._lock = threading.Lock()
        self._clock = _Clock()  # guarded by _lock
        self._blocks: dict[int, DataBlock] = self._clock.entries  # for get(), without the lock
        self._hits = 0
        self._misses = 0

    def get(self, block_id: int) -> DataBlock | None:
        """The block, if it is kept. Hot: 0.1 us, no lock (C3)."""
        block = self._blocks.get(block_id)
        if block is None:
            self._misses += 1
            return None
        self._hits += 1
        if not block.recent:
            block.list_keys()
            block.recent = True
        return block

    def put(self, block_id: int, block: DataBlock) -> None:
        """Keep a block, unless another thread was faster, or it is too large (C4)."""
        if block.memory_bytes > self.capacity_bytes // 8:
            return
        with self._lock:
            if block_id not in self._blocks:
                while self._clock.bytes + _cost(block) > self.capacity_bytes:
                    self._clock.evict()
                self._clock.add(block_id, block)

    def drop_table(self, number: int) -> None:
        """Let go of the blocks of a table: its file is gone. O(blocks kept)."""
        with self._lock:
            self._clock.remove({found for found in self._blocks if table_of(found) == number})

    def stats(self) -> CacheStats:
        """What it holds and did."""
        with self._lock:
            return self._clock.stats(self._hits, self._misses, self.capacity_bytes)

    def _check(self) -> None:
        """Verify C1 and the counters; tests call it after every step."""
        with self._lock:
            self._clock._check()
            assert self._clock.bytes <= self.capacity_bytes, "C1"


class RowCache:
    """What look-ups found in the tables of one version: a hit is a dict look-up and no more.

    A version never changes, so neither does what it says of a key: nobody has to invalidate
    anything, and a new version begins with an empty cache. Two generations decide what stays: a
    row enters the young one, and again where it is hit in the old one; when the young one has
    half of the capacity it becomes the old one, which goes whole.

    levels: the version's, by which it is known; young, old: what stored keys hold, for look-ups
    without a call, which count their own hits; misses: rows that were offered.
    """

    __slots__ = (
        "_bytes", "_lock", "_old_bytes", "capacity_bytes", "hits", "levels", "misses", "old",
        "young",
    )  # fmt: skip

    def __init__(self, capacity_bytes: int, levels: object = None) -> None:
        """capacity_bytes: >= 0; with 0 nothing is kept."""
        self.capacity_bytes = capacity_bytes
        self.levels = levels
        self.young: dict[bytes, Stored] = {}
        self.old: dict[bytes, Stored] = {}
        self.hits = 0
        self.misses = 0
        self._lock = threading.Lock()
        self._bytes = 0  # of the young ones, guarded by _lock
        self._old_bytes = 0  # guarded by _lock

    def offer(self, row: bytes, held: Stored) -> None:
        """Keep one of a few rows that were read: what is asked for often comes in soon."""
        self.misses += 1
        if not self.misses & _OFFER_MASK:
            self.put(row, held)

    def put(self, row: bytes, held: Stored) -> None:
        """Keep what a stored key holds, unless it is too large (C4)."""
        size = _row_cost(row, held)
        half = self.capacity_bytes // 2
        if size > half // 16:
            return
        with self._lock:
            if row in self.young:
                return
            if self._bytes + size > half:
                self.old, self.young = self.young, {}
                self._old_bytes, self._bytes = self._bytes, 0
            self.young[row] = held
            self._bytes += size

    def stats(self) -> CacheStats:
        """What it holds and did; evictions are not counted, and a row may be in it twice."""
        with self._lock:
            entries = len(self.young) + len(self.old)
            size = self._bytes + self._old_bytes
        return CacheStats(self.hits, self.misses, 0, entries, size, self.capacity_bytes)

    def _check(self) -> None:
        """Verify C1 and the counters; tests call it after every step."""
        with self._lock:
            young = sum(_row_cost(row, held) for row, held in self.young.items())
            old = sum(_row_cost(row, held) for row, held in self.old.items())
            assert (young, old) == (self._bytes, self._old_bytes), "the sizes add up"
            assert young + old <= self.capacity_bytes, "C1"


class TableCache:
    """Open tables, by their file number: their files, indexes and filters.

    open_tables: those open, for look-ups that save get()'s call and are not counted as hits; what
    is found there is to be marked `recent`, and nobody else changes it.
    """

    __slots__ = (
        "_block_cache", "_check_table", "_clock", "_closed", "_env", "_hits", "_lock", "_misses",
        "_path_of", "_store_id", "_tables", "capacity_bytes", "max_tables", "open_tables",
    )  # fmt: skip

    def __init__(
        self,
        env: Env,
        path_of: Callable[[int], str],
        store_id: bytes,
        blocks: BlockCache | None = None,
        *,
        check: Callable[[Table], None],
        capacity_bytes: int,
        max_tables: int,
    ) -> None:
        """path_of: from a table's number to its path; blocks: where the tables keep blocks.

        check: raises Corruption where a table that was opened is not the one it should be.

        capacity_bytes: for indexes and filters, >= 0; max_tables: how many files may be open,
        >= 1, besides those that somebody still uses (C2). Raises InvalidArgument.
        """
        if capacity_bytes < 0 or max_tables < 1:
            raise InvalidArgument(f"a cache of {max_tables} tables in {capacity_bytes} bytes")
        self.capacity_bytes = capacity_bytes
        self.max_tables = max_tables
        self._env = env
        self._path_of = path_of
        self._check_table = check
        self._store_id = store_id
        self._block_cache = blocks
        self._lock = threading.Lock()
        self._clock = _Clock()  # guarded by _lock
        self._tables: dict[int, Table] = self._clock.entries  # for get(), without the lock
        self.open_tables = self._tables
        self._closed = False  # guarded by _lock
        self._hits = 0
        self._misses = 0

    def get(self, number: int) -> Table:
        """The table, opened where it is not. Do not close it.

        Raises Corruption (also where the file is missing), UnsupportedFormat, OSError, Closed.
        Hot: 0.1 us, no lock, where the table is open (C3).
        """
        table = self._tables.get(number)
        if table is not None:
            self._hits += 1
            table.recent = True
            return table
        with self._lock:
            if self._closed:
                raise Closed("the tables were closed")
            table = self._tables.get(number)
            if table is None:  # else another thread was faster
                self._misses += 1
                table = self._open(number)
                while self._tables and (
                    len(self._tables) >= self.max_tables
                    or self._clock.bytes + _cost(table) > self.capacity_bytes
                ):
                    self._clock.evict()
                self._clock.add(number, table)
            return table

    def drop(self, number: int) -> None:
        """Let go of a table and its blocks, where it is about to be removed."""
        with self._lock:
            if number in self._tables:
                self._clock.remove({number})
        if self._block_cache is not None:
            self._block_cache.drop_table(number)

    def close(self) -> None:
        """Let go of all tables and refuse further ones; idempotent. Who reads one may go on."""
        with self._lock:
            self._closed = True
            self._clock.remove(set(self._tables))

    def stats(self) -> CacheStats:
        """What it holds and did."""
        with self._lock:
            return self._clock.stats(self._hits, self._misses, self.capacity_bytes)

    def _open(self, number: int) -> Table:
        path = self._path_of(number)
        try:
            file = self._env.open(path)
        except FileNotFoundError:
            raise Corruption("the file is missing", path) from None
        try:
            table = Table.open(file, number, self._store_id, blocks=self._block_cache)
            self._check_table(table)
            return table
        except BaseException:
            file.close()
            raise

    def _check(self) -> None:
        """Verify C1 and the counters; tests call it after every step."""
        with self._lock:
            self._clock._check()
            assert self._clock.bytes <= self.capacity_bytes or len(self._tables) == 1, "C1"
            assert len(self._tables) <= self.max_tables


class _Clock:
    """Entries in the order in which they are considered when room is needed.

    entries: by id; its owner reads it without a lock, all else is under the owner's lock.
    bytes: what they take.
    """

    __slots__ = ("_evictions", "_ring", "bytes", "entries")

    def __init__(self) -> None:
        self.entries: dict[int, Any] = {}  # Kept
        self.bytes = 0
        self._ring: deque[int] = deque()  # the ids, next to be considered first
        self._evictions = 0

    def add(self, id_: int, entry: Kept) -> None:
        """Add an entry that is not there."""
        self.entries[id_] = entry
        self._ring.append(id_)
        self.bytes += _cost(entry)

    def evict(self) -> None:
        """Let go of the next entry that was not hit since it was last considered; one is there."""
        entries, ring = self.entries, self._ring
        # One round at most: hits that come meanwhile must not keep this from ending.
        for _ in range(len(ring)):
            entry: Kept = entries[ring[0]]
            if not entry.recent:
                break
            entry.recent = False
            ring.rotate(-1)
        entry = entries.pop(ring.popleft())
        self.bytes -= _cost(entry)
        self._evictions += 1

    def remove(self, ids: Set[int]) -> None:
        """Let go of entries that are there."""
        if ids:
            self.bytes -= sum([_cost(self.entries.pop(id_)) for id_ in ids])
            self._ring = deque([id_ for id_ in self._ring if id_ not in ids])

    def stats(self, hits: int, misses: int, capacity_bytes: int) -> CacheStats:
        """The owner's statistics."""
        return CacheStats(
            hits, misses, self._evictions, len(self.entries), self.bytes, capacity_bytes
        )

    def _check(self) -> None:
        assert sorted(self._ring) == sorted(self.entries), "each entry is in the ring once"
        assert self.bytes == sum([_cost(entry) for entry in self.entries.values()]), "sizes"


def _cost(entry: Kept) -> int:
    """What keeping an entry takes, bytes."""
    return entry.memory_bytes + _ENTRY_BYTES


def _row_cost(row: bytes, held: Stored) -> int:
    """What keeping a row takes, bytes."""
    return len(row) + len(held if isinstance(held, bytes) else held.value) + _ROW_BYTES
