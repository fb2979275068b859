"""Primary and replicas over real sockets: catching up, levels, positions, and bad input."""

from __future__ import annotations

import errno
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from marram.env import posix_env
from marram.env.faulty import Fault, FaultyEnv
from marram.node.replication import uplink
from marram.protocol.frames import FrameReplyParser, Op, Status, encode_request
from marram.protocol.replies import ErrorReply
from marram.replication.codec import encode_hello
from marram.replication.messages import Hello
from tests.cli.redis_process import redis_process
from tests.server.serving import DEADLINE_S, Client, GatedEnv, Running, serving
from tests.server.test_frames import Frames
from tests.server.test_http import Web

WAIT_MS = b"%d" % int(DEADLINE_S * 1000)


class Servers:
    """Servers that a test starts, all stopped at its end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()
        self.named: dict[str, Running] = {}

    def start(self, name: str, of: Running | str = "", env: Any = None, **options: Any) -> Running:
        """A server with a frame port. of: whose replica."""
        if isinstance(of, Running):
            of = "{}:{}".format(*of.address("frame"))
        options = {"frame_port": 0, "replica_of": of, **options}
        running = self._stack.enter_context(serving(self._directory / name, env, **options))
        self.named[name] = running
        return running

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    found = Servers(tmp_path)
    yield found
    found.close()


def caught_up(primary: Running, replica: Running) -> None:
    """Return once the replica has, and shows, what the primary has committed now."""
    with primary.connect() as one, replica.connect() as other:
        epoch, sequence = one.ask(b"POSITION")
        assert other.ask(b"WAITPOS", b"%d-%d" % (epoch, sequence), WAIT_MS) == 1


def info(running: Running) -> dict[str, str]:
    with running.connect() as client:
        text = client.ask(b"INFO", b"replication").decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def until(found: Callable[[], Any]) -> Any:
    """What found() gives once it is true; asks again and again, each time a round trip."""
    for _ in range(100_000):
        value = found()
        if value:
            return value
    raise AssertionError("it does not come to that")


def trouble(running: Running) -> str:
    """Why the link to the upstream is down, once that is known."""
    return str(until(lambda: info(running)["link_trouble"]))


@contextmanager
def unharmed(primary: Running) -> Iterator[None]:
    """The primary answers as before afterwards, and has lost nothing."""
    with primary.connect() as client:
        client.ask(b"SET", b"kept", b"v")
        yield
        assert client.ask(b"GET", b"kept") == b"v"
        assert client.ask(b"SET", b"after", b"w") is not None
        assert info(primary)["connected_slaves"] == "0"


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_replica_copies_follows_and_serves_reads(servers: Servers, loop: str) -> None:
    primary = servers.start("p", loop=loop)
    with primary.connect() as client:
        for number in range(2000):
            client.command(b"SET", b"k%d" % number, b"v%d" % number)
        client.replies(2000)
        replica = servers.start("r", primary, loop=loop)
        caught_up(primary, replica)
        client.ask(b"SET", b"k7", b"new")
        assert client.ask(b"WAIT", b"1", WAIT_MS) == 1
        caught_up(primary, replica)
        with replica.connect() as reader:
            assert reader.ask(b"DBSIZE") == 2000
            assert reader.ask(b"GET", b"k7") == b"new"


def test_replicaof_and_no_one_over_sockets(servers: Servers) -> None:
    primary, other = servers.start("p"), servers.start("o")
    host, port = primary.address("frame")
    with primary.connect() as one, other.connect() as two:
        one.ask(b"SET", b"k", b"v")
        assert two.ask(b"SLAVEOF", host.encode(), b"%d" % port).text == "OK"
        caught_up(primary, other)
        at = "{}:{}".format(*primary.address())
        until(lambda: at in two.ask(b"SET", b"k", b"w").text)
        assert two.ask(b"REPLICAOF", b"NO", b"ONE").text == "OK"
        assert two.ask(b"SET", b"k", b"w").text == "OK"
        assert two.ask(b"POSITION") == [2, 2]
        assert two.ask(b"ROLE")[0] == b"master"


def test_a_full_copy_larger_than_the_window_arrives_whole(servers: Servers) -> None:
    primary = servers.start("p")
    value = bytes(range(256)) * 4096
    with primary.connect() as client:
        for number in range(24):
            client.ask(b"SET", b"k%d" % number, b"%d" % number + value)
        replica = servers.start("r", primary)
        caught_up(primary, replica)
        with replica.connect() as reader:
            for number in range(24):
                assert reader.ask(b"GET", b"k%d" % number) == b"%d" % number + value


def test_stopping_either_end_is_clean_and_the_link_comes_back(
    servers: Servers, tmp_path: Path
) -> None:
    primary = servers.start("p")
    replica = servers.start("r", primary)
    with primary.connect() as client:
        client.ask(b"SET", b"k", b"1")
    caught_up(primary, replica)
    replica.stop()
    until(lambda: info(primary)["connected_slaves"] == "0")
    with primary.connect() as client:
        client.ask(b"SET", b"k", b"2")
    again = servers.start("r")
    caught_up(primary, again)
    assert info(primary)["full_syncs_given"] == "1"
    primary.stop()
    said = trouble(again)
    assert "closed" in said or "refused" in said or "stops" in said
    with again.connect() as reader:
        assert reader.ask(b"GET", b"k") == b"2"


# -- levels ----------------------------------------------------------------------------------------


def gated(servers: Servers, **options: Any) -> tuple[Running, GatedEnv]:
    """A primary whose replica's disk can be made to wait."""
    primary = servers.start("p", http_port=0, **options)
    env = GatedEnv()
    replica = servers.start("r", primary, env)
    caught_up(primary, replica)
    until(lambda: info(primary)["min_acks_good_replicas"] == "1")
    return primary, env


