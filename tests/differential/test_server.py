"""The whole server answers as Redis 7.0 does, over sockets: both protocols, several connections.

MARRAM_DIFFERENTIAL_COMMANDS and MARRAM_DIFFERENTIAL_SEED ask for more, as in test_redis.py. The lsm
engine runs a tenth of them, with memtables so small that they are flushed all the time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest

from marram.commands.table import lookup
from marram.protocol.replies import Simple
from tests.differential.comparison import alike
from tests.differential.generator import KEYS, KEYSPACES, Command, Generator
from tests.differential.redis_oracle import MISSING, Connection, connect, redis_server
from tests.differential.sessions import SessionGenerator
from tests.e2e.process import ServerProcess

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(MISSING, reason="redis-server is not installed: nothing to compare with"),
]

_COMMANDS = int(os.environ.get("MARRAM_DIFFERENTIAL_COMMANDS", "100000"))
_SEED = int(os.environ.get("MARRAM_DIFFERENTIAL_SEED", "1"))
_BATCH = 400


def without_empty_keys(commands: list[Command]) -> list[Command]:
    """The same, with another key in place of the empty one, which marram refuses by contract."""
    for command in commands:
        row = lookup(command[0])
        if row is not None and row.accepts(len(command)):
            for index in row.key_indexes(command):
                command[index] = command[index] or b"~"
    return commands


# (what the server is told, commands)
ENGINES = {
    "memory": ((), _COMMANDS),
    "lsm": (("--engine", "lsm", "--memtable-bytes", "64kib"), max(_BATCH, _COMMANDS // 10)),
}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def ports(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """Redis's port and marram's."""
    directory = tmp_path_factory.mktemp("differential")
    (directory / "redis").mkdir()
    with (
        redis_server(directory / "redis") as redis,
        ServerProcess(directory / "db", "--durability", "none", *ENGINES[engine][0]) as marram,
    ):
        (_, port) = redis.ask(b"CONFIG", b"GET", b"port")
        yield int(port), marram.ports["resp"]


def fresh(port: int, stack: contextlib.ExitStack, protocol: int) -> Connection:
    connection = stack.enter_context(connect("127.0.0.1", port))
    connection.ask(b"HELLO", b"%d" % protocol)
    return connection


def explain(seed: int, history: list[Command], their: Any, our: Any) -> str:
    lines = [" ".join(map(repr, command)) for command in history[-15:]]
    return "\n".join([f"seed {seed}, command {len(history)}:", *lines, f"{their!r} vs {our!r}"])


@pytest.mark.timeout(60 + _COMMANDS // 500)
@pytest.mark.parametrize("protocol", [2, 3])
def test_data_commands_over_a_socket(ports: tuple[int, int], engine: str, protocol: int) -> None:
    wanted = ENGINES[engine][1]
    seed = _SEED + 100 * protocol
    generator = Generator(seed)
    history: list[Command] = []
    compared = 0
    with contextlib.ExitStack() as stack:
        redis, marram = (fresh(port, stack, protocol) for port in ports)
        for server in (redis, marram):
            server.ask(b"FLUSHALL")
        while compared < wanted:
            commands = without_empty_keys(generator.commands(_BATCH))
            replies = zip(commands, redis.ask_all(commands), marram.ask_all(commands), strict=True)
            for command, their, our in replies:
                history.append(command)
                assert alike(command, their, our), explain(seed, history, their, our)
            compared += len(commands)
            del history[:-200]


@pytest.mark.timeout(60 + _COMMANDS // 300)
@pytest.mark.parametrize("protocol", [2, 3])
def test_transactions_and_sessions_over_sockets(
    ports: tuple[int, int], engine: str, protocol: int
) -> None:
    wanted = ENGINES[engine][1] // 4
    seed = _SEED + 100 * protocol + 7
    generator = SessionGenerator(seed, connections=3)
    history: list[Command] = []
    compared = 0
    queues = Queues()
    with contextlib.ExitStack() as stack:
        servers = [[fresh(port, stack, protocol) for _ in range(3)] for port in ports]
        for connections in servers:
            connections[0].ask(b"FLUSHALL")
        while compared < wanted:
            number, commands = generator.turn()
            without_empty_keys(commands)
            theirs = servers[0][number].ask_all(commands)
            ours = servers[1][number].ask_all(commands)
            for command, their, our in zip(commands, theirs, ours, strict=True):
                history.append([b"(%d)" % number, *command])
                assert queues.alike(number, command, their, our), explain(seed, history, their, our)
                compared += 1
            del history[:-200]
        for keyspace in range(KEYSPACES):
            questions: list[Command] = [[b"RESET"], [b"HELLO", b"2"], [b"SELECT", b"%d" % keyspace]]
            questions += [[b"GET", key or b"~"] for key in KEYS]
            their_state = servers[0][0].ask_all(questions)[2:]
            assert servers[1][0].ask_all(questions)[2:] == their_state


class Queues:
    """Compares replies of several connections; an EXEC's one by one, each by its command."""

    def __init__(self) -> None:
        self._queued: dict[int, list[Command]] = {}

    def alike(self, connection: int, command: Command, theirs: Any, ours: Any) -> bool:
        """Whether the two servers answered the same."""
        if isinstance(theirs, Simple) and theirs.text == "QUEUED":
            self._queued.setdefault(connection, []).append(command)
        if command[0].upper() in (b"EXEC", b"DISCARD", b"RESET"):
            queued = self._queued.pop(connection, [])
            if isinstance(theirs, list) and isinstance(ours, list):
                return len(queued) == len(theirs) == len(ours) and all(
                    map(alike, queued, theirs, ours)
                )
        return alike(command, theirs, ours)
