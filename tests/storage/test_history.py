"""storage/history.py: which logs there are, what they come to, reading on from any position."""

from __future__ import annotations

import errno
import logging
import random
import threading
from contextlib import closing

import pytest

from marram.coding.batch import encode
from marram.coding.batch import put as put_change
from marram.env.api import File
from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.errors import Corruption, InvalidArgument, LogGone, StoreFull
from marram.storage import layout, recovery
from marram.storage.convert import convert
from marram.storage.engine import Origin
from marram.storage.engines import write_first
from marram.storage.history import Mark
from marram.storage.log.format import FRAME_MAGIC, LogHeader
from marram.storage.log.writer import LogWriter
from marram.storage.options import Options
from marram.storage.store import Store
from marram.storage.verify import verify_directory
from tests.crash.history import VARIANTS
from tests.storage.replicas import (
    DIRECTORY,
    OTHER,
    batches_of,
    logs_of,
    marks_of,
    open_store,
    put,
    read_all,
)

KEEP = 1 << 30


def busy_store(env: MemoryEnv, engine: str = "memory", seed: int = 1, **options: object) -> Store:
    """Some generations with groups of several sizes, and reigns of more than one epoch."""
    rng = random.Random(seed)
    store = open_store(env, engine, **{"replica_log_bytes": KEEP, **options})
    for step in range(60):
        for _ in range(rng.randrange(1, 5)):
            key = b"k%d" % rng.randrange(20)
            store.append([put_change(0, key, rng.randbytes(rng.choice((1, 30, 500))))])
        store.wait(store.last)
        if step % 17 == 11:
            store.checkpoint()
        if step in (20, 40):
            store.raise_epoch(store.epoch + 2)
    return store


# -- marks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", VARIANTS)
def test_a_mark_is_the_crc_of_all_batches_before_it_wherever_groups_and_logs_end(
    engine: str,
) -> None:
    env = MemoryEnv()
    store = busy_store(env, engine)
    batches = list(batches_of(read_all(store, 0)))
    expected = marks_of(batches)

    assert [sequence for sequence, _, _ in batches] == list(range(1, store.last + 1))
    assert len({epoch for _, epoch, _ in batches}) == 3
    assert len(logs_of(env)) > 3
    for sequence, mark in expected.items():
        assert store.history.mark(sequence) == mark
    assert store.history.newest() == expected[store.last]
    assert store.history.mark(store.last + 1) is None
    store.close()

    store = open_store(env, engine, replica_log_bytes=KEEP)
    assert store.history.newest() == expected[store.last]
    assert {s: store.history.mark(s) for s in expected} == expected
    store.close()


def test_a_store_without_a_batch_has_the_mark_of_no_history() -> None:
    store = open_store(MemoryEnv())
    assert store.history.newest() == store.history.mark(0) == Mark(0, 0, 0)
    store.raise_epoch(7)
    assert store.history.newest() == Mark(0, 0, 0), "the epoch of a mark is its batch's"


def test_the_start_of_a_generation_is_known_when_the_log_before_it_is_gone() -> None:
    env = MemoryEnv()
    store = open_store(env)
    put(store, b"a", b"b", b"c")
    expected = store.history.newest()
    store.checkpoint()

    assert (store.history.oldest, store.history.mark(3)) == (3, expected)
    assert store.history.mark(2) is None
    store.close()
    store = open_store(env)
    assert store.history.newest() == expected


def test_a_mark_near_the_end_of_a_long_log_does_not_read_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = MemoryEnv()
    store = open_store(env)
    for number in range(60):
        put(store, b"%d" % number, value=b"x" * 100_000)
    read_all(store, 0)  # as a follower has
    read = count_reads(monkeypatch, env)

    assert store.history.mark(58) is not None
    assert sum(read) < 2 << 20


def count_reads(monkeypatch: pytest.MonkeyPatch, env: MemoryEnv) -> list[int]:
    """Sizes of what is read of logs from now on."""
    sizes: list[int] = []
    kind = type(env.open(f"{DIRECTORY}/version"))
    read = kind.read

    def counted(file: File, size: int, offset: int) -> bytes:
        data: bytes = read(file, size, offset)  # type: ignore[arg-type]
        if "logfile" in file.path:
            sizes.append(len(data))
        return data

    monkeypatch.setattr(kind, "read", counted)
    return sizes


