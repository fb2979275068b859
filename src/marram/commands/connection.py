"""Commands about the connection itself: HELLO, AUTH, PING, SELECT, RESET, QUIT, ...

Owns their handlers; clients.py has CLIENT, introspection.py COMMAND. Replies and refusals are Redis
7.0's. Authentication knows one user, "default"; how a password is checked is the node's business.

Threading: control handlers (spec.py).
"""

from __future__ import annotations

from typing import Final

from marram.commands import clients, introspection
from marram.commands.clients import valid_name
from marram.commands.context import Context
from marram.commands.grammar import block, optional
from marram.commands.spec import SYNTAX, Arg, Args, Command, CommandError, Reply, flags, integer
from marram.protocol.replies import OK, PONG, RESET

COMPATIBLE_VERSION: Final = "7.4.0"
"""The Redis version announced: clients choose by it what they send."""

_HELLO_NOAUTH: Final = (
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH "
    "<user> <pass> option can be used to authenticate the client and select the RESP protocol "
    "version at the same time"
)
_NO_PASSWORD: Final = (
    "ERR AUTH <password> called without any password configured for the default user. Are you "
    "sure your configuration is correct?"
)


def hello(context: Context, args: Args) -> Reply:
    """HELLO [protover [AUTH user password] [SETNAME name]]: choose a protocol, say who is here."""
    protocol = 0
    if len(args) > 1:
        protocol = integer(args[1], "ERR Protocol version is not an integer or out of range")
        if protocol not in (2, 3):
            raise CommandError("NOPROTO unsupported protocol version")
    login: tuple[bytes, bytes] | None = None
    name: bytes | None = None
    at = 2
    while at < len(args):
        option = args[at].upper()
        if option == b"AUTH" and at + 2 < len(args):
            login = (args[at + 1], args[at + 2])
            at += 3
        elif option == b"SETNAME" and at + 1 < len(args):
            name = valid_name(args[at + 1])
            at += 2
        else:
            shown = args[at].decode("utf-8", "surrogateescape")
            raise CommandError(f"ERR Syntax error in HELLO option '{shown}'")
    session = context.session

    def greet() -> Reply:
        if name is not None:
            session.name = name
        if protocol:
            session.protocol = protocol
            session.update()
        return {
            b"server": b"redis",
            b"version": COMPATIBLE_VERSION.encode(),
            b"proto": session.protocol,
            b"id": session.id,
            b"mode": b"standalone",
            b"role": b"master",
            b"modules": [],
        }

    if login is not None:
        return context.logins.check(session, *login, greet)
    if not session.authenticated:
        raise CommandError(_HELLO_NOAUTH)
    return greet()


def auth(context: Context, args: Args) -> Reply:
    """AUTH [username] password."""
    if len(args) > 3:
        raise CommandError(SYNTAX)
    if len(args) == 2:
        if not context.logins.required:
            raise CommandError(_NO_PASSWORD)
        return context.logins.check(context.session, b"default", args[1], lambda: OK)
    return context.logins.check(context.session, args[1], args[2], lambda: OK)


def ping(context: Context, args: Args) -> Reply:
    """PING [message]."""
    if len(args) > 2:
        raise CommandError("ERR wrong number of arguments for 'ping' command")
    if context.session.in_subscriber_mode:
        return [b"pong", args[1] if len(args) == 2 else b""]
    return args[1] if len(args) == 2 else PONG


def echo(context: Context, args: Args) -> Reply:
    """ECHO message."""
    return args[1]


def quit_(context: Context, args: Args) -> Reply:
    """QUIT: answered, then disconnected."""
    context.session.close()
    return OK


def reset(context: Context, args: Args) -> Reply:
    """RESET: as if newly connected."""
    context.reset()
    return RESET


def select(context: Context, args: Args) -> Reply:
    """SELECT index."""
    keyspace = integer(args[1])
    context.select(keyspace)
    return OK


# -- the table -------------------------------------------------------------------------------------

_LOGIN = flags("noscript loading stale fast no_auth no_multi allow_busy")
_ANYTIME = flags("noscript loading stale fast no_auth allow_busy")

ROWS: Final[tuple[Command, ...]] = (
    Command(
        "hello", hello, -1, _LOGIN, "connection",
        "Chooses the protocol version, and may log in and name the connection on the way.",
        since="6.0.0", control=True,
        args=(
            optional(
                block(
                    "arguments",
                    Arg("protover", "integer"),
                    optional(block("auth", Arg("username", token="AUTH"), Arg("password"))),
                    Arg("clientname", token="SETNAME", optional=True),
                )
            ),
        ),
    ),
    Command(
        "auth", auth, -2, _LOGIN, "connection",
        "Logs in. There is one user, default.",
        control=True, args=(Arg("username", optional=True), Arg("password")),
    ),
    Command(
        "ping", ping, -1, flags("fast loading stale"), "connection",
        "Answers PONG, or the message.",
        control=True, args=(Arg("message", optional=True),),
    ),
    Command(
        "echo", echo, 2, flags("loading stale fast"), "connection",
        "Answers the message.",
        control=True, args=(Arg("message"),),
    ),
    Command(
        "quit", quit_, -1, _ANYTIME, "connection",
        "Answers OK and disconnects.", control=True,
    ),
    Command(
        "reset", reset, 1, _ANYTIME, "connection",
        "Ends transaction, subscriptions and login, and goes back to RESP2 and database 0.",
        since="6.2.0", control=True,
    ),
    Command(
        "select", select, 2, flags("loading stale fast"), "connection",
        "Changes the database the connection works in.",
        control=True, args=(Arg("index", "integer"),),
    ),
    *clients.ROWS,
    *introspection.ROWS,
)  # fmt: skip
