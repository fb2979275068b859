"""Reply values that are not plain Python values.

Owns the vocabulary in which commands answer; not its bytes (resp.py) and not what is answered.

A reply is one of
    bytes           bulk string
    int             integer, signed 64 bit
    None            null
    bool            RESP3 boolean; RESP2 integer 1 or 0
    float           RESP3 double; RESP2 bulk string of the same text
    list, tuple     array of replies
    dict            RESP3 map; RESP2 flat array of keys and values
    and the classes of this module. str is not a reply: text becomes bytes where it is made.

Threading: immutable values, shared freely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, final

from marram.errors import InvalidArgument


def text_to_wire(text: str) -> bytes:
    """Text as bytes: UTF-8, and bytes smuggled in by "surrogateescape" as themselves.

    Never fails, because error texts quote what clients sent.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        return text.encode("utf-8", "replace")


def wire_to_text(data: bytes) -> str:
    """The inverse of text_to_wire() for any bytes."""
    return data.decode("utf-8", "surrogateescape")


@final
@dataclass(frozen=True, slots=True)
class Simple:
    """A status such as +OK. text: one line. Raises InvalidArgument: CR or LF in the text."""

    text: str
    wire: bytes = field(init=False, repr=False, compare=False)  # encoded once: statuses are hot

    def __post_init__(self) -> None:
        if "\r" in self.text or "\n" in self.text:
            raise InvalidArgument(f"a status is one line, not {self.text!r}")
        object.__setattr__(self, "wire", b"+" + text_to_wire(self.text) + b"\r\n")


@final
@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error, as a value. text: the code, a space, the message: "ERR syntax error".

    CR and LF are harmless here: the encoder strips them at the ends and blanks them inside.
    """

    text: str

    @property
    def code(self) -> str:
        """The first word: ERR, WRONGTYPE, NOAUTH, ..."""
        return self.text.split(" ", 1)[0]


@final
@dataclass(frozen=True, slots=True)
class SetReply:
    """RESP3 set; RESP2 array. The items are sent as given: they are not compared here."""

    items: Sequence[Any]


@final
@dataclass(frozen=True, slots=True)
class Push:
    """RESP3 push (out of band, only at the top level); RESP2 array."""

    items: Sequence[Any]


@final
@dataclass(frozen=True, slots=True)
class Verbatim:
    """Text to be shown as it is: RESP3 verbatim string; RESP2 bulk string.

    format: three letters, "txt" or "mkd". Raises InvalidArgument: not three ASCII letters.
    """

    data: bytes
    format: str = "txt"

    def __post_init__(self) -> None:
        if len(self.format) != 3 or not self.format.isascii() or not self.format.isalpha():
            raise InvalidArgument(f"a verbatim format is three ASCII letters, not {self.format!r}")


@final
class NullArray:
    """The null that RESP2 writes *-1 (a timed-out BLPOP, an aborted EXEC); RESP3 null."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NULL_ARRAY"


@final
class NoReply:
    """No bytes at all."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NO_REPLY"


Reply: TypeAlias = (
    bytes
    | int
    | float
    | list[Any]
    | tuple[Any, ...]
    | dict[Any, Any]
    | Simple
    | ErrorReply
    | SetReply
    | Push
    | Verbatim
    | NullArray
    | NoReply
    | None
)

NULL_ARRAY: Final = NullArray()
NO_REPLY: Final = NoReply()

OK: Final = Simple("OK")
PONG: Final = Simple("PONG")
QUEUED: Final = Simple("QUEUED")
RESET: Final = Simple("RESET")
