"""Writes a table: rows in order in, one immutable file out (docs/formats/sstable.md).

Owns which rows share a block, and the totals; not the bytes (block.py, format.py), and neither
making the file durable nor removing it after an error: both are the caller's.

W1  rows are refused unless they ascend by (keyspace, key) and, within a key, descend by sequence.
W2  memory stays bounded however large the table: the rows of the block at hand, WRITE_BYTES of
    blocks to be written, the index, whose keys are at most an eighth of the file, and for a filter
    4 bytes a key, and the filter itself at the end.
W3  the file is written once, front to back, and is a table only after finish().

Threading: one thread at a time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise, repeat
from operator import lt
from typing import Any, NamedTuple

from marram.coding.checksum import place_start
from marram.env.api import File
from marram.errors import InvalidArgument, UnsupportedFormat
from marram.storage.sstable.block import (
    ENDS_SIZE,
    SEQUENCE_LIMIT,
    TOMBSTONE,
    U64_LIMIT,
    Row,
    encode_index,
    encode_map,
    encode_rows,
    stored_key,
)
from marram.storage.sstable.filter import MAX_BITS_PER_KEY, FilterBuilder
from marram.storage.sstable.format import (
    COMPRESSION_LEVELS,
    DATA,
    DIRECTORY,
    FILTER,
    INDEX,
    MAX_PAYLOAD,
    PROPERTIES,
    RANGES,
    Compressor,
    Handle,
    Place,
    compressor,
    pack_footer,
    pack_handle,
    pack_header,
    seal_block,
)
from marram.storage.sstable.frozen import FrozenMap
from marram.storage.sstable.packing import (
    KEY_RATIO,
    MAX_ROW_BYTES,
    Packing,
    block_of,
    checksums_of,
    extent_of,
    payload_of,
)
from marram.storage.sstable.ranges import RangeDeletion, decode_ranges, encode_ranges

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

if not cython.compiled:  # else they are inlined
    from marram.coding.raw import order, view

__all__ = ["TOMBSTONE", "Output", "Row", "TableInfo", "TableOptions", "TableWriter"]

WRITE_BYTES = 256 * 1024
"""Blocks are collected up to about this size before they are written, bytes."""

OWN_PREFIX = "table."
"""Names of the properties that the writer fills in itself start like this."""

# Rows taken apart in one step. More is no faster; fewer hold the interpreter less at a time.
_SLICE_ROWS = 1024


@dataclass(frozen=True, slots=True)
class TableOptions:
    """How a table is written; any reader reads all of them.

    block_bytes: rows share a block up to this size, bytes, 1 to 64 MiB. compression: "none",
    "zlib", or "zstd", which Python has from 3.14, and before with the package backports.zstd;
    compression_level: 1 (fast) to 9 for zlib, to 19 for zstd. filter_bits_per_key: bits the filter
    spends on each key, 0 for no filter, up to 64; filter.DEFAULT_BITS_PER_KEY is 10.
    Raises InvalidArgument: none of these, or no zstd here.
    """

    block_bytes: int = 16 * 1024
    compression: str = "none"
    compression_level: int = 1
    filter_bits_per_key: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.block_bytes <= 64 * 1024 * 1024:
            raise InvalidArgument(f"block_bytes must be 1 to 67108864, not {self.block_bytes}")
        levels = COMPRESSION_LEVELS.get(self.compression)
        if levels is None:
            raise InvalidArgument(f"unknown compression {self.compression!r}")
        if self.compression_level not in levels:
            raise InvalidArgument(
                f"compression_level must be 1 to {levels[-1]}, not {self.compression_level}"
            )
        self.compressor()  # refuse what is not here now, rather than with a table half written
        if not 0 <= self.filter_bits_per_key <= MAX_BITS_PER_KEY:
            raise InvalidArgument(
                f"filter_bits_per_key must be 0 to {MAX_BITS_PER_KEY}, "
                f"not {self.filter_bits_per_key}"
            )

    def compressor(self) -> Compressor | None:
        """What compresses one writer's blocks, or None. Raises InvalidArgument: no zstd here."""
        try:
            return compressor(self.compression, self.compression_level)
        except UnsupportedFormat as error:
            raise InvalidArgument(f"compression {self.compression!r}: {error}") from error


