"""storage/commit.py: groups, what is settled, and what happens after a failure (C1 .. C5)."""

from __future__ import annotations

import threading

import pytest

from marram.coding.batch import encode_put
from marram.env.memory import MemoryEnv
from marram.errors import OutcomeUnknown, StoreFailed
from marram.storage.commit import CommitQueue, SyncTimes
from marram.storage.log.format import LogHeader
from marram.storage.log.writer import LogWriter


def make_queue() -> CommitQueue:
    env = MemoryEnv()
    env.make_dir("/db")
    log = LogWriter.create(env, "/db", LogHeader(bytes(16), 0, 0, 0, 1), 0)
    return CommitQueue(log, 0, 1, sync_each=True, now_ms=env.wall_ms, monotonic_ns=env.monotonic_ns)


def append(queue: CommitQueue, key: bytes) -> int:
    with queue.lock:
        batch = encode_put(0, key, b"v")
        queue.reserve(len(batch))
        group = queue.enter(batch)
        group.keys.add(key)
        return queue.last


def test_c1_positions_are_consecutive() -> None:
    queue = make_queue()
    assert [append(queue, b"k") for _ in range(5)] == [1, 2, 3, 4, 5]


def test_c3_what_arrives_during_a_sync_shares_the_next_group() -> None:
    queue = make_queue()
    append(queue, b"a")
    first = queue.take()
    assert first is not None
    append(queue, b"b")
    append(queue, b"c")
    assert queue.take() is None, "one group at most is written at a time"
    first.write()
    queue.complete(first, None)

    second = queue.take()

    assert second is not None
    assert (second.first, second.last, len(second.batches)) == (2, 3, 2)


def test_c2_c4_a_key_is_unsettled_until_its_group_is_committed() -> None:
    queue = make_queue()
    append(queue, b"a")
    assert queue.settles_at(b"a") == 1
    group = queue.take()
    assert group is not None
    assert queue.settles_at(b"a") == 1
    append(queue, b"b")
    assert (queue.settles_at(b"a"), queue.settles_at(b"b")) == (1, 2)
    group.write()
    assert queue.committed == 0
    queue.complete(group, None)

    assert queue.committed == 1
    assert (queue.settles_at(b"a"), queue.settles_at(b"b")) == (0, 2)
    assert queue.unsettled


def test_c4_a_range_change_unsettles_every_key() -> None:
    queue = make_queue()
    append(queue, b"a")
    group = queue.take()
    assert group is not None
    group.everything = True

    assert queue.settles_at(b"some other key") == 1


def test_c5_after_a_failure_nothing_is_committed_any_more() -> None:
    queue = make_queue()
    append(queue, b"a")
    group = queue.take()
    assert group is not None
    queue.fail(OSError(5, "elsewhere"))
    group.write()
    queue.complete(group, None)  # its own write went well, but the log is in doubt

    assert queue.committed == 0
    assert queue.settles_at(b"a") == 1
    append(queue, b"b")
    assert queue.take() is None
    with pytest.raises(OutcomeUnknown):
        queue.wait(1)
    with pytest.raises(StoreFailed):
        queue.take_log()


def test_many_threads_share_groups_and_all_return() -> None:
    queue = make_queue()
    done: list[int] = []
    gate = threading.Barrier(8)

    def work(number: int) -> None:
        gate.wait()
        for step in range(200):
            position = append(queue, b"%d" % step)
            queue.wait(position)
            assert queue.committed >= position
        done.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(done) == list(range(8))
    assert queue.committed == queue.last == 1600
    assert queue.groups <= 1600


def test_waiters_learn_of_a_failure_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = make_queue()
    entered, release = threading.Event(), threading.Event()

    def failing_sync() -> None:
        entered.set()
        release.wait()
        raise OSError(5, "broken")

    monkeypatch.setattr(queue.log, "sync", failing_sync)
    errors: list[BaseException] = []

    def write(key: bytes) -> None:
        try:
            queue.wait(append(queue, key))
        except OutcomeUnknown as error:
            errors.append(error)

    leader = threading.Thread(target=write, args=(b"a",))
    leader.start()
    entered.wait()
    follower = threading.Thread(target=write, args=(b"b",))
    follower.start()
    release.set()
    leader.join()
    follower.join()

    assert len(errors) == 2


@pytest.mark.parametrize(
    ("elapsed_us", "bucket"), [(0, 0), (32, 0), (33, 1), (64, 1), (65, 2), (10**9, 17)]
)
def test_sync_times_fall_into_their_bucket(elapsed_us: int, bucket: int) -> None:
    times = SyncTimes()
    times.record(elapsed_us * 1000)
    assert times.counts[bucket] == 1
    assert bucket == 17 or elapsed_us <= SyncTimes.BOUNDS_US[bucket]
