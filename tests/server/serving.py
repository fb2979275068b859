"""A real server in a thread, and plain sockets to talk to it with.

Nothing here waits for luck: reads have a deadline, and fence() proves that the server has handled
what was sent before.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from marram.env import Env, File, posix_env
from marram.protocol.resp_client import ReplyParser
from marram.server.app import Server, _loop_factory
from marram.server.config import OFF, ServerConfig

T = TypeVar("T")

DEADLINE_S = 20.0
"""How long anything may take before a test fails; far beyond what it does take."""


def config_for(directory: Path, **options: Any) -> ServerConfig:
    """A configuration for tests: free ports on loopback, only RESP unless asked for more."""
    values = {"resp_port": 0, "http_port": OFF, "frame_port": OFF, **options}
    return ServerConfig(dir=str(directory / "data"), **values)


class Running:
    """A server that runs in its own thread."""

    def __init__(self, config: ServerConfig, env: Env | None = None) -> None:
        self._config = config
        self._env = env
        self._up = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop
        self.server: Server
        self._thread = threading.Thread(target=self._run, name="server under test")

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._up.wait(DEADLINE_S)
        if self._failure is not None:
            self._thread.join(DEADLINE_S)
            raise self._failure
        return self

    def __exit__(self, *about: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop it as SIGTERM would, and wait for the end."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self.server.request_stop)
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the server did not stop"

    def call(self, work: Callable[[Server], T]) -> T:
        """Run `work` on the server's thread."""

        async def there() -> T:
            return work(self.server)

        return asyncio.run_coroutine_threadsafe(there(), self._loop).result(DEADLINE_S)

    def tick(self, seconds: int) -> None:
        """Let the connections believe that so many seconds passed."""

        def advance(server: Server) -> None:
            for _ in range(seconds):
                for connection in list(server.clients.connections):
                    connection.tick()

        self.call(advance)

    def address(self, name: str = "resp") -> tuple[str, int]:
        """Where a listener is."""
        host, _, port = self.server.addresses[name].rpartition(":")
        return host, int(port)

    def connect(self, name: str = "resp") -> Client:
        """A new connection to a listener."""
        return Client(self.address(name))

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=_loop_factory(self._config.loop)) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            self.server = Server(self._config, self._env)
            await self.server.start()
        except BaseException as error:
            self._failure = error
            return
        finally:
            self._up.set()
        await self.server.wait_stopped()
        await self.server.stop()


@contextlib.contextmanager
def serving(directory: Path, env: Env | None = None, **options: Any) -> Iterator[Running]:
    """A running server with these options, stopped at the end."""
    with Running(config_for(directory, **options), env) as running:
        yield running


class Client:
    """One connection, blocking, with a deadline on everything."""

    def __init__(self, address: tuple[str, int], small_buffers: bool = False) -> None:
        self.socket = socket.socket()
        if small_buffers:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(address)
        # What was sent has arrived (on loopback): fences rely on it.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._replies = ReplyParser()
        self._ready: list[Any] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *about: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self.socket.sendall(data)

    def command(self, *args: bytes) -> None:
        """One command, without waiting for its reply."""
        self.send(wire(*args))

    def ask(self, *args: bytes) -> Any:
        """One command and its reply."""
        self.command(*args)
        return self.reply()

    def reply(self) -> Any:
        """The next RESP reply."""
        while not self._ready:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("closed by the server")
            self._ready += self._replies.feed(data)
        return self._ready.pop(0)

    def replies(self, count: int) -> list[Any]:
        """The next so many RESP replies."""
        return [self.reply() for _ in range(count)]

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise ConnectionError(f"closed by the server after {data!r}")
            data += piece
        return data

    def rest(self) -> bytes:
        """All bytes until the server closes."""
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while piece := self.socket.recv(65536):
                parts.append(piece)
        return b"".join(parts)

    def nothing_came(self) -> bool:
        """Whether no byte has arrived but what was read; call fence() before."""
        if self._ready:
            return False
        self.socket.setblocking(False)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            self.socket.settimeout(DEADLINE_S)


def wire(*args: bytes) -> bytes:
    """A command's bytes."""
    head = b"*%d\r\n" % len(args)
    return head + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)


class GatedEnv:
    """The machine, but log syncs wait while the gate is closed."""

    def __init__(self) -> None:
        self._inner = posix_env()
        self._changed = threading.Condition()
        self._open = True
        self._passes = 0
        self.waiting = threading.Semaphore(0)  # released by each sync that finds the gate closed

    def close_gate(self) -> None:
        """From now on log syncs wait."""
        self._open = False

    def open_gate(self) -> None:
        """Let them go on."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def pass_one(self) -> None:
        """Let one of them go on."""
        with self._changed:
            self._passes += 1
            self._changed.notify_all()

    def open(self, path: str, **how: bool) -> File:
        file = self._inner.open(path, **how)
        return _GatedFile(file, self) if "logfile" in path else file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _wait(self) -> None:
        if self._open:
            return
        self.waiting.release()
        with self._changed:
            assert self._changed.wait_for(lambda: self._open or self._passes, DEADLINE_S)
            if not self._open:
                self._passes -= 1


class _GatedFile:
    def __init__(self, inner: File, env: GatedEnv) -> None:
        self._inner = inner
        self._env = env

    def sync_data(self) -> None:
        self._env._wait()
        self._inner.sync_data()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
