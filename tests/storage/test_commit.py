"""storage/commit.py: groups, what is settled, and what happens after a failure (C1 .. C9)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from marram.coding.batch import encode_put
from marram.coding.checksum import crc32
from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.errors import OutcomeUnknown, StoreFailed
from marram.storage.clock import StoreClock
from marram.storage.commit import CommitQueue, SyncTimes
from marram.storage.log.format import LogHeader
from marram.storage.log.writer import LogWriter


def make_queue(
    env: MemoryEnv | None = None, *, sync_each: bool = True, sync_within_ns: int = 0
) -> CommitQueue:
    env = env or MemoryEnv()
    env.make_dir("/db")
    log = LogWriter.create(env, "/db", LogHeader(bytes(16), 0, 0, 0, 1), 0)
    return CommitQueue(
        log, 0, 1, sync_each=sync_each, sync_within_ns=sync_within_ns,
        clock=StoreClock(env, 0), monotonic_ns=env.monotonic_ns,
    )  # fmt: skip


class HeldSync:
    """Holds every sync of an environment: `entered` when one is under way, until `release`."""

    def __init__(self, env: MemoryEnv) -> None:
        self.entered, self.release = threading.Event(), threading.Event()
        env.on_call = self._hold

    def _hold(self, operation: str, path: str) -> None:
        if operation == "sync_data":
            self.entered.set()
            assert self.release.wait(10)


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


def through(queue: CommitQueue, key: bytes) -> bool:
    """Append by enter_through(); whether it took the batch."""
    with queue.lock:
        batch = encode_put(0, key, b"v")
        queue.reserve(len(batch))
        if not queue.enter_through(batch):
            return False
        queue.settle_through()
        return True


def mapped_queue(env: MemoryEnv, sync_within_ns: int = 0) -> CommitQueue:
    queue = make_queue(env, sync_each=False, sync_within_ns=sync_within_ns)
    queue.log.is_mapped = True
    queue.wait(append(queue, b"first"))  # the log has a window from here on
    return queue


def test_c2_a_batch_entered_through_is_in_the_log_before_it_is_committed() -> None:
    env = MemoryEnv()
    queue = mapped_queue(env)
    logged = queue.log.end
    assert through(queue, b"a")
    assert (queue.last, queue.committed, queue.settles_at(b"a")) == (2, 2, 0)
    assert queue.log.end > logged
    assert b"a" in env.contents("/db/logfile.0")[logged : queue.log.end]
    chain = crc32(encode_put(0, b"a", b"v"), crc32(encode_put(0, b"first", b"v")))
    assert queue.point == (0, queue.log.end, 2, 1, chain)
    assert queue.durable == 2
    queue.wait(append(queue, b"b"))  # and the numbers go on
    assert queue.committed == 3


@pytest.mark.parametrize(
    "why", ["open", "writing", "taken", "failed", "synced", "no window", "bound"]
)
def test_c3_no_batch_is_entered_through_past_another(why: str) -> None:
    queue = mapped_queue(MemoryEnv())
    if why in ("open", "writing"):
        append(queue, b"before")
    if why == "writing":
        assert queue.take() is not None
    if why == "taken":
        queue.take_log()
    if why == "failed":
        queue.fail(OSError(5, "elsewhere"))
    if why == "synced":
        queue.sync_each = True
    if why == "no window":
        queue.log.close()
    if why == "bound":
        queue.set_bound(1)
    before = (queue.last, queue.committed, queue.log.end)
    assert not through(queue, b"a")
    assert (queue.last, queue.committed, queue.log.end) == before


def test_c8_what_is_not_synced_was_written_within_the_limit() -> None:
    env = MemoryEnv()
    queue = mapped_queue(env, 100 * 10**6)
    env.advance(100)
    assert through(queue, b"a"), "the limit is not past"
    queue.wait(append(queue, b"b"))
    assert queue.log.synced < queue.log.end
    env.advance(1)
    assert not through(queue, b"c")
    assert queue.must_sync
    queue.wait(append(queue, b"c"))
    assert queue.log.synced == queue.log.end
    assert through(queue, b"d"), "and it counts anew from that sync"
    env.advance(101)
    queue.note_sync(env.monotonic_ns() - 50)  # another thread's ended, that began before
    assert through(queue, b"e")


def test_c5_a_store_that_fails_latches() -> None:
    env = FaultyEnv(MemoryEnv(), Fault("write", "*/logfile.0", nth=3))  # header, first, this
    queue = mapped_queue(env)  # type: ignore[arg-type]
    assert not through(queue, b"a")
    with pytest.raises(OutcomeUnknown):
        queue.wait(append(queue, b"a"))
    assert queue.committed == 1


class Interrupting:
    """A lock; with `comes` set, Ctrl-C comes when it is let go of, once."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.comes = False

    def __enter__(self) -> None:
        self._inner.acquire()

    def __exit__(self, *exc: object) -> None:
        self._inner.release()
        if self.comes:
            self.comes = False
            raise KeyboardInterrupt


