"""Results are kept whole, without secrets, and shown and drawn from what was kept."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from marram.bench.compare_embedded import all_ratios
from marram.bench.compare_servers import met
from marram.bench.plot import footer, save_plot
from marram.bench.report import print_result, short
from marram.bench.results import check, envelope, masked, read_result, spread, write_result
from marram.errors import InvalidArgument
from tests.bench.samples import about, load_sample, replication_sample, server_sample


def embedded_sample() -> dict[str, Any]:
    one = {
        "marram-memory": {"fillrandom": 1000.0, "open": 0.5, "settle": 0.1},
        "lmdb": {"fillrandom": 500.0, "open": 1.0, "settle": 0.1},
        "dict": {"fillrandom": 90_000.0},
    }
    rounds = [one, {**one, "lmdb": {"fillrandom": 250.0, "open": 1.0, "settle": 0.1}}]
    return envelope(
        "embedded", about(versions={"lmdb": "1.6", "dict": ""}),
        {"keys": 100, "rounds": 2, "memory_mb": 16},
        stores={name: {"version": "1", "note": "single puts"} for name in one},
        units={"fillrandom": "1/s"}, rounds=rounds, ratios=all_ratios(rounds, list(one)),
    )  # fmt: skip


SAMPLES = {
    "load": load_sample,
    "server": server_sample,
    "one peer": lambda: server_sample(("redis-server",)),
    "embedded": embedded_sample,
    "replication": replication_sample,
}


def pixels(path: Path) -> tuple[int, int, bytes]:
    """Width, height and the unpacked image data of a PNG."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    parts, at = [], 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            parts.append(data[at + 8 : at + 8 + size])
        at += size + 12
    return width, height, zlib.decompress(b"".join(parts))


@pytest.mark.parametrize("name", SAMPLES)
def test_r2_what_was_written_is_read_again(tmp_path, name):
    result = SAMPLES[name]()
    path = str(tmp_path / "result.json")
    write_result(result, path)
    assert read_result(path) == json.loads(json.dumps(result)) == check(result)


@pytest.mark.parametrize("name", SAMPLES)
def test_r1_a_result_says_what_it_was_measured_on_and_no_password(name):
    result = SAMPLES[name]()
    text = json.dumps(result)
    assert "secret" not in text
    assert result["about"]["command"] == (
        "marram bench load --connect marram://***@127.0.0.1:7379 --clients 2"
    )
    assert {"cpu", "kernel", "python", "versions", "durability", "started"} <= set(result["about"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://u:p@h:1/x", "http://***@h:1/x"),
        ("--connect marram://:p%40@h", "--connect marram://***@h"),
        ("--connect h:1", "--connect h:1"),
        ("http://h:1 a@b", "http://h:1 a@b"),
    ],
)
def test_r1_passwords_in_urls_are_masked(text, shown):
    assert masked(text) == shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"marram_bench": 2}, "format 2"),
        ({"kind": "race"}, "unknown kind"),
        ({"about": {"cpu": "x"}}, "does not say its"),
    ],
)
def test_r2_what_is_no_result_is_refused_with_a_reason(tmp_path, change, message):
    path = tmp_path / "result.json"
    path.write_text(json.dumps({**load_sample(), **change}))
    with pytest.raises(InvalidArgument, match=message):
        read_result(str(path))


@pytest.mark.parametrize("text", ["", "[]", "{}", "no JSON"])
def test_r2_any_other_file_is_refused(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=r"other\.json: "):
        read_result(str(path))


@pytest.mark.parametrize("member", ["settings", "histogram", "latency_ms", "target"])
def test_r2_a_result_without_a_member_is_refused(member):
    result = load_sample()
    del result[member]
    with pytest.raises(InvalidArgument, match=member):
        check(result)


def test_a_loads_figures_are_those_that_were_measured():
    result = load_sample()
    assert (result["requests"], result["requests_per_s"]) == (2000, 1000.0)
    latency = result["latency_ms"]
    assert latency["min"] == 1.0
    assert latency["max"] == 2.999
    assert latency["p50"] == pytest.approx(2.0, rel=0.01)
    assert latency["p99"] == pytest.approx(2.98, rel=0.01)
    assert result["kinds"]["read"]["latency_ms"]["max"] == 1.999
    assert set(result["kinds"]) == {"read", "update"}
    assert result["settings"]["mix"] == {"read": 0.5, "update": 0.5}


