"""storage/lsm/counts.py: exact counts from tallies, a base, and few look-ups."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from marram.coding.batch import KEYSPACES
from marram.storage.entry import Entry, Stored
from marram.storage.lsm import counts
from marram.storage.lsm.memtable import GONE, Memtable, RangeSet, Tally
from marram.storage.memory.space import Space
from marram.storage.sstable.block import stored_key
from marram.storage.sstable.ranges import RangeDeletion

TIMED = Entry(b"1", 50, 0)


def base_of(known: counts.Counts) -> list[counts.Counts]:
    return [known] * KEYSPACES


def memtable_with(**held: Stored) -> Memtable:
    """A memtable in which keys were written; all of them unsure."""
    memtable = Memtable(0)
    for name, value in held.items():
        write(memtable, name.encode(), value)
    return memtable


def write(memtable: Memtable, key: bytes, value: Stored) -> None:
    before = memtable.spaces[0].put(key, value, 1, -1)
    memtable.tallies[0].note(key, before, value)


def clear(memtable: Memtable) -> None:
    memtable.spaces[0] = space = Space()
    memtable.tallies[0] = Tally(space.map, cleared=True)


def behind_of(*maps: dict[bytes, Stored]) -> counts.Behind:
    """behind() where maps[n] is what memtable n has behind it."""
    return lambda number, key: maps[number].get(key)


def no_scan(number: int) -> tuple[int, int]:
    raise AssertionError("nothing has to be counted")


def no_look_up(number: int, key: bytes) -> Stored | None:
    raise AssertionError("nothing has to be looked up")


def test_t1_what_nobody_held_before_adds_to_the_base() -> None:
    memtables = [memtable_with(a=b"1"), memtable_with(b=TIMED, c=b"1")]

    found = counts.resolve(memtables, base_of((10, 2)), 0, behind_of({}, {}), no_scan)

    assert found == (13, 3)


def test_t1_each_unsure_key_is_looked_up_behind_its_own_memtable() -> None:
    newer, older = memtable_with(k=b"2"), memtable_with(k=TIMED)
    behind = behind_of({b"k": TIMED}, {b"k": b"0"})

    assert counts.resolve([newer, older], base_of((1, 0)), 0, behind, no_scan) == (1, 0)
    assert (newer.tallies[0].keys, newer.tallies[0].volatile) == (0, -1), "T2: each for itself"
    assert (older.tallies[0].keys, older.tallies[0].volatile) == (0, 1)


def test_t1_a_deletion_takes_off_what_is_behind_and_nothing_where_nothing_is() -> None:
    memtable = memtable_with(there=GONE, never=GONE, gone=GONE)
    behind = behind_of({b"there": TIMED, b"gone": GONE})

    assert counts.resolve([memtable], base_of((5, 1)), 0, behind, no_scan) == (4, 0)


def test_what_was_looked_up_is_not_looked_up_again() -> None:
    memtable = memtable_with(k=b"2")
    counts.resolve([memtable], base_of((1, 0)), 0, behind_of({b"k": b"1"}), no_scan)

    assert counts.resolve([memtable], base_of((1, 0)), 0, no_look_up, no_scan) == (1, 0)


def test_t1_a_cleared_tally_hides_all_behind_it() -> None:
    newest, cleared, oldest = memtable_with(a=b"1"), memtable_with(), memtable_with(b=b"1")
    clear(cleared)
    write(cleared, b"c", b"1")
    memtables = [newest, cleared, oldest]
    behind = behind_of({}, {}, {})

    assert counts.provisional(memtables, base_of(None), 0) == ((2, 0), 1)
    assert counts.resolve(memtables, base_of(None), 0, behind, no_scan) == (2, 0)
    assert oldest.tallies[0].unsure() == [b"b"], "nobody asked for it"


def test_what_is_not_known_is_counted_once() -> None:
    scans: list[int] = []

    def count_from(number: int) -> tuple[int, int]:
        scans.append(number)
        return {2: (10, 1), 0: (7, 3)}[number]

    vague, sure = memtable_with(a=b"1"), memtable_with()
    vague.tallies[0].vague = True
    base = base_of(None)

    assert counts.provisional([vague, sure], base_of((9, 9)), 0)[0] is None
    assert counts.resolve([vague, sure], base, 0, no_look_up, count_from) == (7, 3)
    assert counts.resolve([vague, sure], base, 0, no_look_up, no_scan) == (7, 3)
    assert scans == [2, 0]
    assert base[0] == (10, 1), "T2"
    assert (vague.tallies[0].keys, vague.tallies[0].volatile) == (-3, 2), "T2"


def test_a_count_is_settled_only_where_nothing_is_unsure() -> None:
    memtable = memtable_with(k=b"2")
    assert counts.settled([memtable], base_of((1, 0)), 0) is None

    counts.settle(memtable, 0, b"k", b"1")

    assert counts.settled([memtable], base_of((1, 0)), 0) == (1, 0)


@pytest.mark.parametrize("known", [(-1, -1), (1, 2), (1, -1)])
def test_numbers_that_cannot_be_are_not_known(known: tuple[int, int]) -> None:
    assert counts.settled([], base_of(known), 0) is None


def test_keyspaces_are_counted_apart() -> None:
    memtable = memtable_with(a=b"1")

    assert counts.settled([memtable], base_of((4, 0)), 1) == (4, 0)


def test_a_key_hidden_by_a_range_of_its_memtable_is_not_taken_off_again() -> None:
    # The range was counted off whole: resolve() counted what it leaves.
    memtable = memtable_with(k=b"1")
    memtable.ranges = RangeSet((RangeDeletion(0, b"a", b"z", 1),))

    counts.settle(memtable, 0, b"k", b"behind")

    assert memtable.tallies[0].keys == 1


def settled_with(**behind: Stored) -> Callable[[Memtable], Memtable]:
    def settle(memtable: Memtable) -> Memtable:
        for key, held in behind.items():
            counts.settle(memtable, 0, key.encode(), held)
        return memtable

    return settle


def test_t2_an_expired_row_that_a_compaction_took_away_leaves_the_base() -> None:
    base = base_of((5, 2))

    counts.take_expired([memtable_with(other=b"1")], base, stored_key(0, b"k"))

    assert base[0] == (4, 1)
    assert base[1] == (5, 2)


def test_t2_who_took_the_row_off_already_gives_it_back() -> None:
    memtable = settled_with(k=TIMED)(memtable_with(k=b"new"))
    base = base_of((1, 1))
    before = counts.settled([memtable], base, 0)

    counts.take_expired([memtable], base, stored_key(0, b"k"))

    assert before == (1, 0)
    assert counts.settled([memtable], base, 0) == (1, 0), "the key is there still, and counted once"


def test_t2_who_did_not_take_it_off_yet_finds_nothing_to_take_off() -> None:
    memtable, base = memtable_with(k=b"new"), base_of((1, 1))

    counts.take_expired([memtable], base, stored_key(0, b"k"))

    assert counts.resolve([memtable], base, 0, behind_of({}), no_scan) == (1, 0)


def test_t2_only_the_oldest_memtable_with_the_key_had_the_row_behind_it() -> None:
    older = settled_with(k=TIMED)(memtable_with(k=b"1"))
    newer = settled_with(k=b"1")(memtable_with(k=b"2"))
    base = base_of((1, 1))

    counts.take_expired([newer, older], base, stored_key(0, b"k"))

    assert newer.tallies[0].keys == 0
    assert older.tallies[0].keys == 1
    assert counts.settled([newer, older], base, 0) == (1, 0)


def test_t2_behind_a_cleared_memtable_nothing_changes_in_front() -> None:
    cleared = memtable_with()
    clear(cleared)
    write(cleared, b"k", b"new")

    counts.take_expired([cleared], base_of((1, 1)), stored_key(0, b"k"))

    assert (cleared.tallies[0].keys, cleared.tallies[0].volatile) == (1, 0)


def test_t2_what_a_range_took_off_is_counted_anew() -> None:
    memtable = memtable_with()
    memtable.ranges = RangeSet((RangeDeletion(0, b"a", b"z", 1),))

    counts.take_expired([memtable], base_of((1, 1)), stored_key(0, b"k"))

    assert memtable.tallies[0].vague


def test_an_unknown_base_stays_unknown() -> None:
    base = base_of(None)

    counts.take_expired([], base, stored_key(0, b"k"))

    assert base[0] is None
