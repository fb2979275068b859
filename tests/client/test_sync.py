"""The blocking client: what a broken connection means, and who owns which socket."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import marram
from marram.client.calls import Call
from marram.client.sync import RemoteDB
from marram.client.url import Target
from marram.protocol.replies import OK
from tests.client.faces import url_of
from tests.server.serving import DEADLINE_S, Running, config_for, serving

GREETING = b"%1\r\n+server\r\n+x\r\n+OK\r\n+OK\r\n+OK\r\n"
"""Answers to the four commands that a client begins with."""


@pytest.fixture
def running(tmp_path: Any) -> Iterator[Running]:
    with serving(tmp_path) as running:
        yield running


class Fake:
    """A server that does what a test says: one function for each connection, in order."""

    def __init__(self, *scripts: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self._scripts = scripts
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        for script in self._scripts:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            with connection:
                connection.settimeout(DEADLINE_S)
                script(connection)

    def __enter__(self) -> Fake:
        self._thread.start()
        return self

    def __exit__(self, *about: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    def db(self, timeout_s: float = DEADLINE_S) -> RemoteDB:
        return RemoteDB(Target("127.0.0.1", self.port), timeout_s)


def greet(connection: socket.socket) -> None:
    """Take the greeting; it ends with SELECT's argument."""
    heard = b""
    while not heard.endswith(b"SELECT\r\n$1\r\n0\r\n"):
        heard += connection.recv(4096)
    connection.sendall(GREETING)


def hear(connection: socket.socket, ending: bytes) -> None:
    """Read until `ending`."""
    heard = b""
    while not heard.endswith(ending):
        piece = connection.recv(1 << 20)
        assert piece, heard
        heard = heard[-len(ending) :] + piece


def answering(command_ending: bytes, answer: bytes) -> Callable[[socket.socket], None]:
    """A script: greet, take one command, answer it, close."""

    def script(connection: socket.socket) -> None:
        greet(connection)
        hear(connection, command_ending)
        connection.sendall(answer)

    return script


def silent(connection: socket.socket) -> None:
    """A script: greet, then say nothing until the client goes."""
    greet(connection)
    while connection.recv(4096):
        pass


GET = b"$3\r\nGET\r\n$1\r\nk\r\n"
SET = b"$1\r\nv\r\n"


# -- broken connections ----------------------------------------------------------------------------


def test_nobody_there_is_connection_lost_for_reads_and_writes():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(marram.ConnectionLost, match="refused"):
        marram.connect(f"marram://127.0.0.1:{port}")
    with pytest.raises(marram.ConnectionLost, match="refused"):
        RemoteDB(Target("127.0.0.1", port)).put(b"k", b"v")  # it was never sent


def test_r1_a_write_whose_connection_breaks_is_in_doubt_and_not_sent_again():
    with Fake(answering(SET, b"")) as fake, fake.db() as db:
        with pytest.raises(marram.OutcomeUnknown, match="may or may not"):
            db.put(b"k", b"v")
        assert fake.accepted == 1


def test_r2_a_read_on_a_dead_connection_is_sent_again_once():
    def first(connection: socket.socket) -> None:
        answering(GET, b"$1\r\n1\r\n")(connection)
        hear(connection, GET)  # and close without an answer

    with Fake(first, answering(GET, b"$1\r\n2\r\n")) as fake, fake.db() as db:
        assert db.get(b"k") == b"1"
        assert db.get(b"k") == b"2"
        assert fake.accepted == 2


def test_r2_a_read_is_not_sent_a_third_time():
    def first(connection: socket.socket) -> None:
        answering(GET, b"$1\r\n1\r\n")(connection)
        hear(connection, GET)

    with Fake(first, answering(GET, b""), answering(GET, b"$1\r\n3\r\n")) as fake, fake.db() as db:
        assert db.get(b"k") == b"1"
        with pytest.raises(marram.ConnectionLost):
            db.get(b"k")
        assert fake.accepted == 2


def test_a_write_after_the_server_restarted_goes_to_the_new_one(tmp_path):
    config = config_for(tmp_path)
    with Running(config) as running:
        port = running.address()[1]
        db = marram.connect(url_of(running))
        db.put(b"k", b"1")
    with Running(config_for(tmp_path, resp_port=port)):
        db.put(b"k", b"2")  # the idle connection is known to be dead: nothing is in doubt
        assert db.get(b"k") == b"2"
        db.close()


