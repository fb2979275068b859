"""Range deletions come back from a table as they were; what is none is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.errors import InvalidArgument
from marram.storage.sstable.block import Row
from marram.storage.sstable.format import RANGES
from marram.storage.sstable.ranges import RangeDeletion, decode_ranges, encode_ranges
from tests.storage.sstable.tables import handles_of, make_table, open_table, read_all

keys = st.binary(max_size=3) | st.sampled_from([b"", b"\xff" * 300])


@st.composite
def range_deletions(draw: st.DrawFn) -> RangeDeletion:
    start, stop = sorted((draw(keys), draw(keys)))
    bounded = start < stop and draw(st.booleans())
    sequence = draw(st.integers(0, 9) | st.just(2**63 - 1))
    return RangeDeletion(draw(st.integers(0, 255)), start, stop if bounded else None, sequence)


@settings(max_examples=200, deadline=None)
@given(st.lists(range_deletions(), min_size=1, max_size=20))
def test_d1_what_was_encoded_is_decoded_and_no_key_is_lost(ranges: list[RangeDeletion]) -> None:
    payload = encode_ranges(ranges)
    decoded = decode_ranges(memoryview(payload))

    assert encode_ranges(decoded) == payload
    assert set(decoded) <= set(ranges)
    assert len({(found.keyspace, found.start, found.sequence) for found in decoded}) == len(decoded)
    for lost in set(ranges) - set(decoded):  # a longer one stands for it
        assert any(
            (found.keyspace, found.start, found.sequence) == (lost.keyspace, lost.start, lost[3])
            and (found.stop is None or (lost.stop is not None and found.stop > lost.stop))
            for found in decoded
        )


def test_a_table_holds_ranges_beside_its_rows() -> None:
    rows: list[Row] = [(0, b"a", b"1", 0, 0), (2, b"b", b"2", 0, 0)]
    ranges = [RangeDeletion(2, b"a", None, 3), RangeDeletion(0, b"", b"z", 9)]
    data, info = make_table(rows, [4, 5], ranges=ranges)
    table = open_table(data, verify=True)

    assert table.ranges == (ranges[1], ranges[0])
    assert read_all(table) == list(zip(rows, [4, 5], strict=True))
    assert (info.smallest, info.largest, info.max_sequence) == (b"\x00a", b"\x02b", 5)


def test_a_table_of_ranges_alone_is_a_table() -> None:
    ranges = (RangeDeletion(5, b"a", b"b", 3),)
    data, info = make_table([], ranges=ranges, filter_bits_per_key=10)
    table = open_table(data, verify=True)

    assert (table.ranges, table.row_count, info.smallest) == (ranges, 0, b"")


def test_a_table_without_ranges_has_no_block_for_them() -> None:
    data, _ = make_table([(0, b"a", b"1", 0, 0)])

    assert open_table(data).ranges == ()
    assert RANGES not in {data[handle.offset] for handle in handles_of(data)}


@pytest.mark.parametrize(
    "deletion",
    [
        RangeDeletion(0, b"a", b"a", 1),
        RangeDeletion(0, b"b", b"a", 1),
        RangeDeletion(0, b"", b"", 1),
        RangeDeletion(-1, b"a", b"b", 1),
        RangeDeletion(256, b"a", b"b", 1),
        RangeDeletion(0, b"a", b"b", -1),
        RangeDeletion(0, b"a", b"b", 2**63),
    ],
)
def test_what_is_no_range_deletion_is_refused(deletion: RangeDeletion) -> None:
    with pytest.raises(InvalidArgument, match="a range deletion"):
        make_table([], ranges=[RangeDeletion(0, b"a", b"b", 1), deletion])
