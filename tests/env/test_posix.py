"""PosixEnv: what only a real machine has: short writes, permissions, processes, fork."""

from __future__ import annotations

import errno
import gc
import json
import mmap
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import marram
from marram.env import PosixEnv, posix, posix_env
from marram.env.api import Child

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


def test_a_window_is_refused_where_writing_in_place_is_not_certain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not posix._writes_in_place(os.makedev(0, 0xFFFF))  # mounted nowhere
    monkeypatch.setattr(posix, "_writes_in_place", lambda device: False)
    file = ENV.open(f"{tmp_path}/f", write=True, create=True)
    file.allocate(0, 8192)
    assert file.window(0, 8192) is None


def test_a_window_that_cannot_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posix, "_writes_in_place", lambda device: True)
    file = ENV.open(f"{tmp_path}/f", write=True, create=True)
    file.allocate(0, 8192)
    monkeypatch.setattr(os, "pwrite", raising(errno.EIO))
    with pytest.raises(OSError) as caught:
        file.window(0, 8192)
    assert caught.value.errno == errno.EIO


def test_a_window_that_cannot_be_mapped_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posix, "_writes_in_place", lambda device: True)
    file = ENV.open(f"{tmp_path}/f", write=True, create=True)
    file.allocate(0, 8192)
    monkeypatch.setattr(mmap, "mmap", lambda *args, **kwargs: raising(errno.ENOMEM)())
    assert file.window(0, 8192) is None


def test_what_is_stored_in_a_window_survives_the_process(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from marram.env import PosixEnv
file = PosixEnv().open(sys.argv[1], write=True, create=True)
file.allocate(0, 8192)
window = file.window(100, 8000)
if window is not None:
    window[0:6] = b"stored"
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, f"{tmp_path}/f"], check=False)
    if done.returncode == 0:
        pytest.skip("the file system is none that writes in place")
    assert done.returncode == -signal.SIGKILL
    assert ENV.open(f"{tmp_path}/f").read(106, 0) == bytes(100) + b"stored"


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
    gc.collect()  # what an earlier test left in a cycle would be closed, and its number used again
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
    again = ENV.lock(f"{tmp_path}/LOCK")
    with pytest.raises(BlockingIOError):
        ENV.lock(f"{tmp_path}/LOCK")
    os.close(copy)
    with pytest.raises(BlockingIOError):
        ENV.lock(f"{tmp_path}/LOCK")
    again.release()


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


# -- helper processes ----------------------------------------------------------------------------