# -- tails -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", VARIANTS)
def test_a_tail_from_anywhere_gives_every_batch_once_in_order(engine: str) -> None:
    store = busy_store(MemoryEnv(), engine, seed=3)
    whole = list(batches_of(read_all(store, 0)))
    rng = random.Random(5)

    for _ in range(40):
        after, max_bytes = rng.randrange(store.last + 1), rng.choice((1, 100, 2000, 1 << 20))
        assert list(batches_of(read_all(store, after, max_bytes))) == whole[after:]
    store.close()


def test_a_frame_is_a_group_and_a_read_gives_as_many_as_fit_or_one() -> None:
    store = open_store(MemoryEnv())
    for count in (3, 1, 2):
        for number in range(count):
            store.append_put(0, b"%d" % number, b"x" * 100)
        store.wait(store.last)
    one = len(encode([put_change(0, b"0", b"x" * 100)]))

    with closing(store.history.tail(0)) as tail:
        assert [frame.count for frame in tail.read(4 * one)] == [3, 1]
        assert [frame.count for frame in tail.read(1)] == [2], "one at least"
        assert tail.read(1) == []
        assert tail.position == store.last


def test_q2_a_tail_never_gives_what_is_not_durable_yet() -> None:
    store = open_store(MemoryEnv())
    put(store, b"a")
    with closing(store.history.tail(0)) as tail:
        assert tail.read(1000)[-1].last_sequence == 1
        store.append_put(0, b"b", b"v")
        assert tail.read(1000) == [], "appended"
        group = store.take_group()
        assert group is not None
        group.write()
        assert tail.read(1000) == [], "written, and nobody said so"
        assert store.history.newest().sequence == 1
        store.complete(group, None)
        assert [frame.first_sequence for frame in tail.read(1000)] == [2]


def test_a_tail_reads_no_more_than_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    env = MemoryEnv()
    store = open_store(env)
    put(store, *(b"%d" % n for n in range(500)), value=b"x" * 1000)
    with closing(store.history.tail(0)) as tail:
        tail.read(1)
        read = count_reads(monkeypatch, env)
        again = store.history.tail(0)
        frames = again.read(5000)
        assert 4 <= len(frames) <= 5
        assert sum(read) < 10_000, "of a log that has 500 kB, and 64 kB reserved behind"
        again.close()


def test_what_is_beyond_the_newest_is_refused_and_what_is_gone_is_told() -> None:
    env = MemoryEnv()
    store = open_store(env)
    put(store, b"a", b"b")
    with pytest.raises(InvalidArgument, match="no batch 3"):
        store.history.tail(3)
    tail = store.history.tail(0)
    store.checkpoint()  # keeps nothing
    with pytest.raises(LogGone):
        tail.read(1000)
    with pytest.raises(LogGone):
        store.history.tail(1)
    assert store.history.tail(2).read(1000) == []


def test_a_tail_goes_on_over_a_switch_it_did_not_see() -> None:
    env = MemoryEnv()
    store = open_store(env, replica_log_bytes=KEEP)
    put(store, b"a")
    with closing(store.history.tail(0)) as tail:
        for number in range(4):
            store.checkpoint()
            put(store, b"b%d" % number)
        assert [f.first_sequence for f in tail.read(KEEP)] == [1, 2, 3, 4, 5]
        store.checkpoint()
        assert tail.read(KEEP) == []
        put(store, b"c")
        assert [f.first_sequence for f in tail.read(KEEP)] == [6]


def test_a_removed_log_s_file_is_not_kept_open_by_an_idle_tail() -> None:
    store = open_store(MemoryEnv())
    put(store, b"a")
    tail = store.history.tail(0)
    tail.read(1)
    assert tail._file is not None
    store.checkpoint()
    assert tail._file is None


