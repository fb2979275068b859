"""The interactive prompt: editing, history, completion, the hint below the line, colours.

Owns prompt_toolkit and rich; what is suggested is completion.py's, what is shown render.py's.

Threading: the shell's thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.lexers import Lexer
from prompt_toolkit.output import Output
from prompt_toolkit.styles import Style
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from marram.cli.completion import hint, is_known, suggest
from marram.cli.parse import BadLine
from marram.cli.render import value_text
from marram.cli.session import Session
from marram.cli.words import is_secret
from marram.env import posix_env

MAX_VALUE_CHARS = 2000
_MAX_CELL_CHARS = 300

_STYLE = Style.from_dict(
    {
        "prompt": "bold ansicyan",
        "note": "ansiyellow",
        "known": "bold",
        "unknown": "ansired",
        "bottom-toolbar": "noreverse",
        "bottom-toolbar.syntax": "",
        "bottom-toolbar.next": "bold underline",
        "bottom-toolbar.about": "italic",
    }
)


class _Completions(Completer):
    def __init__(self, session: Session) -> None:
        self._session = session

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        before = document.text_before_cursor
        for suggestion in suggest(before, self._session.seen):
            yield Completion(
                suggestion.text,
                start_position=suggestion.start - len(before),
                display_meta=suggestion.about,
            )


class _FirstWord(Lexer):
    """Shows whether the line begins with a word the shell knows."""

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        lines = document.lines

        def line(number: int) -> StyleAndTextTuples:
            text = lines[number]
            word = text.split(" ", 1)[0]
            if number or not word:
                return [("", text)]
            style = "class:known" if is_known(word) else "class:unknown"
            return [(style, word), ("", text[len(word) :])]

        return line


class _History(FileHistory):
    """The file of lines, without those that may hold a password."""

    def store_string(self, string: str) -> None:
        if not is_secret(string):
            super().store_string(string)


def history_path(environ: dict[str, str] | os._Environ[str]) -> str:
    """Where the history is kept: XDG's state directory."""
    state = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "marram", "history")


def open_history() -> History:
    """The history's file; in memory alone where it cannot be written."""
    path = history_path(os.environ)
    env = posix_env()
    try:
        env.make_dir(os.path.dirname(path))
        env.open(path, write=True, create=True).close()  # mode 0600
    except OSError:
        return InMemoryHistory()
    return _History(path)


class Prompt:
    """Asks for lines."""

    def __init__(
        self,
        session: Session,
        history: History,
        input_: Input | None = None,
        output: Output | None = None,
    ) -> None:
        """input_, output: where keys come from and the screen goes; the terminal by default."""
        self._session = session
        self._prompt: PromptSession[str] = PromptSession(
            history=history,
            auto_suggest=AutoSuggestFromHistory(),
            completer=_Completions(session),
            complete_while_typing=True,
            lexer=_FirstWord(),
            bottom_toolbar=self._toolbar,
            style=_STYLE,
            input=input_,
            output=output,
        )

    def ask(self) -> str:
        """The next line. Raises EOFError at the end, KeyboardInterrupt where it is given up."""
        return self._prompt.prompt(self._message)

    def _message(self) -> StyleAndTextTuples:
        session = self._session
        parts: StyleAndTextTuples = [("class:prompt", session.backend.label)]
        if session.keyspace:
            parts.append(("class:prompt", f"[{session.keyspace}]"))
        if session.in_transaction:
            parts.append(("class:note", " (transaction)"))
        return [*parts, ("class:prompt", "> ")]

    def _toolbar(self) -> StyleAndTextTuples:
        pieces, about = hint(self._prompt.default_buffer.document.text_before_cursor)
        if not pieces:
            return [("class:bottom-toolbar.about", "HELP lists the commands; Tab completes")]
        shown: StyleAndTextTuples = [
            ("class:bottom-toolbar." + ("next" if piece.expected else "syntax"), piece.text)
            for piece in pieces
        ]
        return [*shown, ("class:bottom-toolbar.about", f"  {about}")]


class TerminalPrinter:
    """Answers for a person: colours, tables, long values cut."""

    max_value_chars: int | None = MAX_VALUE_CHARS

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, markup=False, emoji=False)

    def lines(self, lines: Iterable[str]) -> None:
        """Lines of an answer."""
        for line in lines:
            self._print(line)

    def rows(self, pairs: Sequence[tuple[bytes, bytes]], note: str) -> None:
        """A table."""
        if not pairs:
            self._print("(empty)")
            return
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column("key", style="cyan", overflow="fold")
        table.add_column("value", overflow="fold")
        for key, value in pairs:
            cells = (value_text(data, _MAX_CELL_CHARS, inline=True) for data in (key, value))
            table.add_row(*map(Text, cells))
        self._console.print(table)
        count = "1 key" if len(pairs) == 1 else f"{len(pairs)} keys"
        self._print(f"{count}. {note}" if note else count, "dim")

    def error(self, message: str) -> None:
        """What went wrong, in red."""
        self._print(f"Error: {message}", "red")

    def bad_line(self, line: str, error: BadLine) -> None:
        """The line with a caret where it is wrong."""
        self._print(error.pointing(line), "red")

    def json(self, value: object) -> bool:
        """Not here."""
        return False

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)


def lines_of(prompt: Prompt) -> Iterator[str]:
    """Lines until the end of input; a line that is given up is skipped."""
    while True:
        try:
            yield prompt.ask()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def confirm(question: str) -> bool:
    """Ask on the terminal; anything but y or yes means no."""
    try:
        return input(question).strip().lower() in ("y", "yes")
    except (EOFError, KeyboardInterrupt):
        print()
        return False
