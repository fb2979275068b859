"""The command table: every row is complete and consistent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from marram.commands.spec import Arg, Command, Support
from marram.commands.table import TABLE, lookup

ROWS = [row for top in TABLE.values() for row in (top, *top.subcommands)]
ARG_TYPES = {
    *("key", "string", "integer", "double", "pattern", "unix-time", "pure-token"),
    *("oneof", "block"),
}


def named(row: Command) -> str:
    return row.name


def walk(args: tuple[Arg, ...]) -> Iterator[Arg]:
    for arg in args:
        yield arg
        yield from walk(arg.parts)


def test_t1_names_are_there_once_in_lower_case() -> None:
    assert all(name == row.name.encode() == name.lower() for name, row in TABLE.items())


@pytest.mark.parametrize("spelling", [b"get", b"GET", b"Get", b"gEt"])
def test_names_are_found_in_any_case(spelling: bytes) -> None:
    assert lookup(spelling) is TABLE[b"get"]
    assert lookup(spelling + b"x") is None
    assert lookup(b"\xff") is None


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_a_row_says_what_it_is(row: Command) -> None:
    assert row.summary.endswith(".")
    assert row.complexity
    assert row.group
    assert all(part.isdigit() for part in row.since.split("."))
    container = TABLE[row.name.partition("|")[0].encode()]
    partial = row.support is Support.PARTIAL
    assert row.note or container.note or not partial, "partial, but in which way?"


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_flags_do_not_contradict_each_other(row: Command) -> None:
    assert not row.flags & {"write"} or "readonly" not in row.flags
    assert "denyoom" not in row.flags or row.writes, "only writes need memory"
    if row.keys != (0, 0, 0) and not row.control:
        assert row.writes or "readonly" in row.flags, "it touches keys: does it write?"


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_key_positions_agree_with_arity_and_arguments(row: Command) -> None:
    first, last, step = row.keys
    has_key_args = any(arg.type == "key" for arg in walk(row.args))
    if row.find_keys is not None:
        assert (first, last, step) == (0, 0, 0)
        assert "movablekeys" in row.flags
        return
    assert (first > 0) == (step > 0)
    assert first == 0 or has_key_args
    if not row.control:
        assert first > 0 or not has_key_args
    if first:
        assert first < abs(row.arity)
        args = [b"x"] * abs(row.arity)
        assert row.key_indexes(args)[0] == first


def fewest(args: tuple[Arg, ...]) -> int:
    """How many words the grammar needs at least."""
    count = 0
    for arg in args:
        if arg.optional:
            continue
        if arg.type == "oneof":
            own = min(fewest((part,)) for part in arg.parts)
        elif arg.type == "block":
            own = fewest(arg.parts)
        else:
            own = 0 if arg.type == "pure-token" else 1
        count += own + (arg.token is not None)
    return count


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_the_grammar_agrees_with_the_arity(row: Command) -> None:
    if row.subcommands:
        return
    names = row.name.count("|") + 1
    shortest = names + fewest(row.args)
    assert row.accepts(shortest)
    assert not row.accepts(shortest - 1)
    varies = any(arg.optional or arg.multiple for arg in row.args)
    assert row.arity < 0 or not varies
    # A control command may take, or ignore, more than its grammar shows.
    assert row.arity > 0 or varies or row.control


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_arguments_are_well_formed(row: Command) -> None:
    for arg in walk(row.args):
        assert arg.name
        assert arg.type in ARG_TYPES
        assert bool(arg.parts) == (arg.type in ("oneof", "block"))
        assert arg.type != "pure-token" or arg.token


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_subcommands_are_named_after_their_container(row: Command) -> None:
    for sub in row.subcommands:
        assert sub.name.startswith(f"{row.name}|")
        assert not sub.subcommands
