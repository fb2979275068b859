"""PosixEnv: what only a real machine has: short writes, permissions, processes, fork."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from marram.env import PosixEnv, posix_env

ENV = PosixEnv()


@contextmanager
def script(source: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process running `source`; it is asked to end by the end of its stdin."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", source, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(20)


@contextmanager
def holding(path: str) -> Iterator[None]:
    lock = ENV.lock(path)
    try:
        yield
    finally:
        lock.release()


def say(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# -- E3: all of it, or an error ------------------------------------------------------------------


def test_e3_short_writes_and_interrupts_are_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.pwrite, []

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        calls.append(len(data))
        if len(calls) % 3 == 2:
            raise InterruptedError
        return real(fd, memoryview(data)[:3], offset)

    file = ENV.open(f"{tmp_path}/f", write=True, create=True)
    monkeypatch.setattr(os, "pwrite", pwrite)
    file.write(b"0123456789", 0)
    file.write(memoryview(b"abcdef"), 10)
    assert calls[:5] == [10, 7, 7, 4, 1]
    assert Path(file.path).read_bytes() == b"0123456789abcdef"


def test_e3_a_write_that_takes_no_bytes_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ENV.open(f"{tmp_path}/f", write=True, create=True)
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: 0)
    with pytest.raises(OSError) as caught:
        file.write(b"x", 0)
    assert caught.value.errno == errno.EIO
    file.write(b"", 0)


def test_e3_a_write_that_fails_half_way_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: list[int] = [4]

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if not results:
            raise OSError(errno.ENOSPC, "full")
        return results.pop()

    file = ENV.open(f"{tmp_path}/f", write=True, create=True)
    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OSError) as caught:
        file.write(b"0123456789", 0)
    assert caught.value.errno == errno.ENOSPC


def test_e3_short_reads_and_interrupts_are_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    real, calls = os.pread, []

    def pread(fd: int, size: int, offset: int) -> bytes:
        calls.append(size)
        if len(calls) % 3 == 2:
            raise InterruptedError
        return real(fd, min(size, 3), offset)

    file = ENV.open(f"{tmp_path}/f")
    monkeypatch.setattr(os, "pread", pread)
    assert file.read(8, 1) == b"12345678"
    assert file.read(100, 4) == b"456789"


def test_allocate_reserves_blocks(tmp_path: Path) -> None:
    file = ENV.open(f"{tmp_path}/f", write=True, create=True)
    file.allocate(0, 1 << 20)
    assert os.stat(file.path).st_blocks * 512 >= 1 << 20


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_allocate_writes_zeros_where_the_file_system_cannot_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", raising(code))
    file = ENV.open(f"{tmp_path}/f", write=True, create=True)
    file.write(b"kept", 0)
    file.allocate(0, 200_000)
    assert file.read(300_000, 0) == b"kept".ljust(200_000, b"\0")
    assert os.stat(file.path).st_blocks * 512 >= 200_000
    file.allocate(0, 100)
    assert file.size() == 200_000


def test_allocate_on_a_full_disk_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def posix_fallocate(fd: int, offset: int, size: int) -> None:
        os.ftruncate(fd, offset + size // 2)
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", posix_fallocate)
    file = ENV.open(f"{tmp_path}/f", write=True, create=True)
    file.write(b"kept", 0)
    with pytest.raises(OSError) as caught:
        file.allocate(0, 200_000)
    assert caught.value.errno == errno.ENOSPC
    assert file.read(300_000, 0) == b"kept"


def test_allocate_by_zeros_on_a_full_disk_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ENV.open(f"{tmp_path}/f", write=True, create=True)
    file.write(b"kept", 0)
    real = os.pwrite

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        return raising(errno.ENOSPC)() if offset > 100_000 else real(fd, data, offset)

    monkeypatch.setattr(os, "posix_fallocate", raising(errno.EOPNOTSUPP))
    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OSError) as caught:
        file.allocate(0, 200_000)
    assert caught.value.errno == errno.ENOSPC
    assert file.read(300_000, 0) == b"kept"


def raising(code: int):  # type: ignore[no-untyped-def]
    def call(*arguments: object) -> int:
        raise OSError(code, os.strerror(code))

    return call


# -- durable calls and descriptors ---------------------------------------------------------------


def test_each_durable_call_reaches_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: calls.append("fdatasync"))
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(f"fsync {kind(fd)}"))
    file = ENV.open(f"{tmp_path}/f", write=True, create=True)
    file.sync_data()
    file.sync()
    ENV.sync_dir(str(tmp_path))
    assert calls == ["fdatasync", "fsync file", "fsync directory"]


def kind(fd: int) -> str:
    return "directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"


def test_a_failed_sync_is_raised_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def fdatasync(fd: int) -> None:
        calls.append(fd)
        raise OSError(errno.EIO, "lost")

    file = ENV.open(f"{tmp_path}/f", write=True, create=True)
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with pytest.raises(OSError):
        file.sync_data()
    assert len(calls) == 1


def test_descriptors_close_on_exec_and_with_their_object(tmp_path: Path) -> None:
    before = open_descriptors()
    file = ENV.open(f"{tmp_path}/f", write=True, create=True)
    (fd,) = open_descriptors() - before
    assert not os.get_inheritable(fd)
    del file
    assert open_descriptors() == before


def test_a_refused_open_or_lock_leaves_no_descriptor(tmp_path: Path) -> None:
    lock = ENV.lock(f"{tmp_path}/LOCK")
    before = open_descriptors()
    with pytest.raises(BlockingIOError):
        ENV.lock(f"{tmp_path}/LOCK")
    with pytest.raises(IsADirectoryError):
        ENV.open(str(tmp_path))
    ENV.sync_dir(str(tmp_path))
    assert open_descriptors() == before
    lock.release()


def open_descriptors() -> set[int]:
    names = os.listdir("/proc/self/fd")  # listing it takes a descriptor, gone by the next line
    return {int(name) for name in names if os.path.exists(f"/proc/self/fd/{name}")}


# -- files, links, modes -------------------------------------------------------------------------


def test_what_it_makes_is_the_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ENV.make_dir(f"{tmp_path}/a/b")
        ENV.open(f"{tmp_path}/a/b/f", create=True).close()
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("a", "a/b", "a/b/f")]
    assert modes == [0o700, 0o700, 0o600]


def test_a_symbolic_link_is_read_through_but_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"kept")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("none")
    assert ENV.open(f"{tmp_path}/link").read(10, 0) == b"kept"
    for name in ("link", "dangling"):
        for options in ({"write": True}, {"create": True}):
            with pytest.raises(OSError) as caught:
                ENV.open(f"{tmp_path}/{name}", **options)
            assert caught.value.errno == errno.ELOOP
        with pytest.raises(OSError):
            ENV.lock(f"{tmp_path}/{name}")
    assert not (tmp_path / "none").exists()


def test_the_directory_may_be_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "data").symlink_to("real")
    ENV.make_dir(f"{tmp_path}/data")
    ENV.open(f"{tmp_path}/data/f", write=True, create=True).write(b"x", 0)
    ENV.sync_dir(f"{tmp_path}/data")
    assert (tmp_path / "real" / "f").read_bytes() == b"x"
    with holding(f"{tmp_path}/data/LOCK"), pytest.raises(BlockingIOError):
        ENV.lock(f"{tmp_path}/real/LOCK")


def test_a_fifo_under_a_files_name_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "logfile.1")
    for options in ({}, {"write": True}):
        with pytest.raises(OSError, match="not a regular file"):
            ENV.open(f"{tmp_path}/logfile.1", **options)


def test_make_dir_over_a_dangling_link_fails(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("none")
    with pytest.raises(FileExistsError):
        ENV.make_dir(f"{tmp_path}/link/x")


def test_make_dir_takes_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ENV.make_dir("a/b/")
    assert (tmp_path / "a" / "b").is_dir()
    with pytest.raises(FileNotFoundError):
        ENV.make_dir("")


def test_exists_does_not_take_an_error_for_a_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "stat", raising(errno.EIO))
    with pytest.raises(OSError):
        ENV.exists(f"{tmp_path}/version")


# -- locks and processes -------------------------------------------------------------------------

TRY_LOCK = """
import sys
from marram.env import posix_env
try:
    posix_env().lock(sys.argv[1])
    print("locked", flush=True)
