"""The bytes of a version edit: what a manifest keeps, one edit a frame.

Owns encoding and decoding; not the frames around an edit nor their checksums: the manifest's. A
full listing is an edit that only adds.

Integers are little-endian and unsigned.

    edit     := format u8 (1) | zero u24 | removals u32 | additions u32 | removal* | addition*
    removal  := level u8 | number u64
    addition := level u8 | flags u8 | zero u16 | start length u32 | stop length u32
              | number u64 | size_bytes u64 | rows u64 | tombstones u64
              | min_sequence u64 | max_sequence u64 | stamp u64
              | [expirable_rows u64 | expirable_bytes u64
              |  earliest_deadline_ms u64 | latest_deadline_ms u64]    where flags has 1
              | [range_deletions u64 | covered_bytes u64]              where flags has 2
              | [blobs u32 | blob*]                                    where flags has 4
              | start | stop
    blob     := number u64 | size_bytes u64 | stamp u64 | rows u64 | live_bytes u64

A group that would be all zeros is left out, so that every edit has one encoding.

Threading: pure functions.
"""

from __future__ import annotations

import struct

from marram.errors import UnsupportedFormat
from marram.storage.lsm.version import LEVELS, BlobRef, TableMeta, VersionEdit

EDIT_FORMAT = 1
"""The format of an edit's bytes. Never reuse a number."""

_EDIT = struct.Struct("<B3xII")
_REMOVAL = struct.Struct("<BQ")
_ADDITION = struct.Struct("<BBHIIQQQQQQQ")
_DEADLINES = struct.Struct("<QQQQ")
_RANGES = struct.Struct("<QQ")
_BLOBS = struct.Struct("<I")
_BLOB = struct.Struct("<QQQQQ")
_HAS_DEADLINES = 1
_HAS_RANGES = 2
_HAS_BLOBS = 4


def encode_edit(edit: VersionEdit) -> bytes:
    """An edit's bytes, in the form the module's docstring gives."""
    parts = [_EDIT.pack(EDIT_FORMAT, len(edit.removed), len(edit.added))]
    parts += [_REMOVAL.pack(level, number) for level, number in edit.removed]
    for level, table in edit.added:
        flags = _HAS_DEADLINES if table.expirable_rows else 0
        flags |= _HAS_RANGES if table.range_deletions else 0
        flags |= _HAS_BLOBS if table.blobs else 0
        parts.append(
            _ADDITION.pack(
                level, flags, 0, len(table.start), len(table.stop), table.number,
                table.size_bytes, table.rows, table.tombstones, table.min_sequence,
                table.max_sequence, table.stamp,
            )
        )  # fmt: skip
        if table.expirable_rows:
            parts.append(
                _DEADLINES.pack(
                    table.expirable_rows, table.expirable_bytes,
                    table.earliest_deadline_ms, table.latest_deadline_ms,
                )
            )  # fmt: skip
        if table.range_deletions:
            parts.append(_RANGES.pack(table.range_deletions, table.covered_bytes))
        if table.blobs:
            parts.append(_BLOBS.pack(len(table.blobs)))
            parts += [_BLOB.pack(*ref) for ref in table.blobs]
        parts += (table.start, table.stop)
    return b"".join(parts)


def decode_edit(data: bytes) -> VersionEdit:
    """The edit whose bytes fill `data`.

    Raises ValueError: not the bytes of an edit (InvalidArgument, a ValueError, where a table
    cannot be); UnsupportedFormat: a newer version's. Memory stays in proportion to `data`.
    """
    if not data:
        raise ValueError("an edit is cut short")
    if data[0] > EDIT_FORMAT:
        raise UnsupportedFormat(f"an edit of format {data[0]}")
    source = _Source(data)
    format_, removals, additions = source.take(_EDIT)
    if format_ != EDIT_FORMAT or data[1:4] != b"\0\0\0":
        raise ValueError("unknown fields at the start of an edit")
    # Each entry takes bytes, so that a wrong count runs out of them instead of out of memory.
    removed = []
    for _ in range(removals):
        level, number = source.take(_REMOVAL)
        removed.append((_checked_level(level), number))
    added = [_decode_addition(source) for _ in range(additions)]
    if source.offset != len(data):
        raise ValueError(f"{len(data) - source.offset} bytes after an edit")
    return VersionEdit(tuple(added), tuple(removed))


class _Source:
    """Bytes to take things from, one after the other."""

    __slots__ = ("_data", "offset")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.offset = 0

    def take(self, fields: struct.Struct) -> tuple[int, ...]:
        """The next fields. Raises ValueError: there are too few bytes."""
        return fields.unpack(self.take_bytes(fields.size))

    def take_bytes(self, size: int) -> bytes:
        """The next `size` bytes. Raises ValueError: there are fewer."""
        part = self._data[self.offset : self.offset + size]
        if len(part) != size:
            raise ValueError("an edit is cut short")
        self.offset += size
        return part


def _checked_level(level: int) -> int:
    if level >= LEVELS:
        raise ValueError(f"there is no level {level}")
    return level


def _decode_addition(source: _Source) -> tuple[int, TableMeta]:
    level, flags, zero, start_size, stop_size, *numbers = source.take(_ADDITION)
    if zero or flags & ~(_HAS_DEADLINES | _HAS_RANGES | _HAS_BLOBS):
        raise ValueError(f"unknown fields of a table: flags {flags}, zero {zero}")
    deadlines = source.take(_DEADLINES) if flags & _HAS_DEADLINES else (0, 0, 0, 0)
    ranges = source.take(_RANGES) if flags & _HAS_RANGES else (0, 0)
    blobs: list[BlobRef] = []
    if flags & _HAS_BLOBS:
        blobs = [BlobRef(*source.take(_BLOB)) for _ in range(source.take(_BLOBS)[0])]
    announced = [bool(flags & flag) for flag in (_HAS_DEADLINES, _HAS_RANGES, _HAS_BLOBS)]
    if announced != [bool(deadlines[0]), bool(ranges[0]), bool(blobs)]:
        raise ValueError(f"flags {flags} announce what is not there")
    start = source.take_bytes(start_size)
    stop = source.take_bytes(stop_size)
    number, size_bytes, rows, tombstones, min_sequence, max_sequence, stamp = numbers
    expirable_rows, expirable_bytes, earliest_ms, latest_ms = deadlines
    range_deletions, covered_bytes = ranges
    table = TableMeta(
        number, size_bytes, start, stop, rows, tombstones, min_sequence, max_sequence,
        expirable_rows, expirable_bytes, earliest_ms, latest_ms,
        range_deletions, covered_bytes, stamp, tuple(blobs),
    )  # fmt: skip
    return _checked_level(level), table
