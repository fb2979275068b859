"""A merge in the helper process is the merge inline, and whatever befalls it leaves no file."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marram import __version__
from marram.env import Env, PosixEnv
from marram.env.memory import MemoryEnv
from marram.errors import Closed, Corruption, InvalidArgument, UnsupportedFormat
from marram.storage.layout import table_path, tables_path
from marram.storage.lsm import compaction, worker
from marram.storage.lsm.compaction import Cancelled, Outcome, Task, check_table
from marram.storage.lsm.job import Boundary
from marram.storage.lsm.worker import Runner, serve
from marram.storage.sstable.ranges import RangeDeletion
from tests.storage.lsm.test_compaction import (
    DIR,
    FIRST,
    merge_job,
    names,
    open_table,
    row,
    rows_of,
    task_of,
    write_table,
)

WAIT_S = 20.0


class Pipe:
    """Bytes one way, until it is closed."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._closed = False
        self._changed = threading.Condition()

    def write(self, data: bytes) -> None:
        with self._changed:
            if self._closed:
                raise BrokenPipeError(errno.EPIPE, "closed")
            self._bytes += data
            self._changed.notify_all()

    def read(self, size: int) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: len(self._bytes) >= size or self._closed, WAIT_S)
            if len(self._bytes) < size:
                raise EOFError("closed")
            data = bytes(self._bytes[:size])
            del self._bytes[:size]
            return data

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class End:
    """One end of two pipes; a Channel, and to the Runner a Child whose kill() cuts both."""

    def __init__(self, incoming: Pipe, outgoing: Pipe, pid: int = 0) -> None:
        self._incoming, self._outgoing, self.pid = incoming, outgoing, pid
        self.thread: threading.Thread | None = None

    def send(self, data: bytes) -> None:
        self._outgoing.write(data)

    def receive(self, size: int) -> bytes:
        return self._incoming.read(size)

    def kill(self) -> None:
        self._incoming.close()
        self._outgoing.close()
        if self.thread is not None:
            self.thread.join(WAIT_S)


class Machine(MemoryEnv):
    """A simulated disk with a helper that is a thread; `behave` is what it runs."""

    def __init__(self, behave: Callable[[Env, End], None] = serve) -> None:
        super().__init__()
        self.behave = behave
        self.spawned = 0

    def spawn(self, module: str) -> End | None:
        assert module == "marram.storage.lsm.worker"
        self.spawned += 1
        there, back = Pipe(), Pipe()
        mine, its = End(back, there, self.spawned), End(there, back)

        def work() -> None:
            try:
                self.behave(self, its)
            except (worker._Died, EOFError, OSError):
                pass
            finally:
                there.close()
                back.close()

        mine.thread = threading.Thread(target=work, daemon=True)
        mine.thread.start()
        return mine


@pytest.fixture
def runner() -> Iterator[Callable[[Env], Runner]]:
    """Makes runners, and closes them."""
    made: list[Runner] = []

    def make(env: Env) -> Runner:
        made.append(Runner(env))
        return made[-1]

    yield make
    for one in made:
        one.close()


def a_task(env: Env, directory: str = DIR, count: int = 60, **fields: Any) -> Task:
    """Two tables with all there can be in a task, into several outputs."""
    rows = [row(b"\xfe%06d\x00" % n, 9, b"new" * 9) for n in range(0, count, 2)]
    new = write_table(env, 2, rows, [RangeDeletion(1, b"", None, 9)], directory)
    rows = [row(b"\xfe%06d\x00" % n, 5, b"old" * 9, deadline_ms=n) for n in range(count)]
    old = write_table(env, 1, rows, (), directory)
    job = merge_job(
        new,
        old,
        target_bytes=count * 20,
        grandparent_bytes=10**9,
        boundaries=(Boundary(b"\x00\xfe000007\x00", 77),),
        below=[(b"\x00\xfe", b"\x01\xff")],
    )
    return task_of(job, directory, expired_ms=20, **fields)


# -- W1 ------------------------------------------------------------------------------------------


def test_w1_the_helper_does_as_inline(runner: Callable[[Env], Runner]) -> None:
    disk, inline = Machine(), MemoryEnv()
    told: list[tuple[int, int]] = []

    outcome = runner(disk).run(a_task(disk), lambda *sizes: told.append(sizes))

    assert outcome == compaction.run(inline, a_task(inline))
    assert len(outcome.tables) > 2
    assert outcome.gone
    assert names(disk) == names(inline)
    for meta in outcome.tables:
        path = table_path(DIR, meta.number)
        assert disk.contents(path) == inline.contents(path)
    assert disk.spawned == 1