class TableInfo(NamedTuple):
    """What finish() made.

    rows: tombstones included; size_bytes: of the file; smallest, largest: stored keys of the
    first and the last row, b"" where there is none. tombstones: of the rows. min_sequence,
    max_sequence: of the rows; 0 where there is none. expirable_rows, expirable_bytes: rows with a
    deadline, and the bytes of their keys and values; earliest_deadline_ms, latest_deadline_ms:
    their deadlines, 0 where there is none. range_deletions: how many the file has;
    min_range_sequence, max_range_sequence: of them, 0 where there is none.
    """

    rows: int
    size_bytes: int
    smallest: bytes
    largest: bytes
    tombstones: int
    min_sequence: int
    max_sequence: int
    expirable_rows: int
    expirable_bytes: int
    earliest_deadline_ms: int
    latest_deadline_ms: int
    range_deletions: int = 0
    min_range_sequence: int = 0
    max_range_sequence: int = 0


class TableWriter:
    """One table being written to `file`, which is open for writing and empty.

    number, store_id: the place the file is bound to; store_id is 16 bytes. After any error the
    writer refuses to go on, and the file is no table. Raises InvalidArgument, OSError.
    """

    def __init__(
        self,
        file: File,
        number: int,
        store_id: bytes,
        options: TableOptions = TableOptions(),
    ) -> None:
        if len(store_id) != 16 or not 0 <= number < U64_LIMIT:
            raise InvalidArgument(f"no place for a table: number {number}, store id {store_id!r}")
        if file.size():
            raise InvalidArgument(f"{file.path} is not empty")
        self._place = Place(number, store_id)
        self._block_bytes = options.block_bytes
        self._compressor = options.compressor()
        self._bits_per_key = options.filter_bits_per_key
        self._filter = FilterBuilder()
        self._output = Output(file)
        self._output.append([pack_header(self._place)])
        self._usable = True
        self._pending = _Pending()
        self._packing: Packing | None = None
        self._place_start = place_start(number, store_id)
        # The index, one entry a data block.
        self._last_keys: list[bytes] = []
        self._block_rows: list[int] = []
        self._block_sizes: list[int] = []
        # What the properties say about all rows.
        self._rows = 0
        self._tombstones = 0
        self._key_bytes = 0
        self._value_bytes = 0
        self._smallest = b""
        self._last: tuple[int, bytes, int] | None = None  # keyspace, key, sequence
        self._min_sequence = SEQUENCE_LIMIT
        self._max_sequence = 0
        # What only TableInfo says about them.
        self._expirable_rows = 0
        self._expirable_bytes = 0
        self._earliest_ms = 0
        self._latest_ms = 0

    def add(
        self,
        keyspace: int,
        key: bytes,
        value: bytes,
        deadline_ms: int = 0,
        type_: int = 0,
        sequence: int = 0,
        tombstone: bool = False,
    ) -> None:
        """Add one row; where there are many, add_many() is ten times as fast.

        Raises InvalidArgument: out of order (W1), or a number out of its range; OSError.
        """
        if tombstone:
            type_ = TOMBSTONE
        self.add_many([(keyspace, key, value, deadline_ms, type_)], [sequence])

    def add_many(self, rows: Sequence[Row], sequences: Sequence[int] | None = None) -> None:
        """Add rows (block.py says what a row is), with their sequence numbers where kept.

        Raises InvalidArgument: out of order (W1), or a number out of its range; OSError.
        Hot: rows of 16 + 100 bytes go in at 2.6 M/s and core, interpreted, in slices of 256.
        """
        self._begin()
        if sequences is not None and len(sequences) != len(rows):
            raise InvalidArgument(f"{len(rows)} rows with {len(sequences)} sequence numbers")
        for start in range(0, len(rows), _SLICE_ROWS):
            columns = zip(*rows[start : start + _SLICE_ROWS], strict=True)
            keyspaces, keys, values, deadlines, types = columns
            numbers = None if sequences is None else sequences[start : start + _SLICE_ROWS]
            first = 0
            while first < len(keyspaces):
                stop = _end_of(keyspaces, first)
                self._add_columns(
                    keyspaces[first],
                    list(keys[first:stop]),
                    list(values[first:stop]),
                    deadlines[first:stop],
                    types[first:stop],
                    None if numbers is None else numbers[first:stop],
                )
                first = stop
        self._usable = True

    def add_columns(
        self,
        keyspace: int,
        keys: list[bytes],
        values: list[bytes],
        deadlines: Sequence[int] | None = None,
        types: Sequence[int] | None = None,
        sequences: Sequence[int] | None = None,
    ) -> None:
        """add_many() for rows of one keyspace in columns of one length, None for all zeros.

        Hot: rows of 16 + 100 bytes go in at 2.6 M/s and core, interpreted, some hundred at a time.
        """
        self._begin()
        if any(
            column is not None and len(column) != len(keys)
            for column in (values, deadlines, types, sequences)
        ):
            raise InvalidArgument("columns of different lengths")
        if keys:
            self._add_columns(keyspace, keys, values, deadlines, types, sequences)
        self._usable = True

    def add_frozen(
        self, keyspace: int, rows: FrozenMap, start: int, stop: int, sequence: int
    ) -> int:
        """Add the rows [start, n) of a map, n > start; returns n. The file is as by add_columns().

        The rows [start, stop), start < stop, are plain, of a keyspace and with a sequence number;
        who has them added asks again until n is stop. Blocks are not compressed. Raises
        InvalidArgument: out of order (W1), or a number out of its range; OSError.
        Hot: compiled, 0.2 us a row of 16 + 100 bytes, nearly all without the interpreter's lock.
        """
        self._begin()
        assert self._compressor is None
        _check_range("keyspace", keyspace, keyspace, 256)
        _check_range("sequence", sequence, sequence, SEQUENCE_LIMIT)
        packing = self._packing = self._packing or Packing()
        pending = self._pending
        joined = start
        if pending.keys and pending.keyspace == keyspace:
            # All that is pending is in one block: what made another one whole was written.
            size, last_size = pending.bytes, len(pending.keys[-1])
            joined = packing.stop_of(rows, start, stop, size, last_size, self._block_bytes)
        if joined == start:
            self._write_rest()
            packed = self._pack(packing, keyspace, rows, start, stop, sequence)
            if packed > start:
                self._usable = True
                return packed
            joined = stop  # which may go on in the last block
        keys, values = rows.columns(start, joined)
        self._add_columns(keyspace, keys, values, None, None, [sequence] * len(keys))
        self._usable = True
        return joined

    @property
    def size_bytes(self) -> int:
        """About what the file would have if it ended here, without what finish() adds, bytes."""
        return self._output.end + self._pending.bytes

    def finish(
        self, properties: Mapping[str, int | bytes], ranges: Iterable[RangeDeletion] = ()
    ) -> TableInfo:
        """Write what is left, the filter, the index and so on; the caller syncs the file.

        properties: the caller's own, found again in Table.properties; ints are of 64 bits, signed.
        ranges: in any order, found again in Table.ranges, where of those that differ in nothing but
        their stop there is the longest; the properties do not count them. Raises InvalidArgument: a
        name that starts with "table.", an unfit value, an empty range; OSError.
        """
        self._begin()
        self._packing = None  # its room is not needed any more
        if any(name.startswith(OWN_PREFIX) for name in properties):
            raise InvalidArgument(f"property names with {OWN_PREFIX!r} are the table's own")
        self._write_rest()
        largest = stored_key(*self._last[:2]) if self._last else b""
        pairs = _map_payload({**properties, **self._own_properties(largest)})
        deletions, sequences = _ranges_payload(ranges)
        handles = {}
        # The largest first: what opening reads is then close together, at the end of the file.
        if bits := self._filter.encode(self._bits_per_key, MAX_PAYLOAD):
            handles["filter"] = self._write_block(FILTER, [bits], compress=False)
        if deletions:
            handles["ranges"] = self._write_block(RANGES, [deletions])
        index = encode_index(self._last_keys, self._block_rows, self._block_sizes)
        handles["index"] = self._write_block(INDEX, index)
        handles["properties"] = self._write_block(PROPERTIES, [pairs])
        entries = {name: pack_handle(handle) for name, handle in handles.items()}
        directory = self._write_block(DIRECTORY, [_map_payload(entries)])
        self._output.append([pack_footer(directory, self._place)])
        self._output.flush()
        return TableInfo(
            self._rows, self._output.end, self._smallest, largest,
            self._tombstones, self._min_sequence if self._rows else 0, self._max_sequence,
            self._expirable_rows, self._expirable_bytes, self._earliest_ms, self._latest_ms,
            len(sequences), min(sequences, default=0), max(sequences, default=0),
        )  # fmt: skip

    # -- inside ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Claim the writer for a change; who claimed it sets _usable when all went well."""
        if not self._usable:
            raise InvalidArgument("the table is finished, or an earlier error ended it")
        self._usable = False

    def _add_columns(
        self,
        keyspace: int,
        keys: list[bytes],
        values: list[bytes],
        deadlines: Sequence[int] | None,
        types: Sequence[int] | None,
        sequences: Sequence[int] | None,
    ) -> None:
        """Add rows, in columns of one length, >= 1."""
        distinct = self._check_order(keyspace, keys, sequences)
        _check_range("keyspace", keyspace, keyspace, 256)
        if deadlines is not None and any(deadlines):
            _check_range("deadline_ms", min(deadlines), max(deadlines), U64_LIMIT)
            self._count_expirable(keys, values, deadlines)
        lowest = highest = 0
        if sequences is not None:
            lowest, highest = _extent(sequences)
            _check_range("sequence", lowest, highest, SEQUENCE_LIMIT)
        if types is not None and any(types):
            _check_range("type", min(types), max(types), 256)
            self._tombstones += _count_tombstones(types, values)
        self._min_sequence = min(self._min_sequence, lowest)
        self._max_sequence = max(self._max_sequence, highest)
        if not self._rows:
            self._smallest = stored_key(keyspace, keys[0])
        self._rows += len(keys)
        if keyspace != self._pending.keyspace:
            self._write_rest()
            self._pending.keyspace = keyspace
        key_bytes, value_bytes = self._pending.extend(keys, values, deadlines, types, sequences)
        self._key_bytes += key_bytes
        self._value_bytes += value_bytes
        if self._bits_per_key:
            if cython.compiled and distinct:
                self._filter.add_checksums(checksums_of(keyspace, keys))
            else:
                self._filter.add(keyspace, keys, distinct=distinct)
        if self._pending.bytes > self._block_bytes:
            self._write_full_blocks()

    def _check_order(
        self, keyspace: int, keys: list[bytes], sequences: Sequence[int] | None
    ) -> bool:
        """Refuse rows that do not go on, in order, from the last one (W1).

        Returns whether no two of them can be versions of one key.
        """
        first, last = (0, 0) if sequences is None else (sequences[0], sequences[-1])
        if self._last is not None:
            _check_pair(self._last, (keyspace, keys[0], first))
        self._last = (keyspace, keys[-1], last)
        if ascend(keys):
            return True  # nearly always; the clear check below takes ten times as long
        numbers: Iterable[int] = repeat(0) if sequences is None else sequences
        for earlier, later in pairwise(zip(repeat(keyspace), keys, numbers, strict=False)):
            _check_pair(earlier, later)
        return False

    def _count_expirable(
        self, keys: Sequence[bytes], values: Sequence[bytes], deadlines: Sequence[int]
    ) -> None:
        """Count rows with a deadline; there is one."""
        timed = [
            (deadline_ms, len(key) + len(value))
            for key, value, deadline_ms in zip(keys, values, deadlines, strict=True)
            if deadline_ms
        ]
        self._expirable_rows += len(timed)
        self._expirable_bytes += sum(size for _, size in timed)
        earliest, latest = min(timed)[0], max(timed)[0]
        self._earliest_ms = min(self._earliest_ms or earliest, earliest)
        self._latest_ms = max(self._latest_ms, latest)

    def _write_full_blocks(self) -> None:
        """Write the pending rows, all but those that later ones may still join in a block."""
        pending = self._pending
        start = written = 0
        if cython.compiled:
            stop, size = block_of(pending.keys, pending.values, start, self._block_bytes)
            while stop < len(pending.keys):
                self._write_rows(start, stop)
                start, written = stop, written + size
                stop, size = block_of(pending.keys, pending.values, start, self._block_bytes)
        else:
            totals = list(accumulate(pending.sizes))
            stop = self._block_stop(totals, start, written)
            while stop < len(totals):
                self._write_rows(start, stop)
                start, written = stop, totals[stop - 1]
                stop = self._block_stop(totals, start, written)
        pending.drop(start, written)

    def _block_stop(self, totals: list[int], start: int, written: int) -> int:
        """packing.block_of() of the pending rows, fast interpreted: where the block ends.

        totals: running sum of the row sizes, `written` of it before `start`, bytes.
        """
        stop = max(start + 1, bisect_right(totals, written + self._block_bytes, start))
        # A long last key weighs in the index: let more rows share its block.
        while (
            stop < len(totals)
            and totals[stop] - written < KEY_RATIO * len(self._pending.keys[stop - 1])
            and totals[stop] - written < MAX_ROW_BYTES // 2
        ):
            stop += 1
        return stop

    def _pack(
        self,
        packing: Packing,
        keyspace: int,
        rows: FrozenMap,
        start: int,
        stop: int,
        sequence: int,
    ) -> int:
        """Write what add_frozen() can in whole blocks, where no row is pending; `start`: none."""
        first = rows.key(start)
        if self._last is not None:
            _check_pair(self._last, (keyspace, first, sequence))
        end = packing.fill(
            rows, keyspace, start, stop, sequence, self._block_bytes, self._output.end,
            self._place_start,
        )  # fmt: skip
        if end == start:
            return start
        self._last = (keyspace, rows.key(end - 1), sequence)
        self._min_sequence = min(self._min_sequence, sequence)
        self._max_sequence = max(self._max_sequence, sequence)
        if not self._rows:
            self._smallest = stored_key(keyspace, first)
        self._rows += end - start
        self._key_bytes += packing.key_bytes
        self._value_bytes += packing.value_bytes
        if self._bits_per_key:
            self._filter.add_checksums(packing.checksums)
        row = start
        for count, size in packing.blocks:
            row += count
            self._last_keys.append(stored_key(keyspace, rows.key(row - 1)))
            self._block_rows.append(count)
            self._block_sizes.append(size)
        self._output.write(packing.data)
        return end

    def _write_rest(self) -> None:
        """Write all pending rows."""
        if self._pending.keys:
            self._write_full_blocks()
            count = len(self._pending.keys)
            self._write_rows(0, count)
            self._pending.drop(count, self._pending.bytes)

    def _write_rows(self, start: int, stop: int) -> None:
        """Write the pending rows [start, stop) as a block; dropping them is the caller's."""
        pending = self._pending
        if cython.compiled and pending.is_plain and stop - start > 1:
            columns = pending.keys, pending.values, pending.sequences
            payload = [payload_of(pending.keyspace, *columns, start, stop)]
        else:
            payload = encode_rows(pending.keyspace, *pending.columns(start, stop))
        handle = self._write_block(DATA, payload)
        self._last_keys.append(stored_key(pending.keyspace, pending.keys[stop - 1]))
        self._block_rows.append(stop - start)
        self._block_sizes.append(handle.size)

    def _write_block(self, kind: int, payload: list[bytes], *, compress: bool = True) -> Handle:
        offset = self._output.end
        packer = self._compressor if compress else None
        try:
            parts = seal_block(kind, payload, self._place, offset, packer)
        except ValueError as error:
            raise InvalidArgument(str(error)) from error
        self._output.append(parts)
        return Handle(offset, self._output.end - offset)

    def _own_properties(self, largest: bytes) -> dict[str, int | bytes]:
        return {
            "table.block_bytes": self._block_bytes,
            "table.key_bytes": self._key_bytes,
            "table.largest": largest,
            "table.max_sequence": self._max_sequence,
            "table.min_sequence": self._min_sequence if self._rows else 0,
            "table.rows": self._rows,
            "table.smallest": self._smallest,
            "table.tombstones": self._tombstones,
            "table.value_bytes": self._value_bytes,
        }


