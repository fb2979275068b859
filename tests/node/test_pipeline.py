"""The order of checks, what replies wait for, and what never happens (node.py N1-N4)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from marram.coding.batch import put
from marram.commands.spec import Command, Outcome, flags
from marram.node.node import OUT_OF_MEMORY
from marram.node.passwords import hash_password
from marram.node.rows import Row
from marram.node.settings import Settings
from marram.protocol.replies import NO_REPLY, NULL_ARRAY, OK, QUEUED, ErrorReply
from tests.node.harness import PENDING, Client, World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.fixture
def client(world: World) -> Client:
    return world.client()


def with_password() -> World:
    return World(settings=Settings(password_hash=hash_password(b"sesame", bytes(16))))


# -- N1: the order of checks -----------------------------------------------------------------------


def test_n1_a_name_is_looked_up_before_anything_else() -> None:
    client = with_password().client()
    assert client.error("nosuch", "a") == (
        "ERR unknown command 'nosuch', with args beginning with: 'a' "
    )
    assert client.error("GET") == "ERR wrong number of arguments for 'get' command"
    assert client.error("GET", "k") == "NOAUTH Authentication required."


def test_n1_the_arity_of_a_subcommand_counts_both_names(client: Client) -> None:
    assert client.error("CLIENT") == "ERR wrong number of arguments for 'client' command"
    assert client.error("CLIENT", "ID", "1") == (
        "ERR wrong number of arguments for 'client|id' command"
    )
    assert client.error("client", "nosuch") == ("ERR unknown subcommand 'nosuch'. Try CLIENT HELP.")


def test_n1_login_is_checked_before_multi_and_subscriber_mode() -> None:
    world = with_password()
    client = world.client()
    assert client.error("MULTI") == "NOAUTH Authentication required."
    assert client.error("SUBSCRIBE", "c") == "NOAUTH Authentication required."
    for allowed in ("RESET", "QUIT"):
        assert not isinstance(client(allowed), ErrorReply)


def test_n1_what_multi_forbids_is_refused_before_it_is_queued(client: Client) -> None:
    client("MULTI")
    assert client.error("SAVE") == "ERR Command not allowed inside a transaction"
    assert client.error("EXEC") == "EXECABORT Transaction discarded because of previous errors."


def test_n1_a_resp2_subscriber_may_do_little(client: Client) -> None:
    client("SUBSCRIBE", "c")
    assert client.error("GET", "k") == (
        "ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET "
        "are allowed in this context"
    )
    assert client("PING", "x") == [b"pong", b"x"]
    assert client("UNSUBSCRIBE") is NO_REPLY
    assert client("GET", "k") is None


def test_n1_a_resp3_subscriber_may_do_all(world: World) -> None:
    client = world.client(protocol=3)
    client("SUBSCRIBE", "c")
    assert client("SET", "k", "v") is OK
    assert client("GET", "k") == b"v"


@pytest.mark.parametrize("name", ["GET", "get", "Get", "gEt"])
def test_names_are_found_in_any_case(client: Client, name: str) -> None:
    assert client(name, "k") is None


def test_unknown_names_leave_no_trace(world: World, client: Client) -> None:
    before = len(world.node.rows.spellings)
    for number in range(100):
        client(f"name{number}")
    assert len(world.node.rows.spellings) == before


def test_an_unknown_command_is_quoted_as_redis_quotes_it(client: Client) -> None:
    long = "x" * 300
    text = client.error(long, b"a\r\nb", b"c\0d", long, "never shown")
    assert text == (
        f"ERR unknown command '{'x' * 128}', with args beginning with: 'a  b' 'c' '{'x' * 117}' "
    )


@pytest.mark.parametrize("first", ["POST", "post", "Host:"])
def test_a_browser_is_disconnected_without_an_answer(client: Client, first: str) -> None:
    assert client(first, "/", "HTTP/1.1") is NO_REPLY
    assert client.closed


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [("GET", None), ("MGET", "a", None), ("MSET", "a", "b", None, "c")]
)
def test_keys_are_limited_at_every_position(command: tuple[str | None, ...]) -> None:
    client = World(max_key_bytes=10).client()
    fits = ["k" * 10 if word is None else word for word in command]
    too_long = ["k" * 11 if word is None else word for word in command]
    empty = ["" if word is None else word for word in command]
    assert not isinstance(client(*fits), ErrorReply)
    assert client.error(*too_long) == "ERR key is longer than 10 bytes"
    assert client.error(*empty) == "ERR key is empty"


def test_arguments_that_are_no_keys_may_be_longer() -> None:
    client = World(max_key_bytes=10).client()
    assert client("SET", "k", "v" * 100) is OK
    assert client("MSET", "k", "v" * 100, "l", "") is OK


def test_values_are_limited_whichever_command_makes_them() -> None:
    client = World(max_value_bytes=8).client()
    assert client("SET", "k", "12345678") is OK
    assert client.error("SET", "k", "123456789") == "ERR value is longer than 8 bytes"
    assert client.error("APPEND", "k", "9") == "ERR value is longer than 8 bytes"
    assert client.error("SETRANGE", "k", "8", "9") == "ERR value is longer than 8 bytes"
    assert client.error("MSET", "j", "1", "l", "123456789") == "ERR value is longer than 8 bytes"
    assert client("MGET", "k", "j") == [b"12345678", None]


# -- N2, N4: refusals change nothing ---------------------------------------------------------------


def test_n2_a_refused_command_changes_nothing(world: World, client: Client) -> None:
    client("SET", "k", "v")
    last = world.store.last
    for words in (["SET", "k"], ["INCR", "k"], ["SET", "k", "w", "EX", "x"], ["NOSUCH"]):
        assert isinstance(client(*words), ErrorReply)
    assert world.store.last == last
    assert client("GET", "k") == b"v"


def broken(view: Any, args: Any) -> Any:
    raise ZeroDivisionError


@pytest.mark.parametrize("name", [b"GET", b"MGET"])
def test_n4_an_unexpected_exception_is_answered_and_logged(
    world: World, client: Client, caplog: pytest.LogCaptureFixture, name: bytes
) -> None:
    row = world.node.rows.find(name)
    assert row is not None
    kept, row.run = row.run, broken
    with caplog.at_level(logging.ERROR, "marram.node"):
        assert client.error(name, "k") == "ERR internal error"
    assert "ZeroDivisionError" in caplog.text
    row.run = kept
    assert client("SET", "k", "v") is OK


def test_n4_an_exception_in_the_middle_of_exec_leaves_the_others_alone(
    world: World, client: Client
) -> None:
    row = world.node.rows.find(b"get")
    assert row is not None
    client("MULTI")
    client("SET", "a", "1")
    client("GET", "a")
    client("SET", "b", "2")
    kept, row.run = row.run, broken
    replies = client("EXEC")
    row.run = kept
    assert [type(reply) for reply in replies] == [type(OK), ErrorReply, type(OK)]
    assert client("MGET", "a", "b") == [b"1", b"2"]


# -- N3: what a reply waits for --------------------------------------------------------------------


def test_n3_a_write_waits_for_its_own_position(world: World, client: Client) -> None:
    client("SET", "k", "v")
    assert client.waits_for == world.store.last == 1
    client("INCR", "n")
    assert client.waits_for == 2


def test_n3_a_read_waits_for_the_unsettled_write_it_saw(world: World, client: Client) -> None:
    other = world.client()
    client("SET", "a", "1")
    client("SET", "b", "1")
    assert other("GET", "c") is None
    assert other.waits_for == 0
    assert other("GET", "a") == b"1"
    assert other.waits_for >= 1
    assert other.session.depends_on == other.waits_for
    world.settle()
    other("GET", "a")
    assert other.waits_for == 0


def test_n3_an_error_that_tells_of_a_value_waits_too(world: World, client: Client) -> None:
    client("SET", "k", "text")
    assert client.error("INCR", "k") == "ERR value is not an integer or out of range"
    assert client.waits_for >= 1


def test_n3_the_deletion_of_an_expired_key_is_logged_and_waited_for(
    world: World, client: Client
) -> None:
    client("SET", "k", "v", "PX", "10")
    world.node.upkeep.active_expiry = False
    world.advance(20)
    last = world.store.last
    assert client("GET", "k") is None
    assert world.store.last == last + 1
    assert client.waits_for == last + 1
    assert world.store.expired_keys == 1
    assert len(world.store.engine.spaces[0]) == 0


def test_n3_expired_keys_and_the_command_s_changes_are_one_batch(
    world: World, client: Client
) -> None:
    client("SET", "k", "old", "PX", "10")
    world.node.upkeep.active_expiry = False
    world.advance(20)
    last = world.store.last
    assert client("SET", "k", "new", "GET") is None
    assert world.store.last == last + 1
    assert client("GET", "k") == b"new"


def test_n3_exec_waits_for_its_batch_and_its_reads(world: World, client: Client) -> None:
    client("SET", "a", "1")
    other = world.client()
    other("MULTI")
    other("GET", "a")
    assert other("EXEC") == [b"1"]
    assert other.waits_for >= 1
    other("MULTI")
    other("SET", "b", "1")
    other("EXEC")
    assert other.waits_for == world.store.last


def test_n3_a_spoiled_exec_waits_for_what_spoiled_it(world: World, client: Client) -> None:
    other = world.client()
    client("WATCH", "k")
    other("SET", "k", "v")
    client("MULTI")
    client("GET", "z")
    assert client("EXEC") is NULL_ARRAY
    assert client.waits_for >= 1


# -- a store that takes no writes ------------------------------------------------------------------


def test_a_full_disk_refuses_the_write_and_nothing_else(world: World, client: Client) -> None:
    client("SET", "k", "v")
    world.fill_disk()
    assert client.error("SET", "big", b"x" * 100_000).startswith("MISCONF no room for ")
    assert client("GET", "big") is None
    assert client("SET", "small", "v") is OK
    assert client("GET", "k") == b"v"


def test_a_full_disk_aborts_the_whole_transaction(world: World, client: Client) -> None:
    client("SET", "k", "old")
    watcher = world.client()
    watcher("WATCH", "k")
    world.fill_disk()
    client("MULTI")
    client("SET", "k", "new")
    client("PUBLISH", "c", "news")
    client("SET", "big", b"x" * 100_000)
    text = client.error("EXEC")
    assert text.startswith("EXECABORT Transaction discarded because of: MISCONF no room for ")
    assert client("MGET", "k", "big") == [b"old", None]
    watcher("MULTI")
    watcher("GET", "k")
    assert watcher("EXEC") == [b"old"], "what was undone has touched nobody"


def test_the_memory_limit_refuses_what_adds_and_allows_what_frees() -> None:
    client = World(memory_limit=2000).client()
    client("SET", "k", b"x" * 2000)
    assert client.error("SET", "l", "v") == OUT_OF_MEMORY
    client("MULTI")
    client("SET", "l", "v")
    assert client.error("EXEC").startswith("EXECABORT Transaction discarded because of: OOM ")
    assert client("DEL", "k") == 1
    assert client("SET", "l", "v") is OK


def test_a_failed_store_takes_no_writes_and_serves_settled_reads(
    world: World, client: Client
) -> None:
    client("SET", "k", "v")
    client("SET", "gone", "v", "PX", "5")
    world.settle()
    client("MULTI")
    client("SET", "queued", "v")
    world.break_disk()
    assert client.error("EXEC").startswith("EXECABORT Transaction discarded because of: MISCONF ")
    for words in (["SET", "a", "b"], ["MSET", "a", "b"], ["DEL", "k"]):
        assert client.error(*words).startswith("MISCONF ")
    client("MULTI")
    assert client.error("SET", "a", "b").startswith("MISCONF ")
    assert client.error("EXEC").startswith("EXECABORT ")
    assert client("GET", "k") == b"v"
    assert client.waits_for == 0
    world.machine.advance(10)
    assert client("GET", "gone") is None, "expired, and hidden though it cannot be deleted"
    world.node.tick()


def test_a_closed_node_runs_nothing_new(world: World, client: Client) -> None:
    world.node.close()
    assert client.error("GET", "k") == "ERR the server is shutting down"
    assert client.error("PING") == "ERR the server is shutting down"


# -- sessions --------------------------------------------------------------------------------------


def test_a_session_s_end_ends_all_that_was_its_own(world: World, client: Client) -> None:
    other = world.client()
    client("SUBSCRIBE", "c")
    client("PSUBSCRIBE", "p*")
    for words in (["WATCH", "k"], ["SNAPSHOT", "OPEN"], ["MONITOR"], ["MULTI"], ["SET", "a", "b"]):
        other(*words)
    client.close()
    other.close()
    other.close()  # idempotent
    node = world.node
    assert not node.channels.names()
    assert node.channels.num_patterns() == 0
    assert not node.transactions.watches.by_key
    assert world.store.engine.pinned == -1
    assert not node.monitors.sessions
    assert not list(node.clients)
    assert world.client()("GET", "k") is None


def test_sessions_have_keyspaces_of_their_own(world: World, client: Client) -> None:
    other = world.client()
    client("SELECT", "3")
    client("SET", "k", "three")
    assert other("GET", "k") is None
    other("SELECT", "3")
    assert other("GET", "k") == b"three"


# -- counters --------------------------------------------------------------------------------------


def test_calls_refusals_and_failures_are_counted_apart(world: World, client: Client) -> None:
    client("SET", "k", "text")
    client("GET", "k")
    client("GET", "missing")
    client("GET")
    client("INCR", "k")
    client("MGET", "k", "missing", "missing")
    row = world.node.rows.find(b"get")
    incr = world.node.rows.find(b"incr")
    assert row is not None
    assert incr is not None
    assert (row.calls, row.rejected, row.failed) == (2, 1, 0)
    assert (incr.calls, incr.rejected, incr.failed) == (1, 0, 1)
    assert world.node.rows.lookups() == (2, 3)
    assert world.node.errors == {"ERR": 2}
    world.node.reset_statistics()
    assert world.node.rows.total_calls() == 0
    assert world.node.errors == {}


def test_r2_only_constant_time_commands_on_one_key_take_the_fast_path() -> None:
    def row(**changes: Any) -> Row:
        shape = {"complexity": "O(1)", "keys": (1, 1, 1), "control": False, **changes}
        return Row(Command("x", broken, 2, flags("readonly"), "string", "X.", **shape))

    assert row().plain
    assert not row(control=True).plain
    assert not row(keys=(1, -1, 1)).plain
    assert not row(keys=(2, 2, 1)).plain
    assert not row(complexity="O(N)").plain
    assert not row(find_keys=lambda args: [1]).plain


# -- CLIENT REPLY ----------------------------------------------------------------------------------


def test_replies_can_be_turned_off_and_on(client: Client) -> None:
    assert client("CLIENT", "REPLY", "OFF") is NO_REPLY
    assert client("SET", "k", "v") is NO_REPLY
    assert client("NOSUCH") is NO_REPLY
    assert client("CLIENT", "REPLY", "ON") is OK
    assert client("GET", "k") == b"v"


def test_one_reply_can_be_skipped(client: Client) -> None:
    assert client("CLIENT", "REPLY", "SKIP") is NO_REPLY
    assert client("SET", "k", "v") is NO_REPLY
    assert client("GET", "k") == b"v"


def test_a_deferred_reply_is_skipped_as_well(world: World, client: Client) -> None:
    client("CLIENT", "REPLY", "SKIP")
    assert client("WAIT", "1", "50") is PENDING
    world.advance(60)
    assert client.result() is NO_REPLY
    assert client("PING") != NO_REPLY


def test_messages_arrive_while_replies_are_off(world: World) -> None:
    client = world.client(protocol=3)
    client("SUBSCRIBE", "c")
    client("CLIENT", "REPLY", "OFF")
    client.messages.clear()
    world.client()("PUBLISH", "c", "news")
    assert [message.items for message in client.messages] == [[b"message", b"c", b"news"]]


# -- what a batch of one command may hold ----------------------------------------------------------


def test_a_handler_may_write_many_changes_as_one_batch(world: World, client: Client) -> None:
    def run(view: Any, args: Any) -> Outcome:
        return Outcome(OK, [put(0, b"a", b"1"), put(0, b"b", b"2")])

    row = world.node.rows.find(b"SET")
    assert row is not None
    kept, row.run = row.run, run
    client("SET", "x", "y")
    row.run = kept
    assert world.store.last == 1
    assert client("MGET", "a", "b") == [b"1", b"2"]


def test_queued_is_the_answer_in_multi(client: Client) -> None:
    client("MULTI")
    assert client("GET", "k") is QUEUED
