"""SCAN, and the cursors that let it go on.

Owns the cursors: numbers that stand for a place in key order, "after this key". SCAN walks the
keys in order, so a place keeps its meaning whatever is inserted or deleted meanwhile.

C1  a full iteration gives every key that exists from its start to its end at least once.
C2  a cursor that is not known (evicted, from before a restart, made up, another keyspace's)
    starts from the beginning, which keeps C1.
C3  the same place in the same keyspace has the same cursor as long as it is known, and a cursor
    may be used again: it leads to the same place.
C4  cursors are in [1, 2**63); their number and the bytes of their keys are bounded.

Threading: on the thread that owns the store; one ScanCursors for all its sessions.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final, NamedTuple, Protocol

from marram.commands.glob import Glob
from marram.commands.grammar import optional
from marram.commands.keys import TYPE_NAMES, prefix_stop
from marram.commands.spec import SYNTAX, Arg, Args, Command, CommandError, Reply, flags, integer
from marram.storage.view import View

_CURSOR_MAX: Final = 2**63 - 1
_DEFAULT_COUNT: Final = 10
_MAX_COUNT: Final = 10_000
"""Keys one call examines at most, whatever COUNT says: nobody waits longer than for these."""

# What C's strtoul takes whole, without a leading space; a client may well send "".
_CURSOR: Final = re.compile(rb"[+-]?[0-9]{1,40}")


class _Place(NamedTuple):
    keyspace: int
    key: bytes  # the last key examined


class ScanCursors:
    """The places that cursors stand for, the least recently used ones forgotten first.

    max_cursors, max_bytes: bounds on places kept and on the bytes of their keys. seed: random
    bytes that make cursors hard to foresee, at most 64; others than before a restart are fine (C2).

    >>> cursors = ScanCursors()
    >>> cursor = cursors.cursor(0, b"user:17")
    >>> cursors.key(0, cursor)
    b'user:17'
    """

    __slots__ = ("_max_bytes", "_max_cursors", "_places", "_seed", "size_bytes")

    def __init__(
        self, max_cursors: int = 16_384, max_bytes: int = 8 << 20, seed: bytes = b""
    ) -> None:
        self._max_cursors = max_cursors
        self._max_bytes = max_bytes
        self._seed = seed
        self._places: dict[int, _Place] = {}  # the most recently used last
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._places)

    def key(self, keyspace: int, cursor: int) -> bytes | None:
        """The key after which the cursor goes on, or None where it starts from the beginning."""
        place = self._places.pop(cursor, None)
        if place is None:
            return None
        self._places[cursor] = place
        return place.key if place.keyspace == keyspace else None

    def cursor(self, keyspace: int, key: bytes) -> int:
        """The cursor that goes on after a key."""
        place = _Place(keyspace, key)
        digest = blake2b(b"%d " % keyspace + key, digest_size=8, key=self._seed).digest()
        cursor = int.from_bytes(digest, "big") & _CURSOR_MAX or 1
        while self._places.get(cursor, place) != place:
            # Another place has this number: it keeps it, or its client would skip keys.
            cursor = cursor % _CURSOR_MAX + 1
        if self._places.pop(cursor, None) is None:
            self.size_bytes += len(key)
        self._places[cursor] = place
        while len(self._places) > 1 and (
            len(self._places) > self._max_cursors or self.size_bytes > self._max_bytes
        ):
            oldest = next(iter(self._places))
            self.size_bytes -= len(self._places.pop(oldest).key)
        return cursor


class Scanning(Protocol):
    """What SCAN needs of its context."""

    @property
    def view(self) -> View:
        """The session's keyspace."""
        ...

    @property
    def cursors(self) -> ScanCursors:
        """The node's cursors."""
        ...


class _Options(NamedTuple):
    pattern: Glob
    limit: int
    type: str | None


def scan(context: Scanning, args: Args) -> Reply:
    """SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]: [next cursor, keys], in key order.

    COUNT bounds the keys examined, so a call may give fewer, or none, before the end. A pattern
    that starts with plain bytes jumps to the keys that do.
    """
    cursor = _parse_cursor(args[1])
    options = _parse_options(args)
    if options.type is not None and options.type not in TYPE_NAMES.values():
        return [b"0", []]
    view = context.view
    pattern = options.pattern
    if pattern.literal is not None:
        found = [pattern.literal] if _is_of_type(view, pattern.literal, options.type) else []
        return [b"0", found]
    start = pattern.prefix
    after = context.cursors.key(view.keyspace, cursor) if cursor else None
    if after is not None:
        start = max(start, after + b"\0")
    keys, onward = view.keys(start, prefix_stop(pattern.prefix), options.limit)
    found = [key for key in keys if pattern.matches(key)]
    if options.type is not None:
        found = [key for key in found if _is_of_type(view, key, options.type)]
    if onward is None:
        return [b"0", found]
    return [b"%d" % context.cursors.cursor(view.keyspace, onward[:-1]), found]


def _is_of_type(view: View, key: bytes, type_: str | None) -> bool:
    """Whether the key exists and has the type, where one is asked for."""
    entry = view.entry(key)
    return entry is not None and type_ in (None, TYPE_NAMES[entry.type])


def _parse_cursor(text: bytes) -> int:
    if text == b"":
        return 0
    if _CURSOR.fullmatch(text) is None or abs(int(text)) >= 2**64:
        raise CommandError("ERR invalid cursor")
    return int(text)


def _parse_options(args: Args) -> _Options:
    pattern = b"*"
    limit = _DEFAULT_COUNT
    type_ = None
    words = iter(args[2:])
    for given in words:
        option = given.upper()
        operand = next(words, None)
        if operand is None:
            raise CommandError(SYNTAX)
        if option == b"MATCH":
            pattern = operand
        elif option == b"COUNT":
            limit = integer(operand)
            if limit < 1:
                raise CommandError(SYNTAX)
        elif option == b"TYPE":
            type_ = operand.decode("latin-1").lower()
        else:
            raise CommandError(SYNTAX)
    return _Options(Glob(pattern), min(limit, _MAX_COUNT), type_)


ROWS: Final = (
    Command(
        "scan",
        scan,
        -2,
        flags("readonly"),
        "generic",
        "Lists the keys of a keyspace a few at a time, in key order.",
        since="2.8.0",
        complexity="O(N) for N keys examined, at most COUNT",
        args=(
            Arg("cursor", "integer"),
            optional(Arg("pattern", "pattern", "MATCH")),
            optional(Arg("count", "integer", "COUNT")),
            optional(Arg("type", "string", "TYPE")),
        ),
        control=True,
        note=f"One call examines at most {_MAX_COUNT} keys, whatever COUNT says.",
    ),
)
