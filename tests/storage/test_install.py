"""Store.install: a replica takes over the state of another store, or stays as it is."""

from __future__ import annotations

import errno
import threading

import pytest

import marram
from marram.coding.batch import put as put_change
from marram.coding.batch import swap
from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.errors import (
    Closed,
    Conflict,
    InvalidArgument,
    LogGone,
    OutcomeUnknown,
    ReadOnly,
    StoreFailed,
    StoreFull,
)
from marram.storage.db import DB
from marram.storage.history import Mark
from marram.storage.store import Store
from marram.storage.verify import verify_directory
from tests.crash.history import VARIANTS, options_of
from tests.storage.replicas import (
    DIRECTORY,
    install,
    logs_of,
    open_store,
    put,
    read_all,
    rows_of,
    state_of,
)

KEEP = 1 << 30


def source_store(engine: str = "memory", count: int = 300) -> Store:
    """What is copied: two keyspaces, deadlines, large values, a swap, a raised epoch."""
    store = open_store(MemoryEnv(seed=5), engine, "/data/source")
    for number in range(count):
        far = store.now_ms() + 10**6 + number if number % 3 == 0 else 0
        value = b"value %d " % number * (1 + number % 9)
        store.append([put_change(number % 2, b"key-%04d" % number, value, far)])
    store.append([swap(0, 1)])
    store.wait(store.last)
    store.raise_epoch(7)
    return store


def follower_of(
    source: Store, engine: str, env: MemoryEnv | None = None, **options: object
) -> tuple[Store, MemoryEnv]:
    """A replica that has something of the source, and then went its own way."""
    env = env or MemoryEnv(seed=6)
    store = open_store(env, engine, replica_log_bytes=KEEP, **options)
    install(source, store)
    put(store, *(b"own %d" % n for n in range(40)))
    store.checkpoint()
    put(store, b"own again")
    return store, env


@pytest.mark.parametrize("source_engine", VARIANTS)
@pytest.mark.parametrize("engine", VARIANTS)
def test_an_empty_store_becomes_a_copy_under_the_other_s_id(
    engine: str, source_engine: str
) -> None:
    source = source_store(source_engine)
    env = MemoryEnv(seed=6)
    store = open_store(env, engine)
    origin = install(source, store)

    for _ in range(2):
        assert store.store_id == source.store_id == origin.store_id
        assert (store.last, store.committed, store.epoch) == (source.last, source.last, 7)
        assert store.history.newest() == source.history.newest()
        assert store.history.oldest == source.last
        assert state_of(store) == state_of(source)
        assert [len(space) for space in store.engine.spaces[:3]] == [150, 150, 0]
        assert DB(store).verify().ok
        assert not DB(store).verify().orphans
        store.close()
        store = open_store(env, engine)
    # And it goes on, in the same history.
    put(source, b"more")
    store.append_frame(read_all(source, source.last - 1)[0])
    store.wait(store.last)
    assert store.history.newest() == source.history.newest()
    store.checkpoint()
    store.engine.compact(None, None)
    store.close()
    store = open_store(env, engine)
    assert state_of(store) == state_of(source)
    store.close()


@pytest.mark.parametrize("engine", VARIANTS)
def test_another_history_takes_the_place_of_the_one_there_was(engine: str) -> None:
    source = source_store()
    store, env = follower_of(source, engine)
    ahead = store.last
    assert ahead > source.last
    tail = store.history.tail(store.history.oldest)
    install(source, store)

    assert state_of(store) == state_of(source)
    assert (store.last, store.history.mark(ahead)) == (source.last, None)
    with pytest.raises(LogGone):
        tail.read(1)
    assert len(logs_of(env)) == 1
    env.run_background()  # tables go when nobody reads them
    assert not any(b"own" in data for data in files_of(env)), "nothing of the old one is left"
    put(store, b"again", b"and again")
    assert store.history.newest().sequence == source.last + 2
    report = DB(store).verify()
    assert report.ok and not report.orphans
    assert store.stats()["log"]["batches"] == 2
    store.close()
    assert verify_directory(env, DIRECTORY).ok


