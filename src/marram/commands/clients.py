"""CLIENT: who is connected, and what about them can be seen and changed.

Owns the subcommands; the lines they print and what killing or pausing means are the node's.
CLIENT TRACKING, the server side of client caches, is not there: OFF is accepted, ON refused.

Threading: control handlers (spec.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from marram.commands.containers import container, subcommand
from marram.commands.context import (
    REPLY_OFF,
    REPLY_ON,
    REPLY_SKIP_NEXT,
    Context,
    Session,
)
from marram.commands.grammar import one_of, optional, repeated, word
from marram.commands.spec import (
    SYNTAX,
    Arg,
    Args,
    Command,
    CommandError,
    Reply,
    Support,
    integer,
)
from marram.protocol.replies import NO_REPLY, OK, SetReply, Verbatim

_BAD_ID: Final = "ERR client-id should be greater than 0"
_BAD_AGE: Final = "ERR maxage is not an integer or out of range"
_BAD_NAME: Final = "ERR Client names cannot contain spaces, newlines or special characters."
_NAME_MAX: Final = 1024
_PRINTABLE: Final = re.compile(rb"[!-~]*")
_TYPES: Final = {
    b"normal": "normal",
    b"pubsub": "pubsub",
    b"master": "master",
    b"replica": "replica",
    b"slave": "replica",
}


def valid_name(name: bytes, refusal: str = _BAD_NAME) -> bytes:
    """A name that CLIENT LIST can print. Raises CommandError."""
    if _PRINTABLE.fullmatch(name) is None or len(name) > _NAME_MAX:
        raise CommandError(refusal)
    return name


# -- about oneself ---------------------------------------------------------------------------------


def _id(context: Context, args: Args) -> Reply:
    return context.session.id


def _info(context: Context, args: Args) -> Reply:
    return _lines(context, [context.session])


def _getname(context: Context, args: Args) -> Reply:
    return context.session.name or None


def _setname(context: Context, args: Args) -> Reply:
    context.session.name = valid_name(args[2])
    return OK


def _setinfo(context: Context, args: Args) -> Reply:
    attribute = args[2].lower()
    if attribute not in (b"lib-name", b"lib-ver"):
        raise CommandError(f"ERR Unrecognized option '{_shown(args[2])}'")
    refusal = f"ERR {attribute.decode()} cannot contain spaces, newlines or special characters."
    value = valid_name(args[3], refusal)
    if attribute == b"lib-name":
        context.session.lib_name = value
    else:
        context.session.lib_version = value
    return OK


def _reply(context: Context, args: Args) -> Reply:
    session = context.session
    mode = args[2].upper()
    if mode == b"ON":
        session.reply_mode = REPLY_ON
    elif mode == b"OFF":
        session.reply_mode = REPLY_OFF
    elif mode != b"SKIP":
        raise CommandError(SYNTAX)
    elif session.reply_mode != REPLY_OFF:
        session.reply_mode = REPLY_SKIP_NEXT
    session.update()
    return OK if mode == b"ON" else NO_REPLY


def _no_evict(context: Context, args: Args) -> Reply:
    context.session.no_evict = _switch(args[2])
    return OK


def _no_touch(context: Context, args: Args) -> Reply:
    context.session.no_touch = _switch(args[2])
    return OK


def _tracking(context: Context, args: Args) -> Reply:
    if _switch(args[2]):
        raise CommandError("ERR CLIENT TRACKING is not supported: nothing was turned on")
    return OK


def _tracking_info(context: Context, args: Args) -> Reply:
    return {b"flags": SetReply([b"off"]), b"redirect": -1, b"prefixes": []}


def _caching(context: Context, args: Args) -> Reply:
    raise CommandError(
        "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or "
        "OPTOUT mode enabled"
    )


def _getredir(context: Context, args: Args) -> Reply:
    return -1


def _maint_notifications(context: Context, args: Args) -> Reply:
    if _switch(args[2]):
        raise CommandError("ERR CLIENT MAINT_NOTIFICATIONS is not supported: none are sent")
    return OK


# -- about everybody -------------------------------------------------------------------------------


def _list(context: Context, args: Args) -> Reply:
    if len(args) == 2:
        return _lines(context, context.clients)
    option = args[2].upper()
    if option == b"TYPE" and len(args) == 4:
        kind = _kind(args[3])
        return _lines(context, [one for one in context.clients if one.kind == kind])
    if option == b"ID" and len(args) > 3:
        ids = [integer(text, "ERR Invalid client ID") for text in args[3:]]
        found = (context.clients.get(session_id) for session_id in ids)
        return _lines(context, [one for one in found if one is not None])
    raise CommandError(SYNTAX)


@dataclass(slots=True)
class _Filter:
    """Whom CLIENT KILL's second form is about; None lets everybody pass."""

    skip_me: bool = True
    session_id: int | None = None
    kind: str | None = None
    address: str | None = None
    local_address: str | None = None
    born_by_ms: int | None = None

    def matches(self, session: Session) -> bool:
        return (
            self.session_id in (None, session.id)
            and self.kind in (None, session.kind)
            and self.address in (None, session.address)
            and self.local_address in (None, session.local_address)
            and (self.born_by_ms is None or session.created_ms <= self.born_by_ms)
        )


