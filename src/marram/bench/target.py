"""Which server, and by which protocol: HOST:PORT, marram://, redis://, http:// or frame://.

Owns the schemes; the rest of a URL is client/url.py's, which also masks its password.

Threading: frozen values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from marram.client.url import SCHEME, Target, parse_address
from marram.errors import InvalidArgument

PROTOCOLS = ("resp", "http", "frame")

_SCHEMES = {  # scheme: protocol, default port
    "marram": ("resp", 7379),
    "redis": ("resp", 6379),
    "http": ("http", 7380),
    "frame": ("frame", 7381),
}
_PORT = re.compile(r":[0-9]+(?:/|$)")


@dataclass(frozen=True, slots=True)
class Place:
    """A server and the protocol to speak with it: one of PROTOCOLS."""

    protocol: str
    target: Target

    def __str__(self) -> str:
        """As a URL, the password masked."""
        scheme = "marram" if self.protocol == "resp" else self.protocol
        return str(self.target).replace(f"{SCHEME}://", f"{scheme}://", 1)


def parse_place(text: str, password: str = "") -> Place:
    """The place that a URL or HOST[:PORT] names, which is RESP's.

    password: where the URL has none. Raises InvalidArgument, without repeating a password.

    >>> parse_place("http://127.0.0.1").target.address
    '127.0.0.1:7380'
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Place("resp", parse_address(text, password=password))
    if scheme not in _SCHEMES:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise InvalidArgument(f"a load goes to HOST:PORT or one of {known}, not {scheme}://")
    protocol, port = _SCHEMES[scheme]
    target = parse_address(f"{SCHEME}://{rest}")
    if not _PORT.search(rest.rpartition("@")[2]):
        target = replace(target, port=port)
    if password and not target.password:
        target = replace(target, password=password)
    if target.keyspace and protocol != "resp":
        raise InvalidArgument(f"{scheme}:// reaches keyspace 0 alone")
    return Place(protocol, target)
