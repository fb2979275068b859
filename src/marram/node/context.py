"""What control handlers see of the node (commands.context.Context).

Owns nothing: it hands out the node's parts, and holds the few verbs that touch several of them.

Threading: the thread that owns the node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from marram.coding.batch import KEYSPACES, Change
from marram.commands.context import REPLY_ON
from marram.commands.scan import ScanCursors
from marram.commands.spec import CommandError
from marram.node import info
from marram.node.session import Session
from marram.protocol.replies import Push
from marram.storage.view import View

if TYPE_CHECKING:
    from marram.node.node import Node


class NodeContext:
    """One a node; `session` changes from command to command."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.clients = node.clients
        self.channels = node.channels
        self.transactions = node.transactions
        self.parameters = node.parameters
        self.slowlog = node.slowlog
        self.latency = node.latency
        self.upkeep = node.upkeep
        self.table = node.rows
        self.logins = node.logins
        self.snapshots = node.snapshots
        self.replication = node.replication
        self.cursors = ScanCursors(seed=node.env.random_bytes(32))

    @property
    def session(self) -> Session:
        """Who asks."""
        return self._node.session

    @property
    def view(self) -> View:
        """The session's keyspace, begun at now_ms."""
        return self._node.session.view

    @property
    def now_ms(self) -> int:
        """The time the command runs at."""
        return self._node.now_ms

    @property
    def in_transaction(self) -> bool:
        """Whether EXEC runs it."""
        return self._node.transactions.execution is not None

    # -- the session -------------------------------------------------------------------------------

    def select(self, keyspace: int) -> None:
        """Change the session's keyspace. Raises CommandError: there is none of that number."""
        if not 0 <= keyspace < KEYSPACES:
            raise CommandError("ERR DB index is out of range")
        self._node.select(self.session, keyspace)

    def reset(self) -> None:
        """Bring the session back to how it began."""
        node, session = self._node, self.session
        node.transactions.forget(session)
        node.channels.drop(session)
        node.snapshots.close_all(session)
        node.stop_monitoring(session)
        node.select(session, 0)
        session.name = b""
        session.protocol = 2
        session.reply_mode = REPLY_ON
        session.acks = None
        session.no_evict = session.no_touch = False
        session.authenticated = not node.logins.required
        session.update()

    def monitor(self) -> None:
        """Show the session every command from now on."""
        self._node.monitor(self.session)

    def push(self, message: Push) -> None:
        """Send the session something beside its replies, in order with them."""
        self.session.push(message, 0)

    # -- the store ---------------------------------------------------------------------------------

    def depend_on(self, position: int) -> None:
        """Hold the reply until `position` is committed."""
        self._node.depend_on(position)

    def append(self, changes: list[Change]) -> int:
        """Log and apply one batch; returns its sequence number."""
        return self._node.append(self.session, changes)

    def position(self, sequence: int) -> list[int]:
        """[epoch, sequence number]."""
        return [self._node.store.epoch, sequence]

    def newest_position(self) -> int:
        """The newest sequence number the session can know of: its own last, or the committed."""
        return max(self.session.depends_on, self._node.store.committed)

    # -- the node ----------------------------------------------------------------------------------

    def publish(self, channel: bytes, message: bytes) -> int:
        """Send a message to subscribers; in a transaction, at its end."""
        node = self._node
        execution = node.transactions.execution
        if execution is not None:
            execution.messages.append((channel, message))
            return node.channels.audience(channel)
        return node.channels.deliver(channel, message, self.session.depends_on)

    def random_number(self) -> int:
        """64 random bits."""
        return int.from_bytes(self._node.env.random_bytes(8), "little")

    def info(self, sections: Sequence[bytes]) -> bytes:
        """INFO's text."""
        return info.text(self._node, sections)

    def memory(self) -> dict[bytes, int | float]:
        """MEMORY STATS's figures."""
        return info.memory(self._node)

    def reset_statistics(self) -> None:
        """CONFIG RESETSTAT."""
        self._node.reset_statistics()

    def shut_down(self, *, save: bool) -> None:
        """Ask the server to stop. Raises CommandError: nothing here can stop it."""
        if self._node.on_shutdown is None:
            raise CommandError("ERR SHUTDOWN is not available here")
        self._node.on_shutdown(save)
