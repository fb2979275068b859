"""SLOWLOG, LATENCY, MEMORY, MONITOR and DEBUG: looking into a running server.

Owns their handlers and texts; what is measured and kept is the node's. DEBUG is refused by the node
unless the operator turned it on.

Threading: control handlers (spec.py).
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Final

from marram.coding.batch import TYPE_STRING
from marram.commands.containers import container, subcommand
from marram.commands.context import Context
from marram.commands.grammar import KEY, one_of, word
from marram.commands.spec import (
    NO_SUCH_KEY,
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
from marram.protocol.replies import OK, Push, SetReply, Simple, Verbatim

KEY_OVERHEAD_BYTES: Final = 160
"""What a key costs beyond its bytes and its value's, roughly: objects, dict slot, order."""

# -- SLOWLOG ---------------------------------------------------------------------------------------

_BAD_COUNT: Final = "ERR count should be greater than or equal to -1"


def _slowlog_get(context: Context, args: Args) -> Reply:
    if len(args) > 3:
        raise CommandError("ERR wrong number of arguments for 'slowlog|get' command")
    count = integer(args[2], _BAD_COUNT) if len(args) == 3 else 10
    if count < -1:
        raise CommandError(_BAD_COUNT)
    return [
        [
            entry.number,
            entry.time_s,
            entry.elapsed_us,
            entry.args,
            entry.address.encode("utf-8", "surrogateescape"),
            entry.name,
        ]
        for entry in context.slowlog.newest(None if count == -1 else count)
    ]


def _slowlog_len(context: Context, args: Args) -> Reply:
    return len(context.slowlog)


def _slowlog_reset(context: Context, args: Args) -> Reply:
    context.slowlog.clear()
    return OK


# -- LATENCY ---------------------------------------------------------------------------------------


def _latency_latest(context: Context, args: Args) -> Reply:
    latency = context.latency
    return [
        [event.encode(), *samples[-1], latency.worst_ms(event)]
        for event, samples in latency.events().items()
    ]


def _latency_history(context: Context, args: Args) -> Reply:
    samples = context.latency.events().get(_event(args[2]), ())
    return [list(sample) for sample in samples]


def _latency_reset(context: Context, args: Args) -> Reply:
    latency = context.latency
    events = [_event(name) for name in args[2:]] or list(latency.events())
    return sum(latency.reset(event) for event in events)


def _latency_histogram(context: Context, args: Args) -> Reply:
    wanted = {name.lower().decode("latin-1") for name in args[2:]}
    found: dict[bytes, Any] = {}
    for statistic in context.table.statistics():
        counts = statistic.histogram_us
        mine = {statistic.name, statistic.name.partition("|")[0]}
        if not any(counts) or (wanted and not mine & wanted):
            continue
        total = 0
        cumulative: dict[Any, Any] = {}
        for power, count in enumerate(counts):
            total += count
            if count:
                cumulative[1 << power] = total
        found[statistic.name.encode()] = {b"calls": total, b"histogram_usec": cumulative}
    return found


def _latency_graph(context: Context, args: Args) -> Reply:
    event = _event(args[2])
    samples = context.latency.events().get(event)
    if not samples:
        raise CommandError(f"ERR No samples available for event '{event}'")
    values = [latency_ms for _, latency_ms in samples][-_GRAPH_COLUMNS:]
    low, high = min(values), max(values)
    rows = []
    for level in range(_GRAPH_ROWS, 0, -1):
        floor = low + (high - low) * (level - 1) / _GRAPH_ROWS
        rows.append("".join("#" if value > floor or level == 1 else " " for value in values))
    head = (
        f"{event} - high {high} ms, low {low} ms "
        f"(all time high {context.latency.worst_ms(event)} ms)"
    )
    return Verbatim("\n".join([head, "-" * 80, *rows, ""]).encode("utf-8", "surrogateescape"))


_GRAPH_ROWS: Final = 4
_GRAPH_COLUMNS: Final = 80


def _latency_doctor(context: Context, args: Args) -> Reply:
    latency = context.latency
    if not latency.threshold_ms:
        lines = [
            "Latency is not being watched. CONFIG SET latency-monitor-threshold <milliseconds> "
            "starts it."
        ]
    elif not latency.events():
        lines = [f"Nothing has taken {latency.threshold_ms} ms or more."]
    else:
        lines = ["Events that took long, and their remedies:"]
        for event, samples in latency.events().items():
            mean_ms = sum(sample[1] for sample in samples) // len(samples)
            lines.append(
                f"- {event}: {len(samples)} samples, mean {mean_ms} ms, worst "
                f"{latency.worst_ms(event)} ms. {_REMEDIES.get(event, '')}"
            )
    return Verbatim("\n".join([*lines, ""]).encode())


