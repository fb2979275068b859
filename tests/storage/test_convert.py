"""Convert: the copy holds what the source does, and the source stays as it was."""

from __future__ import annotations

import pytest

import marram
from marram.coding.batch import PUT, TYPE_STRING, expire, put
from marram.env.memory import MemoryEnv
from marram.storage.convert import Converted, convert
from marram.storage.options import Options
from marram.storage.store import Position, Store
from marram.storage.verify import verify_directory

ENGINES = ["memory", "lsm"]
OTHER = {"memory": "lsm", "lsm": "memory"}
Row = tuple[int, bytes, bytes, int, int]


def rows_of(store: Store) -> list[Row]:
    pin = store.snapshot()
    rows = [row for some in store.rows(pin, store.now_ms()) for row in some]
    store.release(pin)
    return rows


def files_of(env: MemoryEnv, directory: str) -> dict[str, bytes]:
    found = {}
    names = env.list_dir(directory)
    names += [f"tables/{name}" for name in env.list_dir(f"{directory}/tables")] if (
        "tables" in names
    ) else []  # fmt: skip
    for name in names:
        if name != "tables":
            file = env.open(f"{directory}/{name}")
            found[name] = file.read(file.size(), 0)
            file.close()
    return found


def opened(env: MemoryEnv, directory: str, engine: str | None = None) -> Store:
    return Store.open(directory, env, Options(engine=engine, memtable_bytes=2000))


def filled(env: MemoryEnv, engine: str) -> Store:
    """A store with tables, a log, deadlines, types, keyspaces."""
    store = opened(env, "/source", engine)
    for number in range(300):
        store.wait(store.append([put(number % 3, b"%04d" % number, b"v" * 50)]))
    store.checkpoint()
    later_ms = store.now_ms() + 100_000
    store.wait(
        store.append(
            [
                put(0, b"ttl", b"v", later_ms),
                (PUT, 5, b"type", b"v", 0, TYPE_STRING + 7),
                put(0, b"soon", b"v", store.now_ms() + 10),
                expire(0, b"0003", later_ms),
            ]
        )
    )
    env.run_background()
    return store


@pytest.mark.parametrize("engine", ENGINES)
def test_e2_the_copy_holds_the_same_rows_at_the_same_position(engine: str) -> None:
    env = MemoryEnv()
    store = filled(env, engine)
    env.advance(50)
    wanted, position = rows_of(store), store.position
    store.close()
    seen: list[tuple[int, int]] = []

    done = convert(env, "/source", "/copy", OTHER[engine], lambda *both: seen.append(both))

    assert done == Converted(position, len(wanted))
    assert not any(row[1] == b"soon" for row in wanted)
    assert {(5, b"type", b"v", 0, TYPE_STRING + 7)} <= set(wanted)
    assert seen
    assert verify_directory(env, "/copy").ok
    copy = opened(env, "/copy")
    assert copy.engine.name == OTHER[engine]
    assert rows_of(copy) == wanted
    assert copy.position == position
    copy.wait(copy.append([put(0, b"new", b"v")]))
    assert copy.position == Position(position.epoch, position.sequence + 1)
    copy.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_e1_the_source_stays_as_it_is_even_its_torn_tail(engine: str) -> None:
    env = MemoryEnv()
    store = filled(env, engine)
    store.wait(store.append([put(0, b"last", b"v")]))
    wanted = rows_of(store)
    # The store was not closed: there is no note, and room behind the log's end.
    crashed = env.crash_clone(1.0, 1)
    before = files_of(crashed, "/source")

    convert(crashed, "/source", "/copy", OTHER[engine])

    assert files_of(crashed, "/source") == before
    copy = opened(crashed, "/copy")
    assert rows_of(copy) == wanted
    copy.close()
    again = opened(crashed, "/source", engine)
    assert rows_of(again) == wanted
    again.close()


def test_e3_an_interrupted_copy_is_no_store() -> None:
    env = MemoryEnv()
    filled(env, "memory").close()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(env, "/source", "/copy", "lsm", stop)
    assert not env.exists("/copy/version")
    with pytest.raises(marram.InvalidArgument, match="not empty"):
        convert(env, "/source", "/copy", "lsm")
    assert convert(env, "/source", "/other", "lsm").keys


def test_e4_the_copy_is_another_store() -> None:
    env = MemoryEnv()
    store = filled(env, "memory")
    store_id = store.store_id
    store.close()
    convert(env, "/source", "/copy", "lsm")
    copy = opened(env, "/copy")
    assert copy.store_id != store_id
    copy.close()


def test_what_cannot_be_converted_is_refused_and_nothing_is_made() -> None:
    env = MemoryEnv()
    store = filled(env, "lsm")
    with pytest.raises(marram.Locked):
        convert(env, "/source", "/copy", "memory")
    store.close()
    with pytest.raises(marram.InvalidArgument, match="of engine 'lsm' already"):
        convert(env, "/source", "/copy", "lsm")
    with pytest.raises(marram.NotAStore, match="does not exist"):
        convert(env, "/nowhere", "/copy", "lsm")
    env.make_dir("/empty")
    with pytest.raises(marram.NotAStore, match="holds no store"):
        convert(env, "/empty", "/copy", "lsm")
    assert not env.exists("/copy")
    assert env.list_dir("/empty") == []


def test_a_damaged_source_is_not_converted() -> None:
    env = MemoryEnv()
    filled(env, "lsm").close()
    name = env.list_dir("/source/tables")[0]
    file = env.open(f"/source/tables/{name}", write=True)
    file.write(b"\xff" * 8, 100)
    file.close()
    with pytest.raises(marram.Corruption, match=name):
        convert(env, "/source", "/copy", "memory")
    assert not env.exists("/copy/version")
