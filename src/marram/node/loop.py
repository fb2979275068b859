"""Loop: what the node asks of an event loop.

Owns the protocol; the server adapts asyncio to it, tests play it by hand.

Threading: call_soon_threadsafe() from any thread, the rest on the loop's own; what is scheduled
runs there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """Something scheduled."""

    def cancel(self) -> None:
        """Let it not happen; fine where it has."""
        ...


class Loop(Protocol):
    """An event loop."""

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> object:
        """Run `callback` on the loop's thread, soon."""
        ...

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Run `callback` on the loop's thread after `delay_s` seconds."""
        ...
