"""shell: commands typed by a person, piped in, or given with -c.

Owns the three ways and their exit codes; what a line does is session.py's.

    on a terminal   prompt.py's editing; errors in red; leaves with exit code 0
    piped           one line, one answer, errors among the answers; exit code 0
    -c "COMMAND"    one command; an error goes to stderr and makes the exit code 1

Threading: the main thread.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from marram.cli.options import (
    ENGINE_IS_THE_SERVERS,
    Place,
    engine_option,
    json_option,
    place_options,
    print_json,
)
from marram.cli.parse import BadLine, quote
from marram.cli.session import Session

if TYPE_CHECKING:
    from marram.cli.backends import Backend

EXIT_FAILED = 1


class PlainPrinter:
    """Answers for programs and files: text, nothing cut."""

    max_value_chars: int | None = None

    def __init__(self, *, as_json: bool, errors_to_stderr: bool) -> None:
        self._as_json = as_json
        self._errors_to_stderr = errors_to_stderr

    def lines(self, lines: Iterable[str]) -> None:
        """Lines of an answer."""
        for line in lines:
            click.echo(line)

    def rows(self, pairs: Sequence[tuple[bytes, bytes]], note: str) -> None:
        """A line each: the key, a tab, the value."""
        for key, value in pairs:
            click.echo(f"{quote(key)}\t{quote(value)}")
        if note:
            click.echo(note, err=True)

    def error(self, message: str) -> None:
        """One line."""
        click.echo(f"Error: {' '.join(message.split())}", err=self._errors_to_stderr)

    def bad_line(self, line: str, error: BadLine) -> None:
        """One line, with the column."""
        self.error(f"{error} (column {error.column + 1})")

    def json(self, value: object) -> bool:
        """Print JSON where --json was given."""
        if self._as_json:
            print_json(value)
        return self._as_json


@click.command()
@place_options
@json_option
@click.option("--no-create", is_flag=True, help="Fail where the directory holds no store.")
@engine_option
@click.option("-c", "--command", metavar="COMMAND", help="Run one command and exit.")
def shell(
    place: Place, as_json: bool, no_create: bool, engine: str | None, command: str | None
) -> int:
    """Type commands, or pipe them in.

    PUT GET DELETE SCAN STATS CHECKPOINT HELP QUIT, and every command of Redis's that marram has.

    Words are separated by blanks and taken literally; quotes matter at the start of a word only:
    "a b\\n\\xff" or 'a b'.
    """
    from marram.cli.backends import Embedded, Remote

    if place.directory is None:
        if engine is not None:
            raise click.UsageError(ENGINE_IS_THE_SERVERS)
        backend: Embedded | Remote = Remote(place.target())
    else:
        backend = Embedded(place.directory, place.keyspace, create=not no_create, engine=engine)
    try:
        if command is not None:
            return _run_one(backend, command, as_json=as_json)
        if sys.stdin.isatty() and sys.stdout.isatty() and not as_json:
            _talk(backend, place.keyspace)
        else:
            _run_piped(backend, as_json=as_json)
    finally:
        backend.close()
    return 0


def _run_one(backend: Backend, command: str, *, as_json: bool) -> int:
    session = Session(backend, PlainPrinter(as_json=as_json, errors_to_stderr=True))
    return 0 if session.execute(command) else EXIT_FAILED


def _run_piped(backend: Backend, *, as_json: bool) -> None:
    session = Session(backend, PlainPrinter(as_json=as_json, errors_to_stderr=False))
    for line in _lines(sys.stdin.buffer):
        session.execute(line)
        sys.stdout.flush()
        if session.finished:
            click.echo(backend.goodbye)
            return


def _lines(source: Iterable[bytes]) -> Iterator[str]:
    for line in source:
        yield line.decode("utf-8", "surrogateescape")


def _talk(backend: Backend, keyspace: int) -> None:
    from marram.cli import prompt

    printer = prompt.TerminalPrinter()
    session = Session(backend, printer, prompt.confirm)
    session.keyspace = keyspace
    printer.lines(["HELP lists the commands, QUIT leaves."])
    for line in prompt.lines_of(prompt.Prompt(session, prompt.open_history())):
        try:
            session.execute(line)
        except KeyboardInterrupt:
            printer.error("interrupted; the command may or may not have been done")
        if session.finished:
            break
    printer.lines([backend.goodbye])
