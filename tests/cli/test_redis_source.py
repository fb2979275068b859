"""The URL of a Redis, and the connection's two full buffers."""

from __future__ import annotations

import doctest

import pytest

from marram.cli import redis_source
from marram.cli.redis_source import RedisSource, RedisUrl, Tls, parse_redis_url
from tests.cli.redis_process import redis_process
from tests.server.serving import serving


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://", RedisUrl()),
        ("redis://h", RedisUrl("h")),
        ("valkey://h/", RedisUrl("h")),
        ("redis://h:7/15", RedisUrl("h", 7, database=15)),
        ("redis://h:7?db=15", RedisUrl("h", 7, database=15)),
        ("redis:///2", RedisUrl(database=2)),
        ("redis://[::1]:7", RedisUrl("::1", 7)),
        ("rediss://u:p%40%2F@h", RedisUrl("h", tls=True, user="u", password="p@/")),
        ("valkeys://:p@h", RedisUrl("h", tls=True, password="p")),
        ("unix:///a%20b/s?db=1", RedisUrl(path="/a b/s", database=1)),
        ("unix://u:p@/s", RedisUrl(path="/s", user="u", password="p")),
    ],
)
def test_a_url_says_where_and_who(text, expected):
    found = parse_redis_url(text)
    assert (found, found.password) == (expected, expected.password)


def test_an_address_is_what_people_write_and_the_password_is_not_shown():
    assert RedisUrl("::1", 7).address == "[::1]:7"
    assert RedisUrl(path="/s").address == "/s"
    assert "hush" not in repr(parse_redis_url("redis://u:hush@h"))


def test_the_examples_are_true():
    assert doctest.testmod(redis_source).failed == 0


def test_s1_requests_and_replies_larger_than_all_buffers_pass(tmp_path):
    # The server stops reading while its replies are not taken, so sending all first would hang.
    with serving(tmp_path) as running:
        host, port = running.address()
        with RedisSource(RedisUrl(host, port), Tls()) as source:
            keys = [b"%060000d" % number for number in range(10)] * 30
            with running.connect() as client:
                for key in keys[:10]:
                    client.ask(b"SET", key, b"v" * 100_000)
            found = source.read(keys, None)
    assert len(found) == len(keys)
    assert {each and each.value for each in found} == {b"v" * 100_000}


@pytest.mark.redis
@pytest.mark.parametrize("command", [b"STRLEN", b"PTTL", b"GETRANGE"])
def test_s2_a_key_that_changes_between_two_commands_is_read_before_or_after(
    tmp_path, monkeypatch, command
):
    start = b"$%d\r\n%b\r\n" % (len(command), command)
    where = RedisUrl(path=str(tmp_path / "redis.sock"))
    with redis_process(tmp_path) as process, RedisSource(where, Tls()) as source:
        process.client.set("k", "immortal")
        plain_send = RedisSource._send

        def send(self: RedisSource, unsent: memoryview) -> int:
            """Lets another client write when all that precedes the command has been run."""
            cut = bytes(unsent).find(start)
            if cut < 0:
                return plain_send(self, unsent)
            cut -= len("*2\r\n")
            self._socket.sendall(unsent[:cut])
            # Redis takes from each connection in turn: by the second answer it has been at ours.
            process.client.ping()
            process.client.ping()
            process.client.set("k", "mortal!", px=1_000_000)
            self._socket.sendall(unsent[cut:])
            return len(unsent)

        monkeypatch.setattr(RedisSource, "_send", send)
        (found,) = source.read([b"k"], None)
        assert process.client.get("k") == b"mortal!"
    assert found is not None
    assert (found.size_bytes, found.left_ms > 0, found.value) in (
        (8, False, b"immortal"), (7, True, b"mortal!"),
    )  # fmt: skip
