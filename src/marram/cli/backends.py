"""Where the shell's commands run: a store in a directory, or a server.

Owns both ways to the same table of commands, so that both answer the same; not what is typed or
shown (session.py).

B1  an answer is returned only once every position it depends on is committed, as a server does it.
B2  a command is sent to a server once; a connection that broke is made anew for the next command.

Threading: the shell's thread. Background work of the embedded node comes back to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from marram.client.connection import Connection
from marram.client.url import Target
from marram.env import posix_env
from marram.env.api import Env
from marram.errors import OutcomeUnknown
from marram.node.deferred import Deferred
from marram.node.node import Node
from marram.node.settings import Settings
from marram.protocol.replies import ErrorReply, Push, Reply
from marram.protocol.resp_client import encode_command
from marram.storage.options import Options
from marram.storage.store import Store

CONNECT_TIMEOUT_S = 10.0
_TICK_S = 0.1


class Backend(Protocol):
    """Runs commands."""

    label: str
    goodbye: str
    on_push: Callable[[Push], None]

    def run(self, args: Sequence[bytes]) -> Reply:
        """Run one command. Raises ConnectionLost, ProtocolError, Closed."""
        ...

    def listen(self, args: Sequence[bytes]) -> Iterator[Reply]:
        """Run a command whose answers keep coming; until it is interrupted."""
        ...

    def selected(self, keyspace: int) -> None:
        """SELECT was answered OK."""
        ...

    def close(self) -> None:
        """Let go of everything; idempotent."""
        ...


# -- a directory -----------------------------------------------------------------------------------


class _Timer:
    """A callback that is due at a time, unless it is cancelled."""

    __slots__ = ("callback", "due_ns", "number")

    def __init__(self, due_ns: int, number: int, callback: Callable[[], None]) -> None:
        self.due_ns = due_ns
        self.number = number
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: _Timer) -> bool:
        return (self.due_ns, self.number) < (other.due_ns, other.number)

    def cancel(self) -> None:
        """Let it not happen."""
        self.callback = None


class _Turns:
    """The node's event loop, which turns only while an answer is waited for."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._soon: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._timers: list[_Timer] = []
        self._count = 0

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        """node.Loop's."""
        self._soon.put(callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> _Timer:
        """node.Loop's."""
        self._count += 1
        due_ns = self._env.monotonic_ns() + int(delay_s * 1e9)
        timer = _Timer(due_ns, self._count, callback)
        heappush(self._timers, timer)
        return timer

    def turn(self, wait_s: float) -> None:
        """Run what is due; wait a while for something where nothing is."""
        now_ns = self._env.monotonic_ns()
        if self._timers:
            wait_s = min(wait_s, max(0.0, (self._timers[0].due_ns - now_ns) / 1e9))
        try:
            callback = self._soon.get(block=wait_s > 0, timeout=wait_s or None)
        except Empty:
            pass
        else:
            callback()
        now_ns = self._env.monotonic_ns()
        while self._timers and self._timers[0].due_ns <= now_ns:
            due = heappop(self._timers).callback
            if due is not None:
                due()


class Embedded:
    """A node of the shell's own over a store in a directory."""

    def __init__(
        self, directory: str, keyspace: int, *, create: bool, engine: str | None = None
    ) -> None:
        """engine: of a store that is made, and what one that is there must have.

        Raises Locked, NotAStore, Corruption, ..., as marram.open() does.
        """
        env = posix_env()
        path = os.path.abspath(directory)
        self.label = os.path.basename(path) or path
        self.goodbye = "Shutting down..."
        self.on_push: Callable[[Push], None] = lambda push: None
        self._store = Store.open(path, env, Options(create=create, engine=engine))
        self._turns = _Turns(env)
        self._node = Node(self._store, Settings(), env, self._turns)
        self._session = self._node.open_session("shell:0", "shell:0", self._push, lambda: None)
        self._pushed: list[tuple[Push, int]] = []
        self._node.select(self._session, keyspace)
        self._session.protocol = 3
        self._session.update()

    def run(self, args: Sequence[bytes]) -> Reply:
        """Run one command, and see to it that it is committed (B1)."""
        self._finish_earlier()
        self._turns.turn(0)
        self._node.tick()
        reply = self._node.execute(self._session, list(args))
        position = self._node.waits_for
        if isinstance(reply, Deferred):
            deferred = reply
            self._wait_for(deferred)
            reply, position = deferred.reply, deferred.waits_for
        pushed, self._pushed = self._pushed, []
        try:
            self._store.wait(max([position, *(at for _, at in pushed)]))
        except OutcomeUnknown as error:
            return ErrorReply(f"OUTCOMEUNKNOWN {error}")
        for push, _ in pushed:
            self.on_push(push)
        return reply

    def listen(self, args: Sequence[bytes]) -> Iterator[Reply]:
        """Nobody else is here to send anything: what the command itself brings is all."""
        yield self.run(args)

    def selected(self, keyspace: int) -> None:
        """The session knows."""

    def close(self) -> None:
        """Close session, node and store."""
        self._node.close_session(self._session)
        self._node.close()
        self._store.close()

    def _push(self, message: Any, position: int) -> None:
        self._pushed.append((message, position))

    def _finish_earlier(self) -> None:
        """A command that was interrupted, such as CHECKPOINT, still has to end."""
        blocked = self._session.blocked
        if blocked is not None:
            self._wait_for(blocked)

    def _wait_for(self, deferred: Deferred) -> None:
        self._store.wait(self._store.last)  # what WAIT waits for is nobody else's to commit
        try:
            while not deferred.done:
                self._turns.turn(_TICK_S)
                self._node.tick()
        except KeyboardInterrupt:
            if deferred.on_cancel is not None:
                deferred.on_cancel(False)
            raise


# -- a server --------------------------------------------------------------------------------------


class Remote:
    """A connection to a server."""

    def __init__(self, target: Target) -> None:
        """Raises ConnectionLost, ServerError."""
        self.label = target.address
        self.goodbye = "Disconnected."
        self.on_push: Callable[[Push], None] = lambda push: None
        self._target = target
        self._connection: Connection | None = None
        self._connect()

    def run(self, args: Sequence[bytes]) -> Reply:
        """Send one command and return its answer (B2)."""
        connection = self._connect()
        try:
            (reply,) = connection.exchange(encode_command(args), 1, patient=True)
        except BaseException:
            self._drop()
            raise
        return reply

    def listen(self, args: Sequence[bytes]) -> Iterator[Reply]:
        """Send a command and yield what comes, until the caller is interrupted."""
        connection = self._connect()
        try:
            yield from connection.listen(encode_command(args))
        finally:
            self._drop()  # it is a subscriber's now

    def selected(self, keyspace: int) -> None:
        """A new connection goes on in the same keyspace."""
        self._target = replace(self._target, keyspace=keyspace)

    def close(self) -> None:
        """Close the connection."""
        self._drop()

    def _connect(self) -> Connection:
        connection = self._connection
        if connection is None or not connection.quiet:
            self._drop()
            connection = self._connection = Connection(self._target, CONNECT_TIMEOUT_S)
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
