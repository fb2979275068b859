"""Range deletions of a table, and the block that holds them (docs/formats/sstable.md).

Owns what a range deletion is, and the block's payload; not what it hides from whom (lsm/).

D1  decode is the inverse of encode; every byte has a meaning, and none is left over.
D2  decode believes no count and no length: memory stays in proportion to the payload.

What is wrong with a payload is raised as ValueError: the caller knows the path and the offset.
Threading: pure functions and values.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

from marram.storage.sstable.block import SEQUENCE_LIMIT

_COUNT = struct.Struct("<I")
# keyspace u8, flags u8, start bytes u32, stop bytes u32, sequence u64; then the start, the stop
_RANGE = struct.Struct("<BBIIQ")
_UNBOUNDED = 1


class RangeDeletion(NamedTuple):
    """Keys of [start, stop) of a keyspace were deleted at `sequence`; stop None: to its end.

    It hides what is older: rows with a smaller sequence number, whatever table they are in. Of a
    row with the same one, which is of the same batch, whoever applied the batch knew which came
    first.
    """

    keyspace: int
    start: bytes
    stop: bytes | None
    sequence: int


def encode_ranges(ranges: Iterable[RangeDeletion]) -> bytes:
    """A ranges block's payload; of ranges that differ in nothing but their stop, the longest.

    Raises ValueError: no range, one without keys, or a number out of its range.
    """
    ordered = sorted(ranges, key=_order)
    for keyspace, start, stop, sequence in ordered:
        if not (0 <= keyspace < 256 and 0 <= sequence < SEQUENCE_LIMIT):
            raise ValueError(f"a range deletion in keyspace {keyspace} at sequence {sequence}")
        if stop is not None and start >= stop:
            raise ValueError(f"a range deletion from {start[:32]!r} to {stop[:32]!r}")
    if not ordered:
        raise ValueError("no range deletions")
    kept = [max(group, key=_stop_order) for _, group in groupby(ordered, _order)]
    parts = [_COUNT.pack(len(kept))]
    for keyspace, start, stop, sequence in kept:
        flags = _UNBOUNDED if stop is None else 0
        end = stop or b""
        parts += (_RANGE.pack(keyspace, flags, len(start), len(end), sequence), start, end)
    return b"".join(parts)


def decode_ranges(payload: memoryview) -> tuple[RangeDeletion, ...]:
    """The range deletions, in the order of their starts; where those are equal, newest first."""
    if len(payload) < _COUNT.size:
        raise ValueError("a ranges block is cut short")
    (count,) = _COUNT.unpack_from(payload)
    if not count:
        raise ValueError("a ranges block without a range deletion")
    at = _COUNT.size
    ranges: list[RangeDeletion] = []
    for _ in range(count):
        if len(payload) - at < _RANGE.size:
            raise ValueError("a ranges block is cut short")
        keyspace, flags, start_size, stop_size, sequence = _RANGE.unpack_from(payload, at)
        at += _RANGE.size
        end = at + start_size + stop_size
        if end > len(payload):
            raise ValueError("a range deletion passes the end of its block")
        start = bytes(payload[at : at + start_size])
        stop = bytes(payload[at + start_size : end])
        at = end
        unbounded = flags == _UNBOUNDED
        if flags & ~_UNBOUNDED or sequence >= SEQUENCE_LIMIT or (unbounded and stop):
            raise ValueError(f"unknown fields of a range deletion: flags {flags}, {sequence}")
        if not unbounded and start >= stop:
            raise ValueError("a range deletion of no keys")
        found = RangeDeletion(keyspace, start, None if unbounded else stop, sequence)
        if ranges and _order(found) <= _order(ranges[-1]):
            raise ValueError("range deletions out of order")
        ranges.append(found)
    if at != len(payload):
        raise ValueError("bytes after the last range deletion")
    return tuple(ranges)


def _order(deletion: RangeDeletion) -> tuple[int, bytes, int]:
    return deletion.keyspace, deletion.start, -deletion.sequence


def _stop_order(deletion: RangeDeletion) -> tuple[bool, bytes]:
    return deletion.stop is None, deletion.stop or b""
