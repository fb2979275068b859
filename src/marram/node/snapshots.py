"""The snapshots that sessions hold: opening, closing, and their limits.

Owns their ids and their end; reading from them is the commands' (commands/snapshots.py).

P1  a session holds at most settings.max_snapshots, each for at most settings.snapshot_age_s: old
    versions of keys are kept for as long as one is open.
P2  every snapshot is released once, whichever way it ends.

Threading: the thread that owns the node.
"""

from __future__ import annotations

from collections.abc import Sequence

from marram.commands.context import OpenSnapshot as AnySnapshot
from marram.commands.spec import CommandError
from marram.node.session import OpenSnapshot, Session
from marram.node.settings import Settings
from marram.storage.store import Store


class Snapshots:
    """Opens and closes snapshots for sessions."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._holders: dict[Session, None] = {}  # sessions that have any

    def open(self, session: Session, now_ms: int) -> int:
        """Pin the session's keyspace as it is; returns the snapshot's id. Raises CommandError."""
        limit = self._settings.max_snapshots
        if len(session.snapshots) >= limit:
            raise CommandError(f"ERR a connection may have {limit} snapshots")
        pin = self._store.snapshot()
        snapshot_id = session.next_snapshot
        session.next_snapshot += 1
        session.snapshots[snapshot_id] = OpenSnapshot(pin, session.keyspace, now_ms)
        self._holders[session] = None
        return snapshot_id

    def close(self, session: Session, snapshot_id: int) -> bool:
        """Let a snapshot go; False where there is none of that id."""
        snapshot = session.snapshots.pop(snapshot_id, None)
        if snapshot is None:
            return False
        if not session.snapshots:
            del self._holders[session]
        if self._store.closed is None:
            self._store.release(snapshot.pin)
        return True

    def close_all(self, session: Session) -> None:
        """Let all of a session's go."""
        for snapshot_id in list(session.snapshots):
            self.close(session, snapshot_id)

    def close_old(self, now_ms: int) -> None:
        """Let those go that are too old, whosever they are (P1)."""
        born_by_ms = now_ms - 1000 * self._settings.snapshot_age_s
        for session in list(self._holders):
            for snapshot_id, snapshot in list(session.snapshots.items()):
                if snapshot.now_ms <= born_by_ms:
                    self.close(session, snapshot_id)

    def num_open(self) -> int:
        """Snapshots open now, of all sessions."""
        return sum(len(session.snapshots) for session in self._holders)

    def changed_since(
        self,
        snapshot: AnySnapshot,
        keys: Sequence[bytes],
        ranges: Sequence[tuple[bytes, bytes | None]],
    ) -> bool:
        """Whether any of these was written after the snapshot was opened."""
        keyspace = snapshot.keyspace
        return self._store.changed_since(
            snapshot.pin,
            [(keyspace, key) for key in keys],
            [(keyspace, start, stop) for start, stop in ranges],
        )
