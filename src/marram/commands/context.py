"""What control handlers may touch: the session that asks, and the node's parts.

Owns the protocols; marram.node implements them. A data handler sees a View and nothing else; a
control handler, run(context, args), sees this. What is not here, a command cannot do: there is no
way to a socket, a file or the operating system.

Threading: everything on the thread that owns the store (the server's event loop).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from marram.coding.batch import Change
from marram.commands.spec import Command, Reply
from marram.protocol.replies import Push
from marram.storage.engine import Pin, Range
from marram.storage.store import Position
from marram.storage.verify import Report
from marram.storage.view import View

REPLY_ON: Final = 0
REPLY_OFF: Final = 1
REPLY_SKIP_NEXT: Final = 2  # CLIENT REPLY SKIP itself; becomes REPLY_SKIP
REPLY_SKIP: Final = 3  # the command whose reply is dropped


class Session(Protocol):
    """One client. Plain state; `update()` after changing protocol or reply_mode."""

    id: int
    address: str
    local_address: str
    created_ms: int
    name: bytes
    lib_name: bytes
    lib_version: bytes
    protocol: int  # 2 or 3
    authenticated: bool
    keyspace: int
    reply_mode: int  # REPLY_*
    no_evict: bool
    no_touch: bool
    depends_on: int  # the newest position its replies revealed or wrote
    channels: dict[bytes, None]
    patterns: dict[bytes, None]
    snapshots: dict[int, OpenSnapshot]
    close: Callable[[], None]  # once what it was answered, this answer included, is out

    @property
    def kind(self) -> str:
        """CLIENT LIST's TYPE: normal or pubsub."""
        ...

    @property
    def subscriptions(self) -> int:
        """Channels and patterns together."""
        ...

    @property
    def in_subscriber_mode(self) -> bool:
        """RESP2 with a subscription: most commands are refused."""
        ...

    def update(self) -> None:
        """Recompute what the fast path looks at."""
        ...

    def describe(self, now_ms: int) -> str:
        """The line that CLIENT LIST and CLIENT INFO print, without its end."""
        ...


class OpenSnapshot(Protocol):
    """A read view that a session holds (SNAPSHOT OPEN)."""

    pin: Pin
    keyspace: int
    now_ms: int  # when it was opened: what had expired then stays expired in it


class Clients(Protocol):
    """Everybody connected."""

    def __iter__(self) -> Iterator[Session]: ...
    def get(self, session_id: int) -> Session | None:
        """The session of that id, or None."""
        ...

    def kill(self, session: Session) -> None:
        """Disconnect a client."""
        ...

    def unblock(self, session: Session, *, with_error: bool) -> bool:
        """End a waiting command, as if its time were over or with an error; False: none waits."""
        ...

    def pause(self, duration_ms: int, *, writes_only: bool) -> None:
        """Hold commands back for a while; the longer and stricter of two pauses holds."""
        ...

    def unpause(self) -> None:
        """Let everybody go on."""
        ...


class Channels(Protocol):
    """Publish and subscribe."""

    def subscribe(self, session: Session, channel: bytes) -> None:
        """Add a channel. Raises CommandError: too many."""
        ...

    def unsubscribe(self, session: Session, channel: bytes) -> None:
        """Take a channel away; fine where it is not there."""
        ...

    def psubscribe(self, session: Session, pattern: bytes) -> None:
        """Add a pattern. Raises CommandError: too many."""
        ...

    def punsubscribe(self, session: Session, pattern: bytes) -> None:
        """Take a pattern away; fine where it is not there."""
        ...

    def names(self) -> Collection[bytes]:
        """Channels that have subscribers, in the order they got the first."""
        ...

    def count(self, channel: bytes) -> int:
        """Subscribers of one channel, patterns aside."""
        ...

    def num_patterns(self) -> int:
        """Different patterns subscribed to."""
        ...


class Transactions(Protocol):
    """MULTI and WATCH of the present session."""

    def begin(self, session: Session) -> None:
        """MULTI. Raises CommandError: nested."""
        ...

    def run(self, session: Session) -> Reply:
        """EXEC. Raises CommandError: no MULTI, or something was refused since."""
        ...

    def discard(self, session: Session) -> None:
        """DISCARD. Raises CommandError: no MULTI."""
        ...

    def watch(self, session: Session, keys: Sequence[bytes]) -> None:
        """WATCH. Raises CommandError: within MULTI, or too many keys."""
        ...

    def unwatch(self, session: Session) -> None:
        """Forget what it watches."""
        ...


