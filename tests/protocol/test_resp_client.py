"""RESP, the client's side: round trips through the server's encoder, hostile replies, limits."""

from __future__ import annotations

import math
import os
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.errors import InvalidArgument, InvalidType, ProtocolError
from marram.protocol import replies
from marram.protocol.replies import ErrorReply, Push, Reply, SetReply, Simple, Verbatim
from marram.protocol.resp import RequestParser, encode
from marram.protocol.resp_client import ReplyLimits, ReplyParser, encode_command

EXAMPLES = int(os.environ.get("MARRAM_EXAMPLES", "300"))

SMALL = ReplyLimits(
    max_bulk_bytes=20, max_line_bytes=32, max_reply_bytes=60, max_elements=4, max_depth=3
)


def parse(chunks: list[bytes], limits: ReplyLimits | None = None) -> tuple[list[Reply], str | None]:
    """The replies, and the error's text; the error must persist once it is set."""
    parser = ReplyParser(limits or ReplyLimits())
    found: list[Reply] = []
    for chunk in chunks:
        try:
            found += parser.feed(chunk)
        except ProtocolError as error:
            assert parser.error is error
    if parser.error is not None:
        with pytest.raises(ProtocolError):
            parser.feed(b"+OK\r\n")
    return found, None if parser.error is None else str(parser.error)


def cut(data: bytes, points: list[int]) -> list[bytes]:
    edges = [0, *sorted(point % (len(data) + 1) for point in points), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


POINTS = st.lists(st.integers(0, 1 << 20), max_size=6)
LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
KEYS = st.one_of(st.binary(max_size=8), LINE.map(Simple))
SCALARS = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"", b"\r\n", b"$1\r\n", b"x" * 1023, b"x" * 1024]),
    st.integers(-(2**63), 2**63 - 1),
    st.none(),
    st.booleans(),
    st.floats(allow_nan=False),
    LINE.map(Simple),
    LINE.map(ErrorReply),
    st.binary(max_size=12).map(Verbatim),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=3),
        st.lists(inner, max_size=3).map(SetReply),
    ),
    max_leaves=12,
)
REPLIES = st.lists(st.one_of(VALUES, st.lists(VALUES, max_size=3).map(Push)), max_size=5)


@given(REPLIES, POINTS)
@settings(max_examples=EXAMPLES)
def test_c1_c4_resp3_replies_survive_the_round_trip(values: list[Reply], points: list[int]) -> None:
    data = b"".join(encode(value, 3) for value in values)
    found, error = parse(cut(data, points))
    assert error is None
    assert repr(found) == repr(values)  # repr tells True from 1 and -0.0 from 0


def as_resp2(value: object) -> object:
    """What is left of a value after RESP2: fewer types."""
    match value:
        case bool():
            return int(value)
        case float():
            return encode(value, 2).split(b"\r\n")[1]
        case Verbatim():
            return value.data
        case dict():
            return [as_resp2(part) for pair in value.items() for part in pair]
        case SetReply() | Push():
            return [as_resp2(item) for item in value.items]
        case list():
            return [as_resp2(item) for item in value]
    return value


@given(REPLIES, POINTS)
@settings(max_examples=EXAMPLES)
def test_resp2_replies_survive_with_fewer_types(values: list[Reply], points: list[int]) -> None:
    data = b"".join(encode(value, 2) for value in values)
    assert parse(cut(data, points)) == ([as_resp2(value) for value in values], None)


CORPUS: list[tuple[bytes, Reply]] = [
    (b"+OK\r\n", replies.OK),
    (b"+\r\n", Simple("")),
    (b"-ERR no\r\n", ErrorReply("ERR no")),
    (b":+5\r\n", 5),
    (b":-0\r\n", 0),
    (b"$0\r\n\r\n", b""),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"_\r\n", None),
    (b"#t\r\n", True),
    (b",1e3\r\n", 1000.0),
    (b",-inf\r\n", -math.inf),
    (b",5.\r\n", 5.0),
    (b"(-170141183460469231731687303715884105728\r\n", -(2**127)),
    (b"!8\r\nERR a\r\nb\r\n", ErrorReply("ERR a\r\nb")),
    (b"=7\r\nmkd:abc\r\n", Verbatim(b"abc", "mkd")),
    (b"%1\r\n+k\r\n*1\r\n:1\r\n", {Simple("k"): [1]}),
    (b"%0\r\n", {}),
    (b"~2\r\n:1\r\n:1\r\n", SetReply([1, 1])),
    (b">2\r\n$1\r\na\r\n:1\r\n", Push([b"a", 1])),
    (b"|1\r\n+ttl\r\n:9\r\n:7\r\n", 7),
    (b"*2\r\n|1\r\n+ttl\r\n:9\r\n:7\r\n:8\r\n", [7, 8]),
    (b"|0\r\n:7\r\n", 7),
]