def _kill(context: Context, args: Args) -> Reply:
    if len(args) == 3:
        address = _shown(args[2])
        for session in context.clients:
            if session.address == address:
                context.clients.kill(session)
                return OK
        raise CommandError("ERR No such client")
    wanted = _kill_filter(args, context.now_ms)
    victims = [
        session
        for session in context.clients
        if wanted.matches(session) and not (wanted.skip_me and session is context.session)
    ]
    for session in victims:
        context.clients.kill(session)
    return len(victims)


def _kill_filter(args: Args, now_ms: int) -> _Filter:
    if len(args) % 2:
        raise CommandError(SYNTAX)
    found = _Filter()
    for option, value in zip(args[2::2], args[3::2], strict=True):
        name = option.upper()
        if name == b"ID":
            found.session_id = integer(value, _BAD_ID)
            if found.session_id < 1:
                raise CommandError(_BAD_ID)
        elif name == b"TYPE":
            found.kind = _kind(value)
        elif name == b"ADDR":
            found.address = _shown(value)
        elif name == b"LADDR":
            found.local_address = _shown(value)
        elif name == b"MAXAGE":
            found.born_by_ms = now_ms - 1000 * integer(value, _BAD_AGE)
        elif name == b"USER":
            if value != b"default":
                raise CommandError(f"ERR No such user '{_shown(value)}'")
        elif name == b"SKIPME" and value.lower() in (b"yes", b"no"):
            found.skip_me = value.lower() == b"yes"
        else:
            raise CommandError(SYNTAX)
    return found


def _pause(context: Context, args: Args) -> Reply:
    duration_ms = integer(args[2], "ERR timeout is not an integer or out of range")
    if duration_ms < 0:
        raise CommandError("ERR timeout is negative")
    mode = args[3].upper() if len(args) == 4 else b"ALL"
    if len(args) > 4:
        raise CommandError(SYNTAX)
    if mode not in (b"ALL", b"WRITE"):
        raise CommandError("ERR CLIENT PAUSE mode must be WRITE or ALL")
    context.clients.pause(duration_ms, writes_only=mode == b"WRITE")
    return OK


def _unpause(context: Context, args: Args) -> Reply:
    context.clients.unpause()
    return OK


