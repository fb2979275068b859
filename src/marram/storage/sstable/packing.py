# cython: boundscheck=False, wraparound=False, cdivision=True
"""Plain rows as data blocks, in loops over what is there, with no object a row; for compiled code.

Owns the bytes of such blocks, which are those that block.encode_rows() and format.seal_block()
make of the same rows, and where such a block ends, which the writer does not do otherwise: its
rules, with the rows read where they are. Not what is known of a table besides (writer.py).

Of a frozen map whole blocks are made next to each other, to be written at once: some megabytes in
one go, without the interpreter's lock. A thread that needs it back may wait for five milliseconds,
so a lock a block would make a flush slow beside a busy writer, however little it takes.

Interpreted this is slow, and nothing uses it but the tests.

Threading: one thread's.
"""

from __future__ import annotations

from array import array

from marram.coding.checksum import crc32, number_seed
from marram.errors import InvalidArgument
from marram.storage.sstable.block import ENDS_SIZE, MAX_ROW_OVERHEAD
from marram.storage.sstable.format import BLOCK_OVERHEAD, DATA, MAX_PAYLOAD
from marram.storage.sstable.frozen import FrozenMap

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

if not cython.compiled:  # else they are inlined, or C
    from marram.coding.raw import bytes_at, order, put_u32, put_u64, put_view, size_at, view

    number_run = number_seed

    def crc32_run(data: bytes | bytearray, at: int, stop: int, seed: int) -> int:
        """As checksum.py has it, compiled."""
        made: int = crc32(data[at:stop], seed)
        return made


KEY_RATIO = 16
"""Two neighbouring blocks hold more than this many times the last key of the first: it is what
bounds the index where keys are long (writer.py W2)."""

MAX_ROW_BYTES = MAX_PAYLOAD - MAX_ROW_OVERHEAD
"""What a row may add to a block, bytes."""

# What is made at once. Less would be more waits for the lock.
_ROOM_BYTES = 2 * 1024 * 1024
_MOST_BLOCKS = 8192

_KEY_RATIO = KEY_RATIO
_LONG_BLOCK = MAX_ROW_BYTES // 2  # no more rows join for a long key's sake
_ENDS = ENDS_SIZE
_NUMBER = 8  # bytes of a sequence number
# Before the columns: rows u32, then keyspace, flags and a zero, which are a u32 together.
_COLUMNS_AT = 8
_HAS_SEQUENCES = 4 << 8
# Before the payload: kind and compression u8, stored bytes and raw bytes u32; behind it a u32.
_PAYLOAD_AT = BLOCK_OVERHEAD - 4
_OVERHEAD = BLOCK_OVERHEAD
_KIND = DATA


