"""The node's small parts, each by its own promises."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import pytest

from marram.env.memory import MemoryEnv
from marram.env.posix import posix_env
from marram.errors import InvalidArgument
from marram.node import passwords
from marram.node.deferred import Deferred
from marram.node.latency import Latency
from marram.node.monitor import quoted
from marram.node.passwords import Checker, hash_password, matches
from marram.node.process import usage
from marram.node.rows import Row, Rows
from marram.node.slowlog import REDACTED, SlowLog, redacted, truncated
from marram.node.upkeep import EXPIRY_KEYS, Rounds
from marram.protocol.replies import OK
from tests.node.harness import FakeLoop, World

# -- deferred --------------------------------------------------------------------------------------


def test_f1_a_deferred_is_resolved_once_and_tells_everybody() -> None:
    deferred = Deferred()
    told: list[Any] = []
    deferred.on_done(told.append)
    deferred.on_done(told.append)
    deferred.resolve(b"first", 7)
    deferred.resolve(b"second", 8)
    deferred.on_done(told.append)
    assert told == [b"first"] * 3
    assert (deferred.done, deferred.reply, deferred.waits_for) == (True, b"first", 7)


# -- passwords -------------------------------------------------------------------------------------


def test_a_hash_matches_its_password_alone() -> None:
    kept = hash_password(b"open sesame", bytes(range(16)))
    assert kept.startswith("scrypt$14$8$1$")
    assert b"sesame" not in kept.encode()
    assert matches(b"open sesame", kept)
    assert not matches(b"open sesamE", kept)
    assert not matches(b"", kept)
    assert kept != hash_password(b"open sesame", bytes(16))


@pytest.mark.parametrize(
    "kept", ["", "x", "scrypt$14$8$1$AAAA", "scrypt$14$8$1$!!$!!", "scrypt$15$8$1$AAAA$AAAA"]
)
def test_what_is_no_hash_is_refused(kept: str) -> None:
    with pytest.raises(InvalidArgument):
        matches(b"x", kept)
    with pytest.raises(InvalidArgument):
        hash_password(b"x", b"short")


def test_w3_checks_run_one_at_a_time_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    env = MemoryEnv()
    loop = FakeLoop(env)
    checker = Checker(env, loop)
    told: list[tuple[int, bool]] = []
    monkeypatch.setattr(passwords, "matches", lambda password, kept: password == kept.encode())
    for number, password in enumerate([b"a", b"b", b"a"]):
        checker.check(password, "a", lambda right, number=number: told.append((number, right)))
    for expected in (1, 2, 3):
        assert env.run_background() == 1
        loop.run()
        assert len(told) == expected
    assert told == [(0, True), (1, False), (2, True)]


def test_a_check_that_breaks_refuses(caplog: pytest.LogCaptureFixture) -> None:
    env = MemoryEnv()
    loop = FakeLoop(env)
    told: list[bool] = []
    Checker(env, loop).check(b"x", "no hash", told.append)
    with caplog.at_level(logging.ERROR):
        env.run_background()
    loop.run()
    assert told == [False]
    assert "checking a password failed" in caplog.text


# -- what operators see ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        ([b"AUTH", b"p"], [b"AUTH", REDACTED]),
        ([b"auth", b"u", b"p"], [b"auth", REDACTED, REDACTED]),
        ([b"HELLO", b"3", b"AUTH", b"u", b"p"], [b"HELLO", b"3", b"AUTH", REDACTED, REDACTED]),
        (
            [b"hello", b"3", b"setname", b"auth", b"auth", b"u", b"p"],
            [b"hello", b"3", b"setname", b"auth", *[REDACTED] * 3],
        ),
        ([b"HELLO", b"3", b"SETNAME", b"me"], [b"HELLO", b"3", b"SETNAME", b"me"]),
        (
            [b"CONFIG", b"Set", b"timeout", b"1", b"RequirePass", b"p"],
            [b"CONFIG", b"Set", b"timeout", b"1", b"RequirePass", REDACTED],
        ),
        ([b"CONFIG", b"GET", b"requirepass"], [b"CONFIG", b"GET", b"requirepass"]),
        ([b"SET", b"auth", b"v"], [b"SET", b"auth", b"v"]),
    ],
)
def test_secrets_are_redacted(args: list[bytes], shown: list[bytes]) -> None:
    assert list(redacted(args)) == shown


def test_arguments_are_cut_at_the_limits_and_not_before() -> None:
    assert truncated([b"x" * 128] * 32) == [b"x" * 128] * 32
    assert truncated([b"x" * 129]) == [b"x" * 128 + b"... (1 more bytes)"]
    cut = truncated([b"x"] * 33)
    assert len(cut) == 32
    assert cut[-1] == b"... (2 more arguments)"


def test_the_slow_log_keeps_the_newest_and_its_numbers() -> None:
    log = SlowLog(2)
    for number in range(3):
        log.record([b"%d" % number], 5, 6, "here", b"")
    assert [entry.number for entry in log.newest(None)] == [2, 1]
    log.resize(1)
    assert [entry.number for entry in log.newest(None)] == [2]
    log.resize(0)
    log.record([b"x"], 5, 6, "here", b"")
    assert len(log) == 0


def test_latency_joins_samples_of_one_second_and_drops_what_is_quick() -> None:
    latency = Latency(10)
    for latency_ms, time_s in ((9, 1), (10, 1), (30, 1), (20, 1), (15, 2)):
        latency.record("event", latency_ms, time_s)
    assert list(latency.events()["event"]) == [(1, 30), (2, 15)]
    assert latency.worst_ms("event") == 30
    for time_s in range(500):
        latency.record("event", 11, time_s)
    assert len(latency.events()["event"]) == 160
    assert latency.reset("event")
    assert not latency.reset("event")
    assert latency.worst_ms("event") == 0


def test_bytes_are_quoted_as_redis_quotes_them() -> None:
    assert quoted(b'\\"\n\r\t\a\b\x00\x7f\xff ~') == '"\\\\\\"\\n\\r\\t\\a\\b\\x00\\x7f\\xff ~"'


def test_figures_about_the_process_are_read_or_zero() -> None:
    used = usage(posix_env())
    assert used.resident_bytes > 1 << 20
    assert used.user_s > 0
    assert usage(MemoryEnv()) == (0, 0.0, 0.0)


# -- sessions --------------------------------------------------------------------------------------


def test_a_session_that_ended_keeps_its_shell_from_nobody() -> None:
    world = World()
    client = world.client()
    client("SUBSCRIBE", "c")
    gone = weakref.ref(client)
    gc.disable()
    try:
        client.close()
        del client
        assert gone() is None
    finally:
        gc.enable()
    world.close()


# -- rows ------------------------------------------------------------------------------------------


def test_r1_spellings_are_cached_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(row.command for row in World().node.rows.statistics() if "|" not in row.name)
    before = len(rows.spellings)
    get = rows.find(b"GeT")
    assert isinstance(get, Row)
    assert rows.spellings[b"GeT"] is get is rows.find(b"get")
    monkeypatch.setattr("marram.node.rows._NAMES_CACHED_MAX", before + 1)
    assert rows.find(b"gEt") is get
    assert len(rows.spellings) == before + 1


def test_a_histogram_counts_in_powers_of_two() -> None:
    row = next(iter(World().node.rows.statistics()))
    for elapsed_us in (0, 1, 2, 3, 1000, 1 << 40):
        row.record(elapsed_us)
    counts = row.histogram_us
    assert (counts[0], counts[1], counts[2], counts[10], counts[31]) == (1, 1, 2, 1, 1)
    assert row.timed_calls == sum(counts) == 6


# -- upkeep ----------------------------------------------------------------------------------------


def test_u2_who_asks_during_a_round_waits_for_the_next() -> None:
    env = MemoryEnv()
    loop = FakeLoop(env)
    runs: list[int] = []
    rounds = Rounds(env, loop, "work", lambda: runs.append(len(runs)))
    told: list[tuple[str, int]] = []

    def ask(name: str) -> None:
        rounds.ask(lambda failure: told.append((name, len(runs))))

    ask("first")
    ask("second")
    ask("third")
    env.run_background()
    loop.run()
    assert told == [("first", 1)]
    env.run_background()
    loop.run()
    assert told == [("first", 1), ("second", 2), ("third", 2)]
    assert not rounds.running


def test_a_round_that_fails_tells_why() -> None:
    env = MemoryEnv()
    loop = FakeLoop(env)

    def work() -> None:
        raise OSError("no")

    told: list[Exception | None] = []
    Rounds(env, loop, "work", work).ask(told.append)
    env.run_background()
    loop.run()
    assert isinstance(told[0], OSError)


def test_u3_a_tick_deletes_expired_keys_within_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    client = world.client()
    client("CONFIG", "SET", "latency-monitor-threshold", "1")
    for number in range(3 * EXPIRY_KEYS):
        client("SET", f"k{number}", "v", "PX", "10")
    world.advance(1000)
    # Each batch takes as long as the budget allows all of them together.
    expire_due = world.store.expire_due

    def slow(limit: int) -> int:
        world.machine.advance(10)
        return expire_due(limit)

    monkeypatch.setattr(world.store, "expire_due", slow)
    world.node.tick()
    assert client("DBSIZE") == 2 * EXPIRY_KEYS
    assert [event for event, *_ in client("LATENCY", "LATEST")] == [b"expire-cycle"]
    world.node.tick()
    world.node.tick()
    assert client("DBSIZE") == 0
    world.close()


def test_a_tick_on_a_full_disk_complains_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    client = world.client()
    for number in range(1000):
        client("SET", f"k{number:03}", "v", "PX", "10")
    world.node.upkeep.active_expiry = False
    world.advance(1000)
    world.fill_disk()
    while client("SET", "big", "x" * 1000) is OK:
        world.settle()
    world.node.upkeep.active_expiry = True
    with caplog.at_level(logging.WARNING, "marram.node"):
        for _ in range(10):
            world.node.tick()
    assert client("GET", "k000") is None
    complaints = [record for record in caplog.records if record.name == "marram.node"]
    assert len(complaints) == 1
    assert client("DBSIZE") > 0
    world.store.close()


def test_a_tick_starts_a_checkpoint_that_is_due() -> None:
    world = World(checkpoint_log_bytes=1000)
    client = world.client()
    client("SET", "k", "x" * 2000)
    world.settle()
    client("DEL", "k")
    world.settle()
    number = world.store.generations.number
    world.node.tick()
    world.settle()
    assert world.store.generations.number == number + 1
    world.close()


def test_a_tick_has_logs_removed_that_were_kept_for_replicas_for_too_long() -> None:
    world = World(replica_log_bytes=10**6, replica_log_age_s=100)
    world.client()("SET", "k", "v")
    world.settle()
    world.store.checkpoint()
    kept = world.store.history.oldest
    for seconds, is_kept in ((70, True), (20, True), (60, False)):
        world.advance(seconds * 1000)
        world.node.tick()
        world.settle()
        assert (world.store.history.oldest == kept) == is_kept
    world.close()


def test_a_key_that_expired_is_hidden_and_not_deleted_where_the_store_follows_another() -> None:
    world = World()
    client = world.client()
    client("SET", "k", "v", "PX", "10")
    world.settle()
    world.store.follow()
    world.store.clock.hear(world.store.now_ms() + 10)
    world.node.begin_turn()
    assert client("GET", "k") is None
    world.node.tick()
    assert (world.store.last, client("DBSIZE")) == (1, 1)
    world.close()
