"""Replication over sockets: the connections of replicas, and the one to the upstream.

Owns sockets and their ends; what goes over them is the node's (marram.node.replication).

L1  a replica's connection begins as one of the framed protocol's: op 3 makes it a link. It is then
    no client's any more, and no client's limits are for it.
L2  a link that closes sends what it has, and is cut off after CLOSE_GRACE_S.
L3  what waits to be sent is bounded by the link's window, and what comes in by the reader's.

Threading: the event loop's.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Final, cast

from marram.commands.spec import CommandError
from marram.node.node import Node
from marram.node.replication.downlink import Downlink
from marram.node.replication.uplink import Uplink
from marram.protocol.frames import encode_error
from marram.replication.codec import decode_hello
from marram.server.commit import Committer

_logger = logging.getLogger("marram.server")

CONNECT_TIMEOUT_S: Final = 10.0
CLOSE_GRACE_S: Final = 5.0
_KEEPALIVE_S: Final = 60


class _Link(asyncio.Protocol):
    """What both ends have in common: a node.replication.wire.Wire over a transport."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._grace: asyncio.TimerHandle | None = None
        self._is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's."""
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's."""
        self._is_over = True
        if self._grace is not None:
            self._grace.cancel()

    def write(self, data: bytes) -> None:
        """Wire's."""
        if not self._is_over and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Wire's (L2)."""
        if not self._is_over:
            self._is_over = True
            self._transport.close()
            self._grace = self._loop.call_later(CLOSE_GRACE_S, self._transport.abort)

    def pause(self) -> None:
        """Wire's."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Wire's."""
        if not self._transport.is_closing():
            self._transport.resume_reading()


class ReplicaLink(_Link):
    """The connection of a replica, from the moment it asked to be one (L1)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, node: Node) -> None:
        super().__init__(loop)
        self._node = node
        self._link: Downlink | None = None

    def begin(self, transport: asyncio.Transport, value: bytes, peer: str) -> None:
        """Take a connection over. value: of its request, which nothing came behind."""
        transport.set_protocol(self)
        self.connection_made(transport)
        if not transport.is_reading():
            transport.resume_reading()
        try:
            self._link = self._node.replication.accept(value, self, peer)
        except CommandError as error:
            self.write(encode_error(str(error)))
            self.close()
            return
        self._link.hello(decode_hello(value))

    def data_received(self, data: bytes) -> None:
        """asyncio's."""
        if self._link is not None and not self._is_over:
            self._link.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's."""
        super().connection_lost(exc)
        if self._link is not None:
            self._link.lost()


class UpstreamLink(_Link):
    """The connection to the upstream. link: which of the uplink's links it is."""

    def __init__(self, loop: asyncio.AbstractEventLoop, uplink: Uplink, link: int) -> None:
        super().__init__(loop)
        self._uplink = uplink
        self._link = link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's."""
        super().connection_made(transport)
        if not self._uplink.connected(self._link, self):
            self.close()

    def data_received(self, data: bytes) -> None:
        """asyncio's."""
        self._uplink.received(self._link, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's."""
        super().connection_lost(exc)
        why = "the connection was closed" if exc is None else f"the connection broke: {exc}"
        self._uplink.lost(self._link, why)


class LinkShell:
    """node.replication.role.Shell over an event loop."""

    def __init__(self, committer: Committer, loop: asyncio.AbstractEventLoop) -> None:
        self._committer = committer
        self._loop = loop
        self._dialling: set[asyncio.Task[None]] = set()

    def connect(self, host: str, port: int, uplink: Uplink) -> None:
        """Shell's."""
        task = self._loop.create_task(self._dial(host, port, uplink, uplink.link))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    async def _dial(self, host: str, port: int, uplink: Uplink, link: int) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._loop.create_connection(
                    lambda: UpstreamLink(self._loop, uplink, link), host, port
                )
        except TimeoutError:
            uplink.lost(link, f"cannot connect to {uplink.upstream}: no answer in time")
        except OSError as error:
            why = error.strerror or str(error)
            uplink.lost(link, f"cannot connect to {uplink.upstream}: {why}")

    def appended(self) -> None:
        """Shell's."""
        self._committer.note_stream()
        self._committer.wake()

    def committed(self) -> None:
        """Shell's."""
        self._committer.advance()

    def give_up(self, first: int, last: int) -> None:
        """Shell's."""
        self._committer.give_up(first, last)

    def close(self) -> None:
        """Give up connecting."""
        for task in self._dialling:
            task.cancel()
