"""import: what is in a Redis comes over, what cannot is named, and nothing is lost half-way."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

import marram
from marram.cli import redis_import
from marram.cli.redis_source import RedisSource
from marram.cli.sink import ServerSink, StoreSink
from tests.cli.redis_process import RedisProcess, certificates, redis_process
from tests.cli.running import Cli
from tests.server.serving import DEADLINE_S, serving

BINARY = bytes(range(256))
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def running_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    directory = tmp_path_factory.mktemp("redis")
    certified = certificates(directory / "certificates")
    with redis_process(directory, "--databases", "20", certificates=certified) as process:
        yield process


@pytest.fixture
def source(running_redis: RedisProcess) -> Iterator[RedisProcess]:
    running_redis.client.flushall()
    yield running_redis


@pytest.fixture
def cli(monkeypatch: Any, capfdbinary: Any) -> Cli:
    monkeypatch.delenv("REDISCLI_AUTH", raising=False)
    return Cli(monkeypatch, capfdbinary)


def contents(directory: Path, keyspace: int = 0) -> dict[bytes, bytes]:
    with marram.open(directory, create=False) as db:
        return dict(db.keyspace(keyspace).scan())


def fill(client: redis.Redis) -> dict[bytes, bytes]:
    """Strings of all kinds; returns them."""
    pairs = {b"%05d" % number: b"v" * (number % 70) for number in range(2500)}
    pairs |= {BINARY: BINARY, b"\r\n": b"$5\r\n", "☃".encode(): b"\x00", b"empty": b""}
    pairs |= {b"large:%d" % size: b"L" * size for size in (16 << 10, 17 << 10, 3 << 20)}
    client.mset(pairs)
    return pairs


def before(monkeypatch: Any, owner: type, name: str, act: Callable[[int], None]) -> None:
    """Have act(n) done before the n-th call, from 1, of a method."""
    real = getattr(owner, name)
    calls = 0

    def wrapped(self: Any, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        act(calls)
        return real(self, *args)

    monkeypatch.setattr(owner, name, wrapped)


# -- what is copied --------------------------------------------------------------------------------


@pytest.mark.redis
@pytest.mark.parametrize("mode", ["--replace", "--keep-existing"])
@pytest.mark.parametrize("batch", [40, 1000, 10_000])
def test_every_string_arrives_byte_for_byte(cli, source, tmp_path, batch, mode):
    pairs = fill(source.client)
    out = cli.ok("import", source.url, "--dir", tmp_path / "d", "--batch", batch, mode)
    assert out.startswith(f"OK ({len(pairs)} keys copied, 3.")
    assert contents(tmp_path / "d") == pairs


@pytest.mark.parametrize("mode", ["--replace", "--keep-existing"])
def test_from_a_marram_to_a_marram(cli, tmp_path, mode):
    with serving(tmp_path / "one") as one, serving(tmp_path / "two") as two:
        port, client = one.address()[1], redis.Redis(port=one.address()[1])
        with client:
            pairs = fill(client)
            client.execute_command("SELECT", 5)
            client.set("five", "5", px=DAY_MS)
        there = ":".join(map(str, two.address()))
        done = cli.ok("import", f"redis://127.0.0.1:{port}", "--connect", there, "--json", mode)
        assert json.loads(done) == {
            "ok": True, "copied": len(pairs) + 1,
            "copied_bytes": sum(len(k) + len(v) for k, v in pairs.items()) + 5,
            "kept": 0, "gone": 0, "other_types": {}, "unfit": {}, "cluster": False,
        }  # fmt: skip
        with marram.connect(f"marram://{there}") as db:
            assert dict(db.scan()) == pairs
            assert 0 < db.keyspace(5).ttl(b"five") <= DAY_MS / 1000


@pytest.mark.redis
@pytest.mark.parametrize("sink", ["directory", "server"])
@pytest.mark.parametrize("mode", ["--replace", "--keep-existing"])
def test_i2_times_to_live_are_kept_and_never_grow(cli, source, tmp_path, monkeypatch, sink, mode):
    source.client.mset({"for ever": "1", "large for ever": "1" * 5_000_000})
    source.client.set("a day", "2", px=DAY_MS)
    source.client.set("large for a day", "2" * 5_000_000, px=DAY_MS)
    clock = 10**13  # what the deadlines are measured by; it moves while a piece is read

    def tick(call: int) -> None:
        nonlocal clock
        clock = 10**13 + call * 10_000_000

    before(monkeypatch, RedisSource, "read", tick)
    for each in (StoreSink, ServerSink):
        monkeypatch.setattr(each, "now_ms", lambda self: clock)
    with contextlib.ExitStack() as stack:
        place = ("--dir", tmp_path / "d")
        if sink == "server":
            running = stack.enter_context(serving(tmp_path))
            place = ("--connect", ":".join(map(str, running.address())))
        cli.ok("import", source.url, *place, mode)
        dumped = map(json.loads, cli.ok("dump", *place).splitlines())
        deadlines = {row["key"]: row.get("deadline_ms") for row in dumped}
    assert deadlines["for ever"] is None is deadlines["large for ever"]
    # The large one is read by the second call, so its clock is that of the first.
    for key, now_ms in (("a day", 10**13), ("large for a day", 10**13 + 10_000_000)):
        assert now_ms + DAY_MS - DEADLINE_S * 1000 < deadlines[key] <= now_ms + DAY_MS


@pytest.mark.redis
def test_all_databases_come_unless_one_is_named(cli, source, tmp_path):
    for number in (0, 3, 15):
        with redis.Redis(unix_socket_path=str(source.path), db=number) as client:
            client.set(f"in {number}", number)
    cli.ok("import", source.url, "--dir", tmp_path / "all")
    cli.ok("import", source.url + "/3", "--dir", tmp_path / "url")
    cli.ok("import", f"unix://{source.path}?db=3", "--dir", tmp_path / "option", "--db", 3)
    cli.ok("import", source.url, "--dir", tmp_path / "moved", "--db", 15, "-n", 1)
    found = {
        name: {n: contents(tmp_path / name, n) for n in range(16) if contents(tmp_path / name, n)}
        for name in ("all", "url", "option", "moved")
    }
    rows = {n: {b"in %d" % n: b"%d" % n} for n in (0, 3, 15)}
    assert found == {
        "all": rows,
        "url": {3: rows[3]},
        "option": {3: rows[3]},
        "moved": {1: rows[15]},
    }


@pytest.mark.redis
def test_a_database_beyond_the_keyspaces_is_named_before_anything_is_copied(cli, source, tmp_path):
    source.client.set("k", "v")
    with redis.Redis(unix_socket_path=str(source.path), db=18) as client:
        client.set("far", "away")
    done = cli("import", source.url, "--dir", tmp_path / "d")
    assert done.code == 1
    assert "database 18 has no keyspace" in done.error and "--db 18 --keyspace N" in done.error
    assert done.error.endswith("nothing was copied")
    assert not (tmp_path / "d").exists()
    cli.ok("import", source.url, "--dir", tmp_path / "d", "--db", 18, "--keyspace", 2)
    assert contents(tmp_path / "d", 2) == {b"far": b"away"}


@pytest.mark.redis
def test_a_pattern_chooses_keys(cli, source, tmp_path):
    source.client.mset({"user:1": "a", "user:22": "b", "other": "c", b"\xffx": "d"})
    cli.ok("import", source.url, "--dir", tmp_path / "d", "--match", "user:?")
    assert contents(tmp_path / "d") == {b"user:1": b"a"}
    cli.ok("import", source.url, "--dir", tmp_path / "e", "--match", "\udcff*")
    assert contents(tmp_path / "e") == {b"\xffx": b"d"}


@pytest.mark.redis
def test_keys_that_are_there_are_replaced_or_kept(cli, source, tmp_path):
    source.client.mset({"a": "theirs", "b": "theirs"})
    for mode, a, report in (
        ("--keep-existing", b"ours", "OK (1 key copied, 7 bytes, 1 kept as they were)\n"),
        ("--replace", b"theirs", "OK (2 keys copied, 14 bytes)\n"),
    ):
        directory = tmp_path / mode
        with marram.open(directory) as db:
            db.put_many({b"a": b"ours", b"z": b"ours"})
        assert cli.ok("import", source.url, "--dir", directory, mode) == report
        assert contents(directory) == {b"a": a, b"b": b"theirs", b"z": b"ours"}


@pytest.mark.redis
def test_k2_a_key_that_comes_meanwhile_is_kept_too(cli, source, tmp_path, monkeypatch):
    source.client.mset({"a": "theirs", "b": "theirs"})
    with serving(tmp_path) as running:
        there = ":".join(map(str, running.address()))
        with marram.connect(f"marram://{there}") as db:
            before(monkeypatch, RedisSource, "read", lambda call: db.put(b"a", b"ours"))
            out = cli.ok("import", source.url, "--connect", there, "--keep-existing", "--json")
            assert dict(db) == {b"a": b"ours", b"b": b"theirs"}
    assert (json.loads(out)["copied"], json.loads(out)["kept"]) == (1, 1)


# -- what cannot be copied -------------------------------------------------------------------------


@pytest.fixture
def mixed(source: RedisProcess) -> RedisProcess:
    source.client.mset({"s1": "1", "s2": "2"})
    for number in range(5):
        source.client.hset(f"hash:{number}", "f", "v")
    source.client.rpush("a list", "x")
    source.client.xadd(b"\x1b[2J", {"f": "v"})
    return source


@pytest.mark.redis
def test_i3_other_types_are_named_and_fail_the_command_at_its_end(cli, mixed, tmp_path):
    done = cli("import", mixed.url, "--dir", tmp_path / "d")
    assert (done.code, done.out) == (1, b"2 keys copied, 6 bytes\n")
    assert done.error.startswith("Error: 7 keys cannot be kept here and were left: ")
    assert '1 list ("a list")' in done.error
    assert '1 stream ("\\x1b[2J")' in done.error
    assert "5 hash (hash:" in done.error and ", ...)" in done.error
    assert "--skip-other-types" in done.error
    assert contents(tmp_path / "d") == {b"s1": b"1", b"s2": b"2"}


@pytest.mark.redis
def test_i3_skipping_other_types_succeeds_and_still_names_them(cli, mixed, tmp_path):
    out = cli.ok("import", mixed.url, "--dir", tmp_path / "d", "--skip-other-types")
    assert out.startswith("OK (2 keys copied, 6 bytes; left: ")
    assert "5 hash (hash:" in out
    done = cli("import", mixed.url, "--dir", tmp_path / "d", "--json")
    report = json.loads(done.text)
    assert (done.code, report["ok"], report["copied"]) == (1, False, 2)
    assert {name: left["keys"] for name, left in report["other_types"].items()} == {
        "hash": 5, "list": 1, "stream": 1,
    }  # fmt: skip
    assert report["other_types"]["list"]["examples"] == [{"database": 0, "key": "a list"}]


@pytest.mark.redis
@pytest.mark.parametrize("sink", ["directory", "server"])
def test_i3_strings_that_do_not_fit_are_named_even_when_other_types_are_skipped(
    cli, source, tmp_path, sink, monkeypatch
):
    source.client.mset({"": "empty", "k" * 70_000: "v", "k" * 65_536: "v", "big": "x" * 5001})
    with contextlib.ExitStack() as stack:
        place = ("--dir", tmp_path / "d")
        big = "big" if sink == "server" else None
        if sink == "server":
            running = stack.enter_context(serving(tmp_path, max_value_bytes=5000))
            place = ("--connect", ":".join(map(str, running.address())))
        done = cli("import", source.url, *place, "--skip-other-types", "--json")
        kept = cli.ok("scan", *place, "--keys").splitlines()
    assert done.code == 1
    unfit = json.loads(done.text)["unfit"]
    assert unfit.pop("empty key")["examples"] == [{"database": 0, "key": ""}]
    (longest,) = unfit.pop("key longer than 64.0 KiB")["examples"]
    assert longest == {"database": 0, "key": "k" * 60, "key_bytes": 70_000}
    if big:
        assert unfit.pop("value longer than 4.9 KiB")["examples"] == [{"database": 0, "key": "big"}]
    assert unfit == {}
    assert kept == ["big"] * (not big) + ["k" * 65_536]
    assert len(done.error) < 500


# -- while it changes ------------------------------------------------------------------------------


@pytest.mark.redis
def test_i3_keys_that_change_under_the_copy_are_counted_for_what_they_became(
    cli, source, tmp_path, monkeypatch
):
    source.client.mset(dict.fromkeys(("stays", "goes", "expires", "turns", "changes"), "old"))

    def change(call: int) -> None:
        client = source.client
        client.delete("goes", "turns")
        client.rpush("turns", "x")
        client.set("changes", "new", px=DAY_MS)
        client.pexpireat("expires", 1)

    before(monkeypatch, RedisSource, "read", change)
    done = cli("import", source.url, "--dir", tmp_path / "d", "--json")
    report = json.loads(done.text)
    assert (report["copied"], report["gone"]) == (2, 2)
    assert report["other_types"]["changed meanwhile"]["examples"] == [
        {"database": 0, "key": "turns"}
    ]
    with marram.open(tmp_path / "d") as db:
        assert dict(db) == {b"stays": b"old", b"changes": b"new"}
        assert db.ttl(b"changes") is not None


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_i5_a_source_that_breaks_off_leaves_what_was_copied(cli, tmp_path, monkeypatch, as_json):
    with serving(tmp_path / "one") as one:
        with redis.Redis(port=one.address()[1]) as client:
            pairs = fill(client)
        before(monkeypatch, RedisSource, "scan", lambda call: one.stop() if call == 3 else None)
        url = f"redis://127.0.0.1:{one.address()[1]}"
        done = cli("import", url, "--dir", tmp_path / "d", *as_json)
    assert done.code == 1
    assert "broke" in done.error
    assert done.error.endswith("; 2000 keys copied before stay; run it again for the others")
    copied = contents(tmp_path / "d")
    assert len(copied) == 2000 and copied.items() <= pairs.items()
    if as_json:
        report = json.loads(done.text)
        assert (report["ok"], report["copied"]) == (False, 2000)
        assert f"Error: {report['error']}" == done.error


@pytest.mark.redis
def test_i5_it_goes_on_where_it_broke_off(cli, source, tmp_path, monkeypatch):
    pairs = fill(source.client)
    with monkeypatch.context() as patched:

        def interrupt(call: int) -> None:
            if call == 3:
                raise KeyboardInterrupt

        before(patched, StoreSink, "apply", interrupt)
        done = cli("import", source.url, "--dir", tmp_path / "d")
    assert done.code == 130
    assert done.err.startswith(b"interrupted; ")
    copied = len(contents(tmp_path / "d"))
    assert 0 < copied < len(pairs)
    report = json.loads(
        cli.ok("import", source.url, "--dir", tmp_path / "d", "--keep-existing", "--json")
    )
    assert (report["copied"], report["kept"]) == (len(pairs) - copied, copied)
    assert contents(tmp_path / "d") == pairs


def test_a_target_that_fails_says_how_far_it_came(cli, tmp_path, monkeypatch):
    def fail(call: int) -> None:
        if call == 2:
            raise marram.StoreFull("no room for the log")

    before(monkeypatch, StoreSink, "apply", fail)
    with serving(tmp_path) as one:
        with redis.Redis(port=one.address()[1]) as client:
            fill(client)
        done = cli("import", f"redis://127.0.0.1:{one.address()[1]}", "--dir", tmp_path / "d")
    assert done.code == 1
    assert done.error == (
        "Error: no room for the log; 1000 keys copied before stay; run it again for the others"
    )


@pytest.mark.redis
@pytest.mark.parametrize("pattern", [(), ("--match", "0*")])
def test_progress_runs_from_nothing_to_all(cli, source, tmp_path, monkeypatch, pattern):
    told: list[tuple[int, int]] = []

    @contextlib.contextmanager
    def show(title: str) -> Iterator[Any]:
        assert title == "import"
        yield lambda done, total: told.append((done, total))

    monkeypatch.setattr(redis_import.progress, "show", show)
    pairs = fill(source.client)
    cli.ok("import", source.url, "--dir", tmp_path / "d", "--batch", 100, *pattern)
    counts = [done for done, _ in told]
    assert counts == sorted(counts) and len(counts) > 10
    if pattern:
        assert {total for _, total in told} == {0}, "how many match is not known"
    else:
        # SCAN may give a key twice, and then the total is corrected.
        assert told[0][1] == len(pairs) <= told[-1][0] == told[-1][1]


@pytest.mark.redis
def test_i4_large_values_come_in_small_company(cli, source, tmp_path, monkeypatch):
    monkeypatch.setattr(redis_import, "_PIECE_BYTES", 100_000)
    sizes = [30_000] * 7 + [250_000] + [99_000] * 2 + [200] * 50
    source.client.mset({f"{at}": "x" * size for at, size in enumerate(sizes)})
    pieces: list[int] = []
    real = RedisSource.read

    def read(self: Any, keys: Any, limit: Any) -> Any:
        found = real(self, keys, limit)
        pieces.append(sum(len(each.value) for each in found))
        return found

    monkeypatch.setattr(RedisSource, "read", read)
    cli.ok("import", source.url, "--dir", tmp_path / "d")
    assert sorted(map(len, contents(tmp_path / "d").values())) == sorted(sizes)
    assert [piece for piece in pieces if piece > 100_000] == [250_000]
    assert len(pieces) < 10


# -- who is there ----------------------------------------------------------------------------------


@pytest.fixture
def guarded(source: RedisProcess) -> Iterator[RedisProcess]:
    source.client.set("k", "v")
    source.client.acl_setuser("bob", enabled=True, passwords=["+p@ss/w:rd"], keys=["*"],
                              commands=["+@all", "-info", "-dbsize", "-client"])  # fmt: skip
    source.client.config_set("requirepass", "secret")
    yield source
    source.client.config_set("requirepass", "")
    source.client.acl_deluser("bob")


@pytest.mark.redis
def test_a_password_comes_from_the_url_the_environment_or_a_prompt(
    cli, guarded, tmp_path, monkeypatch
):
    at = guarded.url.removeprefix("redis://")
    place = ("--dir", tmp_path / "d")
    for url in (f"redis://:secret@{at}", f"redis://default:secret@{at}"):
        assert cli.ok("import", url, *place).startswith("OK (1 key ")
    cli.ok("import", f"unix://:secret@{guarded.path}", *place)
    monkeypatch.setenv("REDISCLI_AUTH", "secret")
    cli.ok("import", f"redis://{at}", *place)
    monkeypatch.setenv("REDISCLI_AUTH", "wrong")
    monkeypatch.setattr("click.prompt", lambda text, **how: "secret" if how["hide_input"] else "")
    cli.ok("import", f"redis://:also-wrong@{at}", "--ask-redis-password", *place)


@pytest.mark.redis
def test_a_user_without_info_names_the_database(cli, guarded, tmp_path):
    url = f"redis://bob:p%40ss%2Fw%3Ard@{guarded.url.removeprefix('redis://')}"
    done = cli("import", url, "--dir", tmp_path / "d")
    assert (done.code, "choose one with --db" in done.error) == (1, True)
    assert cli.ok("import", url, "--dir", tmp_path / "d", "--db", 0).startswith("OK (1 key ")


@pytest.mark.redis
def test_a_wrong_or_missing_password_is_one_line_without_it(cli, guarded, tmp_path):
    at = guarded.url.removeprefix("redis://")
    for url, said in (
        (f"redis://{at}", "wants a password"),
        (f"redis://:wrong-one@{at}", "refused AUTH: WRONGPASS"),
        (f"redis://nobody:wrong-one@{at}", "refused AUTH: WRONGPASS"),
    ):
        done = cli("import", url, "--dir", tmp_path / "d")
        assert done.code == 1
        assert said in done.error and "wrong-one" not in done.error
    assert not (tmp_path / "d").exists()


def test_a_marram_with_a_password_is_read_too(cli, tmp_path, monkeypatch):
    with serving(tmp_path, password="secret") as running:
        at = ":".join(map(str, running.address()))
        done = cli("import", f"redis://{at}", "--dir", tmp_path / "d")
        assert (done.code, "wants a password" in done.error) == (1, True)
        monkeypatch.setenv("MARRAM_PASSWORD", "secret")
        cli.ok("put", "k", "v", "--connect", at)
        cli.ok("import", f"redis://:secret@{at}", "--dir", tmp_path / "d")
    assert contents(tmp_path / "d") == {b"k": b"v"}


@pytest.mark.redis
def test_tls_proves_who_is_there_unless_told_not_to(cli, source, tmp_path, monkeypatch):
    pairs = fill(source.client)
    url = f"rediss://127.0.0.1:{source.tls_port}"
    keys = source.path.parent / "certificates"
    done = cli("import", url, "--dir", tmp_path / "d")
    assert done.code == 1
    assert "no TLS with" in done.error and "--cacert" in done.error
    assert not (tmp_path / "d").exists()
    cli.ok("import", url, "--dir", tmp_path / "d", "--insecure")
    assert contents(tmp_path / "d") == pairs
    proof = (
        "--cacert",
        keys / "ca.pem",
        "--cert",
        keys / "server.pem",
        "--key",
        keys / "server.key",
    )
    cli.ok("import", url, "--dir", tmp_path / "e", *proof)
    assert contents(tmp_path / "e") == pairs
    done = cli("import", url, "--dir", tmp_path / "f", "--cacert", keys / "ca.key")
    assert "of no use" in done.error
    # To a plain Redis a TLS greeting is a line that does not end: it waits, and so would we.
    monkeypatch.setattr("marram.cli.redis_source._CONNECT_TIMEOUT_S", 0.5)
    for scheme, port, said in (
        ("rediss", source.port, "no answer in time; if it speaks without TLS, write redis://"),
        ("redis", source.tls_port, "write rediss://"),
    ):
        done = cli("import", f"{scheme}://127.0.0.1:{port}", "--dir", tmp_path / "f")
        assert (done.code, said in done.error) == (1, True), done.error


@pytest.mark.redis
def test_a_cluster_node_gives_its_keys_and_says_that_others_have_more(cli, tmp_path):
    with redis_process(tmp_path, "--cluster-enabled", "yes") as node:
        node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        deadline = time.monotonic() + DEADLINE_S
        while b"cluster_state:ok" not in node.client.execute_command("CLUSTER", "INFO"):
            assert time.monotonic() < deadline
        for number in range(100):
            node.client.set(f"key {number}", number)
        out = cli.ok("import", node.url, "--dir", tmp_path / "d")
        assert out.splitlines()[0].startswith("OK (100 keys copied")
        assert "one node of a cluster" in out.splitlines()[1]
        assert len(contents(tmp_path / "d")) == 100
        report = json.loads(cli.ok("import", node.url, "--dir", tmp_path / "d", "--json"))
        assert report["cluster"] is True


@contextlib.contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """A server that gives an answer to each thing that it reads, and closes; the URL of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE_S)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(DEADLINE_S)
                for answer in answers:
                    if not connection.recv(65536):
                        return
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(DEADLINE_S)


