"""Random turns of several connections: data commands, transactions, watches, sessions.

Owns the generator; it knows no server. A turn is (connection, commands): the commands go out in
one piece, and the replies are awaited before the next turn. Deterministic from its seed.
"""

from __future__ import annotations

import random

from tests.differential.generator import KEYS, Command, Generator

Turn = tuple[int, list[Command]]

_CONNECTION: list[Command] = [
    [b"PING"],
    [b"PING", b"hello"],
    [b"PING", b"a", b"b"],
    [b"ECHO", b"x"],
    [b"ECHO"],
    [b"CLIENT", b"GETNAME"],
    [b"CLIENT", b"SETNAME", b"someone"],
    [b"CLIENT", b"SETNAME", b"with space"],
    [b"CLIENT", b"NOSUCH"],
    [b"CLIENT"],
    [b"SELECT", b"1"],
    [b"SELECT", b"0"],
    [b"SELECT", b"99"],
    [b"SELECT", b"x"],
    [b"NOSUCH", b"with", b"args\r\n"],
    [b"COMMAND", b"COUNT", b"extra"],
    [b"COMMAND", b"GETKEYS", b"MSET", b"a", b"1", b"b", b"2"],
    [b"CONFIG", b"GET", b"nosuchparameter"],
    [b"CONFIG", b"SET", b"nosuchparameter", b"1"],
    [b"CONFIG", b"GET"],
    [b"WAIT", b"0", b"0"],
    [b"WAIT", b"x", b"0"],
    [b"PUBLISH", b"nobody", b"listens"],
    [b"PUBSUB", b"CHANNELS"],
    [b"PUBSUB", b"NUMPAT"],
    [b"PUBSUB", b"NUMSUB", b"a", b"b"],
    [b"ACL", b"WHOAMI"],
    [b"LATENCY", b"RESET"],
    [b"SLOWLOG", b"NOSUCH"],
    [b"RESET"],
]


# What docs/protocols/deviations.md lists is left out: HELLO and AUTH inside MULTI, HELP texts, the
# arity of COMMAND GETKEYS, BITFIELD with OVERFLOW FAIL under WATCH.


def _without_fail(word: bytes) -> bytes:
    return b"SAT" if word.upper() == b"FAIL" else word


class SessionGenerator:
    """Turns for `connections` connections to one server."""

    def __init__(self, seed: int, connections: int) -> None:
        self._random = random.Random(seed)
        self._generator = Generator(seed)
        self._connections = connections

    def turn(self) -> Turn:
        """The next one."""
        rng = self._random
        connection = rng.randrange(self._connections)
        kind = rng.choices(
            ["data", "multi", "watch", "odd", "connection", "exec"], [50, 20, 10, 6, 10, 4]
        )[0]
        commands = getattr(self, f"_{kind}")()
        return connection, commands

    def _data_commands(self, most: int) -> list[Command]:
        commands = self._generator.commands(self._random.randrange(1, most + 1))
        return [list(map(_without_fail, c)) if c[0].upper() == b"BITFIELD" else c for c in commands]

    def _data(self) -> list[Command]:
        return self._data_commands(8)

    def _multi(self) -> list[Command]:
        end = self._random.choice([[b"EXEC"], [b"EXEC"], [b"EXEC"], [b"DISCARD"]])
        return [[b"MULTI"], *self._data_commands(6), end]

    def _watch(self) -> list[Command]:
        keys = self._random.sample(KEYS, self._random.randrange(1, 3))
        unwatch: list[Command] = [[b"UNWATCH"]] if self._random.random() < 0.1 else []
        return [[b"WATCH", *keys], *unwatch]

    def _exec(self) -> list[Command]:
        return [[self._random.choice([b"EXEC", b"DISCARD", b"UNWATCH", b"MULTI"])]]

    def _odd(self) -> list[Command]:
        """Transactions with mistakes in them."""
        mistakes: list[Command] = [
            [b"GET"],
            [b"NOSUCH"],
            [b"MULTI"],
            [b"WATCH", b"a"],
            [b"SELECT", b"2"],
            [b"SET", b"k", b"v", b"EX", b"0"],
            [b"INCR", KEYS[0]],
        ]
        chosen = self._random.sample(mistakes, 2)
        return [[b"MULTI"], *self._data_commands(2), *chosen, [b"EXEC"], [b"SELECT", b"0"]]

    def _connection(self) -> list[Command]:
        return [self._random.choice(_CONNECTION)]