def test_a_silent_server_costs_the_time_limit_and_the_connection():
    with Fake(silent, silent, answering(GET, b"$1\r\n3\r\n")) as fake, fake.db(0.4) as db:
        with pytest.raises(marram.OutcomeUnknown, match="no answer in time"):
            db.put(b"k", b"v")
        with pytest.raises(marram.ConnectionLost, match="no answer in time"):
            db.get(b"k")
        assert db.get(b"k") == b"3"  # never the late answer of another call


@pytest.mark.parametrize(
    "answer", [b"?what\r\n", b"$-5\r\n", b":1\r\n:2\r\n", b":1\r\n", b"*0\r\n"]
)
def test_an_answer_that_is_none_is_a_protocol_error(answer):
    with Fake(answering(GET, answer)) as fake, fake.db() as db, pytest.raises(marram.ProtocolError):
        db.get(b"k")


def test_a_password_that_is_wrong_or_missing_is_refused(tmp_path):
    with serving(tmp_path, password="right") as running:
        host, port = running.address()
        with pytest.raises(marram.ServerError, match="WRONGPASS") as caught:
            marram.connect(f"marram://:wrong@{host}:{port}")
        assert caught.value.code == "WRONGPASS"
        with pytest.raises(marram.ServerError, match="NOAUTH"):
            marram.connect(url_of(running))
        with marram.connect(f"marram://:right@{host}:{port}/4") as db:
            db.put(b"k", b"v")
            assert db.keyspace(4).get(b"k") == b"v"
            assert "right" not in repr(db)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("READONLY You can't write", marram.ReadOnly),
        ("OOM no room", marram.StoreFull),
        ("MISCONF the store failed", marram.StoreFailed),
        ("OUTCOMEUNKNOWN the log failed", marram.OutcomeUnknown),
        ("CONFLICT something", marram.Conflict),
        ("NOTLEADER go away", marram.NotLeader),
        ("ERR what", marram.ServerError),
        ("LOADING wait", marram.ServerError),
    ],
)
def test_error_replies_become_the_errors_of_the_library(text, kind):
    with Fake(answering(SET, f"-{text}\r\n".encode())) as fake, fake.db() as db:
        with pytest.raises(kind) as caught:
            db.put(b"k", b"v")
        assert type(caught.value) is kind


def test_a_value_of_another_type_is_refused_as_by_the_embedded_store():
    from marram.storage.entry import WrongType

    wrong = answering(GET, b"-WRONGTYPE no string\r\n")
    with Fake(wrong) as fake, fake.db() as db, pytest.raises(WrongType):
        db.get(b"k")


def test_n2_a_server_that_reads_on_only_when_it_is_read_locks_nobody_up():
    # More than the buffers of both sockets hold, in both directions.
    large = b"x" * (16 << 20)

    def script(connection: socket.socket) -> None:
        greet(connection)
        connection.recv(4096)
        connection.sendall(b"$%d\r\n%b\r\n" % (len(large), large))
        hear(connection, b"end\r\n")
        connection.sendall(b"+OK\r\n")

    with Fake(script) as fake, fake.db() as db:
        first, second = db.run(
            Call([(b"ECHO", large), (b"ECHO", large + b"end")], lambda replies: replies)
        )
        assert first == large
        assert second == OK


def test_large_requests_and_answers_arrive_whole(running):
    with marram.connect(url_of(running), timeout_s=DEADLINE_S) as db:
        pairs = {b"k%06d" % number: b"x" * 1000 for number in range(20_000)}
        db.put_many(pairs)
        assert db.get_many([*pairs] * 3) == [*pairs.values()] * 3
        assert len(db) == 20_000


def test_a_batch_beyond_the_servers_limits_is_refused_here(running):
    with marram.connect(url_of(running)) as db:
        with pytest.raises(marram.InvalidArgument, match="split it"):
            db.put_many((b"%d" % n, b"") for n in range((1 << 19) + 1))
        assert len(db) == 0


# -- snapshots and their connections ---------------------------------------------------------------


def open_snapshots(db: RemoteDB) -> int:
    from marram.client.figures import info_sections

    def read(replies: list[Any]) -> int:
        return int(info_sections(replies[0].data)["marram"]["open_snapshots"])

    return db.run(Call([(b"INFO", b"marram")], read))


