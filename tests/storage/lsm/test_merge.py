"""A reader of merged sources sees the newest; a compaction changes what nobody can see."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.errors import InvalidArgument
from marram.storage.lsm.chain import Part
from marram.storage.lsm.coverage import Coverage
from marram.storage.lsm.merge import (
    Retention,
    by_chain,
    by_lists,
    compact,
    kept_ranges,
    merge_versions,
)
from marram.storage.lsm.version import stop_after
from marram.storage.lsm.window import Window
from marram.storage.sstable.block import TOMBSTONE, DataBlock, VersionRow, encode_rows, stored_key
from marram.storage.sstable.ranges import RangeDeletion
from tests.storage.lsm.histories import (
    KEYSPACES,
    History,
    chunked,
    covers,
    histories,
    in_order,
    view,
)
from tests.storage.sstable.tables import make_table, open_table

EXAMPLES = int(os.environ.get("MARRAM_MERGE_EXAMPLES", "150"))
"""How many random histories each property is tried on; more on request."""

sizes = st.lists(st.integers(1, 6), min_size=1, max_size=3)


def row(key: bytes, sequence: int, *, keyspace: int = 0, deadline_ms: int = 0) -> VersionRow:
    return (keyspace, key, b"v%d" % sequence, deadline_ms, 0, sequence)


def gone(key: bytes, sequence: int, *, keyspace: int = 0) -> VersionRow:
    return (keyspace, key, b"", 0, TOMBSTONE, sequence)


def flat(parts: Iterable[list[VersionRow] | Window]) -> list[VersionRow]:
    found = [part.versions() if isinstance(part, Window) else part for part in parts]
    assert all(found), "none is empty"
    return list(chain.from_iterable(found))


def stretches(rows: list[VersionRow], sizes: list[int]) -> Iterator[Part]:
    """A source of these rows: blocks, whose first and last row do not belong to it."""
    for part in chunked(rows, sizes, reverse=False):
        keyspace = part[0][0]
        around = [(keyspace, b"", b"x", 0, 0, 99), *part, (keyspace, b"\xff" * 9, b"x", 0, 0, 99)]
        payload = encode_rows(keyspace, *list(zip(*around, strict=True))[1:])
        yield DataBlock(b"".join(payload)), 1, len(around) - 1


# -- merging -------------------------------------------------------------------------------------


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories(), sizes, st.booleans())
def test_m1_the_newest_row_of_each_key_counts_however_they_are_merged(
    history: History, sizes: list[int], in_blocks: bool
) -> None:
    newest: dict[bytes, VersionRow] = {}
    for found in chain(*reversed(history.sources)):
        newest[stored_key(*found[:2])] = found
    lists = [chunked(rows, sizes, reverse=False) for rows in history.sources]
    parts: list[Iterator[Part]] = [
        stretches(rows, sizes) if in_blocks else chunked(rows, sizes, reverse=False)
        for rows in history.sources
    ]

    by_list, chained = list(by_lists(lists)), list(by_chain(parts))

    assert flat(by_list) == flat(chained) == in_order(newest.values())
    for window in (*by_list, *chained):
        rows = window.versions()
        assert {row[0] for row in rows} == {window.keyspace}
        assert window.is_plain == (not any(row[3] or row[4] for row in rows))
        assert list(zip(window.keys, window.values, window.sequences, strict=True)) == [
            (row[1], row[2], row[5]) for row in rows
        ]


# -- reading -------------------------------------------------------------------------------------


@settings(max_examples=EXAMPLES, deadline=None)
@given(histories(), sizes, st.sampled_from([1, 60, 100]), st.booleans())
def test_m2_m3_a_reader_sees_the_newest_of_each_key(
    history: History, sizes: list[int], now_ms: int, reverse: bool
) -> None:
    sources = [chunked(rows, sizes, reverse=reverse) for rows in history.sources]
    coverage = Coverage(history.ranges)

    seen = flat(merge_versions(sources, now_ms, coverage=coverage, reverse=reverse))

    expected = view(chain(*history.sources), history.ranges, now_ms)
    assert seen == (expected[::-1] if reverse else expected)


def test_m3_a_memtable_is_a_source_above_all_tables() -> None:
    # Its range deletion came between the writes of a and b, before those of c and d.
    memtable = [gone(b"a", 30), row(b"c", 30), row(b"d", 30)]
    newer, older = [row(b"b", 20), row(b"z", 20)], [row(key, 10) for key in (b"a", b"b", b"e")]
    ranges = [RangeDeletion(0, b"b", b"f", 28), RangeDeletion(0, b"z", None, 20)]

    seen = flat(
        merge_versions(
            [iter([memtable]), iter([newer]), iter([older])], 1, coverage=Coverage(ranges)
        )
    )

    assert seen == [row(b"c", 30), row(b"d", 30), row(b"z", 20)]


def test_sources_may_be_none_or_empty() -> None:
    assert flat(merge_versions([], 1)) == []
    assert flat(merge_versions([iter(()), iter([[row(b"a", 1)]]), iter(())], 1)) == [row(b"a", 1)]
    assert flat(compact([], Retention())) == []


@pytest.mark.parametrize("reverse", [False, True])
def test_a_reader_that_stops_early_has_read_little(reverse: bool) -> None:
    taken = 0

    def source(number: int) -> Iterator[list[VersionRow]]:
        nonlocal taken
        rows = [row(b"%06d" % n, 1) for n in range(number, 40_000, 4)]
        for part in chunked(rows, [10], reverse=reverse):
            taken += len(part)
            yield part

    seen = next(merge_versions([source(number) for number in range(4)], 1, reverse=reverse))

    assert seen[0][1] == (b"039999" if reverse else b"000000")
    assert taken <= 80


@pytest.mark.parametrize("reverse", [False, True])
def test_tables_are_sources(reverse: bool) -> None:
    new = [(0, b"%04d" % n, b"new", 0, 0) for n in range(0, 3000, 3)]
    old = [(0, b"%04d" % n, b"old", 0, 0) for n in range(0, 3000, 2)]
    tables = [
        open_table(make_table(rows, [sequence] * len(rows), block_bytes=500)[0])
        for rows, sequence in ((new, 9), (old, 5))
    ]
    bounds = stored_key(0, b"0100"), stored_key(0, b"2000")

    seen = flat(
        merge_versions(
            [table.versions(*bounds, reverse=reverse, short=True) for table in tables],
            1,
            reverse=reverse,
        )
    )

    values = {key: value for _, key, value, _, _ in old + new}
    expected = [(k, values[k]) for k in sorted(values) if b"0100" <= k < b"2000"]
    assert [(found[1], found[2]) for found in seen] == (expected[::-1] if reverse else expected)


# -- compaction ----------------------------------------------------------------------------------


@st.composite
def compactions(draw: st.DrawFn) -> tuple[History, list[VersionRow], Retention]:
    """A history, the rows of it that are on a deeper level, and what has to be kept."""
    history = draw(histories())
    deeper = draw(st.booleans())
    below_rows = history.sources.pop() if deeper else []
    below = None
    if draw(st.booleans()) or not deeper:
        # Each key as a range of its own, so that tombstones are dropped beside it.
        wanted = sorted({stored_key(found[0], found[1]) for found in below_rows})
        below = tuple((key, stop_after(key)) for key in wanted)
    expired_ms = draw(st.sampled_from([0, 60, 100]))
    return history, below_rows, Retention(expired_ms, below)


gone_limits = st.sampled_from([1, 2, 5, 100])


@settings(max_examples=EXAMPLES, deadline=None)
@given(compactions(), sizes, gone_limits)
def test_a_compaction_changes_what_no_reader_can_see(
    made: tuple[History, list[VersionRow], Retention], sizes: list[int], gone_limit: int
) -> None:
    history, below_rows, retention = made
    sources = [chunked(rows, sizes, reverse=False) for rows in history.sources]

    kept = flat(compact(sources, retention, history.ranges, [], gone_limit))
    ranges = kept_ranges(history.ranges, retention)

    assert kept == in_order(kept)
    before, after = [*chain(*history.sources), *below_rows], [*kept, *below_rows]
    for now_ms in (max(1, retention.expired_ms), 100, 200):
        assert view(after, ranges, now_ms) == view(before, history.ranges, now_ms)


@settings(max_examples=EXAMPLES, deadline=None)
@given(compactions(), sizes, st.none() | gone_limits)
def test_m4_to_m7_a_compaction_keeps_and_reports_what_the_rules_say(
    made: tuple[History, list[VersionRow], Retention], sizes: list[int], gone_limit: int | None
) -> None:
    history, _, retention = made
    sources = [chunked(rows, sizes, reverse=False) for rows in history.sources]
    reported: list[bytes] | None = None if gone_limit is None else []

    kept = flat(compact(sources, retention, history.ranges, reported, gone_limit or 1))

    expected: list[VersionRow] = []
    expected_gone: list[bytes] = []
    rows = {(found[0], found[1]): found for found in sorted(chain(*history.sources), key=sequence)}
    for (keyspace, key), newest in sorted(rows.items()):  # M4
        wanted = stored_key(keyspace, key)
        if any(covers(d, keyspace, key) and newest[5] < d.sequence for d in history.ranges):
            continue  # M5
        left = newest
        room = gone_limit is None or len(expected_gone) < gone_limit
        if 0 < newest[3] <= retention.expired_ms and room:  # M6
            expected_gone.append(wanted)
            left = gone(key, newest[5], keyspace=keyspace)
        below = retention.below
        is_hiding = below is None or any(start <= wanted < stop for start, stop in below)
        if left[4] != TOMBSTONE or is_hiding:  # M7
            expected.append(left)
    assert kept == expected
    assert reported is None or reported == expected_gone


def sequence(found: VersionRow) -> int:
    return found[5]


def test_m6_what_cannot_be_reported_is_left_for_the_next_compaction() -> None:
    rows = [row(b"%04d" % n, 9, deadline_ms=50) for n in range(1000)]
    retention = Retention(expired_ms=50, below=())
    reported: list[bytes] = []
    rounds = 0
    while rows:
        found: list[bytes] = []
        rows = flat(compact([chunked(rows, [100], reverse=False)], retention, (), found, 300))
        assert len(found) == min(300, 1000 - 300 * rounds)
        reported += found
        rounds += 1

    assert reported == [stored_key(0, b"%04d" % n) for n in range(1000)]
    assert rounds == 4


def test_m6_a_key_is_reported_only_where_the_newest_of_it_expired() -> None:
    old = [row(key, 5, deadline_ms=50) for key in (b"a", b"b", b"c", b"d", b"e")]
    new = [row(b"a", 9), gone(b"b", 9), row(b"c", 9, deadline_ms=60)]
    reported: list[bytes] = []

    kept = flat(
        compact(
            [iter([new]), iter([old])],
            Retention(expired_ms=60),
            [RangeDeletion(0, b"d", b"e", 9)],
            reported,
        )
    )

    assert kept == [row(b"a", 9), gone(b"b", 9), gone(b"c", 9), gone(b"e", 5)]
    assert reported == [stored_key(0, b"c"), stored_key(0, b"e")]


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(histories(deadlines=False), sizes)
def test_m8_at_the_bottom_nothing_but_the_newest_values_is_left(
    history: History, sizes: list[int]
) -> None:
    sources = [chunked(rows, sizes, reverse=False) for rows in history.sources]
    retention = Retention(below=())

    kept = flat(compact(sources, retention, history.ranges))

    assert kept == view(chain(*history.sources), history.ranges, 0)
    assert kept_ranges(history.ranges, retention) == []


def test_m8_a_range_deletion_goes_only_where_nothing_is_below_it() -> None:
    deletion = RangeDeletion(3, b"c", b"f", 7)

    def kept(**facts: object) -> list[RangeDeletion]:
        return kept_ranges([deletion], Retention(**facts))  # type: ignore[arg-type]

    assert kept(below=()) == []
    assert kept(below=((b"\x03a", b"\x03b"), (b"\x03g", b"\x04"))) == []
    assert kept(below=((b"\x03a", b"\x03c"),)) == []
    assert kept(below=((b"\x03f", b"\x03g"),)) == []
    assert kept(below=((b"\x03a", b"\x03c\x00"),)) == [deletion]
    assert kept(below=((b"\x03d", b"\x03e"),)) == [deletion]
    assert kept(below=((b"\x03ez", b"\x03z"),)) == [deletion]
    assert kept(below=((b"\x02", b"\x04"),)) == [deletion]
    assert kept(below=None) == [deletion]
    last = [RangeDeletion(255, b"x", None, 1)]
    assert kept_ranges(last, Retention(below=())) == []
    assert kept_ranges(last, Retention(below=((b"\xfd", b"\xffx"),))) == []
    assert kept_ranges(last, Retention(below=((b"\xffy", b"\xffz"),))) == last


def test_m8_of_range_deletions_the_newest_is_left() -> None:
    ranges = [
        RangeDeletion(0, b"a", b"z", 3),
        RangeDeletion(0, b"c", b"f", 8),
        RangeDeletion(0, b"d", b"e", 5),
        RangeDeletion(0, b"m", None, 20),
    ]

    assert kept_ranges(ranges, Retention()) == [
        RangeDeletion(0, b"a", b"c", 3),
        RangeDeletion(0, b"c", b"f", 8),
        RangeDeletion(0, b"f", b"m", 3),
        RangeDeletion(0, b"m", None, 20),
    ]


def test_m6_an_expired_row_hides_what_is_below_it() -> None:
    source = [[row(b"a", 9, deadline_ms=50), row(b"b", 9, deadline_ms=51)]]

    kept = flat(compact([iter(source)], Retention(expired_ms=50)))

    assert kept == [gone(b"a", 9), row(b"b", 9, deadline_ms=51)]


def test_m7_tombstones_are_dropped_only_beside_what_is_below() -> None:
    source = [[gone(b"%d" % n, 9) for n in range(9)]]
    below = ((b"\x00" + b"2", b"\x00" + b"4"), (b"\x00" + b"7", b"\x00" + b"77"))

    kept = flat(compact([iter(source)], Retention(below=below)))

    assert [found[1] for found in kept] == [b"2", b"3", b"7"]


def test_m3_m5_a_range_deletion_hides_from_its_start_to_before_its_stop() -> None:
    keys = [b"a", b"b", b"b\x00", b"c", b"c\x00", b"d", b"e"]
    rows = [row(key, 4) for key in keys]
    newer = [row(key, 9) for key in keys]
    same = [row(key, 5) for key in keys]
    ranges = [RangeDeletion(0, b"b", b"c", 5), RangeDeletion(0, b"d", None, 5)]
    left = [b"a", b"c", b"c\x00"]

    for source, expected in ((rows, left), (newer, keys), (same, keys)):
        seen = flat(merge_versions([iter([source])], 1, coverage=Coverage(ranges)))
        kept = flat(compact([iter([source])], Retention(), ranges))

        assert [found[1] for found in seen] == [found[1] for found in kept] == expected


def test_the_lists_of_a_long_scan_grow() -> None:
    rows = [row(b"%05d" % n, 1) for n in range(10_000)]
    sources = [chunked(rows[turn::2], [5], reverse=False) for turn in (0, 1)]

    lists = list(merge_versions(sources, 1))

    assert len(lists[0]) < 20
    assert len(lists) < 10_000 / 200


def test_lists_are_neither_long_nor_of_two_keyspaces() -> None:
    rows = [row(b"%05d" % n, 1, keyspace=space) for space in KEYSPACES for n in range(5000)]

    lists = list(
        compact(
            [chunked(rows[turn::2], [size], reverse=False) for turn, size in ((0, 100), (1, 90))],
            Retention(),
        )
    )

    assert {len({found[0] for found in part.versions()}) for part in lists} == {1}
    assert max(map(len, lists)) < 1000
    assert len(lists) < len(rows) / 100


def test_the_ranges_below_have_to_be_in_order() -> None:
    with pytest.raises(InvalidArgument, match="ranges below"):
        Retention(below=((b"b", b"c"), (b"a", b"b")))
    with pytest.raises(InvalidArgument, match="ranges below"):
        Retention(below=((b"a", b"c"), (b"b", b"d")))
    Retention(below=((b"a", b"b"), (b"b", b"c")))
