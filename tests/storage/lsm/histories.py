"""Small random histories of a tree, and what a reader sees of one by the definition.

Sources are tables or memtables, so each has a key once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from hypothesis import strategies as st

from marram.storage.sstable.block import TOMBSTONE, VersionRow, stored_key
from marram.storage.sstable.ranges import RangeDeletion

KEYS = [b"", b"a", b"a\x00", b"b", b"\xff"]
BOUNDS = [*KEYS, b"aa", b"\xff\xff"]
KEYSPACES = (0, 1, 255)


class History(NamedTuple):
    """Everything that was ever written.

    sources: rows in table order, one of a key; that of a source is newer than those of later ones.
    ranges: all range deletions.
    """

    sources: list[list[VersionRow]]
    ranges: list[RangeDeletion]


@st.composite
def histories(draw: st.DrawFn, deadlines: bool = True) -> History:
    """Rows of a few keys, spread over sources; the cut between two is another for each key."""
    last = draw(st.integers(1, 25))
    count = draw(st.integers(1, 4))
    sources: list[list[VersionRow]] = [[] for _ in range(count)]
    places = st.dictionaries(st.integers(0, count - 1), st.integers(1, last))
    for keyspace in KEYSPACES:
        for key in KEYS:
            held = draw(places)
            sequences = sorted(set(held.values()), reverse=True)
            for source, sequence in zip(sorted(held), sequences, strict=False):
                deadline_ms = draw(st.sampled_from([0, 0, 50, 100, 150])) if deadlines else 0
                row = (keyspace, key, b"v%d" % sequence, deadline_ms, 0, sequence)
                if draw(st.integers(0, 3)) == 0:
                    row = (keyspace, key, b"", 0, TOMBSTONE, sequence)
                sources[source].append(row)
    return History([in_order(rows) for rows in sources], draw(range_lists(last)))


def range_lists(last: int) -> st.SearchStrategy[list[RangeDeletion]]:
    """Some range deletions, the flushes of which may have written rows as well."""
    return st.lists(
        st.builds(
            RangeDeletion,
            st.sampled_from(KEYSPACES),
            st.sampled_from(BOUNDS),
            st.sampled_from(BOUNDS) | st.none(),
            st.integers(1, last),
        ).filter(lambda deletion: deletion.stop is None or deletion.start < deletion.stop),
        max_size=5,
    )


def in_order(rows: Iterable[VersionRow]) -> list[VersionRow]:
    """Table order."""
    return sorted(rows, key=lambda row: (row[0], row[1], -row[5]))


def covers(deletion: RangeDeletion, keyspace: int, key: bytes) -> bool:
    """Whether the key is in the range."""
    inside = deletion.start <= key and (deletion.stop is None or key < deletion.stop)
    return inside and deletion.keyspace == keyspace


def view(
    rows: Iterable[VersionRow], ranges: Iterable[RangeDeletion], now_ms: int
) -> list[VersionRow]:
    """What a reader sees at a time: one key after the other, by the definition."""
    newest: dict[bytes, VersionRow] = {}
    for row in rows:
        wanted = stored_key(row[0], row[1])
        if wanted not in newest or newest[wanted][5] < row[5]:
            newest[wanted] = row
    ranges = list(ranges)
    return in_order(
        row
        for row in newest.values()
        if row[4] != TOMBSTONE
        and not 0 < row[3] <= now_ms
        and not any(
            row[5] < deletion.sequence and covers(deletion, row[0], row[1]) for deletion in ranges
        )
    )


def chunked(
    rows: list[VersionRow], sizes: list[int], *, reverse: bool
) -> Iterator[list[VersionRow]]:
    """A source of these rows: lists of the given sizes, over and over, of one keyspace each."""
    rows = rows[::-1] if reverse else rows
    turn = 0
    while rows:
        size = sizes[turn % len(sizes)]
        turn += 1
        part = [row for row in rows[:size] if row[0] == rows[0][0]]
        yield part
        rows = rows[len(part) :]