def _unblock(context: Context, args: Args) -> Reply:
    with_error = False
    if len(args) > 4:
        raise CommandError(SYNTAX)
    if len(args) == 4:
        reason = args[3].upper()
        if reason not in (b"TIMEOUT", b"ERROR"):
            raise CommandError("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
        with_error = reason == b"ERROR"
    session = context.clients.get(integer(args[2]))
    if session is None:
        return 0
    return int(context.clients.unblock(session, with_error=with_error))


# -- private ---------------------------------------------------------------------------------------


def _lines(context: Context, sessions: Iterable[Session]) -> Verbatim:
    now_ms = context.now_ms
    lines = [session.describe(now_ms) + "\n" for session in sessions]
    return Verbatim("".join(lines).encode("utf-8", "surrogateescape"))


def _kind(text: bytes) -> str:
    kind = _TYPES.get(text.lower())
    if kind is None:
        raise CommandError(f"ERR Unknown client type '{_shown(text)}'")
    return kind


def _switch(text: bytes) -> bool:
    word = text.upper()
    if word not in (b"ON", b"OFF"):
        raise CommandError(SYNTAX)
    return word == b"ON"


def _shown(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


# -- the table -------------------------------------------------------------------------------------

_OWN: Final = "noscript loading stale"
_ADMIN: Final = "admin noscript loading stale"
_ON_OFF: Final = one_of("enabled", word("ON"), word("OFF"))
_TYPE: Final = Arg(
    "client-type",
    "oneof",
    "TYPE",
    parts=tuple(map(word, ("NORMAL", "MASTER", "REPLICA", "PUBSUB"))),
)
_IDS: Final = Arg("client-id", "integer", "ID", multiple=True)
_ADDRESS: Final = Arg("ip:port")
_FILTERS: Final = one_of(
    "filter",
    _ADDRESS,
    repeated(
        one_of(
            "new-format",
            Arg("client-id", "integer", "ID"),
            _TYPE,
            Arg("username", token="USER"),
            Arg("ip:port", token="ADDR"),
            Arg("ip:port", token="LADDR"),
            Arg("maxage", "integer", "MAXAGE"),
            Arg("skipme", "oneof", "SKIPME", parts=(word("YES"), word("NO"))),
        )
    ),
)
_row: Final = partial(subcommand, group="connection")
_N: Final = "O(N) for N clients"

ROWS: Final[tuple[Command, ...]] = (
    container(
        "client", "connection", "Connected clients: who they are, and what can be done to them.",
        (
            _row("client|id", _id, 2, _OWN,
                 summary="Gives the connection's number.", since="5.0.0"),
            _row("client|info", _info, 2, _OWN,
                 summary="Describes this connection.", since="6.2.0"),
            _row("client|list", _list, -2, _ADMIN,
                 summary="Describes all connections, or those of a type, or some.", since="2.4.0",
                 complexity=_N,
                 args=(optional(one_of("which", _TYPE, _IDS)),)),
            _row("client|kill", _kill, -3, _ADMIN,
                 summary="Disconnects clients.", since="2.4.0", complexity=_N, args=(_FILTERS,)),
            _row("client|getname", _getname, 2, _OWN,
                 summary="Gives the connection's name.", since="2.6.9"),
            _row("client|setname", _setname, 3, _OWN,
                 summary="Names the connection.", since="2.6.9", args=(Arg("connection-name"),)),
            _row("client|setinfo", _setinfo, 4, _OWN,
                 summary="Notes the client library's name or version.", since="7.2.0",
                 args=(one_of("attr", Arg("libname", token="LIB-NAME"),
                              Arg("libver", token="LIB-VER")),)),
            _row("client|reply", _reply, 3, _OWN,
                 summary="Turns replies off, on, or off for the next command.", since="3.2.0",
                 args=(one_of("on-off-skip", word("ON"), word("OFF"), word("SKIP")),)),
            _row("client|pause", _pause, -3, _ADMIN,
                 summary="Holds commands back for some milliseconds.", since="3.0.0",
                 args=(Arg("timeout", "integer"),
                       optional(one_of("mode", word("WRITE"), word("ALL"))))),
            _row("client|unpause", _unpause, 2, _ADMIN,
                 summary="Ends a pause.", since="6.2.0", complexity=_N),
            _row("client|unblock", _unblock, -3, _ADMIN,
                 summary="Ends another client's waiting command.", since="5.0.0",
                 args=(Arg("client-id", "integer"),
                       optional(one_of("unblock-type", word("TIMEOUT"), word("ERROR"))))),
            _row("client|no-evict", _no_evict, 3, _ADMIN,
                 summary="Accepted; marram evicts no clients.", since="7.0.0", args=(_ON_OFF,)),
            _row("client|no-touch", _no_touch, 3, _OWN,
                 summary="Accepted; marram keeps no access times.", since="7.2.0", args=(_ON_OFF,)),
            _row("client|tracking", _tracking, -3, _OWN,
                 summary="Turns client caching off; it is never on.", since="6.0.0",
                 support=Support.PARTIAL, note="OFF only.", args=(_ON_OFF,)),
            _row("client|trackinginfo", _tracking_info, 2, _OWN,
                 summary="Says that client caching is off.", since="6.2.0"),
            _row("client|caching", _caching, 3, _OWN,
                 summary="Refused, as client caching is off.", since="6.0.0",
                 support=Support.PARTIAL, note="Always refused.",
                 args=(one_of("mode", word("YES"), word("NO")),)),
            _row("client|getredir", _getredir, 2, _OWN,
                 summary="Gives -1: nothing is redirected.", since="6.0.0"),
            _row("client|maint_notifications", _maint_notifications, -3, _OWN,
                 summary="Turns notices about maintenance off; none are ever sent.", since="8.2.0",
                 support=Support.PARTIAL, note="OFF only.",
                 args=(_ON_OFF, Arg("option", optional=True, multiple=True))),
        ),
        since="2.4.0",
    ),
)  # fmt: skip
