"""marram's engines beside other embedded stores, in one process and in alternating rounds.

Owns the work, its checks and the ratios; not the stores (stores.py), not what is shown (report.py).

E1  a round takes each store once through the same work, on the same keys in the same order; ratios
    are taken round by round, since a shared machine's speed drifts.
E2  every answer is compared with the one expected, outside the timed part, and so is the whole
    store at the end: a fast store that is wrong is no result.
E3  what is alive before a phase is kept from the garbage collector during it.

Keys are 16 bytes, values 100 bytes that do not compress, compression is off. fillrandom and
overwrite sync nothing, but what was written survives the end of the process; sync1 and sync16
return from a put once it is on disk (docs/benchmarks.md says how each store is asked for that).

Threading: the main thread, and for sync16 as many as it says.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from random import Random
from typing import Any, Final, TypeVar

from marram.bench.machine import disk_bytes, drop_page_cache, hardware, wait_until_settled
from marram.bench.results import envelope, spread
from marram.bench.stores import MIB, Pair, Store
from marram.errors import Error, InvalidArgument

T = TypeVar("T")
Note = Callable[[str], None]
Round = dict[str, dict[str, float]]
"""{store: {phase: figure}}"""

VALUE_BYTES: Final = 100
SEEK_ROWS: Final = 100
THREADS: Final = 16
SCAN_CHUNK: Final = 100_000
COLD_SHARE_MAX: Final = 0.05
_WARM_PUTS = 10

RATE, SECONDS, SIZE = "1/s", "s", "MB"
PHASES: Final = {  # what is measured, in which unit
    "fillrandom": RATE,
    "overwrite": RATE,
    "settle": SECONDS,
    "readrandom": RATE,
    "readmissing": RATE,
    "readseq": RATE,
    "seek100": RATE,
    "size": SIZE,
    "open": SECONDS,
    "readcold": RATE,
    "sync1": RATE,
    "sync16": RATE,
}
UNCOMPARED: Final = ("settle",)
"""How long a store goes on by itself is shown, and no merit."""


class WrongAnswer(Error):
    """A store answered something else than what was put in."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to do.

    keys: rows a store gets; rounds: of all stores; memory_bytes: that a store may use, as far as
    that can be set; reads, cold_reads, seeks, sync_puts: requests of those phases. Raises
    InvalidArgument.
    """

    keys: int = 200_000
    rounds: int = 3
    memory_bytes: int = 256 * MIB
    directory: str | None = None
    reads: int = 100_000
    cold_reads: int = 10_000
    seeks: int = 2_000
    sync_puts: int = 1_000

    def __post_init__(self) -> None:
        if self.keys < SEEK_ROWS or self.rounds < 1:
            raise InvalidArgument(f"at least {SEEK_ROWS} keys and 1 round")
        if min(self.reads, self.cold_reads, self.seeks) < 1 or self.sync_puts < THREADS:
            raise InvalidArgument(f"at least one of each, and {THREADS} synced puts")

    def quick(self) -> Plan:
        """A tenth of everything, in one round."""
        return replace(
            self,
            keys=max(SEEK_ROWS, self.keys // 10),
            rounds=1,
            reads=self.reads // 10,
            cold_reads=self.cold_reads // 10,
            seeks=self.seeks // 10,
            sync_puts=max(THREADS, self.sync_puts // 10),
        )


def compare(plan: Plan, stores: Sequence[Store], command: str, note: Note) -> dict[str, Any]:
    """Run it all; the result. Raises WrongAnswer."""
    with tempfile.TemporaryDirectory(prefix="marram-bench-", dir=plan.directory) as parent:
        about = {
            **hardware(parent, command),
            "versions": {store.name: store.version() for store in stores},
            "durability": "sync1, sync16: on disk before a put returns; all else unsynced, and "
            "survives the end of the process",
        }
        rounds = _rounds(plan, stores, parent, note)
    settings = {"keys": plan.keys, "rounds": plan.rounds, "memory_mb": plan.memory_bytes // MIB}
    return envelope(
        "embedded", about, settings,
        stores={store.name: {"version": store.version(), "note": store.note} for store in stores},
        units=PHASES,
        rounds=rounds,
        ratios=all_ratios(rounds, [store.name for store in stores]),
    )  # fmt: skip


def all_ratios(
    rounds: Sequence[Round], names: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """{"marram-memory / lmdb": {phase: {"median", "min", "max"}}}, for each of marram's engines.

    Ours by theirs: of rates, above 1 marram is the faster; of seconds and sizes, below 1 it is the
    better.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for ours in (name for name in names if name.startswith("marram-")):
        for theirs in (name for name in names if name != ours):
            values = {phase: ratios(rounds, ours, theirs, phase) for phase in PHASES}
            found[f"{ours} / {theirs}"] = {
                phase: spread(some)
                for phase, some in values.items()
                if some and phase not in UNCOMPARED
            }
    return found


