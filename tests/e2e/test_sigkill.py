"""SIGKILL under load: nothing acknowledged is lost, no transaction is half there (P1, P2)."""

from __future__ import annotations

import os
import pathlib
import random
import threading

import pytest

from tests.e2e.process import Replies, ServerProcess, command

CLIENTS = 8
PIPELINE = 16
ROUNDS = int(os.environ.get("MARRAM_KILL_ROUNDS", "50"))
# (engine, part): lsm with memtables so small that kills fall into flushes and compactions, too.
PARTS = [("memory", 0), ("memory", 1), ("lsm", 2)]
ENGINES = {
    "memory": ("--checkpoint-log-bytes", "150000", "--checkpoint-log-ratio", "0.2"),
    "lsm": ("--engine", "lsm", "--memtable-bytes", "64kib"),
}


class Client:
    """One connection that writes a numbered series, in pipelines, until the server dies.

    The series: SET c:<n>, and for every fourth n a MULTI that sets two keys together.
    """

    def __init__(self, number: int) -> None:
        self.name = b"c%d" % number
        self.sent = 0  # numbers below this were sent at some time
        self.acknowledged = 0  # and below this, acknowledged

    def run(self, server: ServerProcess, enough: threading.Event) -> None:
        """Write on from where the last life ended."""
        self.sent = self.acknowledged = self._present_upto
        try:
            with server.connect() as connection:
                replies = Replies(connection)
                while True:
                    first = self.sent
                    requests = [self._requests(n) for n in range(first, first + PIPELINE)]
                    self.sent = first + PIPELINE
                    connection.sendall(b"".join(data for data, _ in requests))
                    for number, (_, count) in enumerate(requests, first):
                        answers = [replies.read() for _ in range(count)]
                        assert not any(isinstance(a, Exception) for a in answers), answers
                        self.acknowledged = number + 1
                    if self.acknowledged - self._present_upto > 200:
                        enough.set()
        except (OSError, EOFError):
            enough.set()

    _present_upto = 0

    def _requests(self, n: int) -> tuple[bytes, int]:
        value = b"%d" % n
        if n % 4:
            return command(b"SET", self.name + b":%d" % n, value), 1
        pair = [
            command(b"MULTI"),
            command(b"SET", self.name + b":%d" % n, value),
            command(b"SET", self.name + b":twin", value),
            command(b"INCRBY", self.name + b":pairs", b"1"),
            command(b"EXEC"),
        ]
        return b"".join(pair), 5

    def check(self, server: ServerProcess) -> None:
        """After a restart: a prefix of the series that covers all that was acknowledged."""
        with server.connect() as connection:
            replies = Replies(connection)
            numbers = list(range(self._present_upto, self.sent))
            connection.sendall(
                b"".join(command(b"GET", self.name + b":%d" % n) for n in numbers)
                + command(b"MGET", self.name + b":twin", self.name + b":pairs")
            )
            present = [n for n in numbers if self._is_there(n, replies.read())]
            twin, pairs = replies.read()  # type: ignore[misc]
        upto = self._present_upto + len(present)
        assert present == list(range(self._present_upto, upto)), "a hole"
        assert upto >= self.acknowledged, f"lost {self.acknowledged - upto} acknowledged writes"
        last_pair = (upto - 1) // 4 * 4
        assert int(twin or 0) == max(0, last_pair), "half a transaction"
        assert int(pairs or 0) == (last_pair // 4 + 1 if upto else 0), "a transaction ran twice"
        self._present_upto = upto

    def _is_there(self, n: int, reply: object) -> bool:
        assert reply in (None, b"%d" % n), f"wrong value for {n}: {reply!r}"
        return reply is not None


@pytest.mark.timeout(280)
@pytest.mark.parametrize(("engine", "part"), PARTS)
def test_p1_p2_kill_9_under_pipelined_load(tmp_path: pathlib.Path, engine: str, part: int) -> None:
    rng = random.Random(part)
    clients = [Client(number) for number in range(CLIENTS)]
    arguments = ENGINES[engine]
    rounds = max(1, ROUNDS // len(PARTS))
    total = 0
    for _ in range(rounds):
        with ServerProcess(tmp_path / "db", *arguments) as server:
            for client in clients:
                client.check(server)
            enough = threading.Event()
            threads = [threading.Thread(target=c.run, args=(server, enough)) for c in clients]
            for thread in threads:
                thread.start()
            assert enough.wait(30)
            # The kill falls anywhere: between, within or after groups and checkpoints.
            for _ in range(rng.randrange(3)):
                threads[rng.randrange(CLIENTS)].join(rng.random() / 20)
            server.kill()
            for thread in threads:
                thread.join()
        total += sum(c.acknowledged - c._present_upto for c in clients)
    with ServerProcess(tmp_path / "db", *arguments) as server:
        for client in clients:
            client.check(server)
    assert total > rounds * 200
    assert (tmp_path / "db" / "tables").exists() == (engine == "lsm")
    print(f"{rounds} kills, {total} acknowledged writes, none lost")
