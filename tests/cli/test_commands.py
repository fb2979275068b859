"""One command, one answer, one exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import marram
from marram import __version__, compiled
from marram.cli.app import _COMMANDS
from tests.cli.running import Cli
from tests.server.serving import Running, serving


@pytest.fixture
def cli(monkeypatch: Any, capfdbinary: Any) -> Cli:
    return Cli(monkeypatch, capfdbinary)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A directory with three keys in it."""
    directory = tmp_path / "d"
    with marram.open(directory) as db:
        db.put_many({b"a": b"1", "é".encode(): "ü".encode(), b"\xff": b"\x00"})
        db.keyspace(3).put(b"three", b"3")
    return directory


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Running]]:
    with serving(tmp_path) as running:
        host, port = running.address()
        yield f"{host}:{port}", running


# -- the group -------------------------------------------------------------------------------------


def test_help_lists_the_commands(cli):
    for flag in ("--help", "-h"):
        text = cli.ok(flag)
        for name in [*_COMMANDS, "version"]:
            assert f"\n  {name} " in text
    assert cli().code == 2


@pytest.mark.parametrize("name", [*_COMMANDS, "version"])
def test_every_command_has_help(cli, name):
    text = cli.ok(name, "--help")
    assert text.startswith(f"Usage: marram {name}")


def test_the_version_is_told(cli):
    assert re.fullmatch(
        rf"marram {__version__} \((compiled|interpreted), Python 3\.[0-9.]+\)\n", cli.ok("version")
    )
    told = json.loads(cli.ok("version", "--json"))
    assert (told["version"], told["leaves"]) == (__version__, compiled.state())
    assert cli.ok("--version") == f"{__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gett"], "No such command 'gett'. Did you mean 'get'?"),
        (["zzz"], "No such command 'zzz'."),
        (["--what"], "No such option '--what'"),
        (["get"], "Missing argument 'KEY'"),
        (["get", "a", "b"], "unexpected extra argument"),
        (["get", ""], "the key is empty"),
        (["get", "--hex", "xyz"], "'xyz' is not hex"),
        (["get", "--base64", "a"], "'a' is not base64"),
        (["get", "--hex", "--base64", "a"], "not both"),
        (["get", "--keyspace", "16", "a"], "--keyspace"),
        (["get", "--dir", "d", "--connect", "h", "a"], "--dir or --connect, not both"),
        (["get", "--ask-password", "a"], "--ask-password goes with --connect"),
        (["get", "--connect", "a:b:c", "a"], "'a:b:c' is not HOST:PORT"),
        (["put", "a"], "give VALUE, or --stdin"),
        (["put", "a", "b", "--stdin"], "give VALUE, or --stdin"),
        (["put", "a", "b", "--ttl", "0"], "--ttl"),
        (["put", "a", "b", "--ttl", "x"], "--ttl"),
        (["put", "", "b"], "the key is empty"),
        (["delete"], "Missing argument 'KEY...'"),
        (["scan", "--limit", "-1"], "--limit"),
        (["backup"], "Missing argument 'TARGET'"),
        (["serve", "--resp-port", "x"], "--resp-port"),
        (["serve", "--resp-prot", "1"], "--resp-prot"),
        (["serve", "--engine", "btree"], "must be one of"),
        (["serve", "--config", "/nowhere"], "/nowhere does not exist"),
        (["bench", "--clients", "0"], "--clients"),
        (["load", "/nowhere/file", "--bogus"], "--bogus"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(cli, arguments, message):
    done = cli(*arguments)
    assert done.code == 2
    assert done.out == b""
    assert done.error.startswith("Error: ")
    assert message in done.error
    assert "--help'" in done.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["get", "--dir", "{}/none", "k"], "none does not exist"),
        (["put", "--no-create", "--dir", "{}/none", "k", "v"], "none does not exist"),
        (["delete", "--dir", "{}/none", "k"], "none does not exist"),
        (["scan", "--dir", "{}/none"], "none does not exist"),
        (["stats", "--dir", "{}/none"], "none does not exist"),
        (["verify", "--dir", "{}/none"], "none does not exist"),
        (["dump", "--dir", "{}/none"], "none does not exist"),
        (["restore", "--dir", "{}/new", "{}/none"], "holds no store"),
        (["load", "--dir", "{}/new", "{}/none"], "No such file"),
        (["get", "--dir", "{}/other", "k"], "no store"),
        (["put", "--dir", "{}/file", "k", "v"], "file"),
        (["get", "--connect", "127.0.0.1:1", "k"], "cannot connect to 127.0.0.1:1"),
        (["shell", "--connect", "127.0.0.1:1", "-c", "PING"], "cannot connect"),
        (["bench", "--connect", "127.0.0.1:1"], "cannot connect"),
    ],
)
def test_failure_is_one_line_and_exit_code_1(cli, tmp_path, arguments, message):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").write_text("not ours")
    (tmp_path / "file").write_text("")
    done = cli(*(argument.replace("{}", str(tmp_path)) for argument in arguments))
    assert done.code == 1
    assert done.error.startswith("Error: ")
    assert message in done.error
    assert not (tmp_path / "none").exists()


