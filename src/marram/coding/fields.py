"""Little-endian numbers in a buffer, read where they lie.

For the compiled leaves, which take a buffer apart without an object for each piece: a number takes
them a nanosecond. Interpreted, a struct is the faster way to a few of them at once, and what is hot
uses one there. Writing is not here, nor what a number means.

Nothing outside the buffer is read, whatever the arguments.

Threading: pure functions.
"""

from __future__ import annotations


def u32(data: bytes, at: int) -> int:
    """The number in data[at:at + 4]. Raises IndexError: it has no such part."""
    if at < 0 or len(data) - at < 4:
        raise IndexError(at)
    where = data  # compiled, a pointer
    number = where[at + 3]
    number = number << 8 | where[at + 2]
    number = number << 8 | where[at + 1]
    return number << 8 | where[at]


def u64(data: bytes, at: int) -> int:
    """The number in data[at:at + 8]. Raises IndexError: it has no such part."""
    number = u32(data, at + 4)
    return number << 32 | u32(data, at)
