"""MemoryEnv: a simulated disk in memory, deterministic, whose power can fail at any call.

Owns the crash model. What is written, and which names exist, is known twice: as it is now, and as
it is durable. crash_clone() draws what else a disk might have kept:

M1  What was synced survives: contents and length by sync() or sync_data() of the file, names by
    sync_dir() of their directory.
M2  A block changed since the last sync of its file survives whole, with its current content, or
    has its durable content; each on its own.
M3  A length changed since then survives or not, on its own. The file then ends at its current
    length, else at its durable length or the end of the last surviving changed block beyond it.
    Where that leaves bytes that no surviving write covers, they are zeros.
M4  A change of names survives whole or not at all (a rename is one change), on its own. Two
    changes of one name keep their order. Making a change durable makes durable, too, the earlier
    ones of the same names. A file lives as long as a name, durable or not, leads to it.
M5  Survival 0 is the durable state, survival 1 the current one.
M6  A clone shares nothing that can change. It has no locks, tasks, hook or open files; its clock
    goes on from the same time.

Harsher than journaling file systems: a lost truncate may meet surviving writes that came after it,
and a file renamed twice may be found under its first name and its last. Less harsh than some
disks: a block that was written twice never comes back in its middle version. To see that one,
clone between the two writes (on_call).

Paths are taken from one root, "/", which is also the current directory; there are no links but
hard ones.

Threading: any thread may call anything; one lock guards the whole disk. The hook and background
work run outside it, so they may call the env, or wait for other threads.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from posixpath import normpath
from random import Random  # noqa: TID251  (seeded: this is the randomness of a simulation)

from marram.env.api import Child, File, FileLock, Task, Window
from marram.env.posix import posix_env


class MemoryEnv:
    """The simulated machine.

    seed: of random_bytes(). block_size: what survives or is lost together, bytes (512 or 4096).
    wall_ms: where the wall clock starts. threads: run background work in real threads, at once;
    else it waits for run_background(), or for a join().
    """

    on_call: Callable[[str, str], None] | None
    """Called as on_call(operation, path) before each call that changes something or makes it
    durable: create, write (or a store into a window), allocate, truncate, sync_data, sync, rename,
    remove, link, make_dir (once a directory made), sync_dir. `path` is as the caller gave it, for a
    file as it was opened, for rename and link the source. What it raises stops the call."""

    total_calls: int
    """How many calls on_call was, or would have been, told of."""

    free: int
    """What free_bytes() answers; set it freely. Nothing is refused (FaultyEnv gives ENOSPC)."""

    process_id: int
    """What pid() answers: one more in each crash clone. Set it to play a forked child."""

    def __init__(
        self,
        *,
        seed: int = 0,
        block_size: int = 512,
        wall_ms: int = 1_700_000_000_000,
        threads: bool = False,
        on_call: Callable[[str, str], None] | None = None,
    ) -> None:
        self.on_call = on_call
        self.total_calls = 0
        self.free = 1 << 40
        self.process_id = 1000
        self._block_size = block_size
        self._threads = threads
        self._lock = threading.Lock()  # guards all below, and every inode and directory
        self._root = _Directory()
        self._unsynced: list[_NameChange] = []  # oldest first
        self._tasks: deque[_QueuedTask] = deque()
        self._random = Random(seed)
        self._wall_ms = wall_ms
        self._monotonic_ns = 1_000_000_000

    # -- files ---------------------------------------------------------------------------------

    def open(
        self, path: str, *, write: bool = False, create: bool = False, exclusive: bool = False
    ) -> File:
        return self._open(path, write, create or exclusive, exclusive)

    def exists(self, path: str) -> bool:
        with self._lock:
            try:
                self._find(path)
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True

    def list_dir(self, path: str) -> list[str]:
        with self._lock:
            return sorted(self._find_dir(path).names)

    def make_dir(self, path: str) -> None:
        if self.exists(path):
            with self._lock:
                if isinstance(self._find(path), _Inode):
                    raise _os_error(errno.EEXIST, path)
            return
        parent = path.rstrip("/").rpartition("/")[0]
        if parent:
            self.make_dir(parent)
        self._announce("make_dir", path)
        with self._lock:
            directory, name = self._place(path)
            if name not in directory.names:
                self._change((directory, name, _Directory()))

    def rename(self, source: str, target: str) -> None:
        self._announce("rename", source)
        with self._lock:
            node = self._find(source)
            old_dir, old_name = self._place(source)
            new_dir, new_name = self._place(target)
            replaced = new_dir.names.get(new_name)
            if replaced is node:
                return  # two links of one file: POSIX has it that nothing happens
            if isinstance(node, _Directory):
                if _parts(target)[: len(_parts(source))] == _parts(source):
                    raise _os_error(errno.EINVAL, source)
                if isinstance(replaced, _Inode):
                    raise _os_error(errno.ENOTDIR, source)
                if replaced is not None and replaced.names:
                    raise _os_error(errno.ENOTEMPTY, source)
            elif isinstance(replaced, _Directory):
                raise _os_error(errno.EISDIR, source)
            self._change((old_dir, old_name, None), (new_dir, new_name, node))

    def remove(self, path: str) -> None:
        self._announce("remove", path)
        with self._lock:
            if isinstance(self._find(path), _Directory):
                raise _os_error(errno.EISDIR, path)
            self._change((*self._place(path), None))

    def link(self, source: str, target: str) -> None:
        self._announce("link", source)
        with self._lock:
            node = self._find(source)
            directory, name = self._place(target)
            if name in directory.names:
                raise _os_error(errno.EEXIST, source)
            if isinstance(node, _Directory):
                raise _os_error(errno.EPERM, source)
            self._change((directory, name, node))

    def sync_dir(self, path: str) -> None:
        self._announce("sync_dir", path)
        with self._lock:
            self._sync_names(self._find_dir(path))

    def free_bytes(self, path: str) -> int:
        with self._lock:
            self._find(path)
        return self.free

    def lock(self, path: str) -> FileLock:
        file = self._open(path, write=True, create=True)
        with self._lock:
            if file._inode.locked:
                raise BlockingIOError(errno.EWOULDBLOCK, "locked by this process", path)
            file._inode.locked = True
        return _MemoryLock(file)

    # -- clocks, identity, randomness ------------------------------------------------------------

    def wall_ms(self) -> int:
        return self._wall_ms

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def random_bytes(self, size: int) -> bytes:
        with self._lock:
            return self._random.randbytes(size)

    def pid(self) -> int:
        return self.process_id

    def hostname(self) -> str:
        return "memory"

    # -- background work -------------------------------------------------------------------------

    def start(self, name: str, work: Callable[[], None]) -> Task:
        if self._threads:
            return posix_env().start(name, work)
        task = _QueuedTask(self, name, work)
        with self._lock:
            self._tasks.append(task)
        return task

    def pause(self) -> None:
        """Nothing: the simulation decides what runs when."""

    def wait(self, seconds: float) -> None:
        """Nothing: the clock moves only by advance()."""

    def spawn(self, module: str) -> Child | None:
        """None: a simulated machine has one process."""
        return None

    # -- doors for tests -------------------------------------------------------------------------

    def crash_clone(self, survival: float, seed: int) -> MemoryEnv:
        """The disk as it might be found if the power failed now (M1-M6); this env goes on.

        survival: the probability that an unsynced block, length or change of names is kept.
        seed: of the draws, and of the clone's random_bytes().
        """
        with self._lock:
            clone = MemoryEnv(
                block_size=self._block_size, wall_ms=self._wall_ms, threads=self._threads
            )
            clone.free = self.free
            clone.process_id = self.process_id + 1
            clone._monotonic_ns = self._monotonic_ns
            clone._random = Random(seed)
            kept: dict[_Directory, dict[str, _Node | None]] = {}
            for change in self._unsynced:
                if clone._random.random() < survival:
                    for directory, name, node in change:
                        kept.setdefault(directory, {})[name] = node
            clone._root = _clone_tree(self._root, kept, survival, clone._random, {})
        return clone

    def run_background(self) -> int:
        """Run what start() queued, and what that queues, in order; returns how many ran."""
        ran = 0
        while self._tasks:
            self._tasks[0].join()
            ran += 1
        return ran

    def advance(self, ms: int) -> None:
        """Let `ms` milliseconds pass on both clocks."""
        with self._lock:
            self._wall_ms += ms
            self._monotonic_ns += ms * 1_000_000

    def set_wall_ms(self, wall_ms: int) -> None:
        """Set the wall clock alone, as an administrator or NTP might."""
        with self._lock:
            self._wall_ms = wall_ms

    def contents(self, path: str) -> bytes:
        """The file as a reader sees it now."""
        with self._lock:
            return bytes(self._find_file(path).content)

    def mutate(self, path: str, offset: int, data: bytes) -> None:
        """Damage a file in place, unannounced; the file is durable as it then stands.

        Raises ValueError where [offset, offset + len(data)) is not within the file.
        """
        with self._lock:
            inode = self._find_file(path)
            if not 0 <= offset <= len(inode.content) - len(data):
                raise ValueError(f"{path} has no {len(data)} bytes at {offset}")
            inode.write(data, offset)
            inode.sync()

    def put_file(self, path: str, data: bytes) -> None:
        """Make `path`, and missing directories above it, with this content; unannounced.

        The file is durable, and so are all names in the directories above it.
        """
        with self._lock:
            directory, (*above, name) = self._root, _parts(path)
            for part in above:
                if part not in directory.names:
                    self._change((directory, part, _Directory()))
                self._sync_names(directory)
                directory = _as_directory(directory.names[part], path)
            if name not in directory.names:
                self._change((directory, name, _Inode(b"", self._block_size)))
            self._sync_names(directory)
            inode = self._find_file(path)
            inode.content = data
            inode.sync()

    # -- inside ----------------------------------------------------------------------------------

    def _announce(self, operation: str, path: str) -> None:
        with self._lock:
            self.total_calls += 1
        if self.on_call is not None:
            self.on_call(operation, path)

    def _open(
        self, path: str, write: bool, create: bool = False, exclusive: bool = False
    ) -> _MemoryFile:
        if create and not self.exists(path):
            with self._lock:
                self._place(path)  # raises where it cannot be created
            self._announce("create", path)
            with self._lock:
                directory, name = self._place(path)
                if name not in directory.names:
                    inode = _Inode(b"", self._block_size)
                    self._change((directory, name, inode))
                    return _MemoryFile(self, path, inode, write)
        with self._lock:
            node = self._find(path)
            if exclusive:
                raise _os_error(errno.EEXIST, path)
            if isinstance(node, _Directory):
                raise _os_error(errno.EISDIR, path)
            return _MemoryFile(self, path, node, write)

    def _find(self, path: str) -> _Node:
        node: _Node = self._root
        for part in _parts(path):
            found = _as_directory(node, path).names.get(part)
            if found is None:
                raise _os_error(errno.ENOENT, path)
            node = found
        return node

    def _find_dir(self, path: str) -> _Directory:
        return _as_directory(self._find(path), path)

    def _find_file(self, path: str) -> _Inode:
        node = self._find(path)
        if isinstance(node, _Directory):
            raise _os_error(errno.EISDIR, path)
        return node

    def _place(self, path: str) -> tuple[_Directory, str]:
        """The directory that has, or would have, the last name of `path`; and that name."""
        parts = _parts(path)
        if not parts:
            raise _os_error(errno.EBUSY, path)  # the root has no name
        return self._find_dir("/" + "/".join(parts[:-1])), parts[-1]

    def _change(self, *edits: _NameEdit) -> None:
        """Do one change of names: all of it survives a crash or nothing does."""
        for directory, name, node in edits:
            _set(directory.names, name, node)
        self._unsynced.append(edits)

    def _sync_names(self, synced: _Directory) -> None:
        wanted: set[tuple[_Directory, str]] = set()
        durable: list[_NameChange] = []
        kept: list[_NameChange] = []
        for change in reversed(self._unsynced):
            names = {(directory, name) for directory, name, _ in change}
            if wanted & names or any(directory is synced for directory, _ in names):
                wanted |= names  # earlier changes of these names must not come after this one
                durable.append(change)
            else:
                kept.append(change)
        for change in reversed(durable):
            for directory, name, node in change:
                _set(directory.durable, name, node)
        self._unsynced = kept[::-1]


class _Inode:
    """A file: its current content, and what leads back to its durable one."""

    __slots__ = ("block_size", "content", "durable_size", "locked", "undo")

    def __init__(self, content: bytes | bytearray, block_size: int) -> None:
        self.content = content  # bytes while nobody writes, so that clones can share it
        self.block_size = block_size
        self.durable_size = len(content)
        # Block index -> its durable content, up to durable_size; for blocks changed since the sync.
        self.undo: dict[int, bytes] = {}
        self.locked = False

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        stop = offset + len(data)
        self.grow(stop)
        self._remember(offset, stop)
        self._thaw()[offset:stop] = data

    def grow(self, size: int) -> None:
        if size > len(self.content):
            self._thaw().extend(bytes(size - len(self.content)))

    def cut(self, size: int) -> None:
        self._remember(size, min(len(self.content), self.durable_size))
        del self._thaw()[size:]

    def sync(self) -> None:
        self.durable_size = len(self.content)
        self.undo.clear()

    def after_crash(self, survival: float, random: Random) -> _Inode:
        """A new inode with what a crash leaves of this one (M1, M2, M3)."""
        now, size = len(self.content), self.block_size
        if not self.undo and now == self.durable_size:
            if isinstance(self.content, bytearray):
                self.content = bytes(self.content)
            return _Inode(self.content, size)
        draw = random.random
        end = now if draw() < survival else self.durable_size
        image = bytearray(self.content)
        image.extend(bytes(max(0, self.durable_size - now)))  # room for what a lost cut brings back
        for block, durable in self.undo.items():
            start = block * size
            if start < now and draw() < survival:
                end = max(end, min(start + size, now))
            else:
                image[start : start + size] = durable.ljust(min(size, len(image) - start), b"\0")
        del image[end:]
        return _Inode(image, size)

    def _thaw(self) -> bytearray:
        if isinstance(self.content, bytes):
            self.content = bytearray(self.content)
        return self.content

    def _remember(self, start: int, stop: int) -> None:
        """Keep the durable content of those blocks of [start, stop) that change only now."""
        size, end = self.block_size, self.durable_size
        for block in range(start // size, -(-stop // size)):
            if block not in self.undo:
                self.undo[block] = bytes(self.content[block * size : min(block * size + size, end)])


class _Directory:
    """Its names as they are, and as they are durable."""

    __slots__ = ("durable", "names")

    def __init__(self) -> None:
        self.names: dict[str, _Node] = {}
        self.durable: dict[str, _Node] = {}


_Node = _Inode | _Directory
_NameEdit = tuple[_Directory, str, _Node | None]  # None: the name goes
_NameChange = tuple[_NameEdit, ...]


class _MemoryFile:
    __slots__ = ("_closed", "_env", "_inode", "_writable", "path")

    def __init__(self, env: MemoryEnv, path: str, inode: _Inode, writable: bool) -> None:
        self.path = path
        self._env = env
        self._inode = inode
        self._writable = writable
        self._closed = False

    def size(self) -> int:
        self._check()
        return len(self._inode.content)

    def read(self, size: int, offset: int) -> bytes:
        self._check(size >= 0 and offset >= 0)
        with self._env._lock:
            return bytes(self._inode.content[offset : offset + size])

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        self._check(offset >= 0, self._writable)
        self._env._announce("write", self.path)
        with self._env._lock:
            if data:
                self._inode.write(data, offset)

    def allocate(self, offset: int, size: int) -> None:
        self._check(offset >= 0 and size > 0, self._writable)
        self._env._announce("allocate", self.path)
        with self._env._lock:
            self._inode.grow(offset + size)

    def window(self, offset: int, size: int) -> Window | None:
        self._check(offset >= 0 and size > 0, self._writable)
        with self._env._lock:
            content = self._inode.content
            assert offset + size <= len(content), "not allocated"
            assert not any(content[offset : offset + size]), "not zeros"
        return _MemoryWindow(self._env, self.path, self._inode, offset, size)

    def truncate(self, size: int) -> None:
        self._check(size >= 0 and self._writable)
        self._env._announce("truncate", self.path)
        with self._env._lock:
            self._inode.cut(size)
            self._inode.grow(size)

    def sync_data(self) -> None:
        self._sync("sync_data")

    def sync(self) -> None:
        self._sync("sync")

    def close(self) -> None:
        self._closed = True

    def _sync(self, operation: str) -> None:
        self._check()
        self._env._announce(operation, self.path)
        with self._env._lock:
            self._inode.sync()

    def _check(self, valid: bool = True, allowed: bool = True) -> None:
        """Fail as Linux does on a closed file, a call not `allowed`, an argument not `valid`."""
        if self._closed or not allowed:
            raise _os_error(errno.EBADF, self.path)
        if not valid:
            raise _os_error(errno.EINVAL, self.path)


class _MemoryWindow:
    """What is stored in it is unsynced like what is written: each block survives by itself (M2)."""

    __slots__ = ("_env", "_inode", "_offset", "_path", "_size")

    def __init__(self, env: MemoryEnv, path: str, inode: _Inode, offset: int, size: int) -> None:
        self._env = env
        self._path = path
        self._inode = inode
        self._offset = offset
        self._size = size

    def __setitem__(self, where: slice, data: bytes | bytearray) -> None:
        start, stop, _ = where.indices(self._size)
        if stop - start != len(data):
            raise ValueError(f"{len(data)} bytes for {stop - start}")
        self._env._announce("write", self._path)
        with self._env._lock:
            assert self._offset + stop <= len(self._inode.content), "SIGBUS"
            self._inode.write(data, self._offset + start)

    def release(self) -> None:
        self._size = 0


class _MemoryLock:
    __slots__ = ("_released", "file")

    def __init__(self, file: _MemoryFile) -> None:
        self.file = file
        self._released = False

    def release(self) -> None:
        with self.file._env._lock:
            if not self._released:
                self._released = True
                self.file._inode.locked = False
                self.file.close()


class _QueuedTask:
    __slots__ = ("_env", "_work", "done", "name")

    def __init__(self, env: MemoryEnv, name: str, work: Callable[[], None]) -> None:
        self._env = env
        self._work = work
        self.name = name
        self.done = False

    def join(self, timeout_s: float | None = None) -> bool:
        """Its turn has come: it runs here and now, if it did not yet; what it raises comes out."""
        with self._env._lock:
            waiting = self in self._env._tasks
            if waiting:
                self._env._tasks.remove(self)
        if waiting:
            try:
                self._work()
            finally:
                self.done = True
        return self.done


def _clone_tree(
    directory: _Directory,
    kept: dict[_Directory, dict[str, _Node | None]],
    survival: float,
    random: Random,
    clones: dict[_Node, _Node],
) -> _Directory:
    """The directory and all below it after a crash that keeps the changes in `kept`.

    clones: node -> its clone, so that several names of a file still lead to one file.
    """
    clones[directory] = clone = _Directory()
    for name, node in {**directory.durable, **kept.get(directory, {})}.items():
        if node is None:
            continue
        copy = clones.get(node)
        if copy is None:
            if isinstance(node, _Directory):
                copy = _clone_tree(node, kept, survival, random, clones)
            else:
                copy = clones[node] = node.after_crash(survival, random)
        clone.names[name] = copy
    clone.durable = clone.names.copy()
    return clone


def _set(names: dict[str, _Node], name: str, node: _Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def _as_directory(node: _Node, path: str) -> _Directory:
    if isinstance(node, _Inode):
        raise _os_error(errno.ENOTDIR, path)
    return node


@lru_cache(maxsize=4096)
def _parts(path: str) -> tuple[str, ...]:
    """The names from the root down to `path`."""
    return tuple(part for part in normpath("/" + path).split("/") if part)


def _os_error(code: int, path: str) -> OSError:
    """FileNotFoundError for ENOENT and so on: OSError picks its subclass by the number."""
    return OSError(code, os.strerror(code), path)
