"""Deferred: a reply that comes later.

Owns one value and whom to tell; not when it comes.

F1  it is resolved at most once; on_done() calls back once, at once where the reply is there.

Threading: the thread that owns the node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Deferred:
    """What execute() returns for a command that takes its time.

    The shell takes no further command of the session until it is done: replies keep their order.
    reply, waits_for: set once done; as execute()'s value and Node.waits_for.
    """

    __slots__ = ("_then", "done", "on_cancel", "reply", "waits_for")

    def __init__(self) -> None:
        self.done = False
        self.reply: Any = None
        self.waits_for = 0
        self.on_cancel: Callable[[bool], None] | None = None
        self._then: list[Callable[[Any], None]] = []

    def on_done(self, then: Callable[[Any], None]) -> None:
        """Have then(reply) called when the reply is there (F1)."""
        if self.done:
            then(self.reply)
        else:
            self._then.append(then)

    def resolve(self, reply: Any, waits_for: int = 0) -> None:
        """Say what the reply is; later calls change nothing (F1)."""
        if self.done:
            return
        self.done = True
        self.reply = reply
        self.waits_for = waits_for
        then, self._then = self._then, []
        for callback in then:
            callback(reply)
