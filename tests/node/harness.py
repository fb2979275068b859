"""A node to talk to without sockets: a loop played by hand, and clients that keep what they get.

    world = World()
    client = world.client()
    client("SET", "k", "v")            # -> OK
    client.messages                    # what was pushed

Words may be str; replies come back as the node gives them. Time moves by world.advance().
"""

from __future__ import annotations

import errno
import heapq
from collections.abc import Callable
from typing import Any

from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.node.deferred import Deferred
from marram.node.node import Node
from marram.node.session import Session
from marram.node.settings import Settings
from marram.protocol.replies import ErrorReply
from marram.storage.options import Options
from marram.storage.store import Store

ENGINES: dict[str, dict[str, Any]] = {
    "memory": {},
    # So small that whatever is written is flushed when World.settle() runs background work.
    "lsm": {"engine": "lsm", "memtable_bytes": 1},
}
"""Options by engine, for tests that run on both."""

defaults: dict[str, Any] = {}
"""What a World's store is told unless its test says otherwise; conftest.py sets it."""

PENDING = object()
"""What a call gives while its reply is still to come."""


class Timer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeLoop:
    """marram.node.loop.Loop over the env's clock."""

    def __init__(self, env: MemoryEnv) -> None:
        self._env = env
        self._soon: list[Callable[[], None]] = []
        self._later: list[tuple[int, int, Timer]] = []
        self._count = 0

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        self._soon.append(callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        self._count += 1
        due = self._env.monotonic_ns() + int(delay_s * 1e9)
        heapq.heappush(self._later, (due, self._count, timer))
        return timer

    def run(self) -> bool:
        """Run what is due; whether anything was."""
        soon, self._soon = self._soon, []
        for callback in soon:
            callback()
        ran = bool(soon)
        while self._later and self._later[0][0] <= self._env.monotonic_ns():
            callback_or_none = heapq.heappop(self._later)[2].callback
            if callback_or_none is not None:
                callback_or_none()
                ran = True
        return ran


class Client:
    """One session and what its shell would see."""

    def __init__(self, world: World, address: str) -> None:
        self.world = world
        self.messages: list[Any] = []  # pushed items, in order
        self.positions: list[int] = []  # what they wait for
        self.closed = False
        self.waits_for = 0
        self.deferred: Deferred | None = None
        self.session: Session = world.node.open_session(
            address, "127.0.0.1:7379", self._push, self._close
        )

    def __call__(self, *words: str | bytes | float) -> Any:
        """Run a command; PENDING where the reply comes later, see result()."""
        self.world.node.begin_turn()
        args = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        reply = self.world.node.execute(self.session, args)
        self.waits_for = self.world.node.waits_for
        if isinstance(reply, Deferred):
            self.deferred = reply
            self.world.settle()
            return reply.reply if reply.done else PENDING
        return reply

    def error(self, *words: str | bytes | float) -> str:
        """Run a command that must fail; its text."""
        reply = self(*words)
        assert isinstance(reply, ErrorReply), reply
        return reply.text

    def result(self) -> Any:
        """The deferred reply, or PENDING."""
        assert self.deferred is not None
        return self.deferred.reply if self.deferred.done else PENDING

    def close(self) -> None:
        """The client leaves."""
        self.world.node.close_session(self.session)

    def _push(self, message: Any, position: int) -> None:
        self.messages.append(message)
        self.positions.append(position)

    def _close(self) -> None:
        self.closed = True


class World:
    """An env, a store, a node, and any number of clients."""

    def __init__(
        self, *, settings: Settings | None = None, machine: MemoryEnv | None = None, **options: Any
    ) -> None:
        self.machine = machine or MemoryEnv()
        self.env = FaultyEnv(self.machine)
        self.store = Store.open("/data", self.env, Options(**{**defaults, **options}))
        self.loop = FakeLoop(self.machine)
        self.settings = settings or Settings()
        self.node = Node(self.store, self.settings, self.env, self.loop)
        self._clients = 0

    def client(self, protocol: int = 2) -> Client:
        self._clients += 1
        client = Client(self, f"127.0.0.1:{50_000 + self._clients}")
        if protocol == 3:
            client("HELLO", "3")
        return client

    def settle(self) -> None:
        """Commit what was written and let background work and due timers run."""
        while True:
            while (group := self.store.take_group()) is not None:
                error: OSError | None = None
                try:
                    group.write()
                except OSError as raised:
                    error = raised
                self.store.complete(group, error)
            if self.store.engine.name == "lsm" and self.store.failure is None:
                self.store.start_checkpoint()
            self.machine.run_background()
            if not self.loop.run():
                return

    def advance(self, ms: int) -> None:
        """Let time pass."""
        self.machine.advance(ms)
        self.node.begin_turn()
        self.settle()

    def fill_disk(self) -> None:
        """Let the log find no more room: batches beyond its 64 KiB are refused from now on."""
        self.env.add(Fault("allocate", error=errno.ENOSPC, times=None))

    def break_disk(self) -> None:
        """Let the next sync fail, and the store with it."""
        self.env.add(Fault("sync_data"))
        self.client()("SET", "lost", "x")
        self.settle()
        assert self.store.failure is not None

    def close(self) -> None:
        self.settle()
        self.store.close()
