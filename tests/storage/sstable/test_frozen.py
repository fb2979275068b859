"""storage/sstable/frozen.py: a map's rows in key order, and which of them are plain."""

from __future__ import annotations

import random

import pytest

from marram.storage.sstable.frozen import FrozenMap


def nothing() -> None:
    """What lets others run, where there are none."""


@pytest.mark.parametrize("seed", range(40))
def test_rows_come_in_key_order_whatever_keys_have_in_common(seed: int) -> None:
    rng = random.Random(seed)
    common = rng.randbytes(rng.randrange(12))
    # Few letters, so that keys share beginnings; zeros, which no word tells from an end.
    letters = rng.choice((b"\0\0ab", b"01", bytes(range(256))))
    longest = rng.choice((3, 9, 24, 60))
    held = {
        common + bytes(rng.choices(letters, k=rng.randrange(longest))): rng.randbytes(3)
        for _ in range(rng.choice((1, 2, 30, 33, 500, 2000)))
    }

    rows = FrozenMap(held, 100, nothing)

    keys = sorted(held)
    assert rows.columns(0, rows.count) == (keys, [held[key] for key in keys])
    assert [rows.key(row) for row in range(rows.count)] == keys
    assert rows.plain_stop(0) == rows.count == rows.plain_count


def test_keys_that_differ_in_their_length_alone_are_in_order() -> None:
    held = {bytes(size): b"" for size in random.Random(1).sample(range(400), 400)}

    assert FrozenMap(held, 100, nothing).columns(0, 400)[0] == [bytes(n) for n in range(400)]


def test_keys_alike_but_for_their_ends_are_in_order() -> None:
    numbers = random.Random(1).sample(range(500), 500)
    held = {b"x" * (10 * (number % 50)) + b"%05d" % number: b"" for number in numbers}

    assert FrozenMap(held, 100, nothing).columns(0, 500)[0] == sorted(held)


def test_no_rows() -> None:
    rows = FrozenMap({}, 100, nothing)

    assert (rows.count, rows.plain_stop(0), rows.columns(0, 0)) == (0, 0, ([], []))


def test_z2_a_row_is_plain_up_to_a_size_and_as_bytes() -> None:
    held = {b"d": b"1234", b"a": b"123", b"b": b"", b"c": ("an", "entry"), b"e": b"123"}

    rows = FrozenMap(held, 4, nothing)

    assert [rows.plain_stop(start) for start in range(6)] == [2, 2, 2, 3, 5, 5]
    assert rows.plain_count == 3
    assert rows.columns(1, 4) == ([b"b", b"c", b"d"], [b"", ("an", "entry"), b"1234"])


def test_others_run_while_rows_are_found() -> None:
    pauses: list[int] = []

    FrozenMap({b"%d" % n: b"" for n in range(40_000)}, 100, lambda: pauses.append(1))

    assert len(pauses) == 2
