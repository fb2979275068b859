"""PosixEnv: the machine (Linux).

Owns every direct call of os, fcntl and time in marram, but one clock's (ticks.py). Keeps E1-E4 of
api.py, and for locks:

L1  One holder: a second lock() is refused, from another process (flock) and from this one
    (a registry by device and inode: it also catches a second path to the same file).
L2  A forked child holds no lock of its parent and cannot release one: its copies are closed
    before any of its code runs.
L3  A lock ends with release() or with the process, even where its children live on.

And for helper processes:

P1  A child has no lock, no socket and no other descriptor of this process but its stderr.
P2  A child ends when this process does, however that ends: its input ends, and where a forked
    process keeps that open, its parent's id changes. It sees to it itself (parent_channel).
P3  A killed child is waited for: it leaves no zombie, and nothing it was writing goes on.

Files are regular files only, made with mode 0600; directories with 0700. A file opened for writing
or creation is never reached through a symbolic link in the last place of its path.

Threading: calls may overlap freely, but for two of one file: close() must not race with any other
call, since the kernel may give its descriptor to the next file opened; and allocate() must not
race with a write beyond the end of the file, which its failure would cut off.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import mmap
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING

from marram import compiled
from marram.env.api import Channel, Child, Env, File, FileLock, Task, Window
from marram.env.ticks import BOOT_CLOCK, boot_ns

if TYPE_CHECKING:
    import subprocess

_NO_FD = 2**31 - 1  # no descriptor has this number: use of a closed file fails with EBADF
_ZEROS = bytes(1 << 16)

# File systems that write allocated blocks in place, so that storing into them through memory finds
# them there. On copy-on-write ones it may need new blocks, and a full disk is SIGBUS.
_IN_PLACE = frozenset(("ext3", "ext4", "tmpfs", "xfs"))

_NICE = 5
# How often an idle child looks whether its parent lives, seconds. Nearly always its input tells.
_LOOK_S = 5.0
# How long to wait for a killed child, seconds: one in the middle of a failing disk's call may
# not die, and nobody shall hang on it.
_KILL_S = 10.0

# Not `python -m`: that would look for modules in the current directory first, and by PYTHONPATH.
# The standard library comes first, so that nothing beside marram can stand in for it.
_CHILD = """
import sys
sys.path += sys.argv[3:]
import importlib
importlib.import_module(sys.argv[1]).main()
"""


class PosixFile:
    """An open descriptor. Closed at the latest when the object goes."""

    # Hot: write and sync_data run once a commit group, read once a block.
    __slots__ = ("_fd", "path")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read(self, size: int, offset: int) -> bytes:
        parts: list[bytes] = []
        while True:
            try:
                part = os.pread(self._fd, size, offset)
            except InterruptedError:
                continue
            if len(part) == size and not parts:
                return part  # nearly always
            parts.append(part)
            size -= len(part)
            offset += len(part)
            if not part or not size:
                return b"".join(parts)

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        while True:
            try:
                done = os.pwrite(self._fd, data, offset)
            except InterruptedError:
                continue
            if done == len(data):
                return  # nearly always
            if done == 0:
                raise OSError(errno.EIO, "the device took no bytes", self.path)
            data = memoryview(data).cast("B")[done:]
            offset += done

    def allocate(self, offset: int, size: int) -> None:
        if offset < 0 or size <= 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), self.path)
        before = self.size()
        try:
            try:
                os.posix_fallocate(self._fd, offset, size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
                self._fill(before, offset + size)
        except OSError:
            # ext4 grows the file piece by piece: a disk that fills up half-way leaves some of it.
            if self.size() > before:
                os.ftruncate(self._fd, before)
            raise

    def window(self, offset: int, size: int) -> Window | None:
        if not _writes_in_place(os.fstat(self._fd).st_dev):
            return None
        # Written once in the ordinary way: so what may fail fails here, where it can be told, and
        # with the interpreter free. And the pages are there then: a store of 192 bytes takes 0.2 us
        # on average instead of 0.6.
        self._fill(offset, offset + size)
        skip = offset % mmap.ALLOCATIONGRANULARITY
        try:
            mapped = mmap.mmap(self._fd, skip + size, offset=offset - skip)
        except (OSError, ValueError):  # no memory for it, or a limit on mappings
            return None
        return memoryview(mapped)[skip:]

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def sync_data(self) -> None:
        os.fdatasync(self._fd)

    def sync(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        fd, self._fd = self._fd, _NO_FD
        if fd != _NO_FD:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def _fill(self, start: int, stop: int) -> None:
        """Write zeros over [start, stop), the file's new end; holes before `start` stay holes."""
        for offset in range(start, stop, len(_ZEROS)):
            self.write(memoryview(_ZEROS)[: stop - offset], offset)

    def _flock(self, operation: int) -> None:
        fcntl.flock(self._fd, operation)


