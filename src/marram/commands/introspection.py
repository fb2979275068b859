"""COMMAND: the command table as clients see it.

Owns how a row reads as COMMAND INFO's entry and COMMAND DOCS's map; shells and client libraries
build their help, hints, key extraction and routing from these.

Threading: control handlers (spec.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Final

from marram.commands.containers import container, subcommand
from marram.commands.context import Context
from marram.commands.glob import Glob
from marram.commands.grammar import one_of
from marram.commands.spec import SYNTAX, Arg, Args, Command, CommandError, Reply, Support
from marram.protocol.replies import SetReply, Simple

_GROUP_CATEGORIES: Final = {
    "generic": "keyspace",
    "string": "string",
    "bitmap": "bitmap",
    "transactions": "transaction",
    "connection": "connection",
    "pubsub": "pubsub",
}


def categories(row: Command) -> list[str]:
    """The ACL categories of a row, without their @."""
    words = row.flags
    found = [_GROUP_CATEGORIES[row.group]] if row.group in _GROUP_CATEGORIES else []
    if "readonly" in words:
        found.append("read")
    if "write" in words:
        found.append("write")
    if "admin" in words:
        found += ["admin", "dangerous"]
    found.append("fast" if "fast" in words else "slow")
    if row.subcommands:
        return found[-1:]  # a container itself is nothing but slow
    return found


def find(context: Context, name: bytes) -> Command | None:
    """The row of "get", or of a subcommand written "client|list"."""
    first, _, second = name.partition(b"|")
    row = context.table.lookup(first)
    if row is None or not second:
        return row
    wanted = name.lower().decode("latin-1")
    return next((sub for sub in row.subcommands if sub.name == wanted), None)


def entry(row: Command) -> list[Any]:
    """COMMAND INFO's entry of a row."""
    first, last, step = row.keys
    return [
        row.name.encode(),
        row.arity,
        SetReply([Simple(word) for word in sorted(row.flags)]),
        first,
        last,
        step,
        SetReply([Simple("@" + name) for name in categories(row)]),
        SetReply(_tips(row)),
        SetReply(_key_specs(row)),
        [entry(sub) for sub in row.subcommands],
    ]


def documentation(row: Command) -> dict[bytes, Any]:
    """COMMAND DOCS's map of a row."""
    found: dict[bytes, Any] = {
        b"summary": row.summary.encode(),
        b"since": row.since.encode(),
        b"group": row.group.encode(),
        b"complexity": row.complexity.encode(),
    }
    if row.note:
        found[b"note"] = row.note.encode()
    if row.args:
        found[b"arguments"] = [_argument(arg) for arg in row.args]
    if row.subcommands:
        found[b"subcommands"] = {sub.name.encode(): documentation(sub) for sub in row.subcommands}
    return found


# -- subcommands -----------------------------------------------------------------------------------


def _all(context: Context, args: Args) -> Reply:
    return [entry(row) for row in context.table]


def _count(context: Context, args: Args) -> Reply:
    return sum(1 for _ in context.table)


def _info(context: Context, args: Args) -> Reply:
    if len(args) == 2:
        return _all(context, args)
    rows = [find(context, name) for name in args[2:]]
    return [None if row is None else entry(row) for row in rows]


def _docs(context: Context, args: Args) -> Reply:
    rows: Iterable[Command | None]
    rows = (find(context, name) for name in args[2:]) if len(args) > 2 else context.table
    return {row.name.encode(): documentation(row) for row in rows if row is not None}


def _list(context: Context, args: Args) -> Reply:
    if len(args) == 2:
        return [row.name.encode() for row in context.table]
    if len(args) != 5 or args[2].upper() != b"FILTERBY":
        raise CommandError(SYNTAX)
    kind, wanted = args[3].upper(), args[4]
    rows = [each for row in context.table for each in (row, *row.subcommands)]
    if kind == b"MODULE":
        return []
    if kind == b"ACLCAT":
        name = wanted.lower().decode("latin-1")
        return [row.name.encode() for row in rows if name in categories(row)]
    if kind == b"PATTERN":
        matches = Glob(wanted.lower()).matches
        return [row.name.encode() for row in rows if matches(row.name.encode())]
    raise CommandError(SYNTAX)


def _getkeys(context: Context, args: Args) -> Reply:
    row, command = _target(context, args)
    return [command[index] for index in _key_indexes(row, command)]