@pytest.mark.parametrize(("data", "reply"), CORPUS)
def test_replies_are_read_by_type(data: bytes, reply: Reply) -> None:
    assert parse([data]) == ([reply], None)
    assert parse([data] * 2) == ([reply] * 2, None)


def test_not_a_number_is_read() -> None:
    (((number,), error),) = [parse([b",nan\r\n"])]
    assert error is None
    assert isinstance(number, float)
    assert math.isnan(number)


def test_c1_every_cut_of_the_corpus_gives_the_same_replies() -> None:
    data = b"".join(wire for wire, _ in CORPUS)
    expected = ([reply for _, reply in CORPUS], None)
    assert parse([data[i : i + 1] for i in range(len(data))]) == expected
    for at in range(len(data)):
        assert parse([data[:at], data[at:]]) == expected


def test_pushes_stand_among_the_replies_in_order() -> None:
    found, _ = parse([b"+a\r\n>1\r\n+p\r\n+b\r\n"])
    assert found == [Simple("a"), Push([Simple("p")]), Simple("b")]


GARBAGE = [
    (b"HTTP/1.1 400\r\n", "cannot start with b'H'"),
    (b"\r\n", "cannot start with"),
    (b"$x\r\n", "not a length"),
    (b"$-2\r\n", "not a length"),
    (b"$+1\r\n", "not a length"),
    (b"$01\r\n", "not a length"),
    (b"$?\r\n", "not a length"),
    (b"*?\r\n", "not a length"),
    (b"%-1\r\n", "not a length"),
    (b"!-1\r\n", "not a length"),
    (b"$1\r\nab\r\n", "not followed by CRLF"),
    (b":\r\n", "not an integer"),
    (b":1.5\r\n", "not an integer"),
    (b":1_0\r\n", "not an integer"),
    (b":" + b"1" * 20 + b"\r\n", "not an integer"),
    (b"(1x\r\n", "not a big number"),
    (b"(" + b"1" * 5000 + b"\r\n", "not a big number"),
    (b",one\r\n", "not a double"),
    (b",1_0\r\n", "not a double"),
    (b",infinity\r\n", "not a double"),
    (b"#true\r\n", "not a boolean"),
    (b"_x\r\n", "a null has no text"),
    (b"+a\nb\r\n", "more than one line"),
    (b"-a\rb\r\n", "more than one line"),
    (b"=3\r\nabc\r\n", "start with its format"),
    (b"=4\r\n\xff\xff\xff:\r\n", "start with its format"),
    (b"*1\r\n>1\r\n:1\r\n", "a push inside a reply"),
    (b"%1\r\n*0\r\n:1\r\n", "key is an aggregate"),
    (b"+" + b"x" * 70_000, "a line is too long"),
]


