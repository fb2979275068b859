"""The slow log, and how commands are shown to operators without their secrets.

Owns the ring of entries, the truncation of arguments and redaction; not the measuring (node.py).

Threading: the thread that owns the node.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, NamedTuple

ARGS_MAX: Final = 32
ARG_BYTES_MAX: Final = 128

REDACTED: Final = b"(redacted)"
_SECRET_PARAMETERS: Final = (b"requirepass", b"masterauth", b"masteruser")


class SlowEntry(NamedTuple):
    """A command that took long."""

    number: int
    time_s: int
    elapsed_us: int
    args: list[bytes]
    address: str
    name: bytes


class SlowLog:
    """The newest slow commands."""

    def __init__(self, limit: int) -> None:
        self._entries: deque[SlowEntry] = deque(maxlen=limit)
        self._next = 0

    def __len__(self) -> int:
        return len(self._entries)

    def record(
        self, args: Sequence[bytes], elapsed_us: int, time_s: int, address: str, name: bytes
    ) -> None:
        """Add an entry; its arguments are redacted and cut here."""
        shown = truncated(redacted(args))
        self._entries.appendleft(SlowEntry(self._next, time_s, elapsed_us, shown, address, name))
        self._next += 1

    def newest(self, limit: int | None) -> Iterable[SlowEntry]:
        """Entries, newest first; None for all."""
        return islice(self._entries, limit)

    def resize(self, limit: int) -> None:
        """Keep at most `limit` entries from now on."""
        self._entries = deque(islice(self._entries, limit), limit)

    def clear(self) -> None:
        """Drop them all."""
        self._entries.clear()


def truncated(args: Sequence[bytes]) -> list[bytes]:
    """At most 32 arguments of at most 128 bytes, with words about what was left out."""
    kept = args if len(args) <= ARGS_MAX else args[: ARGS_MAX - 1]
    shown = [
        arg
        if len(arg) <= ARG_BYTES_MAX
        else arg[:ARG_BYTES_MAX] + b"... (%d more bytes)" % (len(arg) - ARG_BYTES_MAX)
        for arg in kept
    ]
    if len(kept) < len(args):
        shown.append(b"... (%d more arguments)" % (len(args) - len(kept)))
    return shown


def redacted(args: Sequence[bytes]) -> Sequence[bytes]:
    """The arguments with passwords replaced; for everything that shows or keeps commands."""
    name = args[0].lower()
    if name == b"auth":
        return [args[0], *[REDACTED] * (len(args) - 1)]
    if name == b"hello":
        # All that follows the first AUTH: it might itself be the value of another option.
        for at in range(2, len(args)):
            if args[at].lower() == b"auth":
                return [*args[: at + 1], *[REDACTED] * (len(args) - at - 1)]
        return args
    if name == b"config" and len(args) > 3 and args[1].lower() == b"set":
        shown = list(args)
        for at in range(2, len(args) - 1):
            if args[at].lower() in _SECRET_PARAMETERS:
                shown[at + 1] = REDACTED
        return shown
    return args
