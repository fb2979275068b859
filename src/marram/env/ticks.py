"""The machine's monotonic clock: what a store asks at every write that is not synced.

Owns that one call. Compiled, it is C's, without an object between; PosixEnv.monotonic_ns is it.

Threading: any thread.
"""

from __future__ import annotations

import time
from typing import Final

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

if not cython.compiled:  # else it is C's
    from time import clock_gettime_ns

BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Which clock: the one that counts suspended time."""

_BOOT_CLOCK = BOOT_CLOCK  # again, which compiled code has without a look-up by name


def boot_ns() -> int:
    """Nanoseconds since the machine was started. Raises OSError: it has no such clock."""
    return clock_gettime_ns(_BOOT_CLOCK)
