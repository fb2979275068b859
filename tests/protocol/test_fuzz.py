"""Malformed requests by the hundred thousand, to both request parsers.

The only thing a parser may do with bad bytes is to set `error`; it keeps no more than it was fed,
and cutting the same bytes elsewhere changes nothing.

    MARRAM_FUZZ_SEED=n    another seed
    MARRAM_FUZZ_INPUTS=n  another number of inputs for each parser
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from itertools import product

import pytest

from marram.protocol.frames import FrameParser, Op, encode_request
from marram.protocol.resp import RequestParser, RespLimits
from marram.protocol.resp_client import encode_command

SEED = int(os.environ.get("MARRAM_FUZZ_SEED", "20261121"))
INPUTS = int(os.environ.get("MARRAM_FUZZ_INPUTS", "200000"))

# Small enough that inputs of a hundred bytes meet them.
RESP_LIMITS = RespLimits(
    max_bulk_bytes=64, max_args=8, max_inline_bytes=48, max_buffer_bytes=150, max_args_before_auth=3
)
FRAME_LIMIT = 64

Parser = RequestParser | FrameParser


def mutate(rng: random.Random, data: bytes, tokens: list[bytes]) -> bytes:
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
            wounded[at:at] = tokens[int(draw() * len(tokens))]
        else:
            del wounded[at:]
    return bytes(wounded)


RESP_TOKENS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"*",
    b"$",
    b"-1",
    b"+5",
    b"00",
    b"0",
    b"9",
    b"99999999",
    b'"',
]
RESP_TOKENS += [b"9" * 25, b"'", b"\\", b"\0", b" ", b"*1048577\r\n", b"$536870913\r\n", b"x" * 40]
RESP_TOKENS += [b"*2\r\n", b"*0\r\n", b"$0\r\n\r\n", b"$-1\r\n", b"PING\r\n", b"*2147483648\r\n"]
RESP_VALID = [
    b"".join(encode_command([b"k" * size] * count) for size in sizes)
    for count, *sizes in product([1, 2, 3, 5], [0, 1, 7], [1, 12])
] + [b"SET k 'a b'\r\n", b'ECHO "\\x41\\n"\n', b"PING\r\n" * 3, b"*0\r\n\r\nGET k\r\n"]

FRAME_TOKENS = [struct.pack("<I", n) for n in (0, 1, 8, 9, 10, 64, 65, 1 << 31, (1 << 32) - 1)]
FRAME_TOKENS += [b"\0", b"\xff", b"\1", b"\7", b"\0" * 9, b"x" * 20]
FRAME_VALID = [
    encode_request(op, b"k" * key_size, b"v" * value_size) + encode_request(Op.GET, b"key")
    for op, key_size, value_size in product(Op, [0, 1, 9], [0, 1, 30])
]


def resp_input(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.75:
        return mutate(rng, RESP_VALID[int(rng.random() * len(RESP_VALID))], RESP_TOKENS)
    if kind < 0.9:
        return b"".join(rng.choices(RESP_TOKENS, k=8))
    return b"*$"[: int(rng.random() * 3)] + rng.randbytes(int(rng.random() * 60))


def frame_input(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.75:
        return mutate(rng, FRAME_VALID[int(rng.random() * len(FRAME_VALID))], FRAME_TOKENS)
    if kind < 0.9:
        return b"".join(rng.choices(FRAME_TOKENS, k=6))
    return rng.randbytes(int(rng.random() * 60))


def resp_parser(number: int) -> Parser:
    """Every other parser takes the fast path; of the small ones, some face strangers."""
    if number % 2:
        return RequestParser(authenticated=True)
    return RequestParser(RESP_LIMITS, authenticated=number % 8 != 0)


def frame_parser(number: int) -> Parser:
    return FrameParser(FRAME_LIMIT)


def feed(parser: Parser, data: bytes, cut: int) -> tuple[list[object], str | None, int]:
    found: list[object] = list(parser.feed(data[:cut]))
    assert parser.buffered_bytes <= cut
    found += parser.feed(data[cut:])
    assert parser.buffered_bytes <= len(data)
    return found, parser.error, parser.buffered_bytes


@pytest.mark.parametrize(
    ("make_parser", "make_input"),
    [
        pytest.param(resp_parser, resp_input, id="resp"),
        pytest.param(frame_parser, frame_input, id="frames"),
    ],
)
def test_malformed_input_sets_error_and_nothing_else(
    make_parser: Callable[[int], Parser], make_input: Callable[[random.Random], bytes]
) -> None:
    rng = random.Random(SEED)
    seen: set[bytes] = set()
    errors = answered = incomplete = 0
    while len(seen) < INPUTS:
        data = make_input(rng)
        if data in seen:
            continue
        seen.add(data)
        number = len(seen)
        cut = int(rng.random() * (len(data) + 1))
        outcome = feed(make_parser(number), data, cut)
        assert outcome == feed(make_parser(number), data, 0), (SEED, number, cut, data)
        found, error, buffered = outcome
        errors += error is not None
        answered += bool(found)
        incomplete += buffered > 0
    # The generator must keep reaching every kind of end, or the test says nothing.
    assert min(errors, answered, incomplete) > INPUTS // 50
