"""storage/store.py: owners, generations, units, and bad directories."""

from __future__ import annotations

import errno
import gc
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import marram
from marram.coding.batch import Change, delete, expire, put
from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.errors import (
    Closed,
    Corruption,
    Forked,
    InvalidArgument,
    Locked,
    NotAStore,
    StoreFailed,
    StoreFull,
)
from marram.storage.options import Options
from marram.storage.store import Position, Store

DIRECTORY = "/data/db"


def open_store(env: MemoryEnv, **options: object) -> Store:
    return Store.open(DIRECTORY, env, Options(**options))  # type: ignore[arg-type]


# -- P5: one owner ---------------------------------------------------------------------------------


def test_p5_a_second_opening_in_the_process_names_it(tmp_path: pathlib.Path) -> None:
    with marram.open(tmp_path / "db") as db:
        db.store.set_address("resp=127.0.0.1:7379")
        with pytest.raises(Locked, match=f"this process, pid {os.getpid()}") as caught:
            marram.open(tmp_path / "db")
        assert caught.value.owner_pid == os.getpid()
        assert caught.value.owner_address == "resp=127.0.0.1:7379"
    marram.open(tmp_path / "db").close()  # and afterwards it is free


def test_p5_a_second_process_is_refused_at_once(tmp_path: pathlib.Path) -> None:
    code = "import marram, sys; marram.open(sys.argv[1]); print('open', flush=True); input()"
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "open\n"
    try:
        with pytest.raises(Locked, match=f"in use by pid {owner.pid}"):
            marram.open(tmp_path / "db")
    finally:
        owner.kill()
        owner.communicate()
    marram.open(tmp_path / "db").close()  # the lock dies with its owner


def test_p5_after_fork_the_childs_handle_raises_and_the_parents_works(
    tmp_path: pathlib.Path,
) -> None:
    code = """
import marram, os, sys
db = marram.open(sys.argv[1])
db.put(b"a", b"1")
snapshot = db.snapshot()
pid = os.fork()
if pid == 0:
    seen = []
    for use in (lambda: db.get(b"a"), lambda: db.put(b"b", b"2"), lambda: db.checkpoint(),
                lambda: len(db), lambda: list(db.scan()), lambda: snapshot.get(b"a"), db.stats):
        try:
            use()
        except marram.Forked as error:
            seen.append(type(error).__name__)
    db.close()
    os._exit(0 if seen == ["Forked"] * 7 else 1)
status = os.waitpid(pid, 0)[1]
db.put(b"c", b"3")
try:
    marram.open(sys.argv[1])
except marram.Locked:
    print("child", os.waitstatus_to_exitcode(status), db.get(b"c").decode())
"""
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "db")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout == "child 0 3\n", out.stderr


# -- directories -----------------------------------------------------------------------------------


def test_a_missing_directory_is_made_only_when_asked(tmp_path: pathlib.Path) -> None:
    with pytest.raises(NotAStore, match="does not exist"):
        marram.open(tmp_path / "no" / "such", create=False)
    assert not (tmp_path / "no").exists()
    marram.open(tmp_path / "no" / "such").close()
    assert (tmp_path / "no" / "such" / "version").read_bytes() == b"0\n"


