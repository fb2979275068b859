"""SNAPSHOT and COMMITAT: a read view that stays put, and optimistic transactions over it.

Owns their grammar and replies; pinning, and what counts as changed, is the store's.

A session opens a snapshot, reads from it in as many commands as it likes, and either closes it or
commits: COMMITAT applies its writes as one batch if nothing that it says it read has been written
since. Snapshots belong to their session and end with it.

H1  every answer from a snapshot is as of one position and one time, in the keyspace that was
    selected when it was opened.
H2  COMMITAT writes all or nothing, and only if no key it names in READS and no key of a range it
    names in RANGES was written since the snapshot. It ends the snapshot either way, unless its
    arguments are malformed.
H3  bounds are SCANRANGE's: a key, whatever its bytes; only "", which is no key, means "no bound".

Threading: control handlers (spec.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final, NamedTuple

from marram.coding.batch import TYPE_STRING, Change, delete, delete_range, put
from marram.commands.containers import container, subcommand
from marram.commands.context import Context, OpenSnapshot
from marram.commands.deadlines import MAX_MS, invalid
from marram.commands.grammar import KEY, KEYS, VALUE, block, one_of, optional, repeated, word
from marram.commands.spec import (
    SYNTAX,
    WRONG_TYPE,
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
from marram.storage.entry import Stored, entry_of, is_expired

DEFAULT_LIMIT: Final = 1000
MAX_LIMIT: Final = 100_000
MAX_ANSWER_BYTES: Final = 16 << 20
"""Where an answer of SNAPSHOT SCAN ends early, keys and values together."""
_SLICE: Final = 256  # keys looked at between two checks of the limits

NO_SNAPSHOT: Final = "ERR no such snapshot"
CONFLICT: Final = "CONFLICT something that was read has been written since the snapshot"

Range = tuple[bytes, bytes | None]


# -- SNAPSHOT --------------------------------------------------------------------------------------


def _open(context: Context, args: Args) -> Reply:
    """SNAPSHOT OPEN: [id, [epoch, sequence number]]."""
    snapshot_id = context.snapshots.open(context.session, context.now_ms)
    opened = _find(context, b"%d" % snapshot_id)
    return [snapshot_id, context.position(opened.pin.position)]


def _close(context: Context, args: Args) -> Reply:
    """SNAPSHOT CLOSE id."""
    if not context.snapshots.close(context.session, integer(args[2])):
        raise CommandError(NO_SNAPSHOT)
    return OK


def _get(context: Context, args: Args) -> Reply:
    """SNAPSHOT GET id key [key ...]: a list of values."""
    snapshot = _find(context, args[2])
    held = (snapshot.pin.get(snapshot.keyspace, key) for key in args[3:])
    return [
        None if value is None or is_expired(value, snapshot.now_ms) else _string(value)
        for value in held
    ]


def _scan(context: Context, args: Args) -> Reply:
    """SNAPSHOT SCAN id start stop [LIMIT n] [REV]: [cursor or null, [key, value, ...]].

    The cursor is the next call's start, with REV its stop; null at the end.
    """
    snapshot = _find(context, args[2])
    limit, reverse = _scan_options(args)
    start, stop = args[3], args[4] or None
    rows: list[bytes] = []
    left, size = limit, 0
    onward: bytes | None = None
    while left > 0 and size < MAX_ANSWER_BYTES:
        found, onward = snapshot.pin.chunk(
            snapshot.keyspace, start, stop, min(left, _SLICE), snapshot.now_ms, reverse=reverse
        )
        for key, held in found:
            if size >= MAX_ANSWER_BYTES:
                onward = rows[-2] if reverse else rows[-2] + b"\0"
                break
            value = _string(held)
            rows += (key, value)
            size += len(key) + len(value)
            left -= 1
        if onward is None:
            break
        if reverse:
            stop = onward
        else:
            start = onward
    return [onward, rows]


def _scan_options(args: Args) -> tuple[int, bool]:
    limit, reverse = DEFAULT_LIMIT, False
    words = iter(args[5:])
    for given in words:
        option = given.upper()
        if option == b"LIMIT":
            limit = integer(_next(words))
            if not 1 <= limit <= MAX_LIMIT:
                raise CommandError(f"ERR LIMIT must be between 1 and {MAX_LIMIT}")
        elif option == b"REV":
            reverse = True
        else:
            raise CommandError(SYNTAX)
    return limit, reverse


def _changed(context: Context, args: Args) -> Reply:
    """SNAPSHOT CHANGED id [READS n key ...] [RANGES n start stop ...]: 1 or 0."""
    snapshot = _find(context, args[2])
    at, read = _reads(args, 3)
    if at != len(args):
        raise CommandError(SYNTAX)
    keys = [args[index] for index in read.keys]
    return int(context.snapshots.changed_since(snapshot, keys, read.ranges))


# -- COMMITAT --------------------------------------------------------------------------------------


class _Read(NamedTuple):
    """What was read: indexes of the keys in the arguments, and ranges."""

    keys: list[int]
    ranges: list[Range]


class _Write(NamedTuple):
    """One write; the index is the key's, 0 for a range's."""

    at: int
    word: bytes
    operands: Args


def commitat(context: Context, args: Args) -> Reply:
    """COMMITAT id [READS n key ...] [RANGES n start stop ...]
    WRITES n [PUT key value deadline-ms | DEL key | DELRANGE start stop ...]: [epoch, sequence].

    `deadline-ms` is a time in ms since 1970, or 0 for none. Refused with CONFLICT (H2).
    """
    snapshot = _find(context, args[1])
    read, writes = _commit_parts(args)
    changes = [_change(snapshot.keyspace, write) for write in writes]
    keys = [args[index] for index in read.keys]
    conflict = context.snapshots.changed_since(snapshot, keys, read.ranges)
    context.snapshots.close(context.session, integer(args[1]))
    if conflict:
        raise CommandError(CONFLICT)
    if not changes:
        return context.position(snapshot.pin.position)
    return context.position(context.append(changes))


def _change(keyspace: int, write: _Write) -> Change:
    operands = write.operands
    if write.word == b"PUT":
        deadline_ms = integer(operands[2])
        if not 0 <= deadline_ms <= MAX_MS:
            raise invalid("commitat")
        return put(keyspace, operands[0], operands[1], deadline_ms)
    if write.word == b"DEL":
        return delete(keyspace, operands[0])
    return delete_range(keyspace, operands[0], operands[1] or None)


_OPERANDS: Final = {b"PUT": 3, b"DEL": 1, b"DELRANGE": 2}


def _commit_parts(args: Args) -> tuple[_Read, list[_Write]]:
    """What COMMITAT says it read and writes. Raises CommandError: malformed."""
    at, read = _reads(args, 2)
    if at >= len(args) or args[at].upper() != b"WRITES":
        raise CommandError(SYNTAX)
    count = _count(args, at + 1, least=2)
    at += 2
    writes: list[_Write] = []
    for _ in range(count):
        name = args[at].upper() if at < len(args) else b""
        if name not in _OPERANDS or at + _OPERANDS[name] >= len(args):
            raise CommandError(SYNTAX)
        operands = args[at + 1 : at + 1 + _OPERANDS[name]]
        writes.append(_Write(0 if name == b"DELRANGE" else at + 1, name, operands))
        at += 1 + _OPERANDS[name]
    if at != len(args):
        raise CommandError(SYNTAX)
    return read, writes


def _reads(args: Args, at: int) -> tuple[int, _Read]:
    """[READS n key ...] [RANGES n start stop ...] from `at` on, and where they end."""
    read = _Read([], [])
    if at < len(args) and args[at].upper() == b"READS":
        count = _count(args, at + 1, least=1)
        read.keys.extend(range(at + 2, at + 2 + count))
        at += 2 + count
    if at < len(args) and args[at].upper() == b"RANGES":
        count = _count(args, at + 1, least=2)
        at += 2
        for first in range(at, at + 2 * count, 2):
            read.ranges.append((args[first], args[first + 1] or None))
        at += 2 * count
    return at, read


def _count(args: Args, at: int, least: int) -> int:
    """How many items follow; each takes `least` arguments or more. Raises CommandError."""
    if at >= len(args):
        raise CommandError(SYNTAX)
    count = integer(args[at])
    if not 0 <= count <= (len(args) - at - 1) // least:
        raise CommandError(SYNTAX)
    return count


def _commit_keys(args: Args) -> list[int]:
    """Where COMMITAT's keys are; none where it is malformed, which running it will say."""
    try:
        read, writes = _commit_parts(args)
    except CommandError:
        return []
    return read.keys + [write.at for write in writes if write.at]


