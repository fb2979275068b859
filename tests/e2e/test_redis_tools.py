"""Redis's own tools and client, unmodified, against a real server process."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import threading
from collections.abc import Iterator

import pytest
import redis

from tests.e2e.process import ServerProcess

LSM = ("--engine", "lsm", "--memtable-bytes", "64kib")


@pytest.fixture(scope="module", params=[(), LSM], ids=["memory", "lsm"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("tools") / "db", *request.param) as process:
        yield process


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: redis-tools)")
    return found


def cli(server: ServerProcess, *arguments: str, stdin: str | bytes = "", timeout: int = 30) -> str:
    """Run redis-cli, return its output; non-zero exit fails the test."""
    data = stdin if isinstance(stdin, bytes) else stdin.encode()
    done = subprocess.run(
        [tool("redis-cli"), "-p", str(server.ports["resp"]), *arguments],
        input=data,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout.decode()


@pytest.fixture
def filled(server: ServerProcess) -> ServerProcess:
    cli(server, "FLUSHALL")
    with redis.Redis(port=server.ports["resp"]) as client:
        client.mset({f"user:{n}": "x" * (n % 50) for n in range(500)})
        client.set("big", "y" * 100_000, ex=1000)
    return server


@pytest.mark.parametrize("protocol", ["-2", "-3"])
def test_redis_cli_one_shot(server: ServerProcess, protocol: str) -> None:
    assert cli(server, protocol, "SET", "greeting", "hello", "EX", "60") == "OK\n"
    assert cli(server, protocol, "GET", "greeting") == "hello\n"
    assert cli(server, protocol, "-n", "3", "GET", "greeting") == "\n"
    assert cli(server, protocol, "--no-raw", "GET", "nothing") == "(nil)\n"
    assert "unknown command 'NONSENSE'" in cli(server, protocol, "NONSENSE", "a")


def test_redis_cli_interactive_input_through_a_pipe(server: ServerProcess) -> None:
    out = cli(server, stdin="SET a 1\nINCR a\nMULTI\nINCR a\nGET a\nEXEC\nHELLO 3\n")
    assert out.splitlines()[:5] == ["OK", "2", "OK", "QUEUED", "QUEUED"]
    assert "marram" in out or "redis" in out


def test_redis_cli_scan(filled: ServerProcess) -> None:
    out = cli(filled, "--scan", "--pattern", "user:4*")
    expected = {f"user:{n}" for n in range(500) if str(n).startswith("4")}
    assert set(out.split()) == expected


@pytest.mark.parametrize("mode", ["--bigkeys", "--memkeys"])
def test_redis_cli_finds_the_big_key(filled: ServerProcess, mode: str) -> None:
    out = cli(filled, mode)
    assert "Sampled 501 keys in the keyspace!" in out
    assert '"big"' in out


def test_redis_cli_latency(server: ServerProcess) -> None:
    out = cli(server, "--latency", "-i", "1")
    minimum, maximum, mean, samples = out.split()[:4]
    assert float(minimum) <= float(mean) <= float(maximum)
    assert int(samples) > 10


def test_redis_cli_stat(filled: ServerProcess) -> None:
    process = subprocess.Popen(
        [tool("redis-cli"), "-p", str(filled.ports["resp"]), "--stat", "-i", "0.1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(6)]
    process.kill()
    process.communicate()
    assert "keys" in lines[1]
    assert lines[3].split()[0] == "501"


def test_redis_cli_pipe_mode(server: ServerProcess) -> None:
    cli(server, "FLUSHALL")
    inline = "".join(f"SET k{n} v{n}\r\n" for n in range(20_000))
    out = cli(server, "--pipe", stdin=inline)
    assert "errors: 0, replies: 20000" in out
    assert cli(server, "DBSIZE") == "20000\n"


@pytest.mark.parametrize("pipeline", ["1", "16"])
def test_redis_benchmark(server: ServerProcess, pipeline: str) -> None:
    done = subprocess.run(
        [
            tool("redis-benchmark"), "-p", str(server.ports["resp"]), "-P", pipeline, "-q",
            "-t", "ping,set,get,incr,mset", "-n", "4000", "-c", "50", "-d", "100",
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"):
        assert f"{name}: " in done.stdout
    assert "Error" not in done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr


# -- redis-py with its defaults (RESP3) ------------------------------------------------------------


@pytest.fixture(params=[3, 2])
def client(server: ServerProcess, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    options = {} if request.param == 3 else {"protocol": 2}
    with redis.Redis(port=server.ports["resp"], **options) as connection:
        connection.flushall()
        yield connection


def test_redis_py_strings_and_deadlines(client: redis.Redis) -> None:
    assert client.set("k", "v", ex=100, nx=True) is True
    assert client.set("k", "w", nx=True) is None
    assert client.set("k", "w", keepttl=True, get=True) == b"v"
    assert 0 < client.ttl("k") <= 100
    assert client.getex("k", persist=True) == b"w"
    assert client.ttl("k") == -1
    assert client.mset({"a": "1", "b": "2"}) is True
    assert client.mget("a", "b", "c") == [b"1", b"2", None]
    assert client.incrbyfloat("a", 1.5) == 2.5
    assert client.getdel("b") == b"2"
    assert client.exists("b") == 0


def test_redis_py_pipeline_transaction_and_watch(client: redis.Redis) -> None:
    with client.pipeline(transaction=True) as pipe:
        pipe.set("n", 1).incr("n").get("n")
        assert pipe.execute() == [True, 2, b"2"]

    def bump(pipe: redis.client.Pipeline) -> None:
        seen = int(pipe.get("n"))
        pipe.multi()
        pipe.set("n", seen + 10)

    assert client.transaction(bump, "n") == [True]
    assert client.get("n") == b"12"
    with client.pipeline() as pipe:
        pipe.watch("n")
        client.set("n", "elsewhere")
        pipe.multi()
        pipe.set("n", "lost")
        with pytest.raises(redis.WatchError):
            pipe.execute()


def test_redis_py_scan_and_keys(client: redis.Redis) -> None:
    client.mset({f"key:{n}": n for n in range(1000)})
    assert sorted(client.scan_iter("key:*", count=50)) == sorted(client.keys("key:*"))
    assert client.dbsize() == 1000
    assert client.type("key:1") == b"string"


def test_redis_py_pubsub(client: redis.Redis) -> None:
    pubsub = client.pubsub()
    pubsub.subscribe("news")
    pubsub.psubscribe("n*")
    for _ in range(2):
        assert pubsub.get_message(timeout=5)["type"].endswith("subscribe")
    assert client.publish("news", "hello") == 2
    kinds = {pubsub.get_message(timeout=5)["type"] for _ in range(2)}
    assert kinds == {"message", "pmessage"}
    pubsub.close()


def test_redis_py_introspection(client: redis.Redis) -> None:
    info = client.info()
    assert info["redis_version"].count(".") == 2
    assert info["loading"] == 0
    assert info["role"] == "master"
    assert "marram_version" in info
    assert client.config_get("maxclients")
    assert any(c["id"] == str(client.client_id()) for c in client.client_list())
    assert client.command_count() > 100
    assert client.command_getkeys("MSET", "a", "1", "b", "2") == ["a", "b"]
    assert client.client_setname("me")
    assert client.client_getname() in (b"me", "me")
    assert client.time()[0] > 1_600_000_000
    assert client.memory_usage("nothing") is None
    assert client.slowlog_len() >= 0
    assert client.wait(0, 100) == 0
    assert client.object("encoding", "none") is None


def test_redis_py_errors(client: redis.Redis) -> None:
    client.set("text", "abc")
    with pytest.raises(redis.ResponseError, match="not an integer"):
        client.incr("text")
    with pytest.raises(redis.ResponseError, match="unknown command"):
        client.execute_command("NOSUCH")
    with pytest.raises(redis.ResponseError, match="wrong number of arguments"):
        client.execute_command("GET")


def test_redis_py_from_many_threads(server: ServerProcess) -> None:
    with redis.Redis(port=server.ports["resp"], max_connections=16) as shared:
        shared.set("counter", 0)

        def work() -> None:
            for _ in range(100):
                shared.incr("counter")

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert shared.get("counter") == b"800"


@pytest.mark.timeout(60)
def test_redis_py_asyncio(server: ServerProcess) -> None:
    import asyncio

    import redis.asyncio

    async def work() -> list[object]:
        async with redis.asyncio.Redis(port=server.ports["resp"]) as connection:
            await asyncio.gather(*(connection.set(f"aio:{n}", n) for n in range(50)))
            return await asyncio.gather(*(connection.get(f"aio:{n}") for n in range(50)))

    assert asyncio.run(work()) == [b"%d" % n for n in range(50)]


def test_the_ready_line_is_the_contract(server: ServerProcess, tmp_path: pathlib.Path) -> None:
    words = server.ready_line.split()
    assert words[:2] == ["marram", "ready"]
    fields = dict(word.split("=", 1) for word in words[2:])
    assert list(fields) == ["dir", "engine", "resp", "http", "frame"]
    assert fields["engine"] == ("lsm" if "lsm" in server.arguments else "memory")
