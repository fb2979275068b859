"""HELLO, AUTH, PING, SELECT, RESET, QUIT, CLIENT and COMMAND."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from marram.node.passwords import hash_password
from marram.node.session import Buffers
from marram.node.settings import Settings
from marram.protocol.replies import (
    NO_REPLY,
    OK,
    PONG,
    RESET,
    ErrorReply,
    SetReply,
    Simple,
    Verbatim,
)
from tests.node.harness import PENDING, Client, World

PASSWORD = "open sesame"


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.fixture
def client(world: World) -> Client:
    return world.client()


@pytest.fixture
def locked() -> World:
    """A world with a password."""
    return World(settings=Settings(password_hash=hash_password(PASSWORD.encode(), bytes(16))))


# -- HELLO -----------------------------------------------------------------------------------------


def test_hello_says_who_is_here_and_keeps_the_protocol(client: Client) -> None:
    assert client("HELLO") == {
        b"server": b"redis",
        b"version": b"7.4.0",
        b"proto": 2,
        b"id": client.session.id,
        b"mode": b"standalone",
        b"role": b"master",
        b"modules": [],
    }


def test_hello_chooses_the_protocol_and_the_name(client: Client) -> None:
    assert client("HELLO", "3", "SETNAME", "me")[b"proto"] == 3
    assert client.session.protocol == 3
    assert client("CLIENT", "GETNAME") == b"me"
    assert client("HELLO", "2")[b"proto"] == 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["4"], "NOPROTO unsupported protocol version"),
        (["1"], "NOPROTO unsupported protocol version"),
        (["x"], "ERR Protocol version is not an integer or out of range"),
        (["3", "what"], "ERR Syntax error in HELLO option 'what'"),
        (["3", "AUTH", "user"], "ERR Syntax error in HELLO option 'AUTH'"),
        (
            ["3", "SETNAME", "a b"],
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ),
        (
            ["3", "AUTH", "who", "x"],
            "WRONGPASS invalid username-password pair or user is disabled.",
        ),
    ],
)
def test_hello_refuses_and_changes_nothing(client: Client, words: list[str], text: str) -> None:
    assert client.error("HELLO", *words) == text
    assert client.session.protocol == 2
    assert client.session.name == b""


def test_hello_logs_in(locked: World) -> None:
    client = locked.client()
    assert client.error("HELLO", "3").startswith("NOAUTH HELLO must be called with the client ")
    greeting = client("HELLO", "3", "AUTH", "default", PASSWORD, "SETNAME", "me")
    assert greeting[b"proto"] == 3
    assert client("CLIENT", "GETNAME") == b"me"


# -- AUTH ------------------------------------------------------------------------------------------


def test_auth_without_a_password_set(client: Client) -> None:
    assert client.error("AUTH", "x").startswith(
        "ERR AUTH <password> called without any password configured for the default user."
    )
    assert client("AUTH", "default", "anything") is OK
    assert client.error("AUTH", "a", "b", "c") == "ERR syntax error"


def test_auth_lets_in(locked: World) -> None:
    client = locked.client()
    seen: list[bool] = []
    client.session.on_authenticated = lambda: seen.append(client.session.authenticated)
    assert client("AUTH", PASSWORD) is OK
    assert seen == [True]
    assert client("SET", "k", "v") is OK
    assert locked.client()("AUTH", "default", PASSWORD) is OK


@pytest.mark.parametrize("words", [["wrong"], ["default", "wrong"], ["other", PASSWORD], [""]])
def test_auth_refuses_after_a_while(locked: World, words: list[str]) -> None:
    client = locked.client()
    assert client("AUTH", *words) is PENDING, "the failure takes its time"
    locked.advance(100)
    assert client.result() == ErrorReply(
        "WRONGPASS invalid username-password pair or user is disabled."
    )
    assert client.error("GET", "k") == "NOAUTH Authentication required."


def test_a2_each_failure_takes_longer_up_to_a_bound(locked: World) -> None:
    client = locked.client()
    for expected_ms in (100, 200, 400, 800, 1600, 3000, 3000):
        client("AUTH", "wrong")
        locked.advance(expected_ms - 1)
        assert client.result() is PENDING
        locked.advance(2)
        assert client.result() is not PENDING
    assert client("AUTH", PASSWORD) is OK


def test_a1_who_is_logged_in_stays_so_when_the_password_changes(world: World) -> None:
    client = world.client()
    assert client("CONFIG", "SET", "requirepass", "new") is OK
    assert client("SET", "k", "v") is OK
    newcomer = world.client()
    assert newcomer.error("GET", "k") == "NOAUTH Authentication required."
    assert client("CONFIG", "SET", "requirepass", "") is OK
    assert newcomer("GET", "k") == b"v"


def test_passwords_are_not_shown_anywhere(
    world: World, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    spy = world.client()
    spy("MONITOR")
    client("CONFIG", "SET", "slowlog-log-slower-than", "0")
    client("CONFIG", "SET", "requirepass", "s3cret")
    client("AUTH", "s3cret")
    client("HELLO", "2", "SETNAME", "auth", "AUTH", "default", "s3cret")
    client("AUTH", "default", "s3cret")
    seen = [spy.messages, client("SLOWLOG", "GET", "-1"), client("CONFIG", "GET", "*")]
    seen += [client("INFO", "everything"), client("CLIENT", "LIST"), world.settings, caplog.text]
    assert "s3cret" not in repr(seen)
    assert "(redacted)" in repr(seen)


# -- the small ones --------------------------------------------------------------------------------


def test_ping_and_echo(client: Client) -> None:
    assert client("PING") is PONG
    assert client("PING", "hello") == b"hello"
    assert client.error("PING", "a", "b") == "ERR wrong number of arguments for 'ping' command"
    assert client("ECHO", "hello") == b"hello"


def test_quit_answers_and_closes(client: Client) -> None:
    assert client("QUIT") is OK
    assert client.closed


@pytest.mark.parametrize(
    ("index", "text"),
    [
        ("16", "ERR DB index is out of range"),
        ("-1", "ERR DB index is out of range"),
        ("x", "ERR value is not an integer or out of range"),
    ],
)
def test_select_refuses_what_is_not_there(client: Client, index: str, text: str) -> None:
    client("SELECT", "2")
    assert client.error("SELECT", index) == text
    assert client.session.keyspace == 2


def test_reset_brings_back_the_beginning(world: World) -> None:
    client = world.client(protocol=3)
    for words in (
        ["CLIENT", "SETNAME", "me"],
        ["CLIENT", "NO-EVICT", "on"],
        ["SELECT", "4"],
        ["SNAPSHOT", "OPEN"],
        ["WATCH", "k"],
        ["SUBSCRIBE", "c"],
        ["MONITOR"],
        ["MULTI"],
    ):
        client(*words)
    assert client("RESET") is RESET
    session = client.session
    assert (session.protocol, session.keyspace, session.name) == (2, 0, b"")
    assert (session.queue, session.snapshots, session.watched) == (None, {}, {})
    assert session.subscriptions == 0
    assert not session.monitoring
    assert not session.no_evict
    assert client("GET", "k") is None


def test_reset_logs_out(locked: World) -> None:
    client = locked.client()
    client("AUTH", PASSWORD)
    client("RESET")
    assert client.error("GET", "k") == "NOAUTH Authentication required."


# -- CLIENT ----------------------------------------------------------------------------------------


def lines(reply: Any) -> list[dict[str, str]]:
    assert isinstance(reply, Verbatim)
    text = reply.data.decode()
    assert text.endswith("\n") or not text
    return [dict(field.split("=", 1) for field in line.split(" ")) for line in text.splitlines()]


FIELDS = (
    "id", "addr", "laddr", "fd", "name", "age", "idle", "flags", "db", "sub", "psub", "ssub",
    "multi", "watch", "qbuf", "qbuf-free", "argv-mem", "multi-mem", "rbs", "rbp", "obl", "oll",
    "omem", "tot-mem", "events", "cmd", "user", "redir", "resp", "lib-name", "lib-ver",
)  # fmt: skip


def test_client_list_has_all_fields_in_their_order(client: Client) -> None:
    (line,) = lines(client("CLIENT", "LIST"))
    assert tuple(line) == FIELDS
    assert line["cmd"] == "client|list"
    assert line["user"] == "default"


def test_client_info_tells_what_the_session_is_up_to(world: World) -> None:
    client = world.client(protocol=3)
    client("CLIENT", "SETNAME", "me")
    client("CLIENT", "SETINFO", "LIB-NAME", "py")
    client("CLIENT", "SETINFO", "lib-ver", "1.2")
    client("SELECT", "5")
    client("SUBSCRIBE", "a", "b")
    client("PSUBSCRIBE", "p")
    client("WATCH", "k")
    client.session.buffers = lambda: Buffers(10, 20)
    world.advance(3000)
    (line,) = lines(client("CLIENT", "INFO"))
    expected = {
        "name": "me", "lib-name": "py", "lib-ver": "1.2", "db": "5", "sub": "2", "psub": "1",
        "watch": "1", "age": "3", "idle": "0", "flags": "P", "resp": "3", "qbuf": "10",
        "omem": "20", "multi": "-1", "addr": client.session.address,
    }  # fmt: skip
    assert {name: line[name] for name in expected} == expected
    client("MULTI")
    client("GET", "k")
    other = world.client()
    (line,) = lines(other("CLIENT", "LIST", "ID", client.session.id))
    assert (line["multi"], line["flags"]) == ("1", "Px")


def test_client_list_filters(world: World, client: Client) -> None:
    listener = world.client()
    listener("SUBSCRIBE", "c")
    ids = {one["id"] for one in lines(client("CLIENT", "LIST"))}
    assert ids == {str(client.session.id), str(listener.session.id)}
    (only,) = lines(client("CLIENT", "LIST", "TYPE", "pubsub"))
    assert only["id"] == str(listener.session.id)
    assert lines(client("CLIENT", "LIST", "TYPE", "replica")) == []
    assert len(lines(client("CLIENT", "LIST", "ID", listener.session.id, "999"))) == 1
    assert client.error("CLIENT", "LIST", "TYPE", "x") == "ERR Unknown client type 'x'"
    assert client.error("CLIENT", "LIST", "ID", "x") == "ERR Invalid client ID"
    assert client.error("CLIENT", "LIST", "x") == "ERR syntax error"


@pytest.mark.parametrize("name", ["a b", "a\n", "\x7f", "ü"])
def test_names_are_printable(client: Client, name: str) -> None:
    text = "ERR Client names cannot contain spaces, newlines or special characters."
    assert client.error("CLIENT", "SETNAME", name) == text
    assert client.error("CLIENT", "SETINFO", "LIB-NAME", name) == text.replace(
        "Client names", "lib-name"
    )
    assert client.error("CLIENT", "SETINFO", "nosuch", "x") == "ERR Unrecognized option 'nosuch'"


def test_a_name_may_be_taken_back(client: Client) -> None:
    client("CLIENT", "SETNAME", "me")
    client("CLIENT", "SETNAME", "")
    assert client("CLIENT", "GETNAME") is None


def test_kill_by_address(world: World, client: Client) -> None:
    victim = world.client()
    assert client("CLIENT", "KILL", victim.session.address) is OK
    assert victim.closed
    assert client.error("CLIENT", "KILL", "1.2.3.4:5") == "ERR No such client"


def test_kill_by_filters(world: World, client: Client) -> None:
    victims = [world.client() for _ in range(3)]
    victims[0]("SUBSCRIBE", "c")
    assert client("CLIENT", "KILL", "TYPE", "pubsub") == 1
    assert victims[0].closed
    assert client("CLIENT", "KILL", "ID", victims[1].session.id, "TYPE", "pubsub") == 0
    assert client("CLIENT", "KILL", "ID", victims[1].session.id) == 1
    assert client("CLIENT", "KILL", "LADDR", "127.0.0.1:7379", "USER", "default") == 3
    assert not client.closed, "spared by SKIPME"
    assert client("CLIENT", "KILL", "ADDR", client.session.address, "SKIPME", "no") == 1
    assert client.closed


def test_kill_by_age(world: World) -> None:
    old = world.client()
    world.advance(10_000)
    young = world.client()
    assert young("CLIENT", "KILL", "MAXAGE", "5") == 1
    assert old.closed


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["ID", "x"], "ERR client-id should be greater than 0"),
        (["ID", "0"], "ERR client-id should be greater than 0"),
        (["TYPE", "x"], "ERR Unknown client type 'x'"),
        (["USER", "x"], "ERR No such user 'x'"),
        (["SKIPME", "x"], "ERR syntax error"),
        (["ID", "1", "TYPE"], "ERR syntax error"),
    ],
)
def test_kill_refuses(client: Client, words: list[str], text: str) -> None:
    assert client.error("CLIENT", "KILL", *words) == text


def test_unblock_ends_a_wait(world: World, client: Client) -> None:
    waiting = world.client()
    assert waiting("WAIT", "1", "0") is PENDING
    assert client("CLIENT", "UNBLOCK", waiting.session.id) == 1
    assert waiting.result() == 0
    assert waiting("WAIT", "1", "0") is PENDING
    assert client("CLIENT", "UNBLOCK", waiting.session.id, "ERROR") == 1
    assert waiting.result() == ErrorReply("UNBLOCKED client unblocked via CLIENT UNBLOCK")
    assert client("CLIENT", "UNBLOCK", waiting.session.id) == 0
    assert client("CLIENT", "UNBLOCK", "999") == 0
    assert client.error("CLIENT", "UNBLOCK", "1", "x") == (
        "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"
    )


def test_what_is_not_there_is_off_and_cannot_be_turned_on(client: Client) -> None:
    assert client("CLIENT", "TRACKING", "off") is OK
    assert client.error("CLIENT", "TRACKING", "on").startswith("ERR CLIENT TRACKING is not ")
    assert client("CLIENT", "TRACKINGINFO") == {
        b"flags": SetReply([b"off"]),
        b"redirect": -1,
        b"prefixes": [],
    }
    assert client("CLIENT", "GETREDIR") == -1
    assert client.error("CLIENT", "CACHING", "yes").startswith("ERR CLIENT CACHING can be called ")
    assert client("CLIENT", "MAINT_NOTIFICATIONS", "OFF") is OK
    assert isinstance(
        client("CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", "none"), ErrorReply
    )
    assert client("CLIENT", "NO-TOUCH", "ON") is OK
    assert client.error("CLIENT", "NO-EVICT", "maybe") == "ERR syntax error"


def test_reply_modes_are_checked(client: Client) -> None:
    assert client.error("CLIENT", "REPLY", "maybe") == "ERR syntax error"
    assert client("CLIENT", "REPLY", "ON") is OK


# -- CLIENT PAUSE ----------------------------------------------------------------------------------


def test_a_pause_holds_everybody_until_its_end(world: World, client: Client) -> None:
    other = world.client()
    assert client("CLIENT", "PAUSE", "100") is OK
    assert other("GET", "k") is PENDING
    assert client("PING") is PENDING
    world.advance(99)
    assert other.result() is PENDING
    world.advance(2)
    assert other.result() is None
    assert client.result() is PONG
    assert other("PING") is PONG


def test_a_pause_of_writes_lets_reads_pass(world: World, client: Client) -> None:
    other, third = world.client(), world.client()
    third("MULTI")
    third("SET", "k", "w")
    client("CLIENT", "PAUSE", "1000", "WRITE")
    assert other("GET", "k") is None
    assert other("SET", "k", "v") is PENDING
    assert third("EXEC") is PENDING, "its queue writes"
    assert world.client()("PUBLISH", "c", "x") is PENDING, "so does this, in Redis's eyes"
    assert client("CLIENT", "UNPAUSE") is OK
    assert other.result() is OK
    assert other.deferred is not None
    assert other.deferred.waits_for > 0
    assert third.result() == [OK]
    assert client("GET", "k") == b"w", "in the order they came"


def test_the_longer_and_stricter_of_two_pauses_holds(world: World, client: Client) -> None:
    client("CLIENT", "PAUSE", "1000", "WRITE")
    other = world.client()
    other("CLIENT", "PAUSE", "10", "ALL")
    assert other("GET", "k") is PENDING
    world.advance(500)
    assert other.result() is PENDING
    world.advance(501)
    assert other.result() is None


def test_unpause_passes_a_pause_of_all(world: World, client: Client) -> None:
    client("CLIENT", "PAUSE", "1000000")
    assert client("CLIENT", "UNPAUSE") is OK
    assert client("PING") is PONG


def test_a_held_command_of_a_client_that_left_is_not_run(world: World, client: Client) -> None:
    other = world.client()
    client("CLIENT", "PAUSE", "1000")
    assert other("SET", "k", "v") is PENDING
    other.close()
    client("CLIENT", "UNPAUSE")
    assert client("GET", "k") is None


def test_keys_do_not_expire_during_a_pause(world: World, client: Client) -> None:
    client("SET", "k", "v", "PX", "5")
    world.settle()
    client("CLIENT", "PAUSE", "1000", "WRITE")
    world.advance(400)
    world.node.tick()
    assert client("GET", "k") is None
    assert len(world.store.engine.spaces[0]) == 1, "hidden, and not deleted"


def test_pauses_are_checked(client: Client) -> None:
    assert client.error("CLIENT", "PAUSE", "x") == "ERR timeout is not an integer or out of range"
    assert client.error("CLIENT", "PAUSE", "-1") == "ERR timeout is negative"
    assert client.error("CLIENT", "PAUSE", "1", "x") == (
        "ERR CLIENT PAUSE mode must be WRITE or ALL"
    )


# -- COMMAND ---------------------------------------------------------------------------------------


def test_command_describes_every_row_in_ten_fields(client: Client) -> None:
    entries = client("COMMAND")
    assert len(entries) == client("COMMAND", "COUNT") == len(client("COMMAND", "LIST"))
    for entry in entries:
        assert len(entry) == 10
        for sub in entry[9]:
            assert len(sub) == 10
            assert sub[0].startswith(entry[0] + b"|")


def test_command_info_describes_some(client: Client) -> None:
    get, missing, sub = client("COMMAND", "INFO", "GET", "nosuch", "client|id")
    assert get[:2] == [b"get", 2]
    assert set(get[2].items) == {Simple("readonly"), Simple("fast")}
    assert get[3:6] == [1, 1, 1]
    assert set(get[6].items) == {Simple("@read"), Simple("@string"), Simple("@fast")}
    assert missing is None
    assert sub[0] == b"client|id"


def test_command_docs_document_arguments_and_subcommands(client: Client) -> None:
    docs = client("COMMAND", "DOCS", "set", "config", "nosuch")
    assert set(docs) == {b"set", b"config"}
    assert {b"summary", b"since", b"group", b"complexity", b"arguments"} <= set(docs[b"set"])
    assert docs[b"set"][b"arguments"][0][b"name"] == b"key"
    assert set(docs[b"config"][b"subcommands"]) >= {b"config|get", b"config|help"}
    assert len(client("COMMAND", "DOCS")) == client("COMMAND", "COUNT")


def test_command_list_filters(client: Client) -> None:
    assert client("COMMAND", "LIST", "FILTERBY", "PATTERN", "config|*T") == [
        b"config|get",
        b"config|set",
        b"config|resetstat",
    ]
    assert b"get" in client("COMMAND", "LIST", "FILTERBY", "ACLCAT", "read")
    assert client("COMMAND", "LIST", "FILTERBY", "MODULE", "x") == []
    assert client.error("COMMAND", "LIST", "FILTERBY", "x", "y") == "ERR syntax error"


def test_command_getkeys_finds_keys(client: Client) -> None:
    assert client("COMMAND", "GETKEYS", "MSET", "a", "1", "b", "2") == [b"a", b"b"]
    assert client("COMMAND", "GETKEYS", "memory", "usage", "k") == [b"k"]
    assert client("COMMAND", "GETKEYSANDFLAGS", "GET", "k") == [
        [b"k", SetReply([Simple("RO"), Simple("access")])]
    ]
    for words, text in {
        ("nosuch", "k"): "ERR Invalid command specified",
        ("get", "a", "b"): "ERR Invalid number of arguments specified for command",
        ("ping", "x"): "ERR The command has no key arguments",
    }.items():
        assert client.error("COMMAND", "GETKEYS", *words) == text


@pytest.mark.parametrize(
    "container", ["CLIENT", "COMMAND", "CONFIG", "PUBSUB", "SLOWLOG", "LATENCY", "MEMORY", "ACL",
                  "FUNCTION", "MODULE", "CLUSTER", "SNAPSHOT"]
)  # fmt: skip
def test_help_names_every_subcommand(client: Client, container: str) -> None:
    shown = [line.text for line in client(container, "HELP")]
    assert shown[0] == (f"{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")
    (docs,) = client("COMMAND", "DOCS", container).values()
    words = {name.decode().partition("|")[2].upper() for name in docs[b"subcommands"]}
    assert words <= {line.split(" ")[0] for line in shown}
    assert NO_REPLY not in shown
