"""storage/commit.py with a bound: durable here, and committed where replicas have it as well."""

from __future__ import annotations

import random
import threading

import pytest

import marram
from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.errors import OutcomeUnknown, StoreFailed
from marram.storage.held import HeldKeys
from tests.crash.history import VARIANTS, options_of
from tests.storage.replicas import DIRECTORY, open_store, put


def test_c2_committed_is_what_is_durable_and_within_the_bound() -> None:
    store = open_store(MemoryEnv())
    put(store, b"a")
    assert not store.commit.set_bound(1)
    store.append_put(0, b"b", b"v")
    store.append_put(0, b"c", b"v")
    store.wait_durable(3)

    assert (store.commit.durable, store.committed, store.last) == (3, 1, 3)
    assert store.commit.set_bound(2), "committed moved"
    assert (store.committed, store.unsettled) == (2, True)
    assert not store.commit.set_bound(1)
    assert store.committed == 2, "never back"
    assert store.commit.set_bound(9)
    assert (store.committed, store.unsettled) == (3, False)
    put(store, b"d")
    assert store.committed == 4, "within the bound nothing waits"


def test_c4_a_key_is_unsettled_until_the_bound_is_past_its_newest_batch() -> None:
    store = open_store(MemoryEnv())
    store.commit.set_bound(0)
    for key in (b"a", b"b", b"a"):
        store.wait_durable(store.append_put(0, key, b"v"))
    assert [store.settles_at(key) for key in (b"a", b"b", b"c")] == [3, 2, 0]
    store.commit.set_bound(2)
    assert [store.settles_at(key) for key in (b"a", b"b")] == [3, 0]
    store.append_put(0, b"b", b"v")
    assert store.settles_at(b"b") == 4, "in the open group"
    store.commit.set_bound(None)
    store.wait(4)
    assert [store.settles_at(key) for key in (b"a", b"b")] == [0, 0]


def test_c4_a_range_holds_every_key_until_it_is_committed() -> None:
    from marram.coding.batch import delete_range

    store = open_store(MemoryEnv())
    store.commit.set_bound(0)
    store.wait_durable(store.append([delete_range(0, b"", None)]))
    store.wait_durable(store.append_put(0, b"a", b"v"))
    assert [store.settles_at(key) for key in (b"a", b"z")] == [2, 1]
    store.commit.set_bound(1)
    assert [store.settles_at(key) for key in (b"a", b"z")] == [2, 0]


def test_h1_held_keys_are_those_of_a_plain_search() -> None:
    for seed in range(200):
        rng = random.Random(seed)
        held = HeldKeys()
        groups: list[tuple[int, set[bytes], bool]] = []
        last = settled = 0
        for _ in range(30):
            if rng.random() < 0.6:
                last += rng.randrange(1, 4)
                keys = {b"%d" % rng.randrange(6) for _ in range(rng.randrange(4))}
                group = (last, keys, rng.random() < 0.1)
                groups.append(group)
                held.add(*group)
            else:
                settled = max(settled, rng.randrange(last + 1))
                is_empty = held.settle(settled)
                assert is_empty == all(end <= settled for end, _, _ in groups)
            for number in range(6):
                key = b"%d" % number
                expected = max(
                    (end for end, keys, all_ in groups if end > settled and (all_ or key in keys)),
                    default=0,
                )
                assert held.settles_at(key) == expected
        held.settle(last)
        assert not held._positions and not held._groups, "nothing is left behind"


def test_a_wait_ends_with_the_bound_or_its_timeout() -> None:
    env = MemoryEnv(threads=True)
    store = open_store(env)
    store.commit.set_bound(0)
    sequence = store.append_put(0, b"a", b"v")
    with pytest.raises(OutcomeUnknown, match="still replicating"):
        store.wait(sequence, 0.01)
    assert store.commit.durable == sequence, "the time goes into waiting for replicas only"
    assert store.failure is None
    done = threading.Event()

    def wait() -> None:
        store.wait(sequence, 60)
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    store.commit.set_bound(sequence)
    assert done.wait(60)
    thread.join()


def test_a_reader_does_not_see_a_write_before_its_bound() -> None:
    env = MemoryEnv(threads=True)
    db = marram.open(DIRECTORY, env=env)
    db.put(b"k", b"old")
    db.store.commit.set_bound(1)
    db.store.append_put(0, b"k", b"new")
    seen: list[bytes | None] = []
    reader = threading.Thread(target=lambda: seen.append(db.get(b"k")))
    reader.start()
    reader.join(0.05)
    assert seen == []
    db.store.commit.set_bound(2)
    reader.join(60)
    assert seen == [b"new"]
    db.close()


@pytest.mark.parametrize("engine", VARIANTS)
def test_what_needs_only_this_disk_does_not_wait_for_replicas(engine: str) -> None:
    env = MemoryEnv()
    store = open_store(env, engine)
    put(store, b"a")
    store.commit.set_bound(1)
    store.append_put(0, b"b", b"v")
    store.checkpoint()
    store.append_put(0, b"c", b"v")
    store.sync()
    assert (store.committed, store.commit.durable) == (1, 3)
    pin, mark = store.marked_snapshot()
    assert (pin.position, mark) == (3, store.history.newest())
    store.release(pin)
    assert [f.first_sequence for f in store.history.tail(2).read(1000)] == [3], "replicas get it"
    store.append_put(0, b"d", b"v")
    store.close()
    store = open_store(env, engine)
    assert (store.committed, store.last) == (4, 4)
    store.close()


def test_c5_after_a_failure_what_was_durable_can_still_be_committed_and_nothing_else() -> None:
    inner = MemoryEnv()
    env = FaultyEnv(inner)
    db = marram.open(DIRECTORY, env=env, **options_of("memory"))
    store = db.store
    store.commit.set_bound(0)
    store.wait_durable(store.append_put(0, b"a", b"v"))
    env.add(Fault("sync_data", "*logfile*"))
    store.append_put(0, b"b", b"v")
    with pytest.raises(OutcomeUnknown):
        store.wait_durable(2)
    store.commit.set_bound(2)
    assert (store.committed, store.commit.durable) == (1, 1)
    with pytest.raises(StoreFailed):
        store.wait(2)
    db.close()
