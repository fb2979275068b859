"""How fast a store opens: records a second out of a log, keys a second out of a checkpoint.

    python benchmarks/recovery.py [--keys 200000] [--rounds 5] [--engine memory|lsm] [--dir DIR]
                                  [--against SRC]

Makes stores of random keys of 16 bytes with values of 100: one whose log has a frame for each
record, one whose log has batches of 100, one whose keys have deadlines, and (memory) one with all
in a checkpoint. Each is opened --rounds times by a process of its own, compiled and interpreted in
turn, and with --against by another checkout's sources in the same turn. Prints medians of user and
system time, which say more than the clock where others use the machine, and what compiling gains,
round by round. Then, in this process, how fast DB.checkpoint() writes.

The files are in the page cache, in a temporary directory below --dir (the working directory).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import marram
from marram.bench.machine import hardware

KEY_BYTES = 16
VALUE_BYTES = 100
BATCH = 100
TTL_S = 10**6

# What a child runs: it opens one store, and says how long that took.
_OPEN = """
import sys, time, marram
options = eval(sys.argv[2])
started = time.process_time()
db = marram.open(sys.argv[1], create=False, **options)
print(time.process_time() - started)
db.close()
"""


def options_of(engine: str) -> dict[str, Any]:
    """Room for all of it in one log: nothing may be flushed while it is filled or opened."""
    if engine == "lsm":
        return {"engine": engine, "memtable_bytes": 2**30, "memory_limit": 2**32}
    return {"engine": engine, "checkpoint_log_bytes": 0}


def fill(directory: Path, keys: int, engine: str) -> dict[str, Path]:
    """The stores, by what is in them."""
    random = Random(1)
    options: dict[str, Any] = {"durability": "none", **options_of(engine)}
    found = {name: directory / name for name in ("records", "batches", "deadlines")}
    with marram.open(str(found["records"]), **options) as db:
        for _ in range(keys):
            db.put(random.randbytes(KEY_BYTES), random.randbytes(VALUE_BYTES))
    with marram.open(str(found["batches"]), **options) as db:
        for _ in range(keys // BATCH):
            rows = [
                (random.randbytes(KEY_BYTES), random.randbytes(VALUE_BYTES)) for _ in range(BATCH)
            ]
            db.put_many(rows)
    with marram.open(str(found["deadlines"]), **options) as db:
        for number in range(keys):
            key, value = random.randbytes(KEY_BYTES), random.randbytes(VALUE_BYTES)
            db.put(key, value, ttl=TTL_S + number % 1000)
    if engine == "memory":
        found["checkpoint"] = directory / "checkpoint"
        shutil.copytree(found["records"], found["checkpoint"])
        with marram.open(str(found["checkpoint"]), **options) as db:
            db.checkpoint()
    return found


def seconds_to_open(directory: Path, source: Path, engine: str, *, pure: bool) -> float:
    """User and system time that opening a store takes a process that runs these sources."""
    environ = {**os.environ, "PYTHONPATH": str(source), "MARRAM_PURE": "1" if pure else "0"}
    command = [sys.executable, "-c", _OPEN, str(directory), repr(options_of(engine))]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return float(done.stdout)


def compare(name: str, directory: Path, sources: dict[str, Path], args: argparse.Namespace) -> None:
    """Print a line for one store."""
    ways = [(label, source, pure) for label, source in sources.items() for pure in (False, True)]
    taken: dict[tuple[str, bool], list[float]] = {(label, pure): [] for label, _, pure in ways}
    for _ in range(args.rounds):
        for label, source, pure in ways:
            seconds = seconds_to_open(directory, source, args.engine, pure=pure)
            taken[label, pure].append(seconds)
    print(name)
    for label in sources:
        compiled, interpreted = taken[label, False], taken[label, True]
        gains = sorted(slow / fast for fast, slow in zip(compiled, interpreted, strict=True))
        print(
            f"  {label:8} compiled {_rate(args.keys, compiled)}, interpreted "
            f"{_rate(args.keys, interpreted)}, gain {statistics.median(gains):.1f} "
            f"({gains[0]:.1f}-{gains[-1]:.1f})"
        )


def _rate(keys: int, seconds: list[float]) -> str:
    return f"{keys / statistics.median(seconds) / 1e6:6.3f} M/s"


def write_checkpoints(directory: Path, args: argparse.Namespace) -> None:
    """Print how fast a store of the memory engine writes its checkpoint."""
    seconds = []
    with marram.open(str(directory), create=False, **options_of(args.engine)) as db:
        for _ in range(args.rounds):
            started = time.process_time()
            db.checkpoint()
            seconds.append(time.process_time() - started)
    print(f"DB.checkpoint()\n  this     {marram.compiled.state()} {_rate(args.keys, seconds)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine", choices=("memory", "lsm"), default="memory")
    parser.add_argument("--dir", default=".")
    parser.add_argument("--against", type=Path, help="the src folder of another checkout, built")
    args = parser.parse_args()
    sources = {"this": Path(marram.__file__).parents[1]}
    if args.against is not None:
        sources["other"] = args.against.resolve()
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        print(hardware(directory))
        stores = fill(Path(directory), args.keys, args.engine)
        for name, store in stores.items():
            compare(name, store, sources, args)
        if args.engine == "memory":
            write_checkpoints(stores["checkpoint"], args)


if __name__ == "__main__":
    main()
