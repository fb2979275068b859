"""Replies are counted, whatever they hold and however they are cut."""

from __future__ import annotations

import itertools
import json
from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.bench.target import Place, parse_place
from marram.bench.wire import Replies, make_wire
from marram.bench.wire_frames import FrameReplies
from marram.bench.wire_http import HttpReplies
from marram.bench.wire_resp import RespReplies
from marram.client.url import Target
from marram.errors import InvalidArgument, ProtocolError
from marram.protocol.frames import (
    FrameParser,
    Op,
    encode_error,
    encode_not_found,
    encode_ok,
)
from marram.protocol.replies import NULL_ARRAY, OK, ErrorReply, Simple
from marram.protocol.resp import RequestParser, encode

TARGET = Target("127.0.0.1", 7379)

# Each reply is (its bytes, whether it is an error, whether it is a miss).
RESP_VALUES = st.recursive(
    st.one_of(
        st.binary(max_size=40), st.just(b"x" * 100), st.just(OK), st.just(Simple("PONG")),
        st.integers(-(2**63), 2**63 - 1), st.none(), st.just(NULL_ARRAY),
    ),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
RESP = st.one_of(
    RESP_VALUES.map(lambda value: (encode(value, 2), False, value is None or value is NULL_ARRAY)),
    st.just((encode(ErrorReply("ERR no $5\r\n"), 2), True, False)),
)
FRAMES = st.one_of(
    st.binary(max_size=30).map(lambda value: (encode_ok(value), False, False)),
    st.just((encode_not_found(), False, True)),
    st.just((encode_error("ERR no"), True, False)),
)


def http(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nDate: today\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


HTTP = st.one_of(
    st.binary(max_size=50).map(lambda body: (http("200 OK", body), False, False)),
    st.just((http("404 Not Found", b"{}"), False, True)),
    st.just((http("401 Unauthorized", b'{"error": {"message": "no"}}'), True, False)),
    st.just((http("500 Oh", b"\r\n\r\nHTTP/1.1 "), True, False)),
)


def feed(counter: Replies, data: bytes, cuts: list[int]) -> int:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return sum(counter.feed(data[a:b]) for a, b in itertools.pairwise(places))


@pytest.mark.parametrize(
    ("kind", "replies"), [(RespReplies, RESP), (FrameReplies, FRAMES), (HttpReplies, HTTP)]
)
@given(data=st.data())
@settings(max_examples=150)
def test_w1_w2_what_is_counted_does_not_depend_on_cuts_or_contents(kind, replies, data):
    drawn = data.draw(st.lists(replies, max_size=12))
    cuts = data.draw(st.lists(st.integers(0, 2000), max_size=8))
    counter = kind()
    assert feed(counter, b"".join(text for text, _, _ in drawn), cuts) == len(drawn)
    assert counter.errors == sum(error for _, error, _ in drawn)
    assert counter.misses == sum(missed for _, _, missed in drawn)


@pytest.mark.parametrize("kind", [RespReplies, FrameReplies])
@pytest.mark.parametrize("count", [1, 16, 5000])
def test_runs_of_equal_replies_are_counted_whole(kind, count):
    one = b"+OK\r\n" if kind is RespReplies else encode_ok()
    assert kind().feed(one * count) == count
    other = b"$100\r\n" + b"+" * 100 + b"\r\n" if kind is RespReplies else encode_ok(b"+" * 100)
    assert kind().feed(other * count) == count
    counter = kind()
    assert counter.feed(other * count + one * count + other[:50]) == 2 * count
    assert counter.feed(other[50:] + other[:3]) == 1
    assert counter.feed(other[3:]) == 1


def test_a_long_run_may_end_in_another_size_a_miss_or_an_error():
    value = b"$100\r\n" + b"\n" * 100 + b"\r\n"
    counter = RespReplies()
    data = value * 20 + b"$-1\r\n" + value * 20 + b"-ERR x\r\n" + b"$3\r\nabc\r\n" + value * 9
    assert counter.feed(data) == 52
    assert (counter.misses, counter.errors, counter.last_error) == (1, 1, "ERR x")


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (RespReplies, b"hello\r\n"), (RespReplies, b"$x\r\n"), (RespReplies, b"*-2\r\n"),
        (RespReplies, b"+" * 70_000), (RespReplies, b"\r\n"), (RespReplies, b"$9999999999999\r\n"),
        (FrameReplies, b"\0\0\0\0\0"), (FrameReplies, b"\5\0\0\0\7"),
        (HttpReplies, b"SSH-2.0\r\n\r\n"), (HttpReplies, b"HTTP/1.1 200 OK\r\n\r\n"),
        (HttpReplies, b"x" * 70_000),
    ],
)  # fmt: skip
def test_what_is_no_reply_is_refused(kind, data):
    with pytest.raises(ProtocolError):
        kind().feed(data)


