"""The store's clock: what deadlines are measured by.

Owns the rule that keeps deadlines honest when the wall clock is not.

T1  now_ms() never goes back, neither while the store is open nor from one opening to the next:
    it starts at the wall clock or at the latest time in the log, whichever is later.
T2  while the store is open it follows the monotonic clock only: a step of the wall clock neither
    expires keys early nor brings expired ones back.
T3  a replica's stands still but for what it hears of its primary's: a key is past its deadline
    there when it is so on the primary, and not because two clocks differ.

Threading: now_ms() from any thread; follow(), hear() and lead() by one at a time.
"""

from __future__ import annotations

from collections.abc import Callable

from marram.env import ticks
from marram.env.api import Env

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

if not cython.compiled:  # else it is C's
    from marram.env.ticks import boot_ns

_MS_NS = 1_000_000
_BOOT_NS = ticks.boot_ns  # as an object, which a machine's env has


def ask(monotonic_ns: Callable[[], int]) -> int:
    """monotonic_ns(), quick where it is the machine's."""
    return boot_ns() if monotonic_ns is _BOOT_NS else monotonic_ns()


class StoreClock:
    """Milliseconds since 1970, anchored when the store opens."""

    __slots__ = ("_anchor", "_env", "ahead_ms")

    def __init__(self, env: Env, floor_ms: int) -> None:
        """floor_ms: the latest time found in the log; 0 for a new store."""
        wall_ms = env.wall_ms()
        anchor_ms = max(wall_ms, floor_ms)
        self._env = env
        # Since when, and by what, it runs: one value, so that it changes in one step.
        self._anchor: tuple[int, int, Callable[[], int]] = (
            anchor_ms, env.monotonic_ns(), env.monotonic_ns
        )  # fmt: skip
        self.ahead_ms = anchor_ms - wall_ms  # how far the wall clock fell behind the log

    def now_ms(self) -> int:
        """The time now."""
        anchor_ms, anchor_ns, monotonic_ns = self._anchor
        now_ns = ask(monotonic_ns) if cython.compiled else monotonic_ns()
        return anchor_ms + (now_ns - anchor_ns) // _MS_NS

    def follow(self, time_ms: int) -> None:
        """Stand still at that time, until hear() or lead() (T3)."""
        self._anchor = (time_ms, 0, _standing)

    def hear(self, time_ms: int) -> None:
        """It is that late at the primary: be no earlier; goes on as it does."""
        if time_ms > self.now_ms():
            _, _, monotonic_ns = self._anchor
            self._anchor = (time_ms, monotonic_ns(), monotonic_ns)

    def lead(self) -> None:
        """Run by the monotonic clock from now on, or the wall clock's now where that is later."""
        env = self._env
        self._anchor = (max(self.now_ms(), env.wall_ms()), env.monotonic_ns(), env.monotonic_ns)


def _standing() -> int:
    return 0
