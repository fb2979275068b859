"""Passwords: kept as scrypt hashes, checked off the event loop.

Owns the hash's form and the order of checks; not who must log in.

W1  a password is held in memory only while it is being checked.
W2  a check costs the same whether the user exists and whether the password is right.
W3  one check runs at a time, so that a flood of logins costs one thread, not all memory.

Threading: hash_password() and matches() anywhere; Checker on the node's thread, its work in env's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from marram.env.api import Env
from marram.errors import InvalidArgument
from marram.node.loop import Loop

_logger = logging.getLogger("marram.node")

# 16 MiB and some 50 ms a check: what a login can bear.
_LOG2_N: Final = 14
_BLOCK: Final = 8
_PARALLEL: Final = 1
_MEMORY_MAX: Final = 64 << 20
SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32


def hash_password(password: bytes, salt: bytes) -> str:
    """The hash to keep: "scrypt$14$8$1$<salt>$<hash>", base64. salt: 16 random bytes."""
    if len(salt) != SALT_BYTES:
        raise InvalidArgument(f"a salt has {SALT_BYTES} bytes")
    digest = _scrypt(password, salt)
    parts = (base64.b64encode(part).decode("ascii") for part in (salt, digest))
    return "$".join(["scrypt", str(_LOG2_N), str(_BLOCK), str(_PARALLEL), *parts])


def matches(password: bytes, kept: str) -> bool:
    """Whether the password is the one that was hashed. Takes its time, always the same (W2).

    Raises InvalidArgument: `kept` is not a hash of ours.
    """
    try:
        name, log2_n, block, parallel, salt, digest = kept.split("$")
        wanted = base64.b64decode(digest, validate=True)
        salted = base64.b64decode(salt, validate=True)
    except ValueError:
        raise InvalidArgument("this is no password hash") from None
    if (name, log2_n, block, parallel) != ("scrypt", str(_LOG2_N), str(_BLOCK), str(_PARALLEL)):
        raise InvalidArgument("this password hash was made with other parameters")
    return hmac.compare_digest(_scrypt(password, salted), wanted)


def secret_of(kept: str) -> tuple[bytes, bytes]:
    """(how the digest of a kept hash is derived, the digest): what a replica's login is checked by.

    The first is "scrypt$14$8$1$<salt>": whoever knows the password can derive the second.
    """
    parameters, _, digest = kept.rpartition("$")
    return parameters.encode(), base64.b64decode(digest)


def digest_of(password: bytes, parameters: bytes) -> bytes:
    """The digest that secret_of() gives beside these parameters, if the password is right.

    Raises InvalidArgument: other costs than ours, which a stranger may not choose.
    """
    words = parameters.split(b"$")
    costs = [b"scrypt", b"%d" % _LOG2_N, b"%d" % _BLOCK, b"%d" % _PARALLEL]
    try:
        salt = base64.b64decode(words[-1], validate=True)
    except ValueError:
        salt = b""
    if words[:-1] != costs or len(salt) != SALT_BYTES:
        raise InvalidArgument("these are no parameters of a password hash of ours")
    return _scrypt(password, salt)


def _scrypt(password: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(
        password,
        salt=salt,
        n=1 << _LOG2_N,
        r=_BLOCK,
        p=_PARALLEL,
        maxmem=_MEMORY_MAX,
        dklen=_HASH_BYTES,
    )


class Checker:
    """Checks passwords one after the other in the background (W1, W3)."""

    def __init__(self, env: Env, loop: Loop) -> None:
        self._env = env
        self._loop = loop
        self._waiting: deque[tuple[bytes, str, Callable[[bool], None]]] = deque()
        self._busy = False

    def check(self, password: bytes, kept: str, answer: Callable[[bool], None]) -> None:
        """Call answer(right) on the node's thread once it is known."""
        self._waiting.append((password, kept, answer))
        if not self._busy:
            self._start()

    def _start(self) -> None:
        self._busy = True
        password, kept, answer = self._waiting.popleft()

        def work() -> None:
            try:
                right = matches(password, kept)
            except Exception:  # the thread's last line of defence: no answer would be worse
                _logger.exception("checking a password failed")
                right = False
            self._loop.call_soon_threadsafe(lambda: self._finish(answer, right))

        self._env.start("marram-password", work)

    def _finish(self, answer: Callable[[bool], None], right: bool) -> None:
        self._busy = False
        if self._waiting:
            self._start()
        answer(right)
