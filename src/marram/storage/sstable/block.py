"""What a table's blocks hold: rows in columns, the index, maps from names to values.

Owns the payloads' bytes (docs/formats/sstable.md); not the seal around them (format.py) and not
which rows share a block (writer.py).

B1  decode is the inverse of encode; every byte of a payload has a meaning, and none is left over.
B2  decode believes no count and no length: a payload costs memory in proportion to its own size.
B3  the rows of a block are in order, and of one keyspace.

A row is a plain tuple, because tuples are what Python makes and takes apart fastest:

    (keyspace, key, value, deadline_ms, type)

    keyspace 0..255; deadline_ms since 1970, 0 for none; type: coding.batch.TYPE_*, or TOMBSTONE
    with an empty value where the row says that the key was removed.

A version is a row with its sequence number as its sixth field. The memory engine has one version
of a key and no use for it; whoever merges tables has, and moves one object a row then.

What is wrong with a payload is raised as ValueError: the caller knows the path and the offset.
Threading: pure functions. A DataBlock's rows do not change; any number of threads may read it.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, islice, pairwise, repeat
from operator import lt
from typing import NamedTuple

Row = tuple[int, bytes, bytes, int, int]
VersionRow = tuple[int, bytes, bytes, int, int, int]
Columns = tuple[list[bytes], list[bytes], Iterable[int] | None, Iterable[int] | None]

TOMBSTONE = 255
"""The type of a row that says: this key is gone. No value has this type."""

U64_LIMIT = 2**64
"""Deadlines are below it."""

SEQUENCE_LIMIT = 2**63
"""Sequence numbers are below it, so that properties can hold them."""

# rows u32, keyspace u8, flags u8, zero u16
_DATA = struct.Struct("<IBBH")
_HAS_TYPES = 1
_HAS_DEADLINES = 2
_HAS_SEQUENCES = 4
_KNOWN_FLAGS = _HAS_TYPES | _HAS_DEADLINES | _HAS_SEQUENCES
# The columns' bytes a row: key end u32, value end u32; type u8, deadline u64, sequence u64.
ENDS_SIZE = 8
MAX_ROW_OVERHEAD = _DATA.size + 17
"""What a block with one row holds besides its key, its value and their ends, at most, bytes."""

# What a DataBlock takes beside its bytes: itself and its columns' objects; and for each listed key
# the object around its bytes (33), its rounding up to 16 (8) and its place in the list (8).
_BLOCK_MEMORY = 600
_KEY_MEMORY = 49

# Columns of up to so many numbers are checked at once (_ascends): the top bit of each u32.
_LANES = 4096
_LANE_TOPS = int.from_bytes(b"\0\0\0\x80" * _LANES, "little")

_COUNT = struct.Struct("<I")
_INDEX_ENTRY_SIZE = 12

# name bytes u16, kind u8, value bytes u32; then the name, the value
_PAIR = struct.Struct("<HBI")
_INT = struct.Struct("<q")
_KIND_INT = 1
_KIND_BYTES = 2


def stored_key(keyspace: int, key: bytes) -> bytes:
    """Keyspace and key as one byte string with the same order; what indexes and bounds use."""
    return bytes((keyspace,)) + key


def encode_rows(
    keyspace: int,
    keys: Sequence[bytes],
    values: Sequence[bytes],
    deadlines: Sequence[int],
    types: Sequence[int],
    sequences: Sequence[int],
) -> list[bytes]:
    """A data block's payload, in parts; a single large value is not copied.

    The columns are of one length, >= 1, ordered and within their ranges: the writer checked.
    """
    count = len(keys)
    flags = 0
    parts = [
        b"",
        struct.pack(f"<{count}I", *accumulate(map(len, keys))),
        struct.pack(f"<{count}I", *accumulate(map(len, values))),
    ]
    if any(types):
        flags |= _HAS_TYPES
        parts.append(bytes(types))
    if any(deadlines):
        flags |= _HAS_DEADLINES
        parts.append(struct.pack(f"<{count}Q", *deadlines))
    if any(sequences):
        flags |= _HAS_SEQUENCES
        parts.append(struct.pack(f"<{count}Q", *sequences))
    parts[0] = _DATA.pack(count, keyspace, flags, 0)
    parts.append(b"".join(keys))
    parts.append(b"".join(values))
    return parts


class DataBlock:
    """The rows of one data block, decoded on demand. Raises ValueError: malformed.

    Making one checks the columns and copies keys and values out of the payload; a row costs
    nothing until it is asked for. is_plain: all rows are strings without a deadline; memory_bytes:
    about what it takes once its keys are listed; recent: a cache's mark.
    """

    __slots__ = (
        "_deadlines", "_key_ends", "_key_list", "_keys", "_sequences", "_types", "_value_ends",
        "_values", "count", "is_plain", "keyspace", "memory_bytes", "recent",
    )  # fmt: skip

    def __init__(self, payload: memoryview) -> None:
        if len(payload) < _DATA.size:
            raise ValueError("a data block is cut short")
        count, keyspace, flags, zero = _DATA.unpack_from(payload)
        if flags & ~_KNOWN_FLAGS or zero:
            raise ValueError(f"unknown flags {flags:#x} in a data block")
        if not 1 <= count <= len(payload) // ENDS_SIZE:
            raise ValueError(f"a data block of {len(payload)} bytes cannot have {count} rows")
        self.count: int = count
        self.keyspace: int = keyspace
        # Where the keys start: checked first, so that no column passes the end.
        key_at = _DATA.size + count * (
            ENDS_SIZE
            + (1 if flags & _HAS_TYPES else 0)
            + (8 if flags & _HAS_DEADLINES else 0)
            + (8 if flags & _HAS_SEQUENCES else 0)
        )
        if key_at > len(payload):
            raise ValueError(f"the columns of {count} rows pass the end of their data block")
        at = _DATA.size
        self._key_ends = _ends(payload, at, count)
        self._value_ends = _ends(payload, at + 4 * count, count)
        at += ENDS_SIZE * count
        self._types: bytes | None = None
        if flags & _HAS_TYPES:
            self._types = bytes(payload[at : at + count])
            at += count
        self._deadlines: array[int] | None = None
        if flags & _HAS_DEADLINES:
            self._deadlines = _numbers("Q", payload, at, count)
            at += 8 * count
        self._sequences: array[int] | None = None
        if flags & _HAS_SEQUENCES:
            self._sequences = _numbers("Q", payload, at, count)
        value_at = key_at + self._key_ends[-1]
        if value_at + self._value_ends[-1] != len(payload):
            raise ValueError("keys and values do not fill their data block")
        self._keys = bytes(payload[key_at:value_at])
        self._values = bytes(payload[value_at:])
        self._key_list: list[bytes] | None = None
        self.is_plain = not flags & (_HAS_TYPES | _HAS_DEADLINES)
        self.memory_bytes = _BLOCK_MEMORY + len(payload) + len(self._keys) + _KEY_MEMORY * count
        self.recent = False
        self._check_tombstones()

    def list_keys(self) -> None:
        """Make all keys, once: it takes as long as ten look-ups, and each takes a tenth then."""
        if self._key_list is None:
            self._key_list = _slices(self._keys, self._key_ends, 0, self.count)

    def key(self, row: int) -> bytes:
        """The key of a row, 0 <= row < count, without its keyspace."""
        if self._key_list is not None:
            return self._key_list[row]
        start = self._key_ends[row - 1] if row else 0
        return self._keys[start : self._key_ends[row]]

    def version(self, row: int) -> VersionRow:
        """One row, 0 <= row < count, with its sequence number, 0 where the table keeps none."""
        start = self._value_ends[row - 1] if row else 0
        return (
            self.keyspace,
            self.key(row),
            self._values[start : self._value_ends[row]],
            self._deadlines[row] if self._deadlines else 0,
            self._types[row] if self._types else 0,
            self._sequences[row] if self._sequences else 0,
        )

    def look(self, key: bytes) -> bytes | VersionRow | None:
        """The newest row of a key of its keyspace: the value alone of a plain one; or None.

        Hot: 0.4 us with listed keys; find() and version() for look-ups, in one call.
        """
        keys = self._key_list
        if keys is None:
            row = bisect_left(range(self.count), key, key=self.key)
            if row == self.count or self.key(row) != key:
                return None
        else:
            row = bisect_left(keys, key)
            if row == self.count or keys[row] != key:
                return None
        if self.is_plain:
            ends = self._value_ends
            return self._values[ends[row - 1] if row else 0 : ends[row]]
        return self.version(row)

    def rows(self, start: int, stop: int) -> list[Row]:
        """The rows [start, stop), 0 <= start <= stop <= count. Raises ValueError: not in order.

        Hot: whole columns at a time, so that no row runs interpreted code but for its two slices.
        The order check is 13 of about 150 ns a row.
        """
        if start >= stop:
            return []
        keys, values, deadlines, types, _ = self._columns(start, stop)
        # Not strict: three of the five may be endless.
        return list(zip(repeat(self.keyspace), keys, values, deadlines, types, strict=False))

    def versions(self, start: int, stop: int) -> list[VersionRow]:
        """Like rows(), with their sequence numbers."""
        if start >= stop:
            return []
        return list(zip(repeat(self.keyspace), *self._columns(start, stop), strict=False))

    def columns(self, start: int, stop: int) -> Columns:
        """Like rows(), by column: (keys, values, deadlines, types), the last two None if all 0.

        0 <= start < stop <= count. Lists; the caller's.
        """
        keys, values, deadlines, types, _ = self._columns(start, stop)
        return (
            keys,
            values,
            deadlines if self._deadlines else None,
            types if self._types else None,
        )

    def seek(self, bound: bytes) -> int:
        """The first row whose stored key is >= `bound` (a stored key, or b""); else count."""
        if not bound or bound[0] < self.keyspace:
            return 0
        if bound[0] > self.keyspace:
            return self.count
        return self._seek_key(bound[1:])

    def find(self, key: bytes, at: int | None = None) -> int:
        """The newest row of a key of its keyspace, or -1.

        at: with a sequence number <= that. Hot: 0.2 us with listed keys, else 1.7 us.
        """
        row = self._seek_key(key)
        if row == self.count or self.key(row) != key:
            return -1
        if at is not None and self._sequences:
            while self._sequences[row] > at:
                row += 1
                if row == self.count or self.key(row) != key:
                    return -1
        return row

    def _seek_key(self, key: bytes) -> int:
        if self._key_list is not None:
            return bisect_left(self._key_list, key)
        return bisect_left(range(self.count), key, key=self.key)

    def _columns(
        self, start: int, stop: int
    ) -> tuple[list[bytes], list[bytes], Iterable[int], Iterable[int], Iterable[int]]:
        """The columns of a row, of [start, stop); the last three may be endless zeros.

        Raises ValueError: not in order.
        """
        if self._key_list is not None:
            keys = self._key_list[start:stop]
        else:
            keys = _slices(self._keys, self._key_ends, start, stop)
        sequences = self._sequences[start:stop] if self._sequences else repeat(0)
        if not all(map(lt, keys, islice(keys, 1, None))):
            _check_versions(keys, sequences)
        values = _slices(self._values, self._value_ends, start, stop)
        deadlines = self._deadlines[start:stop] if self._deadlines else repeat(0)
        types = self._types[start:stop] if self._types else repeat(0)
        return keys, values, deadlines, types, sequences

    def _check_tombstones(self) -> None:
        if self._types is None:
            return
        row = self._types.find(TOMBSTONE)
        while row >= 0:
            if self._value_ends[row] != (self._value_ends[row - 1] if row else 0):
                raise ValueError("a tombstone with a value")
            row = self._types.find(TOMBSTONE, row + 1)


class Index(NamedTuple):
    """Where the data blocks are, one entry a block, in order.

    last_keys: stored key of the last row; rows: how many; offsets: where it starts in the file,
    bytes, and one more entry for where the last one ends.
    """

    last_keys: list[bytes]
    rows: Sequence[int]
    offsets: list[int]


def encode_index(
    last_keys: Sequence[bytes], rows: Sequence[int], sizes: Sequence[int]
) -> list[bytes]:
    """An index block's payload, in parts. sizes: of the sealed data blocks, bytes."""
    count = len(last_keys)
    return [
        _COUNT.pack(count),
        struct.pack(f"<{count}I", *sizes),
        struct.pack(f"<{count}I", *rows),
        struct.pack(f"<{count}I", *accumulate(map(len, last_keys))),
        b"".join(last_keys),
    ]


