"""Commands on keys and deadlines: repeated keys, times, other keyspaces, what is logged."""

from __future__ import annotations

import pytest

from marram.coding.batch import KEYSPACES, delete, delete_range, expire, put, swap
from marram.commands.keys import prefix_stop
from marram.protocol.replies import OK, ErrorReply, Simple
from tests.differential.inprocess import InProcess

NOW_MS = 1_000_000


@pytest.fixture
def server() -> InProcess:
    return InProcess(now_ms=NOW_MS)


def refused(reply: object) -> str:
    assert isinstance(reply, ErrorReply), reply
    return reply.text


# -- K1: the same key twice ------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"DEL", b"UNLINK"])
def test_k1_a_key_is_deleted_once_however_often_it_is_named(server: InProcess, name: bytes) -> None:
    server.ask(b"MSET", b"a", b"1", b"b", b"2")
    assert server.ask(name, b"a", b"a", b"missing", b"b", b"a") == 2
    assert server.changes == [delete(0, b"a"), delete(0, b"b")]


@pytest.mark.parametrize("name", [b"EXISTS", b"TOUCH"])
def test_a_key_named_twice_exists_twice(server: InProcess, name: bytes) -> None:
    server.ask(b"SET", b"a", b"1")
    assert server.ask(name, b"a", b"b", b"a") == 2


def test_k1_renaming_a_key_to_itself_keeps_it(server: InProcess) -> None:
    server.ask(b"SET", b"a", b"1", b"PX", b"500")
    assert server.ask(b"RENAME", b"a", b"a") == OK
    assert server.ask(b"RENAMENX", b"a", b"a") == 0
    assert server.changes == []
    assert server.ask(b"PTTL", b"a") == 500
    assert refused(server.ask(b"RENAME", b"missing", b"missing")) == "ERR no such key"


def test_rename_takes_the_deadline_along_and_replaces_the_other(server: InProcess) -> None:
    server.ask(b"SET", b"a", b"1", b"PX", b"500")
    server.ask(b"SET", b"b", b"2", b"PX", b"9000")
    server.ask(b"RENAME", b"a", b"b")
    assert server.changes == [put(0, b"b", b"1", NOW_MS + 500), delete(0, b"a")]
    assert server.ask(b"MGET", b"a", b"b") == [None, b"1"]


def test_copy_onto_itself_is_refused_but_not_into_another_keyspace(server: InProcess) -> None:
    server.ask(b"SET", b"a", b"1", b"PX", b"500")
    text = "ERR source and destination objects are the same"
    assert refused(server.ask(b"COPY", b"a", b"a", b"REPLACE")) == text
    assert refused(server.ask(b"COPY", b"a", b"a", b"DB", b"0")) == text
    assert server.ask(b"COPY", b"a", b"a", b"DB", b"3") == 1
    assert server.changes == [put(3, b"a", b"1", NOW_MS + 500)]
    assert server.ask(b"COPY", b"a", b"a", b"DB", b"3") == 0
    assert server.ask(b"COPY", b"a", b"a", b"DB", b"3", b"REPLACE") == 1


# -- other keyspaces -------------------------------------------------------------------------------


def test_move_leaves_a_key_that_exists_there(server: InProcess) -> None:
    server.ask(b"SET", b"a", b"1", b"PX", b"500")
    assert server.ask(b"MOVE", b"a", b"5") == 1
    assert server.changes == [put(5, b"a", b"1", NOW_MS + 500), delete(0, b"a")]
    server.ask(b"SET", b"a", b"2")
    assert server.ask(b"MOVE", b"a", b"5") == 0
    assert server.ask(b"MOVE", b"missing", b"5") == 0


@pytest.mark.parametrize("number", [b"16", b"-1", b"99"])
def test_keyspaces_end_at_sixteen(server: InProcess, number: bytes) -> None:
    server.ask(b"SET", b"a", b"1")
    for command in ([b"MOVE", b"a"], [b"COPY", b"a", b"b", b"DB"], [b"SWAPDB", b"0"]):
        assert refused(server.ask(*command, number)) == "ERR DB index is out of range"
    assert server.ask(b"COPY", b"a", b"b", b"DB", b"%d" % (KEYSPACES - 1)) == 1