# -- get, put, delete, scan ------------------------------------------------------------------------


def test_put_makes_a_store_and_get_prints_the_bytes(cli, tmp_path):
    place = ("--dir", tmp_path / "new")
    assert cli.ok("put", *place, "k", "v w") == "OK\n"
    assert cli("get", *place, "k").out == b"v w"
    assert json.loads(cli.ok("get", *place, "k", "--json")) == {"key": "k", "value": "v w"}
    assert json.loads(cli.ok("put", *place, "k", "v", "--json")) == {"ok": True}


def test_a_missing_key_is_exit_code_1(cli, store):
    done = cli("get", "--dir", store, "nope")
    assert (done.code, done.out, done.error) == (1, b"", "key not found")


def test_bytes_go_in_and_out_as_hex_or_base64(cli, store):
    place = ("--dir", store)
    assert cli.ok("get", *place, "--hex", "ff") == "00\n"
    assert cli.ok("get", *place, "--base64", "/w==") == "AA==\n"
    cli.ok("put", *place, "--hex", "00 01", "ABcd")
    assert cli("get", *place, "--base64", "AAE=").out == b"q80=\n"
    raw = cli("get", *place, "é")
    assert raw.out == "ü".encode()


def test_put_takes_a_value_from_stdin_whole(cli, store):
    cli.ok("put", "--dir", store, "k", "--stdin", stdin=b"a\x00\n\xff\n")
    assert cli("get", "--dir", store, "k").out == b"a\x00\n\xff\n"


def test_put_sets_a_deadline(cli, store):
    cli.ok("put", "--dir", store, "k", "v", "--ttl", "100")
    with marram.open(store) as db:
        assert 50 < db.ttl(b"k") <= 100


def test_arguments_that_are_no_text_are_bytes(cli, store):
    cli.ok("put", "--dir", store, "\udcfe", "\udcfd")
    assert cli("get", "--dir", store, "\udcfe").out == b"\xfd"


def test_delete_is_fine_where_nothing_is(cli, store):
    assert cli.ok("delete", "--dir", store, "a") == "OK\n"
    assert cli.ok("delete", "--dir", store, "a", "é") == "OK (1 of 2 existed)\n"
    assert json.loads(cli.ok("delete", "--dir", store, "a", "--json")) == {
        "ok": True,
        "deleted": 0,
    }


def test_keyspaces_are_chosen_by_number(cli, store):
    assert cli("get", "--dir", store, "-n", "3", "three").out == b"3"
    assert cli("get", "--dir", store, "--keyspace", "4", "three").code == 1
    cli.ok("put", "--dir", store, "-n", "4", "x", "y")
    assert cli.ok("scan", "--dir", store, "-n", "4") == "x\ty\n"