class Packing:
    """Room for blocks, and what the last fill() put there.

    used: bytes; key_bytes, value_bytes: of the rows in it. rows, sizes: of each block; checksums:
    of each row's key, as filter.py has them.
    """

    __slots__ = (
        "_block_rows", "_block_sizes", "_checksums", "_count", "_data", "_next", "_room",
        "_room_bytes", "_size", "key_bytes", "used", "value_bytes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.used = self.key_bytes = self.value_bytes = 0
        self._count = self._next = self._size = 0
        self._block_rows = memoryview(array("Q", bytes(8 * _MOST_BLOCKS)))
        self._block_sizes = memoryview(array("Q", bytes(8 * _MOST_BLOCKS)))
        self._make_room(_ROOM_BYTES)

    @property
    def data(self) -> memoryview:
        """The blocks; good until the next fill()."""
        return memoryview(self._data)[: self.used]

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """Of each block: how many rows it has, and how many bytes."""
        return [(self._block_rows[at], self._block_sizes[at]) for at in range(self._count)]

    @property
    def checksums(self) -> memoryview:
        """Of each row's key, u32, as filter.py has them; good until the next fill()."""
        return memoryview(self._checksums)[: sum(rows for rows, _ in self.blocks)]

    def stop_of(
        self, rows: FrozenMap, start: int, stop: int, size: int, last_size: int, block_bytes: int
    ) -> int:
        """The first of the rows [start, stop) that does not join a block of `size` bytes, or stop.

        They are plain. size: of the rows in the block, > 0; last_size: of the last one's key.
        """
        return self._stop_of(
            rows.keys, rows.values, rows.places, start, stop, size, last_size, block_bytes
        )

    def fill(
        self,
        rows: FrozenMap,
        keyspace: int,
        start: int,
        stop: int,
        sequence: int,
        block_bytes: int,
        offset: int,
        seed: int,
    ) -> int:
        """Make blocks of the rows [start, n), all of them whole: row n <= stop - 1 joins none.

        Returns n; it is `start` where all of [start, stop) may belong to one block. The rows are
        plain. offset: of the first block in the file; seed: its place_start(). Raises
        InvalidArgument: they are not in order, which takes a map that changed.
        """
        assert 0 <= start < stop <= rows.count
        keys, values, places = rows.keys, rows.values, rows.places
        while True:
            with cython.nogil:
                wanted = self._fill(
                    keys, values, places, keyspace, start, stop, sequence, block_bytes, offset,
                    seed,
                )  # fmt: skip
            if wanted < 0:
                raise InvalidArgument("the rows are not in order")
            if not wanted:
                return self._next
            self._make_room(wanted)

    def _make_room(self, size: int) -> None:
        self._data = bytearray(size)
        self._room = self._data
        self._room_bytes = size
        self._checksums = memoryview(array("I", bytes(4 * (size // _ENDS))))

    def _fill(
        self,
        keys: memoryview,
        values: memoryview,
        places: memoryview,
        keyspace: int,
        start: int,
        stop: int,
        sequence: int,
        block_bytes: int,
        offset: int,
        seed: int,
    ) -> int:
        """fill() as far as there is room: 0; how much the first block wants, bytes; or -1."""
        self.used = self._count = self.key_bytes = self.value_bytes = 0
        self._next = start
        while self._count < _MOST_BLOCKS:
            first, key_bytes, value_bytes = self._next, self.key_bytes, self.value_bytes
            end = self._stop_of(keys, values, places, first, stop, 0, 0, block_bytes)
            size = _COLUMNS_AT + self._size + (_NUMBER * (end - first) if sequence else 0)
            if end == stop or self.used + size + _OVERHEAD > self._room_bytes:
                self.key_bytes, self.value_bytes = key_bytes, value_bytes
                return size + _OVERHEAD if end < stop and not self._count else 0
            at = self.used
            self._put_columns(keys, values, places, keyspace, first, end, sequence, key_bytes)
            if not self._note_keys(keys, places, keyspace, start, first, end):
                return -1
            self._room[at], self._room[at + 1] = _KIND, 0
            put_u32(self._room, at + 2, size)
            put_u32(self._room, at + 6, size)
            stop_at = at + _PAYLOAD_AT + size
            checksum = crc32_run(self._room, at, stop_at, number_run(offset + at, seed))
            put_u32(self._room, stop_at, checksum)
            self.used = at + size + _OVERHEAD
            self._block_rows[self._count] = end - first
            self._block_sizes[self._count] = size + _OVERHEAD
            self._count += 1
            self._next = end
        return 0

    def _stop_of(
        self,
        keys: memoryview,
        values: memoryview,
        places: memoryview,
        start: int,
        stop: int,
        size: int,
        last_size: int,
        block_bytes: int,
    ) -> int:
        """stop_of(); of a new block, size 0, the first row is one in any case.

        Adds to key_bytes and value_bytes those of the rows up to there; _size: of the block then.
        """
        for at in range(start, stop):
            place = places[at]
            key_size, value_size = size_at(keys[place]), size_at(values[place])
            total = size + key_size + value_size + _ENDS
            # A long last key weighs in the index: let more rows share its block.
            if (
                size
                and total > block_bytes
                and (total >= _KEY_RATIO * last_size or total >= _LONG_BLOCK)
            ):
                self._size = size
                return at
            self.key_bytes += key_size
            self.value_bytes += value_size
            size, last_size = total, key_size
        self._size = size
        return stop

    def _put_columns(
        self,
        keys: memoryview,
        values: memoryview,
        places: memoryview,
        keyspace: int,
        start: int,
        stop: int,
        sequence: int,
        key_bytes: int,
    ) -> None:
        """Write the payload of the next block. key_bytes: of all blocks before it."""
        room = self._room
        count = stop - start
        at = self.used + _PAYLOAD_AT
        put_u32(room, at, count)
        put_u32(room, at + 4, keyspace | (_HAS_SEQUENCES if sequence else 0))
        key_end_at = at + _COLUMNS_AT
        value_end_at = key_end_at + 4 * count
        number_at = value_end_at + 4 * count
        key_at = number_at + (_NUMBER * count if sequence else 0)
        value_at = key_at + self.key_bytes - key_bytes
        key_end = value_end = 0
        for row in range(start, stop):
            place = places[row]
            key, value = keys[place], values[place]
            key_size, value_size = size_at(key), size_at(value)
            put_view(room, key_at + key_end, bytes_at(key), key_size)
            put_view(room, value_at + value_end, bytes_at(value), value_size)
            key_end += key_size
            value_end += value_size
            put_u32(room, key_end_at + 4 * (row - start), key_end)
            put_u32(room, value_end_at + 4 * (row - start), value_end)
            if sequence:
                put_u64(room, number_at + _NUMBER * (row - start), sequence)

    def _note_keys(
        self,
        keys: memoryview,
        places: memoryview,
        keyspace: int,
        first: int,
        start: int,
        stop: int,
    ) -> bool:
        """Note the checksums of the rows [start, stop); False where one is not in order.

        first: the row whose checksum is the first one.
        """
        for row in range(start, stop):
            key = keys[places[row]]
            if row > first:
                last = keys[places[row - 1]]
                if order(bytes_at(last), size_at(last), bytes_at(key), size_at(key)) >= 0:
                    return False
            self._checksums[row - first] = crc32_run(bytes_at(key), 0, size_at(key), keyspace)
        return True


def block_of(
    keys: list[bytes], values: list[bytes], start: int, block_bytes: int
) -> tuple[int, int]:
    """Where the block ends that begins with row `start` of two columns, and its rows' bytes.

    If no more rows come, that is.
    """
    size = last_size = 0
    for at in range(start, len(keys)):
        key, value = keys[at], values[at]
        total = size + len(key) + len(value) + _ENDS
        if (
            size
            and total > block_bytes
            and (total >= _KEY_RATIO * last_size or total >= _LONG_BLOCK)
        ):
            return at, size
        size, last_size = total, len(key)
    return len(keys), size


def payload_of(
    keyspace: int,
    keys: list[bytes],
    values: list[bytes],
    sequences: list[int],
    start: int,
    stop: int,
) -> bytes:
    """block.encode_rows() of plain rows [start, stop) of columns, in one part; start < stop.

    sequences: [] for zeros. They fit a block.
    """
    count = stop - start
    key_bytes = value_bytes = 0
    has_sequences = False
    for row in range(start, stop):
        key, value = keys[row], values[row]
        key_bytes += len(key)
        value_bytes += len(value)
    if sequences:
        for row in range(start, stop):
            number = sequences[row]
            has_sequences = has_sequences or number != 0
    number_at = _COLUMNS_AT + _ENDS * count
    key_at = number_at + (_NUMBER * count if has_sequences else 0)
    value_at = key_at + key_bytes
    made = bytearray(value_at + value_bytes)
    room = made
    put_u32(room, 0, count)
    put_u32(room, 4, keyspace | (_HAS_SEQUENCES if has_sequences else 0))
    key_end = value_end = 0
    for row in range(start, stop):
        key, value = keys[row], values[row]
        put_view(room, key_at + key_end, view(key, 0, len(key)), len(key))
        put_view(room, value_at + value_end, view(value, 0, len(value)), len(value))
        key_end += len(key)
        value_end += len(value)
        put_u32(room, _COLUMNS_AT + 4 * (row - start), key_end)
        put_u32(room, _COLUMNS_AT + 4 * (count + row - start), value_end)
        if has_sequences:
            number = sequences[row]
            put_u64(room, number_at + _NUMBER * (row - start), number)
    return bytes(made)


def checksums_of(keyspace: int, keys: list[bytes]) -> memoryview:
    """Of each key, u32, as filter.py has them."""
    made = memoryview(array("I", bytes(4 * len(keys))))
    found = made
    for at in range(len(keys)):
        key = keys[at]
        found[at] = crc32_run(view(key, 0, len(key)), 0, len(key), keyspace)
    return made


def extent_of(sequences: list[int]) -> tuple[int, int]:
    """The lowest and the highest of some numbers. Raises OverflowError: one is not of 64 bits."""
    lowest = highest = sequences[0]
    for at in range(1, len(sequences)):
        number = sequences[at]
        lowest = min(lowest, number)
        highest = max(highest, number)
    return lowest, highest
