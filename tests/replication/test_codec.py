"""The replication protocol's bytes: the page's own, round trips, damage, limits, a fuzzer.

MARRAM_FUZZ_SEED=n    another seed
MARRAM_FUZZ_INPUTS=n  another number of inputs
"""

from __future__ import annotations

import os
import random
import re
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.coding.checksum import crc32
from marram.errors import InvalidArgument, ProtocolError
from marram.protocol.frames import FrameParser, FrameReplyParser, Op, encode_error, encode_request
from marram.replication import codec
from marram.replication.codec import (
    Decoder,
    decode_hello,
    encode,
    encode_hello,
    refusal_line,
    refusal_of,
)
from marram.replication.messages import (
    GREETING_FRAME_BYTES,
    TEXT_BYTES_MAX,
    Ack,
    Agreed,
    Batches,
    Code,
    Hello,
    Mark,
    Message,
    Plan,
    Ready,
    Refusal,
    Rows,
    Welcome,
    weight_of,
)
from tests.replication.wire import ONE_OF_EACH, messages

EXAMPLES = int(os.environ.get("MARRAM_EXAMPLES", "300"))
SEED = int(os.environ.get("MARRAM_FUZZ_SEED", "20261121"))
INPUTS = int(os.environ.get("MARRAM_FUZZ_INPUTS", "200000"))
PAGE = Path(__file__).parents[2] / "docs" / "protocols" / "replication.md"
HELLO = Hello(1, 1, b"n" * 16, b"r" * 16)


def wire(message: Message) -> bytes:
    return b"".join(encode(message))


def feed(data: bytes, cuts: list[int], limit: int = 1 << 30) -> tuple[list[Message], str | None]:
    decoder = Decoder(limit)
    found: list[Message] = []
    start = 0
    for stop in [*sorted(cuts), len(data)]:
        found += decoder.feed(data[start:stop])
        assert decoder.buffered_bytes <= stop
        start = stop
    return found, decoder.error


# -- the page --------------------------------------------------------------------------------------


def test_the_page_shows_the_bytes() -> None:
    rows = re.findall(r"^    (\w[^|\n]*?)  +((?:[0-9a-f]{2}[ |]*)+)$", PAGE.read_text(), re.M)
    examples = {name: bytes.fromhex(text.replace("|", "")) for name, text in rows}

    assert examples == {
        "Ready": wire(Ready()),
        "Agreed none": wire(Agreed(None)),
        "Ack 7, 6, 300": wire(Ack(7, 6, 300)),
        'Refusal SELF, 3, "me"': wire(Refusal(Code.SELF, 3, "me")),
        "Batches 7, of epoch 2": wire(ONE_OF_EACH[10]),
    }


def test_the_page_lists_every_kind_and_code() -> None:
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (\w+)", PAGE.read_text(), re.M)
    kinds = {
        name: int(kind) for kind, who, name in rows if who in ("replica", "upstream", "either")
    }
    lines = {int(code): line for code, line, _ in rows if line.isupper()}

    assert kinds == {type(message).__name__: wire(message)[4] for message in ONE_OF_EACH}
    assert lines == {int(code): code.name.replace("_", "") for code in Code}


# -- the first message and its answer --------------------------------------------------------------


def test_hello_rides_in_a_request_of_the_framed_protocol() -> None:
    (request,) = FrameParser(16 << 10).feed(encode_request(Op.REPLICATE, b"", encode_hello(HELLO)))

    assert request.op is Op.REPLICATE
    assert decode_hello(request.value) == HELLO


def test_a_later_hello_may_be_longer() -> None:
    assert decode_hello(encode_hello(HELLO) + b"of version 2") == HELLO


@pytest.mark.parametrize("value", [b"", b"GET / HTTP/1.1\r\n\r\n", encode_hello(HELLO)[:-1]])
def test_what_is_no_hello_is_refused(value: bytes) -> None:
    with pytest.raises(ProtocolError, match="no replica"):
        decode_hello(value)


@pytest.mark.parametrize("code", Code)
def test_a_refusal_at_the_door_is_an_error_of_the_framed_protocol(code: Code) -> None:
    refusal = Refusal(code, 12, "because of this")
    (reply,) = FrameReplyParser().feed(encode_error(refusal_line(refusal)))

    assert refusal_of(reply.message) == refusal


@pytest.mark.parametrize("line", ["", "ERR no", "NOAUTH log in", "SELF", "SELF x y", "SELF ² y"])
def test_an_error_of_another_server_is_no_refusal(line: str) -> None:
    assert refusal_of(line) is None


