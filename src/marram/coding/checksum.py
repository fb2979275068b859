# cython: boundscheck=False, wraparound=False, cdivision=True
"""Checksums of everything on disk, tagged with their kind so that the kind can change.

Owns the choice of algorithm; a file or frame stores the kind byte beside the checksum.
CRC-32 (IEEE) through zlib; isal computes the same values faster where it is installed.

Compiled, short runs of bytes are done here: a call of zlib costs more than they take. The two ways
give the same values (tests/coding/test_checksum.py).

Threading: pure functions.
"""

from __future__ import annotations

from array import array

from marram import compiled

try:
    from isal.isal_zlib import crc32  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    from zlib import crc32

__all__ = [
    "KIND_CRC32", "crc32", "crc32_short", "number_seed", "place_seed", "place_start", "reseeded",
]  # fmt: skip

KIND_CRC32 = 1
"""The only kind there is so far. Never reuse a number."""

# Names, since as literals compiled code would take them for Python integers.
_POLYNOMIAL = 0xEDB88320
_ONES = 0xFFFFFFFF
_HIGHEST = 0x80000000

# Bytes up to which the loop here is quicker than zlib with its call: 52 bytes take 25 ns instead of
# 140, 132 bytes 55 instead of 170. Interpreted there is no such length.
_SHORT = 256 if compiled.state() == "compiled" else 0

# Bytes from which on it is quicker to make a factor for a size than to look: that takes 0.2 us, and
# zlib 0.4 for 1 KiB and 1.1 for 4.
_QUICK_FROM = 1024

_PACKED_MAX = 10**16  # sixteen digits of four bits are 64 bits


def _tables() -> memoryview:
    """Eight tables of 256: [n][b] is what byte b does to a checksum n bytes further on.

    One number where nothing is done here.
    """
    if not _SHORT:
        return memoryview(array("I", [0]))
    tables = array("I", bytes(8 * 256 * 4))
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        tables[byte] = value
    for at in range(256, 8 * 256):
        before = tables[at - 256]
        tables[at] = before >> 8 ^ tables[before & 0xFF]
    return memoryview(tables)


_TABLES = _tables()


def crc32_short(data: bytes | bytearray, start: int, stop: int, seed: int) -> int:
    """crc32(data[start:stop], seed), quick where that is short; 0 <= start <= stop <= len(data)."""
    if stop - start > _SHORT:
        whole = start == 0 and stop == len(data)
        long: int = crc32(data if whole else memoryview(data)[start:stop], seed)
        return long
    assert 0 <= start <= stop <= len(data)
    return crc32_run(data, start, stop, seed)


def crc32_run(data: bytes | bytearray | memoryview, at: int, stop: int, seed: int) -> int:
    """crc32_short() without a look at sizes. Only ever compiled: see _SHORT."""
    # Eight bytes a step ("slicing by 8").
    value = seed ^ _ONES
    while stop - at >= 8:
        value ^= data[at] | data[at + 1] << 8 | data[at + 2] << 16 | data[at + 3] << 24
        value = (
            _TABLES[1792 + (value & 0xFF)]
            ^ _TABLES[1536 + (value >> 8 & 0xFF)]
            ^ _TABLES[1280 + (value >> 16 & 0xFF)]
            ^ _TABLES[1024 + (value >> 24)]
            ^ _TABLES[768 + data[at + 4]]
            ^ _TABLES[512 + data[at + 5]]
            ^ _TABLES[256 + data[at + 6]]
            ^ _TABLES[data[at + 7]]
        )
        at += 8
    while at < stop:
        value = value >> 8 ^ _TABLES[(value ^ data[at]) & 0xFF]
        at += 1
    return value ^ _ONES