def files_of(env: MemoryEnv, folder: str = DIRECTORY) -> list[bytes]:
    found = []
    for name in env.list_dir(folder):
        if name == "tables":
            found += files_of(env, f"{folder}/tables")
        else:
            found.append(env.contents(f"{folder}/{name}"))
    return found


@pytest.mark.parametrize("engine", VARIANTS)
def test_who_reads_meanwhile_sees_the_old_state_whole(engine: str) -> None:
    source = source_store()
    store, _ = follower_of(source, engine)
    db = DB(store)
    before = state_of(store)
    snapshot = db.snapshot()
    seen = dict(snapshot.scan())
    transaction = db.transaction()
    with pytest.raises(Conflict), transaction as t:
        t.get(b"own 1")
        t.put(b"own 1", b"x")
        origin, slices = rows_of(source)
        installation = store.install(origin)
        for rows in slices:
            installation.add(rows)
        assert state_of(store) == before
        put(store, b"late")
        store.checkpoint()
        assert db.get(b"own 1") == b"v"
        scan = snapshot.scan()
        first = next(scan)
        installation.finish()
        assert dict([first, *scan]) == seen, "it shows what it showed"
        assert (db.get(b"own 1"), snapshot.get(b"own 1")) == (None, b"v")
    assert state_of(store) == state_of(source)
    for number in range(30):  # versions for new snapshots, while the old one is there
        put(store, b"key-0001", value=b"%d" % number)
        with db.snapshot() as again:
            put(store, b"key-0001", value=b"newer")
            assert again.get(b"key-0001") == b"%d" % number
    snapshot.close()
    assert db.get(b"key-0001") == b"newer"
    db.close()


@pytest.mark.parametrize("engine", VARIANTS)
def test_a_transaction_over_an_installation_conflicts_whatever_the_sequence_numbers_say(
    engine: str,
) -> None:
    source = source_store()
    store, _ = follower_of(source, engine)
    put(source, b"key-0005", value=b"another")
    db = DB(store)
    for read in (lambda t: t.get(b"key-0005"), lambda t: list(t.scan(start=b"key-0005", limit=1))):
        with pytest.raises(Conflict), db.transaction() as t:
            read(t)
            t.put(b"mine", b"x")
            install(source, store)
        assert db.get(b"mine") is None
        put(store, *(b"on %d" % n for n in range(60)))
    db.close()


def test_a_snapshot_of_the_old_state_does_not_keep_versions_of_the_new_one() -> None:
    source = source_store()
    store, _ = follower_of(source, "memory")
    old = store.snapshot()
    install(source, store)
    put(store, b"key-0001", b"key-0001")
    space = store.engine.spaces[0]
    assert not space.history  # type: ignore[attr-defined]
    new = store.snapshot()
    put(store, b"key-0001")
    assert len(space.history) == 1  # type: ignore[attr-defined]
    store.release(old)
    assert len(space.history) == 1, "still seen"  # type: ignore[attr-defined]
    store.release(new)
    assert not space.history  # type: ignore[attr-defined]


@pytest.mark.parametrize("engine", VARIANTS)
def test_abort_and_a_closed_store_leave_nothing_behind(engine: str) -> None:
    source = source_store()
    store, env = follower_of(source, engine)
    before, names = state_of(store), names_of(env)
    origin, slices = rows_of(source)
    for _ in range(2):
        installation = store.install(origin)
        for rows in slices:
            installation.add(rows)
        assert names_of(env) > names
        report = DB(store).verify()
        assert report.ok and not report.orphans, "what arrives is expected"
        with pytest.raises(InvalidArgument, match="under way"):
            store.install(origin)
        installation.abort()
        installation.abort()
        assert names_of(env) == names
        with pytest.raises(InvalidArgument, match="over"):
            installation.add(slices[0])
    installation = store.install(origin)
    installation.add(slices[0])
    store.close()
    assert names_of(env) == names
    with pytest.raises(Closed):
        installation.finish()
    store = open_store(env, engine)
    assert state_of(store) == before
    store.close()