def decode_index(payload: memoryview, start: int) -> Index:
    """The index; `start`: where the first data block starts, bytes."""
    if len(payload) < _COUNT.size:
        raise ValueError("the index is cut short")
    (count,) = _COUNT.unpack_from(payload)
    at = _COUNT.size
    key_at = at + _INDEX_ENTRY_SIZE * count
    if key_at > len(payload):
        raise ValueError(f"an index of {len(payload)} bytes cannot have {count} entries")
    sizes = struct.unpack_from(f"<{count}I", payload, at)
    rows = struct.unpack_from(f"<{count}I", payload, at + 4 * count)
    ends = _ends(payload, at + 8 * count, count)
    keys = bytes(payload[key_at:])
    if len(keys) != (ends[-1] if ends else 0):
        raise ValueError("the keys do not fill the index")
    last_keys = _slices(keys, ends, 0, count)
    # Two blocks may end in versions of one key, so equal is in order.
    if sorted(last_keys) != last_keys:
        raise ValueError("the index is out of order")
    return Index(last_keys, rows, list(accumulate(sizes, initial=start)))


def encode_map(pairs: Mapping[str, int | bytes]) -> bytes:
    """A properties or directory block's payload: pairs in the order of their names.

    Raises ValueError: a name of no byte or > 65535 bytes, a number outside 64 bits, a value of
    neither type.
    """
    parts = [_COUNT.pack(len(pairs))]
    for name, value in sorted((name.encode(), value) for name, value in pairs.items()):
        if not 1 <= len(name) <= 0xFFFF:
            raise ValueError(f"a property's name of {len(name)} bytes")
        if isinstance(value, int):
            if not -(2**63) <= value < 2**63:
                raise ValueError(f"property {name!r} does not fit 64 bits: {value}")
            kind, data = _KIND_INT, _INT.pack(value)
        elif isinstance(value, bytes):
            kind, data = _KIND_BYTES, value
        else:
            raise ValueError(f"property {name!r} is neither int nor bytes: {value!r}")
        parts += (_PAIR.pack(len(name), kind, len(data)), name, data)
    return b"".join(parts)


