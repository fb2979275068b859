"""Every byte of a closed store flipped, every file cut anywhere: an error or the truth (P3)."""

from __future__ import annotations

import logging
import re
import tracemalloc

import pytest

import marram
from marram.env.memory import MemoryEnv
from marram.errors import Corruption, NotAStore, UnsupportedFormat
from marram.storage.db import DB
from marram.storage.verify import verify_directory
from tests.crash.history import DIRECTORY, VARIANTS, State, options_of, state_of

_FILE_AND_OFFSET = re.compile(rf"{DIRECTORY}/[A-Za-z.0-9/]+( @ \d+)?: ")


# Every byte is flipped: each of these bits, or one of them in turn where there are more files.
BITS: dict[str, tuple[int | None, ...]] = {
    "memory": (0, 3, 7),
    "lsm": (None,),
    "lsm-blobs": (None,),
}


def closed_store(engine: str, *, checkpoint: bool = True) -> tuple[dict[str, bytes], State]:
    """Files and state of a small store, cleanly closed, with a checkpoint and some log after it."""
    env = MemoryEnv(seed=3)
    times = 10 if engine == "lsm-blobs" else 1
    with marram.open(DIRECTORY, env=env, **options_of(engine)) as db:
        db.put_many((b"key-%d" % n, b"value-%d" % n * times) for n in range(6))
        db.put(b"short-lived", b"x", ttl=10**6)
        if checkpoint:
            db.checkpoint()
        if checkpoint and engine != "memory":
            # A second table hides rows of the first, one by one and by a range.
            db.put(b"key-0", b"newer" * times * 2)
            db.delete(b"key-5")
            with db.batch() as batch:
                batch.delete_range(b"key-3", b"key-4\0")
            db.checkpoint()
        db.put(b"late", b"in the log")
        db.delete(b"key-2")
        db.put_many({b"a": b"1", b"b": b"2"})
        state = state_of(db)
    return files_of(env), state


def files_of(env: MemoryEnv, folder: str = "") -> dict[str, bytes]:
    """The files of the store, by their path within its directory."""
    files: dict[str, bytes] = {}
    for entry in env.list_dir(f"{DIRECTORY}/{folder}"):
        name = folder + entry
        try:
            files[name] = env.contents(f"{DIRECTORY}/{name}")
        except IsADirectoryError:
            files |= files_of(env, f"{name}/")
    return files


def newest(files: dict[str, bytes], kind: str) -> str:
    """The name with the highest number among checkpoints, logfiles or tables."""
    names = [name for name in files if name.startswith(kind)]
    return max(names, key=lambda name: int("".join(filter(str.isdigit, name))))


def disk_of(files: dict[str, bytes]) -> MemoryEnv:
    env = MemoryEnv(seed=4)
    env.make_dir(f"{DIRECTORY}/tables")
    for name, data in files.items():
        env.put_file(f"{DIRECTORY}/{name}", data)
    return env


def open_damaged(files: dict[str, bytes], engine: str) -> State | Exception:
    """The state that every way of reading finds, or the refusal; anything else fails the test."""
    env = disk_of(files)
    try:
        db = marram.open(DIRECTORY, env=env, **options_of(engine, create=False))
    except (Corruption, UnsupportedFormat, NotAStore) as error:
        assert _FILE_AND_OFFSET.match(str(error)) or isinstance(error, NotAStore), str(error)
        for name, data in files.items():
            if name != "LOCK":
                now = env.contents(f"{DIRECTORY}/{name}")
                assert now == data, f"a refused opening changed {name}"
        return error
    try:
        with db:
            return _read_all(db)
    except (Corruption, UnsupportedFormat) as error:
        assert _FILE_AND_OFFSET.match(str(error)), str(error)
        return error


def _read_all(db: DB) -> State:
    state = state_of(db)
    pairs = [(key, value) for (space, key), (value, _) in state.items() if space == 0]
    assert [(key, db.get(key)) for key, _ in pairs] == pairs, "get() and scan() differ"
    assert list(db.scan(reverse=True)) == pairs[::-1], "both ways of a scan differ"
    # Filters say that these are missing; a broken one may not say so of others.
    assert db.get_many([b"key-2", b"key-22", b"x"]) == [dict(pairs).get(b"key-2"), None, None]
    assert len(db) == len(pairs), "the count is wrong"
    return state


