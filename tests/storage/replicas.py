"""Stores to copy from and to: what the tests of history, frames and installations share."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import closing

from marram.coding.batch import KEYSPACES, batch_end
from marram.env.api import Env
from marram.env.memory import MemoryEnv
from marram.storage.engine import Origin
from marram.storage.entry import deadline_of, entry_of
from marram.storage.history import Mark
from marram.storage.log.tail import Frame
from marram.storage.options import Options
from marram.storage.sstable.block import Row
from marram.storage.store import Store
from tests.crash.history import options_of

DIRECTORY = "/data/db"
OTHER = "/data/other"

State = dict[tuple[int, bytes], tuple[bytes, int, int]]


def open_store(
    env: Env, engine: str = "memory", directory: str = DIRECTORY, **options: object
) -> Store:
    return Store.open(directory, env, Options(**options_of(engine, **options)))


def put(store: Store, *keys: bytes, value: bytes = b"v") -> int:
    """A batch a key, each waited for; returns the last position."""
    for key in keys:
        store.wait(store.append_put(0, key, value))
    return store.last


def batches_of(frames: list[Frame]) -> Iterator[tuple[int, int, bytes]]:
    """(sequence, epoch, bytes) of each batch."""
    for frame in frames:
        at, sequence = 0, frame.first_sequence
        while at < len(frame.payload):
            end = batch_end(frame.payload, at, len(frame.payload))
            yield sequence, frame.epoch, frame.payload[at:end]
            at, sequence = end, sequence + 1
        assert sequence == frame.first_sequence + frame.count


def read_all(store: Store, after: int, max_bytes: int = 1 << 20) -> list[Frame]:
    """What a tail gives until it is at the present end."""
    found: list[Frame] = []
    with closing(store.history.tail(after)) as tail:
        while frames := tail.read(max_bytes):
            found += frames
    return found


NO_HISTORY = Mark(0, 0, 0)


def marks_of(batches: list[tuple[int, int, bytes]], base: Mark = NO_HISTORY) -> dict[int, Mark]:
    """The mark of every position, by folding all bytes."""
    marks = {base.sequence: base}
    chain = base.chain
    for sequence, epoch, data in batches:
        chain = zlib.crc32(data, chain)
        marks[sequence] = Mark(epoch, sequence, chain)
    return marks


def state_of(store: Store, now_ms: int = 0) -> State:
    """Everything it holds, with deadlines and types."""
    pin = store.snapshot()
    state: State = {}
    try:
        for keyspace in range(KEYSPACES):
            start: bytes | None = b""
            while start is not None:
                with store.lock:
                    rows, start = pin.chunk(keyspace, start, None, 1000, now_ms)
                for key, held in rows:
                    entry = entry_of(held)
                    state[keyspace, key] = (entry.value, deadline_of(held), entry.type)
    finally:
        store.release(pin)
    return state


def rows_of(store: Store) -> tuple[Origin, list[list[Row]]]:
    """What a full copy of a store is made of."""
    pin, mark = store.marked_snapshot()
    try:
        origin = Origin(store.store_id, mark.epoch, mark.sequence, store.now_ms(), mark.chain)
        return origin, list(store.rows(pin, origin.time_ms))
    finally:
        store.release(pin)


def install(source: Store, target: Store) -> Origin:
    """Make `target` a copy of `source`."""
    origin, slices = rows_of(source)
    installation = target.install(origin, source.epoch)
    for rows in slices:
        installation.add(rows)
    installation.finish()
    return origin


def logs_of(env: MemoryEnv, directory: str = DIRECTORY) -> list[int]:
    """The numbers of the logs that are there."""
    names = env.list_dir(directory)
    return sorted(int(n.removeprefix("logfile.")) for n in names if n.startswith("logfile."))
