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
from collections.abc import Sequence

from marram.coding.fields import u32, u64

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

if not cython.compiled:  # else they are inlined
    from marram.coding.raw import blank, headed, put_bytes, put_u32, put_u64

_COMPILED = cython.compiled

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

_BATCH_SIZE = _BATCH.size
_CHANGE_SIZE = _CHANGE.size
_NUMBER_SIZE = _NUMBER.size
_SINGLE_SIZE = _SINGLE.size
_SINGLE_OVERHEAD = _SINGLE_SIZE - 4
SINGLE_KEYSPACE = 9
"""Where the keyspace is in a plain_put() batch."""
SINGLE_KEY = _SINGLE_SIZE
"""Where the key starts in a plain_put() batch."""

# The same numbers again, which compiled code has without a look-up by name.
_PUT, _DELETE_RANGE, _SWAP, _KEYSPACES = PUT, DELETE_RANGE, SWAP, KEYSPACES

# Of a change's first four bytes, all but its keyspace.
_BUT_KEYSPACE = 0xFFFF00FF

_LONGEST = 2**31  # sizes beyond it are the struct's to refuse or not

# Where compiled code writes headers: a struct's call takes longer than all the rest. Interpreted,
# it is the other way round, so everything below that reads or writes a header does either.
_HEAD = bytearray(_SINGLE_SIZE)


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
    """encode([put(keyspace, key, value)]), without building the tuples.

    Hot: 0.10 us with a value of 100 bytes, where a struct and two sums took 0.45.
    """
    key_size = len(key)
    value_size = len(value)
    size = _SINGLE_OVERHEAD + key_size + value_size
    if _COMPILED and keyspace >> 8 == 0 and size < _LONGEST:
        _set_word(0, size)
        _set_word(4, 1)
        _set_change(_PUT | keyspace << 8, key_size, value_size)
        return headed(_HEAD, _SINGLE_SIZE, key, value)
    header = _SINGLE.pack(size, 1, PUT, keyspace, 0, 0, key_size, value_size)
    return header + key + value


def encode(changes: Sequence[Change]) -> bytes:
    """A batch's bytes: size, count, then the changes in order."""
    if _COMPILED:
        size = _encoded_size(changes)
        if size < _LONGEST:
            return _written(changes, size)
    parts = [b""]
    total = 4
    for kind, keyspace, key, value, number, type_ in changes:
        flags = _FLAG_NUMBER if number else 0
        if value is None:
            flags |= _FLAG_UNBOUNDED
        body = value or b""
        key_size, body_size = len(key), len(body)
        total += _CHANGE_SIZE + key_size + body_size
        parts.append(_CHANGE.pack(kind, keyspace, type_, flags, key_size, body_size))
        if number:
            parts.append(_NUMBER.pack(number))
            total += _NUMBER_SIZE
        parts.append(key)
        parts.append(body)
    parts[0] = _BATCH.pack(total, len(changes))
    return b"".join(parts)


def _encoded_size(changes: Sequence[Change]) -> int:
    """How long the batch is, bytes; _LONGEST where a struct has to say what cannot be."""
    size = _BATCH_SIZE
    for kind, keyspace, key, value, number, type_ in changes:
        if (kind | keyspace | type_) >> 8:
            return _LONGEST
        size += _CHANGE_SIZE + len(key)
        if value is not None:
            size += len(value)
        if number:
            size += _NUMBER_SIZE
    return size


def _written(changes: Sequence[Change], size: int) -> bytes:
    """The batch, of `size` bytes. Only ever compiled: interpreted, structs are quicker."""
    made: bytes = blank(size)
    put_u32(made, 0, size - 4)
    put_u32(made, 4, len(changes))
    at = _BATCH_SIZE
    for kind, keyspace, key, value, number, type_ in changes:
        flags, body = 0, b""
        if number:
            flags = _FLAG_NUMBER
        if value is None:
            flags |= _FLAG_UNBOUNDED
        else:
            body = value
        put_u32(made, at, kind | keyspace << 8 | type_ << 16 | flags << 24)
        put_u32(made, at + 4, len(key))
        put_u32(made, at + 8, len(body))
        at += _CHANGE_SIZE
        if number:
            put_u64(made, at, number)
            at += _NUMBER_SIZE
        put_bytes(made, at, key)
        at += len(key)
        put_bytes(made, at, body)
        at += len(body)
    return made


