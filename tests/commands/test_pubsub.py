"""SUBSCRIBE, PUBLISH, PUBSUB: who gets what, in which order, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from marram.node.settings import Settings
from marram.protocol.replies import NO_REPLY, Push
from tests.node.harness import Client, World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.node.channels._check()
    made.close()


def taken(client: Client) -> list[list[Any]]:
    """The messages so far, as lists; and forget them."""
    items = [message.items for message in client.messages]
    client.messages.clear()
    client.positions.clear()
    return items


@pytest.mark.parametrize("protocol", [2, 3])
def test_every_channel_is_acknowledged_by_a_message_of_its_own(world: World, protocol: int) -> None:
    client = world.client(protocol)
    assert client("SUBSCRIBE", "a", "b", "a") is NO_REPLY
    assert client.messages == [
        Push([b"subscribe", b"a", 1]),
        Push([b"subscribe", b"b", 2]),
        Push([b"subscribe", b"a", 2]),
    ]
    client.messages.clear()
    assert client("PSUBSCRIBE", "p*") is NO_REPLY
    assert taken(client) == [[b"psubscribe", b"p*", 3]]
    client("UNSUBSCRIBE", "b", "nosuch")
    assert taken(client) == [[b"unsubscribe", b"b", 2], [b"unsubscribe", b"nosuch", 2]]


def test_leaving_nothing_is_acknowledged_once(world: World) -> None:
    client = world.client()
    client("UNSUBSCRIBE")
    client("PUNSUBSCRIBE")
    assert taken(client) == [[b"unsubscribe", None, 0], [b"punsubscribe", None, 0]]


def test_leaving_without_names_leaves_all(world: World) -> None:
    client = world.client()
    client("SUBSCRIBE", "a", "b")
    client("PSUBSCRIBE", "p*")
    taken(client)
    client("UNSUBSCRIBE")
    assert taken(client) == [[b"unsubscribe", b"a", 2], [b"unsubscribe", b"b", 1]]
    client("PUNSUBSCRIBE")
    assert taken(client) == [[b"punsubscribe", b"p*", 0]]
    assert client("GET", "k") is None


def test_b2_a_message_comes_once_for_the_channel_and_once_a_pattern(world: World) -> None:
    client, publisher = world.client(), world.client()
    client("SUBSCRIBE", "news.tech")
    client("PSUBSCRIBE", "news.*", "*tech", "sport.*")
    taken(client)
    assert publisher("PUBLISH", "news.tech", b"\x00\xff") == 3
    assert taken(client) == [
        [b"message", b"news.tech", b"\x00\xff"],
        [b"pmessage", b"news.*", b"news.tech", b"\x00\xff"],
        [b"pmessage", b"*tech", b"news.tech", b"\x00\xff"],
    ]
    assert publisher("PUBLISH", "nobody", "x") == 0


def test_b2_messages_keep_the_order_of_publishing(world: World) -> None:
    client, one, two = world.client(), world.client(), world.client()
    client("SUBSCRIBE", "c", "d")
    taken(client)
    for number in range(10):
        (one if number % 2 else two)("PUBLISH", "cd"[number % 2], number)
    assert [int(items[2]) for items in taken(client)] == list(range(10))


def test_b2_a_message_waits_for_what_its_publisher_knew(world: World) -> None:
    client, publisher = world.client(), world.client()
    client("SUBSCRIBE", "c")
    taken(client)
    publisher("PUBLISH", "c", "nothing to wait for")
    publisher("SET", "k", "v")
    publisher("PUBLISH", "c", "k was set")
    world.client()("PUBLISH", "c", "from elsewhere")
    assert client.positions == [0, world.store.last, 0]


def test_a_publisher_in_resp3_gets_its_own_message_before_the_reply(world: World) -> None:
    client = world.client(protocol=3)
    client("SUBSCRIBE", "c")
    taken(client)
    assert client("PUBLISH", "c", "x") == 1
    assert taken(client) == [[b"message", b"c", b"x"]]


def test_pubsub_tells_who_listens(world: World) -> None:
    client, other = world.client(), world.client()
    client("SUBSCRIBE", "a", "b")
    other("SUBSCRIBE", "b")
    other("PSUBSCRIBE", "x*", "y*")
    asking = world.client()
    assert asking("PUBSUB", "CHANNELS") == [b"a", b"b"]
    assert asking("PUBSUB", "CHANNELS", "[b-z]") == [b"b"]
    assert asking("PUBSUB", "NUMSUB", "a", "b", "c") == [b"a", 1, b"b", 2, b"c", 0]
    assert asking("PUBSUB", "NUMSUB") == []
    assert asking("PUBSUB", "NUMPAT") == 2
    assert asking("PUBSUB", "SHARDCHANNELS") == []
    assert asking("PUBSUB", "SHARDNUMSUB", "a") == [b"a", 0]
    assert asking.error("PUBSUB", "NOSUCH") == "ERR unknown subcommand 'NOSUCH'. Try PUBSUB HELP."
    other.close()
    assert asking("PUBSUB", "NUMSUB", "b") == [b"b", 1]
    assert asking("PUBSUB", "NUMPAT") == 0


def test_subscriptions_are_bounded(world: World) -> None:
    limited = World(settings=Settings(max_subscriptions=2))
    client = limited.client()
    client("SUBSCRIBE", "a")
    client("PSUBSCRIBE", "p")
    assert client.error("SUBSCRIBE", "b") == "ERR a connection may have 2 subscriptions"
    client("SUBSCRIBE", "a")
    assert client.session.subscriptions == 2


def test_reset_ends_subscriptions(world: World) -> None:
    client = world.client()
    client("SUBSCRIBE", "c")
    client("RESET")
    taken(client)
    assert world.client()("PUBLISH", "c", "x") == 0
    assert taken(client) == []
    assert client("GET", "k") is None


def test_the_hello_of_a_subscriber_is_refused_in_resp2(world: World) -> None:
    client = world.client()
    client("SUBSCRIBE", "c")
    assert client.error("HELLO", "3").startswith("ERR Can't execute 'hello'")
