"""The JSON bodies of the HTTP API: bytes in, checked values out, or a precise refusal.

Owns strictness: UTF-8 alone, no NaN, no duplicate or unknown members, strict base64; not what
a request then does (http.py).

J1  a body either becomes a value of the documented shape or raises HttpError; nothing else.
J2  depth, digits and size cost bounded time and memory; nothing in a body is ever evaluated.

Threading: pure functions.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Final

from marram.errors import Error, InvalidArgument
from marram.server.logs import shown
from marram.storage.arguments import check_key, check_seconds, check_value

ENCODINGS: Final = ("base64", "utf-8")


class HttpError(Error):
    """A request is refused. status: HTTP's; code: ours, a constant word; fields: further members
    of the error object; headers: of the response."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        fields: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fields = fields or {}
        self.headers = headers or {}


def bad_request(message: str) -> HttpError:
    """400, for whatever the caller got wrong."""
    return HttpError(400, "bad_request", message)


@dataclass(frozen=True, slots=True)
class Limits:
    """What bodies may hold, bytes; and how many operations a batch."""

    max_key_bytes: int
    max_value_bytes: int
    max_ops: int = 100_000


@dataclass(frozen=True, slots=True)
class Put:
    """Store `value`, for ttl_ms milliseconds or, where that is None, for good."""

    key: bytes
    value: bytes
    ttl_ms: int | None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the key."""

    key: bytes


@dataclass(frozen=True, slots=True)
class Check:
    """The key must hold `value`; where that is None: it must exist, or must be missing."""

    key: bytes
    value: bytes | None
    exists: bool


Operation = Put | Delete | Check


def read_put(body: bytes, key: bytes, limits: Limits) -> Put:
    """The body of PUT /v1/kv/{key}. Raises HttpError."""
    fields = _object(_parse(body), "the body")
    _only(fields, ("value", "encoding", "ttl"), "the body")
    return _put(fields, key, limits, "")


def read_batch(body: bytes, limits: Limits) -> list[Operation]:
    """The body of POST /v1/batch. Raises HttpError."""
    fields = _object(_parse(body), "the body")
    _only(fields, ("ops",), "the body")
    ops = fields.get("ops")
    if not isinstance(ops, list):
        raise bad_request("'ops' must be an array of operations")
    if len(ops) > limits.max_ops:
        raise HttpError(
            413, "too_many_ops", f"a batch has at most {limits.max_ops} operations, not {len(ops)}"
        )
    return [_operation(op, limits, f"ops[{index}]") for index, op in enumerate(ops)]


def read_nothing(body: bytes) -> None:
    """The body of a request that has no arguments: empty, or an empty object."""
    if body.strip():
        _only(_object(_parse(body), "the body"), (), "the body")


def decode_base64(text: str, what: str) -> bytes:
    """Strict base64: the standard alphabet, padded, nothing else. Raises HttpError."""
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise bad_request(f"{what} is not base64") from None


# -- private ---------------------------------------------------------------------------------------


def _parse(body: bytes) -> Any:
    if not body.strip():
        raise bad_request("the body is empty; send JSON")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise bad_request("the body is not UTF-8") from None
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except RecursionError:
        raise bad_request("the body is nested too deeply") from None
    except ValueError as error:  # also numbers with more digits than int() takes
        raise bad_request(f"the body is not JSON: {error}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object has a member twice")
    return fields


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad_request(f"{what} must be a JSON object")
    return value


def _only(fields: dict[str, Any], known: tuple[str, ...], what: str) -> None:
    for name in fields:
        if name not in known:
            which = shown(name.encode("utf-8", "surrogatepass"))
            allowed = f" (known: {', '.join(known)})" if known else ""
            raise bad_request(f"unknown member '{which}' in {what}{allowed}")


def _operation(value: Any, limits: Limits, where: str) -> Operation:
    fields = _object(value, where)
    kind = fields.get("op")
    if kind not in ("put", "delete", "check"):  # an unhashable kind is fine here
        raise bad_request(f"{where}: 'op' must be put, delete or check")
    members = {"put": ("value", "encoding", "ttl"), "check": ("value", "encoding", "exists")}
    _only(fields, ("op", "key", "key_base64", *members.get(kind, ())), where)
    where += ": "
    key = _key(fields, limits, where)
    if kind == "put":
        return _put(fields, key, limits, where)
    if kind == "delete":
        return Delete(key)
    return _check(fields, key, limits, where)


def _key(fields: dict[str, Any], limits: Limits, where: str) -> bytes:
    if ("key" in fields) == ("key_base64" in fields):
        raise bad_request(f"{where}give 'key' or 'key_base64'")
    if "key" in fields:
        key = _utf8(_text(fields["key"], f"{where}'key'"), f"{where}'key'")
    else:
        name = f"{where}'key_base64'"
        key = decode_base64(_text(fields["key_base64"], name), name)
    try:
        return check_key(key, limits.max_key_bytes)
    except InvalidArgument as error:
        raise bad_request(f"{where}{error}") from None


def _put(fields: dict[str, Any], key: bytes, limits: Limits, where: str) -> Put:
    if "value" not in fields:
        raise bad_request(f"{where}'value' is missing")
    value = _value(fields, limits, where)
    ttl = fields.get("ttl")
    if ttl is None:
        return Put(key, value, None)
    try:
        return Put(key, value, check_seconds(ttl, "'ttl'"))
    except InvalidArgument as error:
        raise bad_request(f"{where}{error}") from None


def _check(fields: dict[str, Any], key: bytes, limits: Limits, where: str) -> Check:
    if ("value" in fields) == ("exists" in fields):
        raise bad_request(f"{where}give 'value', or 'exists' as true or false")
    if "exists" in fields:
        exists = fields["exists"]
        if not isinstance(exists, bool) or "encoding" in fields:
            raise bad_request(f"{where}'exists' must be true or false, and stand alone")
        return Check(key, None, exists)
    if fields["value"] is None:
        return Check(key, None, False)
    return Check(key, _value(fields, limits, where), True)


def _value(fields: dict[str, Any], limits: Limits, where: str) -> bytes:
    text = _text(fields["value"], f"{where}'value'")
    encoding = fields.get("encoding", "base64")
    if encoding == "utf-8":
        value = _utf8(text, f"{where}'value'")
    elif encoding == "base64":
        value = decode_base64(text, f"{where}'value'")
    else:
        raise bad_request(f"{where}'encoding' must be base64 or utf-8")
    try:
        return check_value(value, limits.max_value_bytes)
    except InvalidArgument as error:
        raise HttpError(413, "value_too_large", f"{where}{error}") from None


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise bad_request(f"{what} must be a string")
    return value


def _utf8(text: str, what: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:  # "\\ud800" is JSON, but no text
        raise bad_request(f"{what} has an unpaired surrogate") from None
