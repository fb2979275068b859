"""How much may be on its way: a window a link, and a rate for full syncs.

Owns both counts; not what is sent (primary.py) nor what weighs how much (messages.weight_of).

L1  what is sent and not consumed never weighs more than the window, but for a single message that
    is larger: it goes alone.
L2  over any time a throttle lets through its rate and one second's worth on top, and one message.

Threading: owned by one machine.
"""

from __future__ import annotations

from typing import Final

_SECOND_NS: Final = 1_000_000_000


class Window:
    """What one link lets be on its way. size_bytes: at least 1."""

    __slots__ = ("consumed", "sent", "size_bytes")

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.sent = 0  # weight, since the stream began
        self.consumed = 0

    @property
    def room_bytes(self) -> int:
        """How much more may be sent now; negative while a message larger than the window is out."""
        return self.size_bytes - (self.sent - self.consumed)

    def admits(self, weight: int) -> bool:
        """Whether a message of that weight may be sent now (L1)."""
        return weight <= self.room_bytes or self.sent == self.consumed

    def consume(self, consumed: int) -> bool:
        """The other end has dealt with so much in all; False: that is more than was sent."""
        if consumed > self.sent:
            return False
        self.consumed = max(self.consumed, consumed)
        return True


class Throttle:
    """Lets about `rate` bytes a second through; 0: any number."""

    __slots__ = ("_at_ns", "_left", "_rate")

    def __init__(self, rate: int, now_ns: int) -> None:
        self._rate = rate
        # Bytes times 10**9, so that nothing is rounded: a second's worth first; negative: debt.
        self._left = rate * _SECOND_NS
        self._at_ns = now_ns

    def spend(self, size_bytes: int, now_ns: int) -> None:
        """Count what was sent."""
        if self._rate:
            self._refill(now_ns)
            self._left -= size_bytes * _SECOND_NS

    def open_at_ns(self, now_ns: int) -> int:
        """From when on more may be sent: now_ns, where that is now."""
        if not self._rate:
            return now_ns
        self._refill(now_ns)
        if self._left > 0:
            return now_ns
        return now_ns - self._left // self._rate + 1

    def _refill(self, now_ns: int) -> None:
        gained = (now_ns - self._at_ns) * self._rate
        self._left = min(self._rate * _SECOND_NS, self._left + gained)
        self._at_ns = now_ns
