"""storage/lsm/job.py: edits of jobs, and where outputs are cut."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.errors import InvalidArgument
from marram.storage.lsm.job import DROP, MERGE, MOVE, Boundary, Job, Kind, OutputCuts
from marram.storage.lsm.version import TableMeta

EXAMPLES = int(os.environ.get("MARRAM_EXAMPLES", "200"))

TARGET = 100
LIMIT = 1000
ROW = 10


def key_of(number: int) -> bytes:
    return b"\0" + number.to_bytes(4, "big")


def table(number: int, start: bytes, stop: bytes) -> TableMeta:
    return TableMeta(number, 100, start, stop, 10)


def job_of(kind: Kind, boundaries: list[tuple[int, int]] | None = None) -> Job:
    inputs = ((4, (table(1, b"c", b"f"),)), (5, (table(2, b"b", b"d"), table(3, b"d", b"e"))))
    cuts = tuple(Boundary(key_of(number), size_bytes) for number, size_bytes in boundaries or [])
    return Job(kind, "size", inputs, 5, TARGET, LIMIT, cuts, ((b"c", b"d"), (b"m", b"o")))


# -- jobs -----------------------------------------------------------------------------------------


def test_a_job_ends_in_the_edit_of_its_kind() -> None:
    out = table(9, b"b", b"f")
    removed = ((4, 1), (5, 2), (5, 3))
    assert job_of(MERGE).edit([out]).added == ((5, out),)
    assert job_of(MERGE).edit().added == ()
    assert job_of(DROP).edit().added == ()
    moved = job_of(MOVE)
    assert moved.edit().added == tuple((5, table) for table in moved.tables)
    for kind in (MERGE, MOVE, DROP):
        assert job_of(kind).edit().removed == removed
    assert (moved.start, moved.stop, moved.input_bytes) == (b"b", b"f", 300)


def test_j4_outputs_stay_within_their_job() -> None:
    for outside in (table(9, b"a", b"c"), table(9, b"e", b"g")):
        with pytest.raises(InvalidArgument, match="beyond"):
            job_of(MERGE).edit([outside])
    for kind in (MOVE, DROP):
        with pytest.raises(InvalidArgument, match="writes no tables"):
            job_of(kind).edit([table(9, b"b", b"c")])


def test_j5_what_may_be_below_is_what_the_ranges_say() -> None:
    job = job_of(MERGE)
    found = {key: job.may_be_below(key) for key in (b"b", b"c", b"c\xff", b"d", b"n", b"o", b"z")}
    assert [key for key, may_be in found.items() if may_be] == [b"c", b"c\xff", b"n"]


# -- cuts -----------------------------------------------------------------------------------------


def outputs_of(job: Job, keys: list[int], *, skip: bool = False) -> list[list[int]]:
    """Which keys share an output, rows being ROW bytes; skip: do not ask where no need is."""
    cuts = OutputCuts(job)
    outputs: list[list[int]] = [[]]
    for key in keys:
        size_bytes = ROW * len(outputs[-1])
        is_small = 0 < size_bytes < cuts.small_bytes
        if skip and is_small and (cuts.next_key is None or key_of(key) < cuts.next_key):
            outputs[-1].append(key)
        elif cuts.cut_before(key_of(key), size_bytes):
            outputs.append([key])
        else:
            outputs[-1].append(key)
    return outputs


def test_without_boundaries_an_output_ends_at_the_target() -> None:
    outputs = outputs_of(job_of(MERGE), list(range(35)))
    assert [len(output) for output in outputs] == [10, 10, 10, 5]


def test_without_a_target_there_is_one_output() -> None:
    job = Job(MERGE, "level0-width", job_of(MERGE).inputs, 0)
    assert len(outputs_of(job, list(range(1000)))) == 1


def test_an_output_ends_at_the_boundary_that_is_closest_to_the_target() -> None:
    # Tables below start at every third key: 9 keys are closer to the target of 10 than 12 are.
    job = job_of(MERGE, [(number, ROW) for number in range(0, 100, 3)])
    assert [output[0] for output in outputs_of(job, list(range(60)))] == [0, 9, 18, 27, 36, 45, 54]
    # At every seventh: 7 keys are as close as 14. At every sixth: 12 are closer than 6.
    job = job_of(MERGE, [(number, ROW) for number in range(0, 100, 7)])
    assert [output[0] for output in outputs_of(job, list(range(30)))] == [0, 7, 14, 21, 28]
    job = job_of(MERGE, [(number, ROW) for number in range(0, 100, 6)])
    assert [output[0] for output in outputs_of(job, list(range(30)))] == [0, 12, 24]
    job = job_of(MERGE, [(number, ROW) for number in range(100)])
    assert [output[0] for output in outputs_of(job, list(range(30)))] == [0, 10, 20]


def test_an_output_goes_on_to_twice_the_target_for_a_boundary_but_not_further() -> None:
    outputs = outputs_of(job_of(MERGE, [(15, ROW)]), list(range(31)))
    assert [output[0] for output in outputs] == [0, 15, 25]
    # Of the second output 5 keys are left of the boundary at 25: too few to end there.
    outputs = outputs_of(job_of(MERGE, [(25, ROW)]), list(range(31)))
    assert [output[0] for output in outputs] == [0, 20, 30]


def test_an_output_is_cut_before_it_meets_too_much_of_the_level_below() -> None:
    # Each key lies in a table of 400 bytes below: a third one would be more than 1000.
    job = job_of(MERGE, [(number, 400) for number in range(50)])
    assert [len(output) for output in outputs_of(job, list(range(10)))] == [2, 2, 2, 2, 2]


boundary_sets = st.dictionaries(st.integers(0, 400), st.integers(1, 600), max_size=40)
key_sets = st.sets(st.integers(0, 400), min_size=1, max_size=200)


@settings(max_examples=EXAMPLES)
@given(boundary_sets, key_sets)
def test_outputs_have_two_thirds_to_twice_the_target_and_meet_no_more_than_they_may(
    boundaries: dict[int, int], key_set: set[int]
) -> None:
    below = sorted(boundaries.items())
    outputs = outputs_of(job_of(MERGE, below), sorted(key_set))

    assert [key for output in outputs for key in output] == sorted(key_set)
    for output, following in zip(outputs, [*outputs[1:], [1000]], strict=True):
        met = [
            size_bytes
            for at, (start, size_bytes) in enumerate(below)
            if start < following[0] and (at + 1 == len(below) or below[at + 1][0] > output[0])
        ]
        met_inside = [
            size_bytes
            for at, (start, size_bytes) in enumerate(below)
            if start <= output[-1] and (at + 1 == len(below) or below[at + 1][0] > output[0])
        ]
        assert ROW * len(output) <= 2 * TARGET
        assert sum(met_inside) <= LIMIT or len(output) == 1
        is_last = following == [1000]
        assert is_last or 3 * ROW * len(output) >= 2 * TARGET or sum(met) + 600 > LIMIT


@settings(max_examples=EXAMPLES)
@given(boundary_sets, key_sets)
def test_asking_only_where_there_is_need_gives_the_same_outputs(
    boundaries: dict[int, int], key_set: set[int]
) -> None:
    job, keys = job_of(MERGE, sorted(boundaries.items())), sorted(key_set)
    assert outputs_of(job, keys, skip=True) == outputs_of(job, keys)
