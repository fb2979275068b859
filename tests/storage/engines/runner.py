"""Runs the steps of a history over a store on a simulated disk, and compares every answer.

Owns what each step means, for the store and for the model alike. Background work of the store
runs in the step `background` only, so that checkpoints, flushes and compactions meet everything.

R1  an answer is compared with the model's when it is given, and folded into `digest`, where it is
    to be the same over all option sets.
R2  what a step does depends on its arguments and on the model, never on the store's answers; only
    what a power cut may take without `durability="sync"` differs between option sets.

Threading: one thread.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any

import marram
from marram.coding.batch import (
    DELETE_RANGE,
    SWAP,
    Change,
    delete,
    delete_range,
    expire,
    patch,
    put,
    swap,
)
from marram.env.api import Task
from marram.env.memory import MemoryEnv
from marram.storage.backup import restore
from marram.storage.db import DB
from marram.storage.entry import deadline_of
from marram.storage.snapshot import Snapshot
from marram.storage.verify import verify_directory
from tests.storage.engines.model import Bounds, Journal, Pair, State
from tests.storage.engines.steps import SPACES, Step, Value

DIRECTORY = "/data/db"
_EVERYTHING = Bounds()
_BACKWARDS = Bounds(reverse=True)
_ROWS_MAX = 2000  # more than there are: a scan that never ends is a wrong answer, too


class HistoryFailed(Exception):
    """A step went wrong: its index, and why (the cause)."""

    def __init__(self, index: int, step: Step, error: BaseException) -> None:
        super().__init__(f"step {index}, {step}: {type(error).__name__}: {error}")
        self.index = index


def run(steps: Sequence[Step], options: dict[str, Any]) -> int:
    """Run a history over a new store; returns the digest of its answers. Raises HistoryFailed."""
    runner = Runner(options)
    for index, step in enumerate([*steps, Step("check"), Step("reopen"), Step("check")]):
        try:
            runner.perform(step)
        except Exception as error:
            runner.abandon()
            raise HistoryFailed(index, step, error) from error
    runner.close()
    return runner.digest


class Runner:
    """A store and its model, side by side."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.sync = options.get("durability", "sync") == "sync"
        self.env = _tamed(MemoryEnv(seed=1))
        self.journal = Journal()
        self.digest = 0
        self.applied: list[Change] = []  # by every step; a transaction looks at its part
        self.snapshots: dict[int, tuple[Snapshot, State, int, int]] = {}
        self.iterators: dict[int, tuple[Iterator[list[Pair]], list[Pair]]] = {}
        self.copies = 0
        self.open()

    # -- a life ----------------------------------------------------------------------------------

    def open(self) -> None:
        """Open (or reopen) the store."""
        self.db = marram.open(DIRECTORY, env=self.env, **self.options)
        assert self.db.store.now_ms() == self.env.wall_ms()

    def perform(self, step: Step) -> None:
        """Do one step. Raises AssertionError where an answer is wrong, or what the store raises."""
        getattr(self, step.kind)(*step.args)

    def close(self) -> None:
        """Close the store, and see that what it gave out is closed with it."""
        self.db.close()
        self.journal.synced = self.journal.acknowledged
        for snapshot, *_ in self.snapshots.values():
            _refused(partial(snapshot.get, b"a"), marram.Closed)
        self._drop_readers()

    def abandon(self) -> None:
        """Drop the store as a dead process would."""
        self.db.store.after_fork()
        self._drop_readers()

    def _drop_readers(self) -> None:
        self.snapshots.clear()
        self.iterators.clear()

    # -- writes ----------------------------------------------------------------------------------

    def put(self, space: int, key: bytes, value: Value, ttl_ms: int | None) -> None:
        held = value.bytes()
        self._space(space).put(key, held, _seconds(ttl_ms))
        self._wrote([put(space, key, held, self._deadline(ttl_ms))])

    def delete(self, space: int, key: bytes) -> None:
        there = self._held(space, key) is not None
        self._answer(self._space(space).delete(key), there)
        if there:
            self._wrote([delete(space, key)])

    def batch(self, space: int, edits: Sequence[Any]) -> None:
        changes = []
        with self._space(space).batch() as batch:
            for kind, key, *rest in edits:
                if kind == "put":
                    held = rest[0].bytes()
                    batch.put(key, held, _seconds(rest[1]))
                    changes.append(put(space, key, held, self._deadline(rest[1])))
                elif kind == "delete":
                    batch.delete(key)
                    changes.append(delete(space, key))
                else:
                    batch.delete_range(key, rest[0])
                    changes.append(delete_range(space, key, rest[0]))
        self._wrote(changes)

    def commit(self, specs: Sequence[Any]) -> None:
        changes, _ = self._resolved(self.journal.now, specs)
        self.db.commit(changes)
        self._wrote(changes)

    def unit(self, parts: Sequence[Any], reads: Sequence[Any], commits: bool) -> None:
        """Changes that the server applies one by one and logs as one batch, or takes back."""
        store, state, now_ms = self.db.store, self.journal.now, self._now()
        changes: list[Change] = []
        unit = store.begin()
        try:
            for specs in parts:
                part, state = self._resolved(state, specs)
                unit.apply(part)
                changes += part
                for space, key in reads:
                    view = store.view(space)
                    view.begin(now_ms)
                    self._answer(view.string(key), state.get(space, key, now_ms))
            sequence = unit.commit() if commits else 0
        finally:
            unit.rollback()
        store.wait(sequence)
        if commits:
            self._wrote(changes)

    def put_many(self, space: int, items: Sequence[tuple[bytes, Value]]) -> None:
        pairs = [(key, value.bytes()) for key, value in items]
        self._space(space).put_many(pairs)
        self._wrote([put(space, key, value) for key, value in pairs])

    def delete_range(self, space: int, start: bytes, stop: bytes | None) -> None:
        self.batch(space, (("delete_range", start, stop),))

    def clear(self, space: int) -> None:
        self._space(space).clear()
        self._wrote([delete_range(space, b"", None)])

    def swap(self, one: int, other: int) -> None:
        self.db.commit([swap(one, other)])
        self._wrote([swap(one, other)])

    def expire(self, space: int, key: bytes, ttl_ms: int) -> None:
        there = self._held(space, key) is not None
        self._answer(self._space(space).expire(key, ttl_ms / 1000), there)
        if there:
            self._wrote([expire(space, key, self._deadline(ttl_ms))])

    def persist(self, space: int, key: bytes) -> None:
        held = self._held(space, key)
        had_one = held is not None and held[1] > 0
        self._answer(self._space(space).persist(key), had_one)
        if had_one:
            self._wrote([expire(space, key, 0)])

    def compare_and_set(self, space: int, key: bytes, right: bool, new: Value | None) -> None:
        before = self._get(space, key)
        after = None if new is None else new.bytes()
        expected = before if right else b"held by no key"
        self._answer(self._space(space).compare_and_set(key, expected, after), right)
        if right and after is not None:
            self._wrote([put(space, key, after)])
        elif right and before is not None:
            self._wrote([delete(space, key)])

    def pop(self, space: int, key: bytes) -> None:
        before = self._get(space, key)
        self._answer(self._space(space).pop(key, None), before)
        if before is not None:
            self._wrote([delete(space, key)])

    def setdefault(self, space: int, key: bytes, value: Value) -> None:
        before, default = self._get(space, key), value.bytes()
        self._answer(
            self._space(space).setdefault(key, default), default if before is None else before
        )
        if before is None:
            self._wrote([put(space, key, default)])

    def transaction(
        self, space: int, reads: Sequence[bytes], bounds: Bounds | None,
        others: Sequence[Step], edits: Sequence[Any], commits: bool,
    ) -> None:  # fmt: skip
        before, now_ms, first = self.journal.now, self._now(), len(self.applied)
        transaction = self._space(space).transaction()
        for key in reads:
            self._answer(transaction.get(key), before.get(space, key, now_ms))
        if bounds is not None:
            self._answer(_scan(transaction, bounds), before.scan(space, now_ms, bounds))
        for step in others:
            self.perform(step)
        changes = self._write_in(transaction, space, edits)
        mine = before.after(changes)
        for change in changes:
            self._answer(transaction.get(change[2]), mine.get(space, change[2], now_ms))
        if bounds is not None:
            self._answer(_scan(transaction, bounds), mine.scan(space, now_ms, bounds))
        conflict = self._conflict(space, before, reads, bounds, self.applied[first:])
        if not commits or not changes or conflict is None:
            transaction.rollback()
        elif conflict:
            _refused(transaction.commit, marram.Conflict)
        else:
            transaction.commit()
            self._wrote(changes)

    def _write_in(self, transaction: Any, space: int, edits: Sequence[Any]) -> list[Change]:
        changes = []
        for kind, key, *rest in edits:
            if kind == "put":
                held = rest[0].bytes()
                transaction.put(key, held, _seconds(rest[1]))
                changes.append(put(space, key, held, self._deadline(rest[1])))
            else:
                transaction.delete(key)
                changes.append(delete(space, key))
        return changes

    def _conflict(
        self, space: int, before: State, reads: Sequence[bytes], bounds: Bounds | None,
        applied: Sequence[Change],
    ) -> bool | None:  # fmt: skip
        """Whether the commit must fail; None where an engine may see it either way: something
        was written there, and yet everything is as it was."""
        now_ms = self._now()
        within = None if bounds is None else Bounds(bounds.prefix, bounds.start, bounds.stop)
        old, new = before.spaces[space], self.journal.now.spaces[space]
        read = {*reads, *(filter(within.has, {*old, *new}) if within is not None else ())}
        if any(
            before.held(space, key, now_ms) != self.journal.now.held(space, key, now_ms)
            for key in read
        ):
            return True
        for kind, number, key, _, other, _ in applied:
            if kind == SWAP and space in (number, other):
                return None
            if number == space and (
                kind == DELETE_RANGE or key in read or (within is not None and within.has(key))
            ):
                return None
        return False

    # -- reads -----------------------------------------------------------------------------------

    def get(self, space: int, key: bytes) -> None:
        db, expected = self._space(space), self._get(space, key)
        self._answer(db.get(key), expected)
        self._answer(key in db, expected is not None)

    def get_many(self, space: int, keys: Sequence[bytes]) -> None:
        self._answer(self._space(space).get_many(keys), [self._get(space, key) for key in keys])

    def scan(self, space: int, bounds: Bounds) -> None:
        expected = self.journal.now.scan(space, self._now(), bounds)
        self._answer(_scan(self._space(space), bounds), expected)

    def count(self, space: int) -> None:
        self._answer(len(self._space(space)), self.journal.now.count(space, self._now()))

    def ttl(self, space: int, key: bytes) -> None:
        held, found = self._held(space, key), None
        with suppress(marram.NotFound):
            found = (self._space(space).ttl(key),)
        deadline = held[1] if held is not None else 0
        left = (deadline - self._now()) / 1000 if deadline else None
        self._answer(found, None if held is None else (left,))

    def view(self, space: int, key: bytes, bounds: Bounds, draw: int) -> None:
        """What the server's commands read."""
        view, now_ms = self.db.store.view(space), self._now()
        view.begin(now_ms)
        held = self._held(space, key)
        self._answer(view.string(key), None if held is None else held[0])
        entry = view.entry(key)
        self._answer(None if entry is None else (entry.value, entry.deadline_ms), held)
        # Keys past their deadline count until somebody deletes them.
        live = self.journal.now.count(space, now_ms)
        assert view.count() >= live, f"{view.count()} keys held, {live} exist"
        self._answer(
            list(islice(_walk(view, bounds), _ROWS_MAX)),
            [
                pair[0]
                for pair in self.journal.now.scan(
                    space, now_ms, Bounds(b"", bounds.start, bounds.stop, bounds.reverse)
                )
            ],
        )
        picked = view.random_key(draw)
        assert (picked is None) == (live == 0), f"picked {picked!r}, {live} exist"
        assert picked is None or self._held(space, picked) is not None, f"{picked!r} is gone"

    def check(self) -> None:
        """Everything, both ways."""
        self._check_all(self.db, self.journal.now)
        for space in self.db.store.engine.spaces:
            inner_check: Callable[[], None] | None = getattr(space, "_check", None)
            if inner_check is not None:
                inner_check()
        self.journal.forget()

    # -- reads of the past -----------------------------------------------------------------------

    def open_snapshot(self, slot: int, space: int) -> None:
        self.close_snapshot(slot)
        snapshot = self._space(space).snapshot()
        self.snapshots[slot] = (snapshot, self.journal.now, space, self._now())

    def read_snapshot(self, slot: int, key: bytes, keys: Sequence[bytes], bounds: Bounds) -> None:
        if slot not in self.snapshots:
            return
        snapshot, state, space, now_ms = self.snapshots[slot]
        self._answer(snapshot.get(key), state.get(space, key, now_ms))
        self._answer(key in snapshot, state.get(space, key, now_ms) is not None)
        self._answer(snapshot.get_many(keys), [state.get(space, k, now_ms) for k in keys])
        self._answer(_scan(snapshot, bounds), state.scan(space, now_ms, bounds))

    def close_snapshot(self, slot: int) -> None:
        held = self.snapshots.pop(slot, None)
        if held is not None:
            held[0].close()

    def open_iterator(self, slot: int, space: int, bounds: Bounds, chunk: int) -> None:
        self.iterators.pop(slot, None)
        rows = self._space(space).scan_chunks(
            bounds.prefix, bounds.start, bounds.stop, bounds.reverse, bounds.limit, chunk
        )
        self.iterators[slot] = (rows, self.journal.now.scan(space, self._now(), bounds))
        self.read_iterator(slot, 1)  # it shows the state at its first row

    def read_iterator(self, slot: int, chunks: int) -> None:
        if slot not in self.iterators:
            return
        rows, expected = self.iterators[slot]
        for _ in range(chunks):
            found = next(rows, None)
            if found is None:
                assert not expected, _difference([], expected)
                del self.iterators[slot]
                return
            # Not folded (R1): how many come at once is the engine's own business.
            assert found == expected[: len(found)], _difference(found, expected[: len(found)])
            del expected[: len(found)]

    def close_iterator(self, slot: int) -> None:
        self.iterators.pop(slot, None)

    # -- time and upkeep -------------------------------------------------------------------------

    def advance(self, ms: int) -> None:
        self.env.advance(ms)

    def expire_due(self, limit: int) -> None:
        store = self.db.store
        store.expire_due(limit)
        store.wait(store.last)

    def background(self) -> None:
        self.env.run_background()
        assert self.db.store.failure is None, self.db.store.failure
        error = self.db.stats()["checkpoint"]["last_error"]
        assert not error, f"background work failed: {error}"

    def checkpoint(self) -> None:
        self.db.checkpoint()
        self.journal.synced = self.journal.acknowledged

    def sync_all(self) -> None:
        self.db.sync()
        self.journal.synced = self.journal.acknowledged

    def verify(self) -> None:
        self._answer(self.db.verify().problems, [])

    def backup(self) -> None:
        """A copy has it all, and so has a copy of the copy."""
        self.copies += 1
        first, second = f"/copies/{self.copies}a", f"/copies/{self.copies}b"
        position = self.db.backup(first)
        assert position.sequence == self.db.store.last
        restore(self.env, first, second)
        for directory in (first, second):
            with marram.open(directory, env=self.env, **self.options) as copy:
                self._check_all(copy, self.journal.now)
            _remove_tree(self.env, directory)

    def reopen(self) -> None:
        self.close()
        self._answer(verify_directory(self.env, DIRECTORY).problems, [])
        self.open()

    # -- crashes ---------------------------------------------------------------------------------

    def crash(self, inner: Step | None, nth: int, survival: float, seed: int) -> None:
        """The power goes, at the n-th call that changes the disk within `inner`; go on after it."""
        found = self._cut(inner, nth, survival, seed)
        if found is None:
            found = (self.env.crash_clone(survival, seed), self._floor(survival))
        disk, floor = found
        ceiling = self.db.store.last
        self.abandon()
        self.env = _tamed(disk)
        self.open()
        self.journal.recover(self._recovered(self.db, floor, ceiling))
        self._check_all(self.db, self.journal.now)

    def crash_aside(self, inner: Step, nth: int, survival: float, seed: int) -> None:
        """A look at what such a crash would leave; then go on as if there had been none."""
        found = self._cut(inner, nth, survival, seed)
        if found is None:
            return
        disk, floor = found
        digest = self.digest  # which batches a crash within a write leaves may differ
        with marram.open(DIRECTORY, env=_tamed(disk), **self.options) as db:
            position = self._recovered(db, floor, self.db.store.last)
            self._check_all(db, self.journal.at(position))
        self.digest = digest

    def _cut(
        self, inner: Step | None, nth: int, survival: float, seed: int
    ) -> tuple[MemoryEnv, int] | None:
        """Do `inner`; the disk at its n-th call, and the position that is safe there."""
        if inner is None:
            return None
        env, calls = self.env, 0
        found: list[tuple[MemoryEnv, int]] = []

        def on_call(operation: str, path: str) -> None:
            nonlocal calls
            calls += 1
            if calls == nth:
                found.append((env.crash_clone(survival, seed), self._floor(survival)))

        env.on_call = on_call
        self.perform(inner)
        env.on_call = None
        return found[0] if found else None

    def _floor(self, survival: float) -> int:
        """The position that a crash now may not go behind."""
        return self.journal.acknowledged if survival == 1.0 else self.journal.synced

    def _recovered(self, db: DB, floor: int, ceiling: int) -> int:
        last = db.store.last
        assert floor <= last <= ceiling, f"recovered {last}, promised {floor}, sent {ceiling}"
        return last

    # -- inside ----------------------------------------------------------------------------------

    def _space(self, space: int) -> DB:
        return self.db.keyspace(space)

    def _now(self) -> int:
        return self.env.wall_ms()

    def _deadline(self, ttl_ms: int | None) -> int:
        return 0 if ttl_ms is None else self._now() + ttl_ms

    def _held(self, space: int, key: bytes) -> tuple[bytes, int] | None:
        return self.journal.now.held(space, key, self._now())

    def _get(self, space: int, key: bytes) -> bytes | None:
        return self.journal.now.get(space, key, self._now())

    def _wrote(self, changes: list[Change]) -> None:
        """A batch was acknowledged."""
        position = self.db.store.last
        self.journal.record(self.journal.now.after(changes), position)
        self.journal.acknowledged = position
        if self.sync:
            self.journal.synced = position
        self.applied += changes

    def _resolved(self, state: State, specs: Sequence[Any]) -> tuple[list[Change], State]:
        """The changes that `specs` stand for. As the server does, one that keeps part of a key
        begins with the deletion of what is past its deadline."""
        changes: list[Change] = []
        for kind, space, *rest in specs:
            part: list[Change] = []
            if kind in ("expire", "patch") and state.is_over(space, rest[0], self._now()):
                part.append(delete(space, rest[0]))
            if kind == "put":
                part.append(put(space, rest[0], rest[1].bytes(), self._deadline(rest[2])))
            elif kind == "delete":
                part.append(delete(space, rest[0]))
            elif kind == "expire":
                part.append(expire(space, rest[0], self._deadline(rest[1])))
            elif kind == "patch":
                part.append(patch(space, rest[0], rest[1], rest[2].bytes()))
            elif kind == "swap":
                part.append(swap(space, rest[0]))
            else:
                part.append(delete_range(space, rest[0], rest[1]))
            state = state.after(part)
            changes += part
        return changes, state

    def _check_all(self, db: DB, state: State) -> None:
        now_ms = self._now()
        for number in range(len(state.spaces)):
            space = db.keyspace(number)
            self._answer(len(space), state.count(number, now_ms))
            if number in SPACES:
                for bounds in (_EVERYTHING, _BACKWARDS):
                    self._answer(_scan(space, bounds), state.scan(number, now_ms, bounds))
                with space.snapshot() as snapshot:
                    chunks = islice(snapshot.entries(chunk=30), _ROWS_MAX)
                    rows = [row for chunk in chunks for row in chunk]
                held = state.spaces[number]
                self._answer(
                    [(key, deadline_of(entry)) for key, entry in rows],
                    [(key, held[key][1]) for key, _ in state.scan(number, now_ms, _EVERYTHING)],
                )
                # Last: a read that finds a key past its deadline deletes it.
                self._answer(
                    [space.get(key) for key in held],
                    [state.get(number, key, now_ms) for key in held],
                )

    def _answer(self, found: object, expected: object) -> None:
        """R1."""
        assert found == expected, _difference(found, expected)
        self.digest = _fold(self.digest, found)


