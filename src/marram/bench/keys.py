"""Which record a request is about: uniform, zipfian, latest, or one after the other.

Owns the distributions; not the keys' bytes (workload.py). Records are numbered 0 .. count - 1.

K1  draws follow from the seed of the generator that is handed in, and from nothing else.
K2  `Zipfian` gives rank r, from 0, with probability proportional to 1 / (r + 1)**theta, exactly,
    not by the usual approximation. Scrambling is one to one, so that it changes no probability:
    it only scatters the popular records over the key space.

Source: W. Hörmann and G. Derflinger, "Rejection-inversion to generate variates from monotone
discrete distributions", 1996. It needs no table, so that a million records cost no start-up time.

Threading: one thread at a time.
"""

from __future__ import annotations

from math import exp, expm1, gcd, log, log1p
from random import Random
from typing import Protocol

from marram.errors import InvalidArgument

DISTRIBUTIONS = ("uniform", "zipfian", "latest", "sequential")
THETA = 0.99  # YCSB's
_GOLDEN = 0.6180339887498949


class Chooser(Protocol):
    """Says which record is next."""

    def next(self) -> int:
        """The number of a record."""
        ...


def make_chooser(name: str, count: int, theta: float, random: Random) -> Chooser:
    """A chooser among `count` records; name: of DISTRIBUTIONS; theta: how skewed, > 0.

    Raises InvalidArgument.
    """
    if name == "uniform":
        return Uniform(count, random)
    if name == "zipfian":
        return Zipfian(count, theta, random)
    if name == "latest":
        return Latest(count, theta, random)
    if name == "sequential":
        return Sequential(count)
    raise InvalidArgument(f"a distribution is one of {', '.join(DISTRIBUTIONS)}, not {name!r}")


class Uniform:
    """All alike."""

    def __init__(self, count: int, random: Random) -> None:
        _check_count(count)
        self._count = count
        self._random = random.random

    def next(self) -> int:
        """The number of a record."""
        return int(self._random() * self._count)


class Sequential:
    """One after the other, and then again from the first."""

    def __init__(self, count: int) -> None:
        _check_count(count)
        self._count = count
        self._next = 0

    def next(self) -> int:
        """The number of a record."""
        number = self._next
        self._next = (number + 1) % self._count
        return number


class Ranks:
    """Zipf-distributed ranks (K2), 0 the most frequent. `count` may grow at any time."""

    def __init__(self, count: int, theta: float, random: Random) -> None:
        """theta: > 0, at most 10; 0.99 is YCSB's. Raises InvalidArgument."""
        _check_count(count)
        if not 0 < theta <= 10:
            raise InvalidArgument(f"theta must be above 0 and at most 10, not {theta}")
        self._random = random.random
        self._theta = theta
        self._low = self._area(1.5) - 1.0
        # How far below a number the inverse may land and still be taken without a second look.
        self._sure = 2.0 - self._inverse(self._area(2.5) - self._height(2.0))
        self.grow(count)

    def grow(self, count: int) -> None:
        """There are so many records now."""
        self._count = count
        self._high = self._area(count + 0.5)

    def next(self) -> int:
        """A rank."""
        while True:
            area = self._high + self._random() * (self._low - self._high)
            at = self._inverse(area)
            number = min(max(int(at + 0.5), 1), self._count)
            if number - at <= self._sure or area >= self._area(number + 0.5) - self._height(number):
                return number - 1

    def _height(self, x: float) -> float:
        return exp(-self._theta * log(x))

    def _area(self, x: float) -> float:
        """The integral of _height() from 1 to x."""
        log_x = log(x)
        scaled = (1.0 - self._theta) * log_x
        return (expm1(scaled) / scaled if abs(scaled) > 1e-8 else 1.0 + scaled / 2) * log_x

    def _inverse(self, area: float) -> float:
        """The x whose _area() it is."""
        scaled = max(area * (1.0 - self._theta), -1.0 + 1e-16)
        return exp((log1p(scaled) / scaled if abs(scaled) > 1e-8 else 1.0 - scaled / 2) * area)


class Zipfian:
    """A few are asked for again and again, and lie scattered over all of them."""

    def __init__(self, count: int, theta: float, random: Random) -> None:
        self._ranks = Ranks(count, theta, random)
        self._count = count
        self._step = _step(count)

    def next(self) -> int:
        """The number of a record."""
        return self.record_of(self._ranks.next())

    def record_of(self, rank: int) -> int:
        """The record that is the `rank`-th most popular one, from 0."""
        return (rank + 1) * self._step % self._count


class Latest:
    """The newest are asked for most: rank 0 is the record that was inserted last."""

    def __init__(self, count: int, theta: float, random: Random) -> None:
        self._ranks = Ranks(count, theta, random)
        self._before = count  # records that were there at first
        self._inserted: list[int] = []

    def inserted(self, numbers: list[int]) -> None:
        """These are there now, the last of them the newest."""
        self._inserted += numbers
        self._ranks.grow(self._before + len(self._inserted))

    def next(self) -> int:
        """The number of a record."""
        rank = self._ranks.next()
        new = len(self._inserted)
        return self._inserted[new - 1 - rank] if rank < new else self._before - 1 - (rank - new)


def _step(count: int) -> int:
    """A stride through all of 0 .. count - 1 that keeps successive steps far apart."""
    step = max(1, int(count * _GOLDEN))
    while gcd(step, count) != 1:
        step += 1
    return step


def _check_count(count: int) -> None:
    if count < 1:
        raise InvalidArgument(f"there must be at least one record, not {count}")
