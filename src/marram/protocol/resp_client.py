"""RESP2 and RESP3, the client's side: commands out, replies in.

Owns the reply grammar and its limits; not the server's side (resp.py), not who waits for which
reply. Both protocol versions are read at any time, so that HELLO needs no switch here.

C1  What feed() returns and the final error do not depend on how the bytes were cut.
C2  Replies that precede bad bytes are handed out; the error is raised by the call after them.
C3  Memory follows the bytes received, never a declared length or count; n bytes cost O(n).
C4  For every reply r of bytes, int, None, bool, finite float, list, dict and the classes of
    replies.py, parsing encode(r, 3) gives an equal value (tuples as lists; NULL_ARRAY as None).

Threading: one parser, one connection, no lock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from marram.errors import InvalidArgument, InvalidType, ProtocolError
from marram.protocol.partial import PartialBytes
from marram.protocol.replies import (
    OK,
    ErrorReply,
    Push,
    Reply,
    SetReply,
    Simple,
    Verbatim,
    wire_to_text,
)

_CRLF: Final = b"\r\n"
_ARRAY, _MAP, _SET, _PUSH, _ATTRIBUTE = b"*%~>|"
_BULK, _BULK_ERROR, _VERBATIM = b"$!="
_AGGREGATES: Final = frozenset((_ARRAY, _MAP, _SET, _PUSH, _ATTRIBUTE))
_BULKS: Final = frozenset((_BULK, _BULK_ERROR, _VERBATIM))

_TABLE_SIZE: Final = 1024
_BULK_LINES: Final = tuple(b"$%d\r\n" % n for n in range(_TABLE_SIZE))
_BULK_SIZES: Final = {b"%d" % n: n for n in range(_TABLE_SIZE)}

_SIZE: Final = re.compile(rb"0|[1-9][0-9]{0,18}")
_INTEGER: Final = re.compile(rb"[+-]?[0-9]{1,19}")
_BIG_NUMBER: Final = re.compile(rb"[+-]?[0-9]{1,4000}")  # int() of more text is refused by Python
_DOUBLE: Final = re.compile(rb"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,4})?|[+-]?inf|nan")


@dataclass(frozen=True, slots=True)
class ReplyLimits:
    """What one reply may be: bytes, elements of one aggregate, aggregates within aggregates.

    Raises InvalidArgument: a limit below 1, or lines too short for a header.
    """

    max_bulk_bytes: int = 512 << 20
    max_line_bytes: int = 64 << 10
    max_reply_bytes: int = 1 << 30
    max_elements: int = 1 << 26
    max_depth: int = 32

    def __post_init__(self) -> None:
        for name in self.__slots__:
            least = 32 if name == "max_line_bytes" else 1
            if getattr(self, name) < least:
                raise InvalidArgument(f"{name} must be at least {least}")


DEFAULT_LIMITS: Final = ReplyLimits()


def encode_command(args: Sequence[bytes]) -> bytes:
    """A command's bytes: an array of bulk strings.

    args: the name, then its arguments. Raises InvalidArgument: none; InvalidType: not bytes.
    """
    if not args:
        raise InvalidArgument("a command has at least a name")
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        if not isinstance(arg, bytes):
            raise InvalidType(f"a command's arguments are bytes, not {type(arg).__name__}")
        size = len(arg)
        if size < _TABLE_SIZE:
            parts.append(_BULK_LINES[size] + arg + _CRLF)
        else:
            parts += (b"$%d\r\n" % size, arg, _CRLF)
    return b"".join(parts)


class _Aggregate:
    """An array, map, set, push or attribute whose elements are still arriving."""

    __slots__ = ("items", "kind", "missing")

    def __init__(self, kind: int, missing: int) -> None:
        self.kind = kind
        self.missing = missing  # elements; a map has two a pair
        self.items: list[Any] = []

    def value(self) -> Reply:
        if self.kind == _ARRAY:
            return self.items
        if self.kind == _SET:
            return SetReply(self.items)
        if self.kind == _PUSH:
            return Push(self.items)
        try:
            return dict(zip(self.items[::2], self.items[1::2], strict=True))
        except TypeError as error:
            raise ProtocolError("a map's key is an aggregate") from error


class ReplyParser:
    """Turns a connection's bytes into replies, as the values that replies.py lists.

    Statuses are Simple, errors ErrorReply (values, never raised), sets SetReply, and pushes Push:
    they stand among the replies in the order of arrival, and answer no command. Attributes are
    read and dropped. Null arrays are None. Verbatim strings keep their format.
    """

    __slots__ = ("_bulk", "_bulk_kind", "_limits", "_open", "_reply_bytes", "_tail", "error")

    error: ProtocolError | None
    """Why the connection cannot go on, or None. Once set, feed() raises it."""

    def __init__(self, limits: ReplyLimits = DEFAULT_LIMITS) -> None:
        self.error = None
        self._limits = limits
        self._open: list[_Aggregate] = []  # the innermost last
        self._reply_bytes = 0  # the open reply's size so far, with the current bulk string
        self._bulk: PartialBytes | None = None  # cut by the end of a read; with its CRLF
        self._bulk_kind = 0
        self._tail = b""  # a line cut by the end of a read

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that `data` completes, in order.

        Raises ProtocolError: the bytes are not RESP, or pass a limit. Where replies precede the bad
        bytes they are returned first: `error` is set, and the next call raises.
        """
        if self.error is not None:
            raise self.error
        replies: list[Reply] = []
        try:
            self._read(data, replies)
        except ProtocolError as error:
            self.error = error
            self._open = []
            self._bulk = None
            self._tail = b""
            if not replies:
                raise
        return replies

    def _read(self, data: bytes, replies: list[Reply]) -> None:
        at = 0
        if self._bulk is not None:
            at = self._fill_bulk(self._bulk, data, replies)
        elif self._tail:
            data = self._tail + data
            self._tail = b""
        end = len(data)
        window = self._limits.max_line_bytes + 2
        while at < end:
            stop = data.find(_CRLF, at, at + window)
            if stop < 0:
                if end - at >= window:
                    raise ProtocolError("a line is too long")
                self._tail = data[at:]
                return
            kind = data[at]
            text = data[at + 1 : stop]
            stop += 2
            self._count(stop - at)
            if kind in _BULKS:
                at = self._read_bulk(kind, text, data, stop, replies)
                continue
            at = stop
            if kind in _AGGREGATES:
                self._open_aggregate(kind, text, replies)
                continue
            read = _SCALARS.get(kind)
            if read is None:
                raise ProtocolError(f"a reply cannot start with {bytes((kind,))!r}")
            self._deliver(read(text), replies)

    def _count(self, size_bytes: int) -> None:
        self._reply_bytes += size_bytes
        if self._reply_bytes > self._limits.max_reply_bytes:
            raise ProtocolError(f"a reply has more than {self._limits.max_reply_bytes} bytes")

    def _read_bulk(
        self, kind: int, text: bytes, data: bytes, start: int, replies: list[Reply]
    ) -> int:
        """What follows a bulk header: that many bytes and CRLF. The position behind them."""
        size = _BULK_SIZES.get(text)
        if size is None:
            if text == b"-1" and kind == _BULK:
                self._deliver(None, replies)
                return start
            size = _size(text)
        if size > self._limits.max_bulk_bytes:
            raise ProtocolError(f"a bulk string of {size} bytes is too large")
        self._count(size + 2)
        stop = start + size
        if stop + 2 > len(data):
            self._bulk_kind = kind
            self._bulk = PartialBytes(size + 2)
            return self._bulk.fill(data, start)
        if data[stop : stop + 2] != _CRLF:
            raise ProtocolError("a bulk string is not followed by CRLF")
        self._deliver(_bulk_value(kind, data[start:stop]), replies)
        return stop + 2

    def _fill_bulk(self, bulk: PartialBytes, data: bytes, replies: list[Reply]) -> int:
        at = bulk.fill(data, 0)
        if not bulk.missing:
            value = bulk.take_line()
            if value is None:
                raise ProtocolError("a bulk string is not followed by CRLF")
            self._bulk = None
            self._deliver(_bulk_value(self._bulk_kind, value), replies)
        return at

    def _open_aggregate(self, kind: int, text: bytes, replies: list[Reply]) -> None:
        if text == b"-1" and kind == _ARRAY:
            self._deliver(None, replies)
            return
        if kind == _PUSH and self._open:
            raise ProtocolError("a push inside a reply")
        count = _size(text)
        if kind in (_MAP, _ATTRIBUTE):
            count *= 2
        if count > self._limits.max_elements:
            raise ProtocolError(f"an aggregate of {count} elements is too large")
        if len(self._open) >= self._limits.max_depth:
            raise ProtocolError(f"a reply nests deeper than {self._limits.max_depth}")
        aggregate = _Aggregate(kind, count)
        if count:
            self._open.append(aggregate)
        elif kind != _ATTRIBUTE:
            self._deliver(aggregate.value(), replies)

    def _deliver(self, value: Reply, replies: list[Reply]) -> None:
        """Puts a complete value where it belongs, and what it completes in turn."""
        while self._open:
            aggregate = self._open[-1]
            aggregate.items.append(value)
            aggregate.missing -= 1
            if aggregate.missing:
                return
            self._open.pop()
            value = aggregate.value()
            if aggregate.kind == _ATTRIBUTE:
                return  # it annotates the value that follows
        replies.append(value)
        self._reply_bytes = 0


