"""The framed protocol: the page's own bytes, round trips, malformed frames, limits."""

from __future__ import annotations

import os
import re
import struct
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.errors import InvalidArgument, ProtocolError
from marram.protocol.frames import (
    MAX_FRAME_BYTES,
    FrameParser,
    FrameReply,
    FrameReplyParser,
    FrameRequest,
    Op,
    Status,
    encode_error,
    encode_not_found,
    encode_ok,
    encode_request,
)

EXAMPLES = int(os.environ.get("MARRAM_EXAMPLES", "300"))
PAGE = Path(__file__).parents[2] / "docs" / "protocols" / "frames.md"


def page_examples() -> dict[str, bytes]:
    """The page's worked examples: what is sent, in words, and its bytes."""
    found = re.findall(
        r"^    (\w+(?: \".*?\")*)  +((?:[0-9a-f]{2}[ |]*)+)$", PAGE.read_text(), re.M
    )
    return {words: bytes.fromhex(text.replace("|", "")) for words, text in found}


def parse(
    chunks: list[bytes], limit: int = MAX_FRAME_BYTES
) -> tuple[list[FrameRequest], str | None]:
    parser = FrameParser(limit)
    requests = []
    fed = 0
    for chunk in chunks:
        fed += len(chunk)
        requests += parser.feed(chunk)
        assert parser.buffered_bytes <= fed
    return requests, parser.error


def parse_replies(
    chunks: list[bytes], limit: int = MAX_FRAME_BYTES
) -> tuple[list[FrameReply], str | None]:
    parser = FrameReplyParser(limit)
    found: list[FrameReply] = []
    for chunk in chunks:
        try:
            found += parser.feed(chunk)
        except ProtocolError as error:
            assert parser.error is error
    return found, None if parser.error is None else str(parser.error)