class _PosixLock:
    __slots__ = ("_key", "file")

    def __init__(self, file: PosixFile, key: tuple[int, int]) -> None:
        self.file = file
        self._key = key

    def release(self) -> None:
        with _held_guard:
            # Not there: released before, or this is a forked child's copy (L2).
            if _held.get(self._key) is not self:
                return
            del _held[self._key]
            try:
                # Closing alone would not do while a child between fork and exec has the descriptor.
                self.file._flock(fcntl.LOCK_UN)
            finally:
                self.file.close()


_held_guard = threading.Lock()
_held: dict[tuple[int, int], _PosixLock] = {}  # (st_dev, st_ino); guarded by _held_guard


def _forget_locks_in_child() -> None:
    # The child shares the parent's flock through its copies of the descriptors. Closing them does
    # not release it, but keeps it from outliving the parent (L3).
    for lock in _held.values():
        lock.file.close()
    _held.clear()
    _held_guard.release()


# The guard is held across fork() so that no other thread is half-way through lock() or release().
os.register_at_fork(
    before=_held_guard.acquire,
    after_in_parent=_held_guard.release,
    after_in_child=_forget_locks_in_child,
)


class _Thread:
    __slots__ = ("_thread",)

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        # A daemon, so that a store nobody closed cannot hang the interpreter's exit. Nothing is
        # lost by it: what was acknowledged is synced, and recovery redoes what was under way.
        self._thread = threading.Thread(target=work, name=name, daemon=True)
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()