def test_c9_an_interrupt_between_taking_and_writing_a_group_leaves_nobody_waiting() -> None:
    queue = make_queue()
    first, second = append(queue, b"a"), append(queue, b"b")
    queue.lock = lock = Interrupting(queue.lock)
    lock.comes = True
    with pytest.raises(KeyboardInterrupt):
        queue.wait(first)
    with pytest.raises(OutcomeUnknown):
        queue.wait(second)
    with pytest.raises(StoreFailed):
        queue.take_log()


@pytest.fixture
def interrupts() -> Iterator[None]:
    """SIGINT is Ctrl-C, whatever a test before made of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_c9_an_interrupted_sleeper_is_waited_for_by_nobody() -> None:
    """The main thread and two others sleep; it is interrupted, and they are woken all the same."""
    env = MemoryEnv()
    queue = make_queue(env)
    sync = HeldSync(env)
    leader = threading.Thread(target=queue.wait, args=(append(queue, b"a"),))
    leader.start()
    assert sync.entered.wait(10)
    position = append(queue, b"b")  # the next group, which one of three will write

    def interrupt_main() -> None:
        followers = [threading.Thread(target=queue.wait, args=(position,)) for _ in range(2)]
        while len(queue._sleepers) < 1:
            os.sched_yield()
        for follower in followers:
            follower.start()
        while len(queue._sleepers) < 3:
            os.sched_yield()
        woken = threading.Event()
        while len(queue._sleepers) > 2:
            # One that comes just before it falls asleep is seen when it wakes: so, another one.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            woken.wait(0.1)
        sync.release.set()
        for thread in (leader, *followers):
            thread.join(10)

    helper = threading.Thread(target=interrupt_main, daemon=True)
    helper.start()
    with pytest.raises(KeyboardInterrupt):
        queue.wait(position)
    helper.join(20)
    assert queue.committed == position


def test_c9_who_waits_for_replicas_is_not_handed_the_log() -> None:
    env = MemoryEnv()
    queue = make_queue(env)
    queue.set_bound(0)
    held = append(queue, b"held")
    waiting = threading.Thread(target=queue.wait, args=(held,))
    waiting.start()
    while not queue._sleepers or queue.durable < held:
        os.sched_yield()
    sync = HeldSync(env)
    local = {"locally": True}
    leader = threading.Thread(target=queue.wait, args=(append(queue, b"a"),), kwargs=local)
    leader.start()
    assert sync.entered.wait(10)
    follower = threading.Thread(target=queue.wait, args=(append(queue, b"b"),), kwargs=local)
    follower.start()
    while len(queue._sleepers) < 2:  # the one for replicas came first
        os.sched_yield()
    sync.release.set()
    leader.join(10)
    follower.join(10)
    assert (queue.durable, queue.committed, len(queue._sleepers)) == (3, 0, 1)
    queue.set_bound(held)
    waiting.join(10)
    assert (queue.committed, queue._sleepers) == (held, [])


def test_c9_who_gives_up_is_waited_for_by_nobody() -> None:
    env = MemoryEnv()
    queue = make_queue(env)
    sync = HeldSync(env)
    leader = threading.Thread(target=queue.wait, args=(append(queue, b"a"),))
    leader.start()
    assert sync.entered.wait(10)
    position = append(queue, b"b")
    failed: list[BaseException] = []

    def give_up() -> None:
        try:
            queue.wait(position, 0)
        except OutcomeUnknown as error:
            failed.append(error)

    thread = threading.Thread(target=give_up)
    thread.start()
    thread.join(10)
    follower = threading.Thread(target=queue.wait, args=(position,))
    follower.start()
    while len(queue._sleepers) < 1:
        os.sched_yield()
    sync.release.set()
    for thread in (leader, follower):
        thread.join(10)
    assert len(failed) == 1
    assert (queue.committed, queue._sleepers) == (position, [])


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


def test_waiters_learn_of_a_failure_in_another_thread() -> None:
    env = MemoryEnv()
    queue = make_queue(env)
    entered, release = threading.Event(), threading.Event()

    def failing_sync(operation: str, path: str) -> None:
        if operation == "sync_data":
            entered.set()
            release.wait()
            raise OSError(5, "broken")

    env.on_call = failing_sync
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
