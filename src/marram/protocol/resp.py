"""RESP2 and RESP3, the server's side: bytes in, commands out; replies in, bytes out.

Owns the request grammar (arrays of bulk strings, inline lines), its limits and error texts, and the
encoding of replies; not the client's side (resp_client.py), not what a command means.

Q1  What feed() returns and the final error do not depend on how the bytes were cut.
Q2  Commands that precede bad bytes are handed out; after them `error` is set and nothing follows.
Q3  Memory follows the bytes received, never a declared length; a request of n bytes costs O(n).
Q4  Every argument is exactly the bytes that were sent, CR and LF included.
Q5  The fast path accepts a subset of what the walker accepts, with equal results.

Error texts are those of Redis 7.0. Where it differs, this is stricter, because there a wrong length
silently truncates a value and runs the rest of it as commands, or the connection waits for ever:
the two bytes after a bulk string must be CRLF; a header line ends in CRLF, not in CR and any byte
or in LF alone; a byte 0 is a byte of its line like any other; and the limit of a line holds also
where its end arrives in the same read.

Threading: one parser, one connection, no lock; the encoders are pure functions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from marram import compiled
from marram.errors import InvalidArgument, InvalidType
from marram.protocol.partial import PartialBytes
from marram.protocol.replies import (
    ErrorReply,
    NoReply,
    NullArray,
    Push,
    Reply,
    SetReply,
    Simple,
    Verbatim,
    text_to_wire,
    wire_to_text,
)

MAX_DEPTH: Final = 32
"""Aggregates within aggregates that a reply may have, the outermost included."""

_COMPILED: Final = compiled.state() == "compiled"

_CRLF: Final = b"\r\n"
_ASTERISK: Final = 0x2A
_DOLLAR: Final = 0x24
_CR: Final = 0x0D
_LF: Final = 0x0A
_ZERO: Final = 0x30
_NINE: Final = 0x39

# Small headers are looked up rather than parsed or formatted: that halves the cost of an argument.
_TABLE_SIZE: Final = 1024
_BULK_HEADS: Final = tuple(b"$%d" % n for n in range(_TABLE_SIZE))
_BULK_LINES: Final = tuple(head + _CRLF for head in _BULK_HEADS)
_BULK_SIZES: Final = {line: size for size, line in enumerate(_BULK_LINES)}
_ARRAY_COUNTS: Final = {b"*%d" % n: n for n in range(1, _TABLE_SIZE)}
_COUNT_LINES: Final = {head + _CRLF: n for head, n in _ARRAY_COUNTS.items()}
_INTEGERS: Final = tuple(b":%d\r\n" % n for n in range(_TABLE_SIZE))
_NULL_2: Final = b"$-1\r\n"
_NULL_3: Final = b"_\r\n"

# A read longer than this is not split at once: bulk strings that large are better sliced out.
_FAST_BYTES: Final = 1 << 20

# What Redis's string2ll takes: no sign but "-", no leading zero, no "-0", no blank.
_LENGTH_LINE: Final = re.compile(rb"[*$](0|-?[1-9][0-9]{0,18})\r\n")
_INT64_MIN: Final = -(1 << 63)
_INT64_MAX: Final = (1 << 63) - 1
_SIZE_MAX: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class RespLimits:
    """What one connection may send. All in bytes but for the argument counts.

    max_buffer_bytes bounds one whole request, headers included, while it arrives. The before_auth
    limits hold until the connection is authenticated; max_buffer_bytes_before_auth bounds what is
    kept behind a request that waits for authentication. Raises InvalidArgument: below the minimum.
    """

    max_bulk_bytes: int = 512 << 20
    max_args: int = 1 << 20
    max_inline_bytes: int = 64 << 10
    max_buffer_bytes: int = 1 << 30
    max_bulk_bytes_before_auth: int = 16 << 10
    max_args_before_auth: int = 10
    max_buffer_bytes_before_auth: int = 1 << 20

    def __post_init__(self) -> None:
        for name in self.__slots__:
            # Header lines share the inline limit and need up to 23 bytes.
            least = 32 if name == "max_inline_bytes" else 1
            if getattr(self, name) < least:
                raise InvalidArgument(f"{name} must be at least {least}")


DEFAULT_LIMITS: Final = RespLimits()


class RequestParser:
    """Turns a connection's bytes into commands, each a non-empty list of bytes.

        for command in parser.feed(data):
            run(command)
        if parser.error is not None:
            send(ErrorReply("ERR " + parser.error)) and close

    AUTH and a large request may arrive in one read, and the parser meets the request before the
    server has run AUTH. So where a command authenticates the connection, set `authenticated` and
    call feed(b"") for what was held back, before looking at `error`.
    """

    __slots__ = (
        "_args",
        "_authenticated",
        "_bulk",
        "_fast_below",
        "_held",
        "_large",
        "_limits",
        "_max_args",
        "_max_bulk",
        "_max_line",
        "_missing_args",
        "_request_bytes",
        "_tail",
        "error",
    )

    error: str | None
    """What is wrong with the bytes ("Protocol error: ..."), without a code; None while all is well.

    Once set, feed() returns []: reply with it and close.
    """

    def __init__(self, limits: RespLimits = DEFAULT_LIMITS, *, authenticated: bool = False) -> None:
        self.error = None
        self._limits = limits
        # With its LF; positions and limits, compiled, are C's integers.
        self._max_line = min(limits.max_inline_bytes, _SIZE_MAX) + 1
        self._large = False  # the last read had large bulk strings: splitting would not pay
        self._args: list[bytes] = []  # of the request being read
        self._missing_args = 0  # arguments the open request still lacks; 0: between requests
        self._request_bytes = 0  # the open request's size, up to and with the current bulk string
        self._bulk: PartialBytes | None = None  # cut by the end of a read; with its CRLF
        self._tail = bytearray()  # a line cut by the end of a read
        self._held = False  # _tail starts with a request that needs authentication
        self.authenticated = authenticated

    @property
    def authenticated(self) -> bool:
        """False: the before_auth limits hold. Setting it True takes back an error they raised."""
        return self._authenticated

    @authenticated.setter
    def authenticated(self, authenticated: bool) -> None:
        limits = self._limits
        self._authenticated = authenticated
        if authenticated:
            self._max_args = min(limits.max_args, _SIZE_MAX)
            self._max_bulk = min(limits.max_bulk_bytes, _SIZE_MAX)
        else:
            self._max_args = min(limits.max_args, limits.max_args_before_auth)
            self._max_bulk = min(limits.max_bulk_bytes, limits.max_bulk_bytes_before_auth)
        if authenticated and self._held:
            self._held = False
            self.error = None
        self._choose_path()

    @property
    def buffered_bytes(self) -> int:
        """Bytes received and kept because their request is incomplete."""
        kept = len(self._tail)
        if self._missing_args:
            kept += self._request_bytes
        if self._bulk is not None:
            kept -= self._bulk.missing
        return kept

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The commands that `data` completes, in order. Never raises for what `data` holds.

        data: what was read, of any size; bytes, since the arguments are cut from it.
        """
        if len(data) >= self._fast_below:
            return self._feed_slowly(data)
        commands: list[list[bytes]] = []
        at = take_by_scanning(data, commands) if _COMPILED else take_by_splitting(data, commands)
        if at < len(data):
            self._walk(data, at, commands)
        return commands

    def _choose_path(self) -> None:
        """Sets the size below which a read may take the fast path; 0 while something is pending."""
        limits = self._limits
        if (
            self._missing_args
            or self._tail
            or self._large
            or self.error is not None
            or not self._authenticated
            or limits.max_args < _TABLE_SIZE
        ):
            self._fast_below = 0
        else:
            # A read this small cannot pass the other limits with what it completes.
            self._fast_below = min(_FAST_BYTES, limits.max_bulk_bytes, limits.max_buffer_bytes)

    def _feed_slowly(self, data: bytes) -> list[list[bytes]]:
        """feed() where the fast path cannot start, or would not pay."""
        commands: list[list[bytes]] = []
        if self.error is not None:
            self._hold(data)
            return commands
        if self._tail:
            data = b"".join((self._tail, data))
            self._tail = bytearray()
        at = 0
        if self._missing_args:
            at = self._read_args(data, 0)
            if self._args and not self._missing_args:
                commands.append(self._args)
                self._args = []
            self._choose_path()
        if len(data) - at < self._fast_below:
            commands.extend(self.feed(data[at:]))
        elif at < len(data):
            self._walk(data, at, commands)
        return commands

    # The walker: reads line by line, resumes anywhere, knows every error. Its methods take a
    # position and return the next one; the end of the data where they kept the rest or failed.

    def _walk(self, data: bytes, at: int, commands: list[list[bytes]]) -> None:
        """Reads data[at:], which starts a request, to its end or the first error."""
        self._large = False
        while at < len(data):
            if data[at] == _ASTERISK:
                at = self._read_count(data, at)
                if self._missing_args:
                    at = self._read_args(data, at)
            else:
                at = self._read_inline(data, at)
            if self._args and not self._missing_args:
                commands.append(self._args)
                self._args = []
        self._choose_path()

    def _read_count(self, data: bytes, at: int) -> int:
        """The line that opens an array: *COUNT. Counts of 0 and less are skipped, as Redis does."""
        stop = data.find(b"\n", at, at + self._max_line) + 1
        if not stop:
            return self._keep_line(data, at, "too big mbulk count string")
        line = data[at:stop]
        count = _COUNT_LINES.get(line)
        if count is None:
            count = _length(line)
        if count is None or count > self._limits.max_args:
            return self._fail(data, "invalid multibulk length")
        if count > self._max_args:
            return self._refuse(data, at, "unauthenticated multibulk length")
        self._args = []
        self._missing_args = max(count, 0)
        self._request_bytes = stop - at
        return stop

    def _read_args(self, data: bytes, at: int) -> int:
        """The open request's bulk strings: $SIZE, the bytes, CRLF."""
        if self._bulk is not None:
            at = self._fill_bulk(self._bulk, data, at)
        end = len(data)
        args = self._args
        max_line = self._max_line
        while self._missing_args and at < end:
            start = data.find(b"\n", at, at + max_line) + 1
            if not start:
                return self._keep_line(data, at, "too big bulk count string")
            line = data[at:start]
            size = _BULK_SIZES.get(line)
            if size is None:
                if line[0] != _DOLLAR:
                    return self._fail(data, f"expected '$', got '{wire_to_text(line[:1])}'")
                self._large = True
                size = _length(line)
            if size is None or not 0 <= size <= self._limits.max_bulk_bytes:
                return self._fail(data, "invalid bulk length")
            if size > self._max_bulk:
                return self._refuse(data, at, "unauthenticated bulk length")
            stop = start + size
            self._request_bytes += stop + 2 - at
            if self._request_bytes > self._limits.max_buffer_bytes:
                return self._fail(data, "too big request")
            if stop + 2 > end:
                self._bulk = PartialBytes(size + 2)
                return self._bulk.fill(data, start)
            if data[stop : stop + 2] != _CRLF:
                return self._fail(data, "bulk string not followed by CRLF")
            args.append(data[start:stop])
            self._missing_args -= 1
            at = stop + 2
        return at

    def _fill_bulk(self, bulk: PartialBytes, data: bytes, at: int) -> int:
        """More bytes of the bulk string that the previous reads left incomplete."""
        at = bulk.fill(data, at)
        if not bulk.missing:
            arg = bulk.take_line()
            if arg is None:
                return self._fail(data, "bulk string not followed by CRLF")
            self._bulk = None
            self._args.append(arg)
            self._missing_args -= 1
        return at

    def _read_inline(self, data: bytes, at: int) -> int:
        """A line for humans and netcat: words, quoted where they hold blanks."""
        stop = data.find(b"\n", at, at + self._max_line) + 1
        if not stop:
            return self._keep_line(data, at, "too big inline request")
        args = split_inline(data[at:stop])
        if args is None:
            return self._fail(data, "unbalanced quotes in request")
        self._args = args
        return stop

    def _keep_line(self, data: bytes, at: int, too_big: str) -> int:
        """Keeps an unfinished line for the next read, if it may still become one."""
        if len(data) - at >= self._max_line:
            return self._fail(data, too_big)
        self._tail = bytearray(memoryview(data)[at:])
        return len(data)

    def _refuse(self, data: bytes, at: int, message: str) -> int:
        """An error that authentication takes back: what led to it is kept from `at` on."""
        self.error = "Protocol error: " + message
        self._held = True
        self._hold(memoryview(data)[at:])
        return len(data)

    def _hold(self, data: bytes | memoryview) -> None:
        """Keeps bytes behind a refused request; too many make the refusal final."""
        if not self._held:
            return
        if len(self._tail) + len(data) > self._limits.max_buffer_bytes_before_auth:
            self._drop()
        else:
            self._tail += data

    def _fail(self, data: bytes, message: str) -> int:
        self.error = "Protocol error: " + message
        self._drop()
        return len(data)

    def _drop(self) -> None:
        """Lets go of everything kept: the connection is about to be closed."""
        self._held = False
        self._args = []
        self._missing_args = 0
        self._request_bytes = 0
        self._bulk = None
        self._tail = bytearray()


