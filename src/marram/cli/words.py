"""The words the shell knows: its own, and every command of the table.

Owns the shell's own words (PUT, DELETE, SCAN, STATS, HELP, QUIT), how they become commands of the
table, and looking words up; running them is session.py's.

D1  own words are translated into commands, so they mean the same on a directory and on a server.
D2  SCAN with a number first is Redis's, with anything else it is the shell's.

Threading: immutable values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import NamedTuple

from marram.commands.grammar import KEY, KEYS, VALUE, optional, word
from marram.commands.spec import Arg, Command
from marram.commands.table import TABLE
from marram.errors import InvalidArgument
from marram.storage.arguments import after_prefix


@dataclass(frozen=True, slots=True)
class Topic:
    """A word and what can be said about it. name: in capitals, "CONFIG GET" for a subcommand."""

    name: str
    args: tuple[Arg, ...]
    summary: str
    group: str
    complexity: str = ""
    since: str = ""
    note: str = ""
    command: Command | None = None
    subtopics: tuple[Topic, ...] = ()


_NUMBER = "integer"

OWN: tuple[Topic, ...] = (
    Topic(
        "PUT",
        (KEY, VALUE, Arg("seconds", _NUMBER, "TTL", optional=True)),
        "Sets a key to a value; SET has more options.",
        "shell",
    ),
    Topic("DELETE", (KEYS,), "Removes keys; missing ones are fine.", "shell"),
    Topic(
        "SCAN",
        (
            optional(Arg("prefix", "key")),
            optional(Arg("key", "key", "START")),
            optional(Arg("key", "key", "STOP")),
            optional(Arg("count", _NUMBER, "LIMIT")),
            optional(word("REVERSE")),
        ),
        "Shows keys and values in key order. A number first makes it Redis's SCAN.",
        "shell",
    ),
    Topic("STATS", (), "Shows figures about the store.", "shell"),
    Topic("HELP", (Arg("command", optional=True, multiple=True),), "Shows this help.", "shell"),
    Topic("QUIT", (), "Leaves the shell; EXIT and Ctrl-D do, too.", "shell"),
)

QUIT_WORDS = frozenset(("QUIT", "EXIT"))
DANGEROUS = {
    "FLUSHALL": "removes every key of every keyspace",
    "FLUSHDB": "removes every key of this keyspace",
    "SHUTDOWN": "stops the server",
}
"""Commands that ask first on a terminal, and what they do."""

SECRET = frozenset(("AUTH", "HELLO", "ACL"))
"""Commands whose lines are not kept in the history, CONFIG SET requirepass besides."""

DEFAULT_ROWS = 100
MAX_ROWS = 1_000_000


@cache
def topics() -> dict[str, Topic]:
    """Every word by name: the shell's own first, then the table's in their order."""
    found = {topic.name: topic for topic in OWN}
    for command in TABLE.values():
        topic = _topic(command)
        found.setdefault(topic.name, topic)
    return found


def _topic(command: Command) -> Topic:
    return Topic(
        command.name.replace("|", " ").upper(),
        command.args,
        command.summary,
        command.group,
        command.complexity,
        command.since,
        command.note,
        command,
        tuple(_topic(row) for row in command.subcommands),
    )


class Found(NamedTuple):
    """A topic, and how many of the words its name took."""

    topic: Topic
    words: int


def find(words: Sequence[str]) -> Found | None:
    """The topic that a line is about, its words in any case."""
    if not words:
        return None
    topic = topics().get(words[0].upper())
    if topic is None:
        return None
    if topic.name == "SCAN" and len(words) > 1 and words[1].isdigit():
        return Found(_topic(TABLE[b"scan"]), 1)  # D2
    if len(words) > 1:
        wanted = f"{topic.name} {words[1].upper()}"
        for subtopic in topic.subtopics:
            if subtopic.name == wanted:
                return Found(subtopic, 2)
    return Found(topic, 1)


def did_you_mean(name: str) -> str:
    """ " Did you mean X?", or nothing."""
    close = get_close_matches(name.upper(), topics(), n=1, cutoff=0.6)
    return f" Did you mean {close[0]}?" if close else ""


# -- own words as commands -------------------------------------------------------------------------


class Range(NamedTuple):
    """What the shell's SCAN shows."""

    start: bytes
    stop: bytes | None
    limit: int
    reverse: bool


def put_command(args: Sequence[bytes]) -> list[bytes]:
    """PUT key value [TTL seconds] as SET. Raises InvalidArgument."""
    if len(args) < 3:
        raise InvalidArgument("PUT takes a key and a value")
    if len(args) == 3:
        return [b"SET", args[1], args[2]]
    if len(args) == 5 and args[3].upper() in (b"TTL", b"EX"):
        return [b"SET", args[1], args[2], b"EX", args[4]]
    raise InvalidArgument("PUT takes a key and a value; put a value with blanks in quotes: 'a b'")


def delete_command(args: Sequence[bytes]) -> list[bytes]:
    """DELETE key ... as DEL. Raises InvalidArgument."""
    if len(args) < 2:
        raise InvalidArgument("DELETE takes a key")
    return [b"DEL", *args[1:]]


def scan_range(args: Sequence[bytes]) -> Range:
    """The range of the shell's SCAN. Raises InvalidArgument."""
    prefix, start, stop = b"", b"", None
    limit, reverse = DEFAULT_ROWS, False
    words = iter(args[1:])
    for index, given in enumerate(words):
        option = given.upper()
        if option == b"REVERSE":
            reverse = True
        elif option in (b"START", b"STOP", b"LIMIT", b"PREFIX"):
            operand = next(words, None)
            if operand is None:
                raise InvalidArgument(f"{option.decode()} is followed by a value")
            if option == b"START":
                start = operand
            elif option == b"STOP":
                stop = operand
            elif option == b"PREFIX":
                prefix = operand
            else:
                limit = _limit(operand)
        elif index == 0:
            prefix = given
        else:
            raise InvalidArgument("SCAN takes a prefix, START key, STOP key, LIMIT count, REVERSE")
    ends = [end for end in (stop, after_prefix(prefix)) if end is not None]
    return Range(max(prefix, start), min(ends, default=None), limit, reverse)


def _limit(text: bytes) -> int:
    if not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= MAX_ROWS:
        raise InvalidArgument(f"LIMIT is a whole number from 1 to {MAX_ROWS}")
    return int(text)


def is_secret(line: str) -> bool:
    """Whether a line may hold a password and stays out of the history."""
    words = line.upper().split()
    return bool(words) and (
        words[0] in SECRET
        or (words[:2] == ["CONFIG", "SET"] and any("PASS" in name for name in words[2::2]))
    )
