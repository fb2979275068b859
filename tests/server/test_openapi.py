"""The OpenAPI document says what the routes do."""

from __future__ import annotations

import re
from typing import Any

from marram.server.http import ROUTES
from marram.server.http_json import Limits
from marram.server.http_levels import ACK_LEVEL, ACKS, MIN_POSITION, WAIT_MS
from marram.server.http_query import RANGE_PARAMETERS
from marram.server.openapi import _DETAILS, document

DOCUMENT = document(ROUTES, Limits(65536, 1 << 29))


def test_every_route_is_described_and_nothing_else() -> None:
    assert sorted(_DETAILS) == sorted(route.name for route in ROUTES)
    described = {
        (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods
    }
    assert described == {(route.method, route.path.replace(":path", "")) for route in ROUTES}


def test_references_lead_somewhere_and_all_schemas_are_used() -> None:
    names = set(re.findall(r"'#/components/schemas/(\w+)'", repr(DOCUMENT)))
    assert names == set(DOCUMENT["components"]["schemas"])


def test_operations_are_complete() -> None:
    seen = set()
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            seen.add(operation["operationId"])
            parameters: list[dict[str, Any]] = operation.get("parameters", [])
            in_path = {p["name"] for p in parameters if p["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path))
            assert all(p["required"] for p in parameters if p["in"] == "path")
            for status, response in operation["responses"].items():
                assert status == "default" or re.fullmatch(r"[2-5]\d\d", status)
                assert response["description"]
    assert len(seen) == len(ROUTES)


def test_the_parameters_of_a_scan_are_those_that_are_read() -> None:
    scan = DOCUMENT["paths"]["/v1/kv"]["get"]
    in_query = [p["name"] for p in scan["parameters"] if p["in"] == "query"]
    assert tuple(in_query) == RANGE_PARAMETERS


def test_reads_and_writes_name_the_headers_about_replicas() -> None:
    def headers(method: str) -> list[str]:
        operation = DOCUMENT["paths"]["/v1/kv/{key}"][method]
        return [p["name"] for p in operation["parameters"] if p["in"] == "header"]

    assert headers("get") == [MIN_POSITION, WAIT_MS]
    assert headers("put") == headers("delete") == [MIN_POSITION, WAIT_MS, ACKS, ACK_LEVEL]


def test_it_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    assert {"title", "version"} <= set(DOCUMENT["info"])
