"""SIGKILL under load: nothing acknowledged is lost, no transaction is half there (P1, P2)."""

from __future__ import annotations

import os
import pathlib
import random
import threading

import pytest

from tests.e2e.process import ServerProcess
from tests.e2e.series import Client

CLIENTS = 8
ROUNDS = int(os.environ.get("MARRAM_KILL_ROUNDS", "50"))
# (engine, part): lsm with memtables so small that kills fall into flushes and compactions, too.
PARTS = [("memory", 0), ("memory", 1), ("lsm", 2)]
ENGINES = {
    "memory": ("--checkpoint-log-bytes", "150000", "--checkpoint-log-ratio", "0.2"),
    "lsm": ("--engine", "lsm", "--memtable-bytes", "64kib"),
}


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
        total += sum(c.fresh for c in clients)
    with ServerProcess(tmp_path / "db", *arguments) as server:
        for client in clients:
            client.check(server)
    assert total > rounds * 200
    assert (tmp_path / "db" / "tables").exists() == (engine == "lsm")
    print(f"{rounds} kills, {total} acknowledged writes, none lost")
