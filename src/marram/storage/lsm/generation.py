"""The next generation of the lsm engine: frozen memtables become tables, and a new manifest.

Owns the order of a flush; not the tables' bytes (flush.py) nor the switch of `version`
(storage/generations.py).

W1  the new manifest lists what the old one came to and the new tables; nothing is edited from when
    it is written until `version` was switched or the switch failed.
W2  where the flush finds no room, the memtables stay frozen, are read on, and are flushed by the
    next generation, together with what was written since.

Threading: one generation at a time (storage/generations.py); beside readers, writers, compactions.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from marram.coding.batch import KEYSPACES
from marram.errors import Corruption, UnsupportedFormat
from marram.storage import layout
from marram.storage.engine import Home, Origin, Progress
from marram.storage.lsm import counts
from marram.storage.lsm.flush import flush, remove_tables, separation, table_options
from marram.storage.lsm.manifest import Listing, write_manifest
from marram.storage.lsm.memtable import Memtable
from marram.storage.lsm.version import TableMeta, VersionEdit

if TYPE_CHECKING:
    from marram.storage.lsm.engine import LsmEngine

_logger = logging.getLogger("marram.lsm")

_SETTLE_KEYS = 64  # unsure keys looked up per step, with the lock held for their arithmetic only
_SETTLE_ALWAYS = 10_000  # so many are looked up whether anybody asked for the count or not


class LsmGeneration:
    """An engine.NewGeneration. memtables: the frozen ones, newest first."""

    def __init__(
        self,
        engine: LsmEngine,
        home: Home,
        number: int,
        position: int,
        memtables: Sequence[Memtable],
        spaces: tuple[int, ...],
        count_asked: bool,
    ) -> None:
        self.position = position
        self._engine = engine
        self._home = home
        self._number = number
        self._memtables = memtables
        self._spaces = spaces
        self._count_asked = count_asked
        self._origin: Origin | None = None
        self._numbers: list[int] = []  # of the tables and blobs begun
        self._tables: list[TableMeta] = []  # oldest first
        self._attempted = False

    def write(self, origin: Origin, check: Callable[[], None], progress: Progress | None) -> None:
        """Flush the memtables, oldest first. Raises OSError."""
        engine = self._engine
        self._origin = origin
        total = sum(len(space.map) for memtable in self._memtables for space in memtable.spaces)
        done = 0

        def told(rows: int) -> None:
            nonlocal done
            done += rows
            if progress is not None:
                progress(min(done, total), total)

        for memtable in reversed(self._memtables):
            with engine.editing():
                number = engine.allot(1)
            self._numbers.append(number)
            bottom = memtable is self._memtables[-1] and not len(engine.tree.version)
            table = flush(
                self._home.env, self._home.directory, engine.store_id, number, memtable,
                table_options(engine.options), self._home.lock, check, told, bottom=bottom,
                blob=separation(engine.options, self._allot_blob),
            )  # fmt: skip
            if table is not None:
                self._tables.append(table)
        try:
            self._settle(check)
        except (OSError, Corruption, UnsupportedFormat) as error:
            # Only the count needs what is in other tables: it is not known, then.
            _logger.warning("keys are not counted: %s", error)

    @contextlib.contextmanager
    def switching(self) -> Iterator[None]:
        """Write the new manifest; go on in it if `version` was switched."""
        engine, home = self._engine, self._home
        assert self._origin is not None
        with engine.editing():
            version = engine.tree.version.apply(
                VersionEdit(tuple((0, table) for table in self._tables))
            )
            base = engine.settled_counts(self._memtables)
            listing = Listing(self._origin, self._spaces, version, engine.next_table, base)
            try:
                new = write_manifest(home.env, home.directory, self._number, listing)
            except BaseException:
                path = layout.checkpoint_path(home.directory, self._number)
                with contextlib.suppress(OSError):  # recovery removes it as well
                    if home.env.exists(path):
                        home.env.remove(path)
                raise
            self._attempted = True
            try:
                yield
            except BaseException:
                new.close()
                raise
            engine.adopt(self._number, new, listing, self._tables, home.lock)
        if engine.compactor is not None:
            engine.compactor.poke()

    def end(self) -> None:
        """Remove the tables that did not become part of a generation."""
        if not self._attempted:
            remove_tables(self._home.env, self._home.directory, self._numbers)

    def _allot_blob(self) -> int:
        """A number for the blob of the table under way."""
        with self._engine.editing():
            number = self._engine.allot(1)
        self._numbers.append(number)
        return number

    def _settle(self, check: Callable[[], None]) -> None:
        """Look up the keys that were counted as new, where the count is wanted (counts.py)."""
        engine = self._engine
        tree = engine.tree
        unsure = sum(t.unsure_count for memtable in self._memtables for t in memtable.tallies)
        if not (self._count_asked or unsure <= _SETTLE_ALWAYS):
            return
        first = len(tree.frozen) - len(self._memtables)
        for keyspace in range(KEYSPACES):
            for number, memtable in enumerate(self._memtables, first + 1):
                tally = memtable.tallies[keyspace]
                keys = sorted(tally.unsure())
                for at in range(0, len(keys), _SETTLE_KEYS):
                    check()
                    # While compactions wait: one could take a row away that was just found.
                    with engine.editing():
                        now = engine.tree
                        some = keys[at : at + _SETTLE_KEYS]
                        held = [engine.behind(now, number, keyspace, key, False) for key in some]
                        with engine.counting:
                            for key, value in zip(some, held, strict=True):
                                counts.settle(memtable, keyspace, key, value)
                    self._home.env.pause()
