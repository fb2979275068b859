"""SNAPSHOT and COMMITAT: read views that stay put, and optimistic commits (H1-H3)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.commands import snapshots
from marram.node.settings import Settings
from marram.protocol.replies import OK, ErrorReply
from tests.node.harness import Client, World

CONFLICT = "CONFLICT something that was read has been written since the snapshot"


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.fixture
def client(world: World) -> Client:
    return world.client()


def opened(client: Client) -> int:
    snapshot_id, _ = client("SNAPSHOT", "OPEN")
    assert isinstance(snapshot_id, int)
    return snapshot_id


# -- reading ---------------------------------------------------------------------------------------


def test_h1_a_snapshot_stays_as_it_is(world: World, client: Client) -> None:
    client("MSET", "a", "1", "b", "2")
    at = opened(client)
    other = world.client()
    for words in (["SET", "a", "new"], ["DEL", "b"], ["SET", "c", "3"], ["FLUSHALL"]):
        other(*words)
        assert client("SNAPSHOT", "GET", at, "a", "b", "c") == [b"1", b"2", None]
        assert client("SNAPSHOT", "SCAN", at, "", "") == [None, [b"a", b"1", b"b", b"2"]]
    assert client("SNAPSHOT", "CLOSE", at) is OK
    assert world.store.engine.pinned == -1


def test_h1_time_stands_still_in_a_snapshot(world: World, client: Client) -> None:
    client("SET", "gone", "v", "PX", "5")
    client("SET", "soon", "v", "PX", "50")
    world.advance(10)
    at = opened(client)
    world.advance(100)
    assert client("SNAPSHOT", "GET", at, "gone", "soon") == [None, b"v"]
    assert client("SNAPSHOT", "SCAN", at, "", "") == [None, [b"soon", b"v"]]


def test_h1_a_snapshot_shows_the_keyspace_it_was_opened_in(client: Client) -> None:
    client("SET", "k", "zero")
    at = opened(client)
    client("SELECT", "1")
    client("SET", "k", "one")
    assert client("SNAPSHOT", "GET", at, "k") == [b"zero"]
    client("SWAPDB", "0", "1")
    assert client("SNAPSHOT", "GET", at, "k") == [b"zero"]


def test_an_answer_waits_for_the_snapshot_s_position(world: World, client: Client) -> None:
    client("SET", "k", "v")
    reader = world.client()
    snapshot_id, position = reader("SNAPSHOT", "OPEN")
    assert position == [world.store.epoch, world.store.last]
    assert reader.waits_for == world.store.last
    assert reader("SNAPSHOT", "GET", snapshot_id, "k") == [b"v"]
    assert reader.waits_for == world.store.last


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_goes_on_from_its_cursor(client: Client, limit: int, reverse: bool) -> None:
    keys = [b"k%03d" % number for number in range(20)]
    for key in keys:
        client("SET", key, b"v" + key)
    at = opened(client)
    client("FLUSHALL")
    found: list[bytes] = []
    start, stop = b"k002", b"k018"
    for _ in range(100):
        option = ["REV"] if reverse else []
        onward, rows = client("SNAPSHOT", "SCAN", at, start, stop, "LIMIT", limit, *option)
        assert len(rows) <= 2 * limit
        assert all(value == b"v" + key for key, value in zip(rows[::2], rows[1::2], strict=True))
        found += rows[::2]
        if onward is None:
            break
        if reverse:
            stop = onward
        else:
            start = onward
    wanted = keys[2:18]
    assert found == (wanted[::-1] if reverse else wanted)


def test_a_scan_ends_early_where_its_answer_is_large(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "MAX_ANSWER_BYTES", 250)
    for number in range(10):
        client("SET", f"k{number}", "x" * 98)
    at = opened(client)
    onward, rows = client("SNAPSHOT", "SCAN", at, "", "")
    assert rows[::2] == [b"k0", b"k1", b"k2"]
    onward, rows = client("SNAPSHOT", "SCAN", at, onward, "")
    assert rows[::2] == [b"k3", b"k4", b"k5"]
    onward, rows = client("SNAPSHOT", "SCAN", at, "", onward, "REV")
    assert rows[::2] == [b"k5", b"k4", b"k3"]


def test_changed_tells_whether_keys_or_ranges_were_written(world: World, client: Client) -> None:
    client("MSET", "a", "1", "m", "1")
    at = opened(client)
    world.client()("SET", "m", "1")
    ask = ["SNAPSHOT", "CHANGED", str(at)]
    assert client(*ask) == 0
    assert client(*ask, "READS", "1", "a", "RANGES", "1", "a", "b") == 0
    assert client(*ask, "READS", "2", "a", "m") == 1
    assert client(*ask, "RANGES", "2", "a", "b", "l", "") == 1


# -- COMMITAT --------------------------------------------------------------------------------------


def test_h2_a_commit_is_one_batch(world: World, client: Client) -> None:
    client("MSET", "a", "1", "b", "2", "c1", "x", "c2", "x")
    at = opened(client)
    last = world.store.last
    reply = client(
        "COMMITAT", at, "READS", "1", "a", "WRITES", "4",
        "PUT", "a", "new", "0", "DEL", "b", "DELRANGE", "c", "d",
        "PUT", "ttl", "v", world.store.now_ms() + 1000,
    )  # fmt: skip
    assert reply == [world.store.epoch, last + 1]
    assert client.waits_for == world.store.last == last + 1
    assert client("MGET", "a", "b", "c1", "c2", "ttl") == [b"new", None, None, None, b"v"]
    assert client("PTTL", "ttl") == 1000
    assert client.error("SNAPSHOT", "GET", at, "a") == "ERR no such snapshot", "it has ended"


@pytest.mark.parametrize(
    "read", [["READS", "2", "a", "k"], ["RANGES", "1", "j", "l"], ["RANGES", "1", "", ""]]
)
@pytest.mark.parametrize(
    "write", [["SET", "k", "v"], ["DEL", "k"], ["FLUSHDB"], ["SETNX", "kk", "v"]]
)
def test_h2_what_was_read_and_written_since_is_a_conflict(
    world: World, client: Client, read: list[str], write: list[str]
) -> None:
    client("MSET", "k", "v", "a", "v")
    at = opened(client)
    world.client()(*write)
    last = world.store.last
    reply = client("COMMITAT", at, *read, "WRITES", "1", "PUT", "new", "v", "0")
    if write[0] == "SETNX" and read[0] == "READS":
        assert not isinstance(reply, ErrorReply), "another key"
        return
    assert reply == ErrorReply(CONFLICT)
    assert world.store.last == last
    assert client.error("SNAPSHOT", "CLOSE", at) == "ERR no such snapshot"


def test_a_commit_without_reads_or_writes(world: World, client: Client) -> None:
    client("SET", "k", "v")
    at = opened(client)
    world.client()("SET", "k", "w")
    assert client("COMMITAT", at, "WRITES", "0") == [world.store.epoch, 1]
    assert client("COMMITAT", opened(client), "WRITES", "1", "DEL", "k") == [world.store.epoch, 3]


def test_a_commit_goes_where_the_snapshot_was_opened(client: Client) -> None:
    at = opened(client)
    client("SELECT", "5")
    client("COMMITAT", at, "WRITES", "1", "PUT", "k", "v", "0")
    assert client("GET", "k") is None
    client("SELECT", "0")
    assert client("GET", "k") == b"v"


def test_a_commit_spoils_who_watches(world: World, client: Client) -> None:
    watcher = world.client()
    watcher("WATCH", "k")
    client("COMMITAT", opened(client), "WRITES", "1", "PUT", "k", "v", "0")
    watcher("MULTI")
    assert watcher("EXEC") != []


MALFORMED = [
    ["WRITES", "1"],
    ["WRITES", "1", "PUT", "k", "v"],
    ["WRITES", "1", "NOSUCH", "k"],
    ["WRITES", "2", "DEL", "k"],
    ["WRITES", "1", "DEL", "k", "more"],
    ["WRITES", "-1"],
    ["READS", "1", "k"],
    ["READS", "9", "k", "WRITES", "0"],
    ["RANGES", "1", "k", "WRITES", "0"],
    ["RANGES", "1", "a", "b", "READS", "1", "k", "WRITES", "0"],
]


@pytest.mark.parametrize("words", MALFORMED, ids=" ".join)
def test_h2_a_malformed_commit_changes_nothing_and_keeps_the_snapshot(
    world: World, client: Client, words: list[str]
) -> None:
    at = opened(client)
    assert client.error("COMMITAT", at, *words) == "ERR syntax error"
    assert world.store.last == 0
    assert client("SNAPSHOT", "CLOSE", at) is OK


def test_a_commit_s_keys_values_and_deadlines_are_checked() -> None:
    world = World(max_key_bytes=8, max_value_bytes=8)
    client = world.client()
    at = opened(client)
    for words, text in {
        ("READS", "1", "x" * 9, "WRITES", "0"): "ERR key is longer than 8 bytes",
        ("WRITES", "1", "DEL", ""): "ERR key is empty",
        ("WRITES", "1", "PUT", "k", "v", "-1"): "ERR invalid expire time in 'commitat' command",
        ("WRITES", "1", "PUT", "k", "v", "x"): "ERR value is not an integer or out of range",
    }.items():
        assert client.error("COMMITAT", at, *words) == text
    assert client("COMMITAT", at, "RANGES", "1", "", "x" * 9, "WRITES", "0")
    at = opened(client)
    assert client.error("COMMITAT", at, "WRITES", "1", "PUT", "k", "x" * 9, "0") == (
        "ERR value is longer than 8 bytes"
    )
    assert world.store.last == 0


def test_snapshots_do_not_mix_with_multi(client: Client) -> None:
    client("MULTI")
    assert client.error("SNAPSHOT", "OPEN") == "ERR Command not allowed inside a transaction"
    assert client.error("COMMITAT", "1", "WRITES", "0").startswith("ERR Command not allowed ")


# -- limits ----------------------------------------------------------------------------------------


def test_snapshots_are_bounded_in_number_and_belong_to_their_session() -> None:
    world = World(settings=Settings(max_snapshots=2))
    client, other = world.client(), world.client()
    first = opened(client)
    opened(client)
    assert client.error("SNAPSHOT", "OPEN") == "ERR a connection may have 2 snapshots"
    assert other.error("SNAPSHOT", "GET", first, "k") == "ERR no such snapshot"
    client.close()
    assert world.store.engine.pinned == -1


def test_snapshots_are_bounded_in_age() -> None:
    world = World(settings=Settings(snapshot_age_s=10))
    client = world.client()
    at = opened(client)
    world.advance(9_999)
    world.node.tick()
    assert client("SNAPSHOT", "GET", at, "k") == [None]
    world.advance(1)
    world.node.tick()
    assert client.error("SNAPSHOT", "GET", at, "k") == "ERR no such snapshot"
    assert world.store.engine.pinned == -1


@pytest.mark.parametrize("limit", ["0", "-1", "100001", "x"])
def test_the_limit_of_a_scan_is_checked(client: Client, limit: str) -> None:
    at = opened(client)
    assert isinstance(client("SNAPSHOT", "SCAN", at, "", "", "LIMIT", limit), ErrorReply)
    assert client.error("SNAPSHOT", "SCAN", at, "", "", "LIMIT") == "ERR syntax error"
    assert client.error("SNAPSHOT", "SCAN", at, "", "", "x") == "ERR syntax error"


# -- against a model -------------------------------------------------------------------------------

KEYS = st.sampled_from(["a", "b", "c"])
STEP = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 1), KEYS),
    st.tuples(st.just("open"), st.integers(0, 1)),
    st.tuples(st.just("commit"), st.integers(0, 1), st.sets(KEYS), st.sets(KEYS, min_size=1)),
)


@settings(max_examples=100)
@given(st.lists(STEP, max_size=15))
def test_commits_are_serializable(steps: list[tuple[object, ...]]) -> None:
    """Two clients increment by read and COMMITAT; a lost update would show in the sum."""
    world = World()
    clients = [world.client(), world.client()]
    open_at: list[tuple[int, dict[str, int], dict[str, int]] | None] = [None, None]
    model = {"a": 0, "b": 0, "c": 0}
    versions = {"a": 0, "b": 0, "c": 0}
    for key in model:
        clients[0]("SET", key, "0")
    for step in steps:
        who = step[1]
        assert isinstance(who, int)
        client = clients[who]
        if step[0] == "write":
            key = str(step[2])
            model[key] += 1
            versions[key] += 1
            client("INCR", key)
        elif step[0] == "open" and open_at[who] is None:
            open_at[who] = (opened(client), dict(model), dict(versions))
        elif step[0] == "commit" and open_at[who] is not None:
            at, seen, seen_versions = open_at[who] or (0, {}, {})
            open_at[who] = None
            writes = sorted(step[3])  # type: ignore[call-overload]
            reads = sorted({*writes, *step[2]})  # type: ignore[misc]
            values = client("SNAPSHOT", "GET", at, *reads)
            assert [int(value) for value in values] == [seen[key] for key in reads]
            parts = [word for key in writes for word in ("PUT", key, str(seen[key] + 10), "0")]
            reply = client(
                "COMMITAT", at, "READS", len(reads), *reads, "WRITES", len(writes), *parts
            )
            conflict = any(versions[key] != seen_versions[key] for key in reads)
            assert (reply == ErrorReply(CONFLICT)) is conflict
            if not conflict:
                for key in writes:
                    model[key] += 10
                    versions[key] += 1
    assert [int(value) for value in clients[0]("MGET", *model)] == list(model.values())
    world.close()