def test_v1_a_dropped_snapshot_is_forgotten_by_the_server(running):
    with marram.connect(url_of(running)) as db:
        snapshot = db.snapshot()
        scan = db.scan()
        db.put_many({b"%d" % n: b"" for n in range(3000)})
        next(scan, None)
        assert open_snapshots(db) >= 1
        del snapshot, scan
        deadline = time.monotonic() + DEADLINE_S
        while open_snapshots(db):
            assert time.monotonic() < deadline


def test_a_snapshot_whose_connection_breaks_is_lost(running):
    with marram.connect(url_of(running)) as db:
        db.put(b"k", b"v")
        snapshot = db.snapshot()
        running.call(lambda server: [c.abort("test") for c in list(server.clients.connections)])
        with pytest.raises(marram.ConnectionLost):
            snapshot.get(b"k")
        snapshot.close()
        assert db.get(b"k") == b"v"


def test_a_transaction_whose_connection_breaks_at_its_end_is_in_doubt(running):
    with marram.connect(url_of(running)) as db:
        with pytest.raises(marram.OutcomeUnknown), db.transaction() as t:
            t.put(b"k", b"v")
            running.call(lambda server: [c.abort("test") for c in list(server.clients.connections)])
        assert db.get(b"k") is None


def test_a_refused_transaction_leaves_no_snapshot_behind(running):
    with marram.connect(url_of(running)) as db:
        with pytest.raises(marram.ServerError, match="key"), db.transaction() as t:
            t.put(b"k" * 100_000, b"v")
        deadline = time.monotonic() + DEADLINE_S
        while open_snapshots(db):
            assert time.monotonic() < deadline


# -- the pool --------------------------------------------------------------------------------------


def test_threads_wait_for_one_of_the_connections(running):
    with marram.connect(url_of(running), max_connections=2) as db:
        db.put(b"k", b"v")
        found: list[bytes | None] = []

        def work() -> None:
            for _ in range(50):
                found.append(db.get(b"k"))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        assert found == [b"v"] * 400
        assert running.call(lambda server: len(server.clients.connections)) <= 2


def test_all_connections_in_use_for_too_long_is_told():
    entered = threading.Event()

    def script(connection: socket.socket) -> None:
        greet(connection)
        hear(connection, GET)
        entered.set()
        while connection.recv(4096):
            pass

    with Fake(script) as fake:
        db = RemoteDB(Target("127.0.0.1", fake.port), 0.2, 1)
        failures: list[BaseException] = []

        def work() -> None:
            try:
                db.get(b"k")
            except marram.ConnectionLost as error:
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        assert entered.wait(DEADLINE_S)
        with pytest.raises(marram.ConnectionLost):
            db.get(b"k")
        thread.join(DEADLINE_S)
        assert failures
        db.close()


def test_r3_a_pickled_handle_is_its_url_and_connects_when_used(running):
    with marram.connect(url_of(running, 3), timeout_s=7, max_connections=5) as db:
        db.put(b"k", b"v")
        data = pickle.dumps(db)
        assert url_of(running, 3).encode() in data
        with pickle.loads(data) as copy:
            assert copy.get(b"k") == b"v"
            assert copy.pool.size == 5
            assert copy.pool.timeout_s == 7
            assert copy.pool is not db.pool


FORK = """
import os, sys, marram
db = marram.connect(sys.argv[1])
db.put(b"who", b"parent")
snapshot = db.snapshot()
child = os.fork()
if not child:
    try:
        snapshot.get(b"who")
    except marram.Forked:
        db.put(b"who", b"child")  # on a connection of its own
        db.put(b"seen", db.get(b"who"))
        os._exit(0)
    os._exit(1)
assert os.waitpid(child, 0)[1] == 0
assert snapshot.get(b"who") == b"parent", "the child took the parent's connection"
assert db.get(b"who") == db.get(b"seen") == b"child"
snapshot.close()
db.close()
print("fine")
"""


def test_n3_a_forked_child_makes_its_own_connections(running):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORK, url_of(running)],
        capture_output=True, text=True, timeout=DEADLINE_S, env=os.environ, check=False,
    )  # fmt: skip
    assert done.stdout == "fine\n", done.stderr


def test_options_out_of_range_are_refused():
    for options in ({"timeout_s": 0}, {"timeout_s": -1.0}, {"max_connections": 0}):
        with pytest.raises(marram.InvalidArgument):
            marram.connect("marram://127.0.0.1:1", **options)
    with pytest.raises(marram.InvalidArgument):
        marram.connect_async("marram://127.0.0.1:1", timeout_s=0)
