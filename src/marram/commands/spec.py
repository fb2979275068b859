"""The row of the command table, and what a handler is.

Owns the shape of a row and of a handler's arguments and answer; the rows themselves are in the
family modules, collected by table.py.

Two kinds of handler:

  data      run(view, args) -> reply                     reads only
            run(view, args) -> Outcome(reply, changes)   writes: the node logs and applies changes
            run(view, args) -> Put(reply, ...)           writes one string
            Pure: no clock, no randomness (view.now_ms, and args are all there is), no I/O. Runs
            one at a time; sees every earlier write. It never sees its own changes applied.
  control   run(context, args) -> reply                  sessions, configuration, administration;
            `context` is commands.context.Context, which the node implements.

args[0] is the command's name as sent; arity has been checked. A handler refuses with CommandError,
whose text goes to the client as it is; it changes nothing then (P7).

Threading: rows are immutable after import; handlers run on whichever thread owns the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from marram import compiled
from marram.coding.batch import Change, put
from marram.errors import Error

Args = Sequence[bytes]

Reply = Any
"""A reply value, as protocol/replies.py lists them: bytes, int, None, list, dict, Simple, ..."""


class CommandError(Error):
    """A command is refused; the text is the error reply, its first word the code."""


class Outcome:
    """What a writing handler gives: the reply, and the changes to log and apply, in order."""

    __slots__ = ("changes", "reply")

    def __init__(self, reply: Reply, changes: list[Change]) -> None:
        self.reply = reply
        self.changes = changes


class Put:
    """The Outcome of a command that stores one string without a deadline: most of them do."""

    __slots__ = ("key", "keyspace", "reply", "value")

    def __init__(self, reply: Reply, keyspace: int, key: bytes, value: bytes) -> None:
        self.reply = reply
        self.keyspace = keyspace
        self.key = key
        self.value = value

    @property
    def changes(self) -> list[Change]:
        """As an Outcome's."""
        return [put(self.keyspace, self.key, self.value)]


class Support(Enum):
    """How much of Redis's command of that name there is; docs/protocols/resp.md says it."""

    FULL = "full"
    PARTIAL = "partial"
    OWN = "marram"  # Redis has no such command


@dataclass(frozen=True, slots=True)
class Arg:
    """One argument in a command's grammar, for COMMAND DOCS, hints and the document.

    type: Redis's: key, string, integer, double, pattern, unix-time, pure-token, oneof, block.
    token: the literal word before it, e.g. EX. parts: alternatives of oneof, members of block.
    """

    name: str
    type: str = "string"
    token: str | None = None
    optional: bool = False
    multiple: bool = False
    parts: tuple[Arg, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """One row.

    arity: as in Redis: exact count including the name, or minus the minimum.
    flags: Redis's words (write, readonly, denyoom, admin, pubsub, noscript, loading, stale, fast,
    no_auth, no_multi, ...). keys: (first, last, step), last -1 = to the end; (0, 0, 0) = none.
    group: Redis's group: string, generic, bitmap, transactions, pubsub, connection, server, marram.
    since: the Redis version it comes from, or marram's. note: what is partial, one sentence.
    """

    name: str
    run: Callable[..., Reply]
    arity: int
    flags: frozenset[str]
    group: str
    summary: str
    keys: tuple[int, int, int] = (0, 0, 0)
    since: str = "1.0.0"
    complexity: str = "O(1)"
    args: tuple[Arg, ...] = ()
    control: bool = False
    support: Support = Support.FULL
    note: str = ""
    subcommands: tuple[Command, ...] = ()
    find_keys: Callable[[Args], list[int]] | None = field(default=None)

    @property
    def writes(self) -> bool:
        """Whether it may change data."""
        return "write" in self.flags

    def accepts(self, count: int) -> bool:
        """Whether `count` arguments, the name included, fit the arity."""
        return count == self.arity if self.arity >= 0 else count >= -self.arity

    def key_indexes(self, args: Args) -> list[int]:
        """Where in args the keys are."""
        if self.find_keys is not None:
            return self.find_keys(args)
        first, last, step = self.keys
        if first == 0:
            return []
        stop = len(args) + last if last < 0 else last
        return list(range(first, min(stop, len(args) - 1) + 1, step))


def flags(words: str) -> frozenset[str]:
    """The flag set of a row from words: flags("write denyoom fast")."""
    return frozenset(words.split())


# -- refusals every family uses, in Redis's words -------------------------------------------------

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
NOT_AN_INTEGER = "ERR value is not an integer or out of range"
NOT_A_FLOAT = "ERR value is not a valid float"
SYNTAX = "ERR syntax error"
NO_SUCH_KEY = "ERR no such key"


def wrong_arity(name: str) -> CommandError:
    """The refusal of a call with too many or too few arguments; name in lower case."""
    return CommandError(f"ERR wrong number of arguments for '{name}' command")


_DIGITS_MAX = 20  # of a 64-bit integer, sign included


# Compiled, a few digits are read where they are; interpreted, int() is quicker than a loop.
_COMPILED = compiled.state() == "compiled"
_DIGITS_SHORT = 18
_NO_INTEGER = 10**18


def short_integer(text: bytes) -> int:
    """integer() of up to _DIGITS_SHORT bytes; _NO_INTEGER where it is none."""
    size = len(text)
    is_negative = size > 1 and text[0] == 45
    at = 1 if is_negative else 0
    if at == size or (text[at] == 48 and size > 1):
        return _NO_INTEGER
    number = 0
    while at < size:
        if not 48 <= text[at] <= 57:
            return _NO_INTEGER
        number = number * 10 + text[at] - 48
        at += 1
    return -number if is_negative else number


def integer(text: bytes, error: str = NOT_AN_INTEGER) -> int:
    """A signed 64-bit integer written the one canonical way. Raises CommandError(error)."""
    if _COMPILED and len(text) <= _DIGITS_SHORT:
        number = short_integer(text)
        if number == _NO_INTEGER:
            raise CommandError(error)
        return number
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or len(text) > _DIGITS_MAX or (digits[0] == 0x30 and text != b"0"):
        raise CommandError(error)
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise CommandError(error)
    return number
