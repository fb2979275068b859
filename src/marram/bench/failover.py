"""A primary killed under load, and a replica in its place: how long, and what was lost.

Owns the writers, who know which of their writes were acknowledged, and the steps of a failover by
the book (docs/replication.md); not the servers (replica_set.py).

K1  every writer writes keys of its own, one after the other, none twice: an acknowledged write that
    the new primary lacks is lost, whatever else there is.
K2  a reply that the kernel had before the kill counts as an acknowledgement.
K3  the time counts from the kill. The writers notice it at once, by their connections; what
    watching for a dead primary takes elsewhere comes on top.

Threading: the main thread; an event loop while the writers write.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

from marram.bench.generator import loop_factory
from marram.bench.programs import HOST
from marram.bench.replica_set import CATCH_UP_S, Level, Member, ReplicaSet, target_of
from marram.bench.wire_resp import RespReplies, RespWire
from marram.errors import Error, NoReplicas, ReadOnly

_ASKED: Final = 1000  # keys in one EXISTS
_RETRY_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class Failover:
    """One of them. Milliseconds since the kill.

    noticed_ms: every connection of the dead primary is gone. promoted_ms: the best replica said OK.
    written_ms: the new primary acknowledged a write. leveled_ms: it acknowledged one that as many
    replicas as are left of the level have on disk; None where none are left or none are asked for.
    acknowledged, lost: writes.
    """

    noticed_ms: float
    promoted_ms: float
    written_ms: float
    leveled_ms: float | None
    acknowledged: int
    lost: int


def fail_over(
    servers: ReplicaSet, level: Level, clients: int, size: int, seconds: float
) -> Failover:
    """Load the primary for so long, kill it, promote the best replica. Raises Error."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        killed, acknowledged = runner.run(_load_and_kill(servers, clients, size, seconds))
    noticed = time.perf_counter()
    best, others = _best(servers.replicas)
    best.inquiry.ask(b"REPLICAOF", b"NO", b"ONE")
    promoted = time.perf_counter()
    _write(best, killed)
    written = time.perf_counter()
    for member in others:
        port = b"%d" % best.running.frame_port
        member.inquiry.ask(b"REPLICAOF", HOST.encode(), port)
    leveled: float | None = None
    if reachable := min(level.acks, len(others)):
        _write(best, killed, reachable)
        leveled = 1e3 * (time.perf_counter() - killed)
    return Failover(
        1e3 * (noticed - killed), 1e3 * (promoted - killed), 1e3 * (written - killed), leveled,
        sum(acknowledged), sum(acknowledged) - _found(best, acknowledged),
    )  # fmt: skip


def _best(replicas: Sequence[Member]) -> tuple[Member, list[Member]]:
    """The replica with the newest position, once all know that their primary is gone; the others.

    All followed one primary until now, so their epochs are equal.
    """
    started = time.perf_counter()
    for member in replicas:
        while member.inquiry.info()["master_link_status"] == "up":
            if time.perf_counter() - started > CATCH_UP_S:
                raise Error("a replica does not notice that its primary was killed")
            time.sleep(_RETRY_S)
    positions = [member.inquiry.durable() for member in replicas]
    best = replicas[positions.index(max(positions))]
    return best, [member for member in replicas if member is not best]


def _write(primary: Member, killed: float, acks: int = 0) -> None:
    """A write that is acknowledged, at a level. Raises Error: not within CATCH_UP_S."""
    while True:
        try:
            if acks:
                primary.inquiry.ask(b"ACKS", b"%d" % acks)
            primary.inquiry.ask(b"SET", b"after", b"1")
        except (NoReplicas, ReadOnly):
            if time.perf_counter() - killed > CATCH_UP_S:
                raise
            time.sleep(_RETRY_S)
        else:
            return


def _found(primary: Member, acknowledged: Sequence[int]) -> int:
    """How many of the acknowledged writes are there."""
    found = 0
    for writer, count in enumerate(acknowledged):
        for at in range(0, count, _ASKED):
            keys = [key_of(writer, number) for number in range(at, min(at + _ASKED, count))]
            found += cast(int, primary.inquiry.ask(b"EXISTS", *keys))
    return found


# -- writers ---------------------------------------------------------------------------------------


def key_of(writer: int, number: int) -> bytes:
    """A key that is written once (K1)."""
    return b"w%d:%d" % (writer, number)


class _Writer(asyncio.Protocol):
    """Writes one key after the other, as fast as they are acknowledged."""

    def __init__(self, name: int, wire: RespWire, value: bytes) -> None:
        self.acknowledged = 0
        self.replies = RespReplies()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = self._keys(name, wire, value)
        self._transport: asyncio.Transport | None = None

    @staticmethod
    def _keys(name: int, wire: RespWire, value: bytes) -> Iterator[bytes]:
        number = 0
        while True:
            yield wire.put(key_of(name, number), value)
            number += 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, as uvloop's transports are no subclass.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        replies, before = self.replies, self.replies.errors
        count = replies.feed(data)
        if replies.errors > before:
            self.abort()  # the run is no good; _load_and_kill() says why
        elif count:
            self.acknowledged += count
            assert self._transport is not None
            self._transport.write(next(self._requests))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.gone.done():
            self.gone.set_result(None)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def _load_and_kill(
    servers: ReplicaSet, clients: int, size: int, seconds: float
) -> tuple[float, list[int]]:
    """(when it was killed, how many writes each writer knows to be acknowledged)."""
    loop = asyncio.get_running_loop()
    target = target_of(servers.primary)
    wire, value, writers = RespWire(target), b"x" * size, []
    try:
        for name in range(clients):
            _, writer = await loop.create_connection(
                lambda name=name: _Writer(name, wire, value),  # type: ignore[misc]
                target.host, target.port,
            )  # fmt: skip
            writers.append(writer)
        ended = asyncio.gather(*(writer.gone for writer in writers))
        done, _ = await asyncio.wait([ended], timeout=seconds)
        refused = next((one.replies.last_error for one in writers if one.replies.errors), "")
        if done or refused:
            raise Error(f"the primary refused the load: {refused or 'it closed the connections'}")
        killed = time.perf_counter()
        servers.primary.kill()
        async with asyncio.timeout(CATCH_UP_S):
            await ended
    finally:
        for writer in writers:
            writer.abort()
    return killed, [writer.acknowledged for writer in writers]
