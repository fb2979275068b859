"""Whether two servers answered a command alike, where clocks and orders may differ."""

from __future__ import annotations

from typing import Any

from tests.differential.generator import Command

_TOLERANCE_MS = 5_000
_CLOCKS_MS = {b"TTL": 1000, b"PTTL": 1, b"EXPIRETIME": 1000, b"PEXPIRETIME": 1}


def alike(command: Command, theirs: Any, ours: Any) -> bool:
    """Whether the replies, as a client's parser gives them, say the same."""
    name = command[0].upper()
    if theirs == ours:
        return True
    if name in _CLOCKS_MS and isinstance(theirs, int) and isinstance(ours, int):
        apart_ms = abs(theirs - ours) * _CLOCKS_MS[name]
        return min(theirs, ours) >= 0 and apart_ms <= _TOLERANCE_MS
    if name == b"KEYS" and isinstance(theirs, list) and isinstance(ours, list):
        return sorted(theirs) == sorted(ours)
    if name == b"SCAN" and isinstance(theirs, list) and isinstance(ours, list):
        return theirs[0] == ours[0] and sorted(theirs[1]) == sorted(ours[1])
    if name == b"OBJECT" and command[1].upper() in (b"REFCOUNT", b"IDLETIME"):
        # Small integers are shared in Redis, and it knows when a key was read.
        return isinstance(theirs, int) and isinstance(ours, int)
    return False
