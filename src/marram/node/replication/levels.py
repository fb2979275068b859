"""Ack levels on a node: what waits for replicas, and the bound that holds `committed` back.

Owns the tickets of whoever waits and the store's bound; when a level is reached is AckRules' to
say (marram.replication.acks), who acknowledges is the links' business.

L1  after every change of the rules the store's bound is theirs, and whoever waited is told, before
    anything else runs.
L2  a write that asks for a level is held before it is appended: no group can be committed with it
    in between.

Threading: the thread that owns the node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from marram.env.api import Env
from marram.node.loop import Loop, Timer
from marram.replication.acks import AckRules, Level, Verdict
from marram.storage.store import Store

Told = Callable[[Verdict], None]


class Levels:
    """The rules of the present reign and those who wait by them."""

    def __init__(
        self, store: Store, env: Env, loop: Loop, on_committed: Callable[[], None]
    ) -> None:
        """on_committed: `committed` moved."""
        self.rules = AckRules()
        self.is_on = False
        """Whether this node decides what is committed: it is the primary."""
        self._store = store
        self._env = env
        self._loop = loop
        self._on_committed = on_committed
        self._told: dict[int, Told] = {}
        self._timer: Timer | None = None
        self._timer_ns = 0

    @property
    def is_urgent(self) -> bool:
        """Whether anybody waits for what replicas acknowledge."""
        return bool(self.rules.need or self._told)

    @property
    def replicas(self) -> int:
        """Connected replicas that acknowledge."""
        return self.rules.count(0, Level.RECEIVED)

    # -- a reign -----------------------------------------------------------------------------------

    def begin(self, need: int, level: Level) -> None:
        """This node is the primary: `need` replicas have to have every write, at that level."""
        self._end()
        self.rules = AckRules(need, level)
        self.is_on = True
        self._apply()

    def end(self) -> None:
        """This node is a replica: its upstream says what is committed."""
        self._end()
        self.rules = AckRules()
        self.is_on = False

    def _end(self) -> None:
        verdicts = self.rules.end()
        self.rules = AckRules()
        self._tell(verdicts)

    # -- replicas ----------------------------------------------------------------------------------

    def acked(self, replica: bytes, received: int, durable: int) -> None:
        """A replica, by its node id, has come so far."""
        if self.is_on:
            verdicts = self.rules.acked(replica, received, durable)
            if verdicts or self.rules.need:
                self._after(verdicts)

    def left(self, replica: bytes) -> None:
        """A replica is gone."""
        self.rules.left(replica)

    # -- who waits ---------------------------------------------------------------------------------

    def wait(
        self, sequence: int, replicas: int, level: Level, timeout_ms: int, told: Told
    ) -> Callable[[], None]:
        """told() once so many replicas have `sequence`, or the time is over (0: never).

        It may be told at once. Returns what ends the wait: told() then says how many there are.
        """
        return self._wait(sequence, replicas, level, timeout_ms, told, holds=False)

    def hold_after(self, sequence: int) -> None:
        """Commit nothing after `sequence` until hold() or release(): a leveled write begins."""
        bound = self.rules.bound
        self._store.commit.set_bound(sequence if bound is None else min(bound, sequence))

    def hold(
        self, sequence: int, replicas: int, level: Level, timeout_ms: int, told: Told
    ) -> Callable[[], None]:
        """wait(), and keep `sequence` from being committed meanwhile; after hold_after()."""
        cancel = self._wait(sequence, replicas, level, timeout_ms, told, holds=True)
        self._apply()
        return cancel

    def release(self) -> None:
        """After hold_after(): nothing was written."""
        self._apply()

    def _wait(
        self,
        sequence: int,
        replicas: int,
        level: Level,
        timeout_ms: int,
        told: Told,
        *,
        holds: bool,
    ) -> Callable[[], None]:
        deadline_ns = self._env.monotonic_ns() + timeout_ms * 1_000_000 if timeout_ms else None
        ticket = self.rules.wait(sequence, replicas, level, deadline_ns, holds=holds)
        if isinstance(ticket, Verdict):
            told(ticket)
            return lambda: None
        self._told[ticket] = told
        self._arm()

        def cancel() -> None:
            if self._told.get(ticket) is told:
                self.rules.forget(ticket)
                have = self.rules.count(sequence, level)
                self._after([Verdict(ticket, have >= replicas, have)])

        return cancel

    # -- time --------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Have the rules told of the time when the first wait is over."""
        due_ns = self.rules.deadline_ns
        if due_ns is None or (self._timer is not None and self._timer_ns <= due_ns):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ns = due_ns
        left_ns = max(0, due_ns - self._env.monotonic_ns())
        self._timer = self._loop.call_later(left_ns / 1e9, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._after(self.rules.tick(self._env.monotonic_ns()))
        self._arm()

    # -- private -----------------------------------------------------------------------------------

    def _after(self, verdicts: Iterable[Verdict]) -> None:
        """The rules changed (L1).

        Who is told of a level that was not reached is told before its write is committed, or its
        reply would leave as if nothing were amiss.
        """
        self._tell(verdicts)
        self._apply()

    def _apply(self) -> None:
        if self.is_on and self._store.commit.set_bound(self.rules.bound):
            self._on_committed()

    def _tell(self, verdicts: Iterable[Verdict]) -> None:
        for verdict in verdicts:
            told = self._told.pop(verdict.ticket, None)
            if told is not None:
                told(verdict)