def test_min_acks_holds_writers_and_readers_until_the_replicas_disk_has_it(
    servers: Servers,
) -> None:
    primary, env = gated(servers, min_acks=1, ack_timeout_s=DEADLINE_S)
    with primary.connect() as writer, primary.connect() as reader:
        assert writer.ask(b"SET", b"k", b"1").text == "OK"
        env.close_gate()
        writer.command(b"SET", b"k", b"2")
        assert env.waiting.acquire(timeout=DEADLINE_S), "it is on the primary's disk by now"
        reader.command(b"GET", b"k")
        with primary.connect() as fence:
            assert fence.ask(b"GET", b"other") is None
        assert writer.nothing_came()
        assert reader.nothing_came()
        env.open_gate()
        assert writer.reply().text == "OK"
        assert reader.reply() == b"2"


def test_received_is_enough_where_that_is_the_level(servers: Servers) -> None:
    primary, env = gated(servers, min_acks=1, ack_level="received", ack_timeout_s=DEADLINE_S)
    env.close_gate()
    with primary.connect() as writer:
        # Replicas acknowledge with their heartbeats what they have not synced.
        assert writer.ask(b"SET", b"k", b"1").text == "OK"
    env.open_gate()


def test_a_level_that_is_not_reached_in_time_is_in_doubt_on_every_protocol(
    servers: Servers,
) -> None:
    primary, env = gated(servers, min_acks=1, ack_timeout_s=0.2)
    with primary.connect() as resp, Frames(primary) as frames, Web(primary) as web:
        env.close_gate()
        reply = resp.ask(b"SET", b"k", b"1")
        assert isinstance(reply, ErrorReply)
        assert reply.text.startswith("OUTCOMEUNKNOWN this is still replicating")
        refused = frames.ask(Op.PUT, b"k", b"2")
        assert refused.status is Status.ERROR
        assert refused.message.startswith("OUTCOMEUNKNOWN this is still replicating")
        answer = web.put("k", b"3")
        assert (answer.status, answer.code) == (500, "outcome_unknown")
        assert "still replicating" in answer.body["error"]["message"]
        env.open_gate()
        until(lambda: resp.ask(b"GET", b"k") == b"3")


