"""serve: the server, with a flag for each of its options.

Owns how options become flags; the options are server/config.py's.

Threading: the main thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

import click

from marram.errors import InvalidArgument
from marram.server.config import OPTIONS, PORT, SWITCH, Option, load

_ALIASES: Final = {"replica_of": ("--backup-of",)}


def _flags(function: Callable[..., int]) -> Callable[..., int]:
    # click lists options in the order of decorators, the nearest first.
    for option in reversed(OPTIONS):
        name, text = option.name, _help(option)
        if option.kind is SWITCH:
            flag = f"{option.flag}/--no-{option.flag[2:]}"
            function = click.option(flag, name, default=None, help=text)(function)
        else:
            flags = (option.flag, *_ALIASES.get(name, ()))
            function = click.option(*flags, name, metavar=_metavar(option), help=text)(function)
    return function


def _metavar(option: Option) -> str:
    if option.choices:
        return "|".join(option.choices)
    if option.name == "replica_of":
        return "HOST:FRAMEPORT|none"
    if option.kind is PORT:
        return "PORT"
    return (option.unit or option.kind.name.split()[-1]).upper()


def _help(option: Option) -> str:
    text = option.help[:1].upper() + option.help[1:] + "."
    if option.secret or option.default in ("", ()):
        return text
    default = str(option.default).lower() if option.kind is SWITCH else option.default
    return f"{text} [{default}]"


@click.command()
@click.option("--config", "config_file", metavar="FILE", help="Options, as TOML [marram.toml].")
@_flags
def serve(config_file: str | None, **flags: Any) -> int:
    """Run the server.

    It speaks RESP (Redis's protocol), HTTP + JSON, and framed requests.

    Options come from, in ascending order of precedence: defaults, the file, the environment
    (MARRAM_RESP_PORT=...), flags. A port of 0 picks a free one, "off" disables the listener.
    """
    from marram.server.app import serve as run_server

    try:
        config = load(flags, os.environ, config_file)
    except InvalidArgument as error:
        raise click.UsageError(str(error)) from None
    return run_server(config)