def reseeded(data: bytes, checksum: int, seed: int, other: int) -> int:
    """crc32(data, other), where crc32(data, seed) is known to be `checksum`.

    Compiled, without a look at the data: a checksum is linear in its seed, so the two differ by
    what as many zeros make of the seeds' difference.
    """
    global _last_size, _last_power, _has_multiples  # noqa: PLW0603 - batches are often of one size
    size = len(data)
    if not _SHORT or (size < _QUICK_FROM and size != _last_size and size > _SHORT):
        whole: int = crc32(data, other)
        return whole
    if size == _last_size:
        if not _has_multiples:
            _set_multiples(_last_power)
            _has_multiples = True
        return checksum ^ _multiple(seed ^ other)
    power, exponent, rest = 1 << 31, 3, size
    while rest:
        if rest & 1:
            power = _product(_SQUARES[exponent & 31], power)
        rest >>= 1
        exponent += 1
    _last_size, _last_power, _has_multiples = size, power, False
    return checksum ^ _product(power, seed ^ other)


def _set_multiples(power: int) -> None:
    """Have in _MULTIPLES[16 * n + d] what _product() makes of `power` and d << 4 * n."""
    value = power
    for bit in range(31, -1, -1):
        _MULTIPLES[(bit >> 2 << 4) + (1 << (bit & 3))] = value
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    for first in range(0, 128, 16):
        for digit in range(3, 16):
            lowest = digit & -digit
            _MULTIPLES[first + digit] = (
                _MULTIPLES[first + lowest] ^ _MULTIPLES[first + digit - lowest]
            )


def _multiple(number: int) -> int:
    """_product() of what _set_multiples() was given, and a number: one step for each four bits."""
    product, first = 0, 0
    while number:
        product ^= _MULTIPLES[first + (number & 15)]
        number >>= 4
        first += 16
    return product


def _product(left: int, right: int) -> int:
    """Of polynomials modulo the CRC's; the highest bit is the coefficient of 1."""
    product = 0
    while left:
        if left & _HIGHEST:
            product ^= right
        left = left << 1 & _ONES
        right = right >> 1 ^ (_POLYNOMIAL if right & 1 else 0)
    return product


def _squares() -> memoryview:
    """x, and each the square of the one before."""
    squares = array("I", [1 << 30])
    for at in range(31):
        squares.append(_product(squares[at], squares[at]))
    return memoryview(squares)


_SQUARES = _squares()
_last_size, _last_power = 0, 1 << 31  # x to the power of eight times the size
_MULTIPLES = array("I", bytes(128 * 4))
_has_multiples = False  # of _last_power


def place_seed(file_number: int, offset: int, store_id: bytes) -> int:
    """A CRC seed that binds a checksum to its place.

    file_number: the file's own number; offset: where the checked bytes start in it, bytes;
    store_id: 16 bytes. A block that is read back from any other place, file or store then fails,
    even though its bytes are intact.
    """
    return number_seed(offset, place_start(file_number, store_id))


def place_start(file_number: int, store_id: bytes) -> int:
    """What all place seeds of one file have in common, for number_seed()."""
    start: int = crc32(b"%d:" % file_number, crc32(store_id))
    return start


def number_seed(offset: int, start: int) -> int:
    """place_seed() at `offset` of the file that place_start() gave `start` for."""
    if not _SHORT or offset >= _PACKED_MAX:
        seed: int = crc32(b"%d" % offset, start)
        return seed
    return number_run(offset, start)


def number_run(offset: int, start: int) -> int:
    """number_seed() of an offset below _PACKED_MAX. Only ever compiled: see _SHORT."""
    # The checksum of its decimal digits, the first of them first.
    digits, size = offset % 10, 1  # four bits each, the first one lowest
    rest = offset // 10
    while rest:
        digits = digits << 4 | rest % 10
        rest //= 10
        size += 1
    value = start ^ _ONES
    while size:
        value = value >> 8 ^ _TABLES[(value ^ (48 + (digits & 15))) & 0xFF]
        digits >>= 4
        size -= 1
    return value ^ _ONES
