"""A histogram of latencies: buckets that grow with the value, so that the error is relative.

Owns recording, merging and percentiles; not what is recorded.

H1  a percentile is never below the value it stands for, and above it by less than 1 / 128.
H2  count, minimum, maximum and sum are exact.
H3  merging is the same as having recorded everything in one.

Values below 256 have a bucket each; above, every power of two is cut into 128 buckets. So 0 .. 2^43
ns, two hours, takes 4,736 counters whatever is recorded; later values share the last bucket, where
only the maximum tells them apart.

Threading: one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from marram.errors import InvalidArgument

_SUB_BITS = 7
_EXACT_BITS = _SUB_BITS + 1  # values of so many bits have a bucket each
_MAX_BITS = 43
_LARGEST = (1 << _MAX_BITS) - 1
_BUCKETS = ((_MAX_BITS - _EXACT_BITS) << _SUB_BITS) + (1 << _EXACT_BITS)


class Bucket(NamedTuple):
    """How many values lie between low and high, both included."""

    low: int
    high: int
    values: int


class Histogram:
    """Counts of values; nanoseconds everywhere in this package."""

    __slots__ = ("_counts", "count", "maximum", "minimum", "total")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0
        self.total = 0
        self.minimum = 0
        self.maximum = 0

    def record(self, value: int, count: int = 1) -> None:
        """Count a value `count` times, >= 1. A negative value is taken for 0."""
        if value < 0:  # noqa: PLR1730 - hot: max() is a call
            value = 0
        if not self.count or value < self.minimum:
            self.minimum = value
        if value > self.maximum:  # noqa: PLR1730
            self.maximum = value
        self.count += count
        self.total += value * count
        shift = value.bit_length() - _EXACT_BITS
        if shift <= 0:
            self._counts[value] += count
        elif value > _LARGEST:
            self._counts[-1] += count
        else:
            self._counts[(shift << _SUB_BITS) + (value >> shift)] += count

    def merge(self, other: Histogram) -> None:
        """Count what the other counted as well (H3)."""
        if not other.count:
            return
        self.minimum = min(self.minimum, other.minimum) if self.count else other.minimum
        self.maximum = max(self.maximum, other.maximum)
        self.count += other.count
        self.total += other.total
        self._counts = [a + b for a, b in zip(self._counts, other._counts, strict=True)]

    @property
    def mean(self) -> float:
        """0 where nothing was recorded."""
        return self.total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> int:
        """The least value that at least `percent` % of the values do not pass (H1).

        percent: 0 .. 100. 0 where nothing was recorded.
        """
        if not 0 <= percent <= 100:
            raise InvalidArgument(f"a percentile is 0 .. 100, not {percent}")
        wanted = max(1, -int(-self.count * percent // 100))
        seen = 0
        for _, high, count in self.buckets():
            seen += count
            if seen >= wanted:
                return min(high, self.maximum)
        return 0

    def buckets(self) -> Iterator[Bucket]:
        """Those that are not empty, ascending."""
        for index, count in enumerate(self._counts):
            if count:
                low, high = _bounds(index)
                yield Bucket(low, high, count)

    def as_json(self) -> dict[str, Any]:
        """For a file, or another process; from_json() reads it."""
        return {
            "sub_bits": _SUB_BITS,
            "count": self.count,
            "total": self.total,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "buckets": [[index, count] for index, count in enumerate(self._counts) if count],
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Histogram:
        """What as_json() gave. Raises InvalidArgument: it is something else."""
        made = cls()
        try:
            if given["sub_bits"] != _SUB_BITS:
                raise InvalidArgument("a histogram with other buckets than this version's")
            for name in ("count", "total", "minimum", "maximum"):
                setattr(made, name, int(given[name]))
            for index, count in given["buckets"]:
                if not 0 <= index < _BUCKETS or count < 1:
                    raise InvalidArgument("a histogram has a bucket that cannot be")
                made._counts[index] += count
        except InvalidArgument:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidArgument(f"this is no histogram: {error!r}") from error
        if sum(made._counts) != made.count:
            raise InvalidArgument("a histogram's buckets do not sum up to its count")
        return made


def _bounds(index: int) -> tuple[int, int]:
    """The values of a bucket, both ends included."""
    shift = (index >> _SUB_BITS) - 1
    if shift <= 0:
        return index, index
    low = (index - (shift << _SUB_BITS)) << shift
    return low, low + (1 << shift) - 1
