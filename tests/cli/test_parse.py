"""A line as words: blanks, quotes, and where it is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marram.cli.parse import BadLine, quote, split


def words(line: str) -> list[bytes]:
    return [word.value for word in split(line)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", []),
        (" \t\r\n", []),
        ("GET k", [b"GET", b"k"]),
        ("  GET \t k \n", [b"GET", b"k"]),
        ('PUT user:1 {"name":"Alice","age":30}', [b"PUT", b"user:1", b'{"name":"Alice","age":30}']),
        ("it's a\\b", [b"it's", b"a\\b"]),
        ('"a b" "" x', [b"a b", b"", b"x"]),
        (r'"\n\r\t\b\a\"\\\x00\xFf"', [b'\n\r\t\b\a"\\\x00\xff']),
        (r"'a b' '\'' '\\' '\n' '\"\"'", [b"a b", b"'", b"\\", b"\\n", b'\\"\\"']),
        ("é '€' \"\\xe2\\x82\\xac\"", ["é".encode(), "€".encode(), "€".encode()]),
        ("\udcff\udc80 '\udcff'", [b"\xff\x80", b"\xff"]),
    ],
)
def test_a_line_is_split_at_blanks_and_quotes_hold_together(line, expected):
    assert words(line) == expected


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        ('GET "k', 4, "not closed"),
        ("GET 'k", 4, "not closed"),
        ('GET "k\\', 4, "not closed"),
        ('GET "k"x', 7, "blank belongs"),
        ("GET 'k'x", 7, "blank belongs"),
        ('GET "a\\q"', 6, "no escape"),
        ('GET "\\x1"', 5, "two hexadecimal"),
        ('GET "\\x1g"', 5, "two hexadecimal"),
        ('GET "\\x"', 5, "two hexadecimal"),
    ],
)
def test_l2_a_wrong_line_is_refused_with_its_column(line, column, message):
    with pytest.raises(BadLine, match=message) as caught:
        split(line)
    assert caught.value.column == column
    shown, caret = caught.value.pointing(line).split("\n")
    assert shown == line
    assert caret.index("^") == column


@given(st.lists(st.one_of(st.binary(), st.text().map(str.encode))))
def test_l1_quoted_bytes_read_back_as_they_were(values):
    assert words(" ".join(map(quote, values))) == values


@given(st.binary())
def test_a_quoted_word_can_be_shown(data):
    assert quote(data).isprintable()


@given(st.text())
def test_any_line_is_split_or_refused(line):
    try:
        found = split(line)
    except BadLine as error:
        assert 0 <= error.column <= len(line)
    else:
        assert all(word.start < word.stop <= len(line) for word in found)


def test_plain_words_are_left_plain():
    assert quote(b"user:1") == "user:1"
    assert quote("Zoë".encode()) == "Zoë"
    assert quote(b"") == '""'
    assert quote(b'"') == '"\\""'
    assert quote(b'a"b') == 'a"b'
    assert quote(b"\xff\n") == '"\\xff\\n"'
    assert quote("\u202e".encode()) == '"\\xe2\\x80\\xae"'  # it would turn the line round
