"""Commands about the server: INFO, CONFIG, TIME, SAVE, SHUTDOWN, CHECKPOINT, ...

Owns their handlers; diagnostics.py has SLOWLOG, LATENCY, MEMORY, MONITOR and DEBUG, absent.py the
commands about features that are not there. What INFO says and what CONFIG knows is the node's.

SAVE and BGSAVE make marram's checkpoint: acknowledged writes are durable without them.

Threading: control handlers (spec.py).
"""

from __future__ import annotations

import re
from functools import partial
from typing import Final

from marram.commands import absent, diagnostics
from marram.commands.containers import container, subcommand
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
)
from marram.protocol.replies import NO_REPLY, OK, Simple, Verbatim
from marram.storage.verify import Report

_BACKUP_NAME: Final = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,64}")


def _info(context: Context, args: Args) -> Reply:
    """INFO [section ...]."""
    return Verbatim(context.info([name.lower() for name in args[1:]]))


def _time(context: Context, args: Args) -> Reply:
    """TIME: seconds, microseconds; the store's clock has milliseconds."""
    seconds, milliseconds = divmod(context.now_ms, 1000)
    return [b"%d" % seconds, b"%d" % (milliseconds * 1000)]


def _randomkey(context: Context, args: Args) -> Reply:
    """RANDOMKEY."""
    return context.view.random_key(context.random_number())


# -- CONFIG ----------------------------------------------------------------------------------------


def _config_get(context: Context, args: Args) -> Reply:
    return context.parameters.get(args[2:])


def _config_set(context: Context, args: Args) -> Reply:
    if len(args) % 2:
        raise CommandError("ERR wrong number of arguments for 'config|set' command")
    context.parameters.set(list(zip(args[2::2], args[3::2], strict=True)))
    return OK


def _config_resetstat(context: Context, args: Args) -> Reply:
    context.reset_statistics()
    return OK


def _config_rewrite(context: Context, args: Args) -> Reply:
    # No command of marram's writes a file of the operator's choosing, or of a client's.
    raise CommandError("ERR CONFIG REWRITE is not supported: edit the configuration file")


# -- durability ------------------------------------------------------------------------------------


def _save(context: Context, args: Args) -> Reply:
    """SAVE."""
    return context.upkeep.checkpoint(OK)


def _checkpoint(context: Context, args: Args) -> Reply:
    """CHECKPOINT."""
    return context.upkeep.checkpoint(OK)


def _backup(context: Context, args: Args) -> Reply:
    """BACKUP name: [epoch, sequence number] of what the copy holds."""
    name = args[1].decode("ascii", "replace")
    if not _BACKUP_NAME.fullmatch(name):
        raise CommandError("ERR a backup's name has 1 to 64 letters, digits, '.', '_' and '-'")
    return context.upkeep.backup(name, list)


def _verify(context: Context, args: Args) -> Reply:
    """VERIFY."""
    return context.upkeep.verify(_report)


def _report(report: Report) -> Reply:
    return {
        b"ok": int(report.ok),
        b"problems": [problem.encode() for problem in report.problems],
        b"checked": [[name.encode(), size] for name, size in report.checked],
        b"rows": report.rows,
        b"batches": report.batches,
        b"torn_tail_bytes": report.torn_tail_bytes,
        b"orphans": [name.encode() for name in report.orphans],
    }


def _compact(context: Context, args: Args) -> Reply:
    """COMPACT."""
    return context.upkeep.compact(None, Simple)


def _compact_range(context: Context, args: Args) -> Reply:
    """COMPACT RANGE start stop: of the selected database; an empty one is no bound."""
    start, stop = args[2], args[3] or None
    if stop is not None and start >= stop:
        return OK
    return context.upkeep.compact((context.session.keyspace, start, stop), Simple)


def _compact_pause(context: Context, args: Args) -> Reply:
    context.upkeep.compaction.set_paused(True)
    return OK


def _compact_resume(context: Context, args: Args) -> Reply:
    context.upkeep.compaction.set_paused(False)
    return OK


def _compact_status(context: Context, args: Args) -> Reply:
    return context.upkeep.compaction.status()


def _bgsave(context: Context, args: Args) -> Reply:
    """BGSAVE [SCHEDULE]."""
    if len(args) > 2 or (len(args) == 2 and args[1].upper() != b"SCHEDULE"):
        raise CommandError(SYNTAX)
    if not context.upkeep.start_checkpoint():
        raise CommandError("ERR Background save already in progress")
    return Simple("Background saving started")


def _lastsave(context: Context, args: Args) -> Reply:
    """LASTSAVE."""
    return context.upkeep.last_save_s


def _shutdown(context: Context, args: Args) -> Reply:
    """SHUTDOWN [NOSAVE|SAVE] [NOW] [FORCE] [ABORT]: never answered; the connection ends."""
    words = {argument.upper() for argument in args[1:]}
    if not words <= {b"NOSAVE", b"SAVE", b"NOW", b"FORCE", b"ABORT"} or len(words) < len(args) - 1:
        raise CommandError(SYNTAX)
    if {b"SAVE", b"NOSAVE"} <= words or (b"ABORT" in words and len(words) > 1):
        raise CommandError(SYNTAX)
    if b"ABORT" in words:
        raise CommandError("ERR No shutdown in progress.")
    context.shut_down(save=b"SAVE" in words)
    return NO_REPLY