def ratios(rounds: Sequence[Round], ours: str, theirs: str, phase: str) -> list[float]:
    """Ours by theirs, round by round; [] where either has no such phase."""
    pairs = [(one[ours].get(phase), one[theirs].get(phase)) for one in rounds]
    return [our / max(their, 1e-9) for our, their in pairs if our is not None and their is not None]


def _rounds(plan: Plan, stores: Sequence[Store], parent: str, note: Note) -> list[Round]:
    """All stores in turn (E1); each in a directory that is removed after its turn."""
    work, done = Work(plan), []
    for number in range(plan.rounds):
        one: Round = {}
        for store in stores:
            directory = os.path.join(parent, f"{number}-{store.name}")
            os.mkdir(directory)
            started = time.monotonic()
            one[store.name] = run(store, work, directory, note)
            shutil.rmtree(directory)
            took = time.monotonic() - started
            note(f"round {number + 1} of {plan.rounds}: {store.name}, {took:.0f} s")
        done.append(one)
    return done


# -- the work --------------------------------------------------------------------------------------


class Work:
    """Which keys, which values, in which order; the same for every store."""

    def __init__(self, plan: Plan) -> None:
        self.count = keys = plan.keys
        self._pool = Random(1).randbytes(MIB)
        self.fill_order = self._shuffled(2)
        self.overwrite_order = self._shuffled(3)
        chosen = Random(4)
        self.reads = [chosen.randrange(keys) for _ in range(plan.reads)]
        self.cold_reads = [chosen.randrange(keys) for _ in range(plan.cold_reads)]
        self.seeks = [chosen.randrange(keys - SEEK_ROWS + 1) for _ in range(plan.seeks)]
        self.sync_puts = [chosen.randrange(keys) for _ in range(plan.sync_puts)]

    def _shuffled(self, seed: int) -> list[int]:
        numbers = list(range(self.count))
        Random(seed).shuffle(numbers)
        return numbers

    @staticmethod
    def key(number: int) -> bytes:
        """The key of a row, ascending with its number."""
        return b"%016d" % (2 * number)

    @staticmethod
    def missing(number: int) -> bytes:
        """A key that no store has, right after that of row `number`."""
        return b"%016d" % (2 * number + 1)

    def value(self, number: int, generation: int) -> bytes:
        """What a row holds after it was put for the `generation`-th time, from 0."""
        at = (number * 7919 + generation * 104729) % (MIB - VALUE_BYTES)
        return self._pool[at : at + VALUE_BYTES]

    def pairs(self, order: Iterable[int], generation: int) -> list[Pair]:
        """The rows in that order."""
        return [(self.key(number), self.value(number, generation)) for number in order]


def timed(call: Callable[..., T], *args: Any) -> tuple[float, T]:
    """(seconds, answer). What is alive beforehand is kept from the garbage collector meanwhile."""
    gc.collect()
    gc.freeze()
    started = time.perf_counter()
    answer = call(*args)
    took = time.perf_counter() - started
    gc.unfreeze()
    return took, answer


def same(answer: object, expected: object, what: str) -> None:
    """Raises WrongAnswer where they differ."""
    if answer != expected:
        raise WrongAnswer(what)