class _Pending:
    """Rows that no block holds yet, in columns. They are of one keyspace."""

    __slots__ = (
        "_deadlines", "_types", "bytes", "keys", "keyspace", "sequences", "sizes", "values",
    )  # fmt: skip

    def __init__(self) -> None:
        self.keyspace = 0
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        # As long as the keys; or empty, where all are 0.
        self._deadlines: list[int] = []
        self._types: list[int] = []
        self.sequences: list[int] = []
        # Of the rows, bytes: what they add to a block. Interpreted only.
        self.sizes: list[int] = []
        self.bytes = 0  # sum of the sizes

    def extend(
        self,
        keys: list[bytes],
        values: list[bytes],
        deadlines: Sequence[int] | None,
        types: Sequence[int] | None,
        sequences: Sequence[int] | None,
    ) -> tuple[int, int]:
        """Add rows; returns the bytes of their keys and of their values."""
        key_bytes, value_bytes, sizes = _sizes_of(keys, values)
        before = len(self.keys)
        _extend(self._deadlines, deadlines, before, len(keys))
        _extend(self._types, types, before, len(keys))
        _extend(self.sequences, sequences, before, len(keys))
        self.keys += keys
        self.values += values
        self.sizes += sizes
        self.bytes += key_bytes + value_bytes + ENDS_SIZE * len(keys)
        return key_bytes, value_bytes

    def columns(self, start: int, stop: int) -> tuple[Any, ...]:
        """The columns of the rows [start, stop), as encode_rows() takes them."""
        return (
            self.keys[start:stop],
            self.values[start:stop],
            self._deadlines[start:stop] or None,
            self._types[start:stop] or None,
            self.sequences[start:stop] or None,
        )

    @property
    def is_plain(self) -> bool:
        """Whether all rows are strings without a deadline."""
        return not self._deadlines and not self._types

    def drop(self, count: int, size: int) -> None:
        """Forget the first `count` rows, which add `size` bytes to blocks."""
        self.bytes -= size
        del self.keys[:count]
        del self.values[:count]
        del self._deadlines[:count]
        del self._types[:count]
        del self.sequences[:count]
        del self.sizes[:count]


