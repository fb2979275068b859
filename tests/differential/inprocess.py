"""marram's data handlers on a memory engine, without node, log or clock."""

from __future__ import annotations

from typing import Any

from marram.coding.batch import Change, decode, delete, encode
from marram.commands.scan import ScanCursors
from marram.commands.spec import WRONG_TYPE, Args, Command, CommandError, Outcome, wrong_arity
from marram.commands.table import lookup
from marram.protocol.replies import OK, ErrorReply
from marram.protocol.resp import encode as encode_reply
from marram.protocol.resp_client import ReplyParser
from marram.storage.entry import WrongType
from marram.storage.memory.engine import MemoryEngine
from marram.storage.view import View


class Settled:
    """A commit queue in which everything is committed."""

    unsettled = False
    last = 0

    def settles_at(self, key: bytes) -> int:
        """Nothing is pending."""
        return 0


class InProcess:
    """One client's session. `now_ms` is the clock: it stands unless it is set."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.engine = MemoryEngine()
        self.now_ms = now_ms
        self.cursors = ScanCursors()
        self.keyspace = 0
        self.changes: list[Change] = []  # of the last command
        self._sequence = 0
        self._views = [View(self.engine, Settled(), number) for number in range(16)]
        self._parser = ReplyParser()

    @property
    def view(self) -> View:
        """The session's keyspace."""
        return self._views[self.keyspace]

    def ask(self, *args: bytes) -> Any:
        """Run a command; the reply as a RESP2 client's parser gives it."""
        (reply,) = self._parser.feed(encode_reply(self.execute(list(args)), 2))
        return reply

    def execute(self, args: Args) -> Any:
        """Run a command; the reply as the handler gives it, refusals as ErrorReply."""
        self.changes = []
        try:
            return self._run(args)
        except CommandError as error:
            return ErrorReply(str(error))
        except WrongType:
            return ErrorReply(WRONG_TYPE)

    def _run(self, args: Args) -> Any:
        if args[0].upper() == b"SELECT":
            if len(args) != 2:
                raise wrong_arity("select")
            self.keyspace = int(args[1])
            return OK
        row = _row(args)
        view = self.view
        view.begin(self.now_ms)
        result = row.run(self if row.control else view, args)
        changes = [delete(keyspace, key) for keyspace, key in view.expired]
        if isinstance(result, Outcome):
            assert row.writes, f"{row.name} is not marked as writing"
            self.changes = result.changes
            changes += result.changes
            result = result.reply
        if changes:
            batch = encode(changes)
            assert decode(batch, 0, len(batch)) == changes
            self._sequence += 1
            self.engine.apply(changes, self._sequence)
        return result


def _row(args: Args) -> Command:
    row = lookup(args[0])
    if row is None:
        raise CommandError("ERR unknown command")
    if row.subcommands and len(args) > 1:
        name = f"{row.name}|{args[1].decode('latin-1').lower()}"
        found = [sub for sub in row.subcommands if sub.name == name]
        if not found:
            text = args[1].decode("latin-1")
            raise CommandError(f"ERR unknown subcommand '{text}'. Try {row.name.upper()} HELP.")
        row = found[0]
    if not row.accepts(len(args)):
        raise wrong_arity(row.name)
    return row
