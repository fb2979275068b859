"""What a load asks: the mix, the records, YCSB's workloads, and the requests' bytes.

Owns `Workload` and the streams that requests come from; not when they are sent (driver.py).

S1  what a stream gives follows from its seed. Several processes share a load without overlap: each
    has a seed and inserts records of its own.
S2  a request's bytes are made before the clock runs where that is possible: without inserts the
    stream draws a pool of batches and goes round in it. A pool of a million requests, or of
    POOL_BYTES, is as good a sample as a run can tell from fresh draws. Inserts cannot go round, so
    such a stream draws as it goes.
S3  reads of the latest records ask for such as are there: the newest ones *acknowledged*.

A read-modify-write is a read, and after its reply an update of the same record; it counts as one
request, and takes until the second reply.

Threading: one thread at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import accumulate
from math import inf
from random import Random
from typing import Any, Final, Protocol

from marram.bench.keys import DISTRIBUTIONS, THETA, Latest, make_chooser
from marram.bench.wire import Wire
from marram.errors import InvalidArgument

KINDS: Final = ("read", "update", "insert", "scan", "read-modify-write")
READ, UPDATE, INSERT, SCAN, MODIFY = range(5)
HALF: Final = 5
"""A read whose update is still to come: it is no request of its own."""

POOL_REQUESTS: Final = 1 << 20
POOL_REQUESTS_UNKNOWN: Final = 1 << 18  # where a run has a time and no number
POOL_BYTES: Final = 128 << 20
FILL_DEPTH: Final = 100
_VALUES_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked, and of how many records.

    read, update, insert, scan, modify: shares of the requests, 1 in sum; modify is
    read-modify-write. records: how many there are at first. distribution: of keys.DISTRIBUTIONS;
    theta: how skewed. size_min, size_max: bytes of a value, drawn between the two. scan_max:
    records a scan asks for, 1 to that. Raises InvalidArgument.
    """

    read: float = 0.5
    update: float = 0.5
    insert: float = 0.0
    scan: float = 0.0
    modify: float = 0.0
    records: int = 10_000
    distribution: str = "uniform"
    theta: float = THETA
    size_min: int = 64
    size_max: int = 64
    scan_max: int = 100

    def __post_init__(self) -> None:
        if min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-9:
            raise InvalidArgument(f"the shares of a workload sum up to 1, not {self.shares}")
        if self.records < 1:
            raise InvalidArgument("a workload has at least one record")
        if self.distribution not in DISTRIBUTIONS:
            raise InvalidArgument(f"a distribution is one of {', '.join(DISTRIBUTIONS)}")
        if not 0 <= self.size_min <= self.size_max <= 64 << 20:
            raise InvalidArgument("a value has 0 bytes to 64 MiB, and the smaller size comes first")
        if not 1 <= self.scan_max <= 1000:
            raise InvalidArgument("a scan asks for 1 to 1000 records")

    @property
    def shares(self) -> tuple[float, ...]:
        """In the order of KINDS."""
        return (self.read, self.update, self.insert, self.scan, self.modify)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Workload:
        """What dataclasses.asdict() gave."""
        return cls(**{one.name: given[one.name] for one in fields(cls)})


YCSB: Final[dict[str, dict[str, Any]]] = {
    "a": {"read": 0.5, "update": 0.5, "distribution": "zipfian"},
    "b": {"read": 0.95, "update": 0.05, "distribution": "zipfian"},
    "c": {"read": 1.0, "update": 0.0, "distribution": "zipfian"},
    "d": {"read": 0.95, "update": 0.0, "insert": 0.05, "distribution": "latest"},
    "e": {"read": 0.0, "update": 0.0, "scan": 0.95, "insert": 0.05, "distribution": "zipfian"},
    "f": {"read": 0.5, "update": 0.0, "modify": 0.5, "distribution": "zipfian"},
}
"""The core workloads by letter. A record is one value, which an update replaces whole."""
YCSB_BYTES: Final = 1000  # ten fields of a hundred


def key_of(number: int) -> bytes:
    """The key of a record, 16 bytes below 10**12; ascending with its number."""
    return b"key:%012d" % number


class Values:
    """Values that do not compress, cut out of one block of random bytes."""

    def __init__(self, size_min: int, size_max: int, random: Random) -> None:
        self._block = random.randbytes(max(_VALUES_BYTES, 2 * size_max))
        self._low = size_min
        self._span = size_max - size_min + 1
        self._random = random.random

    def next(self) -> bytes:
        """A value."""
        size = self._low if self._span == 1 else self._low + int(self._random() * self._span)
        at = int(self._random() * (len(self._block) - size))
        return self._block[at : at + size]


@dataclass(slots=True)
class Batch:
    """Requests that are sent together.

    kinds: one of KINDS' numbers, or HALF, for each. then: what follows once all are answered.
    inserted: the records that are there once all are answered.
    """

    payload: bytes
    kinds: bytes
    then: Batch | None = None
    inserted: list[int] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """How many of a load's requests it is; a read-modify-write is one."""
        return len(self.kinds)


