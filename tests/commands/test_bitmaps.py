"""Bits of strings, against a model that holds a string as text of 0s and 1s."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.coding.batch import patch, put
from marram.commands.bitfield import bitfield
from marram.commands.spec import Outcome
from marram.commands.values import MAX_STRING_BYTES
from marram.protocol.replies import ErrorReply
from tests.differential.inprocess import InProcess

STRINGS = st.one_of(
    st.binary(max_size=12),
    st.lists(st.sampled_from([b"\0", b"\xff", b"\x80", b"\x01"]), max_size=9).map(b"".join),
)
ENDS = st.one_of(st.integers(-12, 12), st.integers(-100, 100))


def bits_of(value: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in value)


def cut(size: int, start: int, end: int) -> range:
    """The places that Redis's inclusive, maybe negative ends name."""
    if start < 0 and end < 0 and start > end:
        return range(0)
    low = max(start + size, 0) if start < 0 else start
    high = max(end + size, 0) if end < 0 else end
    return range(low, min(high, size - 1) + 1)


@pytest.fixture
def server() -> InProcess:
    return InProcess()


@settings(max_examples=300, deadline=None)
@given(STRINGS, ENDS, ENDS, st.booleans())
def test_bitcount_counts_the_ones_of_the_range(
    value: bytes, start: int, end: int, in_bits: bool
) -> None:
    server = InProcess()
    server.ask(b"SET", b"k", value)
    assert server.ask(b"BITCOUNT", b"k") == bits_of(value).count("1")
    unit = b"BIT" if in_bits else b"BYTE"
    places = cut(len(value) * 8 if in_bits else len(value), start, end)
    if not in_bits:
        places = range(places.start * 8, places.stop * 8)
    ones = sum(bits_of(value)[at] == "1" for at in places)
    assert server.ask(b"BITCOUNT", b"k", b"%d" % start, b"%d" % end, unit) == ones


@settings(max_examples=300, deadline=None)
@given(STRINGS, st.sampled_from("01"), ENDS, ENDS, st.booleans())
def test_bitpos_finds_the_first_of_the_range(
    value: bytes, bit: str, start: int, end: int, in_bits: bool
) -> None:
    server = InProcess()
    server.ask(b"SET", b"k", value)
    unit = b"BIT" if in_bits else b"BYTE"
    size = len(value) * 8 if in_bits else len(value)
    low = max(start + size, 0) if start < 0 else start
    high = max(end + size, 0) if end < 0 else end
    places = range(low, min(high, size - 1) + 1)
    if not in_bits:
        places = range(places.start * 8, places.stop * 8)
    first = next((at for at in places if bits_of(value)[at] == bit), -1)
    arguments = b"%d" % start, b"%d" % end, unit
    assert server.ask(b"BITPOS", b"k", bit.encode(), *arguments) == first


def test_bitpos_without_an_end_sees_zeros_after_the_string(server: InProcess) -> None:
    server.ask(b"SET", b"k", b"\xff\xff")
    assert server.ask(b"BITPOS", b"k", b"0") == 16
    assert server.ask(b"BITPOS", b"k", b"0", b"1") == 16
    assert server.ask(b"BITPOS", b"k", b"0", b"0", b"-1") == -1
    assert server.ask(b"BITPOS", b"missing", b"0") == 0
    assert server.ask(b"BITPOS", b"missing", b"1") == -1


@settings(max_examples=200, deadline=None)
@given(st.lists(STRINGS, min_size=1, max_size=4), st.sampled_from(["AND", "OR", "XOR"]))
def test_bitop_combines_strings_padded_with_zeros(values: list[bytes], name: str) -> None:
    server = InProcess()
    for number, value in enumerate(values):
        server.ask(b"SET", b"%d" % number, value)
    size = max(map(len, values))
    columns = zip(*(bits_of(value.ljust(size, b"\0")) for value in values), strict=True)
    rule = {
        "AND": lambda bits: all(b == "1" for b in bits),
        "OR": lambda bits: any(b == "1" for b in bits),
        "XOR": lambda bits: bits.count("1") % 2 == 1,
    }[name]
    expected = "".join("1" if rule(bits) else "0" for bits in columns)
    keys = [b"%d" % number for number in range(len(values))]
    # The destination is also the first source.
    assert server.ask(b"BITOP", name.encode(), keys[0], *keys) == size
    assert bits_of(server.ask(b"GET", keys[0]) or b"") == expected


