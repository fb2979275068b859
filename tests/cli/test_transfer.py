"""dump and load: what goes out comes back, from a directory or over a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import marram
from marram.cli import transfer
from tests.cli.running import Cli
from tests.server.serving import serving


@pytest.fixture
def cli(monkeypatch: Any, capfdbinary: Any) -> Cli:
    return Cli(monkeypatch, capfdbinary)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    directory = tmp_path / "d"
    with marram.open(directory) as db:
        db.put_many({b"%05d" % number: b"v" * (number % 50) for number in range(2500)})
        db.put(b"ttl", b"x", ttl=1000)
        db.put(b"\xff", b"\xfe")
        db.keyspace(7).put(b"seven", "sieben ☃".encode(), ttl=500)
        db.keyspace(9).put(b"nine", b"9")
    return directory


def contents(directory: Path) -> dict[int, list[Any]]:
    with marram.open(directory, create=False) as db:
        return {
            number: [
                (key, value, round(db.keyspace(number).ttl(key) or 0, -1))
                for key, value in db.keyspace(number).scan()
            ]
            for number in range(16)
        }


def test_a_store_survives_the_way_through_a_file(cli, store, tmp_path):
    dumped = tmp_path / "dump.jsonl"
    assert cli.ok("dump", "--dir", store, dumped) == ""
    assert dumped.read_bytes().count(b"\n") == 2504
    assert cli.ok("load", "--dir", tmp_path / "new", dumped) == "OK (2504 records)\n"
    assert contents(tmp_path / "new") == contents(store)


def test_a_store_survives_the_way_through_a_pipe_and_two_servers(cli, store, tmp_path):
    with serving(tmp_path / "one") as one, serving(tmp_path / "two") as two:
        first, second = (":".join(map(str, running.address())) for running in (one, two))
        done = cli("dump", "--dir", store)
        assert cli.ok("load", "--connect", first, stdin=done.out) == "OK (2504 records)\n"
        again = cli("dump", "--connect", first)
        assert again.out == done.out
        report = cli.ok("load", "--connect", second, "--json", stdin=again.out)
        assert json.loads(report) == {"ok": True, "records": 2504, "expired": 0}
        directory = Path(two.server.directory)
    assert contents(directory) == contents(store)


def test_one_keyspace_can_be_dumped_alone(cli, store, tmp_path):
    (line,) = cli.ok("dump", "--dir", store, "-n", "9").splitlines()
    assert json.loads(line) == {"key": "nine", "value": "9", "keyspace": 9}
    with serving(tmp_path) as running:
        address = ":".join(map(str, running.address()))
        cli.ok("load", "--connect", address, stdin=cli("dump", "--dir", store).out)
        assert cli.ok("dump", "--connect", address, "-n", "9").splitlines() == [line]
        assert cli.ok("dump", "--connect", address, "-n", "10") == ""


def test_a_dump_replaces_no_file(cli, store, tmp_path):
    (tmp_path / "there").write_text("precious")
    done = cli("dump", "--dir", store, tmp_path / "there")
    assert done.code == 2
    assert "exists" in done.error
    assert (tmp_path / "there").read_text() == "precious"


def test_a_dump_that_fails_leaves_no_file(cli, store, tmp_path, monkeypatch):
    def fail(row: Any) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transfer, "dump_line", fail)
    done = cli("dump", "--dir", store, tmp_path / "file")
    assert done.code == 1
    assert done.error == "Error: No space left on device"
    assert not (tmp_path / "file").exists()


def test_records_overwrite_and_others_stay_and_the_past_is_left_out(cli, tmp_path):
    directory = tmp_path / "d"
    with marram.open(directory) as db:
        db.put_many({b"a": b"old", b"b": b"stays"})
    lines = b'{"key":"a","value":"new"}\n\n{"key":"c","value":"x","deadline_ms":1000}\n'
    assert cli.ok("load", "--dir", directory, stdin=lines) == "OK (1 records, 1 expired)\n"
    with marram.open(directory) as db:
        assert dict(db) == {b"a": b"new", b"b": b"stays"}


@pytest.mark.parametrize("where", ["directory", "server"])
def test_t2_a_bad_line_stops_before_its_batch(cli, tmp_path, monkeypatch, where):
    monkeypatch.setattr(transfer, "_BATCH_ROWS", 10)
    good = [b'{"key":"%03d","value":"v"}' % number for number in range(35)]
    lines = b"\n".join([*good, b'{"key":"x"}', b'{"key":"y","value":"z"}'])
    with serving(tmp_path) as running:
        place = (
            ("--dir", tmp_path / "e")
            if where == "directory"
            else ("--connect", ":".join(map(str, running.address())))
        )
        done = cli("load", *place, stdin=lines)
        assert done.code == 1
        assert done.error == (
            "Error: line 36: give either 'value' or 'value_base64'; lines 1 to 30 were loaded"
        )
        assert len(cli.ok("scan", *place, "--keys").splitlines()) == 30
        done = cli("load", *place, stdin=b"[]\n")
        assert done.error == "Error: line 1: a record is a JSON object; nothing was loaded"


def test_t2_a_batch_is_one_commit(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "_BATCH_ROWS", 10)
    lines = b"".join(b'{"key":"%03d","value":"v"}\n' % number for number in range(35))
    lines += b'{"key":"k","value":"v","keyspace":1}\n'
    cli.ok("load", "--dir", tmp_path / "d", stdin=lines)
    figures = json.loads(cli.ok("stats", "--dir", tmp_path / "d", "--json"))
    assert figures["position"]["sequence"] == 5


def test_a_key_that_is_too_long_is_refused_with_its_line(cli, tmp_path):
    line = json.dumps({"key": "k" * 70_000, "value": ""}).encode()
    done = cli("load", "--dir", tmp_path / "d", stdin=b'{"key":"a","value":""}\n' + line)
    assert done.code == 1
    assert "line 2: the key or the value is too long; nothing was loaded" in done.error