# -- the table -------------------------------------------------------------------------------------

_ADMIN: Final = "admin noscript loading stale"
_row: Final = partial(subcommand, group="server")

_CONFIG: Final = container(
    "config", "server", "Reads and changes the configuration while the server runs.",
    (
        _row("config|get", _config_get, -3, _ADMIN, since="2.0.0",
             summary="Gives the parameters whose names match.", complexity="O(N) for N parameters",
             args=(Arg("parameter", "pattern", multiple=True),)),
        _row("config|set", _config_set, -4, _ADMIN, since="2.0.0",
             summary="Sets parameters, all or none, until the server stops.",
             args=(Arg("parameter-value", "block", multiple=True,
                       parts=(Arg("parameter"), Arg("value"))),)),
        _row("config|resetstat", _config_resetstat, 2, _ADMIN, since="2.0.0",
             summary="Sets the counters that INFO shows to zero."),
        _row("config|rewrite", _config_rewrite, 2, _ADMIN, since="2.8.0",
             summary="Refused: no command writes configuration files.",
             support=Support.PARTIAL, note="Always refused."),
    ),
    since="2.0.0",
)  # fmt: skip

_COMPACTS: Final = "admin noscript no_multi"
_own: Final = partial(subcommand, group="marram", since="0.1.0", support=Support.OWN)

_COMPACT: Final = container(
    "compact", "marram",
    "Takes out of the tables what is of no use any more and answers when it is done; on the memory "
    "engine it makes a checkpoint.",
    (
        _own("compact|range", _compact_range, 4, _COMPACTS,
             summary="The same for keys from start to stop of the selected database; an empty one "
             "is no bound.",
             complexity="O(N) for N keys", args=(Arg("start"), Arg("stop"))),
        _own("compact|pause", _compact_pause, 2, _COMPACTS,
             summary="Cancels the compaction that runs and starts no further one."),
        _own("compact|resume", _compact_resume, 2, _COMPACTS, summary="Lets compactions go on."),
        _own("compact|status", _compact_status, 2, "admin noscript",
             summary="Says what runs, what is owed, and what was done."),
    ),
    since="0.1.0", bare=_compact, words=_COMPACTS, support=Support.OWN,
)  # fmt: skip

ROWS: Final[tuple[Command, ...]] = (
    Command(
        "info", _info, -1, flags("loading stale"), "server", "Describes the server in figures.",
        control=True, args=(Arg("section", optional=True, multiple=True),),
    ),
    _CONFIG,
    Command(
        "time", _time, 1, flags("loading stale fast random"), "server", "Gives the time.",
        since="2.6.0", control=True,
    ),
    Command(
        "randomkey", _randomkey, 1, flags("readonly random"), "generic",
        "Gives a key picked at random.", control=True,
    ),
    Command(
        "save", _save, 1, flags("admin noscript no_multi"), "server",
        "Makes a checkpoint and answers when it is done. Others are served meanwhile.",
        complexity="O(N) for N keys", control=True,
    ),
    Command(
        "bgsave", _bgsave, -1, flags("admin noscript"), "server",
        "Starts a checkpoint in the background.", control=True,
        args=(optional(word("SCHEDULE")),),
    ),
    Command(
        "lastsave", _lastsave, 1, flags("loading stale fast random"), "server",
        "Gives the time of the last checkpoint, seconds since 1970.", control=True,
    ),
    Command(
        "shutdown", _shutdown, -1, flags("admin noscript loading stale no_multi"), "server",
        "Syncs everything and stops the server; with SAVE it makes a checkpoint first.",
        control=True,
        args=(
            optional(one_of("save-selector", word("NOSAVE"), word("SAVE"))),
            optional(word("NOW")), optional(word("FORCE")), optional(word("ABORT")),
        ),
    ),
    Command(
        "checkpoint", _checkpoint, 1, flags("admin noscript no_multi"), "marram",
        "Makes a checkpoint and answers when it is done. Others are served meanwhile.",
        since="0.1.0", complexity="O(N) for N keys", control=True, support=Support.OWN,
    ),
    _COMPACT,
    Command(
        "backup", _backup, 2, flags("admin noscript no_multi"), "marram",
        "Copies the store as it is now to a new directory below the server's --backup-dir.",
        since="0.1.0", complexity="O(N) for N keys", control=True, support=Support.OWN,
        args=(Arg("name"),),
    ),
    Command(
        "verify", _verify, 1, flags("admin noscript no_multi"), "marram",
        "Reads every byte of the store's files and says what is wrong with them.",
        since="0.1.0", complexity="O(N) for N bytes", control=True, support=Support.OWN,
    ),
    *diagnostics.ROWS,
    *absent.ROWS,
)  # fmt: skip
