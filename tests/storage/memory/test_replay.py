"""Replay of a log leaves either engine as apply() of its batches does (Y1)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.coding.batch import Change, delete, delete_range, encode, expire, patch, put, swap
from marram.env.memory import MemoryEnv
from marram.storage.memory.engine import MemoryEngine
from marram.storage.memory.replay import SpaceReplay
from marram.storage.memory.space import Space
from marram.storage.options import Options
from marram.storage.store import Store

keys = st.sampled_from([b"%d" % number for number in range(12)])
spaces = st.integers(0, 2)
deadlines = st.sampled_from([0, 0, 500, 5000])
changes = st.one_of(
    st.builds(put, spaces, keys, st.binary(max_size=4)),
    st.builds(put, spaces, keys, st.binary(max_size=4)),
    st.builds(put, spaces, keys, st.binary(max_size=4), deadlines),
    st.builds(delete, spaces, keys),
    st.builds(delete, spaces, keys),
    st.builds(expire, spaces, keys, deadlines),
    st.builds(patch, spaces, keys, st.integers(0, 6), st.binary(max_size=3)),
    st.builds(delete_range, spaces, keys | st.just(b""), st.none() | keys),
    st.builds(swap, spaces, spaces),
)
batches = st.lists(st.lists(changes, min_size=1, max_size=3), max_size=25)


def state_of(engine: Any) -> list[Any]:
    """All that the two have to agree on, space by space."""
    found = []
    for space in engine.spaces[:3]:
        assert isinstance(space, Space)
        space._check()
        order = space.order.chunk(b"", None, 1000)
        due = sorted(space.due(10_000, 1000))
        found.append((space.map, order, space.data_bytes, space.volatile, due))
    return found


@settings(max_examples=200, deadline=None)
@given(batches, batches, batches)
def test_y1_the_memory_engine_is_as_apply_would_have_left_it(
    before: list[list[Change]], first: list[list[Change]], second: list[list[Change]]
) -> None:
    applied, replayed = MemoryEngine(), MemoryEngine()
    sequence = 0
    for batch in before:  # as a checkpoint would have loaded it
        sequence += 1
        applied.apply(batch, sequence)
        replayed.apply(batch, sequence)
    sink = replayed.replay()
    for batch in first + second:
        sequence += 1
        applied.apply(batch, sequence)
        data = encode(batch)
        sink.take(b"...." + data, 4, 4 + len(data), sequence)
        if sequence == len(before) + len(first):
            sink.finish()  # a log ended, another one goes on
    sink.finish()

    assert state_of(replayed) == state_of(applied)


@pytest.mark.parametrize(
    "again",
    [put(0, b"k", b"2"), put(0, b"k", b"2", 500), patch(0, b"k", 1, b"2"), expire(0, b"k", 500)],
)
@pytest.mark.parametrize("was_there", [False, True])
def test_y1_a_key_that_came_went_and_came_again_has_one_place(
    again: Change, was_there: bool
) -> None:
    applied, replayed = MemoryEngine(), MemoryEngine()
    if was_there:
        applied.apply([put(0, b"k", b"0")], 1)
        replayed.apply([put(0, b"k", b"0")], 1)
    sink = replayed.replay()
    for batch in ([put(0, b"k", b"1")], [delete(0, b"k")], [again], [put(0, b"other", b"")]):
        applied.apply(batch, 2)
        data = encode(batch)
        sink.take(data, 0, len(data), 2)
    sink.finish()

    assert state_of(replayed) == state_of(applied)


@pytest.mark.parametrize("held", [0, 10, 5000])
@pytest.mark.parametrize("added", [1, 400, 3000])
def test_y1_new_keys_find_their_places_among_those_held(held: int, added: int) -> None:
    """Few among many, many among few, all behind, and none before."""
    for shift in (0, 10**6):
        space = Space()
        space.load([b"%08d" % (2 * number) for number in range(held)], [b"v"] * held)
        replay = SpaceReplay(space)
        for number in range(added):
            replay.put(b"%08d" % (shift + 2 * (number * 7 % added) + 1), b"new")
        replay.settle()

        space._check()
        assert len(space.order) == held + added


def lsm_state(engine: Any) -> list[Any]:
    memtable = engine.tree.active
    found: list[Any] = [[space.number for space in engine.spaces], memtable.ranges.deletions]
    for space, tally in zip(memtable.spaces, memtable.tallies, strict=True):
        space._check()
        counts = {name: getattr(tally, name) for name in ("keys", "volatile", "cleared", "vague")}
        order = space.order.chunk(b"", None, 1000)
        found.append((space.map, order, space.data_bytes, counts, sorted(tally.unsure())))
    return found


@settings(max_examples=60, deadline=None)
@given(batches, batches)
def test_y1_a_memtable_is_as_apply_would_have_left_it(
    flushed: list[list[Change]], logged: list[list[Change]]
) -> None:
    options = Options(engine="lsm")
    env = MemoryEnv()
    store = Store.open("/db", env, options)
    for batch in flushed:
        store.append(batch)
    store.checkpoint()
    for batch in logged:
        store.append(batch)
    expected = lsm_state(store.engine)
    store.close()

    store = Store.open("/db", env, options)

    assert lsm_state(store.engine) == expected
    store.close()
