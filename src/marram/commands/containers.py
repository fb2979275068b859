"""Commands made of subcommands: CLIENT LIST, CONFIG GET, ... and the HELP each of them has.

Owns how such rows are put together and how an argument grammar reads as text; not dispatch, which
is the node's: it runs the row of the subcommand, with all arguments, the two names included.

Threading: immutable values after import.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from textwrap import wrap
from typing import Final

from marram.commands.context import Context
from marram.commands.spec import Arg, Args, Command, Reply, Support, flags
from marram.protocol.replies import Simple

_HELP_COLUMNS: Final = 76


def subcommand(
    name: str,
    run: Callable[[Context, Args], Reply],
    arity: int,
    words: str,
    group: str,
    summary: str,
    *,
    keys: tuple[int, int, int] = (0, 0, 0),
    since: str = "1.0.0",
    complexity: str = "O(1)",
    args: tuple[Arg, ...] = (),
    support: Support = Support.FULL,
    note: str = "",
) -> Command:
    """A row below a container. name: "client|list"; arity counts both names; words: its flags."""
    return Command(
        name,
        run,
        arity,
        flags(words),
        group,
        summary,
        keys=keys,
        since=since,
        complexity=complexity,
        args=args,
        control=True,
        support=support,
        note=note,
    )


def container(
    name: str,
    group: str,
    summary: str,
    rows: tuple[Command, ...],
    *,
    since: str = "1.0.0",
    bare: Callable[[Context, Args], Reply] | None = None,
    words: str = "",
    support: Support = Support.FULL,
    note: str = "",
) -> Command:
    """The row that holds subcommands; HELP is added. bare: what the name alone does, if it does."""
    lines = help_lines(name, rows, bare_summary=summary if bare is not None else "")
    help_row = subcommand(
        f"{name}|help",
        partial(_help, tuple(Simple(line) for line in lines)),
        2,
        "loading stale",
        group,
        f"Says what {name.upper()} can do.",
        since="5.0.0" if since < "5.0.0" else since,
    )
    return Command(
        name,
        bare if bare is not None else _unreachable,
        -1 if bare is not None else -2,
        flags(words),
        group,
        summary,
        since=since,
        complexity="Depends on subcommand.",
        control=True,
        support=support,
        note=note,
        subcommands=(*rows, help_row),
    )


def help_lines(name: str, rows: tuple[Command, ...], bare_summary: str = "") -> list[str]:
    """What HELP prints."""
    lines = [f"{name.upper()} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
    if bare_summary:
        lines += ["(no subcommand)", *_indented(bare_summary)]
    for row in rows:
        word = row.name.partition("|")[2].upper()
        lines.append(" ".join([word, *map(usage, row.args)]))
        lines += _indented(row.summary)
    return [*lines, "HELP", *_indented("Prints this help.")]


def usage(arg: Arg) -> str:
    """An argument as its syntax: "[LIMIT <count>]", "<key> [<key> ...]", "(ON|OFF)"."""
    if arg.type == "pure-token":
        text = arg.token or arg.name.upper()
    elif arg.type == "oneof":
        text = "(" + "|".join(map(usage, arg.parts)) + ")"
    elif arg.type == "block":
        text = " ".join(map(usage, arg.parts))
    else:
        text = f"<{arg.name}>"
    if arg.token is not None and arg.type != "pure-token":
        text = f"{arg.token} {text}"
    if arg.multiple:
        text = f"{text} [{text} ...]"
    return f"[{text}]" if arg.optional else text


def _indented(text: str) -> list[str]:
    return ["    " + line for line in wrap(text, _HELP_COLUMNS)]


def _help(lines: tuple[Simple, ...], context: Context, args: Args) -> Reply:
    return list(lines)


def _unreachable(context: Context, args: Args) -> Reply:
    raise AssertionError("a container's arity and dispatch leave nothing to run")
