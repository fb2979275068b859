"""Keys and values as callers hand them in: bytes, within the store's limits, or a clear refusal.

Owns the messages. Threading: pure functions.
"""

from __future__ import annotations

from marram.errors import InvalidArgument, InvalidType


def check_key(key: object, max_bytes: int) -> bytes:
    """A usable key: bytes, not empty, not too long. Raises InvalidType, InvalidArgument."""
    usable: bytes = key if type(key) is bytes else to_bytes(key, "key")
    if 0 < len(usable) <= max_bytes:
        return usable
    if not usable:
        raise InvalidArgument("the key is empty")
    raise InvalidArgument(f"the key has {len(usable)} bytes; max_key_bytes is {max_bytes}")


def check_value(value: object, max_bytes: int) -> bytes:
    """A usable value: bytes, not too long. Raises InvalidType, InvalidArgument."""
    usable: bytes = value if type(value) is bytes else to_bytes(value, "value")
    if len(usable) > max_bytes:
        raise InvalidArgument(f"the value has {len(usable)} bytes; max_value_bytes is {max_bytes}")
    return usable


def to_bytes(given: object, what: str) -> bytes:
    """bytes from any bytes-like object. Raises InvalidType with a message that helps."""
    if isinstance(given, str):
        raise InvalidType(f"the {what} is a str; marram stores bytes: use {what}.encode()")
    if isinstance(given, bytes | bytearray | memoryview):
        return bytes(given)
    raise InvalidType(f"the {what} is of type {type(given).__name__}; marram stores bytes")


def check_seconds(seconds: float, what: str) -> int:
    """A positive duration in milliseconds. Raises InvalidArgument."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidType(f"{what} is of type {type(seconds).__name__}; give seconds")
    if not 0 < seconds < 10**11:  # also refuses nan
        raise InvalidArgument(f"{what} must be a positive number of seconds, not {seconds!r}")
    return max(1, round(seconds * 1000))


def prefix_range(
    prefix: bytes, start: bytes | None, stop: bytes | None
) -> tuple[bytes, bytes | None]:
    """The keys that begin with `prefix` and lie in [start, stop), as one range [start, stop)."""
    low = prefix if start is None else max(prefix, start)
    end = after_prefix(prefix)
    if stop is None or (end is not None and end < stop):
        stop = end
    return low, stop


def after_prefix(prefix: bytes) -> bytes | None:
    """The first key after every key that begins with `prefix`; None where there is none.

    >>> after_prefix(b"ab"), after_prefix(bytes([97, 255])), after_prefix(b"")
    (b'ac', b'b', None)
    """
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return None
    return stripped[:-1] + bytes([stripped[-1] + 1])


def scan_bounds(
    prefix: bytes, start: bytes | None, stop: bytes | None
) -> tuple[bytes, bytes | None]:
    """prefix_range() of arguments as callers hand them in. Raises InvalidType."""
    return prefix_range(
        to_bytes(prefix, "prefix"),
        None if start is None else to_bytes(start, "start"),
        None if stop is None else to_bytes(stop, "stop"),
    )


def checked_count(number: int | None, what: str) -> int | None:
    """A count of 0 or more, or None. Raises InvalidArgument."""
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise InvalidArgument(f"{what} must be a whole number, 0 or more, not {number!r}")
    return number
