"""What a figure was measured on, and what a process takes of it. Linux only: it reads /proc.

Owns hardware and versions, the page cache of a directory, disk space, the memory and the bytes
written of a process and its helpers.

Threading: functions without state; a Watch samples in a thread of its own.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import marram
from marram.compiled import state

SETTLED_S = 1.0
SETTLE_TIMEOUT_S = 300.0
WATCH_INTERVAL_S = 0.02


def hardware(directory: str, command: str = "") -> dict[str, Any]:
    """The machine, its software, and the file system that `directory` is on.

    command: what was run; this process's own command line where it is left out.
    """
    info = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average": round(os.getloadavg()[0], 2),  # before: what others do on the machine
        "file_system": file_system(directory),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "marram": marram_version(),
        "commit": commit(),
        "command": command or " ".join([Path(sys.executable).name, *sys.argv]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def marram_version() -> str:
    """The marram that this process runs, and whether its hot modules run compiled."""
    return f"{marram.__version__} ({state()})"


def file_system(directory: str) -> str:
    """Type and device of the mount that holds `directory`, as in "ext4 on /dev/sda1"."""
    path, found = os.path.realpath(directory), ("", "", "")
    for line in Path("/proc/mounts").read_text().splitlines():
        device, mount, kind = line.split()[:3]
        inside = path == mount or path.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(found[0]):
            found = (mount, kind, device)
    return f"{found[1]} on {found[2]}"


def on_disk(directory: str) -> bool:
    """Whether what is written there goes to a disk, so that a sync costs something."""
    return not file_system(directory).startswith(("tmpfs", "ramfs"))


def commit() -> str:
    """The commit that is measured, with "+" where its sources were changed; "" if unknown."""
    there = Path(marram.__file__).parent
    asked = ("rev-parse --short HEAD", "--no-optional-locks status --porcelain .")
    try:
        name, changed = (
            subprocess.run(
                ["git", *words.split()], cwd=there, capture_output=True, text=True, check=True
            ).stdout
            for words in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return name.strip() + ("+" if changed else "")


def files_below(directory: str) -> list[str]:
    """The paths of all files in `directory` and its subdirectories."""
    return [os.path.join(top, name) for top, _, names in os.walk(directory) for name in names]


def disk_bytes(directory: str) -> int:
    """What the files take on disk: blocks, so that holes count nothing and preallocation does."""
    total = 0
    for path in files_below(directory):
        with suppress(FileNotFoundError):  # a store may remove files meanwhile
            total += os.stat(path).st_blocks * 512
    return total


def wait_until_settled(directory: str) -> float:
    """Return once no file in `directory` has come, gone or grown for SETTLED_S.

    Background compactions end so; it asks no engine, so that it treats all alike. Returns the
    seconds it took, without the last SETTLED_S; at most SETTLE_TIMEOUT_S.
    """
    started = changed = time.monotonic()
    before: set[tuple[str, int, int]] = set()
    while (now := time.monotonic()) - changed < SETTLED_S and now - started < SETTLE_TIMEOUT_S:
        files = set()
        for path in files_below(directory):
            with suppress(FileNotFoundError):
                status = os.stat(path)
                files.add((path, status.st_size, status.st_mtime_ns))
        if files != before:
            before, changed = files, now
        time.sleep(0.05)
    return changed - started


def drop_page_cache(directory: str) -> float:
    """Write the files out and have the system forget their pages.

    Returns the share of their pages that stayed in memory all the same, 0 to 1: below a few per
    cent, or what follows is no cold run.
    """
    resident = pages = 0
    for path in files_below(directory):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)  # a dirty page is not dropped
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            held, all_of_it = _resident_pages(fd)
            resident, pages = resident + held, pages + all_of_it
        finally:
            os.close(fd)
    return resident / max(1, pages)


def _resident_pages(fd: int) -> tuple[int, int]:
    """(pages of the file in the page cache, its pages), by mincore()."""
    size = os.fstat(fd).st_size
    if not size:
        return 0, 0
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    prot_read, map_shared = 1, 1
    address = libc.mmap(None, size, prot_read, map_shared, fd, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "mmap")
    pages = -(-size // os.sysconf("SC_PAGE_SIZE"))
    flags = ctypes.create_string_buffer(pages)
    try:
        if libc.mincore(address, size, flags):
            raise OSError(ctypes.get_errno(), "mincore")
    finally:
        libc.munmap(address, size)
    return sum(byte & 1 for byte in flags.raw), pages


class Watch:
    """Memory and bytes written, of this process and of all processes below it, while it is open.

    What a helper does in the last WATCH_INTERVAL_S of its life is not seen. Pages that processes
    share count in each, so the sum is an upper bound.
    """

    def __init__(self) -> None:
        """Start with `with`."""
        self.peak_bytes: dict[int, int] = {}
        """By process id, VmHWM: the most that was resident at once, since the process began."""
        self.peak_sum_bytes = 0
        """The largest sum over all processes at one moment, as sampled."""
        self._written = 0
        self._before = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def written_bytes(self) -> int:
        """Bytes sent to the disk since it was opened (write_bytes of /proc/PID/io)."""
        self._sample()
        return self._written - self._before

    def __enter__(self) -> Self:
        self._sample()
        self._before = self._written
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._sample()
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(WATCH_INTERVAL_S):
            self._sample()

    def _sample(self) -> None:
        total = written = 0
        for pid in processes_below(os.getpid()):
            with suppress(OSError):  # it may have ended
                status = _fields(f"/proc/{pid}/status")
                peak = int(status.get("VmHWM", "0 kB").split()[0]) * 1024  # none: a zombie
                self.peak_bytes[pid] = max(peak, self.peak_bytes.get(pid, 0))
                total += int(status.get("VmRSS", "0 kB").split()[0]) * 1024
                written += int(_fields(f"/proc/{pid}/io")["write_bytes"])
        self.peak_sum_bytes = max(self.peak_sum_bytes, total)
        # A process that was waited for counts in its parent, which is read first: one that ends
        # between the two is missed for once, hence the maximum.
        self._written = max(self._written, written)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and of those below it; pages they share count in each."""
    total = 0
    for one in processes_below(pid):
        with suppress(OSError):
            total += int(_fields(f"/proc/{one}/status").get("VmRSS", "0 kB").split()[0]) * 1024
    return total


def cpu_seconds(pid: int) -> float:
    """Processor time, user and system, of a process, those below it and those it waited for.

    Of /proc/PID/stat, which counts in ticks of 10 ms. 0.0 where the process has gone.
    """
    ticks = 0
    for one in processes_below(pid):
        with suppress(OSError):
            # The name before the bracket may have spaces; the third field comes after it.
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def processes_below(pid: int) -> list[int]:
    """`pid` and the ids of its children, their children, and so on."""
    found = [pid]
    for one in found:
        with suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                with suppress(OSError):
                    children = Path(f"/proc/{one}/task/{task}/children").read_text()
                    found += [int(child) for child in children.split()]
    return found


def _fields(path: str) -> dict[str, str]:
    lines = Path(path).read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
