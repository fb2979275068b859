"""HTTP + JSON: a starlette application over the same node that RESP uses.

Owns routes, status codes and what an answer looks like; not bodies (http_json.py), not who may ask
(http_access.py), not connections (http_wire.py), not what a command does (the node).

U1  a key is one path segment, percent-decoded exactly once to bytes, whatever the bytes.
U2  a request that is refused has changed nothing; nothing is changed by GET or HEAD.
U3  no answer reveals what is not committed yet; a write's answer names its position.
U4  a body is read up to its limit and no further, whatever its headers say.

ROUTES is the one table: starlette's routes and the OpenAPI document are made from it.

Threading: the event loop's; a request is a coroutine that awaits its body and its commit.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from marram.errors import OutcomeUnknown
from marram.node.deferred import Deferred
from marram.node.node import Node
from marram.node.session import AckWish, Session
from marram.protocol.replies import ErrorReply
from marram.server.commit import Committer
from marram.server.config import ServerConfig
from marram.server.http_access import Access, settled
from marram.server.http_json import (
    Check,
    Delete,
    HttpError,
    Limits,
    Operation,
    Put,
    bad_request,
    read_batch,
    read_nothing,
    read_put,
)
from marram.server.http_levels import PRIMARY, Wanted, read_levels
from marram.server.http_query import (
    Range,
    read_encoding,
    read_key,
    read_no_parameters,
    read_range,
)
from marram.storage.store import Position, Store

JSON: Final = "application/json"
POSITION_HEADER: Final = "X-Marram-Position"

_SAFE: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

# What an error's first word becomes. Anything else is the caller's mistake.
_STATUS: Final = {
    "NOAUTH": (401, "unauthorized"),
    "WRONGTYPE": (409, "wrong_type"),
    "READONLY": (503, "read_only"),  # 421 where it is known who takes writes
    "NOREPLICAS": (503, "no_replicas"),
    "MASTERDOWN": (503, "not_ready"),
    "NOPOSITION": (409, "position_lost"),
    "OUTCOMEUNKNOWN": (500, "outcome_unknown"),
    "MISCONF": (503, "store_failed"),
    "OOM": (503, "store_full"),
    "LOADING": (503, "loading"),
    "BUSY": (503, "busy"),
    "CORRUPTION": (500, "corruption"),
    "IOERR": (500, "io_error"),
}

Handler = Callable[["Api", Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table.

    open: answered without a password, for those who only ask whether the server is alive.
    parameters: its query has any; run() reads them.
    """

    method: str
    path: str
    run: Handler
    name: str
    summary: str
    writes: bool = False
    open: bool = False
    parameters: bool = False


