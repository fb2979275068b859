"""marram bench on the command line: every subcommand, run for real on little."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from marram.bench.programs import peers
from marram.bench.results import check, read_result, write_result
from marram.cli.bench import _live
from tests.bench.samples import load_of, load_sample, server_sample
from tests.cli.running import DEADLINE_S, Cli, process
from tests.server.serving import serving

SMALL = ("--requests", "300", "--clients", "3", "--keys", "9")


@pytest.fixture
def cli(monkeypatch: Any, capfdbinary: Any) -> Cli:
    return Cli(monkeypatch, capfdbinary)


@pytest.fixture
def hasty(monkeypatch):
    """Background work is short after so little, and the garbage is pytest's."""
    monkeypatch.setattr("marram.bench.machine.SETTLED_S", 0.05)
    monkeypatch.setattr("gc.collect", lambda: 0)


# -- load ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("load",)])
def test_without_a_server_it_starts_one_of_its_own(cli, tmp_path, words):
    text = cli.ok("bench", *words, "--dir", tmp_path, *SMALL)
    assert "300 requests in" in text
    assert "p99.9" in text
    assert "durability: sync" in text
    assert f"command: marram bench {' '.join([*words, '--dir'])}" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("protocol", ["resp", "http", "frame"])
def test_json_is_the_result_whatever_the_protocol(cli, tmp_path, protocol):
    text = cli.ok(
        "bench", "--dir", tmp_path, "--durability", "none", "--engine", "lsm", "--protocol",
        protocol, *SMALL, "--read-ratio", "0", "--size", "0-9", "--json",
    )  # fmt: skip
    result = check(json.loads(text))
    assert (result["requests"], result["errors"], result["unsent"]) == (300, 0, 0)
    assert result["settings"]["size_bytes"] == [0, 9]
    assert result["settings"]["mix"] == {"update": 1.0}
    assert result["about"]["durability"] == "none"
    assert result["about"]["versions"] == {"marram (lsm)": result["about"]["marram"]}
    assert {"p50", "p99", "p99.9", "max"} < set(result["latency_ms"])


def test_a_load_goes_to_the_server_that_is_named(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("MARRAM_PASSWORD", "pw")
    with serving(tmp_path, password="pw", durability="interval") as running:
        host, port = running.address()
        result = json.loads(
            cli.ok("bench", "--connect", f"{host}:{port}", *SMALL, "--ycsb", "A", "--json")
        )
        keys = running.call(lambda server: server.store.stats()["num_keys"])
    assert keys == 9
    assert result["about"]["durability"] == "interval"
    assert result["settings"]["distribution"] == "zipfian"
    assert result["settings"]["size_bytes"] == [1000, 1000]
    assert result["fill"]["records"] == 9


def test_no_fill_leaves_out_the_load_phase(cli, tmp_path):
    with serving(tmp_path) as running:
        host, port = running.address()
        named = ("bench", "--connect", f"{host}:{port}", *SMALL, "--read-ratio", "1", "--json")
        result = json.loads(cli.ok(*named, "--no-fill"))
    assert (result["fill"], result["misses"]) == (None, 300)


def test_an_open_loop_of_seconds_by_two_processes_is_kept_and_drawn(cli, tmp_path):
    kept, drawn = tmp_path / "r.json", tmp_path / "r.png"
    cli.ok(
        "bench", "--dir", tmp_path, "--rate", "500", "--seconds", "0.5", "--processes", "2",
        "--clients", "4", "--keys", "9", "--output", kept, "--plot", drawn,
    )  # fmt: skip
    result = read_result(str(kept))
    assert result["requests"] == 250
    assert result["settings"]["rate_per_s"] == 500
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_the_passwords_of_urls_are_in_no_result(cli, tmp_path):
    with serving(tmp_path, password="a-secret") as running:
        host, port = running.address()
        url = f"marram://:a-secret@{host}:{port}"
        text = cli.ok("bench", "--connect", url, *SMALL, "--json")
    assert "a-secret" not in text
    assert f"marram://***@{host}:{port}" in json.loads(text)["about"]["command"]


def test_error_replies_make_it_fail(cli, tmp_path):
    with serving(tmp_path, memory_limit=1000) as running:
        host, port = running.address()
        done = cli(
            "bench", "--connect", f"{host}:{port}", "--requests", "10", "--clients", "1",
            "--size", "2000", "--read-ratio", "0", "--no-fill",
        )  # fmt: skip
    assert done.code == 1
    assert "9 error replies, the last one: OOM" in done.error
    assert "10 requests in" in done.text


def test_on_a_terminal_it_shows_how_far_it_is_and_how_fast(monkeypatch, capfd):
    monkeypatch.setattr("marram.cli.bench._SHOWN_EVERY_S", 0.01)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    for plan in (
        load_of(requests=1000, fill=True), load_of(requests=None, seconds=2.0, fill=True),
    ):  # fmt: skip
        with _live(plan) as told:
            assert told is not None
            told("fill", 50, 0.5)
            told("load", 500, 1.0)
            told("load", 501, 1.001)  # too soon to draw again
        shown = capfd.readouterr().err
        assert "fill" in shown
        assert "100/s" in shown
        assert "500/s" in shown
        assert "501" not in shown
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    with _live(load_of()) as told:
        assert told is None


def test_nobody_there_is_one_line(cli):
    done = cli("bench", "--connect", "127.0.0.1:1")
    assert done.code == 1
    assert done.error.startswith("Error: cannot connect to 127.0.0.1:1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--requests", "5", "--seconds", "5"], "one of them"),
        (["--ycsb", "a", "--read-ratio", "1"], "--ycsb says what the mix is"),
        (["--size", "5-4"], "the smaller size comes first"),
        (["--size", "big"], "no number of bytes"),
        (["--processes", "3", "--clients", "2"], "every process has at least one client"),
        (["--connect", "h:1", "--durability", "none"], "for a server of its own"),
        (["--connect", "https://h"], "https://"),
        (["--protocol", "frame", "--ycsb", "e"], "no ranges"),
        (["--rate", "0"], "--rate"),
        (["nonsense"], "nonsense"),
        (["server", "--only", "put"], "no work is called 'put'"),
        (["server", "--against", "oracle"], "not installed: oracle"),
        (["embedded", "--engines", "oracle"], "no store is called 'oracle'"),
        (["embedded", "--keys", "5"], "at least 100 keys"),
        (["replication", "--only", "speed"], "no part is called speed"),
        (["replication", "--replicas", "0"], "1 to 8 replicas"),
    ],
)
def test_bad_usage_is_told(cli, words, message):
    done = cli("bench", *words)
    assert done.code == 2
    assert message in done.error


