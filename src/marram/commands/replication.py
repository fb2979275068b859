"""Commands about primary and replicas: REPLICAOF, ROLE, WAIT, WAITAOF, POSITION, WAITPOS, ACKS.

Owns their grammar and replies; who is whose replica, and what replicas have, is the node's.

A *position* names a commit: epoch and sequence number. POSITION gives the newest one that a
connection depends on; presented to any replica (WAITPOS) it makes what is read there at least as
fresh.

Threading: control handlers (spec.py).
"""

from __future__ import annotations

import re
from typing import Final

from marram.commands.context import Context
from marram.commands.grammar import one_of, optional, word
from marram.commands.spec import (
    SYNTAX,
    Arg,
    Args,
    Command,
    CommandError,
    Reply,
    Support,
    flags,
    integer,
)
from marram.protocol.replies import OK

_POSITION: Final = re.compile(rb"([0-9]{1,19})-([0-9]{1,19})")
_REPLICAS_MAX: Final = 1000


def _replicaof(context: Context, args: Args) -> Reply:
    """REPLICAOF host port, REPLICAOF NO ONE: answered once the role is durable."""
    if args[1].lower() == b"no" and args[2].lower() == b"one":
        return context.replication.promote()
    port = integer(args[2], "ERR Invalid master port")
    if not 0 < port < 65536:
        raise CommandError("ERR Invalid master port")
    try:
        host = args[1].decode("ascii")
    except UnicodeDecodeError:
        host = ""
    if not host or not host.isprintable() or " " in host:
        raise CommandError("ERR Invalid master host")
    return context.replication.follow(host, port)


def _role(context: Context, args: Args) -> Reply:
    """ROLE."""
    return context.replication.role()


def _wait(context: Context, args: Args) -> Reply:
    """WAIT numreplicas timeout: how many replicas have applied this connection's writes."""
    wanted = integer(args[1])
    timeout_ms = timeout_of(args[2])
    return _wait_for(context, max(wanted, 0), timeout_ms, on_disk=False)


def _waitaof(context: Context, args: Args) -> Reply:
    """WAITAOF numlocal numreplicas timeout: [1 where the disk has it, replicas whose disk has]."""
    num_local = integer(args[1])
    num_replicas = integer(args[2])
    timeout_ms = timeout_of(args[3])
    if not 0 <= num_local <= 1 or num_replicas < 0:
        raise CommandError("ERR value is out of range")
    upkeep, replication = context.upkeep, context.replication
    if context.in_transaction:
        return [0, 0]
    position = context.session.depends_on
    if num_replicas:
        # Replicas are sent what is on this disk, so whatever they have is.
        return replication.wait_replicas(
            position, num_replicas, timeout_ms,
            lambda count: [int(count > 0 or upkeep.all_synced), count], on_disk=True,
        )  # fmt: skip
    return upkeep.wait_synced(
        timeout_ms, lambda synced: [int(synced), replication.count(position, on_disk=True)]
    )


def _wait_for(context: Context, wanted: int, timeout_ms: int, *, on_disk: bool) -> Reply:
    replication, position = context.replication, context.session.depends_on
    if context.in_transaction:
        return replication.count(position, on_disk=on_disk)
    if not wanted:
        return context.upkeep.wait_committed(
            position, timeout_ms, lambda _: replication.count(position, on_disk=on_disk)
        )
    return replication.wait_replicas(
        position, wanted, timeout_ms, lambda count: count, on_disk=on_disk
    )


def _position(context: Context, args: Args) -> Reply:
    """POSITION: [epoch, sequence number]; answered once it is committed."""
    newest = context.newest_position()
    context.depend_on(newest)
    return context.position(newest)


def _waitpos(context: Context, args: Args) -> Reply:
    """WAITPOS epoch-sequence timeout: 1 once what is read here is at least as fresh, else 0."""
    match = _POSITION.fullmatch(args[1])
    if match is None:
        raise CommandError("ERR a position is written epoch-sequence, for instance 1-42")
    epoch, sequence = int(match[1]), int(match[2])
    timeout_ms = timeout_of(args[2])
    if context.in_transaction:
        raise CommandError("ERR WAITPOS may wait, and nothing waits inside MULTI")
    return context.replication.wait_position(epoch, sequence, timeout_ms, int)


