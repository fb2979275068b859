"""storage/lsm/options.py: what a policy may be told."""

from __future__ import annotations

from typing import Any

import pytest

from marram.errors import InvalidArgument
from marram.storage.lsm.options import MIB, LevelOptions


@pytest.mark.parametrize(
    "values",
    [
        {"level0_trigger": 0},
        {"level0_trigger": 9},
        {"level0_soft": 21},
        {"level0_stop": 1001},
        {"base_bytes": 0},
        {"multiplier": 1},
        {"multiplier": 101},
        {"multiplier": 2.5},
        {"multiplier": True},
        {"table_bytes": 0},
        {"grandparent_bytes": 32 * MIB - 1},
        {"job_bytes": 32 * MIB - 1},
        {"job_bytes": "1G"},
        {"garbage_ratio": 0},
        {"garbage_ratio": 1.01},
        {"debt_soft_bytes": 0},
        {"debt_stop_bytes": 16 * 1024 * MIB - 1},
    ],
    ids=str,
)
def test_a_number_out_of_its_range_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(values)).split("_")[0]):
        LevelOptions(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"level0_trigger": 1, "level0_soft": 1, "level0_stop": 1},
        {"level0_stop": 1000},
        {"base_bytes": 1, "table_bytes": 1, "grandparent_bytes": 1, "job_bytes": 1},
        {"multiplier": 2},
        {"multiplier": 100},
        {"garbage_ratio": 1},
        {"debt_soft_bytes": 1, "debt_stop_bytes": 1},
    ],
    ids=str,
)
def test_a_number_at_its_limit_is_fine(values: dict[str, Any]) -> None:
    options = LevelOptions(**values)
    assert {name: getattr(options, name) for name in values} == values


def test_sizes_follow_the_memtable() -> None:
    assert LevelOptions.for_memtable(64 * MIB) == LevelOptions()
    small = LevelOptions.for_memtable(16 * MIB)
    assert (small.base_bytes, small.table_bytes) == (128 * MIB, 8 * MIB)
    assert small.level0_trigger == LevelOptions().level0_trigger
    LevelOptions.for_memtable(1)
    with pytest.raises(InvalidArgument):
        LevelOptions.for_memtable(0)
