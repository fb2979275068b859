"""Commands that Redis has not: ranges in key order, compare-and-set, conditional batches.

Owns SCANRANGE, CAS and COMMITIF: grammar, limits, handlers, rows.

R1  a bound of SCANRANGE is a key, whatever its bytes; only "", which is no key, means "no bound".
R2  an answer of SCANRANGE is empty only where the rest of the range is: a shorter one than LIMIT
    is not the end.
R3  CAS and COMMITIF change everything they name, or nothing.

Threading: pure handlers (spec.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from marram.coding.batch import Change, delete
from marram.commands.deadlines import MAX_MS, UNITS, deadline, invalid
from marram.commands.grammar import EXPIRY, KEY, VALUE, block, one_of, optional, repeated, word
from marram.commands.spec import (
    SYNTAX,
    Arg,
    Args,
    Command,
    CommandError,
    Outcome,
    Reply,
    Support,
    flags,
    integer,
)
from marram.commands.values import string_entry, write
from marram.storage.view import View

_DEFAULT_LIMIT: Final = 1000
_MAX_LIMIT: Final = 100_000
_MAX_ANSWER_BYTES: Final = 16 << 20
"""Where an answer of SCANRANGE ends early, keys and values together."""
_SLICE: Final = 256  # keys looked at between two checks of the limits


# -- SCANRANGE -------------------------------------------------------------------------------------


class _Range(NamedTuple):
    start: bytes
    stop: bytes | None
    limit: int
    reverse: bool
    keys_only: bool


def scanrange(view: View, args: Args) -> Reply:
    """SCANRANGE start stop [LIMIT n] [REV] [KEYS]: [key, value, ...] of [start, stop) in order.

    REV: the last come first; the bounds stay as they are. KEYS: the values are left out.
    The next page starts at the last key and a zero byte; with REV it stops at the last key.
    """
    asked = _range(args)
    found: list[bytes] = []
    start, stop = asked.start, asked.stop
    left = asked.limit
    size = 0
    while left > 0 and size < _MAX_ANSWER_BYTES:
        keys, onward = view.keys(start, stop, min(left, _SLICE), reverse=asked.reverse)
        for key in keys:
            if size >= _MAX_ANSWER_BYTES:
                break
            found.append(key)
            left -= 1
            size += len(key)
            if not asked.keys_only:
                value = view.string(key) or b""
                found.append(value)
                size += len(value)
        if onward is None:
            break
        if asked.reverse:
            stop = onward
        else:
            start = onward
    return found


def _range(args: Args) -> _Range:
    limit = _DEFAULT_LIMIT
    reverse = keys_only = False
    words = iter(args[3:])
    for given in words:
        option = given.upper()
        if option == b"LIMIT":
            limit = integer(_next(words))
            if not 1 <= limit <= _MAX_LIMIT:
                raise CommandError(f"ERR LIMIT must be between 1 and {_MAX_LIMIT}")
        elif option == b"REV":
            reverse = True
        elif option == b"KEYS":
            keys_only = True
        else:
            raise CommandError(SYNTAX)
    return _Range(args[1], args[2] or None, limit, reverse, keys_only)


def _next(words: Iterator[bytes]) -> bytes:
    """The following argument. Raises CommandError where there is none."""
    following = next(words, None)
    if following is None:
        raise CommandError(SYNTAX)
    return following


# -- CAS -------------------------------------------------------------------------------------------


def cas(view: View, args: Args) -> Reply:
    """CAS key expected new [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]: 1, or 0 and no change.

    Swaps the string at a key if it is `expected`; a missing key never is. As with SET the new
    value has no deadline unless one is given, or kept. The other cases have commands of their own:
    SET NX where the key must not exist, DELEX IFEQ to remove it, COMMITIF for several keys.
    """
    expiry = time = b""
    words = iter(args[4:])
    for given in words:
        option = given.upper()
        if expiry or not (option in UNITS or option == b"KEEPTTL"):
            raise CommandError(SYNTAX)
        expiry = option
        time = _next(words) if option in UNITS else b""
    at_ms = deadline(time, UNITS[expiry], view.now_ms, "cas") if expiry in UNITS else 0
    held = string_entry(view, args[1])
    if held is None or held.value != args[2]:
        return 0
    if expiry == b"KEEPTTL":
        at_ms = held.deadline_ms
    return Outcome(1, write(view, args[1], args[3], at_ms))


# -- COMMITIF --------------------------------------------------------------------------------------

_CHECKS: Final = {b"IFEQ": 2, b"IFNE": 2, b"IFXX": 1, b"IFNX": 1}
"""A check's word, and how many arguments it has beside the word."""
_WRITES: Final = {b"PUT": 3, b"DEL": 1}


class _Batch(NamedTuple):
    """COMMITIF taken apart; the indexes are those of the keys in the arguments."""

    checks: list[tuple[int, bytes, bytes]]  # index of the key, word, value or b""
    writes: list[tuple[int, bytes, bytes, int]]  # index of the key, word, value, deadline