INFO = b"$38\r\n# Keyspace\r\ndb0:keys=1,expires=0,avg\r\n\r\n"
START = (b"+OK\r\n", INFO, b"+OK\r\n", b":1\r\n")


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), "is not a Redis: a reply cannot start with b'H'"),
        ((b"SSH-2.0-OpenSSH\r\n",), "is not a Redis"),
        ((b"\x15\x03\x03\x00\x02\x02\x50\r\n",), "write rediss://"),
        ((b"",), "the server closed it; if it wants TLS, write rediss://"),
        ((b"+OK\r\n", b"-LOADING Redis is loading\r\n"), "refused INFO: LOADING Redis is loading"),
        ((b"+OK\r\n", b"-ERR \x1b[2J\r\n"), "refused INFO: ERR ?[2J"),
        ((b"+OK\r\n", b":5\r\n"), "answered INFO in a way that Redis does not"),
        ((b"+OK\r\n", b"+OK\r\n+OK\r\n"), "sent more replies than commands came"),
        ((b"+OK\r\n", b"+O"), "broke: the server closed it; nothing was copied"),
        ((b"+OK\r\n", b"what?\r\n"), "sent damaged bytes"),
        ((*START, b"*1\r\n$1\r\n0\r\n"), "answered SCAN in a way that Redis does not"),
        ((*START, b"-MOVED 1 10.0.0.1:6379\r\n"), "refused SCAN: MOVED 1 10.0.0.1:6379"),
        ((*START, b"*2\r\n$1\r\n0\r\n*1\r\n:1\r\n"), "answered SCAN in a way that Redis does not"),
        ((*START, b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n", b":1\r\n"), "answered TYPE in a way"),
    ],
)  # fmt: skip
def test_s3_what_is_not_a_redis_is_told_in_one_line(cli, tmp_path, answers, said):
    with answering(*answers) as url:
        done = cli("import", url, "--dir", tmp_path / "d")
    assert done.code == 1
    assert said in done.error


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"+OK\r\n+QUEUED\r\n-NOPERM no pttl\r\n+QUEUED\r\n-EXECABORT x\r\n", "NOPERM no pttl"),
        (b"-ERR unknown command\r\n" * 5, "refused a read: ERR unknown command"),
        (b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n-OOM x\r\n", "refused EXEC: OOM x"),
        (b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*1\r\n:1\r\n", "answered EXEC in a way"),
        (b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n:1\r\n+x\r\n$1\r\nv\r\n", "answered"),
        (b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n:1\r\n:-1\r\n$-1\r\n", "GETRANGE in a"),
        (b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n-ERR x\r\n:-1\r\n$1\r\nv\r\n", "ERR x"),
    ],
)  # fmt: skip
def test_s3_a_read_that_is_refused_or_odd_copies_nothing(cli, tmp_path, answer, said):
    scan, types = b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n", b"+string\r\n"
    with answering(*START, scan, types, answer) as url:
        done = cli("import", url, "--dir", tmp_path / "d")
    assert done.code == 1
    assert said in done.error and done.error.endswith("nothing was copied")
    assert contents(tmp_path / "d") == {}


def test_a_server_that_never_speaks_is_given_up(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("marram.cli.redis_source._CONNECT_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        done = cli("import", url, "--dir", tmp_path / "d")
    assert done.code == 1
    assert "no answer in time" in done.error


def test_nobody_there_is_one_line(cli, tmp_path):
    for url, said in (
        ("redis://127.0.0.1:1", "Error: cannot connect to 127.0.0.1:1: Connection refused"),
        (f"unix://{tmp_path}/none", f"Error: cannot connect to {tmp_path}/none: No such file"),
    ):
        done = cli("import", url, "--dir", tmp_path / "d")
        assert done.code == 1
        assert done.error.startswith(said)
    assert not (tmp_path / "d").exists()


# -- usage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["localhost:6379"], "starts with redis://"),
        (["http://localhost"], "starts with redis://"),
        (["redis://h:port"], "the URL is not"),
        (["redis://:hush@pass@h:1/2/3"], "write @ : / ? # in a password as %40"),
        (["redis://:hush#x@h"], "the URL is not"),
        (["redis://h/1?db=2"], "the URL is not"),
        (["redis://h?tls=yes"], "the URL is not"),
        (["redis://h/x"], "the URL is not"),
        (["unix://tmp/sock"], "unix:///path"),
        (["redis://user@h"], "there is no password"),
        (["redis://h/1", "--db", "2"], "different databases"),
        (["redis://h/1", "--db", "all"], "different databases"),
        (["redis://h", "--db", "x"], "a number, or all"),
        (["redis://h", "-n", "2"], "--keyspace is for one database"),
        (["redis://h/16"], "choose one with --keyspace"),
        (["redis://h", "--insecure"], "go with rediss://"),
        (["redis://h", "--cacert", __file__], "go with rediss://"),
        (["redis://h", "--batch", "0"], "--batch"),
        (["redis://h", "--batch", "10001"], "--batch"),
        (["redis://h", "--connect", "h:1", "--engine", "lsm"], "--engine is for a directory"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_before_anybody_is_called(cli, arguments, said):
    done = cli("import", *arguments)
    assert done.code == 2
    assert said in done.error
    assert "hush" not in done.error
