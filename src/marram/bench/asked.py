"""What a server says of itself: version and durability, for the report of a load on it.

Owns which questions are asked: INFO and CONFIG over RESP, /v1/stats and /openapi.json over HTTP,
Stats over frames.
A server that does not say is "unknown"; that is no reason not to measure it.

Threading: the caller's; one connection, closed at the end.
"""

from __future__ import annotations

import http.client
import json
import socket
from base64 import b64encode
from typing import Any

from marram.bench.target import Place
from marram.bench.wire import make_wire
from marram.client.url import Target
from marram.errors import ConnectionLost, Error
from marram.protocol.frames import FrameReply, FrameReplyParser, Op, encode_request
from marram.protocol.replies import ErrorReply
from marram.protocol.resp_client import ReplyParser, encode_command

_TIMEOUT_S = 10.0
UNKNOWN = "unknown"


def describe(place: Place) -> dict[str, Any]:
    """{"versions": {name: version}, "durability": text}. Raises ConnectionLost: nobody is there."""
    ask = {"resp": _ask_resp, "http": _ask_http, "frame": _ask_frames}[place.protocol]
    try:
        version, durability = ask(place)
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or error
        raise ConnectionLost(f"cannot connect to {place.target.address}: {why}") from error
    except (Error, ValueError, KeyError):
        version = durability = UNKNOWN
    return {"versions": {str(place): version}, "durability": durability}


def _ask_resp(place: Place) -> tuple[str, str]:
    greeting, count = make_wire(place).greeting()
    commands = [[b"INFO"], [b"CONFIG", b"GET", b"append*"]]
    request = greeting + b"".join(map(encode_command, commands))
    replies: list[Any] = []
    parser = ReplyParser()
    with _connected(place.target) as sock:
        sock.sendall(request)
        while len(replies) < count + len(commands):
            replies += parser.feed(_receive(sock))
    info, config = replies[-2:]
    if isinstance(info, ErrorReply) or not isinstance(info, bytes):
        return UNKNOWN, UNKNOWN
    lines = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
    facts = {name: text for name, _, text in lines}
    for name in ("marram", "valkey", "redis"):
        if f"{name}_version" in facts:
            version = f"{name} {facts[f'{name}_version']}"
            break
    else:
        version = UNKNOWN
    return version, facts.get("durability") or _append_only(config)


def _append_only(config: Any) -> str:
    if not isinstance(config, list):
        return UNKNOWN
    words = [word.decode() for word in config if isinstance(word, bytes)]
    found = dict(zip(words[::2], words[1::2], strict=False))
    if found.get("appendonly") == "no":
        return "appendonly no"
    return f"appendfsync {found['appendfsync']}" if "appendfsync" in found else UNKNOWN


def _ask_http(place: Place) -> tuple[str, str]:
    target = place.target
    headers = {}
    if target.password:
        login = f"{target.user}:{target.password}".encode()
        headers["Authorization"] = f"Basic {b64encode(login).decode()}"
    connection = http.client.HTTPConnection(target.host, target.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/v1/stats", headers=headers)
        durability = _durability(connection.getresponse().read())
        connection.request("GET", "/openapi.json", headers=headers)
        return (
            f"marram {json.loads(connection.getresponse().read())['info']['version']}",
            durability,
        )
    finally:
        connection.close()


def _ask_frames(place: Place) -> tuple[str, str]:
    greeting, count = make_wire(place).greeting()
    parser = FrameReplyParser()
    replies: list[FrameReply] = []
    with _connected(place.target) as sock:
        sock.sendall(greeting + encode_request(Op.STATS))
        while len(replies) <= count:
            replies += parser.feed(_receive(sock))
    return "marram, which says no version here", _durability(replies[-1].payload)


def _durability(stats: bytes) -> str:
    return str(json.loads(stats)["durability"])


def _connected(target: Target) -> socket.socket:
    return socket.create_connection((target.host, target.port), timeout=_TIMEOUT_S)


def _receive(sock: socket.socket) -> bytes:
    data = sock.recv(1 << 16)
    if not data:
        raise ConnectionResetError("the server closed the connection")
    return data