def test_a_spread_is_median_and_range():
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_ratios_are_taken_pair_by_pair_and_compared_with_the_target():
    rows = {row["name"]: row for row in server_sample()["rows"]}
    assert rows["set-50"]["ratios"]["redis-server"] == {"median": 2.0, "min": 2.0, "max": 2.0}
    assert rows["set-50"]["ratios"]["valkey-server"]["median"] == 1.0
    assert met(rows["set-50"], "redis-server")
    assert not met(rows["set-50"], "valkey-server")  # 1.0 of 1.2
    assert met(rows["memory"], "redis-server")  # 0.5 of at most 1.3
    assert rows["set-50"]["p99_ms"] == {"redis-server": 1.5, "valkey-server": 1.5, "marram": 1.0}


def test_ratios_of_stores_are_taken_round_by_round():
    found = embedded_sample()["ratios"]["marram-memory / lmdb"]
    assert found["fillrandom"] == {"median": 3.0, "min": 2.0, "max": 4.0}
    assert found["open"]["median"] == 0.5
    assert "settle" not in found
    assert set(embedded_sample()["ratios"]["marram-memory / dict"]) == {"fillrandom"}


# -- on a terminal ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "load",
            ["Some CPU", "sync", "2,000 requests in 2.00 s", "p99.9", "update", "--clients 2"],
        ),
        ("server", ["redis-server 1.2.3", "2.00 (2.00-2.00)", ">= 1.2", "<= 1.3", "14 of 14"]),
        (
            "replication",
            [
                "2 cores for a primary",
                "0.90 (0.90-0.90)",
                "costs 10% of the throughput",
                "15%: met",
                "+11% of the primary's",
                "as a client sees it",
                "8.0 (8.0)",
                "21.5 (21.5)",
                "15,000",
                "51.5",
                "the log",
            ],
        ),
        ("embedded", ["fillrandom 1/s", "3.00 (2.00-4.00)", "0.500", "marram-memory / each other"]),
    ],
)
def test_a_table_shows_the_figures_and_what_they_were_measured_on(capsys, name, words):
    print_result(SAMPLES[name]())
    out = capsys.readouterr().out
    for word in words:
        assert word in out
    assert "\x1b" not in out  # no colours outside a terminal


def test_a_missed_target_is_named(capsys):
    result = server_sample()
    result["rows"][0]["ratios"]["redis-server"]["median"] = 0.5
    print_result(result)
    assert "13 of 14 targets against redis-server met; missed: set-1" in capsys.readouterr().out


def test_ratios_have_the_digits_that_say_something():
    assert [short(one) for one in (0.049, 1.0, 99.994, 432.1, 4321.0)] == [
        "0.05", "1.00", "99.99", "432", "4,321"
    ]  # fmt: skip


# -- pictures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLES)
def test_every_kind_of_result_becomes_a_picture(tmp_path, name):
    path = tmp_path / "one.png"
    save_plot([SAMPLES[name]()], str(path))
    width, height, data = pixels(path)
    assert width > 1000
    assert height > 300
    assert len(set(data)) > 50  # it is not blank


def test_a_picture_follows_from_the_figures(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    other = load_sample()
    other["histogram"]["buckets"][-1][0] += 300
    other["histogram"]["maximum"] *= 100
    for path, result in zip(paths, (load_sample(), load_sample(), other), strict=True):
        save_plot([result], str(path))
    first, again, changed = map(pixels, paths)
    assert first == again != changed


def test_below_a_picture_is_what_it_takes_to_run_it_again():
    lines = "\n".join(footer([server_sample()]))
    for word in ("2 x Some CPU", "8 GiB", "ext4", "Linux 6.1", "redis-server 1.2.3", "abc1234",
                 "durability: sync", "$ marram bench load --connect marram://***@"):  # fmt: skip
        assert word in lines


def test_several_loads_share_a_picture_and_their_footer_says_things_once(tmp_path):
    save_plot([load_sample(), load_sample()], str(tmp_path / "both.png"))
    assert footer([load_sample(), load_sample()]) == footer([load_sample()])


def test_results_that_do_not_go_together_are_refused(tmp_path):
    for results in ([], [load_sample(), server_sample()], [server_sample(), server_sample()]):
        with pytest.raises(InvalidArgument):
            save_plot(results, str(tmp_path / "x.png"))
    assert list(tmp_path.iterdir()) == []


def test_a_load_of_no_requests_can_be_drawn(tmp_path):
    result = load_sample()
    result["histogram"] = {**result["histogram"], "count": 0, "buckets": [], "total": 0}
    result["timeline"] = []
    save_plot([result], str(tmp_path / "none.png"))
    assert pixels(tmp_path / "none.png")[0] > 1000