class PosixEnv:
    """The real files, clocks and threads. Holds no state: any two are alike."""

    __slots__ = ()

    # -- files ---------------------------------------------------------------------------------

    def open(
        self, path: str, *, write: bool = False, create: bool = False, exclusive: bool = False
    ) -> File:
        return _open(path, write=write, create=create, exclusive=exclusive)

    def exists(self, path: str) -> bool:
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            # Nothing else means "missing": a store on a failing disk is not an empty directory.
            return False
        return True

    def list_dir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def make_dir(self, path: str) -> None:
        # Not os.makedirs: it gives the parents it makes the default mode.
        parent = os.path.dirname(path.rstrip("/"))
        if parent and not self.exists(path):
            self.make_dir(parent)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):
                raise

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def link(self, source: str, target: str) -> None:
        os.link(source, target)

    def sync_dir(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def free_bytes(self, path: str) -> int:
        space = os.statvfs(path)
        return space.f_bavail * space.f_frsize

    def lock(self, path: str) -> FileLock:
        with _held_guard:
            file = _open(path, write=True, create=True)
            try:
                status = os.fstat(file._fd)
                key = (status.st_dev, status.st_ino)
                if key in _held:
                    raise BlockingIOError(errno.EWOULDBLOCK, "locked by this process", path)
                try:
                    file._flock(fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise BlockingIOError(error.errno, "locked by another process", path) from None
            except BaseException:
                file.close()
                raise
            _held[key] = lock = _PosixLock(file, key)
            return lock

    # -- clocks, identity, randomness ------------------------------------------------------------

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    # Hot: asked for every commit group. No method, which saves a frame of the interpreter; and
    # compiled code knows boot_ns when it meets it (storage/clock.py).
    monotonic_ns = staticmethod(
        boot_ns
        if compiled.state() == "compiled"
        else functools.partial(time.clock_gettime_ns, BOOT_CLOCK)
    )

    def random_bytes(self, size: int) -> bytes:
        return os.urandom(size)

    def pid(self) -> int:
        return os.getpid()

    def hostname(self) -> str:
        return os.uname().nodename

    # -- background work -------------------------------------------------------------------------

    def start(self, name: str, work: Callable[[], None]) -> Task:
        return _Thread(name, work)

    def pause(self) -> None:
        time.sleep(0)  # drops the GIL; a waiting thread takes it

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def spawn(self, module: str) -> Child | None:
        if not _is_python(sys.executable) or getattr(sys, "frozen", False):
            return None
        return _PosixChild(
            # Isolated from the user's variables and files (-I); without site (-S), whose work is
            # done by passing on where modules are found.
            [sys.executable, "-I", "-S", "-c", _CHILD, module, str(os.getpid()), *_module_paths()]
        )


class _PosixChild:
    __slots__ = ("_owner", "_pipes", "_process", "_receiving", "_sending", "pid")

    def __init__(self, command: Sequence[str]) -> None:
        import subprocess  # takes 10 ms and much memory: not for those who never need it

        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            close_fds=True,
            start_new_session=True,  # no terminal, so no Ctrl-C
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._sending: IO[bytes] = self._process.stdin
        self._receiving: IO[bytes] = self._process.stdout
        self._pipes = threading.Lock()  # held while a pipe is used, or closed
        self._owner = os.getpid()
        self.pid = self._process.pid

    def send(self, data: bytes) -> None:
        with self._pipes:
            _write_all(self._sending.fileno() if not self._sending.closed else _NO_FD, data)

    def receive(self, size: int) -> bytes:
        with self._pipes:
            return _read_all(
                self._receiving.fileno() if not self._receiving.closed else _NO_FD, size
            )

    def kill(self) -> None:
        if os.getpid() != self._owner:
            return  # a forked copy: the process is its parent's
        import subprocess

        self._process.kill()
        try:
            self._process.wait(_KILL_S)
        except subprocess.TimeoutExpired:
            return  # the pipes may still be waited on
        # The process is gone, so a thread that waits on a pipe does so no more.
        with self._pipes:
            self._sending.close()
            self._receiving.close()

    def __del__(self) -> None:
        # At the interpreter's end the child's input ends as well: P2.
        if hasattr(self, "pid") and not sys.is_finalizing():
            self.kill()


class _ParentChannel:
    __slots__ = ("_input", "_output", "_parent")

    def __init__(self, input_fd: int, output_fd: int, parent: int) -> None:
        self._input = input_fd
        self._output = output_fd
        self._parent = parent

    def send(self, data: bytes) -> None:
        self._check_parent()
        _write_all(self._output, data)

    def receive(self, size: int) -> bytes:
        while not select.select([self._input], [], [], _LOOK_S)[0]:
            self._check_parent()
        return _read_all(self._input, size)

    def _check_parent(self) -> None:
        """P2, where a forked process holds the other ends of the pipes."""
        if os.getppid() != self._parent:
            raise EOFError("the parent process is gone")


def parent_channel() -> Channel:
    """The way to the process that started this one by spawn(); to be called once, at first.

    From then on print() goes to stderr. When the parent is gone, its methods raise EOFError or
    OSError: who is busy for long sends something now and then.
    """
    input_fd, output_fd = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # the parent has no stderr
        os.dup2(nothing, 1)
    os.close(nothing)
    os.nice(_NICE)
    return _ParentChannel(input_fd, output_fd, int(sys.argv[2]))


def _is_python(path: str | None) -> bool:
    """Whether an executable is Python's own: it may be a program's that embeds it, or unknown."""
    name = os.path.basename(path or "")
    return name.startswith(("python", "pypy")) and os.access(path or "", os.X_OK)


def _module_paths() -> list[str]:
    """Where a child looks for modules: first where this marram is, then where this process does.

    Empty entries, which stand for the current directory, are left out: it may change.
    """
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [here, *(path for path in sys.path if isinstance(path, str) and os.path.isabs(path))]


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _read_all(fd: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            raise EOFError("the other process is gone")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


@functools.lru_cache(maxsize=64)
def _writes_in_place(device: int) -> bool:
    """Whether a mounted device has one of those file systems; no where that cannot be told."""
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            # 36 35 98:0 /root /mount/point options shared:1 - ext4 /dev/sda1 options
            for line in mounts:
                fields = line.split()
                if fields[2] == name:
                    return fields[fields.index("-") + 1] in _IN_PLACE
    except (OSError, ValueError, IndexError):
        pass
    return False


def _open(path: str, *, write: bool, create: bool, exclusive: bool = False) -> PosixFile:
    # Non-blocking: a FIFO under a store's name gets an error below instead of hanging open().
    # (It means nothing for regular files.)
    flags = os.O_CLOEXEC | os.O_NONBLOCK | (os.O_RDWR if write else os.O_RDONLY)
    if write or create or exclusive:
        flags |= os.O_NOFOLLOW
    if create or exclusive:
        flags |= os.O_CREAT
    if exclusive:
        flags |= os.O_EXCL
    file = PosixFile(path, os.open(path, flags, 0o600))
    mode = os.fstat(file._fd).st_mode
    if not stat.S_ISREG(mode):
        file.close()
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, "not a regular file", path)
    return file


_POSIX_ENV: Env = PosixEnv()


def posix_env() -> Env:
    """The machine's env, for whoever was given none."""
    return _POSIX_ENV
