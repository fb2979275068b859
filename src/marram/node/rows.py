"""How a command's name becomes a row, and what is counted about each row.

Owns look-up, counters and the refusals of names that are not there; not the rows (commands/) and
not the checks (node.py).

R1  a name is found in any case. Only names of real commands enter the cache, so what clients
    invent costs no memory.
R2  a row is `plain` if the fast path may run it: a data handler whose one key is its first
    argument, and that takes constant time.

Threading: the thread that owns the node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from marram.commands.spec import Args, Command
from marram.protocol.replies import wire_to_text

_NAMES_CACHED_MAX: Final = 4096  # spellings such as "Get"; the commands have a few hundred
_ANY_NUMBER: Final = 1 << 62
_SHOWN_MAX: Final = 128  # bytes of a name, or of all arguments, that an error text quotes
_HISTOGRAM_BUCKETS: Final = 32

_PLAIN_KEYS: Final = (1, 1, 1)
_RUN_IN_MULTI: Final = {"multi", "exec", "discard", "watch", "quit", "reset"}
_IN_SUBSCRIBER_MODE: Final = {
    "subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ping", "quit", "reset",
}  # fmt: skip
_LOOKUPS: Final = {"get", "getex", "getdel", "mget"}


class Row:
    """One command or subcommand with what the pipeline needs to know, precomputed."""

    __slots__ = (
        "calls",
        "command",
        "control",
        "failed",
        "fast",
        "has_keys",
        "histogram_us",
        "least",
        "lookup",
        "may_be_plain",
        "may_write",
        "measured_to_end",
        "misses",
        "more_lookups",
        "most",
        "name",
        "no_auth",
        "no_multi",
        "plain",
        "rejected",
        "reveals",
        "run",
        "run_in_multi",
        "shown",
        "slow_logged",
        "subs",
        "subscriber_mode",
        "timed",
        "timed_calls",
        "usec",
        "writes",
    )

    def __init__(self, command: Command) -> None:
        words = command.flags
        self.command = command
        self.name = command.name
        self.run: Callable[[Any, Args], Any] = command.run
        self.control = command.control
        self.least = abs(command.arity)
        self.most = command.arity if command.arity >= 0 else _ANY_NUMBER
        self.writes = command.writes
        self.may_write = command.writes or command.name == "publish"  # what a pause of writes holds
        self.no_auth = "no_auth" in words
        self.no_multi = "no_multi" in words
        self.run_in_multi = command.name in _RUN_IN_MULTI
        self.subscriber_mode = command.name in _IN_SUBSCRIBER_MODE
        self.shown = "admin" not in words and "skip_monitor" not in words
        self.slow_logged = "skip_slowlog" not in words
        self.lookup = command.name in _LOOKUPS
        self.fast = "fast" in words or (not command.control and command.complexity == "O(1)")
        self.timed = not self.fast
        self.has_keys = command.keys[0] > 0 or command.find_keys is not None
        # Work in the background counts; waiting for others, or for a password check, does not.
        self.measured_to_end = "admin" in words
        self.subs = {row.name.partition("|")[2].encode(): Row(row) for row in command.subcommands}
        # Whether it reads or writes data: not so what is about the server, or the connection.
        self.reveals = (
            self.has_keys
            or not command.control
            or bool(words & {"write", "readonly"})
            or command.name.startswith("snapshot")
        )
        self.may_be_plain = (
            not command.control
            and not self.subs
            and not self.timed
            and command.keys == _PLAIN_KEYS
            and command.find_keys is None
        )
        self.plain = self.may_be_plain
        self.calls = self.misses = self.more_lookups = self.rejected = self.failed = 0
        self.timed_calls = self.usec = 0
        self.histogram_us: list[int] = []

    def count_misses(self, reply: Any) -> None:
        """Count what a look-up did not find; MGET's reply is many look-ups."""
        if reply is None:
            self.misses += 1
        elif reply.__class__ is list:
            self.misses += sum(value is None for value in reply)
            self.more_lookups += len(reply) - 1

    def record(self, elapsed_us: int) -> None:
        """Count a timed call."""
        self.timed_calls += 1
        self.usec += elapsed_us
        if not self.histogram_us:
            self.histogram_us = [0] * _HISTOGRAM_BUCKETS
        self.histogram_us[min(elapsed_us.bit_length(), _HISTOGRAM_BUCKETS - 1)] += 1

    def reset(self) -> None:
        """Set the counters to zero."""
        self.calls = self.misses = self.more_lookups = self.rejected = self.failed = 0
        self.timed_calls = self.usec = 0
        self.histogram_us = []