# -- round trips -----------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ONE_OF_EACH, ids=lambda m: type(m).__name__)
def test_x1_every_message_comes_back(message: Message) -> None:
    assert feed(wire(message), []) == ([message], None)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(messages, max_size=5), st.lists(st.integers(0, 20_000), max_size=8))
def test_x1_x2_messages_come_back_however_they_are_cut(
    sent: list[Message], cuts: list[int]
) -> None:
    data = b"".join(map(wire, sent))
    assert feed(data, [cut % (len(data) + 1) for cut in cuts]) == (sent, None)


def test_a_payload_is_not_copied_to_be_sent() -> None:
    payload = b"x" * 1000
    assert encode(Rows(0, payload))[1] is payload


def test_a_text_that_is_too_long_is_cut() -> None:
    (found,), error = feed(wire(Refusal(Code.FAILED, 1, "é" * TEXT_BYTES_MAX)), [])

    assert error is None
    assert isinstance(found, Refusal)
    assert found.text == "é" * (TEXT_BYTES_MAX // 2)


def test_a_text_cannot_break_a_line_of_a_log() -> None:
    sent = wire(Refusal(Code.FAILED, 1, "one\ntwo\x1b[31m\u2028"))
    assert feed(sent, [])[0] == [Refusal(Code.FAILED, 1, "one?two?[31m?")]

    start, body = sent[:5], sent[9:].replace(b"one?", b"one\n")
    forged = start + struct.pack("<I", codec.crc32(start + body)) + body
    assert feed(forged, [])[0] == []


def test_all_a_replica_sends_before_and_after_fits_the_small_limit() -> None:
    for message in ONE_OF_EACH:
        if not isinstance(message, Batches | Rows):
            assert feed(wire(message), [], GREETING_FRAME_BYTES) == ([message], None)


def test_a_message_weighs_no_less_than_its_bytes() -> None:
    for message in ONE_OF_EACH:
        if isinstance(message, Batches | Rows):
            assert weight_of(message) >= len(wire(message))


# -- damage and limits -----------------------------------------------------------------------------


@pytest.mark.parametrize("message", ONE_OF_EACH, ids=lambda m: type(m).__name__)
def test_x4_a_flipped_bit_is_no_other_message(message: Message) -> None:
    data = wire(message)
    # The chain, or the sum at the end, covers a payload.
    covered = len(data) - (len(message.payload) if isinstance(message, Batches | Rows) else 0)
    for bit in range(covered * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert feed(bytes(damaged), [])[0] == []


def test_x2_what_precedes_bad_bytes_is_handed_out_and_nothing_after() -> None:
    good, bad = wire(Ack(1, 1, 1)), wire(Ready())[:-1] + b"?"
    for cut in range(len(good + bad + good)):
        found, error = feed(good + bad + good, [cut])
        assert found == [Ack(1, 1, 1)]
        assert error is not None


def test_x3_a_frame_above_the_limit_is_refused_by_its_first_bytes() -> None:
    limit = 5000
    for size, is_refused in ((limit, False), (limit + 1, True), ((1 << 32) - 1, True)):
        decoder = Decoder(limit)
        decoder.feed(struct.pack("<I", size))
        assert (decoder.error is not None) is is_refused is decoder.too_large


def test_x3_a_declared_length_allocates_nothing() -> None:
    decoder = Decoder()
    head = wire(Rows(0, b"x"))[4:-1]
    tracemalloc.start()
    try:
        decoder.feed(struct.pack("<I", 1 << 30) + head + b"x" * 1000)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert decoder.error is None
    assert decoder.buffered_bytes < 1100


def test_x2_a_large_payload_comes_back_from_pieces_of_any_size() -> None:
    rng = random.Random(3)
    payload = rng.randbytes(200_000)
    messages = [Rows(0, payload), Ready(), Batches(1, 1, 1, 1, 1, 1, payload[:90_000]), Ready()]
    data = b"".join(map(wire, messages))
    for biggest in (10, 100, 5000, 20_000, 100_000, 400_000):
        cuts, at = [], 0
        while at < len(data):
            at += rng.choice((rng.randint(1, biggest), biggest))
            cuts.append(min(at, len(data)))
        assert feed(data, cuts) == (messages, None)


def test_x3_small_pieces_share_a_buffer() -> None:
    decoder = Decoder()
    data = wire(Rows(0, b"x" * 20_000))
    tracemalloc.start()
    try:
        for at in range(len(data) - 1):
            decoder.feed(data[at : at + 1])
        assert tracemalloc.get_traced_memory()[0] < 50_000
    finally:
        tracemalloc.stop()
    assert decoder.buffered_bytes == len(data) - 1
    assert decoder.feed(data[-1:]) == [Rows(0, b"x" * 20_000)]
    assert decoder.buffered_bytes == 0


@pytest.mark.parametrize("size", range(5))
def test_a_frame_too_short_for_its_own_fields_is_refused(size: int) -> None:
    assert feed(struct.pack("<I", size) + b"\0" * 20, [])[1] is not None


def test_no_message_without_a_payload_may_be_large() -> None:
    data = struct.pack("<IB", 20_000, 3)
    assert "20000" in str(feed(data, [])[1])
    assert feed(data, [4]) == feed(data, [])


def test_the_limit_has_a_floor() -> None:
    with pytest.raises(InvalidArgument):
        Decoder(GREETING_FRAME_BYTES - 1)


def test_a_payload_above_the_format_is_not_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_U32_MAX", 1000)
    with pytest.raises(InvalidArgument):
        encode(Rows(0, b"x" * 1000))


# -- the fuzzer ------------------------------------------------------------------------------------

TOKENS = [struct.pack("<I", n) for n in (0, 1, 4, 5, 9, 4096, 4097, 1 << 31, (1 << 32) - 1)]
TOKENS += [bytes([kind]) for kind in (0, 1, 2, 3, 4, 16, 17, 18, 19, 22, 32, 255)]
TOKENS += [b"\0" * 20, b"\xff" * 8, b"x" * 40, wire(Ready()), wire(Ack(0, 0, 0))]


def wound(rng: random.Random, data: bytes) -> bytes:
    """One to three wounds: a byte changed, a piece dropped, a token put in, the end cut off."""
    wounded = bytearray(data)
    draw = rng.random
    for _ in range(1 + int(draw() * 3)):
        at = int(draw() * len(wounded))
        kind = draw()
        if kind < 0.3 and wounded:
            wounded[at] = int(draw() * 256)
        elif kind < 0.5:
            del wounded[at : at + 1 + int(draw() * 4)]
        elif kind < 0.85:
            wounded[at:at] = TOKENS[int(draw() * len(TOKENS))]
        else:
            del wounded[at:]
    return bytes(wounded)


def resealed(rng: random.Random, data: bytes) -> bytes:
    """A body that makes no sense under a checksum that does."""
    kind = data[4]
    body = wound(rng, data[9:])
    fixed = {19: 40, 22: 4}.get(kind, len(body))
    start = struct.pack("<IB", 5 + len(body), kind)
    return start + struct.pack("<I", codec.crc32(start + body[:fixed])) + body


def test_bad_bytes_set_error_and_nothing_else() -> None:
    rng = random.Random(SEED)
    valid = [wire(message) for message in ONE_OF_EACH]
    errors = answered = incomplete = 0
    seen: set[bytes] = set()
    while len(seen) < INPUTS:
        data = valid[int(rng.random() * len(valid))]
        data = resealed(rng, data) if rng.random() < 0.5 else wound(rng, data)
        data += valid[int(rng.random() * len(valid))]
        if data in seen:
            continue
        seen.add(data)
        cut = int(rng.random() * (len(data) + 1))
        found, error = feed(data, [cut], GREETING_FRAME_BYTES)
        if len(seen) % 4 == 0:
            assert feed(data, [], GREETING_FRAME_BYTES) == (found, error), (SEED, data, cut)
        for message in found:
            assert wire(message) in data  # X1, the other way: nothing is read loosely
        errors += error is not None
        answered += bool(found)
        incomplete += error is None and len(found) < 2
    # The generator must keep reaching every kind of end, or the test says nothing.
    assert min(errors, answered, incomplete) > INPUTS // 100, (errors, answered, incomplete)


def test_a_route_has_64_servers_at_most() -> None:
    ids = tuple(bytes((number,)) * 16 for number in range(65))
    message = Welcome(b"p" * 32, b"s" * 16, 4, Mark(3, 120, 9), Plan.TAIL, None, "", 1000, ids)
    (told,) = Decoder().feed(b"".join(encode(message)))
    assert told == replace(message, route=ids[:64])
    at = b"".join(encode(message)).index(ids[0]) - 1
    data = bytearray(b"".join(encode(message)))
    assert data[at] == 64
    data[at : at + 1] = bytes((65,))  # 64 follow, and the text's two bytes
    data[5:9] = crc32(data[9:], crc32(data[:5])).to_bytes(4, "little")
    decoder = Decoder()
    assert decoder.feed(bytes(data)) == []
    assert decoder.error is not None
    assert "a route of 65 servers" in decoder.error
