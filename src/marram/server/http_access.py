"""Who may talk to the HTTP API: the Host, Origin and Authorization of a request.

Owns these three checks; not what a request does. They defend against web pages that a user of this
machine visits (DNS rebinding, cross-site requests), and against those who lack the password.

A1  a request whose Host names neither this machine nor an allowed name is refused: a foreign page
    can make a browser connect here, but not make it lie about the name it was given.
A2  a password is compared by the node alone; what is kept here is a keyed digest of the last one
    that was right, and it dies with the password it was checked against.
A3  checks under way are bounded: a flood of wrong passwords costs refusals, not memory.

Threading: the event loop's.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
from typing import Any, Final

from starlette.requests import Request

from marram.node.deferred import Deferred
from marram.node.node import Node
from marram.protocol.replies import ErrorReply
from marram.server.config import ServerConfig
from marram.server.http_json import HttpError, bad_request

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/@\s]+)(?::\d{1,5})?")
_CHECKS_MAX: Final = 64


class Access:
    """The checks, with what they remember."""

    def __init__(self, node: Node, config: ServerConfig) -> None:
        self._node = node
        names = {name.lower() for name in config.allowed_hosts}
        self._any_host = "*" in names
        self._hosts = names | {"localhost", config.host.lower().strip("[]")}
        self._digest_key = node.env.random_bytes(32)
        self._right: tuple[str, bytes] | None = None  # (hash it was checked against, digest)
        self._checking = 0

    def check_host(self, request: Request) -> None:
        """Keeps A1. Raises HttpError."""
        given = request.headers.getlist("host")
        if not given and request.scope["http_version"] == "1.0":
            return  # no browser speaks it
        match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        if match is None:
            raise bad_request("a request names its host in one Host header")
        name = match[1].strip("[]").rstrip(".").lower()
        if self._any_host or name in self._hosts or name.endswith(".localhost"):
            return
        if _is_address(name):
            return  # only names can be rebound
        raise HttpError(
            421, "wrong_host", "this server does not answer to that Host; see --allowed-hosts"
        )

    def check_origin(self, request: Request) -> None:
        """Refuse a write that a page from elsewhere asked for. Raises HttpError."""
        origin = request.headers.get("origin")
        site = request.headers.get("sec-fetch-site", "none")
        foreign = origin is not None and origin.partition("://")[2] != request.headers.get("host")
        if foreign or site not in ("none", "same-origin"):
            raise HttpError(403, "cross_site", "writes from other sites' pages are refused")

    async def check_password(self, request: Request) -> None:
        """Keeps A2 and A3. Raises HttpError."""
        kept = self._node.settings.password_hash
        if not kept:
            return
        password = _credentials(request.headers.get("authorization"))
        if password is None:
            raise _unauthorized("this server wants a password (Basic or Bearer)")
        digest = hmac.digest(self._digest_key, password, hashlib.sha256)
        right = self._right
        if right is not None and right[0] == kept and hmac.compare_digest(right[1], digest):
            return
        if self._checking >= _CHECKS_MAX:
            raise HttpError(429, "too_many_logins", "too many logins at once; retry later")
        self._checking += 1
        try:
            refusal = await self._log_in(password)
        finally:
            self._checking -= 1
        if refusal is not None:
            raise _unauthorized(refusal)
        self._right = (kept, digest)

    async def _log_in(self, password: bytes) -> str | None:
        """Ask the node; the refusal, or None."""
        session = self._node.open_session("http", "http", lambda reply, position: None, _ignore)
        try:
            reply: Any = self._node.execute(session, [b"AUTH", password])
            if isinstance(reply, Deferred):
                reply = await settled(reply)
        finally:
            self._node.close_session(session)
        return reply.text if isinstance(reply, ErrorReply) else None


async def settled(deferred: Deferred) -> Any:
    """The reply of a deferred command, once it is there."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def done(reply: object) -> None:
        if not future.done():  # the request may have been cancelled
            future.set_result(reply)

    deferred.on_done(done)
    return await future


def _ignore() -> None:
    """Close: there is no connection to a session that lives for one command."""


def _unauthorized(message: str) -> HttpError:
    headers = {"WWW-Authenticate": 'Basic realm="marram", charset="UTF-8"'}
    return HttpError(401, "unauthorized", message, headers=headers)


def _credentials(header: str | None) -> bytes | None:
    """The password in an Authorization header, or None. The user's name does not matter."""
    if header is None:
        return None
    scheme, _, text = header.partition(" ")
    raw = text.strip().encode("latin-1")  # how the header's bytes became str
    if scheme.lower() == "bearer":
        return raw
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(raw, validate=True).partition(b":")[2]
    except binascii.Error:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