@pytest.mark.parametrize("engine", VARIANTS)
def test_readers_beside_writers_and_switches_see_one_history(engine: str) -> None:
    env = MemoryEnv(threads=True)
    store = open_store(env, engine, replica_log_bytes=KEEP, durability="none")
    stop = 600
    failures: list[BaseException] = []
    seen: list[list[tuple[int, int, bytes]]] = [[] for _ in range(3)]

    def follow(index: int) -> None:
        try:
            with closing(store.history.tail(0)) as tail:
                while len(seen[index]) < stop:
                    frames = tail.read(random.Random(len(seen[index])).choice((1, 500, 10_000)))
                    seen[index] += batches_of(frames)
                    if frames:
                        mark = store.history.mark(frames[0].first_sequence)
                        assert mark is not None
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=follow, args=(index,)) for index in range(3)]
    for reader in readers:
        reader.start()
    for number in range(stop):
        put(store, b"k%d" % (number % 30), value=b"%d" % number * 20)
        if number % 50 == 25:
            store.checkpoint()
    for reader in readers:
        reader.join(60)

    assert not failures, failures
    assert seen[0] == seen[1] == seen[2] == list(batches_of(read_all(store, 0)))
    assert marks_of(seen[0])[stop] == store.history.newest()
    store.close()


# -- retention -------------------------------------------------------------------------------------


def generations(store: Store, count: int, size: int = 1000) -> None:
    """A log of about `size` bytes each."""
    for number in range(count):
        put(store, b"g%d" % number, value=b"x" * size)
        store.checkpoint()


def test_q3_logs_are_kept_up_to_the_bytes_and_not_one_more() -> None:
    env = MemoryEnv()
    store = open_store(env, replica_log_bytes=KEEP)
    generations(store, 4)
    kept = store.history.stats()
    assert (kept["kept_logs"], logs_of(env)) == (4, [0, 1, 2, 3, 4])
    of_one = env.contents(f"{DIRECTORY}/logfile.2")
    assert len(of_one) < 2000, "the space that was reserved is given back"
    store.close()

    store = open_store(env, replica_log_bytes=kept["kept_bytes"])
    assert logs_of(env) == [0, 1, 2, 3, 4]
    store.close()
    store = open_store(env, replica_log_bytes=kept["kept_bytes"] - 1)
    assert (logs_of(env), store.history.oldest) == ([1, 2, 3, 4], 1)
    store.close()
    store = open_store(env)
    assert (logs_of(env), store.history.oldest) == ([4], 4)


def test_q3_old_logs_go_unless_a_follower_needs_them() -> None:
    env = MemoryEnv()
    store = open_store(env, replica_log_bytes=KEEP, replica_log_age_s=100)
    generations(store, 2)
    env.advance(60_000)
    generations(store, 1)
    store.history.hold("needy", 1)
    env.advance(39_000)
    store.generations.release_logs()
    assert logs_of(env) == [0, 1, 2, 3]
    assert not store.history.has_overdue(store.now_ms())

    env.advance(1_000)
    assert store.history.has_overdue(store.now_ms())
    store.generations.release_logs()
    assert logs_of(env) == [1, 2, 3], "batch 2 is in logfile.1"
    store.history.hold("needy", 2)
    store.generations.release_logs()
    assert logs_of(env) == [2, 3]
    store.history.unhold("needy")
    env.advance(60_000)
    store.generations.release_logs()
    assert logs_of(env) == [3], "the one that recovery needs stays"
    assert read_all(store, 3) == []


def test_q3_too_many_bytes_go_though_they_are_needed_and_that_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    env = MemoryEnv()
    store = open_store(env, replica_log_bytes=2700)
    store.history.hold("slow", 0)
    store.history.hold("fast", 3)
    generations(store, 4)

    assert store.history.oldest == 2
    assert store.history.stats()["dropped_while_needed"] == 1, "what it has lost, it has lost"
    assert store.history.stats()["dropped_logs"] == 2
    assert "logfile.0" in caplog.text
    assert "slow" in caplog.text
    assert "fast" not in caplog.text
    assert store.history.stats()["followers"] == {"fast": 3, "slow": 0}


