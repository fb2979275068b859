"""Waking an event loop on time: to microseconds where Linux gives a timer, else to the loop's own.

Owns the alarms of open loops. uvloop and asyncio count milliseconds: at 25,000 requests a second
that would make bursts of 25 out of an even flow, and the bursts would be what is measured. A timer
descriptor wakes the loop like a socket does, within 0.1 ms, and costs no processor in between.

Threading: the event loop's.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from typing import Protocol

_CLOCK_MONOTONIC = 1
_TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC


class Alarm(Protocol):
    """Calls back once for each set(); a later set() replaces an earlier one."""

    def set(self, delay_ns: int) -> None:
        """Call back in so many nanoseconds."""
        ...

    def close(self) -> None:
        """Call back no more."""
        ...


Alarms = Callable[[Callable[[], None]], Alarm]
"""Makes an alarm that calls a function."""


def make_alarm(call: Callable[[], None]) -> Alarm:
    """The best that there is; in a running event loop."""
    try:
        return TimerAlarm(call)
    except (OSError, AttributeError):
        return LoopAlarm(call)


class LoopAlarm:
    """The loop's own timer."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._call = call
        self._handle: asyncio.TimerHandle | None = None

    def set(self, delay_ns: int) -> None:
        """Call back in so many nanoseconds."""
        self.close()
        self._handle = self._loop.call_later(delay_ns / 1e9, self._call)

    def close(self) -> None:
        """Call back no more."""
        if self._handle is not None:
            self._handle.cancel()


class _Itimerspec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class TimerAlarm:
    """A timerfd. Raises OSError, AttributeError: there are none here."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._call = call
        libc = ctypes.CDLL(None, use_errno=True)
        self._settime = libc.timerfd_settime
        self._fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _Itimerspec()
        self._loop.add_reader(self._fd, self._ring)

    def set(self, delay_ns: int) -> None:
        """Call back in so many nanoseconds."""
        seconds, nanoseconds = divmod(max(1, delay_ns), 1_000_000_000)  # 0 would disarm it
        self._spec.value_s, self._spec.value_ns = seconds, nanoseconds
        if self._settime(self._fd, 0, ctypes.byref(self._spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        """Call back no more; idempotent."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _ring(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # it was set anew after it had rung
            return
        self._call()
