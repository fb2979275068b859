"""Values and replies on a screen: safe, cut where they are long, the way people read them."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marram.cli.render import (
    figures_lines,
    line_text,
    plain,
    reply_lines,
    size_text,
    value_text,
)
from marram.protocol.replies import (
    NULL_ARRAY,
    OK,
    ErrorReply,
    Push,
    SetReply,
    Simple,
    Verbatim,
)

VALUES = st.one_of(st.binary(), st.text().map(str.encode))


def shown(reply: object, limit: int | None = None) -> list[str]:
    return list(reply_lines(reply, limit))  # type: ignore[arg-type]


@given(VALUES, st.none() | st.integers(1, 20), st.booleans())
def test_r1_no_control_character_gets_out(data, limit, inline):
    text = value_text(data, limit, inline=inline)
    allowed = "" if inline else "\n\t"
    for char in text:
        assert char in allowed or char in "\u200c\u200d" or unicodedata.category(char)[0] != "C"


@given(VALUES)
def test_text_that_is_printable_is_shown_as_it_is(data):
    text = value_text(data)
    assert text == data.decode("utf-8", "replace") or text.startswith('"')


@given(st.text(min_size=1), st.integers(1, 10))
def test_a_cut_value_tells_its_size_and_keeps_its_beginning(text, limit):
    data = text.encode()
    cut = value_text(data, limit)
    if "…" in cut and not cut.startswith('"'):
        head, _, tail = cut.rpartition("…")
        assert text.startswith(head)
        assert tail == f" ({size_text(len(data))})"


@pytest.mark.parametrize(
    ("data", "limit", "text"),
    [
        (b"abc", 3, "abc"),
        (b"abcd", 3, "abc… (4 bytes)"),
        ("äöü".encode(), 3, "äöü"),
        ("äöüß".encode(), 3, "äöü… (8 bytes)"),
        ("€" * 400, 3, "€€€… (1.2 KiB)"),
        (b"\xff" * 5, 3, '"\\xff\\xff\\xff"… (5 bytes)'),
        (b"x" * 2_000_000, 3, "xxx… (1.9 MiB)"),
        (b"\x1b[31mred", None, '"\\x1b[31mred"'),
        (b"a\nb\tc", None, "a\nb\tc"),
        (b"a\rb", None, '"a\\rb"'),
        ("👩\u200d🚀".encode(), None, "👩\u200d🚀"),
        (b"", None, ""),
    ],
)
def test_values(data, limit, text):
    assert value_text(data.encode() if isinstance(data, str) else data, limit) == text


@pytest.mark.parametrize(
    ("reply", "lines"),
    [
        (b"v", ["v"]),
        (b"a\nb", ["a", "b"]),
        (OK, ["OK"]),
        (Simple("a\x1b[1m"), ["a?[1m"]),
        (5, ["(integer) 5"]),
        (None, ["(nil)"]),
        (NULL_ARRAY, ["(nil)"]),
        (True, ["(true)"]),
        (1.5, ["(double) 1.5"]),
        (ErrorReply("ERR no\x07"), ["Error: ERR no?"]),
        (Verbatim(b"a\tb\r\nc\x1b"), ["a  b", "c?"]),
        ([], ["(empty)"]),
        ({}, ["(empty)"]),
        ([b"a", None, 3], ["1) a", "2) (nil)", "3) (integer) 3"]),
        ([b"a\nb"], ['1) "a\\nb"']),
        (SetReply([b"x"]), ["1) x"]),
        (Push([b"message", b"c"]), ["1) message", "2) c"]),
        ({b"k": b"v", b"n": [1]}, ["k: v", "n:", "   1) (integer) 1"]),
        ([[b"a", [b"b"]], []], ["1)", "   1) a", "   2)", "      1) b", "2) (empty)"]),
        (list(range(10)), [f"{n + 1:>2}) (integer) {n}" for n in range(10)]),
    ],
)
def test_replies(reply, lines):
    assert shown(reply) == lines


def test_an_item_of_a_list_stays_on_its_line():
    (line,) = shown([b"a\nb\x00"])
    assert line == '1) "a\\nb\\x00"'


def test_nesting_without_end_is_shown_to_a_depth():
    reply: object = b"x"
    for _ in range(200):
        reply = [reply]
    assert len(shown(reply)) < 100


def test_line_text_keeps_letters_and_drops_the_rest():
    assert line_text("naïve\x1b\x9b\u202e") == "naïve???"


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        (b"v", "v"),
        (b"\xff", {"base64": "/w=="}),
        (OK, "OK"),
        (None, None),
        (NULL_ARRAY, None),
        ([1, b"a", [None]], [1, "a", [None]]),
        ({b"k": b"v", b"\xff": 1, 5: 2, OK: 3}, {"k": "v", "\\xff": 1, "5": 2, "OK": 3}),
        (SetReply([b"x"]), ["x"]),
        (Push([b"x"]), ["x"]),
        (Verbatim(b"t"), "t"),
        (ErrorReply("ERR x"), {"error": "ERR x"}),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
        (1.5, 1.5),
    ],
)
def test_replies_as_json(reply, value):
    assert plain(reply) == value
    json.dumps(plain(reply), allow_nan=False)


def test_sizes_are_for_people():
    assert [size_text(n) for n in (0, 1, 1023, 1024, 10**7, 10**15)] == [
        "0 bytes", "1 byte", "1023 bytes", "1.0 KiB", "9.5 MiB", "909.5 TiB",
    ]  # fmt: skip


def test_figures_are_indented_lines_what_is_flat_first():
    figures = {"sub": {"x": 1, "deep": {}}, "num_keys": 2, "on": True, "no": None, "l": [1, "a"]}
    assert list(figures_lines(figures)) == [
        "  num_keys: 2", "  on: true", "  no: -", "  l: 1, a", "  sub:", "    x: 1",
    ]  # fmt: skip
