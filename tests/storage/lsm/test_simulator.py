"""storage/lsm/simulator.py: what the default policy costs, and that a bad one is seen to cost more.

A 64th of 5 GB in rows of 1 KiB, with a 64th of the 64 MiB memtable, unless said otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from marram.errors import InvalidArgument
from marram.storage.lsm.options import MIB, LevelOptions
from marram.storage.lsm.simulator import Figures, Workload, simulate

SCALE = 64
LOAD = Workload(keys=5_000_000 // SCALE, overwrites=0.2, memtable_bytes=64 * MIB // SCALE)
OPTIONS = LevelOptions.for_memtable(LOAD.memtable_bytes)


@pytest.fixture(scope="module")
def figures() -> Figures:
    return simulate(LOAD)


def test_random_load_and_overwrites_cost_less_than_12_writes_a_byte(figures: Figures) -> None:
    assert 5.5 < figures.write_amplification < 8
    assert figures.user_bytes == (LOAD.keys + LOAD.keys // 5) * 1024
    assert 0.99 * figures.user_bytes < figures.flushed_bytes < figures.user_bytes


def test_the_tree_takes_little_more_than_its_data(figures: Figures) -> None:
    assert 1.0 < figures.space_amplification <= 1.2
    assert figures.peak_bytes <= 1.3 * figures.live_bytes
    last = figures.levels[-1][1]
    assert last >= 0.85 * figures.table_bytes


def test_reads_look_into_few_tables(figures: Figures) -> None:
    assert figures.level0_depth == OPTIONS.level0_trigger
    assert figures.probes_mean < 3
    assert figures.probes_worst <= 4


def test_v4_every_key_is_found_where_a_read_looks_first(figures: Figures) -> None:
    assert figures.lost == 0


def test_m1_figures_are_the_same_for_the_same_seed(figures: Figures) -> None:
    assert simulate(LOAD) == figures
    assert simulate(replace(LOAD, seed=2)) != figures


def test_m2_figures_depend_on_how_sizes_relate_not_on_sizes(figures: Figures) -> None:
    quarter = simulate(replace(LOAD, keys=LOAD.keys // 4, memtable_bytes=LOAD.memtable_bytes // 4))
    assert quarter.write_amplification == pytest.approx(figures.write_amplification, rel=0.05)
    assert quarter.space_amplification == pytest.approx(figures.space_amplification, rel=0.05)


def test_overwrites_alone_leave_the_last_level_nine_tenths() -> None:
    figures = simulate(replace(LOAD, keys=LOAD.keys // 2, overwrites=4.0))
    assert figures.write_amplification < 9
    assert 1.05 < figures.space_amplification <= 1.2
    assert figures.lost == 0


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_level_0_stays_below_the_stop_where_compactions_write_5_bytes_a_byte(workers: int) -> None:
    figures = simulate(replace(LOAD, overwrites=1.0, compaction_ratio=5.0, workers=workers))
    assert OPTIONS.level0_trigger < figures.level0_depth < OPTIONS.level0_stop
    assert figures.stopped == 0
    assert figures.lost == 0


def test_writers_are_stopped_where_compactions_cannot_keep_up() -> None:
    figures = simulate(replace(LOAD, compaction_ratio=1.0))
    assert figures.level0_depth == OPTIONS.level0_stop
    assert figures.stopped > 0
    assert figures.lost == 0


def test_ascending_keys_are_never_written_twice() -> None:
    figures = simulate(replace(LOAD, order="ascending", overwrites=0.0))
    assert figures.write_amplification == 1.0
    assert figures.space_amplification == 1.0
    assert {kind for kind, _ in figures.jobs} == {"move"}


@pytest.mark.parametrize("deletes", [0.3, 0.9])
def test_deleting_gives_the_space_back(deletes: float) -> None:
    figures = simulate(replace(LOAD, deletes=deletes))
    assert figures.table_bytes - figures.live_bytes <= OPTIONS.base_bytes
    assert figures.lost == 0


def test_deleting_everything_leaves_nothing() -> None:
    figures = simulate(replace(LOAD, deletes=1.0))
    assert figures.live_bytes == 0
    assert figures.table_bytes < 0.05 * figures.user_bytes
    assert figures.space_amplification == inf
    assert figures.lost == 0


# -- the figures can be bad ------------------------------------------------------------------------


def test_a_policy_that_compacts_each_flush_writes_more(figures: Figures) -> None:
    eager = simulate(LOAD, replace(OPTIONS, level0_trigger=1))
    assert eager.write_amplification > 1.4 * figures.write_amplification


def test_many_small_levels_cost_too_many_writes() -> None:
    options = replace(OPTIONS, level0_trigger=1, base_bytes=OPTIONS.base_bytes // 100)
    assert simulate(LOAD, options).write_amplification > 10


def test_a_steep_tree_writes_more(figures: Figures) -> None:
    steep = simulate(LOAD, replace(OPTIONS, multiplier=40, base_bytes=OPTIONS.base_bytes // 4))
    assert steep.write_amplification > 1.2 * figures.write_amplification
    assert steep.space_amplification < figures.space_amplification


def test_a_flat_tree_takes_more_space() -> None:
    flat = simulate(
        replace(LOAD, keys=LOAD.keys // 2, overwrites=4.0), replace(OPTIONS, multiplier=2)
    )
    assert flat.space_amplification > 1.3


def test_a_late_trigger_costs_reads(figures: Figures) -> None:
    options = replace(OPTIONS, level0_trigger=16, level0_soft=16, base_bytes=4 * OPTIONS.base_bytes)
    late = simulate(LOAD, options)
    assert late.level0_depth == 16
    assert late.write_amplification < figures.write_amplification
    assert late.probes_worst > figures.probes_worst


@pytest.mark.parametrize(
    "values",
    [
        {"keys": 0},
        {"keys": 2**32 + 1},
        {"order": "zipf"},
        {"overwrites": -1},
        {"overwrites": 101},
        {"deletes": 1.5},
        {"row_bytes": 0},
        {"tombstone_bytes": 2000},
        {"memtable_bytes": 1},
        {"compaction_ratio": 0},
        {"workers": 0},
    ],
    ids=str,
)
def test_a_workload_that_cannot_be_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        replace(LOAD, **values)  # type: ignore[arg-type]
