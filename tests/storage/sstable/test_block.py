"""What a block checks quickly is what the clear check says."""

from __future__ import annotations

import struct
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.storage.sstable.block import _LANES, DataBlock, decode_index, encode_rows, stored_key

u32s = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1])
any_columns = st.lists(u32s, max_size=12)
columns = any_columns | any_columns.map(sorted) | st.lists(st.integers(0, 3), max_size=12)


def accepted(column: list[int]) -> bool:
    """Whether an index takes the column for where its keys end, which it says before all else."""
    count = len(column)
    zeros = bytes(8 * count)
    payload = struct.pack("<I", count) + zeros + struct.pack(f"<{count}I", *column)
    try:
        decode_index(payload, 0)
    except ValueError as error:
        return "goes back" not in str(error)
    return True


@settings(max_examples=500, deadline=None)
@given(columns)
def test_b2_a_column_of_ends_is_taken_if_and_only_if_it_never_goes_back(column: list[int]) -> None:
    assert accepted(column) == all(a <= b for a, b in pairwise(column))


@pytest.mark.parametrize("count", [2, 3, 250, _LANES - 1, _LANES, _LANES + 1, 2 * _LANES])
def test_b2_one_end_that_goes_back_is_found_wherever_it_is(count: int) -> None:
    column = list(accumulate([124] * count))
    assert accepted(column)
    assert accepted([7] * count)
    for at in {1, 2, count // 2, count - 2, count - 1} & set(range(1, count)):
        assert not accepted([*column[:at], column[at - 1] - 1, *column[at + 1 :]])
        assert not accepted([*column[:at], column[-1] + 1, *column[at:-1]]) or at == count - 1
        assert not accepted([*column[: at - 1], 2**32 - 1, *column[at:]])


rows = st.lists(
    st.tuples(st.binary(max_size=4), st.binary(max_size=3), st.integers(0, 2), st.integers(0, 2)),
    min_size=1,
    max_size=20,
    unique_by=lambda row: row[0],
).map(sorted)


@settings(max_examples=300, deadline=None)
@given(rows, st.lists(st.binary(max_size=5), max_size=5), st.booleans())
def test_b1_a_row_is_found_by_its_key_listed_or_not(
    rows: list[tuple[bytes, bytes, int, int]], others: list[bytes], listed: bool
) -> None:
    keys, values, deadlines, types = (list(column) for column in zip(*rows, strict=True))
    block = DataBlock(b"".join(encode_rows(7, keys, values, deadlines, types, [5] * len(keys))))
    if listed:
        block.list_keys()
    whole = [(7, *row, 5) for row in rows]
    plain = not any(deadlines) and not any(types)

    assert block.is_plain == plain
    assert [block.version(row) for row in range(len(keys))] == whole
    assert block.versions(0, len(keys)) == whole
    for row, key in enumerate(keys):
        assert block.find(key) == row
        assert block.look(key) == (values[row] if plain else whole[row])
    for other in set(others) - set(keys):
        assert block.find(other) == -1
        assert block.look(other) is None
    for bound in [*others, *keys]:
        assert block.seek(stored_key(7, bound)) == sum(key < bound for key in keys)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=2), st.integers(0, 3)), min_size=1, max_size=6))
def test_b3_rows_are_in_order_or_refused(rows: list[tuple[bytes, int]]) -> None:
    keys, sequences = [row[0] for row in rows], [row[1] for row in rows]
    zeros = [0] * len(rows)
    block = DataBlock(b"".join(encode_rows(0, keys, [b""] * len(rows), zeros, zeros, sequences)))
    ascends = all((a, -m) < (b, -n) for (a, m), (b, n) in pairwise(rows))

    if ascends:
        block.check_order(0, len(rows))
        assert [row[1::4] for row in block.versions(0, len(rows))] == rows
    else:
        for read in (block.check_order, block.versions, block.rows):
            with pytest.raises(ValueError, match="out of order"):
                read(0, len(rows))
