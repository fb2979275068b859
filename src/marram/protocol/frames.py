"""The framed binary protocol, both sides: docs/protocols/frames.md is the document of these bytes.

Owns the framing and its limits; not what an op does, not which ops need a key. All integers are
little-endian.

    request   frameLen u32 (bytes after this field) | op u8 | klen u32 | vlen u32 | key | value
    response  frameLen u32 | status u8 | vlen u32 | value
              status 2: frameLen u32 | status u8 | 0 u32 | msgLen u32 | message, UTF-8

F1  What feed() returns and the final error do not depend on how the bytes were cut.
F2  Messages that precede bad bytes are handed out; after them `error` is set and nothing follows.
F3  Memory follows the bytes received, never a declared length; n bytes cost O(n).
F4  The lengths inside a frame fill it exactly, or the frame is an error.

Threading: one parser, one connection, no lock; the encoders are pure functions.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from marram.errors import InvalidArgument, ProtocolError
from marram.protocol.partial import PartialBytes

MAX_FRAME_BYTES: Final = (512 << 20) + (64 << 10) + 9
"""The default limit: a value of 512 MiB, a key of 64 KiB, the fields between them."""

# frameLen, op, klen, vlen; frameLen counts what follows it: 9 bytes and the key and the value.
_REQUEST: Final = struct.Struct("<IBII")
_REQUEST_FIXED: Final = _REQUEST.size - 4
# frameLen, status, vlen
_RESPONSE: Final = struct.Struct("<IBI")
_RESPONSE_FIXED: Final = _RESPONSE.size - 4
# ... and of an error also msgLen
_ERROR: Final = struct.Struct("<IBII")
_ERROR_FIXED: Final = _ERROR.size - 4
_U32: Final = struct.Struct("<I")
_U32_MAX: Final = (1 << 32) - 1


class Op(IntEnum):
    """What a request asks for. Numbers are never reused."""

    GET = 1
    PUT = 2
    REPLICATE = 3
    DELETE = 4
    PING = 5
    STATS = 6


class Status(IntEnum):
    """How a request went. Numbers are never reused."""

    OK = 0
    NOT_FOUND = 1
    ERROR = 2


class FrameRequest(NamedTuple):
    """One request; key and value are empty where the op has none."""

    op: Op
    key: bytes
    value: bytes


class FrameReply(NamedTuple):
    """One response. payload: the value, or the error message's bytes."""

    status: Status
    payload: bytes

    @property
    def message(self) -> str:
        """The payload as text, for errors."""
        return self.payload.decode("utf-8", "backslashreplace")


_OPS: Final = {int(op): op for op in Op}


def encode_request(op: Op, key: bytes = b"", value: bytes = b"") -> bytes:
    """A request's bytes. Raises InvalidArgument: key and value do not fit a frame (4 GiB)."""
    size = _REQUEST_FIXED + len(key) + len(value)
    if size > _U32_MAX:
        raise InvalidArgument(f"a frame cannot hold {size} bytes")
    return _REQUEST.pack(size, op, len(key), len(value)) + key + value


def encode_ok(value: bytes = b"") -> bytes:
    """Status 0. Raises InvalidArgument: the value does not fit a frame (4 GiB)."""
    size = _RESPONSE_FIXED + len(value)
    if size > _U32_MAX:
        raise InvalidArgument(f"a frame cannot hold {size} bytes")
    return _RESPONSE.pack(size, Status.OK, len(value)) + value


def encode_not_found() -> bytes:
    """Status 1."""
    return _RESPONSE.pack(_RESPONSE_FIXED, Status.NOT_FOUND, 0)


def encode_error(message: str) -> bytes:
    """Status 2, with a message for people."""
    text = message.encode("utf-8", "backslashreplace")
    return _ERROR.pack(_ERROR_FIXED + len(text), Status.ERROR, 0, len(text)) + text


