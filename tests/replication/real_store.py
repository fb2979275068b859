"""Real stores behind the interface that the simulation's shell uses, on simulated disks."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

from marram.coding.batch import Change
from marram.env.memory import MemoryEnv
from marram.replication.effects import Row
from marram.replication.messages import Mark
from marram.storage.engine import Origin
from marram.storage.log.tail import Frame
from marram.storage.options import Options
from marram.storage.store import Store
from tests.replication.model_store import State

DIRECTORY = "/data"


class PowerCut(Exception):
    """Ends a write in the middle."""


class Installation:
    """What an Installation of the store is, with rows already in its own form."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def add(self, rows: list[Row]) -> None:
        self._real.add(rows)

    def finish(self) -> None:
        self._real.finish()

    def abort(self) -> None:
        self._real.abort()


class RealStore:
    """An open store of either engine."""

    def __init__(self, env: MemoryEnv, options: Options) -> None:
        self.env = env
        self.store = Store.open(DIRECTORY, env, options)
        self.store.holds_back = False  # there is nobody who could wait
        self.history = self.store.history
        self.commit = self.store.commit

    # -- reading -----------------------------------------------------------------------------------

    @property
    def store_id(self) -> bytes:
        return self.store.store_id

    @property
    def epoch(self) -> int:
        return self.store.epoch

    @property
    def last(self) -> int:
        return self.store.last

    @property
    def durable(self) -> int:
        return self.commit.durable

    @property
    def committed(self) -> int:
        return self.commit.committed

    @property
    def oldest(self) -> int:
        return self.history.oldest

    def newest(self) -> Mark:
        return Mark(*self.history.newest())

    def mark(self, sequence: int) -> Mark | None:
        found = self.history.mark(sequence)
        return None if found is None else Mark(*found)

    def tail(self, after: int) -> Any:
        return self.history.tail(after)

    def get(self, key: bytes) -> bytes | None:
        held = self.store.engine.spaces[0].get(key)
        return held if held is None or isinstance(held, bytes) else held.value

    def settles_at(self, key: bytes) -> int:
        return self.store.settles_at(key)

    def rows_now(self, now_ms: int) -> State:
        pin = self.snapshot()
        try:
            found = [row for rows in self.store.rows(pin, now_ms) for row in rows]
            return {(row[0], row[1]): (row[2], row[3], row[4]) for row in found}
        finally:
            self.release(pin)

    def snapshot(self) -> Any:
        return self.store.snapshot()

    def rows(self, pin: Any) -> Iterator[list[Row]]:
        for rows in self.store.rows(pin, 0):  # expired ones, too
            for at in range(0, len(rows), 4):
                yield rows[at : at + 4]

    def release(self, pin: Any) -> None:
        self.store.release(pin)

    # -- writing -----------------------------------------------------------------------------------

    def append(self, changes: list[Change]) -> int:
        return self.store.append(changes)

    def append_frame(self, frame: Any) -> int:
        return self.store.append_frame(Frame(*frame))

    def take_group(self) -> Any:
        return self.store.take_group()

    def complete(self, group: Any) -> None:
        self.store.complete(group, None)

    def set_bound(self, sequence: int | None) -> None:
        self.commit.set_bound(sequence)

    def raise_epoch(self, epoch: int) -> None:
        self.store.raise_epoch(epoch)

    def install(self, store_id: bytes, epoch: int, mark: Mark, time_ms: int) -> Installation:
        origin = Origin(store_id, mark.epoch, mark.sequence, time_ms, mark.chain)
        return Installation(self.store.install(origin, epoch))

    def set_aside(self, after: int) -> str | None:
        return self.store.set_aside(after)

    def follow(self) -> None:
        self.store.follow()

    def lead(self) -> None:
        self.store.lead()

    # -- generations -------------------------------------------------------------------------------

    def hold(self, name: str, after: int) -> None:
        self.history.hold(name, after)

    def unhold(self, name: str) -> None:
        self.history.unhold(name)

    def checkpoint(self, keep: int) -> None:
        """How much is kept is an option here."""
        self.store.checkpoint()
        self.env.run_background()

    # -- power cuts --------------------------------------------------------------------------------

    def crash(self, rng: random.Random, survival: float, group: Any) -> MemoryEnv:
        """The disk after a power cut now, maybe within the writing of the group."""
        if group is not None and rng.random() < 0.6:

            def cut(operation: str, path: str) -> None:
                if operation == "sync_data":
                    raise PowerCut

            self.env.on_call = cut
            with contextlib.suppress(PowerCut):
                group.write()
            self.env.on_call = None
        return self.env.crash_clone(survival, rng.randrange(1 << 30))
