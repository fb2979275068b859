"""What a map holds for a key: the bytes themselves, or an Entry where there is more to say.

Owns the in-memory shape of a value. A string without a deadline is stored as plain `bytes`: no
wrapper to allocate, and a reader's whole check is `type(stored) is bytes`. Everything else is
an Entry. Either way one dict look-up yields value and deadline together, so a reader without a
lock never pairs the value of one write with the deadline of another.

Threading: immutable values.
"""

from __future__ import annotations

from typing import NamedTuple

from marram.coding.batch import TYPE_STRING
from marram.errors import Error


class WrongType(Error):
    """The key holds a value of another type than the operation needs."""


class Entry(NamedTuple):
    """A value with a deadline, or of a type other than string.

    deadline_ms: when it stops existing, ms since 1970, or 0 for never; type: coding.batch.TYPE_*.
    """

    value: bytes
    deadline_ms: int = 0
    type: int = TYPE_STRING


Stored = bytes | Entry


def stored(value: bytes, deadline_ms: int, type_: int) -> Stored:
    """The cheapest shape that holds all three."""
    if deadline_ms or type_ != TYPE_STRING:
        return Entry(value, deadline_ms, type_)
    return value


def entry_of(held: Stored) -> Entry:
    """The same as an Entry, whichever shape it has."""
    return held if type(held) is Entry else Entry(held)  # type: ignore[arg-type]


def deadline_of(held: Stored) -> int:
    """Its deadline, or 0."""
    return 0 if type(held) is bytes else held.deadline_ms  # type: ignore[union-attr]


def is_expired(held: Stored, now_ms: int) -> bool:
    """Whether its deadline has come."""
    return type(held) is not bytes and 0 < held.deadline_ms <= now_ms  # type: ignore[union-attr]


def string_of(held: Stored) -> bytes:
    """The string it is. Raises WrongType."""
    if isinstance(held, bytes):
        return held
    if held.type != TYPE_STRING:
        raise WrongType("the key holds no string")
    return held.value


def patched(held: Stored | None, offset: int, data: bytes) -> Stored:
    """A string with `data` written over it from `offset` on; a gap is zeros, its deadline stays."""
    value, deadline_ms = b"", 0
    if held is not None:
        value, deadline_ms = entry_of(held)[:2]
    head = value[:offset] if offset <= len(value) else value.ljust(offset, b"\0")
    return stored(b"".join((head, data, value[offset + len(data) :])), deadline_ms, TYPE_STRING)