def test_strings_of_many_slices_are_one_string(server: InProcess) -> None:
    size = 300_000
    server.ask(b"SETRANGE", b"k", b"%d" % (size - 1), b"\x04")
    server.ask(b"SETBIT", b"k", b"%d" % (65_536 * 8), b"1")
    assert server.ask(b"BITCOUNT", b"k") == 2
    assert server.ask(b"BITPOS", b"k", b"1") == 65_536 * 8
    assert server.ask(b"BITPOS", b"k", b"1", b"65537") == size * 8 - 3
    assert server.ask(b"BITCOUNT", b"k", b"%d" % (65_536 * 8), b"-3", b"BIT") == 2
    server.ask(b"BITOP", b"NOT", b"inverse", b"k")
    assert server.ask(b"BITPOS", b"inverse", b"0", b"65537") == size * 8 - 3
    server.ask(b"SET", b"short", b"\xff" * 70_000)
    assert server.ask(b"BITOP", b"XOR", b"all", b"k", b"inverse", b"short") == size
    assert server.ask(b"GET", b"all") == b"\0" * 70_000 + b"\xff" * (size - 70_000)
    assert server.ask(b"BITOP", b"AND", b"all", b"short", b"k") == size
    assert server.ask(b"BITCOUNT", b"all") == 1


def test_bitop_not_and_empty_results(server: InProcess) -> None:
    server.ask(b"SET", b"k", b"\x00\xff\x0f", b"EX", b"100")
    assert server.ask(b"BITOP", b"NOT", b"k", b"k") == 3
    assert server.ask(b"GET", b"k") == b"\xff\x00\xf0"
    assert server.ask(b"TTL", b"k") == -1
    assert server.ask(b"BITOP", b"AND", b"k", b"missing") == 0
    assert server.ask(b"EXISTS", b"k") == 0


@settings(max_examples=100, deadline=None)
@given(STRINGS, st.lists(st.tuples(st.integers(0, 150), st.sampled_from("01")), max_size=8))
def test_setbit_and_getbit_against_text(value: bytes, writes: list[tuple[int, str]]) -> None:
    server = InProcess()
    server.ask(b"SET", b"k", value)
    bits = bits_of(value)
    for offset, bit in writes:
        before = bits[offset : offset + 1] or "0"
        assert server.ask(b"GETBIT", b"k", b"%d" % offset) == int(before)
        assert server.ask(b"SETBIT", b"k", b"%d" % offset, bit.encode()) == int(before)
        bits = bits.ljust((offset // 8 + 1) * 8, "0")
        bits = bits[:offset] + bit + bits[offset + 1 :]
    assert bits_of(server.ask(b"GET", b"k")) == bits


def test_setbit_logs_one_byte(server: InProcess) -> None:
    server.ask(b"SET", b"k", b"\0" * 1000)
    server.ask(b"SETBIT", b"k", b"4001", b"1")
    assert server.changes == [patch(0, b"k", 500, b"\x40")]
    server.ask(b"SETBIT", b"k", b"4001", b"1")
    assert server.changes == []


@pytest.mark.parametrize(
    "offset", [b"-1", b"x", b"%d" % (MAX_STRING_BYTES * 8), b"9223372036854775807", b"1.0"]
)
def test_offsets_out_of_range_are_refused(server: InProcess, offset: bytes) -> None:
    text = "ERR bit offset is not an integer or out of range"
    for command in (
        [b"SETBIT", b"k", offset, b"1"],
        [b"GETBIT", b"k", offset],
        [b"BITFIELD", b"k", b"SET", b"u8", offset, b"1"],
        [b"BITFIELD", b"k", b"GET", b"u8", b"#" + offset],
    ):
        assert server.ask(*command) == ErrorReply(text)
    assert server.ask(b"EXISTS", b"k") == 0


def test_the_last_offset_is_read_without_being_built(server: InProcess) -> None:
    last = b"%d" % (MAX_STRING_BYTES * 8 - 1)
    assert server.ask(b"GETBIT", b"k", last) == 0
    assert server.ask(b"BITFIELD", b"k", b"GET", b"u8", last) == [0]
    refusal = server.ask(b"BITFIELD", b"k", b"SET", b"u8", last, b"1")
    assert "maximum allowed size" in refusal.text


# -- BITFIELD --------------------------------------------------------------------------------------

FIELDS = st.tuples(st.sampled_from("iu"), st.integers(1, 63), st.integers(0, 70))
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["GET", "SET", "INCRBY"]),
        FIELDS,
        st.integers(-(2**62), 2**62),
        st.sampled_from(["WRAP", "SAT", "FAIL"]),
    ),
    min_size=1,
    max_size=5,
)


