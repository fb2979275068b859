"""storage/memory/sorting.py: sort_keys() is list.sort(), whatever the keys have in common."""

from __future__ import annotations

import random

import pytest

from marram.storage.memory.sorting import sort_keys


@pytest.mark.parametrize("seed", range(40))
def test_keys_that_begin_alike_are_sorted(seed: int) -> None:
    rng = random.Random(seed)
    # Few letters, so that keys share beginnings; zeros, which no word tells from an end.
    common = rng.randbytes(rng.randrange(12))
    keys = [
        common + bytes(rng.choices(b"\0\0ab", k=rng.randrange(24)))
        for _ in range(rng.randrange(900))
    ]
    expected = sorted(keys)

    sort_keys(keys)

    assert keys == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda n: b"%d" % n,
        lambda n: b"user:%09d" % n,
        lambda n: b"user:%d:visits" % (n % 700) + b"%d" % n,
        lambda n: n.to_bytes(8, "big"),
        lambda n: n.to_bytes(4, "big") + b"same-in-all-of-them",
        lambda n: bytes(n % 300) + b"%d" % n,
        lambda n: bytes(n),  # nothing but zeros: they differ in length alone
        lambda n: random.Random(n).randbytes(16),
        lambda n: b"one key, many times",
    ],
)
def test_many_keys_of_a_kind_are_sorted(make: object) -> None:
    keys = [make(number) for number in range(3000)]  # type: ignore[operator]
    random.Random(1).shuffle(keys)
    expected = sorted(keys)

    sort_keys(keys)

    assert keys == expected


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257])
def test_few_keys_are_sorted_as_well(count: int) -> None:
    keys = [b"%d" % (number * 7 % 257) for number in range(count)]
    expected = sorted(keys)

    sort_keys(keys)

    assert keys == expected