def test_acks_of_one_write_over_http_and_resp(servers: Servers) -> None:
    primary, env = gated(servers, ack_timeout_s=DEADLINE_S)
    with primary.connect() as resp, primary.connect() as reader, Web(primary) as web:
        env.close_gate()
        resp.command(b"ACKS", b"1")
        resp.command(b"SET", b"k", b"1")
        assert resp.reply().text == "OK"
        assert env.waiting.acquire(timeout=DEADLINE_S)
        reader.command(b"GET", b"k")
        with primary.connect() as fence:
            assert fence.ask(b"GET", b"other") is None
        assert resp.nothing_came()
        assert reader.nothing_came()
        env.open_gate()
        assert resp.reply().text == "OK"
        assert reader.reply() == b"1"
        headers = {"X-Marram-Acks": "1", "X-Marram-Ack-Level": "disk"}
        body = {"value": "v", "encoding": "utf-8"}
        answer = web.ask("PUT", "/v1/kv/k", body, headers)
        assert answer.status == 200
        headers = {"X-Marram-Acks": "2"}
        answer = web.ask("PUT", "/v1/kv/k", {"value": "w", "encoding": "utf-8"}, headers)
        assert (answer.status, answer.code) == (503, "no_replicas")
        assert reader.ask(b"GET", b"k") == b"v"
        env.close_gate()
        headers = {"X-Marram-Acks": "1", "X-Marram-Wait-Ms": "100"}
        ops = {"ops": [{"op": "put", "key": "k", "value": "w", "encoding": "utf-8"}]}
        answer = web.ask("POST", "/v1/batch", ops, headers)
        assert (answer.status, answer.code) == (500, "outcome_unknown")
        env.open_gate()


def test_what_a_slow_disk_has_not_taken_is_bounded(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uplink, "UNWRITTEN_BYTES", 1 << 20)
    primary, env = gated(servers)
    largest = 256 << 10
    with primary.connect() as client:
        env.close_gate()
        for number in range(40):
            client.ask(b"SET", b"k%d" % number, bytes(largest))
    replica = servers.named["r"]
    until(lambda: replica.call(lambda s: s.store.commit.pending_bytes) > 1 << 20)
    until(lambda: replica.call(lambda s: s.node.replication.uplink._waiting))
    pending = replica.call(lambda s: s.store.commit.pending_bytes)
    assert pending <= (1 << 20) + largest + 4096
    env.open_gate()
    caught_up(primary, replica)


# -- positions and refusals over HTTP and frames ---------------------------------------------------


def test_http_on_a_replica_waits_for_a_position_and_names_the_primary(servers: Servers) -> None:
    primary = servers.start("p", http_port=0)
    replica = servers.start("r", primary, http_port=0)
    with Web(primary) as one, Web(replica) as two:
        for number in range(20):
            position = one.put("k", b"%d" % number).headers["x-marram-position"]
            answer = two.ask(
                "GET", "/v1/kv/k?encoding=utf-8", headers={"X-Marram-Min-Position": position}
            )
            assert answer.status == 200, answer.raw
            assert answer.body["value"] == str(number)
        late = {"X-Marram-Min-Position": "1-999", "X-Marram-Wait-Ms": "50"}
        answer = two.ask("GET", "/v1/kv/k", headers=late)
        assert (answer.status, answer.code) == (504, "behind")
        answer = two.put("k", b"x")
        at = "{}:{}".format(*primary.address("http"))
        assert (answer.status, answer.code) == (421, "read_only")
        assert answer.headers["x-marram-primary"] == at
        assert answer.body["error"]["primary"] == at
        assert two.ask("GET", "/readyz").status == 200
        metrics = one.ask("GET", "/metrics").raw.decode()
        assert 'marram_replica_lag_positions{replica="' in metrics
        assert "marram_acknowledging_replicas 1.0" in metrics
        metrics = two.ask("GET", "/metrics").raw.decode()
        assert "marram_is_replica 1.0" in metrics
        assert "marram_upstream_connected 1.0" in metrics
        stats = two.ask("GET", "/v1/stats").body["replication"]
        assert stats["role"] == "replica"
        assert stats["upstream"]["primary"]["http"] == at


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"X-Marram-Min-Position": "1"}),
        ("GET", {"X-Marram-Min-Position": "1-x"}),
        ("GET", {"X-Marram-Acks": "1"}),
        ("PUT", {"X-Marram-Acks": "-1"}),
        ("PUT", {"X-Marram-Acks": "1001"}),
        ("PUT", {"X-Marram-Acks": "1", "X-Marram-Ack-Level": "maybe"}),
        ("PUT", {"X-Marram-Ack-Level": "disk"}),
        ("PUT", {"X-Marram-Wait-Ms": "3600001"}),
    ],
)
def test_headers_that_say_nothing_are_refused_and_change_nothing(
    servers: Servers, method: str, headers: dict[str, str]
) -> None:
    primary = servers.start("p", http_port=0)
    with Web(primary) as web:
        body = {"value": ""} if method == "PUT" else None
        answer = web.ask(method, "/v1/kv/k", body, headers)
        assert (answer.status, answer.code) == (400, "bad_request")
        assert primary.server.store.last == 0