@pytest.mark.parametrize(("data", "message"), GARBAGE)
def test_c2_garbage_raises_after_the_replies_before_it(data: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        ReplyParser().feed(data)
    for chunks in (
        [b":1\r\n" + data],
        [b":1\r\n", data],
        [b":1\r", b"\n" + data],
        [b":1\r\n" + data, b""],
    ):
        found, error = parse(chunks)
        assert found == [1]
        assert error is not None
        assert message in error


@given(
    st.lists(
        st.one_of(
            st.sampled_from([wire for wire, _ in CORPUS] + [wire for wire, _ in GARBAGE[:-1]]),
            st.sampled_from([b"*2\r\n", b"%1\r\n", b"~1\r\n", b"|1\r\n", b"$3\r\n", b"\r", b"\n"]),
            st.binary(max_size=4),
        ),
        max_size=10,
    ).map(b"".join),
    POINTS,
)
@settings(max_examples=2 * EXAMPLES)
def test_c1_garbage_means_the_same_however_it_is_cut(data: bytes, points: list[int]) -> None:
    for limits in (ReplyLimits(), SMALL):
        assert repr(parse(cut(data, points), limits)) == repr(parse([data], limits))


# Limits: at the limit, and one past it.


@pytest.mark.parametrize(
    ("at_limit", "past", "message"),
    [
        (b"$20\r\n" + b"x" * 20 + b"\r\n", b"$21\r\n", "bulk string of 21 bytes"),
        (b"+" + b"x" * 31 + b"\r\n", b"+" + b"x" * 32 + b"\r\n", "a line is too long"),
        (b"*4\r\n" + b":1\r\n" * 4, b"*5\r\n", "5 elements"),
        (b"%2\r\n" + b":1\r\n" * 4, b"%3\r\n", "6 elements"),
        (b"*1\r\n*1\r\n*1\r\n:1\r\n", b"*1\r\n*1\r\n*1\r\n*0\r\n", "deeper than 3"),
        (
            b"*3\r\n$20\r\n" + b"x" * 20 + b"\r\n$19\r\n" + b"x" * 19 + b"\r\n_\r\n",
            b"*3\r\n" + (b"$20\r\n" + b"x" * 20 + b"\r\n") * 2 + b"_\r\n",
            "more than 60 bytes",
        ),
        (b"+" + b"x" * 31, b"+" + b"x" * 33, "a line is too long"),
    ],
)
def test_limits_hold(at_limit: bytes, past: bytes, message: str) -> None:
    assert parse([at_limit], SMALL)[1] is None
    for chunks in ([past], [past[i : i + 1] for i in range(len(past))]):
        found, error = parse(chunks, SMALL)
        assert found == []
        assert error is not None
        assert message in error


def test_the_limit_on_a_reply_is_not_one_on_the_connection() -> None:
    reply = b"$20\r\n" + b"x" * 20 + b"\r\n"
    assert parse([reply * 50], SMALL) == ([b"x" * 20] * 50, None)


def test_replies_nest_to_the_default_limit() -> None:
    assert parse([b"*1\r\n" * 32 + b":1\r\n"])[1] is None
    assert parse([b"*1\r\n" * 32 + b"*0\r\n"])[1] == "a reply nests deeper than 32"


def test_limits_must_make_sense() -> None:
    with pytest.raises(InvalidArgument, match="max_depth must be at least 1"):
        ReplyLimits(max_depth=0)
    with pytest.raises(InvalidArgument, match="max_line_bytes must be at least 32"):
        ReplyLimits(max_line_bytes=31)


def test_c3_declarations_allocate_nothing() -> None:
    tracemalloc.start()
    try:
        parsers = [ReplyParser() for _ in range(2)]
        parsers[0].feed(b"*1048576\r\n" * 32)
        parsers[1].feed(b"$536870912\r\nx")
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_c3_a_large_value_in_small_pieces() -> None:
    size = 8 << 20
    parser = ReplyParser()
    parser.feed(b"*1\r\n$%d\r\n" % size)
    for _ in range(size // 4096):
        assert parser.feed(b"\r\n" * 2048) == []
    assert parser.feed(b"\r\n") == [[b"\r\n" * (size // 2)]]


# Commands.


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=8))
def test_commands_read_back_on_the_server(args: list[bytes]) -> None:
    assert RequestParser(authenticated=True).feed(encode_command(args)) == [args]


def test_commands_around_the_table_of_headers() -> None:
    for size in (1023, 1024):
        assert encode_command([b"x" * size]) == b"*1\r\n$%d\r\n%b\r\n" % (size, b"x" * size)


def test_commands_are_bytes_and_have_a_name() -> None:
    with pytest.raises(InvalidArgument, match="at least a name"):
        encode_command([])
    with pytest.raises(InvalidType, match="bytes, not str"):
        encode_command([b"GET", "k"])  # type: ignore[list-item]