def test_an_empty_directory_is_no_store_unless_asked(tmp_path: pathlib.Path) -> None:
    with pytest.raises(NotAStore):
        marram.open(tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []


def test_v5_a_directory_of_other_files_is_never_made_a_store(tmp_path: pathlib.Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(NotAStore, match=r"thesis\.tex"):
        marram.open(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_directory(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotAStore, match="is not a directory"):
        marram.open(tmp_path / "file")


def test_files_and_directory_are_the_owners_alone(tmp_path: pathlib.Path) -> None:
    with marram.open(tmp_path / "db") as db:
        db.put(b"a", b"1")
        db.checkpoint()
    assert (tmp_path / "db").stat().st_mode & 0o777 == 0o700
    assert all(p.stat().st_mode & 0o777 == 0o600 for p in (tmp_path / "db").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "memroy"}, "unknown engine 'memroy'; did you mean 'memory'"),
        ({"durability": "always"}, "unknown durability 'always'.*sync, interval, none"),
        ({"durabilty": "sync"}, "unknown option 'durabilty'; did you mean 'durability'"),
        ({"interval_ms": 0}, "interval_ms must be a number of at least 1"),
        ({"max_key_bytes": 0}, "max_key_bytes"),
        ({"max_value_bytes": 2**32}, "below 4 GiB"),
        ({"checkpoint_log_ratio": -1}, "checkpoint_log_ratio"),
        ({"replica_log_bytes": -1}, "replica_log_bytes"),
        ({"replica_log_age_s": -1}, "replica_log_age_s"),
    ],
)
def test_wrong_options_are_refused_by_name(
    tmp_path: pathlib.Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        marram.open(tmp_path / "db", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "db").exists()


def test_the_layout_is_the_documented_one() -> None:
    env = MemoryEnv()
    store = open_store(env)
    assert env.list_dir(DIRECTORY) == ["LOCK", "checkpoint.0", "logfile.0", "version"]
    store.checkpoint()
    assert env.list_dir(DIRECTORY) == ["LOCK", "checkpoint.1", "logfile.1", "version"]
    assert env.contents(f"{DIRECTORY}/version") == b"1\n"
    store.close()


# -- generations -----------------------------------------------------------------------------------


def test_o3_writers_go_on_while_a_checkpoint_runs() -> None:
    env = MemoryEnv()
    store = open_store(env)
    for number in range(2000):
        store.append_put(0, b"%05d" % number, b"old")
    during: list[int] = []

    def write_meanwhile(done: int, total: int) -> None:
        during.append(store.append([put(0, b"%05d" % (done % 2000), b"new"), delete(0, b"00001")]))
        store.wait(during[-1])

    store.checkpoint(write_meanwhile)
    assert len(during) > 5
    expected = dict(store.engine.spaces[0].map)
    store.close()

    store = open_store(env)
    assert dict(store.engine.spaces[0].map) == expected
    store.close()


def test_a_checkpoint_is_due_by_bytes_and_by_ratio() -> None:
    env = MemoryEnv()
    store = open_store(env, checkpoint_log_bytes=100_000, checkpoint_log_ratio=2.0)
    for _ in range(9):
        store.wait(store.append_put(0, b"same", b"x" * 10_000))
    assert not store.checkpoint_due()  # not enough bytes
    store.wait(store.append_put(0, b"same", b"x" * 10_000))
    assert store.checkpoint_due()
    for number in range(9):
        store.wait(store.append_put(0, b"%d" % number, b"x" * 10_000))
    assert not store.checkpoint_due()  # 190 kB of log, but 100 kB of live data
    store.start_checkpoint()
    assert not store.start_checkpoint(), "one at a time"
    env.run_background()
    assert store.stats()["checkpoint"]["count"] == 1
    assert store.generations.log_bytes() < 1000
    store.close()


def test_a_growing_log_starts_its_own_checkpoint() -> None:
    env = MemoryEnv()
    with marram.open(DIRECTORY, env=env, checkpoint_log_bytes=300_000) as db:
        for number in range(1000):
            db.put(b"%d" % (number % 10), b"x" * 1000)
            env.run_background()
        assert db.stats()["checkpoint"]["count"] >= 2
        assert db.stats()["log"]["bytes"] < 600_000
        db.verify()


def test_a_checkpoint_that_found_no_room_is_not_tried_again_at_once() -> None:
    inner = MemoryEnv()
    env = FaultyEnv(inner, Fault("write", "*checkpoint.*", error=errno.ENOSPC, nth=2, times=None))
    store = Store.open(DIRECTORY, env, Options(checkpoint_log_bytes=1000))
    store.wait(store.append_put(0, b"k", b"x" * 5000))
    assert store.checkpoint_due()
    with pytest.raises(StoreFull):
        store.checkpoint()
    store.wait(store.append_put(0, b"k", b"x" * 9000))
    assert not store.checkpoint_due()
    inner.advance(31_000)
    assert store.checkpoint_due()
    store.close()


class Interrupted(list[Change]):
    """Changes; the interrupt comes when they are looked at in the state that is asked for."""

    def __init__(self, changes: list[Change], comes_when: Callable[[], bool]) -> None:
        super().__init__(changes)
        self._comes_when = comes_when

    def __iter__(self) -> Iterator[Change]:
        if self._comes_when():
            raise KeyboardInterrupt
        return super().__iter__()


@pytest.mark.parametrize("state", ["numbered", "marked"])
def test_a3_an_interrupt_between_logging_and_applying_latches(state: str) -> None:
    store = open_store(MemoryEnv())
    store.wait(store.append_put(0, b"a", b"1"))
    states = {"numbered": lambda: store.last == 2, "marked": lambda: store.settles_at(b"b") == 2}

    with pytest.raises(KeyboardInterrupt):
        store.append(Interrupted([put(0, b"b", b"2")], states[state]))
    assert store.engine.spaces[0].get(b"b") is None
    with pytest.raises(StoreFailed):
        store.append([put(0, b"c", b"3")])
    store.close()


class InterruptedEngine:
    """An engine that Ctrl-C hits while it puts a key."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def put(self, *args: Any) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("durability", ["sync", "none"])
def test_a3_an_interrupt_while_a_single_put_is_applied_latches(durability: str) -> None:
    db = marram.open(DIRECTORY, env=MemoryEnv(), durability=durability)
    db.put(b"a", b"1")
    db.store.engine = InterruptedEngine(db.store.engine)  # type: ignore[assignment]

    with pytest.raises(KeyboardInterrupt):
        db.put(b"b", b"2")
    with pytest.raises(StoreFailed):
        db.put(b"c", b"3")
    assert db.get(b"a") == b"1"
    db.close()


def test_closing_stops_a_checkpoint_that_runs() -> None:
    env = MemoryEnv(threads=True)
    store = open_store(env)
    for number in range(3000):
        store.append_put(0, b"%05d" % number, b"v")
    reached, go_on = threading.Event(), threading.Event()

    def hold(done: int, total: int) -> None:
        reached.set()
        go_on.wait()

    failures: list[BaseException] = []

    def run() -> None:
        try:
            store.checkpoint(hold)
        except Closed as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    reached.wait()
    closer = threading.Thread(target=store.close)
    closer.start()
    store.generations._stop.wait()
    go_on.set()
    thread.join()
    closer.join()

    assert len(failures) == 1
    store = open_store(env)
    assert len(store.engine.spaces[0]) == 3000
    store.close()


def test_a_deadline_taken_away_while_a_checkpoint_begins_leaves_the_key_in_it() -> None:
    env = MemoryEnv()
    store = open_store(env)
    deadline_ms = store.now_ms() + 1000
    store.wait(store.append([put(0, b"k", b"v", deadline_ms)]))
    env.advance(990)
    new_log = f"logfile.{store.commit.log.number + 1}"
    taken: list[int] = []

    def late(operation: str, path: str) -> None:
        if path.endswith(new_log) and operation == "sync" and not taken:
            taken.append(store.append([put(0, b"other", b"v")]))  # it has to wait for that
        if path.endswith(new_log) and operation == "sync_data" and len(taken) == 1:
            taken.append(store.append([expire(0, b"k", 0)]))  # 10 ms before it is past
            env.advance(20)

    env.on_call = late
    store.checkpoint()
    store.close()

    assert len(taken) == 2
    again = open_store(env)
    assert again.engine.spaces[0].get(b"k") == b"v"
    again.close()


def test_interval_durability_syncs_by_itself() -> None:
    env = MemoryEnv(threads=True)
    db = marram.open(DIRECTORY, env=env, durability="interval", interval_ms=10)
    log = db.store.commit.log
    syncing = threading.Event()

    def note(operation: str, path: str) -> None:
        if operation == "sync_data":
            syncing.set()

    env.on_call = note
    db.put(b"a", b"1")
    assert syncing.wait(10)
    with db.store.generations._sync_lock:  # until that sync has ended
        assert log.synced == log.end
    db.close()


# -- units -----------------------------------------------------------------------------------------


def test_a_unit_applies_at_once_and_logs_one_batch() -> None:
    env = MemoryEnv()
    store = open_store(env)
    unit = store.begin()
    unit.apply([put(0, b"a", b"1")])
    assert store.engine.spaces[0].get(b"a") == b"1"
    unit.apply([put(0, b"b", b"2"), delete(0, b"a")])
    position = unit.commit()

    assert position == store.last == 1
    store.wait(position)
    store.close()
    store = open_store(env)
    assert dict(store.engine.spaces[0].map) == {b"b": b"2"}
    store.close()


def test_a_rolled_back_unit_leaves_no_trace() -> None:
    store = open_store(MemoryEnv())
    store.wait(store.append_put(0, b"a", b"0"))
    unit = store.begin()
    unit.apply([put(0, b"a", b"1"), put(0, b"b", b"2")])
    unit.rollback()

    assert dict(store.engine.spaces[0].map) == {b"a": b"0"}
    assert store.last == 1
    with store.lock:
        unit.rollback()  # again: it lets go of nothing that others hold
        assert store.lock.locked()
    store.close()


def test_a_memory_limit_refuses_what_adds_data_only() -> None:
    store = open_store(MemoryEnv(), memory_limit=1000)
    store.wait(store.append_put(0, b"a", b"x" * 900))
    with pytest.raises(StoreFull, match="memory_limit"):
        store.append([put(0, b"b", b"")])
    store.wait(store.append([delete(0, b"a")]))
    store.wait(store.append([put(0, b"b", b"")]))
    store.close()


# -- deadlines -------------------------------------------------------------------------------------


def test_t2_a_wall_clock_step_expires_nothing_and_revives_nothing() -> None:
    env = MemoryEnv()
    with marram.open(DIRECTORY, env=env) as db:
        db.put(b"k", b"v", ttl=100)
        env.set_wall_ms(env.wall_ms() + 10**9)
        assert db.get(b"k") == b"v"
        env.advance(99_999)
        assert db.get(b"k") == b"v"
        env.advance(1)
        assert db.get(b"k") is None
        env.set_wall_ms(env.wall_ms() - 2 * 10**9)
        assert db.get(b"k") is None


def test_t1_an_expired_key_stays_gone_over_a_restart_with_the_clock_set_back() -> None:
    env = MemoryEnv()
    start = env.wall_ms()
    db = marram.open(DIRECTORY, env=env)
    db.put(b"seen", b"v", ttl=10)
    db.put(b"unseen", b"v", ttl=10)
    env.advance(10_000)
    assert db.get(b"seen") is None
    disk = env.crash_clone(0.0, 1)
    db.close()
    for env_after in (env, disk):
        env_after.set_wall_ms(start)
        with marram.open(DIRECTORY, env=env_after) as again:
            assert again.get(b"seen") is None
            assert b"seen" not in list(again)


def test_expire_due_deletes_in_the_log() -> None:
    env = MemoryEnv()
    store = open_store(env)
    now = store.now_ms()
    store.append([put(number % 3, b"%d" % number, b"v", now + 1000) for number in range(100)])
    assert store.expire_due(1000) == 0
    env.advance(2000)
    assert store.expire_due(30) <= 30
    while store.expire_due(30):
        pass
    assert store.stats()["num_keys"] == 0
    assert store.expired_keys == 100
    store.close()


# -- closing ---------------------------------------------------------------------------------------


def test_a_closed_handle_says_so_everywhere(tmp_path: pathlib.Path) -> None:
    db = marram.open(tmp_path / "db")
    db.put(b"a", b"1")
    snapshot = db.snapshot()
    db.close()
    db.close()
    uses = [
        lambda: db.get(b"a"), lambda: db.put(b"a", b"2"), lambda: db.delete(b"a"), lambda: len(db),
        lambda: list(db), lambda: b"a" in db, lambda: db.checkpoint(), lambda: db.snapshot(),
        lambda: snapshot.get(b"a"), lambda: db.stats(), lambda: db.ttl(b"a"), lambda: db.clear(),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(Closed) as caught:
            use()
        assert not isinstance(caught.value, Forked)
    snapshot.close()


def test_a_snapshot_may_be_let_go_after_the_store(tmp_path: pathlib.Path) -> None:
    store = open_store(MemoryEnv())
    snapshot = store.snapshot()
    store.close()
    store.release(snapshot)
    assert store.closed is Closed


def test_positions_compare_in_commit_order() -> None:
    assert Position(1, 9) < Position(1, 10) < Position(2, 1)
    assert str(Position(1, 9)) == "1-9"


# -- loading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was(enabled: bool) -> None:
    env = MemoryEnv()
    store = open_store(env)
    store.append([put(0, b"k", b"v")])
    store.close()
    was_enabled = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()

        open_store(env).close()
        assert gc.isenabled() == enabled

        env.mutate(f"{DIRECTORY}/checkpoint.0", 40, b"\xff")
        with pytest.raises(Corruption):
            open_store(env)
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()
