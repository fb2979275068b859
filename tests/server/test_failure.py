"""The log fails while clients wait: what each is told, and what goes on (P4)."""

from __future__ import annotations

import errno
import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from marram.env import posix_env
from marram.env.faulty import Fault, FaultyEnv
from marram.protocol.frames import Op, Status, encode_request
from marram.protocol.replies import ErrorReply, Simple
from tests.server.serving import GatedEnv, Running, serving, wire
from tests.server.test_frames import Frames

OK = Simple("OK")


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[tuple[Running, FaultyEnv]]:
    env = FaultyEnv(posix_env())
    with serving(tmp_path, env, http_port=0, frame_port=0) as running:
        yield running, env


def in_doubt(reply: object) -> bool:
    return isinstance(reply, ErrorReply) and reply.code == "OUTCOMEUNKNOWN"


def test_m2_a_failed_sync_leaves_writes_in_doubt_and_reads_of_settled_keys_answered(
    failing: tuple[Running, FaultyEnv],
) -> None:
    running, env = failing
    with running.connect() as client, running.connect() as other:
        assert client.ask(b"SET", b"settled", b"1") == OK
        env.add(Fault("sync_data", "*logfile*", times=None))
        # PING before the write waits for nothing; the replies behind it reveal or follow it.
        client.send(wire(b"PING") + wire(b"SET", b"k", b"v") + wire(b"GET", b"k") + wire(b"PING"))
        assert client.reply() == Simple("PONG")
        assert all(in_doubt(reply) for reply in client.replies(3))
        for one in (client, other):
            assert one.ask(b"GET", b"settled") == b"1"
            assert one.ask(b"SET", b"k", b"w").code == "MISCONF"
            assert in_doubt(one.ask(b"GET", b"k"))
            assert one.ask(b"PING") == Simple("PONG")
    assert running.call(lambda server: server.why_not_ready()) is not None


def test_m2_who_asked_for_no_replies_is_told_nothing_of_those(
    failing: tuple[Running, FaultyEnv],
) -> None:
    running, env = failing
    with running.connect() as client:
        env.add(Fault("sync_data", "*logfile*", times=None))
        silent = wire(b"CLIENT", b"REPLY", b"SKIP") + wire(b"SET", b"b", b"2")
        client.send(wire(b"SET", b"a", b"1") + silent + silent + wire(b"STRLEN", b"a"))
        assert all(in_doubt(reply) for reply in client.replies(2))
        assert client.ask(b"PING") == Simple("PONG")


def test_m2_everybody_who_waits_is_told(tmp_path: Path) -> None:
    gate = GatedEnv()
    env = FaultyEnv(gate)
    with serving(tmp_path, env) as running:
        writers = [running.connect() for _ in range(5)]
        env.add(Fault("sync_data", "*logfile*", nth=3, times=None))
        assert writers[0].ask(b"SET", b"a", b"1") == OK
        gate.close_gate()
        writers[0].command(b"SET", b"b", b"1")
        assert gate.waiting.acquire(timeout=20)
        for number, writer in enumerate(writers[1:]):
            writer.command(b"SET", b"k%d" % number, b"1")
        with running.connect() as other:
            assert other.ask(b"PING") == Simple("PONG")
        gate.open_gate()
        assert writers[0].reply() == OK  # its group was the one before
        assert all(in_doubt(writer.reply()) for writer in writers[1:])
        for writer in writers:
            writer.socket.close()


def test_frames_and_http_say_it_too(failing: tuple[Running, FaultyEnv]) -> None:
    running, env = failing
    with Frames(running) as frames:
        env.add(Fault("sync_data", "*logfile*", times=None))
        # In one write: the Ping waits for nothing, and the failure must not touch it.
        frames.client.send(encode_request(Op.PING) + encode_request(Op.PUT, b"k", b"v"))
        assert frames.reply().status is Status.OK
        reply = frames.reply()
        assert reply.status is Status.ERROR
        assert reply.message.startswith("OUTCOMEUNKNOWN")
        assert frames.ask(Op.PUT, b"k", b"v").message.startswith("MISCONF")
    web = http.client.HTTPConnection(*running.address("http"), timeout=20)

    def ask(method: str, path: str, body: str | None = None) -> tuple[int, str]:
        headers = {"Content-Type": "application/json"} if body else {}
        web.request(method, path, body, headers)
        response = web.getresponse()
        return response.status, json.loads(response.read()).get("error", {}).get("code", "")

    put = '{"value": ""}'
    assert ask("PUT", "/v1/kv/other", put) == (503, "store_failed")
    assert ask("GET", "/v1/kv/k") == (500, "outcome_unknown")
    assert ask("GET", "/readyz") == (503, "not_ready")
    assert ask("GET", "/livez") == (200, "")
    assert ask("GET", "/v1/stats") == (200, "")
    web.close()


def test_m2_an_http_write_in_flight_is_in_doubt(failing: tuple[Running, FaultyEnv]) -> None:
    running, env = failing
    env.add(Fault("sync_data", "*logfile*", times=None))
    web = http.client.HTTPConnection(*running.address("http"), timeout=20)
    web.request("PUT", "/v1/kv/k", '{"value": ""}', {"Content-Type": "application/json"})
    response = web.getresponse()
    assert response.status == 500
    assert json.loads(response.read())["error"]["code"] == "outcome_unknown"
    web.close()


def test_a_full_disk_refuses_writes_and_nothing_fails(tmp_path: Path) -> None:
    env = FaultyEnv(posix_env())
    with serving(tmp_path, env) as running, running.connect() as client:
        assert client.ask(b"SET", b"k", b"1") == OK
        fault = env.add(Fault("allocate", "*", error=errno.ENOSPC, times=None))
        reply = None
        for number in range(100):
            reply = client.ask(b"SET", b"k%d" % number, bytes(1 << 20))
            if reply != OK:
                break
        assert isinstance(reply, ErrorReply)
        assert fault.fired
        assert client.ask(b"GET", b"k") == b"1"
        env.clear()
        assert client.ask(b"SET", b"k", b"2") == OK


def test_the_store_can_be_reopened_with_what_was_acknowledged(tmp_path: Path) -> None:
    env = FaultyEnv(posix_env())
    with serving(tmp_path, env) as running, running.connect() as client:
        for number in range(100):
            assert client.ask(b"SET", b"k%d" % number, b"v") == OK
        env.add(Fault("sync_data", "*logfile*", times=None))
        assert in_doubt(client.ask(b"SET", b"doubtful", b"v"))
    with serving(tmp_path) as running, running.connect() as client:
        assert client.ask(b"EXISTS", *(b"k%d" % number for number in range(100))) == 100
        assert client.ask(b"SET", b"k", b"v") == OK
