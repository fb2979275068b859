"""storage/aside.py: what a deposed primary has alone is kept in a file."""

from __future__ import annotations

import pytest

from marram.env.memory import MemoryEnv
from marram.errors import Corruption
from marram.storage import layout
from marram.storage.log.reader import LogReader, read_log_header
from marram.storage.verify import verify_directory
from tests.storage.replicas import (
    DIRECTORY,
    batches_of,
    install,
    open_store,
    put,
    read_all,
    state_of,
)


def read_aside(env: MemoryEnv, path: str) -> list[tuple[int, int, bytes]]:
    """Its batches as (sequence, epoch, key of the only change)."""
    file = env.open(path)
    header = read_log_header(file)
    assert header is not None
    reader = LogReader(file, header, promised=file.size())
    return [(b.sequence, b.epoch, b.changes[0][2]) for b in reader]


@pytest.mark.parametrize("engine", ["memory", "lsm"])
def test_the_batches_after_a_position_are_written_to_a_log_of_their_own(
    engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    env = MemoryEnv()
    store = open_store(env, engine, replica_log_bytes=1 << 30)
    put(store, b"both", b"also")
    store.raise_epoch(4)
    put(store, b"mine")
    store.checkpoint()
    store.append_put(0, b"mine too", b"v")  # not durable yet
    before = state_of(store)
    path = store.set_aside(2)

    assert path == f"{DIRECTORY}/diverged-4-3-4.log"
    assert path in caplog.text
    assert "batches 3 to 4" in caplog.text
    assert read_aside(env.crash_clone(0.0, 0), path) == [(3, 4, b"mine"), (4, 4, b"mine too")]
    assert state_of(store) == before
    assert store.set_aside(2) == path, "again, as after a crash"
    assert store.set_aside(4) is None
    install_from_another(store)
    store.close()
    store = open_store(env, engine)
    assert len(read_aside(env, path)) == 2, "no store takes it away"
    store.close()
    assert verify_directory(env, DIRECTORY).ok
    env.mutate(path, 150, b"\xff")
    assert any(path in problem for problem in verify_directory(env, DIRECTORY).problems)


def install_from_another(store) -> None:  # type: ignore[no-untyped-def]
    """As the replica does next: the primary's state takes the place of this one."""
    source = open_store(MemoryEnv(), directory="/data/source")
    source.store_id = store.store_id
    put(source, b"both", b"also", b"theirs")
    install(source, store)
    assert set(state_of(store)) == {(0, b"both"), (0, b"also"), (0, b"theirs")}


def test_what_the_log_has_no_more_is_left_out_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    env = MemoryEnv()
    store = open_store(env)
    put(store, b"a", b"b")
    store.checkpoint()
    put(store, b"c")
    path = store.set_aside(0)
    assert path == layout.diverged_path(DIRECTORY, 1, 3, 3)
    assert read_aside(env, path) == [(3, 1, b"c")]
    assert "those up to 2 are not in the log" in caplog.text
    store.checkpoint()
    caplog.clear()
    assert store.set_aside(0) is None, "nothing is left of them"
    assert "batches 1 to 3" in caplog.text
    assert "not in the log any more" in caplog.text


def test_it_is_checked_while_it_is_copied() -> None:
    env = MemoryEnv()
    store = open_store(env)
    put(store, b"a", b"b", b"c")
    last = list(batches_of(read_all(store, 2)))
    data = env.contents(f"{DIRECTORY}/logfile.0")
    env.mutate(f"{DIRECTORY}/logfile.0", data.index(last[0][2]), b"\xff")
    with pytest.raises(Corruption):
        store.set_aside(0)
