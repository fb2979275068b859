"""When keys stop existing: from what commands say to absolute milliseconds.

Owns units, overflow and the refusals of the expiry options of SET, GETEX and their kin. EXPIRE
itself takes past times and is in keys.py.

D1  a deadline handed on is in [1, 2**63): "none" is 0 and never written by an option.

Threading: pure functions.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from marram.commands.spec import CommandError, integer

MAX_MS: Final = 2**63 - 1
"""The latest deadline, ms since 1970."""


class Unit(NamedTuple):
    """How an option counts: ms per unit, and whether from now on or from 1970."""

    ms: int
    relative: bool


UNITS: Final = {
    b"EX": Unit(1000, relative=True),
    b"PX": Unit(1, relative=True),
    b"EXAT": Unit(1000, relative=False),
    b"PXAT": Unit(1, relative=False),
}
"""The options by name."""


def invalid(command: str) -> CommandError:
    """The refusal of a time that is out of range; command: its name in lower case."""
    return CommandError(f"ERR invalid expire time in '{command}' command")


def deadline(text: bytes, unit: Unit, now_ms: int, command: str) -> int:
    """The deadline (ms since 1970) that an option's argument names; it may have passed.

    Raises CommandError: no integer, not positive, or too far away.
    """
    count = integer(text)
    at_ms = count * unit.ms + (now_ms if unit.relative else 0)
    if count <= 0 or count * unit.ms > MAX_MS or at_ms > MAX_MS:
        raise invalid(command)
    return at_ms
