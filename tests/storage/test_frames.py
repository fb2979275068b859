"""Store.append_frame: a replica's writes, and what else is different while a store follows."""

from __future__ import annotations

import errno
import random
import zlib
from contextlib import suppress

import pytest

import marram
from marram.coding.batch import delete, encode, patch
from marram.coding.batch import put as put_change
from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.errors import InvalidArgument, ReadOnly, StoreFull
from marram.storage.db import DB
from marram.storage.entry import stored
from marram.storage.frames import changes_of, puts_of
from marram.storage.log.reader import LogReader, read_log_header
from marram.storage.log.tail import Frame
from marram.storage.store import Position, Store
from tests.crash.history import VARIANTS, History, options_of
from tests.storage.replicas import (
    DIRECTORY,
    batches_of,
    marks_of,
    open_store,
    put,
    read_all,
    state_of,
)

KEEP = 1 << 30


def frame_of(
    first: int, *keys: bytes, epoch: int = 1, time_ms: int = 5, value: bytes = b"v"
) -> Frame:
    payload = b"".join(encode([put_change(0, key, value)]) for key in keys)
    return Frame(first, len(keys), epoch, time_ms, payload)


def primary_of(engine: str, seed: int) -> Store:
    """A store with a random history: all kinds of changes, checkpoints, reopenings, reigns."""
    history = History(MemoryEnv(seed=seed), seed, **options_of(engine, replica_log_bytes=KEEP))
    history.open()
    for number, _ in enumerate(history.steps(60)):
        assert history.db is not None
        if number in (20, 45):
            history.db.store.raise_epoch(history.db.store.epoch + 1 + seed % 3)
    assert history.db is not None
    return history.db.store


@pytest.mark.parametrize("engine", VARIANTS)
@pytest.mark.parametrize("seed", range(6))
def test_a_replica_fed_in_any_grouping_reads_as_the_primary_does(seed: int, engine: str) -> None:
    """Whatever the tail gives at a time, shares a sync, or is cut off by a crash."""
    primary = primary_of(engine, seed)
    whole = list(batches_of(read_all(primary, 0)))
    rng = random.Random(seed)
    env = MemoryEnv(seed=seed)
    how = {"replica_log_bytes": KEEP}
    replica = open_store(env, engine, **how)
    replica.follow()
    tail = primary.history.tail(0)
    while replica.last < primary.last:
        for frame in tail.read(rng.choice((1, 1000, 1 << 20))):
            mark = primary.history.mark(frame.last_sequence)
            assert mark is not None
            assert frame.chain == mark.chain
            replica.append_frame(rng.choice((frame, frame, frame._replace(chain=None))))
            if rng.random() < 0.4:
                replica.wait(replica.last)
        kind = rng.randrange(12)
        if kind == 0:
            replica.checkpoint()
            env.run_background()
        elif kind == 1:
            replica.close()
            replica = open_store(env, engine, **how)
        elif kind == 2:
            env = env.crash_clone(rng.choice((0.0, 0.5, 1.0)), rng.randrange(99))
            replica.after_fork()
            replica = open_store(env, engine, **how)
        if kind in (1, 2):
            replica.follow()
            assert replica.history.newest() == primary.history.mark(replica.last)
            tail = primary.history.tail(replica.last)  # maybe within a frame
    replica.wait(replica.last)

    assert list(batches_of(read_all(replica, 0))) == whole, "byte for byte, with their epochs"
    assert replica.history.newest() == primary.history.newest() == marks_of(whole)[primary.last]
    assert state_of(replica) == state_of(primary)
    assert DB(replica).verify().ok
    times = [frame.time_ms for frame in read_all(replica, 0)]
    assert times == sorted(times)
    assert times[-1] == read_all(primary, 0)[-1].time_ms
    replica.close()
    replica = open_store(env, engine, **how)
    assert state_of(replica) == state_of(primary)
    assert replica.history.newest() == primary.history.newest()
    replica.close()


def test_frames_that_wait_share_one_sync_and_one_frame() -> None:
    env = MemoryEnv()
    store = open_store(env)
    for first in range(1, 11):
        assert store.append_frame(frame_of(first, b"%d" % first, time_ms=first)) == first
    assert store.committed == 0
    calls: list[str] = []
    env.on_call = lambda operation, path: calls.append(operation)
    store.wait(10)

    assert calls == ["write", "sync_data"]
    assert [(f.count, f.time_ms) for f in read_all(store, 0)] == [(10, 10)]