# The fast path, in two forms that take the same: arrays of bulk strings as client libraries write
# them, and all here. From the first command on that is anything else, the walker goes on. What
# they take is right (Q5): a header is compared, or read, in its one canonical form, and the CRLF
# behind a bulk string is looked at.
# HOT: the server's cost per command starts here. On CPython 3.11, ns a command (the walker's):
#                                         compiled, scanning     interpreted, splitting
#     lone GET k                                                       360 (1380)
#     16 pipelined SETs of 100 bytes                                   390 (1700)


def take_by_scanning(data: bytes, commands: list[list[bytes]]) -> int:
    """Append the whole commands at the start of `data`; returns where the rest begins.

    Byte by byte, for the compiled form: nothing is made but the arguments.
    """
    text = data  # compiled, a pointer: every index below is first compared with `end`
    end = len(data)
    taken = 0
    name = b""  # of the command before: where they repeat, one object serves, which knows its hash
    while taken < end and text[taken] == _ASTERISK:
        first = at = taken + 1
        count = 0
        while at < end and count < _TABLE_SIZE and _ZERO <= text[at] <= _NINE:
            count = count * 10 + text[at] - _ZERO
            at += 1
        if not 0 < count < _TABLE_SIZE or text[first] == _ZERO:
            break
        if at + 2 > end or text[at] != _CR or text[at + 1] != _LF:
            break
        at += 2
        args: list[bytes] = [name] * count
        index = 0
        while index < count and at < end and text[at] == _DOLLAR:
            at += 1
            first = at
            size = 0
            while at < end and size < _FAST_BYTES and _ZERO <= text[at] <= _NINE:
                size = size * 10 + text[at] - _ZERO
                at += 1
            if at == first or (text[first] == _ZERO and at > first + 1):
                break
            if at + 2 > end or text[at] != _CR or text[at + 1] != _LF:
                break
            at += 2
            stop = at + size
            if stop + 2 > end or text[stop] != _CR or text[stop + 1] != _LF:
                break
            if index or not _repeats(text, at, size, name):
                args[index] = text[at:stop]
            at = stop + 2
            index += 1
        if index < count:
            break
        name = args[0]
        commands.append(args)
        taken = at
    return taken