except BlockingIOError as error:
    print("refused", error.filename, flush=True)
sys.stdin.read()
"""


def test_l1_another_process_is_refused_until_release(tmp_path: Path) -> None:
    path = f"{tmp_path}/LOCK"
    lock = ENV.lock(path)
    with script(TRY_LOCK, path) as process:
        assert say(process) == f"refused {path}"
    lock.release()
    with script(TRY_LOCK, path) as process:
        assert say(process) == "locked"
        with pytest.raises(BlockingIOError, match="another process"):
            ENV.lock(path)


def test_l1_this_process_is_refused_by_the_registry_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", lambda fd, operation: None)
    with (
        holding(f"{tmp_path}/LOCK"),
        pytest.raises(BlockingIOError, match="this process"),
    ):
        PosixEnv().lock(f"{tmp_path}/LOCK")


def test_l1_of_many_threads_one_gets_the_lock(tmp_path: Path) -> None:
    start, locks, refused = threading.Barrier(8), [], []

    def race() -> None:
        start.wait(10)
        try:
            locks.append(ENV.lock(f"{tmp_path}/LOCK"))
        except BlockingIOError:
            refused.append(1)

    for task in [ENV.start("race", race) for _ in range(8)]:
        assert task.join(10)
    assert (len(locks), len(refused)) == (1, 7)
    locks[0].release()


def test_l1_a_lock_nobody_keeps_is_held_all_the_same(tmp_path: Path) -> None:
    with script(
        """