def test_c7_batches_of_differing_epochs_never_share_a_frame() -> None:
    store = open_store(MemoryEnv())
    store.append_frame(frame_of(1, b"a", b"b", epoch=1))
    store.append_frame(frame_of(3, b"c", epoch=4))
    store.append_frame(frame_of(4, b"d", epoch=4))
    assert store.epoch == 4
    store.wait(4)
    assert [(f.first_sequence, f.count, f.epoch) for f in read_all(store, 0)] == [
        (1, 2, 1), (3, 2, 4),
    ]  # fmt: skip
    assert [store.history.mark(n).epoch for n in range(1, 5)] == [1, 1, 4, 4]  # type: ignore[union-attr]


def test_the_past_of_a_new_reign_is_taken_though_the_epoch_was_raised() -> None:
    """A replica has heard of the new primary before it has the batches of the old one."""
    env = MemoryEnv()
    store = open_store(env)
    store.append_frame(frame_of(1, b"a", epoch=2))
    store.raise_epoch(9)
    store.append_frame(frame_of(2, b"b", epoch=2))
    store.append_frame(frame_of(3, b"c", epoch=9))
    store.wait(3)
    with pytest.raises(ValueError, match="epoch 8 after 9"):
        store.append_frame(frame_of(4, b"d", epoch=8))
    store.close()
    store = open_store(env)
    assert (store.epoch, [f.epoch for f in read_all(store, 0)]) == (9, [2, 2, 9])


def test_only_the_next_frame_of_no_older_epoch_is_taken_whole() -> None:
    store = open_store(MemoryEnv())
    store.append_frame(frame_of(1, b"a", b"b", epoch=3))
    good = frame_of(3, b"c", epoch=3)
    bad = [
        frame_of(2, b"c", epoch=3),
        frame_of(4, b"c", epoch=3),
        frame_of(3, b"c", epoch=2),
        good._replace(count=2),
        good._replace(count=0),
        good._replace(payload=good.payload + b"x"),
        good._replace(payload=good.payload[:-1]),
        good._replace(payload=good.payload[:8] + b"\x09" + good.payload[9:]),
        good._replace(epoch=2**63),
        good._replace(time_ms=-1),
        good._replace(payload=encode([patch(0, b"c", 2**32 - 1, b"x")])),
    ]
    pending = store.commit.pending_bytes
    for frame in bad:
        for _ in range(2):
            with pytest.raises(ValueError, match=r"."):
                store.append_frame(frame)
        assert (store.last, store.commit.pending_bytes) == (2, pending)
        assert set(state_of(store)) == {(0, b"a"), (0, b"b")}
    assert store.append_frame(good) == 3
    store.wait(3)
    assert [f.count for f in read_all(store, 0)] == [3]


SHAPES = {
    "plain": [[put_change(0, b"a", b"1")], [put_change(0, b"b", b"")]],
    "of several changes": [[put_change(3, b"a", b"1"), put_change(3, b"b", b"2")]],
    "with a deadline, over and over": [
        [put_change(0, b"a", b"1", 9)], [put_change(0, b"a", b"2")], [put_change(0, b"a", b"3", 9)],
    ],
    "of two keyspaces": [[put_change(0, b"a", b"1")], [put_change(1, b"a", b"2")]],
    "with a deletion": [[put_change(0, b"a", b"1")], [delete(0, b"a")]],
    "of nothing": [[], []],
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_puts_are_what_changes_say_where_there_is_nothing_else(shape: str) -> None:
    batches = SHAPES[shape]
    payload = b"".join(map(encode, batches))
    frame = Frame(1, len(batches), 1, 5, payload)
    changes = changes_of(frame)
    assert changes == [change for batch in batches for change in batch]
    puts = puts_of(frame)
    if shape in ("of two keyspaces", "with a deletion", "of nothing"):
        assert puts is None
        return
    assert puts is not None
    held = [stored(change[3] or b"", change[4], change[5]) for change in changes]
    assert {puts.keyspace} == {change[1] for change in changes}
    assert (puts.keys, puts.values) == ([change[2] for change in changes], held)


@pytest.mark.parametrize("engine", VARIANTS)
def test_c6_a_frame_that_changes_a_key_twice_says_so(engine: str) -> None:
    store = open_store(MemoryEnv(), engine)
    store.append_frame(frame_of(1, b"a", b"b"))
    assert store.commit.stepwise == 0
    store.append_frame(frame_of(3, b"c", b"d", b"c"))
    assert store.commit.stepwise == 5
    assert store.commit.settles_at(b"a") == 5
    store.wait(5)
    assert store.commit.settles_at(b"d") == 0
    store.close()


@pytest.mark.parametrize("size", [1, 300, 5000, 70_000])
def test_c7_a_checksum_that_is_known_makes_the_log_it_would_be_without(size: int) -> None:
    """Of any piece of it: before the first, at the third, of a history that is not this one."""
    frames = [frame_of(first, b"k%d" % first, value=b"v" * size) for first in range(1, 9)]
    marks = [0]
    for frame in frames:
        marks.append(zlib.crc32(frame.payload, marks[-1]))
    made = []
    for known in ((), range(1, 9), (1, 2), range(2, 9), (3, 4), (1, 2, 6, 7)):
        env = MemoryEnv(seed=1)
        store = open_store(env)
        for frame in frames:
            at = frame.first_sequence
            store.append_frame(frame._replace(chain=marks[at] if at in known else None))
            if at in (2, 5, 6):
                store.wait(at)
        store.wait(8)
        assert store.history.newest().chain == marks[8]
        assert [frame.count for frame in read_all(store, 0)] == [2, 3, 1, 2]
        store.close()
        made.append(env.contents(f"{DIRECTORY}/logfile.0"))
    assert len({log[64:] for log in made}) == 1


def test_fuzzed_frames_are_refused_or_whole() -> None:
    rng = random.Random(11)
    good = frame_of(1, b"abc", b"def", value=b"some value")
    outcomes = {True: 0, False: 0}
    for _ in range(20_000):
        data = bytearray(good.payload)
        for _ in range(rng.choice((1, 1, 3))):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 255, rng.randrange(256)))
        try:
            changes = changes_of(good._replace(payload=bytes(data)))
        except ValueError:
            outcomes[False] += 1
            with suppress(ValueError):
                assert puts_of(good._replace(payload=bytes(data))) is None
        else:
            outcomes[True] += 1
            assert len(changes) <= len(data) // 12
            puts = puts_of(good._replace(payload=bytes(data)))
            assert puts is None or puts.keys == [change[2] for change in changes]
    assert min(outcomes.values()) > 1000


