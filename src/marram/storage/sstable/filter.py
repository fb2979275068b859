"""The filter of a table: which keys it certainly does not hold (docs/formats/sstable.md).

Owns the hash of a key, the probe made of it, and the bits; not when a table is asked.

F1  a key that was added is never denied. Of other keys about 1 % pass at 10 bits a key.
F2  one hash, and one probe, serve every table; they depend on nothing but the keyspace and the
    key, in every process and version.

A filter is cut into lines of 64 bytes. A key's hash picks one line, and in each of the line's
eight words one bit; a key passes if all eight are set. So a look-up touches one cache line, and
in interpreted Python is two operations on one integer.

The hash is CRC-32, spread by a multiplication: 32 bits of choice, not 64, so that of a table with n
keys n / 2^32 more pass (0.02 % for a million). What passes of 40000 absent keys, of several kinds,
beside 60000 present ones at 10 bits, and what one hash of 16 bytes takes, interpreted:

    hash                          ns   counters  big-endian  random   UUIDs   paths
    CRC-32, multiplied            89     1.03 %      1.11 %  1.03 %  1.08 %  1.04 %
    CRC-32 of key and reverse    168     1.04 %      1.17 %  1.05 %  1.06 %  1.07 %
    BLAKE2b of 8 bytes           353     1.05 %      1.06 %  1.05 %  1.05 %  1.06 %

(Two CRCs with different seeds are no better than one: they differ by a constant of the length. A
product of the key as an integer takes 168 ns for 16 bytes, and more with each.) Whoever chooses
keys can make them pass; that costs a block read each, as a key that exists does, and no answer.

Threading: pure functions; a Filter does not change; a FilterBuilder is one thread's.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from itertools import groupby, repeat
from typing import Any

from marram.coding.checksum import crc32

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

if not cython.compiled:  # else they are inlined
    from marram.coding.raw import u32s, u64s, view

Probe = Any
"""What a look-up asks every filter; probe_of() makes it.

Compiled it is the key's hash. Interpreted it is 32 bits that pick the line, and the eight bits in
it, as one integer: those are made once for all the tables that are asked.
"""

LINE_BYTES = 64
DEFAULT_BITS_PER_KEY = 10
MAX_BITS_PER_KEY = 64

_LINE_BITS = 8 * LINE_BYTES
_MULTIPLIER = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio
_HASH_MASK = 2**64 - 1

# Two words' bits for 12 bits of the hash: _PAIR_BITS[low + 64 * high]. Twice as fast as a shift a
# word, and four times as fast as a bit at a time.
_PAIR_BITS = tuple(1 << (pair & 63) | 1 << (64 + (pair >> 6)) for pair in range(4096))


# For compiled code: what a byte adds to a CRC-32.
_STEPS = b"".join(
    [(crc32(bytes((n ^ 255,))) ^ 0xFF000000).to_bytes(4, "little") for n in range(256)]
)
_STEP = u32s(_STEPS, 0, 256)
_ONES = 0xFFFFFFFF
_FEW_BYTES = 64


def key_hash(keyspace: int, key: bytes) -> int:
    """The 64-bit hash of a key (F2)."""
    number: int = _checksum(keyspace, key) * _MULTIPLIER & _HASH_MASK
    return number


def _checksum(keyspace: int, key: bytes) -> int:
    """CRC-32 of the key from its keyspace on. Hot: compiled, a short key is not worth a call."""
    if not cython.compiled or len(key) > _FEW_BYTES:
        found: int = crc32(key, keyspace)
        return found
    checksum = keyspace ^ _ONES
    data = view(key, 0, len(key))
    for at in range(len(key)):
        checksum = _STEP[(checksum ^ data[at]) & 255] ^ checksum >> 8
    return checksum ^ _ONES


def probe_of(keyspace: int, key: bytes) -> Probe:
    """What to ask every table's filter for this key. Hot: once a look-up."""
    if cython.compiled:
        number = _checksum(keyspace, key)
        return number * _MULTIPLIER
    number = crc32(key, keyspace) * _MULTIPLIER & _HASH_MASK  # key_hash(), without the call
    pairs = _PAIR_BITS
    return number >> 32, (
        pairs[number & 4095]
        | pairs[number >> 12 & 4095] << 128
        | pairs[number >> 24 & 4095] << 256
        | pairs[number >> 36 & 4095] << 384
    )


