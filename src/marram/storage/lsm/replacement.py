"""Another store's rows taking the place of a tree's: an engine.Replacement.

Owns the order of it; not the tables' bytes (flush.py), nor what hangs on the change (engine.py).

R1  the tables get numbers from the engine's own count, so nothing that goes on beside it collides
    with them; until the switch no manifest names them.
R2  from when the manifest is written until the map has changed, no compaction runs and nothing is
    edited.

Threading: one thread; beside readers, compactions and flushes until switching().
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from marram.coding.batch import KEYSPACES
from marram.storage import layout
from marram.storage.engine import Home, Origin
from marram.storage.lsm.flush import remove_tables
from marram.storage.lsm.loading import Loader
from marram.storage.lsm.manifest import Listing, Manifest, write_manifest
from marram.storage.lsm.version import Version
from marram.storage.sstable.block import Row

if TYPE_CHECKING:
    from marram.storage.lsm.engine import LsmEngine


class LsmReplacement:
    """An engine.Replacement."""

    def __init__(self, engine: LsmEngine, home: Home, number: int, origin: Origin) -> None:
        self._engine = engine
        self._home = home
        self._number = number
        self._origin = origin
        self._loader = Loader(
            home.env, home.directory, home.options, origin.store_id, origin.sequence, self._allot
        )
        self._version = Version()
        self._is_attempted = False

    def add(self, rows: list[Row]) -> None:
        """Write the next rows. Raises InvalidArgument, OSError."""
        self._loader.add(rows)
        self._home.env.pause()

    def finish(self) -> None:
        """Make the last table durable. Raises OSError."""
        self._version = self._loader.finish()

    @contextlib.contextmanager
    def switching(self) -> Iterator[Callable[[], None]]:
        """Write the manifest; what is given changes the tree."""
        engine, home = self._engine, self._home
        with engine.held():
            listing = Listing(
                self._origin, tuple(range(KEYSPACES)), self._version, engine.next_table,
                tuple(self._loader.counts),
            )  # fmt: skip
            path = layout.checkpoint_path(home.directory, self._number)
            try:
                new = write_manifest(home.env, home.directory, self._number, listing)
            except BaseException:
                with contextlib.suppress(OSError):  # recovery removes it as well
                    if home.env.exists(path):
                        home.env.remove(path)
                raise

            unused: Manifest | None = new

            def take_over() -> None:
                nonlocal unused
                unused = engine.replace(self._number, new, listing)

            self._is_attempted = True
            try:
                yield take_over
            finally:
                if unused is not None:
                    unused.close()

    def files(self) -> frozenset[str]:
        """Names of the files begun."""
        numbers = list(self._loader.numbers)
        return frozenset(
            path(self._home.directory, number).rpartition("/")[2]
            for number in numbers
            for path in (layout.table_path, layout.blob_path)
        )

    def end(self) -> None:
        """Remove what did not become a generation."""
        with contextlib.suppress(OSError):
            self._loader.close()
        if not self._is_attempted:
            remove_tables(self._home.env, self._home.directory, self._loader.numbers)

    def _allot(self) -> int:
        with self._engine.editing():
            return self._engine.allot(1)
