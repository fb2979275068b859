"""A store many times the memory it may use: is every value right, and what does it cost?

    python benchmarks/larger_than_memory.py [--gb 5] [--memory-mb 256] [--dir DIR]

Loads rows of 16 + 1024 bytes in random order into the lsm engine, overwrites a fifth of them in
another random order, waits for the compactions, compacts everything, reads a sample and rows that
do not exist, and scans everything. Each value is compared with the one that its key and the number
of times it was put ask for. Exit status 1 where a target is missed:

    wrong answers            none, and none missing
    peak memory              at most 1.5 times memory_limit: the largest sum of the resident memory
                             of the process and its helpers at one moment; pages they share, the
                             interpreter and this script count in
    disk / live data         at most 1.4, with the compactions done; logs and everything counted
    write amplification      below 12, as stats() reports it, and as the bytes that the process and
                             its helpers sent to disk, by those that were put; logs counted

Needs Linux. The data, a third more than --gb at times, goes to a temporary directory below --dir
(the working directory), and is removed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from random import Random
from typing import Any, NamedTuple

from rows import KEY_BYTES, ROW_BYTES, VALUE_BYTES, key_of, number_of, value_of

import marram
from marram.bench.machine import Watch, disk_bytes, hardware, wait_until_settled

PEAK_MAX = 1.5
SPACE_MAX = 1.4
WRITE_AMPLIFICATION_MAX = 12.0
OVERWRITTEN_EVERY = 5
SAMPLE = 50_000
SHOWN = ("space_amplification", "compaction_debt_bytes", "stalls", "memory", "memtable",
         "block_cache", "table_cache", "compaction")  # fmt: skip
CHUNK = 1000
SLOW_PUT_S = 0.05
REPORT_EVERY_S = 10.0
SETTLE_TIMEOUT_S = 600.0
MIB = 1024 * 1024


class Target(NamedTuple):
    """One line of the verdict."""

    name: str
    figure: float
    limit: str
    met: bool


class Puts:
    """Puts rows, timing each; what it takes to make a row is not counted."""

    def __init__(self, db: marram.DB) -> None:
        self.db = db
        self.rows = 0
        self.seconds = 0.0
        self.slowest_s = 0.0
        self.slow = 0
        self.slow_s = 0.0

    def put_all(self, title: str, numbers: Iterable[int], generation: int) -> None:
        """Put the rows, and print the rate of all of them."""
        put, clock, rest = self.db.put, time.perf_counter, iter(numbers)
        rows_before, seconds_before, shown = self.rows, self.seconds, clock()
        while some := list(islice(rest, CHUNK)):
            pairs = [(key_of(number), value_of(number, generation)) for number in some]
            started = before = clock()
            for key, value in pairs:
                put(key, value)
                now = clock()
                if now - before > SLOW_PUT_S:
                    self._note(now - before)
                before = now
            self.rows += len(pairs)
            self.seconds += before - started
            if before - shown > REPORT_EVERY_S:
                shown = before
                progress(f"{title}: {self.rows - rows_before:,} rows")
        rows, seconds = self.rows - rows_before, self.seconds - seconds_before
        rate = rows / max(seconds, 1e-9)
        line(title, f"{rows:,} rows, {rate:,.0f}/s, {rate * ROW_BYTES / 1e6:.1f} MB/s")

    def _note(self, seconds: float) -> None:
        self.slowest_s = max(self.slowest_s, seconds)
        self.slow += 1
        self.slow_s += seconds


class Expected:
    """What each row should hold, and how many answers were other than that."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.wrong = 0

    @staticmethod
    def generation(number: int) -> int:
        """How often the row was put, less one."""
        return 0 if number % OVERWRITTEN_EVERY else 1

    def overwritten(self) -> Iterator[int]:
        """The numbers to put again, each once, in an order far from that of the load."""
        count = -(-self.count // OVERWRITTEN_EVERY)
        step = 1_000_003  # a prime above any factor of `count`, so that all are met
        while count % step == 0:
            step += 2
        return (at * step % count * OVERWRITTEN_EVERY for at in range(count))

    def check(self, number: int, value: bytes | None) -> None:
        """Compare an answer."""
        if value != value_of(number, self.generation(number)):
            self._complain(f"row {number} holds {value[:24] if value else value!r}")

    def absent(self, keys: Iterable[bytes], db: marram.DB) -> None:
        """Ask for keys that were never put."""
        for key in keys:
            value = db.get(key)
            if value is not None:
                self._complain(f"{key!r} was never put and holds {value[:24]!r}")

    def check_scan(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Compare all rows, in order; each must come, and come once."""
        seen, before, shown, count = bytearray(self.count), b"", time.monotonic(), 0
        for key, value in rows:
            number = number_of(key) if len(key) == KEY_BYTES else self.count
            if key <= before or number >= self.count or key_of(number) != key or seen[number]:
                self._complain(f"scan: {key!r} comes after {before!r}")
                continue
            seen[number], before, count = 1, key, count + 1
            self.check(number, value)
            if not count % CHUNK and time.monotonic() - shown > REPORT_EVERY_S:
                shown = time.monotonic()
                progress(f"scan: {count:,} rows")
        if count != self.count:
            self.wrong += self.count - count
            print(f"WRONG: the scan misses {self.count - count:,} rows", flush=True)

    def _complain(self, what: str) -> None:
        self.wrong += 1
        if self.wrong <= 10:
            print(f"WRONG: {what}", flush=True)


def line(title: str, figures: str) -> None:
    """One line of the report."""
    print(f"{title:26}{figures}", flush=True)


def progress(text: str) -> None:
    """Something to see meanwhile, on the error output."""
    print(f"  {text}", file=sys.stderr, flush=True)


def lsm_stats(db: marram.DB) -> dict[str, Any]:
    """stats()["lsm"]."""
    found = db.stats().get("lsm", {})
    return found if isinstance(found, dict) else {}


def wait_for_compactions(db: marram.DB, directory: str) -> float:
    """Return when no file changes any more and no compaction runs; the seconds it took."""
    started = time.monotonic()
    while True:
        wait_until_settled(directory)
        waited = time.monotonic() - started
        if not lsm_stats(db).get("compaction", {}).get("running") or waited > SETTLE_TIMEOUT_S:
            return waited


def timed(call: Callable[[], object]) -> float:
    """The seconds of a call."""
    started = time.monotonic()
    call()
    return time.monotonic() - started


class Costs:
    """Space and written bytes at some moments; the worst of each is what counts."""

    def __init__(self, directory: str, watch: Watch, puts: Puts, live_bytes: int) -> None:
        self.directory, self.watch, self.puts = directory, watch, puts
        self.live_bytes = live_bytes
        self.space = self.reported = self.counted = 0.0

    def take(self, title: str) -> None:
        """Note and print them, with the shape of the tree."""
        disk, written = disk_bytes(self.directory), self.watch.written_bytes
        stats = lsm_stats(self.puts.db)
        space, counted = disk / self.live_bytes, written / (self.puts.rows * ROW_BYTES)
        reported = stats.get("write_amplification")
        line(
            title,
            f"disk {disk / 1e6:,.0f} MB = {space:.3f} x live data, write amplification"
            f" {reported} reported, {counted:.2f} counted",
        )
        for level in stats.get("levels", ()):
            line(f"  level {level['level']}", f"{level['tables']} tables, {level['bytes']:,} bytes")
        for name in SHOWN:
            if name in stats:
                line(f"  {name}", str(stats[name]))
        self.space = max(self.space, space)
        self.counted = max(self.counted, counted)
        if isinstance(reported, int | float):
            self.reported = max(self.reported, reported)


def read_sample(db: marram.DB, expected: Expected) -> None:
    """Random rows, and keys that were never put."""
    chosen = Random(5)
    numbers = [chosen.randrange(expected.count) for _ in range(min(SAMPLE, expected.count))]
    keys = [key_of(number) for number in numbers]
    values: list[bytes | None] = []
    for at, key in enumerate(keys):  # the values are not kept: they would count as memory
        values.append(db.get(key))
        if len(values) == CHUNK:
            check_some(numbers[at + 1 - CHUNK : at + 1], values, expected)
    check_some(numbers[len(numbers) - len(values) :], values, expected)


def check_some(numbers: list[int], values: list[bytes | None], expected: Expected) -> None:
    """Compare the values, and forget them."""
    for number, value in zip(numbers, values, strict=True):
        expected.check(number, value)
    values.clear()


def run(db: marram.DB, directory: str, count: int, watch: Watch) -> tuple[Costs, int]:
    """All of it; (costs, wrong answers)."""
    expected, puts = Expected(count), Puts(db)
    puts.put_all("load", range(count), 0)
    puts.put_all("overwrite", expected.overwritten(), 1)
    line("slow puts", f"{puts.slow} above {SLOW_PUT_S * 1000:.0f} ms, {puts.slow_s:.1f} s in all,"
         f" slowest {puts.slowest_s:.3f} s")  # fmt: skip
    line("compactions settled", f"after {wait_for_compactions(db, directory):.1f} s")
    costs = Costs(directory, watch, puts, count * ROW_BYTES)
    costs.take("settled")
    compact = getattr(db, "compact", None)
    if compact is not None:
        line("compact()", f"{timed(compact):.1f} s")
        wait_for_compactions(db, directory)
        costs.take("compacted")

    rows = min(SAMPLE, count)
    took = timed(lambda: read_sample(db, expected))
    line("random reads", f"{rows:,} rows, {rows / took:,.0f}/s, with the comparison")
    keys = [key_of(count + number) for number in range(rows)]
    took = timed(lambda: expected.absent(keys, db))
    line("missing keys", f"{rows:,} keys, {rows / took:,.0f}/s")
    took = timed(lambda: expected.check_scan(db.scan()))
    line("scan", f"{count:,} rows, {count / took:,.0f}/s, with the comparison")
    if len(db) != count:
        expected.wrong += 1
        print(f"WRONG: len() is {len(db)}, not {count}")
    costs.take("at the end")
    return costs, expected.wrong


def verdict(costs: Costs, wrong: int, peak_bytes: int, limit_bytes: int) -> bool:
    """Print each target and whether it was met; True if all were."""
    peak = peak_bytes / limit_bytes
    targets = [
        Target("wrong answers", wrong, "none", wrong == 0),
        Target("peak memory / limit", peak, f"<= {PEAK_MAX}", peak <= PEAK_MAX),
        Target("disk / live data", costs.space, f"<= {SPACE_MAX}", costs.space <= SPACE_MAX),
    ]
    # None reported fails too: 0 is no write amplification.
    for name, figure in (("reported", costs.reported), ("counted", costs.counted)):
        met = 0 < figure < WRITE_AMPLIFICATION_MAX
        targets.append(Target(f"write amp. {name}", figure, f"< {WRITE_AMPLIFICATION_MAX:g}", met))
    print()
    for target in targets:
        shown = f"{target.figure:.2f}".removesuffix(".00")
        line(target.name, f"{shown:>8}   {target.limit:8} {'met' if target.met else 'MISSED'}")
    return all(target.met for target in targets)


def main() -> int:
    """Measure; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gb", type=float, default=5.0, help="of keys and values, 10**9 bytes")
    parser.add_argument("--memory-mb", type=int, default=256)
    parser.add_argument("--dir", default=".")
    parser.add_argument("--engine", default="lsm", help="another one, to try the script itself")
    chosen = parser.parse_args()
    count, limit = int(chosen.gb * 1e9) // ROW_BYTES, chosen.memory_mb * MIB
    if count < CHUNK or limit < 1:
        parser.error(f"at least {CHUNK * ROW_BYTES / 1e9} GB and 1 MB")
    about = hardware(chosen.dir)
    for name in ("cpu", "cpus", "file_system", "kernel", "python", "commit", "command"):
        print(f"{name}: {about[name]}")
    line("rows", f"{count:,} of {KEY_BYTES} + {VALUE_BYTES} bytes, memory_limit {limit:,} bytes")
    with tempfile.TemporaryDirectory(dir=chosen.dir) as directory, Watch() as watch:
        line("memory at first", f"{watch.peak_sum_bytes / MIB:.0f} MiB")
        # Without a sync each: how fast the disk syncs is not the question here.
        options: dict[str, Any] = {"memory_limit": limit} if chosen.engine == "lsm" else {}
        with marram.open(directory, engine=chosen.engine, durability="none", **options) as db:
            costs, wrong = run(db, directory, count, watch)
    each = ", ".join(f"{peak / MIB:.0f}" for peak in sorted(watch.peak_bytes.values())[::-1])
    line("peak memory, MiB", f"{watch.peak_sum_bytes / MIB:.0f} in sum; each process: {each}")
    return 0 if verdict(costs, wrong, watch.peak_sum_bytes, limit) else 1


if __name__ == "__main__":
    sys.exit(main())