def decode_map(payload: memoryview) -> dict[str, int | bytes]:
    """The pairs of a properties or directory block."""
    if len(payload) < _COUNT.size:
        raise ValueError("a map is cut short")
    (count,) = _COUNT.unpack_from(payload)
    at = _COUNT.size
    pairs: dict[str, int | bytes] = {}
    previous = b""
    for _ in range(count):
        if len(payload) - at < _PAIR.size:
            raise ValueError("a map is cut short")
        name_size, kind, size = _PAIR.unpack_from(payload, at)
        at += _PAIR.size
        stop = at + name_size + size
        if stop > len(payload):
            raise ValueError("a pair passes the end of its map")
        name = bytes(payload[at : at + name_size])
        data = bytes(payload[at + name_size : stop])
        at = stop
        if name <= previous:
            raise ValueError("the names of a map are out of order")
        previous = name
        if kind == _KIND_INT and size == _INT.size:
            (pairs[name.decode()],) = _INT.unpack(data)
        elif kind == _KIND_BYTES:
            pairs[name.decode()] = data
        else:
            raise ValueError(f"a map's value of kind {kind} in {size} bytes")
    if at != len(payload):
        raise ValueError("bytes after the last pair of a map")
    return pairs


def _numbers(code: str, payload: memoryview, at: int, count: int) -> array[int]:
    """A column of `count` numbers: "I" of 4 bytes, "Q" of 8. The payload has that many."""
    numbers = array(code)
    numbers.frombytes(payload[at : at + numbers.itemsize * count])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _ends(payload: memoryview, at: int, count: int) -> array[int]:
    """A column of `count` end offsets, which must not go back.

    If they did, many long slices could share few bytes, and a small block cost much memory (B2).
    """
    ends = _numbers("I", payload, at, count)
    if count > _LANES or not _ascends(payload[at : at + 4 * count], count):
        listed = ends.tolist()  # many rows, or offsets of 2^31 and more, or wrong ones
        if sorted(listed) != listed:
            raise ValueError("a column of offsets goes back")
    return ends