# -- private ---------------------------------------------------------------------------------------


def _find(context: Context, text: bytes) -> OpenSnapshot:
    """The session's snapshot; the reply waits until its position is committed."""
    snapshot = context.session.snapshots.get(integer(text))
    if snapshot is None:
        raise CommandError(NO_SNAPSHOT)
    context.depend_on(snapshot.pin.position)
    return snapshot


def _string(held: Stored) -> bytes:
    entry = entry_of(held)
    if entry.type != TYPE_STRING:
        raise CommandError(WRONG_TYPE)
    return entry.value


def _next(words: Iterator[bytes]) -> bytes:
    following = next(words, None)
    if following is None:
        raise CommandError(SYNTAX)
    return following


# -- the table -------------------------------------------------------------------------------------

_SINCE: Final = "0.1.0"
_ID: Final = Arg("id", "integer")
_START: Final = Arg("start")
_STOP: Final = Arg("stop")
_READ: Final = (
    optional(Arg("reads", "block", "READS", parts=(Arg("count", "integer"), KEYS))),
    optional(
        Arg(
            "ranges", "block", "RANGES",
            parts=(Arg("count", "integer"), repeated(block("range", _START, _STOP))),
        )
    ),
)  # fmt: skip
_WRITE: Final = one_of(
    "write",
    Arg("put", "block", "PUT", parts=(KEY, VALUE, Arg("deadline-ms", "unix-time"))),
    Arg("key", "key", "DEL"),
    Arg("delrange", "block", "DELRANGE", parts=(_START, _STOP)),
)
_row: Final = partial(
    subcommand, words="noscript no_multi", group="marram", since=_SINCE, support=Support.OWN
)

