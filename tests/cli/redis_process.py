"""A real Redis of the test's own: a socket file, a port on loopback, and TLS where asked for."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

START_TIMEOUT_S = 20.0


class RedisProcess(NamedTuple):
    """Where it listens, and a client that is connected. tls_port: 0 without certificates."""

    path: Path
    port: int
    tls_port: int
    client: redis.Redis

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"


@contextlib.contextmanager
def redis_process(
    directory: Path, *options: str, certificates: Path | None = None
) -> Iterator[RedisProcess]:
    """Start a Redis in a directory; skip the test where there is none. It is killed at the end.

    certificates: a directory with ca.pem, server.pem and server.key.
    """
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    path = directory / "redis.sock"
    port, tls_port = free_port(), free_port() if certificates else 0
    command = [
        server, "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(path),
        "--save", "", "--dir", str(directory), *options,
    ]  # fmt: skip
    if certificates is not None:
        command += [
            "--tls-port", str(tls_port), "--tls-auth-clients", "optional",
            "--tls-cert-file", str(certificates / "server.pem"),
            "--tls-key-file", str(certificates / "server.key"),
            "--tls-ca-cert-file", str(certificates / "ca.pem"),
        ]  # fmt: skip
    client = redis.Redis(unix_socket_path=str(path))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process, client:
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not answers(client):
                assert process.poll() is None and time.monotonic() < deadline, "no redis-server"
            yield RedisProcess(path, port, tls_port, client)
        finally:
            process.kill()


def answers(client: redis.Redis) -> bool:
    """Whether it is there."""
    with contextlib.suppress(redis.RedisError):
        return bool(client.ping())
    return False


def free_port() -> int:
    """A port that nobody listens on, with room for a cluster's bus, which is 10,000 above."""
    while True:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = int(sock.getsockname()[1])
        if port + 10_000 < 2**16:
            return port


def certificates(directory: Path) -> Path:
    """An authority, and a certificate of its for 127.0.0.1; skip the test without openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: no certificates for a test of TLS")
    directory.mkdir()

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=directory, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    run("req", "-x509", *new, "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem")
    run("req", *new, "-subj", "/CN=test server", "-keyout", "server.key", "-out", "server.csr")
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    run(
        "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
        "-CAcreateserial", "-extfile", "names", "-out", "server.pem",
    )  # fmt: skip
    return directory
