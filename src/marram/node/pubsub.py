"""Publish and subscribe: who listens to which channels and patterns.

Owns the registry and delivery to sessions; not the subscribers' output limits, which are the
shell's, and not the commands.

B1  a session's own `channels` and `patterns` and this registry always say the same.
B2  a message is delivered to a session once for its channel and once for each matching pattern, in
    the order of publishing, and not before the position that its publisher depended on is
    committed: a message reveals what its sender knew.

Threading: the thread that owns the node.
"""

from __future__ import annotations

from collections.abc import Collection

from marram.commands.glob import Glob
from marram.commands.spec import CommandError
from marram.node.session import Session
from marram.node.settings import Settings
from marram.protocol.replies import Push


class Channels:
    """The registry."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._channels: dict[bytes, dict[Session, None]] = {}
        self._patterns: dict[bytes, tuple[Glob, dict[Session, None]]] = {}

    # -- subscribing -------------------------------------------------------------------------------

    def subscribe(self, session: Session, channel: bytes) -> None:
        """Add a channel. Raises CommandError: too many."""
        if channel not in session.channels:
            self._check_room(session)
            session.channels[channel] = None
            self._channels.setdefault(channel, {})[session] = None
            session.update()

    def unsubscribe(self, session: Session, channel: bytes) -> None:
        """Take a channel away; fine where it is not there."""
        if channel in session.channels:
            del session.channels[channel]
            listeners = self._channels[channel]
            del listeners[session]
            if not listeners:
                del self._channels[channel]
            session.update()

    def psubscribe(self, session: Session, pattern: bytes) -> None:
        """Add a pattern. Raises CommandError: too many."""
        if pattern not in session.patterns:
            self._check_room(session)
            if pattern not in self._patterns:
                self._patterns[pattern] = (Glob(pattern), {})
            session.patterns[pattern] = None
            self._patterns[pattern][1][session] = None
            session.update()

    def punsubscribe(self, session: Session, pattern: bytes) -> None:
        """Take a pattern away; fine where it is not there."""
        if pattern in session.patterns:
            del session.patterns[pattern]
            listeners = self._patterns[pattern][1]
            del listeners[session]
            if not listeners:
                del self._patterns[pattern]
            session.update()

    def drop(self, session: Session) -> None:
        """End all of a session's subscriptions."""
        for channel in list(session.channels):
            self.unsubscribe(session, channel)
        for pattern in list(session.patterns):
            self.punsubscribe(session, pattern)

    # -- publishing --------------------------------------------------------------------------------

    def audience(self, channel: bytes) -> int:
        """How many deliveries a message to the channel makes."""
        found = self.count(channel)
        for glob, listeners in self._patterns.values():
            if glob.matches(channel):
                found += len(listeners)
        return found

    def deliver(self, channel: bytes, message: bytes, position: int) -> int:
        """Send a message to all who listen, after `position`; returns the deliveries (B2)."""
        found = 0
        listeners = self._channels.get(channel)
        if listeners:
            push = Push([b"message", channel, message])
            for session in list(listeners):  # a push may close a session that reads too slowly
                session.push(push, position)
                found += 1
        for pattern, (glob, sessions) in list(self._patterns.items()):
            if glob.matches(channel):
                push = Push([b"pmessage", pattern, channel, message])
                for session in list(sessions):
                    session.push(push, position)
                    found += 1
        return found

    # -- figures -----------------------------------------------------------------------------------

    def names(self) -> Collection[bytes]:
        """Channels that have subscribers."""
        return self._channels.keys()

    def count(self, channel: bytes) -> int:
        """Subscribers of one channel, patterns aside."""
        return len(self._channels.get(channel, ()))

    def num_patterns(self) -> int:
        """Different patterns subscribed to."""
        return len(self._patterns)

    def _check_room(self, session: Session) -> None:
        limit = self._settings.max_subscriptions
        if session.subscriptions >= limit:
            raise CommandError(f"ERR a connection may have {limit} subscriptions")

    def _check(self) -> None:
        """Verify B1; tests call it after every step."""
        for channel, listeners in self._channels.items():
            assert listeners, "B1: a channel without listeners is forgotten"
            assert all(channel in session.channels for session in listeners), "B1"
        for pattern, (_, sessions) in self._patterns.items():
            assert sessions, "B1: a pattern without listeners is forgotten"
            assert all(pattern in session.patterns for session in sessions), "B1"
