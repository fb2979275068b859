"""The batch: the unit of atomicity, of the log, of replication. One codec for all three.

Owns the change tuples and their bytes (docs/formats/batch.md); not the frames that carry batches
(storage/log/format.py) and not what a change does to a map (storage/memory/space.py).

B1  encode and decode are inverse: decode(encode(changes)) == changes.
B2  decode checks every length before it slices; hostile bytes cost no more memory than they have.
B3  Kind and type numbers are never reused.

Threading: pure functions over immutable values.

A change is a plain tuple, because tuples are what Python makes and takes apart fastest:

    (kind, keyspace, key, value, number, type)

    PUT           value is what the key holds now; number: deadline, ms since 1970, or 0 for none
    DELETE        value is b"", number 0
    EXPIRE        number: the new deadline, or 0 to drop it; a missing key stays missing
    PATCH         value overwrites the string from byte `number` on; gaps read as zeros; the
                  deadline stays; a missing key is an empty string
    DELETE_RANGE  keys in [key, value), or [key, end) where value is None
    SWAP          `number` is the other keyspace; the two exchange all their keys
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

PUT = 1
DELETE = 2
EXPIRE = 3
PATCH = 4
DELETE_RANGE = 5
SWAP = 6

TYPE_STRING = 0
"""The value type of plain byte strings. Others follow; numbers are never reused."""

KEYSPACES = 16

Change = tuple[int, int, bytes, bytes | None, int, int]

_FLAG_NUMBER = 1  # the change carries a number field
_FLAG_UNBOUNDED = 2  # a DELETE_RANGE without a stop key

# kind u8, keyspace u8, value type u8, flags u8, key length u32, value length u32
_CHANGE = struct.Struct("<BBBBII")
_NUMBER = struct.Struct("<Q")
# batch size u32 (bytes after this field), change count u32
_BATCH = struct.Struct("<II")
# A batch of one PUT without a deadline, whole up to the key: most batches are this.
_SINGLE = struct.Struct("<IIBBBBII")

_SINGLE_OVERHEAD = _SINGLE.size - 4


def put(keyspace: int, key: bytes, value: bytes, deadline_ms: int = 0) -> Change:
    """The change that stores a string, with an absolute deadline or none (0)."""
    return (PUT, keyspace, key, value, deadline_ms, TYPE_STRING)


def delete(keyspace: int, key: bytes) -> Change:
    """The change that removes a key; removing a missing one is fine."""
    return (DELETE, keyspace, key, b"", 0, 0)


def expire(keyspace: int, key: bytes, deadline_ms: int) -> Change:
    """The change that sets a key's absolute deadline, or drops it (0)."""
    return (EXPIRE, keyspace, key, b"", deadline_ms, 0)


def patch(keyspace: int, key: bytes, offset: int, data: bytes) -> Change:
    """The change that overwrites part of a string; what a log needs for APPEND and SETBIT."""
    return (PATCH, keyspace, key, data, offset, 0)


def delete_range(keyspace: int, start: bytes, stop: bytes | None) -> Change:
    """The change that removes every key in [start, stop); stop None means to the end."""
    return (DELETE_RANGE, keyspace, start, stop, 0, 0)


def swap(first: int, second: int) -> Change:
    """The change that exchanges the contents of two keyspaces."""
    return (SWAP, first, b"", b"", second, 0)


def encode_put(keyspace: int, key: bytes, value: bytes) -> bytes:
    """encode([put(keyspace, key, value)]), without building the tuples."""
    key_size = len(key)
    value_size = len(value)
    header = _SINGLE.pack(
        _SINGLE_OVERHEAD + key_size + value_size, 1, PUT, keyspace, 0, 0, key_size, value_size
    )
    return header + key + value


def encode(changes: Iterable[Change]) -> bytes:
    """A batch's bytes: size, count, then the changes in order."""
    parts = [b""]
    count = 0
    for kind, keyspace, key, value, number, type_ in changes:
        count += 1
        flags = _FLAG_NUMBER if number else 0
        if value is None:
            flags |= _FLAG_UNBOUNDED
        body = value or b""
        parts.append(_CHANGE.pack(kind, keyspace, type_, flags, len(key), len(body)))
        if number:
            parts.append(_NUMBER.pack(number))
        parts.append(key)
        parts.append(body)
    size = sum(map(len, parts)) + 4
    parts[0] = _BATCH.pack(size, count)
    return b"".join(parts)


def batch_end(buffer: bytes, start: int, limit: int) -> int:
    """Where the batch that starts at `start` ends. Raises ValueError where it passes `limit`."""
    if limit - start < _BATCH.size:
        raise ValueError("batch header cut short")
    size, _ = _BATCH.unpack_from(buffer, start)
    end: int = start + 4 + size
    if size < 4 or end > limit:
        raise ValueError(f"batch of {size} bytes passes its container")
    return end


def decode(buffer: bytes, start: int, end: int) -> list[Change]:
    """The changes of the batch in buffer[start:end].

    Raises ValueError: the bytes are not one whole batch (the caller knows the file and offset).
    """
    if batch_end(buffer, start, end) != end:
        raise ValueError("bytes after the batch")
    _, count = _BATCH.unpack_from(buffer, start)
    at = start + _BATCH.size
    if count > (end - at) // _CHANGE.size:
        raise ValueError(f"{count} changes cannot fit")
    changes: list[Change] = []
    for _ in range(count):
        if end - at < _CHANGE.size:
            raise ValueError("change header cut short")
        kind, keyspace, type_, flags, key_size, value_size = _CHANGE.unpack_from(buffer, at)
        at += _CHANGE.size
        number = 0
        if flags & _FLAG_NUMBER:
            if end - at < _NUMBER.size:
                raise ValueError("change number cut short")
            (number,) = _NUMBER.unpack_from(buffer, at)
            at += _NUMBER.size
        stop = at + key_size + value_size
        if stop > end:
            raise ValueError("change passes the end of its batch")
        key = buffer[at : at + key_size]
        value: bytes | None = buffer[at + key_size : stop]
        if flags & _FLAG_UNBOUNDED:
            value = None
        at = stop
        changes.append((kind, keyspace, key, value, number, type_))
        _check(kind, keyspace, number, flags)
    if at != end:
        raise ValueError("bytes after the last change")
    return changes


def _check(kind: int, keyspace: int, number: int, flags: int) -> None:
    """Refuse numbers this version does not know: a newer writer, or garbage."""
    if not PUT <= kind <= SWAP:
        raise ValueError(f"unknown change kind {kind}")
    if keyspace >= KEYSPACES or (kind == SWAP and number >= KEYSPACES):
        raise ValueError(f"keyspace {keyspace} out of range")
    if flags & ~(_FLAG_NUMBER | _FLAG_UNBOUNDED) or (
        flags & _FLAG_UNBOUNDED and kind != DELETE_RANGE
    ):
        raise ValueError(f"unknown change flags {flags:#x}")