def commitif(view: View, args: Args) -> Reply:
    """COMMITIF checks [key IFEQ value | key IFNE value | key IFXX | key IFNX ...]
    writes [PUT key value deadline-ms | DEL key ...]: 1, or 0 and no change.

    If all checks hold, all writes are made, in order, as one batch. IFEQ wants the key to hold the
    value, IFNE not to (a missing key does not), IFXX to exist, IFNX not to. `deadline-ms` is a time
    in ms since 1970, or 0 for none.
    """
    batch = _batch(args)
    if not all(_holds(view, args[at], name, value) for at, name, value in batch.checks):
        return 0
    changes: list[Change] = []
    for at, name, value, at_ms in batch.writes:
        if name == b"PUT":
            changes += write(view, args[at], value, at_ms)
        else:
            changes.append(delete(view.keyspace, args[at]))
    return Outcome(1, changes)


def _holds(view: View, key: bytes, name: bytes, value: bytes) -> bool:
    if name in (b"IFXX", b"IFNX"):
        return view.exists(key) == (name == b"IFXX")
    return (view.string(key) == value) == (name == b"IFEQ")


def _batch(args: Args) -> _Batch:
    """Raises CommandError: the counts and what follows do not fit."""
    batch = _Batch([], [])
    at = 2
    for _ in range(_count(args, 1, least=2)):
        name = _word(args, at + 1, at, _CHECKS)
        batch.checks.append((at, name, args[at + 2] if _CHECKS[name] == 2 else b""))
        at += 1 + _CHECKS[name]
    writes_at = at
    at += 1
    for _ in range(_count(args, writes_at, least=2)):
        name = _word(args, at, at, _WRITES)
        if name == b"PUT":
            at_ms = integer(args[at + 3])
            if not 0 <= at_ms <= MAX_MS:
                raise invalid("commitif")
            batch.writes.append((at + 1, name, args[at + 2], at_ms))
        else:
            batch.writes.append((at + 1, name, b"", 0))
        at += 1 + _WRITES[name]
    if at != len(args):
        raise CommandError(SYNTAX)
    return batch


def _count(args: Args, at: int, least: int) -> int:
    """How many items follow; each takes `least` arguments or more. Raises CommandError."""
    if at >= len(args):
        raise CommandError(SYNTAX)
    count = integer(args[at])
    if not 0 <= count <= (len(args) - at) // least:
        raise CommandError(SYNTAX)
    return count


def _word(args: Args, at: int, start: int, known: dict[bytes, int]) -> bytes:
    """The word of an item that starts at `start`; all of the item is there. Raises CommandError."""
    name = args[at].upper() if at < len(args) else b""
    if name not in known or start + known[name] >= len(args):
        raise CommandError(SYNTAX)
    return name


def _commitif_keys(args: Args) -> list[int]:
    """Where COMMITIF's keys are; none where it is malformed, which running it will say."""
    try:
        batch = _batch(args)
    except CommandError:
        return []
    return [check[0] for check in batch.checks] + [write[0] for write in batch.writes]


# -- rows ------------------------------------------------------------------------------------------

_SINCE: Final = "0.1.0"
_CHECK: Final = block(
    "check",
    KEY,
    one_of(
        "condition",
        Arg("comparison-value", token="IFEQ"),
        Arg("comparison-value", token="IFNE"),
        word("IFXX"),
        word("IFNX"),
    ),
)
_WRITE: Final = one_of(
    "write",
    Arg("put", "block", "PUT", parts=(KEY, VALUE, Arg("deadline-ms", "unix-time"))),
    Arg("key", "key", "DEL"),
)

ROWS: Final = (
    Command(
        "scanrange",
        scanrange,
        -3,
        flags("readonly"),
        "marram",
        "Gives keys and values of a range, in key order.",
        since=_SINCE,
        complexity="O(log(N)+M) for N keys held and M given",
        args=(
            Arg("start"),
            Arg("stop"),
            optional(Arg("limit", "integer", "LIMIT")),
            optional(word("REV")),
            optional(word("KEYS")),
        ),
        support=Support.OWN,
        note='"" as a bound means none. Only an empty answer is the end of the range.',
    ),
    Command(
        "cas",
        cas,
        -4,
        flags("write denyoom fast"),
        "marram",
        "Replaces a string if it is the one expected.",
        keys=(1, 1, 1),
        since=_SINCE,
        args=(
            KEY,
            Arg("expected"),
            Arg("new"),
            optional(one_of("expiration", *EXPIRY, word("KEEPTTL"))),
        ),
        support=Support.OWN,
    ),
    Command(
        "commitif",
        commitif,
        -3,
        flags("write denyoom movablekeys"),
        "marram",
        "Checks several keys and, if all are as expected, writes a batch.",
        since=_SINCE,
        complexity="O(N) for N checks and writes",
        args=(
            Arg("num-checks", "integer"),
            optional(repeated(_CHECK)),
            Arg("num-writes", "integer"),
            optional(repeated(_WRITE)),
        ),
        support=Support.OWN,
        find_keys=_commitif_keys,
    ),
)
