"""Commands on deadlines: EXPIRE and its kin, TTL and its kin, PERSIST.

Owns their handlers and rows; deadlines.py has the expiry options of SET. Replies and refusals are
Redis 7.0's.

X1  a change of a deadline logs the deadline alone, never the value.
X2  a deadline that has passed already removes the key.

Threading: pure handlers (spec.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from marram.coding.batch import delete, expire
from marram.commands.deadlines import MAX_MS, UNITS, Unit, invalid
from marram.commands.grammar import KEY, one_of, optional, word
from marram.commands.spec import (
    Arg,
    Args,
    Command,
    CommandError,
    Outcome,
    Reply,
    flags,
    integer,
)
from marram.storage.view import View

# -- setting -------------------------------------------------------------------------------------


def expire_in_s(view: View, args: Args) -> Reply:
    """EXPIRE key seconds [NX | XX | GT | LT]."""
    return _expire(view, args, UNITS[b"EX"], "expire")


def expire_in_ms(view: View, args: Args) -> Reply:
    """PEXPIRE key milliseconds [NX | XX | GT | LT]."""
    return _expire(view, args, UNITS[b"PX"], "pexpire")


def expire_at_s(view: View, args: Args) -> Reply:
    """EXPIREAT key unix-time-seconds [NX | XX | GT | LT]."""
    return _expire(view, args, UNITS[b"EXAT"], "expireat")


def expire_at_ms(view: View, args: Args) -> Reply:
    """PEXPIREAT key unix-time-milliseconds [NX | XX | GT | LT]."""
    return _expire(view, args, UNITS[b"PXAT"], "pexpireat")


_EXPIRE_OPTIONS: Final = frozenset((b"NX", b"XX", b"GT", b"LT"))


def _expire(view: View, args: Args, unit: Unit, name: str) -> Reply:
    options = _expire_options(args)
    count = integer(args[2]) * unit.ms
    at_ms = count + (view.now_ms if unit.relative else 0)
    if not -MAX_MS - 1 <= count <= MAX_MS or at_ms > MAX_MS:
        raise invalid(name)
    key = args[1]
    entry = view.entry(key)
    if entry is None or not _may_expire(options, entry.deadline_ms, at_ms):
        return 0
    if at_ms <= view.now_ms:
        return Outcome(1, [delete(view.keyspace, key)])
    return Outcome(1, [expire(view.keyspace, key, at_ms)])


def _expire_options(args: Args) -> frozenset[bytes]:
    options = frozenset(given.upper() for given in args[3:])
    for given in args[3:]:
        if given.upper() not in _EXPIRE_OPTIONS:
            text = given.decode("utf-8", "surrogateescape")
            raise CommandError(f"ERR Unsupported option {text}")
    if b"NX" in options and len(options) > 1:
        raise CommandError("ERR NX and XX, GT or LT options at the same time are not compatible")
    if b"GT" in options and b"LT" in options:
        raise CommandError("ERR GT and LT options at the same time are not compatible")
    return options


def _may_expire(options: frozenset[bytes], held_ms: int, at_ms: int) -> bool:
    """Whether the options let a deadline (0: none, which is later than any) be replaced."""
    if b"NX" in options:
        return not held_ms
    if b"XX" in options and not held_ms:
        return False
    if b"GT" in options:
        return bool(held_ms) and at_ms > held_ms
    if b"LT" in options:
        return not held_ms or at_ms < held_ms
    return True


def persist(view: View, args: Args) -> Reply:
    """PERSIST key: drops its deadline."""
    entry = view.entry(args[1])
    if entry is None or not entry.deadline_ms:
        return 0
    return Outcome(1, [expire(view.keyspace, args[1], 0)])


# -- asking ---------------------------------------------------------------------------------------


def ttl(view: View, args: Args) -> Reply:
    """TTL key: seconds left, rounded; -1 without a deadline, -2 without the key."""
    left_ms = pttl(view, args)
    return (left_ms + 500) // 1000 if left_ms >= 0 else left_ms


def pttl(view: View, args: Args) -> int:
    """PTTL key: milliseconds left; -1 without a deadline, -2 without the key."""
    entry = view.entry(args[1])
    if entry is None:
        return -2
    return entry.deadline_ms - view.now_ms if entry.deadline_ms else -1


def expiretime(view: View, args: Args) -> Reply:
    """EXPIRETIME key: the deadline, seconds since 1970, rounded; -1, -2 as TTL."""
    at_ms = pexpiretime(view, args)
    return (at_ms + 500) // 1000 if at_ms >= 0 else at_ms


def pexpiretime(view: View, args: Args) -> int:
    """PEXPIRETIME key: the deadline, ms since 1970; -1, -2 as PTTL."""
    entry = view.entry(args[1])
    if entry is None:
        return -2
    return entry.deadline_ms or -1


# -- rows ------------------------------------------------------------------------------------------

_ONE: Final = (1, 1, 1)
_EXPIRE_CONDITION: Final = optional(
    one_of("condition", word("NX"), word("XX"), word("GT"), word("LT"))
)


def _expiring(
    name: str, run: Callable[[View, Args], Reply], time: Arg, since: str, summary: str
) -> Command:
    """The row of one of the four EXPIREs."""
    return Command(
        name,
        run,
        -3,
        flags("write fast"),
        "generic",
        summary,
        keys=_ONE,
        since=since,
        args=(KEY, time, _EXPIRE_CONDITION),
        note="The options are those of 7.0; a time that has passed removes the key.",
    )


def _asking(name: str, run: Callable[[View, Args], Reply], since: str, summary: str) -> Command:
    """The row of a command that asks something of one key."""
    return Command(
        name,
        run,
        2,
        flags("readonly fast"),
        "generic",
        summary,
        keys=_ONE,
        since=since,
        args=(KEY,),
    )


ROWS: Final = (
    _expiring(
        "expire",
        expire_in_s,
        Arg("seconds", "integer"),
        "1.0.0",
        "Lets a key live for some seconds from now.",
    ),
    _expiring(
        "pexpire",
        expire_in_ms,
        Arg("milliseconds", "integer"),
        "2.6.0",
        "Lets a key live for some milliseconds from now.",
    ),
    _expiring(
        "expireat",
        expire_at_s,
        Arg("unix-time-seconds", "unix-time"),
        "1.2.0",
        "Lets a key live until a time in seconds.",
    ),
    _expiring(
        "pexpireat",
        expire_at_ms,
        Arg("unix-time-milliseconds", "unix-time"),
        "2.6.0",
        "Lets a key live until a time in milliseconds.",
    ),
    _asking("ttl", ttl, "1.0.0", "Gives how long a key still lives, seconds."),
    _asking("pttl", pttl, "2.6.0", "Gives how long a key still lives, milliseconds."),
    _asking("expiretime", expiretime, "7.0.0", "Gives the time a key lives until, seconds."),
    _asking("pexpiretime", pexpiretime, "7.0.0", "Gives the time a key lives until, milliseconds."),
    Command(
        "persist",
        persist,
        2,
        flags("write fast"),
        "generic",
        "Drops a key's deadline.",
        keys=_ONE,
        since="2.2.0",
        args=(KEY,),
    ),
)
