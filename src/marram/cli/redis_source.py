"""A Redis to copy from: its URL, one connection, and the few commands that copying takes.

Owns addresses, TLS, passwords, the exchange of bytes and the shape of answers; not what is copied
to where (redis_import.py). Redis 2.8 and newer, what speaks like it, and marram: the protocol is
RESP2, without HELLO.

S1  requests go out while replies come in: two full buffers cannot lock both sides up.
S2  a key's length, value and time to live are of one moment: each key is read in a transaction.
S3  an answer of the wrong shape is an error, never a wrong value; no message repeats a password.

Threading: one thread.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from marram.cli.render import line_text
from marram.errors import ConnectionLost, InvalidArgument, ProtocolError, ServerError
from marram.protocol.replies import ErrorReply, Reply, Simple
from marram.protocol.resp_client import ReplyParser, encode_command

DEFAULT_PORT = 6379
MAX_VALUE_BYTES = 512 << 20
"""A longer value is refused by the parser: Redis itself has none, unless it was told to."""

_CONNECT_TIMEOUT_S = 10.0
_SILENCE_S = 60.0  # a Redis that runs a slow script or loads its data may well be mute for long
_PIECE_BYTES = 256 << 10
_PLAIN, _TLS, _UNIX = ("redis", "valkey"), ("rediss", "valkeys"), ("unix",)
_NUMBER = re.compile("[0-9]{1,9}")
_FORMS = "redis://, rediss:// or unix://, as in redis://[[user]:password@]host[:port][/database]"
_WAIT = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """Where a Redis is.

    path: of a socket file, or "" for host and port. database: None where the URL names none.
    """

    host: str = "localhost"
    port: int = DEFAULT_PORT
    path: str = ""
    tls: bool = False
    database: int | None = None
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def address(self) -> str:
        """host:port or the path, as people write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path or f"{host}:{self.port}"


def parse_redis_url(text: str) -> RedisUrl:
    """What a URL says. Raises InvalidArgument, without repeating a password (S3).

    >>> parse_redis_url("rediss://:secret@db.example/3")
    RedisUrl(host='db.example', port=6379, path='', tls=True, database=3, user='')
    >>> parse_redis_url("unix:///run/redis.sock?db=1").address
    '/run/redis.sock'
    """
    try:
        parts = urlsplit(text)
        port = parts.port
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True))
    except ValueError:
        raise InvalidArgument(_malformed(text)) from None
    if "://" not in text or parts.scheme not in (*_PLAIN, *_TLS, *_UNIX):
        raise InvalidArgument(f"the URL starts with {_FORMS}")
    is_path = parts.scheme in _UNIX
    named = [query.pop("db")] if "db" in query else []
    if not is_path and parts.path not in ("", "/"):
        named.append(parts.path[1:])
    if parts.fragment or query or len(named) > 1 or not all(map(_NUMBER.fullmatch, named)):
        raise InvalidArgument(_malformed(text))
    if is_path and (parts.hostname or len(parts.path) < 2):
        raise InvalidArgument("a socket's URL is unix:///path/of/the/socket")
    return RedisUrl(
        host=parts.hostname or "localhost",
        port=DEFAULT_PORT if port is None else port,
        path=unquote(parts.path) if is_path else "",
        tls=parts.scheme in _TLS,
        database=int(named[0]) if named else None,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
    )


def _malformed(text: str) -> str:
    hint = "; write @ : / ? # in a password as %40 %3A %2F %3F %23" if "@" in text else ""
    return f"the URL is not {_FORMS}{hint}"