ROWS: Final[tuple[Command, ...]] = (
    container(
        "snapshot", "marram", "Read views of one position, which stay as they are.",
        (
            _row("snapshot|open", _open, 2,
                 summary="Opens a snapshot of the selected database; gives its id and position."),
            _row("snapshot|get", _get, -4, keys=(3, -1, 1),
                 summary="Gives the strings at several keys.",
                 complexity="O(N) for N keys", args=(_ID, KEYS)),
            _row("snapshot|scan", _scan, -5,
                 summary="Gives where to go on, and keys and values of a range, in key order.",
                 complexity="O(log(N)+M) for N keys held and M given",
                 args=(_ID, _START, _STOP, Arg("limit", "integer", "LIMIT", True),
                       optional(word("REV")))),
            _row("snapshot|changed", _changed, -3,
                 summary="Says whether keys or ranges were written since.",
                 complexity="O(N+M) for N keys and ranges and M keys written since",
                 args=(_ID, *_READ)),
            _row("snapshot|close", _close, 3, summary="Lets a snapshot go.", args=(_ID,)),
        ),
        since=_SINCE, support=Support.OWN,
    ),
    Command(
        "commitat", commitat, -4, flags("write denyoom noscript no_multi movablekeys"), "marram",
        "Writes a batch if nothing that was read has been written since a snapshot; ends it.",
        since=_SINCE, complexity="O(N+M) for N reads and writes and M keys written since",
        control=True, support=Support.OWN, find_keys=_commit_keys,
        args=(
            _ID, *_READ,
            Arg("writes", "block", "WRITES",
                parts=(Arg("count", "integer"), optional(repeated(_WRITE)))),
        ),
    ),
)  # fmt: skip
