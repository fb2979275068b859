"""Replies as values: the right shape, or a refusal; never a wrong value or a stray exception."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.client import calls
from marram.client.calls import Opened, Slices, Writes
from marram.client.figures import info_sections, store_figures
from marram.errors import Error, InvalidArgument, ProtocolError, ServerError
from marram.protocol.replies import OK, ErrorReply, SetReply, Verbatim
from marram.storage.store import Position

SNAPSHOT = Opened(b"7", Position(1, 5))
WRITES = Writes()
WRITES.put(b"k", b"v", None)

CALLS = [
    calls.get(b"k", None),
    calls.put(b"k", b"v", 5),
    calls.delete(b"k"),
    calls.exists(b"k"),
    calls.compare_and_set(b"k", b"a", b"b"),
    calls.ttl(b"k"),
    calls.deadlines([b"k"]),
    calls.expire(b"k", 5),
    calls.persist(b"k"),
    calls.pop(b"k", None),
    calls.setdefault(b"k", b"v"),
    calls.get_many([b"k"]),
    calls.put_many({b"k": b"v"}),
    calls.count(),
    calls.clear(),
    calls.first_key(),
    calls.ping(),
    calls.checkpoint(),
    calls.backup("name"),
    calls.verify(),
    calls.sync(),
    calls.stats(),
    calls.time_ms(),
    calls.open_snapshot(),
    calls.close_snapshot(SNAPSHOT),
    calls.snapshot_get(SNAPSHOT, [b"k"]),
    calls.snapshot_scan(SNAPSHOT, b"", None, 10, reverse=False),
    WRITES.commit_if(0),
    WRITES.commit_at(SNAPSHOT, [b"k"], [(b"a", None)], 0),
]

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(),
    st.binary(max_size=5),
    st.sampled_from([b"keys=x,expires", b"# Keyspace\r\ndb0:keys=a\r\nno colon\r\n", b"12"]),
    st.just(OK),
    st.builds(Verbatim, st.binary(max_size=30)),
)
REPLIES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from([b"checked", b"problems", b"rows", b"batches", b"torn_tail_bytes"]),
            inner,
        ),
        st.builds(SetReply, st.lists(inner, max_size=2)),
    ),
    max_leaves=8,
)


@settings(max_examples=400)
@given(st.sampled_from(CALLS), REPLIES)
def test_w3_any_reply_is_a_value_or_an_error_of_the_library(call, reply):
    try:
        call.read([reply] * len(call.commands))
    except Error as error:
        assert not isinstance(error, InvalidArgument)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.commands[0][0].decode())
def test_an_error_reply_is_raised(call):
    with pytest.raises(ServerError, match="ERR what"):
        call.read([ErrorReply("ERR what")] * len(call.commands))


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.commands[0][0].decode())
def test_w1_whatever_writes_is_one_command(call):
    if call.writes:
        assert len(call.commands) == 1


def test_every_command_that_writes_is_known_to_write():
    from marram.commands.table import TABLE

    for call in CALLS:
        name = call.commands[0][0].lower()
        assert call.writes == TABLE[name].writes, name


def test_ttls_of_a_batch_count_from_the_servers_time():
    writes = Writes()
    writes.put(b"a", b"1", 5)
    writes.delete(b"b")
    writes.put(b"c", b"3", None)
    writes.put(b"d", b"4", 0.25)
    (command,) = writes.commit_if(1_000_000).commands
    assert b" ".join(command) == (b"COMMITIF 0 4 PUT a 1 1005000 DEL b PUT c 3 0 PUT d 4 1000250")
    assert writes.needs_time


def test_a_transaction_says_what_it_read():
    (command,) = WRITES.commit_at(SNAPSHOT, [b"r"], [(b"a", b"b"), (b"c", None)], 0).commands
    assert b" ".join(command) == b"COMMITAT 7 READS 1 r RANGES 2 a b c  WRITES 1 PUT k v 0"


def test_slices_walk_a_range_both_ways():
    slices = Slices(b"k", None, None, False, 5, 2)
    (command,) = slices.call(SNAPSHOT).commands
    assert command == [b"SNAPSHOT", b"SCAN", b"7", b"k", b"l", b"LIMIT", b"2"]
    assert slices.taken(calls.Slice(b"k3", [(b"k1", b""), (b"k2", b"")]))
    (command,) = slices.call(SNAPSHOT).commands
    assert command[3:] == [b"k3", b"l", b"LIMIT", b"2"]
    slices.taken(calls.Slice(b"k5", [(b"k3", b""), (b"k4", b"")]))
    (command,) = slices.call(SNAPSHOT).commands
    assert command[3:] == [b"k5", b"l", b"LIMIT", b"1"]
    slices.taken(calls.Slice(b"k6", [(b"k5", b"")]))
    assert slices.done
    back = Slices(b"", b"a", None, True, None, 2)
    back.taken(calls.Slice(b"m", []))  # a slice of expired keys
    (command,) = back.call(SNAPSHOT).commands
    assert command[3:] == [b"a", b"m", b"LIMIT", b"2", b"REV"]
    back.taken(calls.Slice(None, []))
    assert back.done


@pytest.mark.parametrize(
    ("start", "stop", "limit"),
    [(None, b"", None), (b"b", b"a", None), (b"a", b"a", None), (None, None, 0)],
)
def test_an_empty_range_asks_nothing(start, stop, limit):
    assert Slices(b"", start, stop, False, limit, 10).done


def test_figures_have_the_names_of_the_embedded_store(tmp_path):
    import marram

    text = (
        b"# Server\r\nmarram_version:0.1.0\r\nuptime_in_seconds:5\r\n\r\n"
        b"# Marram\r\nengine:memory\r\nlog_bytes:17\r\nsync_mean_us:3\r\nepoch:1\r\n"
        b"committed_sequence:9\r\nstore_failure:\r\n# Keyspace\r\n"
        b"db0:keys=3,expires=1,avg_ttl=0\r\ndb4:keys=2,expires=0,avg_ttl=0\r\n"
    )
    figures = store_figures(info_sections(text))
    assert figures["num_keys"] == 5
    assert figures["keyspaces"] == {
        "0": {"keys": 3, "volatile_keys": 1},
        "4": {"keys": 2, "volatile_keys": 0},
    }
    assert figures["position"] == {"epoch": 1, "sequence": 9}
    assert figures["failure"] is None
    with marram.open(tmp_path / "d") as db:
        own = db.stats()

    def names(nested: dict[str, Any]) -> set[str]:
        return {name for name in nested if name not in ("server", "directory", "keyspaces")}

    assert names(figures) <= names(own)
    for group in ("position", "log", "sync", "checkpoint", "recovery"):
        assert set(figures[group]) <= set(own[group])


def test_numbers_in_info_are_numbers_and_the_rest_stays_text():
    sections = info_sections(b"# X\na:5\nb:-1.50\nc:1e5\nd:nan\ne:7.2.4\nf:" + b"9" * 40)
    assert sections["x"] == {
        "a": 5, "b": -1.5, "c": "1e5", "d": "nan", "e": "7.2.4", "f": "9" * 40,
    }  # fmt: skip


def test_an_odd_slice_is_refused():
    call = calls.snapshot_scan(SNAPSHOT, b"", None, 10, reverse=False)
    with pytest.raises(ProtocolError, match="no value"):
        call.read([[None, [b"k"]]])
