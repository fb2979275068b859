"""Random histories as data: which steps, with which arguments.

Owns keys, values and the mixture. A step names everything it needs, and means something (maybe
nothing) after any other steps: so that a history stays one when steps are taken out of it.

Threading: pure functions of a seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.storage.engines.model import Bounds


def _keys() -> list[bytes]:
    """About 200: near-empty ones, binary ones, long common prefixes, neighbours of 0xff."""
    keys = [b"\0", b"\0\0", b"\0\1", b"\1", b"\xff", b"\xff\xff", b"\xff\xff\xff", b"\xff\xfe"]
    keys += [b"\xff\xff\0", b"\xfe", b"\xfe\xff", b"\xfe\xff\xff", b"a", b"a\0", b"a\xff", b"ab"]
    keys += [b"a\xff\xff", b"a\xff\0", b"b", b"b\0", b"p" * 400, b"p" * 400 + b"\0"]
    keys += [b"p" * 300 + b"%d" % n for n in range(30)]
    keys += [b"p" * 300 + b"\xff" * n for n in range(1, 5)]
    keys += [b"key-%03d" % n for n in range(90)]
    keys += [bytes([n, 255 - n, n]) for n in range(5, 250, 5)]
    return keys


KEYS = _keys()
_ORDERED = sorted(KEYS)
SPACES = (0, 0, 0, 0, 0, 1, 1, 15)
DURABLE_KINDS = ("background", "background", "background", "checkpoint", "backup", "sync_all",
                 "reopen")  # fmt: skip
_SHOWN = {key: f"KEYS[{index}]" for index, key in enumerate(KEYS)}


@dataclass(frozen=True)
class Value:
    """A value by name: its stamp makes it unlike all others, and half of them compress."""

    stamp: int
    size: int

    def bytes(self) -> bytes:
        """The value itself."""
        if self.size == 0:
            return b""
        stamp = b"%d:" % self.stamp
        if self.stamp % 2:
            return (stamp * (self.size // len(stamp) + 1))[: max(self.size, len(stamp))]
        return stamp + random.Random(self.stamp).randbytes(max(0, self.size - len(stamp)))


@dataclass(frozen=True)
class Step:
    """One step: a method of the runner (runner.py), and its arguments."""

    kind: str
    args: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(map(_shown, self.args))})"


def steps_of(seed: int, count: int) -> list[Step]:
    """The first `count` steps of the history with that seed."""
    rng = random.Random(seed)
    kinds = list(_MIXTURE)
    weights = [weight for weight, _ in _MIXTURE.values()]
    chosen = rng.choices(kinds, weights, k=count)
    draw = Draw(rng)
    return [draw.step(kind) for kind in chosen]


class Draw:
    """Draws arguments."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.stamp = 0

    def step(self, kind: str) -> Step:
        """A step of that kind."""
        return Step(kind, _MIXTURE[kind][1](self))

    def key(self) -> bytes:
        """One of KEYS; half the time one of two dozen, so that they meet often."""
        return KEYS[self.rng.randrange(24)] if self.rng.random() < 0.5 else self.rng.choice(KEYS)

    def keys(self, most: int) -> tuple[bytes, ...]:
        """Up to `most` of them."""
        return tuple(self.key() for _ in range(self.rng.randint(0, most)))

    def space(self) -> int:
        """A keyspace; mostly 0."""
        return self.rng.choice(SPACES)

    def value(self) -> Value:
        """From 0 bytes up to, now and then, 100 KiB."""
        self.stamp += 1
        sizes, weights = (0, 4, 30, 300, 3000, 102_400), (6, 20, 40, 20, 6, 0.3)
        return Value(self.stamp, self.rng.choices(sizes, weights)[0])

    def ttl_ms(self) -> int | None:
        """Mostly none."""
        if self.rng.random() < 0.7:
            return None
        return self.rng.choice((1, 50, 300, 2000, 60_000, 60_000, 10**9, 10**9))

    def bound(self, key: bytes) -> bytes:
        """Where a range may begin or end: at the key, or just beside it."""
        beside = (key, key, key, key + b"\0", key[:-1], key + b"\xff", key[: len(key) // 2])
        return self.rng.choice(beside)

    def range(self) -> tuple[bytes, bytes | None]:
        """A range to delete: mostly a few keys, now and then nothing or the rest."""
        at = _ORDERED.index(self.key())
        stop = at + self.rng.choice((0, 1, 1, 2, 4, 8, 30, len(_ORDERED)))
        if stop >= len(_ORDERED):
            return self.bound(_ORDERED[at]), None
        return self.bound(_ORDERED[at]), self.bound(_ORDERED[stop])

    def bounds(self) -> Bounds:
        """Of a scan."""
        rng, key = self.rng, self.key()
        prefixes = (key, key[:1], key[: len(key) // 2], b"\xff\xff", b"a\xff", b"\xfe\xff", b"p")
        prefix = rng.choice(prefixes) if rng.random() < 0.4 else b""
        start = self.bound(self.key()) if rng.random() < 0.3 else None
        stop = self.bound(self.key()) if rng.random() < 0.3 else None
        limit = rng.choice((None, None, None, None, 0, 1, 2, 7, 50))
        return Bounds(prefix, start, stop, rng.random() < 0.5, limit)

    def edits(self, most: int) -> tuple[tuple[Any, ...], ...]:
        """What one keyspace's batch does."""
        made: list[tuple[Any, ...]] = []
        for _ in range(self.rng.randint(1, most)):
            roll = self.rng.random()
            if roll < 0.6:
                made.append(("put", self.key(), self.value(), self.ttl_ms()))
            elif roll < 0.9:
                made.append(("delete", self.key()))
            else:
                made.append(("delete_range", *self.range()))
        return tuple(made)

    def changes(self, most: int) -> tuple[tuple[Any, ...], ...]:
        """What a batch as the server makes them does: in many keyspaces, and whole ones."""
        made: list[tuple[Any, ...]] = []
        for _ in range(self.rng.randint(1, most)):
            roll, space = self.rng.random(), self.space()
            if roll < 0.4:
                made.append(("put", space, self.key(), self.value(), self.ttl_ms()))
            elif roll < 0.55:
                made.append(("delete", space, self.key()))
            elif roll < 0.68:
                made.append(("expire", space, self.key(), self.ttl_ms()))
            elif roll < 0.84:
                offset = self.rng.choice((0, 1, 5, 40))
                made.append(("patch", space, self.key(), offset, self.value()))
            elif roll < 0.92:
                made.append(("delete_range", space, *self.range()))
            elif roll < 0.99:
                made.append(("swap", space, self.space()))
            else:
                made.append(("delete_range", space, b"", None))
        return tuple(made)

    def transaction(self) -> tuple[Any, ...]:
        """Reads, what other writers do meanwhile (often to what was read), own writes."""
        reads = self.keys(3)
        bounds = self.bounds() if self.rng.random() < 0.5 else None
        space = self.space()
        kinds = ("put", "put", "delete", "delete", "delete_range", "expire", "swap", "commit",
                 "background", "compare_and_set")  # fmt: skip
        others = [self.step(self.rng.choice(kinds)) for _ in range(self.rng.choice((0, 0, 1, 2)))]
        near = [*reads, *([bounds.start or bounds.prefix or self.key()] if bounds else [])]
        if near and self.rng.random() < 0.5:
            others.append(Step("put", (space, self.rng.choice(near), self.value(), None)))
        edits = tuple(edit for edit in self.edits(4) if edit[0] != "delete_range")
        return (space, reads, bounds, tuple(others), edits, self.rng.random() < 0.9)

    def crash(self) -> tuple[Any, ...]:
        """While something goes on that changes no answer, or between steps; how much survives."""
        inner = self.rng.choice((None, *DURABLE_KINDS))
        survival = self.rng.choice((0.0, 0.5, 0.9, 1.0))
        return self._call(inner, survival)

    def aside(self) -> tuple[Any, ...]:
        """While something is written: only a look at what such a crash would leave."""
        kinds = ("put", "delete", "batch", "commit", "unit", "delete_range", "clear", "swap",
                 "transaction", "background", "checkpoint")  # fmt: skip
        return self._call(self.rng.choice(kinds), self.rng.choice((0.0, 0.5, 1.0)))

    def _call(self, inner: str | None, survival: float) -> tuple[Any, ...]:
        nth = self.rng.choice((1, 2, 3, 4, 6, 10, 20, 40))
        step = None if inner is None else self.step(inner)
        return (step, nth, survival, self.rng.getrandbits(32))


_MIXTURE: dict[str, tuple[float, Callable[[Draw], tuple[Any, ...]]]] = {
    "put": (200, lambda d: (d.space(), d.key(), d.value(), d.ttl_ms())),
    "delete": (60, lambda d: (d.space(), d.key())),
    "batch": (40, lambda d: (d.space(), d.edits(8))),
    "commit": (35, lambda d: (d.changes(6),)),
    "unit": (
        30,
        lambda d: (
            tuple(d.changes(3) for _ in range(d.rng.randint(1, 3))),
            tuple((d.space(), d.key()) for _ in range(3)),
            d.rng.random() < 0.5,
        ),
    ),
    "put_many": (25, lambda d: (d.space(), tuple((d.key(), d.value()) for _ in range(20)))),
    "delete_range": (14, lambda d: (d.space(), *d.range())),
    "clear": (2, lambda d: (d.space(),)),
    "swap": (6, lambda d: (d.space(), d.space())),
    "expire": (20, lambda d: (d.space(), d.key(), d.rng.choice((1, 50, 300, 2000, 60_000)))),
    "persist": (20, lambda d: (d.space(), d.key())),
    "ttl": (15, lambda d: (d.space(), d.key())),
    "compare_and_set": (
        20,
        lambda d: (
            d.space(), d.key(), d.rng.random() < 0.7, None if d.rng.random() < 0.2 else d.value(),
        ),
    ),
    "pop": (8, lambda d: (d.space(), d.key())),
    "setdefault": (6, lambda d: (d.space(), d.key(), d.value())),
    "transaction": (35, Draw.transaction),
    "get": (60, lambda d: (d.space(), d.key())),
    "get_many": (15, lambda d: (d.space(), d.keys(12))),
    "scan": (45, lambda d: (d.space(), d.bounds())),
    "view": (15, lambda d: (d.space(), d.key(), d.bounds(), d.rng.getrandbits(16))),
    "count": (20, lambda d: (d.space(),)),
    "check": (5, lambda d: ()),
    "open_snapshot": (14, lambda d: (d.rng.randrange(6), d.space())),
    "read_snapshot": (50, lambda d: (d.rng.randrange(6), d.key(), d.keys(4), d.bounds())),
    "close_snapshot": (6, lambda d: (d.rng.randrange(6),)),
    "open_iterator": (
        30,
        lambda d: (
            d.rng.randrange(5), d.space(),
            Bounds(reverse=d.rng.random() < 0.5) if d.rng.random() < 0.7 else d.bounds(),
            d.rng.choice((1, 2, 5, 30)),
        ),
    ),
    "read_iterator": (45, lambda d: (d.rng.randrange(5), d.rng.randint(1, 3))),
    "close_iterator": (2, lambda d: (d.rng.randrange(5),)),
    "advance": (20, lambda d: (d.rng.choice((1, 20, 50, 300, 300, 2000)),)),
    "expire_due": (5, lambda d: (d.rng.choice((1, 10, 1000)),)),
    "background": (35, lambda d: ()),
    "checkpoint": (6, lambda d: ()),
    "sync_all": (5, lambda d: ()),
    "verify": (2, lambda d: ()),
    "backup": (1.5, lambda d: ()),
    "reopen": (4, lambda d: ()),
    "crash": (8, Draw.crash),
    "crash_aside": (12, Draw.aside),
}  # fmt: skip


def _shown(argument: object) -> str:
    if isinstance(argument, tuple):
        inner = ", ".join(map(_shown, argument))
        return f"({inner},)" if len(argument) == 1 else f"({inner})"
    if isinstance(argument, bytes) and len(argument) > 20:
        return _SHOWN.get(argument, repr(argument))
    return str(argument) if isinstance(argument, Step) else repr(argument)
