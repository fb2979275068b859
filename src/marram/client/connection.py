"""Blocking connections: one of them, and the pool that threads share.

Owns sockets, time limits and the handshake; not what is asked (calls.py), not whether a broken
call may be run again (sync.py).

N1  a connection in which anything went wrong is closed: the next call never reads the reply of an
    earlier one.
N2  a call that has many commands reads replies while it sends: two full buffers cannot lock both
    sides up.
N3  no connection is shared by a parent and a forked child: the child closes its copies and makes
    its own.

Threading: a connection by one thread at a time; a pool by any.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import weakref
from collections.abc import Iterator

from marram import __version__
from marram.client.refusals import refusal
from marram.client.url import Target
from marram.errors import Closed, ConnectionLost, Forked, ProtocolError
from marram.protocol.replies import ErrorReply, Push, Reply
from marram.protocol.resp_client import ReplyParser, encode_command

_SMALL_BYTES = 32 << 10  # a request this small fits the socket's buffer: plain sendall()
_RECEIVE_BYTES = 64 << 10


def handshake(target: Target) -> tuple[bytes, int]:
    """What every connection says first, as bytes, and how many replies that brings.

    The first reply is HELLO's, the last one SELECT's where the target names a keyspace; those
    between are courtesies whose failure does not matter.
    """
    hello = [b"HELLO", b"3"]
    if target.password:
        hello += [b"AUTH", (target.user or "default").encode(), target.password.encode()]
    commands = [
        hello,
        [b"CLIENT", b"SETINFO", b"LIB-NAME", b"marram"],
        [b"CLIENT", b"SETINFO", b"LIB-VER", __version__.encode()],
        [b"SELECT", b"%d" % target.keyspace],
    ]
    return b"".join(map(encode_command, commands)), len(commands)


def check_handshake(replies: list[Reply]) -> None:
    """Raises what the server refused HELLO or SELECT with."""
    for reply in (replies[0], replies[-1]):
        if isinstance(reply, ErrorReply):
            raise refusal(reply)


class Connection:
    """A connection whose server has been greeted."""

    __slots__ = ("__weakref__", "_parser", "_poll", "_socket", "_target", "forks", "timeout_s")

    def __init__(self, target: Target, timeout_s: float | None, forks: int = 0) -> None:
        """Connect and greet. timeout_s: the longest silence to bear, None for any.

        Raises ConnectionLost: nobody answers there; ServerError: the password is wrong.
        """
        self._target = target
        self.timeout_s = timeout_s
        self.forks = forks  # of the pool, when this was made (N3)
        try:
            self._socket = socket.create_connection((target.host, target.port), timeout_s)
        except OSError as error:
            raise ConnectionLost(f"cannot connect to {target.address}: {_reason(error)}") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._parser = ReplyParser()
        greeting, count = handshake(target)
        try:
            check_handshake(self.exchange(greeting, count))
        except BaseException:
            self.close()
            raise

    @property
    def quiet(self) -> bool:
        """Whether nothing has come from the server since the last reply: no data, no end."""
        return not self._poll.poll(0)

    def exchange(self, request: bytes, count: int, *, patient: bool = False) -> list[Reply]:
        """Send a request of `count` commands and return their replies.

        patient: wait as long as it takes. Raises ConnectionLost, ProtocolError; closed then (N1).
        """
        replies: list[Reply] = []
        try:
            self._socket.settimeout(None if patient else self.timeout_s)
            if len(request) <= _SMALL_BYTES:
                self._socket.sendall(request)
            else:
                self._send_and_read(request, replies)
            while len(replies) < count:
                self._read(replies)
        except OSError as error:
            self.close()
            raise ConnectionLost(
                f"the connection to {self._target.address} broke: {_reason(error)}"
            ) from error
        except BaseException:
            self.close()
            raise
        if len(replies) > count:
            self.close()
            raise ProtocolError(f"{self._target.address} sent more replies than commands came")
        return replies

    def listen(self, request: bytes) -> Iterator[Reply]:
        """Send a request and yield everything that comes, pushes too, for as long as it comes.

        Raises ConnectionLost. The connection is of no use for exchange() afterwards.
        """
        try:
            self._socket.settimeout(None)
            self._socket.sendall(request)
            while data := self._socket.recv(_RECEIVE_BYTES):
                yield from self._parser.feed(data)
        except OSError as error:
            raise ConnectionLost(
                f"the connection to {self._target.address} broke: {_reason(error)}"
            ) from error
        raise ConnectionLost(f"{self._target.address} closed the connection")

    def close(self) -> None:
        """Close the socket; idempotent."""
        self._socket.close()

    def _send_and_read(self, request: bytes, replies: list[Reply]) -> None:
        """Keeps N2."""
        left = memoryview(request)
        timeout_s = self._socket.gettimeout()
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | select.POLLOUT)
        while left:
            events = poll.poll(None if timeout_s is None else timeout_s * 1000)
            if not events:
                raise TimeoutError
            if events[0][1] & ~select.POLLOUT:
                self._read(replies)
            else:
                left = left[self._socket.send(left[:_RECEIVE_BYTES]) :]

    def _read(self, replies: list[Reply]) -> None:
        data = self._socket.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError("the server closed it")
        found = self._parser.feed(data)
        if self._parser.error is not None:
            raise self._parser.error
        replies += [reply for reply in found if not isinstance(reply, Push)]


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return error.strerror or str(error)


class Pool:
    """The connections to one server, at most `size` in use at once."""

    def __init__(self, target: Target, timeout_s: float | None, size: int) -> None:
        """Connects when first asked to."""
        self.target = target
        self.timeout_s = timeout_s
        self.size = size
        self.forks = 0
        self._idle: list[Connection] = []  # guarded by _free; the last used is the next used
        self._in_use = 0  # guarded by _free
        self._free = threading.Condition(threading.Lock())
        self._closed = False
        _pools.add(self)

    def take(self, *, quiet: bool, fresh: bool = False) -> tuple[Connection, bool]:
        """A connection for one call, and whether it was used before. give() or drop() it.

        quiet: it must not have been closed by the server since, as far as anyone can know;
        fresh: a new one.
        Raises ConnectionLost: no server, or all are in use for longer than the time limit; Closed.
        """
        with self._free:
            while True:
                self._check()
                if self._in_use < self.size:
                    break
                if not self._free.wait(self.timeout_s):
                    raise ConnectionLost(f"all {self.size} connections are in use")
            self._in_use += 1
            idle = None if fresh else self._pop(quiet)
        if idle is not None:
            return idle, True
        try:
            return Connection(self.target, self.timeout_s, self.forks), False
        except BaseException:
            self._leave()
            raise

    def give(self, connection: Connection) -> None:
        """Take back a connection that is in order."""
        self.adopt(connection)
        self._leave()

    def drop(self, connection: Connection) -> None:
        """Take back a connection that is not in order."""
        connection.close()
        self._leave()

    def lend(self) -> Connection:
        """A connection for as long as its owner likes; it does not count as in use.

        The owner closes it, or gives it to adopt(). Raises ConnectionLost, Closed.
        """
        with self._free:
            self._check()
            idle = self._pop(quiet=True)
        return Connection(self.target, self.timeout_s, self.forks) if idle is None else idle

    def adopt(self, connection: Connection) -> None:
        """Keep a connection that is in order for the next call, unless there are enough."""
        with self._free:
            if self._closed or len(self._idle) >= self.size:
                connection.close()
            else:
                self._idle.append(connection)

    def close(self) -> None:
        """Close the idle ones now, the others when they come back; idempotent."""
        with self._free:
            self._closed = True
            idle, self._idle = self._idle, []
            self._free.notify_all()
        for connection in idle:
            connection.close()

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    def check_owner(self, connection: Connection) -> None:
        """Raises Forked: the connection belongs to the parent process; Closed."""
        if connection.forks != self.forks:
            raise Forked("this belongs to the parent process; begin anew in this one")
        self._check()

    def after_fork(self) -> None:
        """In a forked child: nothing of the parent's is used again (N3)."""
        self.forks += 1
        self._free = threading.Condition(threading.Lock())  # a thread that is gone may hold it
        self._in_use = 0
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _pop(self, quiet: bool) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not quiet or connection.quiet:
                return connection
            connection.close()
        return None

    def _check(self) -> None:
        if self._closed:
            raise Closed("the connection was closed")

    def _leave(self) -> None:
        with self._free:
            # After a fork in the middle of a call, the child's count began anew.
            self._in_use = max(0, self._in_use - 1)
            self._free.notify()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
