"""The framed protocol over real sockets."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from marram.protocol.frames import FrameReply, FrameReplyParser, Op, Status, encode_request
from tests.server.serving import Client, GatedEnv, Running, serving

OK = FrameReply(Status.OK, b"")
NOT_FOUND = FrameReply(Status.NOT_FOUND, b"")
ON = {"frame_port": 0}


class Frames:
    """The framed protocol on a test connection."""

    def __init__(self, running: Running) -> None:
        self.client = running.connect("frame")
        self._parser = FrameReplyParser()
        self._ready: list[FrameReply] = []

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *about: object) -> None:
        self.client.socket.close()

    def send(self, op: Op, key: bytes = b"", value: bytes = b"") -> None:
        self.client.send(encode_request(op, key, value))

    def reply(self) -> FrameReply:
        while not self._ready:
            data = self.client.socket.recv(65536)
            if not data:
                raise ConnectionError("closed by the server")
            self._ready += self._parser.feed(data)
        return self._ready.pop(0)

    def ask(self, op: Op, key: bytes = b"", value: bytes = b"") -> FrameReply:
        self.send(op, key, value)
        return self.reply()


@pytest.fixture(params=["uvloop", "asyncio"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    with serving(tmp_path, loop=request.param, **ON) as server:
        yield server


def test_every_op_answers_as_documented(running: Running) -> None:
    with Frames(running) as frames, running.connect() as resp:
        assert frames.ask(Op.PING) == OK
        assert frames.ask(Op.GET, b"k") == NOT_FOUND
        assert frames.ask(Op.PUT, b"k", b"\0\xff\r\n") == OK
        assert frames.ask(Op.GET, b"k") == FrameReply(Status.OK, b"\0\xff\r\n")
        assert resp.ask(b"GET", b"k") == b"\0\xff\r\n"
        assert frames.ask(Op.DELETE, b"k") == OK
        assert frames.ask(Op.DELETE, b"k") == OK
        assert frames.ask(Op.GET, b"k") == NOT_FOUND
        stats = json.loads(frames.ask(Op.STATS).payload)
        assert stats["num_keys"] == 0
        assert stats["server"]["connected_clients"] == 2
        refused = frames.ask(Op.REPLICATE)
        assert refused.status is Status.ERROR
        assert "has to be the first request" in refused.message
        assert frames.ask(Op.PING) == OK


def test_a_pipeline_is_answered_in_order_at_any_cut(running: Running) -> None:
    requests = [encode_request(Op.PUT, b"k%d" % n, b"%d" % n) for n in range(2000)]
    requests += [encode_request(Op.GET, b"k%d" % n) for n in range(2000)]
    data = b"".join(requests)
    draw = random.Random(3)
    with Frames(running) as frames:
        at = 0
        while at < len(data):
            size = draw.choice((1, 7, 100, 5000))
            frames.client.send(data[at : at + size])
            at += size
        assert [frames.reply() for _ in range(2000)] == [OK] * 2000
        assert [frames.reply().payload for _ in range(2000)] == [b"%d" % n for n in range(2000)]


def test_n1_a_put_is_answered_once_it_is_on_disk(tmp_path: Path) -> None:
    env = GatedEnv()
    with serving(tmp_path, env, **ON) as running, Frames(running) as frames:
        env.close_gate()
        frames.send(Op.PUT, b"k", b"v")
        frames.send(Op.GET, b"k")
        assert env.waiting.acquire(timeout=20)
        with Frames(running) as other:
            assert other.ask(Op.PING) == OK
        assert frames.client.nothing_came()
        env.open_gate()
        assert frames.reply() == OK
        assert frames.reply().payload == b"v"


def test_a_refused_request_leaves_the_connection_usable(tmp_path: Path) -> None:
    with serving(tmp_path, max_value_bytes=100, **ON) as running, Frames(running) as frames:
        assert frames.ask(Op.PUT, b"", b"v").message == "ERR key is empty"
        assert frames.ask(Op.GET, b"").status is Status.ERROR
        assert frames.ask(Op.PUT, b"k", bytes(100)) == OK
        assert frames.ask(Op.PUT, b"k", bytes(101)).status is Status.ERROR
        assert frames.ask(Op.GET, b"k").payload == bytes(100)


@pytest.mark.parametrize(
    "malformed",
    [
        struct.pack("<I", 8),
        struct.pack("<IBII", 9, 99, 0, 0),
        struct.pack("<IBII", 9, 1, 1, 0),
        struct.pack("<I", 0xFFFFFFFF),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_n3_a_malformed_frame_is_answered_after_what_came_before_and_ends_it(
    running: Running, malformed: bytes
) -> None:
    with Frames(running) as frames:
        after = encode_request(Op.PUT, b"k", b"w")
        frames.client.send(encode_request(Op.PUT, b"k", b"v") + malformed + after)
        assert frames.reply() == OK
        assert frames.reply().message.startswith("ERR Protocol error: ")
        assert frames.client.rest() == b""
    with Frames(running) as other:
        assert other.ask(Op.GET, b"k").payload == b"v"


def test_garbage_ends_only_its_own_connection(running: Running) -> None:
    draw = random.Random(7)
    with Frames(running) as good:
        for size in (1, 10, 1000, 100_000):
            for _ in range(5):
                with running.connect("frame") as bad:
                    bad.send(draw.randbytes(size))
                assert good.ask(Op.PING) == OK


def test_a_ping_with_the_password_logs_in(tmp_path: Path) -> None:
    with serving(tmp_path, password="sesame", **ON) as running:
        for op in (Op.GET, Op.PUT, Op.DELETE, Op.STATS, Op.PING):
            with Frames(running) as frames:
                assert frames.ask(op, b"k" if op not in (Op.PING, Op.STATS) else b"").message == (
                    "NOAUTH Authentication required."
                )
        with Frames(running) as frames:
            assert frames.ask(Op.PING, b"wrong").message.startswith("WRONGPASS")
            frames.send(Op.PING, b"sesame")
            frames.send(Op.PUT, b"k", b"v")
            assert [frames.reply(), frames.reply()] == [OK, OK]
            assert frames.ask(Op.PUT, b"k", bytes(1 << 20)) == OK
        with Frames(running) as frames:
            frames.client.send(struct.pack("<IBII", 9 + (1 << 20), 2, 1, (1 << 20) - 1))
            assert "larger than the limit" in frames.reply().message


def test_maxclients_counts_frames_too(running: Running) -> None:
    with Client(running.address()) as resp, Frames(running) as first:
        resp.ask(b"CONFIG", b"SET", b"maxclients", b"2")
        assert first.ask(Op.PING) == OK
        with Frames(running) as second:
            assert second.reply().message == "ERR max number of clients reached"
            assert second.client.rest() == b""


def test_a_slow_reader_is_not_run_and_then_gets_all(running: Running) -> None:
    value = bytes(1 << 20)
    with Frames(running) as frames, Frames(running) as other:
        assert frames.ask(Op.PUT, b"big", value) == OK
        frames.client.send(encode_request(Op.GET, b"big") * 50)
        assert other.ask(Op.PING) == OK
        unsent = running.call(
            lambda server: max(c.unsent_bytes() for c in server.clients.connections)
        )
        assert unsent < 4 * len(value)
        assert all(frames.reply().payload == value for _ in range(50))


def test_with_a_network_password_ping_without_key_needs_none_after_login(tmp_path: Path) -> None:
    with serving(tmp_path, password="sesame", **ON) as running, Frames(running) as frames:
        assert frames.ask(Op.PING, b"sesame") == OK
        assert frames.ask(Op.PING) == OK


def test_without_a_password_a_ping_with_a_key_says_so(running: Running) -> None:
    with Frames(running) as frames:
        assert "without any password" in frames.ask(Op.PING, b"key").message
