"""MULTI ... EXEC: a queue of commands that runs as one batch.

Owns the queue's life, the batch and the order of its effects; WATCH is kept in watches.py.

X1  all changes of one EXEC are one batch in the log: a crash keeps all of them or none.
X2  each command sees the effects of those before it. One that fails, fails alone, as in Redis: the
    others' changes stay. Only where the store has no room, or has failed, nothing stays.
X3  what leaves the node because of a transaction (messages, replies) waits for its batch.
X4  who watches a key is told of a transaction's changes once they are certain.

Threading: the thread that owns the node; the store's lock is held from the first change to the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from marram.coding.batch import Change
from marram.commands.spec import CommandError
from marram.errors import Error
from marram.node.rows import Row
from marram.node.session import Session
from marram.node.watches import Watches
from marram.protocol.replies import NULL_ARRAY, QUEUED, ErrorReply, Reply
from marram.storage.store import Store, Unit

if TYPE_CHECKING:
    from marram.node.node import Node

_ARG_OVERHEAD: Final = 64  # bytes an argument costs beyond its own

ABORTED: Final = "EXECABORT Transaction discarded because of previous errors."


class Aborted(Exception):
    """The store refused a change: the whole transaction is undone. Its text is an error reply."""


class Execution:
    """One EXEC under way."""

    __slots__ = ("_store", "_unit", "messages", "touched")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._unit: Unit | None = None
        self.messages: list[tuple[bytes, bytes]] = []  # published, to be delivered at its end
        self.touched: set[Session] = set()

    def apply(self, changes: list[Change]) -> None:
        """Apply changes, to be logged at the end. Raises Error: undo everything."""
        if self._unit is None:
            self._unit = self._store.begin()
        self._unit.apply(changes)

    def commit(self) -> int:
        """Log all as one batch; returns its position, 0 for none. Raises Error: all undone."""
        unit, self._unit = self._unit, None
        return 0 if unit is None else unit.commit()

    def rollback(self) -> None:
        """Undo everything that was not committed."""
        unit, self._unit = self._unit, None
        if unit is not None:
            unit.rollback()


class Transactions:
    """MULTI, EXEC, DISCARD, WATCH, UNWATCH for the node's sessions."""

    def __init__(self, node: Node, store: Store) -> None:
        self._node = node
        self._store = store
        self.watches = Watches()
        self.execution: Execution | None = None

    # -- queueing ----------------------------------------------------------------------------------

    def begin(self, session: Session) -> None:
        """MULTI. Raises CommandError: nested."""
        if session.queue is not None:
            raise CommandError("ERR MULTI calls can not be nested")
        session.queue = []
        session.queue_bytes = 0
        session.queue_refused = False
        session.update()

    def enqueue(self, session: Session, row: Row, args: list[bytes]) -> Reply:
        """Keep a command for EXEC."""
        queue = session.queue
        assert queue is not None
        size = sum(map(len, args)) + _ARG_OVERHEAD * len(args)
        limit = self._node.settings.max_queue_bytes
        if session.queue_bytes + size > limit:
            session.queue_refused = True
            return ErrorReply(f"ERR the queue of a transaction may have {limit} bytes")
        queue.append((row, args))
        session.queue_bytes += size
        return QUEUED

    def discard(self, session: Session) -> None:
        """DISCARD. Raises CommandError: no MULTI."""
        if session.queue is None:
            raise CommandError("ERR DISCARD without MULTI")
        self.forget(session)

    def forget(self, session: Session) -> None:
        """Leave MULTI, if in it, and forget what is watched."""
        session.queue = None
        session.queue_bytes = 0
        session.queue_refused = False
        self.watches.drop(session)
        session.update()

    # -- watching ----------------------------------------------------------------------------------

    def watch(self, session: Session, keys: Sequence[bytes]) -> None:
        """WATCH. Raises CommandError: within MULTI, or too many keys."""
        if session.queue is not None:
            raise CommandError("ERR WATCH inside MULTI is not allowed")
        limit = self._node.settings.max_watched_keys
        if len(session.watched) + len(keys) > limit:
            raise CommandError(f"ERR a connection may watch {limit} keys")
        space = self._store.engine.spaces[session.keyspace]
        for key in keys:
            self.watches.add(session, session.keyspace, key, space, self._node.now_ms)

    def unwatch(self, session: Session) -> None:
        """Forget what it watches."""
        self.watches.drop(session)

    # -- running -----------------------------------------------------------------------------------

    def run(self, session: Session) -> Reply:
        """EXEC. Raises CommandError: no MULTI, something was refused, or the store refuses."""
        queue = session.queue
        if queue is None:
            raise CommandError("ERR EXEC without MULTI")
        refused = session.queue_refused
        spoiled = self.watches.spoiled(session, self._node.now_ms)
        self.forget(session)
        if refused:
            raise CommandError(ABORTED)
        if spoiled:
            # That a key was written is news, too: it waits like any other (X3).
            self._node.depend_on(self._store.last)
            return NULL_ARRAY
        return self._run_queue(session, queue)

    def _run_queue(self, session: Session, queue: list[tuple[Row, list[bytes]]]) -> Reply:
        node = self._node
        execution = self.execution = Execution(self._store)
        replies: list[Any] = []
        try:
            for row, args in queue:
                replies.append(node.run(session, row, args))
            position = execution.commit()
        except Aborted as error:
            raise CommandError(because(str(error))) from error
        except Error as error:
            raise CommandError(because(node.refusal(error))) from error
        finally:
            self.execution = None
            execution.rollback()
        node.depend_on(position)
        for other in execution.touched:
            other.touched = True
        for channel, message in execution.messages:
            node.channels.deliver(channel, message, max(node.waits_for, session.depends_on))
        return replies


def because(refusal: str) -> str:
    """EXEC's refusal for a reason that is an error reply of its own; as Redis, without "ERR"."""
    return f"EXECABORT Transaction discarded because of: {refusal.removeprefix('ERR ')}"
