"""Wire: what a link asks of the connection that carries it.

Owns the protocol; the server implements it over a socket, tests over a list.

Threading: the thread that owns the node.
"""

from __future__ import annotations

from typing import Protocol


class Wire(Protocol):
    """One connection between a replica and its upstream."""

    def write(self, data: bytes) -> None:
        """Send bytes, in order."""
        ...

    def close(self) -> None:
        """Close once what was written is out, or the other end takes nothing any more."""
        ...

    def pause(self) -> None:
        """Take no more bytes from the other end for now."""
        ...

    def resume(self) -> None:
        """Take bytes again."""
        ...
