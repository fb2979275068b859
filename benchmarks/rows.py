"""Rows that can be checked without keeping them: key and value follow from a number.

Keys are 16 bytes, spread evenly over the key space, so that putting rows by ascending number puts
them in random order. Values are 1 KiB, no two alike, and do not compress.

Threading: pure functions.
"""

from __future__ import annotations

import hashlib
import struct

KEY_BYTES = 16
VALUE_BYTES = 1024
ROW_BYTES = KEY_BYTES + VALUE_BYTES

_PAIR = struct.Struct(">QQ")
_WORD = 2**64 - 1


def key_of(number: int) -> bytes:
    """The key of row `number`: its number, below 2**64, after a hash of it."""
    mixed = (number * 0x9E3779B97F4A7C15) & _WORD
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    return _PAIR.pack(mixed ^ (mixed >> 31), number)


def number_of(key: bytes) -> int:
    """The number of a key; whether there is such a row, key_of() tells. Raises struct.error."""
    return int(_PAIR.unpack(key)[1])


def value_of(number: int, generation: int) -> bytes:
    """What row `number` holds after it was put for the `generation`-th time."""
    name = _PAIR.pack(number, generation)
    return name + hashlib.shake_128(name).digest(VALUE_BYTES - len(name))