class Rows:
    """All rows, by every spelling seen so far."""

    def __init__(self, table: Iterable[Command]) -> None:
        self._rows = {command.name.encode(): Row(command) for command in table}
        # HOT: the node looks names up here itself.
        self.spellings: dict[bytes, Row] = dict(self._rows)
        self.spellings.update({name.upper(): row for name, row in self._rows.items()})

    def __iter__(self) -> Iterator[Command]:
        return (row.command for row in self._rows.values())

    def lookup(self, name: bytes) -> Command | None:
        """The command of a name, in any case."""
        row = self.find(name)
        return None if row is None else row.command

    def find(self, name: bytes) -> Row | None:
        """The row of a name, in any case (R1)."""
        row = self.spellings.get(name)
        if row is None:
            row = self._rows.get(name.lower())
            if row is not None and len(self.spellings) < _NAMES_CACHED_MAX:
                self.spellings[name] = row
        return row

    def guard_writes(self, guarded: bool) -> None:
        """Have commands that write checked in full, or no longer."""
        for row in self._rows.values():
            row.plain = row.may_be_plain and not (guarded and row.writes)

    def statistics(self) -> Iterator[Row]:
        """Every row that runs: containers give way to their subcommands."""
        for row in self._rows.values():
            if not row.subs or row.calls or row.rejected:
                yield row
            yield from row.subs.values()

    def total_calls(self) -> int:
        """Commands run so far."""
        return sum(row.calls for row in self.statistics())

    def lookups(self) -> tuple[int, int]:
        """(hits, misses) of the commands that read whole strings: GET and its kin, MGET's keys."""
        rows = [row for row in self._rows.values() if row.lookup]
        misses = sum(row.misses for row in rows)
        return sum(row.calls + row.more_lookups for row in rows) - misses, misses

    def reset(self) -> None:
        """Set all counters to zero."""
        for row in self._rows.values():
            row.reset()
            for sub in row.subs.values():
                sub.reset()


def unknown_command(args: Sequence[bytes]) -> str:
    """Redis's refusal of a name that is no command's, its arguments cut as Redis cuts them."""
    shown = ""
    for arg in args[1:]:
        room = _SHOWN_MAX - len(shown)
        if room <= 0:
            break
        shown += f"'{_c_string(arg, room)}' "
    name = _c_string(args[0], _SHOWN_MAX)
    return f"ERR unknown command '{name}', with args beginning with: {shown}"


def unknown_subcommand(args: Sequence[bytes]) -> str:
    """Redis's refusal of a subcommand that is not there."""
    container = _c_string(args[0], _SHOWN_MAX).upper()
    name = _c_string(args[1], _SHOWN_MAX)
    return f"ERR unknown subcommand '{name}'. Try {container} HELP."


def wrong_arity(name: str) -> str:
    """Redis's refusal of too few or too many arguments."""
    return f"ERR wrong number of arguments for '{name}' command"


def _c_string(text: bytes, limit: int) -> str:
    """As C prints it: up to the first zero byte, up to the limit; line ends become blanks."""
    shown = text[:limit].partition(b"\0")[0].replace(b"\r", b" ").replace(b"\n", b" ")
    return wire_to_text(shown)
