"""storage/lsm/version.py and edit.py against plain searches, and the bytes of edits."""

from __future__ import annotations

import gc
import os
import weakref
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.errors import InvalidArgument, UnsupportedFormat
from marram.storage.lsm.edit import decode_edit, encode_edit
from marram.storage.lsm.version import (
    LAST_LEVEL,
    LEVELS,
    TableMeta,
    Version,
    VersionEdit,
    stop_after,
)

EXAMPLES = int(os.environ.get("MARRAM_EXAMPLES", "200"))

keys = st.binary(min_size=1, max_size=2)
U64 = 2**64 - 1


def table(number: int, start: bytes, stop: bytes, **values: int) -> TableMeta:
    values = {"rows": 10, "min_sequence": number, "max_sequence": number, **values}
    return TableMeta(number, values.pop("size_bytes", 100), start, stop, **values)


def version_of(*added: tuple[int, TableMeta]) -> Version:
    version = Version().apply(VersionEdit(added))
    version._check()
    return version


@st.composite
def tables(draw: st.DrawFn) -> TableMeta:
    """Any table that can be."""
    start, stop = sorted(draw(st.sets(keys, min_size=2, max_size=2)))
    kinds = draw(st.tuples(st.integers(0, 9), st.integers(0, 9)))
    rows = sum(kinds) + draw(st.integers(0, 2**40))
    deadlines = sorted(draw(st.tuples(st.integers(1, U64), st.integers(1, U64))))
    ranges = draw(st.integers(0, 3)) if rows else 1
    return TableMeta(
        number=draw(st.integers(0, U64)),
        size_bytes=draw(st.integers(1, U64)),
        start=start,
        stop=stop,
        rows=rows,
        tombstones=kinds[0],
        min_sequence=(sequences := sorted(draw(st.tuples(*[st.integers(0, 2**63 - 1)] * 2))))[0],
        max_sequence=sequences[1],
        expirable_rows=kinds[1],
        expirable_bytes=draw(st.integers(0, U64)) if kinds[1] else 0,
        earliest_deadline_ms=deadlines[0] if kinds[1] else 0,
        latest_deadline_ms=deadlines[1] if kinds[1] else 0,
        range_deletions=ranges,
        covered_bytes=draw(st.integers(0, U64)) if ranges else 0,
        stamp=draw(st.integers(0, U64)),
    )


@st.composite
def versions(draw: st.DrawFn) -> Version:
    """A version whose tables have short keys, so that they touch and miss each other."""
    added = []
    for level in range(LEVELS):
        bounds = sorted(draw(st.sets(keys, max_size=8)))
        if level == 0:
            pairs = [tuple(sorted(draw(st.sets(keys, min_size=2, max_size=2)))) for _ in bounds[:4]]
        elif draw(st.booleans()):
            pairs = list(pairwise(bounds))  # they touch
        else:
            pairs = list(zip(bounds[::2], bounds[1::2], strict=False))
        for start, stop in pairs:
            number = len(added)
            added.append((level, table(number, start, stop, size_bytes=2**number)))
    return version_of(*draw(st.permutations(added)))


# -- looking up -----------------------------------------------------------------------------------


@settings(max_examples=EXAMPLES)
@given(versions(), keys)
def test_v4_holding_gives_the_tables_of_a_key_in_read_order(version: Version, key: bytes) -> None:
    expected = [
        table
        for level in version.levels
        for table in level.tables
        if table.start <= key < table.stop
    ]
    found = list(version.holding(key))
    assert found == expected
    numbers = [table.number for table in found if version.level_of(table.number) == 0]
    assert numbers == sorted(numbers, reverse=True)


