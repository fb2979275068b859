"""A store as a list: the same interface as the real one, as far as replication needs it.

It is what the simulation runs on by the thousand; the real engines run behind the same shell in
smaller numbers (worlds.py). A crash keeps what was synced and maybe the start of what was not.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from marram.coding.batch import DELETE, PUT, Change, batch_end, decode, encode
from marram.errors import LogGone
from marram.replication.effects import Row
from marram.replication.messages import Mark

START = Mark(0, 0, 0)
State = dict[tuple[int, bytes], tuple[bytes, int, int]]


class Frame(NamedTuple):
    first_sequence: int
    count: int
    epoch: int
    time_ms: int
    payload: bytes
    chain: int | None = None


@dataclass
class Disk:
    """What survives. base: where the log begins, with the state there."""

    store_id: bytes
    epoch: int = 1
    base: Mark = START
    state: State = field(default_factory=dict)
    log: list[Frame] = field(default_factory=list)
    aside: list[list[Frame]] = field(default_factory=list)

    def copy(self) -> Disk:
        return Disk(
            self.store_id, self.epoch, self.base, self.state, list(self.log), list(self.aside)
        )


def apply(state: State, changes: list[Change]) -> None:
    for kind, keyspace, key, value, deadline, type_ in changes:
        if kind == PUT:
            assert value is not None
            state[keyspace, key] = (value, deadline, type_)
        else:
            assert kind == DELETE
            state.pop((keyspace, key), None)


def split(frame: Frame) -> Iterator[bytes]:
    at = 0
    while at < len(frame.payload):
        end = batch_end(frame.payload, at, len(frame.payload))
        yield frame.payload[at:end]
        at = end


def mark_after(mark: Mark, frame: Frame) -> Mark:
    last = frame.first_sequence + frame.count - 1
    return Mark(frame.epoch, last, zlib.crc32(frame.payload, mark.chain))


class Group:
    """Frames written and synced together."""

    def __init__(self, store: ModelStore, frames: list[Frame]) -> None:
        self._store = store
        self._frames = frames

    def write(self) -> None:
        self._store.disk.log += self._frames

    def cut_short(self, rng: random.Random, survival: float) -> None:
        """The power fails while the group is being written."""
        kept = 0
        while kept < len(self._frames) and rng.random() < survival:
            kept += 1
        self._store.disk.log += self._frames[:kept]


class Tail:
    def __init__(self, store: ModelStore, after: int) -> None:
        self._store = store
        self._next = after + 1
        self._index = 0

    def read(self, max_bytes: int) -> list[Frame]:
        store = self._store
        log = store.disk.log
        if self._next - 1 < store.disk.base.sequence:
            raise LogGone(f"the log after {self._next - 1} is gone")
        if not (self._index < len(log) and log[self._index].first_sequence == self._next):
            self._index = 0
        found: list[Frame] = []
        size = 0
        while self._index < len(log) and (not found or size < max_bytes):
            frame = log[self._index]
            self._index += 1
            if frame.first_sequence + frame.count <= self._next:
                continue
            if frame.first_sequence < self._next:
                skip = self._next - frame.first_sequence
                batches = list(split(frame))[skip:]
                frame = Frame(
                    self._next, len(batches), frame.epoch, frame.time_ms, b"".join(batches)
                )
            found.append(frame)
            size += len(frame.payload)
            self._next = frame.first_sequence + frame.count
        return found

    def close(self) -> None:
        pass


class Installation:
    def __init__(self, store: ModelStore, store_id: bytes, epoch: int, mark: Mark) -> None:
        self._store = store
        self._disk = Disk(store_id, epoch, mark)
        self._state: State = {}

    def add(self, rows: list[Row]) -> None:
        for keyspace, key, value, deadline, type_ in rows:
            self._state[keyspace, key] = (value, deadline, type_)

    def finish(self) -> None:
        store = self._store
        self._disk.state = dict(self._state)
        self._disk.aside = store.disk.aside
        self._disk.epoch = max(self._disk.epoch, store.epoch)
        store.disk = self._disk
        store.load()

    def abort(self) -> None:
        self._state = {}


@dataclass(frozen=True)
class Pin:
    position: int
    state: State

    def __len__(self) -> int:
        return len(self.state)


class ModelStore:
    """One open store. durable_epochs: False plants a bug: the epoch is raised in memory only."""

    def __init__(self, disk: Disk, now_ms: Callable[[], int]) -> None:
        self.disk = disk
        self.now_ms = now_ms
        self.holds: dict[str, int] = {}
        self.load()

    def load(self) -> None:
        disk = self.disk
        self.epoch = disk.epoch
        self.state = dict(disk.state)
        self.marks = {disk.base.sequence: disk.base}
        mark = disk.base
        self.written: dict[bytes, int] = {}  # key: the batch that wrote it last
        for frame in disk.log:
            for batch in split(frame):
                apply(self.state, decode(batch, 0, len(batch)))
                one = Frame(mark.sequence + 1, 1, frame.epoch, 0, batch)
                mark = mark_after(mark, one)
                self.marks[mark.sequence] = mark
        self.epoch = max(self.epoch, mark.epoch)
        self.tip = mark
        self.durable = self.committed = mark.sequence
        self.bound: int | None = None
        self._open: list[Frame] = []
        self._own: list[bytes] = []
        self._busy = False

    # -- reading -----------------------------------------------------------------------------------

    @property
    def store_id(self) -> bytes:
        return self.disk.store_id

    @property
    def last(self) -> int:
        return self.tip.sequence

    @property
    def oldest(self) -> int:
        return self.disk.base.sequence

    def newest(self) -> Mark:
        return self.marks[self.durable]

    def mark(self, sequence: int) -> Mark | None:
        if not self.oldest <= sequence <= self.durable:
            return None
        return self.marks[sequence]

    def tail(self, after: int) -> Tail:
        if after < self.oldest:
            raise LogGone(f"the log after {after} is gone")
        return Tail(self, after)

    def get(self, key: bytes) -> bytes | None:
        held = self.state.get((0, key))
        return None if held is None else held[0]

    def settles_at(self, key: bytes) -> int:
        at = self.written.get(key, 0)
        return at if at > self.committed else 0

    def rows_now(self, now_ms: int) -> State:
        """What readers may see at that time: not what is past its deadline."""
        return {key: row for key, row in self.state.items() if not 0 < row[1] <= now_ms}

    def snapshot(self) -> Pin:
        return Pin(self.last, dict(self.state))

    def rows(self, pin: Pin) -> Iterator[list[Row]]:
        keys = sorted(pin.state)
        for at in range(0, len(keys), 4):
            yield [(*key, *pin.state[key]) for key in keys[at : at + 4]]

    def release(self, pin: Pin) -> None:
        pass

    # -- writing -----------------------------------------------------------------------------------

    def append(self, changes: list[Change]) -> int:
        batch = encode(changes)
        self._own.append(batch)
        self._apply(Frame(self.last + 1, 1, self.epoch, self.now_ms(), batch))
        return self.last

    def append_frame(self, frame: Frame) -> int:
        if frame.first_sequence != self.last + 1:
            raise ValueError(f"batch {frame.first_sequence} after {self.last}")
        if frame.epoch < self.tip.epoch:
            raise ValueError(f"epoch {frame.epoch} after {self.tip.epoch}")
        batches = list(split(frame))
        for batch in batches:
            decode(batch, 0, len(batch))
        sequence = frame.first_sequence
        for batch in batches:
            self._apply(Frame(sequence, 1, frame.epoch, frame.time_ms, batch))
            sequence += 1
        self._open.append(frame)
        self.epoch = max(self.epoch, frame.epoch)
        return self.last

    def _apply(self, one: Frame) -> None:
        changes = decode(one.payload, 0, len(one.payload))
        apply(self.state, changes)
        self.tip = mark_after(self.tip, one)
        self.marks[self.tip.sequence] = self.tip
        for change in changes:
            self.written[change[2]] = self.tip.sequence

    def take_group(self) -> Group | None:
        self._close_frame()
        if self._busy or not self._open:
            return None
        self._busy = True
        frames, self._open = self._open, []
        return Group(self, frames)

    def _close_frame(self) -> None:
        """Own batches become a frame of the epoch they were appended in."""
        if self._own:
            first = self.last - len(self._own) + 1
            payload = b"".join(self._own)
            self._open.append(Frame(first, len(self._own), self.epoch, self.now_ms(), payload))
            self._own = []

    def complete(self, group: Group) -> None:
        self._busy = False
        frame = group._frames[-1]
        self.durable = frame.first_sequence + frame.count - 1
        self._advance()

    def set_bound(self, sequence: int | None) -> None:
        self.bound = sequence
        self._advance()

    def _advance(self) -> None:
        bound = self.durable if self.bound is None else min(self.durable, self.bound)
        self.committed = max(self.committed, bound)

    def raise_epoch(self, epoch: int) -> None:
        assert epoch > self.epoch
        self._close_frame()
        self.epoch = self.disk.epoch = epoch

    def install(self, store_id: bytes, epoch: int, mark: Mark, time_ms: int) -> Installation:
        return Installation(self, store_id, epoch, mark)

    def follow(self) -> None:
        pass

    def lead(self) -> None:
        pass

    def set_aside(self, after: int) -> str | None:
        kept = Tail(self, max(after, self.oldest)).read(1 << 30)
        if not kept:
            return None
        self.disk.aside.append(kept)
        return f"diverged-{len(self.disk.aside)}"

    # -- generations -------------------------------------------------------------------------------

    def hold(self, name: str, after: int) -> None:
        self.holds[name] = after

    def unhold(self, name: str) -> None:
        self.holds.pop(name, None)

    def checkpoint(self, keep: int) -> None:
        """A new generation: the log goes, but for the `keep` newest batches."""
        until = max(self.oldest, self.durable - keep)
        disk = self.disk
        state, mark = dict(disk.state), disk.base
        log: list[Frame] = []
        for frame in disk.log:
            for batch in split(frame):
                one = Frame(mark.sequence + 1, 1, frame.epoch, frame.time_ms, batch)
                if one.first_sequence > until:
                    log.append(one)
                else:
                    apply(state, decode(batch, 0, len(batch)))
                    disk.base = mark_after(mark, one)
                mark = mark_after(mark, one)
        disk.state, disk.log = state, log

    # -- power cuts --------------------------------------------------------------------------------

    def crash(self, rng: random.Random, survival: float, group: Group | None) -> Disk:
        """The disk after a power cut now; group: the one that was being written."""
        if group is not None:
            group.cut_short(rng, survival)
        return self.disk.copy()
