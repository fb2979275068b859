"""storage/checkpoint.py: what the memory engine's checkpoint holds, and what it may not."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from marram.coding.batch import delete, expire, put
from marram.env.memory import MemoryEnv
from marram.errors import Corruption, InvalidArgument
from marram.storage.checkpoint import by_column, load_checkpoint, write_checkpoint
from marram.storage.engine import SLICE_KEYS, Origin, rows_of
from marram.storage.memory.engine import MemoryEngine
from marram.storage.options import Options
from marram.storage.sstable.block import Row
from marram.storage.sstable.writer import TableWriter
from marram.storage.store import Store

STORE_ID = bytes(range(16))
ORIGIN = Origin(STORE_ID, 3, 17, 1000)


def load(env: MemoryEnv) -> MemoryEngine:
    engine = MemoryEngine()
    assert load_checkpoint(env, "/db", 5, STORE_ID, engine) == ORIGIN
    return engine


def write(rows: Iterable[list[Row]]) -> MemoryEnv:
    env = MemoryEnv()
    env.make_dir("/db")
    write_checkpoint(env, "/db", 5, ORIGIN, by_column(rows))
    return env


def test_rows_of_all_kinds_in_several_keyspaces_come_back() -> None:
    rows = [
        (keyspace, b"%05d" % number, b"v" * (number % 7), 5000 * (number % 5 == keyspace), 0)
        for keyspace in (0, 3, 15)
        for number in range(2000)
    ]

    engine = load(write(rows[at : at + 700] for at in range(0, len(rows), 700)))

    found: list[Row] = []
    for keyspace, space in enumerate(engine.spaces):
        space._check()
        for key, held in space.rows(b"", None, 10_000, False):
            value, deadline_ms = (held, 0) if isinstance(held, bytes) else held[:2]
            found.append((keyspace, key, value, deadline_ms, 0))
    assert found == rows


def test_a_keyspace_that_there_is_not_is_corruption() -> None:
    env = write([[(15, b"k", b"v", 0, 0), (16, b"k", b"v", 0, 0)]])

    with pytest.raises(Corruption, match="keyspace 16"):
        load(env)


def test_a_key_that_comes_twice_is_corruption() -> None:
    env = MemoryEnv()
    env.make_dir("/db")
    file = env.open("/db/checkpoint.5", write=True, create=True)
    writer = TableWriter(file, 5, STORE_ID)
    rows = [(0, b"k", b"new", 0, 0), (0, b"k", b"old", 0, 0)]
    writer.add_many(rows, [2, 1])
    writer.finish({"engine": b"memory", "epoch": 3, "sequence": 17, "time_ms": 1000})

    with pytest.raises(Corruption, match="twice"):
        load(env)


@pytest.mark.parametrize("seed", range(8))
def test_a_snapshot_by_column_is_the_snapshot_by_row(seed: int) -> None:
    """Also while its keys are changed, removed and expire, and with a clock that moves on."""
    rng = random.Random(seed)
    engine = MemoryEngine()
    keys = [b"%04d" % number for number in range(3 * SLICE_KEYS)]
    timed = seed % 2
    for sequence, key in enumerate(keys, 1):
        engine.apply(
            [put(rng.randrange(2), key, b"old", timed * rng.choice((0, 50, 500)))], sequence
        )
    pin = engine.snapshot(len(keys))
    if seed % 4 > 1:
        for sequence, key in enumerate(rng.sample(keys, 400), len(keys) + 1):
            change = rng.choice((put(0, key, b"new"), delete(0, key), expire(0, key, 9)))
            engine.apply([change], sequence)

    found: list[Row] = []
    for keyspace in range(2):
        start: bytes | None = b""
        while start is not None:
            columns, start = pin.columns(keyspace, start, 100, 100)
            for _, batch in [(keyspace, columns)]:
                zeros = [0] * len(batch[0])
                found += zip(
                    [keyspace] * len(zeros), batch[0], batch[1], batch[2] or zeros,
                    batch[3] or zeros, strict=True,
                )  # fmt: skip

    store = Store.open("/db", MemoryEnv(), Options())
    assert found == [
        row for rows in rows_of(pin, 100, store.lock, store.check_open) for row in rows
    ]
    store.close()


def test_columns_of_different_lengths_are_refused() -> None:
    env = MemoryEnv()
    writer = TableWriter(env.open("/t", write=True, create=True), 1, STORE_ID)

    with pytest.raises(InvalidArgument, match="lengths"):
        writer.add_columns(0, [b"a", b"b"], [b"1"])


def test_a_column_of_nothing_is_no_row() -> None:
    env = MemoryEnv()
    writer = TableWriter(env.open("/t", write=True, create=True), 1, STORE_ID)

    writer.add_columns(0, [], [])
    writer.add_columns(0, [b"a", b"b"], [b"1", b"2"], [0, 5])

    assert writer.finish({}).rows == 2
