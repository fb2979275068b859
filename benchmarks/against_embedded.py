"""marram and other embedded stores side by side in one process, in alternating rounds.

    python benchmarks/against_embedded.py [--keys 200000] [--rounds 3] [--dir DIR] [--json FILE]
                                          [--memory-mb 256] [--engines NAME,NAME]

A round takes each store once through the same work, on the same keys in the same order, and the
ratios are taken round by round: they are what to quote, since a shared machine's speed drifts. A
ratio compares marram with the other: of rates, above 1 marram is the faster; of seconds and sizes,
below 1 it is the better.

Keys are 16 bytes, values 100 bytes that do not compress, compression is off. All are used from
Python as their users would: rocksdict, plyvel (LevelDB), lmdb and sqlite3 from their packages; one
that is not installed is left out with a note. `dict` is Python's own, in memory, unordered and not
durable: it shows what the loop itself costs.

Durability is the same for all. fillrandom and overwrite sync nothing, but what was written
survives the end of the process: marram durability="none", RocksDB and LevelDB with their log
unsynced, sqlite WAL with synchronous=OFF, lmdb sync=False (no writemap). sync1 and sync16 return
from a put once it is on disk: durability="sync", sync=True, synchronous=FULL, lmdb sync=True.

Memory is the same too, as far as it can be set: --memory-mb for marram's lsm engine (memory_limit)
and for sqlite (cache_size). RocksDB and LevelDB get memtables as marram has them by default, an
eighth of that but 64 MiB at most, and all of it but two memtables as block cache; and Bloom filters
of 10 bits a key, as marram. lmdb takes what the page cache gives. marram's memory engine
and the dict hold everything, so "cold" is about the file only: opening reads it all.

Every answer is compared with the one expected, outside the timed part; so are the keys of the
whole store at the end. 5,000,000 keys take about 3 GB of memory beside the stores, for the work.

Needs Linux. The data goes to a temporary directory below --dir (the working directory), which
should be on the disk to be measured.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import random
import shutil
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from itertools import islice
from typing import Any, TypeVar

from machine import disk_bytes, drop_page_cache, hardware, wait_until_settled

import marram
from marram.storage.options import ENGINES

T = TypeVar("T")
Pair = tuple[bytes, bytes]

TRANSACTION = 1000
"""Puts, and gets, a transaction in lmdb and sqlite where nothing is synced."""
READS = 100_000
COLD_READS = 10_000
SEEKS = 2_000
SEEK_ROWS = 100
SYNC_PUTS = 1_000
"""In total, for sync1 and for sync16 each."""
THREADS = 16
SCAN_CHUNK = 100_000
MIB = 1024 * 1024
MEMTABLE_BYTES_MAX = 64 * MIB
COLD_SHARE_MAX = 0.05

RATE, SECONDS, SIZE = "1/s", "s", "MB"
PHASES = {  # what is measured, in which unit
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


class WrongAnswerError(Exception):
    """A store answered something else than what was put in."""


# -- the stores ------------------------------------------------------------------------------------


class Store:
    """What the work needs of a store. Lists in and out, so that a call costs little a key."""

    name = ""
    persistent = True
    ordered = True
    note = "single puts"

    def __init__(self, memory_bytes: int) -> None:
        """Take the settings; open() does the rest. Raises ImportError where it is not there."""
        self.memory_bytes = memory_bytes
        self.memtable_bytes = min(memory_bytes // 8, MEMTABLE_BYTES_MAX)
        self.cache_bytes = memory_bytes - 2 * self.memtable_bytes
        self.db: Any = None

    def version(self) -> str:
        """Of the package, and of the library below it where it tells."""
        return metadata.version(self.name)

    def open(self, directory: str, synced: bool) -> None:
        """Open, or make, the store in `directory`; synced: put() returns once it is on disk."""
        raise TypeError(directory, synced)

    def put_all(self, pairs: Iterable[Pair]) -> None:
        """Put all, as a user would who needs no sync."""
        put = self.db.put
        for key, value in pairs:
            put(key, value)

    def put(self, key: bytes, value: bytes) -> None:
        """Put one and return once it is on disk; from any thread."""
        self.db.put(key, value)

    def get_all(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """The values, None for a missing one."""
        get = self.db.get
        return [get(key) for key in keys]

    def rows(self) -> Iterator[Pair]:
        """All, in key order."""
        raise TypeError

    def rows_from(self, key: bytes, count: int) -> list[Pair]:
        """The first `count` at or after `key`."""
        raise TypeError(key, count)

    def close(self) -> None:
        """Close it; open() may follow."""
        self.db.close()
        self.db = None


class Marram(Store):
    """One of marram's engines."""

    def __init__(self, memory_bytes: int, engine: str) -> None:
        super().__init__(memory_bytes)
        self.engine = engine
        self.name = f"marram-{engine}"

    def version(self) -> str:
        return marram.__version__

    def open(self, directory: str, synced: bool) -> None:
        options: dict[str, Any] = {}
        if self.engine != "memory":
            options["memory_limit"] = self.memory_bytes
        durability = "sync" if synced else "none"
        self.db = marram.open(directory, engine=self.engine, durability=durability, **options)

    def rows(self) -> Iterator[Pair]:
        return self.db.scan()  # type: ignore[no-any-return]

    def rows_from(self, key: bytes, count: int) -> list[Pair]:
        return list(self.db.scan(start=key, limit=count))