class Stream(Protocol):
    """Where requests come from."""

    def next(self, count: int) -> Batch:
        """The next `count` requests, >= 1; fewer where there are no more, none in the end."""
        ...

    def answered(self, batch: Batch) -> None:
        """All of a batch was answered."""
        ...


class Fill:
    """Puts every record once, in order: the load phase."""

    def __init__(self, wire: Wire, workload: Workload, seed: int) -> None:
        self._wire = wire
        self._values = Values(workload.size_min, workload.size_max, Random(seed))
        self._left = iter(range(workload.records))

    def next(self, count: int) -> Batch:
        """The next records."""
        put, value = self._wire.put, self._values.next
        # The range first: zip() takes from its first one before it finds the other at its end.
        requests = [
            put(key_of(number), value())
            for _, number in zip(range(count), self._left, strict=False)
        ]
        return Batch(b"".join(requests), bytes((INSERT,)) * len(requests))

    def answered(self, batch: Batch) -> None:
        """Nothing follows from it."""


class Drawn:
    """Draws requests of a workload as they are asked for."""

    def __init__(
        self, wire: Wire, workload: Workload, seed: int, share: int = 0, shares: int = 1
    ) -> None:
        """share, shares: this is process `share` of `shares`. Raises InvalidArgument."""
        if workload.scan and not wire.scans:
            raise InvalidArgument(f"{wire.name} has no scans")
        random = Random(f"{seed} {share}")
        self._wire = wire
        self._random = random.random
        self._values = Values(workload.size_min, workload.size_max, random)
        self._chooser = make_chooser(
            workload.distribution, workload.records, workload.theta, random
        )
        self._scan_max = workload.scan_max
        bounds = [*zip(accumulate(workload.shares), range(len(KINDS)), strict=True)]
        self._bounds = [one for one, share in zip(bounds, workload.shares, strict=True) if share]
        self._bounds[-1] = (inf, self._bounds[-1][1])  # whatever the sum's last digit is
        self._numbers = itertools.count(workload.records + share, shares)

    def next(self, count: int) -> Batch:
        """The next `count` requests."""
        requests: list[bytes] = []
        kinds = bytearray()
        updates: list[bytes] = []
        inserted: list[int] = []
        for _ in range(count):
            kind = self._kind()
            kinds.append(HALF if kind == MODIFY else kind)
            requests.append(self._request(kind, updates, inserted))
        then = None
        if updates:
            then = Batch(b"".join(updates), bytes((MODIFY,)) * len(updates))
        return Batch(b"".join(requests), bytes(kinds), then, inserted)

    def answered(self, batch: Batch) -> None:
        """Records that were inserted may be asked for (S3)."""
        if batch.inserted and isinstance(self._chooser, Latest):
            self._chooser.inserted(batch.inserted)

    def _kind(self) -> int:
        drawn = self._random()
        return next(kind for bound, kind in self._bounds if drawn < bound)

    def _request(self, kind: int, updates: list[bytes], inserted: list[int]) -> bytes:
        wire = self._wire
        if kind == INSERT:
            number = next(self._numbers)
            inserted.append(number)
            return wire.put(key_of(number), self._values.next())
        key = key_of(self._chooser.next())
        if kind == READ:
            return wire.get(key)
        if kind == UPDATE:
            return wire.put(key, self._values.next())
        if kind == SCAN:
            return wire.scan(key, 1 + int(self._random() * self._scan_max))
        updates.append(wire.put(key, self._values.next()))
        return wire.get(key)


class Pool:
    """Batches drawn beforehand (S2), all of `depth` requests but such as are asked for shorter."""

    def __init__(self, drawn: Drawn, depth: int, requests: int) -> None:
        """requests: how many to draw, at most; fewer where they would pass POOL_BYTES."""
        self._drawn = drawn
        self._depth = depth
        self._at = 0
        self._batches: list[Batch] = []
        size = 0
        for _ in range(max(1, requests // depth)):
            batch = drawn.next(depth)
            self._batches.append(batch)
            size += len(batch.payload)
            if size >= POOL_BYTES:
                break

    def next(self, count: int) -> Batch:
        """The next `count` requests."""
        if count != self._depth:
            return self._drawn.next(count)
        batch = self._batches[self._at]
        self._at += 1
        if self._at == len(self._batches):
            self._at = 0
        return batch

    def answered(self, batch: Batch) -> None:
        """Nothing follows from it."""


def make_stream(drawn: Drawn, workload: Workload, depth: int, requests: int | None) -> Stream:
    """A stream of a workload; requests: how many will be asked for, None where nobody knows."""
    if workload.insert:
        return drawn
    wanted = POOL_REQUESTS_UNKNOWN if requests is None else min(requests, POOL_REQUESTS)
    return Pool(drawn, depth, wanted)
