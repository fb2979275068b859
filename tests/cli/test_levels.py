"""The picture of the lsm engine's levels."""

from __future__ import annotations

from typing import Any

from marram.cli.levels import levels_lines


def level(number: int, size: int, **more: int) -> dict[str, int]:
    return {"level": number, "tables": 2, "bytes": size, "rows": 1000, "tombstones": 3, **more}


CACHE = {"bytes": 1024, "limit_bytes": 4096, "hits": 3, "misses": 1}
LSM: dict[str, Any] = {
    "levels": [level(0, 1 << 20), level(6, 10 << 20, range_deletions=2)],
    "block_cache": CACHE,
    "table_cache": {**CACHE, "hits": 0, "misses": 0},
    "memtable": {"bytes": 512, "limit_bytes": 1024, "frozen": 1},
    "memory": {"bytes": 2048, "limit_bytes": 4096},
    "write_amplification": 4.5,
    "space_amplification": 1.1,
    "compaction_debt_bytes": 3 << 20,
    "throttle": 0.5,
    "compaction": {
        "running": "merge level 0", "paused": False, "merges": 2, "moves": 1, "drops": 0,
        "read_bytes": 2048, "written_bytes": 1024, "error": "",
    },
}  # fmt: skip


def test_bars_are_in_proportion_and_columns_line_up() -> None:
    lines = list(levels_lines(LSM))
    header, zero, six = lines[1:4]
    assert zero.count("#") * 10 == six.count("#") == 30
    assert header.index("rows") + len("rows") == zero.index("1,000") + len("1,000")
    assert "3 + 2 ranges" in six


def test_the_rest_is_said_in_words() -> None:
    text = "\n".join(levels_lines(LSM, {"count": 2, "ms": 1500}, block="="))
    assert "block cache: 75.0% of 4 found, 1.0 KiB of 4.0 KiB" in text
    assert "table cache: nothing asked yet" in text
    assert "memtable: 512 bytes of 1.0 KiB, 1 being flushed  " + "=" * 15 in text
    assert "amplification: 4.50 writing, 1.10 of space" in text
    assert "compactions: merge level 0; 3 done, 2.0 KiB read, 1.0 KiB written" in text
    assert "debt: 3.0 MiB, holding writers back by 50%" in text
    assert "writers held back: 2 times, 1,500 ms in all" in text


def test_a_pause_and_a_failure_are_seen() -> None:
    compaction = {**LSM["compaction"], "paused": True, "error": "no\x1b[2J space"}
    text = "\n".join(levels_lines({**LSM, "compaction": compaction}))
    assert "compactions: paused" in text
    assert "compactions failed: no?[2J space" in text


def test_an_empty_tree_and_figures_of_an_older_server_are_shown_as_far_as_they_go() -> None:
    text = "\n".join(levels_lines({"levels": []}))
    assert "no tables yet" in text
    assert "amplification: - writing, - of space" in text
