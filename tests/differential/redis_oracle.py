"""A Redis server of our own, on a free port of this machine, without persistence."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marram.protocol.resp_client import ReplyParser, encode_command

MISSING = shutil.which("redis-server") is None

_START_TIMEOUT_S = 20.0


class Connection:
    """A RESP2 connection that answers many commands at once."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._parser = ReplyParser()

    def ask(self, *args: bytes) -> Any:
        """One command's reply."""
        return self.ask_all([args])[0]

    def ask_all(self, commands: Sequence[Sequence[bytes]]) -> list[Any]:
        """The replies of some hundred commands, sent in one piece."""
        self._socket.sendall(b"".join(map(encode_command, commands)))
        replies: list[Any] = []
        while len(replies) < len(commands):
            received = self._socket.recv(1 << 18)
            if not received:
                raise ConnectionError("the server closed the connection")
            replies += self._parser.feed(received)
        return replies


@contextmanager
def connect(host: str, port: int) -> Iterator[Connection]:
    """A connection to a RESP server."""
    with socket.create_connection((host, port), timeout=60) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Connection(sock)


@contextmanager
def redis_server(directory: Path) -> Iterator[Connection]:
    """Start a Redis in a directory, connect to it, and stop it at the end."""
    port = _free_port()
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "save": "",
        "appendonly": "no",
        "dir": str(directory),
        "daemonize": "no",
        "maxmemory": "0",
    }
    command = ["redis-server"]
    for name, value in options.items():
        command += [f"--{name}", value]
    with (directory / "redis.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_until_listening(process, port)
        with connect("127.0.0.1", port) as connection:
            yield connection
    finally:
        process.terminate()
        process.wait(timeout=20)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait_until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"redis-server ended with {process.returncode}")
        try:
            with connect("127.0.0.1", port) as connection:
                if connection.ask(b"PING") is not None:
                    return
        except OSError:
            time.sleep(0.02)
    raise TimeoutError("redis-server does not listen")
