"""HTTP and JSON for the load generator (docs/protocols/http.md).

Owns a response counter that reads status and length and skips the body. Values travel in base64.

Threading: a counter belongs to its connection.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from urllib.parse import quote

from marram.client.url import Target
from marram.errors import InvalidArgument, ProtocolError

_HEAD_MAX = 64 << 10
_HEAD = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,12})(?=\r\n)", re.IGNORECASE)
_PAGE_MAX = 1000
_ABSENT = b"bench:absent"
_OK, _NOT_FOUND = b"200", b"404"


class HttpWire:
    """Requests on connections that are kept open."""

    name = "http"
    scans = True

    def __init__(self, target: Target) -> None:
        head = f"Host: {target.address}\r\n"
        if target.password:
            login = b64encode(f"{target.user}:{target.password}".encode()).decode()
            head += f"Authorization: Basic {login}\r\n"
        self._head = head.encode()

    def greeting(self) -> tuple[bytes, int]:
        """A GET: whether there is such a key does not matter, who asks does."""
        return self.get(_ABSENT), 1

    def get(self, key: bytes) -> bytes:
        """GET /v1/kv/KEY."""
        return b"GET /v1/kv/%b HTTP/1.1\r\n%b\r\n" % (_segment(key), self._head)

    def put(self, key: bytes, value: bytes) -> bytes:
        """PUT /v1/kv/KEY."""
        body = b'{"value":"%b"}' % b64encode(value)
        return b"PUT /v1/kv/%b HTTP/1.1\r\n%b%b\r\nContent-Length: %d\r\n\r\n%b" % (
            _segment(key), self._head, b"Content-Type: application/json", len(body), body
        )  # fmt: skip

    def scan(self, key: bytes, count: int) -> bytes:
        """GET /v1/kv?start=KEY. Raises InvalidArgument: a page has no more than 1000."""
        if count > _PAGE_MAX:
            raise InvalidArgument(f"a page has at most {_PAGE_MAX} records, not {count}")
        query = b"start=%b&limit=%d" % (_segment(key), count)
        return b"GET /v1/kv?%b HTTP/1.1\r\n%b\r\n" % (query, self._head)

    def replies(self) -> HttpReplies:
        """A counter for a new connection."""
        return HttpReplies()


class HttpReplies:
    """Counts responses (wire.Replies)."""

    __slots__ = ("_skip", "_tail", "errors", "last_error", "misses")

    def __init__(self) -> None:
        self.errors = 0
        self.misses = 0
        self.last_error = ""
        self._tail = b""  # a head, or an error's body, cut by the end of a read
        self._skip = 0  # bytes of a body that are still to come

    def feed(self, data: bytes) -> int:
        """How many responses `data` completes. Raises ProtocolError."""
        done = at = 0
        if self._skip:
            at = min(self._skip, len(data))
            self._skip -= at
            done += not self._skip
        elif self._tail:
            data, self._tail = self._tail + data, b""
        end = len(data)
        while at < end:
            stop = data.find(b"\r\n\r\n", at, at + _HEAD_MAX)
            if stop < 0:
                if end - at >= _HEAD_MAX:
                    raise ProtocolError("a response's head is too long")
                break
            status, size = _read_head(data, at, stop + 2)
            body, start, at = stop + 4, at, stop + 4 + size
            if at > end and status == _OK:
                self._skip = at - end
                return done
            if at > end:
                at = start  # an error: it is wanted whole
                break
            if status == _NOT_FOUND:
                self.misses += 1
            elif status != _OK:
                self.errors += 1
                self.last_error = _message(status, data[body:at])
            done += 1
        self._tail = data[at:]
        return done


def _read_head(data: bytes, start: int, stop: int) -> tuple[bytes, int]:
    """(status, bytes of the body)"""
    head, length = _HEAD.match(data, start), _LENGTH.search(data, start, stop)
    if head is None or length is None:
        raise ProtocolError(f"{data[start : start + 32]!r} begins no response with a length")
    return head[1], int(length[1])


def _message(status: bytes, body: bytes) -> str:
    try:
        return f"{status.decode()} {json.loads(body)['error']['message']}"
    except (ValueError, TypeError, KeyError):
        return f"{status.decode()} {body[:200].decode('utf-8', 'backslashreplace')}"


def _segment(key: bytes) -> bytes:
    return quote(key, safe="").encode()
