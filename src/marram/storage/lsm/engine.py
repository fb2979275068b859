"""The lsm engine: memtables in front of a tree of sorted tables, as one map.

Owns the newest state and how it changes: which memtables there are, which version of the tree is
read, applying and undoing batches. Reading tables is tables.py's, writing a generation
generation.py's, choosing and running compactions compactor.py's, the manifest's bytes
manifest.py's.

X1  everything a reader needs hangs on one Tree, which is replaced whole: active memtable, frozen
    ones, newest first, version. Of one key each is newer than those behind it.
X2  a batch is applied to the active memtable alone. What EXPIRE and PATCH need of what is behind
    was read by prepare() before the batch got a number: so a disk that cannot be read refuses a
    batch, and never leaves it half applied.
X3  a memtable is frozen by the begin of a generation, and leaves the tree when its tables are in
    a manifest that `version` names.
X4  `counting` is held while what is behind the active memtable is counted, and while it changes:
    who counts without the store's lock, on the one thread that writes, sees tree and base together.
X5  `_edits` is held while the manifest or the version changes: flushes and compactions take turns.
X6  a replay finds behind the memtable what apply() found there: a row with a deadline whose value
    an EXPIRE or a PATCH of a memtable took stays in the tables until that memtable is in them.

Threading: reading needs no lock; changes, snapshot(), release() and freezing the store's lock;
_edits is taken before that lock, counting after it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from typing import Any, NamedTuple

from marram.coding.batch import DELETE, EXPIRE, KEYSPACES, PATCH, PUT, SWAP, Change
from marram.env.api import Env
from marram.storage import layout
from marram.storage.engine import Home, Lock, Origin, Progress, Range
from marram.storage.entry import Stored, entry_of, patched, stored
from marram.storage.log.writer import GROW_MAX, GROW_MIN
from marram.storage.lsm import counts, manifest
from marram.storage.lsm.budget import Budget
from marram.storage.lsm.compactor import Compactor
from marram.storage.lsm.generation import LsmGeneration
from marram.storage.lsm.manifest import Counts, Listing, Loaded, Manifest, Record
from marram.storage.lsm.memtable import GONE, MAX_RANGES, Memtable, RangeSet, Tally
from marram.storage.lsm.pin import LsmPin, bounds, count_rows
from marram.storage.lsm.replacement import LsmReplacement
from marram.storage.lsm.replay import LsmReplay
from marram.storage.lsm.space import LsmSpace
from marram.storage.lsm.stats import describe
from marram.storage.lsm.tables import Tables, check_files, remove_orphans
from marram.storage.lsm.version import TableMeta, Version, VersionEdit
from marram.storage.memory.space import Link, Space
from marram.storage.options import Options
from marram.storage.putting import TakesPuts
from marram.storage.sstable.ranges import RangeDeletion


class Tree:
    """What there is to read (X1): active, frozen, version; as a tuple would have it."""

    __slots__ = ("active", "frozen", "version")

    def __init__(self, active: Memtable, frozen: tuple[Memtable, ...], version: Version) -> None:
        self.active = active
        self.frozen = frozen
        self.version = version

    def __iter__(self) -> Iterator[Any]:
        return iter((self.active, self.frozen, self.version))

    @property
    def memtables(self) -> tuple[Memtable, ...]:
        """All of them, newest first."""
        return (self.active, *self.frozen)


class KeyUndo(NamedTuple):
    """Restores one key of the active memtable. before: what that said, None for nothing."""

    physical: int
    key: bytes
    before: Stored | None


class RangeUndo(NamedTuple):
    """Puts back what a range deletion changed beside keys. space: the one it took away, if any."""

    physical: int
    ranges: RangeSet
    space: Space | None
    tally: Tally


class SwapUndo(NamedTuple):
    """Puts a keyspace back where it was."""

    keyspace: int
    space: LsmSpace


Undo = list[KeyUndo | RangeUndo | SwapUndo]


class LsmEngine(TakesPuts):
    """A tree of tables, and what was not flushed to it yet."""

    __slots__ = (
        "_edits", "_listed_spaces", "_loaded", "_manifest", "_numbers", "_origin", "_prepared",
        "base", "budget", "compactor", "count_asked", "counting", "course", "directory", "env",
        "flushed_bytes", "generation", "next_table", "now_ms", "options", "spaces", "store_id",
        "tables", "tree",
    )  # fmt: skip

    name = "lsm"

    def __init__(
        self, env: Env, directory: str, store_id: bytes, options: Options, loaded: Loaded
    ) -> None:
        """Use load()."""
        self.env = env
        self.directory = directory
        self.store_id = store_id
        self.options = options
        self.budget = Budget.of(options)
        self.tables = self._no_tables(store_id)
        self.tables.add(loaded.version, (t for n in loaded.version.levels for t in n.tables))
        self.tree = Tree(Memtable(loaded.origin.sequence), (), loaded.version)
        self.spaces: list[LsmSpace] = [LsmSpace(self, number) for number in loaded.spaces]
        self._numbers: tuple[int, ...] = loaded.spaces  # of the spaces; () where not known now
        self.base: list[Counts] = list(loaded.counts)  # what the tables hold (counts.py)
        self.count_asked = False  # since the last flush
        self.next_table = loaded.next_table
        self.generation = 0
        self.course = 0  # how often the state of another store took the place of this one
        self._origin = loaded.origin  # of the generation, as are:
        self._listed_spaces = loaded.spaces
        self.flushed_bytes = 0  # since it was opened
        self.now_ms: Callable[[], int] = env.wall_ms
        self.compactor: Compactor | None = None
        self._loaded: Loaded | None = loaded
        self._manifest: Manifest | None = None
        self.counting = threading.Lock()
        self._edits = threading.Lock()
        self._prepared: dict[tuple[int, bytes], Stored | None] = {}

    # -- in the order of a life --------------------------------------------------------------------

    @classmethod
    def load(
        cls, env: Env, directory: str, generation: int, store_id: bytes, options: Options
    ) -> tuple[LsmEngine, Origin]:
        """The engine as generation N begins with it; changes nothing.

        Raises Corruption, UnsupportedFormat, OSError.
        """
        loaded = manifest.load(env, directory, generation, store_id)
        check_files(env, directory, loaded.version)
        engine = cls(env, directory, store_id, options, loaded)
        engine.generation = generation
        return engine, loaded.origin

    def resume(self) -> list[str]:
        """All was read and found good: open the manifest, remove orphans; returns their names."""
        assert self._loaded is not None
        # A store without tables may have lost the empty folder to a copy that leaves such out.
        self.env.make_dir(layout.tables_path(self.directory))
        self._manifest = Manifest.resume(self.env, self.directory, self.generation, self._loaded)
        self._loaded = None
        return remove_orphans(self.env, self.directory, self.tree.version)

    def open(self, home: Home, fail: Callable[[BaseException], None]) -> None:
        """Start compacting. fail: latches the store (P4)."""
        self.now_ms = home.now_ms
        self.compactor = Compactor(self, home, fail)
        self.compactor.poke()

    def close(self) -> None:
        """End compactions and close all files; idempotent."""
        if self.compactor is not None:
            self.compactor.close()
        with self._edits:
            if self._manifest is not None:
                self._manifest.close()
            self.tables.close()

    # -- changing ----------------------------------------------------------------------------------

    def prepare(self, changes: Sequence[Change]) -> None:
        """Read what apply() will need of the changes' keys (X2). Raises Corruption, OSError."""
        self._prepared = {}
        spaces = self.spaces
        for kind, keyspace, key, _, number, _ in changes:
            if kind in (EXPIRE, PATCH):
                space = spaces[keyspace]
                self._prepared[space.number, key] = space.get(key)
            elif kind == SWAP:  # what comes after it means the other one
                spaces = list(spaces)
                spaces[keyspace], spaces[number] = spaces[number], spaces[keyspace]

    def put(self, keyspace: int, key: bytes, held: Stored, sequence: int) -> None:
        """apply() of a single PUT, without the tuple."""
        space: LsmSpace = self.spaces[keyspace]
        self._hold(space.number, key, held, sequence)

    def put_many(
        self, keyspace: int, keys: list[bytes], values: list[Stored], sequence: int
    ) -> None:
        """put() of each."""
        memtable = self.tree.active
        physical: int = self.spaces[keyspace].number
        space: Space = memtable.spaces[physical]
        tally: Tally = memtable.tallies[physical]
        pinned: int = memtable.pins.newest
        for at in range(len(keys)):
            key, held = keys[at], values[at]
            tally.note(key, space.put(key, held, sequence, pinned), held)

    def apply(self, changes: Iterable[Change], sequence: int) -> Undo:
        """Apply a batch; returns what revert() needs."""
        undo: Undo = []
        for kind, keyspace, key, value, number, type_ in changes:
            space = self.spaces[keyspace]
            physical = space.number
            if kind == PUT:
                assert value is not None
                undo.append(self._set(physical, key, stored(value, number, type_), sequence))
            elif kind == DELETE:
                undo.append(self._set(physical, key, GONE, sequence))
            elif kind == EXPIRE:
                held = self._before(space, key)
                if held is not None:
                    entry = entry_of(held)
                    after = stored(entry.value, number, entry.type)
                    undo.append(self._set(physical, key, after, sequence))
            elif kind == PATCH:
                assert value is not None
                after = patched(self._before(space, key), number, value)
                undo.append(self._set(physical, key, after, sequence))
            elif kind == SWAP:
                other = self.spaces[number]
                undo += (SwapUndo(keyspace, space), SwapUndo(number, other))
                self.spaces[keyspace], self.spaces[number] = other, space
                self._numbers = ()
            else:
                self._delete_range(physical, key, value, sequence, undo)
        self._prepared = {}
        return undo

    def replay(self) -> LsmReplay:
        """What takes a log's batches in recovery."""
        return LsmReplay(self)

    def revert(self, undo: Undo, sequence: int) -> None:
        """Undo a batch that was applied at `sequence` and never committed."""
        memtable = self.tree.active
        for step in reversed(undo):
            if isinstance(step, SwapUndo):
                self.spaces[step.keyspace] = step.space
                self._numbers = ()
            elif isinstance(step, RangeUndo):
                if (
                    step.space is not None
                ):  # before the ranges: a reader would look through to tables
                    memtable.spaces[step.physical] = step.space
                memtable.ranges = step.ranges
                memtable.tallies[step.physical] = step.tally
                step.tally.vague = True
            else:
                self._restore(memtable, step, sequence)
        for step in undo:  # not sooner: a key may have been changed more than once
            if isinstance(step, KeyUndo):
                memtable.spaces[step.physical].forget_change(step.key, sequence)

    # -- snapshots ---------------------------------------------------------------------------------

    @property
    def pinned(self) -> int:
        """The newest live snapshot's position in the active memtable, or -1."""
        return self.tree.active.pins.newest

    def snapshot(self, position: int) -> LsmPin:
        """Pin the present state, which is the state at `position`."""
        tree = self.tree
        tree.active.pins.add(position)
        if not self._numbers:
            self._numbers = tuple([space.number for space in self.spaces])
        return LsmPin(
            self.tables,
            tree.active,
            tree.frozen,
            tree.version,
            self._numbers,
            position,
            self.course,
        )

    def release(self, pin: LsmPin) -> list[dict[bytes, Link]]:
        """Unpin; returns retired versions, which the caller may free at leisure."""
        memtable = pin.memtable
        spaces: Collection[Space] = pin.spaces
        if tuple(memtable.spaces) != spaces:  # one was cleared since
            spaces = {*memtable.spaces, *spaces}
        retired = memtable.pins.remove(pin.position, spaces)
        pin.let_go()
        if self.tables.has_obsolete() and self.compactor is not None:
            self.compactor.poke()
        return retired

    def changed_since(
        self, pin: LsmPin, keys: Sequence[tuple[int, bytes]], ranges: Sequence[Range]
    ) -> bool:
        """Whether any of the keys, or any key in the ranges, was written after the pin.

        Of a large range it may say so, too, where tables in it were made since.
        """
        if pin.course != self.course:
            return bool(keys or ranges)
        now_ms = self.now_ms()
        return any(
            self.spaces[keyspace].number != pin.numbers[keyspace]
            or pin.key_changed(self.tree, keyspace, key, now_ms)
            for keyspace, key in keys
        ) or any(
            self.spaces[keyspace].number != pin.numbers[keyspace]
            or pin.range_changed(self.tree, keyspace, start, stop, now_ms)
            for keyspace, start, stop in ranges
        )

    # -- reading -----------------------------------------------------------------------------------

    def get(self, physical: int, key: bytes) -> Stored | None:
        """The newest of a key: a value, GONE, or None for nothing. Raises Corruption, OSError."""
        tree = self.tree
        held = tree.active.get(physical, key)
        return self.behind(tree, 0, physical, key) if held is None else held

    def behind(
        self, tree: Tree, number: int, physical: int, key: bytes, with_value: bool = True
    ) -> Stored | None:
        """The newest of a key behind memtable `number` of a tree's: value, GONE or None.

        with_value: as for Tables.find().
        """
        for memtable in tree.frozen[number:]:
            held = memtable.get(physical, key)
            if held is not None:
                return held
        return self.tables.find(tree.version, physical, key, with_value)

    def count(self, physical: int) -> tuple[int, int]:
        """(keys, keys with a deadline) exactly. Under the lock, or on the thread that writes."""
        self.count_asked = True
        with self.counting:
            tree = self.tree
            return counts.resolve(
                tree.memtables,
                self.base,
                physical,
                lambda number, key: self.behind(tree, number, physical, key, False),
                lambda number: count_rows(
                    self.tables, tree.memtables[number:], tree.version, physical
                ),
            )

    def settled_counts(self, frozen: Sequence[Memtable]) -> tuple[Counts, ...]:
        """What the tables will hold once these memtables are flushed to them."""
        with self.counting:
            return tuple(counts.settled(frozen, self.base, n) for n in range(KEYSPACES))

    def about(self, physical: int) -> tuple[int, int]:
        """count(), about and quickly."""
        tree = self.tree
        found, _ = counts.provisional(tree.memtables, self.base, physical)
        if found is not None:
            return max(0, found[0]), max(0, found[1])
        rows = expirable = 0
        for level in tree.version.levels:
            for table in level.tables:
                if table.start[0] == physical:
                    rows += table.rows - table.tombstones
                    expirable += table.expirable_rows
        for memtable in tree.memtables:
            rows += max(0, memtable.tallies[physical].keys)
            expirable += memtable.spaces[physical].volatile
        return rows, expirable

    # -- generations -------------------------------------------------------------------------------

    def generation_due(self, log_bytes: int, home: Home) -> bool:
        """Whether the memtable should be flushed."""
        memtable = self.tree.active
        limit = self.budget.memtable_bytes
        return (
            log_bytes >= 2 * limit
            or memtable.memory_bytes() >= limit
            or len(memtable.ranges.deletions) > MAX_RANGES
        )

    def begin_generation(self, home: Home, number: int, position: int) -> LsmGeneration:
        """Freeze the active memtable; what is frozen is what generation `number` flushes."""
        active, frozen, version = self.tree
        if active:
            active.last = position
            frozen = (active, *frozen)
            self.tree = Tree(Memtable(position), frozen, version)
        asked, self.count_asked = self.count_asked, False
        spaces = tuple(space.number for space in self.spaces)
        return LsmGeneration(self, home, number, position, frozen, spaces, asked)

    def begin_replacement(self, home: Home, number: int, origin: Origin) -> LsmReplacement:
        """Make generation `number` from the rows of another store."""
        return LsmReplacement(self, home, number, origin)

    def replace(self, number: int, new: Manifest, listing: Listing) -> Manifest | None:
        """Go on in a generation of another store's rows; returns the old manifest, to be closed.

        With held(), under the store's lock. Raises nothing: `version` was switched.
        """
        before, old = self.tree, self._manifest
        version = listing.version
        if listing.origin.store_id != self.store_id:  # it held nothing, so it had no tables
            tables, self.tables = self.tables, self._no_tables(listing.origin.store_id)
            self.store_id = listing.origin.store_id
            tables.close()
        self.tables.add(version, (table for level in version.levels for table in level.tables))
        with self.counting:
            self.base[:] = listing.counts
            self.tree = Tree(Memtable(listing.origin.sequence), (), version)
            self.spaces[:] = [LsmSpace(self, physical) for physical in listing.spaces]
            self._numbers = ()
            self.course += 1
            self._prepared = {}
        self._manifest, self.generation = new, number
        self._origin, self._listed_spaces = listing.origin, listing.spaces
        self.tables.retire(t.number for level in before.version.levels for t in level.tables)
        self.tables.retire(before.version.blobs)
        return old

    @contextlib.contextmanager
    def editing(self) -> Iterator[None]:
        """Keep the manifest and the version from changing but by the caller (X5)."""
        with self._edits:
            yield

    def allot(self, count: int) -> int:
        """Set `count` table numbers aside; returns the first. With editing()."""
        first = self.next_table
        self.next_table += count
        return first

    @contextlib.contextmanager
    def listing(self) -> Iterator[Listing]:
        """What a manifest would list now: the state at the last generation's position.

        The tables it names stay for as long as the context.
        """
        with self._edits:
            known = tuple(map(plausible, self.base))
            version = self.tree.version
            found = Listing(self._origin, self._listed_spaces, version, self.next_table, known)
        del version
        try:
            yield found
        finally:
            del found
            if self.compactor is not None:
                self.compactor.poke()  # what was obsolete meanwhile can go

    def adopt(
        self,
        number: int,
        new: Manifest,
        listing: Listing,
        added: Sequence[TableMeta],
        lock: Lock,
    ) -> None:
        """Go on in a new generation: what was frozen when it began is in its tables (X3)."""
        version = listing.version
        self.tables.add(version, added)
        self.flushed_bytes += sum(
            table.size_bytes + sum(ref.size_bytes for ref in table.blobs) for table in added
        )
        with lock, self.counting:
            active, frozen, _ = self.tree
            for physical in range(KEYSPACES):
                self.base[physical] = counts.settled(frozen, self.base, physical)
            self.tree = Tree(active, (), version)
        old, self._manifest = self._manifest, new
        self.generation = number
        self._origin, self._listed_spaces = listing.origin, listing.spaces
        if old is not None:
            old.close()

    def spare_ms(self, now_ms: int) -> int:
        """Rows with deadlines up to this may be taken out of the tables at now_ms (X6).

        Any thread; nothing comes in between under the store's lock. By deadline and not by key:
        where all keys are given new ones all the time they are many, and what expires meanwhile
        only waits for the next flush.
        """
        return min(now_ms, *(memtable.leaned_ms - 1 for memtable in self.tree.memtables))

    def counted(self, edit: VersionEdit, gone: Sequence[bytes]) -> list[bytes]:
        """Those of some rows in the tables that an edit removes which were the newest of their key.

        With editing(). Raises Corruption, OSError: a table cannot be read.
        """
        inputs = {number for _, number in edit.removed}
        return [row for row in gone if not self._is_hidden(self.tree.version, row, inputs)]

    def install(self, edit: VersionEdit, newest: Sequence[bytes], lock: Lock) -> None:
        """Make a compaction's edit durable, and read by it. With editing(). Raises OSError.

        newest: counted() of those that had expired and are in its outputs no more.
        """
        assert self._manifest is not None
        before = self.tree.version
        version = before.apply(edit)
        inputs = {number for _, number in edit.removed}
        spaces = {row[0] for row in newest}
        # What they come to is known when the version changes, and written down by the next flush.
        known = tuple(None if n in spaces else held for n, held in enumerate(self.base))
        self._manifest.append(Record(edit, self.next_table, tuple(map(plausible, known))))
        added = [table for _, table in edit.added]
        self.tables.add(version, added)
        with lock, self.counting:
            active, frozen, _ = self.tree
            for row in newest:
                counts.take_expired(self.tree.memtables, self.base, row)
            self.tree = Tree(active, frozen, version)
        self.tables.retire(inputs - {table.number for table in added})
        self.tables.retire(before.blobs.keys() - version.blobs.keys())

    def compact(self, where: Range | None, progress: Progress | None) -> None:
        """Bring all rows, or those of a range, as deep as they go, without garbage."""
        assert self.compactor is not None
        if where is None:
            self.compactor.compact(b"\0", None, progress)
            return
        keyspace, start, stop = where
        self.compactor.compact(*bounds(self.spaces[keyspace].number, start, stop), progress)

    def wait(self, timeout_s: float) -> None:
        """Wait for compactions that run, but not longer than that."""
        if self.compactor is not None:
            self.compactor.wait(timeout_s)

    # -- figures -----------------------------------------------------------------------------------

    def data_bytes(self) -> int:
        """Keys and values held, about, bytes: tables count whole."""
        tree = self.tree
        held = sum(s.data_bytes for memtable in tree.memtables for s in memtable.spaces)
        return held + tree.version.size_bytes + tree.version.blob_bytes

    def memory_bytes(self) -> int:
        """About what it takes in memory: memtables, block cache, open tables."""
        blocks, tables = self.tables.stats()
        held = sum(memtable.memory_bytes() for memtable in self.tree.memtables)
        held += self.tables.row_stats().bytes + self.tables.blob_memory_bytes
        return held + blocks.bytes + tables.bytes

    @property
    def log_step_bytes(self) -> int:
        """An eighth of a memtable, so that it is flushed about when it should be."""
        return max(GROW_MIN, min(self.budget.memtable_bytes // 8, GROW_MAX))

    @property
    def is_limited(self) -> bool:
        """No: it throttles long before."""
        return False

    def is_full(self) -> bool:
        """Whether writes must be refused: memtables that cannot be flushed fill the budget."""
        tree = self.tree
        return bool(tree.frozen) and (
            sum(memtable.memory_bytes() for memtable in tree.memtables) > self.budget.total_bytes
        )

    def throttle(self) -> float:
        """How much writers should be held back: 1.0 until a flush or a compaction has ended."""
        tree = self.tree
        if tree.frozen and tree.active.memory_bytes() >= self.budget.memtable_bytes:
            return 1.0
        return 0.0 if self.compactor is None else self.compactor.throttle()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep tables and manifest from changing for a while."""
        turn = contextlib.nullcontext() if self.compactor is None else self.compactor.stopped()
        with turn, self.editing():
            yield

    def files(self) -> Set[str]:
        """Tables and blobs that are kept for those who read an older version."""
        return self.tables.obsolete_names()

    def stats(self) -> dict[str, Any]:
        """The tree, the caches and what compactions did, under "lsm"."""
        return {"lsm": describe(self)}

    # -- private -----------------------------------------------------------------------------------

    def _no_tables(self, store_id: bytes) -> Tables:
        """The tables of a store that has none yet."""
        return Tables(
            self.env,
            self.directory,
            store_id,
            block_cache_bytes=self.budget.block_cache_bytes,
            table_cache_bytes=self.budget.table_cache_bytes,
            max_open_tables=self.options.max_open_tables,
        )

    def _before(self, space: LsmSpace, key: bytes) -> Stored | None:
        """What a key holds, of what is behind as prepare() read it; a replay will need that."""
        held = self.tree.active.get(space.number, key)
        if held is not None:
            return None if held is GONE else held
        place = (space.number, key)
        held = self._prepared[place] if place in self._prepared else space.get(key)
        if held is not None:
            self.tree.active.lean_on(held)
        return held

    def _set(self, physical: int, key: bytes, held: Stored, sequence: int) -> KeyUndo:
        return KeyUndo(physical, key, self._hold(physical, key, held, sequence))

    def _hold(self, physical: int, key: bytes, held: Stored, sequence: int) -> Stored | None:
        """Have the active memtable hold it; returns what that said of the key before."""
        memtable = self.tree.active
        space: Space = memtable.spaces[physical]
        tally: Tally = memtable.tallies[physical]
        before = space.put(key, held, sequence, memtable.pins.newest)
        tally.note(key, before, held)
        return before

    def _restore(self, memtable: Memtable, step: KeyUndo, sequence: int) -> None:
        space, tally = memtable.spaces[step.physical], memtable.tallies[step.physical]
        if step.before is None:
            space.delete(step.key, sequence, memtable.pins.newest)
        else:
            space.put(step.key, step.before, sequence, memtable.pins.newest)
        tally.make_sure(step.key)
        tally.vague = True  # seldom done, so it may cost whoever asks for the count a scan

    def _delete_range(
        self, physical: int, start: bytes, stop: bytes | None, sequence: int, undo: Undo
    ) -> None:
        if stop is not None and start >= stop:
            return
        memtable = self.tree.active
        space, tally = memtable.spaces[physical], memtable.tallies[physical]
        is_all = start == b"" and stop is None
        undo.append(RangeUndo(physical, memtable.ranges, space if is_all else None, tally))
        memtable.ranges = memtable.ranges.with_range(RangeDeletion(physical, start, stop, sequence))
        if is_all:
            # Snapshots hold the old Space itself, so clearing costs nothing.
            memtable.spaces[physical] = space = Space()
            memtable.tallies[physical] = Tally(space.map, cleared=True)
            return
        while keys := space.order.chunk(start, stop, 1000):
            for key in keys:
                before = space.delete(key, sequence, memtable.pins.newest)
                if before is not None:
                    undo.append(KeyUndo(physical, key, before))
                    tally.forget(key, before)
            start = keys[-1] + b"\0"
        # How much of what is behind it hides, nobody knows.
        tally.vague = tally.vague or not tally.cleared

    def _is_hidden(self, version: Version, row: bytes, inputs: set[int]) -> bool:
        """Whether a row of a compaction's inputs was not the newest in the tables."""
        for meta in version.holding(row):
            if meta.number in inputs:
                return False
            if self.tables.says(meta, row):
                return True
        return False


def plausible(known: Counts) -> Counts:
    """The numbers, or None where they cannot be."""
    return known if known is not None and 0 <= known[1] <= known[0] else None
