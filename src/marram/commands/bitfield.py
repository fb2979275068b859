"""BITFIELD and BITFIELD_RO: a string as an array of integers of any width up to 64 bits.

Owns their grammar, overflow rules, handlers and rows.

F1  operations see what earlier ones of the same command wrote: the bytes written are kept beside
    the string, a few per operation, and go to the log alone.
F2  the string grows to hold every field a command may write before any is written, so it grows
    even where OVERFLOW FAIL then writes nothing; as in Redis.

Threading: pure handlers (spec.py).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from marram.coding.batch import Change, patch, put
from marram.commands.bitmaps import BAD_OFFSET, check_offset
from marram.commands.grammar import KEY, block, one_of, optional, repeated, word
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
from marram.commands.values import check_size, string_entry
from marram.storage.view import View

_BAD_TYPE: Final = (
    "ERR Invalid bitfield type. Use something like i16 u8. "
    "Note that u64 is not supported but i64 is."
)
_OVERFLOWS: Final = frozenset((b"WRAP", b"SAT", b"FAIL"))


class _Field(NamedTuple):
    """Where an integer is: its first bit, width in bits, and whether it has a sign."""

    offset: int
    width: int
    signed: bool

    @property
    def last_byte(self) -> int:
        return (self.offset + self.width - 1) >> 3


class _Operation(NamedTuple):
    name: bytes  # GET, SET or INCRBY
    field: _Field
    operand: int  # of SET and INCRBY
    overflow: bytes


class _Canvas:
    """A string with what this command wrote over it (F1)."""

    def __init__(self, value: bytes) -> None:
        self._value = value
        self._written: dict[int, int] = {}

    def read(self, start: int, stop: int) -> bytes:
        """The bytes [start, stop), zeros beyond the end."""
        held = bytearray(self._value[start:stop].ljust(stop - start, b"\0"))
        for at in range(start, stop):
            if at in self._written:
                held[at - start] = self._written[at]
        return bytes(held)

    def write(self, start: int, data: bytes) -> None:
        """Put the bytes there."""
        self._written.update(enumerate(data, start))


def bitfield(view: View, args: Args) -> Reply:
    """BITFIELD key [GET ... | SET ... | INCRBY ... | OVERFLOW ...] ..."""
    operations = _parse(args, read_only=False)
    key = args[1]
    held = string_entry(view, key)
    value = b"" if held is None else held.value
    canvas = _Canvas(value)
    keyspace = view.keyspace
    changes: list[Change] = []
    writes = [operation.field for operation in operations if operation.name != b"GET"]
    if writes:
        size = max(field.last_byte for field in writes) + 1
        check_size(size)
        if held is None:
            changes.append(put(keyspace, key, b""))
        if size > len(value):
            changes.append(patch(keyspace, key, size, b""))  # F2
    replies: list[Reply] = []
    for operation in operations:
        reply, change = _run(canvas, operation, keyspace, key)
        replies.append(reply)
        if change is not None:
            changes.append(change)
    return Outcome(replies, changes) if changes else replies


def bitfield_ro(view: View, args: Args) -> Reply:
    """BITFIELD_RO key [GET type offset] ..."""
    operations = _parse(args, read_only=True)
    canvas = _Canvas(view.string(args[1]) or b"")
    return [_get(canvas, operation.field)[0] for operation in operations]


# -- the grammar -----------------------------------------------------------------------------------


def _parse(args: Args, *, read_only: bool) -> list[_Operation]:
    operations: list[_Operation] = []
    overflow = b"WRAP"
    writes = False
    words = iter(args[2:])
    left = len(args) - 2
    for given in words:
        name = given.upper()
        needed = {b"GET": 2, b"SET": 3, b"INCRBY": 3, b"OVERFLOW": 1}.get(name)
        if needed is None or left <= needed:
            raise CommandError(SYNTAX)
        left -= needed + 1
        if name == b"OVERFLOW":
            overflow = next(words).upper()
            if overflow not in _OVERFLOWS:
                raise CommandError("ERR Invalid OVERFLOW type specified")
            continue
        width, signed = _type(next(words))
        field = _Field(_offset(next(words), width), width, signed)
        operand = integer(next(words)) if name != b"GET" else 0
        writes = writes or name != b"GET"
        operations.append(_Operation(name, field, operand, overflow))
    if writes and read_only:
        raise CommandError("ERR BITFIELD_RO only supports the GET subcommand")
    return operations


def _type(text: bytes) -> tuple[int, bool]:
    """Width and sign of u1..u63, i1..i64. Raises CommandError."""
    signed = text[:1] == b"i"
    width = integer(text[1:], _BAD_TYPE) if text[:1] in (b"i", b"u") else 0
    if not 1 <= width <= (64 if signed else 63):
        raise CommandError(_BAD_TYPE)
    return width, signed


def _offset(text: bytes, width: int) -> int:
    """A bit's offset, or with a # before it that of the n-th field. Raises CommandError."""
    if text[:1] == b"#":
        return check_offset(integer(text[1:], BAD_OFFSET) * width)
    return check_offset(integer(text, BAD_OFFSET))


