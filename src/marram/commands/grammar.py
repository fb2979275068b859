"""Words for writing down what arguments a command takes.

Owns the pieces that many rows share; the shape of an Arg is spec.py's.

Threading: immutable values.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from marram.commands.spec import Arg

KEY: Final = Arg("key", "key")
KEYS: Final = Arg("key", "key", multiple=True)
VALUE: Final = Arg("value")

START: Final = Arg("start", "integer")
END: Final = Arg("end", "integer")


def word(token: str) -> Arg:
    """A literal word, e.g. NX."""
    return Arg(token.lower(), "pure-token", token)


def one_of(name: str, *parts: Arg) -> Arg:
    """Exactly one of the parts."""
    return Arg(name, "oneof", parts=parts)


def block(name: str, *parts: Arg) -> Arg:
    """All of the parts, in order."""
    return Arg(name, "block", parts=parts)


def optional(arg: Arg) -> Arg:
    """The same, and it may be left out."""
    return replace(arg, optional=True)


def repeated(arg: Arg) -> Arg:
    """The same, once or more."""
    return replace(arg, multiple=True)


_SECONDS: Final = Arg("seconds", "integer", "EX")
_MILLISECONDS: Final = Arg("milliseconds", "integer", "PX")
_SECONDS_AT: Final = Arg("unix-time-seconds", "unix-time", "EXAT")
_MILLISECONDS_AT: Final = Arg("unix-time-milliseconds", "unix-time", "PXAT")
EXPIRY: Final = (_SECONDS, _MILLISECONDS, _SECONDS_AT, _MILLISECONDS_AT)
"""The four ways to name a deadline in an option."""
