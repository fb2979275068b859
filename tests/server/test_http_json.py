"""The JSON bodies of the HTTP API: the documented shapes, and a refusal for everything else."""

from __future__ import annotations

import base64
import json
import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from marram.server.http_json import (
    Check,
    Delete,
    HttpError,
    Limits,
    Put,
    read_batch,
    read_nothing,
    read_put,
)

LIMITS = Limits(max_key_bytes=8, max_value_bytes=16, max_ops=3)
FUZZ_CASES = int(os.environ.get("MARRAM_FUZZ_INPUTS", "200000"))
"""Malformed bodies a run tries; MARRAM_FUZZ_SEED moves it elsewhere."""


def put(body: Any) -> Put:
    return read_put(body if isinstance(body, bytes) else json.dumps(body).encode(), b"k", LIMITS)


def batch(*ops: Any) -> list[Any]:
    return read_batch(json.dumps({"ops": ops}).encode(), LIMITS)


def refusal(call: Any, *args: Any) -> tuple[int, str]:
    with pytest.raises(HttpError) as caught:
        call(*args)
    return caught.value.status, caught.value.message


def test_put_takes_base64_unless_told_otherwise() -> None:
    assert put({"value": "d29ybGQ="}) == Put(b"k", b"world", None)
    assert put({"value": "d29ybGQ=", "encoding": "base64"}) == Put(b"k", b"world", None)
    assert put({"value": "wörld", "encoding": "utf-8"}) == Put(b"k", "wörld".encode(), None)
    assert put({"value": ""}) == Put(b"k", b"", None)


def test_put_takes_a_ttl_in_seconds() -> None:
    assert put({"value": "", "ttl": 1.5}).ttl_ms == 1500
    assert put({"value": "", "ttl": None}).ttl_ms is None
    assert put({"value": "", "ttl": 0.0001}).ttl_ms == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty; send JSON"),
        (b"  \n", "the body is empty; send JSON"),
        (b"\xff", "the body is not UTF-8"),
        ('{"value":""}'.encode("utf-16"), "the body is not UTF-8"),
        (b"\xef\xbb\xbf{}", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"{} {}", "the body is not JSON"),
        (b"[]", "the body must be a JSON object"),
        (b"NaN", "the body is not JSON: NaN is not JSON"),
        (b'{"value":"","ttl":Infinity}', "the body is not JSON: Infinity is not JSON"),
        (b'{"value":"","ttl":1e999}', "'ttl' must be a positive number"),
        (b'{"value":"","value":""}', "the body is not JSON: an object has a member twice"),
        (b"[" * 100_000, "the body is nested too deeply"),
        (b'{"a":' * 100_000, "the body is nested too deeply"),
        (b"1" * 5000, "the body is not JSON"),
        ({}, "'value' is missing"),
        ({"value": None}, "'value' must be a string"),
        ({"value": 5}, "'value' must be a string"),
        ({"value": "d29ybGQ"}, "'value' is not base64"),
        ({"value": "d29y bGQ="}, "'value' is not base64"),
        ({"value": "d29ybGQ=\n"}, "'value' is not base64"),
        ({"value": "wörld"}, "'value' is not base64"),
        ({"value": "-_8="}, "'value' is not base64"),
        ({"value": "x", "encoding": "hex"}, "'encoding' must be base64 or utf-8"),
        ({"value": "x", "encoding": []}, "'encoding' must be base64 or utf-8"),
        ({"value": "\ud800", "encoding": "utf-8"}, "'value' has an unpaired surrogate"),
        ({"value": "", "ttl": 0}, "'ttl' must be a positive number"),
        ({"value": "", "ttl": -1}, "'ttl' must be a positive number"),
        ({"value": "", "ttl": 10**300}, "'ttl' must be a positive number"),
        ({"value": "", "ttl": True}, "'ttl' is of type bool"),
        ({"value": "", "ttl": "5"}, "'ttl' is of type str"),
        ({"value": "", "tll": 5}, "unknown member 'tll' in the body (known: value, encoding, ttl)"),
    ],
)
def test_j1_a_bad_put_is_a_400_that_says_why(body: Any, message: str) -> None:
    status, said = refusal(put, body)
    assert (status, said[: len(message)]) == (400, message)


def test_the_value_limit_holds_at_the_limit_and_one_past_it() -> None:
    fits = base64.b64encode(bytes(16)).decode()
    over = base64.b64encode(bytes(17)).decode()
    assert put({"value": fits}).value == bytes(16)
    assert refusal(put, {"value": over})[0] == 413