def test_resp_requests_are_the_commands_they_should_be():
    wire = make_wire(Place("resp", Target("h", 1, keyspace=3, user="u", password="p")))
    greeting, count = wire.greeting()
    data = greeting + wire.get(b"k\r\n") + wire.put(b"k", b"\0v") + wire.scan(b"k", 7)
    assert RequestParser().feed(data) == [
        [b"AUTH", b"u", b"p"], [b"SELECT", b"3"], [b"GET", b"k\r\n"], [b"SET", b"k", b"\0v"],
        [b"SCANRANGE", b"k", b"", b"LIMIT", b"7"],
    ]  # fmt: skip
    assert count == 2


def test_frame_requests_are_the_frames_they_should_be():
    wire = make_wire(Place("frame", Target("h", 1, password="pw")))
    data = wire.greeting()[0] + wire.get(b"k") + wire.put(b"k", b"v")
    assert [tuple(one) for one in FrameParser().feed(data)] == [
        (Op.PING, b"pw", b""), (Op.GET, b"k", b""), (Op.PUT, b"k", b"v"),
    ]  # fmt: skip
    with pytest.raises(InvalidArgument):
        wire.scan(b"k", 1)


def test_http_requests_escape_keys_and_carry_values_in_base64():
    wire = make_wire(Place("http", Target("h", 1, password="pw")))
    get = wire.get(b"a/b\xff")
    assert get.startswith(b"GET /v1/kv/a%2Fb%FF HTTP/1.1\r\nHost: h:1\r\nAuthorization: Basic ")
    head, _, body = wire.put(b"k", b"\0v").partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b64decode(json.loads(body)["value"]) == b"\0v"
    assert wire.scan(b"k", 5).startswith(b"GET /v1/kv?start=k&limit=5 HTTP/1.1\r\n")
    with pytest.raises(InvalidArgument):
        wire.scan(b"k", 1001)


def test_http_errors_are_told_in_their_words():
    counter = HttpReplies()
    counter.feed(http("503 Busy", b'{"error": {"code": "c", "message": "too many"}}'))
    assert counter.last_error == "503 too many"
    counter.feed(http("500 Oh", b"<html>"))
    assert counter.last_error == "500 <html>"


@pytest.mark.parametrize(
    ("text", "protocol", "address"),
    [
        ("h:1", "resp", "h:1"), ("h", "resp", "h:7379"), ("marram://h", "resp", "h:7379"),
        ("redis://h", "resp", "h:6379"), ("redis://h:7/2", "resp", "h:7"),
        ("http://h", "http", "h:7380"), ("http://h:80/", "http", "h:80"),
        ("frame://[::1]", "frame", "[::1]:7381"), ("frame://[::1]:9", "frame", "[::1]:9"),
    ],
)  # fmt: skip
def test_a_place_is_a_url_or_an_address(text, protocol, address):
    place = parse_place(text)
    assert (place.protocol, place.target.address) == (protocol, address)


def test_a_password_comes_from_the_url_or_from_beside_it_and_is_not_shown():
    assert parse_place("http://:one@h", "two").target.password == "one"
    place = parse_place("frame://h", "two")
    assert place.target.password == "two"
    assert "two" not in f"{place} {place!r}"
    assert str(place).startswith("frame://")
    assert str(parse_place("h")).startswith("marram://h")


@pytest.mark.parametrize(
    "text", ["https://h", "rediss://h", "http://h/1", "frame://h/2", "h:x", ""]
)
def test_what_is_no_place_is_refused(text: Any):
    with pytest.raises(InvalidArgument):
        parse_place(text)
