"""Commands about what marram does not have: functions, modules, ACL users, Redis Cluster.

Owns truthful answers to what clients and dashboards ask anyway: empty lists, the one user there is,
Redis's own refusals of a standalone server.

Threading: control handlers (spec.py).
"""

from __future__ import annotations

from functools import partial
from typing import Final

from marram.commands.containers import container, subcommand
from marram.commands.context import Context
from marram.commands.grammar import one_of, optional, word
from marram.commands.introspection import categories
from marram.commands.spec import Arg, Args, Command, CommandError, Reply, Support, flags
from marram.protocol.replies import OK

_CATEGORIES: Final = (
    "keyspace", "read", "write", "string", "bitmap", "pubsub", "admin", "fast", "slow", "blocking",
    "dangerous", "connection", "transaction", "scripting",
)  # fmt: skip


def _function_list(context: Context, args: Args) -> Reply:
    return []


def _function_flush(context: Context, args: Args) -> Reply:
    if len(args) > 3 or (len(args) == 3 and args[2].upper() not in (b"SYNC", b"ASYNC")):
        raise CommandError("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")
    return OK


def _module_list(context: Context, args: Args) -> Reply:
    return []


def _acl_whoami(context: Context, args: Args) -> Reply:
    return b"default"


def _acl_users(context: Context, args: Args) -> Reply:
    return [b"default"]


def _acl_list(context: Context, args: Args) -> Reply:
    # Redis shows a digest of the password; nobody needs one.
    state = "(password)" if context.logins.required else "nopass"
    return [f"user default on {state} ~* &* +@all".encode()]


def _acl_cat(context: Context, args: Args) -> Reply:
    if len(args) == 2:
        return [name.encode() for name in _CATEGORIES]
    wanted = args[2].lower().decode("utf-8", "surrogateescape")
    if wanted not in _CATEGORIES:
        raise CommandError(f"ERR Unknown category '{wanted}'")
    rows = [each for row in context.table for each in (row, *row.subcommands)]
    return [row.name.encode() for row in rows if wanted in categories(row)]


def _no_cluster(context: Context, args: Args) -> Reply:
    raise CommandError("ERR This instance has cluster support disabled")


_row: Final = partial(subcommand, support=Support.PARTIAL)
_MODE: Final = optional(one_of("mode", word("ASYNC"), word("SYNC")))
_REFUSED: Final = "Refused: this is no Redis Cluster."
_NAMES: Final = (
    "addslots", "bumpepoch", "count-failure-reports", "countkeysinslot", "delslots", "failover",
    "flushslots", "forget", "getkeysinslot", "info", "keyslot", "links", "meet", "myid", "nodes",
    "replicas", "replicate", "reset", "saveconfig", "setslot", "shards", "slaves", "slots",
)  # fmt: skip

ROWS: Final[tuple[Command, ...]] = (
    container(
        "function", "scripting", "Functions: there are none.",
        (
            _row("function|list", _function_list, -2, "noscript", "scripting",
                 "Gives an empty list: there are no functions.", since="7.0.0"),
            _row("function|flush", _function_flush, -2, "noscript", "scripting",
                 "Accepted: there are no functions.", since="7.0.0", args=(_MODE,)),
        ),
        since="7.0.0", support=Support.PARTIAL, note="There are no functions.",
    ),
    container(
        "module", "server", "Modules: there are none.",
        (
            _row("module|list", _module_list, 2, "admin noscript", "server",
                 "Gives an empty list: there are no modules.", since="4.0.0"),
        ),
        since="4.0.0", support=Support.PARTIAL, note="There are no modules.",
    ),
    container(
        "acl", "server", "Users: there is one, default.",
        (
            _row("acl|whoami", _acl_whoami, 2, "noscript loading stale", "server",
                 "Gives the user's name.", since="6.0.0"),
            _row("acl|users", _acl_users, 2, "admin noscript loading stale", "server",
                 "Names the users.", since="6.0.0"),
            _row("acl|list", _acl_list, 2, "admin noscript loading stale", "server",
                 "Describes the users.", since="6.0.0"),
            _row("acl|cat", _acl_cat, -2, "noscript loading stale", "server",
                 "Names the categories, or the commands in one.", since="6.0.0",
                 complexity="O(N) for N commands", args=(Arg("category", optional=True),)),
        ),
        since="6.0.0", support=Support.PARTIAL, note="There is one user, default.",
    ),
    container(
        "cluster", "cluster", _REFUSED,
        tuple(
            _row(f"cluster|{name}", _no_cluster, -2, "stale", "cluster", _REFUSED,
                 since="3.0.0", args=(Arg("argument", optional=True, multiple=True),))
            for name in _NAMES
        ),
        since="3.0.0", support=Support.PARTIAL, note=_REFUSED,
    ),
    *(
        Command(
            name, _no_cluster, 1, flags("loading stale fast"), "cluster", _REFUSED,
            since="3.0.0", control=True, support=Support.PARTIAL, note=_REFUSED,
        )
        for name in ("readonly", "readwrite", "asking")
    ),
)  # fmt: skip