def test_scan_prints_a_line_each_that_cannot_be_misread(cli, store):
    place = ("--dir", store)
    assert cli.ok("scan", *place) == 'a\t1\né\tü\n"\\xff"\t"\\x00"\n'
    assert cli.ok("scan", *place, "--keys", "--reverse", "--limit", "2") == '"\\xff"\né\n'
    assert cli.ok("scan", *place, "--start", "b", "--stop", "\udcff") == "é\tü\n"
    assert cli.ok("scan", *place, "--prefix", "c3", "--hex") == "c3a9\tc3bc\n"
    lines = cli.ok("scan", *place, "--json").splitlines()
    assert list(map(json.loads, lines)) == [
        {"key": "a", "value": "1"},
        {"key": "é", "value": "ü"},
        {"key_base64": "/w==", "value": "\x00"},
    ]
    assert json.loads(cli.ok("scan", *place, "--json", "--keys", "--limit", "1")) == {"key": "a"}


def test_the_same_commands_work_on_a_server(cli, server):
    address, _ = server
    place = ("--connect", address)
    cli.ok("put", *place, "k", "v")
    cli.ok("put", *place, "-n", "2", "k", "other")
    assert cli("get", *place, "k").out == b"v"
    assert cli("get", *place, "-n", "2", "k").out == b"other"
    assert cli.ok("scan", *place) == "k\tv\n"
    assert cli.ok("delete", *place, "k") == "OK\n"
    assert cli("get", *place, "k").error == "key not found"
    assert json.loads(cli.ok("stats", *place, "--json"))["num_keys"] == 1
    assert cli.ok("checkpoint", *place) == "OK (generation 1)\n"
    assert cli("get", "--connect", f"marram://{address}/2", "k").out == b"other"


def test_a_directory_that_is_served_points_to_its_server(cli, server):
    address, running = server
    done = cli("get", "--dir", running.server.directory, "k")
    assert done.code == 1
    assert done.error.endswith(f"talk to its owner with --connect {address}")


def test_the_password_comes_from_the_environment_the_url_or_a_question(cli, tmp_path, monkeypatch):
    with serving(tmp_path, password="secret") as running:
        host, port = running.address()
        address = f"{host}:{port}"
        done = cli("get", "--connect", address, "k")
        assert done.code == 1
        assert "NOAUTH" in done.error
        assert cli("get", "--connect", f"marram://:secret@{address}", "k").error == "key not found"
        monkeypatch.setenv("MARRAM_PASSWORD", "secret")
        assert cli("get", "--connect", address, "k").error == "key not found"
        monkeypatch.setattr("click.prompt", lambda *about, **more: "wrong")
        done = cli("get", "--connect", address, "--ask-password", "k")
        assert "WRONGPASS" in done.error
        assert b"secret" not in done.err


# -- stats, checkpoint, backup, restore, verify ----------------------------------------------------


def test_stats_show_the_number_of_keys(cli, store):
    assert "\n  num_keys: 4\n" in cli.ok("stats", "--dir", store)
    figures = json.loads(cli.ok("stats", "--dir", store, "--json"))
    assert figures["keyspaces"]["3"]["keys"] == 1


def test_a_checkpoint_starts_a_generation(cli, store):
    assert cli.ok("checkpoint", "--dir", store) == "OK (generation 1)\n"
    assert json.loads(cli.ok("checkpoint", "--dir", store, "--json")) == {
        "ok": True,
        "generation": 2,
    }
    assert "4 rows in the checkpoint" in cli.ok("verify", "--dir", store)


def test_a_backup_is_restored(cli, store, tmp_path):
    before = cli.ok("dump", "--dir", store)
    assert "position 1-2" in cli.ok("backup", "--dir", store, tmp_path / "copy")
    cli.ok("put", "--dir", store, "later", "x")
    assert cli.ok("restore", "--dir", tmp_path / "again", tmp_path / "copy").startswith("OK")
    assert cli.ok("dump", "--dir", tmp_path / "again") == before
    done = cli("restore", "--dir", tmp_path / "again", tmp_path / "copy")
    assert done.code == 1
    assert "not empty" in done.error
    done = cli("backup", "--dir", store, store)
    assert done.code == 1
    figures = json.loads(cli.ok("backup", "--dir", store, tmp_path / "third", "--json"))
    assert figures["position"] == {"epoch": 1, "sequence": 3}
    restored = cli.ok("restore", "--dir", tmp_path / "fourth", tmp_path / "third", "--json")
    assert json.loads(restored)["ok"]


