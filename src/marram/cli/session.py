"""The shell's session: a line in, its answer out.

Owns what a line does and how its answer is shown; not where lines come from (shell.py, prompt.py)
nor where commands run (backends.py).

P1  a line that fails says why and changes nothing else: the session goes on.
P2  on a terminal, a command that destroys a lot asks first.
P3  every answer is shown safely (render.py R1).

Threading: the shell's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from textwrap import wrap
from typing import Protocol

from marram.cli.backends import Backend
from marram.cli.completion import SeenKeys
from marram.cli.grammar import syntax_text
from marram.cli.parse import BadLine, Word, split
from marram.cli.render import line_text, plain, reply_lines, stats_lines
from marram.cli.words import (
    DANGEROUS,
    OWN,
    QUIT_WORDS,
    Topic,
    delete_command,
    did_you_mean,
    find,
    put_command,
    scan_range,
    topics,
)
from marram.client.figures import STATS_COMMAND, info_sections, store_figures
from marram.errors import Error, InvalidArgument
from marram.protocol.replies import (
    NO_REPLY,
    ErrorReply,
    Push,
    Reply,
    Simple,
    Verbatim,
    wire_to_text,
)

NOT_FOUND = "key not found"

_LISTENING = frozenset(("SUBSCRIBE", "PSUBSCRIBE", "MONITOR"))
_LISTS_KEYS = frozenset(("KEYS", "SCAN", "RANDOMKEY"))
_PAGE_ROWS = 1000
_HELP_COLUMNS = 98


class Printer(Protocol):
    """Where answers go."""

    max_value_chars: int | None

    def lines(self, lines: Iterable[str]) -> None:
        """Lines of an answer."""
        ...

    def rows(self, pairs: Sequence[tuple[bytes, bytes]], note: str) -> None:
        """Keys and values; note: what a reader should know about them, or ""."""
        ...

    def error(self, message: str) -> None:
        """What went wrong."""
        ...

    def bad_line(self, line: str, error: BadLine) -> None:
        """What is wrong with a line, and where."""
        ...

    def json(self, value: object) -> bool:
        """Print as JSON, where this printer does; whether it did."""
        ...


class Session:
    """One person's, or one script's, commands."""

    def __init__(
        self, backend: Backend, printer: Printer, confirm: Callable[[str], bool] | None = None
    ) -> None:
        """confirm: asks a question, says whether the answer was yes (P2); None: nobody to ask."""
        self.backend = backend
        self.finished = False
        self.in_transaction = False
        self.keyspace = 0
        self.seen = SeenKeys()
        self._printer = printer
        self._confirm = confirm
        backend.on_push = self._show_push

    def execute(self, line: str) -> bool:
        """Run a line; returns whether it went well (P1)."""
        try:
            words = split(line)
            if not words or words[0].value.startswith(b"#"):
                return True
            return self._run_words(words)
        except BadLine as error:
            self._printer.bad_line(line, error)
        except (Error, OSError) as error:
            self._printer.error(str(error) or type(error).__name__)
        return False

    # -- which word it is --------------------------------------------------------------------------

    def _run_words(self, words: list[Word]) -> bool:
        args = [word.value for word in words]
        name = wire_to_text(args[0]).upper()
        if name in QUIT_WORDS:
            self.finished = True
            return True
        if name in DANGEROUS and not self._is_sure(name):
            self._printer.error("nothing was done")
            return False
        if name == "HELP":
            return self._help([wire_to_text(arg) for arg in args[1:]])
        if name == "STATS" and len(args) == 1:
            return self._stats()
        if name == "SCAN" and not (len(args) > 1 and args[1].isdigit()):
            return self._scan(args)
        if name in _LISTENING:
            return self._listen(args)
        if name == "CLIENT" and [arg.upper() for arg in args[1:3]] in (
            [b"REPLY", b"OFF"],
            [b"REPLY", b"SKIP"],
        ):
            raise InvalidArgument("the shell needs its replies")
        if name == "PUT":
            args = put_command(args)
        elif name == "DELETE":
            return self._delete(args)
        return self._command(name, args)

    def _command(self, name: str, args: list[bytes]) -> bool:
        """A command of the table."""
        try:
            reply = self.backend.run(args)
        except Error:
            self.in_transaction = False  # it ended with the connection
            if name != "SHUTDOWN":
                raise
            self._printer.lines(["The server is stopping."])
            return True
        self._follow(name, args, reply)
        return self._show(name, args, reply)

    def _follow(self, name: str, args: list[bytes], reply: Reply) -> None:
        """Keep track of what the prompt shows and completion knows."""
        failed = isinstance(reply, ErrorReply)
        if name == "MULTI" and not failed:
            self.in_transaction = True
        elif name in ("EXEC", "DISCARD", "RESET"):
            self.in_transaction = False
        if name == "RESET" and not failed:
            self.keyspace = 0
            self.backend.selected(0)
        if name == "SELECT" and not failed and not self.in_transaction:
            self.keyspace = int(args[1])
            self.backend.selected(self.keyspace)
        found = find([wire_to_text(arg) for arg in args[:2]])
        if found is not None and found.topic.command is not None and not failed:
            self.seen.add(args[index] for index in found.topic.command.key_indexes(args))
        if name in _LISTS_KEYS:
            keys = reply[1] if name == "SCAN" and isinstance(reply, list) else reply
            self.seen.add(keys if isinstance(keys, list) else [keys])

    # -- the shell's own words ---------------------------------------------------------------------

    def _delete(self, args: list[bytes]) -> bool:
        reply = self.backend.run(delete_command(args))
        self.seen.add(args[1:])
        if not isinstance(reply, int) or self._printer.json(reply):
            return isinstance(reply, int) or self._show("DEL", args, reply)
        wanted = len(args) - 1
        missing = "there was no such key" if wanted == 1 else f"{reply} of {wanted} existed"
        self._printer.lines(["OK" if reply == wanted else f"OK ({missing})"])
        return True

    def _stats(self) -> bool:
        reply = self.backend.run(STATS_COMMAND)
        data = reply.data if isinstance(reply, Verbatim) else reply
        if not isinstance(data, bytes):
            return self._show("INFO", list(STATS_COMMAND), reply)
        figures = store_figures(info_sections(data))
        if not self._printer.json(figures):
            self._printer.lines(["Statistics:", *stats_lines(figures)])
        return True

    def _scan(self, args: list[bytes]) -> bool:
        wanted = scan_range(args)
        pairs: list[tuple[bytes, bytes]] = []
        start, stop = wanted.start, wanted.stop
        while len(pairs) <= wanted.limit and stop != b"" and (stop is None or start < stop):
            # One more than is shown tells whether there are more.
            count = min(_PAGE_ROWS, wanted.limit + 1 - len(pairs))
            command = [b"SCANRANGE", start, stop or b"", b"LIMIT", b"%d" % count]
            reply = self.backend.run([*command, b"REV"] if wanted.reverse else command)
            if not isinstance(reply, list):
                return self._show("SCANRANGE", args, reply)
            if not reply:
                break
            pairs += zip(reply[::2], reply[1::2], strict=True)
            if wanted.reverse:
                stop = pairs[-1][0]
            else:
                start = pairs[-1][0] + b"\0"
        more = len(pairs) > wanted.limit
        pairs = pairs[: wanted.limit]
        self.seen.add(key for key, _ in pairs)
        if not self._printer.json([{"key": plain(k), "value": plain(v)} for k, v in pairs]):
            note = f"The first {wanted.limit}; LIMIT shows more." if more else ""
            self._printer.rows(pairs, note)
        return True

    def _help(self, words: list[str]) -> bool:
        if not words:
            self._printer.lines(_overview())
            return True
        found = find(words)
        if found is None:
            group = [topic for topic in topics().values() if topic.group == words[0].lower()]
            if not group:
                self._printer.error(f"no help on {words[0]!r}.{did_you_mean(words[0])}")
                return False
            self._printer.lines(_brief(group))
            return True
        self._printer.lines(_about(found.topic))
        return True

    def _listen(self, args: list[bytes]) -> bool:
        try:
            for reply in self.backend.listen(args):
                if isinstance(reply, Push):
                    self._show_push(reply)
                elif not self._show("", args, reply):
                    return False
        except KeyboardInterrupt:
            self._printer.lines(["(no longer listening)"])
        return True

    def _is_sure(self, name: str) -> bool:
        if self._confirm is None:
            return True
        return self._confirm(f"{name} {DANGEROUS[name]}. Go on? [y/N] ")

    # -- showing -----------------------------------------------------------------------------------

    def _show(self, name: str, args: Sequence[bytes], reply: Reply) -> bool:
        if isinstance(reply, ErrorReply):
            self._printer.error(self._explain(reply.text, args))
            return False
        if reply is NO_REPLY:
            return True
        if reply is None and name == "GET":
            self._printer.error(NOT_FOUND)
            return False
        if not self._printer.json(plain(reply)):
            self._printer.lines(reply_lines(reply, self._printer.max_value_chars))
        return True

    def _show_push(self, push: Push) -> None:
        if isinstance(push, Push):
            shown: Reply = list(push.items)
        else:
            shown = push
        if isinstance(shown, Simple):
            self._printer.lines([line_text(shown.text)])
        elif not self._printer.json(plain(shown)):
            self._printer.lines(reply_lines(shown, self._printer.max_value_chars))

    def _explain(self, text: str, args: Sequence[bytes]) -> str:
        """An error's text with what helps: the nearest word, the right arguments."""
        message = text.removeprefix("ERR ")
        words = [wire_to_text(arg) for arg in args[:2]]
        if message.startswith("unknown command"):
            return f"unknown command {words[0]!r}.{did_you_mean(words[0])}"
        found = find(words)
        if found is not None and message.startswith(("wrong number of arguments", "syntax error")):
            return f"{message}; usage: {_usage(found.topic)}"
        return message


