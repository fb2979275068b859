"""A random history of one store on a simulated disk, and every state it passed through.

Owns the oracle: `states[s]` is what the store holds after batch s. A recovered store must equal
states[s] for one s between the last acknowledged batch and the last appended one. Owns, too, the
engines that the suites run over: all that this version has, with options that make the small
stores here use all their kinds of files.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import marram
from marram.coding.batch import KEYSPACES, Change, delete, delete_range, expire, patch, put, swap
from marram.env.api import Task
from marram.env.memory import MemoryEnv
from marram.storage.db import DB
from marram.storage.entry import deadline_of, entry_of
from marram.storage.options import ENGINES, Options

DIRECTORY = "/data/db"
KEYS = [b"k%d" % i for i in range(12)]

State = dict[tuple[int, bytes], tuple[bytes, int]]


_KNOWN = {field.name for field in fields(Options)}
_SMALL: dict[str, dict[str, Any]] = {
    "memory": {},
    # A flush every few batches, and compactions over several levels.
    "lsm": {"memtable_bytes": 4096},
    # The same, and most values are in blobs, which compactions collect.
    "lsm-blobs": {"memtable_bytes": 4096, "blob_bytes": 64},
}
VARIANTS = tuple(name for name in _SMALL if name.partition("-")[0] in ENGINES)
"""What the suites run over: an engine's name, and maybe what is special about its options."""


def options_of(engine: str, **options: Any) -> dict[str, Any]:
    """The options for a store of that variant; `options` come before its usual ones."""
    usual = {name: value for name, value in _SMALL[engine].items() if name in _KNOWN}
    return {"engine": engine.partition("-")[0], **usual, **options}


def state_of(db: DB) -> State:
    """Everything the store holds, as a dict."""
    store = db.store
    pin = store.snapshot()
    state: State = {}
    try:
        for number in range(KEYSPACES):
            start: bytes | None = b""
            while start is not None:
                with store.lock:
                    rows, start = pin.chunk(number, start, None, 1000, 0)
                for key, held in rows:
                    state[number, key] = (entry_of(held).value, deadline_of(held))
    finally:
        store.release(pin)
    return state


class _Idle:
    """A task that never gets its turn."""

    def join(self, timeout_s: float | None = None) -> bool:
        return True


