"""Who is connected, and CLIENT KILL, UNBLOCK and PAUSE.

Owns the sessions by id and what is held back; not what a session is (session.py) nor its socket.

Two things hold commands back, each for itself: a pause, which somebody asked for and which ends at
its time or by UNPAUSE, and the stall of writes, which lasts while the store cannot keep up
(upkeep.py). Neither begins, ends, or prolongs the other.

L1  ids are never reused while the node lives.
L2  held commands run in the order they came, once nothing holds them, each session's first; what
    a session sends after a held command waits behind it (the shell's duty: Deferred).

Threading: the thread that owns the node.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from marram.env.api import Env
from marram.node.deferred import Deferred
from marram.node.loop import Loop, Timer
from marram.node.rows import Row
from marram.node.session import Session

_UNPAUSE: Final = "client|unpause"  # goes through a pause, or ALL could not be ended

Resume = Callable[[Session, list[bytes], Deferred], None]
"""resume(session, args, deferred): run a held command and resolve the deferred with its reply."""


class Clients:
    """Everybody connected."""

    def __init__(self, env: Env, loop: Loop, resume: Resume, on_pause: Callable[[], None]) -> None:
        """on_pause: called when a pause or a stall begins or ends."""
        self._env = env
        self._loop = loop
        self._resume = resume
        self._on_pause = on_pause
        self._sessions: dict[int, Session] = {}
        self._next_id = 1
        self.opened = 0
        self.stalled = False
        self._is_paused = False
        self._pause_ends_ns = 0
        self._pause_writes_only = False
        self._timer: Timer | None = None
        self._held: deque[tuple[Session, Row, list[bytes], Deferred]] = deque()
        self._releasing = self._release_again = False

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def __len__(self) -> int:
        return len(self._sessions)

    def next_id(self) -> int:
        """An id for a new session (L1)."""
        self._next_id += 1
        return self._next_id - 1

    def add(self, session: Session) -> None:
        """A client came."""
        self._sessions[session.id] = session
        self.opened += 1

    def remove(self, session: Session) -> bool:
        """A client left; False where it had before."""
        return self._sessions.pop(session.id, None) is not None

    def get(self, session_id: int) -> Session | None:
        """The session of that id, or None."""
        return self._sessions.get(session_id)

    def kill(self, session: Session) -> None:
        """Disconnect a client, after what it was answered so far."""
        session.close()

    def unblock(self, session: Session, *, with_error: bool) -> bool:
        """End a waiting command, as if its time were over or with an error."""
        waiting = session.blocked
        if waiting is None or waiting.on_cancel is None:
            return False
        waiting.on_cancel(with_error)
        return True

    # -- pausing -----------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Whether anything is held back."""
        return self._is_paused or self.stalled

    def pause(self, duration_ms: int, *, writes_only: bool) -> None:
        """Hold commands back for a while; the longer and stricter of two pauses holds."""
        ends_ns = self._env.monotonic_ns() + duration_ms * 1_000_000
        if self._is_paused:
            writes_only = writes_only and self._pause_writes_only
            ends_ns = max(ends_ns, self._pause_ends_ns)
        self._is_paused = True
        self._pause_ends_ns = ends_ns
        self._pause_writes_only = writes_only
        self._arm()
        self._on_pause()

    def unpause(self) -> None:
        """End the pause; what a stall holds, too, waits on (L2)."""
        if not self._is_paused:
            return
        self._is_paused = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._on_pause()
        self._release()

    def stall(self, stalled: bool) -> None:
        """Hold commands that write to the store, or end that; what a pause holds waits on (L2)."""
        if stalled != self.stalled:
            self.stalled = stalled
            self._on_pause()
            if not stalled:
                self._release()

    def holds(self, session: Session, row: Row) -> bool:
        """Whether a command has to wait."""
        if self._is_paused and row.name != _UNPAUSE:
            if not self._pause_writes_only or row.may_write:
                return True
            if row.name == "exec" and any(r.may_write for r, _ in session.queue or ()):
                return True
        if self.stalled:
            if row.name == "exec":
                return any(r.writes for r, _ in session.queue or ())
            return row.writes and session.queue is None  # queueing writes nothing
        return False

    def hold(self, session: Session, row: Row, args: list[bytes]) -> Deferred:
        """Keep a command until nothing holds it."""
        deferred = Deferred()
        self._held.append((session, row, args, deferred))
        return deferred

    def num_held(self) -> int:
        """Commands held."""
        return len(self._held)

    def _release(self) -> None:
        """Run what nothing holds any more, in order (L2)."""
        self._release_again = True
        if self._releasing:
            return  # a resumed command ended another pause: the loop below goes round once more
        self._releasing = True
        try:
            while self._release_again:
                self._release_again = False
                kept = []
                for _ in range(len(self._held)):
                    session, row, args, deferred = held = self._held.popleft()
                    if session.id not in self._sessions:
                        continue
                    if self.holds(session, row):  # a resumed command may begin another pause
                        kept.append(held)
                    else:
                        self._resume(session, args, deferred)
                self._held.extendleft(reversed(kept))
        finally:
            self._releasing = False

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left_ns = self._pause_ends_ns - self._env.monotonic_ns()
        self._timer = self._loop.call_later(max(0, left_ns) / 1e9, self._time_is_over)

    def _time_is_over(self) -> None:
        self._timer = None
        if self._env.monotonic_ns() < self._pause_ends_ns:
            self._arm()  # the loop's clock and ours need not agree to the last millisecond
        else:
            self.unpause()
