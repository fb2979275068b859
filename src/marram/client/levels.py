"""What a call may ask of replicas: how many have to have a write, how fresh a read has to be.

Owns Acks, and the commands that go before a call; what they mean is the server's
(commands/replication.py).

Threading: immutable values and pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from marram.client.calls import Call, read_int, read_ok
from marram.errors import Behind, InvalidArgument
from marram.protocol.replies import Reply
from marram.storage.store import Position

T = TypeVar("T")

_WAIT_MS = 5000
_REPLICAS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Acks:
    """How many replicas a write has to reach before it returns, and before anybody reads it.

    replicas: 1 .. 1000. on_disk: whether they have to have it on disk; else applied is enough.
    timeout_s: how long to wait, seconds; None for as long as the server waits by default.
    """

    replicas: int
    on_disk: bool = True
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.replicas, bool) or not isinstance(self.replicas, int):
            raise InvalidArgument(f"acks is a number of replicas, not {self.replicas!r}")
        if not 0 <= self.replicas <= _REPLICAS_MAX:
            raise InvalidArgument(f"acks must be 0 .. {_REPLICAS_MAX}, not {self.replicas}")
        if self.timeout_s is not None and not 0 < self.timeout_s <= 10**6:
            raise InvalidArgument(f"timeout_s must be positive, not {self.timeout_s!r}")


def checked_acks(acks: int | Acks) -> Acks:
    """Acks, of a number as well. Raises InvalidArgument."""
    return acks if isinstance(acks, Acks) else Acks(acks)


def acked(call: Call[T], acks: int | Acks) -> Call[T]:
    """A write that waits for so many replicas. Raises InvalidArgument."""
    wanted = checked_acks(acks)
    if not wanted.replicas or not call.commands:
        return call
    command = [b"ACKS", b"%d" % wanted.replicas, b"DISK" if wanted.on_disk else b"RECEIVED"]
    if wanted.timeout_s is not None:
        command += (b"TIMEOUT", b"%d" % max(1, round(wanted.timeout_s * 1000)))

    def read(replies: list[Reply]) -> T:
        read_ok(replies)
        return call.read(replies[1:])

    return Call([command, *call.commands], read, call.writes, call.patient)


def wait_position(position: Position, wait_ms: int) -> Call[bool]:
    """WAITPOS: whether the server came to a position in time. Raises InvalidArgument."""
    epoch, sequence = _checked(position)
    command = (b"WAITPOS", b"%d-%d" % (epoch, sequence), b"%d" % wait_ms)
    return Call([command], lambda replies: read_int(replies) != 0)


def reached(call: Call[T], position: Position | None, timeout_s: float | None) -> Call[T]:
    """A read of a state that holds a position. Its reading raises Behind."""
    if position is None:
        return call
    wait = wait_position(position, wait_ms_of(timeout_s))

    def read(replies: list[Reply]) -> T:
        if not wait.read(replies[:1]):
            raise behind(position)
        return call.read(replies[1:])

    return Call([*wait.commands, *call.commands], read, call.writes, call.patient)


def wait_ms_of(timeout_s: float | None) -> int:
    """How long a server may wait, so that its answer comes before the client gives it up."""
    return _WAIT_MS if timeout_s is None else max(1, min(_WAIT_MS, round(timeout_s * 500)))


def behind(position: Position) -> Behind:
    """The server did not come to a position in time."""
    return Behind(f"the server is behind position {position[0]}-{position[1]}, and stayed so")


def _checked(position: Any) -> tuple[int, int]:
    if not isinstance(position, tuple) or len(position) != 2:
        raise InvalidArgument(f"at_least is a Position, not {position!r}")
    for number in position:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**63:
            raise InvalidArgument(f"at_least is a Position, not {position!r}")
    return position