def _ascends(column: memoryview, count: int) -> bool:
    """Whether `count` <= _LANES numbers, u32, are below 2^31 and do not go back.

    Hot: each number is a lane of one integer, its top bit lent to the subtraction of the one
    before, and still there where that was no more. 2.5 us for 250 numbers, where sorting takes 5.4;
    a look-up that reads a block of 32 KiB takes 27 us rather than 32.
    """
    lanes = int.from_bytes(column, "little")
    tops = _LANE_TOPS >> 32 * (_LANES - count)
    return not lanes & tops and (lanes | tops) - (lanes << 32) & tops == tops


def _check_versions(keys: list[bytes], sequences: Iterable[int]) -> None:
    """Check the order of rows some of which may be versions of one key: newest first."""
    versions = zip(keys, sequences, strict=False)  # the sequences may be endless zeros
    for (key, sequence), (next_key, next_sequence) in pairwise(versions):
        if key > next_key or (key == next_key and sequence <= next_sequence):
            raise ValueError("rows out of order in a data block")


def _slices(data: bytes, ends: array[int], start: int, stop: int) -> list[bytes]:
    """The items [start, stop) of a column of byte strings."""
    bounds = (ends[start - 1] if start else 0, *ends[start:stop])
    return [data[begin:end] for begin, end in pairwise(bounds)]