@pytest.mark.parametrize("engine", VARIANTS)
def test_a_frame_without_room_changes_nothing(engine: str) -> None:
    inner = MemoryEnv()
    env = FaultyEnv(inner)
    store = open_store(env, engine)
    store.append_frame(frame_of(1, b"a"))
    full = env.add(Fault("allocate", error=errno.ENOSPC, times=None))
    big = frame_of(2, b"b", value=b"x" * 300_000)
    with pytest.raises(StoreFull):
        store.append_frame(big)
    assert full.fired
    assert (store.last, set(state_of(store))) == (1, {(0, b"a")})
    env.clear()
    assert store.append_frame(big) == 2
    store.wait(2)
    store.close()


def test_w1_room_is_reserved_for_every_frame_of_a_group() -> None:
    env = MemoryEnv()
    store = open_store(env)
    for first in range(1, 2001):  # each reign has a frame of its own
        store.append_frame(frame_of(first, b"k", epoch=first, value=b""))
    size = len(env.contents(f"{DIRECTORY}/logfile.0"))
    store.wait(2000)
    assert store.commit.log.end <= size
    assert len(env.contents(f"{DIRECTORY}/logfile.0")) == size


def test_own_batches_are_written_before_frames_that_come_later() -> None:
    """A deposed primary: what it appended comes first, in its own epoch."""
    store = open_store(MemoryEnv())
    store.append_put(0, b"own", b"1")
    store.append_frame(frame_of(2, b"theirs", epoch=5))
    store.wait(2)
    assert [(f.first_sequence, f.epoch) for f in read_all(store, 0)] == [(1, 1), (2, 5)]


def test_a_promoted_replica_s_own_batches_follow_the_frames_in_a_new_epoch() -> None:
    store = open_store(MemoryEnv())
    store.follow()
    store.append_frame(frame_of(1, b"theirs", epoch=5))
    store.raise_epoch(6)
    assert store.commit.durable == 1, "written in the epoch it came in"
    store.lead()
    put(store, b"own")
    assert [(f.first_sequence, f.epoch) for f in read_all(store, 0)] == [(1, 5), (2, 6)]
    assert store.position == Position(6, 2)


# -- following -------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", VARIANTS)
def test_a_follower_refuses_writes_and_goes_on_reading(engine: str) -> None:
    with marram.open(DIRECTORY, env=MemoryEnv(), **options_of(engine)) as db:
        db.put(b"a", b"1")
        db.store.follow()
        for write in (
            lambda: db.put(b"a", b"2"),
            lambda: db.delete(b"a"),
            lambda: db.put_many({b"a": b"2"}),
            lambda: db.compare_and_set(b"a", b"1", b"2"),
            lambda: db.expire(b"a", 5),
            lambda: db.clear(),
            lambda: db.store.begin(),
        ):
            with pytest.raises(ReadOnly, match="follows another"):
                write()
        assert dict(db) == {b"a": b"1"}
        db.store.append_frame(frame_of(2, b"b", epoch=1))
        assert db.get(b"b") == b"v"
        db.store.lead()
        db.put(b"c", b"3")
        assert len(db) == 3
        assert db.store.commit.durable == 3