def test_w1_the_helper_is_kept_for_the_next_merge(runner: Callable[[Env], Runner]) -> None:
    disk = Machine()
    runs, task = runner(disk), a_task(disk)
    first = runs.run(task)
    again = runs.run(task_of(task.job, first_number=500, expired_ms=20))
    assert [meta.number - 400 for meta in again.tables] == [meta.number for meta in first.tables]
    assert disk.spawned == 1


def test_w1_without_processes_merges_run_inline(runner: Callable[[Env], Runner]) -> None:
    env, other = MemoryEnv(), MemoryEnv()
    told: list[tuple[int, int]] = []
    runs = runner(env)
    assert runs.run(a_task(env), lambda *sizes: told.append(sizes)) == compaction.run(
        other, a_task(other)
    )
    assert told
    assert runs.pid is None


@pytest.mark.parametrize(
    "error",
    [
        Corruption("bad", "/db/tables/7.sst", 99),
        Corruption("bad"),
        OSError(errno.ENOSPC, "No space left on device", "/db/tables/100.sst"),
        FileExistsError(errno.EEXIST, "File exists", "/db/tables/100.sst"),
        UnsupportedFormat("newer"),
        InvalidArgument("no"),
        MemoryError("none"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_w1_errors_are_raised_as_they_were(
    runner: Callable[[Env], Runner], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> Outcome:
        raise error

    disk = Machine()
    runs, task = runner(disk), a_task(disk)
    monkeypatch.setattr(compaction, "run", fail)
    with pytest.raises(type(error)) as caught:
        runs.run(task)

    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    for name in ("path", "offset", "errno", "filename"):
        assert getattr(caught.value, name, None) == getattr(error, name, None)
    assert "in fail" in caught.value.__notes__[0]
    monkeypatch.undo()
    assert runs.run(task).tables  # it is ready for the next one
    assert disk.spawned == 1


def test_w1_what_only_a_bug_raises_comes_with_its_name(
    runner: Callable[[Env], Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Outcome:
        raise AssertionError("never")

    disk = Machine()
    task = a_task(disk)
    monkeypatch.setattr(compaction, "run", fail)
    with pytest.raises(RuntimeError, match="AssertionError in the compaction process: never"):
        runner(disk).run(task)


def test_paths_that_are_no_utf8_pass(runner: Callable[[Env], Runner]) -> None:
    disk = Machine()
    assert runner(disk).run(a_task(disk, "/d\udcff b")).tables


# -- deaths --------------------------------------------------------------------------------------


def dying(times: int, *, writes: bool = True) -> Callable[[Env, End], None]:
    """A helper that dies in the middle of its first `times` merges, over all of its lives."""
    left = [times]

    def behave(env: Env, channel: End) -> None:
        if not left[0]:
            return serve(env, channel)
        left[0] -= 1
        worker._send(channel, {"hello": __version__})
        worker._receive(channel)
        if writes:
            env.open(table_path(DIR, FIRST), write=True, create=True).close()
            env.open(table_path(DIR, FIRST + 3), write=True, create=True).close()
        return None

    return behave


def test_w2_after_a_death_another_helper_does_the_merge(
    runner: Callable[[Env], Runner], caplog: pytest.LogCaptureFixture
) -> None:
    disk = Machine(dying(1))
    runs = runner(disk)
    outcome = runs.run(a_task(disk))
    listed = [f"{meta.number}.sst" for meta in outcome.tables]
    assert names(disk) == sorted(["1.sst", "2.sst", *listed])
    assert (disk.spawned, runs.pid) == (2, 2)
    assert "starting another" in caplog.text


def test_after_two_deaths_in_a_row_merges_run_inline(
    runner: Callable[[Env], Runner], caplog: pytest.LogCaptureFixture
) -> None:
    disk = Machine(dying(100))
    runs = runner(disk)
    task = a_task(disk)
    assert runs.run(task).tables
    assert runs.run(task_of(task.job, first_number=500)).tables
    assert disk.spawned == 2
    assert "in this process from now on" in caplog.text
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_deaths_that_are_not_in_a_row_do_not_count(runner: Callable[[Env], Runner]) -> None:
    disk = Machine(dying(1))
    runs = runner(disk)
    task = a_task(disk)
    for number in range(500, 800, 100):
        runs.run(task_of(task.job, first_number=number))
        assert runs._child is not None
        runs._child.kill()
    assert disk.spawned == 4


@pytest.mark.parametrize("hello", [b'{"hello":"0.0.9"}', b"{}", b"[]", b"usage: ..."])
def test_a_stranger_gets_no_task(
    runner: Callable[[Env], Runner], hello: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Another version, after an upgrade on disk; or no marram at all."""
    got: list[bytes] = []

    def behave(env: Env, channel: End) -> None:
        channel.send(len(hello).to_bytes(4, "little") + hello)
        with suppress(EOFError):
            got.append(channel.receive(1))

    disk = Machine(behave)
    assert runner(disk).run(a_task(disk)).tables
    assert not got
    assert "in this process from now on" in caplog.text


def test_a_helper_that_cannot_be_started_is_tried_again(
    runner: Callable[[Env], Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Machine()
    runs, task = runner(disk), a_task(disk)
    with monkeypatch.context() as patch:

        def spawn(self: Machine, module: str) -> None:
            raise OSError(errno.EAGAIN, "no more processes")

        patch.setattr(Machine, "spawn", spawn)
        assert runs.run(task).tables
        assert runs.pid is None
    assert runs.run(task_of(task.job, first_number=500)).tables
    assert runs.pid == 1


# -- cancellation, the end -----------------------------------------------------------------------


def telling(env: Env, channel: End) -> None:
    """A helper that has made a file and tells its progress for ever."""
    worker._send(channel, {"hello": __version__})
    worker._receive(channel)
    env.open(table_path(DIR, FIRST), write=True, create=True).close()
    while True:
        worker._send(channel, {"progress": [1, 2]})
        time.sleep(0.001)


def test_w2_a_cancelled_merge_leaves_nothing(runner: Callable[[Env], Runner]) -> None:
    disk = Machine(telling)
    asked = iter([False, False, False, True])
    runs = runner(disk)
    task = a_task(disk)
    with pytest.raises(Cancelled):
        runs.run(task, cancelled=lambda: next(asked))
    assert names(disk) == ["1.sst", "2.sst"]
    disk.behave = serve
    assert runs.run(task).tables


def test_w2_what_progress_raises_leaves_nothing(runner: Callable[[Env], Runner]) -> None:
    def progress(read_bytes: int, written_bytes: int) -> None:
        raise KeyboardInterrupt

    disk = Machine(telling)
    with pytest.raises(KeyboardInterrupt):
        runner(disk).run(a_task(disk), progress)
    assert names(disk) == ["1.sst", "2.sst"]


def silent(env: Env, channel: End) -> None:
    """A helper that never answers."""
    worker._send(channel, {"hello": __version__})
    worker._receive(channel)
    env.open(table_path(DIR, FIRST), write=True, create=True).close()
    channel.receive(1)


def test_w3_close_ends_a_merge_that_does_not_answer(runner: Callable[[Env], Runner]) -> None:
    disk = Machine(silent)
    runs = runner(disk)
    task = a_task(disk)
    raised: list[BaseException] = []

    def work() -> None:
        try:
            runs.run(task)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: len(names(disk)) == 3)
    runs.close()
    thread.join(WAIT_S)
    assert [type(error) for error in raised] == [Cancelled]
    assert names(disk) == ["1.sst", "2.sst"]


def test_close_is_final_and_idempotent() -> None:
    disk = Machine()
    runs = Runner(disk)
    task = a_task(disk)
    runs.run(task)
    runs.close()
    runs.close()
    with pytest.raises(Closed):
        runs.run(task)


def test_close_ends_a_merge_that_runs_inline() -> None:
    env = MemoryEnv()
    runs = Runner(env)
    with pytest.raises(Cancelled):
        runs.run(a_task(env), lambda read, written: runs.close())
    assert names(env) == ["1.sst", "2.sst"]


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


# -- real processes ------------------------------------------------------------------------------

ENV = PosixEnv()


def slow_task(tmp_path: Path) -> Task:
    """One that would take ten seconds, and writes files after one."""
    return a_task(ENV, str(tmp_path), count=24_000, rate_bytes_s=400_000)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def start(runs: Runner, task: Task) -> tuple[threading.Thread, list[object]]:
    """Run it in a thread, up to where it writes."""
    ends: list[object] = []

    def work() -> None:
        try:
            ends.append(runs.run(task))
        except BaseException as error:
            ends.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: len(names(ENV, task.directory)) > 2 or not thread.is_alive())
    return thread, ends


def test_w1_a_real_process_does_as_inline(runner: Callable[[Env], Runner], tmp_path: Path) -> None:
    one, other = str(tmp_path / "1"), str(tmp_path / "2")
    runs = runner(ENV)

    outcome = runs.run(a_task(ENV, one, count=3000))

    assert runs.pid is not None
    inline = compaction.run(ENV, a_task(ENV, other, count=3000))
    unstamped = [replace(meta, stamp=0) for meta in outcome.tables]
    assert unstamped == [replace(meta, stamp=0) for meta in inline.tables]
    assert replace(outcome, tables=()) == replace(inline, tables=())
    assert names(ENV, one) == names(ENV, other)
    for there, here in zip(outcome.tables, inline.tables, strict=True):
        check_table(open_table(ENV, there, one), there)
        assert rows_of(ENV, [there], one) == rows_of(ENV, [here], other)


def test_w1_errors_of_a_real_process_travel(
    runner: Callable[[Env], Runner], tmp_path: Path
) -> None:
    task = a_task(ENV, str(tmp_path))
    runs = runner(ENV)
    (tmp_path / "tables/100.sst").write_bytes(b"somebody's")
    with pytest.raises(FileExistsError) as exists:
        runs.run(task)
    assert exists.value.filename == f"{tmp_path}/tables/100.sst"
    assert (tmp_path / "tables/100.sst").read_bytes() == b"somebody's"
    (tmp_path / "tables/1.sst").write_bytes(b"rot")
    with pytest.raises(Corruption) as corrupt:
        runs.run(task)
    assert corrupt.value.path == f"{tmp_path}/tables/1.sst"


def test_w2_a_killed_process_is_replaced(
    runner: Callable[[Env], Runner], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs = runner(ENV)
    thread, ends = start(runs, slow_task(tmp_path))
    first = runs.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: runs.pid not in (first, None))
    runs.close()
    thread.join(WAIT_S)
    assert isinstance(ends[0], Cancelled)
    assert names(ENV, str(tmp_path)) == ["1.sst", "2.sst"]
    assert "starting another" in caplog.text
    assert not Path(f"/proc/{first}").exists(), "no zombie"


def test_w3_close_ends_a_real_process(runner: Callable[[Env], Runner], tmp_path: Path) -> None:
    runs = runner(ENV)
    thread, ends = start(runs, slow_task(tmp_path))
    pid = runs.pid
    runs.close()
    thread.join(WAIT_S)
    assert isinstance(ends[0], Cancelled)
    assert names(ENV, str(tmp_path)) == ["1.sst", "2.sst"]
    assert not Path(f"/proc/{pid}").exists(), "no zombie"


PARENT = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from marram.storage.lsm.worker import Runner
from tests.storage.lsm.test_worker import ENV, slow_task
runs = Runner(ENV)
thread = threading.Thread(target=runs.run, args=(slow_task(Path(sys.argv[2])),), daemon=True)
thread.start()
while runs.pid is None:
    pass
print(runs.pid, flush=True)
thread.join()
"""


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_w4_the_parents_death_ends_a_merge(tmp_path: Path, way: signal.Signals) -> None:
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, root, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        try:
            wait_until(lambda: len(names(ENV, str(tmp_path))) > 2)
            assert is_alive(pid)
        finally:
            parent.send_signal(way)
        parent.wait(WAIT_S)
    wait_until(lambda: not is_alive(pid))
    assert names(ENV, str(tmp_path)) == ["1.sst", "2.sst"]


def test_it_loads_little() -> None:
    code = "import sys, marram.storage.lsm.worker; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(out.stdout.split())
    assert not loaded & {"asyncio", "socket", "ssl", "subprocess", "pickle", "selectors", "http"}
    assert not any(name.startswith("marram.storage.db") for name in loaded)


def test_the_tables_folder_may_be_gone_with_the_helper(runner: Callable[[Env], Runner]) -> None:
    """A store that was removed meanwhile: the error is the helper's, not the clean-up's."""
    disk = Machine()
    task = a_task(disk, "/other")
    for name in names(disk, "/other"):
        disk.remove(f"{tables_path('/other')}/{name}")
    with pytest.raises(Corruption, match="missing"):
        runner(disk).run(task)