class _Idle:
    """A task that never gets its turn."""

    def join(self, timeout_s: float | None = None) -> bool:
        return True


def _tamed(env: MemoryEnv) -> MemoryEnv:
    """Without the endless task of durability="interval": the step sync_all is in its place."""
    start = env.start

    def start_all_but_that(name: str, work: Callable[[], None]) -> Task:
        return _Idle() if name == "marram-sync" else start(name, work)

    env.start = start_all_but_that  # type: ignore[method-assign]
    return env


def _refused(call: Callable[[], object], wanted: type[marram.Error]) -> None:
    try:
        call()
    except wanted:
        return
    raise AssertionError(f"done, must raise {wanted.__name__}")


def _seconds(ttl_ms: int | None) -> float | None:
    return None if ttl_ms is None else ttl_ms / 1000


def _scan(source: Any, bounds: Bounds) -> list[Pair]:
    rows = source.scan(bounds.prefix, bounds.start, bounds.stop, bounds.reverse, bounds.limit)
    return list(islice(rows, _ROWS_MAX))


def _walk(view: Any, bounds: Bounds) -> Iterator[bytes]:
    """The keys of a range as SCAN and KEYS find them, seven at a time."""
    start, stop = bounds.start or b"", bounds.stop
    while True:
        keys, onward = view.keys(start, stop, 7, reverse=bounds.reverse)
        yield from keys
        if onward is None:
            return
        if bounds.reverse:
            stop = onward
        else:
            start = onward


