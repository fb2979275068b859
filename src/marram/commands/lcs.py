"""LCS: the longest common subsequence of two strings, its length, or where it matches.

Owns the algorithm, the handler and its row.

The table of lengths has a row per byte of the shorter string and a column per byte of the longer;
two neighbours in a row differ by at most one, so a row is an integer with a bit per column, and
one row follows from the one before in a few operations on whole integers (Hyyro's recurrence).
That makes the work and the memory 1/64 of the table's cells and spares Python a step per cell.

L1  of the several longest subsequences the one given is the one Redis gives: it walks back from
    the ends, takes a match where there is one, else leaves the last byte of the first string where
    that keeps more, else of the second.
L2  a table beyond the limit on strings, at four bytes a cell, is refused before it is built.

Threading: pure functions.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from marram.commands.grammar import optional, word
from marram.commands.spec import (
    SYNTAX,
    Arg,
    Args,
    Command,
    CommandError,
    Reply,
    flags,
    integer,
)
from marram.commands.values import MAX_STRING_BYTES
from marram.storage.view import View

_CELL_BYTES: Final = 4


class Match(NamedTuple):
    """A run of bytes that both strings have: where in each it starts, and its size."""

    first: int
    second: int
    size: int


class _Options(NamedTuple):
    length: bool
    indexes: bool
    with_sizes: bool
    min_size: int


def lcs(view: View, args: Args) -> Reply:
    """LCS key key [LEN | IDX ...]: missing keys are empty strings."""
    first = view.string(args[1]) or b""
    second = view.string(args[2]) or b""
    options = _options(args)
    if (len(first) + 1) * (len(second) + 1) * _CELL_BYTES > MAX_STRING_BYTES:
        raise CommandError(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"
        )
    if options.length:
        return common_length(first, second)
    matches = common_runs(first, second)
    if not options.indexes:
        return b"".join(first[run.first : run.first + run.size] for run in reversed(matches))
    shown = [_shown(run, options.with_sizes) for run in matches if run.size >= options.min_size]
    return {b"matches": shown, b"len": sum(run.size for run in matches)}


def _options(args: Args) -> _Options:
    length = indexes = with_sizes = False
    min_size = 0
    words = iter(args[3:])
    for given in words:
        option = given.upper()
        if option == b"LEN":
            length = True
        elif option == b"IDX":
            indexes = True
        elif option == b"WITHMATCHLEN":
            with_sizes = True
        elif option == b"MINMATCHLEN" and (size := next(words, None)) is not None:
            min_size = integer(size)
        else:
            raise CommandError(SYNTAX)
    if length and indexes:
        raise CommandError("ERR If you want both the length and indexes, please just use IDX.")
    return _Options(length, indexes, with_sizes, min_size)


def _shown(run: Match, with_size: bool) -> list[Reply]:
    places: list[Reply] = [
        [run.first, run.first + run.size - 1],
        [run.second, run.second + run.size - 1],
    ]
    if with_size:
        places.append(run.size)
    return places


# -- the algorithm ---------------------------------------------------------------------------------


def common_length(first: bytes, second: bytes) -> int:
    """The length of the longest common subsequence."""
    short, long = sorted((first, second), key=len)
    full = (1 << len(long)) - 1
    row = full
    places = _Places(long)
    for byte in short:
        row = _next_row(row, places.of(byte), full)
    return (row ^ full).bit_count()


def common_runs(first: bytes, second: bytes) -> list[Match]:
    """The longest common subsequence as runs, the last one first (L1)."""
    # Rows are the shorter string's: a few wide integers instead of a great many narrow ones.
    if len(first) <= len(second):
        return _runs(_walk(first, second, rows_are_first=True))
    return _runs(_walk(second, first, rows_are_first=False))


class _Places:
    """Where a byte stands in a string, as bits; worked out once for each byte."""

    def __init__(self, string: bytes) -> None:
        self._reversed = string[::-1]
        self._known: dict[int, int] = {}

    def of(self, byte: int) -> int:
        """Bit p is set where string[p] is the byte."""
        places = self._known.get(byte)
        if places is None:
            digits = bytearray(b"0" * 256)
            digits[byte] = ord("1")
            text = self._reversed.translate(bytes(digits))
            places = self._known[byte] = int(text or b"0", 2)
        return places


def _next_row(row: int, places: int, full: int) -> int:
    """The row after `row`. A bit is clear in a column whose length exceeds its left neighbour's."""
    hit = row & places
    return ((row + hit) | (row - hit)) & full


def _walk(short: bytes, long: bytes, *, rows_are_first: bool) -> list[tuple[int, int]]:
    """The matching places (in the first string, in the second), from the back."""
    full = (1 << len(long)) - 1
    places = _Places(long)
    rows = [full]
    for byte in short:
        rows.append(_next_row(rows[-1], places.of(byte), full))
    found: list[tuple[int, int]] = []
    column = len(long)
    at = len(short)
    while at and column:
        # Columns are left one by one until this row matches, or until L1 leaves the row: where
        # the column gains on its left neighbour, if rows are the first string's; where the row
        # does not gain on the one before, if they are the second's.
        stays = rows[at] if rows_are_first else _gains(rows[at - 1] ^ rows[at], len(long))
        leaves = ~stays & ((1 << column) - 1)
        stop = leaves.bit_length()
        match = long.rfind(short[at - 1], 0, column)
        at -= 1
        if match >= 0 and match + 1 >= stop:
            found.append((at, match) if rows_are_first else (match, at))
            column = match
        else:
            column = stop
    return found


def _gains(changed: int, columns: int) -> int:
    """Where a row's lengths exceed those of the row before, by 1 at most.

    changed: where one of the two steps and the other does not. A length's gain is thus the parity
    of the changes up to its column: a running sum without carries.
    """
    full = (1 << columns) - 1
    shift = 1
    while shift < columns:
        changed = (changed ^ (changed << shift)) & full
        shift *= 2
    return changed


def _runs(places: list[tuple[int, int]]) -> list[Match]:
    """Places that follow each other in both strings, put together; the last one stays first."""
    runs: list[Match] = []
    for first, second in places:
        if runs and runs[-1].first == first + 1 and runs[-1].second == second + 1:
            runs[-1] = Match(first, second, runs[-1].size + 1)
        else:
            runs.append(Match(first, second, 1))
    return runs


ROWS: Final = (
    Command(
        "lcs",
        lcs,
        -3,
        flags("readonly"),
        "string",
        "Finds the longest common subsequence of two strings.",
        keys=(1, 2, 1),
        since="7.0.0",
        complexity="O(N*M/64) for strings of N and M bytes",
        args=(
            Arg("key1", "key"),
            Arg("key2", "key"),
            optional(word("LEN")),
            optional(word("IDX")),
            optional(Arg("min-match-len", "integer", "MINMATCHLEN")),
            optional(word("WITHMATCHLEN")),
        ),
    ),
)
