"""Every byte of a closed store flipped, every file cut anywhere: an error or the truth (P3)."""

from __future__ import annotations

import logging
import re
import tracemalloc

import pytest

import marram
from marram.env.memory import MemoryEnv
from marram.errors import Corruption, NotAStore, UnsupportedFormat
from marram.storage.verify import verify_directory
from tests.crash.history import DIRECTORY, State, state_of

_FILE_AND_OFFSET = re.compile(rf"{DIRECTORY}/[A-Za-z.0-9]+( @ \d+)?: ")


def closed_store(*, checkpoint: bool = True) -> tuple[dict[str, bytes], State]:
    """Files and state of a small store, cleanly closed, with a checkpoint and some log after it."""
    env = MemoryEnv(seed=3)
    with marram.open(DIRECTORY, env=env) as db:
        db.put_many((b"key-%d" % n, b"value-%d" % n) for n in range(6))
        db.put(b"short-lived", b"x", ttl=10**6)
        if checkpoint:
            db.checkpoint()
        db.put(b"late", b"in the log")
        db.delete(b"key-2")
        db.put_many({b"a": b"1", b"b": b"2"})
        state = state_of(db)
    files = {name: env.contents(f"{DIRECTORY}/{name}") for name in env.list_dir(DIRECTORY)}
    return files, state


def disk_of(files: dict[str, bytes]) -> MemoryEnv:
    env = MemoryEnv(seed=4)
    env.make_dir(DIRECTORY)
    for name, data in files.items():
        env.put_file(f"{DIRECTORY}/{name}", data)
    return env


def open_damaged(files: dict[str, bytes]) -> State | Exception:
    """The state it opens with, or the refusal; anything else fails the test."""
    env = disk_of(files)
    before = {name: env.contents(f"{DIRECTORY}/{name}") for name in files}
    try:
        with marram.open(DIRECTORY, env=env, create=False) as db:
            return state_of(db)
    except (Corruption, UnsupportedFormat, NotAStore) as error:
        assert _FILE_AND_OFFSET.match(str(error)) or isinstance(error, NotAStore), str(error)
        for name, data in before.items():
            if name != "LOCK":
                now = env.contents(f"{DIRECTORY}/{name}")
                assert now == data, f"a refused opening changed {name}"
        return error


@pytest.mark.parametrize("checkpoint", [True, False])
def test_p3_every_flipped_byte_of_every_file(
    checkpoint: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    files, state = closed_store(checkpoint=checkpoint)
    refused = dict.fromkeys(files, 0)
    for name, data in files.items():
        for at in range(len(data)):
            for bit in (0, 3, 7):
                flipped = bytearray(data)
                flipped[at] ^= 1 << bit
                outcome = open_damaged({**files, name: bytes(flipped)})
                if isinstance(outcome, Exception):
                    refused[name] += 1
                else:
                    assert outcome == state, f"{name}, byte {at}, bit {bit}: a wrong state"
    for name, count in refused.items():
        if name != "LOCK":
            assert count > len(files[name]), f"{name}: damage goes mostly unnoticed"


@pytest.mark.parametrize("checkpoint", [True, False])
def test_p3_truncation_at_every_length(checkpoint: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    files, state = closed_store(checkpoint=checkpoint)
    for name, data in files.items():
        for size in range(len(data)):
            outcome = open_damaged({**files, name: data[:size]})
            assert isinstance(outcome, Exception) or outcome == state, f"{name} cut to {size}"


def test_p3_a_missing_file_is_named() -> None:
    files, state = closed_store()
    for name in files:
        outcome = open_damaged({other: data for other, data in files.items() if other != name})
        if name == "LOCK":
            assert outcome == state
        else:
            assert isinstance(outcome, Exception)
            assert name in str(outcome) or name == "version"


def test_a_store_that_lost_its_version_file_is_not_made_anew() -> None:
    files, _ = closed_store()
    del files["version"]
    env = disk_of(files)

    with pytest.raises(Corruption, match="version"):
        marram.open(DIRECTORY, env=env, create=True)
    assert {n: env.contents(f"{DIRECTORY}/{n}") for n in files} == files


@pytest.mark.parametrize("name", ["checkpoint.1", "logfile.1"])
def test_p3_a_file_of_another_store_is_refused(name: str) -> None:
    files, _ = closed_store()
    env = MemoryEnv(seed=99)
    with marram.open(DIRECTORY, env=env) as db:
        db.put(b"other", b"store")
        db.checkpoint()
        db.put(b"other", b"log")
    foreign = env.contents(f"{DIRECTORY}/{name}")

    outcome = open_damaged({**files, name: foreign})

    assert isinstance(outcome, Corruption)


def test_p3_yesterdays_files_are_refused() -> None:
    env = MemoryEnv(seed=3)
    days: list[dict[str, bytes]] = []
    for day in range(3):
        with marram.open(DIRECTORY, env=env) as db:
            db.put(b"day", b"%d" % day)
            db.checkpoint()
            db.put(b"evening", b"%d" % day)
        days.append({n: env.contents(f"{DIRECTORY}/{n}") for n in env.list_dir(DIRECTORY)})

    today, yesterday = days[2], days[1]
    state = open_damaged(today)
    for name in ("checkpoint", "logfile"):
        mixed = {**today, f"{name}.3": yesterday[f"{name}.2"]}
        assert isinstance(open_damaged(mixed), Corruption)
    assert isinstance(open_damaged({**today, "version": yesterday["version"]}), Exception)
    assert open_damaged(today) == state


def test_damage_costs_no_memory() -> None:
    files, _ = closed_store()
    tracemalloc.start()
    for name, data in files.items():
        for at in range(0, len(data), 3):
            broken = bytearray(data)
            broken[at : at + 8] = b"\xff" * min(8, len(data) - at)
            open_damaged({**files, name: bytes(broken)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 20 * 1024 * 1024


def test_verify_names_what_opening_would_refuse() -> None:
    files, state = closed_store()
    assert verify_directory(disk_of(files), DIRECTORY).ok
    for name in ("version", "checkpoint.1", "logfile.1"):
        for at in range(0, len(files[name]), 5):
            flipped = bytearray(files[name])
            flipped[at] ^= 1
            damaged = {**files, name: bytes(flipped)}
            report = verify_directory(disk_of(damaged), DIRECTORY)
            outcome = open_damaged(damaged)
            if isinstance(outcome, Exception):
                assert report.problems, f"{name} byte {at}: verify says nothing"
                assert any(_FILE_AND_OFFSET.match(problem) for problem in report.problems)
            else:
                assert outcome == state


def test_a_torn_tail_is_cut_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    env = MemoryEnv(seed=5)
    db = marram.open(DIRECTORY, env=env)
    db.put(b"a", b"1")
    end = db.store.commit.log.end
    env.mutate(f"{DIRECTORY}/logfile.0", end, b"\xf5mF\x01 half a frame")
    disk = env.crash_clone(1.0, 0)
    db.close()

    with caplog.at_level(logging.WARNING, "marram"), marram.open(DIRECTORY, env=disk) as again:
        assert dict(again) == {b"a": b"1"}
        assert again.stats()["recovery"]["cut_bytes"] == len(b"\xf5mF\x01 half a frame")

    assert f"logfile.0 @ {end}" in caplog.text
