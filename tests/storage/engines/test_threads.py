"""Real threads on a real disk: writers, readers, snapshots, counts and upkeep at once.

    MARRAM_THREADS_OPERATIONS=2000 MARRAM_THREADS_SEED=7 pytest .../test_threads.py

runs each writer for that many batches, or ten times as many where none is synced. Memtables are
tiny, so that flushes and compactions run all the time. Every value names its batch, and each writer
has keys of its own: so whatever a reader finds can be told to be right or wrong by the writers'
journals alone.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

import marram
from marram.coding.batch import Change, delete, delete_range, put
from marram.env.posix import posix_env
from marram.storage.db import DB
from marram.storage.snapshot import Snapshot
from marram.storage.verify import verify_directory

OPERATIONS = int(os.environ.get("MARRAM_THREADS_OPERATIONS", "80"))
SEED = int(os.environ.get("MARRAM_THREADS_SEED", "1"))

KIB = 1024
OPTIONS: dict[str, dict[str, Any]] = {
    "memory": {
        "engine": "memory", "checkpoint_log_bytes": 64 * KIB, "checkpoint_log_ratio": 0.0,
    },
    "lsm": {"engine": "lsm", "memtable_bytes": 8 * KIB},
    "lsm-few-open-tables": {
        "engine": "lsm", "memtable_bytes": 8 * KIB, "max_open_tables": 2, "durability": "none",
    },
}  # fmt: skip

WRITERS = 3
READERS = 2
GROUPS = 12  # of a writer; a batch changes one of them whole
PLACES = (b"a", b"m", b"z")  # far from each other, so that a group's keys are in several tables
TIMED = 5  # the keyspace whose keys have deadlines

State = dict[bytes, bytes]


class Writer:
    """One writer, and its journal: journal[n] is what batch n does to its keys; 0 is nothing.

    acknowledged: the last batch that is; the journal's last may be under way. turn: held while one
    is.
    """

    def __init__(self, number: int, seed: int) -> None:
        self.number = number
        self.journal: list[dict[bytes, bytes | None]] = [{}]
        self.acknowledged = 0
        self.turn = threading.Lock()
        self._random = Random(seed * 100 + number)
        # b, not one of PLACES: what one range deletion takes away
        self._row = b"b/%d/" % number

    def write(self, db: DB) -> None:
        """Commit one batch."""
        random, n = self._random, len(self.journal)
        group = random.randrange(GROUPS)
        keys = [self.key(place, group) for place in PLACES]
        value = b"%d:%d:" % (self.number, n) + b"x" * random.choice((5, 50, 300))
        what = random.random()
        changes: list[Change]
        effect: dict[bytes, bytes | None]
        if what < 0.6:
            changes = [put(0, key, value) for key in keys]
            effect = dict.fromkeys(keys, value)
        elif what < 0.75:
            changes = [delete(0, key) for key in keys]
            effect = dict.fromkeys(keys)
        elif what < 0.92:
            some = [self._row + b"%02d" % i for i in random.sample(range(30), 8)]
            changes = [put(0, key, value) for key in some]
            effect = dict.fromkeys(some, value)
        else:
            start, stop = sorted(random.sample(range(31), 2))
            low, high = self._row + b"%02d" % start, self._row + b"%02d" % stop
            changes = [delete_range(0, low, high)]
            effect = dict.fromkeys(self._row + b"%02d" % i for i in range(start, stop))
        if random.random() < 0.3:
            ttl_ms = random.choice((1, 20, 10**7))
            name = b"%d/%d" % (self.number, random.randrange(40))
            changes.append(put(TIMED, name, value, db.store.now_ms() + ttl_ms))
        self.journal.append(effect)
        db.commit(changes)
        self.acknowledged = n

    def key(self, place: bytes, group: int) -> bytes:
        """The key of a group at one of PLACES."""
        return b"%s/%d/%02d" % (place, self.number, group)

    def owns(self, key: bytes) -> bool:
        """Whether a key is this writer's."""
        return key.split(b"/")[1] == b"%d" % self.number

    def states(
        self, first: int, last: int, start: tuple[int, State]
    ) -> Iterator[tuple[int, State]]:
        """(n, its keys after batch n) for n of [first, last]; start: some (n, state) before."""
        at, state = start[0], dict(start[1])
        while True:
            if at >= first:
                yield at, state
            if at >= last:
                return
            at += 1
            for key, value in self.journal[at].items():
                if value is None:
                    state.pop(key, None)
                else:
                    state[key] = value