class FrameParser:
    """Turns a connection's bytes into requests.

        for request in parser.feed(data):
            run(request)
        if parser.error is not None:
            send(encode_error(parser.error)) and close

    max_frame_bytes: the largest frameLen taken, bytes; it may be changed between calls, for
    instance once the connection is authenticated.
    """

    __slots__ = ("_key", "_op", "_tail", "_value", "error", "max_frame_bytes")

    error: str | None
    """What is wrong with the bytes; None while all is well. Once set, feed() returns []."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        if max_frame_bytes < _REQUEST_FIXED:
            raise InvalidArgument(f"max_frame_bytes must be at least {_REQUEST_FIXED}")
        self.error = None
        self.max_frame_bytes = max_frame_bytes
        self._tail = b""  # a header cut by the end of a read
        self._op = Op.PING  # of the request whose key and value are still arriving
        self._key: PartialBytes | None = None
        self._value: PartialBytes | None = None

    @property
    def buffered_bytes(self) -> int:
        """Bytes received and kept because their frame is incomplete."""
        fields = [field for field in (self._key, self._value) if field is not None]
        return len(self._tail) + sum(field.received for field in fields)

    def feed(self, data: bytes) -> list[FrameRequest]:
        """The requests that `data` completes, in order. Never raises for what `data` holds."""
        requests: list[FrameRequest] = []
        if self.error is not None:
            return requests
        if self._tail:
            data = self._tail + data
            self._tail = b""
        at = self._fill(data, requests)
        end = len(data)
        while end - at >= _REQUEST.size:
            size, op, key_size, value_size = _REQUEST.unpack_from(data, at)
            if (
                size != _REQUEST_FIXED + key_size + value_size
                or size > self.max_frame_bytes
                or op not in _OPS
            ):
                self.error = self._complaint(size, op, key_size, value_size)
                return requests
            value_at = at + _REQUEST.size + key_size
            stop = value_at + value_size
            if stop > end:
                self._op = _OPS[op]
                self._key = PartialBytes(key_size)
                self._value = PartialBytes(value_size)
                at = self._fill(data, requests, at + _REQUEST.size)
                break
            key = data[at + _REQUEST.size : value_at]
            requests.append(FrameRequest(_OPS[op], key, data[value_at:stop]))
            at = stop
        if end - at >= _U32.size:
            # A length that no frame can have: its sender may wait for an answer before the rest.
            self.error = self._length_complaint(*_U32.unpack_from(data, at))
        if self.error is None:
            self._tail = data[at:]
        return requests

    def _fill(self, data: bytes, requests: list[FrameRequest], at: int = 0) -> int:
        """More bytes of the request that earlier reads left incomplete."""
        if self._key is None or self._value is None:
            return at
        at = self._key.fill(data, at)
        at = self._value.fill(data, at)
        if not self._key.missing and not self._value.missing:
            requests.append(FrameRequest(self._op, self._key.take(), self._value.take()))
            self._key = self._value = None
        return at

    def _length_complaint(self, size: int) -> str | None:
        if size < _REQUEST_FIXED:
            return f"frame of {size} bytes is too short: a request has at least {_REQUEST_FIXED}"
        if size > self.max_frame_bytes:
            return f"frame of {size} bytes is larger than the limit of {self.max_frame_bytes}"
        return None

    def _complaint(self, size: int, op: int, key_size: int, value_size: int) -> str:
        complaint = self._length_complaint(size)
        if complaint is not None:
            return complaint
        if op not in _OPS:
            return f"unknown op {op}"
        return f"key of {key_size} and value of {value_size} bytes do not fill a frame of {size}"


class FrameReplyParser:
    """Turns a connection's bytes into responses, on the client's side.

    max_frame_bytes: the largest frameLen taken, bytes.
    """

    __slots__ = ("_payload", "_status", "_tail", "error", "max_frame_bytes")

    error: ProtocolError | None
    """Why the connection cannot go on, or None. Once set, feed() raises it."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self.error = None
        self.max_frame_bytes = max_frame_bytes
        self._tail = b""  # a header cut by the end of a read
        self._status = Status.OK  # of the response whose payload is still arriving
        self._payload: PartialBytes | None = None

    def feed(self, data: bytes) -> list[FrameReply]:
        """The responses that `data` completes, in order.

        Raises ProtocolError: the bytes are not the protocol, or pass the limit. Where responses
        precede the bad bytes they are returned first: `error` is set, and the next call raises.
        """
        if self.error is not None:
            raise self.error
        replies: list[FrameReply] = []
        try:
            self._read(data, replies)
        except ProtocolError as error:
            self.error = error
            if not replies:
                raise
        return replies

    def _read(self, data: bytes, replies: list[FrameReply]) -> None:
        if self._tail:
            data = self._tail + data
            self._tail = b""
        at = self._fill(data, replies, 0)
        end = len(data)
        while at < end:
            header = self._header(data, at, end - at)
            if header is None:
                self._tail = data[at:]
                return
            status, fixed, size = header
            at += fixed
            if at + size <= end:
                replies.append(FrameReply(status, data[at : at + size]))
                at += size
            else:
                self._status = status
                self._payload = PartialBytes(size)
                at = self._fill(data, replies, at)

    def _fill(self, data: bytes, replies: list[FrameReply], at: int) -> int:
        if self._payload is None:
            return at
        at = self._payload.fill(data, at)
        if not self._payload.missing:
            replies.append(FrameReply(self._status, self._payload.take()))
            self._payload = None
        return at

    def _header(self, data: bytes, at: int, available: int) -> tuple[Status, int, int] | None:
        """Status, bytes before the payload, bytes of payload; None: the header is not all here."""
        if available < _RESPONSE.size:
            return None
        size, status, value_size = _RESPONSE.unpack_from(data, at)
        if size > self.max_frame_bytes:
            raise ProtocolError(f"a frame of {size} bytes is larger than the limit")
        if status == Status.OK and size == _RESPONSE_FIXED + value_size:
            return Status.OK, _RESPONSE.size, value_size
        if status == Status.NOT_FOUND and size == _RESPONSE_FIXED and not value_size:
            return Status.NOT_FOUND, _RESPONSE.size, 0
        if status == Status.ERROR and size >= _ERROR_FIXED and not value_size:
            if available < _ERROR.size:
                return None
            (message_size,) = _U32.unpack_from(data, at + _RESPONSE.size)
            if size == _ERROR_FIXED + message_size:
                return Status.ERROR, _ERROR.size, message_size
        raise ProtocolError(f"a frame of {size} bytes with status {status} is malformed")
