"""Stalls: writers wait while the store cannot keep up.

Owns when commands that write are held back, and for how long they were; what holds them is
clients.py, why there is a need for it the engine's business (Engine.throttle()).

T1  the node's thread never waits for a flush or a compaction: commands wait, it goes on.
T2  a stall leaves a user's CLIENT PAUSE as it is, whichever of them begins or ends first.
T3  where waiting would not help, for what makes room has failed, writes are refused instead.
T4  every stall is counted, with its time.

Between two looks the memtable may grow by what is written meanwhile: a tick's worth.

Threading: the thread that owns the node.
"""

from __future__ import annotations

import logging
from typing import Any, Final, Protocol

from marram.env.api import Env
from marram.node.loop import Loop
from marram.storage.store import Store

_logger = logging.getLogger("marram.node")

LOOK_S: Final = 0.01
"""How often a stall looks whether it is over; ticks look whether one has to begin."""
_LONG_MS: Final = 1000  # a stall that is worth a line in the log


class Gate(Protocol):
    """What is asked of clients.py."""

    def stall(self, stalled: bool) -> None:
        """Hold commands that write, or end that."""
        ...


class Stalls:
    """Holds writers back."""

    def __init__(self, store: Store, env: Env, loop: Loop, gate: Gate) -> None:
        self.count = 0
        self.refusal = ""
        """Why writes are refused and not held (T3); "" where they are not."""
        self._store = store
        self._env = env
        self._loop = loop
        self._gate = gate
        self._ended_ms = 0
        self._began_ns: int | None = None
        self._looks = False

    @property
    def is_on(self) -> bool:
        """Whether writers wait now."""
        return self._began_ns is not None

    @property
    def total_ms(self) -> int:
        """How long they waited in all, the present stall included."""
        return self._ended_ms + self._present_ms()

    def figures(self) -> dict[str, int]:
        """As stats() of a store gives them (T4)."""
        return {"count": self.count, "ms": self.total_ms}

    def look(self) -> None:
        """Begin or end a stall, as the engine is now."""
        store = self._store
        # A store that failed, or is closed, refuses writes itself: nothing is worth waiting for.
        full = store.closed is None and store.failure is None and store.engine.throttle() >= 1.0
        self.refusal = _failure(store) if full else ""
        if full and not self.refusal:
            self._begin()
        else:
            self.end()

    def end(self) -> None:
        """Let writers go on."""
        if self._began_ns is None:
            return
        took_ms = self._present_ms()
        self._began_ns = None
        self._ended_ms += took_ms
        if took_ms >= _LONG_MS:
            _logger.warning("writers waited %d ms for flushes or compactions", took_ms)
        self._gate.stall(False)

    def reset(self) -> None:
        """Count from zero."""
        self.count = int(self.is_on)
        self._ended_ms = 0

    def _begin(self) -> None:
        if self._began_ns is None:
            self._began_ns = self._env.monotonic_ns()
            self.count += 1
            self._gate.stall(True)
        if not self._looks:
            self._looks = True
            self._loop.call_later(LOOK_S, self._look_again)

    def _look_again(self) -> None:
        self._looks = False
        if self._began_ns is not None:
            self.look()

    def _present_ms(self) -> int:
        if self._began_ns is None:
            return 0
        return (self._env.monotonic_ns() - self._began_ns) // 1_000_000


def _failure(store: Store) -> str:
    """Why what writers would wait for has failed; "" where it has not."""
    lsm: dict[str, Any] = store.engine.stats().get("lsm", {})
    if lsm.get("memtable", {}).get("frozen"):
        error = store.generations.stats()["last_error"]
        return f"what is in memory cannot be flushed: {error}" if error else ""
    error = lsm.get("compaction", {}).get("error")
    return f"compactions cannot go on: {error}" if error else ""