def _repeats(text: bytes, at: int, size: int, name: bytes) -> bool:
    """Whether `size` bytes of text, from `at` on, are the name."""
    other = name  # compiled, a pointer as well
    index = 0
    if size == len(name):
        while index < size and text[at + index] == other[index]:
            index += 1
    return size == index == len(name)


def take_by_splitting(data: bytes, commands: list[list[bytes]]) -> int:
    """As take_by_scanning(), for the interpreter: with few steps, each of which does much.

    Splits at every CRLF and compares each header with that of the piece behind it: a piece can
    only equal its header's length where its bytes hold no CRLF.
    """
    pieces = data.split(_CRLF)
    last = len(pieces) - 1  # what follows the last CRLF
    at = 0
    try:
        while at < last:
            stop = at + 1 + 2 * _ARRAY_COUNTS[pieces[at]]
            if stop > last:
                break
            args = pieces[at + 2 : stop : 2]
            head = at + 1
            for arg in args:
                if pieces[head] != _BULK_HEADS[len(arg)]:
                    break
                head += 2
            else:
                commands.append(args)
                at = stop
                continue
            break
    except LookupError:
        pass  # not in a table: inline, large, or wrong; the walker knows which
    return len(data) if at == last and not pieces[last] else sum(map(len, pieces[:at])) + 2 * at