@pytest.mark.parametrize("engine", VARIANTS)
def test_a_follower_s_time_is_its_primary_s_and_it_deletes_nothing(engine: str) -> None:
    env = MemoryEnv()
    now = env.wall_ms()
    with marram.open(DIRECTORY, env=env, **options_of(engine)) as db:
        store = db.store
        store.follow()
        change = put_change(0, b"k", b"v", now + 1000)
        store.append_frame(Frame(1, 1, 1, now - 50_000, encode([change])))
        assert store.now_ms() >= now, "it was opened at that time, and time never goes back"
        env.advance(5_000)
        assert db.get(b"k") == b"v", "late by the clock here, not by the primary's"
        store.clock.hear(now + 999)
        assert db.get(b"k") == b"v"
        store.clock.hear(now + 1000)
        assert db.get(b"k") is None
        assert list(db.scan()) == []
        assert store.expire_due(100) == 0
        assert store.last == 1, "the deletion is the primary's to write"
        store.clock.hear(now)
        assert store.now_ms() == now + 1000
        store.lead()
        assert store.now_ms() == now + 5_000
        assert db.get(b"k") is None
        assert store.last == 2, "and now its own"


def test_a_replica_that_is_opened_again_goes_on_at_the_time_of_its_log() -> None:
    env = MemoryEnv()
    now = env.wall_ms()
    store = open_store(env)
    store.follow()
    store.append_frame(frame_of(1, b"a", time_ms=now + 70))
    store.wait(1)
    store.close()
    env.advance(60_000)
    store = open_store(env)
    assert store.now_ms() == now + 60_000
    store.follow()
    assert store.now_ms() == now + 70


def test_memory_limit_is_the_primary_s_to_keep() -> None:
    store = open_store(MemoryEnv(), memory_limit=1000)
    store.append_frame(frame_of(1, b"a", value=b"x" * 5000))
    store.append_frame(frame_of(2, b"b", value=b"x" * 5000))
    with pytest.raises(StoreFull):
        store.append_put(0, b"c", b"x")


# -- epochs ----------------------------------------------------------------------------------------


def test_an_epoch_is_raised_durably_by_a_mark_and_never_lowered() -> None:
    env = MemoryEnv()
    store = open_store(env, durability="none")
    put(store, b"a")
    store.append_put(0, b"b", b"v")
    store.raise_epoch(5)
    assert (store.epoch, store.position.epoch) == (5, 5)
    disk = env.crash_clone(0.0, 0)
    for epoch in (5, 4, 0, 2**63):
        with pytest.raises(InvalidArgument, match="not above 5"):
            store.raise_epoch(epoch)
    put(store, b"c")
    frames = read_all(store, 0)
    assert [(f.count, f.epoch) for f in frames] == [(1, 1), (2, 5)], "what was pending is later"
    store.checkpoint()
    store.close()
    for env_ in (env, disk):
        store = open_store(env_)
        assert store.epoch == 5
        store.checkpoint()
        store.close()
        store = open_store(env_)
        assert store.epoch == 5
        store.close()


def test_an_epoch_that_finds_no_room_changes_nothing() -> None:
    env = FaultyEnv(MemoryEnv())
    store = open_store(env)
    log = store.commit.log
    while log.end + 500 < log._allocated:
        put(store, b"k", value=b"x" * 300)
    env.add(Fault("allocate", error=errno.ENOSPC, times=None))
    number = 0
    with pytest.raises(StoreFull):
        for number in range(2, 20):
            store.raise_epoch(number)
    assert store.epoch == number - 1
    env.clear()
    store.raise_epoch(100)
    put(store, b"k")
    store.close()
    store = open_store(env)
    assert store.epoch == 100


def test_the_log_of_a_replica_is_read_like_any_other() -> None:
    env = MemoryEnv()
    store = open_store(env)
    store.append_frame(frame_of(1, b"a", b"b", epoch=2, time_ms=7))
    store.wait(2)
    store.close()
    file = env.open(f"{DIRECTORY}/logfile.0")
    header = read_log_header(file)
    assert header is not None
    assert [(b.sequence, b.epoch, b.time_ms) for b in LogReader(file, header)] == [
        (1, 2, 7), (2, 2, 7),
    ]  # fmt: skip
