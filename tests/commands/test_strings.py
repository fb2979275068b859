"""Commands on strings and counters: what each promises beyond plain reading and writing."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marram.coding.batch import delete, expire, patch, put
from marram.commands import numbers
from marram.commands.lcs import Match, common_length, common_runs
from marram.commands.values import MAX_STRING_BYTES, TOO_LONG
from marram.protocol.replies import OK, ErrorReply
from tests.differential.inprocess import InProcess


@pytest.fixture
def server() -> InProcess:
    return InProcess(now_ms=1_000_000)


def refused(reply: object) -> str:
    assert isinstance(reply, ErrorReply), reply
    return reply.text


# -- SET -------------------------------------------------------------------------------------------


def test_set_drops_the_deadline_and_keepttl_keeps_it(server: InProcess) -> None:
    server.ask(b"SET", b"k", b"1", b"PX", b"500")
    server.ask(b"SET", b"k", b"2", b"KEEPTTL")
    assert server.ask(b"PTTL", b"k") == 500
    server.ask(b"SET", b"k", b"3")
    assert server.ask(b"PTTL", b"k") == -1


def test_set_with_a_past_deadline_leaves_no_key(server: InProcess) -> None:
    server.ask(b"SET", b"k", b"old")
    assert server.ask(b"SET", b"k", b"new", b"PXAT", b"999999") == OK
    assert server.changes == [delete(0, b"k")]
    assert server.ask(b"EXISTS", b"k") == 0


def test_a_deadline_is_the_first_moment_without_the_key(server: InProcess) -> None:
    server.ask(b"SET", b"k", b"v", b"PX", b"10")
    server.now_ms += 9
    assert server.ask(b"GET", b"k") == b"v"
    server.now_ms += 1
    assert server.ask(b"GET", b"k") is None


@pytest.mark.parametrize("condition", [b"NX", b"XX", b"IFEQ", b"IFNE"])
@pytest.mark.parametrize("held", [None, b"a", b"b"])
def test_set_conditions(server: InProcess, condition: bytes, held: bytes | None) -> None:
    if held is not None:
        server.ask(b"SET", b"k", held)
    operand = [b"a"] if condition.startswith(b"IF") else []
    holds = {
        b"NX": held is None,
        b"XX": held is not None,
        b"IFEQ": held == b"a",
        b"IFNE": held != b"a",
    }[condition]
    assert server.ask(b"SET", b"k", b"new", condition, *operand) == (OK if holds else None)
    assert server.ask(b"GET", b"k") == (b"new" if holds else held)


def test_set_get_gives_the_previous_value_either_way(server: InProcess) -> None:
    assert server.ask(b"SET", b"k", b"1", b"GET") is None
    assert server.ask(b"SET", b"k", b"2", b"IFEQ", b"1", b"GET") == b"1"
    assert server.ask(b"SET", b"k", b"3", b"IFEQ", b"1", b"GET") == b"2"
    assert server.ask(b"SET", b"k", b"3", b"NX", b"GET") == b"2"
    assert server.ask(b"GET", b"k") == b"2"


@pytest.mark.parametrize(
    "options",
    [b"NX XX", b"EX 1 PX 1", b"KEEPTTL EX 1", b"PERSIST", b"EX", b"IFEQ", b"IFEQ a NX", b"foo"],
)
def test_set_refuses_options_that_do_not_go_together(server: InProcess, options: bytes) -> None:
    assert refused(server.ask(b"SET", b"k", b"v", *options.split())) == "ERR syntax error"
    assert server.ask(b"EXISTS", b"k") == 0


@pytest.mark.parametrize("count", [b"0", b"-1", b"9223372036854775807"])
@pytest.mark.parametrize("option", [b"EX", b"PX", b"EXAT"])
def test_expiry_options_refuse_what_is_not_in_range(
    server: InProcess, option: bytes, count: bytes
) -> None:
    text = "ERR invalid expire time in '{}' command"
    assert refused(server.ask(b"SET", b"k", b"v", option, count)) == text.format("set")
    server.ask(b"SET", b"k", b"v")
    assert refused(server.ask(b"GETEX", b"k", option, count)) == text.format("getex")
    assert refused(server.ask(b"CAS", b"k", b"v", b"w", option, count)) == text.format("cas")


def test_the_latest_deadline_is_the_largest_signed_integer(server: InProcess) -> None:
    latest = b"%d" % (2**63 - 1)
    assert server.ask(b"SET", b"k", b"v", b"PXAT", latest) == OK
    assert server.ask(b"PEXPIRETIME", b"k") == 2**63 - 1


# -- several keys, and the same key twice ----------------------------------------------------------


def test_mset_of_a_key_twice_keeps_the_last(server: InProcess) -> None:
    server.ask(b"MSET", b"k", b"1", b"k", b"2")
    assert server.ask(b"GET", b"k") == b"2"


def test_msetnx_writes_all_or_nothing(server: InProcess) -> None:
    assert server.ask(b"MSETNX", b"a", b"1", b"a", b"2", b"b", b"3") == 1
    assert server.ask(b"MGET", b"a", b"b") == [b"2", b"3"]
    assert server.ask(b"MSETNX", b"c", b"1", b"b", b"2") == 0
    assert server.ask(b"EXISTS", b"c") == 0


@pytest.mark.parametrize("name", [b"MSET", b"MSETNX"])
def test_mset_refuses_a_key_without_a_value(server: InProcess, name: bytes) -> None:
    assert "wrong number of arguments" in refused(server.ask(name, b"a", b"1", b"b"))


# -- parts: the log gets what changed --------------------------------------------------------------


def test_append_and_setrange_log_the_new_bytes_alone(server: InProcess) -> None:
    server.ask(b"SET", b"k", b"0123456789")
    assert server.ask(b"APPEND", b"k", b"ab") == 12
    assert server.changes == [patch(0, b"k", 10, b"ab")]
    assert server.ask(b"SETRANGE", b"k", b"3", b"--") == 12
    assert server.changes == [patch(0, b"k", 3, b"--")]
    assert server.ask(b"GET", b"k") == b"012--56789ab"


def test_a_string_begun_beyond_its_start_is_filled_with_zeros(server: InProcess) -> None:
    assert server.ask(b"SETRANGE", b"k", b"3", b"x") == 4
    assert server.changes == [put(0, b"k", b""), patch(0, b"k", 3, b"x")]
    assert server.ask(b"GET", b"k") == b"\0\0\0x"


@pytest.mark.parametrize("command", [b"APPEND k x", b"SETRANGE k 0 x", b"SETBIT k 1 0"])
def test_a_key_past_its_deadline_is_begun_anew(server: InProcess, command: bytes) -> None:
    server.ask(b"SET", b"k", b"old value", b"PX", b"1")
    server.now_ms += 1
    server.ask(*command.split())
    assert len(server.ask(b"GET", b"k")) == 1
    assert server.ask(b"TTL", b"k") == -1


def test_parts_keep_the_deadline(server: InProcess) -> None:
    server.ask(b"SET", b"k", b"1", b"PX", b"500")
    for command in (b"APPEND k 1", b"SETRANGE k 0 2", b"INCR k", b"INCRBYFLOAT k 1"):
        server.ask(*command.split())
    assert server.ask(b"PTTL", b"k") == 500


def test_empty_data_changes_nothing_but_append_creates(server: InProcess) -> None:
    assert server.ask(b"SETRANGE", b"k", b"5", b"") == 0
    assert server.ask(b"EXISTS", b"k") == 0
    assert server.ask(b"APPEND", b"k", b"") == 0
    assert server.ask(b"EXISTS", b"k") == 1


def test_strings_are_refused_one_byte_past_the_limit_before_they_are_built(
    server: InProcess,
) -> None:
    last = b"%d" % (MAX_STRING_BYTES - 1)
    for offset in (b"%d" % MAX_STRING_BYTES, b"%d" % (2**63 - 1)):
        assert refused(server.ask(b"SETRANGE", b"k", offset, b"x")) == TOO_LONG
    assert refused(server.ask(b"SETRANGE", b"k", last, b"xx")) == TOO_LONG
    assert server.ask(b"EXISTS", b"k") == 0
    # At the limit it is allowed; the handler itself builds nothing of that size.
    from marram.commands.table import lookup

    row = lookup(b"setrange")
    assert row is not None
    server.view.begin(0)
    outcome = row.run(server.view, [b"SETRANGE", b"k", last, b"x"])
    assert outcome.reply == MAX_STRING_BYTES
    assert sum(len(change[3]) for change in outcome.changes) == 1


# -- GETEX, GETDEL, DELEX --------------------------------------------------------------------------


def test_getex_logs_the_deadline_alone(server: InProcess) -> None:
    server.ask(b"SET", b"k", b"v")
    assert server.ask(b"GETEX", b"k") == b"v"
    assert server.changes == []
    assert server.ask(b"GETEX", b"k", b"PX", b"500") == b"v"
    assert server.changes == [expire(0, b"k", server.now_ms + 500)]
    assert server.ask(b"GETEX", b"k", b"PERSIST") == b"v"
    assert server.ask(b"PTTL", b"k") == -1
    assert server.ask(b"GETEX", b"k", b"PXAT", b"1") == b"v"
    assert server.ask(b"EXISTS", b"k") == 0


@pytest.mark.parametrize(
    ("condition", "removes"),
    [(b"", True), (b"IFEQ a", True), (b"IFEQ b", False), (b"IFNE b", True), (b"IFNE a", False)],
)
def test_delex_removes_where_the_condition_holds(
    server: InProcess, condition: bytes, removes: bool
) -> None:
    assert server.ask(b"DELEX", b"k", *condition.split()) == 0
    server.ask(b"SET", b"k", b"a")
    assert server.ask(b"DELEX", b"k", *condition.split()) == removes
    assert server.ask(b"EXISTS", b"k") == (not removes)


def test_delex_refuses_half_a_condition(server: InProcess) -> None:
    for options in ([b"IFEQ"], [b"IFDEQ", b"a"], [b"IFEQ", b"a", b"b"]):
        assert refused(server.ask(b"DELEX", b"k", *options)) == "ERR syntax error"


# -- counters --------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [b"", b" 1", b"01", b"+1", b"-0", b"1.0", b"9" * 30, b"x"])
def test_a_counter_is_canonical_decimal_text(server: InProcess, held: bytes) -> None:
    server.ask(b"SET", b"k", held)
    text = "ERR value is not an integer or out of range"
    assert refused(server.ask(b"INCR", b"k")) == text
    assert server.ask(b"GET", b"k") == held


def test_counters_stop_at_64_bits(server: InProcess) -> None:
    text = "ERR increment or decrement would overflow"
    server.ask(b"SET", b"k", b"9223372036854775807")
    assert refused(server.ask(b"INCR", b"k")) == text
    server.ask(b"SET", b"k", b"-9223372036854775808")
    assert refused(server.ask(b"DECRBY", b"k", b"1")) == text
    refusal = refused(server.ask(b"DECRBY", b"k", b"-9223372036854775808"))
    assert refusal == "ERR decrement would overflow"


@pytest.mark.parametrize(
    ("held", "increment", "total"),
    [
        (b"0.1", b"0.2", b"0.3"),
        (b"5.0e3", b"2.0e2", b"5200"),
        (b"3.0", b"-3", b"0"),
        (b"-1e-19", b"0", b"0"),
        (b"0x1p-1", b"1", b"1.5"),
        (b"17179869184", b"1.5", b"17179869185.5"),
    ],
)
def test_incrbyfloat(server: InProcess, held: bytes, increment: bytes, total: bytes) -> None:
    server.ask(b"SET", b"k", held)
    assert server.ask(b"INCRBYFLOAT", b"k", increment) == total


def test_incrbyfloat_refuses_infinities(server: InProcess) -> None:
    server.ask(b"SET", b"k", b"1e4932")
    text = "ERR increment would produce NaN or Infinity"
    assert refused(server.ask(b"INCRBYFLOAT", b"k", b"1e4932")) == text
    assert refused(server.ask(b"INCRBYFLOAT", b"k", b"inf")) == text
    assert refused(server.ask(b"INCRBYFLOAT", b"k", b"nan")) == "ERR value is not a valid float"


@settings(deadline=None)
@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_n1_integers_of_64_bits_add_exactly(one: int, other: int) -> None:
    total = numbers.add(numbers.parse(b"%d" % one), numbers.parse(b"%d" % other))
    assert numbers.to_text(total) == b"%d" % (one + other)


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_n1_a_double_is_held_exactly(number: float) -> None:
    held = numbers.parse(number.hex().encode())
    numerator, denominator = number.as_integer_ratio()
    scale = 2 ** max(0, -held.exponent)
    assert held.mantissa * 2 ** max(0, held.exponent) * denominator == numerator * scale


@settings(deadline=None)
@given(st.one_of(st.decimals(-(10**25), 10**25, places=20), st.integers(-(2**70), 2**70)))
@example(2**64 + 1)
@example(2**64 + 3)
@example(2**65 - 1)
def test_n1_a_text_becomes_the_nearest_number(exact: Decimal | int) -> None:
    held = numbers.parse(f"{exact:f}".encode() if isinstance(exact, Decimal) else b"%d" % exact)
    assert abs(held.mantissa) < 2**64
    step = Fraction(2) ** held.exponent
    error = abs(held.mantissa * step - Fraction(exact))
    assert error <= step / 2
    if error == step / 2:
        assert held.mantissa % 2 == 0
    # All 64 bits are used where any are lost.
    assert error == 0 or abs(held.mantissa) >= 2**63


def test_n2_any_exponent_is_settled_at_once() -> None:
    for text in (b"1e" + b"9" * 5000, b"1e-" + b"9" * 5000, b"0x1p" + b"9" * 5000, b"1" * 6000):
        with pytest.raises(ValueError):
            numbers.parse(text)
    assert numbers.parse(b"0e" + b"9" * 5000) == numbers.ZERO


# -- LCS -------------------------------------------------------------------------------------------


def lcs_model(first: bytes, second: bytes) -> tuple[int, list[tuple[int, int]]]:
    """The table of lengths, and L1's walk back through it."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first, 1):
        for j, b in enumerate(second, 1):
            above, left = table[i - 1][j], table[i][j - 1]
            table[i][j] = table[i - 1][j - 1] + 1 if a == b else max(above, left)
    i, j = len(first), len(second)
    found = []
    while i and j:
        if first[i - 1] == second[j - 1]:
            i, j = i - 1, j - 1
            found.append((i, j))
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return table[-1][-1], found


