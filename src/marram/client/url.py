"""Where a server is: marram://[[user]:password@]host[:port][/keyspace].

Owns the syntax and what must not leak: str() and repr() of a target mask its password.

Threading: frozen values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from marram.coding.batch import KEYSPACES
from marram.errors import InvalidArgument

DEFAULT_PORT = 7379
SCHEME = "marram"

_URL = re.compile(
    r"marram://"
    r"(?:(?P<user>[^:@/]*):(?P<password>[^@/]*)@)?"
    r"(?:\[(?P<literal>[0-9A-Fa-f:.%]+)\]|(?P<host>[^\[\]:/@?#\s]+))"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?:/(?P<keyspace>[0-9]{1,3})?)?"
)
_ADDRESS = re.compile(
    r"(?:\[(?P<literal>[0-9A-Fa-f:.%]+)\]|(?P<host>[^\[\]:/@?#\s]+))(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True, slots=True)
class Target:
    """A server and what to say to it first."""

    host: str
    port: int = DEFAULT_PORT
    keyspace: int = 0
    user: str = ""
    password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise InvalidArgument(f"the port must be 1 .. 65535, not {self.port}")
        if not 0 <= self.keyspace < KEYSPACES:
            raise InvalidArgument(f"keyspace must be 0 .. {KEYSPACES - 1}, not {self.keyspace}")

    @property
    def address(self) -> str:
        """host:port, as people write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole URL, password included: for a new connection, not for a message."""
        return self._url(quote(self.password, safe=""))

    def __str__(self) -> str:
        return self._url("***" if self.password else "")

    def _url(self, password: str) -> str:
        login = f"{quote(self.user, safe='')}:{password}@" if self.user or password else ""
        keyspace = f"/{self.keyspace}" if self.keyspace else ""
        return f"{SCHEME}://{login}{self.address}{keyspace}"


def parse_url(url: str) -> Target:
    """The target of a URL. Raises InvalidArgument, without repeating a password.

    >>> parse_url("marram://:secret@db.example:7000/3")
    Target(host='db.example', port=7000, keyspace=3, user='')
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise InvalidArgument(
            "the URL is not marram://[:password@]host[:port][/keyspace]"
            + ("; write @ : / in a password as %40 %3A %2F" if url.count("@") > 1 else "")
        )
    return Target(
        match["literal"] or match["host"],
        int(match["port"] or DEFAULT_PORT),
        int(match["keyspace"] or 0),
        unquote(match["user"] or ""),
        unquote(match["password"] or ""),
    )


def parse_address(text: str, keyspace: int = 0, password: str = "") -> Target:
    """The target of HOST[:PORT], or of a URL. Raises InvalidArgument.

    >>> parse_address("[::1]:7000").address
    '[::1]:7000'
    """
    if "://" in text:
        return parse_url(text)
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"{text!r} is not HOST:PORT")
    port = int(match["port"] or DEFAULT_PORT)
    return Target(match["literal"] or match["host"], port, keyspace, password=password)
