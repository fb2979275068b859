"""Control commands answer as Redis does: the same script, both servers, equal replies."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marram.node.settings import Settings
from marram.protocol.resp import encode
from marram.protocol.resp_client import ReplyParser
from tests.differential.redis_oracle import MISSING, Connection, redis_server
from tests.node.harness import PENDING, Client, World

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(MISSING, reason="redis-server is not installed"),
]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    directory: Path = tmp_path_factory.mktemp("redis")
    with redis_server(directory) as connection:
        yield connection


@pytest.fixture
def client(redis: Connection) -> Client:
    redis.ask(b"RESET")
    redis.ask(b"FLUSHALL")
    return World(settings=Settings()).client()


def ours(client: Client, args: list[bytes]) -> Any:
    reply = client(*args)
    while reply is PENDING:
        client.world.advance(50)
        reply = client.result()
    parser = ReplyParser()
    (value,) = parser.feed(encode(reply, 2))
    return value


SCRIPTS = {
    "handshake": """
        hello 4; hello x; hello 2 foo; hello 2 auth a; auth x; auth default x; auth a b c
        auth foo x; ping; ping a; ping a b; echo; echo a; select x; select 16; select -1
        nosuch; nosuch a b; NoSuch 'a b'; get; get a b; command foo; object; reset
    """,
    "client": """
        client; client foo; client id 3; client getname; client setname 'a b'; client setname me
        client getname; client setname ''; client getname; client reply maybe; client kill foo
        client kill id x; client kill id 0; client kill id 999; client kill 1.2.3.4:5
        client kill type foo; client kill user nobody; client kill skipme maybe
        client kill addr x laddr; client kill addr 1.1.1.1:3; client list type foo
        client list id x; client list foo; client pause x; client pause -1; client pause 0
        client pause 10 foo; client unpause; client no-evict maybe; client no-evict on
        client tracking off; client trackinginfo; client getredir; client caching yes
        client caching x; client unblock 999; client unblock 1 foo; client unblock x
    """,
    "command": """
        command count foo; command list filterby foo bar; command list filterby module foo
        command list foo; command list filterby pattern getra*; command info foo; command docs foo
        command getkeys mset a b c d; command getkeys set a; command getkeys nosuch x
        command getkeysandflags ping x y
    """,
    "config": """
        config; config foo; config get; config set; config set foo bar; config set maxmemory abc
        config set timeout x; config set appendfsync foo; config set appendonly foo
        config set maxclients 0; config set maxclients 10 maxclients 11; config set timeout
        config set timeout 3 foo bar; config get timeout; config set timeout 7; config get TIMEOUT
        config set client-output-buffer-limit 'normal 1'
        config set client-output-buffer-limit 'foo 1 2 3'; config set proto-max-bulk-len 1
        config set proto-max-bulk-len 2mb; config get proto-max-bulk-len; config set save x
        config get save; config set notify-keyspace-events foo; config get nosuch
        config set latency-monitor-threshold -1; config get maxmemory; config resetstat
        config set slowlog-log-slower-than x; config get slowlog-max-len; config set timeout 0
    """,
    "server": """
        bgsave foo; shutdown foo; shutdown abort; shutdown nosave save; slowlog get -2
        slowlog get x; slowlog len; slowlog reset; slowlog get 1; slowlog foo
        latency history foo; latency latest; latency reset; latency graph foo
        memory usage nosuch; memory usage a foo 3; memory usage a samples x; memory purge
        wait 0 0; wait 1 10; wait x 1; wait 1 x; wait 1 -1; function list; function flush
        function flush foo; function foo; module list; acl whoami; acl cat foo; acl list
        acl users; cluster info; cluster foo; cluster; readonly; asking; randomkey; debug sleep 0
        info nosuch; pubsub channels; pubsub numsub a b; pubsub numpat; pubsub shardchannels
        pubsub shardnumsub; pubsub foo; publish a b; publish a
    """,
    "multi": """
        exec; discard; multi; multi; watch a; exec; multi; get; discard; multi; get; set a b
        foo; exec; get a; multi; set a b; get a; incr a; exec; multi; exec x; multi; save; exec
        multi; client kill foo; select x; select 1; ping a; wait 1 100; publish c d; exec; select 0
        watch a; set a c; multi; get a; exec; watch a; unwatch; set a d; multi; get a; exec
        unwatch; watch a; discard; multi; unwatch; discard; watch a; multi; set a 1; exec; watch a
        multi; monitor; exec; multi; debug sleep 0; exec
    """,
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_replies_are_equal(redis: Connection, client: Client, script: str) -> None:
    lines = [line for text in SCRIPTS[script].splitlines() for line in text.split(";")]
    for line in lines:
        args = [word.encode() for word in shlex.split(line)]
        if args:
            assert ours(client, args) == redis.ask(*args), line


def test_a_subscriber_s_refusals_are_equal(redis: Connection, client: Client) -> None:
    redis.ask(b"SUBSCRIBE", b"c")
    client("SUBSCRIBE", "c")
    for line in ("get a", "client id", "multi", "hello 3", "ping", "ping x", "nosuch", "get"):
        args = [word.encode() for word in line.split()]
        assert ours(client, args) == redis.ask(*args), line


def test_login_refusals_are_equal(redis: Connection, client: Client) -> None:
    for ask in (redis.ask, lambda *args: ours(client, list(args))):
        ask(b"CONFIG", b"SET", b"requirepass", b"secret")
        ask(b"RESET")
    try:
        for line in ("get a", "multi", "hello", "hello 2", "auth", "auth wrong", "auth x secret",
                     "auth default wrong", "nosuch", "get", "auth secret", "get a"):  # fmt: skip
            args = [word.encode() for word in line.split()]
            assert ours(client, args) == redis.ask(*args), line
    finally:
        redis.ask(b"AUTH", b"secret")
        redis.ask(b"CONFIG", b"SET", b"requirepass", b"")
