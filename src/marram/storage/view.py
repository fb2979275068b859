"""View: one keyspace at its newest state, at one time; what command handlers read.

Owns what "exists" means (a key past its deadline does not) and notes what a reply depends on:
`reads_at`, the position the reply must wait for (design: a reply never reveals what a crash could
undo), and `expired`, the keys found past their deadline, which the caller deletes in the log so
that no clock can bring them back.

V1  no method shows a key whose deadline is at or before `now_ms`.
V2  after any read of an unsettled key, reads_at is at least the position that settles it.

Threading: under the store's lock, or on the one thread that also writes (the server's loop).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from marram.coding.batch import TYPE_STRING
from marram.storage.commit import CommitQueue
from marram.storage.entry import Entry, Stored, WrongType, entry_of, is_expired
from marram.storage.memory.engine import MemoryEngine
from marram.storage.memory.space import Space


class Settling(Protocol):
    """What a view asks of the commit queue."""

    last: int

    @property
    def unsettled(self) -> bool:
        """Whether any position is not committed yet."""
        ...

    def settles_at(self, key: bytes) -> int:
        """The position at which the key's newest value is committed, or 0 where it is."""
        ...


class ReadableSpace(Protocol):
    """What a view asks of an engine's keyspace."""

    @property
    def volatile(self) -> int:
        """Keys that have a deadline, about; 0 only where there is none."""
        ...

    def __len__(self) -> int: ...
    def get(self, key: bytes) -> Stored | None:
        """The newest value, expired or not."""
        ...

    def keys(self, start: bytes, stop: bytes | None, limit: int, reverse: bool) -> list[bytes]:
        """Up to `limit` keys of [start, stop) in order, expired ones included."""
        ...

    def rows(
        self, start: bytes, stop: bytes | None, limit: int, reverse: bool
    ) -> list[tuple[bytes, Stored]]:
        """keys(), with what they hold."""
        ...

    def key_at(self, index: int) -> bytes:
        """A key about at `index` in key order."""
        ...


class ReadableEngine(Protocol):
    """What a view asks of an engine."""

    @property
    def spaces(self) -> Sequence[ReadableSpace]:
        """The keyspaces by number; their places change with SWAP and clearing."""
        ...


class View:
    """One keyspace for the length of a command."""

    __slots__ = (
        "_commit", "_engine", "_memory", "_settling", "expired", "keyspace", "now_ms", "reads_at",
    )  # fmt: skip

    def __init__(self, engine: ReadableEngine, settling: Settling, keyspace: int) -> None:
        self._engine = engine
        self._settling = settling
        # HOT: the same again where they are of these types, and None where not: compiled, what is
        # asked of them takes no look-up by name then.
        self._memory: MemoryEngine | None = engine if type(engine) is MemoryEngine else None
        self._commit: CommitQueue | None = settling if type(settling) is CommitQueue else None
        self.keyspace = keyspace
        self.now_ms = 0
        self.reads_at = 0
        self.expired: list[tuple[int, bytes]] = []

    def begin(self, now_ms: int) -> None:
        """Start a command: the time it runs at, nothing read yet."""
        self.now_ms = now_ms
        self.reads_at = 0
        self.expired = []

    # -- points ----------------------------------------------------------------------------------

    def string(self, key: bytes) -> bytes | None:
        """The string at `key`, or None where there is none. Raises WrongType."""
        held = self._held(key)
        if self._is_unsettled():
            self._note(key)
        if held is None or type(held) is bytes:
            return held
        if is_expired(held, self.now_ms):
            self.expired.append((self.keyspace, key))
            return None
        if held[2] != TYPE_STRING:
            raise WrongType
        return held[0]  # type: ignore[return-value]

    def stored(self, key: bytes) -> Stored | None:
        """What the map holds at `key`: a string without a deadline as its bytes, or an Entry."""
        held = self._held(key)
        if self._is_unsettled():
            self._note(key)
        if held is None or type(held) is bytes:  # HOT: it has no deadline
            return held
        if is_expired(held, self.now_ms):
            self.expired.append((self.keyspace, key))
            return None
        return held

    def entry(self, key: bytes) -> Entry | None:
        """Value, deadline (ms since 1970, 0 for none) and type at `key`, or None."""
        held = self.stored(key)
        return None if held is None else entry_of(held)

    def exists(self, key: bytes) -> bool:
        """Whether the key exists now."""
        return self.stored(key) is not None

    # -- ranges: they depend on every write so far -------------------------------------------------

    def count(self) -> int:
        """Keys held; ones past their deadline count until they are deleted, as in Redis."""
        self._note_all()
        return len(self._engine.spaces[self.keyspace])

    def keys(
        self,
        start: bytes = b"",
        stop: bytes | None = None,
        limit: int = 1000,
        *,
        reverse: bool = False,
    ) -> tuple[list[bytes], bytes | None]:
        """One slice of [start, stop) in key order: (existing keys, where the next slice goes on).

        Examines `limit` keys; fewer come back where some are expired. The second value is None at
        the end, else the next start (in reverse: the next stop).
        """
        self._note_all()
        space = self._engine.spaces[self.keyspace]
        if not space.volatile:
            found = space.keys(start, stop, limit, reverse)
            return found, _onward(found[-1], reverse) if len(found) == limit else None
        rows = space.rows(start, stop, limit, reverse)
        found = [key for key, held in rows if not is_expired(held, self.now_ms)]
        return found, _onward(rows[-1][0], reverse) if len(rows) == limit else None

    def random_key(self, draw: int) -> bytes | None:
        """A key picked by `draw`, any non-negative integer; None where no key exists."""
        self._note_all()
        space = self._engine.spaces[self.keyspace]
        for attempt in range(100):
            size = len(space)
            if size == 0:
                return None
            try:
                key = space.key_at((draw + attempt) % size)
            except IndexError:  # the last ones were just taken away, having expired
                continue
            if not is_expired(space.get(key) or b"", self.now_ms):
                return key
        # A hundred expired neighbours: look through the whole range for a live one.
        start: bytes | None = b""
        while start is not None:
            found, start = self.keys(start)
            if found:
                return found[draw % len(found)]
        return None

    def at(self, keyspace: int) -> View:
        """The same moment in another keyspace; what it reads counts as read here."""
        return self if keyspace == self.keyspace else _Sibling(self, keyspace)

    # -- private ---------------------------------------------------------------------------------

    def _held(self, key: bytes) -> Stored | None:
        if self._memory is None:
            return self._engine.spaces[self.keyspace].get(key)
        space: Space = self._memory.spaces[self.keyspace]
        return space.map.get(key)

    def _is_unsettled(self) -> bool:
        commit = self._commit
        if commit is None:
            return self._settling.unsettled
        return commit.committed != commit.last

    def _note(self, key: bytes) -> None:
        position = self._settling.settles_at(key)
        self.reads_at = max(self.reads_at, position)

    def _note_all(self) -> None:
        if self._is_unsettled():
            self.reads_at = self._settling.last


def _onward(last: bytes, reverse: bool) -> bytes:
    """Where the slice after one that ended with `last` starts (in reverse: stops)."""
    return last if reverse else last + b"\0"


class _Sibling(View):
    """A view of another keyspace that reports its reads to the view it came from."""

    __slots__ = ("_origin",)

    def __init__(self, origin: View, keyspace: int) -> None:
        self._origin = origin
        super().__init__(self._origin._engine, self._origin._settling, keyspace)
        self.now_ms = origin.now_ms
        self.expired = origin.expired

    def _note(self, key: bytes) -> None:
        self._origin._note(key)

    def _note_all(self) -> None:
        self._origin._note_all()