def _length(line: bytes) -> int | None:
    """The number in a header line ("*3\\r\\n"), or None where Redis would not read one."""
    match = _LENGTH_LINE.fullmatch(line)
    if match is None:
        return None
    number = int(match[1])
    return number if _INT64_MIN <= number <= _INT64_MAX else None


# Inline lines, as Redis's sdssplitargs reads them. Words end at a blank, but not at VT or FF, which
# are skipped only before a word. Quantifiers are possessive: hostile lines cost linear time.
_WORDS: Final = re.compile(rb"[^ \n\r\t\v\f][^ \n\r\t]*+")
_BLANKS: Final = re.compile(rb"[ \n\r\t\v\f]*+")
_WORD: Final = re.compile(
    rb"""([^ \n\r\t"']*+)(?:"((?:[^"\\]++|\\.)*+)"|'((?:[^'\\]++|\\'|\\)*+)')?""", re.DOTALL
)
_ESCAPE: Final = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_CONTROL: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def split_inline(line: bytes) -> list[bytes] | None:
    r"""The words of an inline command, or None where quotes are unbalanced.

    "double quotes" know \n \r \t \b \a \xHH and \ before any other byte; 'single quotes' know \'.
    A closing quote must end its word. The shell reads its lines with it too.
    """
    if b'"' not in line and b"'" not in line:
        return _WORDS.findall(line)
    words = []
    at = _end(_BLANKS, line, 0)
    while at < len(line):
        word = _WORD.match(line, at)
        assert word is not None  # it matches the empty string
        plain, double, single = word.groups()
        at = word.end()
        after = line[at : at + 1]
        if double is not None:
            plain += _ESCAPE.sub(_unescape, double)
        elif single is not None:
            plain += single.replace(rb"\'", b"'")
        if after and not after.isspace():
            return None  # an opening quote without its closing one, or a byte behind a closing one
        words.append(plain)
        at = _end(_BLANKS, line, at)
    return words


