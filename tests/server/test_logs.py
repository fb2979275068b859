"""Log lines: one event a line, safe to read, with nothing secret."""

from __future__ import annotations

import io
import json
import logging

import pytest

from marram.server.logs import REPEATS_MAX, RepeatFilter, event, installed, shown

HOSTILE = "a\r\nb\x1b[31m\u202ered"


def lines(form: str, level: str = "info") -> list[str]:
    stream = io.StringIO()
    logger = logging.getLogger("marram.test")
    with installed(form, level, stream):
        event(logger, logging.INFO, "client came", client=HOSTILE, count=3)
        logger.warning("key %s", HOSTILE)
        logger.debug("not shown at info")
        logging.getLogger("uvicorn.error").info("others' chatter")
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            logger.exception("broke")
    return stream.getvalue().splitlines()


def test_h1_json_is_one_ascii_object_a_record() -> None:
    records = [json.loads(line) for line in lines("json")]
    assert [record["event"] for record in records] == ["client came", f"key {HOSTILE}", "broke"]
    assert records[0]["client"] == HOSTILE
    assert records[0]["count"] == 3
    assert records[0]["logger"] == "marram.test"
    assert records[0]["level"] == "info"
    assert records[0]["time"].endswith("+00:00")
    assert "ValueError" in records[2]["traceback"]
    assert all(line.isascii() and "\x1b" not in line for line in lines("json"))


def test_h1_lines_for_people_escape_what_clients_sent() -> None:
    shown_lines = lines("human")
    assert shown_lines[0].endswith(r"test: client came  client=a\r\nb\x1b[31m\u202ered  count=3")
    assert r"warning test: key a\r\nb\x1b[31m\u202ered" in shown_lines[1]
    assert not any("\x1b" in line or "\u202e" in line for line in shown_lines)


def test_auto_is_json_where_nobody_watches() -> None:
    assert lines("auto")[0].startswith("{")


def test_the_level_is_the_least_severe_written() -> None:
    assert [json.loads(line)["level"] for line in lines("json", "error")] == ["error"]


def test_what_was_set_up_is_taken_down() -> None:
    logger = logging.getLogger("marram")
    before = (logger.level, logger.propagate, list(logger.handlers))
    lines("json")
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"key", "key"),
        (b"a\nb", r"a\nb"),
        (b"\xff\x00", r"\xff\x00"),
        (b"x" * 70, "x" * 64 + "... (70 bytes)"),
    ],
)
def test_h3_shown_is_short_and_printable(data: bytes, text: str) -> None:
    assert shown(data) == text


def record_at(second: float, name: str) -> logging.LogRecord:
    record = logging.LogRecord("marram.test", logging.INFO, "", 0, "%s", (name,), None)
    record.created = second
    return record


def test_h2_floods_are_cut_and_counted() -> None:
    repeats = RepeatFilter()
    written = sum(repeats.filter(record_at(5.0 + n / 1000, "error")) for n in range(100))
    assert written == REPEATS_MAX
    assert repeats.filter(record_at(5.5, "another"))
    next_one = record_at(6.0, "error")
    assert repeats.filter(next_one)
    assert next_one.marram_fields == {"left_out": 100 - REPEATS_MAX}  # type: ignore[attr-defined]
    after_that = record_at(6.1, "error")
    assert repeats.filter(after_that)
    assert not hasattr(after_that, "marram_fields")


def test_h2_different_floods_cost_bounded_memory() -> None:
    repeats = RepeatFilter()
    for number in range(5000):
        repeats.filter(record_at(5.0, f"error {number}"))
    assert len(repeats._counts) <= 1000
