"""What the store asks of an engine: where the map lives, and how a generation of it is written.

Owns the protocols that the memory engine (memory/) and the lsm engine (lsm/) keep, and streaming a
snapshot; everything above knows no more of an engine than is said here.

N1  state is a function of the batches applied, in order; an engine reads no clock.
N2  apply() either applies a whole batch or raises before it touched anything, and revert() of
    what it returns restores the state.
N3  a pin shows the state at its position until it is released, whatever is written meanwhile.

Threading: changes, pins and releases under the store's lock; Space.get and Pin.get need none.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from marram.coding.batch import KEYSPACES, Change
from marram.env.api import Env
from marram.storage.entry import Stored, entry_of
from marram.storage.log.reader import BatchSink
from marram.storage.options import Options
from marram.storage.sstable.block import Row

Progress = Callable[[int, int], None]
"""progress(done, total): called now and then, from the working thread."""

Lock = AbstractContextManager[Any]
Rows = list[tuple[bytes, Stored]]
"""(key, what it holds), in key order."""

Range = tuple[int, bytes, bytes | None]
"""(keyspace, start, stop): the keys of [start, stop), stop None for no bound."""

SLICE_KEYS = 256
"""Keys that a long scan takes at a time: well under a millisecond of the lock."""


SPACE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors that say there is no room; anything else on a durable file is final (P4)."""


class Origin(NamedTuple):
    """Whose state a generation starts from, and as of when.

    sequence: the last batch it holds; epoch: of that batch; chain: the history checksum after it,
    0 where it is not known; time_ms: the store's clock then, so that time never goes back past it.
    """

    store_id: bytes
    epoch: int
    sequence: int
    time_ms: int
    chain: int = 0


class Home(NamedTuple):
    """Where an engine's files are, and what it shares with the store: its lock, its clock."""

    env: Env
    directory: str
    options: Options
    lock: Lock
    now_ms: Callable[[], int]


class Space(Protocol):
    """One keyspace at its newest state."""

    @property
    def volatile(self) -> int:
        """Keys that have a deadline, about; 0 only where there is none."""
        ...

    @property
    def data_bytes(self) -> int:
        """Keys and values held, bytes; about, where tables hold them."""
        ...

    def __len__(self) -> int:
        """Keys held, expired ones included; exact, which may take a while."""
        ...

    def about(self) -> int:
        """Keys held, about; quick."""
        ...

    def get(self, key: bytes) -> Stored | None:
        """The newest value, expired or not."""
        ...

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        """get() of each, in their order; what is on disk is read once for neighbours."""
        ...

    def keys(self, start: bytes, stop: bytes | None, limit: int, reverse: bool) -> list[bytes]:
        """Up to `limit` keys of [start, stop) in order, expired ones included."""
        ...

    def rows(self, start: bytes, stop: bytes | None, limit: int, reverse: bool) -> Rows:
        """keys(), with what they hold."""
        ...

    def key_at(self, index: int) -> bytes:
        """A key about at `index` in key order, in [0, len)."""
        ...

    def due(self, now_ms: int, limit: int) -> list[bytes]:
        """Up to `limit` keys known to be past their deadlines; takes nothing out."""
        ...

    def expired_count(self, now_ms: int) -> int:
        """How many keys are held past their deadline; exact."""
        ...


class Pin(Protocol):
    """The state at one position."""

    @property
    def position(self) -> int:
        """The sequence number of the last batch it shows."""
        ...

    def __len__(self) -> int:
        """About how many keys it shows."""
        ...

    def get(self, keyspace: int, key: bytes) -> Stored | None:
        """What the key held at the position, expired or not; needs no lock."""
        ...

    def get_many(self, keyspace: int, keys: Sequence[bytes]) -> list[Stored | None]:
        """get() of each, in their order; what is on disk is read once for neighbours."""
        ...

    def chunk(
        self,
        keyspace: int,
        start: bytes,
        stop: bytes | None,
        limit: int,
        now_ms: int,
        *,
        reverse: bool = False,
    ) -> tuple[Rows, bytes | None]:
        """One slice of a range: (at most `limit` rows not expired, where the next one goes on).

        The second value is None at the end, else the next start (or, in reverse, the next stop).
        Under the store's lock, or on the one thread that writes.
        """
        ...

    def scan(
        self,
        keyspace: int,
        start: bytes,
        stop: bytes | None,
        now_ms: int,
        *,
        reverse: bool = False,
        chunk: int,
        lock: Lock,
    ) -> Iterator[Rows]:
        """All rows of a range not expired at now_ms, in lists of 1 to `chunk`.

        Without the lock, which is taken for moments.
        """
        ...


class NewGeneration(Protocol):
    """The next generation being made from a pinned state; single use, in this order."""

    @property
    def position(self) -> int:
        """The last batch it will hold."""
        ...

    def write(self, origin: Origin, check: Callable[[], None], progress: Progress | None) -> None:
        """Write what may take long. check: raises where the store is closing. Raises OSError."""
        ...

    def switching(self) -> AbstractContextManager[None]:
        """Around the switch of `version`: checkpoint.N is durable within.

        Where the switch succeeds, the engine goes on in the new generation.
        """
        ...

    def end(self) -> None:
        """Let go of the pinned state, and of files that did not become a generation."""
        ...


class Replacement(Protocol):
    """The state of another store on its way to take this one's place; single use, in this order."""

    def add(self, rows: list[Row]) -> None:
        """Write the next rows, in table order. Raises InvalidArgument: they are not; OSError."""
        ...

    def finish(self) -> None:
        """There are no more: do what may take long. Raises OSError, Corruption."""
        ...

    def switching(self) -> AbstractContextManager[Callable[[], None]]:
        """Around the switch of `version`: checkpoint.N is durable within.

        What it gives changes the map; called once, under the store's lock, after the switch.
        """
        ...

    def files(self) -> frozenset[str]:
        """Names of tables and the like that were begun, and that nothing lists yet."""
        ...

    def end(self) -> None:
        """Remove files that did not become a generation."""
        ...


