"""A primary and its replicas as processes of this machine, and what they say of themselves.

Owns starting, stopping and killing them, each by its process id, and asking where each is; not what
is measured (measure_replication.py, failover.py).

S1  a set is ready when every replica streams and has on disk all that its primary has.
S2  nothing waits for ever: a replica that does not come along within CATCH_UP_S is an Error that
    says where it stands.

Threading: the main thread; an Inquiry belongs to whoever made it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from marram.bench.machine import cpu_seconds
from marram.bench.programs import HOST, Marram, Running
from marram.client.connection import Connection
from marram.client.figures import info_sections
from marram.client.refusals import refusal
from marram.client.url import Target
from marram.errors import ConnectionLost, Error
from marram.protocol.frames import FrameReply, FrameReplyParser, Op, Status, encode_request
from marram.protocol.replies import ErrorReply, Reply, Verbatim
from marram.protocol.resp_client import encode_command

CATCH_UP_S: Final = 120.0
_LOOK_S: Final = 0.005
_TIMEOUT_S: Final = 30.0
_RECEIVE_BYTES: Final = 1 << 16


class Level(NamedTuple):
    """An ack level: the options of a primary. acks: replicas; on_disk: what they have to do."""

    acks: int = 0
    on_disk: bool = True

    @property
    def name(self) -> str:
        """As in docs/replication.md."""
        if not self.acks:
            return "local"
        return f"{self.acks} {'on disk' if self.on_disk else 'received'}"

    @property
    def options(self) -> tuple[str, ...]:
        """Of `marram serve`."""
        if not self.acks:
            return ()
        level = "disk" if self.on_disk else "received"
        return ("--min-acks", str(self.acks), "--ack-level", level)


LOCAL: Final = Level()


class Inquiry:
    """A server that is asked by RESP and, for statistics, by frames; one question at a time."""

    def __init__(self, server: Running) -> None:
        """Raises ConnectionLost."""
        self._name = server.place.target.address
        self._resp = Connection(server.place.target, _TIMEOUT_S)
        self._parser = FrameReplyParser()
        try:
            self._frames = socket.create_connection((HOST, server.frame_port), _TIMEOUT_S)
        except OSError as error:
            self._resp.close()
            raise ConnectionLost(f"cannot connect to {self._name}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._resp.close()
        self._frames.close()

    def ask(self, *words: bytes) -> Reply:
        """A command's reply. Raises what an error reply means; ConnectionLost."""
        reply = self._resp.exchange(encode_command(words), 1)[0]
        if isinstance(reply, ErrorReply):
            raise refusal(reply)
        return reply

    def info(self) -> dict[str, Any]:
        """INFO's section about replication."""
        told = self.ask(b"INFO", b"replication")
        text = told.data if isinstance(told, Verbatim) else b""
        return info_sections(text)["replication"]

    def replication(self) -> dict[str, Any]:
        """The statistics about replication, whose lags have more digits than INFO's."""
        replies: list[FrameReply] = []
        try:
            self._frames.sendall(encode_request(Op.STATS))
            while not replies:
                data = self._frames.recv(_RECEIVE_BYTES)
                if not data:
                    raise ConnectionLost(f"{self._name} closed the connection")
                replies += self._parser.feed(data)
        except OSError as error:
            raise ConnectionLost(f"the connection to {self._name} broke: {error}") from error
        if replies[0].status is not Status.OK:
            raise Error(replies[0].message)
        found: dict[str, Any] = json.loads(replies[0].payload)["replication"]
        return found

    def durable(self) -> int:
        """The newest sequence on a replica's disk."""
        return int(self.info()["slave_repl_offset"])

    def committed(self) -> int:
        """The newest sequence that readers see."""
        return int(self.info()["master_repl_offset"])


@dataclass(slots=True)
class Member:
    """A server of a set, and what stops it."""

    running: Running
    directory: Path
    inquiry: Inquiry
    stack: ExitStack

    def stop(self) -> None:
        """End it in good order; idempotent."""
        self.stack.close()

    def kill(self) -> None:
        """Kill it, without a warning."""
        os.kill(self.running.pid, signal.SIGKILL)


@dataclass(slots=True)
class ReplicaSet:
    """A primary and those who follow it."""

    engine: str
    durability: str
    primary: Member
    replicas: list[Member] = field(default_factory=list)

    @property
    def members(self) -> list[Member]:
        """All of them, the primary first."""
        return [self.primary, *self.replicas]

    def follow(self, directory: Path) -> Member:
        """Start a replica on what is in a directory."""
        upstream = f"{HOST}:{self.primary.running.frame_port}"
        options = ("--replica-of", upstream)
        member = _start(self.engine, self.durability, directory, options)
        self.replicas.append(member)
        return member

    def wait_caught_up(self) -> float:
        """Return once every replica has on disk what the primary had when this was called (S1).

        Returns the seconds it took. Raises Error (S2).
        """
        started = time.perf_counter()
        wanted = self.primary.inquiry.committed()
        for member in self.replicas:
            while (info := member.inquiry.info())["slave_repl_offset"] < wanted or info[
                "master_link_status"
            ] != "up":
                if time.perf_counter() - started > CATCH_UP_S:
                    raise Error(
                        f"a replica is at {info['slave_repl_offset']} of {wanted}, its link is "
                        f"{info['link_state']} {info['link_trouble']}"
                    )
                time.sleep(_LOOK_S)
        return time.perf_counter() - started

    def wait_admitted(self, count: int) -> None:
        """Return once the primary counts so many replicas as acknowledging. Raises Error (S2)."""
        started = time.perf_counter()
        while (have := self.primary.inquiry.info()["min_acks_good_replicas"]) < count:
            if time.perf_counter() - started > CATCH_UP_S:
                raise Error(f"{have} of {count} replicas are connected")
            time.sleep(_LOOK_S)

    def cpu_seconds(self) -> list[float]:
        """Processor time of each member so far, the primary first."""
        return [cpu_seconds(member.running.pid) for member in self.members]


@contextmanager
def replica_set(
    scratch: str, engine: str, durability: str, replicas: int, level: Level = LOCAL
) -> Iterator[ReplicaSet]:
    """A context in which a new primary, which asks for a level, and its replicas run (S1)."""
    with ExitStack() as stack:
        place = Path(scratch, "primary")
        primary = _start(engine, durability, place, level.options)
        stack.callback(primary.stop)
        made = ReplicaSet(engine, durability, primary)
        stack.callback(lambda: _stop_all(made.replicas))
        for number in range(replicas):
            made.follow(Path(scratch, f"replica-{number + 1}"))
        made.wait_admitted(replicas)
        if replicas:
            # A replica of an empty primary has nothing; the first write shows that all of it works.
            primary.inquiry.ask(b"SET", b"ready", b"1")
            made.wait_caught_up()
        yield made


def _start(engine: str, durability: str, directory: Path, options: Sequence[str]) -> Member:
    directory.mkdir(exist_ok=True)
    program = Marram(engine, frames=True, options=options)
    with ExitStack() as stack:
        running = stack.enter_context(program.running(str(directory), durability))
        inquiry = stack.enter_context(Inquiry(running))
        return Member(running, directory, inquiry, stack.pop_all())


def _stop_all(members: Sequence[Member]) -> None:
    for member in members:
        member.stop()


def target_of(member: Member) -> Target:
    """Where a member serves clients."""
    return member.running.place.target