def run(store: Store, work: Work, directory: str, note: Note) -> dict[str, float]:
    """One store through all phases in an empty directory: {phase: figure}."""
    found: dict[str, float] = {}
    store.open(directory, synced=False)
    for phase, order in (("fillrandom", work.fill_order), ("overwrite", work.overwrite_order)):
        pairs = work.pairs(order, 0 if phase == "fillrandom" else 1)
        took, _ = timed(store.put_all, pairs)
        del pairs
        found[phase] = work.count / took
    if store.persistent:
        found["settle"] = wait_until_settled(directory)
    read(store, work, found)
    store.close()
    if store.persistent:
        found["size"] = disk_bytes(directory) / 1e6
        reopen(store, work, directory, found, note)
        sync(store, work, directory, found)
    return found


def read(store: Store, work: Work, found: dict[str, float]) -> None:
    """The phases that only read, with whatever is cached by then."""
    keys = [work.key(number) for number in work.reads]
    expected = [work.value(number, 1) for number in work.reads]
    same(store.get_all(keys), expected, f"{store.name}: readrandom, before the clock")
    took, values = timed(store.get_all, keys)
    found["readrandom"] = len(keys) / took
    same(values, expected, f"{store.name}: readrandom")

    keys = [work.missing(number) for number in work.reads]
    took, values = timed(store.get_all, keys)
    found["readmissing"] = len(keys) / took
    same(values, [None] * len(keys), f"{store.name}: readmissing")

    found["readseq"] = work.count / check_all(store, work, frozenset())

    if store.seeks:
        keys = [work.key(number) for number in work.seeks]
        took, rows = timed(lambda: [store.rows_from(key, SEEK_ROWS) for key in keys])
        found["seek100"] = len(keys) / took
        for number, some in zip(work.seeks, rows, strict=True):
            pairs = work.pairs(range(number, number + SEEK_ROWS), 1)
            same(some, pairs, f"{store.name}: seek100")


def check_all(store: Store, work: Work, newer: frozenset[int]) -> float:
    """Read all rows and compare; newer: which hold generation 2. Returns the seconds of reading."""
    rows, total, count = store.rows(), 0.0, 0
    while True:
        took, some = timed(lambda: list(islice(rows, SCAN_CHUNK)))
        total += took
        if not some:
            break
        numbers = range(count, count + len(some))
        if not store.ordered:
            numbers = [int(key) // 2 for key, _ in some]  # type: ignore[assignment]
        expected = [(work.key(n), work.value(n, 2 if n in newer else 1)) for n in numbers]
        same(some, expected, f"{store.name}: readseq")
        count += len(some)
    same(count, work.count, f"{store.name}: rows in all")
    return total


def reopen(store: Store, work: Work, directory: str, found: dict[str, float], note: Note) -> None:
    """Open and read with nothing in memory."""
    share = drop_page_cache(directory)
    if share > COLD_SHARE_MAX:
        note(f"{store.name}: {share:.0%} of the pages stayed in memory: no cold run")
    found["open"], _ = timed(store.open, directory, False)
    keys = [work.key(number) for number in work.cold_reads]
    took, values = timed(store.get_all, keys)
    found["readcold"] = len(keys) / took
    expected = [work.value(number, 1) for number in work.cold_reads]
    same(values, expected, f"{store.name}: readcold")
    store.close()


def sync(store: Store, work: Work, directory: str, found: dict[str, float]) -> None:
    """Durable puts, by one thread and by THREADS; then everything is read once more."""
    store.open(directory, synced=True)
    pairs = work.pairs(work.sync_puts, 2)
    for key, value in pairs[:_WARM_PUTS]:
        store.put(key, value)
    took, _ = timed(put_each, store, pairs)
    found["sync1"] = len(pairs) / took
    shares = [pairs[at::THREADS] for at in range(THREADS)]
    took, _ = timed(in_threads, [lambda share=share: put_each(store, share) for share in shares])
    found["sync16"] = len(pairs) / took
    store.close()
    store.open(directory, synced=False)
    check_all(store, work, frozenset(work.sync_puts))
    store.close()


def put_each(store: Store, pairs: Sequence[Pair]) -> None:
    """Durable puts, one after the other."""
    for key, value in pairs:
        store.put(key, value)


def in_threads(calls: Sequence[Callable[[], None]]) -> None:
    """All at once, a thread each. Raises what the first that failed raised."""
    failed: list[BaseException] = []

    def guarded(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
