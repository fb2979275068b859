"""Of range deletions that lie over each other, the newest counts, everywhere."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from marram.storage.lsm.coverage import Coverage, clip, stored_stop
from marram.storage.sstable.block import stored_key
from marram.storage.sstable.ranges import RangeDeletion, decode_ranges, encode_ranges
from tests.storage.lsm.histories import BOUNDS, KEYSPACES, covers, range_lists

EVERY_KEY = [(keyspace, key) for keyspace in (*KEYSPACES, 2) for key in BOUNDS]


def newest(ranges: list[RangeDeletion], keyspace: int, key: bytes) -> int:
    """By the definition."""
    return max((found.sequence for found in ranges if covers(found, keyspace, key)), default=0)


@settings(max_examples=150, deadline=None)
@given(range_lists(9))
def test_g1_the_newest_counts(ranges: list[RangeDeletion]) -> None:
    coverage = Coverage(ranges)

    for keyspace, key in EVERY_KEY:
        assert coverage.newest(stored_key(keyspace, key)) == newest(ranges, keyspace, key)
    assert bool(coverage) == bool(ranges)


@settings(max_examples=150, deadline=None)
@given(range_lists(9))
def test_g2_segments_are_disjoint_and_cover_the_same(ranges: list[RangeDeletion]) -> None:
    segments = list(Coverage(ranges).segments())

    for keyspace, key in EVERY_KEY:
        assert newest(segments, keyspace, key) == newest(ranges, keyspace, key)
    for first, second in pairwise(segments):
        stop = stored_stop(first)
        assert stop is not None
        assert stop <= stored_key(second.keyspace, second.start)
        if (second.keyspace, second.start) == (first.keyspace, first.stop):
            assert first.sequence != second.sequence  # else they are one
    assert len(segments) <= 2 * len(ranges)
    if segments:
        assert list(decode_ranges(memoryview(encode_ranges(segments)))) == segments


@settings(max_examples=150, deadline=None)
@given(range_lists(9), st.sampled_from(KEYSPACES), st.sampled_from(BOUNDS), st.sampled_from(BOUNDS))
def test_the_segments_over_some_keys_are_those_that_meet_them(
    ranges: list[RangeDeletion], keyspace: int, first: bytes, last: bytes
) -> None:
    first, last = sorted((first, last))
    coverage = Coverage(ranges)

    over = list(coverage.over(keyspace, first, last))

    assert over == [
        (found.start, found.stop, found.sequence)
        for found in coverage.segments()
        if found.keyspace == keyspace
        and found.start <= last
        and (found.stop is None or first < found.stop)
    ]


bounds = st.builds(stored_key, st.sampled_from((*KEYSPACES, 2)), st.sampled_from(BOUNDS))


@settings(max_examples=150, deadline=None)
@given(range_lists(9), bounds | st.none(), bounds | st.none())
def test_clipping_leaves_what_is_inside(
    ranges: list[RangeDeletion], start: bytes | None, stop: bytes | None
) -> None:
    parts = clip(ranges, start, stop)

    for keyspace, key in EVERY_KEY:
        wanted = stored_key(keyspace, key)
        inside = (start is None or start <= wanted) and (stop is None or wanted < stop)
        for deletion in ranges:
            expected = inside and covers(deletion, keyspace, key)
            found = [part for part in parts if part.sequence == deletion.sequence]
            assert not expected or any(covers(part, keyspace, key) for part in found)
        assert inside or not any(covers(part, keyspace, key) for part in parts)
    if parts:
        encode_ranges(parts)  # none is empty


def test_many_nested_range_deletions_stay_few_segments() -> None:
    ranges = [RangeDeletion(0, b"%05d" % n, b"%05d" % (20_000 - n), n + 1) for n in range(5000)]

    coverage = Coverage(ranges)

    assert coverage.newest(b"\x00" + b"10000") == 5000
    assert coverage.newest(b"\x00" + b"00010") == 11
    assert len(list(coverage.segments())) == 2 * 5000 - 1
