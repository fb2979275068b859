"""The JSON Lines form: what is written comes back, and nothing else is let in."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.errors import InvalidArgument
from marram.storage.dump import dump_line, dump_lines, parse_line, read_lines

ROWS = st.tuples(
    st.integers(0, 15),
    st.one_of(st.binary(min_size=1, max_size=20), st.text(min_size=1).map(str.encode)),
    st.one_of(st.binary(max_size=50), st.text().map(str.encode)),
    st.integers(0, 2**63 - 1),
    st.just(0),
)


@settings(max_examples=300)
@given(ROWS)
def test_j1_a_row_survives_the_way_there_and_back(row):
    assert parse_line(dump_line(row), 1) == row


@settings(max_examples=200)
@given(ROWS)
def test_j3_a_line_is_one_line_without_control_characters(row):
    line = dump_line(row).decode()
    assert line.endswith("\n")
    assert not [c for c in line[:-1] if ord(c) < 32 or 127 <= ord(c) < 160]


def test_text_is_written_as_text_and_the_rest_as_base64():
    assert dump_line((0, b"user:1", "Zoë".encode(), 0, 0)) == (
        '{"key": "user:1", "value": "Zoë"}\n'.encode()
    )
    assert json.loads(dump_line((3, b"\xff\x00", b"", 17, 0))) == {
        "key_base64": "/wA=",
        "value": "",
        "deadline_ms": 17,
        "keyspace": 3,
    }


def test_dump_lines_keeps_the_order():
    rows = [(0, b"b", b"", 0, 0), (0, b"a", b"", 0, 0)]
    assert list(dump_lines(rows)) == [dump_line(row) for row in rows]


def test_a_type_without_a_name_is_refused():
    with pytest.raises(InvalidArgument, match="type 200"):
        dump_line((0, b"k", b"v", 0, 200))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "a JSON object"),
        (b'"text"', "a JSON object"),
        (b'{"key": "a", "value": "b"} {}', "not JSON: Extra data"),
        (b'{"key": "a\xff", "value": "b"}', "not UTF-8 at byte 10"),
        (b'{"key": "a"}', "either 'value' or 'value_base64'"),
        (b'{"value": "a"}', "either 'key' or 'key_base64'"),
        (b'{"key": "a", "key_base64": "YQ==", "value": ""}', "either 'key'"),
        (b'{"key": "", "value": ""}', "the key is empty"),
        (b'{"key": 1, "value": ""}', "'key' is text, not int"),
        (b'{"key": "a", "value": null}', "'value' is text, not NoneType"),
        (b'{"key": "a", "value_base64": "YQ"}', "'value_base64' is not base64"),
        (b'{"key": "a", "value_base64": "Y\\u00e9=="}', "'value_base64' is not base64"),
        (b'{"key": "a", "value_base64": "YQ==\\n"}', "'value_base64' is not base64"),
        (b'{"key": "\\ud800", "value": ""}', "half a surrogate pair"),
        (b'{"key": "a", "value": "", "ttl": 3}', "unknown field 'ttl'"),
        (b'{"key": "a", "key": "b", "value": ""}', "'key' comes twice"),
        (b'{"key": "a", "value": "", "deadline_ms": 0}', "from 1 to"),
        (b'{"key": "a", "value": "", "deadline_ms": null}', "from 1 to"),
        (b'{"key": "a", "value": "", "deadline_ms": 1.5}', "from 1 to"),
        (b'{"key": "a", "value": "", "deadline_ms": NaN}', "NaN is not JSON"),
        (b'{"key": "a", "value": "", "deadline_ms": 9223372036854775808}', "from 1 to"),
        (b'{"key": "a", "value": "", "keyspace": 16}', "from 0 to 15"),
        (b'{"key": "a", "value": "", "keyspace": true}', "from 0 to 15"),
        (b'{"key": "a", "value": "", "type": "list"}', "unknown type 'list'"),
        (b'{"key": "a", "value": "", "type": ["x"]}', "unknown type"),
        ('{"key": "a", "value": ""}'.encode("utf-16"), "not UTF-8"),
        (b"[" * 100_000, "nests too deeply"),
        (b'{"key": "a", "value": "", "deadline_ms": ' + b"9" * 5000 + b"}", "line 7: "),
    ],
)
def test_j2_a_line_that_is_no_record_is_refused_with_its_number(line, message):
    with pytest.raises(InvalidArgument, match=r"^line 7: ") as caught:
        parse_line(line, 7)
    assert message in str(caught.value)


def test_lines_are_numbered_from_one_and_blank_ones_skipped():
    stream = io.BytesIO(b"a\n\n  \r\nb")
    assert list(read_lines(stream)) == [(1, b"a\n"), (4, b"b")]


def test_a_line_at_the_limit_passes_and_one_past_it_does_not():
    assert list(read_lines(io.BytesIO(b"x" * 10), 10)) == [(1, b"x" * 10)]
    with pytest.raises(InvalidArgument, match="line 2: longer than 10 bytes"):
        list(read_lines(io.BytesIO(b"ok\n" + b"x" * 11), 10))


def test_a_line_longer_than_one_read_is_put_together():
    long = b"x" * (3 << 20)
    assert list(read_lines(io.BytesIO(long + b"\ny"))) == [(1, long + b"\n"), (2, b"y")]