class FieldModel:
    """A string as text of bits."""

    def __init__(self, value: bytes) -> None:
        self.bits = bits_of(value)

    def get(self, sign: str, width: int, offset: int) -> int:
        number = int(self.bits[offset : offset + width].ljust(width, "0"), 2)
        return number - 2**width if sign == "i" and number >= 2 ** (width - 1) else number

    def put(self, width: int, offset: int, number: int) -> None:
        text = f"{number % 2**width:0{width}b}"
        self.bits = self.bits[:offset] + text + self.bits[offset + width :]

    def run(
        self, name: str, field: tuple[str, int, int], operand: int, overflow: str
    ) -> int | None:
        sign, width, offset = field
        before = self.get(*field)
        if name == "GET":
            return before
        # To a field without a sign, SET's negative operand is a huge number.
        given = operand % 2**64 if name == "SET" and sign == "u" else operand
        wanted = before + operand if name == "INCRBY" else given
        low, high = (
            (-(2 ** (width - 1)), 2 ** (width - 1) - 1) if sign == "i" else (0, 2**width - 1)
        )
        if not low <= wanted <= high:
            if overflow == "FAIL":
                return None
            if overflow == "SAT":
                wanted = min(max(wanted, low), high)
        self.put(width, offset, wanted)
        return self.get(*field) if name == "INCRBY" else before


@settings(max_examples=300, deadline=None)
@given(STRINGS, OPERATIONS)
def test_f1_operations_see_what_earlier_ones_wrote(
    value: bytes, operations: list[tuple[str, tuple[str, int, int], int, str]]
) -> None:
    server = InProcess()
    server.ask(b"SET", b"k", value)
    ends = [f[1] + f[2] for name, f, _, _ in operations if name != "GET"]
    model = FieldModel(value.ljust((max(ends, default=0) + 7) // 8, b"\0"))
    command: list[str] = []
    expected = []
    for name, field, operand, overflow in operations:
        sign, width, offset = field
        command += ["OVERFLOW", overflow, name, f"{sign}{width}", str(offset)]
        command += [str(operand)] if name != "GET" else []
        expected.append(model.run(name, field, operand, overflow))
    assert server.ask(b"BITFIELD", b"k", *map(str.encode, command)) == expected
    assert bits_of(server.ask(b"GET", b"k")) == model.bits


def test_f2_the_string_grows_even_where_nothing_is_written(server: InProcess) -> None:
    command = b"BITFIELD k OVERFLOW FAIL SET u8 16 1000".split()
    assert server.ask(*command) == [None]
    assert server.ask(b"GET", b"k") == b"\0\0\0"
    assert server.changes == []
    server.ask(b"BITFIELD", b"new", b"SET", b"u8", b"#1", b"7")
    assert server.changes == [
        put(0, b"new", b""),
        patch(0, b"new", 2, b""),
        patch(0, b"new", 1, b"\x07"),
    ]


def test_hash_offsets_count_fields(server: InProcess) -> None:
    server.ask(b"BITFIELD", b"k", b"SET", b"u8", b"#2", b"65")
    assert server.ask(b"GET", b"k") == b"\0\0A"


def test_bitfield_ro_only_reads(server: InProcess) -> None:
    server.ask(b"SET", b"k", b"\x12")
    assert server.ask(b"BITFIELD_RO", b"k", b"GET", b"u4", b"0", b"GET", b"u4", b"4") == [1, 2]
    reply = server.ask(b"BITFIELD_RO", b"k", b"SET", b"u4", b"0", b"1")
    assert reply == ErrorReply("ERR BITFIELD_RO only supports the GET subcommand")


@pytest.mark.parametrize("type_", [b"u64", b"i65", b"u0", b"I8", b"8", b"", b"u08", b"u-1"])
def test_bad_field_types_are_refused(server: InProcess, type_: bytes) -> None:
    reply = server.ask(b"BITFIELD", b"k", b"GET", type_, b"0")
    assert reply.text.startswith("ERR Invalid bitfield type.")


def test_a_bitfield_that_changes_nothing_is_no_write(server: InProcess) -> None:
    server.ask(b"SET", b"k", b"\x10")
    for words in ([b"SET", b"u1", b"3", b"1"], [b"INCRBY", b"u1", b"3", b"2"]):
        view = server.view
        view.begin(server.now_ms)
        assert bitfield(view, [b"BITFIELD", b"k", *words]) == [1]
    grown = bitfield(server.view, [b"BITFIELD", b"k", b"INCRBY", b"u2", b"100", b"0"])
    assert isinstance(grown, Outcome), "it grew the string, which is a write"