def test_a_put_over_frames_on_a_replica_is_refused_with_the_primarys_address(
    servers: Servers,
) -> None:
    primary = servers.start("p")
    with primary.connect() as client:
        client.ask(b"SET", b"k", b"v")
    replica = servers.start("r", primary)
    caught_up(primary, replica)
    with Frames(replica) as frames:
        assert frames.ask(Op.GET, b"k").payload == b"v"
        at = "{}:{}".format(*primary.address())
        until(lambda: at in frames.ask(Op.PUT, b"k", b"w").message)
        refused = frames.ask(Op.PUT, b"k", b"w")
        assert refused.status is Status.ERROR
        assert refused.message.startswith("READONLY")


def test_the_ready_line_says_the_role(servers: Servers) -> None:
    from marram.server.app import ready_line

    primary = servers.start("p")
    replica = servers.start("r", primary)
    assert "replica" not in ready_line(primary.server)
    upstream = "{}:{}".format(*primary.address("frame"))
    assert ready_line(replica.server).endswith(f" replica-of={upstream}")


# -- bad input at the primary ----------------------------------------------------------------------

HELLO = encode_hello(Hello(1, 1, bytes(16), b"r" * 16))


def ask_raw(running: Running, *pieces: bytes) -> bytes:
    """All the frame port answers before it closes, which it must."""
    with Client(running.address("frame")) as client:
        for piece in pieces:
            client.send(piece)
        return client.rest()


def message_of(data: bytes) -> str:
    (reply,) = FrameReplyParser().feed(data)
    assert reply.status is Status.ERROR
    return reply.message


def test_garbage_on_the_frame_port_harms_nobody(servers: Servers) -> None:
    primary = servers.start("p")
    with unharmed(primary):
        noise = bytes(range(256)) * 40
        assert message_of(ask_raw(primary, noise)).startswith("ERR Protocol error")
        bad = encode_request(Op.REPLICATE, b"", b"marram, but not quite")
        assert message_of(ask_raw(primary, bad)) == "ERR this is no replica of marram"
        future = encode_hello(Hello(7, 9, bytes(16), b"r" * 16))
        refused = message_of(ask_raw(primary, encode_request(Op.REPLICATE, b"", future)))
        assert refused.startswith("UNKNOWNVERSION 1 versions 7 to 9")


@pytest.mark.parametrize(
    "noise",
    [b"\0" * 64, bytes(range(256)) * 40, struct.pack("<IBI", 5, 3, 0), b"\xff\xff\xff\xff\x01"],
    ids=["zeros", "noise", "checksum", "huge"],
)
def test_garbage_on_a_link_ends_that_link_alone(servers: Servers, noise: bytes) -> None:
    primary = servers.start("p")
    with unharmed(primary), Client(primary.address("frame")) as client:
        client.send(encode_request(Op.REPLICATE, b"", HELLO))
        parser = FrameReplyParser()
        while not (replies := parser.feed(client.socket.recv(4096))):
            pass
        assert replies[0].status is Status.OK
        client.send(noise)
        client.rest()
        until(lambda: not primary.call(lambda s: s.node.replication.downlinks))