def _extend(column: list[int], more: Sequence[int] | None, before: int, count: int) -> None:
    """Add `count` numbers to a column that has `before`, or is empty for zeros; None: zeros."""
    if more is None and not column:
        return
    if not column:
        column += [0] * before
    column += [0] * count if more is None else more


def _sizes_of(keys: list[bytes], values: list[bytes]) -> tuple[int, int, list[int]]:
    """The bytes of keys, and of values; interpreted, also what each row adds to a block."""
    key_bytes = value_bytes = largest = 0
    sizes: list[int] = []
    if cython.compiled:
        for at in range(len(keys)):
            key, value = keys[at], values[at]
            key_size, value_size = len(key), len(value)
            key_bytes += key_size
            value_bytes += value_size
            size = key_size + value_size + ENDS_SIZE
            largest = max(largest, size)
    else:
        key_sizes, value_sizes = list(map(len, keys)), list(map(len, values))
        key_bytes, value_bytes = sum(key_sizes), sum(value_sizes)
        pairs = zip(key_sizes, value_sizes, strict=True)
        sizes = [key_size + value_size + ENDS_SIZE for key_size, value_size in pairs]
        largest = max(sizes)
    if largest > MAX_ROW_BYTES:
        raise InvalidArgument(f"a row of {largest} bytes does not fit a block")
    return key_bytes, value_bytes, sizes


