"""docs/protocols/http.md: its examples answer what it says, its tables name what there is."""

from __future__ import annotations

import http.client
import re
import shlex
from pathlib import Path

import pytest

from marram.server.config import OPTIONS
from marram.server.http import ROUTES
from tests.server.serving import Running, serving

PAGE = (Path(__file__).parents[2] / "docs" / "protocols" / "http.md").read_text()
EXAMPLES = re.findall(r"^    \$ (curl .*)\n    (.*)$", PAGE, re.MULTILINE)


def curl(running: Running, command: str) -> str:
    """What a curl command of the page prints."""
    words = iter(shlex.split(command)[1:])
    method, url, body, headers = "GET", "", None, {}
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = next(words)
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        else:
            url = word
    assert url.startswith("http://127.0.0.1:7380/")
    web = http.client.HTTPConnection(*running.address("http"), timeout=20)
    web.request(method, url.removeprefix("http://127.0.0.1:7380"), body, headers)
    text = web.getresponse().read().decode()
    web.close()
    return text


def test_the_examples_answer_as_printed(tmp_path: Path) -> None:
    assert len(EXAMPLES) > 10
    with serving(tmp_path, http_port=0) as running:
        for command, printed in EXAMPLES:
            assert curl(running, command) == printed, command


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_route_is_on_the_page(route: object) -> None:
    path = route.path.replace(":path", "")  # type: ignore[attr-defined]
    assert f"`{route.method} {path}" in PAGE or f"curl '{path}" in PAGE or (path in (  # type: ignore[attr-defined]
        "/v1/kv", "/v1/batch", "/openapi.json",
    ) and path in PAGE)  # fmt: skip


def test_its_limits_have_the_defaults_it_says() -> None:
    defaults = {option.flag: option.default for option in OPTIONS}
    rows = re.findall(r"^\| `(--http-[\w-]+)` \| (\d+)( MiB)? \|", PAGE, re.MULTILINE)
    assert len(rows) == 4
    for flag, number, mib in rows:
        assert defaults[flag] == int(number) * (1 << 20 if mib else 1), flag