def test_swapdb_exchanges_and_with_itself_does_nothing(server: InProcess) -> None:
    server.ask(b"SET", b"a", b"1")
    assert server.ask(b"SWAPDB", b"0", b"0") == OK
    assert server.changes == []
    assert server.ask(b"SWAPDB", b"0", b"7") == OK
    assert server.changes == [swap(0, 7)]
    assert server.ask(b"DBSIZE") == 0


def test_flushing_names_only_what_holds_keys(server: InProcess) -> None:
    server.ask(b"SET", b"a", b"1")
    server.ask(b"COPY", b"a", b"a", b"DB", b"2")
    server.ask(b"FLUSHDB", b"ASYNC")
    assert server.changes == [delete_range(0, b"", None)]
    server.ask(b"FLUSHALL")
    assert server.changes == [delete_range(2, b"", None)]
    server.ask(b"FLUSHALL", b"sync")
    assert server.changes == []
    assert refused(server.ask(b"FLUSHALL", b"LATER")) == "ERR syntax error"


# -- deadlines -------------------------------------------------------------------------------------


def test_x1_expire_logs_the_deadline_alone(server: InProcess) -> None:
    server.ask(b"SET", b"a", b"x" * 1000)
    assert server.ask(b"EXPIRE", b"a", b"10") == 1
    assert server.changes == [expire(0, b"a", NOW_MS + 10_000)]
    assert server.ask(b"PERSIST", b"a") == 1
    assert server.changes == [expire(0, b"a", 0)]
    assert server.ask(b"PERSIST", b"a") == 0


@pytest.mark.parametrize(
    "command",
    [b"EXPIRE a 0", b"EXPIRE a -5", b"PEXPIRE a 0", b"EXPIREAT a 1000", b"PEXPIREAT a -1"],
)
def test_x2_a_time_that_has_come_deletes(server: InProcess, command: bytes) -> None:
    server.ask(b"SET", b"a", b"1")
    assert server.ask(*command.split()) == 1
    assert server.changes == [delete(0, b"a")]


def test_a_deadline_one_millisecond_ahead_is_kept(server: InProcess) -> None:
    server.ask(b"SET", b"a", b"1")
    assert server.ask(b"PEXPIREAT", b"a", b"%d" % (NOW_MS + 1)) == 1
    assert server.ask(b"EXISTS", b"a") == 1


@pytest.mark.parametrize(
    ("held", "option", "new", "sets"),
    [
        (None, b"NX", 500, True),
        (400, b"NX", 500, False),
        (None, b"XX", 500, False),
        (400, b"XX", 500, True),
        (None, b"GT", 500, False),
        (400, b"GT", 500, True),
        (500, b"GT", 500, False),
        (None, b"LT", 500, True),
        (600, b"LT", 500, True),
        (500, b"LT", 500, False),
    ],
)
def test_expire_conditions(
    server: InProcess, held: int | None, option: bytes, new: int, sets: bool
) -> None:
    server.ask(b"SET", b"a", b"1", *([b"PX", b"%d" % held] if held else [b"KEEPTTL"]))
    assert server.ask(b"PEXPIRE", b"a", b"%d" % new, option) == sets
    assert server.ask(b"PTTL", b"a") == (new if sets else held or -1)