@pytest.mark.parametrize("engine", VARIANTS)
@pytest.mark.parametrize("checkpoint", [True, False])
def test_p3_every_flipped_byte_of_every_file(
    checkpoint: bool, engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    files, state = closed_store(engine, checkpoint=checkpoint)
    refused = dict.fromkeys(files, 0)
    for name, data in files.items():
        for at in range(len(data)):
            for bit in BITS[engine]:
                flipped = bytearray(data)
                flipped[at] ^= 1 << (at % 8 if bit is None else bit)
                outcome = open_damaged({**files, name: bytes(flipped)}, engine)
                if isinstance(outcome, Exception):
                    refused[name] += 1
                else:
                    assert outcome == state, f"{name}, byte {at}, bit {bit}: a wrong state"
    for name, count in refused.items():
        if name != "LOCK":
            # In a blob are values that were deleted since: nobody reads these.
            share = 4 if name.endswith(".blob") else 3
            assert count > len(files[name]) * len(BITS[engine]) / share, (
                f"{name}: damage goes mostly unnoticed"
            )


@pytest.mark.parametrize("engine", VARIANTS)
@pytest.mark.parametrize("checkpoint", [True, False])
def test_p3_truncation_at_every_length(
    checkpoint: bool, engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    files, state = closed_store(engine, checkpoint=checkpoint)
    for name, data in files.items():
        for size in range(len(data)):
            outcome = open_damaged({**files, name: data[:size]}, engine)
            assert isinstance(outcome, Exception) or outcome == state, f"{name} cut to {size}"


@pytest.mark.parametrize("engine", VARIANTS)
def test_p3_a_missing_file_is_named(engine: str) -> None:
    files, state = closed_store(engine)
    for name in files:
        others = {other: data for other, data in files.items() if other != name}
        outcome = open_damaged(others, engine)
        if name == "LOCK":
            assert outcome == state
        else:
            assert isinstance(outcome, Exception)
            assert name in str(outcome) or name == "version"


@pytest.mark.parametrize("engine", VARIANTS)
def test_a_folder_without_tables_may_be_missing(engine: str) -> None:
    """Many tools that copy directories leave empty ones out."""
    files, state = closed_store(engine, checkpoint=False)
    assert not [name for name in files if name.startswith("tables/")]
    env = MemoryEnv(seed=4)
    for name, data in files.items():
        env.put_file(f"{DIRECTORY}/{name}", data)

    with marram.open(DIRECTORY, env=env, **options_of(engine)) as db:
        assert state_of(db) == state


@pytest.mark.parametrize("engine", VARIANTS)
def test_a_store_that_lost_its_version_file_is_not_made_anew(engine: str) -> None:
    files, _ = closed_store(engine)
    del files["version"]
    env = disk_of(files)

    with pytest.raises(Corruption, match="version"):
        marram.open(DIRECTORY, env=env, **options_of(engine, create=True))
    assert {n: env.contents(f"{DIRECTORY}/{n}") for n in files} == files


@pytest.mark.parametrize("engine", VARIANTS)
def test_p3_a_file_of_another_store_is_refused(engine: str) -> None:
    stores = []
    for seed in (3, 99):
        env = MemoryEnv(seed=seed)
        with marram.open(DIRECTORY, env=env, **options_of(engine)) as db:
            db.put(b"store", b"%d" % seed)
            db.checkpoint()
            db.put(b"log", b"%d" % seed)
        stores.append(files_of(env))
    files, foreign = stores

    assert set(files) == set(foreign)
    for name in set(files) - {"LOCK", "version"}:
        assert isinstance(open_damaged({**files, name: foreign[name]}, engine), Corruption), name


@pytest.mark.parametrize("engine", VARIANTS)
def test_p3_yesterdays_files_are_refused(engine: str) -> None:
    env = MemoryEnv(seed=3)
    days: list[dict[str, bytes]] = []
    for day in range(3):
        with marram.open(DIRECTORY, env=env, **options_of(engine)) as db:
            db.put(b"day", b"%d" % day)
            db.checkpoint()
            db.put(b"evening", b"%d" % day)
        days.append(files_of(env))

    today, yesterday = days[2], days[1]
    state = open_damaged(today, engine)
    for kind in ("checkpoint", "logfile", "tables/"):
        if engine != "memory" or kind != "tables/":
            mixed = {**today, newest(today, kind): yesterday[newest(yesterday, kind)]}
            assert isinstance(open_damaged(mixed, engine), Corruption), kind
    mixed = {**today, "version": yesterday["version"]}
    assert isinstance(open_damaged(mixed, engine), Exception)
    assert open_damaged(today, engine) == state


@pytest.mark.parametrize("engine", [name for name in VARIANTS if name != "memory"])
def test_p3_a_table_in_anothers_place_is_refused(engine: str) -> None:
    files, _ = closed_store(engine)
    tables = sorted(name for name in files if name.startswith("tables/"))
    assert len(tables) > 1
    first, second = tables[:2]

    for swapped in (
        {**files, first: files[second], second: files[first]},
        {**files, first: files[second]},
        {**files, second: files[first]},
    ):
        assert isinstance(open_damaged(swapped, engine), Corruption)
        assert verify_directory(disk_of(swapped), DIRECTORY).problems


@pytest.mark.parametrize("engine", [name for name in VARIANTS if name != "memory"])
def test_p3_a_table_of_another_course_of_the_store_is_refused(engine: str) -> None:
    """As after a restored copy went on: the same store, the same number, the same size."""
    env = MemoryEnv(seed=3)
    with marram.open(DIRECTORY, env=env, **options_of(engine)) as db:
        db.put(b"both", b"1")
        db.checkpoint()
    courses = []
    for seed, value in enumerate((b"first", b"other")):
        disk = env.crash_clone(1.0, seed)
        with marram.open(DIRECTORY, env=disk, **options_of(engine)) as db:
            db.put(b"course", value)
            db.checkpoint()
        courses.append(files_of(disk))
    files, other = courses
    name = newest(files, "tables/")
    mixed = {**files, name: other[name]}

    assert files[name] != other[name]
    assert isinstance(open_damaged(mixed, engine), Corruption)
    assert verify_directory(disk_of(mixed), DIRECTORY).problems


@pytest.mark.parametrize("engine", VARIANTS)
def test_damage_costs_no_memory(engine: str) -> None:
    files, _ = closed_store(engine)
    tracemalloc.start()
    for name, data in files.items():
        for at in range(0, len(data), 3 if engine == "memory" else 9):
            broken = bytearray(data)
            broken[at : at + 8] = b"\xff" * min(8, len(data) - at)
            open_damaged({**files, name: bytes(broken)}, engine)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 20 * 1024 * 1024


@pytest.mark.parametrize("engine", VARIANTS)
def test_verify_names_what_opening_would_refuse(engine: str) -> None:
    files, state = closed_store(engine)
    assert verify_directory(disk_of(files), DIRECTORY).ok
    live = [n for n in files if n.startswith("tables/")]
    for name in ("version", newest(files, "checkpoint"), newest(files, "logfile"), *live):
        for at in range(0, len(files[name]), 5):
            flipped = bytearray(files[name])
            flipped[at] ^= 1
            damaged = {**files, name: bytes(flipped)}
            report = verify_directory(disk_of(damaged), DIRECTORY)
            outcome = open_damaged(damaged, engine)
            if isinstance(outcome, Exception):
                assert report.problems, f"{name} byte {at}: verify says nothing"
                assert any(_FILE_AND_OFFSET.match(problem) for problem in report.problems)
            else:
                assert outcome == state


@pytest.mark.parametrize("engine", VARIANTS)
def test_a_torn_tail_is_cut_and_logged(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    env = MemoryEnv(seed=5)
    options = options_of(engine)
    db = marram.open(DIRECTORY, env=env, **options)
    db.put(b"a", b"1")
    end = db.store.commit.log.end
    env.mutate(f"{DIRECTORY}/logfile.0", end, b"\xf5mF\x01 half a frame")
    disk = env.crash_clone(1.0, 0)
    db.close()

    caplog.set_level(logging.WARNING, "marram")
    with marram.open(DIRECTORY, env=disk, **options) as again:
        assert dict(again) == {b"a": b"1"}
        assert again.stats()["recovery"]["cut_bytes"] == len(b"\xf5mF\x01 half a frame")

    assert f"logfile.0 @ {end}" in caplog.text
