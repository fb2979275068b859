"""storage/memory/order.py against a sorted list."""

from __future__ import annotations

import doctest
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram import compiled
from marram.storage.memory import order as order_module
from marram.storage.memory.order import KeyOrder

# Short ones, and ones that are alike for longer than heads see.
keys = st.binary(max_size=3) | st.builds(
    bytes.__add__, st.sampled_from([b"", b"key:", b"key:0000"]), st.binary(max_size=6)
)


def small_order(ascending: Iterable[bytes] = ()) -> KeyOrder:
    return KeyOrder(ascending, block_keys=4)


def test_the_docstring_examples() -> None:
    assert doctest.testmod(order_module).failed == 0


@settings(max_examples=200)
@given(
    st.lists(st.tuples(keys, st.sampled_from(["toggle", "put", "unknown", "scan"])), max_size=80),
    keys,
    st.none() | keys,
    st.integers(1, 30),
    st.booleans(),
)
def test_o4_rows_are_the_keys_with_what_the_map_holds(
    steps: list[tuple[bytes, str]], start: bytes, stop: bytes | None, limit: int, reverse: bool
) -> None:
    order, held = KeyOrder(block_keys=4, has_values=True), dict[bytes, int]()
    for number, (key, what) in enumerate(steps):
        if what == "scan":
            order.rows(key, None, 6, reverse, held)
        elif key not in held:
            held[key] = number
            order.add(key, None if what == "unknown" else number)
        elif what == "toggle":
            del held[key]
            order.remove(key)
        else:
            held[key] = number
            order.follow(key, number)
        order._check(held)

    inside = [k for k in sorted(held) if k >= start and (stop is None or k < stop)]
    expected = (inside[::-1] if reverse else inside)[:limit]
    assert order.rows(start, stop, limit, reverse, held) == [(k, held[k]) for k in expected]
    order._check(held)


@pytest.mark.skipif(compiled.state() != "compiled", reason="interpreted, no block has values")
def test_o4_a_block_that_is_written_and_not_scanned_lets_go_of_its_values() -> None:
    order = KeyOrder(has_values=True)
    keys = [bytes([letter]) for letter in b"abcd"]
    held = dict.fromkeys(keys, 0)
    for key in keys:
        order.add(key, 0)
    assert order._followed == 1
    for number in range(20):
        held[b"b"] = number
        order.follow(b"b", number)
        order._check(held)
    assert order._followed == 0

    order.rows(b"c", None, 1, False, held)  # too little of the block
    assert order._followed == 0
    assert order.rows(b"a", None, 3, False, held) == [(b"a", 0), (b"b", 19), (b"c", 0)]
    assert order._followed == 1
    for number in range(20):
        held[b"b"] = number
        order.follow(b"b", number)
        assert order.rows(b"b", b"c", 1, False, held) == [(b"b", number)]
    assert order._followed == 1


@settings(max_examples=200)
@given(st.lists(keys, max_size=80), keys, st.none() | keys, st.integers(0, 30), st.booleans())
def test_a_chunk_is_the_slice_of_the_sorted_keys(
    toggles: list[bytes], start: bytes, stop: bytes | None, limit: int, reverse: bool
) -> None:
    order, model = small_order(), set()
    for key in toggles:
        if key in model:
            model.discard(key)
            order.remove(key)
        else:
            model.add(key)
            order.add(key)
        order._check()

    inside = [k for k in sorted(model) if k >= start and (stop is None or k < stop)]
    expected = (inside[::-1] if reverse else inside)[:limit]
    assert order.chunk(start, stop, limit, reverse=reverse) == expected
    assert [order.at(i) for i in range(len(order))] == sorted(model)


@given(st.sets(keys), st.sets(keys))
def test_appending_ascending_keys_equals_adding_them(first: set[bytes], second: set[bytes]) -> None:
    low = [b"a" + key for key in sorted(first)]
    high = [b"b" + key for key in sorted(second)]
    order = small_order(low)
    order.append_many(high)

    order._check()
    assert order.chunk(b"", None, 1000) == low + high


def test_at_refuses_an_index_past_the_end() -> None:
    with pytest.raises(IndexError):
        KeyOrder([b"a"]).at(1)