class Rocks(Store):
    """RocksDB by rocksdict."""

    name = "rocksdict"

    def __init__(self, memory_bytes: int) -> None:
        super().__init__(memory_bytes)
        self.package = importlib.import_module("rocksdict")

    def open(self, directory: str, synced: bool) -> None:
        package = self.package
        blocks = package.BlockBasedOptions()
        blocks.set_block_cache(package.Cache(self.cache_bytes))
        blocks.set_bloom_filter(10, False)
        options = package.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(blocks)
        options.set_write_buffer_size(self.memtable_bytes)
        options.set_compression_type(package.DBCompressionType.none())
        self.db = package.Rdict(directory, options)
        if synced:
            write = package.WriteOptions()
            write.sync = True
            self.db.set_write_options(write)

    def rows(self) -> Iterator[Pair]:
        return self.db.items()  # type: ignore[no-any-return]

    def rows_from(self, key: bytes, count: int) -> list[Pair]:
        return list(islice(self.db.items(from_key=key), count))


class Level(Store):
    """LevelDB by plyvel."""

    name = "plyvel"

    def __init__(self, memory_bytes: int) -> None:
        super().__init__(memory_bytes)
        self.package = importlib.import_module("plyvel")

    def open(self, directory: str, synced: bool) -> None:
        del synced  # asked for with each put
        self.db = self.package.DB(
            directory,
            create_if_missing=True,
            write_buffer_size=self.memtable_bytes,
            lru_cache_size=self.cache_bytes,
            bloom_filter_bits=10,
            compression=None,
        )

    def put(self, key: bytes, value: bytes) -> None:
        self.db.put(key, value, sync=True)

    def rows(self) -> Iterator[Pair]:
        return iter(self.db)

    def rows_from(self, key: bytes, count: int) -> list[Pair]:
        with self.db.iterator(start=key) as rows:
            return list(islice(rows, count))


class Lmdb(Store):
    """LMDB by lmdb."""

    name = "lmdb"
    note = f"puts and gets in transactions of {TRANSACTION}, but sync1 and sync16"

    def __init__(self, memory_bytes: int) -> None:
        super().__init__(memory_bytes)
        self.package = importlib.import_module("lmdb")

    def version(self) -> str:
        return f"{super().version()} (LMDB {'.'.join(map(str, self.package.version()))})"

    def open(self, directory: str, synced: bool) -> None:
        self.db = self.package.open(directory, map_size=64 << 30, sync=synced, metasync=synced)

    def put_all(self, pairs: Iterable[Pair]) -> None:
        for some in transactions(pairs):
            with self.db.begin(write=True) as writing:
                put = writing.put
                for key, value in some:
                    put(key, value)

    def put(self, key: bytes, value: bytes) -> None:
        with self.db.begin(write=True) as writing:
            writing.put(key, value)

    def get_all(self, keys: Iterable[bytes]) -> list[bytes | None]:
        values: list[bytes | None] = []
        for some in transactions(keys):
            with self.db.begin() as reading:
                get = reading.get
                values += [get(key) for key in some]
        return values

    def rows(self) -> Iterator[Pair]:
        with self.db.begin() as reading, reading.cursor() as cursor:
            yield from cursor

    def rows_from(self, key: bytes, count: int) -> list[Pair]:
        with self.db.begin() as reading, reading.cursor() as cursor:
            return list(islice(cursor, count)) if cursor.set_range(key) else []


