"""A primary and its replicas as real processes, every link through a relay that can misbehave."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.e2e.process import Replies, ServerProcess, command
from tests.e2e.relay import Relay

DEADLINE_S = 60.0
"""How long anything may take before a test fails; the longest wait for a new try is 10 s."""
_PAGE = 1000


class Row(NamedTuple):
    """A key's value and its deadline, ms since 1970; -1 without one."""

    value: bytes
    deadline_ms: int


Content = dict[tuple[int, bytes], Row]


class Cluster:
    """Servers by name, one of them the primary. Ends everything it started."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._directory = directory
        self._arguments = arguments
        self._relays: dict[tuple[str, str], Relay] = {}
        self.servers: dict[str, ServerProcess] = {}
        self.primary = ""

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *about: object) -> None:
        for server in self.servers.values():
            server.__exit__(None, None, None)
        for relay in self._relays.values():
            relay.close()

    # -- who is there ------------------------------------------------------------------------------

    @property
    def replicas(self) -> list[str]:
        """All names but the primary's."""
        return [name for name in self.servers if name != self.primary]

    def start(self, name: str, of: str = "", *arguments: str, **popen: object) -> ServerProcess:
        """Start a server, or start it again. of: whose replica; "": what its directory says."""
        extra = ("--replica-of", self.address(name, of)) if of else ()
        server = ServerProcess(
            self._directory / name, *self._arguments, *extra, *arguments, **popen
        )
        self.servers[name] = server.start()
        for (_, upstream), relay in self._relays.items():
            if upstream == name:
                relay.target = server.ports["frame"]
        if not self.primary:
            self.primary = name
        return server

    def relay(self, replica: str, upstream: str) -> Relay:
        """The link between two."""
        key = (replica, upstream)
        if key not in self._relays:
            self._relays[key] = Relay(self.servers[upstream].ports["frame"])
        return self._relays[key]

    def address(self, replica: str, upstream: str) -> str:
        """Where a replica finds an upstream: at the relay between them."""
        return f"127.0.0.1:{self.relay(replica, upstream).port}"

    @contextlib.contextmanager
    def held(self, upstream: str) -> Iterator[None]:
        """A context in which nothing passes between a server and its replicas."""
        links = [link for (_, above), link in self._relays.items() if above == upstream]
        for link in links:
            link.hold()
        try:
            yield
        finally:
            for link in links:
                link.heal()

    def fail_over(self, lost: str) -> str:
        """Promote the replica that has most, have the others follow it; docs/replication.md."""
        left = [name for name in self.servers if name != lost]
        best = max(left, key=lambda name: mark(self.servers[name]))
        assert self.ask(best, b"REPLICAOF", b"NO", b"ONE") == b"OK"
        for name in left:
            if name != best:
                host, port = self.address(name, best).split(":")
                assert self.ask(name, b"REPLICAOF", host.encode(), port.encode()) == b"OK"
        self.primary = best
        return best

    # -- asking ------------------------------------------------------------------------------------

    def ask(self, name: str, *words: bytes) -> Any:
        """One command on a connection of its own."""
        return ask(self.servers[name], *words)

    def info(self, name: str) -> dict[str, str]:
        """INFO replication."""
        return info(self.servers[name])

    def converged(self) -> Content:
        """Wait until all hold the same, to the byte, and return what that is."""
        names = list(self.servers)
        for name in names:
            until(lambda name=name: not self.info(name)["reads_refused"], f"{name} to be readable")
        for _ in until_deadline():
            epoch, sequence = self.ask(self.primary, b"POSITION")
            for name in self.replicas:
                reply = self.ask(name, b"WAITPOS", b"%d-%d" % (epoch, sequence), b"60000")
                assert reply == 1, (name, reply, self.info(name))
            before = {mark(self.servers[name]) for name in names}
            if len(before) > 1:
                continue  # something expired meanwhile, or a sync is under way
            found = {name: content(self.servers[name]) for name in names}
            if {mark(self.servers[name]) for name in names} != before:
                continue
            # What is past its deadline a compaction may have taken away here and not there.
            seconds, microseconds = self.ask(self.primary, b"TIME")
            now_ms = int(seconds) * 1000 + int(microseconds) // 1000 + 1
            expected = living(found[self.primary], now_ms)
            for name in self.replicas:
                other = living(found[name], now_ms)
                assert other == expected, f"{name}: {differences(other, expected)}"
            return expected
        raise AssertionError({name: self.info(name) for name in names})


def ask(server: ServerProcess, *words: bytes) -> Any:
    """One command on a connection of its own."""
    with server.connect() as connection:
        connection.settimeout(DEADLINE_S + 10)
        connection.sendall(command(*words))
        return Replies(connection).read()


def info(server: ServerProcess) -> dict[str, str]:
    """INFO replication."""
    text = ask(server, b"INFO", b"replication").decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def mark(server: ServerProcess) -> tuple[int, int, str]:
    """What a server has on disk: epoch, position, checksum of its history."""
    epoch, sequence, chain = info(server)["history_mark"].split("-")
    return int(epoch), int(sequence), chain


def until_deadline() -> Iterator[None]:
    """Goes on for DEADLINE_S."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        yield


def until(found: Callable[[], Any], what: str) -> Any:
    """What found() gives once it is true; each question is a round trip."""
    for _ in until_deadline():
        with contextlib.suppress(ConnectionError):
            value = found()
            if value:
                return value
    raise AssertionError(f"waited in vain for {what}")


def content(server: ServerProcess, keyspaces: int = 2) -> Content:
    """All rows of the first keyspaces."""
    rows: Content = {}
    with server.connect() as connection:
        replies = Replies(connection)

        def asked(*words: bytes) -> Any:
            connection.sendall(command(*words))
            return replies.read()

        for keyspace in range(keyspaces):
            assert asked(b"SELECT", b"%d" % keyspace) == b"OK"
            cursor = b"0"
            while True:
                cursor, keys = asked(b"SCAN", cursor, b"COUNT", b"%d" % _PAGE)
                if keys:
                    connection.sendall(
                        command(b"MGET", *keys)
                        + b"".join(command(b"PEXPIRETIME", key) for key in keys)
                    )
                    values: Any = replies.read()
                    for key, value in zip(keys, values, strict=True):
                        rows[keyspace, key] = Row(value, int(str(replies.read())))
                if cursor == b"0":
                    break
    return rows


def living(rows: Content, now_ms: int) -> Content:
    """Those that are not past their deadlines."""
    return {key: row for key, row in rows.items() if not 0 <= row.deadline_ms <= now_ms}


def differences(one: Content, other: Content) -> str:
    """The first few."""
    keys = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
    shown = [(key, one.get(key), other.get(key)) for key in sorted(keys)[:5]]
    return f"{len(keys)} keys differ: {shown}"
