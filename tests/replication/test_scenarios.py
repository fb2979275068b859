"""Stories with a fixed course, on the simulation's nodes: what an operator would see."""

from __future__ import annotations

from typing import Any

import pytest

from marram.coding.batch import put
from marram.replication.acks import Level
from marram.replication.replica import State
from tests.replication.network import MS, Weather
from tests.replication.shell import Node
from tests.replication.world import World

ENGINES = [None, "memory", "lsm"]


class Story(World):
    """A world where nothing happens by itself. need: replicas that every write has to reach."""

    def __init__(self, engine: str | None, *, need: int = 0, retention: int = 1 << 20) -> None:
        super().__init__(1, engine=engine, replica_log_bytes=retention)
        self.need, self.level = need, Level.ON_DISK
        self.is_chain = self.is_throttled = self.holds = False
        self.network.weather = Weather(1)
        for name, node in self.nodes.items():
            node.upstream = None if name == "a" else "a"
            node.start()
        self.a, self.b, self.c = self.nodes.values()
        self.pass_ms(100)

    def pass_ms(self, time_ms: int) -> None:
        self.loop.run_until(self.loop.now_ns + time_ms * MS)

    def writes(self, node: Node, count: int) -> list[bool]:
        """Writes of a client that waits for each; returns which were acknowledged."""
        outcomes: list[bool] = []
        for number in range(count):
            value = b"%s-%d" % (node.name.encode(), len(self.parent) + number)
            node.write([put(0, b"key", value)], outcomes.append, None)
            self.pass_ms(60)
        self.pass_ms(300)
        return outcomes

    def cut_off(self, node: Node) -> None:
        for other in self.nodes:
            if other != node.name:
                self.network.cut |= {(node.name, other), (other, node.name)}
        self.pass_ms(400)

    def mend(self) -> None:
        self.network.cut.clear()
        self.pass_ms(600)


def value_at(node: Node) -> bytes | None:
    seen: list[Any] = []
    node.read(b"key", seen.append)
    return seen[0] if seen else None


@pytest.mark.parametrize("engine", ENGINES)
def test_empty_replicas_take_a_copy_and_then_follow(engine: str | None) -> None:
    story = Story(engine)
    assert story.writes(story.a, 3) == [True] * 3
    assert story.a.tip == story.b.tip == story.c.tip
    assert story.b.store.store_id == story.a.store.store_id
    assert story.counts["full sync"] == 2
    assert value_at(story.c) == value_at(story.a)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_replica_that_was_away_goes_on_from_the_log(engine: str | None) -> None:
    story = Story(engine)
    story.writes(story.a, 2)
    story.b.crash(0.0)
    story.writes(story.a, 20)
    story.a.flush()
    story.a.store.checkpoint(100)
    story.b.start()
    story.pass_ms(300)
    assert story.b.tip == story.a.tip
    assert story.counts["full sync"] == 2, "the first ones, of the empty stores"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_replica_that_was_away_too_long_takes_a_copy_and_serves_meanwhile(
    engine: str | None,
) -> None:
    story = Story(engine, retention=0)
    story.writes(story.a, 2)
    old = value_at(story.b)
    story.b.crash(0.0)
    story.writes(story.a, 20)
    story.a.flush()
    story.a.store.checkpoint(0)
    story.b.start()
    assert value_at(story.b) == old
    story.pass_ms(400)
    assert story.b.tip == story.a.tip
    assert value_at(story.b) == value_at(story.a) != old
    assert story.counts["full sync"] == 3
    assert story.counts["set aside"] == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_deposed_primary_sets_its_tail_aside_and_follows(engine: str | None) -> None:
    story = Story(engine, need=1)
    story.writes(story.a, 3)
    story.cut_off(story.a)
    assert story.writes(story.a, 2) == [False, False], "nobody acknowledges any more"
    story.b.promote(2)
    story.c.follow("b")
    story.pass_ms(300)
    assert story.writes(story.b, 2) == [True, True]
    story.mend()
    story.a.follow("b")
    story.pass_ms(500)
    assert story.counts["set aside"] == 1
    assert story.a.tip == story.b.tip == story.c.tip
    assert story.a.tip.epoch == 2