@settings(max_examples=EXAMPLES)
@given(versions(), st.integers(-1, LAST_LEVEL), keys, st.none() | keys)
def test_overlaps_agree_with_a_plain_search(
    version: Version, above: int, start: bytes, stop: bytes | None
) -> None:
    if stop is not None and start >= stop:
        start, stop = b"", start
    for level in version.levels:
        expected = tuple(
            t for t in level.tables if start < t.stop and (stop is None or t.start < stop)
        )
        assert level.overlapping(start, stop) == expected
        assert level.overlaps(start, stop) == bool(expected)
        assert tuple(t for t in level.tables if t.overlaps(start, stop)) == expected
        if level.ordered:
            assert level.bytes_between(*level.span(start, stop)) == sum(
                t.size_bytes for t in expected
            )
    if stop is not None and above >= 0:
        deeper = [t for level in version.levels[above + 1 :] for t in level.tables]
        inside = [t.size_bytes for t in deeper if start <= t.start and t.stop <= stop]
        assert version.enclosed_bytes(above, start, stop) == sum(inside)
        assert version.overlaps_below(above, start, stop) == any(
            t.overlaps(start, stop) for t in deeper
        )


def test_a_range_that_stops_after_a_key_has_it_and_none_that_follows() -> None:
    version = version_of((3, table(1, b"\0a", stop_after(b"\0c"))))
    assert [t.number for t in version.holding(b"\0c")] == [1]
    assert list(version.holding(b"\0c\0")) == []
    assert version.levels[3].overlapping(b"\0c", None)
    assert not version.levels[3].overlapping(b"\0c\0", None)


# -- edits ----------------------------------------------------------------------------------------


def test_v5_an_edit_makes_another_version_and_shares_the_levels_it_leaves() -> None:
    before = version_of((0, table(3, b"a", b"z")), (5, table(1, b"a", b"m")))
    after = before.apply(
        VersionEdit(added=((6, table(1, b"a", b"m")), (0, table(4, b"a", b"b"))), removed=((5, 1),))
    )
    after._check()
    assert [level.size_bytes for level in before.levels] == [100, 0, 0, 0, 0, 100, 0]
    assert [level.size_bytes for level in after.levels] == [200, 0, 0, 0, 0, 0, 100]
    assert after.levels[3] is before.levels[3]
    assert (before.level_of(1), after.level_of(1), after.level_of(9)) == (5, 6, None)
    assert (len(before), len(after), after.size_bytes) == (2, 3, 300)


def test_v5_weak_references_find_the_versions_that_are_alive() -> None:
    alive: weakref.WeakSet[Version] = weakref.WeakSet()
    held = version_of((6, table(1, b"a", b"m")))
    alive.add(held)
    alive.add(version_of((6, table(2, b"a", b"m"))))
    gc.collect()
    assert [version.level_of(1) for version in alive] == [6]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (VersionEdit(removed=((6, 9),)), "level 6 has no table 9"),
        (VersionEdit(removed=((5, 1),)), "level 5 has no table 1"),
        (VersionEdit(removed=((6, 1), (6, 1))), "level 6 has no table 1"),
        (VersionEdit(removed=((7, 1),)), "level 7 has no table 1"),
        (VersionEdit(added=((7, table(9, b"a", b"b")),)), "there is no level 7"),
        (VersionEdit(added=((-1, table(9, b"a", b"b")),)), "there is no level -1"),
        (VersionEdit(added=((4, table(1, b"x", b"z")),)), r"table 1 is added twice \(V1\)"),
        (VersionEdit(added=((6, table(9, b"c", b"e")),)), r"tables 1 and 9 share keys .*\(V2\)"),
        (
            VersionEdit(added=((0, table(9, b"c", b"e", min_sequence=2, max_sequence=2)),)),
            r"tables 9 and 2 on level 0 share keys, and neither is newer \(V3\)",
        ),
        (
            VersionEdit(added=((0, table(9, b"c", b"e", min_sequence=1, max_sequence=5)),)),
            r"tables 9 and 2 on level 0 share keys, and neither is newer \(V3\)",
        ),
    ],
)
def test_v1_v2_v3_an_edit_that_breaks_them_is_refused(edit: VersionEdit, message: str) -> None:
    version = version_of((6, table(1, b"a", b"d")), (0, table(2, b"a", b"z")))
    with pytest.raises(InvalidArgument, match=message):
        version.apply(edit)
    version._check()
    assert len(version) == 2


