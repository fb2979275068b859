"""The OpenAPI 3.1 document of the HTTP API.

Owns the descriptions of parameters, bodies and answers; the routes themselves are http.py's, and
document() fails on one that is not described here.

Threading: pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

from marram import __version__
from marram.server.http_json import ENCODINGS, Limits
from marram.server.http_levels import ACK_LEVEL, ACKS, MIN_POSITION, WAIT_MS, WAIT_MS_MAX
from marram.server.http_query import DEFAULT_LIMIT, MAX_LIMIT

Schema = dict[str, Any]
Answers = dict[str, tuple[str, Schema | str]]
"""By status: what it means, and the schema of its JSON or the name of another media type."""

_JSON: Final = "application/json"


class Described(Protocol):
    """What the document takes from a route of http.py."""

    @property
    def method(self) -> str:
        """GET, PUT, ..."""
        ...

    @property
    def path(self) -> str:
        """With {key:path} for a key."""
        ...

    @property
    def name(self) -> str:
        """Unique; the operationId."""
        ...

    @property
    def summary(self) -> str:
        """One sentence."""
        ...

    @property
    def writes(self) -> bool:
        """Whether its answer names a position."""
        ...

    @property
    def open(self) -> bool:
        """Whether it needs no password."""
        ...


def document(routes: Iterable[Described], limits: Limits) -> dict[str, Any]:
    """The whole document, JSON values."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = route.path.replace("{key:path}", "{key}")
        paths.setdefault(path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "marram",
            "version": __version__,
            "summary": "A durable key/value store.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(limits),
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


# -- private ---------------------------------------------------------------------------------------


def _operation(route: Described) -> dict[str, Any]:
    parameters, body, answers = _DETAILS[route.name]
    if not route.open and route.name not in ("openapi", "metrics", "stats"):
        parameters = [*parameters, *(_WRITE_HEADERS if route.writes else _READ_HEADERS)]
    operation: dict[str, Any] = {"operationId": route.name, "summary": route.summary}
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = {
            "required": body["required"],
            "content": {_JSON: {"schema": body["schema"]}},
        }
    responses = {
        status: _response(meaning, schema, route.writes and status == "200")
        for status, (meaning, schema) in answers.items()
    }
    if not route.open:
        responses["401"] = _response("A password is wanted.", _ref("Error"))
        # An empty requirement: a server without a password takes requests without one.
        operation["security"] = [{"basic": []}, {"bearer": []}, {}]
    operation["responses"] = {
        **responses,
        "default": _response("The request is refused.", _ref("Error")),
    }
    return operation


def _response(meaning: str, schema: Schema | str, position: bool = False) -> dict[str, Any]:
    """schema: of JSON, or the name of another media type."""
    if isinstance(schema, str):
        content = {schema: {"schema": {"type": "string"}}}
    else:
        content = {_JSON: {"schema": schema}}
    response: dict[str, Any] = {"description": meaning, "content": content}
    if position:
        response["headers"] = {
            "X-Marram-Position": {
                "description": "Where the write is in the commit order: epoch-sequence.",
                "schema": {"type": "string", "pattern": "^[0-9]+-[0-9]+$"},
            }
        }
    return response


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _query(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "description": description,
        "schema": schema or {"type": "string"},
    }


def _header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": schema}


_READ_HEADERS: Final = [
    _header(
        MIN_POSITION, "Read a state that holds this position, epoch-sequence.", type="string",
        pattern="^[0-9]+-[0-9]+$",
    ),
    _header(
        WAIT_MS, "How long to wait for it, or for replicas, milliseconds.", type="integer",
        minimum=0, maximum=WAIT_MS_MAX,
    ),
]  # fmt: skip
_WRITE_HEADERS: Final = [
    *_READ_HEADERS,
    _header(
        ACKS, "How many replicas have to have the write before it is answered, or read.",
        type="integer", minimum=0,
    ),
    _header(
        ACK_LEVEL, "What they have to have done with it.", type="string",
        enum=["received", "disk"], default="disk",
    ),
]  # fmt: skip
_KEY: Final = {
    "name": "key",
    "in": "path",
    "required": True,
    "description": "The key: one path segment, percent-decoded once to bytes.",
    "schema": {"type": "string", "minLength": 1},
}
_ENCODING: Final = _query(
    "encoding", "How to give values.", type="string", enum=list(ENCODINGS), default="base64"
)
_RANGE: Final = [
    _query("prefix", "Only keys that begin with it."),
    _query("start", "Only keys from it on."),
    _query("end", "Only keys before it."),
    _query("prefix_base64", "As prefix, for any bytes.", contentEncoding="base64", type="string"),
    _query("start_base64", "As start, for any bytes.", contentEncoding="base64", type="string"),
    _query("end_base64", "As end, for any bytes.", contentEncoding="base64", type="string"),
    _query(
        "limit", "How many at most.",
        type="integer", minimum=1, maximum=MAX_LIMIT, default=DEFAULT_LIMIT,
    ),
    _query("reverse", "The last key first.", type="boolean", default=False),
    _query("cursor", "From the page before; all else has to stay the same."),
    _ENCODING,
]  # fmt: skip

_OK: Final[Answers] = {"200": ("Done, and durable.", _ref("Ok"))}
_ALIVE: Final[Answers] = {"200": ("It does.", _ref("Ok"))}
_FIGURES: Final[Answers] = {"200": ("Figures.", {"type": "object"})}

# name: (parameters, request body, answers by status)
_DETAILS: Final[dict[str, tuple[list[Schema], Schema, Answers]]] = {
    "health": ([], {}, _ALIVE),
    "livez": ([], {}, _ALIVE),
    "readyz": ([], {}, {**_ALIVE, "503": ("It does not; the message says why.", _ref("Error"))}),
    "scan": (_RANGE, {}, {"200": ("One page.", _ref("Page"))}),
    "get": (
        [_KEY, _ENCODING],
        {},
        {"200": ("The value.", _ref("Item")), "404": ("There is none.", _ref("Error"))},
    ),
    "put": ([_KEY], {"required": True, "schema": _ref("Put")}, _OK),
    "delete": ([_KEY], {}, _OK),
    "batch": (
        [],
        {"required": True, "schema": _ref("Batch")},
        {**_OK, "409": ("A check does not hold; nothing was changed.", _ref("Error"))},
    ),
    "checkpoint": ([], {"required": False, "schema": {"type": "object", "maxProperties": 0}}, _OK),
    "compact": (
        [],
        {"required": False, "schema": {"type": "object", "maxProperties": 0}},
        {"200": ("Done.", _ref("Compacted"))},
    ),
    "stats": ([], {}, _FIGURES),
    "metrics": ([], {}, {"200": ("Figures.", "text/plain")}),
    "openapi": ([], {}, {"200": ("This document.", {"type": "object"})}),
}


def _schemas(limits: Limits) -> dict[str, Schema]:
    value = {
        "value": {"type": "string", "description": "In the encoding that `encoding` names."},
        "encoding": {"type": "string", "enum": list(ENCODINGS), "default": "base64"},
    }
    key = {
        "key": {"type": "string", "description": "Where the key is UTF-8."},
        "key_base64": {"type": "string", "contentEncoding": "base64"},
    }
    either_key = {"oneOf": [{"required": ["key"]}, {"required": ["key_base64"]}]}
    ttl = {"type": ["number", "null"], "exclusiveMinimum": 0, "description": "Seconds to live."}
    put = {"op": {"const": "put"}, **key, **value, "ttl": ttl}
    check = {"op": {"const": "check"}, **key, **value, "exists": {"type": "boolean"}}
    return {
        "Ok": _closed({"ok": {"const": True}}, "ok"),
        "Compacted": _closed(
            {
                "ok": {"const": True},
                "engine": {"type": "string"},
                "message": {"type": "string", "description": "What was done, for people."},
            },
            "ok",
            "engine",
        ),
        "Error": _closed(
            {
                "error": {
                    "type": "object",
                    "required": ["code", "message"],
                    "properties": {
                        "code": {"type": "string"},
                        "message": {"type": "string"},
                        "op": {"type": "integer", "description": "Index of the failed check."},
                    },
                }
            },
            "error",
        ),
        "Item": {**_closed({**key, **value}, "value", "encoding"), **either_key},
        "Page": _closed(
            {
                "items": {"type": "array", "items": _ref("Item"), "maxItems": MAX_LIMIT},
                "cursor": {"type": ["string", "null"], "description": "null: the last page."},
            },
            "items",
            "cursor",
        ),
        "Put": _closed({**value, "ttl": ttl}, "value"),
        "Batch": _closed(
            {"ops": {"type": "array", "maxItems": limits.max_ops, "items": _ref("Operation")}},
            "ops",
        ),
        "Operation": {
            "oneOf": [
                {**_closed(put, "op", "value"), **either_key},
                {**_closed({"op": {"const": "delete"}, **key}, "op"), **either_key},
                {**_closed(check, "op"), **either_key},
            ]
        },
    }


def _closed(properties: Schema, *required: str) -> Schema:
    """An object with these members and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
