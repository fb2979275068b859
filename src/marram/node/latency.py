"""Latency samples: when something took long, and how long.

Owns a ring of samples per event and the worst of each; not the measuring.

Threading: the thread that owns the node.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

_SAMPLES: Final = 160  # per event, as in Redis


class Latency:
    """What LATENCY reports on. threshold_ms: samples below it are dropped; 0: nothing is kept."""

    def __init__(self, threshold_ms: int) -> None:
        self.threshold_ms = threshold_ms
        self._events: dict[str, deque[tuple[int, int]]] = {}
        self._worst_ms: dict[str, int] = {}

    def record(self, event: str, latency_ms: int, time_s: int) -> None:
        """Add a sample, if it is long enough; two in one second become the longer one."""
        if not 0 < self.threshold_ms <= latency_ms:
            return
        samples = self._events.setdefault(event, deque(maxlen=_SAMPLES))
        if samples and samples[-1][0] == time_s:
            latency_ms = max(latency_ms, samples.pop()[1])
        samples.append((time_s, latency_ms))
        self._worst_ms[event] = max(latency_ms, self._worst_ms.get(event, 0))

    def events(self) -> Mapping[str, Sequence[tuple[int, int]]]:
        """All samples, (seconds since 1970, ms), oldest first, by event."""
        return self._events

    def worst_ms(self, event: str) -> int:
        """The greatest latency of an event since it was reset; 0 where there is none."""
        return self._worst_ms.get(event, 0)

    def reset(self, event: str) -> bool:
        """Drop an event's samples; False where it has none."""
        self._worst_ms.pop(event, None)
        return self._events.pop(event, None) is not None
