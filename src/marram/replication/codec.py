"""Messages to bytes and back: docs/protocols/replication.md is the document of these bytes.

Owns layout, checksums and limits; not what a message means (messages.py), not the request frame
that the first one rides in (the framed protocol's, docs/protocols/frames.md).

    frame   := size u32 (of what follows) | kind u8 | checksum u32 | body

X1  decode(encode(message)) == message.
X2  What feed() returns and the final error do not depend on how the bytes were cut; messages before
    bad bytes are handed out, nothing after them.
X3  Memory follows the bytes received, never a declared length; every length is checked before it is
    used, and a message above the limit is refused by its first bytes.
X4  A checksum covers size, kind and body; of Batches and Rows without their payload, which the
    chain, and the checksum in SnapshotEnd, cover: a payload is summed once.

Threading: one decoder, one link, no lock; the encoders are pure functions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final

from marram.coding.checksum import crc32
from marram.errors import InvalidArgument, ProtocolError
from marram.replication.messages import (
    GREETING_FRAME_BYTES,
    ID_BYTES,
    MARKS_MAX,
    MAX_FRAME_BYTES,
    NONCE_BYTES,
    PROOF_BYTES,
    ROUTE_MAX,
    TEXT_BYTES_MAX,
    Ack,
    Agreed,
    Batches,
    Challenge,
    Code,
    Compare,
    Heartbeat,
    Hello,
    Login,
    Mark,
    Message,
    Plan,
    Preparing,
    Ready,
    Refusal,
    Rows,
    SnapshotBegin,
    SnapshotEnd,
    Welcome,
)

_MAGIC: Final = b"marramRP"
_HELLO: Final = struct.Struct(f"<8sHH{NONCE_BYTES}s{ID_BYTES}s")
_FRAME: Final = struct.Struct("<IBI")
_START: Final = struct.Struct("<IB")
_FIXED: Final = _FRAME.size - 4
_MARK: Final = struct.Struct("<QQI")
_LOGIN: Final = struct.Struct(f"<{PROOF_BYTES}s{ID_BYTES}s{ID_BYTES}sQQQIQQ")
_CHALLENGE: Final = struct.Struct(f"<H{NONCE_BYTES}s{ID_BYTES}s")
_WELCOME: Final = struct.Struct(f"<{PROOF_BYTES}s{ID_BYTES}sQQQIBBQIB")
_BATCHES: Final = struct.Struct("<QIQQQI")
_HEARTBEAT: Final = struct.Struct("<QQQQQQ")
_BEGIN: Final = struct.Struct("<QQIQQ")
_NUMBER: Final = struct.Struct("<I")
_END: Final = struct.Struct("<II")
_ACK: Final = struct.Struct("<QQQ")
_REFUSAL: Final = struct.Struct("<BQ")
_NONE_AGREED: Final = 255
_U32_MAX: Final = (1 << 32) - 1

# Kinds; never reuse a number.
_LOGIN_KIND: Final = 1
_AGREED_KIND: Final = 2
_READY_KIND: Final = 3
_ACK_KIND: Final = 4
_PREPARING_KIND: Final = 5
_CHALLENGE_KIND: Final = 16
_COMPARE_KIND: Final = 17
_WELCOME_KIND: Final = 18
_BATCHES_KIND: Final = 19
_HEARTBEAT_KIND: Final = 20
_BEGIN_KIND: Final = 21
_ROWS_KIND: Final = 22
_END_KIND: Final = 23
_REFUSAL_KIND: Final = 32


# -- the first message and its answer --------------------------------------------------------------


def encode_hello(hello: Hello) -> bytes:
    """The value of the Replicate request."""
    return _HELLO.pack(_MAGIC, hello.oldest, hello.newest, hello.nonce, hello.run_id)


def decode_hello(value: bytes) -> Hello:
    """The other way. Raises ProtocolError: no replica of marram's says that.

    Bytes after the known ones are a newer version's, and skipped.
    """
    if len(value) < _HELLO.size or not value.startswith(_MAGIC):
        raise ProtocolError("this is no replica of marram")
    _, oldest, newest, nonce, run_id = _HELLO.unpack_from(value)
    return Hello(oldest, newest, nonce, run_id)


def refusal_line(refusal: Refusal) -> str:
    """A refusal as the text of an Error response, which answers the request: "SELF 3 text"."""
    return f"{refusal.code.name.replace('_', '')} {refusal.epoch} {refusal.text}"


def refusal_of(line: str) -> Refusal | None:
    """The other way; None where the server answered with an error of its own."""
    name, _, rest = line.partition(" ")
    epoch, _, text = rest.partition(" ")
    code = _CODES.get(name)
    if code is None or not (epoch.isascii() and epoch.isdecimal() and len(epoch) <= 20):
        return None
    return Refusal(code, min(int(epoch), (1 << 64) - 1), text)


_CODES: Final = {code.name.replace("_", ""): code for code in Code}


# -- encoding --------------------------------------------------------------------------------------


def encode(message: Message) -> list[bytes]:
    """A message's bytes, in one or two pieces: a payload is not copied.

    Raises InvalidArgument: it does not fit a frame (4 GiB).
    """
    kind, head = _ENCODERS[message.__class__](message)
    payload = message.payload if isinstance(message, Batches | Rows) else b""
    size = _FIXED + len(head) + len(payload)
    if size > _U32_MAX:
        raise InvalidArgument(f"a frame cannot hold {size} bytes")
    start = _START.pack(size, kind)
    first = b"".join((start, _NUMBER.pack(crc32(head, crc32(start))), head))
    return [first, payload] if payload else [first]


def _text(text: str) -> bytes:
    """A text with its length before it, cut where it is too long; see _rest_text()."""
    printable = "".join(char if char.isprintable() else "?" for char in text)
    data = printable.encode()[:TEXT_BYTES_MAX].decode("utf-8", "ignore").encode()
    return struct.pack("<H", len(data)) + data


def _encode_login(m: Login) -> tuple[int, bytes]:
    fixed = _LOGIN.pack(
        m.proof, m.store_id, m.node_id, m.epoch, *m.newest, m.oldest, m.window_bytes
    )
    return _LOGIN_KIND, fixed + _text(m.address)


def _encode_agreed(m: Agreed) -> tuple[int, bytes]:
    return _AGREED_KIND, bytes([_NONE_AGREED if m.index is None else m.index])


def _encode_challenge(m: Challenge) -> tuple[int, bytes]:
    fixed = _CHALLENGE.pack(m.version, m.nonce, m.run_id)
    return _CHALLENGE_KIND, fixed + struct.pack("<H", len(m.parameters)) + m.parameters


def _encode_compare(m: Compare) -> tuple[int, bytes]:
    return _COMPARE_KIND, b"".join(_MARK.pack(*mark) for mark in m.marks)


def _encode_welcome(m: Welcome) -> tuple[int, bytes]:
    route = m.route[:ROUTE_MAX]
    fixed = _WELCOME.pack(
        m.proof, m.store_id, m.epoch, *m.newest, m.plan, m.aside is not None, m.aside or 0,
        m.heartbeat_ms, len(route),
    )  # fmt: skip
    return _WELCOME_KIND, b"".join((fixed, *route, _text(m.primary)))


def _encode_batches(m: Batches) -> tuple[int, bytes]:
    return _BATCHES_KIND, _BATCHES.pack(m.first, m.count, m.epoch, m.time_ms, m.committed, m.chain)


def _encode_heartbeat(m: Heartbeat) -> tuple[int, bytes]:
    return _HEARTBEAT_KIND, _HEARTBEAT.pack(
        m.newest, m.committed, m.time_ms, m.stream, m.behind_bytes, m.behind_ms
    )


_ENCODERS: Final[dict[type[Message], Callable[..., tuple[int, bytes]]]] = {
    Login: _encode_login,
    Agreed: _encode_agreed,
    Preparing: lambda m: (_PREPARING_KIND, b""),
    Ready: lambda m: (_READY_KIND, b""),
    Ack: lambda m: (_ACK_KIND, _ACK.pack(m.received, m.durable, m.consumed)),
    Challenge: _encode_challenge,
    Compare: _encode_compare,
    Welcome: _encode_welcome,
    Batches: _encode_batches,
    Heartbeat: _encode_heartbeat,
    SnapshotBegin: lambda m: (_BEGIN_KIND, _BEGIN.pack(*m.mark, m.time_ms, m.rows)),
    Rows: lambda m: (_ROWS_KIND, _NUMBER.pack(m.number)),
    SnapshotEnd: lambda m: (_END_KIND, _END.pack(m.lists, m.checksum)),
    Refusal: lambda m: (_REFUSAL_KIND, _REFUSAL.pack(m.code, m.epoch) + _text(m.text)),
}


# -- decoding --------------------------------------------------------------------------------------

_Decode = Callable[[bytes], Message]


def _exact(layout: struct.Struct, make: Callable[..., Message]) -> _Decode:
    """A decoder of a message with nothing but fixed fields."""

    def decode(body: bytes) -> Message:
        return make(*_fields(layout, body, len(body)))

    return decode


def _fields(layout: struct.Struct, body: bytes, size: int) -> tuple[Any, ...]:
    """The fixed fields at the start of a body of which they have to take `size` bytes."""
    if layout.size != size or len(body) < size:
        raise ValueError(f"{len(body)} bytes, of which {layout.size} are fixed")
    return layout.unpack_from(body)


def _rest(body: bytes, at: int) -> bytes:
    """What follows a length of two bytes, which has to be all the rest."""
    if len(body) - at < 2:
        raise ValueError("cut short")
    size = int.from_bytes(body[at : at + 2], "little")
    if size > TEXT_BYTES_MAX or len(body) - at - 2 != size:
        raise ValueError(f"a text of {size} bytes in {len(body) - at - 2}")
    return body[at + 2 :]


def _rest_text(body: bytes, at: int) -> str:
    """A text, which goes into logs and replies: nothing in it may pretend to be a line of its own.

    Raises ValueError: it is not UTF-8, or has characters that cannot be printed.
    """
    text = _rest(body, at).decode()
    if not text.isprintable():
        raise ValueError("a text that cannot be printed")
    return text


def _decode_login(body: bytes) -> Message:
    fields = _fields(_LOGIN, body, _LOGIN.size)
    proof, store_id, node_id, epoch, mark_epoch, sequence, chain, oldest, window = fields
    newest = Mark(mark_epoch, sequence, chain)
    address = _rest_text(body, _LOGIN.size)
    return Login(proof, store_id, node_id, epoch, newest, oldest, window, address)


def _decode_agreed(body: bytes) -> Message:
    if len(body) != 1 or MARKS_MAX <= body[0] != _NONE_AGREED:
        raise ValueError("no index of a mark")
    return Agreed(None if body[0] == _NONE_AGREED else body[0])


def _empty(make: Callable[[], Message]) -> _Decode:
    """A decoder of a message without fields."""

    def decode(body: bytes) -> Message:
        if body:
            raise ValueError(f"{len(body)} bytes in a message without fields")
        return make()

    return decode


def _decode_challenge(body: bytes) -> Message:
    version, nonce, run_id = _fields(_CHALLENGE, body, _CHALLENGE.size)
    return Challenge(version, nonce, run_id, _rest(body, _CHALLENGE.size))


def _decode_compare(body: bytes) -> Message:
    count, rest = divmod(len(body), _MARK.size)
    if rest or not 1 <= count <= MARKS_MAX:
        raise ValueError(f"no list of 1 to {MARKS_MAX} marks")
    marks = tuple(Mark(*fields) for fields in _MARK.iter_unpack(body))
    if any(one.sequence >= other.sequence for one, other in pairwise(marks)):
        raise ValueError("marks do not ascend")
    return Compare(marks)


def _decode_welcome(body: bytes) -> Message:
    (
        proof, store_id, epoch, mark_epoch, sequence, chain, plan, has_aside, aside, beat, count,
    ) = _fields(_WELCOME, body, _WELCOME.size)  # fmt: skip
    if has_aside > 1 or (aside and not has_aside):
        raise ValueError("a flag that is none")
    newest = Mark(mark_epoch, sequence, chain)
    left = aside if has_aside else None
    at, stop = _WELCOME.size, _WELCOME.size + count * ID_BYTES
    if count > ROUTE_MAX or stop > len(body):
        raise ValueError(f"a route of {count} servers")
    route = tuple(body[start : start + ID_BYTES] for start in range(at, stop, ID_BYTES))
    primary = _rest_text(body, stop)
    return Welcome(proof, store_id, epoch, newest, Plan(plan), left, primary, beat, route)


def _decode_begin(body: bytes) -> Message:
    epoch, sequence, chain, time_ms, rows = _fields(_BEGIN, body, len(body))
    return SnapshotBegin(Mark(epoch, sequence, chain), time_ms, rows)


def _decode_refusal(body: bytes) -> Message:
    code, epoch = _fields(_REFUSAL, body, _REFUSAL.size)
    return Refusal(Code(code), epoch, _rest_text(body, _REFUSAL.size))


_DECODERS: Final[dict[int, _Decode]] = {
    _LOGIN_KIND: _decode_login,
    _AGREED_KIND: _decode_agreed,
    _PREPARING_KIND: _empty(Preparing),
    _READY_KIND: _empty(Ready),
    _ACK_KIND: _exact(_ACK, Ack),
    _CHALLENGE_KIND: _decode_challenge,
    _COMPARE_KIND: _decode_compare,
    _WELCOME_KIND: _decode_welcome,
    _HEARTBEAT_KIND: _exact(_HEARTBEAT, Heartbeat),
    _BEGIN_KIND: _decode_begin,
    _END_KIND: _exact(_END, SnapshotEnd),
    _REFUSAL_KIND: _decode_refusal,
}
# Bytes of the body before the payload, which the frame's checksum leaves out (X4).
_WITH_PAYLOAD: Final[dict[int, tuple[struct.Struct, Callable[..., Message]]]] = {
    _BATCHES_KIND: (_BATCHES, Batches),
    _ROWS_KIND: (_NUMBER, Rows),
}
_SMALL: Final = 16 << 10
"""No message without a payload is larger."""
_HEAD_MAX: Final = _FRAME.size + max(layout.size for layout, _ in _WITH_PAYLOAD.values())
"""Bytes before a payload, at most."""


def _message(
    data: bytes | memoryview,
    start: int,
    stop: int,
    rest: Sequence[bytes | memoryview | bytearray] = (),
) -> Message:
    """The message of the frame at data[start:stop]. Raises ValueError: the bytes are none.

    rest: pieces of its payload that follow.
    """
    _, kind, checksum = _FRAME.unpack_from(data, start)
    at = start + _FRAME.size
    form = _WITH_PAYLOAD.get(kind)
    payload_at = stop if form is None else at + form[0].size
    if form is not None and payload_at >= stop and not rest:
        raise ValueError("no payload")
    head = bytes(data[at:payload_at])
    if crc32(head, crc32(data[start : start + _START.size])) != checksum:
        raise ValueError("the checksum does not match")
    if form is not None:
        layout, make = form
        piece = data[payload_at:stop]
        payload = b"".join((piece, *rest)) if rest else bytes(piece)
        return make(*layout.unpack(head), payload)
    decode = _DECODERS.get(kind)
    if decode is None:
        raise ValueError("unknown")
    return decode(head)


class Decoder:
    """Turns a link's bytes into messages.

    max_frame_bytes: the largest frame size taken, bytes; it may be changed between calls, once
    the other end is known. `error` says why nothing follows.
    """

    __slots__ = ("_head", "_missing", "_pieces", "error", "max_frame_bytes", "too_large")

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        if max_frame_bytes < GREETING_FRAME_BYTES:
            raise InvalidArgument(f"max_frame_bytes must be at least {GREETING_FRAME_BYTES}")
        self.max_frame_bytes = max_frame_bytes
        self.error: str | None = None
        self.too_large = False
        """Whether the error is a frame above the limit."""
        self._head = b""  # of a frame, cut by the end of a read
        # A frame that is still arriving, from its head on. Views: a payload is copied once.
        self._pieces: list[memoryview | bytearray] = []
        self._missing = 0

    @property
    def buffered_bytes(self) -> int:
        """Bytes received and kept because their frame is incomplete."""
        return len(self._head) + sum(map(len, self._pieces))

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes, in order. Never raises for what `data` holds."""
        messages: list[Message] = []
        at = 0
        while self.error is None:
            if self._pieces:
                taken = memoryview(data)[at : at + self._missing]
                self._keep(taken)
                at += len(taken)
                if self._missing:
                    break
                self._take_pieces(messages)
                continue
            if self._head:
                data = self._head + data[at:]
                self._head = b""
                at = 0
            left = len(data) - at
            if left >= 4 and not self._is_sane(data, at):
                break
            if left < _FRAME.size:
                self._head = data[at:]
                break
            stop = at + 4 + int.from_bytes(data[at : at + 4], "little")
            if stop > len(data):
                self._missing = stop - at
                self._keep(memoryview(data)[at:])
                break
            self._take(data, at, stop, messages)
            at = stop
        return messages

    def _is_sane(self, data: bytes, at: int) -> bool:
        """Whether a frame may have this size, which is known before its kind is."""
        size = int.from_bytes(data[at : at + 4], "little")
        if size < _FIXED:
            self.error = f"a frame of {size} bytes is too short"
        elif size > self.max_frame_bytes:
            self.too_large = True
            self.error = f"a frame of {size} bytes is larger than the limit {self.max_frame_bytes}"
        elif size > _SMALL and len(data) - at > 4 and data[at + 4] not in _WITH_PAYLOAD:
            self.error = f"a frame of {size} bytes and kind {data[at + 4]}"
        return self.error is None

    def _keep(self, taken: memoryview) -> None:
        """Keep a piece of a frame: small ones in one buffer, as each object has its own size."""
        self._missing -= len(taken)
        if len(taken) >= _SMALL:
            self._pieces.append(taken)
            return
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, bytearray):
            last += taken
        else:
            self._pieces.append(bytearray(taken))

    def _take_pieces(self, messages: list[Message]) -> None:
        """Take the frame that has arrived in pieces."""
        pieces, self._pieces = self._pieces, []
        first = memoryview(pieces[0])
        if len(first) < _HEAD_MAX or first[4] not in _WITH_PAYLOAD:
            first = memoryview(b"".join(pieces))
            del pieces[1:]
        self._take(first, 0, len(first), messages, pieces[1:])

    def _take(
        self,
        data: bytes | memoryview,
        at: int,
        stop: int,
        messages: list[Message],
        rest: Sequence[bytes | memoryview | bytearray] = (),
    ) -> None:
        try:
            messages.append(_message(data, at, stop, rest))
        except ValueError as error:
            self.error = f"a frame of kind {data[at + 4]}: {error}"