def names_of(env: MemoryEnv) -> set[str]:
    names = set(env.list_dir(DIRECTORY))
    if "tables" in names:
        names |= set(env.list_dir(f"{DIRECTORY}/tables"))
    return names


def test_what_is_no_state_of_this_store_is_refused_before_anything_is_done() -> None:
    source = source_store()
    store, env = follower_of(source, "memory")
    origin, _ = rows_of(source)
    names = names_of(env)
    for wrong in (
        origin._replace(store_id=bytes(16)),
        origin._replace(store_id=bytes(3)),
        origin._replace(sequence=-1),
        origin._replace(epoch=2**63),
        origin._replace(chain=2**32),
        origin._replace(time_ms=-1),
    ):
        with pytest.raises(InvalidArgument):
            store.install(wrong)
    assert names_of(env) == names
    assert store.installation is None


@pytest.mark.parametrize("engine", VARIANTS)
@pytest.mark.parametrize(
    "rows",
    [
        [(0, b"b", b"", 0, 0), (0, b"a", b"", 0, 0)],
        [(0, b"a", b"", 0, 0), (0, b"a", b"", 0, 0)],
        [(1, b"a", b"", 0, 0), (0, b"b", b"", 0, 0)],
        [(16, b"a", b"", 0, 0)],
        [(0, b"a", b"", -1, 0)],
        [(0, b"a", b"", 0, 256)],
        [(0, b"a", b"", 0, 255)],
    ],
)
def test_rows_that_no_store_has_end_the_installation(
    engine: str, rows: list[tuple[int, bytes, bytes, int, int]]
) -> None:
    source = source_store()
    store, env = follower_of(source, engine)
    names, before = names_of(env), state_of(store)
    installation = store.install(rows_of(source)[0])
    with pytest.raises(InvalidArgument):
        installation.add(rows)
    assert names_of(env) == names
    assert state_of(store) == before
    install(source, store)
    assert state_of(store) == state_of(source)
    store.close()


@pytest.mark.parametrize("engine", VARIANTS)
@pytest.mark.parametrize("where", ["*checkpoint.1*", "*tables*", "*logfile.1*"])
@pytest.mark.parametrize("operation", ["write", "allocate", "open"])
def test_a_full_disk_leaves_the_old_state_going_on(engine: str, where: str, operation: str) -> None:
    source = source_store()
    inner = MemoryEnv(seed=6)
    env = FaultyEnv(inner)
    store, _ = follower_of(source, engine, env)  # type: ignore[arg-type]
    before, names = state_of(store), names_of(inner)
    fault = env.add(Fault(operation, where, error=errno.ENOSPC))
    try:
        install(source, store)
    except StoreFull:
        assert fault.fired
        assert state_of(store) == before
        assert names_of(inner) == names, "the room it had taken is given back"
    else:
        assert not fault.fired
    env.clear()
    put(store, b"on")
    store.checkpoint()
    install(source, store)
    assert state_of(store) == state_of(source)
    store.close()
    store = open_store(inner, engine)
    assert state_of(store) == state_of(source)
    store.close()


@pytest.mark.parametrize("engine", VARIANTS)
def test_p4_a_switch_that_fails_leaves_a_store_that_is_reopened_whole(engine: str) -> None:
    source = source_store()
    seen = set()
    for nth in range(1, 4):
        inner = MemoryEnv(seed=6)
        env = FaultyEnv(inner)
        store, _ = follower_of(source, engine, env)  # type: ignore[arg-type]
        before = state_of(store)
        env.add(Fault("rename" if nth == 1 else "sync_dir", "*", nth=nth))
        with pytest.raises((StoreFailed, StoreFull, OSError)):
            install(source, store)
            env.add(Fault("sync_data"))
            put(store, b"x")
        store.after_fork()
        for survival in (0.0, 1.0):
            again = open_store(inner.crash_clone(survival, nth), engine)
            assert state_of(again) in (before, state_of(source))
            seen.add(state_of(again) == before)
            again.close()
    assert True in seen