def _remove_tree(env: MemoryEnv, path: str) -> None:
    """The files in a directory; empty directories may stay."""
    for name in env.list_dir(path):
        below = f"{path}/{name}"
        try:
            env.remove(below)
        except IsADirectoryError:
            _remove_tree(env, below)


def _fold(digest: int, answer: object) -> int:
    if isinstance(answer, bytes):
        return zlib.crc32(answer, digest ^ len(answer))
    if isinstance(answer, tuple | list):
        for part in answer:
            digest = _fold(digest, part)
        return zlib.crc32(b"%d" % len(answer), digest)
    return zlib.crc32(repr(answer).encode(), digest)


def _difference(found: object, expected: object) -> str:
    """What is wrong, in one short line, however long the answers are."""
    if isinstance(found, list) and isinstance(expected, list):
        for index, (one, other) in enumerate(zip(found, expected, strict=False)):
            if one != other:
                return f"[{index}] is {_brief(one)}, must be {_brief(other)}"
        more = found[len(expected) :] or expected[len(found) :]
        which = "too many" if len(found) > len(expected) else "missing"
        return f"{len(more)} {which}, the first: {_brief(more[0])}"
    return f"{_brief(found)}, must be {_brief(expected)}"


def _brief(answer: object) -> str:
    if isinstance(answer, tuple):
        return f"({', '.join(map(_brief, answer))})"
    text = repr(answer)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"
