"""Ranges, compare-and-set and conditional batches: R1-R3."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.commands import ordered
from marram.commands.table import lookup
from marram.protocol.replies import ErrorReply
from tests.differential.inprocess import InProcess

NOW_MS = 1_000_000


@pytest.fixture
def server() -> InProcess:
    return InProcess(now_ms=NOW_MS)


def refused(reply: object) -> str:
    assert isinstance(reply, ErrorReply), reply
    return reply.text


# -- SCANRANGE -------------------------------------------------------------------------------------

KEYS = st.one_of(st.binary(min_size=1, max_size=3), st.sampled_from([b"-", b"+", b"\0", b"\xff"]))


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(KEYS, st.binary(max_size=3), max_size=30),
    st.one_of(st.just(b""), KEYS),
    st.one_of(st.just(b""), KEYS),
    st.integers(1, 40),
    st.booleans(),
)
def test_r1_bounds_are_keys_and_half_open(
    held: dict[bytes, bytes], start: bytes, stop: bytes, limit: int, reverse: bool
) -> None:
    server = InProcess()
    for key, value in held.items():
        server.ask(b"SET", key, value)
    keys = sorted(key for key in held if key >= start and (stop == b"" or key < stop))
    keys = keys[::-1] if reverse else keys
    options = [b"LIMIT", b"%d" % limit, *([b"REV"] if reverse else [])]
    expected = [item for key in keys[:limit] for item in (key, held[key])]
    assert server.ask(b"SCANRANGE", start, stop, *options) == expected
    assert server.ask(b"SCANRANGE", start, stop, b"KEYS", *options) == keys[:limit]


def pages(server: InProcess, *options: bytes) -> list[list[bytes]]:
    """All pages of everything, by the rule that SCANRANGE documents."""
    found: list[list[bytes]] = []
    start = stop = b""
    while page := server.ask(b"SCANRANGE", start, stop, b"KEYS", *options):
        found.append(page)
        if b"REV" in options:
            stop = page[-1]
        else:
            start = page[-1] + b"\0"
    return found


@pytest.mark.parametrize("order", [[], [b"REV"]])
def test_pages_cover_the_range_once(server: InProcess, order: list[bytes]) -> None:
    keys = [b"%04d" % number for number in range(1500)]
    for key in keys:
        server.ask(b"SET", key, b"")
    found = pages(server, b"LIMIT", b"257", *order)
    assert [key for page in found for key in page] == (keys[::-1] if order else keys)
    assert len(pages(server, *order)) == 2  # without LIMIT, 1000 at a time


def test_r2_large_values_end_an_answer_early_but_never_empty(
    server: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered, "_MAX_ANSWER_BYTES", 1000)
    for number in range(9):
        server.ask(b"SET", b"%d" % number, b"x" * 400)
    assert server.ask(b"SCANRANGE", b"", b"")[::2] == [b"0", b"1", b"2"]
    server.ask(b"SET", b"0", b"x" * 5000)
    assert server.ask(b"SCANRANGE", b"", b"")[::2] == [b"0"]


@pytest.mark.parametrize("order", [[], [b"REV"]])
def test_r2_expired_keys_do_not_end_a_range(server: InProcess, order: list[bytes]) -> None:
    for number in range(600):
        server.ask(b"SET", b"b%03d" % number, b"", b"PX", b"1")
    server.ask(b"MSET", b"a", b"1", b"c", b"2")
    server.now_ms += 1
    expected = [b"c", b"a"] if order else [b"a", b"c"]
    assert server.ask(b"SCANRANGE", b"", b"", b"KEYS", b"LIMIT", b"2", *order) == expected


@pytest.mark.parametrize("limit", [b"0", b"-1", b"100001"])
def test_limits_are_bounded(server: InProcess, limit: bytes) -> None:
    assert "LIMIT" in refused(server.ask(b"SCANRANGE", b"", b"", b"LIMIT", limit))
    assert server.ask(b"SCANRANGE", b"", b"", b"LIMIT", b"100000") == []


# -- CAS -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [None, b"", b"old", b"other"])
def test_cas_swaps_only_what_is_expected(server: InProcess, held: bytes | None) -> None:
    if held is not None:
        server.ask(b"SET", b"k", held)
    swapped = held == b"old"
    assert server.ask(b"CAS", b"k", b"old", b"new") == swapped
    assert server.ask(b"GET", b"k") == (b"new" if swapped else held)
    assert bool(server.changes) is False


def test_a_missing_key_is_not_the_empty_string(server: InProcess) -> None:
    assert server.ask(b"CAS", b"k", b"", b"new") == 0
    server.ask(b"SET", b"k", b"")
    assert server.ask(b"CAS", b"k", b"", b"new") == 1


def test_cas_and_deadlines(server: InProcess) -> None:
    server.ask(b"SET", b"k", b"1", b"PX", b"500")
    assert server.ask(b"CAS", b"k", b"1", b"2", b"KEEPTTL") == 1
    assert server.ask(b"PTTL", b"k") == 500
    assert server.ask(b"CAS", b"k", b"2", b"3", b"PX", b"900") == 1
    assert server.ask(b"PTTL", b"k") == 900
    assert server.ask(b"CAS", b"k", b"3", b"4") == 1
    assert server.ask(b"PTTL", b"k") == -1
    for options in (b"PX", b"NX", b"KEEPTTL KEEPTTL", b"EX 1 KEEPTTL"):
        reply = server.ask(b"CAS", b"k", b"4", b"5", *options.split())
        assert refused(reply) == "ERR syntax error"
    assert server.ask(b"GET", b"k") == b"4"


# -- COMMITIF --------------------------------------------------------------------------------------


def test_r3_a_batch_is_written_where_all_checks_hold(server: InProcess) -> None:
    server.ask(b"MSET", b"a", b"1", b"b", b"2")
    command = b"COMMITIF 4 a IFEQ 1 b IFNE 1 c IFNX b IFXX 3 PUT a 10 0 DEL b PUT c 30 1000500"
    assert server.ask(*command.split()) == 1
    assert server.ask(b"MGET", b"a", b"b", b"c") == [b"10", None, b"30"]
    assert server.ask(b"PTTL", b"c") == 500


@pytest.mark.parametrize(
    "check", [b"a IFEQ 2", b"a IFNE 1", b"a IFNX", b"c IFXX", b"c IFEQ 1", b"A IFEQ 1"]
)
def test_r3_one_failing_check_stops_everything(server: InProcess, check: bytes) -> None:
    server.ask(b"SET", b"a", b"1")
    command = b"COMMITIF 2 a IFEQ 1 " + check + b" 1 PUT a 10 0"
    assert server.ask(*command.split()) == 0
    assert server.changes == []


def test_later_writes_of_a_batch_win(server: InProcess) -> None:
    assert server.ask(*b"COMMITIF 0 3 PUT a 1 0 DEL a PUT a 2 0".split()) == 1
    assert server.ask(b"GET", b"a") == b"2"
    assert server.ask(*b"COMMITIF 0 2 PUT a 3 0 DEL a".split()) == 1
    assert server.ask(b"EXISTS", b"a") == 0


def test_a_put_whose_time_has_passed_removes(server: InProcess) -> None:
    server.ask(b"SET", b"a", b"1")
    assert server.ask(*b"COMMITIF 0 1 PUT a 2 1000000".split()) == 1
    assert server.ask(b"EXISTS", b"a") == 0


def test_words_are_told_from_keys_and_values_by_place(server: InProcess) -> None:
    command = b"COMMITIF 1 ifnx IFNX 3 PUT PUT DEL 0 PUT DEL 1 0 DEL IFEQ"
    assert server.ask(*command.split()) == 1
    assert server.ask(b"MGET", b"PUT", b"DEL") == [b"DEL", b"1"]
    assert server.ask(*b"commitif 1 PUT ifeq DEL 1 del put".split()) == 1
    assert server.ask(*b"COMMITIF 1 DEL IFNE IFNE 0".split()) == 1


@pytest.mark.parametrize(
    "command",
    [
        b"COMMITIF 1 a",
        b"COMMITIF 1 a IFEQ",
        b"COMMITIF 1 a IFFY 1 0",
        b"COMMITIF 1 a IFEQ 1",
        b"COMMITIF 0 1",
        b"COMMITIF 0 1 PUT a 1",
        b"COMMITIF 0 1 DEL",
        b"COMMITIF 0 1 DEL a b",
        b"COMMITIF 0 2 DEL a",
        b"COMMITIF -1 0",
        b"COMMITIF 9223372036854775807 a IFNX 0",
        b"COMMITIF 0 0 0",
        b"COMMITIF a IFNX 0",
        b"COMMITIF 0 1 PUT a 1 -1",
        b"COMMITIF 0 1 PUT a 1 x",
        b"COMMITIF 0 1 PUT a 1 9223372036854775808",
    ],
)
def test_malformed_batches_are_refused_and_have_no_keys(server: InProcess, command: bytes) -> None:
    assert refused(server.ask(*command.split())).startswith("ERR ")
    row = lookup(b"commitif")
    assert row is not None
    assert row.key_indexes(command.split()) == []


def test_the_keys_of_a_batch_are_found() -> None:
    row = lookup(b"commitif")
    assert row is not None
    args = b"COMMITIF 2 a IFEQ a b IFNX 2 PUT c PUT 0 DEL d".split()
    assert [args[at] for at in row.key_indexes(args)] == [b"a", b"b", b"c", b"d"]