def _set_change(numbers: int, key_size: int, value_size: int) -> None:
    """Write a change's header; numbers: its first four bytes."""
    _set_word(_BATCH_SIZE, numbers)
    _set_word(_BATCH_SIZE + 4, key_size)
    _set_word(_BATCH_SIZE + 8, value_size)


def _set_word(at: int, number: int) -> None:
    for place in range(at, at + 4):
        _HEAD[place] = number & 0xFF
        number >>= 8


def batch_end(buffer: bytes, start: int, limit: int) -> int:
    """Where the batch that starts at `start` ends. Raises ValueError where it passes `limit`."""
    if limit - start < _BATCH_SIZE or limit > len(buffer):
        raise ValueError("batch header cut short")
    if _COMPILED:
        size = u32(buffer, start)
    else:
        size, _ = _BATCH.unpack_from(buffer, start)
    end: int = start + 4 + size
    if size < 4 or end > limit:
        raise ValueError(f"batch of {size} bytes passes its container")
    return end


def plain_put(buffer: bytes, start: int, end: int) -> int:
    """Where the value starts in a batch of one PUT of a string without a deadline; else -1.

    The batch fills buffer[start:end], by batch_end(). SINGLE_KEYSPACE and SINGLE_KEY say where the
    rest is. What -1 is for, decode() knows.
    """
    if start < 0 or end - start < _SINGLE_SIZE or end > len(buffer):
        return -1
    if _COMPILED:
        numbers, key_size, value_size = (
            u32(buffer, start + 8), u32(buffer, start + 12), u32(buffer, start + 16)
        )  # fmt: skip
        keyspace = numbers >> 8 & 0xFF
        is_plain = u32(buffer, start + 4) == 1 and numbers & _BUT_KEYSPACE == _PUT
    else:
        _, count, kind, keyspace, type_, flags, key_size, value_size = _SINGLE.unpack_from(
            buffer, start
        )
        is_plain = count == 1 and kind == _PUT and type_ == TYPE_STRING and flags == 0
    value_at: int = start + _SINGLE_SIZE + key_size
    if not is_plain or keyspace >= _KEYSPACES or value_at + value_size != end:
        return -1
    return value_at


def decode(buffer: bytes, start: int, end: int) -> list[Change]:
    """The changes of the batch in buffer[start:end].

    Raises ValueError: the bytes are not one whole batch (the caller knows the file and offset).
    """
    if start < 0 or end > len(buffer):
        raise ValueError(f"[{start}, {end}) is not all there")
    if batch_end(buffer, start, end) != end:
        raise ValueError("bytes after the batch")
    if _COMPILED:
        count = u32(buffer, start + 4)
    else:
        _, count = _BATCH.unpack_from(buffer, start)
    at = start + _BATCH_SIZE
    if count > (end - at) // _CHANGE_SIZE:
        raise ValueError(f"{count} changes cannot fit")
    where = buffer  # compiled, a pointer
    changes: list[Change] = []
    for _ in range(count):
        if end - at < _CHANGE_SIZE:
            raise ValueError("change header cut short")
        if _COMPILED:
            kind, keyspace, type_, flags = where[at], where[at + 1], where[at + 2], where[at + 3]
            key_size, value_size = u32(buffer, at + 4), u32(buffer, at + 8)
        else:
            kind, keyspace, type_, flags, key_size, value_size = _CHANGE.unpack_from(buffer, at)
        at += _CHANGE_SIZE
        number = 0
        if flags & _FLAG_NUMBER:
            if end - at < _NUMBER_SIZE:
                raise ValueError("change number cut short")
            if _COMPILED:
                number = u64(buffer, at)
            else:
                (number,) = _NUMBER.unpack_from(buffer, at)
            at += _NUMBER_SIZE
        stop = at + key_size + value_size
        if stop > end:
            raise ValueError("change passes the end of its batch")
        key = where[at : at + key_size]
        value: bytes | None = where[at + key_size : stop]
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
    if not _PUT <= kind <= _SWAP:
        raise ValueError(f"unknown change kind {kind}")
    if keyspace >= _KEYSPACES or (kind == _SWAP and number >= _KEYSPACES):
        raise ValueError(f"keyspace {keyspace} out of range")
    if flags & ~(_FLAG_NUMBER | _FLAG_UNBOUNDED) or (
        flags & _FLAG_UNBOUNDED and kind != _DELETE_RANGE
    ):
        raise ValueError(f"unknown change flags {flags:#x}")