def cut(data: bytes, points: list[int]) -> list[bytes]:
    edges = [0, *sorted(point % (len(data) + 1) for point in points), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


POINTS = st.lists(st.integers(0, 1 << 20), max_size=6)
REQUESTS = st.builds(
    FrameRequest, st.sampled_from(list(Op)), st.binary(max_size=20), st.binary(max_size=40)
)
REPLIES = st.one_of(
    st.builds(FrameReply, st.just(Status.OK), st.binary(max_size=40)),
    st.just(FrameReply(Status.NOT_FOUND, b"")),
    st.builds(FrameReply, st.just(Status.ERROR), st.text(max_size=20).map(str.encode)),
)


def encode_reply(reply: FrameReply) -> bytes:
    if reply.status is Status.OK:
        return encode_ok(reply.payload)
    if reply.status is Status.NOT_FOUND:
        return encode_not_found()
    return encode_error(reply.message)


def test_the_page_shows_the_bytes_that_are_sent() -> None:
    assert page_examples() == {
        'Get "key"': encode_request(Op.GET, b"key"),
        'Put "key" "value"': encode_request(Op.PUT, b"key", b"value"),
        "Replicate": encode_request(Op.REPLICATE),
        'Delete "key"': encode_request(Op.DELETE, b"key"),
        "Ping": encode_request(Op.PING),
        "Stats": encode_request(Op.STATS),
        'OK "value"': encode_ok(b"value"),
        "OK": encode_ok(),
        'OK "{}"': encode_ok(b"{}"),
        "NotFound": encode_not_found(),
        'Error "no"': encode_error("no"),
    }


@given(st.lists(REQUESTS, max_size=5), POINTS)
@settings(max_examples=EXAMPLES)
def test_f1_requests_survive_any_cutting(requests: list[FrameRequest], points: list[int]) -> None:
    data = b"".join(encode_request(*request) for request in requests)
    assert parse(cut(data, points)) == (requests, None)


@given(st.lists(REPLIES, max_size=5), POINTS)
@settings(max_examples=EXAMPLES)
def test_f1_replies_survive_any_cutting(replies: list[FrameReply], points: list[int]) -> None:
    data = b"".join(map(encode_reply, replies))
    assert parse_replies(cut(data, points)) == (replies, None)


def test_f1_every_cut_gives_the_same_messages() -> None:
    requests = [FrameRequest(op, b"k" * n, b"v" * (9 - n)) for n, op in enumerate(Op)]
    data = b"".join(encode_request(*request) for request in requests)
    replies = [FrameReply(Status.OK, b"v"), FrameReply(Status.NOT_FOUND, b"")]
    replies += [FrameReply(Status.ERROR, b"no"), FrameReply(Status.OK, b"")]
    reply_data = b"".join(map(encode_reply, replies))
    for at in range(len(data) + 1):
        assert parse([data[:at], data[at:]]) == (requests, None)
    for at in range(len(reply_data) + 1):
        assert parse_replies([reply_data[:at], reply_data[at:]]) == (replies, None)
    assert parse([data[i : i + 1] for i in range(len(data))]) == (requests, None)
    singles = [reply_data[i : i + 1] for i in range(len(reply_data))]
    assert parse_replies(singles) == (replies, None)


def request_frame(size: int, op: int, key_size: int, value_size: int, rest: bytes = b"") -> bytes:
    return struct.pack("<IBII", size, op, key_size, value_size) + rest


BAD_REQUESTS = [
    (struct.pack("<I", 0), "frame of 0 bytes is too short: a request has at least 9"),
    (struct.pack("<I", 8), "frame of 8 bytes is too short: a request has at least 9"),
    (struct.pack("<I", 0xFFFFFFFF), "frame of 4294967295 bytes is larger than the limit of 60"),
    (struct.pack("<I", 61), "frame of 61 bytes is larger than the limit of 60"),
    (request_frame(9, 0, 0, 0), "unknown op 0"),
    (request_frame(9, 7, 0, 0), "unknown op 7"),
    (request_frame(9, 255, 0, 0), "unknown op 255"),
    (request_frame(10, 1, 0, 0, b"k"), "key of 0 and value of 0 bytes do not fill a frame of 10"),
    (request_frame(9, 1, 1, 0, b"k"), "key of 1 and value of 0 bytes do not fill a frame of 9"),
    (
        request_frame(9, 2, 0xFFFFFFFF, 1),
        "key of 4294967295 and value of 1 bytes do not fill a frame of 9",
    ),
]


@pytest.mark.parametrize(("bad", "message"), BAD_REQUESTS)
def test_f2_requests_before_a_malformed_frame_are_handed_out(bad: bytes, message: str) -> None:
    ping = encode_request(Op.PING)
    for chunks in (
        [ping + bad],
        [ping, bad, ping],
        [ping + bad + ping],
        [(ping + bad)[i : i + 1] for i in range(len(ping + bad))],
    ):
        assert parse(chunks, 60) == ([FrameRequest(Op.PING, b"", b"")], message)


def test_f2_after_an_error_nothing_is_taken() -> None:
    parser = FrameParser()
    parser.feed(bytes(13))
    assert parser.error is not None
    assert parser.feed(encode_request(Op.PING)) == []


BAD_REPLIES = [
    struct.pack("<IBI", 5, 0, 1),
    struct.pack("<IBI", 6, 0, 0),
    struct.pack("<IBI", 4, 0, 0),
    struct.pack("<IBI", 6, 1, 1),
    struct.pack("<IBI", 6, 1, 0),
    struct.pack("<IBI", 5, 1, 1),
    struct.pack("<IBI", 5, 2, 0),
    struct.pack("<IBII", 9, 2, 0, 1),
    struct.pack("<IBII", 10, 2, 1, 0),
    struct.pack("<IBII", 9, 2, 1, 0),
    struct.pack("<IBI", 5, 3, 0),
    struct.pack("<IBI", 61, 0, 56),
    b"HTTP/1.1 400 Bad Request",
]


@pytest.mark.parametrize("bad", BAD_REPLIES)
def test_f2_replies_before_a_malformed_frame_are_handed_out(bad: bytes) -> None:
    good = encode_ok(b"v")
    alone, error = parse_replies([bad], 60)
    assert alone == []
    assert error is not None
    for chunks in ([good + bad], [good, bad], [good + bad, b"x"]):
        found, same = parse_replies(chunks, 60)
        assert found == [FrameReply(Status.OK, b"v")]
        assert same == error
    parser = FrameReplyParser(60)
    parser.feed(good + bad)
    with pytest.raises(ProtocolError, match="a frame of"):
        parser.feed(b"")


@given(
    st.lists(
        st.one_of(
            REQUESTS.map(lambda request: encode_request(*request)),
            REPLIES.map(encode_reply),
            st.sampled_from([bad for bad, _ in BAD_REQUESTS] + BAD_REPLIES),
            st.binary(max_size=5),
        ),
        max_size=5,
    ).map(b"".join),
    POINTS,
)
@settings(max_examples=EXAMPLES)
def test_f1_garbage_means_the_same_however_it_is_cut(data: bytes, points: list[int]) -> None:
    assert parse(cut(data, points), 60) == parse([data], 60)
    assert parse_replies(cut(data, points), 60) == parse_replies([data], 60)


# Limits: at the limit, and one past it.


def test_limit_max_frame_bytes() -> None:
    at_limit = encode_request(Op.PUT, b"k" * 10, b"v" * 41)
    assert parse([at_limit], 60)[1] is None
    assert len(parse([at_limit], 60)[0]) == 1
    past = encode_request(Op.PUT, b"k" * 10, b"v" * 42)
    assert parse([past], 60) == ([], "frame of 61 bytes is larger than the limit of 60")
    assert parse_replies([encode_ok(b"v" * 55)], 60)[1] is None
    assert parse_replies([encode_ok(b"v" * 56)], 60)[1] is not None


def test_the_default_limit_holds_the_largest_key_and_value() -> None:
    parser = FrameParser()
    parser.feed(request_frame(MAX_FRAME_BYTES, 2, 64 << 10, 512 << 20))
    assert parser.error is None
    parser.feed(b"")
    assert parse([struct.pack("<I", MAX_FRAME_BYTES + 1)])[1] is not None


def test_the_limit_may_change_between_frames() -> None:
    parser = FrameParser(9)
    assert len(parser.feed(encode_request(Op.PING))) == 1
    parser.max_frame_bytes = MAX_FRAME_BYTES
    assert len(parser.feed(encode_request(Op.GET, b"key"))) == 1


def test_limits_must_make_sense() -> None:
    with pytest.raises(InvalidArgument, match="max_frame_bytes must be at least 9"):
        FrameParser(8)


def test_f3_declarations_allocate_nothing() -> None:
    tracemalloc.start()
    try:
        parser = FrameParser()
        parser.feed(request_frame(9 + (512 << 20), 2, 1, (512 << 20) - 1))
        replies = FrameReplyParser()
        replies.feed(struct.pack("<IBI", 5 + (512 << 20), 0, 512 << 20))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert parser.buffered_bytes == 0
    parser.feed(b"xyz")
    assert parser.buffered_bytes == 3


def test_f3_a_large_value_costs_twice_its_size_and_linear_time() -> None:
    size = 24 << 20
    chunk = b"v" * (32 << 10)
    tracemalloc.start()
    try:
        parser = FrameParser()
        parser.feed(request_frame(9 + 1 + size, 2, 1, size, b"k"))
        for _ in range(size // len(chunk)):
            requests = parser.feed(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [(request.key, len(request.value)) for request in requests] == [(b"k", size)]
    assert peak < 2.3 * size


def test_messages_of_any_text_encode() -> None:
    ((reply,), error) = parse_replies([encode_error("é \ud800\n")])
    assert error is None
    assert reply.message == "é \\ud800\n"
    assert FrameReply(Status.ERROR, b"\xff").message == "\\xff"


class _Huge(bytes):
    """Says it has nearly 4 GiB, so that the test needs none."""

    def __len__(self) -> int:
        return (1 << 32) - 5


def test_what_does_not_fit_a_frame_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="cannot hold 4294967300 bytes"):
        encode_request(Op.PUT, b"", _Huge())
    with pytest.raises(InvalidArgument, match="cannot hold 4294967296 bytes"):
        encode_ok(_Huge())