_REMEDIES: Final = {
    "command": "SLOWLOG GET names the commands; read less at a time (SCAN, SCANRANGE with LIMIT).",
    "fast-command": "These do little work: look for a busy machine, swapping, or large values.",
    "expire-cycle": "Many keys expire together; spread their deadlines.",
}


def _event(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


# -- MEMORY ----------------------------------------------------------------------------------------


def _memory_usage(context: Context, args: Args) -> Reply:
    if len(args) == 5 and args[3].upper() == b"SAMPLES":
        if integer(args[4]) < 0:
            raise CommandError(SYNTAX)
    elif len(args) != 3:
        raise CommandError(SYNTAX)
    entry = context.view.entry(args[2])
    return None if entry is None else KEY_OVERHEAD_BYTES + len(args[2]) + len(entry.value)


def _memory_stats(context: Context, args: Args) -> Reply:
    return dict(context.memory())


def _memory_doctor(context: Context, args: Args) -> Reply:
    figures = context.memory()
    ratio = figures[b"fragmentation"]
    if figures[b"total.allocated"] < _LITTLE_BYTES:
        text = "The store is empty or small; there is nothing to say about its memory."
    elif ratio > _ODD_RATIO:
        text = (
            f"The process holds {ratio:.1f} times what keys and values account for: after large "
            "deletes, or large requests and replies, the allocator keeps memory for later."
        )
    else:
        text = "Nothing unusual."
    return Verbatim(text.encode() + b"\n")


_LITTLE_BYTES: Final = 64 << 20
_ODD_RATIO: Final = 3


def _memory_purge(context: Context, args: Args) -> Reply:
    return OK  # Python's allocator gives back by itself what it can


# -- MONITOR ---------------------------------------------------------------------------------------


def _monitor(context: Context, args: Args) -> Reply:
    """MONITOR."""
    if context.in_transaction:
        raise CommandError("ERR MONITOR isn't allowed for DENY BLOCKING client")
    context.monitor()
    return OK


# -- DEBUG -----------------------------------------------------------------------------------------

DEBUG_OFF: Final = (
    'ERR DEBUG command not allowed. If the enable-debug-command option is set to "local", you can '
    "run it from a local connection, otherwise you need to set this option in the configuration "
    "file, and then restart the server."
)
_SECONDS: Final = re.compile(rb"[0-9]{1,6}(\.[0-9]{1,9})?")


def _debug(context: Context, args: Args) -> Reply:
    """DEBUG SLEEP|OBJECT|RELOAD|SET-ACTIVE-EXPIRE|PROTOCOL|HELP."""
    name = args[1].upper()
    run = _DEBUGS.get((name, len(args)))
    if run is None:
        shown = args[1].decode("utf-8", "surrogateescape")
        raise CommandError(
            f"ERR unknown subcommand or wrong number of arguments for '{shown}'. Try DEBUG HELP."
        )
    return run(context, args)


def _debug_sleep(context: Context, args: Args) -> Reply:
    """Hold this connection up; Redis holds everybody up."""
    if context.in_transaction:
        raise CommandError("ERR DEBUG SLEEP is not allowed inside a transaction")
    if _SECONDS.fullmatch(args[2]) is None:
        raise CommandError("ERR value is not a valid float")
    duration_ms = round(float(args[2]) * 1000)
    return context.upkeep.sleep(duration_ms, lambda _: OK) if duration_ms else OK


def _debug_object(context: Context, args: Args) -> Reply:
    entry = context.view.entry(args[2])
    if entry is None:
        raise CommandError(NO_SUCH_KEY)
    encoding = "raw" if entry.type == TYPE_STRING else "unknown"
    return Simple(
        f"Value at:0x0 refcount:1 encoding:{encoding} serializedlength:{len(entry.value)} "
        "lru:0 lru_seconds_idle:0"
    )


def _debug_reload(context: Context, args: Args) -> Reply:
    """A checkpoint; what recovery would start from is then on disk."""
    if context.in_transaction:
        raise CommandError("ERR DEBUG RELOAD is not allowed inside a transaction")
    return context.upkeep.checkpoint(OK)


def _debug_set_active_expire(context: Context, args: Args) -> Reply:
    context.upkeep.active_expiry = args[2] != b"0"
    return OK


def _debug_protocol(context: Context, args: Args) -> Reply:
    name = args[2].lower()
    if name == b"push":
        if context.session.protocol == 2:
            raise CommandError("ERR RESP2 is not supported by this command")
        context.push(Push([b"server-cpu-usage", 42]))
        return b"Some real reply following the push reply"
    if name not in _SPECIMENS:
        raise CommandError(
            "ERR Wrong protocol type name. Please use one of the following: "
            + "|".join(known.decode() for known in (*_SPECIMENS, b"push"))
        )
    return _SPECIMENS[name]


_SPECIMENS: Final[dict[bytes, Reply]] = {
    b"string": b"Hello World",
    b"integer": 12345,
    b"double": 3.141,
    b"null": None,
    b"array": [0, 1, 2],
    b"set": SetReply([0, 1, 2]),
    b"map": {0: False, 1: True, 2: False},
    b"verbatim": Verbatim(b"This is a verbatim\nstring"),
    b"true": True,
    b"false": False,
}


def _debug_help(context: Context, args: Args) -> Reply:
    return [Simple(line) for line in _DEBUG_HELP]


_DEBUGS: Final = {
    (b"SLEEP", 3): _debug_sleep,
    (b"OBJECT", 3): _debug_object,
    (b"RELOAD", 2): _debug_reload,
    (b"SET-ACTIVE-EXPIRE", 3): _debug_set_active_expire,
    (b"PROTOCOL", 3): _debug_protocol,
    (b"HELP", 2): _debug_help,
}
_DEBUG_HELP: Final = (
    "DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "OBJECT <key>",
    "    Describes the value at a key.",
    "PROTOCOL <type>",
    "    Replies with a specimen of the type.",
    "RELOAD",
    "    Makes a checkpoint.",
    "SET-ACTIVE-EXPIRE (0|1)",
    "    Turns the deletion of expired keys in the background off or on.",
    "SLEEP <seconds>",
    "    Holds this connection up.",
    "HELP",
    "    Prints this help.",
)

# -- the table -------------------------------------------------------------------------------------

_ADMIN: Final = "admin loading stale"
_row: Final = partial(subcommand, group="server")
_NAME: Final = Arg("event")

ROWS: Final[tuple[Command, ...]] = (
    container(
        "slowlog", "server", "Commands that took long.",
        (
            _row("slowlog|get", _slowlog_get, -2, _ADMIN, since="2.2.12",
                 summary="Gives the newest entries (default: 10, -1 for all): number, time, "
                 "microseconds, arguments, address, connection's name.",
                 complexity="O(N) for N entries", args=(Arg("count", "integer", optional=True),)),
            _row("slowlog|len", _slowlog_len, 2, _ADMIN, since="2.2.12",
                 summary="Counts the entries."),
            _row("slowlog|reset", _slowlog_reset, 2, _ADMIN, since="2.2.12",
                 summary="Drops the entries."),
        ),
        since="2.2.12",
    ),
    container(
        "latency", "server", "Events that took long.",
        (
            _row("latency|doctor", _latency_doctor, 2, _ADMIN, since="2.8.13",
                 summary="Reports on the samples, in words."),
            _row("latency|graph", _latency_graph, 3, _ADMIN, since="2.8.13",
                 summary="Draws an event's samples.", args=(_NAME,)),
            _row("latency|histogram", _latency_histogram, -2, _ADMIN, since="7.0.0",
                 summary="Gives the distribution of commands' latencies.",
                 support=Support.PARTIAL,
                 note="Constant-time commands are timed only while slowlog-log-slower-than is "
                 "below 1000 or latency-monitor-threshold is set.",
                 args=(Arg("command", optional=True, multiple=True),)),
            _row("latency|history", _latency_history, 3, _ADMIN, since="2.8.13",
                 summary="Gives an event's samples.", args=(_NAME,)),
            _row("latency|latest", _latency_latest, 2, _ADMIN, since="2.8.13",
                 summary="Gives the last sample of every event."),
            _row("latency|reset", _latency_reset, -2, _ADMIN, since="2.8.13",
                 summary="Drops the samples of some events, or all.",
                 args=(Arg("event", optional=True, multiple=True),)),
        ),
        since="2.8.13",
    ),
    container(
        "memory", "server", "What memory is used for.",
        (
            _row("memory|usage", _memory_usage, -3, "readonly", keys=(2, 2, 1), since="4.0.0",
                 summary="Estimates what a key and its value use, bytes.",
                 args=(KEY, Arg("count", "integer", "SAMPLES", True))),
            _row("memory|stats", _memory_stats, 2, "", since="4.0.0",
                 summary="Gives figures about memory."),
            _row("memory|doctor", _memory_doctor, 2, "", since="4.0.0",
                 summary="Reports on memory, in words."),
            _row("memory|purge", _memory_purge, 2, "", since="4.0.0",
                 summary="Accepted; Python gives memory back by itself."),
        ),
        since="4.0.0",
    ),
    Command(
        "monitor", _monitor, 1, flags("admin noscript loading stale"), "server",
        "Shows every command that the server runs from now on.", control=True,
    ),
    Command(
        "debug", _debug, -2, flags("admin noscript loading stale"), "server",
        "For tests of servers and clients; off unless the operator allows it.", control=True,
        support=Support.PARTIAL, note="SLEEP, OBJECT, RELOAD, SET-ACTIVE-EXPIRE, PROTOCOL, HELP.",
        args=(one_of("subcommand", *(word(name.decode()) for name, _ in _DEBUGS)),
              Arg("argument", optional=True)),
    ),
)  # fmt: skip
