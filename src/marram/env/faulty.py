"""FaultyEnv: any env, with errors on chosen calls.

Owns the rules and their counting; everything else is the inner env's.

F1  A rule fails exactly its nth matching call and the times - 1 after it.
F2  A failed call never reached the inner env, but for the prefix of a short write, and for close,
    which closes all the same.
F3  A call is counted by every rule it matches; the first that is due decides the error.

What belongs below a file's interface (short writes continued, EINTR) is posix.py's and tested
there. Threading: as the inner env; the counters have a lock.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from marram.env.api import Child, Env, File, FileLock, Task, Window

_FILE_CALLS = [
    "read", "size", "write", "allocate", "window", "truncate", "sync_data", "sync", "close",
]  # fmt: skip
_NAME_CALLS = ["open", "lock", "make_dir", "rename", "remove", "link", "sync_dir"]
_LOOK_CALLS = ["exists", "list_dir", "free_bytes"]
OPERATIONS = frozenset(_FILE_CALLS + _NAME_CALLS + _LOOK_CALLS)
"""What a Fault can fail, by the names of the methods of File and Env."""


@dataclass(slots=True, eq=False)
class Fault:
    """One rule: which calls fail, and how. It counts for one FaultyEnv.

    operation: of OPERATIONS, or a pattern of them ("sync*", "*"). path_glob: of the path as the
    caller gave it (of rename and link: either one). nth: the first matching call that fails, >= 1.
    error: errno. times: how many fail from there on, None for all. short: bytes that a failing
    write writes before it fails; for write alone.
    """

    operation: str
    path_glob: str = "*"
    nth: int = 1
    error: int = errno.EIO
    times: int | None = 1
    short: int | None = None
    seen: int = field(default=0, init=False)
    """Matching calls so far."""
    fired: int = field(default=0, init=False)
    """How many of them failed."""

    def __post_init__(self) -> None:
        # A rule that can never fire would make a test pass for nothing.
        if not any(fnmatchcase(name, self.operation) for name in OPERATIONS):
            raise ValueError(f"no such operation: {self.operation}")
        if self.nth < 1 or (self.times is not None and self.times < 1):
            raise ValueError("nth and times count from 1")
        if self.short is not None and (self.operation != "write" or self.short < 0):
            raise ValueError("short: bytes, >= 0, of operation write")

    def _due(self, operation: str, paths: tuple[str, ...]) -> bool:
        """Count the call if it matches; whether it has to fail."""
        if not fnmatchcase(operation, self.operation):
            return False
        if not any(fnmatchcase(path, self.path_glob) for path in paths):
            return False
        self.seen += 1
        return self.seen >= self.nth and (self.times is None or self.seen < self.nth + self.times)


class FaultyEnv:
    """`inner` with the errors that `faults` ask for."""

    def __init__(self, inner: Env, *faults: Fault) -> None:
        self.inner = inner
        self._lock = threading.Lock()
        self._faults = list(faults)  # the list and the counts in it: guarded by _lock

    def add(self, fault: Fault) -> Fault:
        """Put a rule in force; returns it, for its counts."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Heal: drop all rules."""
        with self._lock:
            self._faults.clear()

    # -- files ---------------------------------------------------------------------------------

    def open(
        self, path: str, *, write: bool = False, create: bool = False, exclusive: bool = False
    ) -> File:
        self._call("open", path)
        return _FaultyFile(
            self, self.inner.open(path, write=write, create=create, exclusive=exclusive)
        )

    def exists(self, path: str) -> bool:
        self._call("exists", path)
        return self.inner.exists(path)

    def list_dir(self, path: str) -> list[str]:
        self._call("list_dir", path)
        return self.inner.list_dir(path)

    def make_dir(self, path: str) -> None:
        self._call("make_dir", path)
        self.inner.make_dir(path)

    def rename(self, source: str, target: str) -> None:
        self._call("rename", source, target)
        self.inner.rename(source, target)

    def remove(self, path: str) -> None:
        self._call("remove", path)
        self.inner.remove(path)

    def link(self, source: str, target: str) -> None:
        self._call("link", source, target)
        self.inner.link(source, target)

    def sync_dir(self, path: str) -> None:
        self._call("sync_dir", path)
        self.inner.sync_dir(path)

    def free_bytes(self, path: str) -> int:
        self._call("free_bytes", path)
        return self.inner.free_bytes(path)

    def lock(self, path: str) -> FileLock:
        self._call("lock", path)
        return _FaultyLock(self, self.inner.lock(path))

    # -- the rest does not fail ------------------------------------------------------------------

    def wall_ms(self) -> int:
        return self.inner.wall_ms()

    def monotonic_ns(self) -> int:
        return self.inner.monotonic_ns()

    def random_bytes(self, size: int) -> bytes:
        return self.inner.random_bytes(size)

    def pid(self) -> int:
        return self.inner.pid()

    def hostname(self) -> str:
        return self.inner.hostname()

    def start(self, name: str, work: Callable[[], None]) -> Task:
        return self.inner.start(name, work)

    def pause(self) -> None:
        self.inner.pause()

    def wait(self, seconds: float) -> None:
        self.inner.wait(seconds)

    def spawn(self, module: str) -> Child | None:
        return self.inner.spawn(module)  # the rules do not reach into another process

    def _call(self, operation: str, *paths: str) -> None:
        """Count the call; raise the OSError of the first rule that is due."""
        fault = self._due(operation, *paths)
        if fault is not None:
            raise _os_error(fault, paths[0])

    def _due(self, operation: str, *paths: str) -> Fault | None:
        with self._lock:
            due = [fault for fault in self._faults if fault._due(operation, paths)]
            if not due:
                return None
            due[0].fired += 1
            return due[0]


