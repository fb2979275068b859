"""Commands that count: INCR, DECR, INCRBY, DECRBY, INCRBYFLOAT.

Owns their handlers and rows; numbers.py has the arithmetic of INCRBYFLOAT. A count is the decimal
text of a signed 64-bit integer, and a key keeps its deadline.

Threading: pure handlers (spec.py).
"""

from __future__ import annotations

from typing import Final

from marram.coding.batch import put
from marram.commands import numbers
from marram.commands.grammar import KEY
from marram.commands.spec import (
    NOT_A_FLOAT,
    Arg,
    Args,
    Command,
    CommandError,
    Outcome,
    Put,
    Reply,
    flags,
    integer,
)
from marram.commands.values import string_entry
from marram.storage.entry import deadline_of, string_of
from marram.storage.view import View

_MIN: Final = -(2**63)
_MAX: Final = 2**63 - 1

_INFINITE: Final = "ERR increment would produce NaN or Infinity"


def incr(view: View, args: Args) -> Reply:
    """INCR key."""
    return _add(view, args[1], 1)


def decr(view: View, args: Args) -> Reply:
    """DECR key."""
    return _add(view, args[1], -1)


def incrby(view: View, args: Args) -> Reply:
    """INCRBY key increment."""
    return _add(view, args[1], integer(args[2]))


def decrby(view: View, args: Args) -> Reply:
    """DECRBY key decrement."""
    decrement = integer(args[2])
    if decrement == _MIN:
        raise CommandError("ERR decrement would overflow")
    return _add(view, args[1], -decrement)


def _add(view: View, key: bytes, increment: int) -> Reply:
    held = view.stored(key)
    count = increment
    at_ms = 0
    if held is not None:
        if type(held) is bytes:  # HOT
            count += integer(held)
        else:
            count += integer(string_of(held))
            at_ms = deadline_of(held)
        if not _MIN <= count <= _MAX:
            raise CommandError("ERR increment or decrement would overflow")
    text = b"%d" % count
    if at_ms:
        return Outcome(count, [put(view.keyspace, key, text, at_ms)])
    return Put(count, view.keyspace, key, text)


def incrbyfloat(view: View, args: Args) -> Reply:
    """INCRBYFLOAT key increment."""
    held = string_entry(view, args[1])
    # Both texts are parsed before either is found to be infinite: a wrong one is reported first.
    number = numbers.ZERO if held is None else _number(held.value)
    increment = _number(args[2])
    if number is None or increment is None:
        raise CommandError(_INFINITE)
    try:
        text = numbers.to_text(numbers.add(number, increment))
    except numbers.Infinite:
        raise CommandError(_INFINITE) from None
    at_ms = 0 if held is None else held.deadline_ms
    return Outcome(text, [put(view.keyspace, args[1], text, at_ms)])


def _number(text: bytes) -> numbers.Number | None:
    """The number, or None for an infinity. Raises CommandError."""
    try:
        return numbers.parse(text)
    except numbers.Infinite:
        return None
    except ValueError:
        raise CommandError(NOT_A_FLOAT) from None


# -- rows ------------------------------------------------------------------------------------------

_FLAGS: Final = flags("write denyoom fast")
_ONE: Final = (1, 1, 1)

ROWS: Final = (
    Command("incr", incr, 2, _FLAGS, "string", "Adds one to a counter.", keys=_ONE, args=(KEY,)),
    Command("decr", decr, 2, _FLAGS, "string", "Takes one off a counter.", keys=_ONE, args=(KEY,)),
    Command(
        "incrby",
        incrby,
        3,
        _FLAGS,
        "string",
        "Adds an integer to a counter.",
        keys=_ONE,
        args=(KEY, Arg("increment", "integer")),
    ),
    Command(
        "decrby",
        decrby,
        3,
        _FLAGS,
        "string",
        "Takes an integer off a counter.",
        keys=_ONE,
        args=(KEY, Arg("decrement", "integer")),
    ),
    Command(
        "incrbyfloat",
        incrbyfloat,
        3,
        _FLAGS,
        "string",
        "Adds a decimal fraction to a number.",
        keys=_ONE,
        since="2.6.0",
        args=(KEY, Arg("increment", "double")),
    ),
)