def test_replicate_has_to_be_the_first_and_only_request(servers: Servers) -> None:
    primary = servers.start("p")
    request = encode_request(Op.REPLICATE, b"", HELLO)
    ping = encode_request(Op.PING)
    with unharmed(primary):
        for pieces, refused in (([ping, request], 1), ([ping + request], 1), ([request + ping], 0)):
            with Frames(primary) as frames:
                for piece in pieces:
                    frames.client.send(piece)
                replies = [frames.reply() for _ in range(2)]
                assert replies[refused].status is Status.ERROR
                assert "has to be the first" in replies[refused].message
                assert replies[1 - refused].status is Status.OK
                assert frames.ask(Op.GET, b"kept").payload == b"v", "it goes on"
        assert not primary.call(lambda s: s.node.replication.downlinks)


def test_a_link_that_never_logs_in_is_ended_when_it_is_silent(servers: Servers) -> None:
    primary = servers.start("p")
    with unharmed(primary), Client(primary.address("frame")) as client:
        client.send(encode_request(Op.REPLICATE, b"", HELLO))
        until(lambda: primary.call(lambda s: s.node.replication.downlinks))

        def later(server: Any) -> None:
            (link,) = server.node.replication.downlinks
            link.tick(server.env.monotonic_ns() + 16 * 10**9)

        primary.call(later)
        assert b"SILENT" not in client.rest()[:9]
        assert not primary.call(lambda s: s.node.replication.downlinks)


# -- bad upstreams ---------------------------------------------------------------------------------


def following(servers: Servers, host: str, port: int, **options: Any) -> Running:
    """A server with data that was told to follow somebody."""
    running = servers.start("r", **options)
    with running.connect() as client:
        client.ask(b"SET", b"mine", b"v")
        assert client.ask(b"REPLICAOF", host.encode(), b"%d" % port).text == "OK"
    return running


def keeps_its_data(running: Running) -> None:
    with running.connect() as client:
        assert client.ask(b"GET", b"mine") == b"v"
        assert client.ask(b"SET", b"mine", b"w").text.startswith("READONLY")
        assert client.ask(b"REPLICAOF", b"NO", b"ONE").text == "OK"
        assert client.ask(b"SET", b"mine", b"w").text == "OK"


def test_a_server_that_follows_itself_says_so(servers: Servers) -> None:
    running = servers.start("r")
    host, port = running.address("frame")
    with running.connect() as client:
        client.ask(b"SET", b"mine", b"v")
        assert client.ask(b"REPLICAOF", host.encode(), b"%d" % port).text == "OK"
    assert trouble(running).startswith("SELF: a server cannot be its own replica")
    keeps_its_data(running)


@pytest.mark.parametrize("name", ["resp", "http"])
def test_another_port_of_marram_is_no_frame_port(servers: Servers, name: str) -> None:
    primary = servers.start("p", http_port=0)
    with unharmed(primary):
        running = following(servers, *primary.address(name))
        # RESP takes the request for a line that is not whole yet, and waits.
        said = trouble(running) if name == "http" else silent(running)
        assert "no frame port of a marram server" in said or "says nothing" in said
        keeps_its_data(running)


def silent(running: Running) -> str:
    """The trouble of a link whose other end has said nothing for as long as it may."""

    def later(server: Any) -> bool:
        uplink = server.node.replication.uplink
        if uplink.follower.links == 0:
            return False
        uplink.tick(server.env.monotonic_ns() + 16 * 10**9)
        return True

    until(lambda: running.call(later))
    return trouble(running)