def test_help_lists_what_there_is(cli):
    text = cli.ok("bench", "--help")
    for name in ("load", "server", "embedded", "replication", "plot"):
        assert f"\n  {name} " in text
    for name in ("load", "server", "embedded", "replication", "plot"):
        assert cli.ok("bench", name, "--help").startswith(f"Usage: marram bench {name}")


# -- comparisons -----------------------------------------------------------------------------------


def test_stores_are_compared_and_the_result_kept_and_drawn(cli, tmp_path, hasty):
    kept = tmp_path / "e.json"
    done = cli(
        "bench", "embedded", "--keys", "1000", "--quick", "--engines", "marram-memory,sqlite3,dict",
        "--dir", tmp_path, "--output", kept, "--plot", tmp_path / "e.png", "--json",
    )  # fmt: skip
    assert done.code == 0
    result = check(json.loads(done.text))
    assert set(result["stores"]) == {"marram-memory", "sqlite3", "dict"}
    assert set(result["ratios"]) == {"marram-memory / sqlite3", "marram-memory / dict"}
    assert b"round 1 of 1: sqlite3" in done.err
    assert read_result(str(kept)) == result
    assert (tmp_path / "e.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.skipif(not peers()[0], reason="needs redis-server or valkey-server")
@pytest.mark.parametrize("tool", [True, False])
def test_servers_are_compared_in_alternating_pairs(cli, tmp_path, hasty, monkeypatch, tool):
    if tool and not shutil.which("redis-benchmark"):
        pytest.skip("needs redis-benchmark")
    monkeypatch.setattr("marram.bench.programs.has_redis_benchmark", lambda: tool)
    monkeypatch.setattr("marram.bench.compare_servers.QUICK", 1000)
    monkeypatch.setattr("marram.bench.compare_servers._LATENCY_S", 300.0)
    peer = peers()[0][0].name
    done = cli(
        "bench", "server", "--quick", "--pairs", "2", "--against", peer, "--only", "set-50",
        "--only", "incr-50", "--only", "mixed-50", "--only", "latency", "--only", "memory",
        "--dir", tmp_path, "--plot", tmp_path / "s.png", "--json",
    )  # fmt: skip
    assert done.code == 0, done
    result = check(json.loads(done.text))
    rows = {row["name"]: row for row in result["rows"]}
    wanted = ["set-50", "incr-50", "mixed-50", "latency", "memory"]
    assert list(rows) == [name for name in wanted if tool or name != "incr-50"]
    for row in rows.values():
        assert [set(pair) for pair in row["pairs"]] == [{peer, "marram"}] * 2
        ratios = [pair["marram"] / pair[peer] for pair in row["pairs"]]
        assert row["ratios"][peer]["min"] == pytest.approx(min(ratios), abs=0.01)
    order = [line for line in done.err.decode().splitlines() if line.startswith("set-50 ")]
    assert len(order) == 2
    assert order[0].index(peer) < order[0].index("marram")
    told = rows["set-50"]["measured_by"]
    assert told.startswith("redis-benchmark" if tool else "marram bench load")
    said = next(line for line in done.err.decode().splitlines() if "highest rates" in line)
    highest = [float(text.replace(",", "")) for text in re.findall(r" ([0-9,]+)/s[,;]", said)]
    assert len(highest) == 2
    assert rows["latency"]["rate_per_s"] == pytest.approx(min(highest) / 2, abs=1)
    assert rows["memory"]["medians"]["marram"] > 10
    assert (b"incr-50 is left out" in done.err) == (not tool)
    assert [one.name for one in tmp_path.iterdir()] == ["s.png"]


@pytest.mark.slow
def test_replication_is_measured_kept_and_drawn(cli, tmp_path):
    kept, drawn = tmp_path / "r.json", tmp_path / "r.png"
    done = cli(
        "bench", "replication", "--quick", "--replicas", "1", "--clients", "4", "--seconds", "2",
        "--rate", "500", "--lag-seconds", "3", "--catch-up", "20000", "--dir", tmp_path,
        "--output", kept, "--plot", drawn, "--json",
    )  # fmt: skip
    assert done.code == 0, done
    result = check(json.loads(done.text))
    assert read_result(str(kept)) == result
    assert [row["name"] for row in result["set_ups"]] == [
        "alone", "1 replica", "1 replica, 1 received", "1 replica, 1 on disk",
    ]  # fmt: skip
    for row in result["set_ups"]:
        assert row["medians"]["requests_per_s"] > 0
        assert row["medians"]["primary_cpu_ms"] > 0
        assert (row["medians"]["replica_cpu_ms"] > 0) == bool(row["replicas"])
    assert result["lag"]["requests"] + result["lag"]["unsent"] == 150
    assert result["lag"]["samples"] > 0
    assert [row["level"] for row in result["failover"]] == ["local", "1 on disk"]
    assert result["failover"][1]["lost"] == 0
    assert all(row["acknowledged"] > 0 and row["written_ms"] for row in result["failover"])
    assert [(row["writes"], row["by"]) for row in result["catch_up"]] == [
        (2000, "the log"), (125, "the log"),
    ]  # fmt: skip
    assert drawn.read_bytes().startswith(b"\x89PNG")
    assert {one.name for one in tmp_path.iterdir()} == {"r.json", "r.png"}


@pytest.mark.slow
def test_parts_of_replication_can_be_left_out_and_lost_writes_fail(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("marram.bench.measure_replication.lost_writes", lambda result: ["2 lost"])
    done = cli(
        "bench", "replication", "--quick", "--replicas", "1", "--clients", "2", "--only",
        "throughput", "--durability", "none", "--dir", tmp_path,
    )  # fmt: skip
    assert done.code == 1
    assert done.err.decode().splitlines()[-1] == "Error: 2 lost"
    assert "1 replica" in done.text
    for word in ("received", "lag", "killed", "catching up"):
        assert word not in done.text.replace("--only throughput", "")


def test_rows_can_be_listed(cli):
    text = cli.ok("bench", "server", "--list", "--only", "get-*")
    assert [line.split()[0] for line in text.splitlines()] == ["get-50", "get-50-p16"]


def test_without_a_peer_there_is_nothing_to_compare_with(cli, monkeypatch):
    monkeypatch.setattr("marram.bench.programs.peers", lambda: ([], []))
    done = cli("bench", "server", "--quick")
    assert done.code == 1
    assert "neither redis-server nor valkey-server" in done.error


def test_interrupted_it_leaves_nothing_behind(tmp_path):
    command = [
        sys.executable, "-m", "marram.cli.main", "bench", "embedded", "--keys", "100", "--rounds",
        "1000", "--engines", "dict", "--dir", str(tmp_path),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith(b"round 1 "):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert out == b""
    assert b"Traceback" not in err
    assert list(tmp_path.iterdir()) == []


# -- pictures --------------------------------------------------------------------------------------


def test_results_are_drawn_again(cli, tmp_path):
    for name, result in (("a", load_sample()), ("b", server_sample())):
        write_result(result, str(tmp_path / f"{name}.json"))
    first, second = (str(tmp_path / f"{name}.json") for name in "ab")
    text = cli.ok("bench", "plot", first, second)
    pictures = [Path(line) for line in text.splitlines()]
    assert [path.name for path in pictures] == ["a.png", "b.png"]
    both = tmp_path / "both.png"
    assert cli.ok("bench", "plot", first, first, "--plot", both) == f"{both}\n"
    for path in (*pictures, both):
        assert path.read_bytes().startswith(b"\x89PNG")
    assert "only loads" in cli("bench", "plot", first, second, "--plot", both).error


def test_what_is_no_result_is_told(cli, tmp_path):
    path = tmp_path / "other.json"
    path.write_text("{}")
    done = cli("bench", "plot", path)
    assert (done.code, done.error) == (1, f"Error: {path}: this is no result of marram bench")


def test_without_matplotlib_one_line_says_what_to_install(tmp_path):
    write_result(load_sample(), str(tmp_path / "a.json"))
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "matplotlib.py").write_text("raise ModuleNotFoundError(name='matplotlib')\n")
    done = process("bench", "plot", tmp_path / "a.json", PYTHONPATH=str(hidden))
    assert (done.code, done.error) == (
        1, 'Error: matplotlib is not installed: pip install "marram[bench]"'
    )  # fmt: skip
