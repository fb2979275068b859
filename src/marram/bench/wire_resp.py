"""RESP for the load generator: marram, Redis, Valkey and whatever else speaks it.

Owns a reply counter that skips what it need not read; protocol/resp_client.py is the parser that
does read. RESP2 alone, as no HELLO is sent.

Threading: a counter belongs to its connection.
"""

from __future__ import annotations

import re
from functools import lru_cache

from marram.client.url import Target
from marram.errors import ProtocolError
from marram.protocol.replies import wire_to_text
from marram.protocol.resp_client import encode_command

_OK_BYTES = 5
_OKS = b"+OK\r\n" * 4096
_LINE_MAX = 64 << 10
_DIGITS_MAX = 12
_RUN_LEAST_BYTES = 512  # below, a pattern gains nothing
_VALUE, _ARRAY, _ERROR, _MINUS = b"$*--"
_NULLS = b"$*"  # those that are no value and no array: $-1 and *-1
_SCALARS = b"+:"


class RespWire:
    """Requests as arrays of bulk strings."""

    name = "resp"
    scans = True  # SCANRANGE, which is marram's own: others answer with an error

    def __init__(self, target: Target) -> None:
        self._target = target

    def greeting(self) -> tuple[bytes, int]:
        """AUTH where there is a password, and SELECT."""
        target = self._target
        commands = [[b"SELECT", b"%d" % target.keyspace]]
        if target.password:
            user = [target.user.encode()] if target.user else []
            commands.insert(0, [b"AUTH", *user, target.password.encode()])
        return b"".join(map(encode_command, commands)), len(commands)

    def get(self, key: bytes) -> bytes:
        """GET."""
        return b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key)

    def put(self, key: bytes, value: bytes) -> bytes:
        """SET."""
        return b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(value), value)

    def scan(self, key: bytes, count: int) -> bytes:
        """SCANRANGE."""
        return encode_command([b"SCANRANGE", key, b"", b"LIMIT", b"%d" % count])

    def replies(self) -> RespReplies:
        """A counter for a new connection."""
        return RespReplies()


class RespReplies:
    """Counts replies (wire.Replies).

    Hot: at depth 16 this and the socket are all that a run costs. Statuses of a whole read are
    compared at once, and runs of equally long values are matched by a pattern.
    """

    __slots__ = ("_open", "_skip", "_tail", "errors", "last_error", "misses")

    def __init__(self) -> None:
        self.errors = 0
        self.misses = 0
        self.last_error = ""
        self._tail = b""  # a line cut by the end of a read
        self._skip = 0  # bytes of a value, and its CRLF, that are still to come
        self._open = 0  # values that the open array still lacks; 0 where none is open

    def feed(self, data: bytes) -> int:
        """How many replies `data` completes. Raises ProtocolError."""
        if not self._skip and not self._tail and not self._open and _OKS.startswith(data):
            size = len(data)
            if size % _OK_BYTES == 0:
                return size // _OK_BYTES
        return self._count(data)

    def _count(self, data: bytes) -> int:
        done = at = 0
        if self._skip:
            at = min(self._skip, len(data))
            self._skip -= at
            if not self._skip:
                done += self._delivered()
        elif self._tail:
            data, self._tail = self._tail + data, b""
        end, before = len(data), b""
        while at < end:
            start, stop = at, data.find(b"\r\n", at, at + _LINE_MAX)
            if stop < 0:
                if end - at >= _LINE_MAX:
                    raise ProtocolError("a reply's line is too long")
                self._tail = data[at:]
                return done
            at = stop + 2
            if data[start] != _VALUE or data[start + 1] == _MINUS:
                done += self._line(data[start], data[start + 1 : stop])
                continue
            line = data[start:at]
            at += _size(line[1:-2]) + 2
            if at > end:
                self._skip = at - end
                return done
            done += self._delivered()
            if line == before and not self._open and end - at >= _RUN_LEAST_BYTES:
                found = _run(line).match(data, at)
                assert found is not None  # it may be empty
                done += (found.end() - at) // (at - start)
                at = found.end()
            before = line
        return done

    def _line(self, kind: int, text: bytes) -> int:
        """A reply of one line, or the head of an array; 1 where it completes a reply."""
        if kind == _ARRAY and text != b"-1":
            size = _size(text)
            if size:  # it takes the place of one value where it is inside another
                self._open += size - (self._open > 0)
                return 0
        elif kind == _ERROR:
            self.errors += 1
            self.last_error = wire_to_text(text)
        elif kind in _NULLS:
            self.misses += not self._open
        elif kind not in _SCALARS:
            raise ProtocolError(f"a reply cannot start with {bytes((kind,))!r}")
        return self._delivered()

    def _delivered(self) -> int:
        """One value is complete; 1 where that completes a reply."""
        if self._open:
            self._open -= 1
        return not self._open


def _size(text: bytes) -> int:
    if not text.isdigit() or len(text) > _DIGITS_MAX:
        raise ProtocolError(f"{text[:32]!r} is not a length")
    return int(text)


@lru_cache(maxsize=64)
def _run(line: bytes) -> re.Pattern[bytes]:
    """Any number of values as long as the one that `line` heads."""
    return re.compile(b"(?:%b.{%d}\r\n)*" % (re.escape(line), int(line[1:-2])), re.DOTALL)
