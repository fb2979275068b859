"""What a request's target says: the key in its path, the parameters in its query.

Owns decoding: once, strictly, to bytes; not bodies (http_json.py), not routes (http.py).

Y1  a key is the one path segment after /v1/kv/; %2F, %00 and .. in it are bytes like others.
Y2  an unknown or repeated parameter is refused; nothing is ignored.
Y3  a cursor is opaque to clients, and checked like any other input.

Threading: pure functions.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from marram.errors import InvalidArgument
from marram.server.http_json import ENCODINGS, Limits, bad_request, decode_base64
from marram.server.logs import shown
from marram.storage.arguments import check_key, prefix_range

KV_PREFIX: Final = b"/v1/kv/"
DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000

RANGE_PARAMETERS: Final = (
    "prefix", "start", "end", "prefix_base64", "start_base64", "end_base64",
    "limit", "reverse", "cursor", "encoding",
)  # fmt: skip

_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_FORWARD: Final = b"f"
_BACKWARD: Final = b"b"


@dataclass(frozen=True, slots=True)
class Range:
    """A page of GET /v1/kv: keys of [start, stop), stop None for no bound; at most `limit`."""

    start: bytes
    stop: bytes | None
    limit: int
    reverse: bool
    encoding: str

    @property
    def empty(self) -> bool:
        """Whether no key can be in it."""
        return self.stop is not None and self.stop <= self.start

    def after(self, last: bytes) -> Range:
        """What is left once `last` was the last key given."""
        if self.reverse:
            return replace(self, stop=last)
        return replace(self, start=last + b"\0")

    def cursor(self) -> str:
        """Names this rest of a range, for the request of the next page."""
        raw = _BACKWARD + (self.stop or b"") if self.reverse else _FORWARD + self.start
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def read_key(request: Request, limits: Limits) -> bytes:
    """The key in the path of /v1/kv/{key} (Y1). Raises HttpError."""
    path: bytes = request.scope["raw_path"]
    segment = path[len(KV_PREFIX) :]
    if b"/" in segment:
        raise bad_request("a key is one path segment; write / in a key as %2F")
    try:
        return check_key(_decode(segment), limits.max_key_bytes)
    except InvalidArgument as error:
        raise bad_request(str(error)) from None


def read_encoding(request: Request) -> str:
    """The parameter of GET /v1/kv/{key}: how to give the value. Raises HttpError."""
    return _encoding(_parameters(request, ("encoding",)))


def read_no_parameters(request: Request) -> None:
    """Refuse parameters where there are none (Y2). Raises HttpError."""
    _parameters(request, ())


def read_range(request: Request) -> Range:
    """The parameters of GET /v1/kv. Raises HttpError."""
    given = _parameters(request, RANGE_PARAMETERS)
    reverse = _switch(given, "reverse")
    prefix = _bytes(given, "prefix") or b""
    start, stop = prefix_range(prefix, _bytes(given, "start"), _bytes(given, "end") or None)
    wanted = Range(start, stop, _limit(given), reverse, _encoding(given))
    cursor = given.get("cursor")
    if not cursor:
        return wanted
    place = _cursor_place(cursor, reverse)
    if reverse:
        if stop is None or place < stop:
            wanted = replace(wanted, stop=place)
    elif place > start:
        wanted = replace(wanted, start=place)
    return wanted


# -- private ---------------------------------------------------------------------------------------


def _parameters(request: Request, known: tuple[str, ...]) -> dict[str, bytes]:
    query: bytes = request.scope["query_string"]
    given: dict[str, bytes] = {}
    for pair in query.split(b"&") if query else ():
        raw_name, _, raw_value = pair.partition(b"=")
        name = shown(_decode(raw_name.replace(b"+", b" ")))
        if name not in known:
            choices = f" (known: {', '.join(known)})" if known else ""
            raise bad_request(f"unknown parameter '{name}'{choices}")
        if name in given:
            raise bad_request(f"parameter '{name}' is given twice")
        given[name] = _decode(raw_value.replace(b"+", b" "))
    return given


def _decode(raw: bytes) -> bytes:
    if _BAD_ESCAPE.search(raw):
        raise bad_request("a % in a URL is followed by two hexadecimal digits; write %25 for %")
    return unquote_to_bytes(raw)


def _bytes(given: dict[str, bytes], name: str) -> bytes | None:
    """A bound, as it is or by its _base64 name; None where neither is there."""
    encoded = given.get(name + "_base64")
    if encoded is None:
        return given.get(name)
    if name in given:
        raise bad_request(f"give '{name}' or '{name}_base64'")
    return decode_base64(encoded.decode("latin-1"), f"'{name}_base64'")


def _limit(given: dict[str, bytes]) -> int:
    text = given.get("limit", b"%d" % DEFAULT_LIMIT)
    if not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= MAX_LIMIT:
        raise bad_request(f"'limit' must be a number from 1 to {MAX_LIMIT}")
    return int(text)


def _switch(given: dict[str, bytes], name: str) -> bool:
    text = given.get(name, b"false").lower()
    if text not in (b"true", b"1", b"false", b"0"):
        raise bad_request(f"'{name}' must be true or false")
    return text in (b"true", b"1")


def _encoding(given: dict[str, bytes]) -> str:
    encoding = given.get("encoding", b"base64").decode("latin-1")
    if encoding not in ENCODINGS:
        raise bad_request(f"'encoding' must be {' or '.join(ENCODINGS)}")
    return encoding


def _cursor_place(cursor: bytes, reverse: bool) -> bytes:
    try:
        raw = base64.b64decode(cursor + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise bad_request("'cursor' is not one this server gave") from None
    if raw[:1] not in (_FORWARD, _BACKWARD) or len(raw) < 2:
        raise bad_request("'cursor' is not one this server gave")
    if (raw[:1] == _BACKWARD) != reverse:
        raise bad_request("'cursor' belongs to a scan in the other direction")
    return raw[1:]
