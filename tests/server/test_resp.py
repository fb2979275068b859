"""RESP over real sockets: order, holding, back-pressure, limits, endings."""

from __future__ import annotations

import functools
import operator
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from marram.protocol.replies import ErrorReply, Simple
from marram.protocol.resp import encode
from marram.server.app import Server
from marram.server.connection import (
    HELD_HIGH_BYTES,
    OUT_HIGH_BYTES,
    WRITE_HIGH_BYTES,
    Clients,
    Connection,
)
from tests.server.serving import Client, GatedEnv, Running, serving, wire

OK = Simple("OK")
MIB = 1 << 20


@pytest.fixture(params=["uvloop", "asyncio"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    with serving(tmp_path, loop=request.param) as server:
        yield server


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[tuple[Running, GatedEnv]]:
    env = GatedEnv()
    with serving(tmp_path, env) as server:
        yield server, env
        env.open_gate()


def fence(running: Running) -> None:
    """Return once the server has handled everything that was sent before."""
    with running.connect() as other:
        assert other.ask(b"PING") == Simple("PONG")


# -- order and whole commands --------------------------------------------------------------------


def test_commands_are_answered(running: Running) -> None:
    with running.connect() as client:
        assert client.ask(b"SET", b"k", b"v\r\n\0") == OK
        assert client.ask(b"GET", b"k") == b"v\r\n\0"
        assert client.ask(b"GET", b"missing") is None
        client.send(b"get k\r\n\r\nPING\n")
        assert client.replies(2) == [b"v\r\n\0", Simple("PONG")]


def test_bytes_may_come_one_at_a_time(running: Running) -> None:
    with running.connect() as client:
        for byte in wire(b"SET", b"k", b"value") + wire(b"GET", b"k"):
            client.send(bytes([byte]))
        assert client.replies(2) == [OK, b"value"]


def test_a_pipeline_of_10000_is_answered_in_order(running: Running) -> None:
    with running.connect() as client:
        commands = b"".join(wire(b"SET", b"k%d" % n, b"%d" % n) for n in range(10_000))
        reads = b"".join(wire(b"GET", b"k%d" % n) for n in range(10_000))
        sender = threading.Thread(target=client.send, args=(commands + reads,))
        sender.start()
        assert client.replies(10_000) == [OK] * 10_000
        assert client.replies(10_000) == [b"%d" % n for n in range(10_000)]
        sender.join()


def test_suppressed_replies_leave_no_gap(running: Running) -> None:
    with running.connect() as client:
        client.command(b"CLIENT", b"REPLY", b"SKIP")
        client.command(b"SET", b"a", b"1")
        assert client.ask(b"GET", b"a") == b"1"
        client.command(b"CLIENT", b"REPLY", b"OFF")
        client.command(b"SET", b"a", b"2")
        client.command(b"GET", b"a")
        assert client.ask(b"CLIENT", b"REPLY", b"ON") == OK
        assert client.ask(b"GET", b"a") == b"2"


@pytest.mark.parametrize("size", [10, 30_000, 300_000])
def test_replies_of_any_size_keep_their_order_and_are_counted(running: Running, size: int) -> None:
    large = random.Random(size).randbytes(size)

    def sent(server: Server) -> int:
        return server.node.traffic.sent_bytes

    with running.connect() as client:
        assert client.ask(b"SET", b"large", large) == OK
        before = running.call(sent)
        client.send(wire(b"PING") + wire(b"GET", b"large") * 2 + wire(b"STRLEN", b"large"))
        assert client.replies(4) == [Simple("PONG"), large, large, size]
        replies = [Simple("PONG"), large, large, size]
        assert running.call(sent) - before == sum(len(encode(reply, 2)) for reply in replies)


def test_resetstat_forgets_the_bytes_of_clients_but_goes_on_counting(running: Running) -> None:
    with running.connect() as client:
        client.ask(b"ECHO", bytes(10_000))
        assert client.ask(b"CONFIG", b"RESETSTAT") == OK
        client.ask(b"ECHO", bytes(500))
        traffic = running.call(lambda server: server.node.traffic)
        assert 500 < traffic.sent_bytes < 10_000
        assert 500 < traffic.received_bytes < 10_000


# -- holding ---------------------------------------------------------------------------------------


def test_n1_a_write_is_answered_once_it_is_on_disk(gated: tuple[Running, GatedEnv]) -> None:
    running, env = gated
    with running.connect() as writer:
        env.close_gate()
        writer.command(b"SET", b"k", b"v")
        assert env.waiting.acquire(timeout=20)
        fence(running)
        assert writer.nothing_came()
        env.open_gate()
        assert writer.reply() == OK


def test_n1_replies_before_a_held_one_leave_and_those_behind_wait(
    gated: tuple[Running, GatedEnv],
) -> None:
    running, env = gated
    with running.connect() as client:
        assert client.ask(b"SET", b"old", b"1") == OK
        env.close_gate()
        client.send(
            wire(b"GET", b"old") + wire(b"SET", b"new", b"2") + wire(b"GET", b"old")
            + wire(b"PING")
        )  # fmt: skip
        assert client.reply() == b"1"
        client.command(b"ECHO", b"later")
        assert env.waiting.acquire(timeout=20)
        fence(running)
        assert client.nothing_came()
        env.open_gate()
        assert client.replies(4) == [OK, b"1", Simple("PONG"), b"later"]


def test_n1_a_read_waits_for_the_write_it_reveals_and_no_other(
    gated: tuple[Running, GatedEnv],
) -> None:
    running, env = gated
    with running.connect() as writer, running.connect() as reader, running.connect() as other:
        assert writer.ask(b"SET", b"settled", b"1") == OK
        env.close_gate()
        writer.command(b"SET", b"fresh", b"2")
        assert env.waiting.acquire(timeout=20)
        reader.command(b"GET", b"fresh")
        assert other.ask(b"GET", b"settled") == b"1"
        assert reader.nothing_came()
        env.open_gate()
        assert reader.reply() == b"2"
        assert writer.reply() == OK


def test_n1_groups_release_each_connections_replies_in_order(
    gated: tuple[Running, GatedEnv],
) -> None:
    running, env = gated
    clients = [running.connect() for _ in range(8)]
    env.close_gate()
    for turn in range(5):
        for client in clients:
            client.command(b"INCR", b"n")
        fence(running)
        if turn % 2:
            env.open_gate()
            fence(running)
            env.close_gate()
    env.open_gate()
    answers = [client.replies(5) for client in clients]
    assert all(each == sorted(each) for each in answers)
    assert sorted(functools.reduce(operator.iadd, answers, [])) == list(range(1, 41))
    for client in clients:
        client.socket.close()


def test_n1_a_group_releases_its_own_replies_and_no_later_ones(
    gated: tuple[Running, GatedEnv],
) -> None:
    running, env = gated
    with running.connect() as client:
        env.close_gate()
        client.command(b"SET", b"first", b"1")
        assert env.waiting.acquire(timeout=20)
        client.command(b"SET", b"second", b"2")
        fence(running)
        env.pass_one()
        assert client.reply() == OK
        assert env.waiting.acquire(timeout=20)
        fence(running)
        assert client.nothing_came()
        env.open_gate()
        assert client.reply() == OK


def test_a_reply_that_comes_later_keeps_its_place(running: Running) -> None:
    with running.connect() as client:
        client.send(wire(b"SET", b"k", b"v") + wire(b"CHECKPOINT") + wire(b"GET", b"k"))
        assert client.replies(3) == [OK, OK, b"v"]
        client.send(wire(b"WAIT", b"0", b"0") + wire(b"ECHO", b"after"))
        assert client.replies(2) == [0, b"after"]


# -- pushes ----------------------------------------------------------------------------------------


def test_messages_reach_subscribers_in_order_with_their_own_replies(running: Running) -> None:
    with running.connect() as listener, running.connect() as speaker:
        listener.ask(b"HELLO", b"3")
        listener.ask(b"SUBSCRIBE", b"c")
        for n in range(100):
            assert speaker.ask(b"PUBLISH", b"c", b"%d" % n) == 1
        got = listener.replies(100)
        assert [push.items for push in got] == [[b"message", b"c", b"%d" % n] for n in range(100)]
        # To oneself: the message comes before PUBLISH is answered, as in Redis.
        listener.command(b"PUBLISH", b"c", b"self")
        assert listener.reply().items == [b"message", b"c", b"self"]
        assert listener.reply() == 1


def test_n2_a_subscriber_that_does_not_read_is_cut_off(tmp_path: Path) -> None:
    with (
        serving(tmp_path, pubsub_output_limit_bytes=MIB) as running,
        Client(running.address(), small_buffers=True) as idler,
        running.connect() as speaker,
    ):
        idler.ask(b"SUBSCRIBE", b"c")
        message = bytes(MIB // 4)
        for _ in range(100):
            if speaker.ask(b"PUBLISH", b"c", message) == 0:
                break
        else:
            pytest.fail("it still listens after 25 MiB")
        assert len(idler.rest()) < 12 * MIB  # what the sockets' buffers took
        assert running.call(lambda server: server.clients.cut_off) == 1


def test_n2_a_slow_subscriber_may_be_late_for_the_soft_time_only(tmp_path: Path) -> None:
    options = {"pubsub_output_soft_bytes": MIB, "pubsub_output_soft_s": 5}
    with (
        serving(tmp_path, **options) as running,
        Client(running.address(), small_buffers=True) as idler,
        running.connect() as speaker,
    ):
        idler.ask(b"SUBSCRIBE", b"c")
        for _ in range(16):
            speaker.ask(b"PUBLISH", b"c", bytes(MIB))
        running.tick(5)
        assert speaker.ask(b"PUBLISH", b"c", b"") == 1
        running.tick(1)
        fence(running)
        assert speaker.ask(b"PUBLISH", b"c", b"") == 0


# -- back-pressure ---------------------------------------------------------------------------------


def unsent_bytes(server: Server) -> int:
    return max(connection.unsent_bytes() for connection in server.clients.connections)


def the_connection(server: Server, client: Client) -> Connection:
    host, port = client.socket.getsockname()
    where = f"{host}:{port}"
    return next(c for c in server.clients.connections if c.session.address == where)


def test_n2_a_client_that_does_not_read_is_not_run_and_then_gets_all(running: Running) -> None:
    value = bytes(MIB // 4)
    with Client(running.address(), small_buffers=True) as client:
        assert client.ask(b"SET", b"big", value) == OK
        sender = threading.Thread(target=client.send, args=(wire(b"GET", b"big") * 400,))
        sender.start()  # 100 MiB of replies, asked for without reading one
        fence(running)
        with running.connect() as other:
            for _ in range(20):
                assert other.ask(b"PING") == Simple("PONG")
        held = running.call(unsent_bytes)
        assert held <= WRITE_HIGH_BYTES + OUT_HIGH_BYTES + 2 * len(value)
        for _ in range(400):
            assert len(client.reply()) == len(value)
        sender.join()


def test_n2_held_replies_are_bounded_and_then_all_come(gated: tuple[Running, GatedEnv]) -> None:
    running, env = gated
    value = bytes(MIB // 8)
    with running.connect() as client:
        assert client.ask(b"SET", b"big", value) == OK
        env.close_gate()
        client.command(b"APPEND", b"big", b"!")
        client.send(wire(b"GET", b"big") * 200)
        assert env.waiting.acquire(timeout=20)
        fence(running)
        held = running.call(lambda server: the_connection(server, client).unsent_bytes())
        assert HELD_HIGH_BYTES <= held <= HELD_HIGH_BYTES + OUT_HIGH_BYTES + 2 * len(value)
        env.open_gate()
        assert client.reply() == len(value) + 1
        assert all(reply == value + b"!" for reply in client.replies(200))


def test_the_output_limit_of_ordinary_clients_cuts_off(tmp_path: Path) -> None:
    with (
        serving(tmp_path, output_limit_bytes=MIB) as running,
        Client(running.address(), small_buffers=True) as client,
    ):
        client.ask(b"SET", b"big", bytes(8 * MIB))
        client.command(b"GET", b"big")
        client.command(b"GET", b"big")
        fence(running)
        running.tick(1)
        fence(running)
        assert running.call(lambda server: server.clients.cut_off) == 1


# -- limits ----------------------------------------------------------------------------------------


def test_maxclients_refuses_with_redis_words_and_takes_the_next_when_one_leaves(
    running: Running,
) -> None:
    with running.connect() as first:
        first.ask(b"CONFIG", b"SET", b"maxclients", b"2")
        with running.connect() as second:
            assert second.ask(b"PING") == Simple("PONG")
            with running.connect() as third:
                assert third.rest() == b"-ERR max number of clients reached\r\n"
            assert second.ask(b"PING") == Simple("PONG")
            second.ask(b"QUIT")
            assert second.rest() == b""
        with running.connect() as fourth:
            assert fourth.ask(b"PING") == Simple("PONG")
        assert running.call(lambda server: server.node.traffic.rejected_connections) == 1


def test_a_silent_connection_is_closed_after_the_idle_timeout(tmp_path: Path) -> None:
    with (
        serving(tmp_path, idle_timeout_s=30) as running,
        running.connect() as client,
        running.connect() as listener,
    ):
        client.ask(b"PING")
        listener.ask(b"SUBSCRIBE", b"c")
        running.tick(29)
        assert client.ask(b"PING") == Simple("PONG")
        running.tick(30)
        assert client.ask(b"PING") == Simple("PONG")
        running.tick(31)
        assert client.rest() == b""
        assert listener.ask(b"PING") == [b"pong", b""]  # subscribers are silent by nature


def test_a_half_written_request_does_not_keep_a_connection(tmp_path: Path) -> None:
    with serving(tmp_path, idle_timeout_s=30) as running, running.connect() as client:
        client.send(wire(b"SET", b"k", b"v")[:-3])
        fence(running)
        running.tick(31)
        assert client.rest() == b""
        with running.connect() as other:
            assert other.ask(b"EXISTS", b"k") == 0


def test_login_comes_first_and_in_time(tmp_path: Path) -> None:
    with (
        serving(tmp_path, password="sesame", handshake_timeout_s=10) as running,
        running.connect() as client,
        running.connect() as idler,
    ):
        assert client.ask(b"GET", b"k") == ErrorReply("NOAUTH Authentication required.")
        assert client.ask(b"AUTH", b"wrong").code == "WRONGPASS"
        # The large request arrives with AUTH, before anybody knows that it is allowed.
        client.send(wire(b"AUTH", b"sesame") + wire(b"SET", b"k", bytes(100_000)))
        assert client.replies(2) == [OK, OK]
        running.tick(11)
        assert client.ask(b"STRLEN", b"k") == 100_000
        assert idler.rest() == b""


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (b"*11\r\n", "unauthenticated multibulk length"),
        (b"*2\r\n$3\r\nGET\r\n$16385\r\n", "unauthenticated bulk length"),
        (b"*1048576\r\n$536870912\r\n", "unauthenticated multibulk length"),
    ],
)
def test_before_login_requests_are_small(tmp_path: Path, request_: bytes, message: str) -> None:
    with serving(tmp_path, password="sesame") as running, running.connect() as client:
        client.send(request_)
        assert client.rest() == f"-ERR Protocol error: {message}\r\n".encode()


def test_a_crowd_of_slow_senders_does_not_stop_a_good_client(running: Running) -> None:
    crowd = [running.connect() for _ in range(300)]
    request = wire(b"SET", b"k", b"v")
    with running.connect() as good:
        for at in range(8):
            for client in crowd:
                client.send(request[at : at + 1])
            assert good.ask(b"PING") == Simple("PONG")
        assert running.call(lambda server: len(server.clients.connections)) == 301
    for client in crowd:
        client.socket.close()


def test_before_login_refusals_that_nobody_reads_cost_bounded_memory(tmp_path: Path) -> None:
    with (
        serving(tmp_path, password="sesame") as running,
        Client(running.address(), small_buffers=True) as client,
        running.connect() as other,
    ):
        sender = threading.Thread(target=client.send, args=(wire(b"GET", b"k") * 200_000,))
        sender.start()
        for _ in range(20):
            assert other.ask(b"PING").code == "NOAUTH"
        assert running.call(unsent_bytes) <= WRITE_HIGH_BYTES + OUT_HIGH_BYTES
        assert {reply.code for reply in client.replies(200_000)} == {"NOAUTH"}
        sender.join()


def test_config_set_bounds_the_requests_of_connections_to_come(running: Running) -> None:
    with running.connect() as before:
        before.ask(b"CONFIG", b"SET", b"proto-max-bulk-len", b"1048576")
        with running.connect() as after:
            assert after.ask(b"SET", b"k", bytes(MIB)) == OK
            after.command(b"SET", b"k", bytes(MIB + 1))
            assert after.rest() == b"-ERR Protocol error: invalid bulk length\r\n"


@pytest.mark.parametrize("count", [1, 3, 10, 25, 101])
def test_every_connection_is_looked_at_once_a_second(count: int) -> None:
    class Looked:
        times = 0

        def tick(self) -> None:
            self.times += 1

    clients = Clients(*[None] * 4)  # type: ignore[arg-type]
    clients.connections = {Looked() for _ in range(count)}  # type: ignore[misc]
    for second in range(1, 4):
        for _ in range(10):
            clients.tick()
        assert {connection.times for connection in clients.connections} == {second}  # type: ignore[attr-defined]


# -- endings ---------------------------------------------------------------------------------------


def test_n3_a_protocol_error_is_answered_after_what_came_before_and_ends_it(
    running: Running,
) -> None:
    with running.connect() as client:
        client.send(wire(b"SET", b"k", b"v") + b"*1\r\n#\r\n" + wire(b"SET", b"k", b"w"))
        assert client.rest() == b"+OK\r\n-ERR Protocol error: expected '$', got '#'\r\n"
    with running.connect() as other:
        assert other.ask(b"GET", b"k") == b"v"


def test_n3_quit_is_answered_and_ends_it(running: Running) -> None:
    with running.connect() as client:
        client.send(wire(b"SET", b"k", b"v") + wire(b"QUIT") + wire(b"SET", b"k", b"w"))
        assert client.rest() == b"+OK\r\n+OK\r\n"
    with running.connect() as other:
        assert other.ask(b"GET", b"k") == b"v"


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("last", [(b"PING",), (b"CHECKPOINT",)])
def test_a_client_that_sends_no_more_still_gets_its_replies(
    tmp_path: Path, loop: str, last: tuple[bytes, ...]
) -> None:
    env = GatedEnv()
    with serving(tmp_path, env, loop=loop) as running, running.connect() as client:
        env.close_gate()
        client.send(wire(b"SET", b"k", b"v") + wire(b"GET", b"k") + wire(*last))
        client.socket.shutdown(socket.SHUT_WR)
        assert env.waiting.acquire(timeout=20)
        fence(running)
        assert client.nothing_came()
        env.open_gate()
        done = b"+PONG\r\n" if last == (b"PING",) else b"+OK\r\n"
        assert client.rest() == b"+OK\r\n$1\r\nv\r\n" + done


def test_half_closed_with_much_to_get(running: Running) -> None:
    with Client(running.address(), small_buffers=True) as client:
        client.ask(b"SET", b"big", bytes(MIB))
        client.send(wire(b"GET", b"big") * 20)
        client.socket.shutdown(socket.SHUT_WR)
        assert len(client.rest()) == 20 * (MIB + len(b"$1048576\r\n\r\n"))


def test_a_client_can_be_killed_even_while_it_does_not_read(running: Running) -> None:
    with Client(running.address(), small_buffers=True) as victim, running.connect() as killer:
        number = victim.ask(b"CLIENT", b"ID")
        victim.ask(b"SET", b"big", bytes(8 * MIB))
        victim.send(wire(b"GET", b"big") * 4)
        fence(running)
        assert killer.ask(b"CLIENT", b"KILL", b"ID", b"%d" % number) == 1
        running.tick(11)
        while killer.ask(b"CLIENT", b"LIST").count(b"\n") > 1:
            pass


def test_an_http_request_ends_the_connection_and_runs_nothing(running: Running) -> None:
    body = wire(b"SET", b"k", b"v")
    with running.connect() as browser:
        browser.send(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 27\r\n\r\n" + body)
        assert browser.rest() == b""
    with running.connect() as client:
        assert client.ask(b"EXISTS", b"k") == 0


def test_garbage_ends_only_its_own_connection(running: Running) -> None:
    draw = random.Random(5)
    with running.connect() as good:
        for size in (1, 10, 1000, 100_000):
            for _ in range(5):
                with running.connect() as bad:
                    bad.send(b"*" + draw.randbytes(size) + b"\r\n*3\r\n")
                assert good.ask(b"PING") == Simple("PONG")


def test_connections_that_vanish_leave_nothing_behind(running: Running) -> None:
    with running.connect() as good:
        for _ in range(50):
            client = running.connect()
            client.send(wire(b"SET", b"k", bytes(10_000)) * 5 + wire(b"SUBSCRIBE", b"c"))
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.socket.close()
        while running.call(lambda server: server.clients.accepted) <= 50:
            pass
        while good.ask(b"PUBSUB", b"NUMSUB", b"c") != [b"c", 0]:
            pass
        while good.ask(b"CLIENT", b"LIST").count(b"\n") > 1:
            pass
        assert running.call(lambda server: len(server.clients.connections)) == 1


# -- a real client library -------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_works_with_its_defaults(running: Running, protocol: int) -> None:
    host, port = running.address()
    options = {} if protocol == 3 else {"protocol": 2}
    with redis.Redis(host, port, **options) as client:
        assert client.ping()
        client.set("k", "v", ex=100)
        assert client.get("k") == b"v"
        assert 0 < client.ttl("k") <= 100
        with client.pipeline() as pipe:
            pipe.incr("n").incr("n").get("n")
            assert pipe.execute() == [1, 2, b"2"]
        assert client.info("server")["marram_version"]
        assert sorted(client.scan_iter()) == [b"k", b"n"]
        with client.pubsub() as listener:
            listener.subscribe("c")
            assert listener.get_message(timeout=10)["type"] == "subscribe"
            client.publish("c", "hello")
            assert listener.get_message(timeout=10)["data"] == b"hello"
        assert client.client_list()[0]["addr"].startswith("127.0.0.1:")
