"""marram's data handlers on an engine, without node or clock; on memory without a log, too."""

from __future__ import annotations

from typing import Any

from marram.coding.batch import Change, decode, delete, encode
from marram.commands.scan import ScanCursors
from marram.commands.spec import WRONG_TYPE, Args, Command, CommandError, Outcome, Put, wrong_arity
from marram.commands.table import lookup
from marram.env.memory import MemoryEnv
from marram.protocol.replies import OK, ErrorReply
from marram.protocol.resp import encode as encode_reply
from marram.protocol.resp_client import ReplyParser
from marram.storage.engine import Engine
from marram.storage.entry import WrongType
from marram.storage.memory.engine import MemoryEngine
from marram.storage.options import Options
from marram.storage.store import Store
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
        self.engine: Engine = MemoryEngine()
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
        if isinstance(result, Outcome | Put):
            assert row.writes, f"{row.name} is not marked as writing"
            self.changes = result.changes
            changes += result.changes
            result = result.reply
        if changes:
            batch = encode(changes)
            assert decode(batch, 0, len(batch)) == changes
            self._apply(changes)
        return result

    def _apply(self, changes: list[Change]) -> None:
        self._sequence += 1
        self.engine.apply(changes, self._sequence)

    def check(self) -> None:
        """Whether the engine's own structures agree."""
        for space in self.engine.spaces:
            space._check()  # type: ignore[attr-defined]


class InProcessOnLsm(InProcess):
    """The same on an lsm engine that is flushed after every `batches` batches."""

    def __init__(self, now_ms: int = 1_700_000_000_000, batches: int = 20) -> None:
        super().__init__(now_ms)
        self._machine = MemoryEnv()
        self._machine.advance(now_ms - self._machine.wall_ms())
        options = Options(engine="lsm", durability="none", memtable_bytes=4096)
        self._store = Store.open("/data", self._machine, options)
        self.engine = self._store.engine
        self._views = [View(self.engine, Settled(), number) for number in range(16)]
        self._batches = batches

    def _apply(self, changes: list[Change]) -> None:
        self._sequence = self._store.append(changes)
        if self._sequence % self._batches == 0:
            while (group := self._store.take_group()) is not None:
                group.write()
                self._store.complete(group, None)
            # Compactions drop what expired by the store's clock: so that is the command's.
            self._machine.advance(max(0, self.now_ms - self._store.now_ms()))
            self._store.checkpoint()
            self._machine.run_background()

    def check(self) -> None:
        """Its structures have tests of their own."""


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
