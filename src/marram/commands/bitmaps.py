"""Commands on the bits of strings: SETBIT, GETBIT, BITCOUNT, BITPOS, BITOP.

Owns their handlers and rows, and what a bit offset may be; bitfield.py has BITFIELD. Bit 0 is the
highest bit of byte 0. Strings are taken as integers of up to 64 KiB, never bit by bit or byte by
byte, so that a look at a string of 512 MiB needs no second one.

Threading: pure handlers (spec.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from operator import and_, or_, xor
from typing import Final

from marram.coding.batch import delete, put
from marram.commands.grammar import END, KEY, KEYS, START, block, one_of, optional, word
from marram.commands.spec import (
    SYNTAX,
    Arg,
    Args,
    Command,
    CommandError,
    Outcome,
    Reply,
    flags,
    integer,
)
from marram.commands.values import MAX_STRING_BYTES, overwrite, string_entry
from marram.storage.view import View

BAD_OFFSET: Final = "ERR bit offset is not an integer or out of range"
_BAD_BIT: Final = "ERR bit is not an integer or out of range"

_SLICE_BYTES: Final = 64 << 10
_FLIPPED: Final = bytes(255 - byte for byte in range(256))


def check_offset(bit: int) -> int:
    """A bit's offset, in a string that may exist. Raises CommandError."""
    if not 0 <= bit < MAX_STRING_BYTES * 8:
        raise CommandError(BAD_OFFSET)
    return bit


def setbit(view: View, args: Args) -> Reply:
    """SETBIT key offset 0|1: gives the bit before."""
    offset = check_offset(integer(args[2], BAD_OFFSET))
    bit = integer(args[3], _BAD_BIT)
    if bit not in (0, 1):
        raise CommandError(_BAD_BIT)
    held = string_entry(view, args[1])
    at, shift = offset >> 3, 7 - (offset & 7)
    before = 0 if held is None or at >= len(held.value) else held.value[at]
    after = before | 1 << shift if bit else before & ~(1 << shift)
    if held is not None and at < len(held.value) and after == before:
        return bit
    changes = overwrite(view, args[1], held, at, bytes((after,)))
    return Outcome(before >> shift & 1, changes)


def getbit(view: View, args: Args) -> Reply:
    """GETBIT key offset: 0 beyond the end."""
    offset = check_offset(integer(args[2], BAD_OFFSET))
    value = view.string(args[1]) or b""
    at = offset >> 3
    return value[at] >> (7 - (offset & 7)) & 1 if at < len(value) else 0


def bitcount(view: View, args: Args) -> Reply:
    """BITCOUNT key [start end [BYTE | BIT]]."""
    value = view.string(args[1])
    if value is None:
        return 0  # before the range is looked at, as in Redis
    if len(args) == 2:
        return _ones(value, 0, len(value) * 8)
    if len(args) not in (4, 5):
        raise CommandError(SYNTAX)
    start = integer(args[2])
    end = integer(args[3])
    if start < 0 and end < start:
        return 0
    in_bits = len(args) == 5 and _counts_bits(args[4])
    start, stop = _range(start, end, len(value) * 8 if in_bits else len(value))
    return _ones(value, start, stop) if in_bits else _ones(value, start * 8, stop * 8)


def bitpos(view: View, args: Args) -> Reply:
    """BITPOS key 0|1 [start [end [BYTE | BIT]]]: the first such bit, or -1."""
    bit = integer(args[2])
    if bit not in (0, 1):
        raise CommandError("ERR The bit argument must be 1 or 0.")
    value = view.string(args[1])
    if value is None:
        return -1 if bit else 0  # before the range is looked at, as in Redis
    if len(args) > 6:
        raise CommandError(SYNTAX)
    start = integer(args[3]) if len(args) > 3 else 0
    in_bits = len(args) == 6 and _counts_bits(args[5])
    end = integer(args[4]) if len(args) > 4 else -1
    start, stop = _range(start, end, len(value) * 8 if in_bits else len(value))
    if start >= stop:
        return -1
    if not in_bits:
        start, stop = start * 8, stop * 8
    position = _first(value, bit, start, stop)
    if position < 0 and bit == 0 and len(args) <= 4:
        # Without an end the string goes on in zeros.
        return stop
    return position


def bitop(view: View, args: Args) -> Reply:
    """BITOP AND|OR|XOR|NOT destination source ...: gives the length of what was stored."""
    name = args[1].upper()
    operation = _OPERATIONS.get(name)
    if operation is None and name != b"NOT":
        raise CommandError(SYNTAX)
    if name == b"NOT" and len(args) != 4:
        raise CommandError("ERR BITOP NOT must be called with a single source key.")
    key = args[2]
    sources = [view.string(source) or b"" for source in args[3:]]
    size = max(map(len, sources))
    if size == 0:
        # Redis removes the destination rather than store an empty string.
        return Outcome(0, [delete(view.keyspace, key)]) if view.entry(key) is not None else 0
    if operation is None:
        result = sources[0].translate(_FLIPPED)
    else:
        result = _combined(operation, sources, size)
    return Outcome(size, [put(view.keyspace, key, result)])


