"""What a machine asks of its shell: the shell does it and reports back through a method.

Owns the effects of both ends; not their order, which the machines keep. A method of a machine
returns a list of effects, to be done in that order. Those that read or write files may be done
elsewhere and later; each names the method that wants its outcome. A machine asks for one reading
of its files at a time.

Threading: frozen values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from marram.replication.messages import Batches, FromReplica, FromUpstream, Hello, Mark

Row = tuple[int, bytes, bytes, int, int]
"""(keyspace, key, value, deadline in ms or 0, type): what a store's snapshot is made of."""


class LogFrame(Protocol):
    """What a log's tail is read in: `count` batches from sequence `first_sequence` on.

    chain: the history checksum behind them; None where it has to be worked out.
    """

    @property
    def first_sequence(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def time_ms(self) -> int: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def chain(self) -> int | None: ...


# -- both ends' ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Put a message on the link."""

    message: FromReplica | FromUpstream | Hello


@dataclass(frozen=True, slots=True)
class Close:
    """Close the link once what was sent before is out, and let go of what it held. why: to log."""

    why: str


@dataclass(frozen=True, slots=True)
class FindMarks:
    """Look these places of one's own history up, then found()."""

    sequences: tuple[int, ...]


# -- the upstream's --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Admit:
    """The replica logged in: close the link it may have had before, and its row in AckRules."""

    node_id: bytes
    address: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep the log after this position for the replica (history.hold)."""

    after: int


@dataclass(frozen=True, slots=True)
class Acked:
    """The replica's position moved: for AckRules, and for the hold on the log."""

    received: int
    durable: int


@dataclass(frozen=True, slots=True)
class OpenTail:
    """Open the log after this position, then tail_opened(), or log_gone()."""

    after: int


@dataclass(frozen=True, slots=True)
class ReadTail:
    """Read about so much of the log, then frames(), or log_gone(), or failed()."""

    max_bytes: int


@dataclass(frozen=True, slots=True)
class PinState:
    """Pin the state and wait until its position is durable here, then pinned(), or failed().

    Durable, not committed: with an ack level the replica may be what commitment waits for.
    """


@dataclass(frozen=True, slots=True)
class ReadRows:
    """Read about so much of the pinned state, expired rows too, then rows(), or failed()."""

    max_bytes: int


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """Unpin the state."""


@dataclass(frozen=True, slots=True)
class HigherEpoch:
    """Somebody knows of an epoch above ours: a primary that hears it has been deposed.

    It must take no more writes until it was promoted anew, or follows another.
    """

    epoch: int


# -- the replica's ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect to the upstream, then connected(), or lost()."""


@dataclass(frozen=True, slots=True)
class Derive:
    """Derive the secret from the password and these parameters, then derived().

    They come from a stranger: refuse other costs than one's own, with failed().
    """

    parameters: bytes


@dataclass(frozen=True, slots=True)
class RaiseEpoch:
    """Make the epoch one's own, durably, then epoch_raised(), or failed()."""

    epoch: int


@dataclass(frozen=True, slots=True)
class SetAside:
    """Copy one's own batches after this position to a file, then was_set_aside(), or failed()."""

    after: int


@dataclass(frozen=True, slots=True)
class Append:
    """Append the batches to one's own log, then appended(), or failed()."""

    batches: Sequence[Batches]


@dataclass(frozen=True, slots=True)
class Committed:
    """The upstream's committed sequence: readers here may see no more (commit.set_bound)."""

    sequence: int


@dataclass(frozen=True, slots=True)
class FollowTime:
    """The upstream's store clock: the replica's must not be behind it, ms since 1970."""

    time_ms: int


@dataclass(frozen=True, slots=True)
class BeginInstall:
    """Begin to write a next generation from a snapshot at `mark` (store.install)."""

    store_id: bytes
    epoch: int
    mark: Mark
    time_ms: int


@dataclass(frozen=True, slots=True)
class InstallRows:
    """Add rows to it, then rows_added(), or failed()."""

    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class FinishInstall:
    """All rows are there: switch to it, then installed(), or failed()."""


@dataclass(frozen=True, slots=True)
class AbortInstall:
    """Forget it; the old state stays."""


Effect = (
    Send
    | Close
    | FindMarks
    | Admit
    | Hold
    | Acked
    | OpenTail
    | ReadTail
    | PinState
    | ReadRows
    | ReleaseState
    | HigherEpoch
    | Connect
    | Derive
    | RaiseEpoch
    | SetAside
    | Append
    | Committed
    | FollowTime
    | BeginInstall
    | InstallRows
    | FinishInstall
    | AbortInstall
)
