"""marram and redis-server side by side under redis-benchmark, in alternating pairs.

    python benchmarks/against_redis.py [PAIRS] [DIRECTORY]

Both acknowledge a write after its fsync (durability=sync, appendfsync=always), with 100-byte
values. Each line gives the medians and the ratio pair by pair: the ratio is what to quote, since a
shared machine's speed drifts. Needs redis-server and redis-benchmark. The data goes to a temporary
directory below DIRECTORY (the working directory), which should be on the disk to be measured.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

HOST = "127.0.0.1"
START_TIMEOUT_S = 20
WORK = [  # test, requests, clients, pipeline depth
    ("set", 20_000, 1, 1),
    ("set", 100_000, 50, 1),
    ("set", 100_000, 500, 1),
    ("set", 300_000, 50, 16),
    ("get", 20_000, 1, 1),
    ("get", 100_000, 50, 1),
    ("get", 400_000, 50, 16),
    ("incr", 100_000, 50, 1),
    ("mset", 40_000, 50, 1),
]


class Result(NamedTuple):
    """What redis-benchmark measured: requests a second, and the 99th percentile."""

    per_s: float
    p99_ms: float


def measure(port: int, test: str, requests: int, clients: int, depth: int) -> Result:
    """One run of redis-benchmark."""
    command = [
        "redis-benchmark", "-h", HOST, "-p", str(port), "-t", test, "-n", str(requests),
        "-c", str(clients), "-P", str(depth), "-d", "100", "-r", "100000", "--csv",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    fields = [field.strip('"') for field in done.stdout.strip().splitlines()[-1].split(",")]
    return Result(float(fields[1]), float(fields[6]))


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


def wait_until_listening(port: int) -> None:
    """Return once something accepts on the port. Raises TimeoutError."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nothing listens on {port}")


def compare(redis: int, marram: int, pairs: int) -> None:
    """Print a line for each kind of work. redis, marram: ports."""
    for work in WORK:
        test, requests, clients, depth = work
        for port in (redis, marram):
            measure(port, test, requests // 10, clients, depth)  # warm-up
        results = [(measure(redis, *work), measure(marram, *work)) for _ in range(pairs)]
        theirs, ours = zip(*results, strict=True)
        ratios = [our.per_s / their.per_s for their, our in results]
        print(
            f"{test:5} clients={clients:<4} pipeline={depth:<3}"
            f" redis {statistics.median(r.per_s for r in theirs):9.0f}/s"
            f" marram {statistics.median(r.per_s for r in ours):9.0f}/s"
            f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            f"  p99 ms {statistics.median(r.p99_ms for r in theirs):.2f}"
            f" / {statistics.median(r.p99_ms for r in ours):.2f}",
            flush=True,
        )


def main(pairs: int, directory: str) -> None:
    """Start both servers, compare them, stop them."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        redis, marram = free_port(), free_port()
        commands = [
            ["redis-server", "--port", str(redis), "--bind", HOST, "--dir", scratch, "--save", "",
             "--appendonly", "yes", "--appendfsync", "always"],
            [sys.executable, "-m", "marram.cli.main", "serve", "--dir", f"{scratch}/marram",
             "--resp-port", str(marram), "--http-port", "off", "--frame-port", "off"],
        ]  # fmt: skip
        quiet = subprocess.DEVNULL
        servers = [subprocess.Popen(command, stdout=quiet, stderr=quiet) for command in commands]
        try:
            wait_until_listening(redis)
            wait_until_listening(marram)
            compare(redis, marram, pairs)
        finally:
            for server in servers:
                server.terminate()
            for server in servers:
                server.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, sys.argv[2] if len(sys.argv) > 2 else ".")