# -- private ---------------------------------------------------------------------------------------

_OPERATIONS: Final[dict[bytes, Callable[[int, int], int]]] = {
    b"AND": and_,
    b"OR": or_,
    b"XOR": xor,
}


def _counts_bits(unit: bytes) -> bool:
    """Whether a range is in bits. Raises CommandError for anything but BIT and BYTE."""
    name = unit.upper()
    if name not in (b"BIT", b"BYTE"):
        raise CommandError(SYNTAX)
    return name == b"BIT"


def _range(start: int, end: int, size: int) -> tuple[int, int]:
    """Both ends included and maybe counted from the end, as [start, stop) within the size."""
    if start < 0:
        start = max(start + size, 0)
    if end < 0:
        end = max(end + size, 0)
    return start, min(end + 1, size)


def _bits(value: bytes, start: int, stop: int) -> int:
    """The bits [start, stop) as an integer."""
    last = (stop + 7) // 8
    covering = int.from_bytes(value[start // 8 : last], "big") >> (last * 8 - stop)
    return covering & ((1 << (stop - start)) - 1)


def _slices(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """[start, stop), in bits, cut at multiples of a slice."""
    while start < stop:
        end = min(stop, (start // (_SLICE_BYTES * 8) + 1) * _SLICE_BYTES * 8)
        yield start, end
        start = end


def _ones(value: bytes, start: int, stop: int) -> int:
    """How many bits of [start, stop) are set."""
    return sum(_bits(value, *slice_).bit_count() for slice_ in _slices(start, stop))


def _first(value: bytes, bit: int, start: int, stop: int) -> int:
    """The first such bit of [start, stop), or -1."""
    for begin, end in _slices(start, stop):
        wanted = _bits(value, begin, end)
        if bit == 0:
            wanted ^= (1 << (end - begin)) - 1
        if wanted:
            return end - wanted.bit_length()
    return -1


def _combined(
    operation: Callable[[int, int], int], sources: Sequence[bytes], size_bytes: int
) -> bytes:
    """All sources combined; the shorter ones as if they went on in zeros."""
    parts = []
    for at in range(0, size_bytes, _SLICE_BYTES):
        count = min(_SLICE_BYTES, size_bytes - at)
        # Little-endian, so that what a source lacks is zeros.
        terms = (int.from_bytes(source[at : at + count], "little") for source in sources)
        parts.append(reduce(operation, terms).to_bytes(count, "little"))
    return b"".join(parts)


# -- rows ------------------------------------------------------------------------------------------

_ONE: Final = (1, 1, 1)
_UNIT: Final = optional(one_of("unit", word("BYTE"), word("BIT")))
_OFFSET: Final = Arg("offset", "integer")
_BIT: Final = Arg("bit", "integer")

ROWS: Final = (
    Command(
        "setbit",
        setbit,
        4,
        flags("write denyoom"),
        "bitmap",
        "Sets or clears one bit of a string, growing it with zeros where needed.",
        keys=_ONE,
        since="2.2.0",
        complexity="O(N) for a string of N bytes; the log gets one byte",
        args=(KEY, _OFFSET, Arg("value", "integer")),
    ),
    Command(
        "getbit",
        getbit,
        3,
        flags("readonly fast"),
        "bitmap",
        "Gives one bit of a string.",
        keys=_ONE,
        since="2.2.0",
        args=(KEY, _OFFSET),
    ),
    Command(
        "bitcount",
        bitcount,
        -2,
        flags("readonly"),
        "bitmap",
        "Counts the ones in a string, or in part of it.",
        keys=_ONE,
        since="2.6.0",
        complexity="O(N) for N bytes looked at",
        args=(KEY, optional(block("range", START, END, _UNIT))),
    ),
    Command(
        "bitpos",
        bitpos,
        -3,
        flags("readonly"),
        "bitmap",
        "Finds the first one, or the first zero, in a string.",
        keys=_ONE,
        since="2.8.7",
        complexity="O(N) for N bytes looked at",
        args=(
            KEY,
            _BIT,
            optional(block("range", START, optional(block("end-unit-block", END, _UNIT)))),
        ),
    ),
    Command(
        "bitop",
        bitop,
        -4,
        flags("write denyoom"),
        "bitmap",
        "Combines strings bit by bit and stores the result.",
        keys=(2, -1, 1),
        since="2.6.0",
        complexity="O(N) for N bytes of all sources",
        args=(
            one_of("operation", word("AND"), word("OR"), word("XOR"), word("NOT")),
            Arg("destkey", "key"),
            KEYS,
        ),
    ),
)