def _acks(context: Context, args: Args) -> Reply:
    """ACKS numreplicas [RECEIVED|DISK] [TIMEOUT milliseconds]: of this connection's next write."""
    wanted = integer(args[1])
    if not 0 <= wanted <= _REPLICAS_MAX:
        raise CommandError("ERR value is out of range")
    on_disk = True
    timeout_ms = 0
    at = 2
    while at < len(args):
        option = args[at].upper()
        if option in (b"RECEIVED", b"DISK"):
            on_disk = option == b"DISK"
            at += 1
        elif option == b"TIMEOUT" and at + 1 < len(args):
            timeout_ms = timeout_of(args[at + 1])
            at += 2
        else:
            raise CommandError(SYNTAX)
    context.replication.ask_level(wanted, timeout_ms, on_disk=on_disk)
    return OK


def timeout_of(text: bytes) -> int:
    """Milliseconds, 0 for as long as it takes. Raises CommandError."""
    timeout_ms = integer(text, "ERR timeout is not an integer or out of range")
    if timeout_ms < 0:
        raise CommandError("ERR timeout is negative")
    return timeout_ms


# -- the table -------------------------------------------------------------------------------------

_FOLLOWS: Final = "admin noscript stale no_multi"
_FOLLOWS_ARGS: Final = (
    one_of(
        "args",
        Arg("host-port", "block", parts=(Arg("host"), Arg("port", "integer"))),
        Arg("no-one", "block", parts=(word("NO"), word("ONE"))),
    ),
)
_FOLLOWS_NOTE: Final = (
    "The port is that of the frame listener. A store with data of its own follows only the store "
    "it was copied from, or that was copied from it. The role survives restarts."
)
_REPLICA_COUNT: Final = Arg("numreplicas", "integer")
_TIMEOUT: Final = Arg("timeout", "integer")

ROWS: Final[tuple[Command, ...]] = (
    Command(
        "replicaof", _replicaof, 3, flags(_FOLLOWS), "server",
        "Makes this server a read-only replica of another, or, with NO ONE, a primary in a new "
        "epoch.",
        since="5.0.0", control=True, support=Support.PARTIAL, note=_FOLLOWS_NOTE,
        args=_FOLLOWS_ARGS,
    ),
    Command(
        "slaveof", _replicaof, 3, flags(_FOLLOWS), "server", "The older name of REPLICAOF.",
        control=True, support=Support.PARTIAL, note="As REPLICAOF.", args=_FOLLOWS_ARGS,
    ),
    Command(
        "role", _role, 1, flags("noscript loading stale fast"), "server",
        "Says whether this server is a primary or a replica, and how far it is.",
        since="2.8.12", control=True,
    ),
    Command(
        "wait", _wait, 3, flags("noscript blocking"), "generic",
        "Waits until so many replicas have applied this connection's writes; gives how many have.",
        since="3.0.0", control=True, args=(_REPLICA_COUNT, _TIMEOUT),
    ),
    Command(
        "waitaof", _waitaof, 4, flags("noscript blocking"), "generic",
        "Waits until this connection's writes are on this disk and on those of so many replicas.",
        since="7.2.0", control=True,
        args=(Arg("numlocal", "integer"), _REPLICA_COUNT, _TIMEOUT),
    ),
    Command(
        "position", _position, 1, flags("noscript loading stale fast"), "marram",
        "Gives epoch and sequence number of the newest commit this connection depends on.",
        since="0.1.0", control=True, support=Support.OWN,
    ),
    Command(
        "waitpos", _waitpos, 3, flags("noscript blocking no_multi"), "marram",
        "Waits until this server holds a position, epoch-sequence; gives 1, or 0 where the time "
        "was over first.",
        since="0.2.0", control=True, support=Support.OWN, args=(Arg("position"), _TIMEOUT),
    ),
    Command(
        "acks", _acks, -2, flags("noscript fast no_multi"), "marram",
        "Has this connection's next write, or EXEC, wait until so many replicas have it; nobody "
        "reads it before.",
        since="0.2.0", control=True, support=Support.OWN,
        args=(
            _REPLICA_COUNT,
            optional(one_of("level", word("RECEIVED"), word("DISK"))),
            Arg("milliseconds", "integer", "TIMEOUT", True),
        ),
    ),
)  # fmt: skip