def _getkeys_and_flags(context: Context, args: Args) -> Reply:
    row, command = _target(context, args)
    words = [Simple(word) for word in _access(row)]
    return [[command[index], SetReply(words)] for index in _key_indexes(row, command)]


# -- private ---------------------------------------------------------------------------------------


def _target(context: Context, args: Args) -> tuple[Command, Args]:
    """The row that `args[2:]` calls, and those arguments."""
    command = args[2:]
    row = context.table.lookup(command[0])
    if row is not None and row.subcommands and len(command) > 1:
        row = find(context, command[0] + b"|" + command[1])
    if row is None:
        raise CommandError("ERR Invalid command specified")
    if not row.accepts(len(command)):
        raise CommandError("ERR Invalid number of arguments specified for command")
    return row, command


def _key_indexes(row: Command, command: Args) -> list[int]:
    if row.keys[0] == 0 and row.find_keys is None:
        raise CommandError("ERR The command has no key arguments")
    return row.key_indexes(command)


def _tips(row: Command) -> list[bytes]:
    return [b"nondeterministic_output"] if "random" in row.flags else []


def _access(row: Command) -> list[str]:
    """What a command does to its keys, in the words of key specifications."""
    return ["RW", "access", "update"] if row.writes else ["RO", "access"]


def _key_specs(row: Command) -> list[dict[bytes, Any]]:
    first, last, step = row.keys
    if first == 0 and row.find_keys is None:
        return []
    begin: dict[bytes, Any] = {b"type": b"index", b"spec": {b"index": first}}
    reach: dict[bytes, Any] = {
        b"type": b"range",
        b"spec": {
            # Counted from the first key, where COMMAND's entry counts from the name.
            b"lastkey": last if last < 0 else last - first,
            b"keystep": step,
            b"limit": 0,
        },
    }
    if row.find_keys is not None:
        begin = reach = {b"type": b"unknown", b"spec": {}}
    specs = SetReply([Simple(word) for word in _access(row)])
    return [{b"flags": specs, b"begin_search": begin, b"find_keys": reach}]


def _argument(arg: Arg) -> dict[bytes, Any]:
    found: dict[bytes, Any] = {b"name": arg.name.encode(), b"type": arg.type.encode()}
    if arg.type == "key":
        found[b"key_spec_index"] = 0
    if arg.token is not None:
        found[b"token"] = arg.token.encode()
    words = [word for word in ("optional", "multiple") if getattr(arg, word)]
    if words:
        found[b"flags"] = SetReply([Simple(word) for word in words])
    if arg.parts:
        found[b"arguments"] = [_argument(part) for part in arg.parts]
    return found


# -- the table -------------------------------------------------------------------------------------

_NAMES: Final = Arg("command-name", optional=True, multiple=True)
_FULL: Final = (Arg("command"), Arg("arg", optional=True, multiple=True))
_FILTER: Final = one_of(
    "filterby",
    Arg("module-name", token="MODULE"),
    Arg("category", token="ACLCAT"),
    Arg("pattern", "pattern", "PATTERN"),
)
_row: Final = partial(
    subcommand, words="loading stale", group="connection", complexity="O(N) for N commands"
)

ROWS: Final[tuple[Command, ...]] = (
    container(
        "command", "connection", "Describes all commands.",
        (
            _row("command|count", _count, 2, summary="Counts the commands.", since="2.8.13"),
            _row("command|list", _list, -2, summary="Names the commands.", since="7.0.0",
                 args=(Arg("filterby", "oneof", "FILTERBY", True, parts=_FILTER.parts),)),
            _row("command|info", _info, -2, summary="Describes commands to client libraries.",
                 since="2.8.13", args=(_NAMES,)),
            _row("command|docs", _docs, -2, summary="Documents commands for people.",
                 since="7.0.0", args=(_NAMES,)),
            _row("command|getkeys", _getkeys, -3, summary="Finds the keys in a full command.",
                 since="2.8.13", args=_FULL),
            _row("command|getkeysandflags", _getkeys_and_flags, -3, since="7.0.0",
                 summary="Finds the keys in a full command and what is done to them.",
                 args=_FULL, support=Support.PARTIAL,
                 note="Access flags are those of the whole command."),
        ),
        since="2.8.13", bare=_all, words="loading stale",
    ),
)  # fmt: skip