class Sqlite(Store):
    """sqlite, a table of two columns by key; one connection, which threads take in turn."""

    name = "sqlite3"
    note = Lmdb.note

    def __init__(self, memory_bytes: int) -> None:
        super().__init__(memory_bytes)
        self.lock = threading.Lock()

    def version(self) -> str:
        return sqlite3.sqlite_version

    def open(self, directory: str, synced: bool) -> None:
        path = os.path.join(directory, "rows.sqlite")
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.db.execute(f"PRAGMA cache_size = -{self.memory_bytes // 1024}")
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute(f"PRAGMA synchronous = {'FULL' if synced else 'OFF'}")
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID"
        )

    def put_all(self, pairs: Iterable[Pair]) -> None:
        execute = self.db.execute
        for some in transactions(pairs):
            execute("BEGIN")
            for pair in some:
                execute("REPLACE INTO rows VALUES (?, ?)", pair)
            execute("COMMIT")

    def put(self, key: bytes, value: bytes) -> None:
        with self.lock:
            self.db.execute("REPLACE INTO rows VALUES (?, ?)", (key, value))

    def get_all(self, keys: Iterable[bytes]) -> list[bytes | None]:
        execute, values = self.db.execute, []
        for some in transactions(keys):
            execute("BEGIN")
            for key in some:
                row = execute("SELECT value FROM rows WHERE key = ?", (key,)).fetchone()
                values.append(None if row is None else row[0])
            execute("COMMIT")
        return values

    def rows(self) -> Iterator[Pair]:
        return self.db.execute("SELECT key, value FROM rows ORDER BY key")  # type: ignore[no-any-return]

    def rows_from(self, key: bytes, count: int) -> list[Pair]:
        query = "SELECT key, value FROM rows WHERE key >= ? ORDER BY key LIMIT ?"
        return self.db.execute(query, (key, count)).fetchall()  # type: ignore[no-any-return]


class Dict(Store):
    """Python's own."""

    name = "dict"
    persistent = False
    ordered = False
    note = "reference: in memory only"

    def version(self) -> str:
        return ""

    def open(self, directory: str, synced: bool) -> None:
        del directory, synced
        self.db = {}

    def put_all(self, pairs: Iterable[Pair]) -> None:
        db = self.db
        for key, value in pairs:
            db[key] = value

    def rows(self) -> Iterator[Pair]:
        return iter(self.db.items())

    def close(self) -> None:
        self.db = None


def transactions(work: Iterable[T]) -> Iterator[list[T]]:
    """`work` in lists of TRANSACTION."""
    rest = iter(work)
    while some := list(islice(rest, TRANSACTION)):
        yield some


def stores(memory_bytes: int, wanted: Sequence[str]) -> list[Store]:
    """Those that are installed, marram's engines first; all, or those named in `wanted`."""
    made: list[Store] = [Marram(memory_bytes, engine) for engine in ENGINES]
    for kind in (Rocks, Level, Lmdb, Sqlite, Dict):
        try:
            made.append(kind(memory_bytes))
        except ImportError as missing:
            print(f"NOTE: {kind.name} is left out: {missing} (pip install {kind.name})")
    unknown = set(wanted) - {store.name for store in made}
    if unknown:
        raise SystemExit(f"no such store: {', '.join(sorted(unknown))}")
    return [store for store in made if not wanted or store.name in wanted]


# -- the work --------------------------------------------------------------------------------------


