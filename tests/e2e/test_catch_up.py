"""A replica that was away for a whole load, as real processes; and one whose disk is full.

MARRAM_CATCH_UP_WRITES: how many writes it misses (10000).
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, mark, until
from tests.e2e.disks import small_disk
from tests.e2e.process import Replies, ServerProcess, command

__all__ = ["small_disk"]

WRITES = int(os.environ.get("MARRAM_CATCH_UP_WRITES", "10000"))
DEPTH = 500
VALUE = b"v" * 100
OFTEN = ("--checkpoint-log-bytes", "500000", "--checkpoint-log-ratio", "0.2")


def write(server: ServerProcess, numbers: range) -> None:
    """SET of these keys, all acknowledged."""
    with server.connect() as connection:
        replies = Replies(connection)
        for at in range(numbers.start, numbers.stop, DEPTH):
            part = range(at, min(at + DEPTH, numbers.stop))
            connection.sendall(
                b"".join(command(b"SET", b"k%d" % n, VALUE + b"%d" % n) for n in part)
            )
            for _ in part:
                assert replies.read() == b"OK"


class Writer:
    """Writes on and on, at the side."""

    def __init__(self, server: ServerProcess, start: int) -> None:
        self._server = server
        self._stopping = threading.Event()
        self.at = start
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stopping.is_set():
            write(self._server, range(self.at, self.at + DEPTH))
            self.at += DEPTH

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *about: object) -> None:
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kept", "copies"), [("1gib", 1), ("0", 2)], ids=["log", "copy"])
def test_a_replica_that_missed_a_load_catches_up_while_the_primary_goes_on(
    tmp_path: Path, kept: str, copies: int
) -> None:
    with Cluster(tmp_path, *OFTEN, "--replica-log-bytes", kept) as cluster:
        primary = cluster.start("a")
        cluster.start("b", "a")
        write(primary, range(100))
        cluster.converged()
        cluster.servers["b"].kill()
        write(primary, range(100, WRITES))
        assert cluster.ask("a", b"CHECKPOINT") == b"OK"
        missed = mark(primary)[1]
        replica = cluster.start("b")
        started = time.monotonic()
        with Writer(primary, WRITES) as writer:
            reply = cluster.ask("b", b"WAITPOS", b"%d-%d" % mark(primary)[:2], b"600000")
            assert reply == 1
            took_s = time.monotonic() - started
            before = writer.at
            until(lambda: writer.at > before, "the primary to take writes")
        rows = cluster.converged()
        assert len(rows) == writer.at >= WRITES + DEPTH
        assert mark(replica)[1] > missed
        assert int(cluster.info("a")["full_syncs_given"]) == copies
        print(f"{WRITES} writes were caught up in {took_s:.2f} s, with more coming in")


def test_a_replica_whose_disk_is_full_serves_what_it_has_and_goes_on_when_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 300_000)
    with Cluster(tmp_path) as cluster:
        primary = cluster.start("a")
        (small_disk / "data").mkdir()
        (tmp_path / "b").symlink_to(small_disk / "data")
        replica = cluster.start("b", "a")
        write(primary, range(100))
        cluster.converged()

        write(primary, range(3000))
        said = until(lambda: _trouble(cluster), "the replica to say that its disk is full")
        assert said.startswith("FAILED: no room for")
        assert cluster.info("b")["master_link_status"] == "down"
        assert cluster.ask("b", b"ROLE")[3] != b"connected"
        assert cluster.ask("b", b"GET", b"k7") == VALUE + b"7"
        assert cluster.ask("a", b"GET", b"k2999") == VALUE + b"2999"
        write(primary, range(3000, 3010))  # which the primary takes all the same

        ballast.unlink()
        rows = cluster.converged()
        assert len(rows) == 3010
        assert int(cluster.info("a")["full_syncs_given"]) == 1
        code, log = replica.stop()
        assert code == 0
        assert "no room for" in log


def _trouble(cluster: Cluster) -> str:
    trouble = cluster.info("b")["link_trouble"]
    return trouble if "no room" in trouble else ""