@dataclass(frozen=True, slots=True)
class Tls:
    """How a server proves itself, and this side to it. Paths of PEM files, or None.

    cacert_file: who is trusted, instead of the system's authorities; insecure: anybody is.
    """

    cacert_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    insecure: bool = False

    def context(self) -> ssl.SSLContext:
        """For a connection. Raises InvalidArgument: a file is not what it should be."""
        try:
            context = ssl.create_default_context(cafile=self.cacert_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:
            raise InvalidArgument(f"a certificate or key is of no use: {_reason(error)}") from error
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class Read(NamedTuple):
    """A string at one moment. value: its first bytes, all where they are size_bytes.

    left_ms: to live; -1 for ever, -2 there is no such key.
    """

    size_bytes: int
    left_ms: int
    value: bytes


class RedisSource:
    """A connection. Every method raises ConnectionLost, ProtocolError and ServerError."""

    def __init__(self, url: RedisUrl, tls: Tls) -> None:
        """Connect, and log in where the URL has a password. Raises InvalidArgument: see Tls."""
        self.address = url.address
        self._hint = "" if url.tls else "; if it wants TLS, write rediss://"
        self._heard = False
        self._parser = ReplyParser()
        self._socket = self._connected(url, tls)
        try:
            self._socket.setblocking(False)
            self._poll = select.poll()
            if url.password:
                user = [url.user.encode()] if url.user else []
                self._ask(b"AUTH", *user, url.password.encode())
            # A courtesy to whoever reads CLIENT LIST there; old or guarded servers may decline.
            self._exchange([(b"CLIENT", b"SETNAME", b"marram-import")])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._socket.close()

    # -- commands ----------------------------------------------------------------------------------

    def info(self) -> dict[str, str] | None:
        """INFO, all fields of all sections; None where this user may not ask for it."""
        (reply,) = self._exchange([(b"INFO",)])
        if isinstance(reply, ErrorReply) and reply.code == "NOPERM":
            return None
        text = self._bytes(reply, b"INFO").decode("utf-8", "replace")
        pairs = (line.partition(":") for line in text.splitlines())
        return {name: value for name, colon, value in pairs if colon}

    def select(self, database: int) -> int | None:
        """SELECT; how many keys it has, or None where this user may not ask for that."""
        self._ask(b"SELECT", b"%d" % database)
        (size,) = self._exchange([(b"DBSIZE",)])
        return size if isinstance(size, int) else None

    def scan(self, cursor: bytes, pattern: bytes | None, count: int) -> tuple[bytes, list[bytes]]:
        """SCAN: the next cursor, b"0" at the end, and some keys."""
        match = [] if pattern is None else [b"MATCH", pattern]
        reply = self._ask(b"SCAN", cursor, *match, b"COUNT", b"%d" % count)
        if isinstance(reply, list) and len(reply) == 2 and isinstance(reply[1], list):
            return self._bytes(reply[0], b"SCAN"), [self._bytes(key, b"SCAN") for key in reply[1]]
        raise self._odd(b"SCAN", reply)

    def types(self, keys: Sequence[bytes]) -> list[str]:
        """TYPE of each key; "none" where there is no such key."""
        replies = self._exchange([(b"TYPE", key) for key in keys])
        types = []
        for reply in replies:
            if not isinstance(reply, Simple):
                raise self._odd(b"TYPE", reply)
            types.append(line_text(reply.text))
        return types

    def read(self, keys: Sequence[bytes], limit_bytes: int | None) -> list[Read | None]:
        """Each key's value, at most its first limit_bytes; None for one that is no string (S2)."""
        last = b"-1" if limit_bytes is None else b"%d" % (limit_bytes - 1)
        commands: list[Sequence[bytes]] = []
        for key in keys:
            commands += (
                (b"MULTI",),
                (b"STRLEN", key),
                (b"PTTL", key),
                (b"GETRANGE", key, b"0", last),
                (b"EXEC",),
            )
        replies = self._exchange(commands)
        return [self._read(replies[at : at + 5]) for at in range(0, len(replies), 5)]

    def _read(self, replies: list[Reply]) -> Read | None:
        for reply in replies[:4]:
            if isinstance(reply, ErrorReply):  # says more than EXEC, which only tells of it
                raise self._odd(b"a read", reply)
        found = replies[4]
        if not isinstance(found, list) or len(found) != 3:
            raise self._odd(b"EXEC", found)
        size, left_ms, value = found
        if isinstance(size, ErrorReply) and size.code == "WRONGTYPE":
            return None
        if not isinstance(size, int) or not isinstance(left_ms, int):
            raise self._odd(b"STRLEN", size if isinstance(size, ErrorReply) else left_ms)
        return Read(size, left_ms, self._bytes(value, b"GETRANGE"))

    # -- answers -----------------------------------------------------------------------------------

    def _ask(self, *command: bytes) -> Reply:
        (reply,) = self._exchange([command])
        if isinstance(reply, ErrorReply):
            raise self._odd(command[0], reply)
        return reply

    def _bytes(self, reply: Reply, command: bytes) -> bytes:
        if isinstance(reply, bytes):
            return reply
        raise self._odd(command, reply)

    def _odd(self, command: bytes, reply: Reply) -> ServerError | ProtocolError:
        name = command.decode()
        if not isinstance(reply, ErrorReply):
            return ProtocolError(f"{self.address} answered {name} in a way that Redis does not")
        if reply.code == "NOAUTH":
            return ServerError(
                f"{self.address} wants a password: write it into the URL, "
                "set REDISCLI_AUTH, or use --ask-redis-password"
            )
        return ServerError(f"{self.address} refused {name}: {line_text(reply.text)}")

    # -- bytes -------------------------------------------------------------------------------------

    def _connected(self, url: RedisUrl, tls: Tls) -> socket.socket:
        context = tls.context() if url.tls else None
        try:
            if url.path:
                sock = socket.socket(socket.AF_UNIX)
                sock.settimeout(_CONNECT_TIMEOUT_S)
                try:
                    sock.connect(url.path)
                except BaseException:
                    sock.close()
                    raise
                return sock
            sock = socket.create_connection((url.host, url.port), _CONNECT_TIMEOUT_S)
        except (OSError, UnicodeError) as error:  # UnicodeError: a host's name that cannot be one
            raise ConnectionLost(f"cannot connect to {url.address}: {_reason(error)}") from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if context is None:
            return sock
        try:
            return context.wrap_socket(sock, server_hostname=url.host)
        except OSError as error:
            sock.close()
            is_proof = isinstance(error, ssl.SSLCertVerificationError)
            hint = "" if is_proof else "; if it speaks without TLS, write redis://"
            raise ConnectionLost(f"no TLS with {url.address}: {_reason(error)}{hint}") from error

    def _exchange(self, commands: Sequence[Sequence[bytes]]) -> list[Reply]:
        """The replies to some commands, error replies among them (S1)."""
        unsent = memoryview(b"".join(map(encode_command, commands)))
        replies: list[Reply] = []
        try:
            while unsent or len(replies) < len(commands):
                sent = self._send(unsent)
                unsent = unsent[sent:]
                if not self._receive(replies) and not sent:
                    self._wait(bool(unsent))
        except OSError as error:
            hint = "" if self._heard else self._hint
            raise ConnectionLost(
                f"the connection to {self.address} broke: {_reason(error)}{hint}"
            ) from error
        except ProtocolError as error:
            what = "sent damaged bytes" if self._heard else "is not a Redis"
            hint = "" if self._heard else self._hint
            raise ProtocolError(f"{self.address} {what}: {error}{hint}") from error
        if len(replies) > len(commands):
            raise ProtocolError(f"{self.address} sent more replies than commands came")
        return replies

    def _send(self, unsent: memoryview) -> int:
        if not unsent:
            return 0
        try:
            return self._socket.send(unsent[:_PIECE_BYTES])
        except _WAIT:
            return 0

    def _receive(self, replies: list[Reply]) -> bool:
        """Read what is there; whether there was anything."""
        try:
            data = self._socket.recv(_PIECE_BYTES)
        except _WAIT:
            return False
        if not data:
            raise ConnectionResetError("the server closed it")
        found = self._parser.feed(data)
        self._heard = self._heard or bool(found)
        replies += found
        if self._parser.error is not None:
            raise self._parser.error
        return True

    def _wait(self, for_room: bool) -> None:
        self._poll.register(self._socket, select.POLLIN | (select.POLLOUT if for_room else 0))
        patience_s = _SILENCE_S if self._heard else _CONNECT_TIMEOUT_S
        if not self._poll.poll(patience_s * 1000):
            raise TimeoutError


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{error.verify_message} (--cacert names whom to trust)"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
