"""Makes a failing history short: leaves out what it fails without.

Threading: pure but for `fails`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def shrink(
    steps: Sequence[T], fails: Callable[[list[T]], bool], may_go_on: Callable[[], bool]
) -> list[T]:
    """Steps that still fail, and mostly do not without any one of them.

    steps: a history that fails. may_go_on: asked before each try; False ends the search early.
    """
    kept = list(steps)
    size = max(1, len(kept) // 2)
    while kept:
        at, shorter = 0, False
        while at < len(kept):
            if not may_go_on():
                return kept
            tried = kept[:at] + kept[at + size :]
            if fails(tried):
                kept, shorter = tried, True
            else:
                at += size
        if size == 1 and not shorter:
            return kept
        size = max(1, size // 2)
    return kept