def _usage(topic: Topic) -> str:
    return f"{topic.name} {syntax_text(topic.args)}".rstrip()


def _about(topic: Topic) -> list[str]:
    lines = [_usage(topic), f"  {topic.summary}"]
    facts = {"since": topic.since, "complexity": topic.complexity, "group": topic.group}
    lines += [f"  {name}: {value}" for name, value in facts.items() if value]
    if topic.note:
        lines.append(f"  note: {topic.note}")
    lines += [f"  {_usage(subtopic)}: {subtopic.summary}" for subtopic in topic.subtopics]
    return lines


def _brief(group: Iterable[Topic]) -> list[str]:
    return [f"  {topic.name:<14} {topic.summary}" for topic in group]


def _overview() -> list[str]:
    lines = [f"  {_usage(topic):<58} {topic.summary}" for topic in OWN]
    groups: dict[str, list[str]] = {}
    for topic in topics().values():
        if topic.group != "shell":
            groups.setdefault(topic.group, []).append(topic.name)
    lines.append("")
    for group, names in groups.items():
        text = f"{group}: {' '.join(names)}"
        lines += wrap(text, _HELP_COLUMNS, initial_indent="  ", subsequent_indent="    ")
    return [*lines, "", '  HELP command or HELP group says more. Quotes: "a b", \'a b\', "\\xff".']
