"""Writers wait while the engine cannot keep up, each claim of node/stalls.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from marram.node.stalls import LOOK_S
from marram.protocol.replies import OK, Simple
from marram.storage.store import Store
from tests.node.harness import PENDING, World

LOOK_MS = int(LOOK_S * 1000)


class Pressed:
    """An engine's figures, set by hand: throttle, and what its flush or its compactions failed of.

    Everything else is the engine's own.
    """

    def __init__(self, store: Store) -> None:
        self._engine = store.engine
        self.level = 0.0
        self.frozen = 0
        self.error = ""
        store.engine = self  # type: ignore[assignment]

    def throttle(self) -> float:
        return self.level

    def stats(self) -> dict[str, object]:
        return {"lsm": {"memtable": {"frozen": self.frozen}, "compaction": {"error": self.error}}}

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.fixture
def pressed(world: World) -> Pressed:
    return Pressed(world.store)


def begin(world: World, pressed: Pressed) -> None:
    pressed.level = 1.0
    world.node.tick()


def end(world: World, pressed: Pressed) -> None:
    pressed.level = 0.0
    world.advance(LOOK_MS)


def test_the_store_itself_holds_nobody_back(world: World) -> None:
    assert world.store.holds_back is False


def test_t1_writes_wait_and_reads_go_on(world: World, pressed: Pressed) -> None:
    writer, reader = world.client(), world.client()
    reader("SET", "k", "old")
    begin(world, pressed)
    assert writer("SET", "k", "new") is PENDING
    assert reader("GET", "k") == b"old"
    world.advance(1000)
    assert writer.result() is PENDING
    end(world, pressed)
    assert writer.result() == OK
    assert reader("GET", "k") == b"new"


def test_t1_below_one_nobody_waits(world: World, pressed: Pressed) -> None:
    pressed.level = 0.99
    world.node.tick()
    assert world.client()("SET", "k", "v") == OK


def test_held_writes_run_in_their_order(world: World, pressed: Pressed) -> None:
    clients = [world.client() for _ in range(3)]
    begin(world, pressed)
    for client in clients:
        assert client("APPEND", "k", client.session.id) is PENDING
    end(world, pressed)
    ids = "".join(str(client.session.id) for client in clients).encode()
    assert clients[0]("GET", "k") == ids


def test_a_transaction_is_queued_and_waits_at_its_end(world: World, pressed: Pressed) -> None:
    client = world.client()
    begin(world, pressed)
    client("MULTI")
    assert client("SET", "k", "v") == Simple("QUEUED")
    assert client("EXEC") is PENDING
    end(world, pressed)
    assert client.result() == [OK]
    client("MULTI")
    client("GET", "k")
    begin(world, pressed)
    assert client("EXEC") == [b"v"]


def test_publishing_does_not_wait(world: World, pressed: Pressed) -> None:
    begin(world, pressed)
    assert world.client()("PUBLISH", "c", "m") == 0


def test_who_left_meanwhile_writes_nothing(world: World, pressed: Pressed) -> None:
    gone = world.client()
    begin(world, pressed)
    assert gone("SET", "k", "v") is PENDING
    gone.close()
    end(world, pressed)
    assert world.client()("GET", "k") is None


@pytest.mark.parametrize("first", ["pause", "stall"])
@pytest.mark.parametrize("mode", ["ALL", "WRITE"])
def test_t2_a_pause_outlasts_the_stall_within_it(
    world: World, pressed: Pressed, first: str, mode: str
) -> None:
    user, writer = world.client(), world.client()
    if first == "pause":
        user("CLIENT", "PAUSE", 1000, mode)
    begin(world, pressed)
    if first == "stall":
        user("CLIENT", "PAUSE", 1000, mode)
    assert writer("SET", "k", "v") is PENDING
    world.advance(400)
    end(world, pressed)
    assert writer.result() is PENDING
    world.advance(500)
    assert writer.result() is PENDING
    world.advance(100)
    assert writer.result() == OK


def test_t2_a_stall_outlasts_the_pause_within_it(world: World, pressed: Pressed) -> None:
    user, writer, reader = world.client(), world.client(), world.client()
    begin(world, pressed)
    user("CLIENT", "PAUSE", 100)
    assert writer("SET", "k", "v") is PENDING
    assert reader("GET", "k") is PENDING
    world.advance(100)
    assert reader.result() is None  # the pause is over for reads, at its own time
    assert writer.result() is PENDING
    end(world, pressed)
    assert writer.result() == OK


def test_t2_unpause_ends_the_pause_and_not_the_stall(world: World, pressed: Pressed) -> None:
    user, writer, reader = world.client(), world.client(), world.client()
    user("CLIENT", "PAUSE", 100_000)
    begin(world, pressed)
    assert writer("SET", "k", "v") is PENDING
    assert reader("GET", "k") is PENDING
    assert user("CLIENT", "UNPAUSE") == OK
    assert reader.result() is None
    assert writer.result() is PENDING
    end(world, pressed)
    assert writer.result() == OK


def test_t3_what_cannot_be_flushed_is_refused_and_not_waited_for(
    world: World, pressed: Pressed, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = world.client()
    client("SET", "k", "v")
    begin(world, pressed)
    assert client("SET", "k", "w") is PENDING
    pressed.frozen = 1
    monkeypatch.setattr(world.store.generations, "_last_error", "no space left")
    world.advance(LOOK_MS)
    refusal = client.result().text
    assert refusal.startswith("MISCONF what is in memory cannot be flushed: no space left")
    world.node.tick()
    assert client.error("SET", "k", "w") == refusal
    assert client("GET", "k") == b"v"
    monkeypatch.setattr(world.store.generations, "_last_error", "")
    pressed.level = 0.0
    world.node.tick()
    assert client("SET", "k", "w") == OK


def test_t3_compactions_that_failed_are_not_waited_for(world: World, pressed: Pressed) -> None:
    pressed.error = "no space left"
    begin(world, pressed)
    assert "compactions cannot go on: no space" in world.client().error("SET", "k", "w")


def test_t3_a_failed_store_answers_as_it_always_does(world: World, pressed: Pressed) -> None:
    world.break_disk()
    begin(world, pressed)
    assert world.client().error("SET", "k", "w").startswith("MISCONF the store failed")


def test_t4_stalls_are_counted_with_their_time(world: World, pressed: Pressed) -> None:
    stalls = world.node.upkeep.stalls
    for length_ms in (200, 300):
        begin(world, pressed)
        world.advance(length_ms - LOOK_MS)
        assert stalls.is_on
        end(world, pressed)
        assert not stalls.is_on
    assert stalls.figures() == {"count": 2, "ms": 500}
    text = world.client()("INFO", "marram").data.decode()
    assert "stall_count:2\r\nstall_ms:500\r\nstalled:0\r\n" in text
    world.client()("CONFIG", "RESETSTAT")
    assert stalls.figures() == {"count": 0, "ms": 0}


def test_closing_the_node_answers_who_waits(world: World, pressed: Pressed) -> None:
    writer = world.client()
    begin(world, pressed)
    assert writer("SET", "k", "v") is PENDING
    world.node.close()
    assert writer.result().text == "ERR the server is shutting down"