def test_v3_level_0_is_newest_first_whatever_the_order_of_the_edits() -> None:
    version = version_of((0, table(7, b"a", b"z")), (0, table(9, b"a", b"z")))
    version = version.apply(VersionEdit(added=((0, table(8, b"a", b"z")),)))
    assert [table.number for table in version.levels[0].tables] == [9, 8, 7]
    # Tables that share no keys may have sequence numbers from between each other's.
    version.apply(VersionEdit(added=((0, table(10, b"z", b"zz", min_sequence=1)),)))._check()


@pytest.mark.parametrize(
    "values",
    [
        {"number": -1},
        {"number": U64 + 1},
        {"size_bytes": 0},
        {"start": b""},
        {"start": b"b"},
        {"rows": 0},
        {"rows": -1},
        {"rows": U64 + 1},
        {"tombstones": 11},
        {"tombstones": -1},
        {"min_sequence": 6},
        {"max_sequence": 2**63},
        {"min_sequence": -1},
        {"expirable_rows": 1},
        {"expirable_rows": 11, "earliest_deadline_ms": 1, "latest_deadline_ms": 1},
        {"expirable_rows": 1, "earliest_deadline_ms": 2, "latest_deadline_ms": 1},
        {"expirable_rows": 1, "earliest_deadline_ms": 1, "latest_deadline_ms": U64 + 1},
        {"expirable_bytes": 1},
        {"latest_deadline_ms": 1},
        {"covered_bytes": 1},
        {"range_deletions": -1},
        {"stamp": -1},
        {"stamp": U64 + 1},
    ],
    ids=str,
)
def test_a_table_that_cannot_be_is_refused(values: dict[str, int]) -> None:
    good = table(5, b"a", b"b", min_sequence=5, max_sequence=5)
    with pytest.raises(InvalidArgument):
        replace(good, **values)  # type: ignore[arg-type]


# -- what is known of a table ---------------------------------------------------------------------


def test_expired_rows_are_exact_at_both_ends_and_spread_between() -> None:
    some = table(
        1, b"a", b"b", rows=100, tombstones=50, expirable_rows=50, expirable_bytes=5000,
        earliest_deadline_ms=1000, latest_deadline_ms=2000,
    )  # fmt: skip
    assert [some.expired_rows(now) for now in (0, 999, 1000, 1500, 1999, 2000, 9999)] == [
        0, 0, 1, 25, 49, 50, 50,
    ]  # fmt: skip
    assert [some.expired_bytes(now) for now in (999, 1000, 1500, 2000)] == [0, 1, 2500, 5000]
    assert [some.is_expired(now) for now in (999, 1999, 2000)] == [False, False, True]
    assert not some.is_dead()
    assert not replace(some, rows=101).is_expired(9999)
    for dead in (
        table(1, b"a", b"b", rows=3, tombstones=3),
        table(1, b"a", b"b", rows=0, range_deletions=1),
    ):
        assert dead.is_dead()
        assert not dead.is_expired(9999)
    assert not table(1, b"a", b"b", rows=3, tombstones=2).is_dead()


# -- bytes of edits -------------------------------------------------------------------------------


@settings(max_examples=EXAMPLES)
@given(
    st.lists(st.tuples(st.integers(0, LAST_LEVEL), tables()), max_size=4),
    st.lists(st.tuples(st.integers(0, LAST_LEVEL), st.integers(0, U64)), max_size=4),
)
def test_decoding_is_the_inverse_of_encoding(
    added: list[tuple[int, TableMeta]], removed: list[tuple[int, int]]
) -> None:
    edit = VersionEdit(tuple(added), tuple(removed))
    assert decode_edit(encode_edit(edit)) == edit


@given(versions())
def test_a_listing_makes_the_version_again(version: Version) -> None:
    again = Version().apply(decode_edit(encode_edit(version.listing())))
    assert [level.tables for level in again.levels] == [level.tables for level in version.levels]