class Work:
    """Which keys, which values, in which order; the same for every store."""

    def __init__(self, keys: int) -> None:
        """keys: how many rows a store gets, at least SEEK_ROWS."""
        self.count = keys
        self._pool = random.Random(1).randbytes(MIB)
        self.fill_order = self._shuffled(2)
        self.overwrite_order = self._shuffled(3)
        chosen = random.Random(4)
        self.reads = [chosen.randrange(keys) for _ in range(READS)]
        self.cold_reads = [chosen.randrange(keys) for _ in range(COLD_READS)]
        self.seeks = [chosen.randrange(keys - SEEK_ROWS + 1) for _ in range(SEEKS)]
        self.sync_puts = [chosen.randrange(keys) for _ in range(SYNC_PUTS)]

    def _shuffled(self, seed: int) -> list[int]:
        numbers = list(range(self.count))
        random.Random(seed).shuffle(numbers)
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
        at = (number * 7919 + generation * 104729) % (MIB - 100)
        return self._pool[at : at + 100]

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
    """Raises WrongAnswerError where they differ."""
    if answer != expected:
        raise WrongAnswerError(what)


def run(store: Store, work: Work, directory: str) -> dict[str, float]:
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
        reopen(store, work, directory, found)
        sync(store, work, directory, found)
    return found


def read(store: Store, work: Work, found: dict[str, float]) -> None:
    """The phases that only read, with whatever is cached by then."""
    keys = [work.key(number) for number in work.reads]
    expected = [work.value(number, 1) for number in work.reads]
    same(store.get_all(keys), expected, f"{store.name}: readrandom, before the clock")
    took, values = timed(store.get_all, keys)
    found["readrandom"] = READS / took
    same(values, expected, f"{store.name}: readrandom")

    keys = [work.missing(number) for number in work.reads]
    took, values = timed(store.get_all, keys)
    found["readmissing"] = READS / took
    same(values, [None] * READS, f"{store.name}: readmissing")

    found["readseq"] = work.count / check_all(store, work, frozenset())

    if store.ordered:
        keys = [work.key(number) for number in work.seeks]
        took, rows = timed(lambda: [store.rows_from(key, SEEK_ROWS) for key in keys])
        found["seek100"] = SEEKS / took
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


def reopen(store: Store, work: Work, directory: str, found: dict[str, float]) -> None:
    """Open and read with nothing in memory."""
    share = drop_page_cache(directory)
    if share > COLD_SHARE_MAX:
        print(f"NOTE: {store.name}: {share:.0%} of the pages stayed in memory: no cold run")
    found["open"], _ = timed(store.open, directory, False)
    keys = [work.key(number) for number in work.cold_reads]
    took, values = timed(store.get_all, keys)
    found["readcold"] = COLD_READS / took
    expected = [work.value(number, 1) for number in work.cold_reads]
    same(values, expected, f"{store.name}: readcold")
    store.close()


def sync(store: Store, work: Work, directory: str, found: dict[str, float]) -> None:
    """Durable puts, by one thread and by THREADS; then everything is read once more."""
    store.open(directory, synced=True)
    pairs = work.pairs(work.sync_puts, 2)
    for key, value in pairs[:10]:
        store.put(key, value)
    took, _ = timed(put_each, store, pairs)
    found["sync1"] = SYNC_PUTS / took
    shares = [pairs[at::THREADS] for at in range(THREADS)]
    took, _ = timed(in_threads, [lambda share=share: put_each(store, share) for share in shares])
    found["sync16"] = SYNC_PUTS / took
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


# -- the report ------------------------------------------------------------------------------------

Round = dict[str, dict[str, float]]


def ratios(rounds: Sequence[Round], ours: str, theirs: str, phase: str) -> list[float]:
    """Ours by theirs, round by round; [] where either has no such phase."""
    pairs = [(one[ours].get(phase), one[theirs].get(phase)) for one in rounds]
    return [our / their for our, their in pairs if our is not None and their]


def short(ratio: float) -> str:
    """Two digits, or none where they say nothing."""
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0f}"


