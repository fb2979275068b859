"""INFO, CONFIG, durability, SHUTDOWN, and the diagnostics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from marram.node.settings import OutputLimit, Settings
from marram.protocol.replies import NO_REPLY, OK, ErrorReply, Push, Simple, Verbatim
from tests.node.harness import PENDING, Client, World


@pytest.fixture
def world() -> Iterator[World]:
    made = World(settings=Settings(debug_commands=True))
    yield made
    made.close()


@pytest.fixture
def client(world: World) -> Client:
    return world.client()


# -- INFO ------------------------------------------------------------------------------------------


def info(client: Client, *sections: str) -> dict[str, str]:
    reply = client("INFO", *sections)
    assert isinstance(reply, Verbatim)
    lines = reply.data.decode().split("\r\n")
    return dict(line.split(":", 1) for line in lines if line and not line.startswith("#"))


def titles(client: Client, *sections: str) -> list[str]:
    text = client("INFO", *sections).data.decode()
    return [line[2:] for line in text.split("\r\n") if line.startswith("#")]


def test_info_has_what_clients_look_for(world: World, client: Client) -> None:
    client("SET", "k", "v", "EX", "10")
    client("SET", "j", "v")
    client("GET", "j")
    client("GET", "missing")
    fields = info(client)
    expected = {
        "redis_version": "7.4.0", "redis_mode": "standalone", "arch_bits": "64", "loading": "0",
        "role": "master", "cluster_enabled": "0", "connected_clients": "1", "maxmemory": "0",
        "keyspace_hits": "1", "keyspace_misses": "1", "total_commands_processed": "5",
        "db0": "keys=2,expires=1,avg_ttl=0", "durability": "sync", "aof_enabled": "1",
        "master_repl_offset": "0", "last_sequence": "2", "expired_keys": "0",
    }  # fmt: skip
    assert {name: fields[name] for name in expected} == expected
    assert int(fields["used_memory"]) > 0
    assert fields["used_memory_human"].endswith("B")
    assert {"marram_version", "tcp_port", "process_id", "uptime_in_seconds"} <= set(fields)


def test_info_gives_the_sections_asked_for(client: Client) -> None:
    assert titles(client, "SERVER", "keyspace", "nosuch") == ["Server", "Keyspace"]
    assert titles(client, "nosuch") == []
    default = titles(client)
    assert "Commandstats" not in default
    assert set(titles(client, "all")) == {*default, "Commandstats"}
    assert titles(client, "everything") == titles(client, "all")
    assert titles(client, "commandstats", "default") == titles(client, "all")


def test_info_counts_commands_and_errors(client: Client) -> None:
    client("GET", "k")
    client("GET")
    client("CLIENT", "ID")
    stats = info(client, "commandstats", "errorstats")
    assert stats["cmdstat_get"] == (
        "calls=1,usec=0,usec_per_call=0.00,rejected_calls=1,failed_calls=0"
    )
    assert stats["cmdstat_client|id"].startswith("calls=1,")
    assert stats["errorstat_ERR"] == "count=1"
    assert client("CONFIG", "RESETSTAT") is OK
    assert "cmdstat_get" not in info(client, "commandstats")


def test_info_says_how_fast_commands_come(world: World, client: Client) -> None:
    for _ in range(5):
        world.node.tick()
        for _ in range(10):
            client("GET", "k")
        world.advance(100)
    world.node.tick()
    assert 90 <= int(info(client, "stats")["instantaneous_ops_per_sec"]) <= 110


def test_info_tells_of_a_failure(world: World, client: Client) -> None:
    world.break_disk()
    fields = info(client)
    assert fields["aof_last_write_status"] == "err"
    assert fields["store_failure"]


# -- CONFIG ----------------------------------------------------------------------------------------


def test_config_get_matches_globs_in_any_case(client: Client) -> None:
    found = client("CONFIG", "GET", "SLOWLOG-*", "databases", "nosuch")
    assert found == {
        b"slowlog-log-slower-than": b"10000",
        b"slowlog-max-len": b"128",
        b"databases": b"16",
    }


def test_config_set_takes_effect(world: World, client: Client) -> None:
    assert client("CONFIG", "SET", "maxclients", "7", "TIMEOUT", "30") is OK
    assert (world.settings.maxclients, world.settings.timeout_s) == (7, 30)
    client("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 512kb 10 slave 1 2 3")
    assert world.settings.pubsub_output == OutputLimit(1 << 20, 512 << 10, 10)
    assert client("CONFIG", "GET", "client-output-buffer-limit") == {
        b"client-output-buffer-limit": b"normal 0 0 0 slave 0 0 0 pubsub 1048576 524288 10"
    }
    client("CONFIG", "SET", "proto-max-bulk-len", "2mb")
    assert world.settings.max_bulk_bytes == 2 << 20


def test_p1_config_set_sets_all_or_none(world: World, client: Client) -> None:
    for bad in (["timeout", "x"], ["nosuch", "1"], ["port", "1"], ["MAXCLIENTS", "8"]):
        assert isinstance(client("CONFIG", "SET", "maxclients", "7", *bad), ErrorReply)
        assert world.settings.maxclients == 10_000


FAILED = "ERR CONFIG SET failed (possibly related to argument '{}') - {}"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("maxclients", "0", "argument must be between 1 and 4294967295 inclusive"),
        ("timeout", "x", "argument couldn't be parsed into an integer"),
        ("timeout", "1" * 30, "argument couldn't be parsed into an integer"),
        ("proto-max-bulk-len", "10 mb", "argument must be a memory value"),
        ("appendonly", "maybe", "argument must be 'yes' or 'no'"),
        ("appendonly", "no", "marram's log cannot be turned off"),
        ("appendfsync", "x", "argument(s) must be one of the following: everysec, always, no"),
        ("appendfsync", "no", "durability is chosen when the server starts"),
        ("maxmemory", "1gb", "set memory-limit at the start"),
        ("maxmemory-policy", "allkeys-lru", "marram evicts nothing"),
        ("notify-keyspace-events", "KEA", "keyspace notifications are not supported"),
        ("notify-keyspace-events", "?", "Invalid event class character. Use 'Ag$lshzxeKEtmdn'."),
        ("databases", "32", "can't set immutable config"),
        ("save", "900", "Invalid save parameters"),
        ("save", "a b", "Invalid save parameters"),
        (
            "client-output-buffer-limit",
            "normal 1",
            "Wrong number of arguments in buffer limit configuration.",
        ),
        (
            "client-output-buffer-limit",
            "x 1 2 3",
            "Invalid client class specified in buffer limit configuration.",
        ),
        (
            "client-output-buffer-limit",
            "normal 1 x 3",
            "Error in hard, soft or soft_seconds setting in buffer limit configuration.",
        ),
    ],
)
def test_config_set_refuses_in_redis_s_words(
    client: Client, name: str, value: str, reason: str
) -> None:
    before = client("CONFIG", "GET", "*")
    assert client.error("CONFIG", "SET", name, value) == FAILED.format(name, reason)
    assert client("CONFIG", "GET", "*") == before


def test_config_set_of_what_is_so_already_succeeds(client: Client) -> None:
    facts = client("CONFIG", "GET", "*")
    for name, value in facts.items():
        if name not in (b"requirepass", b"client-output-buffer-limit"):
            assert client("CONFIG", "SET", name, value) is OK, name
    assert client("CONFIG", "GET", "*") == facts


def test_config_set_refuses_unknown_names_and_odd_counts(client: Client) -> None:
    assert client.error("CONFIG", "SET", "foo", "bar") == (
        "ERR Unknown option or number of arguments for CONFIG SET - 'foo'"
    )
    assert client.error("CONFIG", "SET", "timeout", "1", "x") == (
        "ERR wrong number of arguments for 'config|set' command"
    )
    assert client.error("CONFIG", "SET", "timeout", "1", "timeout", "2") == FAILED.format(
        "timeout", "duplicate parameter"
    )
    assert isinstance(client("CONFIG", "REWRITE"), ErrorReply)


def test_compat_parameters_are_kept_and_given_back(client: Client) -> None:
    assert client("CONFIG", "SET", "hash-max-listpack-entries", "64", "save", "900 1 60  2") is OK
    assert client("CONFIG", "GET", "hash-max-listpack-entries") == {
        b"hash-max-listpack-entries": b"64"
    }
    assert client("CONFIG", "GET", "save") == {b"save": b"900 1 60 2"}
    assert client("CONFIG", "SET", "save", "") is OK


def test_p2_no_parameter_names_a_file(client: Client) -> None:
    names = b" ".join(client("CONFIG", "GET", "*"))
    for word in (b"dir", b"file", b"path", b"socket", b"dbfilename", b"module-load"):
        assert word not in names.replace(b"directly", b"")


@pytest.mark.parametrize(("durability", "text"), [("sync", b"always"), ("none", b"no")])
def test_appendfsync_tells_the_durability(durability: str, text: bytes) -> None:
    client = World(durability=durability).client()
    assert client("CONFIG", "GET", "appendfsync") == {b"appendfsync": text}
    assert client("CONFIG", "SET", "appendfsync", text) is OK


# -- time, keys, roles -----------------------------------------------------------------------------


def test_time_is_the_store_s(world: World, client: Client) -> None:
    world.advance(1234)
    seconds, microseconds = client("TIME")
    assert int(seconds) * 1000 + int(microseconds) // 1000 == world.store.now_ms()


def test_role_is_a_primary_s(client: Client) -> None:
    assert client("ROLE") == [b"master", 0, []]


def test_randomkey_gives_keys_that_exist(client: Client) -> None:
    assert client("RANDOMKEY") is None
    keys = {b"a", b"b", b"c"}
    client("MSET", "a", "1", "b", "2", "c", "3")
    assert {client("RANDOMKEY") for _ in range(100)} == keys


# -- durability ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SAVE", "CHECKPOINT"])
def test_a_checkpoint_answers_when_it_is_done(world: World, client: Client, name: str) -> None:
    client("SET", "k", "v")
    generation = world.store.generations.number
    assert client(name) is OK
    assert world.store.generations.number == generation + 1


def test_u2_who_asks_during_a_checkpoint_gets_one_of_its_own(world: World) -> None:
    one, two, three = (world.client() for _ in range(3))
    for client in (one, two, three):
        world.node.execute(client.session, [b"SAVE"])
    generation = world.store.generations.number
    world.settle()
    assert world.store.generations.number == generation + 2, "the second and the third share one"


def test_a_checkpoint_without_room_is_an_error_and_no_harm(world: World, client: Client) -> None:
    client("SET", "k", "v")
    world.fill_disk()
    assert client.error("SAVE").startswith("MISCONF no room for a checkpoint")
    assert client("SET", "k", "v") is OK


def test_bgsave_starts_one(world: World, client: Client) -> None:
    assert client("BGSAVE") == Simple("Background saving started")
    world.settle()
    world.advance(5000)
    assert client("LASTSAVE") == world.machine.wall_ms() // 1000 - 5
    assert client.error("BGSAVE", "x") == "ERR syntax error"
    assert client("BGSAVE", "SCHEDULE") == Simple("Background saving started")


def test_bgsave_beside_another_is_refused(world: World, client: Client) -> None:
    world.node.execute(world.client().session, [b"SAVE"])
    assert client.error("BGSAVE") == "ERR Background save already in progress"


def test_position_names_the_newest_commit_one_depends_on(world: World, client: Client) -> None:
    assert client("POSITION") == [world.store.epoch, 0]
    client("SET", "k", "v")
    assert client("POSITION") == [world.store.epoch, 1]
    assert client.waits_for == 1
    other = world.client()
    assert other("POSITION") == [world.store.epoch, 0]
    assert other("GET", "k") == b"v"
    assert other("POSITION") == [world.store.epoch, 1], "what one read counts, too"
    world.settle()
    assert world.client()("POSITION") == [world.store.epoch, 1]


def test_wait_for_no_replica_is_for_the_local_log(world: World, client: Client) -> None:
    client("SET", "k", "v")
    assert client("WAIT", "0", "0") == 0
    assert client.waits_for == world.store.last, "the reply is held until then"
    client("SET", "k", "w")
    deferred: Any = world.node.execute(client.session, [b"WAIT", b"0", b"1000"])
    assert not deferred.done
    world.machine.advance(1001)
    world.loop.run()
    assert deferred.reply == 0, "its time was over"


def test_wait_keeps_its_timeout(world: World, client: Client) -> None:
    assert client("WAIT", "2", "50") is PENDING
    world.advance(49)
    assert client.result() is PENDING
    world.advance(2)
    assert client.result() == 0
    assert client.error("WAIT", "x", "1") == "ERR value is not an integer or out of range"
    assert client.error("WAIT", "1", "x") == "ERR timeout is not an integer or out of range"
    assert client.error("WAIT", "1", "-1") == "ERR timeout is negative"


def test_a_wait_on_a_log_that_fails_says_so(world: World, client: Client) -> None:
    client("SET", "k", "v")
    deferred: Any = world.node.execute(client.session, [b"WAIT", b"0", b"100000"])
    world.break_disk()
    world.advance(10)
    assert isinstance(deferred.reply, ErrorReply)


@pytest.mark.parametrize("durability", ["sync", "none"])
def test_waitaof_waits_for_the_disk(durability: str) -> None:
    world = World(durability=durability)
    client = world.client()
    client("SET", "k", "v")
    assert client("WAITAOF", "1", "0", "0") == [1, 0]
    assert world.store.commit.log.synced == world.store.commit.log.end
    assert client("WAITAOF", "1", "1", "50") is PENDING
    world.advance(60)
    assert client.result() == [int(durability == "sync"), 0]
    assert client.error("WAITAOF", "2", "0", "0") == "ERR value is out of range"


def test_shutdown_asks_the_server(world: World, client: Client) -> None:
    assert client.error("SHUTDOWN") == "ERR SHUTDOWN is not available here"
    asked: list[bool] = []
    world.node.on_shutdown = asked.append
    assert client("SHUTDOWN") is NO_REPLY
    assert client("SHUTDOWN", "SAVE", "NOW", "force") is NO_REPLY
    assert client("SHUTDOWN", "NOSAVE") is NO_REPLY
    assert asked == [False, True, False]
    assert client.error("SHUTDOWN", "ABORT") == "ERR No shutdown in progress."
    for words in (["x"], ["SAVE", "NOSAVE"], ["NOW", "NOW"], ["ABORT", "NOW"]):
        assert client.error("SHUTDOWN", *words) == "ERR syntax error"


# -- SLOWLOG ---------------------------------------------------------------------------------------


def test_slow_commands_are_kept(world: World, client: Client) -> None:
    client("CLIENT", "SETNAME", "me")
    client("DEBUG", "SLEEP", "0.2")
    world.advance(200)
    ((number, time_s, elapsed_us, args, address, name),) = client("SLOWLOG", "GET")
    assert (number, address, name) == (0, client.session.address.encode(), b"me")
    assert args == [b"DEBUG", b"SLEEP", b"0.2"]
    assert elapsed_us == 200_000
    assert time_s == world.machine.wall_ms() // 1000
    assert client("SLOWLOG", "LEN") == 1
    assert client("SLOWLOG", "RESET") is OK
    assert client("SLOWLOG", "GET") == []


def test_a_threshold_of_zero_keeps_all_and_minus_one_none(client: Client) -> None:
    client("CONFIG", "SET", "slowlog-log-slower-than", "0", "slowlog-max-len", "3")
    for key in "abcd":
        client("SET", key, "v")
    client("MULTI")
    client("GET", "a")
    client("EXEC")
    kept = [entry[3] for entry in client("SLOWLOG", "GET", "-1")]
    assert kept == [[b"GET", b"a"], [b"MULTI"], [b"SET", b"d", b"v"]], "EXEC is its queue"
    client("CONFIG", "SET", "slowlog-log-slower-than", "-1")
    client("SLOWLOG", "RESET")
    client("GET", "a")
    assert client("SLOWLOG", "LEN") == 0


def test_slowlog_cuts_what_is_long(client: Client) -> None:
    client("CONFIG", "SET", "slowlog-log-slower-than", "0")
    client("DEL", *[f"key{number}" for number in range(40)])
    client("SET", "k", "x" * 200)
    long, many = [entry[3] for entry in client("SLOWLOG", "GET", "2")]
    assert long == [b"SET", b"k", b"x" * 128 + b"... (72 more bytes)"]
    assert len(many) == 32
    assert many[-1] == b"... (10 more arguments)"


@pytest.mark.parametrize("count", ["-2", "x"])
def test_slowlog_get_checks_its_count(client: Client, count: str) -> None:
    text = "ERR count should be greater than or equal to -1"
    assert client.error("SLOWLOG", "GET", count) == text


# -- LATENCY, MEMORY -------------------------------------------------------------------------------


def test_latency_keeps_what_was_slow(world: World, client: Client) -> None:
    assert client("LATENCY", "LATEST") == []
    assert b"not being watched" in client("LATENCY", "DOCTOR").data
    client("CONFIG", "SET", "latency-monitor-threshold", "50")
    assert b"Nothing has taken 50 ms" in client("LATENCY", "DOCTOR").data
    for duration_ms in (100, 300, 10):
        client("DEBUG", "SLEEP", duration_ms / 1000)
        world.advance(duration_ms)
        world.advance(1000)
    history = client("LATENCY", "HISTORY", "command")
    assert [latency_ms for _, latency_ms in history] == [100, 300]
    assert client("LATENCY", "LATEST") == [[b"command", *history[-1], 300]]
    assert b"command - high" in client("LATENCY", "GRAPH", "command").data
    assert b"command: 2 samples, mean 200 ms, worst 300 ms" in client("LATENCY", "DOCTOR").data
    assert client("LATENCY", "RESET", "nosuch") == 0
    assert client("LATENCY", "RESET") == 1
    assert client.error("LATENCY", "GRAPH", "command") == (
        "ERR No samples available for event 'command'"
    )


def test_latency_histogram_counts_timed_commands(client: Client) -> None:
    client("KEYS", "*")
    client("GET", "k")
    found = client("LATENCY", "HISTOGRAM")
    assert found[b"keys"][b"calls"] == 1
    assert b"get" not in found, "constant-time commands are not timed"
    client("CONFIG", "SET", "slowlog-log-slower-than", "500")
    client("GET", "k")
    assert client("LATENCY", "HISTOGRAM", "GET", "nosuch") == {
        b"get": {b"calls": 1, b"histogram_usec": {1: 1}}
    }


def test_memory_estimates(world: World, client: Client) -> None:
    client("SET", "key", "x" * 1000)
    assert client("MEMORY", "USAGE", "key") == client("MEMORY", "USAGE", "key", "SAMPLES", "5")
    assert client("MEMORY", "USAGE", "key") > 1003
    assert client("MEMORY", "USAGE", "missing") is None
    assert client.error("MEMORY", "USAGE", "key", "x", "5") == "ERR syntax error"
    stats = client("MEMORY", "STATS")
    assert stats[b"keys.count"] == 1
    assert stats[b"dataset.bytes"] == 1003
    assert isinstance(client("MEMORY", "DOCTOR"), Verbatim)
    assert client("MEMORY", "PURGE") is OK


# -- MONITOR ---------------------------------------------------------------------------------------


def test_monitor_shows_commands_as_redis_does(world: World, client: Client) -> None:
    spy = world.client()
    assert spy("MONITOR") is OK
    client("SELECT", "2")
    client("SET", b'a"\x01', b"x\ny\\")
    client("NOSUCH")
    client("CONFIG", "GET", "x")
    client("MULTI")
    client("GET", "a")
    client("EXEC")
    where = f"[2 {client.session.address}]"
    time_ms = world.store.now_ms()
    stamp = f"{time_ms // 1000}.{time_ms % 1000 * 1000:06d}"
    assert [line.text for line in spy.messages] == [
        f'{stamp} {where} "SELECT" "2"',
        f'{stamp} {where} "SET" "a\\"\\x01" "x\\ny\\\\"',
        f'{stamp} {where} "MULTI"',
        f'{stamp} {where} "GET" "a"',
        f'{stamp} {where} "EXEC"',
    ], "administration and what is refused is not shown"
    spy.close()
    assert not world.node._guarded


# -- DEBUG -----------------------------------------------------------------------------------------


def test_debug_is_off_unless_allowed() -> None:
    client = World().client()
    assert client.error("DEBUG", "SLEEP", "0").startswith("ERR DEBUG command not allowed. ")
    client("MULTI")
    client("DEBUG", "SLEEP", "0")
    assert client.error("EXEC").startswith("EXECABORT")


def test_debug_sleep_holds_up_its_own_connection(world: World, client: Client) -> None:
    assert client("DEBUG", "SLEEP", "1.5") is PENDING
    assert world.client()("PING") == Simple("PONG")
    world.advance(1499)
    assert client.result() is PENDING
    world.advance(2)
    assert client.result() is OK
    assert client.error("DEBUG", "SLEEP", "x") == "ERR value is not a valid float"


def test_debug_describes_and_reloads(world: World, client: Client) -> None:
    client("SET", "k", "value")
    assert "serializedlength:5" in client("DEBUG", "OBJECT", "k").text
    assert client.error("DEBUG", "OBJECT", "missing") == "ERR no such key"
    generation = world.store.generations.number
    assert client("DEBUG", "RELOAD") is OK
    assert world.store.generations.number == generation + 1
    assert client.error("DEBUG", "NOSUCH") == (
        "ERR unknown subcommand or wrong number of arguments for 'NOSUCH'. Try DEBUG HELP."
    )


def test_active_expiry_can_be_turned_off(world: World, client: Client) -> None:
    assert client("DEBUG", "SET-ACTIVE-EXPIRE", "0") is OK
    client("SET", "k", "v", "PX", "10")
    world.advance(1000)
    world.node.tick()
    assert client("DBSIZE") == 1
    client("DEBUG", "SET-ACTIVE-EXPIRE", "1")
    world.node.tick()
    assert client("DBSIZE") == 0
    assert int(info(client, "stats")["expired_keys"]) == 1


def test_debug_protocol_gives_specimens(world: World) -> None:
    client = world.client(protocol=3)
    assert client("DEBUG", "PROTOCOL", "double") == 3.141
    assert client("DEBUG", "PROTOCOL", "map") == {0: False, 1: True, 2: False}
    client("DEBUG", "PROTOCOL", "push")
    assert client.messages == [Push([b"server-cpu-usage", 42])]
    assert client.error("DEBUG", "PROTOCOL", "x").startswith("ERR Wrong protocol type name.")
    assert world.client().error("DEBUG", "PROTOCOL", "push") == (
        "ERR RESP2 is not supported by this command"
    )


# -- what is absent --------------------------------------------------------------------------------


def test_absent_features_are_answered_truthfully(client: Client) -> None:
    assert client("FUNCTION", "LIST") == []
    assert client("FUNCTION", "FLUSH") is OK
    assert client.error("FUNCTION", "FLUSH", "x") == (
        "ERR FUNCTION FLUSH only supports SYNC|ASYNC option"
    )
    assert client("MODULE", "LIST") == []
    assert client("ACL", "WHOAMI") == b"default"
    assert client("ACL", "USERS") == [b"default"]
    assert client("ACL", "LIST") == [b"user default on nopass ~* &* +@all"]
    assert b"string" in client("ACL", "CAT")
    assert b"get" in client("ACL", "CAT", "string")
    assert client.error("ACL", "CAT", "x") == "ERR Unknown category 'x'"
    for words in (["CLUSTER", "INFO"], ["CLUSTER", "SLOTS"], ["READONLY"], ["ASKING"]):
        assert client.error(*words) == "ERR This instance has cluster support disabled"
    assert client.error("CLUSTER", "x") == "ERR unknown subcommand 'x'. Try CLUSTER HELP."