# -- the operations --------------------------------------------------------------------------------


def _run(
    canvas: _Canvas, operation: _Operation, keyspace: int, key: bytes
) -> tuple[Reply, Change | None]:
    """The reply of one operation, and what it writes."""
    field = operation.field
    before, covering = _get(canvas, field)
    if operation.name == b"GET":
        return before, None
    adds = operation.name == b"INCRBY"
    wanted = before + operation.operand if adds else _as_field_sees(operation.operand, field)
    after = _fitted(wanted, field, operation.overflow)
    if after is None:
        return None, None
    if after == before:
        return before, None  # as in Redis: what changes nothing is no write, for WATCH either
    start = field.offset >> 3
    size = field.last_byte + 1 - start
    shift = (field.last_byte + 1) * 8 - field.offset - field.width
    mask = (1 << field.width) - 1
    data = (covering & ~(mask << shift) | (after & mask) << shift).to_bytes(size, "big")
    canvas.write(start, data)
    return after if adds else before, patch(keyspace, key, start, data)


def _get(canvas: _Canvas, field: _Field) -> tuple[int, int]:
    """A field's value, and the integer of all bytes it touches."""
    stop = field.last_byte + 1
    covering = int.from_bytes(canvas.read(field.offset >> 3, stop), "big")
    number = covering >> (stop * 8 - field.offset - field.width) & ((1 << field.width) - 1)
    if field.signed and number >> (field.width - 1):
        number -= 1 << field.width
    return number, covering


def _as_field_sees(operand: int, field: _Field) -> int:
    """What SET's operand is to a field: to one without a sign, a negative number is a huge one."""
    return operand if field.signed else operand % 2**64


def _fitted(wanted: int, field: _Field, overflow: bytes) -> int | None:
    """The number that is stored for `wanted`, or None where FAIL forbids it."""
    width = field.width
    low, high = (
        (-(1 << (width - 1)), (1 << (width - 1)) - 1) if field.signed else (0, (1 << width) - 1)
    )
    if low <= wanted <= high:
        return wanted
    if overflow == b"FAIL":
        return None
    if overflow == b"SAT":
        return low if wanted < low else high
    wrapped = wanted % (1 << width)
    return wrapped - (1 << width) if wrapped > high else wrapped


# -- rows ------------------------------------------------------------------------------------------

_ENCODING: Final = Arg("encoding")
_OFFSET: Final = Arg("offset", "integer")
_GET: Final = Arg("get-block", "block", "GET", parts=(_ENCODING, _OFFSET))
_SET: Final = Arg("set-block", "block", "SET", parts=(_ENCODING, _OFFSET, Arg("value", "integer")))
_INCRBY: Final = Arg(
    "incrby-block", "block", "INCRBY", parts=(_ENCODING, _OFFSET, Arg("increment", "integer"))
)
_OVERFLOW: Final = Arg(
    "overflow-block",
    "oneof",
    "OVERFLOW",
    optional=True,
    parts=(word("WRAP"), word("SAT"), word("FAIL")),
)
_WRITE: Final = block("write", _OVERFLOW, one_of("write-operation", _SET, _INCRBY))

ROWS: Final = (
    Command(
        "bitfield",
        bitfield,
        -2,
        flags("write denyoom"),
        "bitmap",
        "Reads, stores and adds to integers of any width within a string.",
        keys=(1, 1, 1),
        since="3.2.0",
        complexity="O(1) for each operation",
        args=(KEY, optional(repeated(one_of("operation", _GET, _WRITE)))),
    ),
    Command(
        "bitfield_ro",
        bitfield_ro,
        -2,
        flags("readonly fast"),
        "bitmap",
        "Reads integers of any width within a string.",
        keys=(1, 1, 1),
        since="6.0.0",
        complexity="O(1) for each operation",
        args=(KEY, optional(repeated(_GET))),
    ),
)