def test_a_batch_is_puts_deletes_and_checks() -> None:
    assert batch(
        {"op": "put", "key": "ä", "value": "eA==", "ttl": 1},
        {"op": "delete", "key_base64": "/w=="},
        {"op": "check", "key": "k", "value": "x", "encoding": "utf-8"},
    ) == [Put("ä".encode(), b"x", 1000), Delete(b"\xff"), Check(b"k", b"x", True)]
    assert batch(
        {"op": "check", "key": "k", "exists": True},
        {"op": "check", "key": "k", "exists": False},
        {"op": "check", "key": "k", "value": None},
    ) == [Check(b"k", None, True), Check(b"k", None, False), Check(b"k", None, False)]
    assert batch() == []


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ([], "ops[1] must be a JSON object"),
        ({}, "ops[1]: 'op' must be put, delete or check"),
        ({"op": []}, "ops[1]: 'op' must be put, delete or check"),
        ({"op": "PUT"}, "ops[1]: 'op' must be put, delete or check"),
        ({"op": "delete"}, "ops[1]: give 'key' or 'key_base64'"),
        ({"op": "delete", "key": "a", "key_base64": "YQ=="}, "ops[1]: give 'key' or"),
        ({"op": "delete", "key": 1}, "ops[1]: 'key' must be a string"),
        ({"op": "delete", "key": ""}, "ops[1]: the key is empty"),
        ({"op": "delete", "key": "123456789"}, "ops[1]: the key has 9 bytes"),
        ({"op": "delete", "key_base64": "%"}, "ops[1]: 'key_base64' is not base64"),
        ({"op": "delete", "key": "a", "value": ""}, "unknown member 'value' in ops[1]"),
        ({"op": "put", "key": "a"}, "ops[1]: 'value' is missing"),
        ({"op": "check", "key": "a"}, "ops[1]: give 'value', or 'exists'"),
        ({"op": "check", "key": "a", "value": "", "exists": True}, "ops[1]: give 'value', or"),
        ({"op": "check", "key": "a", "exists": 1}, "ops[1]: 'exists' must be true or false"),
    ],
)
def test_j1_a_bad_operation_is_named_by_its_index(op: Any, message: str) -> None:
    status, said = refusal(batch, {"op": "delete", "key": "fine"}, op)
    assert (status, said[: len(message)]) == (400, message)


def test_the_number_of_operations_is_limited() -> None:
    op = {"op": "delete", "key": "a"}
    assert len(batch(op, op, op)) == 3
    assert refusal(batch, op, op, op, op)[0] == 413
    assert refusal(read_batch, b'{"ops": {}}', LIMITS)[0] == 400


def test_requests_without_arguments_take_nothing_or_an_empty_object() -> None:
    read_nothing(b"")
    read_nothing(b" {} ")
    assert refusal(read_nothing, b'{"a":1}') == (400, "unknown member 'a' in the body")
    assert refusal(read_nothing, b"x")[0] == 400


SEEDS = [
    b'{"value":"d29ybGQ=","encoding":"base64","ttl":1.5}',
    b'{"ops":[{"op":"put","key":"a","value":"eA=="},{"op":"check","key":"b","exists":false}]}',
    b'{"ops":[{"op":"delete","key_base64":"/w=="}],"x":[[[{}]]]}',
    '{"value":"\\ud83d\\u0000ü","encoding":"utf-8"}'.encode(),
]
SPICES = [
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\ud800", b"null", b"true", b"-", b"1e400",
    b"NaN", b"\x00", b"\xff", b"\xc0\x80", b'"op"', b'"value"', b"9" * 400, b"[" * 300, b" ",
]  # fmt: skip


def mutate(draw: random.Random, body: bytes) -> bytes:
    """A few cuts, repeats and insertions: mostly no JSON any more, sometimes JSON gone wrong."""
    text = bytearray(body)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(text) + 1)
        kind = draw.randrange(4)
        if kind == 0:
            del text[at : at + draw.randint(1, 6)]
        elif kind == 1:
            text[at:at] = draw.choice(SPICES)
        elif kind == 2:
            text[at : at + 1] = bytes([draw.randrange(256)])
        else:
            start = draw.randrange(len(text) + 1)
            text[at:at] = text[start : start + draw.randint(1, 20)]
    return bytes(text)


def outcome(read: Callable[..., Any], *args: Any) -> Any:
    """What a reader gives for a body, or its refusal."""
    try:
        return read(*args, LIMITS)
    except HttpError as error:
        return error


def test_j1_j2_mutated_bodies_give_values_or_http_errors_and_nothing_else() -> None:
    draw = random.Random(int(os.environ.get("MARRAM_FUZZ_SEED", "1")))
    refused = 0
    for _ in range(FUZZ_CASES):
        body = mutate(draw, draw.choice(SEEDS))
        for result in (outcome(read_put, body, b"k"), outcome(read_batch, body)):
            if isinstance(result, HttpError):
                refused += 1
                assert result.status in (400, 413)
                assert len(result.message) < 300
                assert result.message.isprintable()
            else:
                assert isinstance(result, Put | list)
    assert refused > FUZZ_CASES