import gc, sys
from marram.env import posix_env
posix_env().lock(sys.argv[1])
gc.collect()
print("ready", flush=True)
sys.stdin.read()
""",
        f"{tmp_path}/LOCK",
    ) as process:
        assert say(process) == "ready"
        with pytest.raises(BlockingIOError):
            ENV.lock(f"{tmp_path}/LOCK")


FORK = """
import os, sys
from marram.env import posix_env
env = posix_env()
lock = env.lock(sys.argv[1])
pid = os.fork()
if pid == 0:
    lock.release()
    lock.file.close()
    try:
        env.lock(sys.argv[1])
    except BlockingIOError as error:
        print("child", "another process" in str(error), flush=True)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print("parent", flush=True)
sys.stdin.readline()
child = os.fork()
if child == 0:
    sys.stdin.read()
    os._exit(0)
lock.release()
env.lock(sys.argv[1]).release()
print("released", flush=True)
sys.stdin.read()
os.waitpid(child, 0)
"""


def test_l2_a_forked_child_neither_has_nor_releases_the_lock(tmp_path: Path) -> None:
    with script(FORK, f"{tmp_path}/LOCK") as process:
        assert say(process) == "child True"
        assert say(process) == "parent"
        with pytest.raises(BlockingIOError):
            ENV.lock(f"{tmp_path}/LOCK")
        assert process.stdin is not None
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert say(process) == "released"
        ENV.lock(f"{tmp_path}/LOCK").release()
    assert process.returncode == 0


def test_l3_a_killed_holders_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    source = """
import os, signal, sys
from marram.env import posix_env
lock = posix_env().lock(sys.argv[1])  # kept, so that no collection closes the child's copy
if os.fork() == 0:
    print("child lives", flush=True)
    sys.stdin.read()
    os._exit(0)
signal.pause()
"""
    with script(source, f"{tmp_path}/LOCK") as process:
        assert say(process) == "child lives"
        with pytest.raises(BlockingIOError):
            ENV.lock(f"{tmp_path}/LOCK")
        process.kill()
        process.wait(10)
        ENV.lock(f"{tmp_path}/LOCK").release()


def test_l3_release_frees_the_lock_under_a_copied_descriptor(tmp_path: Path) -> None:
    """As between fork and exec in another thread, when a child still has every descriptor."""
    before = open_descriptors()
    lock = ENV.lock(f"{tmp_path}/LOCK")
    (fd,) = open_descriptors() - before
    copy = os.dup(fd)
    lock.release()
    ENV.lock(f"{tmp_path}/LOCK").release()
    os.close(copy)


# -- clocks and threads --------------------------------------------------------------------------


def test_e4_clocks_are_the_machines() -> None:
    assert abs(ENV.wall_ms() - time.time() * 1000) < 10_000
    boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert 0 <= ENV.monotonic_ns() - boot_ns < 10_000_000_000
    assert ENV.pid() == os.getpid()
    assert ENV.hostname() == os.uname().nodename
    assert posix_env() is posix_env()


def test_an_unclosed_store_does_not_hang_or_complain_at_exit(tmp_path: Path) -> None:
    source = """
import sys, threading
from marram.env import posix_env
lock = posix_env().lock(sys.argv[1])
file = posix_env().open(sys.argv[1], write=True)
task = posix_env().start("endless", threading.Event().wait)
"""
    with script(source, f"{tmp_path}/LOCK") as process:
        process.wait(20)
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_importing_env_stays_light() -> None:
    source = """
import sys
import marram.env
heavy = {"asyncio", "socket", "http", "selectors", "subprocess", "random", "dataclasses",
         "marram.env.memory", "marram.env.faulty"}
print(sorted(heavy & set(sys.modules)))
"""
    with script(source) as process:
        assert say(process) == "[]"