def test_a_primary_that_hears_of_its_successor_takes_no_more_writes() -> None:
    story = Story(None)
    story.writes(story.a, 1)
    story.c.follow(None)
    story.c.raise_epoch(5)
    story.c.follow("a")
    story.pass_ms(200)
    assert story.a.fenced
    assert story.writes(story.a, 1) == []
    assert story.c.uplink is not None
    assert story.c.uplink.follower.trouble.startswith("LOWER_EPOCH")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_deposed_primary_whose_epoch_was_raised_feeds_nobody(engine: str | None) -> None:
    story = Story(engine)
    story.writes(story.a, 3)
    story.cut_off(story.a)
    story.writes(story.a, 9)  # a tail that no other node has, longer than all of the next reign
    story.b.promote(2)
    story.c.follow("b")
    story.writes(story.b, 2)
    story.b.crash(0.0)
    story.mend()
    story.a.follow(None)
    story.a.raise_epoch(3)
    story.a.follow("b")  # which is not there to say whose history is right
    story.c.follow("a")
    story.pass_ms(500)
    assert story.c.tip == story.b.tip, "what was acknowledged in epoch 2 is still there"
    story.b.start()
    story.pass_ms(500)
    story.b.promote(4)
    story.pass_ms(500)
    assert story.a.tip == story.b.tip == story.c.tip
    assert story.a.tip.epoch == 2


def test_a_replica_that_is_ahead_of_the_one_it_is_pointed_at_loses_nothing() -> None:
    story = Story(None)
    story.writes(story.a, 2)
    story.cut_off(story.b)
    story.writes(story.a, 3)
    ahead = story.c.tip
    story.a.crash(0.0)
    story.mend()
    story.c.follow("b")
    story.pass_ms(300)
    assert story.c.tip == ahead != story.b.tip
    assert story.c.uplink is not None
    assert story.c.uplink.follower.trouble.startswith("BEHIND")
    story.c.promote(2)
    story.b.follow("c")
    story.pass_ms(400)
    assert story.b.tip == ahead


@pytest.mark.parametrize("engine", ENGINES)
def test_a_primary_that_comes_back_answers_readers_once_its_tail_reached_its_level(
    engine: str | None,
) -> None:
    story = Story(engine, need=1)
    story.writes(story.a, 2)
    story.b.crash(0.0)
    story.c.crash(0.0)
    assert story.writes(story.a, 1) == [False]
    story.a.crash(0.0)
    story.a.start()
    story.pass_ms(100)
    assert value_at(story.a) is None, "its last write is on its own disk alone"
    story.b.start()
    story.pass_ms(300)
    assert value_at(story.a) == value_at(story.b) is not None


def test_a_server_pointed_at_itself_says_so() -> None:
    story = Story(None)
    story.writes(story.a, 1)
    story.b.follow("b")
    story.pass_ms(200)
    assert story.b.uplink is not None
    assert story.b.uplink.follower.state is State.WAITING
    assert story.b.uplink.follower.trouble.startswith("SELF")
    assert story.b.tip == story.a.tip, "and nothing is lost"


def test_a_replica_of_a_replica_has_what_the_primary_has() -> None:
    story = Story(None, need=1)
    story.c.follow("b")
    assert story.writes(story.a, 5) == [True] * 5
    assert story.c.tip == story.a.tip
    assert len(story.a.downlinks) == 1
    assert story.c.uplink is not None
    assert story.c.uplink.follower.primary == "a"
    assert value_at(story.c) == value_at(story.a)


def test_a_full_disk_at_a_replica_leaves_the_primary_unharmed() -> None:
    story = Story(None)
    story.writes(story.a, 1)
    story.b.full_until_ns = story.loop.now_ns + 3_000 * MS
    assert story.writes(story.a, 3) == [True] * 3
    assert story.b.uplink is not None
    assert "full" in story.b.uplink.follower.trouble
    story.pass_ms(3_000)
    assert story.b.tip == story.a.tip