class Parameters(Protocol):
    """CONFIG's table."""

    def get(self, patterns: Sequence[bytes]) -> dict[bytes, bytes]:
        """Names and values of the parameters that match a glob, any case."""
        ...

    def set(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Set all of them or, with CommandError, none."""
        ...


class SlowEntry(Protocol):
    """A command that took long."""

    number: int
    time_s: int
    elapsed_us: int
    args: list[bytes]
    address: str
    name: bytes


class SlowLog(Protocol):
    """SLOWLOG's ring."""

    def __len__(self) -> int: ...
    def newest(self, limit: int | None) -> Iterable[SlowEntry]:
        """Entries, newest first; None for all."""
        ...

    def clear(self) -> None:
        """Drop them all."""
        ...


class Latency(Protocol):
    """LATENCY's samples: per event (time, s; latency, ms), oldest first."""

    @property
    def threshold_ms(self) -> int:
        """What counts as slow; 0 while nothing is recorded."""
        ...

    def events(self) -> Mapping[str, Sequence[tuple[int, int]]]:
        """All samples by event."""
        ...

    def worst_ms(self, event: str) -> int:
        """The greatest latency of an event since it was reset."""
        ...

    def reset(self, event: str) -> bool:
        """Drop an event's samples; False where it has none."""
        ...


class Compaction(Protocol):
    """What an engine does to its tables of its own accord."""

    def set_paused(self, paused: bool) -> None:
        """Pause or resume it. Raises CommandError: this engine has no tables."""
        ...

    def status(self) -> dict[bytes, Any]:
        """What runs, and what is owed; bytes and rows of tables."""
        ...


class Upkeep(Protocol):
    """Work on the store beside commands. Replies may be deferred until it is done."""

    active_expiry: bool

    @property
    def compaction(self) -> Compaction:
        """What compacts the store's tables."""
        ...

    @property
    def last_save_s(self) -> int:
        """When a checkpoint last ended, or the node started; seconds since 1970."""
        ...

    @property
    def all_synced(self) -> bool:
        """Whether all that was written is known to be on disk."""
        ...

    def checkpoint(self, reply: Reply) -> Reply:
        """Make a checkpoint; deferred: `reply` after it, or an error."""
        ...

    def start_checkpoint(self) -> bool:
        """Begin one in the background; False where one is under way."""
        ...

    def backup(self, name: str, answer: Callable[[Position], Reply]) -> Reply:
        """Copy the store, as of now, to a new directory of that name; answer(its position).

        Raises CommandError: backups are off, or one is under way.
        """
        ...

    def verify(self, answer: Callable[[Report], Reply]) -> Reply:
        """Read every byte of the store's files; answer(the report)."""
        ...

    def compact(self, where: Range | None, answer: Callable[[str], Reply]) -> Reply:
        """Take out of the files what is of no use any more; answer(what was done, for people).

        where: only that range. Raises CommandError: compactions are paused, or one was asked for
        already.
        """
        ...

    def wait_committed(
        self, position: int, timeout_ms: int, answer: Callable[[bool], Reply]
    ) -> Reply:
        """answer(True) once `position` is committed, answer(False) when the time is over.

        timeout_ms: 0 for as long as it takes.
        """
        ...

    def wait_synced(self, timeout_ms: int, answer: Callable[[bool], Reply]) -> Reply:
        """answer(True) once all that was written so far is on disk, whatever the durability."""
        ...

    def sleep(self, duration_ms: int, answer: Callable[[bool], Reply]) -> Reply:
        """answer(False) after a while; 0 for never: until it is unblocked."""
        ...


class Logins(Protocol):
    """Who may do what."""

    @property
    def required(self) -> bool:
        """Whether new connections have to log in."""
        ...

    def check(
        self, session: Session, user: bytes, password: bytes, answer: Callable[[], Reply]
    ) -> Reply:
        """answer() once name and password are found right, else an error; mostly deferred."""
        ...


class Snapshots(Protocol):
    """The read views that sessions hold."""

    def open(self, session: Session, now_ms: int) -> int:
        """Pin the session's keyspace as it is; returns the snapshot's id. Raises CommandError."""
        ...

    def close(self, session: Session, snapshot_id: int) -> bool:
        """Let a snapshot go; False where there is none of that id."""
        ...

    def changed_since(
        self,
        snapshot: OpenSnapshot,
        keys: Sequence[bytes],
        ranges: Sequence[tuple[bytes, bytes | None]],
    ) -> bool:
        """Whether any of these was written after the snapshot was opened."""
        ...


class Replication(Protocol):
    """This server's place among primary and replicas. Replies may be deferred."""

    def follow(self, host: str, port: int) -> Reply:
        """Be a replica of the server whose frame port that is. Raises CommandError."""
        ...

    def promote(self) -> Reply:
        """Be the primary, in a new epoch. Raises CommandError."""
        ...

    def role(self) -> Reply:
        """What ROLE answers."""
        ...

    def count(self, position: int, *, on_disk: bool) -> int:
        """How many replicas have a position: applied, or on disk."""
        ...

    def wait_replicas(
        self,
        position: int,
        replicas: int,
        timeout_ms: int,
        answer: Callable[[int], Reply],
        *,
        on_disk: bool,
    ) -> Reply:
        """answer(how many replicas have a position) once `replicas` have, or the time is over.

        timeout_ms: 0 for as long as it takes. Raises CommandError: this is a replica.
        """
        ...

    def wait_position(
        self, epoch: int, sequence: int, timeout_ms: int, answer: Callable[[bool], Reply]
    ) -> Reply:
        """answer(whether the store came to a position in time)."""
        ...

    def ask_level(self, replicas: int, timeout_ms: int, *, on_disk: bool) -> None:
        """Have the session's next write wait for replicas. timeout_ms: 0 for the server's own."""
        ...


class Statistic(Protocol):
    """What was counted about one command."""

    @property
    def name(self) -> str:
        """Its name; a subcommand's with its container's: "client|list"."""
        ...

    @property
    def histogram_us(self) -> Sequence[int]:
        """Counts of timed calls: entry i is of those below 2**i microseconds; empty: not timed."""
        ...

    @property
    def calls(self) -> int:
        """How often it ran."""
        ...


class Table(Protocol):
    """The command table."""

    def __iter__(self) -> Iterator[Command]: ...
    def lookup(self, name: bytes) -> Command | None:
        """The row of a name, in any case."""
        ...

    def statistics(self) -> Iterator[Statistic]:
        """Counters, subcommands included, containers not."""
        ...


class Context(Protocol):
    """What a control handler is given."""

    @property
    def session(self) -> Session:
        """Who asks."""
        ...

    @property
    def view(self) -> View:
        """The session's keyspace, begun at now_ms; reads through it are waited for."""
        ...

    @property
    def now_ms(self) -> int:
        """The time the command runs at, ms since 1970."""
        ...

    @property
    def in_transaction(self) -> bool:
        """Whether EXEC runs it: it may not wait."""
        ...

    @property
    def clients(self) -> Clients: ...
    @property
    def channels(self) -> Channels: ...
    @property
    def transactions(self) -> Transactions: ...
    @property
    def parameters(self) -> Parameters: ...
    @property
    def slowlog(self) -> SlowLog: ...
    @property
    def latency(self) -> Latency: ...
    @property
    def upkeep(self) -> Upkeep: ...
    @property
    def table(self) -> Table: ...
    @property
    def logins(self) -> Logins: ...
    @property
    def snapshots(self) -> Snapshots: ...
    @property
    def replication(self) -> Replication: ...

    # -- the session -------------------------------------------------------------------------------

    def select(self, keyspace: int) -> None:
        """Change the session's keyspace."""
        ...

    def reset(self) -> None:
        """Bring the session back to how it began, RESET's way."""
        ...

    def monitor(self) -> None:
        """Show the session every command from now on."""
        ...

    def push(self, message: Push) -> None:
        """Send the session something beside its replies, in order with them."""
        ...

    # -- the store ---------------------------------------------------------------------------------

    def depend_on(self, position: int) -> None:
        """Hold the reply until `position` is committed."""
        ...

    def append(self, changes: list[Change]) -> int:
        """Log and apply one batch; the reply waits for it. Returns its sequence number.

        Raises CommandError where the store refuses.
        """
        ...

    def position(self, sequence: int) -> list[int]:
        """[epoch, sequence number]."""
        ...

    def newest_position(self) -> int:
        """The newest sequence number the session can know of: its own last, or the committed."""
        ...

    # -- the node ----------------------------------------------------------------------------------

    def publish(self, channel: bytes, message: bytes) -> int:
        """Send a message to subscribers; returns how many there are."""
        ...

    def random_number(self) -> int:
        """64 random bits."""
        ...

    def info(self, sections: Sequence[bytes]) -> bytes:
        """INFO's text."""
        ...

    def memory(self) -> dict[bytes, int | float]:
        """MEMORY STATS's figures, bytes where the name says nothing else."""
        ...

    def reset_statistics(self) -> None:
        """CONFIG RESETSTAT."""
        ...

    def shut_down(self, *, save: bool) -> None:
        """Ask the server to stop. Raises CommandError: nothing here can stop it."""
        ...
