"""MULTI, EXEC, DISCARD, WATCH, UNWATCH: what clients see, and what a crash leaves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.node.settings import Settings
from marram.protocol.replies import NULL_ARRAY, OK, QUEUED, ErrorReply, Push
from marram.storage.options import Options
from marram.storage.store import Store
from tests.node.harness import Client, World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.fixture
def client(world: World) -> Client:
    return world.client()


def transaction(client: Client, *commands: tuple[str, ...]) -> object:
    assert client("MULTI") is OK
    for command in commands:
        assert client(*command) is QUEUED
    return client("EXEC")


# -- the queue -------------------------------------------------------------------------------------


def test_each_command_sees_those_before_it(client: Client) -> None:
    replies = transaction(
        client, ("SET", "n", "1"), ("INCR", "n"), ("GET", "n"), ("DEL", "n"), ("EXISTS", "n")
    )
    assert replies == [OK, 2, b"2", 1, 0]


def test_nothing_happens_before_exec(world: World, client: Client) -> None:
    client("MULTI")
    client("SET", "k", "v")
    assert world.client()("GET", "k") is None
    client("EXEC")
    assert world.client()("GET", "k") == b"v"


def test_a_command_that_fails_fails_alone(client: Client) -> None:
    replies = transaction(client, ("SET", "k", "text"), ("INCR", "k"), ("APPEND", "k", "!"))
    assert isinstance(replies, list)
    assert [type(reply) for reply in replies] == [type(OK), ErrorReply, int]
    assert client("GET", "k") == b"text!"


@pytest.mark.parametrize("bad", [("NOSUCH",), ("GET",), ("CLIENT", "nosuch"), ("SAVE",)])
def test_a_command_that_is_refused_spoils_all(client: Client, bad: tuple[str, ...]) -> None:
    client("MULTI")
    client("SET", "k", "v")
    assert isinstance(client(*bad), ErrorReply)
    assert client.error("EXEC") == "EXECABORT Transaction discarded because of previous errors."
    assert client("GET", "k") is None, "and the session is out of MULTI"


def test_discard_forgets_the_queue_and_the_watches(world: World, client: Client) -> None:
    client("WATCH", "k")
    client("MULTI")
    client("SET", "k", "v")
    assert client("DISCARD") is OK
    assert client("GET", "k") is None
    world.client()("SET", "k", "other")
    assert transaction(client, ("GET", "k")) == [b"other"]


def test_misplaced_calls_are_refused_and_harm_nothing(client: Client) -> None:
    assert client.error("EXEC") == "ERR EXEC without MULTI"
    assert client.error("DISCARD") == "ERR DISCARD without MULTI"
    client("MULTI")
    assert client.error("MULTI") == "ERR MULTI calls can not be nested"
    assert client.error("WATCH", "k") == "ERR WATCH inside MULTI is not allowed"
    assert client("EXEC") == []


def test_exec_with_arguments_ends_the_transaction(client: Client) -> None:
    client("MULTI")
    client("SET", "k", "v")
    assert client.error("EXEC", "now") == (
        "EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command"
    )
    assert client.error("EXEC") == "ERR EXEC without MULTI"


def test_the_queue_is_bounded_in_bytes() -> None:
    client = World(settings=Settings(max_queue_bytes=1000)).client()
    client("MULTI")
    assert client("SET", "k", "x" * 300) is QUEUED
    assert client.error("SET", "k", "x" * 500) == (
        "ERR the queue of a transaction may have 1000 bytes"
    )
    assert client.error("EXEC").startswith("EXECABORT ")
    client("MULTI")
    assert client("SET", "k", "x" * 500) is QUEUED, "the count starts anew"


def test_the_keyspace_may_change_on_the_way(client: Client) -> None:
    replies = transaction(
        client, ("SET", "k", "zero"), ("SELECT", "1"), ("SET", "k", "one"), ("GET", "k")
    )
    assert replies == [OK, OK, OK, b"one"]
    client("SELECT", "0")
    assert client("GET", "k") == b"zero"


def test_a_flush_and_a_swap_are_seen_by_what_follows(client: Client) -> None:
    client("SET", "k", "v")
    assert transaction(client, ("FLUSHDB",), ("DBSIZE",), ("SET", "j", "w")) == [OK, 0, OK]
    assert transaction(client, ("SWAPDB", "0", "1"), ("EXISTS", "j")) == [OK, 0]
    client("SELECT", "1")
    assert client("GET", "j") == b"w"


def test_messages_leave_with_the_batch(world: World, client: Client) -> None:
    listener = world.client()
    listener("SUBSCRIBE", "c")
    listener.messages.clear()
    listener.positions.clear()
    assert transaction(client, ("PUBLISH", "c", "early"), ("SET", "k", "v")) == [1, OK]
    assert [message.items for message in listener.messages] == [[b"message", b"c", b"early"]]
    assert listener.positions == [world.store.last], "the message tells of the batch"


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_subscription_is_an_element_of_the_answer(world: World, protocol: int) -> None:
    client = world.client(protocol)
    replies = transaction(client, ("PING", "a"), ("SUBSCRIBE", "c"), ("UNSUBSCRIBE", "c"))
    assert replies == [b"a", Push([b"subscribe", b"c", 1]), Push([b"unsubscribe", b"c", 0])]
    assert client.messages == []


def test_waiting_commands_do_not_wait(client: Client) -> None:
    replies = transaction(client, ("SET", "k", "v"), ("WAIT", "1", "0"), ("WAITAOF", "1", "0", "0"))
    assert replies == [OK, 0, [0, 0]]


def test_expired_keys_are_deleted_within_the_batch(world: World, client: Client) -> None:
    client("SET", "k", "v", "PX", "5")
    world.node.upkeep.active_expiry = False
    world.advance(10)
    last = world.store.last
    assert transaction(client, ("GET", "k"), ("SET", "j", "1"), ("GET", "k")) == [None, OK, None]
    assert world.store.last == last + 1


# -- what a crash leaves ---------------------------------------------------------------------------


@pytest.mark.parametrize("survival", [0.0, 0.5, 1.0])
def test_x1_a_crash_leaves_all_of_a_transaction_or_nothing(survival: float) -> None:
    for seed in range(10):
        world = World()
        client = world.client()
        client("MSET", "a", "old", "b", "old", "c", "old")
        world.settle()
        transaction(client, ("SET", "a", "new"), ("DEL", "c"), ("SET", "b", "new"))
        group = world.store.take_group()
        assert group is not None
        group.write()
        clone = world.machine.crash_clone(survival, seed)
        store = Store.open("/data", clone, Options())
        held = [store.engine.spaces[0].get(key) for key in (b"a", b"b", b"c")]
        assert held in ([b"old", b"old", b"old"], [b"new", b"new", None])
        store.close()
        world.store.complete(group, None)


def test_x1_one_transaction_is_one_batch(world: World, client: Client) -> None:
    last = world.store.last
    transaction(client, *[("SET", f"k{number}", "v") for number in range(50)])
    assert world.store.last == last + 1


def test_x1_a_transaction_without_changes_is_no_batch(world: World, client: Client) -> None:
    last = world.store.last
    assert transaction(client, ("GET", "k"), ("DEL", "k")) == [None, 0]
    assert world.store.last == last


# -- WATCH -----------------------------------------------------------------------------------------

TOUCHES = [
    ("SET", "k", "new"),
    ("SET", "k", "v"),  # the same value is a write
    ("DEL", "k"),
    ("APPEND", "k", "x"),
    ("SETRANGE", "k", "0", "v"),
    ("EXPIRE", "k", "100"),
    ("PERSIST", "ttl"),
    ("RENAME", "k", "elsewhere"),
    ("RENAME", "other", "k"),
    ("GETDEL", "k"),
    ("FLUSHDB",),
    ("FLUSHALL",),
    ("SWAPDB", "0", "1"),
    ("MSET", "z", "1", "k", "2"),
    ("COPY", "other", "k", "REPLACE"),
    ("MOVE", "k", "2"),
]
"""What spoils a transaction that watches k and ttl, both of which exist; so does `other`."""

LEAVES = [
    ("GET", "k"),
    ("SET", "z", "v"),
    ("DEL", "missing"),
    ("EXPIRE", "missing", "10"),
    ("PERSIST", "k"),
    ("SETNX", "k", "v"),
    ("SWAPDB", "1", "2"),
    ("COPY", "other", "k"),
    ("COPY", "other", "k", "DB", "1"),
]
"""What does not."""


def watching(world: World, *keys: str) -> Client:
    client = world.client()
    client("MSET", "k", "v", "other", "o")
    client("SET", "ttl", "v", "EX", "100")
    world.settle()
    assert client("WATCH", *keys) is OK
    return client


@pytest.mark.parametrize("touch", TOUCHES, ids=" ".join)
@pytest.mark.parametrize("own", [False, True], ids=["another's", "one's own"])
def test_any_write_to_a_watched_key_spoils_the_transaction(
    world: World, touch: tuple[str, ...], own: bool
) -> None:
    client = watching(world, "k", "ttl")
    (client if own else world.client())(*touch)
    assert transaction(client, ("PING",)) is NULL_ARRAY
    assert transaction(client, ("PING",)) != NULL_ARRAY, "it watches no longer"


@pytest.mark.parametrize("touch", LEAVES, ids=" ".join)
def test_nothing_else_does(world: World, touch: tuple[str, ...]) -> None:
    client = watching(world, "k", "ttl")
    world.client()(*touch)
    assert transaction(client, ("PING",)) is not NULL_ARRAY


def test_a_transaction_of_another_session_touches_at_its_end(world: World) -> None:
    client = watching(world, "k")
    transaction(world.client(), ("SET", "k", "v"))
    assert transaction(client, ("PING",)) is NULL_ARRAY


def test_a_missing_key_can_be_watched(world: World, client: Client) -> None:
    client("WATCH", "new")
    world.client()("SET", "new", "v")
    assert transaction(client, ("PING",)) is NULL_ARRAY
    client("DEL", "new")
    client("WATCH", "new")
    world.client()("FLUSHALL")
    assert transaction(client, ("PING",)) is not NULL_ARRAY, "it was not there to be flushed"


def test_a_key_is_watched_in_the_keyspace_that_was_selected(world: World, client: Client) -> None:
    client("WATCH", "k")
    client("SELECT", "1")
    client("SET", "k", "one")
    client("SELECT", "0")
    assert transaction(client, ("PING",)) is not NULL_ARRAY


@pytest.mark.parametrize("database", ["0", "1"])
@pytest.mark.parametrize("filled", ["0", "1"])
def test_a_swap_touches_on_both_sides_what_exists_on_either(
    world: World, client: Client, database: str, filled: str
) -> None:
    client("SELECT", filled)
    client("SET", "k", "v")
    client("SELECT", database)
    client("WATCH", "k")
    world.client()("SWAPDB", "0", "1")
    assert transaction(client, ("PING",)) is NULL_ARRAY


def test_unwatch_forgets(world: World) -> None:
    client = watching(world, "k")
    world.client()("SET", "k", "new")
    assert client("UNWATCH") is OK
    assert transaction(client, ("PING",)) is not NULL_ARRAY


def test_unwatch_within_a_transaction_comes_too_late(world: World) -> None:
    client = watching(world, "k")
    client("MULTI")
    assert client("UNWATCH") is QUEUED
    world.client()("SET", "k", "new")
    assert client("EXEC") is NULL_ARRAY


@pytest.mark.parametrize("how", ["a tick", "a read", "nobody yet"])
def test_k2_a_watched_key_that_expires_spoils_whoever_deletes_it(world: World, how: str) -> None:
    client = watching(world, "k", "ttl")
    if how == "nobody yet":
        world.node.upkeep.active_expiry = False
    world.advance(101_000)
    if how == "a tick":
        world.node.tick()
    elif how == "a read":
        world.client()("GET", "ttl")
    assert transaction(client, ("PING",)) is NULL_ARRAY


def test_k2_a_key_that_had_expired_before_watch_spoils_nothing(
    world: World, client: Client
) -> None:
    world.node.upkeep.active_expiry = False
    client("SET", "k", "v", "PX", "5")
    world.advance(10)
    client("WATCH", "k")
    world.node.upkeep.active_expiry = True
    world.advance(1000)
    world.node.tick()
    client("DEL", "k")
    client("FLUSHALL")
    assert transaction(client, ("PING",)) is not NULL_ARRAY


def test_k2_a_new_deadline_counts_from_the_write_that_set_it(world: World) -> None:
    client = watching(world, "ttl")
    world.client()("PERSIST", "ttl")
    world.advance(200_000)
    assert transaction(client, ("PING",)) is NULL_ARRAY


def test_k3_with_nobody_watching_the_registry_is_empty(world: World) -> None:
    client = watching(world, "k", "ttl")
    assert world.node.transactions.watches.by_key
    transaction(client, ("PING",))
    assert not world.node.transactions.watches.by_key


def test_watched_keys_are_bounded() -> None:
    client = World(settings=Settings(max_watched_keys=3)).client()
    assert client("WATCH", "a", "b", "c") is OK
    assert client.error("WATCH", "d") == "ERR a connection may watch 3 keys"


KEYS = ["a", "b"]
WRITES = st.one_of(
    st.tuples(st.just("SET"), st.sampled_from(KEYS), st.sampled_from("xy")),
    st.tuples(st.just("DEL"), st.sampled_from(KEYS)),
    st.tuples(st.just("GET"), st.sampled_from(KEYS)),
    st.tuples(st.just("SETNX"), st.sampled_from(KEYS), st.just("z")),
    st.just(("FLUSHDB",)),
)


@settings(max_examples=100)
@given(st.lists(WRITES, max_size=3), st.sets(st.sampled_from(KEYS), min_size=1), st.lists(WRITES))
def test_watch_against_a_model(
    before: list[tuple[str, ...]], watched: set[str], after: list[tuple[str, ...]]
) -> None:
    world = World()
    client, other = world.client(), world.client()
    model: dict[str, str] = {}

    def run(command: tuple[str, ...]) -> set[str]:
        """Run it; the keys it writes, by the model."""
        other(*command)
        if command[0] == "FLUSHDB":
            written = set(model)
            model.clear()
        elif command[0] == "SET" or (command[0] == "SETNX" and command[1] not in model):
            written = {command[1]}
            model[command[1]] = command[2]
        elif command[0] == "DEL" and command[1] in model:
            written = {command[1]}
            del model[command[1]]
        else:
            written = set()
        return written

    for command in before:
        run(command)
    client("WATCH", *sorted(watched))
    touched = {key for command in after for key in run(command)}
    replies = transaction(client, *(("GET", key) for key in KEYS))
    if touched & watched:
        assert replies is NULL_ARRAY
    else:
        assert replies == [model[key].encode() if key in model else None for key in KEYS]
