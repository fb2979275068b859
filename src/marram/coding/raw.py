"""Bytes in place: what interpreted code has for the pointers of compiled code (raw.pxd).

A compiled leaf reads keys, values and columns of numbers where they are in a block's payload, and
moves bytes without a call for each. The few words it has for that are in raw.pxd, as C; here they
are for the interpreter, which is fastest with copies that one call makes: of the same arguments
they give what reads alike. raw.pxd is inlined into the leaves, so this module is none.

Whoever asks has checked that the bytes are there: C does not.

Threading: pure functions.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from typing import Any


def first_of(data: bytes | memoryview) -> bytes | memoryview:
    """`data`, to be seen in place; compiled: a pointer, good as long as it is held."""
    return data


def view(data: bytes | memoryview, start: int, stop: int) -> bytes:
    """The bytes [start, stop); compiled: a pointer, good as long as `data` is held."""
    return bytes(data[start:stop])


def u32s(data: bytes | memoryview, at: int, count: int) -> array[int]:
    """`count` little-endian numbers of 4 bytes from `at` on; compiled: a pointer, likewise."""
    return _numbers("I", data, at, count)


def u64s(data: bytes | memoryview, at: int, count: int) -> array[int]:
    """`count` little-endian numbers of 8 bytes from `at` on; compiled: a pointer, likewise."""
    return _numbers("Q", data, at, count)


def place(memory: memoryview, at: int) -> memoryview:
    """The memory from `at` on; compiled: a pointer, good as long as `memory` is held."""
    return memory[at:]


def put_u32(data: Any, at: int, number: int) -> None:
    """Write a little-endian number of 4 bytes there."""
    data[at : at + 4] = number.to_bytes(4, "little")


def put_u64(data: Any, at: int, number: int) -> None:
    """Write a little-endian number of 8 bytes there."""
    data[at : at + 8] = number.to_bytes(8, "little")


def put_bytes(data: Any, at: int, given: bytes) -> None:
    """Write bytes there."""
    data[at : at + len(given)] = given


def joined(first: int, rest: bytes) -> bytes:
    """A byte, and bytes after it."""
    return bytes((first,)) + rest


def headed(head: bytes | bytearray, head_size: int, key: bytes, value: bytes) -> bytes:
    """head[:head_size] + key + value."""
    return b"".join((head[:head_size], key, value))


def blank(size: int) -> Any:
    """Bytes to be written by put_u32() and so on before anybody sees them; compiled: bytes."""
    return bytearray(size)


def head(data: bytes, size: int, skip: int) -> int:
    """The 8 bytes after the first `skip` as a number that sorts as they do; zeros for none.

    size: of the data; skip <= size.
    """
    return int.from_bytes(data[skip : skip + 8].ljust(8, b"\0"), "big")


def insert_into(items: list[Any], at: int, item: object) -> None:
    """items.insert(at, item), for 0 <= at <= len(items); compiled, it moves them 3 x faster."""
    items.insert(at, item)


def resized(numbers: array[int] | None, count: int) -> array[int]:
    """Room for `count` numbers of 8 bytes, as many of the old ones in it as there are; compiled: a
    pointer, good until let_go()."""
    kept = array("Q") if numbers is None else numbers
    return array("Q", (*kept, *bytes(count))[:count])


def let_go(numbers: array[int] | None) -> None:
    """Free what resized() made."""


def open_gap(numbers: array[int], at: int, count: int) -> None:
    """Move the numbers [at, count) up by one; there is room for it."""
    numbers[at + 1 : count + 1] = numbers[at:count]


def close_gap(numbers: array[int], at: int, count: int) -> None:
    """Move the numbers [at + 1, count + 1) down by one."""
    numbers[at:count] = numbers[at + 1 : count + 1]


def u32_list(numbers: array[int], start: int, stop: int) -> Sequence[int]:
    """The numbers [start, stop) of u32s(); compiled: a list."""
    return numbers[start:stop]


def u64_list(numbers: array[int], start: int, stop: int) -> Sequence[int]:
    """The numbers [start, stop) of u64s(); compiled: a list."""
    return numbers[start:stop]


def order(left: bytes, left_size: int, right: bytes, right_size: int) -> int:
    """< 0, 0 or > 0, as two views with their sizes, bytes, compare."""
    return (left > right) - (left < right)


def address(held: Any) -> Any:
    """Where an object is, as a number of 8 bytes; interpreted it stands for itself."""
    return held


def object_at(place: Any) -> Any:
    """The object that address() gave the place of; somebody holds it."""
    return place


def bytes_at(place: Any) -> bytes:
    """view() of all of the bytes that address() gave the place of."""
    return bytes(place)


def size_at(place: Any) -> int:
    """How many bytes_at() has."""
    return len(place)


def put_view(buffer: bytearray, at: int, data: bytes, size: int) -> None:
    """Write `size` bytes of a view; there is room for them."""
    buffer[at : at + size] = data[:size]


def _numbers(code: str, data: bytes | memoryview, at: int, count: int) -> array[int]:
    numbers = array(code)
    numbers.frombytes(data[at : at + numbers.itemsize * count])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
