# cython: boundscheck=False, wraparound=False, cdivision=True
"""A map that changes no more, as rows in key order; for compiled code.

Owns that order, and where the rows are; not what is made of them (writer.py).

A flush beside a writer costs that writer whatever it does with the interpreter's lock, and a list
of keys and one of values cost both the lock and a look-up a key. So the map is walked once, in the
order it is in memory, for where its keys and values are; what comes after that, sorting them,
measuring them, copying them into blocks, reads them there and needs no lock.

Z1  the map neither changes nor goes while this is there: the caller promises the one, and the
    other is seen to here. So what it holds stays where it is.
Z2  a row is *plain* where its value is bytes, fewer than the caller says.

Interpreted this is slow, and nothing uses it but the tests.

Threading: one thread's, beside any who read the map.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

from marram.storage.memory.sorting import STARTS

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

if not cython.compiled:  # else they are inlined
    from marram.coding.raw import address, bytes_at, object_at, order, size_at
    from marram.storage.memory.sorting import sort_words

# Rows found before others may run: half a millisecond.
_SLICE_ROWS = 16_384
# Up to so many keys are compared with each other, and sorted by eight of their bytes beyond that.
_FEW = 32
# How often: keys that share more than that are compared.
_DEPTH = 12
_WORD = 8  # bytes


class FrozenMap:
    """The rows of a map.

    count: how many; plain_count: how many of them are plain (Z2). places: of the rows in key order,
    among keys and values, which are where those are; of the values only plain ones are there.
    """

    __slots__ = ("_held", "_plain", "count", "keys", "places", "plain_count", "values")

    def __init__(self, held: dict[bytes, Any], least_bytes: int, pause: Callable[[], None]) -> None:
        """held: see Z1. least_bytes: of a value that is not plain. pause: lets other threads run.

        Hot: 0.05 us a row with the interpreter's lock, 0.1 without.
        """
        count = len(held)
        self._held = held
        self.count = count
        self.plain_count = 0
        self._plain = bytearray(count)
        self.places = memoryview(array("I", bytes(4 * count)))
        if cython.compiled:
            self.keys = memoryview(array("Q", bytes(8 * count)))
            self.values = memoryview(array("Q", bytes(8 * count)))
        else:
            self.keys, self.values = [b""] * count, [b""] * count  # type: ignore[assignment]
        self._find(least_bytes, pause)
        self._sort()

    def key(self, row: int) -> bytes:
        """The key of a row, 0 <= row < count."""
        assert 0 <= row < self.count
        found: bytes = object_at(self.keys[self.places[row]])
        return found

    def columns(self, start: int, stop: int) -> tuple[list[bytes], list[Any]]:
        """Keys and what they hold, of the rows [start, stop), 0 <= start <= stop <= count."""
        assert 0 <= start <= stop <= self.count
        keys: list[bytes] = []
        held: list[Any] = []
        for row in range(start, stop):
            place = self.places[row]
            key: bytes = object_at(self.keys[place])
            keys.append(key)
            held.append(object_at(self.values[place]) if self._plain[place] else self._held[key])
        return keys, held

    def plain_stop(self, start: int) -> int:
        """The first row from `start` on that is not plain, else count; 0 <= start <= count."""
        assert 0 <= start <= self.count
        if self.plain_count == self.count:
            return self.count
        row = start
        while row < self.count and self._plain[self.places[row]]:
            row += 1
        return row

    def _find(self, least_bytes: int, pause: Callable[[], None]) -> None:
        """Note where keys and values are, in the order of the map. Raises RuntimeError: not Z1."""
        keys, values, plain, places = self.keys, self.values, self._plain, self.places
        at = found = 0
        for key, held in self._held.items():
            keys[at] = address(key)
            places[at] = at
            if type(held) is bytes and len(held) < least_bytes:
                values[at] = address(held)
                plain[at] = 1
                found += 1
            at += 1  # noqa: SIM113 (enumerate() would make a tuple of each row)
            if not at % _SLICE_ROWS:
                pause()
        self.plain_count = found

    def _sort(self) -> None:
        keys, places, count = self.keys, self.places, self.count
        words = memoryview(array("Q", bytes(8 * count)))
        other_words = memoryview(array("Q", bytes(8 * count)))
        other_places = memoryview(array("I", bytes(4 * count)))
        starts = memoryview(array("Q", bytes(8 * STARTS)))
        with cython.nogil:
            _sort(keys, places, words, other_places, other_words, starts, 0, count, 0)


def _sort(
    keys: memoryview,
    places: memoryview,
    words: memoryview,
    other_places: memoryview,
    other_words: memoryview,
    starts: memoryview,
    start: int,
    stop: int,
    depth: int,
) -> None:
    """Put the rows [start, stop) in order, by eight bytes of their keys first.

    Those are the bytes behind what all the keys have in common. As sorting.sort_keys().
    """
    if stop - start <= _FEW or depth == _DEPTH:
        _heap_sort(keys, places, start, stop)
        return
    skip = _shared(keys, places, start, stop)
    for at in range(start, stop):
        words[at] = _word(keys[places[at]], skip)
    sort_words(words, places, other_words, other_places, starts, start, stop)
    first = start
    for at in range(start + 1, stop + 1):
        if at == stop or words[at] != words[first]:
            if at - first > 1:
                _sort(keys, places, words, other_places, other_words, starts, first, at, depth + 1)
            first = at


def _shared(keys: memoryview, places: memoryview, start: int, stop: int) -> int:
    """How many bytes all keys of the rows [start, stop) begin with."""
    first = bytes_at(keys[places[start]])
    size = size_at(keys[places[start]])
    for at in range(start + 1, stop):
        other = bytes_at(keys[places[at]])
        size = min(size, size_at(keys[places[at]]))
        same = 0
        while same < size and first[same] == other[same]:
            same += 1
        size = same
    return size


def _word(place: Any, skip: int) -> int:
    """The eight bytes after the first `skip`, as a number with their order; zeros past the end."""
    key, size = bytes_at(place), size_at(place)
    word = 0
    for at in range(skip, skip + _WORD):
        word = word << 8 | (key[at] if at < size else 0)
    return word


def _heap_sort(keys: memoryview, places: memoryview, start: int, stop: int) -> None:
    """Put the rows [start, stop) in order, comparing their keys."""
    count = stop - start
    for top in range(count // 2 - 1, -1, -1):
        _sift(keys, places, start, top, count)
    for last in range(count - 1, 0, -1):
        moved = places[start]
        places[start] = places[start + last]
        places[start + last] = moved
        _sift(keys, places, start, 0, last)


def _sift(keys: memoryview, places: memoryview, start: int, top: int, count: int) -> None:
    """Let the row at `top` sink in a heap of `count`, whose first is the last in order."""
    moved = places[start + top]
    while True:
        child = 2 * top + 1
        if child >= count:
            break
        if child + 1 < count and (
            _order(keys[places[start + child]], keys[places[start + child + 1]]) < 0
        ):
            child += 1
        if _order(keys[moved], keys[places[start + child]]) >= 0:
            break
        places[start + top] = places[start + child]
        top = child
    places[start + top] = moved


def _order(left: Any, right: Any) -> int:
    return order(bytes_at(left), size_at(left), bytes_at(right), size_at(right))
