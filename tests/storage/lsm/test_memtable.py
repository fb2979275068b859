"""storage/lsm/memtable.py: what a memtable says of keys, its ranges, its rows, its tallies."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from marram.storage.engine import SLICE_KEYS
from marram.storage.entry import Entry, Stored
from marram.storage.lsm.memtable import (
    GONE,
    KEY_OVERHEAD,
    Memtable,
    RangeSet,
    Tally,
    row_of,
    space_rows,
)
from marram.storage.memory.space import Space
from marram.storage.sstable.block import TOMBSTONE
from marram.storage.sstable.ranges import RangeDeletion

NO_LOCK = nullcontext()
KEYS = [b"", b"a", b"a\0", b"b", b"c", b"d"]

deletions = st.builds(
    RangeDeletion,
    st.integers(0, 1),
    st.sampled_from(KEYS),
    st.none() | st.sampled_from(KEYS),
    st.integers(1, 9),
).filter(lambda deletion: deletion.stop is None or deletion.start < deletion.stop)


def covered(ranges: tuple[RangeDeletion, ...], keyspace: int, key: bytes) -> bool:
    return any(
        d.keyspace == keyspace and d.start <= key and (d.stop is None or key < d.stop)
        for d in ranges
    )


def test_b1_a_key_that_was_not_written_says_nothing() -> None:
    assert Memtable(7).get(0, b"k") is None


def test_b1_a_deleted_key_and_a_covered_one_are_gone() -> None:
    memtable = Memtable(0)
    memtable.spaces[0].put(b"k", GONE, 1, -1)
    memtable.ranges = RangeSet((RangeDeletion(0, b"m", b"n", 2),))

    assert memtable.get(0, b"k") is GONE
    assert memtable.get(0, b"m") is GONE
    assert memtable.get(0, b"n") is None
    assert memtable.get(1, b"m") is None


def test_b2_what_was_put_into_a_deleted_range_afterwards_is_there() -> None:
    memtable = Memtable(0)
    memtable.ranges = RangeSet((RangeDeletion(0, b"a", None, 1),))
    memtable.spaces[0].put(b"k", b"new", 2, -1)

    assert memtable.get(0, b"k") == b"new"


def test_a_memtable_is_empty_until_it_has_a_row_or_a_range() -> None:
    ranged, deleted = Memtable(0), Memtable(0)
    ranged.ranges = RangeSet((RangeDeletion(0, b"", None, 1),))
    deleted.spaces[15].put(b"k", GONE, 1, -1)

    assert not Memtable(0)
    assert ranged
    assert deleted


def test_its_size_is_data_and_overhead_of_each_key() -> None:
    memtable = Memtable(0)
    memtable.spaces[0].put(b"key", b"value", 1, -1)
    memtable.spaces[3].put(b"k", GONE, 1, -1)

    assert memtable.memory_bytes() == len(b"key" + b"value" + b"k") + 2 * KEY_OVERHEAD


# -- range deletions -------------------------------------------------------------------------------


@given(st.lists(deletions, max_size=12), st.integers(0, 1), st.sampled_from(KEYS))
def test_few_and_many_ranges_cover_the_same(
    many: list[RangeDeletion], keyspace: int, key: bytes
) -> None:
    assert RangeSet(tuple(many)).cover(keyspace, key) == covered(tuple(many), keyspace, key)


@given(st.lists(deletions, max_size=12))
def test_leaving_out_superfluous_ranges_changes_what_none_of_them_covers(
    many: list[RangeDeletion],
) -> None:
    ranges = RangeSet()
    for deletion in many:
        ranges = ranges.with_range(deletion)

    for keyspace in (0, 1):
        for key in KEYS:
            assert ranges.cover(keyspace, key) == covered(tuple(many), keyspace, key)


def test_a_range_makes_those_within_it_superfluous_and_no_others() -> None:
    inside = RangeDeletion(0, b"b", b"c", 1)
    across = RangeDeletion(0, b"a", b"c", 2)
    endless = RangeDeletion(0, b"b", None, 3)
    elsewhere = RangeDeletion(1, b"b", b"c", 4)
    added = RangeDeletion(0, b"b", b"d", 5)

    ranges = RangeSet((inside, across, endless, elsewhere)).with_range(added)

    assert ranges.deletions == (across, endless, elsewhere, added)


def test_a_range_meets_another_where_they_share_a_key_and_it_came_later() -> None:
    ranges = RangeSet((RangeDeletion(0, b"b", b"d", 5),))

    assert ranges.cover_since(0, b"c", b"z", 4)
    assert ranges.cover_since(0, b"", None, 4)
    assert not ranges.cover_since(0, b"c", b"z", 5), "it was there already"
    assert not ranges.cover_since(0, b"d", b"z", 4), "half-open"
    assert not ranges.cover_since(0, b"a", b"b", 4), "half-open"
    assert not ranges.cover_since(1, b"c", b"z", 4)


# -- rows ------------------------------------------------------------------------------------------


def test_b3_rows_of_a_frozen_memtable_have_its_last_batch_and_tombstones() -> None:
    memtable = Memtable(3)
    memtable.spaces[2].put(b"a", b"1", 4, -1)
    memtable.spaces[2].put(b"b", GONE, 5, -1)
    memtable.spaces[2].put(b"c", Entry(b"3", 99, 0), 6, -1)
    memtable.last = 9

    rows = [row for rows in memtable.rows(2, b"", None, NO_LOCK) for row in rows]

    assert rows == [
        (2, b"a", b"1", 0, 0, 9),
        (2, b"b", b"", 0, TOMBSTONE, 9),
        (2, b"c", b"3", 99, 0, 9),
    ]
    assert [row_of(2, b"a", b"1", 9)] == rows[:1]


def test_rows_come_whole_and_once_over_many_slices_in_both_directions() -> None:
    memtable = Memtable(0)
    keys = [b"%04d" % n for n in range(3 * SLICE_KEYS)]
    for key in keys:
        memtable.spaces[0].put(key, b"", 1, -1)

    forward = [r[1] for rows in memtable.rows(0, b"0002", b"0700", NO_LOCK) for r in rows]
    backward = memtable.rows(0, b"0002", b"0700", NO_LOCK, reverse=True)

    assert forward == keys[2:700]
    assert [r[1] for rows in backward for r in rows] == keys[2:700][::-1]


def test_the_lock_is_held_while_a_slice_is_taken_and_not_between() -> None:
    memtable, lock, held = Memtable(0), threading.Lock(), []
    for n in range(2 * SLICE_KEYS):
        memtable.spaces[0].put(b"%04d" % n, b"", 1, -1)

    class Watched:
        """Stands before the space, whose class cannot be changed where it is compiled."""

        def __init__(self, space: Space) -> None:
            self._space = space

        def __getattr__(self, name: str) -> Any:
            if name == "map":
                held.append(lock.locked())
            return getattr(self._space, name)

    memtable.spaces[0] = Watched(memtable.spaces[0])
    for _ in memtable.rows(0, b"", None, lock):
        assert not lock.locked()

    assert held
    assert all(held)


def test_a_short_scan_looks_at_few_keys_first() -> None:
    space = Space()
    for n in range(100):
        space.put(b"%04d" % n, b"", 1, -1)

    slices = space_rows(space, 0, b"", None, None, 1, NO_LOCK, first=3)

    assert [len(rows) for rows in slices] == [3, 97]


def test_rows_at_a_position_are_those_of_then() -> None:
    space = Space()
    space.put(b"a", b"old", 1, -1)
    space.put(b"a", b"new", 5, 4)
    space.put(b"b", b"new", 5, 4)

    rows = [row for rows in space_rows(space, 0, b"", None, 4, 77, NO_LOCK) for row in rows]

    assert rows == [(0, b"a", b"old", 0, 0, 77)]


# -- tallies ---------------------------------------------------------------------------------------


def test_b4_a_key_that_comes_is_counted_and_unsure_once() -> None:
    held: dict[bytes, Stored] = {}
    tally = Tally(held)

    change(tally, held, b"k", b"1")
    change(tally, held, b"k", Entry(b"2", 50, 0))

    assert (tally.keys, tally.volatile, tally.unsure()) == (1, 1, [b"k"])


def test_b4_a_deletion_takes_off_what_the_memtable_itself_added() -> None:
    held: dict[bytes, Stored] = {}
    tally = Tally(held)

    change(tally, held, b"k", Entry(b"1", 50, 0))
    change(tally, held, b"k", GONE)
    change(tally, held, b"gone", GONE)

    assert (tally.keys, tally.volatile) == (0, 0)
    change(tally, held, b"gone", b"again")
    assert tally.keys == 1
    assert set(tally.unsure()) == {b"k", b"gone"}, "what is behind them is still to be taken off"


def test_b4_behind_a_cleared_keyspace_there_is_nothing_to_be_unsure_of() -> None:
    held: dict[bytes, Stored] = {}
    tally = Tally(held, cleared=True)

    change(tally, held, b"k", b"1")

    assert (tally.keys, tally.unsure_count, tally.unsure()) == (1, 0, [])
    assert not tally.is_unsure(b"k")


def test_b4_what_a_range_deletion_takes_out_is_taken_off_and_sure() -> None:
    held: dict[bytes, Stored] = {}
    tally = Tally(held)
    change(tally, held, b"a", Entry(b"1", 50, 0))
    change(tally, held, b"b", GONE)

    for key in (b"a", b"b"):
        tally.forget(key, held.pop(key))

    assert (tally.keys, tally.volatile, tally.unsure_count, tally.unsure()) == (0, 0, 0, [])


def test_b4_what_came_since_all_were_sure_is_unsure() -> None:
    held: dict[bytes, Stored] = {}
    tally = Tally(held)
    for key in (b"a", b"b", b"c"):
        change(tally, held, key, b"1")
    tally.make_all_sure()

    change(tally, held, b"b", b"2")
    assert (tally.unsure_count, tally.unsure()) == (0, [])
    change(tally, held, b"d", b"1")
    assert (tally.unsure_count, tally.unsure()) == (1, [b"d"])
    tally.forget(b"a", held.pop(b"a"))
    change(tally, held, b"a", b"1")

    assert (tally.unsure_count, tally.unsure()) == (2, [b"a", b"d"])
    assert [key for key in held if tally.is_unsure(key)] == [b"d", b"a"]
    tally.make_sure(b"a")
    assert (tally.unsure_count, tally.unsure()) == (1, [b"d"])


def change(tally: Tally, held: dict[bytes, Stored], key: bytes, value: Stored) -> None:
    before = held.get(key)
    held[key] = value
    tally.note(key, before, value)
