"""Addresses of frame ports: "host:port", "[::1]:7381".

Owns the syntax. Threading: pure functions.
"""

from __future__ import annotations

from marram.errors import InvalidArgument


def split_address(text: str) -> tuple[str, int]:
    """Host and port. Raises InvalidArgument: it is no address.

    >>> split_address("[::1]:7381")
    ('::1', 7381)
    """
    host, _, port = text.rpartition(":")
    is_literal = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_literal else host
    if (
        not host
        or any(char.isspace() or not char.isprintable() for char in host)
        or (":" in host) != is_literal
        or not (port.isascii() and port.isdecimal() and len(port) <= 5)
        or not 0 < int(port) < 65536
    ):
        raise InvalidArgument(f"{text[:80]!r} is not HOST:PORT")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """The other way.

    >>> join_address("::1", 7381)
    '[::1]:7381'
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
