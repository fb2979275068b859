"""The simulation's clock and network, from one seed.

A connection carries messages each way: in order, or, where the weather says so, with some lost,
sent twice or overtaken. A partition swallows what is sent into it, each direction on its own; a
connection then ends when an end finds the other silent.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from marram.replication.codec import Decoder, decode_hello, encode, encode_hello
from marram.replication.messages import GREETING_FRAME_BYTES, Hello

MS = 1_000_000


class Loop:
    """Events in the order of their times."""

    def __init__(self) -> None:
        self.now_ns = 1_000 * MS
        self.ran = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, time_ns: int, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (max(time_ns, self.now_ns), self._count, event))

    def run_until(self, time_ns: int, done: Callable[[], bool] | None = None) -> bool:
        """Run events up to that time, or until done() says so; returns whether it did."""
        heap = self._heap
        while heap and heap[0][0] <= time_ns:
            self.now_ns, _, event = heapq.heappop(heap)
            event()
            self.ran += 1
            if done is not None and self.ran % 16 == 0 and done():
                return True
        self.now_ns = max(self.now_ns, time_ns)
        return done is not None and done()


@dataclass
class Weather:
    """What happens to messages. delay_ms: the longest; the others are probabilities."""

    delay_ms: int = 5
    drop: float = 0.0
    twice: float = 0.0
    overtake: float = 0.0


class Network:
    """Who can talk to whom. through_codec: messages travel as bytes."""

    def __init__(self, loop: Loop, rng: random.Random, *, through_codec: bool) -> None:
        self.loop = loop
        self.rng = rng
        self.weather = Weather()
        self.through_codec = through_codec
        self.cut: set[tuple[str, str]] = set()

    def delay_ns(self) -> int:
        return int(self.rng.random() * self.weather.delay_ms * MS) + 10_000


class End:
    """One end of a connection. owner: a node (shell.py); on_message, on_lost: set by it."""

    def __init__(self, network: Network, owner: Any) -> None:
        self.owner = owner
        self.incarnation = owner.incarnation
        self.peer: End
        self.is_open = True
        self.on_message: Callable[[Any], None] = lambda message: None
        self.on_lost: Callable[[], None] = lambda: None
        self._network = network
        self._last_ns = 0  # no later message arrives before
        self._decoder = Decoder()
        self.frame_limit: Callable[[], int] = lambda: GREETING_FRAME_BYTES

    def send(self, message: Any) -> None:
        if not self.is_open:
            return
        network, weather = self._network, self._network.weather
        if (self.owner.name, self.peer.owner.name) in network.cut:
            return
        if weather.drop and network.rng.random() < weather.drop:
            return
        self._deliver(message)
        if weather.twice and network.rng.random() < weather.twice:
            self._deliver(message)

    def _deliver(self, message: Any) -> None:
        network, weather = self._network, self._network.weather
        arrival = network.loop.now_ns + network.delay_ns()
        if weather.overtake and network.rng.random() < weather.overtake:
            arrival += 3 * network.delay_ns()
        else:
            arrival = self._last_ns = max(arrival, self._last_ns + 1)
        peer = self.peer
        if network.through_codec:
            if isinstance(message, Hello):
                message = decode_hello(encode_hello(message))
            else:
                wire = b"".join(encode(message))
                peer.owner.later(arrival, lambda: peer._feed(wire), peer.incarnation)
                return
        peer.owner.later(arrival, lambda: peer._receive(message), peer.incarnation)

    def _feed(self, wire: bytes) -> None:
        self._decoder.max_frame_bytes = self.frame_limit()
        for message in self._decoder.feed(wire):
            self._receive(message)
        assert self._decoder.error is None

    def _receive(self, message: Any) -> None:
        if self.is_open:
            self.on_message(message)

    def close(self) -> None:
        """Close this end; the other hears of it, after what was sent, unless it is cut off."""
        if not self.is_open:
            return
        self.is_open = False
        self.tell_peer()

    def tell_peer(self) -> None:
        network, peer = self._network, self.peer
        if (self.owner.name, peer.owner.name) in network.cut:
            return
        arrival = max(network.loop.now_ns + network.delay_ns(), self._last_ns + 1)
        peer.owner.later(arrival, peer.lose, peer.incarnation)

    def lose(self) -> None:
        if self.is_open:
            self.is_open = False
            self.on_lost()


def connect(network: Network, client: Any, server: Any) -> End | None:
    """Both ends of a new connection, the client's; None: it does not come about."""
    if {(client.name, server.name), (server.name, client.name)} & network.cut or not server.alive:
        return None
    mine, theirs = End(network, client), End(network, server)
    mine.peer, theirs.peer = theirs, mine
    return mine
