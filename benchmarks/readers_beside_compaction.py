"""What a reader of the lsm engine notices of a compaction.

    python benchmarks/readers_beside_compaction.py [--mb 300] [--memory-mb 128] [--rounds 5]
                                                   [--dir DIR]

One thread reads random rows of 16 + 1024 bytes, in turn from a hundredth of the keys, which are
neighbours and stay cached, and from all keys, which mostly do not. In each round a fifth of the
rows is put anew and the store left to settle; then it reads for --seconds with nothing else going
on, and then for as long as db.compact() takes in another thread. Prints the latencies of each, the
two kinds of reads apart, and the ratios round by round, which are what to quote. Each value is
compared with the one expected, outside the timed part; exit status 1 where one was wrong.

Needs Linux. The data goes to a temporary directory below --dir (the working directory).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from rows import ROW_BYTES, key_of, value_of

import marram
from marram.bench.machine import hardware, wait_until_settled

MIB = 1024 * 1024
HOT_SHARE = 100
OVERWRITTEN_SHARE = 5
FEW_READS = 10_000
"""Below that many a 99.9th percentile is made of less than ten reads."""
SAMPLES_MAX = 5_000_000
QUANTILES = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))


class Latencies(NamedTuple):
    """What reads of one kind took, microseconds each."""

    reads: int
    quantiles: tuple[float, ...]
    max: float


class Stretch(NamedTuple):
    """Some seconds of reading."""

    seconds: float
    cached: Latencies
    others: Latencies


KINDS: tuple[tuple[str, Callable[[Stretch], Latencies]], ...] = (
    ("cached", lambda stretch: stretch.cached),
    ("all keys", lambda stretch: stretch.others),
)


def summary(taken_ns: Sequence[int]) -> Latencies:
    """Of at least one read."""
    ordered = sorted(taken_ns)
    quantiles = tuple(ordered[int(share * len(ordered))] / 1000 for _, share in QUANTILES)
    return Latencies(len(ordered), quantiles, ordered[-1] / 1000)


class Reader:
    """Reads and compares. generations: by row, how often it was put, less one."""

    def __init__(self, db: marram.DB, count: int) -> None:
        self.db = db
        self.generations = bytearray(count)
        self.wrong = 0
        self._random = Random(6)
        # Neighbours: rows here and there would each keep a whole block in the cache.
        self._hot = sorted(range(count), key=key_of)[: max(1, count // HOT_SHARE)]

    def read_while(self, going_on: Callable[[], bool]) -> Stretch:
        """Read until going_on() is false."""
        count, get, clock = len(self.generations), self.db.get, time.perf_counter_ns
        hot, choose = self._hot, self._random.randrange
        cached, others, began = array("q"), array("q"), time.monotonic()
        while going_on() and len(others) < SAMPLES_MAX:
            for number, taken in ((hot[choose(len(hot))], cached), (choose(count), others)):
                key = key_of(number)
                started = clock()
                value = get(key)
                taken.append(clock() - started)
                if value != value_of(number, self.generations[number]):
                    self.wrong += 1
        return Stretch(time.monotonic() - began, summary(cached), summary(others))

    def quiet(self, seconds: float) -> Stretch:
        """Read with nothing else going on."""
        end = time.monotonic() + seconds
        return self.read_while(lambda: time.monotonic() < end)

    def beside(self, call: Callable[[], object]) -> Stretch:
        """Read while another thread is in `call`. Raises what it raises."""
        failed: list[BaseException] = []

        def guarded() -> None:
            try:
                call()
            except BaseException as error:
                failed.append(error)

        other = threading.Thread(target=guarded)
        other.start()
        # At least one read, however soon it is over.
        states = iter([True])
        found = self.read_while(lambda: next(states, False) or other.is_alive())
        other.join()
        if failed:
            raise failed[0]
        return found

    def put_anew(self, numbers: range) -> None:
        """Put the next value of each."""
        for number in numbers:
            self.generations[number] += 1
            self.db.put(key_of(number), value_of(number, self.generations[number]))


def show(title: str, stretch: Stretch) -> None:
    """A line of figures for each kind of reads, microseconds."""
    for kind, of in KINDS:
        found = of(stretch)
        quantiles = "".join(
            f"  {name} {value:9,.1f}"
            for (name, _), value in zip(QUANTILES, found.quantiles, strict=True)
        )
        few = "  NOTE: few reads" if found.reads < FEW_READS else ""
        print(
            f"{title:13} {kind:9}{quantiles}  max {found.max:11,.1f} us"
            f"  ({found.reads:,} reads in {stretch.seconds:.1f} s){few}",
            flush=True,
        )


def compare(pairs: list[tuple[Stretch, Stretch]]) -> None:
    """Medians, and ratios pair by pair."""
    print()
    for kind, of in KINDS:
        for at, (name, _) in enumerate(QUANTILES):
            quiet = [of(one).quantiles[at] for one, _ in pairs]
            beside = [of(one).quantiles[at] for _, one in pairs]
            ratios = [more / less for less, more in zip(quiet, beside, strict=True)]
            print(
                f"{kind:9} {name:6} us  quiet {statistics.median(quiet):9,.1f}"
                f"  compacting {statistics.median(beside):9,.1f}"
                f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            )


def main() -> int:
    """Measure; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mb", type=int, default=300)
    parser.add_argument("--memory-mb", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of reading without compaction")
    parser.add_argument("--dir", default=".")
    chosen = parser.parse_args()
    count = chosen.mb * 1_000_000 // ROW_BYTES
    if count < 1 or not 1 <= chosen.rounds <= 200 or chosen.seconds <= 0:
        parser.error("at least 1 MB, 1 to 200 rounds, and some time")
    about = hardware(chosen.dir)
    for name in ("cpu", "cpus", "file_system", "kernel", "python", "commit", "command"):
        print(f"{name}: {about[name]}")
    limit = chosen.memory_mb * MIB
    with (
        tempfile.TemporaryDirectory(dir=chosen.dir) as directory,
        marram.open(directory, engine="lsm", durability="none", memory_limit=limit) as db,
    ):
        reader = Reader(db, count)
        for number in range(count):
            db.put(key_of(number), value_of(number, 0))
        pairs = []
        for turn in range(chosen.rounds):
            reader.put_anew(range(turn % OVERWRITTEN_SHARE, count, OVERWRITTEN_SHARE))
            wait_until_settled(directory)
            reader.quiet(min(1.0, chosen.seconds))  # fills the cache
            quiet = reader.quiet(chosen.seconds)
            show(f"{turn + 1} quiet", quiet)
            beside = reader.beside(db.compact)
            show(f"{turn + 1} compacting", beside)
            pairs.append((quiet, beside))
        compare(pairs)
    print(f"wrong values: {reader.wrong}")
    return 1 if reader.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
