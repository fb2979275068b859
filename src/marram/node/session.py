"""Session: the state of one client, whichever protocol it speaks.

Owns plain state and how it is printed; what changes it is the commands' and the node's business.

N1  `guarded` is true whenever a command of this session needs more than the fast path: it is not
    logged in, is in MULTI, in RESP2 subscriber mode, its replies are suppressed, or its next write
    asks for an ack level. Whoever changes one of these calls update().

Threading: the thread that owns the node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from marram.commands.context import REPLY_ON
from marram.storage.engine import Pin
from marram.storage.view import View

if TYPE_CHECKING:
    from marram.node.deferred import Deferred
    from marram.node.rows import Row

Push = Callable[[Any, int], None]
"""push(message, position): send it, in order with the replies, once `position` is committed."""


class OpenSnapshot(NamedTuple):
    """A read view the session holds."""

    pin: Pin
    keyspace: int
    now_ms: int  # of its opening: what was expired then stays so


class AckWish(NamedTuple):
    """The ack level a session asks for its next write (ACKS). timeout_ms: 0 for the server's."""

    replicas: int
    on_disk: bool
    timeout_ms: int


class Buffers(NamedTuple):
    """What a shell holds for a connection, bytes."""

    unparsed: int = 0
    unsent: int = 0


class Session:
    """One client."""

    __slots__ = (
        "acks",
        "address",
        "authenticated",
        "blocked",
        "buffers",
        "channels",
        "close",
        "created_ms",
        "depends_on",
        "failed_logins",
        "guarded",
        "id",
        "keyspace",
        "last_ms",
        "last_row",
        "lib_name",
        "lib_version",
        "local_address",
        "monitoring",
        "name",
        "next_snapshot",
        "no_evict",
        "no_touch",
        "on_authenticated",
        "patterns",
        "protocol",
        "push",
        "queue",
        "queue_bytes",
        "queue_refused",
        "reply_mode",
        "snapshots",
        "touched",
        "view",
        "watched",
    )

    def __init__(
        self,
        session_id: int,
        address: str,
        local_address: str,
        push: Push,
        close: Callable[[], None],
        view: View,
        now_ms: int,
    ) -> None:
        """push, close: the shell's, see Push; close() ends it once all replies are out."""
        self.id = session_id
        self.address = address
        self.local_address = local_address
        self.push = push
        self.close = close
        self.created_ms = now_ms
        self.last_ms = now_ms  # of its last command
        self.last_row: Row | None = None
        self.buffers: Callable[[], Buffers] = Buffers  # the shell may put its own in
        self.on_authenticated: Callable[[], None] | None = None  # likewise
        self.authenticated = False
        self.failed_logins = 0
        self.depends_on = 0
        self.lib_name = b""
        self.lib_version = b""
        self.no_evict = False
        self.no_touch = False
        self.monitoring = False
        self.blocked: Deferred | None = None
        self.channels: dict[bytes, None] = {}
        self.patterns: dict[bytes, None] = {}
        self.snapshots: dict[int, OpenSnapshot] = {}
        self.next_snapshot = 1
        self.watched: dict[tuple[int, bytes], int] = {}  # deadline when WATCH saw it, or 0
        self.touched = False  # one of them was written
        self.queue: list[tuple[Row, list[bytes]]] | None = None  # None: not in MULTI
        self.queue_bytes = 0
        self.queue_refused = False  # something was, so EXEC will be
        self.keyspace = 0
        self.view = view
        self.name = b""
        self.protocol = 2
        self.reply_mode = REPLY_ON
        self.acks: AckWish | None = None
        self.guarded = True
        self.update()

    @property
    def subscriptions(self) -> int:
        """Channels and patterns together."""
        return len(self.channels) + len(self.patterns)

    @property
    def in_subscriber_mode(self) -> bool:
        """RESP2 with a subscription: most commands are refused."""
        return self.protocol == 2 and bool(self.channels or self.patterns)

    @property
    def kind(self) -> str:
        """CLIENT LIST's TYPE."""
        return "pubsub" if self.channels or self.patterns else "normal"

    def update(self) -> None:
        """Keep N1."""
        self.guarded = (
            not self.authenticated
            or self.queue is not None
            or self.reply_mode != REPLY_ON
            or self.acks is not None
            or self.in_subscriber_mode
        )

    def end(self) -> None:
        """Let go of the shell, which holds the session: so no cycle is left to be collected."""
        self.push = _to_nobody
        self.close = _already
        self.buffers = Buffers
        self.on_authenticated = None
        self.blocked = None

    def describe(self, now_ms: int) -> str:
        """CLIENT LIST's line, as Redis 7.2 prints it; figures marram has not are 0."""
        unparsed, unsent = self.buffers()
        row = self.last_row
        multi = -1 if self.queue is None else len(self.queue)
        fields = {
            "id": self.id,
            "addr": self.address,
            "laddr": self.local_address,
            "fd": 0,
            "name": _text(self.name),
            "age": max(0, now_ms - self.created_ms) // 1000,
            "idle": max(0, now_ms - self.last_ms) // 1000,
            "flags": self._flags(),
            "db": self.keyspace,
            "sub": len(self.channels),
            "psub": len(self.patterns),
            "ssub": 0,
            "multi": multi,
            "watch": len(self.watched),
            "qbuf": unparsed,
            "qbuf-free": 0,
            "argv-mem": 0,
            "multi-mem": self.queue_bytes,
            "rbs": 0,
            "rbp": 0,
            "obl": 0,
            "oll": int(unsent > 0),
            "omem": unsent,
            "tot-mem": unparsed + unsent + self.queue_bytes,
            "events": "rw" if unsent else "r",
            "cmd": "NULL" if row is None else row.name,
            "user": "default",
            "redir": -1,
            "resp": self.protocol,
            "lib-name": _text(self.lib_name),
            "lib-ver": _text(self.lib_version),
        }
        return " ".join(f"{name}={value}" for name, value in fields.items())

    def _flags(self) -> str:
        letters = ""
        if self.monitoring:
            letters += "O"
        if self.channels or self.patterns:
            letters += "P"
        if self.queue is not None:
            letters += "x"
        if self.blocked is not None:
            letters += "b"
        if self.touched:
            letters += "d"
        if self.no_evict:
            letters += "e"
        if self.no_touch:
            letters += "T"
        return letters or "N"


def _to_nobody(message: Any, position: int) -> None:
    """The push of a session that ended."""


def _already() -> None:
    """Its close."""


def _text(name: bytes) -> str:
    return name.decode("ascii", "replace")