@pytest.mark.parametrize(
    ("command", "largest"),
    [
        (b"EXPIRE", (2**63 - 1 - NOW_MS) // 1000),
        (b"PEXPIRE", 2**63 - 1 - NOW_MS),
        (b"EXPIREAT", (2**63 - 1) // 1000),
        (b"PEXPIREAT", 2**63 - 1),
    ],
)
def test_times_are_refused_one_past_the_largest(
    server: InProcess, command: bytes, largest: int
) -> None:
    server.ask(b"SET", b"a", b"1")
    assert server.ask(command, b"a", b"%d" % largest) == 1
    assert server.ask(b"PEXPIRETIME", b"a") > 2**63 - 2000
    beyond = server.ask(command, b"a", b"%d" % (largest + 1))
    text = f"ERR invalid expire time in '{command.decode().lower()}' command"
    # 2**63 itself is no 64-bit integer any more.
    no_integer = "ERR value is not an integer or out of range"
    assert refused(beyond) == (no_integer if largest == 2**63 - 1 else text)
    assert server.ask(b"PTTL", b"a") > 0


def test_ttls_of_missing_plain_and_volatile_keys(server: InProcess) -> None:
    server.ask(b"MSET", b"plain", b"1", b"volatile", b"1")
    server.ask(b"PEXPIREAT", b"volatile", b"%d" % (NOW_MS + 1_500))
    names = (b"TTL", b"PTTL", b"EXPIRETIME", b"PEXPIRETIME")
    assert [server.ask(name, b"missing") for name in names] == [-2] * 4
    assert [server.ask(name, b"plain") for name in names] == [-1] * 4
    expected = [2, 1_500, 1_002, 1_001_500]  # half seconds are rounded up
    assert [server.ask(name, b"volatile") for name in names] == expected


# -- looking ---------------------------------------------------------------------------------------


def test_keys_are_listed_in_order_and_only_live_ones(server: InProcess) -> None:
    for number in range(2500):
        server.ask(b"SET", b"key:%04d" % number, b"")
    server.ask(b"PEXPIRE", b"key:0007", b"1")
    server.now_ms += 1
    found = server.ask(b"KEYS", b"key:*")
    assert len(found) == 2499
    assert found == sorted(found)
    assert server.ask(b"KEYS", b"*") == found
    assert server.ask(b"KEYS", b"key:000?") == [b"key:000%d" % n for n in range(10) if n != 7]
    assert server.ask(b"KEYS", b"key:0007") == []
    assert server.ask(b"KEYS", b"key:0008") == [b"key:0008"]


@pytest.mark.parametrize(
    ("prefix", "stop"),
    [(b"", None), (b"a", b"b"), (b"a\xff", b"b"), (b"\xff\xff", None), (b"a\xfe", b"a\xff")],
)
def test_prefix_stop(prefix: bytes, stop: bytes | None) -> None:
    assert prefix_stop(prefix) == stop


def test_type(server: InProcess) -> None:
    server.ask(b"SET", b"a", b"1")
    assert server.ask(b"TYPE", b"a") == Simple("string")
    assert server.ask(b"TYPE", b"b") == Simple("none")


@pytest.mark.parametrize(
    ("value", "encoding"),
    [
        (b"0", b"int"),
        (b"-9223372036854775808", b"int"),
        (b"9223372036854775808", b"embstr"),
        (b"01", b"embstr"),
        (b"", b"embstr"),
        (b"x" * 44, b"embstr"),
        (b"x" * 45, b"raw"),
    ],
)
def test_object_encoding(server: InProcess, value: bytes, encoding: bytes) -> None:
    server.ask(b"SET", b"a", value)
    assert server.ask(b"OBJECT", b"ENCODING", b"a") == encoding
    assert server.ask(b"OBJECT", b"ENCODING", b"missing") is None


def test_object_says_what_is_not_kept(server: InProcess) -> None:
    server.ask(b"SET", b"a", b"1")
    assert server.ask(b"OBJECT", b"IDLETIME", b"a") == 0
    assert server.ask(b"OBJECT", b"REFCOUNT", b"a") == 1
    assert "LFU" in refused(server.ask(b"OBJECT", b"FREQ", b"a"))
    text = "ERR wrong number of arguments for 'object|encoding' command"
    assert refused(server.ask(b"OBJECT", b"ENCODING")) == text


# -- what has expired is noticed -------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        b"GET a",
        b"DEL a",
        b"EXPIRE a 100",
        b"RENAMENX b a",
        b"COPY b a",
        b"SET a 2 NX",
        b"MSETNX a 2",
        b"INCR a",
        b"GETDEL a",
        b"CAS a 1 2",
    ],
)
def test_an_expired_key_is_reported_for_deletion(server: InProcess, command: bytes) -> None:
    server.ask(b"SET", b"a", b"1", b"PX", b"1")
    server.ask(b"SET", b"b", b"1")
    server.now_ms += 1
    server.execute(command.split())
    assert (0, b"a") in server.view.expired
    held = server.engine.spaces[0].get(b"a")
    assert held is None or held.__class__ is bytes


def test_a_key_expired_in_another_keyspace_is_reported_there(server: InProcess) -> None:
    server.ask(b"SET", b"a", b"1", b"PX", b"1")
    server.ask(b"MOVE", b"a", b"4")
    server.ask(b"SET", b"a", b"new")
    server.now_ms += 1
    assert server.ask(b"MOVE", b"a", b"4") == 1
    assert server.view.expired == [(4, b"a")]
