"""FaultyEnv: rules fail exactly the calls they name (F1-F3)."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from marram.env import Env
from marram.env.faulty import OPERATIONS, Fault, FaultyEnv
from marram.env.memory import MemoryEnv


@pytest.fixture
def disk() -> MemoryEnv:
    disk = MemoryEnv()
    disk.put_file("/d/logfile.1", b"old")
    return disk


def failures(call: Callable[[], object], times: int) -> list[int]:
    """Which of `times` calls raise OSError, counted from 1."""
    failed = []
    for number in range(1, times + 1):
        try:
            call()
        except OSError:
            failed.append(number)
    return failed


@pytest.mark.parametrize(
    ("nth", "times", "expected"),
    [(1, 1, [1]), (3, 1, [3]), (2, 3, [2, 3, 4]), (4, None, [4, 5, 6]), (7, 1, [])],
)
def test_f1_exactly_the_nth_calls_fail(
    disk: MemoryEnv, nth: int, times: int | None, expected: list[int]
) -> None:
    fault = Fault("sync_data", "*logfile*", nth=nth, times=times)
    file = FaultyEnv(disk, fault).open("/d/logfile.1", write=True)
    assert failures(file.sync_data, 6) == expected
    assert (fault.seen, fault.fired) == (6, len(expected))


def test_f1_only_matching_calls_count(disk: MemoryEnv) -> None:
    disk.put_file("/d/version", b"7")
    env = FaultyEnv(disk)
    fault = env.add(Fault("read", "*/logfile.*", nth=2))
    log, version = env.open("/d/logfile.1"), env.open("/d/version")
    assert failures(lambda: version.read(1, 0), 5) == []
    assert failures(log.size, 5) == []
    assert failures(lambda: log.read(1, 0), 5) == [2]
    assert fault.seen == 5


def test_f1_rename_and_link_match_by_either_name(disk: MemoryEnv) -> None:
    env = FaultyEnv(disk, Fault("rename", "*/new"), Fault("link", "*/logfile.1"))
    with pytest.raises(OSError):
        env.rename("/d/logfile.1", "/d/new")
    with pytest.raises(OSError):
        env.link("/d/logfile.1", "/d/copy")
    assert disk.list_dir("/d") == ["logfile.1"]


CALLS: dict[str, Callable[[Env], object]] = {
    "open": lambda env: env.open("/d/logfile.1"),
    "lock": lambda env: env.lock("/d/LOCK"),
    "exists": lambda env: env.exists("/d"),
    "list_dir": lambda env: env.list_dir("/d"),
    "make_dir": lambda env: env.make_dir("/d/e"),
    "rename": lambda env: env.rename("/d/logfile.1", "/d/x"),
    "remove": lambda env: env.remove("/d/logfile.1"),
    "link": lambda env: env.link("/d/logfile.1", "/d/x"),
    "sync_dir": lambda env: env.sync_dir("/d"),
    "free_bytes": lambda env: env.free_bytes("/d"),
    "read": lambda env: log(env).read(1, 0),
    "size": lambda env: log(env).size(),
    "write": lambda env: log(env).write(b"new", 0),
    "allocate": lambda env: log(env).allocate(0, 100),
    "window": lambda env: zeros(env).window(0, 100),
    "truncate": lambda env: log(env).truncate(0),
    "sync_data": lambda env: log(env).sync_data(),
    "sync": lambda env: log(env).sync(),
    "close": lambda env: log(env).close(),
}


def log(env: Env):  # type: ignore[no-untyped-def]
    return env.open("/d/logfile.1", write=True)


def zeros(env):  # type: ignore[no-untyped-def]
    env.inner.put_file("/d/zeros", bytes(100))
    return env.open("/d/zeros", write=True)


def test_every_operation_is_called_here() -> None:
    assert set(CALLS) == OPERATIONS


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_f2_a_failed_call_never_reached_the_disk(disk: MemoryEnv, operation: str) -> None:
    env = FaultyEnv(disk, Fault(operation, error=errno.ENOSPC))
    with pytest.raises(OSError) as caught:
        CALLS[operation](env)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename.startswith("/d")
    assert disk.total_calls == 0
    assert disk.contents("/d/logfile.1") == b"old"
    CALLS[operation](env)  # the next one succeeds


def test_f2_a_store_into_a_window_fails_as_a_write_does(disk: MemoryEnv) -> None:
    env = FaultyEnv(disk, Fault("write", "*/zeros", nth=2), Fault("write", nth=3, short=2))
    window = zeros(env).window(50, 50)
    window[0:3] = b"one"
    with pytest.raises(OSError):
        window[3:6] = b"two"
    with pytest.raises(OSError):
        window[6:9] = b"six"
    window[9:12] = b"end"
    assert disk.contents("/d/zeros")[50:62] == b"one\0\0\0si\0end"


def test_f2_a_short_write_leaves_its_prefix(disk: MemoryEnv) -> None:
    env = FaultyEnv(disk, Fault("write", nth=2, error=errno.ENOSPC, short=4))
    file = log(env)
    file.write(b"first", 0)
    with pytest.raises(OSError) as caught:
        file.write(b"second", 5)
    assert caught.value.errno == errno.ENOSPC
    assert disk.contents("/d/logfile.1") == b"firstseco"
    file.write(b"third", 5)
    assert disk.contents("/d/logfile.1") == b"firstthird"


def test_f2_a_failed_close_has_closed(disk: MemoryEnv) -> None:
    file = log(FaultyEnv(disk, Fault("close")))
    with pytest.raises(OSError):
        file.close()
    with pytest.raises(OSError) as caught:
        file.read(1, 0)
    assert caught.value.errno == errno.EBADF
    file.close()


def test_f3_every_matching_rule_counts_and_the_first_due_decides(disk: MemoryEnv) -> None:
    first = Fault("sync*", nth=2, error=errno.EDQUOT)
    second = Fault("*", "*logfile*", nth=2, times=2, error=errno.EIO)
    env = FaultyEnv(disk, first, second)
    file = log(env)
    with pytest.raises(OSError) as only_second_is_due:
        file.sync()
    with pytest.raises(OSError) as both_are_due:
        file.sync_data()
    file.sync()
    assert only_second_is_due.value.errno == errno.EIO
    assert both_are_due.value.errno == errno.EDQUOT
    assert (first.seen, first.fired, second.seen, second.fired) == (3, 1, 4, 1)


def test_the_file_of_a_lock_fails_as_well(disk: MemoryEnv) -> None:
    env = FaultyEnv(disk, Fault("write", "*LOCK"))
    lock = env.lock("/d/LOCK")
    with pytest.raises(OSError):
        lock.file.write(b"owner", 0)
    with pytest.raises(BlockingIOError):
        env.lock("/d/LOCK")
    lock.release()
    env.lock("/d/LOCK").release()


def test_clear_heals(disk: MemoryEnv) -> None:
    env = FaultyEnv(disk, Fault("*", times=None))
    with pytest.raises(OSError):
        env.list_dir("/d")
    env.clear()
    assert env.list_dir("/d") == ["logfile.1"]


def test_error_picks_the_exception_class(disk: MemoryEnv) -> None:
    env = FaultyEnv(disk, Fault("lock", error=errno.EWOULDBLOCK), Fault("open", error=errno.EACCES))
    with pytest.raises(BlockingIOError):
        env.lock("/d/LOCK")
    with pytest.raises(PermissionError):
        env.open("/d/logfile.1")


@pytest.mark.parametrize(
    "rule",
    [
        {"operation": "fsync"},
        {"operation": "write", "nth": 0},
        {"operation": "write", "times": 0},
        {"operation": "write", "short": -1},
        {"operation": "read", "short": 1},
    ],
)
def test_a_rule_that_could_never_fire_is_refused(rule: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Fault(**rule)  # type: ignore[arg-type]


def test_clocks_identity_and_background_are_the_inner_envs(disk: MemoryEnv) -> None:
    env, ran = FaultyEnv(disk, Fault("*", times=None)), []
    disk.advance(5)
    env.pause()
    task = env.start("work", lambda: ran.append(1))
    assert task.join()
    assert ran == [1]
    assert (env.wall_ms(), env.monotonic_ns()) == (disk.wall_ms(), disk.monotonic_ns())
    assert (env.pid(), env.hostname()) == (disk.pid(), disk.hostname())
    assert len(env.random_bytes(7)) == 7
