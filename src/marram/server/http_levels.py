"""What a request's headers ask of replicas: how fresh a read is, how many must have a write.

    X-Marram-Min-Position: 1-42      read a state that holds this position (a write's answer)
    X-Marram-Acks: 2                 answer, and show anybody, only once so many replicas have it
    X-Marram-Ack-Level: received     ... have applied it; disk, which is the default: durably
    X-Marram-Wait-Ms: 500            how long to wait for either; else the server's --ack-timeout-s

Owns the headers' syntax; what they mean is the node's (node/replication).

Threading: pure functions.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from starlette.requests import Request

from marram.node.session import AckWish
from marram.server.http_json import bad_request

MIN_POSITION: Final = "X-Marram-Min-Position"
ACKS: Final = "X-Marram-Acks"
ACK_LEVEL: Final = "X-Marram-Ack-Level"
WAIT_MS: Final = "X-Marram-Wait-Ms"
PRIMARY: Final = "X-Marram-Primary"

WAIT_MS_MAX: Final = 3_600_000
_REPLICAS_MAX: Final = 1000
_POSITION: Final = re.compile(r"([0-9]{1,19})-([0-9]{1,19})", re.ASCII)


class Wanted(NamedTuple):
    """What the headers say. position: (epoch, sequence); wait_ms: 0 for the server's own limit."""

    position: tuple[int, int] | None
    acks: AckWish | None
    wait_ms: int


def read_levels(request: Request, *, writes: bool) -> Wanted:
    """The headers of a request; writes: whether it is one. Raises HttpError."""
    wait_ms = _number(request, WAIT_MS, WAIT_MS_MAX)
    replicas = _number(request, ACKS, _REPLICAS_MAX)
    level = _once(request, ACK_LEVEL)
    if level not in (None, "received", "disk"):
        raise bad_request(f"{ACK_LEVEL} must be received or disk")
    if (replicas or level) and not writes:
        raise bad_request(f"{ACKS} is for writes; a read takes {MIN_POSITION}")
    if level and not replicas:
        raise bad_request(f"{ACK_LEVEL} says what {ACKS} replicas have to have done, and there is "
                          "none of the latter")  # fmt: skip
    acks = AckWish(replicas, level != "received", wait_ms) if replicas else None
    text = _once(request, MIN_POSITION)
    position = None
    if text is not None:
        match = _POSITION.fullmatch(text)
        if match is None:
            raise bad_request(f"{MIN_POSITION} must be epoch-sequence, for instance 1-42")
        position = (int(match[1]), int(match[2]))
    return Wanted(position, acks, wait_ms)


def _number(request: Request, name: str, most: int) -> int:
    text = _once(request, name)
    if text is None:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and int(text) <= most):
        raise bad_request(f"{name} must be a number from 0 to {most}")
    return int(text)


def _once(request: Request, name: str) -> str | None:
    found = request.headers.getlist(name)
    if len(found) > 1:
        raise bad_request(f"{name} is given more than once")
    return found[0].strip() if found else None
