"""Jobs that may block, one after the other, beside the loop.

Owns their order and the way of their outcomes back; not what they do.

W1  jobs of one Work run in the order they were given, one at a time.
W2  every outcome is told on the loop's thread, in that order.

Threading: do() on the loop's thread; jobs in env's.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from marram.env.api import Env
from marram.node.loop import Loop

T = TypeVar("T")


class Work:
    """A queue of jobs. There is a thread while it has any."""

    def __init__(self, env: Env, loop: Loop, name: str) -> None:
        self._env = env
        self._loop = loop
        self._name = name
        self._lock = threading.Lock()
        self._jobs: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self._is_running = False  # guarded by _lock, as _jobs is

    def do(self, job: Callable[[], T], then: Callable[[T | Exception], None]) -> None:
        """Run job() elsewhere, then then(what it gave or raised) here."""
        with self._lock:
            self._jobs.append((job, then))
            if self._is_running:
                return
            self._is_running = True
        self._env.start(self._name, self._run)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._is_running = False
                    return
                job, then = self._jobs.popleft()
            outcome: Any
            try:
                outcome = job()
            except Exception as error:  # whoever asked is told
                outcome = error
            with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                self._loop.call_soon_threadsafe(partial(then, outcome))
