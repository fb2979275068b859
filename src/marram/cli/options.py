"""Options that commands share: which store, how bytes are written, JSON.

Owns their spelling and what they open; not what a command does with it.

Threading: the main thread.
"""

from __future__ import annotations

import binascii
import os
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from marram.errors import InvalidArgument
from marram.storage.options import ENGINES

if TYPE_CHECKING:
    from marram.client.sync import RemoteDB
    from marram.client.url import Target
    from marram.storage.db import DB

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_DIR = "./data"
KEYSPACES = 16
ENGINE_IS_THE_SERVERS = "--engine is for a directory; a server has its engine already"


@dataclass(frozen=True, slots=True)
class Place:
    """Which keyspace of which store: one in a directory, or a server's.

    directory, address: one of them is None. address: HOST:PORT or a marram:// URL.
    """

    directory: str | None
    address: str | None
    keyspace: int
    password: str = ""

    def open(self, *, create: bool = False, engine: str | None = None) -> DB | RemoteDB:
        """Open it, or connect. create: make the store where the directory holds none.

        engine: of a store that is made, and what one that is there must have; None for any.
        """
        if self.directory is None:
            if engine is not None:
                raise click.UsageError(ENGINE_IS_THE_SERVERS)
            return self.connect()
        return self.open_directory(create=create, engine=engine).keyspace(self.keyspace)

    def open_directory(self, *, create: bool = False, engine: str | None = None) -> DB:
        """Open the store in the directory."""
        from marram.storage.db import open_db

        assert self.directory is not None
        return open_db(self.directory, create=create, engine=engine)

    def connect(self) -> RemoteDB:
        """Connect to the server."""
        from marram.client.sync import connect

        return connect(self.target().url)

    def target(self) -> Target:
        """The server. Raises click.BadParameter."""
        from marram.client.url import parse_address

        assert self.address is not None
        try:
            return parse_address(self.address, self.keyspace, self.password)
        except InvalidArgument as error:
            raise click.BadParameter(str(error), param_hint="'--connect'") from None


def place_options(function: Callable[Concatenate[Place, P], R]) -> Callable[..., R]:
    """Give a command --dir, --connect and --keyspace; it gets a Place as its first argument."""
    decorated = click.option(
        "-n", "--keyspace", type=click.IntRange(0, KEYSPACES - 1), default=0,
        help="Which of the 16 keyspaces [0].",
    )(_placed(function))  # fmt: skip
    return _connect_options(_directory_option(decorated))


def whole_place_options(function: Callable[Concatenate[Place, P], R]) -> Callable[..., R]:
    """place_options() for commands that are about all keyspaces."""
    return _connect_options(_directory_option(_placed(function)))


def directory_options(function: Callable[Concatenate[Place, P], R]) -> Callable[..., R]:
    """Give a command --dir alone; it gets a Place as its first argument."""
    return _directory_option(_placed(function))


def server_options(function: Callable[Concatenate[Place, P], R]) -> Callable[..., R]:
    """Give a command --connect, which has to be there; it gets a Place as its first argument."""

    @wraps(function)
    def wrapper(address: str, ask_password: bool, *args: P.args, **kwargs: P.kwargs) -> R:
        return function(make_place(None, address, 0, ask_password), *args, **kwargs)

    return _connect_options(wrapper, required=True)


def _placed(function: Callable[Concatenate[Place, P], R]) -> Callable[..., R]:
    @wraps(function)
    def wrapper(
        directory: str | None,
        address: str | None = None,
        keyspace: int = 0,
        ask_password: bool = False,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        place = make_place(directory, address, keyspace, ask_password)
        return function(place, *args, **kwargs)

    return wrapper


def _directory_option(function: Callable[..., R]) -> Callable[..., R]:
    return click.option(
        "--dir", "directory", metavar="DIR", help=f"The store's directory [{DEFAULT_DIR}]."
    )(function)


def _connect_options(function: Callable[..., R], *, required: bool = False) -> Callable[..., R]:
    which = "The server" if required else "A server instead"
    decorated = click.option(
        "--connect", "address", metavar="HOST:PORT", required=required,
        help=f"{which} (or a marram:// URL).",
    )(function)  # fmt: skip
    return click.option(
        "--ask-password", is_flag=True,
        help="Ask for the server's password; MARRAM_PASSWORD is used otherwise.",
    )(decorated)  # fmt: skip


def make_place(
    directory: str | None, address: str | None, keyspace: int = 0, ask_password: bool = False
) -> Place:
    """The place that the options name. Raises click.UsageError."""
    if address is None:
        if ask_password:
            raise click.UsageError("--ask-password goes with --connect")
        return Place(DEFAULT_DIR if directory is None else directory, None, keyspace)
    if directory is not None:
        raise click.UsageError("give --dir or --connect, not both")
    if ask_password:
        password = click.prompt("Password", hide_input=True, err=True)
    else:
        password = os.environ.get("MARRAM_PASSWORD", "")
    return Place(None, address, keyspace, password)


# -- bytes in and out ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Coding:
    """How bytes are written on the command line: as text, as hexadecimal or as base64."""

    name: str = "text"

    def read(self, given: str) -> bytes:
        """The bytes of an argument. Raises click.UsageError."""
        try:
            if self.name == "hex":
                return bytes.fromhex(given)
            if self.name == "base64":
                return b64decode(given, validate=True)
        except (ValueError, binascii.Error):
            raise click.UsageError(f"{given!r} is not {self.name}") from None
        return os.fsencode(given)

    def read_key(self, given: str) -> bytes:
        """read() of a key."""
        key = self.read(given)
        if not key:
            raise click.UsageError("the key is empty")
        return key

    def write(self, data: bytes) -> bytes:
        """What is printed for bytes."""
        if self.name == "hex":
            return data.hex().encode()
        return b64encode(data) if self.name == "base64" else data


def coding_options(function: Callable[..., R]) -> Callable[..., R]:
    """Give a command --hex and --base64, as `coding`."""

    @wraps(function)
    def wrapper(*args: Any, as_hex: bool, as_base64: bool, **kwargs: Any) -> R:
        if as_hex and as_base64:
            raise click.UsageError("give --hex or --base64, not both")
        coding = Coding("hex" if as_hex else "base64" if as_base64 else "text")
        return function(*args, coding=coding, **kwargs)

    decorated = click.option(
        "--base64", "as_base64", is_flag=True, help="Keys and values are base64, in and out."
    )(wrapper)
    return click.option(
        "--hex", "as_hex", is_flag=True, help="Keys and values are hexadecimal, in and out."
    )(decorated)


engine_option = click.option(
    "--engine", type=click.Choice(ENGINES), metavar="|".join(ENGINES),
    help="Where a new store keeps its map: in memory, or in sorted tables on disk [memory]. "
    "One that is there must be of this engine.",
)  # fmt: skip

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: Any) -> None:
    """One line of JSON on stdout, in UTF-8 whatever the locale."""
    from marram.storage.dump import json_text

    write_bytes(json_text(value).encode() + b"\n")


def write_bytes(data: bytes) -> None:
    """Bytes on stdout, as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
