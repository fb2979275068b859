"""The store's clock: what deadlines are measured by.

Owns the rule that keeps deadlines honest when the wall clock is not.

T1  now_ms() never goes back, neither while the store is open nor from one opening to the next:
    it starts at the wall clock or at the latest time in the log, whichever is later.
T2  while the store is open it follows the monotonic clock only: a step of the wall clock neither
    expires keys early nor brings expired ones back.

Threading: any thread.
"""

from __future__ import annotations

from marram.env.api import Env


class StoreClock:
    """Milliseconds since 1970, anchored when the store opens."""

    __slots__ = ("_anchor_ms", "_anchor_ns", "_monotonic_ns", "ahead_ms")

    def __init__(self, env: Env, floor_ms: int) -> None:
        """floor_ms: the latest time found in the log; 0 for a new store."""
        wall_ms = env.wall_ms()
        self._monotonic_ns = env.monotonic_ns
        self._anchor_ms = max(wall_ms, floor_ms)
        self._anchor_ns = env.monotonic_ns()
        self.ahead_ms = self._anchor_ms - wall_ms  # how far the wall clock fell behind the log

    def now_ms(self) -> int:
        """The time now."""
        elapsed_ns: int = self._monotonic_ns() - self._anchor_ns
        return self._anchor_ms + elapsed_ns // 1_000_000
