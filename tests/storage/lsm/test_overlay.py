"""Sources laid over each other show what the newest of them says, either way round."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.storage.entry import Entry, Stored
from marram.storage.lsm.memtable import GONE, row_of
from marram.storage.lsm.overlay import (
    Column,
    Part,
    Stretch,
    by_columns,
    by_rows,
    overlay,
    space_columns,
)
from marram.storage.memory.space import Space
from marram.storage.sstable.block import DataBlock, encode_rows

Said = dict[bytes, Stored]

NOW_MS = 1000
HELD = st.sampled_from([b"", b"a", b"bb", GONE, Entry(b"c", NOW_MS), Entry(b"d", NOW_MS + 1)])
SAID = st.dictionaries(st.binary(min_size=1, max_size=2), HELD, max_size=30)


def columns(said: Said, sizes: list[int], reverse: bool) -> Iterator[Any]:
    """A source: columns of so many rows, over and over."""
    keys = sorted(said)
    at = 0
    parts: list[Column] = []
    while at < len(keys):
        part = keys[at : at + sizes[len(parts) % len(sizes)]]
        parts.append((part, [said[key] for key in part]))
        at += len(part)
    return iter(parts[::-1] if reverse else parts)


def expected(sources: list[Said], reverse: bool) -> list[tuple[bytes, Stored]]:
    newest: Said = {}
    for said in reversed(sources):
        newest.update(said)
    seen = [
        (key, held)
        for key, held in sorted(newest.items())
        if held is not GONE and not (isinstance(held, Entry) and held.deadline_ms <= NOW_MS)
    ]
    return seen[::-1] if reverse else seen


@settings(deadline=None)
@given(
    st.lists(SAID, min_size=1, max_size=5),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.booleans(),
)
def test_o1_o2_the_newest_source_is_what_is_seen(
    sources: list[Said], sizes: list[int], reverse: bool
) -> None:
    for laid in (
        overlay([columns(said, sizes, reverse) for said in sources], NOW_MS, reverse=reverse),
        by_columns([columns(said, sizes, reverse) for said in sources], NOW_MS, reverse),
        by_rows([columns(said, sizes, reverse) for said in sources], NOW_MS, reverse, 256),
    ):
        found = list(laid)
        assert [row for rows in found for row in rows] == expected(sources, reverse)
        assert all(found)


def stretches(said: Said, sizes: list[int], reverse: bool) -> Iterator[Stretch]:
    """columns(), in blocks of a table, of which the first and the last row do not belong to it."""
    parts = []
    for keys, held in columns(said, sizes, False):
        rows = [row_of(3, key, value, 1) for key, value in zip(keys, held, strict=True)]
        rows = [(3, b"", b"before", 0, 0, 1), *rows, (3, b"\xff" * 3, b"after", 0, 0, 1)]
        payload = encode_rows(3, *list(zip(*rows, strict=True))[1:])
        parts.append((DataBlock(b"".join(payload)), 1, len(rows) - 1))
    return iter(parts[::-1] if reverse else parts)


@settings(deadline=None)
@given(
    st.lists(st.tuples(SAID, st.booleans()), min_size=1, max_size=5),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.booleans(),
    st.integers(1, 12),
)
def test_o1_o2_blocks_and_columns_are_laid_over_each_other(
    sources: list[tuple[Said, bool]], sizes: list[int], reverse: bool, most: int
) -> None:
    parts: list[Iterator[Part]] = [
        stretches(said, sizes, reverse) if is_table else columns(said, sizes, reverse)
        for said, is_table in sources
    ]

    found = list(by_rows(parts, NOW_MS, reverse, most))

    assert [row for rows in found for row in rows] == expected([s for s, _ in sources], reverse)
    assert all(len(rows) == most for rows in found[:-1])


def test_no_source_has_no_rows() -> None:
    assert list(overlay([], NOW_MS, reverse=False)) == []


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("first", [1, 3, 256])
def test_a_memtable_says_what_it_did_at_a_position(first: int, reverse: bool) -> None:
    space = Space()
    for n in range(600):
        space.put(b"%03d" % n, b"old", 1, -1)
    for n in range(0, 600, 2):
        space.put(b"%03d" % n, b"new", 2, 1)
    for n in range(600, 700):
        space.put(b"%03d" % n, b"late", 2, 1)

    def said(position: int | None) -> Said:
        lock = contextlib.nullcontext()
        found = list(
            space_columns(space, b"100", b"650", position, lock, reverse=reverse, first=first)
        )
        assert all(keys == sorted(keys) and keys for keys, _ in found)
        ends = [keys[0] for keys, _ in found]
        assert ends == sorted(ends, reverse=reverse)
        return {key: value for keys, held in found for key, value in zip(keys, held, strict=True)}

    assert said(1) == {b"%03d" % n: b"old" for n in range(100, 600)}
    newest: Said = {b"%03d" % n: b"old" if n % 2 else b"new" for n in range(100, 600)}
    assert said(None) == newest | {b"%03d" % n: b"late" for n in range(600, 650)}