def _end(pattern: re.Pattern[bytes], line: bytes, at: int) -> int:
    match = pattern.match(line, at)
    assert match is not None
    return match.end()


def _unescape(match: re.Match[bytes]) -> bytes:
    escaped = match[1]
    if len(escaped) == 3:
        return bytes.fromhex(escaped[1:].decode("ascii"))
    return _CONTROL.get(escaped, escaped)


def encode(reply: Reply, protocol: int) -> bytes:
    """The bytes of a reply. protocol: 2 or 3.

    Raises InvalidType: not a reply; InvalidArgument: nested deeper than MAX_DEPTH, or an integer
    beyond 64 bits.
    """
    out: list[bytes] = []
    encode_into(out, reply, protocol)
    return out[0] if len(out) == 1 else b"".join(out)


def encode_into(out: list[bytes], reply: Reply, protocol: int) -> int:
    """Appends the bytes of a reply to `out`, in pieces; returns how many bytes they are.

    A large bulk string is a piece of its own, uncopied. Raises as encode(); `out` may then hold a
    part of the reply.
    """
    # HOT: pieces are what C joins fastest; the interpreter, one sum of three.
    value: Any = reply
    kind = type(value)
    if kind is bytes:
        size = len(value)
        if size < _TABLE_SIZE:
            head: bytes = _BULK_LINES[size]
            if not _COMPILED:
                head += value + _CRLF
                out.append(head)
                return len(head)
        else:
            head = b"$%d\r\n" % size
        out.append(head)
        out.append(value)
        out.append(_CRLF)
        return len(head) + size + 2
    if kind is Simple:
        head = value.wire
    elif kind is int and 0 <= value < _TABLE_SIZE:
        head = _INTEGERS[value]
    elif value is None:
        head = _NULL_2 if protocol == 2 else _NULL_3
    else:
        start = len(out)
        _write(out, value, protocol, 0)
        return sum(map(len, out[start:]))
    out.append(head)
    return len(head)


def format_double(number: float) -> bytes:
    """A double's text: the shortest that reads back as the same number, laid out like %.17g.

    So integers below 1e17 have neither point nor exponent: 3.0 is "3", 1e16 is not "1e+16".
    """
    text = repr(number)
    if text.endswith(".0"):
        text = text[:-2]
    elif text.endswith("e+16"):
        text = str(int(number))
    return text.encode("ascii")


def _write(out: list[bytes], reply: Any, protocol: int, depth: int) -> None:
    kind = reply.__class__
    writer = _WRITERS.get(kind)
    if writer is None:
        for parent in kind.__mro__:  # IntEnum, OrderedDict, named tuples
            writer = _WRITERS.get(parent)
            if writer is not None:
                break
        else:
            raise InvalidType(f"{kind.__name__} is not a reply")
    writer(out, reply, protocol, depth)


def _write_bytes(out: list[bytes], reply: bytes, protocol: int, depth: int) -> None:
    size = len(reply)
    if size < _TABLE_SIZE:
        out.append(_BULK_LINES[size] + reply + _CRLF)
    else:
        out += (b"$%d\r\n" % size, reply, _CRLF)


