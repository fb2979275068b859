"""storage/memory/order.py against a sorted list."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.storage.memory import order as order_module
from marram.storage.memory.order import KeyOrder

keys = st.binary(max_size=3)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_module, "_BLOCK_MAX", 4)


def test_the_docstring_examples() -> None:
    assert doctest.testmod(order_module).failed == 0


@settings(max_examples=200)
@given(st.lists(keys, max_size=80), keys, st.none() | keys, st.integers(0, 30), st.booleans())
def test_a_chunk_is_the_slice_of_the_sorted_keys(
    toggles: list[bytes], start: bytes, stop: bytes | None, limit: int, reverse: bool
) -> None:
    order, model = KeyOrder(), set()
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
    order = KeyOrder(low)
    order.append_many(high)

    order._check()
    assert order.chunk(b"", None, 1000) == low + high


def test_at_refuses_an_index_past_the_end() -> None:
    with pytest.raises(IndexError):
        KeyOrder([b"a"]).at(1)