def ascend(keys: list[bytes]) -> bool:
    """Whether each key is above the one before."""
    if not cython.compiled:
        return all(map(lt, keys, islice(keys, 1, None)))
    last = keys[0]
    for at in range(1, len(keys)):
        key = keys[at]
        if order(view(last, 0, len(last)), len(last), view(key, 0, len(key)), len(key)) >= 0:
            return False
        last = key
    return True


def _extent(sequences: Sequence[int]) -> tuple[int, int]:
    """The lowest and the highest."""
    if cython.compiled and type(sequences) is list:
        try:
            return extent_of(sequences)
        except OverflowError:
            pass  # it will be refused
    return min(sequences), max(sequences)


def _end_of(keyspaces: Sequence[int], first: int) -> int:
    """Where the rows with the keyspace of row `first` end."""
    keyspace = keyspaces[first]
    if keyspaces[-1] == keyspace and keyspaces.count(keyspace) == len(keyspaces) - first:
        return len(keyspaces)
    stop = first + 1
    while stop < len(keyspaces) and keyspaces[stop] == keyspace:
        stop += 1
    return stop


class Output:
    """Appends to a file in large writes. end: bytes appended so far."""

    __slots__ = ("_file", "_parts", "_written", "end")

    def __init__(self, file: File) -> None:
        self._file = file
        self._parts: list[bytes] = []
        self._written = 0  # bytes handed to the file
        self.end = 0  # bytes appended, so the offset of what is appended next

    def append(self, parts: Sequence[bytes]) -> None:
        """Append these, written now or later. Raises OSError."""
        for part in parts:
            self.end += len(part)
            if len(part) >= WRITE_BYTES:  # on its own, rather than copied into a larger one
                self.flush()
                self._write(part)
            else:
                self._parts.append(part)
        if self.end - self._written >= WRITE_BYTES:
            self.flush()

    def write(self, data: memoryview) -> None:
        """Append and write at once; the caller may change it then. Raises OSError."""
        self.flush()
        self.end += len(data)
        self._write(data)

    def flush(self) -> None:
        """Write what was not written yet. Raises OSError."""
        if self._parts:
            self._write(b"".join(self._parts))
            self._parts.clear()

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data, self._written)
        self._written += len(data)


