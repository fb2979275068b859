"""Frames from a primary: what they hold, checked before anything is changed.

Owns the checks of what comes from another machine; appending is the store's.

Threading: pure functions.
"""

from __future__ import annotations

from marram.coding.batch import (
    PATCH,
    PUT,
    SINGLE_KEY,
    SINGLE_KEYSPACE,
    Change,
    batch_end,
    decode,
    plain_put,
)
from marram.storage.entry import Stored, stored
from marram.storage.log.tail import Frame

_NUMBER_LIMIT = 2**63

# No value is longer: what is patched beyond would take as much memory, for a few bytes.
_VALUE_LIMIT = 2**32

_KEY, _KEYSPACE = SINGLE_KEY, SINGLE_KEYSPACE


class Puts:
    """What PUTs into one keyspace store: keys, and in the same order what each is to hold."""

    __slots__ = ("keys", "keyspace", "values")

    def __init__(self) -> None:
        self.keyspace = -1  # not known before the first one
        self.keys: list[bytes] = []
        self.values: list[Stored] = []

    def add(self, changes: list[Change]) -> bool:
        """Take the changes of a batch; False where they are not all PUTs into that keyspace."""
        for kind, keyspace, key, value, deadline_ms, type_ in changes:
            if self.keyspace < 0:
                self.keyspace = keyspace
            if kind != PUT or keyspace != self.keyspace:
                return False
            self.keys.append(key)
            self.values.append(stored(value or b"", deadline_ms, type_))
        return True


def puts_of(frame: Frame) -> Puts | None:
    """What a frame of nothing but PUTs into one keyspace stores; None for any other.

    Raises ValueError: its batches are not whole, or more.
    Hot: most frames are this. 0.05 us a write, where the tuples of changes_of() take 0.13, and more
    to apply.
    """
    count, payload = _checked(frame)
    where = payload  # compiled, a pointer
    puts = Puts()
    size = len(payload)
    at = 0
    for _ in range(count):
        end = batch_end(payload, at, size)
        value_at = plain_put(payload, at, end)
        if value_at >= 0 and where[at + _KEYSPACE] == puts.keyspace:
            puts.keys.append(where[at + _KEY : value_at])
            puts.values.append(where[value_at:end])
        elif not puts.add(decode(payload, at, end)):
            return None
        at = end
    if at != size:
        raise ValueError("bytes after the last batch")
    return puts if puts.keys else None


def changes_of(frame: Frame) -> list[Change]:
    """The changes of all its batches, in order. Raises ValueError: they are not whole, or more."""
    count, payload = _checked(frame)
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


def _checked(frame: Frame) -> tuple[int, bytes]:
    """How many batches it is to have, and their bytes. Raises ValueError: it is no frame."""
    first, count, epoch, time_ms, payload, _ = frame
    if first < 1 or count < 1 or not (0 <= epoch < _NUMBER_LIMIT and 0 <= time_ms < _NUMBER_LIMIT):
        raise ValueError(f"no frame: {count} batches from {first}, epoch {epoch}, time {time_ms}")
    return count, payload
