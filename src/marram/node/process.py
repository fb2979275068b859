"""Figures about this process, from the operating system where it tells.

Owns reading /proc; nothing is remembered. Zeros where there is no /proc.

Threading: any thread.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from marram.env.api import Env

_PAGE_BYTES: Final = 4096
_TICKS_A_SECOND: Final = 100  # Linux's USER_HZ on every machine we know


class Usage(NamedTuple):
    """resident_bytes: memory in use; user_s, system_s: processor time since the start."""

    resident_bytes: int = 0
    user_s: float = 0.0
    system_s: float = 0.0


def usage(env: Env) -> Usage:
    """What the process uses now."""
    pages = _words(env, "/proc/self/statm")
    # The second field, the name in parentheses, may hold blanks.
    times = _words(env, "/proc/self/stat", after=b")")
    if len(pages) < 2 or len(times) < 13:
        return Usage()
    user, system = int(times[11]), int(times[12])
    return Usage(int(pages[1]) * _PAGE_BYTES, user / _TICKS_A_SECOND, system / _TICKS_A_SECOND)


def _words(env: Env, path: str, after: bytes = b"") -> list[bytes]:
    try:
        file = env.open(path)
    except OSError:
        return []
    try:
        text = file.read(4096, 0)
    finally:
        file.close()
    return (text.rpartition(after)[2] if after else text).split()