class Workshop:
    """The store, its writers, and what went wrong."""

    def __init__(self, path: Path, options: dict[str, Any], seed: int) -> None:
        self.path = path
        self.options = options
        self.db = marram.open(path / "db", **options)
        self.writers = [Writer(n, seed) for n in range(WRITERS)]
        self.errors: list[BaseException] = []
        self.stop = threading.Event()
        self.left = WRITERS
        self.operations = OPERATIONS * (10 if options.get("durability") == "none" else 1)
        self.seed = seed
        self.copies = 0

    def run(self, *chores: Callable[[Workshop, Random], None]) -> None:
        """Write, read, and do the chores over and over until all is written. Raises what failed."""
        works = [lambda w=writer: self._write(w) for writer in self.writers]
        works += [lambda c=chore: self._repeat(c) for chore in chores]
        threads = [threading.Thread(target=self._guarded, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self.errors.append(error)
            self.stop.set()

    def _write(self, writer: Writer) -> None:
        for _ in range(self.operations):
            if self.stop.is_set():
                return
            with writer.turn:
                writer.write(self.db)
        self.left -= 1
        if self.left <= 0:
            self.stop.set()

    def _repeat(self, chore: Callable[[Workshop, Random], None]) -> None:
        random = Random(repr((self.seed, chore)))
        while True:
            chore(self, random)
            if self.stop.is_set():
                return

    # -- what is right -----------------------------------------------------------------------------

    def acknowledged(self) -> list[int]:
        """The last acknowledged batch of each writer."""
        return [writer.acknowledged for writer in self.writers]

    def check_state(
        self, state: Mapping[bytes, bytes], since: list[int], known: list[tuple[int, State]]
    ) -> list[tuple[int, State]]:
        """Assert that a state is one that was, each batch whole, no older than `since`.

        known: some earlier state of each writer, to begin from. Returns which ones these are.
        """
        found: list[tuple[int, State]] = []
        for writer, first, start in zip(self.writers, since, known, strict=True):
            last = len(writer.journal) - 1
            mine = {key: value for key, value in state.items() if writer.owns(key)}
            for n, expected in writer.states(first, last, start):
                if expected == mine:
                    found.append((n, dict(expected)))
                    break
            else:
                raise AssertionError(self._told(writer, first, last, start, mine))
        return found

    def _told(
        self, writer: Writer, first: int, last: int, start: tuple[int, State], mine: State
    ) -> str:
        nearest = min(
            (
                (dict(expected.items() ^ mine.items()), n)
                for n, expected in writer.states(first, last, start)
            ),
            key=lambda pair: len(pair[0]),
        )
        keys = sorted(nearest[0])
        seen = [(key, mine.get(key, b"-")[:20]) for key in keys[:5]]
        return (
            f"writer {writer.number}: no state of batches {first}..{last}; nearest is "
            f"{nearest[1]}, {len(keys)} keys differ, found {seen}"
        )


def fresh() -> list[tuple[int, State]]:
    """The writers' states before their first batches."""
    return [(0, {}) for _ in range(WRITERS)]


# -- chores ----------------------------------------------------------------------------------------


class Getter:
    """Looks keys up: never older than what was acknowledged, or was seen, before it asked."""

    def __init__(self) -> None:
        self._seen: dict[bytes, int] = {}

    def __call__(self, workshop: Workshop, random: Random) -> None:
        for _ in range(50):
            writer = random.choice(workshop.writers)
            key = writer.key(random.choice(PLACES), random.randrange(GROUPS))
            first = max(writer.acknowledged, self._seen.get(key, 0))
            value = workshop.db.get(key)
            last = len(writer.journal) - 1
            if value is not None:
                n = int(value.split(b":")[1])
                assert writer.journal[n][key] == value, f"{key!r} never held {value[:20]!r}"
                newer = [i for i in range(n + 1, first + 1) if key in writer.journal[i]]
                assert not newer, f"{key!r} is of batch {n}, and {newer} came before"
                self._seen[key] = max(n, self._seen.get(key, 0))
            else:
                since = max((i for i in range(first + 1) if key in writer.journal[i]), default=0)
                could = [since, *range(first + 1, last + 1)]
                assert any(writer.journal[i].get(key, b"") is None for i in could) or (
                    since == 0
                ), f"{key!r} is missing, it was written in batch {since}"


class Scanner:
    """Scans everything: one position, each batch whole."""

    def __init__(self) -> None:
        self._known = fresh()

    def __call__(self, workshop: Workshop, random: Random) -> None:
        since = workshop.acknowledged()
        backwards, chunk = random.random() < 0.5, random.choice((1, 7, 100))
        chunks = workshop.db.scan_chunks(reverse=backwards, chunk=chunk)
        pairs = [pair for rows in chunks for pair in rows]
        keys = [key for key, _ in pairs]
        assert keys == sorted(set(keys), reverse=backwards)
        self._known = workshop.check_state(dict(pairs), since, self._known)


class Historian:
    """Keeps snapshots, and compares them again when much has happened."""

    def __init__(self) -> None:
        self._known = fresh()
        self._kept: list[tuple[Snapshot, State]] = []

    def __call__(self, workshop: Workshop, random: Random) -> None:
        if len(self._kept) < 3:
            since = workshop.acknowledged()
            snapshot = workshop.db.snapshot()
            state = dict(snapshot.scan())
            self._known = workshop.check_state(state, since, self._known)
            self._kept.append((snapshot, state))
            return
        snapshot, state = random.choice(self._kept)
        for _ in range(20):
            writer = random.choice(workshop.writers)
            key = writer.key(random.choice(PLACES), random.randrange(GROUPS))
            assert snapshot.get(key) == state.get(key), f"{key!r} at {snapshot.position}"
        assert dict(snapshot.scan(reverse=random.random() < 0.5)) == state
        if random.random() < 0.3:
            self._kept.remove((snapshot, state))
            if random.random() < 0.5:
                snapshot.close()  # else the garbage collector does it


def count(workshop: Workshop, random: Random) -> None:
    """len(): some number beside writers, the right one while they wait."""
    len(workshop.db)
    for writer in workshop.writers:
        writer.turn.acquire()
    try:
        if workshop.errors:
            return
        db, timed = workshop.db, workshop.db.keyspace(TIMED)
        assert len(db) == len(list(db.scan()))
        before = len(list(timed.scan()))  # they expire while we look
        found = len(timed)
        assert before >= found >= len(list(timed.scan()))
    finally:
        for writer in workshop.writers:
            writer.turn.release()


def compact(workshop: Workshop, random: Random) -> None:
    if random.random() < 0.5:
        workshop.db.compact()
    else:
        workshop.db.compact(random.choice(PLACES), None)


def checkpoint(workshop: Workshop, random: Random) -> None:
    workshop.db.checkpoint()


def verify(workshop: Workshop, random: Random) -> None:
    report = workshop.db.verify()
    assert report.ok, report.problems[:3]
    assert not report.orphans


def backup(workshop: Workshop, random: Random) -> None:
    """A copy holds the state of one position, and is whole."""
    since = workshop.acknowledged()
    workshop.copies += 1
    target = workshop.path / f"copy-{workshop.copies}"
    workshop.db.backup(target)
    assert verify_directory(posix_env(), str(target)).ok
    with marram.open(target) as copy:
        workshop.check_state(dict(copy.scan()), since, fresh())
        assert len(copy) == len(list(copy.scan()))


# -- claims ----------------------------------------------------------------------------------------


@pytest.mark.timeout(120 + OPERATIONS)
@pytest.mark.parametrize("name", OPTIONS)
def test_readers_writers_and_upkeep_do_not_see_each_other(name: str, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, OPTIONS[name], SEED)

    getters = [Getter() for _ in range(READERS)]
    workshop.run(*getters, Scanner(), Historian(), count, compact, checkpoint, verify, backup)

    written = workshop.acknowledged()
    final = workshop.check_state(dict(workshop.db.scan()), written, fresh())
    workshop.db.close()
    assert verify_directory(posix_env(), str(tmp_path / "db")).ok
    with marram.open(tmp_path / "db", **OPTIONS[name]) as again:
        assert workshop.check_state(dict(again.scan()), written, final) == final
        assert len(again) == len(list(again.scan()))


@pytest.mark.parametrize("name", OPTIONS)
def test_o3_closing_under_use_gives_closed_and_loses_nothing(name: str, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, OPTIONS[name], SEED)

    def close(workshop: Workshop, random: Random) -> None:
        while sum(workshop.acknowledged()) < workshop.operations and not workshop.errors:
            time.sleep(0.001)  # no luck: how much was written decides, not when
        workshop.db.close()
        workshop.stop.set()

    closed = tolerant(marram.Closed)
    workshop.writers = [TolerantWriter(n, SEED) for n in range(WRITERS)]
    workshop.run(
        closed(Getter()), closed(Scanner()), closed(Historian()), closed(checkpoint), close
    )

    with marram.open(tmp_path / "db", **OPTIONS[name]) as again:
        workshop.check_state(dict(again.scan()), workshop.acknowledged(), fresh())
        assert len(again) == len(list(again.scan()))


class TolerantWriter(Writer):
    """Takes it that the store is closed."""

    def write(self, db: DB) -> None:
        try:
            super().write(db)
        except marram.Closed:
            if len(self.journal) - 1 > self.acknowledged:
                self.journal.pop()  # nothing was changed (O2)


def tolerant(
    *kinds: type[Exception],
) -> Callable[[Callable[[Workshop, Random], None]], Callable[[Workshop, Random], None]]:
    """A chore that takes it when one of these is raised."""

    def wrap(chore: Callable[[Workshop, Random], None]) -> Callable[[Workshop, Random], None]:
        def wrapped(workshop: Workshop, random: Random) -> None:
            try:
                chore(workshop, random)
            except kinds:
                return

        return wrapped

    return wrap
