"""The click group: which commands there are, and how anything that goes wrong is told.

Owns the table of commands, loaded one by one when used, and the exit codes:

    0 success    1 failure    2 bad usage    130 interrupted

E1  an error is one line on stderr, and nothing of it on stdout.
E2  a person's mistake, a missing file or a lost server never shows a traceback.
E3  `marram get` loads neither an event loop nor a server.

Threading: the main thread.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword
from typing import Any

import click

from marram import __version__
from marram.errors import Error, Locked

_COMMANDS = {
    "serve": "serve",
    "shell": "shell",
    "get": "oneshot",
    "put": "oneshot",
    "delete": "oneshot",
    "scan": "oneshot",
    "stats": "upkeep",
    "checkpoint": "upkeep",
    "compact": "tables",
    "backup": "upkeep",
    "restore": "upkeep",
    "verify": "upkeep",
    "convert": "tables",
    "promote": "promote",
    "follow": "promote",
    "dump": "transfer",
    "load": "transfer",
    "import": "redis_import",
    "bench": "bench",
}
"""Commands by name, in the order help lists them, and the module of this package that has each."""

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class _Commands(click.Group):
    """The group; a command's module is imported when the command is asked for (E3)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return super().get_command(ctx, cmd_name)
        attribute = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        found = getattr(import_module(f"marram.cli.{module}"), attribute)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            close = get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not close:
                raise
            message = f"{error.format_message()} Did you mean {close[0]!r}?"
            raise click.UsageError(message, ctx) from None


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="%(version)s")
def marram() -> None:
    """A durable key/value store: a library, a server and these tools."""


@marram.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def version(as_json: bool) -> None:
    """Print the version, and whether the hot parts run compiled."""
    from marram.cli.options import print_json
    from marram.compiled import state

    python = sys.version.split()[0]
    if as_json:
        print_json({"version": __version__, "python": python, "leaves": state()})
    else:
        click.echo(f"marram {__version__} ({state()}, Python {python})")


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code."""
    try:
        result: Any = marram.main(list(arguments), prog_name="marram", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return EXIT_USAGE
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "marram"
        return _tell(f"{error.format_message()} (see '{command} --help')", EXIT_USAGE)
    except click.ClickException as error:
        return _tell(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has read enough; what is left must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # noqa: TID251 - no file
        return EXIT_FAILED
    except (Error, OSError) as error:
        return _tell(describe(error), EXIT_FAILED)
    return result if isinstance(result, int) else 0


def describe(error: Exception) -> str:
    """An error as one line, with what to do about it where that is known."""
    if isinstance(error, Locked) and error.owner_address:
        served = dict(part.partition("=")[::2] for part in error.owner_address.split())
        if "resp" in served:
            return f"{error}; talk to its owner with --connect {served['resp']}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _tell(message: str, code: int) -> int:
    line = " ".join(message.split())
    click.echo(f"Error: {line}", err=True)
    return code
