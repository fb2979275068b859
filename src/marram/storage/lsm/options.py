"""How a leveled tree is kept in shape: the policy's numbers.

Owns names, defaults and validation; what they mean is done in shape.py, job.py and picker.py. The
defaults come from simulator.py, for memtables of 64 MiB; for_memtable() carries them over.

Threading: frozen values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from marram.errors import InvalidArgument

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_MEMTABLE_BYTES = 64 * MIB
"""The memtable that the defaults are for."""


@dataclass(frozen=True, slots=True)
class LevelOptions:
    """The policy. Raises InvalidArgument: a number out of its range.

    level0_trigger: level 0 is compacted when a key may be in that many of its tables, >= 1.
    level0_soft, level0_stop: at how many of them writers should begin to slow down, and stop.
    base_bytes: what the first level below level 0 may hold, bytes. Best is about twice what
        level 0 holds when it is due.
    multiplier: how much more each level holds than the one above it, 2 to 100. Space
        amplification settles at about 1 + 1 / (multiplier - 1).
    table_bytes: the size outputs aim at; they have two thirds of that to twice that, so as to end
        where the next level's tables begin.
    grandparent_bytes: an output ends, however small, before it meets more than that much of the
        next level; so that compacting it later stays cheap.
    job_bytes: a job takes no more than that of its own accord. One table and what it meets below
        is always allowed.
    garbage_ratio: a table is rewritten where that share of its rows is of no use to anyone any
        more, above 0 up to 1.
    blob_garbage_ratio: a blob's values are moved to a new one where that share of it is garbage,
        and compactions have the time; above 0 up to 1.
    debt_soft_bytes, debt_stop_bytes: at how much owed compaction writers should begin to slow
        down, and stop.
    """

    level0_trigger: int = 4
    level0_soft: int = 8
    level0_stop: int = 20
    base_bytes: int = 512 * MIB
    multiplier: int = 10
    table_bytes: int = 32 * MIB
    grandparent_bytes: int = 640 * MIB
    job_bytes: int = 1 * GIB
    garbage_ratio: float = 0.5
    blob_garbage_ratio: float = 0.5
    debt_soft_bytes: int = 16 * GIB
    debt_stop_bytes: int = 64 * GIB

    def __post_init__(self) -> None:
        _in_range("level0_trigger", self.level0_trigger, 1, self.level0_soft)
        _in_range("level0_soft", self.level0_soft, 1, self.level0_stop)
        _in_range("level0_stop", self.level0_stop, 1, 1000)
        _in_range("base_bytes", self.base_bytes, 1, 2**62)
        _in_range("multiplier", self.multiplier, 2, 100)
        _in_range("table_bytes", self.table_bytes, 1, 2**62)
        _in_range("grandparent_bytes", self.grandparent_bytes, self.table_bytes, 2**62)
        _in_range("job_bytes", self.job_bytes, self.table_bytes, 2**62)
        _in_range("debt_soft_bytes", self.debt_soft_bytes, 1, self.debt_stop_bytes)
        _in_range("debt_stop_bytes", self.debt_stop_bytes, 1, 2**62)
        for name in ("garbage_ratio", "blob_garbage_ratio"):
            ratio = getattr(self, name)
            if not 0 < ratio <= 1:
                raise InvalidArgument(f"{name} must be above 0 up to 1, not {ratio}")

    @classmethod
    def for_memtable(cls, memtable_bytes: int) -> Self:
        """The defaults, with sizes that fit memtables of another size than 64 MiB."""
        _in_range("memtable_bytes", memtable_bytes, 1, 2**48)

        def scaled(size_bytes: int) -> int:
            return max(1, size_bytes * memtable_bytes // _MEMTABLE_BYTES)

        defaults = cls()
        return cls(
            base_bytes=scaled(defaults.base_bytes),
            table_bytes=scaled(defaults.table_bytes),
            grandparent_bytes=scaled(defaults.grandparent_bytes),
            job_bytes=scaled(defaults.job_bytes),
            debt_soft_bytes=scaled(defaults.debt_soft_bytes),
            debt_stop_bytes=scaled(defaults.debt_stop_bytes),
        )


def _in_range(name: str, value: int, minimum: int, maximum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        raise InvalidArgument(f"{name} must be {minimum} to {maximum}, not {value!r}")
