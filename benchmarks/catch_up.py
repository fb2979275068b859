"""How fast a replica catches up: MB/s from the primary's log, and by a full copy.

    python benchmarks/catch_up.py [--mb 1000] [--values 100,1024] [--ways log,copy]
                                  [--engine memory|lsm] [--durability sync] [--dir DIR]

For each size of values a primary and a replica are started, two processes on loopback. `log`: the
replica is stopped, the primary takes SETs worth --mb of log over --keys keys, from 8 connections
with 100 requests each under way, and the replica is started again. `copy`: an empty replica joins a
primary that holds --mb of keys and values.

Time runs from the first byte that the replica has from the primary until all is on its disk. Bytes
are those of the batches, as in the log without its frames, or of keys and values. cpu_s is user and
system time of each process meanwhile: it says more than the clock where others use the machine.
Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import marram
from marram.bench.generator import Load, run_fill, run_load
from marram.bench.machine import hardware
from marram.bench.target import Place
from marram.bench.workload import Workload
from marram.client.url import Target

HOST = "127.0.0.1"
KEY_BYTES = 16  # of the load generator's keys
LOG_BYTES = "64gib"
_LOOK_S = 0.01
_SILENCE_S = 120.0


class Server(NamedTuple):
    """A process that is ready."""

    pid: int
    ports: dict[str, int]

    @property
    def place(self) -> Place:
        """Its RESP port, for a load."""
        return Place("resp", Target(HOST, self.ports["resp"]))

    def replication(self) -> dict[str, Any]:
        """What it says of its replication, and of how far it is."""
        with marram.connect(f"marram://{HOST}:{self.ports['resp']}") as db:
            found: dict[str, Any] = db.stats()["replication"]
        return found

    def cpu_s(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(directory: Path, args: argparse.Namespace, *options: str) -> Iterator[Server]:
    """A server process, ended afterwards."""
    command = [
        sys.executable, "-m", "marram.cli.main", "serve", "--dir", str(directory), "--host", HOST,
        "--resp-port", "0", "--http-port", "off", "--frame-port", "0", "--log-level", "error",
        "--engine", args.engine, "--durability", args.durability,
        "--replica-log-bytes", LOG_BYTES, *options,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            if words[:2] != ["marram", "ready"]:
                raise SystemExit("a server did not start")
            found = dict(word.partition("=")[::2] for word in words[2:])
            names = ("resp", "frame")
            yield Server(process.pid, {n: int(found[n].rpartition(":")[2]) for n in names})
        finally:
            process.terminate()
            process.wait()


def caught_up(primary: Server, replica: Server, size_bytes: int) -> dict[str, Any]:
    """Wait until the replica has all that the primary has now, and say what it took."""
    goal = primary.replication()["history_mark"]
    before = (primary.cpu_s(), replica.cpu_s())
    begun = time.perf_counter()
    first = 0.0
    while (found := replica.replication())["history_mark"] != goal:
        now = time.perf_counter()
        first = first or (now if found["link_state"] in ("sync", "connected") else 0.0)
        if now - begun > _SILENCE_S + size_bytes / 1e6:
            raise SystemExit(f"it does not catch up: {found}")
        time.sleep(_LOOK_S)
    seconds = time.perf_counter() - (first or begun)
    taken = (primary.cpu_s() - before[0], replica.cpu_s() - before[1])
    return {
        "bytes": size_bytes,
        "seconds": round(seconds, 3),
        "mb_per_s": round(size_bytes / seconds / 1e6, 1),
        "cpu_s": {"primary": round(taken[0], 2), "replica": round(taken[1], 2)},
        "full_syncs": found["full_syncs_taken"],
    }


def from_log(directory: Path, args: argparse.Namespace, value: int) -> dict[str, Any]:
    """The replica missed --mb of log."""
    row = KEY_BYTES + value
    load = Workload(read=0, update=1, records=args.keys, size_min=value, size_max=value)
    with serving(directory / "primary", args) as primary:
        of = ("--replica-of", f"{HOST}:{primary.ports['frame']}")
        run_fill(primary.place, load)
        with serving(directory / "replica", args, *of) as replica:
            caught_up(primary, replica, 0)
        requests = int(args.mb * 1e6) // (row + 14)  # about what a batch of one SET adds
        run_load(Load(primary.place, load, clients=8, depth=100, requests=requests, fill=False))
        with serving(directory / "replica", args, *of) as replica:
            done = caught_up(primary, replica, requests * (row + 14))
            return {"way": "log", "value_bytes": value, **done}


def by_copy(directory: Path, args: argparse.Namespace, value: int) -> dict[str, Any]:
    """The replica is empty and the primary has --mb of data."""
    row = KEY_BYTES + value
    records = int(args.mb * 1e6) // row
    load = Workload(read=0, update=1, records=records, size_min=value, size_max=value)
    with serving(directory / "primary", args) as primary:
        run_fill(primary.place, load)
        of = ("--replica-of", f"{HOST}:{primary.ports['frame']}")
        with serving(directory / "replica", args, *of) as replica:
            done = caught_up(primary, replica, records * row)
            return {"way": "copy", "value_bytes": value, **done}


WAYS = {"log": from_log, "copy": by_copy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mb", type=float, default=1000.0)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--values", default="100,1024")
    parser.add_argument("--ways", default="log,copy")
    parser.add_argument("--engine", default="memory", choices=("memory", "lsm"))
    parser.add_argument("--durability", default="sync", choices=("sync", "interval", "none"))
    parser.add_argument("--dir", default=".")
    args = parser.parse_args()
    machine = hardware(args.dir)
    runs = []
    for way in args.ways.split(","):
        for value in map(int, args.values.split(",")):
            with tempfile.TemporaryDirectory(dir=args.dir) as directory:
                load = os.getloadavg()[0]
                found = WAYS[way](Path(directory), args, value)
                runs.append({**found, "load_average": round(load, 2)})
                print(json.dumps(runs[-1]), file=sys.stderr)
    print(json.dumps({"machine": machine, "engine": args.engine, "runs": runs}, indent=2))


if __name__ == "__main__":
    main()
