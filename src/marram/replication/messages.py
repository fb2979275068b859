"""What a replica and its upstream say to each other, as values.

Owns the messages, the codes of refusals and what a message weighs in flow control; not their bytes
(codec.py), not who says what when (primary.py, replica.py; docs/protocols/replication.md).

An *upstream* is whoever feeds a replica: the primary, or a replica in a chain. A *link* is one
connection between the two.

Threading: frozen values.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

VERSION: Final = 1
"""The newest version of the protocol this module speaks; it speaks no older one."""

ID_BYTES: Final = 16
NONCE_BYTES: Final = 16
PROOF_BYTES: Final = 32
MARKS_MAX: Final = 32
"""Marks in one Compare, at most."""
ROUTE_MAX: Final = 64
"""Run ids in a Welcome, at most: a circle of more replicas is not found."""
TEXT_BYTES_MAX: Final = 1024
"""Bytes of any text in a message."""
MESSAGE_OVERHEAD_BYTES: Final = 64
"""What a message weighs in flow control beside its payload: more than its header."""
MAX_FRAME_BYTES: Final = 1 << 30
"""The default limit of a frame's size: a batch of 1 GiB. The format's own is 4 GiB - 1."""
GREETING_FRAME_BYTES: Final = 4096
"""The limit before both ends know each other, and always of what a replica sends."""
NO_STORE: Final = bytes(ID_BYTES)
"""The store id of a replica that has none of its own yet."""


class Mark(NamedTuple):
    """A place in a history and what the history up to there is.

    epoch: of batch `sequence`; 0 before the first one. chain: CRC-32 over the bytes of all batches
    up to and including it. Two histories agree up to a sequence if their marks there are equal.
    """

    epoch: int
    sequence: int
    chain: int


class Code(IntEnum):
    """Why an end refuses to go on. Numbers are never reused."""

    UNKNOWN_VERSION = 1
    SELF = 2  # the replica is pointed at itself
    WRONG_PASSWORD = 3
    FOREIGN_STORE = 4
    LOWER_EPOCH = 5
    BEHIND = 6  # the upstream has less than the replica: not diverged, not of use yet
    DIVERGED = 7  # batches that do not continue the replica's history
    GAP = 8  # a message, or a batch, is missing or came twice
    TOO_LARGE = 9
    MALFORMED = 10
    LOG_GONE = 11  # the upstream's log does not reach the replica's position any more
    RESTART = 12  # the upstream changed its role, its epoch or its history: shake hands again
    SILENT = 13
    DISPLACED = 14  # the same replica has connected once more
    BUSY = 15  # more replicas than the upstream takes
    FAILED = 16  # the end that says so cannot read or write its own files


class Plan(IntEnum):
    """How a replica is brought up to date. Numbers are never reused."""

    TAIL = 1  # its history is a prefix of the upstream's, whose log continues it
    FULL = 2  # by a snapshot, and then the tail


# -- the replica's ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message: the value of the request. oldest, newest: versions spoken.

    nonce: 16 random bytes; run_id: 16 bytes, new with every start of the process.
    """

    oldest: int
    newest: int
    nonce: bytes
    run_id: bytes


@dataclass(frozen=True, slots=True)
class Login:
    """Who the replica is and what it has.

    proof: credentials.prove(), or zeros where no password is asked for. store_id: NO_STORE for an
    empty store, which takes the upstream's id. node_id: 16 bytes that stay with the replica from
    start to start. epoch: the highest it knows of; newest: its last durable batch; oldest: up to
    which sequence its log is gone. window_bytes: how much it lets be on its way. address: where it
    serves others ("host:port"), or "".
    """

    proof: bytes
    store_id: bytes
    node_id: bytes
    epoch: int
    newest: Mark
    oldest: int
    window_bytes: int
    address: str


@dataclass(frozen=True, slots=True)
class Agreed:
    """Answers Compare: index of the last mark that is in the replica's history; None: none is."""

    index: int | None


