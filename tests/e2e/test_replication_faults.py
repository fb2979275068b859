"""Real processes under load that are killed, stopped and cut off: nothing acknowledged is lost, and
in the end all servers hold the same.

MARRAM_FAULT_ROUNDS: how many rounds in all (4). MARRAM_FAULT_SEED: of what is drawn; it is printed.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, until
from tests.e2e.process import Replies, ServerProcess, command
from tests.e2e.series import Client

ROUNDS = int(os.environ.get("MARRAM_FAULT_ROUNDS", "4"))
SEED = int(os.environ.get("MARRAM_FAULT_SEED", "1"))
CLIENTS = 4
LONG_S = 17.0  # longer than the silence after which a link is given up
# Checkpoints, flushes and switches of logs come often enough to be hit.
MEMORY = ("--checkpoint-log-bytes", "150000", "--checkpoint-log-ratio", "0.2")
LSM = ("--engine", "lsm", "--memtable-bytes", "64kib")
LEVEL = ("--min-acks", "1", "--ack-timeout-s", "60")


class Churn:
    """One connection that overwrites, deletes, renames and lets expire, until it is cut off."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.done = 0
        self.stopping = threading.Event()

    def run(self, server: ServerProcess) -> None:
        self.stopping.clear()
        with contextlib.suppress(OSError, EOFError), server.connect() as connection:
            replies = Replies(connection)
            connection.sendall(command(b"SELECT", b"1"))
            assert replies.read() == b"OK"
            while not self.stopping.is_set():
                connection.sendall(b"".join(self._request() for _ in range(8)))
                for _ in range(8):
                    replies.read()  # INCR of what is no number, RENAME of what is not there, ...
                    self.done += 1

    def _request(self) -> bytes:
        rng = self._rng
        key, other = b"k%d" % rng.randrange(300), b"k%d" % rng.randrange(300)
        kinds: list[Callable[[], bytes]] = [
            lambda: command(b"SET", key, rng.randbytes(rng.choice((3, 100, 6000)))),
            lambda: command(b"SET", key, b"7", b"PX", b"%d" % rng.choice((20, 500, 90_000))),
            lambda: command(b"DEL", key, other),
            lambda: command(b"INCRBY", key, b"3"),
            lambda: command(b"RENAME", key, other),
            lambda: command(b"APPEND", key, b"more"),
        ]
        if rng.random() < 0.002:
            return command(b"FLUSHDB")
        return rng.choice(kinds)()


@contextlib.contextmanager
def benchmark(server: ServerProcess, seed: int) -> Iterator[None]:
    """marram's own load generator beside all that; it may be cut off as well."""
    load = [
        sys.executable, "-m", "marram.cli.main", "bench", "load",
        "--connect", f"127.0.0.1:{server.ports['resp']}", "--clients", "4", "--seconds", "120",
        "--rate", "400", "--read-ratio", "0.3", "--keys", "500", "--size", "10-2000",
        "--seed", str(seed),
    ]  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(load, **quiet) as process:  # type: ignore[call-overload]
        try:
            yield
        finally:
            process.kill()


class Load:
    """All that writes to the primary."""

    def __init__(self, seed: int) -> None:
        self.clients = [Client(number) for number in range(CLIENTS)]
        self._churn = Churn(seed)
        self._seed = seed

    @property
    def acknowledged(self) -> int:
        """Of the series, since the last check."""
        return sum(client.fresh for client in self.clients)

    @contextlib.contextmanager
    def on(self, server: ServerProcess) -> Iterator[list[threading.Thread]]:
        """The threads of the series, which write by now; all have ended behind it."""
        enough = threading.Event()
        threads = [
            threading.Thread(target=client.run, args=(server, enough)) for client in self.clients
        ]
        churn = threading.Thread(target=self._churn.run, args=(server,))
        with benchmark(server, self._seed):
            for thread in (*threads, churn):
                thread.start()
            try:
                assert enough.wait(60)
                yield threads
            finally:
                for writer in (*self.clients, self._churn):
                    writer.stopping.set()
                for thread in (*threads, churn):
                    thread.join(60)
        assert not any(thread.is_alive() for thread in (*threads, churn))

    def goes_on(self) -> None:
        """Return once a few hundred more were acknowledged."""
        before = self.acknowledged
        until(lambda: self.acknowledged > before + 300 or self._is_over, "writes to go on")
        assert not self._is_over, "the writers were cut off by what should not concern them"

    @property
    def _is_over(self) -> bool:
        return any(client.was_cut_off for client in self.clients)