HELPER = """
import json, os, sys, time
from marram.env.posix import parent_channel

def descriptors():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:  # the one that listed them
            pass
    return found

def main():
    channel = parent_channel()
    while True:
        order = channel.receive(1)
        if order == b"?":
            import marram
            print("to stderr, or it would be taken for an answer", flush=True)
            facts = {
                "fds": descriptors(),
                "nice": os.nice(0), "sid": os.getsid(0), "pid": os.getpid(),
                "marram": marram.__file__, "isolated": sys.flags.isolated,
            }
            data = json.dumps(facts).encode()
            channel.send(len(data).to_bytes(4, "little") + data)
        elif order == b"e":
            channel.send(channel.receive(3_000_000))
        elif order == b"b":  # busy, as far as anyone can tell
            try:
                while True:
                    channel.send(b".")
                    time.sleep(0.01)
            finally:
                open(sys.argv[-1] + "/ended", "w").close()
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Child]:
    """A child that answers orders of one byte."""
    (tmp_path / "posix_helper.py").write_text(HELPER)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    child = ENV.spawn("posix_helper")
    assert child is not None
    yield child
    child.kill()


def facts_of(child: Child) -> dict[str, Any]:
    child.send(b"?")
    found: dict[str, Any] = json.loads(child.receive(int.from_bytes(child.receive(4), "little")))
    return found


def test_a_child_sends_and_receives(helper: Child) -> None:
    data = bytes(range(250)) * 12_000
    helper.send(b"e" + data)
    assert helper.receive(len(data)) == data


def test_p1_a_child_inherits_stderr_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "posix_helper.py").write_text(HELPER)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    lock = ENV.lock(f"{tmp_path}/LOCK")
    leaky = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(leaky, True)
    left, right = socket.socketpair()
    right.set_inheritable(True)
    with left, right:
        child = ENV.spawn("posix_helper")
        assert child is not None
        facts = facts_of(child)
    os.close(leaky)
    assert not [name for name in facts["fds"] if name.startswith(("socket:", str(tmp_path)))]
    # The pipes, twice /dev/null or stderr in their old places, stderr.
    assert len(facts["fds"]) <= 6
    lock.release()
    ENV.lock(f"{tmp_path}/LOCK").release()
    child.kill()


def test_a_child_is_nice_isolated_and_out_of_the_terminals_reach(helper: Child) -> None:
    facts = facts_of(helper)
    assert facts["pid"] == facts["sid"] == helper.pid
    assert facts["nice"] == min(os.nice(0) + 5, 19)
    assert facts["isolated"] == 1


def test_a_child_runs_the_same_marram(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helper: Child
) -> None:
    """Not one of the current directory, nor of PYTHONPATH, nor modules that shadow the library."""
    assert facts_of(helper)["marram"] == marram.__file__
    for name in ("marram/__init__.py", "json.py", "os.py"):
        (tmp_path / "bad" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bad" / name).write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path / "bad")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "bad"))
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "bad"), *sys.path])
    other = ENV.spawn("posix_helper")
    assert other is not None
    assert facts_of(other)["marram"] == marram.__file__
    other.kill()


def test_p3_a_killed_child_leaves_no_zombie_and_ends_whoever_waits(helper: Child) -> None:
    before = open_descriptors()
    raised: list[type[BaseException]] = []

    def work() -> None:
        try:
            helper.receive(1)
        except (EOFError, OSError) as error:
            raised.append(type(error))

    thread = threading.Thread(target=work)
    thread.start()
    helper.kill()
    thread.join(10)
    assert len(raised) == 1
    assert not Path(f"/proc/{helper.pid}").exists()
    assert len(before) - len(open_descriptors()) == 2
    helper.kill()
    for call in (lambda: helper.send(b"x"), lambda: helper.receive(1)):
        with pytest.raises(OSError):
            call()


def test_p3_a_child_that_nobody_keeps_ends() -> None:
    child = ENV.spawn("marram.storage.lsm.worker")
    assert child is not None
    pid = child.pid
    del child
    gc.collect()
    assert not Path(f"/proc/{pid}").exists()


def test_a_forked_copy_cannot_kill_the_child(helper: Child) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork() beside threads
        pid = os.fork()
    if pid == 0:
        helper.kill()
        os._exit(0)
    os.waitpid(pid, 0)
    assert facts_of(helper)["pid"] == helper.pid


P2 = """
import os, signal, sys, time
from marram.env import PosixEnv
sys.path.append(sys.argv[1])
child = PosixEnv().spawn("posix_helper")
if os.fork() == 0:  # it keeps the pipes open
    print("ready", flush=True)
    time.sleep(30)
    os._exit(0)
child.send(b"b")
child.receive(3)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_p2_a_busy_child_ends_with_its_parent_though_a_fork_keeps_the_pipes(
    tmp_path: Path,
) -> None:
    (tmp_path / "posix_helper.py").write_text(HELPER)
    parent = subprocess.Popen(
        [sys.executable, "-c", P2, str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        parent.wait(20)
        end = time.monotonic() + 20
        while not (tmp_path / "ended").exists():
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        os.killpg(parent.pid, signal.SIGKILL)  # the forked one


@pytest.mark.parametrize("executable", [None, "", "/nowhere/python", "/usr/bin/env"])
def test_without_a_python_of_its_own_there_are_no_children(
    monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    assert ENV.spawn("marram.storage.lsm.worker") is None


def test_a_frozen_program_has_no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert ENV.spawn("marram.storage.lsm.worker") is None