class Filter:
    """A filter, ready to be asked. Raises ValueError: the payload is none.

    lines: interpreted, as integers, for whoever asks without a call. memory_bytes: about what it
    takes in memory: interpreted 1.6 times the payload, for whole lines as integers answer twice as
    fast as words do.
    """

    __slots__ = ("_count", "_payload", "_words", "lines", "memory_bytes")

    def __init__(self, payload: bytes | memoryview) -> None:
        if not payload or len(payload) % LINE_BYTES:
            raise ValueError(f"a filter of {len(payload)} bytes")
        data = bytes(payload)
        self._count = len(data) // LINE_BYTES
        if cython.compiled:
            self._payload = data
            self._words = u64s(data, 0, len(data) // 8)
            self.lines: list[int] = []
            self.memory_bytes = len(data)
        else:
            from_bytes = int.from_bytes
            self.lines = [
                from_bytes(data[at : at + LINE_BYTES], "little")
                for at in range(0, len(data), LINE_BYTES)
            ]
            # A line of 512 bits is an object of 96 bytes, and 8 in the list.
            self.memory_bytes = 104 * self._count

    def may_contain(self, probe: Probe) -> bool:
        """Whether the key may be there; False is certain (F1). Hot: 0.15 us interpreted."""
        if not cython.compiled:
            place, bits = probe
            found: bool = self.lines[place * self._count >> 32] & bits == bits
            return found
        number = probe
        at = ((number >> 32) * self._count >> 32) * 8
        for word in range(8):  # noqa: SIM110 (a generator is no loop in C)
            if not self._words[at + word] >> (number >> 6 * word & 63) & 1:
                return False
        return True

    def check(self, keyspace: int, keys: Sequence[bytes]) -> None:
        """Check that every one of `keys` passes. Raises ValueError."""
        if not all(map(self.may_contain, map(probe_of, repeat(keyspace), keys))):
            raise ValueError("the filter denies a key of its table (F1)")


class FilterBuilder:
    """Takes the keys of a table in order, 4 bytes of memory each, and makes its filter."""

    __slots__ = ("_checksums",)

    def __init__(self) -> None:
        self._checksums = array("I")

    def add(self, keyspace: int, keys: Sequence[bytes], *, distinct: bool) -> None:
        """Add keys, in order; one that is there already takes no more room.

        distinct: no two of `keys` are equal. Hot: 0.1 us a key.
        """
        if cython.compiled:
            checksums = _checksums(keyspace, keys)
        else:
            checksums = array("I", map(crc32, keys, repeat(keyspace)))
        if not distinct:  # versions of a key are neighbours, and their checksums equal
            checksums = array("I", (checksum for checksum, _ in groupby(checksums)))
        if self._checksums and checksums and checksums[0] == self._checksums[-1]:
            del checksums[0]  # more versions of the key that came last
        self._checksums.extend(checksums)

    def add_checksums(self, checksums: memoryview) -> None:
        """Add distinct keys, in order, by their CRC-32, u32, seeded with the keyspace; >= 1."""
        if self._checksums and checksums[0] == self._checksums[-1]:
            checksums = checksums[1:]  # as add() has it
        self._checksums.frombytes(checksums.cast("B"))

    def encode(self, bits_per_key: int, max_bytes: int) -> bytes:
        """The payload: `bits_per_key` for each key, but max_bytes at most; b"" without keys."""
        count = min(-(-len(self._checksums) * bits_per_key // _LINE_BITS), max_bytes // LINE_BYTES)
        if cython.compiled:
            return words_of(self._checksums, count)
        return lines_of(self._checksums, count)


def _checksums(keyspace: int, keys: Sequence[bytes]) -> array[int]:
    """_checksum() of each key, fast compiled."""
    made = array("I", bytes(4 * len(keys)))
    if keys:
        found = made
        for at, key in enumerate(keys):
            found[at] = _checksum(keyspace, key)
    return made


def lines_of(checksums: array[int], count: int) -> bytes:
    """A filter of `count` lines for keys with these checksums, fast interpreted.

    Hot: 0.45 us a key.
    """
    lines = [0] * count
    pairs = _PAIR_BITS
    for checksum in checksums:
        number = checksum * _MULTIPLIER & _HASH_MASK
        lines[(number >> 32) * count >> 32] |= (
            pairs[number & 4095]
            | pairs[number >> 12 & 4095] << 128
            | pairs[number >> 24 & 4095] << 256
            | pairs[number >> 36 & 4095] << 384
        )
    return b"".join([line.to_bytes(LINE_BYTES, "little") for line in lines])


def words_of(checksums: array[int], count: int) -> bytes:
    """lines_of(), fast compiled: a word at a time, without the interpreter's lock.

    Hot: 0.02 us a key.
    """
    made = array("Q", bytes(LINE_BYTES * count))
    if not checksums or not count:
        return made.tobytes()
    words, hashed, keys, lines, one = made, checksums, len(checksums), count, 1
    with cython.nogil:
        for key in range(keys):
            number = hashed[key] * _MULTIPLIER & _HASH_MASK
            at = ((number >> 32) * lines >> 32) * 8
            for word in range(8):
                words[at + word] |= one << (number >> 6 * word & 63)
    if sys.byteorder == "big":
        made.byteswap()
    return made.tobytes()
