"""A real server process for tests: start it, read its ready line, stop or kill it.

Also usable for other programs whose first line of output says that they are ready.
"""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
from types import TracebackType
from typing import Self

READY_TIMEOUT_S = 30


class ServerProcess:
    """`marram serve` on free loopback ports."""

    def __init__(self, directory: pathlib.Path | str, *arguments: str, **popen: object) -> None:
        self.directory = str(directory)
        self.arguments = arguments
        self.popen_options = popen
        self.ports: dict[str, int] = {}
        self.ready_line = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        """Start it and wait until it accepts."""
        command = [
            sys.executable, "-m", "marram.cli.main", "serve", "--dir", self.directory,
            "--resp-port", "0", "--http-port", "0", "--frame-port", "0", *self.arguments,
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            # Without the variables that steer the tests: to the server they would be options.
            env={name: text for name, text in os.environ.items() if "MARRAM_" not in name},
            **self.popen_options,  # type: ignore[call-overload]
        )
        assert self._process.stdout is not None
        self.ready_line = self._process.stdout.readline()
        if not self.ready_line.startswith("marram ready "):
            _, errors = self._process.communicate(timeout=READY_TIMEOUT_S)
            raise AssertionError(f"not ready: {self.ready_line!r} {errors}")
        for word in self.ready_line.split()[2:]:
            name, _, value = word.partition("=")
            if ":" in value:
                self.ports[name] = int(value.rpartition(":")[2])
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def connect(self, name: str = "resp") -> socket.socket:
        """A new connection to one of its doors."""
        connection = socket.create_connection(("127.0.0.1", self.ports[name]), timeout=20)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections, and does nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        assert self._process is not None
        self._process.kill()
        self._process.communicate()

    def stop(self) -> tuple[int, str]:
        """SIGTERM; returns the exit code and what it wrote to stderr."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        _, errors = self._process.communicate(timeout=READY_TIMEOUT_S)
        return self._process.returncode, errors

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


def command(*args: bytes) -> bytes:
    """A request in RESP."""
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in args)


class Replies:
    """Reads RESP2 replies from a socket, one at a time; the tests' own tiny reader."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rb")

    def read(self) -> object:
        """One reply: bytes, int, None, list, or Exception for an error. Raises EOFError."""
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            return Exception(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            size = int(rest)
            if size < 0:
                return None
            data = self._file.read(size + 2)
            if len(data) < size + 2:
                raise EOFError
            return data[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self.read() for _ in range(int(rest))]
        raise AssertionError(f"not a reply: {line!r}")
