"""compact, convert, --engine, and what stats and verify tell of tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import marram
from marram.storage.store import Store
from tests.cli.running import Cli
from tests.server.serving import serving


@pytest.fixture
def cli(monkeypatch: Any, capfdbinary: Any) -> Cli:
    return Cli(monkeypatch, capfdbinary)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An lsm store with two tables that say the same."""
    directory = tmp_path / "d"
    with marram.open(directory, engine="lsm") as db:
        for _ in range(2):
            db.put_many({b"%03d" % n: b"v" for n in range(100)})
            db.keyspace(3).put(b"three", b"3")
            db.checkpoint()
    return directory


def rows(directory: Path) -> int:
    with marram.open(directory) as db:
        return sum(level["rows"] for level in db.stats()["lsm"]["levels"])


def test_every_command_that_makes_a_store_takes_its_engine(cli: Cli, tmp_path: Path) -> None:
    cli.ok("put", "--dir", tmp_path / "put", "--engine", "lsm", "k", "v")
    cli.ok("shell", "--dir", tmp_path / "shell", "--engine", "lsm", "-c", "PUT k v")
    cli.ok("load", "--dir", tmp_path / "load", "--engine", "lsm",
           stdin=b'{"key":"k","value":"v"}\n')  # fmt: skip
    for name in ("put", "shell", "load"):
        assert cli.ok("scan", "--dir", tmp_path / name) == "k\tv\n"
        figures = json.loads(cli.ok("stats", "--dir", tmp_path / name, "--json"))
        assert figures["engine"] == "lsm"
    done = cli("put", "--dir", tmp_path / "put", "--engine", "memory", "k", "v")
    assert done.code == 1
    assert "marram convert" in done.error


@pytest.mark.parametrize("words", [["put", "k", "v"], ["shell", "-c", "PING"], ["load"]])
def test_a_server_s_engine_is_its_own(cli: Cli, words: list[str]) -> None:
    done = cli(*words, "--connect", "127.0.0.1:1", "--engine", "lsm")
    assert done.code == 2
    assert "a server has its engine already" in done.error


def test_compact_says_what_came_of_it(cli: Cli, store: Path) -> None:
    assert rows(store) == 202
    text = cli.ok("compact", "--dir", store)
    assert text.startswith("OK (2 tables of ")
    assert rows(store) == 101
    told = json.loads(cli.ok("compact", "--dir", store, "--json"))
    assert (told["ok"], told["engine"], told["did"]) == (True, "lsm", "compact")
    assert told["tables"]["before"] == told["tables"]["after"]


def test_compact_takes_a_range_or_a_keyspace(
    cli: Cli, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(Store, "compact", lambda self, where, progress: asked.append(where))
    cli.ok("compact", "--dir", store, "-n", "3")
    cli.ok("compact", "--dir", store, "--start", "a")
    cli.ok("compact", "--dir", store, "--hex", "--start", "00", "--stop", "ff", "-n", "2")
    cli.ok("compact", "--dir", store)
    assert asked == [(3, b"", None), (0, b"a", None), (2, b"\x00", b"\xff"), None]


def test_compact_on_the_memory_engine_makes_a_checkpoint(cli: Cli, tmp_path: Path) -> None:
    cli.ok("put", "--dir", tmp_path / "m", "k", "v")
    text = cli.ok("compact", "--dir", tmp_path / "m")
    assert text == "OK (the memory engine has no tables: checkpoint, generation 1)\n"
    told = json.loads(cli.ok("compact", "--dir", tmp_path / "m", "--json"))
    assert told == {"ok": True, "engine": "memory", "did": "checkpoint", "generation": 2}


def test_a_server_compacts_beside_its_other_work(cli: Cli, tmp_path: Path) -> None:
    with serving(tmp_path, engine="lsm") as running:
        address = "{}:{}".format(*running.address())
        cli.ok("put", "--connect", address, "k", "v")
        assert cli.ok("compact", "--connect", address).startswith("OK (0 tables of 0 bytes before")
        told = json.loads(cli.ok("compact", "--connect", address, "--start", "a", "--json"))
        assert told["tables"] == {"before": 1, "after": 1}
        text = cli.ok("stats", "--connect", address)
        assert "\n  levels:\n" in text
        assert "\n  writers held back: never\n" in text
        with running.connect() as client:
            client.ask(b"COMPACT", b"PAUSE")
        done = cli("compact", "--connect", address)
        assert done.code == 1
        assert "COMPACT RESUME" in done.error


def test_convert_there_and_back(cli: Cli, store: Path, tmp_path: Path) -> None:
    dump = cli.ok("dump", "--dir", store)
    there, back = tmp_path / "memory", tmp_path / "lsm"
    text = cli.ok("convert", "--dir", store, "--to", there, "--engine", "memory")
    assert text == f"OK ({there} is of engine memory: 101 keys, position 1-4)\n"
    told = json.loads(cli.ok("convert", "--dir", there, "--to", back, "--engine", "lsm", "--json"))
    assert told == {
        "ok": True, "target": str(back), "engine": "lsm", "keys": 101,
        "position": {"epoch": 1, "sequence": 4},
    }  # fmt: skip
    assert cli.ok("dump", "--dir", there) == cli.ok("dump", "--dir", back) == dump
    assert cli("convert", "--dir", there, "--to", back, "--engine", "lsm").code == 1
    assert cli("convert", "--dir", store, "--to", tmp_path / "x", "--engine", "lsm").code == 1
    assert cli("convert", "--dir", store, "--to", tmp_path / "x", "--engine", "heap").code == 2


def test_stats_draws_the_levels_and_json_nests_them(cli: Cli, store: Path) -> None:
    for text in (cli.ok("stats", "--dir", store), cli.ok("shell", "--dir", store, "-c", "STATS")):
        assert "level  tables" in text
        assert "amplification:" in text
        assert "{'level'" not in text
    figures = json.loads(cli.ok("stats", "--dir", store, "--json"))
    assert figures["lsm"]["levels"][0]["tables"] == 2
    figures = json.loads(cli.ok("shell", "--dir", store, "--json", "-c", "STATS"))
    assert figures["lsm"]["levels"][0]["tables"] == 2


def test_verify_names_what_a_crash_left_and_finds_nothing_wrong(cli: Cli, store: Path) -> None:
    (store / "tables" / "999.sst").write_bytes(b"half a table")
    text = cli.ok("verify", "--dir", store)
    assert "999.sst: left by a crash, removed at the next opening\n" in text
    report = json.loads(cli.ok("verify", "--dir", store, "--json"))
    assert report["ok"]
    assert [Path(name).name for name in report["orphans"]] == ["999.sst"]
    assert cli.ok("get", "--dir", store, "001") == "v"
    assert not (store / "tables" / "999.sst").exists()
