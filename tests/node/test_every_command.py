"""What must hold for every command in the table, whatever a client sends."""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from marram.commands.spec import Command
from marram.commands.table import TABLE
from marram.node.deferred import Deferred
from marram.node.passwords import hash_password
from marram.node.settings import Settings
from marram.protocol.replies import ErrorReply
from marram.protocol.resp import encode
from tests.node.harness import Client, World

LEAVES = [
    row
    for top in TABLE.values()
    for row in (
        (*top.subcommands, *([top] if top.arity == -1 else ())) if top.subcommands else [top]
    )
]
HASH = hash_password(b"sesame", bytes(16))


def name_of(row: Command) -> str:
    return row.name


def call(row: Command, fill: str = "1") -> list[str]:
    """The shortest call of a row."""
    words = row.name.split("|")
    return words + [fill] * (abs(row.arity) - len(words))


@pytest.mark.parametrize("row", LEAVES, ids=name_of)
def test_nobody_gets_past_the_login(row: Command) -> None:
    world = World(settings=Settings(password_hash=HASH, debug_commands=True))
    client = world.client()
    if "no_auth" in row.flags:
        assert row.name in ("hello", "auth", "quit", "reset")
        return
    assert client.error(*call(row)) == "NOAUTH Authentication required."
    assert world.store.last == 0
    assert not client.messages
    world.close()


@pytest.mark.parametrize("row", LEAVES, ids=name_of)
def test_nothing_waits_within_a_transaction(row: Command) -> None:
    world = World(settings=Settings(debug_commands=True))
    client = world.client()
    client("MULTI")
    client(*call(row))
    reply: Any = client("EXEC") if client.session.queue is not None else None
    assert not isinstance(reply, Deferred)
    if isinstance(reply, list):
        assert not any(isinstance(element, Deferred) for element in reply)
    assert not world.store.lock.locked()
    world.close()


@pytest.mark.parametrize("row", LEAVES, ids=name_of)
def test_one_argument_too_few_is_told_before_anything_runs(row: Command) -> None:
    world = World(settings=Settings(debug_commands=True))
    client = world.client()
    words = call(row)[:-1]
    if len(words) < len(row.name.split("|")):
        return
    assert client.error(*words) == f"ERR wrong number of arguments for '{row.name}' command"
    world.close()


VOCABULARY = (
    "a b c 0 1 2 -1 9223372036854775807 18446744073709551616 3.5 nan * [ EX PX EXAT KEEPTTL NX XX "
    "GT LT GET MATCH COUNT LIMIT REV TYPE ID SAVE ON OFF SKIP YES NO SYNC READS RANGES WRITES PUT "
    "DEL DELRANGE IFEQ IFNX timeout normal FILTERBY PATTERN ACLCAT set get u8 AND BYTE AUTH "
    "SETNAME default SLEEP OBJECT command all SAMPLES WRITE"
)
WORDS = st.one_of(
    st.sampled_from([b"", *VOCABULARY.encode().split(b" ")]),
    st.binary(max_size=20),
)
CALLS = st.tuples(st.sampled_from(LEAVES), st.lists(WORDS, max_size=8))


@settings(
    max_examples=int(os.environ.get("MARRAM_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the engine is one for all
)
@given(st.lists(CALLS, max_size=25), st.sampled_from([2, 3]))
@example([(TABLE[b"echo"], [b"\r\n+OK\r\n"])], 2)
def test_n2_whatever_is_sent_gets_an_answer_that_can_be_sent(
    calls: list[tuple[Command, list[bytes]]], protocol: int
) -> None:
    world = World(settings=Settings(debug_commands=True))
    clients = [world.client(protocol), world.client(2)]
    errors: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = errors.append  # type: ignore[method-assign]
    logger = logging.getLogger("marram.node")
    logger.addHandler(handler)
    try:
        for number, (row, args) in enumerate(calls):
            run(clients[number % 2], [*(word.encode() for word in row.name.split("|")), *args])
    finally:
        logger.removeHandler(handler)
    assert not [record for record in errors if record.levelno >= logging.ERROR]
    for client in clients:
        client.close()
    assert not world.store.lock.locked()
    assert world.store.engine.pinned == -1
    world.node.channels._check()
    if world.store.engine.name == "memory":
        for space in world.store.engine.spaces:
            space._check()
    world.close()


def run(client: Client, args: list[bytes]) -> None:
    if client.closed or client.session.blocked is not None:
        return
    reply: Any = client(*args)
    if client.deferred is not None:
        client.world.advance(50)
        reply = client.deferred.reply if client.deferred.done else None
        if not client.deferred.done:
            client.session.blocked = client.deferred
        client.deferred = None
    encode(reply, client.session.protocol)
    for message in client.messages:
        encode(message, client.session.protocol)
    client.messages.clear()
    assert not isinstance(reply, ErrorReply) or "internal error" not in reply.text