class _FaultyFile:
    __slots__ = ("_env", "_inner", "path")

    def __init__(self, env: FaultyEnv, inner: File) -> None:
        self.path = inner.path
        self._env = env
        self._inner = inner

    def size(self) -> int:
        self._env._call("size", self.path)
        return self._inner.size()

    def read(self, size: int, offset: int) -> bytes:
        self._env._call("read", self.path)
        return self._inner.read(size, offset)

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        fault = self._env._due("write", self.path)
        if fault is not None:
            if fault.short:
                self._inner.write(memoryview(data).cast("B")[: fault.short], offset)
            raise _os_error(fault, self.path)
        self._inner.write(data, offset)

    def allocate(self, offset: int, size: int) -> None:
        self._env._call("allocate", self.path)
        self._inner.allocate(offset, size)

    def window(self, offset: int, size: int) -> Window | None:
        self._env._call("window", self.path)
        window = self._inner.window(offset, size)
        return None if window is None else _FaultyWindow(self._env, self.path, window)

    def truncate(self, size: int) -> None:
        self._env._call("truncate", self.path)
        self._inner.truncate(size)

    def sync_data(self) -> None:
        self._env._call("sync_data", self.path)
        self._inner.sync_data()

    def sync(self) -> None:
        self._env._call("sync", self.path)
        self._inner.sync()

    def close(self) -> None:
        self._inner.close()
        self._env._call("close", self.path)


class _FaultyWindow:
    """Its stores count as writes: what they cannot report on a machine, a write can."""

    __slots__ = ("_env", "_inner", "_path")

    def __init__(self, env: FaultyEnv, path: str, inner: Window) -> None:
        self._env = env
        self._path = path
        self._inner = inner

    def __setitem__(self, where: slice, data: bytes | bytearray) -> None:
        fault = self._env._due("write", self._path)
        if fault is not None:
            if fault.short:
                short = data[: fault.short]
                self._inner[where.start or 0 : (where.start or 0) + len(short)] = short
            raise _os_error(fault, self._path)
        self._inner[where] = data

    def release(self) -> None:
        self._inner.release()


class _FaultyLock:
    __slots__ = ("_inner", "file")

    def __init__(self, env: FaultyEnv, inner: FileLock) -> None:
        self.file: File = _FaultyFile(env, inner.file)
        self._inner = inner

    def release(self) -> None:
        self._inner.release()


def _os_error(fault: Fault, path: str) -> OSError:
    return OSError(fault.error, os.strerror(fault.error), path)