def _write_int(out: list[bytes], reply: int, protocol: int, depth: int) -> None:
    if not _INT64_MIN <= reply <= _INT64_MAX:
        raise InvalidArgument("an integer reply has 64 bits")
    out.append(b":%d\r\n" % reply)


def _write_null(out: list[bytes], reply: None, protocol: int, depth: int) -> None:
    out.append(_NULL_2 if protocol == 2 else _NULL_3)


def _write_null_array(out: list[bytes], reply: NullArray, protocol: int, depth: int) -> None:
    out.append(b"*-1\r\n" if protocol == 2 else _NULL_3)


def _write_bool(out: list[bytes], reply: bool, protocol: int, depth: int) -> None:
    if protocol == 2:
        out.append(b":1\r\n" if reply else b":0\r\n")
    else:
        out.append(b"#t\r\n" if reply else b"#f\r\n")


def _write_float(out: list[bytes], reply: float, protocol: int, depth: int) -> None:
    text = format_double(reply)
    if protocol == 2:
        _write_bytes(out, text, protocol, depth)
    else:
        out.append(b",%b\r\n" % text)


def _write_simple(out: list[bytes], reply: Simple, protocol: int, depth: int) -> None:
    out.append(reply.wire)


def _write_error(out: list[bytes], reply: ErrorReply, protocol: int, depth: int) -> None:
    # A CR or LF that a client smuggled into an error text would forge the next reply.
    text = reply.text.strip("\r\n").replace("\r", " ").replace("\n", " ")
    out.append(b"-%b\r\n" % text_to_wire(text))


def _write_verbatim(out: list[bytes], reply: Verbatim, protocol: int, depth: int) -> None:
    if protocol == 2:
        _write_bytes(out, reply.data, protocol, depth)
    else:
        head = b"=%d\r\n%b:" % (len(reply.data) + 4, reply.format.encode("ascii"))
        out += (head, reply.data, _CRLF)


def _write_array(out: list[bytes], reply: Any, protocol: int, depth: int) -> None:
    _write_items(out, b"*%d\r\n" % len(reply), reply, protocol, depth)


def _write_set(out: list[bytes], reply: SetReply, protocol: int, depth: int) -> None:
    head = b"*%d\r\n" if protocol == 2 else b"~%d\r\n"
    _write_items(out, head % len(reply.items), reply.items, protocol, depth)


def _write_push(out: list[bytes], reply: Push, protocol: int, depth: int) -> None:
    head = b"*%d\r\n" if protocol == 2 else b">%d\r\n"
    _write_items(out, head % len(reply.items), reply.items, protocol, depth)


def _write_map(out: list[bytes], reply: dict[Any, Any], protocol: int, depth: int) -> None:
    items = [part for pair in reply.items() for part in pair]
    head = b"*%d\r\n" % len(items) if protocol == 2 else b"%%%d\r\n" % len(reply)
    _write_items(out, head, items, protocol, depth)


def _write_items(out: list[bytes], head: bytes, items: Any, protocol: int, depth: int) -> None:
    """An aggregate: the line with its count, then its items."""
    if depth >= MAX_DEPTH:
        raise InvalidArgument(f"a reply nests at most {MAX_DEPTH} deep")
    out.append(head)
    for item in items:
        # HOT: a list of small bulk strings is what MGET and LRANGE answer.
        if item.__class__ is bytes and len(item) < _TABLE_SIZE:
            out.append(_BULK_LINES[len(item)] + item + _CRLF)
        else:
            _write(out, item, protocol, depth + 1)


def _write_nothing(out: list[bytes], reply: NoReply, protocol: int, depth: int) -> None:
    # The client asked not to be answered. An aggregate cannot leave an element out.
    if depth:
        raise InvalidArgument("NO_REPLY inside a reply")


_WRITERS: Final[dict[type, Any]] = {
    bytes: _write_bytes,
    int: _write_int,
    type(None): _write_null,
    bool: _write_bool,
    float: _write_float,
    list: _write_array,
    tuple: _write_array,
    dict: _write_map,
    Simple: _write_simple,
    ErrorReply: _write_error,
    SetReply: _write_set,
    Push: _write_push,
    Verbatim: _write_verbatim,
    NullArray: _write_null_array,
    NoReply: _write_nothing,
}
