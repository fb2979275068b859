"""Taking over the state of another store: what a replica does that is too far behind, or astray.

Owns the course of it and its end; not the files (the engine's Replacement), nor the switch
(generations.py).

The rows come in table order, as many at a time as one likes, and become the files of a generation
of a number far above the present one. Until finish() the store goes on as it is, and whatever cuts
it short, an error, abort(), a crash, leaves that. finish() makes a log which goes on from the new
state, switches `version`, and then the map. A crash at any point leaves the old state or the new.

I1  the log of the new generation says that it follows none (previous length 0): so recovery knows
    a log that was made for an installation whose switch never came, and does not replay it.
I2  only a store that holds nothing takes over another store's id.

Threading: one thread uses an Installation; the store's readers go on beside it. abort() from any.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from marram.coding.batch import KEYSPACES
from marram.errors import InvalidArgument, StoreFull
from marram.storage.engine import SPACE_ERRORS, Origin
from marram.storage.sstable.block import TOMBSTONE, Row

if TYPE_CHECKING:
    from marram.storage.store import Store

_NUMBER_LIMIT = 2**63

# How many generations the store may go through by itself while the rows arrive.
_ROOM = 1000


class Installation:
    """The state of another store being taken over; Store.install() makes it."""

    def __init__(self, store: Store, origin: Origin, epoch: int, *, is_committed: bool) -> None:
        """Use Store.install()."""
        _check_origin(store, origin)
        self._store = store
        self._origin = origin
        self._epoch = epoch
        self._is_committed = is_committed
        self._lock = threading.Lock()  # one of add(), finish(), abort() at a time
        self._is_over = False
        self._number = store.commit.log.number + _ROOM
        self._replacement = store.engine.begin_replacement(
            store.generations.home, self._number, origin
        )

    def add(self, rows: list[Row]) -> None:
        """Take the next rows, which come in table order: by keyspace, then by key.

        Raises InvalidArgument: not rows of a store, or out of order; StoreFull; OSError: whichever
        it is, the installation is over. Closed: the store was closed.
        """
        with self._lock:
            self._check()
            try:
                _check_rows(rows)
                self._replacement.add(rows)
            except OSError as error:
                self._end()
                if error.errno in SPACE_ERRORS:
                    raise StoreFull(f"no room for a copy: {error}") from error
                raise
            except BaseException:
                self._end()
                raise

    def finish(self) -> None:
        """All rows are there: make them the store's state, durably. Blocks.

        The store's position is the origin's then. What waits for later ones gets OutcomeUnknown.
        Raises StoreFull, Corruption, OSError: the old state goes on; StoreFailed: which of them a
        reopening finds is not known; Closed.
        """
        store, origin = self._store, self._origin
        with self._lock:
            self._check()
            try:
                self._replacement.finish()
                with store.generations.held():
                    self._check()
                    if store.commit.log.number >= self._number:
                        raise InvalidArgument("too many generations began meanwhile")
                    with store.refusing("the state of another store is being taken over"):
                        store.generations.replace(
                            origin, self._number, self._epoch, self._replacement,
                            is_committed=self._is_committed,
                        )  # fmt: skip
                        store.taken_over(origin)
            except OSError as error:
                if error.errno in SPACE_ERRORS:
                    raise StoreFull(f"no room for a copy: {error}") from error
                raise
            finally:
                self._end()

    def abort(self) -> None:
        """Give it up: the files go, the store goes on as it is. Idempotent, also after finish()."""
        with self._lock:
            self._end()

    def files(self) -> frozenset[str]:
        """Names, in the folder of the tables, of what was written so far."""
        return self._replacement.files()

    def _check(self) -> None:
        self._store.check_open()
        if self._is_over:
            raise InvalidArgument("the installation is over")

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._replacement.end()
            self._store.installation = None


def _check_origin(store: Store, origin: Origin) -> None:
    """Raises InvalidArgument: no state of a store that this one may become."""
    store_id, epoch, sequence, time_ms, chain = origin
    if len(store_id) != 16:
        raise InvalidArgument(f"a store id of {len(store_id)} bytes")
    if not (
        all(0 <= number < _NUMBER_LIMIT for number in (epoch, sequence, time_ms))
        and 0 <= chain < 2**32
    ):
        raise InvalidArgument(f"the origin {tuple(origin[1:])} is out of range")
    if store_id != store.store_id and store.last:  # I2
        raise InvalidArgument(
            f"the rows are of store {store_id.hex()}, and this is {store.store_id.hex()}"
        )


def _check_rows(rows: list[Row]) -> None:
    """What the writer of tables takes on trust; it checks order and ranges. Raises
    InvalidArgument."""
    for keyspace, key, _, _, type_ in rows:
        if not 0 <= keyspace < KEYSPACES:
            raise InvalidArgument(f"keyspace {keyspace} out of range")
        if type_ == TOMBSTONE:
            raise InvalidArgument(f"a row without a value: {key!r}")