def test_a_redis_server_is_no_marram_server(servers: Servers, tmp_path: Path) -> None:
    with redis_process(tmp_path) as redis:
        running = following(servers, "127.0.0.1", redis.port)
        said = silent(running)
        assert "says nothing" in said or "no frame port" in said or "closed" in said
        keeps_its_data(running)
        assert redis.client.ping()


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on loopback that does something to its first connection; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE_S)

        def run() -> None:
            with server.accept()[0] as sock:
                sock.settimeout(DEADLINE_S)
                answer(sock)

        thread = threading.Thread(target=run)
        thread.start()
        yield server.getsockname()[1]
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def test_a_silent_socket_is_given_up(servers: Servers) -> None:
    with listening(lambda sock: sock.recv(1) and sock.recv(1) and read_all(sock)) as port:
        running = following(servers, "127.0.0.1", port)
        assert silent(running) == "SILENT: the upstream says nothing"
        keeps_its_data(running)


def read_all(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


@pytest.mark.parametrize(
    "noise", [b"SSH-2.0-OpenSSH_9\r\n", b"\0" * 50, bytes(range(255, -1, -1)) * 30]
)
def test_an_upstream_that_sends_anything_else_is_refused(servers: Servers, noise: bytes) -> None:
    def answer(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(noise)
        read_all(sock)

    with listening(answer) as port:
        running = following(servers, "127.0.0.1", port)
        assert "is no frame port of a marram server: it sent" in trouble(running)
        keeps_its_data(running)


def test_nobody_there_is_told_as_such(servers: Servers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    running = following(servers, "127.0.0.1", port)
    assert trouble(running).startswith(f"cannot connect to 127.0.0.1:{port}")
    keeps_its_data(running)


def test_a_wrong_password_is_told_as_such_and_the_right_one_works(servers: Servers) -> None:
    primary = servers.start("p", password="sesame")
    replica = servers.start("r", primary, primary_password="simsim")
    said = trouble(replica)
    assert said == "WRONG_PASSWORD: wrong password"
    assert info_of(primary, b"sesame")["connected_slaves"] == "0"
    right = servers.start("r2", primary, primary_password="sesame")
    until(lambda: info(right)["master_link_status"] == "up")
    own = servers.start("r3", primary, password="sesame")
    until(lambda: info_of(own, b"sesame")["master_link_status"] == "up")


def info_of(running: Running, password: bytes) -> dict[str, str]:
    with running.connect() as client:
        assert client.ask(b"AUTH", password).text == "OK"
        text = client.ask(b"INFO", b"replication").decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def test_a_full_disk_on_the_replica_loses_nothing_and_heals(servers: Servers) -> None:
    primary = servers.start("p")
    env = FaultyEnv(posix_env())
    replica = servers.start("r", primary, env)
    with primary.connect() as client:
        client.ask(b"SET", b"k", b"1")
        caught_up(primary, replica)
        env.add(Fault("allocate", error=errno.ENOSPC, times=None))
        value = bytes(200_000)
        for number in range(10):
            client.ask(b"SET", b"big%d" % number, value)
        said = trouble(replica)
        assert said.startswith("FAILED: no room for")
        assert client.ask(b"SET", b"k", b"2").text == "OK", "the primary is unharmed"
        with replica.connect() as reader:
            assert reader.ask(b"GET", b"k") == b"1", "what it has it shows"
        env.clear()
        replica.call(lambda s: s.node.replication.uplink.tick(s.env.monotonic_ns() + 11 * 10**9))
        caught_up(primary, replica)
        with replica.connect() as reader:
            assert reader.ask(b"GET", b"k") == b"2"
            assert reader.ask(b"GET", b"big9") == value


def test_stats_over_frames_tell_of_replication(servers: Servers) -> None:
    primary = servers.start("p")
    replica = servers.start("r", primary)
    with primary.connect() as client:
        client.ask(b"SET", b"k", b"v")
    caught_up(primary, replica)
    with Frames(replica) as frames:
        stats = json.loads(frames.ask(Op.STATS).payload)
    assert stats["replication"]["role"] == "replica"
    assert stats["replication"]["received_batches"] >= 0
