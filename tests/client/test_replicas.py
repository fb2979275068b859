"""What clients ask of replicas: acks, at_least, promote; over all faces."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import marram
from marram.client import calls
from marram.client.levels import acked, checked_acks, reached
from tests.server.serving import DEADLINE_S, GatedEnv, Running, serving

Pair = tuple[Running, Running, GatedEnv]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """A primary and its replica, whose disk can be made to wait; both have k = v."""
    env = GatedEnv()
    with serving(tmp_path / "p", frame_port=0) as primary:
        upstream = "{}:{}".format(*primary.address("frame"))
        with (
            primary.connect() as client,
            serving(tmp_path / "r", env, frame_port=0, replica_of=upstream) as replica,
        ):
            client.ask(b"SET", b"k", b"v")
            assert client.ask(b"WAITAOF", b"1", b"1", b"20000") == [1, 1]
            yield primary, replica, env
            env.open_gate()


def url(running: Running) -> str:
    return "marram://{}:{}".format(*running.address())


def test_a_write_with_acks_returns_once_the_replica_has_it(pair: Pair) -> None:
    primary, replica, _ = pair
    with marram.connect(url(primary)) as db, marram.connect(url(replica)) as reader:
        wanted = marram.Acks(1, timeout_s=DEADLINE_S)
        db.put(b"a", b"1", acks=wanted)
        db.put(b"b", b"2", ttl=1000.0, acks=1)
        db.put_many({b"c": b"3"}, acks=1)
        db.put_many({b"d": b"4"}, ttl=1000.0, acks=1)
        assert db.compare_and_set(b"a", b"1", b"one", acks=1)
        assert not db.compare_and_set(b"a", b"1", b"one", acks=1)
        assert db.delete(b"c", acks=1)
        assert not db.delete(b"c", acks=1)
        with db.batch(acks=1) as batch:
            batch.put(b"e", b"5")
            batch.delete_range(b"x", b"y")
        with db.transaction(acks=1) as transaction:
            transaction.put(b"f", transaction.get(b"e"))
        found = dict(reader.scan(at_least=db.position))
        assert found == {b"k": b"v", b"a": b"one", b"b": b"2", b"d": b"4", b"e": b"5", b"f": b"5"}


def test_acks_that_cannot_be_had_are_refused_and_those_that_do_not_come_are_in_doubt(
    pair: Pair,
) -> None:
    primary, _, env = pair
    with marram.connect(url(primary)) as db:
        with pytest.raises(marram.NoReplicas, match="1 of 2 are connected"):
            db.put(b"k", b"w", acks=2)
        assert db.get(b"k") == b"v"
        env.close_gate()
        with pytest.raises(marram.OutcomeUnknown, match="still replicating"):
            db.put(b"k", b"w", acks=marram.Acks(1, timeout_s=0.1))
        assert db.get(b"k") == b"w", "it is on the primary, and shown from then on"
        env.open_gate()


def test_at_least_reads_what_was_written(pair: Pair) -> None:
    primary, replica, env = pair
    with marram.connect(url(primary)) as db, marram.connect(url(replica)) as reader:
        for number in range(20):
            db.put(b"n", b"%d" % number)
            position = db.position
            assert reader.get(b"n", at_least=position) == b"%d" % number
        db.put(b"n", b"last")
        position = db.position
        assert reader.get_many([b"n", b"x"], at_least=position) == [b"last", None]
        with reader.snapshot(at_least=position) as snapshot:
            assert snapshot[b"n"] == b"last"
            assert snapshot.position >= position
        env.close_gate()
        db.put(b"n", b"later")
    with (
        marram.connect(url(replica), timeout_s=0.5) as hasty,
        pytest.raises(marram.Behind, match="is behind position 1-"),
    ):
        hasty.get(b"k", at_least=marram.Position(1, 10_000))


def test_a_write_to_a_replica_names_the_primary(pair: Pair) -> None:
    primary, replica, _ = pair
    at = "{}:{}".format(*primary.address())
    with marram.connect(url(replica)) as db:
        with pytest.raises(marram.NotLeader) as refused:
            db.put(b"k", b"w")
        assert refused.value.address == at


def test_promote_and_follow(pair: Pair) -> None:
    primary, replica, _ = pair
    with marram.connect(url(primary)) as old, marram.connect(url(replica)) as new:
        assert new.promote() == marram.Position(2, 1)
        new.put(b"k", b"w")
        old.follow(*replica.address("frame"))
        assert old.get(b"k", at_least=new.position) == b"w"
        with pytest.raises(marram.ReadOnly):
            old.put(b"k", b"x")


def test_the_asynchronous_client_has_the_same(pair: Pair) -> None:
    primary, replica, env = pair

    async def work() -> None:
        async with (
            marram.connect_async(url(primary)) as db,
            marram.connect_async(url(replica)) as reader,
        ):
            await asyncio.gather(*(db.put(b"%d" % n, b"x", acks=1) for n in range(50)))
            async with db.batch(acks=1) as batch:
                batch.put(b"b", b"1")
            async with db.transaction(acks=1) as transaction:
                transaction.put(b"t", b"2")
            position = await db.position()
            assert await reader.get(b"t", at_least=position) == b"2"
            assert await reader.get_many([b"b"], at_least=position) == [b"1"]
            found = [key async for key, _ in reader.scan(at_least=position)]
            assert len(found) == 53
            env.close_gate()
            await db.put(b"n", b"later")
            ahead = marram.Position(1, 10_000)
            waiting = asyncio.ensure_future(reader.get(b"n", at_least=ahead))
            assert await reader.get(b"b") == b"1", "others go on meanwhile"
            assert not waiting.done()
            waiting.cancel()
            env.open_gate()
            promoted = await reader.promote()
            assert promoted.epoch == 2
            await db.follow(*replica.address("frame"))

    asyncio.run(work())


# -- what is refused before anything is sent -------------------------------------------------------


@pytest.mark.parametrize("acks", [-1, 1001, "1", True, 1.5])
def test_a_number_of_replicas_that_is_none_is_refused(acks: Any) -> None:
    with pytest.raises(marram.InvalidArgument):
        checked_acks(acks)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), 10**7])
def test_a_time_limit_that_is_none_is_refused(timeout_s: float) -> None:
    with pytest.raises(marram.InvalidArgument):
        marram.Acks(1, timeout_s=timeout_s)


@pytest.mark.parametrize("position", ["1-2", (1,), (1, -2), (1, "2"), (True, 1), (1, 2**63)])
def test_a_position_that_is_none_is_refused(position: Any) -> None:
    with pytest.raises(marram.InvalidArgument, match="at_least is a Position"):
        reached(calls.get(b"k", None), position, 1.0)


def test_a_leveled_write_is_one_piece_with_its_level() -> None:
    call = acked(calls.put(b"k", b"v", None), marram.Acks(2, on_disk=False, timeout_s=0.5))
    assert [b" ".join(words) for words in call.commands] == [
        b"ACKS 2 RECEIVED TIMEOUT 500",
        b"SET k v",
    ]
    assert call.writes


def test_the_embedded_store_has_no_replicas_and_says_so(tmp_path: Path) -> None:
    with marram.open(tmp_path / "data") as db:
        for write in (
            lambda: db.put(b"k", b"v", acks=1),
            lambda: db.delete(b"k", acks=1),
            lambda: db.compare_and_set(b"k", None, b"v", acks=1),
            lambda: db.put_many({b"k": b"v"}, acks=1),
            lambda: db.batch(acks=1),
            lambda: db.transaction(acks=1),
        ):
            with pytest.raises(marram.InvalidArgument, match="embedded store has no replicas"):
                write()
        assert len(db) == 0
        db.put(b"k", b"v", acks=0)
        assert db.get(b"k", at_least=db.position) == b"v"
        assert db.get_many([b"k"], at_least=db.position) == [b"v"]
        assert list(db.scan(at_least=db.position)) == [(b"k", b"v")]
        ahead = marram.Position(db.position.epoch, db.position.sequence + 1)
        for read in (
            lambda: db.get(b"k", at_least=ahead),
            lambda: db.get_many([b"k"], at_least=ahead),
            lambda: db.snapshot(at_least=ahead),
            lambda: list(db.scan(at_least=ahead)),
        ):
            with pytest.raises(marram.Behind):
                read()


def test_a_replicas_directory_opened_by_hand_is_warned_of(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    _, replica, _ = pair
    directory = replica.server.directory
    replica.stop()
    with marram.open(directory) as db:
        assert db[b"k"] == b"v"
    assert "is a replica's" in caplog.text
