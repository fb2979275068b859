"""Reads a table: by key, in order either way, or all of it to check it.

Owns finding, reading and cross-checking blocks; not their bytes (block.py, filter.py, format.py)
and not keeping them: a BlockStore does, where whoever opens many tables sees all of them.

R1  a row is returned only after the checksums over it, and over the way to it, were right.
R2  every byte of the file has a place: header, data blocks, named blocks, directory and footer
    touch each other and fill it.
R3  opening costs memory for the index and the filter; reading, for READ_BYTES or one block,
    whichever is more.

Threading: a Table does not change while it is open; any number of threads may read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, ParamSpec, TypeVar

from marram.coding.checksum import number_seed, place_start
from marram.env.api import File
from marram.errors import Closed, Corruption, UnsupportedFormat
from marram.storage.sstable.block import (
    TOMBSTONE,
    Columns,
    DataBlock,
    Index,
    Kept,
    Row,
    VersionRow,
    decode_index,
    decode_map,
    stored_key,
)
from marram.storage.sstable.filter import Filter, Probe, probe_of
from marram.storage.sstable.format import (
    BLOCK_OVERHEAD,
    DATA,
    DIRECTORY,
    FILTER,
    FOOTER_SIZE,
    HEADER_SIZE,
    INDEX,
    PROPERTIES,
    RANGES,
    Handle,
    Place,
    check_header,
    unpack_footer,
    unpack_handle,
    unseal_block,
)
from marram.storage.sstable.ranges import RangeDeletion, decode_ranges

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

READ_BYTES = 1024 * 1024
"""How much a long scan reads at a time, bytes."""

# A scan may end early: its first read is small, and each one four times the one before.
_FIRST_READ_BYTES = 64 * 1024
# What opening reads first, from the end: footer, directory, properties, and a small index.
_TAIL_BYTES = 64 * 1024
# A short scan may end within this many blocks, and then come back: they are worth keeping.
_SHORT_BLOCKS = 4
_SHORT_ROWS = 16
_ALL_ROWS = 2**32

# What a range deletion takes in memory beside its keys; and the table itself.
_RANGE_MEMORY = 240
_TABLE_MEMORY = 2000

_P = ParamSpec("_P")
_T = TypeVar("_T")

# What look() asks where there is no filter, or one of no keys.
_PASS_ALL = [-1]

# A block's id is its table's number and its own, of so many bits.
_TABLE_SHIFT = 32


class BlockStore:
    """Where decoded blocks are kept, from one look-up to the next, by an id of 96 bits.

    This one keeps none; whoever has room overrides both.
    """

    __slots__ = ()

    def get(self, block_id: int) -> DataBlock | None:
        """The block, if it is there."""
        return None

    def put(self, block_id: int, block: DataBlock) -> None:
        """Keep the block, or do not."""


def block_id(table: int, block: int) -> int:
    """The id in a BlockStore of block number `block` of the table with file number `table`."""
    return table << _TABLE_SHIFT | block


def table_of(block: int) -> int:
    """The file number of the table that the block with this id is from."""
    return block >> _TABLE_SHIFT


class Table(Kept):
    """An open table; open() makes one.

    number: the file's own; size_bytes: of the file; row_count: tombstones included; smallest,
    largest: stored keys of the first and the last row, b"" where there is none; properties: those
    the writer was given, and its own ("table.rows" and so on); ranges: its range deletions, which
    smallest and largest do not cover.

    All methods may raise Corruption, with path and offset; OSError; and Closed after close().
    """

    __slots__ = (
        "_closed", "_file", "_file_seed", "_filter", "_first_id", "_index", "_kept",
        "_line_count", "_lines", "_source", "largest", "number", "properties", "ranges",
        "row_count", "size_bytes", "smallest",
    )  # fmt: skip

    @classmethod
    def open(
        cls,
        file: File,
        number: int,
        store_id: bytes,
        *,
        verify: bool = False,
        blocks: BlockStore | None = None,
    ) -> Table:
        """Open table `number` of the store `store_id` (16 bytes); close() will close `file`.

        verify: read and check all of it first. blocks: where to keep blocks that look-ups and
        short scans read. Raises Corruption: damaged, or another file; UnsupportedFormat: a newer
        version's. `file` is then the caller's to close.
        """
        table = cls(file, Place(number, store_id), blocks)
        if verify:
            table.verify()
        return table

    def __init__(self, file: File, place: Place, blocks: BlockStore | None = None) -> None:
        self._file = file
        self._closed = False
        self._kept = blocks
        self._first_id = block_id(place.number, 0)
        self.recent = False
        self._source = _Source(file, place)
        self._file_seed = place_start(place.number, place.store_id)
        contents = _read_contents(self._source)
        self._source.forget_tail()
        self._index = contents.data
        self._filter = contents.filter
        self._lines = _PASS_ALL if contents.filter is None else contents.filter.lines
        self._line_count = len(self._lines)
        self.ranges = contents.ranges
        self.number = place.number
        self.size_bytes = self._source.size
        self.properties: Mapping[str, int | bytes] = MappingProxyType(contents.properties)
        self.row_count = contents.data.total_rows
        self.smallest = contents.smallest
        self.largest = _last_of(contents.data)
        self.memory_bytes = (
            _TABLE_MEMORY
            + contents.data.memory_bytes
            + sum(_RANGE_MEMORY + len(d.start) + len(d.stop or b"") for d in self.ranges)
            + (self._filter.memory_bytes if self._filter is not None else 0)
        )

    def may_contain(self, probe: Probe) -> bool:
        """Whether it may have rows of the key that `probe` (filter.probe_of) is of.

        Always where it has no filter.
        """
        return self._filter is None or self._filter.may_contain(probe)

    def get(self, keyspace: int, key: bytes, at: int | None = None) -> Row | None:
        """The newest row of a key (it may be a tombstone), or None. O(log rows), one block read.

        at: with a sequence number <= that.
        """
        found = self.find(stored_key(keyspace, key), probe_of(keyspace, key), at)
        return None if found is None else found[:5]

    def find(self, wanted: bytes, probe: Probe, at: int | None = None) -> VersionRow | None:
        """The newest version of a stored key, or None; get() for a tree.

        wanted, probe: block.stored_key and filter.probe_of of the key, made once for all tables;
        at: with a sequence number <= that.
        Hot: 0.2 us where the filter denies the key, 1.8 us where the block is kept, 27 us where one
        of 16 KiB is read for it.
        """
        self._check_open()
        if self._filter is not None and not self._filter.may_contain(probe):
            return None
        index = self._index
        number = index.find(wanted)
        while number < index.count and index.is_in(number, wanted[0]):
            block = self._kept_block(number)
            row = block.find(wanted[1:], at)
            if row >= 0:
                return block.version(row)
            if index.last_key(number) != wanted:
                break
            # The key's older versions go on in the next block.
            number += 1
        return None

    def look(self, wanted: bytes, key: bytes, probe: Probe) -> bytes | VersionRow | None:
        """find() for a tree: of a string without a deadline the value alone, else the row.

        wanted, key, probe: the stored key, the key in it, and filter.probe_of of them.
        Hot: 0.2 us where the filter denies the key, 1 us where the block is kept; compiled a
        quarter of it.
        """
        if self._closed:
            self._check_open()
        if cython.compiled:
            if self._filter is not None and not self._filter.may_contain(probe):
                return None
        else:
            place, bits = probe
            # Filter.may_contain(), without the call.
            if self._lines[place * self._line_count >> 32] & bits != bits:
                return None
        index = self._index
        number = index.find(wanted)
        # Of versions in several blocks the newest is in the first.
        if number == index.count or not index.is_in(number, wanted[0]):
            return None
        return self._kept_block(number).look(key)

    def look_many(
        self, wanted: Sequence[bytes], probes: Sequence[Probe]
    ) -> list[bytes | VersionRow | None]:
        """look() for stored keys that ascend, each block used once; probes: theirs."""
        self._check_open()
        index = self._index
        found: list[bytes | VersionRow | None] = [None] * len(wanted)
        block: DataBlock | None = None
        current = -1  # the block's place in the index
        number = 0
        for at, (row, probe) in enumerate(zip(wanted, probes, strict=True)):
            if self._filter is not None and not self._filter.may_contain(probe):
                continue
            number = index.find(row, number)
            if number == index.count:
                break
            if not index.is_in(number, row[0]):
                continue
            if number != current or block is None:
                block, current = self._kept_block(number), number
            found[at] = block.look(row[1:])
        return found

    def chunks(
        self, start: bytes | None = None, stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[list[Row]]:
        """The rows with stored keys in [start, stop), in order, a block's at a time.

        start, stop: keyspace byte and key (block.stored_key), or None for no bound. reverse: the
        exact opposite order, so the versions of a key oldest first.
        Hot: rows of 16 + 100 bytes come out at 4.1 M/s and core, interpreted, the file in the
        page cache, all checks included.
        """
        for block, number, first, end in self._stretches(start, stop, reverse, False):
            rows = self._source.checked(self._index.offset(number), block.rows, first, end)
            yield rows[::-1] if reverse else rows

    def versions(
        self,
        start: bytes | None = None,
        stop: bytes | None = None,
        *,
        reverse: bool = False,
        short: bool = False,
    ) -> Iterator[list[VersionRow]]:
        """Like chunks(), the rows with their sequence numbers; a list is of one keyspace.

        short: the scan is likely to end early. The first lists are then short, of 16 rows, 64 and
        so on, and the first blocks come from where blocks are kept, and are kept.
        """
        for block, number, first, end in self._stretches(start, stop, reverse, short):
            rows = self._source.checked(self._index.offset(number), block.versions, first, end)
            yield rows[::-1] if reverse else rows

    def columns(
        self, start: bytes, stop: bytes, *, reverse: bool = False, first: int = 0
    ) -> Iterator[Columns]:
        """The rows with stored keys in [start, stop), without sequence numbers, by column.

        Each one ascends, also in reverse, where the later ones come first. first: rows of the first
        one, four times as many in the next, where the scan is likely to end early: versions(short);
        0 for whole blocks.
        """
        most = first or _ALL_ROWS
        checked, offset = self._source.checked, self._index.offset
        for block, number in self._blocks(start, stop, reverse, first):
            low, high = block.seek(start), block.seek(stop)
            while low < high:
                if reverse:
                    begin, end = max(low, high - most), high
                    high = begin
                else:
                    begin, end = low, min(high, low + most)
                    low = end
                yield checked(offset(number), block.columns, begin, end)
                most = min(4 * most, _ALL_ROWS)

    def stretches(
        self,
        start: bytes | None = None,
        stop: bytes | None = None,
        *,
        reverse: bool = False,
        first: int = 0,
    ) -> Iterator[tuple[DataBlock, int, int]]:
        """The rows with stored keys in [start, stop), as blocks: (block, first row, end).

        Each one ascends, also in reverse, where the later ones come first. first: how many rows are
        likely to be taken, where those are few: versions(short); else 0.
        """
        for block, number in self._blocks(start, stop, reverse, first):
            low = block.seek(start) if start is not None else 0
            high = block.seek(stop) if stop is not None else block.count
            if low < high:
                # All of it: a block that is kept is then checked once.
                self._source.checked(self._index.offset(number), block.check_order, 0, block.count)
                yield block, low, high

    def key_at(self, row: int) -> bytes:
        """The stored key of a row by its number, in [0, row_count); for samples. One block read."""
        self._check_open()
        if row < 0:
            raise IndexError(row)
        for number, rows in enumerate(self._index.rows):
            if row < rows:
                block = self._kept_block(number)
                return stored_key(block.keyspace, block.key(row))
            row -= rows
        raise IndexError(row)

    def verify(self) -> None:
        """Read every byte and check every invariant of the format. Raises Corruption."""
        self._check_open()
        source = _Source(self._file, self._source.place)
        contents = _read_contents(source)
        for name, handle in contents.named.items():
            if name not in _KNOWN_NAMES:  # a newer writer's: its checksum must be right
                source.payload(handle, None, bytes)
        totals = _Totals()
        for block, number in self._blocks(None, None, False, 0):
            keys = self._source.checked(self._index.offset(number), totals.add, block)
            if contents.filter is not None:
                filter_at = contents.named["filter"].offset
                source.checked(filter_at, contents.filter.check, block.keyspace, keys)
        offset = contents.named["properties"].offset
        source.checked(offset, _check_same, totals.properties(), contents.properties)

    def close(self) -> None:
        """Close the file; idempotent."""
        self._closed = True
        self._file.close()

    # -- inside ----------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"{self._file.path} was closed")

    def _stretches(
        self, start: bytes | None, stop: bytes | None, reverse: bool, short: bool
    ) -> Iterator[tuple[DataBlock, int, int, int]]:
        """The rows with keys in [start, stop): (block, its place in the index, first row, end)."""
        most = _SHORT_ROWS if short else _ALL_ROWS
        for block, number in self._blocks(start, stop, reverse, _SHORT_ROWS if short else 0):
            first = block.seek(start) if start is not None else 0
            end = block.seek(stop) if stop is not None else block.count
            while first < end:
                if reverse:
                    upper, end = end, max(first, end - most)
                    yield block, number, end, upper
                else:
                    lower, first = first, min(end, first + most)
                    yield block, number, lower, first
                most = min(4 * most, _ALL_ROWS)

    def _blocks(
        self, start: bytes | None, stop: bytes | None, reverse: bool, wanted: int
    ) -> Iterator[tuple[DataBlock, int]]:
        """The blocks that may hold keys in [start, stop), and their places in the index.

        wanted: how many rows are likely to be taken, if those are few; else 0.
        """
        index = self._index
        first = index.find(start) if start is not None else 0
        end = index.count
        if stop is not None:
            end = min(end, index.find(stop) + 1)
        if wanted and self._kept is not None and first < end:
            kept = min(_SHORT_BLOCKS, end - first)
            group = range(end - kept, end) if reverse else range(first, first + kept)
            # So many blocks have that many rows, about, if the first one is left half way.
            ahead = min(kept, 1 + wanted * index.count // self.row_count)
            yield from self._kept_blocks(group[::-1] if reverse else group, ahead)
            first, end = (first, group.start) if reverse else (group.stop, end)
        read_bytes = _FIRST_READ_BYTES
        while first < end:
            if reverse:
                group = range(self._group_start(first, end, read_bytes), end)
                end = group.start
            else:
                group = range(first, self._group_stop(first, end, read_bytes))
                first = group.stop
            yield from self._read_blocks(group, reverse, False)
            read_bytes = min(4 * read_bytes, READ_BYTES)

    def _group_stop(self, first: int, end: int, read_bytes: int) -> int:
        """Blocks [first, the result) come in one read: of read_bytes at most, or one block."""
        index = self._index
        beyond = index.offset(first) + read_bytes + 1
        return max(index.find_offset(beyond, first + 1, end + 1) - 1, first + 1)

    def _group_start(self, first: int, end: int, read_bytes: int) -> int:
        """Blocks [the result, end) come in one read: of read_bytes at most, or one block."""
        index = self._index
        return index.find_offset(max(0, index.offset(end) - read_bytes), first, end - 1)

    def _read_blocks(
        self, group: range, reverse: bool, are_kept: bool
    ) -> Iterator[tuple[DataBlock, int]]:
        """Blocks that come with one read, whose bytes they share unless they are kept."""
        self._check_open()
        offset = self._index.offset
        begin = offset(group.start)
        data = self._source.read(begin, offset(group.stop) - begin)
        for number in reversed(group) if reverse else group:
            view = data[offset(number) - begin : offset(number + 1) - begin]
            yield self._decode_block(number, view, are_kept and len(group) > 1), number

    def _kept_blocks(self, numbers: range, ahead: int) -> Iterator[tuple[DataBlock, int]]:
        """Neighbouring blocks, from where blocks are kept; others come with one read.

        ahead: how many are likely to be taken; of so many nobody waits for each.
        """
        assert self._kept is not None
        at = 0
        while at < len(numbers):
            number = numbers[at]
            self._check_open()
            block = self._kept.get(self._first_id + number)
            if block is not None:
                at += 1
                yield block, number
                continue
            stop = at + 1
            while stop < ahead and self._kept.get(self._first_id + numbers[stop]) is None:
                stop += 1
            low, high = sorted((number, numbers[stop - 1]))
            for block, number in self._read_blocks(range(low, high + 1), numbers.step < 0, True):
                self._kept.put(self._first_id + number, block)
                yield block, number
            at = stop

    def _kept_block(self, number: int) -> DataBlock:
        """Data block `number`, from the store of blocks or for it."""
        if self._kept is None:
            return self._read_block(number)
        block = self._kept.get(self._first_id + number)
        if block is None:
            block = self._read_block(number)
            self._kept.put(self._first_id + number, block)
        return block

    def _read_block(self, number: int) -> DataBlock:
        offset = self._index.offset(number)
        size = self._index.offset(number + 1) - offset
        return self._decode_block(number, self._source.read(offset, size), False)

    def _decode_block(self, number: int, data: memoryview, is_copied: bool) -> DataBlock:
        """Data block `number`, which fills `data`. is_copied: hold none of it but a copy."""
        offset = self._index.offset(number)
        try:
            return self._checked_block(number, data, offset, is_copied)
        except (ValueError, UnsupportedFormat) as error:
            raise self._source.wrong(offset, error) from error

    def _checked_block(
        self, number: int, data: memoryview, offset: int, is_copied: bool
    ) -> DataBlock:
        """_decode_block(). Raises ValueError: not what the index says."""
        seed = number_seed(offset, self._file_seed)  # place.seed(offset)
        payload = unseal_block(data, DATA, seed)
        block = DataBlock(bytes(payload) if is_copied else payload)
        index = self._index
        if block.count != index.row_count(number):
            raise ValueError(f"{block.count} rows, the index says {index.row_count(number)}")
        if stored_key(block.keyspace, block.key(block.count - 1)) != index.last_key(number):
            raise ValueError("the last key is not the one in the index")
        if number and stored_key(block.keyspace, block.key(0)) < index.last_key(number - 1):
            raise ValueError("the first key is below the last one of the block before")
        return block


def _last_of(index: Index) -> bytes:
    """The stored key of the last row of all, b"" where there is none."""
    return index.last_key(index.count - 1) if index.count else b""


class _Source:
    """The file, read with checks: what is wrong becomes Corruption with path and offset."""

    __slots__ = ("_file", "_tail", "place", "size")

    def __init__(self, file: File, place: Place) -> None:
        self._file = file
        self.place = place
        self.size = file.size()
        self._tail: memoryview | None = None

    def read_tail(self) -> None:
        """Have the end of the file at hand for what is read next."""
        size = min(self.size, _TAIL_BYTES)
        self._tail = self.read(self.size - size, size)

    def forget_tail(self) -> None:
        """Free what read_tail() read."""
        self._tail = None

    def read(self, offset: int, size: int) -> memoryview:
        """Exactly the bytes [offset, offset + size). The caller knows that the file has them."""
        if self._tail is not None and offset >= self.size - len(self._tail):
            at = offset - (self.size - len(self._tail))
            return self._tail[at : at + size]
        data = self._file.read(size, offset)
        if len(data) != size:
            raise Corruption("the file is cut short", self._file.path, offset + len(data))
        return memoryview(data)

    def payload(self, handle: Handle, kind: int | None, decode: Callable[[memoryview], _T]) -> _T:
        """What a block holds, decoded."""
        data = self.read(*handle)
        seed = self.place.seed(handle.offset)
        payload = self.checked(handle.offset, unseal_block, data, kind, seed)
        return self.checked(handle.offset, decode, payload)

    def checked(
        self, offset: int, compute: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """compute(...), whose ValueError says what is wrong with the bytes at `offset`."""
        try:
            return compute(*args, **kwargs)
        except (ValueError, UnsupportedFormat) as error:
            raise self.wrong(offset, error) from error

    def wrong(self, offset: int, error: Exception) -> Exception:
        """What is raised for an error about the bytes at `offset`."""
        if isinstance(error, UnsupportedFormat):
            return UnsupportedFormat(f"{self._file.path} @ {offset}: {error}")
        return Corruption(str(error), self._file.path, offset)


_KNOWN_NAMES = ("filter", "index", "properties", "ranges")


class _Contents(NamedTuple):
    """All but the rows. named: every block the directory names, unknown ones too."""

    named: dict[str, Handle]
    data: Index
    properties: dict[str, int | bytes]
    smallest: bytes
    filter: Filter | None
    ranges: tuple[RangeDeletion, ...]


def _read_contents(source: _Source) -> _Contents:
    """Read and cross-check header, footer, directory, index and properties (R2)."""
    header = source.read(0, min(source.size, HEADER_SIZE))
    source.checked(0, check_header, bytes(header), source.place)
    source.read_tail()
    footer_at = max(HEADER_SIZE, source.size - FOOTER_SIZE)
    footer = bytes(source.read(footer_at, source.size - footer_at))
    directory = source.checked(footer_at, unpack_footer, footer, source.size, source.place)
    entries = source.payload(directory, DIRECTORY, decode_map)
    named = source.checked(directory.offset, _named_blocks, entries, directory.offset)
    index = source.payload(named["index"], INDEX, _decode_index)
    data_end = min(handle.offset for handle in named.values())
    source.checked(named["index"].offset, _check_index, index, data_end)
    properties = source.payload(named["properties"], PROPERTIES, decode_map)
    smallest = source.checked(named["properties"].offset, _check_properties, properties, index)
    keys_filter = source.payload(named["filter"], FILTER, Filter) if "filter" in named else None
    ranges = source.payload(named["ranges"], RANGES, decode_ranges) if "ranges" in named else ()
    return _Contents(named, index, properties, smallest, keys_filter, ranges)


def _decode_index(payload: memoryview) -> Index:
    return decode_index(payload, HEADER_SIZE)


def _named_blocks(entries: Mapping[str, int | bytes], end: int) -> dict[str, Handle]:
    """Handles of the blocks the directory names, which must touch up to `end`."""
    named = {
        name: unpack_handle(value) for name, value in entries.items() if isinstance(value, bytes)
    }
    if len(named) != len(entries) or not named.keys() >= {"index", "properties"}:
        raise ValueError("the directory does not name the index and the properties")
    for handle in sorted(named.values(), reverse=True):
        if handle.stop != end or handle.size < BLOCK_OVERHEAD:
            raise ValueError(f"a block of {handle.size} bytes at {handle.offset} leaves a gap")
        end = handle.offset
    return named


def _check_index(index: Index, end: int) -> None:
    """Check that the data blocks fill the file from the header to `end`."""
    if index.offset(index.count) != end:
        raise ValueError(f"the data blocks end at {index.offset(index.count)}, not {end}")


def _check_properties(properties: Mapping[str, int | bytes], index: Index) -> bytes:
    """Check the properties against the index; returns the smallest stored key."""
    largest = _last_of(index)
    _check_same({"table.rows": index.total_rows, "table.largest": largest}, properties)
    smallest = properties.get("table.smallest")
    if not isinstance(smallest, bytes) or bool(smallest) != bool(largest) or smallest > largest:
        raise ValueError("property table.smallest does not fit table.largest")
    return smallest


def _check_same(expected: Mapping[str, int | bytes], found: Mapping[str, int | bytes]) -> None:
    wrong = [name for name, value in expected.items() if found.get(name) != value]
    if wrong:
        raise ValueError(f"not what the rows add up to: {', '.join(wrong)}")


class _Totals:
    """What verify() adds up over all rows, to compare with the properties."""

    def __init__(self) -> None:
        self._rows = self._tombstones = self._key_bytes = self._value_bytes = 0
        self._smallest = b""
        self._last = (b"", 0)  # stored key and sequence of the last row so far
        self._sequences: list[int] = []  # lowest and highest so far

    def add(self, block: DataBlock) -> list[bytes]:
        """The next block, in order; returns its keys. Raises ValueError: its rows are not."""
        rows = block.versions(0, block.count)
        sequences = [row[5] for row in rows]
        first = stored_key(*rows[0][:2])
        key, sequence = self._last
        if first < key or (first == key and sequences[0] >= sequence):
            raise ValueError("rows out of order between two data blocks")
        if not self._rows:
            self._smallest = first
        self._last = (stored_key(*rows[-1][:2]), sequences[-1])
        self._rows += len(rows)
        self._tombstones += sum(row[4] == TOMBSTONE for row in rows)
        self._key_bytes += sum(len(row[1]) for row in rows)
        self._value_bytes += sum(len(row[2]) for row in rows)
        seen = (*self._sequences, *sequences)
        self._sequences = [min(seen), max(seen)]
        return [row[1] for row in rows]

    def properties(self) -> dict[str, int | bytes]:
        """The properties the table should have, but for those the index has checked."""
        lowest, highest = self._sequences or (0, 0)
        return {
            "table.key_bytes": self._key_bytes,
            "table.max_sequence": highest,
            "table.min_sequence": lowest,
            "table.rows": self._rows,
            "table.smallest": self._smallest,
            "table.tombstones": self._tombstones,
            "table.value_bytes": self._value_bytes,
        }