class Api:
    """What the handlers share. figures: STATS; ready: why requests are not taken, or None."""

    metrics: Callable[[], bytes]
    """The Prometheus text; set before the first request."""

    def __init__(
        self,
        node: Node,
        store: Store,
        committer: Committer,
        config: ServerConfig,
        *,
        figures: Callable[[], dict[str, Any]],
        ready: Callable[[], str | None],
    ) -> None:
        self.node = node
        self.store = store
        self.committer = committer
        self.access = Access(node, config)
        self.limits = Limits(config.max_key_bytes, config.max_value_bytes)
        self.max_body_bytes = config.http_max_body_bytes
        self.figures = figures
        self.ready = ready
        self._levels: dict[int, AckWish | None] = {}  # of sessions, by their ids
        self.requests: dict[tuple[str, int], int] = {}  # answered, by (route's name, status)

    def application(self) -> ASGIApp:
        """The ASGI application."""
        paths: dict[str, dict[str, Route]] = {}
        for route in ROUTES:
            paths.setdefault(route.path, {})[route.method] = route
        # One starlette route a path, so that a 405 names all the methods there are.
        routes = [
            StarletteRoute(path, self._endpoint(by_method), methods=list(by_method))
            for path, by_method in paths.items()
        ]
        starlette = Starlette(
            routes=routes, exception_handlers={HTTPException: _no_route, Exception: _internal}
        )

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            # Routes see the path as it was sent: what a key's escapes stand for, a line end for
            # instance, must not decide where a request goes (U1).
            scope["path"] = scope["raw_path"].decode("ascii")
            await starlette(scope, receive, send)

        return application

    # -- running commands --------------------------------------------------------------------------

    @contextmanager
    def session(self, request: Request) -> Iterator[Session]:
        """A session for one request, which passed the checks of http_access.py."""
        where = (request.client, request.scope["server"])
        client, server = (f"{at[0]}:{at[1]}" if at else "?:0" for at in where)
        session = self.node.open_session(client, server, _no_push, _no_close)
        self.node.logins.accept(session)
        self._levels[session.id] = request.state.levels.acks
        try:
            yield session
        finally:
            self._levels.pop(session.id, None)
            self.node.close_session(session)

    async def run(self, request: Request, *args: bytes) -> tuple[Any, int]:
        """Run one command: its reply once it may be told, and the position it waited for.

        Raises HttpError.
        """
        with self.session(request) as session:
            (reply,), position = await self.ask(request, session, [list(args)])
        await self.settle(position)
        self.raise_for(reply)
        return reply, position

    def run_at_once(
        self, request: Request, session: Session, commands: list[list[bytes]]
    ) -> tuple[list[Any], int]:
        """Run commands with nothing between them; the replies must not be told before settle().

        While commands are held back (clients.py) a reply is a Deferred.
        """
        node = self.node
        self.committer.note(request.scope["client"])  # one object a connection
        node.begin_turn()
        replies = []
        position = 0
        acks = self._levels.get(session.id)
        for args in commands:
            if acks is not None:
                session.acks = acks
                session.update()
            replies.append(node.execute(session, args))
            position = max(position, node.waits_for)
        self.committer.wake()
        return replies, position

    async def ask(
        self, request: Request, session: Session, commands: list[list[bytes]]
    ) -> tuple[list[Any], int]:
        """run_at_once(), and wait for the replies that come later."""
        replies, position = self.run_at_once(request, session, commands)
        for at, reply in enumerate(replies):
            if isinstance(reply, Deferred):
                replies[at] = await settled(reply)
                position = max(position, reply.waits_for)
        return replies, position

    async def settle(self, position: int) -> None:
        """Return once `position` is committed. Raises HttpError: its outcome is unknown."""
        try:
            await self.committer.wait(position)
        except OutcomeUnknown as error:
            raise HttpError(500, "outcome_unknown", str(error)) from None

    async def reach(self, wanted: Wanted) -> None:
        """Return once the store holds the position that is asked for. Raises HttpError."""
        if wanted.position is None:
            return
        epoch, sequence = wanted.position
        settings = self.node.settings.replication
        timeout_ms = wanted.wait_ms or settings.ack_timeout_ms
        reply = self.node.replication.wait_position(epoch, sequence, timeout_ms, int)
        if isinstance(reply, Deferred):
            reply = await settled(reply)
        self.raise_for(reply)
        if not reply:
            message = f"this server is at {self.store.position}, and did not come to " + (
                f"{epoch}-{sequence} in {timeout_ms} ms"
            )
            raise HttpError(504, "behind", message)

    def raise_for(self, reply: Any) -> None:
        """Raises HttpError where a command was refused."""
        if not isinstance(reply, ErrorReply):
            return
        status, code = _STATUS.get(reply.code, (400, "bad_request"))
        fields: dict[str, Any] = {}
        headers: dict[str, str] = {}
        primary = self.node.replication.primary.get("http")
        if reply.code == "READONLY" and primary:
            status, fields, headers = 421, {"primary": primary}, {PRIMARY: primary}
        message = reply.text.removeprefix("ERR ")
        raise HttpError(status, code, message, fields=fields, headers=headers)

    def position_header(self, position: int) -> dict[str, str]:
        """Names where a write is in the commit order."""
        return {POSITION_HEADER: str(Position(self.store.epoch, position))}

    # -- private -----------------------------------------------------------------------------------

    def _endpoint(self, routes: dict[str, Route]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            route = routes["GET" if request.method == "HEAD" else request.method]
            try:
                response = await self._answer(route, request)
            except HttpError as error:
                response = _refusal(error)
            except ClientDisconnect:
                response = Response(status_code=400)  # it goes nowhere
            key = (route.name, response.status_code)
            self.requests[key] = self.requests.get(key, 0) + 1
            return response

        return answer

    async def _answer(self, route: Route, request: Request) -> Response:
        self.access.check_host(request)
        if not route.open:
            await self.access.check_password(request)
        if route.writes:
            self.access.check_origin(request)
        if not route.parameters:
            read_no_parameters(request)
        levels = read_levels(request, writes=route.writes)
        request.state.levels = levels
        await self.reach(levels)
        return await route.run(self, request)


# -- the handlers ----------------------------------------------------------------------------------


async def get_health(api: Api, request: Request) -> Response:
    """The server answers."""
    return _answer({"ok": True})


async def get_ready(api: Api, request: Request) -> Response:
    """The server takes reads and writes."""
    why_not = api.ready()
    if why_not is not None:
        raise HttpError(503, "not_ready", why_not)
    return _answer({"ok": True})


async def get_key(api: Api, request: Request) -> Response:
    """The value of a key."""
    key = read_key(request, api.limits)
    encoding = read_encoding(request)
    value, _ = await api.run(request, b"GET", key)
    if value is None:
        raise HttpError(404, "not_found", "the key is not in the store")
    # Put together by hand: a value may be large, and base64 needs no escaping.
    head = json.dumps(_key_members(key)).encode()[:-1]
    if encoding == "utf-8":
        text = json.dumps(_text(value)).encode()
    else:
        text = b'"' + base64.b64encode(value) + b'"'
    body = head + b', "value": ' + text + b', "encoding": "' + encoding.encode() + b'"}'
    return Response(body, media_type=JSON, headers=_SAFE)


async def put_key(api: Api, request: Request) -> Response:
    """Store a value."""
    key = read_key(request, api.limits)
    put = read_put(await read_body(request, api.max_body_bytes), key, api.limits)
    ttl = () if put.ttl_ms is None else (b"PX", b"%d" % put.ttl_ms)
    _, position = await api.run(request, b"SET", key, put.value, *ttl)
    return _answer({"ok": True}, headers=api.position_header(position))


async def delete_key(api: Api, request: Request) -> Response:
    """Remove a key, if it is there."""
    key = read_key(request, api.limits)
    await read_no_body(request, api.max_body_bytes)
    _, position = await api.run(request, b"DEL", key)
    # Where nothing was there to delete the answer depends on what is newest.
    return _answer({"ok": True}, headers=api.position_header(position or api.store.committed))


async def get_range(api: Api, request: Request) -> Response:
    """Keys and values of a range, a page at a time, in the order of keys."""
    wanted = read_range(request)
    if wanted.empty:
        return _answer({"items": [], "cursor": None})
    cursor = None
    with api.session(request) as session:
        (flat,), position = await api.ask(request, session, [_scanrange(wanted, wanted.limit)])
        if isinstance(flat, list) and flat:
            # A page may be short and not the last: ask whether there is more, nothing between.
            rest = wanted.after(flat[-2])
            more, also = await api.ask(
                request, session, [] if rest.empty else [_scanrange(rest, 1)]
            )
            position = max(position, also)
            cursor = rest.cursor() if more and more[0] else None
    await api.settle(position)
    api.raise_for(flat)
    items = [
        {**_key_members(key), **_value_members(value, wanted.encoding)}
        for key, value in zip(flat[::2], flat[1::2], strict=True)
    ]
    return _answer({"items": items, "cursor": cursor})


async def post_batch(api: Api, request: Request) -> Response:
    """Check and change several keys: all of it, or nothing."""
    ops = read_batch(await read_body(request, api.max_body_bytes), api.limits)
    if not ops:
        return _answer({"ok": True}, headers=api.position_header(api.store.committed))
    failed: int | None = None
    with api.session(request) as session:
        commit = _commitif(ops, api.store.now_ms())
        (reply,), position = await api.ask(request, session, [commit])
        checks = [(at, op) for at, op in enumerate(ops) if isinstance(op, Check)]
        while reply == 0 and failed is None:
            # Ask the checks again one by one to say which one it was. Where they were held back
            # meanwhile, all may hold by now: then the batch has its chance again.
            verdicts, also = await api.ask(
                request, session, [_commitif([op], 0) for _, op in checks]
            )
            position = max(position, also)
            if 0 in verdicts:
                failed = checks[verdicts.index(0)][0]
            else:
                (reply,), also = await api.ask(request, session, [commit])
                position = max(position, also)
    await api.settle(position)
    api.raise_for(reply)
    if failed is not None:
        message = f"ops[{failed}] does not hold; nothing was changed"
        raise HttpError(409, "check_failed", message, fields={"op": failed})
    return _answer({"ok": True}, headers=api.position_header(position or api.store.committed))


async def post_checkpoint(api: Api, request: Request) -> Response:
    """Write a checkpoint and drop the log before it."""
    await read_no_body(request, api.max_body_bytes)
    await api.run(request, b"CHECKPOINT")
    return _answer({"ok": True})


async def post_compact(api: Api, request: Request) -> Response:
    """Take out of the tables what is of no use any more."""
    await read_no_body(request, api.max_body_bytes)
    reply, _ = await api.run(request, b"COMPACT")
    return _answer({"ok": True, "engine": api.store.engine.name, "message": reply.text})


async def get_stats(api: Api, request: Request) -> Response:
    """Figures about the store and the server."""
    return _answer(api.figures())


async def get_metrics(api: Api, request: Request) -> Response:
    """The same for Prometheus."""
    media_type = "text/plain; version=0.0.4; charset=utf-8"
    return Response(api.metrics(), headers=_SAFE, media_type=media_type)


async def get_openapi(api: Api, request: Request) -> Response:
    """This API, described for machines."""
    from marram.server.openapi import document

    return _answer(document(ROUTES, api.limits))


ROUTES: Final[tuple[Route, ...]] = (
    Route("GET", "/v1/health", get_health, "health", "Says that the server answers.", open=True),
    Route(
        "GET", "/v1/kv", get_range, "scan", "Gives keys and values of a range, page by page.",
        parameters=True,
    ),
    Route(
        "GET", "/v1/kv/{key:path}", get_key, "get", "Gives the value of a key.", parameters=True
    ),
    Route("PUT", "/v1/kv/{key:path}", put_key, "put", "Stores a value.", writes=True),
    Route(
        "DELETE", "/v1/kv/{key:path}", delete_key, "delete", "Removes a key, if it is there.",
        writes=True,
    ),
    Route(
        "POST", "/v1/batch", post_batch, "batch",
        "Checks and changes several keys: all of it, or nothing.", writes=True,
    ),
    Route(
        "POST", "/v1/checkpoint", post_checkpoint, "checkpoint",
        "Writes a checkpoint and drops the log before it.", writes=True,
    ),
    Route(
        "POST", "/v1/compact", post_compact, "compact",
        "Takes out of the tables what is of no use any more; makes a checkpoint where there are "
        "none.", writes=True,
    ),
    Route("GET", "/v1/stats", get_stats, "stats", "Gives figures about the store and the server."),
    Route("GET", "/livez", get_health, "livez", "Says that the process answers.", open=True),
    Route(
        "GET", "/readyz", get_ready, "readyz", "Says whether reads and writes are taken.",
        open=True,
    ),
    Route("GET", "/metrics", get_metrics, "metrics", "Gives figures in Prometheus's text format."),
    Route("GET", "/openapi.json", get_openapi, "openapi", "Describes this API."),
)  # fmt: skip


# -- bodies ----------------------------------------------------------------------------------------


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The JSON body of a write (U4). Raises HttpError."""
    content_type = request.headers.get("content-type")
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind != JSON:
        # Also what keeps a form on a foreign page from writing: forms cannot send JSON.
        given = "no content type" if content_type is None else f"content type '{kind[:60]}'"
        raise HttpError(
            415, "unsupported_media_type",
            f"{given}; send the body as JSON, with the header 'Content-Type: application/json'",
        )  # fmt: skip
    return await _read_all(request, max_bytes)


async def read_no_body(request: Request, max_bytes: int) -> None:
    """The body of a write without arguments: none, or an empty JSON object. Raises HttpError."""
    if "content-type" in request.headers:
        read_nothing(await read_body(request, max_bytes))
    elif await _read_all(request, max_bytes):
        raise bad_request("this request takes no body")


async def _read_all(request: Request, max_bytes: int) -> bytes:
    length = request.headers.get("content-length", "0")
    too_large = HttpError(
        413, "body_too_large", f"a body has at most {max_bytes} bytes; see --http-max-body-bytes",
        headers={"Connection": "close"},
    )  # fmt: skip
    if not length.isdigit() or len(length) > 18 or int(length) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


# -- answers ---------------------------------------------------------------------------------------


def _answer(
    body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Response(
        json.dumps(body).encode(), status, headers={**_SAFE, **(headers or {})}, media_type=JSON
    )


def _refusal(error: HttpError) -> Response:
    body = {"error": {"code": error.code, "message": error.message, **error.fields}}
    return _answer(body, error.status, error.headers)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = dict(error.headers or {})
        message = f"{request.method[:20]} is not possible here; try {allowed.get('Allow', 'GET')}"
        return _refusal(HttpError(405, "method_not_allowed", message, headers=allowed))
    return _refusal(HttpError(404, "no_such_route", "there is nothing here; see /openapi.json"))


async def _internal(request: Request, error: Exception) -> Response:
    # starlette raises the error again after this answer, and uvicorn logs it with its traceback.
    return _refusal(HttpError(500, "internal", "an internal error; the server's log says more"))


def _key_members(key: bytes) -> dict[str, str]:
    try:
        return {"key": key.decode("utf-8")}
    except UnicodeDecodeError:
        return {"key_base64": base64.b64encode(key).decode()}


def _value_members(value: bytes, encoding: str) -> dict[str, str]:
    if encoding == "utf-8":
        return {"value": _text(value), "encoding": encoding}
    return {"value": base64.b64encode(value).decode(), "encoding": encoding}


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise bad_request("a value is not UTF-8; ask for encoding=base64") from None


# -- private ---------------------------------------------------------------------------------------


def _scanrange(wanted: Range, limit: int) -> list[bytes]:
    words = [b"SCANRANGE", wanted.start, wanted.stop or b"", b"LIMIT", b"%d" % limit]
    return [*words, b"REV"] if wanted.reverse else words


def _commitif(ops: Sequence[Operation], now_ms: int) -> list[bytes]:
    """COMMITIF's arguments: checks first, whatever their places, then the writes in order."""
    checks: list[list[bytes]] = []
    writes: list[list[bytes]] = []
    for op in ops:
        if isinstance(op, Check):
            if op.value is not None:
                checks.append([op.key, b"IFEQ", op.value])
            else:
                checks.append([op.key, b"IFXX" if op.exists else b"IFNX"])
        elif isinstance(op, Put):
            deadline_ms = 0 if op.ttl_ms is None else now_ms + op.ttl_ms
            writes.append([b"PUT", op.key, op.value, b"%d" % deadline_ms])
        else:
            assert isinstance(op, Delete)
            writes.append([b"DEL", op.key])
    flat = [b"COMMITIF", b"%d" % len(checks)]
    for words in checks:
        flat += words
    flat.append(b"%d" % len(writes))
    for words in writes:
        flat += words
    return flat


def _no_push(reply: Any, position: int) -> None:
    """Nothing is pushed: no request subscribes."""


def _no_close() -> None:
    """There is no one connection to close."""