def test_nobody_writes_while_the_state_is_switched() -> None:
    source = source_store()
    env = MemoryEnv(seed=6)
    store, _ = follower_of(source, "memory", env)
    refused: list[bool] = []

    def write(operation: str, path: str) -> None:
        if operation == "rename":
            env.on_call = None
            with pytest.raises(ReadOnly, match="taken over"):
                store.append_put(0, b"x", b"y")
            refused.append(True)

    env.on_call = write
    install(source, store)
    assert refused == [True]
    put(store, b"x")


def test_what_waits_for_a_position_that_is_no_more_is_told() -> None:
    source = source_store(count=5)
    env = MemoryEnv(seed=6, threads=True)
    store, _ = follower_of(source, "memory", env)
    position = store.last
    store.commit.set_bound(0)
    store.append_put(0, b"x", b"y")
    outcomes: list[BaseException | None] = []

    def wait(sequence: int) -> None:
        try:
            store.wait(sequence)
            outcomes.append(None)
        except OutcomeUnknown as error:
            outcomes.append(error)

    thread = threading.Thread(target=wait, args=(position + 1,))
    thread.start()
    install(source, store)
    thread.join(60)
    assert len(outcomes) == 1
    assert "another history" in str(outcomes[0])


@pytest.mark.parametrize("engine", VARIANTS)
def test_generations_go_on_behind_an_installation(engine: str) -> None:
    """Its number leaves room for those that begin while its rows arrive."""
    source = source_store()
    store, env = follower_of(source, engine)
    origin, slices = rows_of(source)
    installation = store.install(origin)
    for rows in slices:
        installation.add(rows)
        put(store, b"late")
        store.checkpoint()
    installation.finish()
    assert logs_of(env)[0] > 1000
    for _ in range(3):
        put(store, b"x")
        store.checkpoint()
    assert read_all(store, origin.sequence)[0].first_sequence == origin.sequence + 1
    assert store.history.mark(origin.sequence) == Mark(origin.epoch, origin.sequence, origin.chain)
    store.close()
    store = open_store(env, engine, replica_log_bytes=KEEP)
    assert store.history.oldest == origin.sequence
    store.close()


def test_a_copy_of_nothing_is_a_copy() -> None:
    source = open_store(MemoryEnv(seed=5))
    for engine in VARIANTS:
        env = MemoryEnv(seed=6)
        with marram.open(DIRECTORY, env=env, **options_of(engine)) as db:
            install(source, db.store)
            assert db.store.store_id == source.store_id
            assert len(db) == 0
            db.put(b"a", b"1")
        with marram.open(DIRECTORY, env=env, **options_of(engine)) as db:
            assert dict(db) == {b"a": b"1"}


@pytest.mark.parametrize("engine", VARIANTS)
def test_readers_beside_installations_see_the_one_state_or_the_other(engine: str) -> None:
    sources = [source_store(count=120), source_store(count=180)]
    states = [state_of(source) for source in sources]
    env = MemoryEnv(seed=6, threads=True)
    store = open_store(env, engine, compaction_rate=0)
    install(sources[0], store)
    db = DB(store)
    failures: list[BaseException] = []
    is_over = threading.Event()

    def read() -> None:
        try:
            while not is_over.is_set():
                assert state_of(store) in states
                value = db.get(b"key-0003")
                assert value == states[0][0, b"key-0003"][0] == states[1][0, b"key-0003"][0]
                assert db.get(b"key-0171") in (None, states[1][0, b"key-0171"][0])
                with db.snapshot() as snapshot:
                    assert len(list(snapshot.scan())) in (60, 90)
        except BaseException as error:
            failures.append(error)

    def keep_busy() -> None:
        try:
            while not is_over.is_set():
                store.checkpoint()
                store.engine.compact(None, None)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for work in (read, read, keep_busy)]
    for thread in threads:
        thread.start()
    for number in range(12):
        install(sources[(number + 1) % 2], store)
    is_over.set()
    for thread in threads:
        thread.join(60)
    assert not failures, failures
    assert state_of(store) == states[0]
    assert db.verify().ok
    db.close()