def test_verify_finds_a_damaged_byte(cli, store):
    text = cli.ok("verify", "--dir", store)
    assert "logfile.0" in text
    assert text.endswith("OK (0 rows in the checkpoint and the tables, 2 batches in the log)\n")
    assert json.loads(cli.ok("verify", "--dir", store, "--json"))["ok"] is True
    log = store / "logfile.0"
    data = bytearray(log.read_bytes())
    data[120] ^= 1
    log.write_bytes(data)
    done = cli("verify", "--dir", store)
    assert done.code == 1
    assert "logfile.0" in done.error
    done = cli("verify", "--dir", store, "--json")
    assert done.code == 1
    assert json.loads(done.out)["problems"]
    done = cli("get", "--dir", store, "a")
    assert done.code == 1
    assert "logfile.0 @ " in done.error
    done = cli("restore", "--dir", store.parent / "r", store)
    assert done.code == 1
    assert "damaged" in done.error


# -- shell -----------------------------------------------------------------------------------------

SESSION = b"""PUT user:1 {"name":"Alice","age":30}
GET user:1
PUT user:2 {"name":"Bob","age":25}
DELETE user:1
GET user:1
QUIT
"""


def test_a_piped_session_answers_line_by_line(cli, tmp_path):
    done = cli("shell", "--dir", tmp_path / "d", stdin=SESSION)
    assert done.code == 0
    assert done.text.splitlines() == [
        "OK",
        '{"name":"Alice","age":30}',
        "OK",
        "OK",
        "Error: key not found",
        "Shutting down...",
    ]
    assert cli.ok("shell", "--dir", tmp_path / "d", stdin=b"GET user:2") == (
        '{"name":"Bob","age":25}\n'
    )


def test_a_piped_session_on_a_server(cli, server):
    address, _ = server
    done = cli(
        "shell", "--connect", address, stdin=b"SET k \"\xff\n SET k '\xff'\nGET k\nSCAN\nquit\n"
    )
    assert done.text.splitlines() == [
        "Error: this quote is not closed (column 7)",
        "OK",
        '"\\xff"',
        'k\t"\\xff"',
        "Disconnected.",
    ]


def test_one_command_has_an_exit_code(cli, tmp_path, server):
    for place in (("--dir", tmp_path / "d"), ("--connect", server[0])):
        assert cli.ok("shell", *place, "-c", "PUT k v") == "OK\n"
        assert cli.ok("shell", *place, "-c", "GET k") == "v\n"
        assert cli.ok("shell", *place, "-n", "5", "-c", "DBSIZE") == "(integer) 0\n"
        for command, error in [
            ("GET nope", "Error: key not found"),
            ("GETT k", "Error: unknown command 'GETT'. Did you mean GET?"),
            ("GET 'k", "Error: this quote is not closed (column 5)"),
            ("INCR k", "Error: value is not an integer or out of range"),
        ]:
            done = cli("shell", *place, "-c", command)
            assert (done.code, done.out, done.error) == (1, b"", error)


def test_one_command_as_json(cli, tmp_path):
    place = ("--dir", tmp_path / "d", "--json")
    assert json.loads(cli.ok("shell", *place, "-c", "MSET a 1 b 2")) == "OK"
    assert json.loads(cli.ok("shell", *place, "-c", "MGET a nope b")) == ["1", None, "2"]
    assert json.loads(cli.ok("shell", *place, "-c", "SCAN LIMIT 1")) == [{"key": "a", "value": "1"}]
    assert json.loads(cli.ok("shell", *place, "-c", "STATS"))["num_keys"] == 2
    assert json.loads(cli.ok("shell", *place, "-c", "DELETE a zz")) == 1
    assert json.loads(cli.ok("shell", *place, "-c", "CONFIG GET maxmemory")) == {"maxmemory": "0"}


def test_dangerous_commands_do_not_ask_where_nobody_can_answer(cli, store):
    assert cli.ok("shell", "--dir", store, stdin=b"FLUSHALL\nDBSIZE\n") == "OK\n(integer) 0\n"


def test_the_shell_makes_no_store_where_it_is_told_not_to(cli, tmp_path):
    done = cli("shell", "--no-create", "--dir", tmp_path / "none", "-c", "PING")
    assert done.code == 1
    assert "does not exist" in done.error
