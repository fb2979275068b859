"""A server on the lsm engine: what cannot be read, what has to wait, what is shown."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import marram
from marram.protocol.frames import Op, Status, encode_request
from marram.protocol.replies import ErrorReply
from marram.server.app import ready_line
from tests.client.faces import url_of
from tests.server.serving import Running, serving

LSM = {"engine": "lsm", "memtable_bytes": 64 << 10}


def http(running: Running, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of one request."""
    host, port = running.address("http")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://{host}:{port}{path}", data, {"Content-Type": "application/json"}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def damaged(directory: Path) -> Path:
    """A store whose only table has a block with other bytes than were written."""
    data = directory / "data"
    with marram.open(data, **LSM) as db:
        db.put_many({b"%05d" % n: b"v" * 100 for n in range(5000)})
        db.compact()
        db.put(b"unharmed", b"v")
    table = max((data / "tables").iterdir(), key=lambda path: path.stat().st_size)
    with open(table, "r+b") as file:
        file.seek(200)
        file.write(b"\xff" * 16)
    return data


def first_key(data: Path) -> bytes:
    """A key whose block is damaged."""
    with marram.open(data) as db:
        for number in range(5000):
            try:
                db.get(b"%05d" % number)
            except marram.Corruption:
                return b"%05d" % number
    raise AssertionError("nothing is damaged")


def test_damage_is_an_error_reply_and_the_server_goes_on(tmp_path: Path) -> None:
    key = first_key(damaged(tmp_path))
    with serving(tmp_path, http_port=0, frame_port=0) as running, running.connect() as client:
        for command in (
            [b"GET", key], [b"MGET", b"unharmed", key], [b"APPEND", key, b"x"], [b"INCR", key],
            [b"GETSET", key, b"x"], [b"SCANRANGE", b"", b""], [b"KEYS", b"*"], [b"TTL", key],
        ):  # fmt: skip
            reply = client.ask(*command)
            assert isinstance(reply, ErrorReply), command
            assert reply.code == "CORRUPTION", command
            assert ".sst" in reply.text
        client.send(b"*1\r\n$5\r\nMULTI\r\n")
        client.command(b"SET", b"a", b"1")
        client.command(b"APPEND", key, b"x")
        client.command(b"EXEC")
        done = client.replies(4)[-1]
        assert [getattr(reply, "code", "OK") for reply in done] == ["OK", "CORRUPTION"]
        assert client.ask(b"GET", b"a") == b"1"  # as any error within EXEC: its command's alone
        assert client.ask(b"SET", key, b"new") is not None
        assert client.ask(b"GET", key) == b"new"  # what is above it is read first
        assert client.ask(b"GET", b"unharmed") == b"v"
        other = b"%05d" % (int(key) + 1)
        status, body = http(running, "GET", f"/v1/kv/{other.decode()}")
        assert (status, body["error"]["code"]) == (500, "corruption")
        assert http(running, "GET", "/readyz")[0] == 200
        with running.connect("frame") as frames:
            frames.send(encode_request(Op.GET, other, b""))
            size = int.from_bytes(frames.read(4), "little")
            assert frames.read(size)[0] == Status.ERROR == 2
            frames.send(encode_request(Op.GET, b"unharmed", b""))
            size = int.from_bytes(frames.read(4), "little")
            assert frames.read(size)[0] == Status.OK
        with marram.connect(url_of(running)) as db, pytest.raises(marram.Corruption):
            db.get(other)


def test_a_table_that_is_gone_is_an_error_reply(tmp_path: Path) -> None:
    with marram.open(tmp_path / "data", **LSM) as db:
        db.put_many({b"%05d" % n: b"v" * 100 for n in range(5000)})
        db.compact()
    with serving(tmp_path) as running, running.connect() as client:
        assert client.ask(b"SET", b"k", b"v") is not None
        shutil.rmtree(tmp_path / "data" / "tables")
        reply = client.ask(b"GET", b"04999")
        assert isinstance(reply, ErrorReply)
        assert reply.code in ("IOERR", "CORRUPTION")
        assert client.ask(b"GET", b"k") == b"v"


def test_a_flood_of_writes_waits_and_none_is_lost(tmp_path: Path) -> None:
    with serving(tmp_path, **LSM, http_port=0) as running, running.connect() as client:
        value = b"x" * 1000
        for first in range(0, 20_000, 500):
            for number in range(first, first + 500):
                client.command(b"SET", b"%06d" % number, value)
            assert not any(isinstance(reply, ErrorReply) for reply in client.replies(500))
        assert client.ask(b"DBSIZE") == 20_000
        stalls = running.call(lambda server: server.node.upkeep.stalls.figures())
        assert stalls["count"] > 0
        assert http(running, "GET", "/v1/stats")[1]["stalls"]["count"] >= stalls["count"]
        host, port = running.address("http")
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=20) as response:
            text = response.read().decode()
        assert re.search(r"^marram_stalls_total [1-9]", text, re.MULTILINE)
        assert re.search(r'^marram_lsm_level_rows\{level="\d"\} \d', text, re.MULTILINE)
        assert re.search(r"^marram_lsm_flushed_bytes_total [1-9]", text, re.MULTILINE)


def test_everybody_says_which_engine_it_really_is(tmp_path: Path) -> None:
    marram.open(tmp_path / "data", engine="lsm").close()
    with serving(tmp_path, http_port=0) as running, running.connect() as client:
        assert " engine=lsm " in running.call(ready_line)
        assert b"engine:lsm\r\n" in client.ask(b"INFO", b"marram")
        assert http(running, "GET", "/v1/stats")[1]["engine"] == "lsm"
        assert http(running, "POST", "/v1/compact") == (
            200, {"ok": True, "engine": "lsm", "message": "OK"},
        )  # fmt: skip
        with marram.connect(url_of(running)) as db:
            db.put(b"k", b"v")
            db.compact()
            db.compact(b"a", b"b")
            figures = db.stats()
            assert figures["engine"] == "lsm"
            assert [level["rows"] for level in figures["lsm"]["levels"]] == [1]
            assert figures["lsm"]["memtable"]["limit_bytes"] == 64 << 20


def test_the_wrong_engine_is_refused_in_one_line(tmp_path: Path) -> None:
    marram.open(tmp_path / "data", engine="lsm").close()
    done = subprocess.run(
        [sys.executable, "-m", "marram.cli.main", "serve", "--dir", str(tmp_path / "data"),
         "--engine", "memory", "--resp-port", "0", "--http-port", "off", "--frame-port", "off"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "marram convert" in done.stderr.splitlines()[-1]


def test_a_batch_that_is_held_back_over_http_is_done_all_the_same(tmp_path: Path) -> None:
    with serving(tmp_path, http_port=0) as running, running.connect() as client:
        ops = [
            {"op": "check", "key": "k", "exists": False},
            {"op": "put", "key": "k", "value": "dg=="},
        ]
        client.ask(b"CLIENT", b"PAUSE", b"300", b"WRITE")
        assert http(running, "POST", "/v1/batch", {"ops": ops}) == (200, {"ok": True})
        assert client.ask(b"GET", b"k") == b"v"
        client.ask(b"CLIENT", b"PAUSE", b"300")
        status, body = http(running, "POST", "/v1/batch", {"ops": ops})
        assert (status, body["error"]["op"]) == (409, 0)
        client.ask(b"CLIENT", b"PAUSE", b"300")
        status, body = http(running, "GET", "/v1/kv?prefix=k&limit=1")
        assert [item["key"] for item in body["items"]] == ["k"]