class History:
    """Runs random operations; knows what was acknowledged and what each batch made of the state."""

    def __init__(self, env: MemoryEnv, seed: int, **options: Any) -> None:
        self.env = env
        self.disk = env  # below any faulty one
        self._start = env.start
        env.start = self._start_what_ends  # type: ignore[method-assign]
        self.random = random.Random(seed)
        self.options = options
        self.states: list[State] = [{}]
        self.acknowledged = 0
        self.synced = 0  # acknowledged under durability=sync, or by sync(), checkpoint(), close()
        self.db: DB | None = None
        self._interleaving = False

    def open(self) -> None:
        """Open (or reopen) the store."""
        self.db = marram.open(DIRECTORY, env=self.env, **self.options)

    def _start_what_ends(self, name: str, work: Callable[[], None]) -> Task:
        # The task that syncs every interval_ms would keep run_background() for ever.
        return _Idle() if name == "marram-sync" else self._start(name, work)

    def step(self) -> str:
        """One random operation; returns its name."""
        name = self.random.choices(
            ["put", "batch", "delete", "checkpoint", "busy", "reopen", "other", "big", "clear",
             "delete_range", "background"],
            [40, 15, 12, 3, 3, 2, 12, 3, 1, 2, 4],
        )[0]  # fmt: skip
        getattr(self, f"_{name}")()
        return name

    def steps(self, count: int) -> Iterator[str]:
        """Several of them."""
        for _ in range(count):
            yield self.step()

    # -- operations ------------------------------------------------------------------------------

    def _commit(self, changes: list[Change], state: State) -> None:
        """Append a batch whose outcome is `state`, and wait for it."""
        assert self.db is not None
        self.states.append(state)  # before the call: from here on a crash may keep it
        store = self.db.store
        sequence = store.append(changes)
        assert sequence == len(self.states) - 1
        store.wait(sequence)
        self.acknowledged = sequence
        if store.options.durability == "sync":
            self.synced = sequence

    def _value(self) -> bytes:
        return b"%d:" % len(self.states) + self.random.randbytes(
            self.random.choice((0, 5, 60, 700))
        )

    def _put(self) -> None:
        key, value = self.random.choice(KEYS), self._value()
        state = {**self.states[-1], (0, key): (value, 0)}
        if self.random.random() < 0.5:
            self._commit([put(0, key, value)], state)
            return
        assert self.db is not None
        self.states.append(state)
        sequence = len(self.states) - 1
        self.db.put(key, value)  # may commit it in one step (commit.py, enter_through)
        self.acknowledged = sequence
        if self.db.store.options.durability == "sync":
            self.synced = sequence

    def _big(self) -> None:
        key, value = self.random.choice(KEYS), self.random.randbytes(70_000)
        self._commit([put(0, key, value)], {**self.states[-1], (0, key): (value, 0)})

    def _batch(self) -> None:
        state = dict(self.states[-1])
        changes = []
        for _ in range(self.random.randrange(2, 6)):
            space, key, value = self.random.randrange(2), self.random.choice(KEYS), self._value()
            changes.append(put(space, key, value))
            state[space, key] = (value, 0)
        self._commit(changes, state)

    def _delete(self) -> None:
        key = self.random.choice(KEYS)
        state = {k: v for k, v in self.states[-1].items() if k != (0, key)}
        self._commit([delete(0, key)], state)

    def _other(self) -> None:
        kind, key = self.random.randrange(3), self.random.choice(KEYS)
        state = dict(self.states[-1])
        value, deadline = state.get((0, key), (b"", 0))
        if kind == 0:
            far = self.env.wall_ms() + 10**9
            if (0, key) in state:
                state[0, key] = (value, far)
            self._commit([expire(0, key, far)], state)
        elif kind == 1:
            state[0, key] = (value[:2].ljust(2, b"\0") + b"PATCH" + value[7:], deadline)
            self._commit([patch(0, key, 2, b"PATCH")], state)
        else:
            swapped = {(1 - s if s < 2 else s, k): v for (s, k), v in state.items()}
            self._commit([swap(0, 1)], swapped)

    def _clear(self) -> None:
        assert self.db is not None
        self.states.append({k: v for k, v in self.states[-1].items() if k[0] != 0})
        self.db.clear()
        self.acknowledged = len(self.states) - 1
        if self.db.store.options.durability == "sync":
            self.synced = self.acknowledged

    def _delete_range(self) -> None:
        start, stop = sorted(self.random.sample(KEYS, 2))
        state = {k: v for k, v in self.states[-1].items() if k[0] != 0 or not start <= k[1] < stop}
        self._commit([delete_range(0, start, stop)], state)

    def _background(self) -> None:
        """What is due: checkpoints, flushes and compactions, beside writers."""
        self._interleaving = True
        self.disk.run_background()
        self._interleaving = False
        self._caught_up()

    def _checkpoint(self) -> None:
        assert self.db is not None
        self.db.checkpoint()
        self.synced = self.acknowledged

    def _busy(self) -> None:
        """A checkpoint beside writers: batches arrive at any point of it (interleave())."""
        assert self.db is not None
        self._interleaving = True
        self.db.checkpoint()
        self._interleaving = False
        self._caught_up()

    def _caught_up(self) -> None:
        """Wait for what interleave() appended."""
        assert self.db is not None
        self.db.store.wait(self.db.store.last)
        self.acknowledged = len(self.states) - 1
        if self.db.store.options.durability == "sync":
            self.synced = self.acknowledged

    def interleave(self) -> None:
        """Call at each durable call: another writer may get its turn here."""
        db = self.db
        if not self._interleaving or db is None or db.store.lock.locked():
            return
        if self.random.random() < 0.3:
            key, value = self.random.choice(KEYS), self._value()
            # A swap is the one change that must not be replayed twice.
            swapped = {(1 - s if s < 2 else s, k): v for (s, k), v in self.states[-1].items()}
            self.states.append({**swapped, (0, key): (value, 0)})
            db.store.append([swap(0, 1), put(0, key, value)])

    def _reopen(self) -> None:
        assert self.db is not None
        self.db.close()
        self.synced = self.acknowledged
        self.open()


def check_recovered(history: History, disk: MemoryEnv, floor: int, ceiling: int) -> int:
    """Open `disk`; assert it holds states[s] with floor <= s <= ceiling; returns s.

    Then a write must take, and survive one more opening.
    """
    with marram.open(DIRECTORY, env=disk, **history.options) as db:
        last = db.position.sequence
        assert floor <= last <= ceiling, f"recovered {last}, acknowledged {floor}, sent {ceiling}"
        assert state_of(db) == history.states[last], f"not the state after batch {last}"
        db.put(b"after", b"crash")
    return last