# The bytes of format 1, by hand. They have to decode for ever.
GOLDEN = bytes.fromhex(
    "01 000000 01000000 02000000"  # format 1, a removal, two additions
    "06 0800000000000000"  # level 6, table 8
    "00 00 0000 02000000 03000000"  # level 0, no flags, start of 2 bytes, stop of 3
    "0900000000000000 0002000000000000"  # table 9 of 512 bytes
    "0300000000000000 0100000000000000"  # 3 rows, 1 tombstone
    "2800000000000000 2a00000000000000 efcdab8967452301"  # sequences 40 to 42, stamp
    "0061 007a00"  # a, and after z
    "05 03 0000 02000000 02000000"  # level 5, all flags
    "0a00000000000000 0001000000000000 0400000000000000 0000000000000000"
    "0100000000000000 0700000000000000 0000000000000080"
    "0200000000000000 5000000000000000 e803000000000000 d007000000000000"  # 2 rows expire, 80 B
    "0100000000000000 0010000000000000"  # a range deletion over 4096 B
    "0062 0063"
)


def test_the_golden_edit_is_readable_for_ever() -> None:
    edit = VersionEdit(
        added=(
            (0, TableMeta(9, 512, b"\0a", b"\0z\0", 3, 1, 40, 42, stamp=0x123456789ABCDEF)),
            (
                5,
                TableMeta(10, 256, b"\0b", b"\0c", 4, 0, 1, 7, 2, 80, 1000, 2000, 1, 4096, 2**63),
            ),
        ),
        removed=((6, 8),),
    )
    assert decode_edit(GOLDEN) == edit
    assert encode_edit(edit) == GOLDEN


def test_an_edit_of_a_newer_format_is_not_called_garbage() -> None:
    with pytest.raises(UnsupportedFormat, match="format 2"):
        decode_edit(b"\x02" + GOLDEN[1:])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut short"),
        (b"\0" + GOLDEN[1:], "unknown fields at the start"),
        (GOLDEN[:1] + b"\1" + GOLDEN[2:], "unknown fields at the start"),
        (GOLDEN + b"\0", "1 bytes after an edit"),
        (GOLDEN[:4] + b"\xff" * 8 + GOLDEN[12:], "no level|cut short"),
        (GOLDEN[:12] + b"\7" + GOLDEN[13:], "no level 7"),
        (GOLDEN[:21] + b"\7" + GOLDEN[22:], "no level 7"),
        (GOLDEN[:22] + b"\x08" + GOLDEN[23:], "unknown fields of a table"),
        (GOLDEN[:22] + b"\x02" + GOLDEN[23:], "announce|cut short|cannot have|after"),
        (GOLDEN[:23] + b"\1" + GOLDEN[24:], "unknown fields of a table"),
    ],
)
def test_garbage_is_refused_as_what_it_is(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_edit(data)


def test_a_group_of_zeros_is_no_second_encoding() -> None:
    data = encode_edit(VersionEdit(added=((0, table(1, b"a", b"b")),)))
    assert decode_edit(data[:13] + b"\0" + data[14:])
    for flag, size in ((1, 32), (2, 16)):
        with pytest.raises(ValueError, match="announce"):
            decode_edit(data[:13] + bytes((flag,)) + data[14:-2] + bytes(size) + data[-2:])


def test_every_edit_cut_short_is_refused() -> None:
    for size in range(len(GOLDEN)):
        with pytest.raises(ValueError, match=r"cut short"):
            decode_edit(GOLDEN[:size])


@settings(max_examples=5 * EXAMPLES)
@given(st.integers(0, len(GOLDEN) - 1), st.integers(0, 255), st.binary(max_size=40))
def test_hostile_bytes_give_an_edit_with_its_one_encoding_or_an_error(
    at: int, value: int, garbage: bytes
) -> None:
    for data in (GOLDEN[:at] + bytes((value,)) + GOLDEN[at + 1 :], GOLDEN[:at] + garbage, garbage):
        try:
            edit = decode_edit(data)
        except (ValueError, UnsupportedFormat):
            continue
        assert encode_edit(edit) == data