@dataclass(frozen=True, slots=True)
class Preparing:
    """Between Welcome and Ready, which may take a while: the replica is still there."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The replica did what Welcome asked of it: the stream may begin."""


@dataclass(frozen=True, slots=True)
class Ack:
    """How far the replica is; all three only ever grow within a link.

    received: the last batch it has applied; durable: the last one that is on its disk; consumed:
    what it has dealt with of the stream, in weight_of(), since Ready.
    """

    received: int
    durable: int
    consumed: int


# -- the upstream's --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Challenge:
    """The answer to Hello. parameters: how to derive the secret from the password; b"": none asked.

    Form of the parameters: "scrypt$<log2 n>$<block>$<parallel>$<salt, base64>".
    """

    version: int
    nonce: bytes
    run_id: bytes
    parameters: bytes


@dataclass(frozen=True, slots=True)
class Compare:
    """Marks of the upstream's history, ascending, 1 to MARKS_MAX: which are in the replica's?"""

    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Welcome:
    """What will happen. After it the replica answers Ready.

    proof: the upstream's own; zeros without a password. epoch: its epoch, which the replica makes
    its own, durably, before Ready. newest: its last durable batch. plan: see Plan. aside: for a
    full sync, the replica's batches after this sequence are not known to be in the upstream's
    history: it sets them aside before Ready; None: there are none. primary: where the primary
    serves clients, or "". heartbeat_ms: how often it is heard of at least. route: run ids on the
    way to the primary, the upstream's first, ROUTE_MAX at most: a replica that finds its own is in
    a circle.
    """

    proof: bytes
    store_id: bytes
    epoch: int
    newest: Mark
    plan: Plan
    aside: int | None
    primary: str
    heartbeat_ms: int
    route: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Batches:
    """Batches as they are in the log: some small frames of it, or a part of a large one.

    They are `count` batches from sequence `first` on, written in `epoch`, the last at `time_ms`.
    committed: the upstream's committed sequence; chain: of the mark at the last batch, which checks
    payload and history at once.
    """

    first: int
    count: int
    epoch: int
    time_ms: int
    committed: int
    chain: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Sent every heartbeat_ms, and whenever `committed` moved and no batch tells of it.

    newest: the upstream's last durable sequence; time_ms: its store clock; stream: how many
    messages of the stream it has sent since Ready. behind_bytes, behind_ms: what the replica has
    not acknowledged as durable, and the age of the oldest batch of that.
    """

    newest: int
    committed: int
    time_ms: int
    stream: int
    behind_bytes: int
    behind_ms: int


@dataclass(frozen=True, slots=True)
class SnapshotBegin:
    """A full sync begins: the state at `mark`. rows: about how many; time_ms: of the state."""

    mark: Mark
    time_ms: int
    rows: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a snapshot, in table order, as one batch of PUTs. number: 0, 1, 2, ..."""

    number: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    """All rows were sent. lists: how many Rows; checksum: CRC-32 over all their payloads."""

    lists: int
    checksum: int


# -- either side's ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the sender ends the link; the last message. epoch: the sender's. text: for people."""

    code: Code
    epoch: int
    text: str


FromReplica = Login | Agreed | Preparing | Ready | Ack | Refusal
FromUpstream = (
    Challenge
    | Compare
    | Welcome
    | Batches
    | Heartbeat
    | SnapshotBegin
    | Rows
    | SnapshotEnd
    | Refusal
)
Message = FromReplica | FromUpstream
Streamed = Batches | SnapshotBegin | Rows | SnapshotEnd
"""What counts for flow control."""


def weight_of(message: Streamed) -> int:
    """What a message takes of the window, bytes."""
    if isinstance(message, Batches | Rows):
        return len(message.payload) + MESSAGE_OVERHEAD_BYTES
    return MESSAGE_OVERHEAD_BYTES