class Rounds:
    """The rounds of one cluster. Each fault is a method; it leaves everything running again."""

    def __init__(self, cluster: Cluster, rng: random.Random, *, has_level: bool) -> None:
        self.cluster = cluster
        self.rng = rng
        self.load = Load(rng.randrange(1 << 30))
        self.lost_ones: list[str] = []
        self.faults: list[Callable[[list[threading.Thread]], str]] = [
            self.kill_replica, self.stop_replica, self.cut_link, self.hold_link, self.half_link,
            self.kill_primary, self.stop_primary,
        ]  # fmt: skip
        if has_level:
            self.faults.append(self.lose_primary)
        rng.shuffle(self.faults)
        # The worst comes first: it is in the shortest run, too.
        worst = self.lose_primary if has_level else self.kill_primary
        self.faults.sort(key=lambda fault: fault != worst)

    def run(self, number: int) -> str:
        """One round; says what happened."""
        cluster = self.cluster
        for name in cluster.replicas:
            until(lambda name=name: cluster.info(name)["master_link_status"] == "up", name)
        # Each fault once, and then any.
        is_new = number < len(self.faults)
        fault = self.faults[number] if is_new else self.rng.choice(self.faults)
        with self.load.on(cluster.servers[cluster.primary]) as threads:
            said = fault(threads)
        acknowledged = self.load.acknowledged
        self.restore()
        rows = cluster.converged()
        for client in self.load.clients:
            client.check(cluster.servers[cluster.primary])
        return f"{said}: {acknowledged} acknowledged, {len(rows)} rows are the same on all"

    def restore(self) -> None:
        """Start again what is not there, as what it has become."""
        for name in self.lost_ones:
            of = "" if name == self.cluster.primary else self.cluster.primary
            self.cluster.start(name, of)
        self.lost_ones.clear()

    def moment(self, threads: list[threading.Thread]) -> None:
        """A while, mostly short, in which the writers may end."""
        is_long = ROUNDS > 10 and self.rng.random() < 0.1
        threads[0].join(LONG_S if is_long else self.rng.random())

    # -- a replica ---------------------------------------------------------------------------------

    def victim(self) -> str:
        return self.rng.choice(self.cluster.replicas)

    def kill_replica(self, threads: list[threading.Thread]) -> str:
        name = self.victim()
        self.cluster.servers[name].kill()
        self.load.goes_on()
        self.cluster.start(name)
        self.load.goes_on()
        return f"kill -9 of replica {name}"

    def stop_replica(self, threads: list[threading.Thread]) -> str:
        name = self.victim()
        self.cluster.servers[name].pause()
        try:
            self.load.goes_on()
            self.moment(threads)
        finally:
            self.cluster.servers[name].resume()
        self.load.goes_on()
        return f"SIGSTOP of replica {name}"

    # -- a link ------------------------------------------------------------------------------------

    def cut_link(self, threads: list[threading.Thread]) -> str:
        name = self.victim()
        link = self.cluster.relay(name, self.cluster.primary)
        link.cut()
        self.load.goes_on()
        link.heal()
        self.load.goes_on()
        return f"the link of {name} was cut"

    def hold_link(self, threads: list[threading.Thread]) -> str:
        name = self.victim()
        link = self.cluster.relay(name, self.cluster.primary)
        link.hold()
        self.load.goes_on()
        self.moment(threads)
        link.heal()
        self.load.goes_on()
        return f"the link of {name} passed nothing on"

    def half_link(self, threads: list[threading.Thread]) -> str:
        name, way = self.victim(), self.rng.choice(("up", "down"))
        link = self.cluster.relay(name, self.cluster.primary)
        link.half(way)
        self.load.goes_on()
        link.heal()
        self.load.goes_on()
        return f"the link of {name} was closed one way, {way}"

    # -- the primary -------------------------------------------------------------------------------

    def kill_primary(self, threads: list[threading.Thread]) -> str:
        self.cluster.servers[self.cluster.primary].kill()
        self.lost_ones.append(self.cluster.primary)
        return f"kill -9 of primary {self.cluster.primary}"

    def stop_primary(self, threads: list[threading.Thread]) -> str:
        primary = self.cluster.servers[self.cluster.primary]
        primary.pause()
        try:
            self.moment(threads)
        finally:
            primary.resume()
        self.load.goes_on()
        return f"SIGSTOP of primary {self.cluster.primary}"

    def lose_primary(self, threads: list[threading.Thread]) -> str:
        """It is gone, and a replica takes over: what was acknowledged has to be there."""
        lost = self.cluster.primary
        with self.cluster.held(lost) if self.rng.random() < 0.7 else contextlib.nullcontext():
            threads[0].join(self.rng.random() / 2)
            self.cluster.servers[lost].kill()
        self.lost_ones.append(lost)
        for thread in threads:
            thread.join(60)
        best = self.cluster.fail_over(lost)
        return f"primary {lost} was lost, {best} took over"


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", ["async, lsm", "one of two on disk, memory"])
def test_rounds_of_faults_lose_nothing_and_end_in_equal_servers(tmp_path: Path, name: str) -> None:
    has_level = name.startswith("one")
    rng = random.Random(f"{SEED} {name}")
    print(f"MARRAM_FAULT_SEED={SEED} MARRAM_FAULT_ROUNDS={ROUNDS}: {name}")
    arguments = (*MEMORY, *LEVEL) if has_level else LSM
    with Cluster(tmp_path, *arguments) as cluster:
        cluster.start("a")
        for replica in ("b", "c"):
            cluster.start(replica, "a")
        rounds = Rounds(cluster, rng, has_level=has_level)
        for number in range(max(1, ROUNDS // 2)):
            print(f"round {number}: {rounds.run(number)}", flush=True)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("acks", "level", "also_lost"), [(1, "received", 0), (1, "disk", 0), (2, "disk", 1)]
)
def test_what_was_acknowledged_is_on_the_survivor(
    tmp_path: Path, acks: int, level: str, also_lost: int
) -> None:
    options = ("--min-acks", str(acks), "--ack-level", level, "--ack-timeout-s", "60")
    clients = [Client(number) for number in range(CLIENTS)]
    with Cluster(tmp_path, *MEMORY) as cluster:
        cluster.start("a", "", *options)
        for name in ("b", "c"):
            cluster.start(name, "a")
        until(lambda: not cluster.info("a")["writes_refused"], "the replicas")
        enough = threading.Event()
        primary = cluster.servers["a"]
        threads = [threading.Thread(target=each.run, args=(primary, enough)) for each in clients]
        for thread in threads:
            thread.start()
        assert enough.wait(30)
        with cluster.held("a"):  # what is acknowledged from now on would be on the primary alone
            threads[0].join(0.3)
            for name in ("a", "b")[: 1 + also_lost]:
                cluster.servers[name].kill()
        for thread in threads:
            thread.join(60)
        for name in ("a", "b")[: 1 + also_lost]:
            del cluster.servers[name]
        best = cluster.fail_over("a")
        for client in clients:
            assert client.acknowledged > 0
            client.check(cluster.servers[best])
