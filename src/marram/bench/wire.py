"""What the load generator needs of a protocol: requests as bytes, and replies that are counted.

Owns the interface and the table of protocols; wire_resp.py, wire_http.py and wire_frames.py are
those. One more protocol is one more module, and one more row of `make_wire`; everything else asks
this interface. One that is not a stream of requests and replies in order would need its own
driver.py beside it.

W1  feed() never raises for an error reply, and never loses count: replies are skipped, not read.
W2  what feed() counts does not depend on how the bytes were cut.

Threading: wires are values; a `Replies` belongs to its connection.
"""

from __future__ import annotations

from typing import Protocol

from marram.bench.target import Place


class Replies(Protocol):
    """Counts the replies of one connection."""

    errors: int
    """Replies that were errors, so far."""
    misses: int
    """Replies that said there is no such key, so far."""
    last_error: str
    """The latest error's text."""

    def feed(self, data: bytes) -> int:
        """How many replies `data` completes. Raises ProtocolError: these are no replies."""
        ...


class Wire(Protocol):
    """A protocol's requests."""

    name: str
    scans: bool
    """Whether it has ranges: scan() may be called."""

    def greeting(self) -> tuple[bytes, int]:
        """What a connection says first, and how many replies that brings; an error ends it."""
        ...

    def get(self, key: bytes) -> bytes:
        """A request for a value."""
        ...

    def put(self, key: bytes, value: bytes) -> bytes:
        """A request that sets a value."""
        ...

    def scan(self, key: bytes, count: int) -> bytes:
        """A request for the first `count` records from `key` on."""
        ...

    def replies(self) -> Replies:
        """A counter for a new connection."""
        ...


def make_wire(place: Place) -> Wire:
    """The protocol that a place speaks."""
    if place.protocol == "http":
        from marram.bench.wire_http import HttpWire

        return HttpWire(place.target)
    if place.protocol == "frame":
        from marram.bench.wire_frames import FrameWire

        return FrameWire(place.target)
    from marram.bench.wire_resp import RespWire

    return RespWire(place.target)