TEXTS = st.lists(st.sampled_from(b"abcd"), max_size=30).map(bytes)


@settings(max_examples=400, deadline=None)
@given(TEXTS, TEXTS)
def test_l1_lcs_is_the_one_that_the_walk_finds(first: bytes, second: bytes) -> None:
    length, places = lcs_model(first, second)
    assert common_length(first, second) == length
    runs = common_runs(first, second)
    flat = [(run.first + n, run.second + n) for run in runs for n in reversed(range(run.size))]
    assert flat == places


def test_lcs_replies(server: InProcess) -> None:
    server.ask(b"MSET", b"a", b"ohmytext", b"b", b"mynewtext")
    assert server.ask(b"LCS", b"a", b"b") == b"mytext"
    assert server.ask(b"LCS", b"a", b"b", b"LEN") == 6
    indexes = server.ask(b"LCS", b"a", b"b", b"IDX", b"MINMATCHLEN", b"4", b"WITHMATCHLEN")
    assert indexes == [b"matches", [[[4, 7], [5, 8], 4]], b"len", 6]
    assert server.ask(b"LCS", b"a", b"missing") == b""


def test_l2_lcs_refuses_a_table_beyond_the_limit(server: InProcess) -> None:
    server.ask(b"SET", b"a", b"x" * 11_585)
    server.ask(b"SET", b"b", b"x" * 11_584)
    # 11586 * 11585 cells of four bytes pass 512 MiB, 11584 * 11585 do not.
    assert refused(server.ask(b"LCS", b"a", b"b")).startswith("ERR Insufficient memory")
    server.ask(b"SET", b"a", b"x" * 11_583)
    assert server.ask(b"LCS", b"a", b"b", b"LEN") == 11_583
    assert common_runs(b"x" * 11_583, b"x" * 11_584) == [Match(0, 1, 11_583)]