class BackgroundWork(Protocol):
    """What an engine does of its own accord, and can be told to leave for a while."""

    @property
    def paused(self) -> bool:
        """Whether it was told to pause."""
        ...

    def pause(self) -> None:
        """Start nothing further, and cancel what runs."""
        ...

    def resume(self) -> None:
        """Go on."""
        ...


class Engine(Protocol):
    """Where the map lives."""

    @property
    def name(self) -> str:
        """Its name in the options."""
        ...

    @property
    def spaces(self) -> Sequence[Space]:
        """The keyspaces by number; their places change with SWAP and clearing."""
        ...

    def prepare(self, changes: Sequence[Change]) -> None:
        """Do for apply() what may fail, before the batch has a number.

        Raises Corruption, OSError: nothing was changed.
        """
        ...

    @property
    def compactor(self) -> BackgroundWork | None:
        """Its compactions; None where it has none."""
        ...

    def put(self, keyspace: int, key: bytes, held: Stored, sequence: int) -> None:
        """apply() of a single PUT, without the tuple."""
        ...

    def put_many(
        self, keyspace: int, keys: list[bytes], values: list[Stored], sequence: int
    ) -> None:
        """put() of each key with the value at its place."""
        ...

    def apply(self, changes: Iterable[Change], sequence: int) -> Any:
        """Apply a batch; returns what revert() needs."""
        ...

    def replay(self) -> BatchSink:
        """What takes a log's batches where a store is opened: apply(), without a way back.

        Until its finish() nothing else is asked of the engine.
        """
        ...

    def revert(self, undo: Any, sequence: int) -> None:
        """Undo a batch that was applied at `sequence` and never committed."""
        ...

    def snapshot(self, position: int) -> Any:
        """Pin the present state, which is the state at `position`."""
        ...

    def release(self, snapshot: Any) -> list[dict[bytes, Any]]:
        """Unpin; returns retired versions, which the caller may free at leisure."""
        ...

    def changed_since(
        self, snapshot: Any, keys: Sequence[tuple[int, bytes]], ranges: Sequence[Range]
    ) -> bool:
        """Whether any of the keys, or any key in the ranges, was written after the snapshot.

        It may say so of what was not, where it cannot tell any more.
        """
        ...

    def resume(self) -> list[str]:
        """All was read and found good: begin to change files; returns names it removed."""
        ...

    def open(self, home: Home, fail: Callable[[BaseException], None]) -> None:
        """Start background work. fail: latches the store (P4)."""
        ...

    def begin_generation(self, home: Home, number: int, position: int) -> NewGeneration:
        """Pin the present state, which generation `number` will start from."""
        ...

    def begin_replacement(self, home: Home, number: int, origin: Origin) -> Replacement:
        """Make generation `number` from the rows of another store. Raises OSError.

        Snapshots taken before show what they showed; whatever they read counts as changed.
        """
        ...

    def generation_due(self, log_bytes: int, home: Home) -> bool:
        """Whether a new generation should be begun. log_bytes: in the live logs."""
        ...

    def compact(self, where: Range | None, progress: Progress | None) -> None:
        """Take out of its files what is of no use any more; where: only in that range.

        Raises Interrupted: compactions are paused; StoreFailed, Corruption, OSError, Closed.
        """
        ...

    def wait(self, timeout_s: float) -> None:
        """Wait for background work, but not longer than that."""
        ...

    @property
    def log_step_bytes(self) -> int:
        """How much the log may grow before the store looks whether a generation is due."""
        ...

    @property
    def is_limited(self) -> bool:
        """Whether is_full() has to be asked before every write, not just where it throttles."""
        ...

    def is_full(self) -> bool:
        """Whether what adds data has to be refused, for want of memory."""
        ...

    def throttle(self) -> float:
        """How much writers should be held back: 0.0 not at all, 1.0 until it is less."""
        ...

    def data_bytes(self) -> int:
        """Keys and values held, bytes, without overhead; about, where tables hold them."""
        ...

    def memory_bytes(self) -> int:
        """About what it takes in memory, bytes."""
        ...

    def held(self) -> AbstractContextManager[None]:
        """Keep files from changing for a while, but for the log."""
        ...

    def files(self) -> Set[str]:
        """Names of files that are there though no generation names them, for now."""
        ...

    def stats(self) -> dict[str, Any]:
        """What this engine alone has to tell, nested, units in the names."""
        ...

    def close(self) -> None:
        """End its background work and close its files; idempotent."""
        ...


def rows_of(
    pin: Pin,
    now_ms: int,
    lock: Lock,
    check: Callable[[], None],
    progress: Progress | None = None,
) -> Iterator[list[Row]]:
    """A pin's rows not expired at now_ms, in table order, some at a time.

    check: called before each list; raises to end it.
    """
    total = len(pin)
    done = 0
    for keyspace in range(KEYSPACES):
        scan = pin.scan(keyspace, b"", None, now_ms, chunk=SLICE_KEYS, lock=lock)
        while True:
            check()
            rows = next(scan, None)
            if rows is None:
                break
            yield [_row(keyspace, key, held) for key, held in rows]
            done += len(rows)
            if progress is not None:
                progress(min(done, total), max(done, total))


def _row(keyspace: int, key: bytes, held: Stored) -> Row:
    if isinstance(held, bytes):
        return keyspace, key, held, 0, 0
    return keyspace, key, *entry_of(held)
