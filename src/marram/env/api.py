"""Env: the only door to files, locks, clocks, randomness and background threads.

Owns the protocols; the implementations are posix.py (the machine), memory.py (a simulated disk
with crash clones) and faulty.py (errors on the n-th matching call).

E1  A write is durable only after sync() or sync_data() of its file returned.
E2  A created, renamed or removed name is durable only after sync_dir() of its directory returned.
E3  Every call either did what it says or raised OSError; short writes and EINTR are handled here.
E4  wall_ms() may jump; monotonic_ns() never goes back and counts suspended time.

Threading: every method may be called from any thread. Paths are str; "/" separates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Window(Protocol):
    """A part of a file as memory: window[start:stop] = data writes, as File.write() does.

    Offsets count from the window's start; start <= stop <= its size, and data has stop - start
    bytes. It stays until release(), also where the file was closed; but the file must not be cut
    short below its end meanwhile: on a machine that is the process's death, by SIGBUS.
    """

    def __setitem__(self, where: slice, data: bytes | bytearray) -> None: ...

    def release(self) -> None:
        """Give it up; what was written stays, durable after the next sync of the file."""
        ...


class File(Protocol):
    """An open file, addressed by offset: there is no file position."""

    @property
    def path(self) -> str:
        """The path it was opened by, for messages."""
        ...

    def size(self) -> int:
        """Its length, bytes."""
        ...

    def read(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes at `offset`; fewer only at the end of the file."""
        ...

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write all of `data` at `offset` (short writes are continued)."""
        ...

    def allocate(self, offset: int, size: int) -> None:
        """Reserve disk space for [offset, offset + size) and grow the file to cover it.

        What is new reads as zeros. Raises OSError(ENOSPC) before anything changed visibly.
        """
        ...

    def window(self, offset: int, size: int) -> Window | None:
        """[offset, offset + size) as memory, for writing; None where that is not safe.

        It must be allocated and read as zeros. Safe is a file system that keeps room for the blocks
        it promised and writes them in place: storing into memory cannot report that there is none.
        Raises OSError: it cannot be written.
        """
        ...

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes."""
        ...

    def sync_data(self) -> None:
        """Make contents and length durable (fdatasync)."""
        ...

    def sync(self) -> None:
        """Make contents and all metadata durable (fsync)."""
        ...

    def close(self) -> None:
        """Close it; idempotent."""
        ...


class FileLock(Protocol):
    """An exclusive lock on a file, held until release() or the end of the process."""

    @property
    def file(self) -> File:
        """The locked file itself, open for reading and writing."""
        ...

    def release(self) -> None:
        """Give the lock up; idempotent."""
        ...


class Task(Protocol):
    """Background work started by Env.start()."""

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for its end; False when the time was over first."""
        ...


class Channel(Protocol):
    """Bytes to and from another process; one thread at a time."""

    def send(self, data: bytes) -> None:
        """Send all of `data`. Raises OSError, or EOFError: the other process is gone."""
        ...

    def receive(self, size: int) -> bytes:
        """Exactly `size` bytes; waits for them. Raises EOFError: it is gone; OSError."""
        ...


class Child(Channel, Protocol):
    """A process started by Env.spawn(). It ends with this one, and by kill()."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def kill(self) -> None:
        """End it at once and wait for its end; idempotent, from any thread, at any time.

        A thread in send() or receive() then gets its error. A forked child's copy does nothing.
        """
        ...


class Env(Protocol):
    """The operating system, or a stand-in for it."""

    # -- files ---------------------------------------------------------------------------------

    def open(
        self, path: str, *, write: bool = False, create: bool = False, exclusive: bool = False
    ) -> File:
        """Open a file. create: make it where missing (mode 0600); exclusive: it must be missing.

        Raises FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError.
        """
        ...

    def exists(self, path: str) -> bool:
        """Whether a file or directory of that name is there."""
        ...

    def list_dir(self, path: str) -> list[str]:
        """Names in a directory, sorted. Raises FileNotFoundError, NotADirectoryError."""
        ...

    def make_dir(self, path: str) -> None:
        """Make a directory and its missing parents (mode 0700); fine where it exists."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Rename, replacing `target` atomically."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file."""
        ...

    def link(self, source: str, target: str) -> None:
        """Make a hard link. Raises OSError where the file system has none."""
        ...

    def sync_dir(self, path: str) -> None:
        """Make the names in a directory durable."""
        ...

    def free_bytes(self, path: str) -> int:
        """Free space on the file system of `path`, bytes."""
        ...

    def lock(self, path: str) -> FileLock:
        """Lock `path`, creating it where missing.

        Raises BlockingIOError at once where any other handle holds it: another process's, or
        this process's own (flock alone, or an in-process registry, would each miss one of them).
        """
        ...

    # -- clocks, identity, randomness ------------------------------------------------------------

    def wall_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC by the wall clock."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds since an arbitrary point; never goes back, counts suspended time."""
        ...

    def random_bytes(self, size: int) -> bytes:
        """Random bytes fit for identifiers and secrets."""
        ...

    def pid(self) -> int:
        """This process's id."""
        ...

    def hostname(self) -> str:
        """This machine's name."""
        ...

    # -- background work -------------------------------------------------------------------------

    def start(self, name: str, work: Callable[[], None]) -> Task:
        """Run `work` in the background. A simulated env may run it later, or never."""
        ...

    def pause(self) -> None:
        """Let other threads run; background loops call it between slices of pure computation."""
        ...

    def wait(self, seconds: float) -> None:
        """Let `seconds` pass: to keep to a rate, never to wait for something. Simulated: nothing.

        A simulated clock does not move by it, so do not loop until the time has come.
        """
        ...

    def spawn(self, module: str) -> Child | None:
        """Start a helper process that runs main() of `module`; None where there are none.

        It finds the marram that this process runs, is a little less urgent, inherits no lock and
        no descriptor but stderr, does not hear this terminal's Ctrl-C, and talks by
        posix.parent_channel(). Whether it gets as far as main() shows when it answers. Raises
        OSError: it could not be started.
        """
        ...
