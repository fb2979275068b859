"""The framed protocol for the load generator (docs/protocols/frames.md).

Owns a response counter; the encoder is protocol/frames.py's.

Threading: a counter belongs to its connection.
"""

from __future__ import annotations

import struct

from marram.client.url import Target
from marram.errors import InvalidArgument, ProtocolError
from marram.protocol.frames import MAX_FRAME_BYTES, Op, Status, encode_ok, encode_request

_HEAD = struct.Struct("<IB")  # frameLen, status
_LEAST = 5  # status and vlen
_MESSAGE_AT = 13  # of an error: after frameLen, status, 0, msgLen
_OK = encode_ok()
_OKS = _OK * 4096


class FrameWire:
    """Requests as frames."""

    name = "frame"
    scans = False

    def __init__(self, target: Target) -> None:
        self._target = target

    def greeting(self) -> tuple[bytes, int]:
        """Ping, with the password where there is one."""
        return encode_request(Op.PING, self._target.password.encode()), 1

    def get(self, key: bytes) -> bytes:
        """Get."""
        return encode_request(Op.GET, key)

    def put(self, key: bytes, value: bytes) -> bytes:
        """Put."""
        return encode_request(Op.PUT, key, value)

    def scan(self, key: bytes, count: int) -> bytes:
        """There are no ranges. Raises InvalidArgument."""
        raise InvalidArgument("the framed protocol has no ranges")

    def replies(self) -> FrameReplies:
        """A counter for a new connection."""
        return FrameReplies()


class FrameReplies:
    """Counts responses (wire.Replies)."""

    __slots__ = ("_skip", "_tail", "errors", "last_error", "misses")

    def __init__(self) -> None:
        self.errors = 0
        self.misses = 0
        self.last_error = ""
        self._tail = b""  # a head, or an error, cut by the end of a read
        self._skip = 0  # bytes of a value that are still to come

    def feed(self, data: bytes) -> int:
        """How many responses `data` completes. Raises ProtocolError."""
        if not self._skip and not self._tail and _OKS.startswith(data):
            done, cut = divmod(len(data), len(_OK))
            if not cut:
                return done
        done = at = 0
        if self._skip:
            at = min(self._skip, len(data))
            self._skip -= at
            done += not self._skip
        elif self._tail:
            data, self._tail = self._tail + data, b""
        end = len(data)
        while end - at >= _HEAD.size:
            size, status = _HEAD.unpack_from(data, at)
            if not _LEAST <= size <= MAX_FRAME_BYTES or status > Status.ERROR:
                raise ProtocolError(f"a frame of {size} bytes with status {status} is malformed")
            stop = at + 4 + size
            if stop > end:
                if status == Status.OK:
                    self._skip = stop - end
                    return done
                break
            if status != Status.OK:
                self._note(status, data[at:stop])
            at = stop
            done += 1
        self._tail = data[at:]
        return done

    def _note(self, status: int, frame: bytes) -> None:
        if status == Status.NOT_FOUND:
            self.misses += 1
        else:
            self.errors += 1
            self.last_error = frame[_MESSAGE_AT:].decode("utf-8", "backslashreplace")