def _check_pair(earlier: tuple[int, bytes, int], later: tuple[int, bytes, int]) -> None:
    """Refuse two rows' (keyspace, key, sequence) that do not ascend, newest version first."""
    if earlier[:2] > later[:2] or (earlier[:2] == later[:2] and earlier[2] <= later[2]):
        raise InvalidArgument(f"rows out of order: {_brief(earlier)}, then {_brief(later)}")


def _brief(row: tuple[int, bytes, int]) -> str:
    keyspace, key, sequence = row
    more = "..." if len(key) > 32 else ""
    return f"keyspace {keyspace} key {key[:32]!r}{more} sequence {sequence}"


def _check_range(name: str, lowest: int, highest: int, limit: int) -> None:
    """Refuse numbers outside [0, limit)."""
    if lowest < 0 or highest >= limit:
        raise InvalidArgument(f"{name} must be 0 to {limit - 1}: {lowest}, {highest}")


def _count_tombstones(types: Sequence[int], values: Sequence[bytes]) -> int:
    found = [value for type_, value in zip(types, values, strict=True) if type_ == TOMBSTONE]
    if any(found):
        raise InvalidArgument("a tombstone has no value")
    return len(found)


def _map_payload(pairs: Mapping[str, int | bytes]) -> bytes:
    try:
        return encode_map(pairs)
    except ValueError as error:
        raise InvalidArgument(str(error)) from error


def _ranges_payload(ranges: Iterable[RangeDeletion]) -> tuple[bytes, list[int]]:
    """The payload for `ranges`, b"" where there is none, and the sequences of those it holds."""
    deletions = list(ranges)
    if not deletions:
        return b"", []
    try:
        payload = encode_ranges(deletions)
        # Of what is written, which may be fewer.
        return payload, [kept.sequence for kept in decode_ranges(memoryview(payload))]
    except ValueError as error:
        raise InvalidArgument(str(error)) from error