def show(rounds: Sequence[Round], names: Sequence[str]) -> None:
    """Medians, then for each of marram's engines the ratio to every other store."""
    width = max(14, *(len(name) for name in names)) + 2
    print(f"\n{'medians':18}" + "".join(f"{name:>{width}}" for name in names))
    for phase, unit in PHASES.items():
        cells = ""
        for name in names:
            figures = [one[name][phase] for one in rounds if phase in one[name]]
            shown = "-"
            if figures:
                shown = f"{statistics.median(figures):,.{3 if unit == SECONDS else 0}f}"
            cells += f"{shown:>{width}}"
        print(f"{phase + ' ' + unit:18}{cells}")
    for ours in (name for name in names if name.startswith("marram-")):
        others = [name for name in names if name != ours]
        title = "(median, min-max of the rounds; of s and MB, less is better)"
        print(f"\n{ours} / each other {title}")
        print(f"{'':18}" + "".join(f"{name:>{width + 6}}" for name in others))
        for phase, unit in PHASES.items():
            cells = ""
            for theirs in others:
                found = ratios(rounds, ours, theirs, phase)
                shown = "-"
                if found and phase != "settle":
                    middle = statistics.median(found)
                    shown = f"{short(middle)} ({short(min(found))}-{short(max(found))})"
                cells += f"{shown:>{width + 6}}"
            if phase != "settle":
                print(f"{phase + ' ' + unit:18}{cells}")


def as_json(
    rounds: Sequence[Round], made: Sequence[Store], about: dict[str, Any]
) -> dict[str, Any]:
    """Everything, for a file."""
    names = [store.name for store in made]
    compared: dict[str, Any] = {}
    for ours in (name for name in names if name.startswith("marram-")):
        for theirs in (name for name in names if name != ours):
            found = {phase: ratios(rounds, ours, theirs, phase) for phase in PHASES}
            compared[f"{ours} / {theirs}"] = {
                phase: {
                    "median": statistics.median(values),
                    "min": min(values),
                    "max": max(values),
                }
                for phase, values in found.items()
                if values
            }
    return {
        **about,
        "stores": {store.name: {"version": store.version(), "puts": store.note} for store in made},
        "units": PHASES,
        "rounds": list(rounds),
        "ratios": compared,
    }


def measure(made: Sequence[Store], work: Work, rounds: int, parent: str) -> list[Round]:
    """All stores in turn, `rounds` times; each in a directory that is removed after its turn."""
    done: list[Round] = []
    for number in range(rounds):
        one: Round = {}
        for store in made:
            directory = os.path.join(parent, f"{number}-{store.name}")
            os.mkdir(directory)
            started = time.monotonic()
            one[store.name] = run(store, work, directory)
            shutil.rmtree(directory)
            took = time.monotonic() - started
            print(f"round {number + 1} of {rounds}: {store.name} {took:.0f} s", flush=True)
        done.append(one)
    return done


def main() -> None:
    """Measure, show, and write the file asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", default=".")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--memory-mb", type=int, default=256)
    parser.add_argument("--engines", default="", help="as in marram-memory,plyvel")
    chosen = parser.parse_args()
    if chosen.keys < SEEK_ROWS or chosen.rounds < 1:
        parser.error(f"at least {SEEK_ROWS} keys and 1 round")
    made = stores(chosen.memory_mb * MIB, [name for name in chosen.engines.split(",") if name])
    about = {
        **hardware(chosen.dir),
        "keys": chosen.keys,
        "memory_mb": chosen.memory_mb,
        "durability": {
            "fillrandom, overwrite": "unsynced; survives the end of the process",
            "sync1, sync16": "on disk before a put returns",
        },
    }
    for name in ("cpu", "cpus", "file_system", "kernel", "python", "commit", "command"):
        print(f"{name}: {about[name]}")
    for store in made:
        print(f"{store.name} {store.version()}".rstrip() + f": {store.note}")
    print(f"keys: {chosen.keys:,}; all phases but sync1 and sync16 sync nothing", flush=True)
    with tempfile.TemporaryDirectory(dir=chosen.dir) as parent:
        rounds = measure(made, Work(chosen.keys), chosen.rounds, parent)
    show(rounds, [store.name for store in made])
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump(as_json(rounds, made, about), file, indent=1)


if __name__ == "__main__":
    main()
