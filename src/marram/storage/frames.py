"""Frames from a primary: what they hold, checked before anything is changed.

Owns the checks of what comes from another machine; appending is the store's.

Threading: pure functions.
"""

from __future__ import annotations

from marram.coding.batch import PATCH, Change, batch_end, decode
from marram.storage.log.tail import Frame

_NUMBER_LIMIT = 2**63

# No value is longer: what is patched beyond would take as much memory, for a few bytes.
_VALUE_LIMIT = 2**32


def changes_of(frame: Frame) -> list[Change]:
    """The changes of all its batches, in order. Raises ValueError: they are not whole, or more."""
    first, count, epoch, time_ms, payload = frame
    if first < 1 or count < 1 or not (0 <= epoch < _NUMBER_LIMIT and 0 <= time_ms < _NUMBER_LIMIT):
        raise ValueError(f"no frame: {count} batches from {first}, epoch {epoch}, time {time_ms}")
    changes: list[Change] = []
    at = 0
    for _ in range(count):
        end = batch_end(payload, at, len(payload))
        changes += decode(payload, at, end)
        at = end
    if at != len(payload):
        raise ValueError("bytes after the last batch")
    for kind, _, key, value, number, _ in changes:
        if kind == PATCH and number + len(value or b"") >= _VALUE_LIMIT:
            raise ValueError(f"a patch of {key!r} at {number}")
    return changes