def _size(text: bytes) -> int:
    if _SIZE.fullmatch(text) is None:
        raise ProtocolError(f"{text[:32]!r} is not a length")
    return int(text)


def _bulk_value(kind: int, data: bytes) -> Reply:
    if kind == _BULK:
        return data
    if kind == _BULK_ERROR:
        return ErrorReply(wire_to_text(data))
    form = data[:3]
    if data[3:4] != b":" or not form.isalpha():
        raise ProtocolError("a verbatim string does not start with its format")
    return Verbatim(data[4:], form.decode("ascii"))


def _read_simple(text: bytes) -> Reply:
    if text == b"OK":
        return OK
    return Simple(_line(text))


def _read_error(text: bytes) -> Reply:
    return ErrorReply(_line(text))


def _line(text: bytes) -> str:
    if b"\r" in text or b"\n" in text:
        raise ProtocolError("a status or error has more than one line")
    return wire_to_text(text)


def _read_integer(text: bytes) -> Reply:
    if _INTEGER.fullmatch(text) is None:
        raise ProtocolError(f"{text[:32]!r} is not an integer")
    return int(text)


def _read_big_number(text: bytes) -> Reply:
    if _BIG_NUMBER.fullmatch(text) is None:
        raise ProtocolError(f"{text[:32]!r} is not a big number")
    return int(text)


def _read_double(text: bytes) -> Reply:
    if _DOUBLE.fullmatch(text) is None:
        raise ProtocolError(f"{text[:32]!r} is not a double")
    return float(text)


def _read_null(text: bytes) -> Reply:
    if text:
        raise ProtocolError("a null has no text")
    return None


def _read_bool(text: bytes) -> Reply:
    if text == b"t":
        return True
    if text == b"f":
        return False
    raise ProtocolError(f"{text[:32]!r} is not a boolean")


_SCALARS: Final[dict[int, Callable[[bytes], Reply]]] = {
    ord("+"): _read_simple,
    ord("-"): _read_error,
    ord(":"): _read_integer,
    ord("("): _read_big_number,
    ord(","): _read_double,
    ord("_"): _read_null,
    ord("#"): _read_bool,
}
