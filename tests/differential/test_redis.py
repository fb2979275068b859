"""marram's data commands answer as Redis 7.0 does.

The generator's sequences run against redis-server over a socket and against the handlers in this
process; every reply and, now and then, the whole state is compared. MARRAM_DIFFERENTIAL_COMMANDS
and MARRAM_DIFFERENTIAL_SEED in the environment ask for more than the suite has time for.
docs/protocols/deviations.md lists what differs on purpose; the generator leaves that out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from marram.commands.table import TABLE
from marram.protocol.replies import ErrorReply
from tests.differential.comparison import alike
from tests.differential.generator import KEYS, KEYSPACES, Command, Generator
from tests.differential.inprocess import InProcess, InProcessOnLsm
from tests.differential.redis_oracle import MISSING, Connection, redis_server

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(MISSING, reason="redis-server is not installed: nothing to compare with"),
]

OWN = {b"scanrange", b"cas", b"commitif", b"delex"}
HERE = {b"scan", b"object"}  # control rows that belong to the data commands

_COMMANDS = int(os.environ.get("MARRAM_DIFFERENTIAL_COMMANDS", "20000"))
_SEED = int(os.environ.get("MARRAM_DIFFERENTIAL_SEED", "1"))
_BATCH = 400
_SHOWN = 12


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    directory: Path = tmp_path_factory.mktemp("redis")
    with redis_server(directory) as connection:
        yield connection


@pytest.mark.timeout(60 + _COMMANDS // 500)
@pytest.mark.parametrize(
    ("marram_of", "wanted"), [(InProcess, _COMMANDS), (InProcessOnLsm, _COMMANDS // 2)]
)
def test_random_sequences_are_answered_alike(
    redis: Connection, marram_of: type[InProcess], wanted: int
) -> None:
    redis.ask(b"RESET")
    redis.ask(b"FLUSHALL")
    generator = Generator(_SEED)
    marram = marram_of(time.time_ns() // 1_000_000)
    history: list[Command] = []
    while len(history) < wanted:
        commands = generator.commands(_BATCH)
        theirs = redis.ask_all(commands)
        marram.now_ms = time.time_ns() // 1_000_000
        for command, their in zip(commands, theirs, strict=True):
            our = marram.ask(*command)
            history.append(command)
            assert alike(command, their, our), _difference(history, their, our)
        _assert_same_state(redis, marram, history)


def _difference(history: list[Command], their: object, our: object) -> str:
    """The failing command, and what was done before to the keys it names."""
    last = history[-1]
    related = [c for c in history[-3000:] if set(c[1:]) & set(last[1:]) & set(KEYS)]
    lines = [" ".join(map(repr, command)) for command in related[-_SHOWN:]]
    number = len(history)
    return "\n".join([f"seed {_SEED}, command {number}:", *lines, f"{their!r} vs {our!r}"])


def _assert_same_state(redis: Connection, marram: InProcess, history: list[Command]) -> None:
    """Every key, value and deadline, in all keyspaces."""
    home = marram.keyspace
    for keyspace in range(KEYSPACES):
        select = [b"SELECT", b"%d" % keyspace]
        questions: list[Command] = [select, [b"EXISTS", *KEYS], [b"DBSIZE"], [b"KEYS", b"*"]]
        for key in KEYS:
            questions += [[b"GET", key], [b"PTTL", key], [b"PEXPIRETIME", key]]
        for question, their in zip(questions, redis.ask_all(questions), strict=True):
            our = marram.ask(*question)
            assert alike(question, their, our), _difference([*history, question], their, our)
    for server in (redis, marram):
        server.ask(b"SELECT", b"%d" % home)
    marram.check()


def test_rows_agree_with_command_info(redis: Connection) -> None:
    """Arity, flags and key positions of each command that Redis has too."""
    rows = {name: row for name, row in TABLE.items() if not row.control or name in HERE}
    for name in sorted(set(rows) - OWN):
        row = rows[name]
        (info,) = redis.ask(b"COMMAND", b"INFO", name)
        assert info is not None, name
        their_flags = {getattr(flag, "text", flag) for flag in info[2]}
        assert (row.arity, *row.keys) == (info[1], *info[3:6]), name
        assert row.flags == their_flags, name
        for sub in row.subcommands:
            (theirs,) = [s for s in info[9] if s[0].decode() == sub.name]
            assert (sub.arity, *sub.keys) == (theirs[1], *theirs[3:6]), sub.name
            assert sub.flags == {getattr(flag, "text", flag) for flag in theirs[2]}, sub.name


def test_documentation_agrees_on_group_and_version(redis: Connection) -> None:
    rows = {name: row for name, row in TABLE.items() if not row.control or name in HERE}
    for name in sorted(set(rows) - OWN):
        reply = redis.ask(b"COMMAND", b"DOCS", name)
        assert not isinstance(reply, ErrorReply)
        docs = dict(zip(reply[1][::2], reply[1][1::2], strict=True))
        assert rows[name].group.encode() == docs[b"group"], name
        assert rows[name].since.encode() == docs[b"since"], name


def test_generator_is_deterministic() -> None:
    assert Generator(7).commands(500) == Generator(7).commands(500)
    assert Generator(7).commands(500) != Generator(8).commands(500)
