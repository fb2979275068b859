"""JSON Lines: a store's rows as text that people and other programs can read, and back.

Owns the record's fields and their validation; not which rows are dumped (the caller pins a
snapshot) nor how they are written back (cli/transfer.py, in batches).

One record a line, UTF-8, "\\n" at the end:

    {"key": "user:1", "value": "Alice"}
    {"key_base64": "/wA=", "value": "x", "deadline_ms": 1790000000000, "keyspace": 3}

    key, value              text, where the bytes are UTF-8; else key_base64, value_base64
    deadline_ms             when the key stops existing, ms since 1970; left out for never
    keyspace                0 .. 15; left out for 0
    type                    "string"; left out, as it is the only one so far

J1  parse_line(dump_line(row), n) == row for every row.
J2  a line that is not exactly one such record is refused with its number, never guessed at.
J3  a dumped line holds no control character: it can be shown on a terminal.

Threading: pure functions.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from marram.coding.batch import KEYSPACES, TYPE_STRING
from marram.errors import InvalidArgument

Row = tuple[int, bytes, bytes, int, int]
"""(keyspace, key, value, deadline_ms or 0, type), as Store.slices() gives them."""

MAX_LINE_BYTES = 3 << 30
"""A line longer than this is refused: four times the largest value, as escapes make text grow."""

_TYPES = {TYPE_STRING: "string"}
_TYPE_NUMBERS = {name: number for number, name in _TYPES.items()}
_FIELDS = frozenset(
    ("key", "key_base64", "value", "value_base64", "deadline_ms", "keyspace", "type")
)
# json escapes C0 only; DEL and C1 would reach a terminal as they are (J3).
_CONTROLS = re.compile("[\x7f-\x9f]")
_PIECE_BYTES = 1 << 20


def dump_lines(rows: Iterable[Row]) -> Iterator[bytes]:
    """A line for each row, in their order."""
    for row in rows:
        yield dump_line(row)


def dump_line(row: Row) -> bytes:
    """One row's line, its "\\n" included. Raises InvalidArgument: a type without a name."""
    keyspace, key, value, deadline_ms, type_ = row
    record: dict[str, Any] = {}
    _put_bytes(record, "key", key)
    _put_bytes(record, "value", value)
    if deadline_ms:
        record["deadline_ms"] = deadline_ms
    if keyspace:
        record["keyspace"] = keyspace
    if type_ != TYPE_STRING:
        if type_ not in _TYPES:
            raise InvalidArgument(f"values of type {type_} have no text form")
        record["type"] = _TYPES[type_]
    return json_text(record).encode() + b"\n"


def json_text(value: Any) -> str:
    """A value as one line of JSON that holds no control character, so that it can be shown (J3)."""
    return _CONTROLS.sub(_escape, json.dumps(value, ensure_ascii=False))


def parse_line(line: bytes, number: int) -> Row:
    """The row that a line holds.

    line: with or without its "\\n"; number: for messages, counted from 1.
    Raises InvalidArgument, "line <number>: what is wrong" (J2).
    """
    try:
        # Decoded here: json would also take UTF-16 and UTF-32 for what they look like.
        text = line.decode()
        record = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise InvalidArgument(f"line {number}: the JSON nests too deeply") from error
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"line {number}: not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise InvalidArgument(
            f"line {number}: not JSON: {error.msg} at character {error.pos + 1}"
        ) from error
    except ValueError as error:
        raise InvalidArgument(f"line {number}: {error}") from error
    try:
        return _row(record)
    except ValueError as error:
        raise InvalidArgument(f"line {number}: {error}") from error


def read_lines(
    stream: BinaryIO, max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[tuple[int, bytes]]:
    """(number, line) of each line that is not blank; the numbers count from 1.

    Raises InvalidArgument: a line longer than max_line_bytes, before it is all in memory.
    """
    number = 0
    while True:
        number += 1
        pieces: list[bytes] = []
        size = 0
        while piece := stream.readline(_PIECE_BYTES):
            size += len(piece)
            if size > max_line_bytes:
                raise InvalidArgument(f"line {number}: longer than {max_line_bytes} bytes")
            pieces.append(piece)
            if piece.endswith(b"\n"):
                break
        if not pieces:
            return
        line = b"".join(pieces)
        if not line.isspace():
            yield number, line


def _put_bytes(record: dict[str, Any], name: str, data: bytes) -> None:
    try:
        record[name] = data.decode()
    except UnicodeDecodeError:
        record[f"{name}_base64"] = b64encode(data).decode("ascii")


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the field {name!r} comes twice")
        found[name] = value
    return found


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _row(record: Any) -> Row:
    if not isinstance(record, dict):
        raise ValueError("a record is a JSON object")
    unknown = sorted(record.keys() - _FIELDS)
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}")
    key = _take_bytes(record, "key")
    if not key:
        raise ValueError("the key is empty")
    value = _take_bytes(record, "value")
    deadline_ms = _take_number(record, "deadline_ms", 1, 2**63 - 1)
    keyspace = _take_number(record, "keyspace", 0, KEYSPACES - 1)
    name = record.get("type", "string")
    if not isinstance(name, str) or name not in _TYPE_NUMBERS:
        raise ValueError(f"unknown type {name!r} (known: {', '.join(_TYPE_NUMBERS)})")
    return keyspace, key, value, deadline_ms, _TYPE_NUMBERS[name]


def _take_bytes(record: dict[str, Any], name: str) -> bytes:
    coded = f"{name}_base64"
    if (name in record) == (coded in record):
        raise ValueError(f"give either {name!r} or {coded!r}")
    given = record[name] if name in record else record[coded]
    if not isinstance(given, str):
        raise ValueError(f"{name!r} is text, not {type(given).__name__}")
    if name in record:
        try:
            return given.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{name!r} holds half a surrogate pair") from error
    try:
        return b64decode(given, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{coded!r} is not base64") from error


def _take_number(record: dict[str, Any], name: str, least: int, most: int) -> int:
    number = record.get(name)
    if number is None and name not in record:
        return 0
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        raise ValueError(f"{name!r} is a whole number from {least} to {most}")
    return number