def test_a_log_is_not_removed_while_files_are_being_read() -> None:
    env = MemoryEnv()
    store = open_store(env, replica_log_bytes=KEEP, replica_log_age_s=1)
    generations(store, 2)
    env.advance(10_000)
    with store.generations.held():
        store.generations.release_logs()
        assert logs_of(env) == [0, 1, 2]


@pytest.mark.parametrize("engine", VARIANTS)
def test_q1_recovery_keeps_what_leads_up_to_the_generation_and_drops_what_does_not(
    engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    env = MemoryEnv()
    store = busy_store(env, engine)
    numbers, last = logs_of(env), store.last
    bases = {n: read_base(env, n) for n in numbers}
    store.close()
    gap, present = numbers[1], numbers[-1]
    path = f"{DIRECTORY}/logfile.{gap}"

    def opened(change) -> tuple[list[int], int]:  # type: ignore[no-untyped-def]
        disk = env.crash_clone(1.0, 0)
        change(disk)
        store = open_store(disk, engine, replica_log_bytes=KEEP)
        assert store.last == last
        found = logs_of(disk), store.history.oldest
        assert len(list(batches_of(read_all(store, found[1])))) == last - found[1]
        store.close()
        return found

    def shortened(disk: MemoryEnv) -> None:
        disk.put_file(path, disk.contents(path)[:-60])

    def swapped(disk: MemoryEnv) -> None:
        disk.put_file(path, disk.contents(f"{DIRECTORY}/logfile.{gap + 1}"))

    assert opened(lambda disk: None) == (numbers, 0)
    after = (numbers[2:], bases[numbers[2]])
    assert opened(lambda disk: disk.remove(path)) == after
    assert not caplog.records, "a gap is nothing to worry about"
    for change in (shortened, swapped, lambda disk: disk.mutate(path, 20, b"\xff")):
        assert opened(change) == after
        assert path in caplog.text
        caplog.clear()
    assert present == numbers[-1]


def read_base(env: MemoryEnv, number: int) -> int:
    from marram.storage.log.reader import read_log_header

    header = read_log_header(env.open(f"{DIRECTORY}/logfile.{number}"))
    assert header is not None
    return header.base_sequence


def test_q1_a_kept_log_of_another_course_of_the_store_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As after a copy of the directory went on separately: number, sizes, sequences are right."""
    env = MemoryEnv()
    store = open_store(env, replica_log_bytes=KEEP)
    put(store, b"both")
    store.close()
    courses = []
    for value in (b"one", b"two"):
        disk = env.crash_clone(1.0, 0)
        store = open_store(disk, replica_log_bytes=KEEP)
        put(store, b"course", value=value)
        store.checkpoint()
        store.close()
        courses.append(disk)
    one, two = courses
    path = f"{DIRECTORY}/logfile.0"
    assert len(one.contents(path)) == len(two.contents(path))
    one.put_file(path, two.contents(path))

    assert any(
        "another history" in problem for problem in verify_directory(one, DIRECTORY).problems
    )
    store = open_store(one, replica_log_bytes=KEEP)
    assert store.history.oldest == 2
    assert path in caplog.text


# -- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["header", "payload"])
def test_q2_damage_in_a_kept_log_is_told_with_its_place_and_never_given_out(
    part: str, caplog: pytest.LogCaptureFixture
) -> None:
    env = MemoryEnv()
    store = open_store(env, replica_log_bytes=KEEP)
    put(store, *(b"%d" % n for n in range(10)))
    store.checkpoint()
    put(store, b"later")
    path = f"{DIRECTORY}/logfile.0"
    starts = frame_starts(env.contents(path))
    bad = starts[6]  # the first frame says what the log goes on from
    env.mutate(path, bad + (30 if part == "header" else 60), b"\xff")
    tail = store.history.tail(2)

    assert [frame.first_sequence for frame in tail.read(KEEP)] == [3, 4, 5], "what is good"
    with pytest.raises(Corruption) as caught:
        tail.read(KEEP)
    assert (caught.value.path, caught.value.offset) == (path, bad)
    # From here on nobody begins in that log.
    assert "dropped" in caplog.text
    assert store.history.oldest == 10
    with pytest.raises(LogGone):
        store.history.tail(2)
    store.checkpoint()
    assert logs_of(env) == [1, 2]


def test_q2_damage_in_the_present_log_is_told_every_time() -> None:
    env = MemoryEnv()
    store = open_store(env, replica_log_bytes=KEEP)
    put(store, b"a", b"b", b"c")
    path = f"{DIRECTORY}/logfile.0"
    bad = frame_starts(env.contents(path))[2]
    env.mutate(path, bad + 60, b"\xff")
    tail = store.history.tail(0)
    assert len(tail.read(KEEP)) == 1
    for _ in range(2):
        with pytest.raises(Corruption) as caught:
            tail.read(KEEP)
        assert caught.value.offset == bad
    assert store.history.oldest == 0
    with pytest.raises(Corruption):
        store.history.mark(2)


def frame_starts(data: bytes) -> list[int]:
    starts, at = [], data.find(FRAME_MAGIC)
    while at >= 0:
        starts.append(at)
        at = data.find(FRAME_MAGIC, at + 1)
    return starts


def test_every_flipped_byte_of_a_kept_log_is_found_by_verify_and_by_who_reads_it() -> None:
    env = MemoryEnv()
    store = open_store(env, replica_log_bytes=KEEP)
    put(store, b"a", b"b", b"c")
    store.checkpoint()
    put(store, b"d")
    whole = list(batches_of(read_all(store, 0)))
    store.close()
    path = f"{DIRECTORY}/logfile.0"
    data = env.contents(path)

    for at in range(len(data)):
        disk = env.crash_clone(1.0, 0)
        disk.mutate(path, at, bytes([data[at] ^ 1 << at % 8]))
        report = verify_directory(disk, DIRECTORY)
        assert any(problem.startswith(path) for problem in report.problems), f"byte {at}"
        store = open_store(disk, replica_log_bytes=KEEP)
        assert store.last == 4, "it decides nothing about the store"
        given: list[tuple[int, int, bytes]] = []
        oldest = store.history.oldest
        try:
            tail = store.history.tail(oldest)
            while frames := tail.read(1):
                given += batches_of(frames)
            assert oldest == 3, f"byte {at} was flipped and nobody noticed"
        except Corruption as error:
            assert error.path == path
        assert given == whole[oldest : oldest + len(given)], f"byte {at}: wrong bytes given out"
        store.close()


def test_logs_that_do_not_belong_together_are_not_replayed() -> None:
    env = MemoryEnv()
    store = open_store(env, durability="none")
    put(store, b"both")
    store.close()
    courses = []
    for value in (b"one", b"two"):
        disk = env.crash_clone(1.0, 0)
        store = open_store(disk)
        put(store, b"course", value=value)
        store.checkpoint()
        put(store, b"more")
        store.close()
        courses.append(disk)
    one, two = courses
    one.put_file(f"{DIRECTORY}/logfile.1", two.contents(f"{DIRECTORY}/logfile.1"))

    with pytest.raises(Corruption, match="different histories"):
        open_store(one)
    assert verify_directory(one, DIRECTORY).problems


def test_live_logs_of_two_courses_are_not_replayed_one_behind_the_other() -> None:
    """A checkpoint found no room, so both logs are needed; sizes and numbers fit."""
    inner = MemoryEnv()
    store = open_store(inner)
    put(store, b"both")
    store.close()
    courses = []
    for value in (b"one", b"two"):
        disk = inner.crash_clone(1.0, 0)
        env = FaultyEnv(disk, Fault("write", "*checkpoint.*", error=errno.ENOSPC))
        store = open_store(env)
        put(store, b"course", value=value)
        with pytest.raises(StoreFull):
            store.checkpoint()
        put(store, b"more")
        store.close()
        assert logs_of(disk) == [0, 1]
        courses.append(disk)
    one, two = courses
    open_store(one.crash_clone(1.0, 0)).close()
    one.put_file(f"{DIRECTORY}/logfile.1", two.contents(f"{DIRECTORY}/logfile.1"))

    with pytest.raises(Corruption, match="another history") as caught:
        open_store(one)
    assert caught.value.path == f"{DIRECTORY}/logfile.1"
    assert any("another history" in p for p in verify_directory(one, DIRECTORY).problems)


def test_a_tail_does_not_go_on_in_a_log_that_does_not_follow() -> None:
    """Its file was exchanged under the open store for one of another course."""
    env = MemoryEnv()
    store = open_store(env)
    put(store, b"both")
    store.close()
    other = env.crash_clone(1.0, 0)
    for disk, value in ((env, b"one"), (other, b"two")):
        store = open_store(disk, replica_log_bytes=KEEP)
        put(store, b"course", value=value)
        store.checkpoint()
        put(store, b"more")
        store.close()
    store = open_store(env, replica_log_bytes=KEEP)
    path = f"{DIRECTORY}/logfile.0"
    env.put_file(path, other.contents(path))
    tail = store.history.tail(0)
    assert [frame.last_sequence for frame in tail.read(KEEP)][-1] == 2
    with pytest.raises(Corruption, match="elsewhere") as caught:
        tail.read(KEEP)
    assert caught.value.path == path
    assert store.history.oldest == 2, "and nobody begins there any more"


# -- formats ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", VARIANTS)
def test_a_store_of_an_older_version_begins_its_checksum_with_its_log(engine: str) -> None:
    env = MemoryEnv()
    env.make_dir(DIRECTORY)
    origin = Origin(bytes(range(16)), 3, 10, env.wall_ms())
    write_first(env, DIRECTORY, Options(engine=engine.partition("-")[0]), origin, [])
    log = LogWriter.create(env, DIRECTORY, LogHeader(origin.store_id, 0, 0, 10, 3), 0)
    batch = encode([put_change(0, b"a", b"1")])
    log.write([batch], 11, 3, origin.time_ms)
    log.sync()
    log.close()
    layout.switch_version(env, DIRECTORY, 0)

    store = open_store(env, engine, replica_log_bytes=KEEP)
    assert store.history.mark(10) == Mark(3, 10, 0)
    put(store, b"b")
    expected = marks_of(list(batches_of(read_all(store, 10))), Mark(3, 10, 0))
    store.checkpoint()
    put(store, b"c")
    assert (store.history.oldest, store.history.mark(11)) == (10, expected[11])
    assert len(read_all(store, 10)) == 3
    store.close()
    assert verify_directory(env, DIRECTORY).ok
    store = open_store(env, engine, replica_log_bytes=KEEP)
    assert (store.history.oldest, store.last) == (10, 13)
    assert store.history.mark(12) == expected[12]
    store.close()


@pytest.mark.parametrize("engine", VARIANTS)
def test_copies_go_on_with_the_history_of_what_they_are_copies_of(engine: str) -> None:
    from marram.storage.backup import backup, restore

    env = MemoryEnv()
    store = busy_store(env, engine)
    store.raise_epoch(90)
    backup(store, OTHER)
    newest = store.history.newest()
    store.close()
    restore(env, OTHER, "/data/third")
    convert(env, DIRECTORY, "/data/fourth", "memory" if engine != "memory" else "lsm")
    for directory in (OTHER, "/data/third"):
        copy = open_store(env, engine, directory)
        assert (copy.history.newest(), copy.epoch) == (newest, 90)
        copy.close()
    copy = Store.open("/data/fourth", env, Options())
    assert (copy.history.newest(), copy.epoch) == (newest, 90)
    copy.close()


def test_a_directory_that_lost_its_version_keeps_what_was_set_aside() -> None:
    env = MemoryEnv()
    env.make_dir(DIRECTORY)
    path = layout.diverged_path(DIRECTORY, 3, 10, 20)
    env.put_file(path, b"kept")
    assert not recovery.is_store(env, DIRECTORY)
    open_store(env).close()
    assert env.contents(path) == b"kept"


def test_q1_logging_of_nothing_is_not_needed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    env = MemoryEnv()
    for _ in range(3):
        store = open_store(env, replica_log_bytes=KEEP)
        generations(store, 1)
        store.close()
    assert not caplog.records
