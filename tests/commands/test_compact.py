"""COMPACT and its subcommands, and VERIFY over tables."""

from __future__ import annotations

from typing import Any

import pytest

from marram.errors import Interrupted
from marram.node.deferred import Deferred
from marram.protocol.replies import OK, Simple
from tests.node.harness import ENGINES, PENDING, Client, World


@pytest.fixture
def lsm() -> Any:
    world = World(engine="lsm", memtable_bytes=4096)
    yield world
    world.close()


@pytest.fixture
def client(lsm: World) -> Client:
    return lsm.client()


def levels(world: World) -> list[dict[str, int]]:
    found: list[dict[str, int]] = world.store.stats()["lsm"]["levels"]
    return found


def filled(world: World, client: Client) -> None:
    """A tree of several levels, with rows in it that nobody sees any more."""
    for round_ in range(4):
        for number in range(100):
            client("SET", f"{number:04}", f"{round_}" * 50)
        world.settle()
    client("DEL", *(f"{number:04}" for number in range(50)))
    world.settle()


def test_compact_leaves_what_is_seen_and_nothing_else(lsm: World, client: Client) -> None:
    filled(lsm, client)
    assert sum(level["rows"] for level in levels(lsm)) > 50
    assert client("COMPACT") == OK
    (level,) = levels(lsm)
    assert (level["rows"], level["tombstones"]) == (50, 0)
    assert client("DBSIZE") == 50
    assert client("GET", "0099") == b"3" * 50


def test_compact_range_is_of_the_selected_database_and_half_open(
    lsm: World, client: Client
) -> None:
    client("SELECT", 1)
    client("SET", "a", "1")
    asked: list[object] = []
    lsm.store.compact = lambda where, progress: asked.append(where)  # type: ignore[method-assign]
    for start, stop in (("a", "b"), ("", "b"), ("a", ""), ("b", "b"), ("c", "b")):
        assert client("COMPACT", "RANGE", start, stop) == OK
    assert asked == [(1, b"a", b"b"), (1, b"", b"b"), (1, b"a", None)]


def test_on_the_memory_engine_compact_makes_a_checkpoint_and_says_so() -> None:
    world = World(**ENGINES["memory"], engine="memory")
    client = world.client()
    client("SET", "k", "v")
    reply = client("COMPACT")
    assert reply == Simple("OK (a checkpoint: the memory engine has no tables to compact)")
    assert world.store.generations.number == 1
    for word in ("PAUSE", "RESUME"):
        assert "has no tables" in client.error("COMPACT", word)
    assert client("COMPACT", "STATUS") == {b"engine": b"memory"}
    world.close()


def test_a_pause_lasts_until_it_is_ended(lsm: World, client: Client) -> None:
    assert client("COMPACT", "PAUSE") == OK
    filled(lsm, client)
    assert client("COMPACT", "STATUS")[b"paused"] == 1
    assert [level["level"] for level in levels(lsm)] == [0]
    assert "COMPACT RESUME" in client.error("COMPACT")
    assert client("COMPACT", "RESUME") == OK
    lsm.settle()
    assert client("COMPACT", "STATUS")[b"paused"] == 0
    assert levels(lsm)[-1]["level"] > 0


def test_status_says_what_is_owed_and_was_done(lsm: World, client: Client) -> None:
    filled(lsm, client)
    status = client("COMPACT", "STATUS")
    assert status[b"engine"] == b"lsm"
    assert status[b"merges"] + status[b"moves"] > 0
    assert status[b"requested"] == status[b"debt_bytes"] == 0
    assert status[b"running"] == status[b"error"] == b""


def test_one_at_a_time(lsm: World, client: Client) -> None:
    first = lsm.node.execute(client.session, [b"COMPACT"])
    assert isinstance(first, Deferred)
    assert lsm.client().error("COMPACT") == "ERR a compact is under way"
    lsm.settle()
    assert first.reply == OK
    assert client("COMPACT") == OK


def test_a_pause_during_it_is_told(lsm: World, client: Client) -> None:
    def compact(where: object, progress: object) -> None:
        raise Interrupted("compactions are paused")

    lsm.store.compact = compact  # type: ignore[method-assign]
    assert "compactions are paused" in client.error("COMPACT")


def test_it_is_for_operators_and_not_for_transactions(client: Client) -> None:
    client("MULTI")
    assert client.error("COMPACT") == "ERR Command not allowed inside a transaction"
    client("DISCARD")
    assert client.error("COMPACT", "RANGE", "a").startswith("ERR wrong number of arguments")
    assert client("COMPACT", "STATUS") is not PENDING


def test_verify_reads_the_tables_too(lsm: World, client: Client) -> None:
    filled(lsm, client)
    client("CHECKPOINT")
    report = client("VERIFY")
    assert (report[b"ok"], report[b"problems"], report[b"orphans"]) == (1, [], [])
    assert any(name.endswith(b".sst") for name, _ in report[b"checked"])


def test_info_tells_of_the_levels(lsm: World, client: Client) -> None:
    filled(lsm, client)
    client("COMPACT")
    text = client("INFO", "lsm").data.decode()
    fields = dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)
    (level,) = [text for name, text in fields.items() if name.startswith("level") and "=" in text]
    assert level.startswith("tables=")
    assert "rows=50,tombstones=0" in level
    assert float(fields["write_amplification"]) >= 1
    assert fields["memtable_limit_bytes"] == "4096"
    assert int(fields["compaction_merges"]) > 0


def test_info_of_the_memory_engine_has_no_such_section() -> None:
    world = World(engine="memory")
    assert b"# Lsm" not in world.client()("INFO", "everything").data
    world.close()
