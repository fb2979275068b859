"""HTTP + JSON over real sockets: every status, keys as bytes, pages, batches, who is let in."""

from __future__ import annotations

import base64
import http.client
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.server.serving import GatedEnv, Running, serving

JSON = {"Content-Type": "application/json"}


@dataclass
class Answer:
    """One response. body: parsed where it is JSON."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])


class Web:
    """A keep-alive connection to the HTTP listener."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self._connection = http.client.HTTPConnection(*running.address("http"), timeout=20)

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *about: object) -> None:
        self._connection.close()

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request; body: JSON values, or bytes as they are."""
        given = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            given = {**JSON, **given}
        self._connection.putrequest(method, path, skip_host="Host" in given)
        for name, value in given.items():
            self._connection.putheader(name, value)
        if body is not None and "Content-Length" not in given:
            self._connection.putheader("Content-Length", str(len(body)))
        self._connection.endheaders(body)
        response = self._connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, response.read())

    def put(self, key: str, value: bytes, **members: Any) -> Answer:
        """Store a value."""
        text = base64.b64encode(value).decode()
        return self.ask("PUT", f"/v1/kv/{key}", {"value": text, **members})


@pytest.fixture(params=["uvloop", "asyncio"])
def web(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Web]:
    with serving(tmp_path, loop=request.param, http_port=0) as running, Web(running) as one:
        yield one


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Web]:
    with serving(tmp_path, http_port=0) as running, Web(running) as one:
        yield one


def raw(running: Running, data: bytes) -> bytes:
    """What the listener answers to bytes, up to its closing the connection."""
    with running.connect("http") as client:
        client.send(data)
        return client.rest()


# -- the documented answers ------------------------------------------------------------------------


def test_the_examples_of_the_contract(web: Web) -> None:
    assert web.ask("GET", "/v1/health").body == {"ok": True}
    stored = web.ask("PUT", "/v1/kv/hello", {"value": "d29ybGQ=", "encoding": "base64"})
    assert (stored.status, stored.body) == (200, {"ok": True})
    assert web.ask("GET", "/v1/kv/hello").body == {
        "key": "hello",
        "value": "d29ybGQ=",
        "encoding": "base64",
    }
    assert web.ask("GET", "/v1/kv/hello?encoding=utf-8").body["value"] == "world"
    assert web.ask("DELETE", "/v1/kv/hello").body == {"ok": True}
    assert web.ask("DELETE", "/v1/kv/hello").body == {"ok": True}
    missing = web.ask("GET", "/v1/kv/hello")
    assert (missing.status, missing.code) == (404, "not_found")
    assert web.ask("POST", "/v1/checkpoint").body == {"ok": True}
    assert web.ask("POST", "/v1/checkpoint", {}).body == {"ok": True}
    assert web.ask("GET", "/livez").body == web.ask("GET", "/readyz").body == {"ok": True}
    assert web.ask("GET", "/v1/stats").body["num_keys"] == 0


def test_u3_writes_name_their_position(web: Web) -> None:
    first = web.put("a", b"1").headers["x-marram-position"]
    second = web.ask("POST", "/v1/batch", {"ops": [{"op": "delete", "key": "a"}]})
    epoch, sequence = first.split("-")
    assert second.headers["x-marram-position"] == f"{epoch}-{int(sequence) + 1}"


def test_a_ttl_ends_a_key(web: Web) -> None:
    assert web.put("k", b"v", ttl=1000).status == 200
    with web.running.connect() as resp:
        assert 0 < resp.ask(b"TTL", b"k") <= 1000
        assert web.put("k", b"v", ttl=0.001).status == 200
        while resp.ask(b"EXISTS", b"k"):
            pass
    assert web.ask("GET", "/v1/kv/k").status == 404


def test_the_other_protocols_see_the_same_keys(web: Web) -> None:
    with web.running.connect() as resp:
        resp.ask(b"SET", b"k", b"\0\xff")
        assert base64.b64decode(web.ask("GET", "/v1/kv/k").body["value"]) == b"\0\xff"


def test_head_is_get_without_a_body(quick: Web) -> None:
    quick.put("k", b"v")
    answer = quick.ask("HEAD", "/v1/kv/k")
    assert (answer.status, answer.raw) == (200, b"")
    assert quick.ask("HEAD", "/v1/kv/missing").status == 404


def test_large_values_pass_and_may_be_chunked(quick: Web) -> None:
    value = random.Random(1).randbytes(3 << 20)
    assert quick.put("big", value).status == 200
    assert base64.b64decode(quick.ask("GET", "/v1/kv/big").body["value"]) == value
    chunked = (
        b"PUT /v1/kv/c HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"6\r\n{\"valu\r\n9\r\ne\": \"eA==\r\n2\r\n\"}\r\n0\r\n\r\n"
    )  # fmt: skip
    assert raw(quick.running, chunked).startswith(b"HTTP/1.1 200 ")
    assert quick.ask("GET", "/v1/kv/c").body["value"] == "eA=="


# -- statuses --------------------------------------------------------------------------------------

BATCH = "/v1/batch"
NO_OPS = b'{"ops": []}'


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "code"),
    [
        ("GET", "/", None, {}, 404, "no_such_route"),
        ("GET", "/v1", None, {}, 404, "no_such_route"),
        ("GET", "/v1/kv/a/b", None, {}, 400, "bad_request"),
        ("GET", "/v1/kv/", None, {}, 400, "bad_request"),
        ("GET", "/v1/kv/%", None, {}, 400, "bad_request"),
        ("GET", "/v1/kv/%zz", None, {}, 400, "bad_request"),
        ("GET", "/v1%2Fhealth", None, {}, 404, "no_such_route"),
        ("GET", "/v1/health%0A", None, {}, 404, "no_such_route"),
        ("GET", "/v1/%6bv/a", None, {}, 404, "no_such_route"),
        ("GET", "/v1/kv/missing", None, {}, 404, "not_found"),
        ("GET", "/v1/kv/k?encoding=hex", None, {}, 400, "bad_request"),
        ("GET", "/v1/kv/k?encoding=base64&encoding=utf-8", None, {}, 400, "bad_request"),
        ("GET", "/v1/kv/k?nonsense=1", None, {}, 400, "bad_request"),
        ("GET", "/v1/health?nonsense=1", None, {}, 400, "bad_request"),
        ("PUT", "/v1/kv/k?encoding=utf-8", b'{"value":""}', {}, 400, "bad_request"),
        ("PUT", "/v1/kv/k", b"", {}, 400, "bad_request"),
        ("PUT", "/v1/kv/k", b"{", {}, 400, "bad_request"),
        ("PUT", "/v1/kv/k", b"[" * 100_000, {}, 400, "bad_request"),
        ("PUT", "/v1/kv/k", b'{"value": NaN}', {}, 400, "bad_request"),
        ("PUT", "/v1/kv/k", b'{"value": "!"}', {}, 400, "bad_request"),
        ("PUT", "/v1/kv/" + "k" * 65537, b'{"value": ""}', {}, 400, "bad_request"),
        ("PUT", "/v1/kv/k", b'{"value": ""}', {"Content-Type": "text/plain"}, 415, None),
        (
            "PUT", "/v1/kv/k", b'{"value": ""}',
            {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type",
        ),
        ("POST", BATCH, b'{"ops": 1}', {}, 400, "bad_request"),
        ("POST", BATCH, NO_OPS, {"Content-Type": "multipart/form-data"}, 415, None),
        ("POST", "/v1/checkpoint", b"x", {"Content-Type": "text/plain"}, 415, None),
        ("POST", "/v1/checkpoint", b'{"a": 1}', {}, 400, "bad_request"),
        ("POST", "/v1/kv/k", NO_OPS, {}, 405, "method_not_allowed"),
        ("GET", "/v1/batch", None, {}, 405, "method_not_allowed"),
        ("GET", "/v1/checkpoint", None, {}, 405, "method_not_allowed"),
        ("PATCH", "/v1/kv", None, {}, 405, "method_not_allowed"),
        ("OPTIONS", "/v1/kv/k", None, {"Origin": "https://evil.example"}, 405, None),
        ("GET", "/v1/health", None, {"Host": "evil.example"}, 421, "wrong_host"),
        ("GET", "/v1/health", None, {"Host": "127.0.0.1.evil.example"}, 421, "wrong_host"),
        ("GET", "/livez", None, {"Host": "evil.example"}, 421, "wrong_host"),
        ("GET", "/v1/health", None, {"Host": "a b"}, 400, "bad_request"),
        ("POST", BATCH, NO_OPS, {"Origin": "https://evil.example"}, 403, "cross_site"),
        ("POST", BATCH, NO_OPS, {"Origin": "null"}, 403, "cross_site"),
        ("POST", BATCH, NO_OPS, {"Sec-Fetch-Site": "cross-site"}, 403, "cross_site"),
        ("DELETE", "/v1/kv/k", None, {"Sec-Fetch-Site": "same-site"}, 403, "cross_site"),
        ("POST", BATCH, b"", {"Content-Length": "99999999999"}, 413, "body_too_large"),
        ("GET", "/v1/health", None, {"X-Long": "x" * 40_000}, 431, "headers_too_large"),
        ("GET", "/v1/kv/" + "k" * 300_000, None, {}, 414, "url_too_long"),
        ("GET", "/v1/kv?limit=0", None, {}, 400, "bad_request"),
        ("GET", "/v1/kv?limit=1001", None, {}, 400, "bad_request"),
        ("GET", "/v1/kv?limit=x", None, {}, 400, "bad_request"),
        ("GET", "/v1/kv?reverse=maybe", None, {}, 400, "bad_request"),
        ("GET", "/v1/kv?cursor=!", None, {}, 400, "bad_request"),
        ("GET", "/v1/kv?cursor=YQ", None, {}, 400, "bad_request"),
        ("GET", "/v1/kv?prefix=a&prefix_base64=YQ==", None, {}, 400, "bad_request"),
        ("GET", "/v1/kv?prefix_base64=@", None, {}, 400, "bad_request"),
    ],
)  # fmt: skip
def test_u2_what_is_refused_has_its_status_and_changes_nothing(
    quick: Web,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
    status: int,
    code: str | None,
) -> None:
    before = quick.ask("GET", "/v1/stats").body["position"]
    answer = quick.ask(method, path, body, headers)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.body) == {"error"}
    assert answer.body["error"]["message"]
    if code is not None:
        assert answer.code == code
    assert "access-control-allow-origin" not in answer.headers
    with Web(quick.running) as again:
        assert again.ask("GET", "/v1/stats").body["position"] == before


def test_a_415_says_what_to_send(quick: Web) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = quick.ask("PUT", "/v1/kv/k", b'{"value":"eA=="}', form)
    assert "'Content-Type: application/json'" in answer.body["error"]["message"]


def test_a_405_names_the_methods_there_are(quick: Web) -> None:
    allowed = quick.ask("POST", "/v1/kv/k").headers["allow"]
    assert set(allowed.split(", ")) == {"GET", "HEAD", "PUT", "DELETE"}


def test_u4_a_body_is_read_to_its_limit_and_no_further(tmp_path: Path) -> None:
    with serving(tmp_path, http_port=0, http_max_body_bytes=1000) as running, Web(running) as web:
        fits = b'{"value": ""}' + b" " * (1000 - 13)
        assert web.ask("PUT", "/v1/kv/k", fits).status == 200
        assert web.ask("PUT", "/v1/kv/k", fits + b" ").status == 413
        # Without a length: the server stops reading, whatever the client intends to send.
        with running.connect("http") as client:
            client.send(
                b"PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n" + b"100\r\n" + b" " * 256 + b"\r\n"
            )
            client.send((b"100\r\n" + b" " * 256 + b"\r\n") * 4)
            assert client.read(12) == b"HTTP/1.1 413"
            client.rest()


@pytest.mark.parametrize(
    "request_",
    [
        b"NONSENSE\r\n\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /v1/health HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\nBad Header : x\r\n\r\n",
        b"GET /v1/kv/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
        b"Content-Length: 2\r\n\r\nxx",
        b"POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: +1\r\n\r\nx",
        b"POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_l1_what_is_not_http_gets_a_400_and_the_connection_ends(
    quick: Web, request_: bytes
) -> None:
    answer = raw(quick.running, request_)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code": "bad_request"' in answer
    assert quick.ask("GET", "/v1/health").status == 200


def test_l1_too_many_headers_are_refused(quick: Web) -> None:
    headers = b"".join(b"X-%d: 1\r\n" % n for n in range(101))
    answer = raw(quick.running, b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n" + headers)
    assert answer.startswith(b"HTTP/1.1 431 ")


def test_garbage_ends_only_its_own_connection(quick: Web) -> None:
    draw = random.Random(11)
    for size in (1, 10, 1000, 100_000):
        for _ in range(5):
            with quick.running.connect("http") as bad:
                bad.send(draw.randbytes(size) + b"\r\n\r\n")
            assert quick.ask("GET", "/v1/health").status == 200


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET /v1/health HT",
        b"PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b'Content-Length: 13\r\n\r\n{"val',
    ],
)
def test_l2_a_request_that_does_not_arrive_ends_its_connection(
    tmp_path: Path, beginning: bytes
) -> None:
    with serving(tmp_path, http_port=0, http_request_timeout_s=30) as running:
        with running.connect("http") as slow, Web(running) as good:
            slow.send(beginning)
            assert good.ask("GET", "/v1/health").status == 200

            def ticks(count: int) -> None:
                for _ in range(count):
                    running.call(lambda server: server._http.tick())

            ticks(30)
            slow.send(b"" if not beginning else b"T" if b"\r\n" not in beginning else b"u")
            assert good.ask("GET", "/v1/health").status == 200
            assert slow.nothing_came()
            ticks(2)
            assert slow.rest()[:12] in (b"", b"HTTP/1.1 408")
        with Web(running) as web:
            assert web.ask("GET", "/v1/kv/k").status == 404


def test_too_many_connections_get_a_503(tmp_path: Path) -> None:
    with (
        serving(tmp_path, http_port=0, http_max_connections=2) as running,
        Web(running) as one,
        Web(running) as two,
    ):
        assert one.ask("GET", "/v1/health").status == 200
        assert two.ask("GET", "/v1/health").status == 200
        assert raw(running, b"").startswith(b"HTTP/1.1 503 ")
        assert one.ask("GET", "/v1/health").status == 200


# -- keys are bytes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("a", b"a"),
        ("a%2Fb", b"a/b"),
        ("%00", b"\0"),
        ("..", b".."),
        ("%2e%2E", b".."),
        (".", b"."),
        ("%252F", b"%2F"),
        ("%C3%A4", "ä".encode()),
        ("%FF%FE", b"\xff\xfe"),
        ("%C0%80", b"\xc0\x80"),
        ("a+b", b"a+b"),
        ("a%20b", b"a b"),
        ("a;b=c", b"a;b=c"),
        ("a%3Fb%23c", b"a?b#c"),
        ("%0D%0AX-Evil:%201", b"\r\nX-Evil: 1"),
        ("%0A", b"\n"),
        ("~-._!$&'()*,=:@", b"~-._!$&'()*,=:@"),
    ],
)
def test_u1_a_key_is_one_segment_decoded_once(quick: Web, path: str, key: bytes) -> None:
    assert quick.put(path, b"v").status == 200
    with quick.running.connect() as resp:
        assert resp.ask(b"KEYS", b"*") == [key]
    answer = quick.ask("GET", f"/v1/kv/{path}").body
    if "key" in answer:
        assert answer["key"].encode() == key
    else:
        assert base64.b64decode(answer["key_base64"]) == key
    assert ("key" in answer) == is_utf8(key)
    assert quick.ask("DELETE", f"/v1/kv/{path}").status == 200
    with quick.running.connect() as resp:
        assert resp.ask(b"DBSIZE") == 0


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


# -- pages -----------------------------------------------------------------------------------------


def pages(web: Web, query: str) -> list[str]:
    """All keys of a scan, following cursors."""
    found: list[str] = []
    cursor = ""
    while True:
        body = web.ask("GET", f"/v1/kv?{query}{cursor}").body
        found += [item.get("key", item.get("key_base64")) for item in body["items"]]
        if body["cursor"] is None:
            return found
        assert body["items"], "a page before the last one is not empty"
        cursor = f"&cursor={body['cursor']}"


@pytest.fixture
def alphabet(quick: Web) -> Web:
    ops = [{"op": "put", "key": f"k{n:03}", "value": "dg=="} for n in range(100)]
    ops += [{"op": "put", "key": key, "value": "dg=="} for key in ("a", "z", "k")]
    ops.append({"op": "put", "key_base64": "/w==", "value": "dg=="})
    assert quick.ask("POST", "/v1/batch", {"ops": ops}).status == 200
    return quick


def test_pages_follow_each_other_in_key_order(alphabet: Web) -> None:
    everything = ["a", "k", *(f"k{n:03}" for n in range(100)), "z", "/w=="]
    for limit in (1, 7, 104, 1000):
        assert pages(alphabet, f"limit={limit}") == everything
        assert pages(alphabet, f"limit={limit}&reverse=true") == everything[::-1]
    page = alphabet.ask("GET", "/v1/kv").body
    assert len(page["items"]) == 100
    assert page["items"][0] == {"key": "a", "value": "dg==", "encoding": "base64"}


@pytest.mark.parametrize("reverse", [False, True])
def test_bounds_are_half_open_and_prefixes_are_prefixes(alphabet: Web, reverse: bool) -> None:
    def keys(query: str) -> list[str]:
        found = pages(alphabet, query + "&limit=9" + ("&reverse=1" if reverse else ""))
        return found[::-1] if reverse else found

    assert keys("start=k098&end=z") == ["k098", "k099"]
    assert keys("prefix=k09") == [f"k{n:03}" for n in range(90, 100)]
    assert keys("prefix=k09&start=k095&end=k097") == ["k095", "k096"]
    assert keys("prefix_base64=/w==") == ["/w=="]
    assert keys("prefix=%FF") == ["/w=="]
    assert keys("start=z&end=a") == []
    assert keys("prefix=nothing") == []


def test_a_cursor_belongs_to_its_direction(alphabet: Web) -> None:
    cursor = alphabet.ask("GET", "/v1/kv?limit=1").body["cursor"]
    answer = alphabet.ask("GET", f"/v1/kv?limit=1&reverse=true&cursor={cursor}")
    assert answer.status == 400


def test_values_of_a_page_may_be_text(alphabet: Web) -> None:
    body = alphabet.ask("GET", "/v1/kv?limit=1&encoding=utf-8").body
    assert body["items"] == [{"key": "a", "value": "v", "encoding": "utf-8"}]
    alphabet.put("a", b"\xff")
    assert alphabet.ask("GET", "/v1/kv?limit=1&encoding=utf-8").status == 400
    assert alphabet.ask("GET", "/v1/kv/a?encoding=utf-8").status == 400


# -- batches ---------------------------------------------------------------------------------------


def test_a_batch_is_all_or_nothing_and_says_which_check_failed(web: Web) -> None:
    def batch(*ops: dict[str, Any]) -> Answer:
        return web.ask("POST", "/v1/batch", {"ops": list(ops)})

    create = [
        {"op": "check", "key": "a", "exists": False},
        {"op": "put", "key": "a", "value": "1", "encoding": "utf-8"},
        {"op": "put", "key": "b", "value": "1", "encoding": "utf-8", "ttl": 100},
    ]
    assert batch(*create).status == 200
    again = batch(*create)
    assert (again.status, again.code, again.body["error"]["op"]) == (409, "check_failed", 0)
    failed = batch(
        {"op": "check", "key": "a", "value": "1", "encoding": "utf-8"},
        {"op": "put", "key": "a", "value": "2", "encoding": "utf-8"},
        {"op": "check", "key": "b", "value": "2", "encoding": "utf-8"},
        {"op": "delete", "key": "b"},
    )
    assert (failed.status, failed.body["error"]["op"]) == (409, 2)
    assert web.ask("GET", "/v1/kv/a?encoding=utf-8").body["value"] == "1"
    with web.running.connect() as resp:
        assert 0 < resp.ask(b"TTL", b"b") <= 100
    assert batch(
        {"op": "check", "key": "a", "exists": True}, {"op": "delete", "key": "a"}
    ).status == 200  # fmt: skip
    assert web.ask("GET", "/v1/kv/a").status == 404
    assert batch().status == 200


def test_concurrent_checks_let_one_of_them_win(web: Web) -> None:
    web.put("n", b"0")
    wins: list[int] = []

    def race() -> None:
        with Web(web.running) as mine:
            for _ in range(20):
                text = mine.ask("GET", "/v1/kv/n").body["value"]
                value = base64.b64encode(b"%d" % (int(base64.b64decode(text)) + 1)).decode()
                ops = [
                    {"op": "check", "key": "n", "value": text},
                    {"op": "put", "key": "n", "value": value},
                ]
                wins.append(mine.ask("POST", "/v1/batch", {"ops": ops}).status)

    racers = [threading.Thread(target=race) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert set(wins) <= {200, 409}
    final = base64.b64decode(web.ask("GET", "/v1/kv/n").body["value"])
    assert int(final) == wins.count(200)


# -- committing ------------------------------------------------------------------------------------


def test_u3_a_write_is_answered_once_it_is_on_disk_and_so_is_who_reads_it(tmp_path: Path) -> None:
    env = GatedEnv()
    put = (
        b"PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b'Content-Length: 13\r\n\r\n{"value": ""}'
    )
    get = b"GET /v1/kv/k HTTP/1.1\r\nHost: localhost\r\n\r\n"
    scan = b"GET /v1/kv HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving(tmp_path, env, http_port=0) as running, Web(running) as other:
        clients = [running.connect("http") for _ in range(3)]
        env.close_gate()
        clients[0].send(put)
        assert env.waiting.acquire(timeout=20)
        clients[1].send(get)
        clients[2].send(scan)
        for _ in range(3):
            assert other.ask("GET", "/v1/kv/settled").status == 404
        assert all(client.nothing_came() for client in clients)
        env.open_gate()
        for client in clients:
            assert client.read(15) == b"HTTP/1.1 200 OK"
            client.socket.close()


# -- who is let in ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:5", "192.168.1.2", "a.localhost"]
)
def test_a1_this_machines_names_and_addresses_are_answered(quick: Web, host: str) -> None:
    assert quick.ask("GET", "/v1/health", headers={"Host": host}).status == 200


def test_a1_allowed_hosts_are_answered(tmp_path: Path) -> None:
    named = serving(tmp_path, http_port=0, allowed_hosts=["Store.Example"])
    with named as running, Web(running) as web:
        for host, status in (("store.example:80", 200), ("other.example", 421)):
            assert web.ask("GET", "/v1/health", headers={"Host": host}).status == status
    with serving(tmp_path, http_port=0, allowed_hosts=["*"]) as running, Web(running) as web:
        assert web.ask("GET", "/v1/health", headers={"Host": "other.example"}).status == 200


def test_a_page_of_this_very_server_may_write(quick: Web) -> None:
    host, port = quick.running.address("http")
    same = {"Origin": f"http://{host}:{port}", "Sec-Fetch-Site": "same-origin"}
    assert quick.ask("PUT", "/v1/kv/k", b'{"value": ""}', same).status == 200


def test_a2_with_a_password_everything_but_the_probes_wants_it(tmp_path: Path) -> None:
    right = {"Authorization": "Basic " + base64.b64encode(b"any:ses:ame").decode()}
    bearer = {"Authorization": "Bearer ses:ame"}
    with serving(tmp_path, http_port=0, password="ses:ame") as running, Web(running) as web:
        paths = ["/v1/kv/k", "/v1/kv", "/v1/stats", "/metrics", "/openapi.json"]
        for path in paths:
            refused = web.ask("GET", path)
            assert (refused.status, refused.code) == (401, "unauthorized")
            assert refused.headers["www-authenticate"].startswith("Basic")
        for path in ("/livez", "/readyz", "/v1/health"):
            assert web.ask("GET", path).status == 200
        wrong = {"Authorization": "Bearer wrong"}
        assert web.ask("PUT", "/v1/kv/k", b'{"value": ""}', wrong).status == 401
        assert web.ask("PUT", "/v1/kv/k", b'{"value": ""}', right).status == 200
        assert web.ask("GET", "/v1/kv/k", headers=bearer).status == 200
        assert web.ask("GET", "/v1/kv/k", headers={"Authorization": "Basic !"}).status == 401
        assert web.ask("GET", "/v1/kv/k", headers={"Authorization": "Digest x"}).status == 401
        with running.connect() as resp:
            resp.ask(b"AUTH", b"ses:ame")
            resp.ask(b"CONFIG", b"SET", b"requirepass", b"other")
        assert web.ask("GET", "/v1/kv/k", headers=bearer).status == 401
        new = {"Authorization": "Bearer other"}
        assert web.ask("GET", "/v1/kv/k", headers=new).status == 200


# -- for machines ----------------------------------------------------------------------------------


def test_metrics_have_names_with_units_and_no_keys(quick: Web) -> None:
    quick.put("secret-key", b"v")
    quick.ask("GET", "/v1/kv/missing")
    with quick.running.connect() as resp:
        resp.ask(b"GET", b"secret-key")
    answer = quick.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.raw.decode()
    assert "secret-key" not in text
    for line in (
        'marram_keys{keyspace="0"} 1.0',
        'marram_commands_total{command="get"} 2.0',
        'marram_http_requests_total{route="get",status="404"} 1.0',
        "marram_log_sync_duration_seconds_count 1.0",
        "marram_groups_total 1.0",
        "marram_unsynced_bytes 0.0",
        "marram_failed 0.0",
    ):
        assert line in text.splitlines()
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(line.startswith("marram_") for line in samples)


def test_connections_survive_many_requests_and_pipelining(quick: Web) -> None:
    request = b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with quick.running.connect("http") as client:
        client.send(request * 50)
        client.send(request.replace(b"Host", b"Connection: close\r\nHost"))
        assert client.rest().count(b"HTTP/1.1 200 OK") == 51
