"""A shell line as arguments: words and quotes.

Owns the line's grammar; not what the words mean (words.py, the command table).

    line    words separated by blanks
    word    anything without blanks, taken literally: {"a":1} is one word of eight characters
    "..."   at the start of a word only; \\n \\r \\t \\b \\a \\xHH \\" and \\\\ inside
    '...'   at the start of a word only; \\' and \\\\ inside, all else literally

L1  whatever quote() makes of bytes, split() reads back as those bytes, as one argument.
L2  a line is split whole or refused with the column that is wrong; nothing is guessed.

Threading: pure functions.
"""

from __future__ import annotations

from typing import NamedTuple

from marram.errors import InvalidArgument
from marram.protocol.replies import text_to_wire

MAX_ARGUMENTS = 1 << 20
"""More words than this in one line are refused."""

_BLANKS = " \t\r\n"
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "a": "\a", '"': '"', "\\": "\\"}
_SHORT = {
    0x0A: "\\n",
    0x0D: "\\r",
    0x09: "\\t",
    0x08: "\\b",
    0x07: "\\a",
    0x22: '\\"',
    0x5C: "\\\\",
}
_HEX = frozenset("0123456789abcdefABCDEF")


class Word(NamedTuple):
    """One argument and where it stands in the line: characters [start, stop)."""

    value: bytes
    start: int
    stop: int


class BadLine(InvalidArgument):
    """A line that is no command; column: where, in characters from 0."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(message)
        self.column = column

    def pointing(self, line: str) -> str:
        """The message below the line, with a caret at the column."""
        shown = line.expandtabs(1).rstrip("\r\n")
        return f"{shown}\n{' ' * self.column}^ {self}"


def split(line: str) -> list[Word]:
    """The words of a line. Raises BadLine.

    line: text; bytes that are no UTF-8 as "surrogateescape" smuggles them.

    >>> [word.value for word in split('PUT user:1 {"name":"Alice"}')]
    [b'PUT', b'user:1', b'{"name":"Alice"}']
    >>> [word.value for word in split(r'''SET "a b\\n" 'c"d' ''')]
    [b'SET', b'a b\\n', b'c"d']
    """
    words: list[Word] = []
    at = 0
    while True:
        while at < len(line) and line[at] in _BLANKS:
            at += 1
        if at == len(line):
            return words
        if len(words) == MAX_ARGUMENTS:
            raise BadLine(f"more than {MAX_ARGUMENTS} words", at)
        if line[at] == '"':
            word = _double_quoted(line, at)
        elif line[at] == "'":
            word = _single_quoted(line, at)
        else:
            word = _plain(line, at)
        words.append(word)
        at = word.stop


def quote(data: bytes) -> str:
    """Bytes as one word: as they are where that reads back the same, else in double quotes.

    >>> print(quote(b"user:1"), quote(b"a b"), quote(b"\\xff\\n"))
    user:1 "a b" "\\xff\\n"
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return '"' + "".join(_byte(byte) for byte in data) + '"'
    if text and text.isprintable() and text[0] not in "\"'" and not set(text) & set(_BLANKS):
        return text
    return '"' + "".join(_character(char) for char in text) + '"'


def _plain(line: str, start: int) -> Word:
    at = start
    while at < len(line) and line[at] not in _BLANKS:
        at += 1
    return Word(text_to_wire(line[start:at]), start, at)


def _single_quoted(line: str, start: int) -> Word:
    parts: list[str] = []
    at = start + 1
    while at < len(line):
        if line[at] == "'":
            return _closed(line, start, at + 1, text_to_wire("".join(parts)))
        if line[at] == "\\" and line[at + 1 : at + 2] in ("'", "\\"):
            at += 1
        parts.append(line[at])
        at += 1
    raise BadLine("this quote is not closed", start)


def _double_quoted(line: str, start: int) -> Word:
    value = bytearray()
    at = start + 1
    while at < len(line):
        char = line[at]
        if char == '"':
            return _closed(line, start, at + 1, bytes(value))
        if char != "\\":
            value += text_to_wire(char)
            at += 1
            continue
        escape = line[at + 1 : at + 2]
        if escape == "x":
            digits = line[at + 2 : at + 4]
            if len(digits) != 2 or not _HEX.issuperset(digits):
                raise BadLine("\\x is followed by two hexadecimal digits", at)
            value.append(int(digits, 16))
            at += 4
        elif escape in _ESCAPES:
            value += _ESCAPES[escape].encode()
            at += 2
        elif escape:
            raise BadLine(f"\\{escape} is no escape; write \\\\ for a backslash", at)
        else:
            break
    raise BadLine("this quote is not closed", start)


def _closed(line: str, start: int, stop: int, value: bytes) -> Word:
    if stop < len(line) and line[stop] not in _BLANKS:
        raise BadLine("a blank belongs after a closing quote", stop)
    return Word(value, start, stop)


def _byte(byte: int) -> str:
    if byte in _SHORT:
        return _SHORT[byte]
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"


def _character(char: str) -> str:
    short = _SHORT.get(ord(char))
    if short is not None:
        return short
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode())
