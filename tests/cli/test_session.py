"""The shell's session: the same answers over a directory and over a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marram.cli.backends import Embedded, Remote
from marram.cli.parse import BadLine
from marram.cli.render import reply_lines
from marram.cli.session import Session
from marram.client.url import Target
from marram.env import posix_env
from marram.env.faulty import Fault, FaultyEnv
from marram.errors import ConnectionLost
from tests.server.serving import DEADLINE_S, serving


class Notebook:
    """A printer that keeps what is printed."""

    max_value_chars: int | None = 100

    def __init__(self) -> None:
        self.out: list[str] = []
        self.errors: list[str] = []

    def lines(self, lines: Any) -> None:
        self.out += lines

    def rows(self, pairs: Any, note: str) -> None:
        self.out += [f"{key.decode()}={value.decode()}" for key, value in pairs]
        self.out += [note] if note else []

    def error(self, message: str) -> None:
        self.errors.append(message)

    def bad_line(self, line: str, error: BadLine) -> None:
        self.errors.append(error.pointing(line))

    def json(self, value: object) -> bool:
        return False


class Talk:
    """A session, and what it answered to each line."""

    def __init__(self, backend: Any, confirm: Any = None) -> None:
        self.notebook = Notebook()
        self.session = Session(backend, self.notebook, confirm)

    def __call__(self, line: str) -> list[str]:
        """The lines of the answer; an error is a line as well."""
        self.notebook.out.clear()
        self.notebook.errors.clear()
        well = self.session.execute(line)
        assert well is not bool(self.notebook.errors)
        return self.notebook.out + [f"Error: {error}" for error in self.notebook.errors]


@pytest.fixture(params=["directory", "server"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "directory":
        embedded = Embedded(str(tmp_path / "d"), 0, create=True)
        yield embedded
        embedded.close()
        return
    with serving(tmp_path) as running:
        host, port = running.address()
        remote = Remote(Target(host, port))
        yield remote
        remote.close()


@pytest.fixture
def talk(backend: Any) -> Talk:
    return Talk(backend)


def test_the_first_session_of_the_documents(talk):
    assert talk('PUT user:1 {"name":"Alice","age":30}') == ["OK"]
    assert talk("GET user:1") == ['{"name":"Alice","age":30}']
    assert talk('PUT user:2 {"name":"Bob","age":25}') == ["OK"]
    stats = talk("STATS")
    assert stats[0] == "Statistics:"
    assert "  num_keys: 2" in stats
    assert talk("DELETE user:1") == ["OK"]
    assert talk("GET user:1") == ["Error: key not found"]
    assert talk("QUIT") == []
    assert talk.session.finished


ANSWERS = [
    ("", []),
    ("   ", []),
    ("# a remark", []),
    ("ping", ["PONG"]),
    ("put k 'a b'", ["OK"]),
    ("PUT k v TTL 100", ["OK"]),
    ("TTL k", ["(integer) 100"]),
    ("GET nope", ["Error: key not found"]),
    ("GETDEL nope", ["(nil)"]),
    ("DELETE nope", ["OK (there was no such key)"]),
    ("DELETE k nope", ["OK (1 of 2 existed)"]),
    ("MSET a 1 b 2 c 3", ["OK"]),
    ("MGET a nope c", ["1) 1", "2) (nil)", "3) 3"]),
    ("SCAN", ["a=1", "b=2", "c=3"]),
    ("SCAN b", ["b=2"]),
    ("SCAN LIMIT 2", ["a=1", "b=2", "The first 2; LIMIT shows more."]),
    ("SCAN LIMIT 3", ["a=1", "b=2", "c=3"]),
    ("SCAN REVERSE LIMIT 1", ["c=3", "The first 1; LIMIT shows more."]),
    ("SCAN START b STOP c", ["b=2"]),
    ("SCAN PREFIX nope", []),
    ("SCAN c STOP b", []),
    ("SCAN 0", ["1) 0", "2)", "   1) a", "   2) b", "   3) c"]),
    ("KEYS *", ["1) a", "2) b", "3) c"]),
    ("SCAN a b", ["Error: SCAN takes a prefix, START key, STOP key, LIMIT count, REVERSE"]),
    ("SCAN LIMIT", ["Error: LIMIT is followed by a value"]),
    ("SCAN LIMIT 0", ["Error: LIMIT is a whole number from 1 to 1000000"]),
    ("PUT k", ["Error: PUT takes a key and a value"]),
    (
        "PUT k a b",
        ["Error: PUT takes a key and a value; put a value with blanks in quotes: 'a b'"],
    ),
    ("DELETE", ["Error: DELETE takes a key"]),
    ("INCR a", ["(integer) 2"]),
    ("SET s 'not a number'", ["OK"]),
    ("INCR s", ["Error: value is not an integer or out of range"]),
    ("SETBIT s 1 5", ["Error: bit is not an integer or out of range"]),
    ("GETT a", ["Error: unknown command 'GETT'. Did you mean GET?"]),
    ("zzzzzz", ["Error: unknown command 'zzzzzz'."]),
    ("GET", ["Error: wrong number of arguments for 'get' command; usage: GET key"]),
    ("TTL a b", ["Error: wrong number of arguments for 'ttl' command; usage: TTL key"]),
    ('GET "a', ['Error: GET "a\n    ^ this quote is not closed']),
    ('SET bin "\\x00\\xff\\x1b[2J"', ["OK"]),
    ("GET bin", ['"\\x00\\xff\\x1b[2J"']),
    ("SELECT 3", ["OK"]),
    ("DBSIZE", ["(integer) 0"]),
    ("SELECT 99", ["Error: DB index is out of range"]),
    ("SELECT 0", ["OK"]),
    ("MULTI", ["OK"]),
    ("SET t 1", ["QUEUED"]),
    ("SCAN t", ["QUEUED"]),
    ("DELETE t", ["QUEUED"]),
    ("EXEC", ["1) OK", "2)", "   1) t", "   2) 1", "3) (integer) 1"]),
    ("CHECKPOINT", ["OK"]),
    ("CLIENT REPLY OFF", ["Error: the shell needs its replies"]),
    ("client reply skip", ["Error: the shell needs its replies"]),
    ("WAIT 0 0", ["(integer) 0"]),
    ("WAITAOF 1 0 0", ["1) (integer) 1", "2) (integer) 0"]),
    ("FLUSHALL", ["OK"]),
    ("DBSIZE", ["(integer) 0"]),
]


def test_both_ways_give_these_answers_in_turn(talk):
    for line, answer in ANSWERS:
        assert talk(line) == answer, line


def test_a_long_value_is_cut_with_its_size(talk):
    talk("SETRANGE k 4999 x")
    talk("SET l " + "y" * 5000)
    assert talk("GET l") == ["y" * 100 + "… (4.9 KiB)"]


def test_help_says_what_a_command_takes(talk):
    assert talk("HELP SET")[0].startswith("SET key value [NX | XX")
    assert talk("help config get")[0] == "CONFIG GET parameter ..."
    assert any("CONFIG SET" in line for line in talk("HELP CONFIG"))
    assert any(line.startswith("  APPEND") for line in talk("HELP string"))
    assert any("PUT key value [TTL seconds]" in line for line in talk("HELP"))
    assert talk("HELP GETT") == ["Error: no help on 'GETT'. Did you mean GET?"]


def test_the_session_knows_its_transaction_and_keyspace(talk):
    session = talk.session
    talk("SELECT 2")
    assert session.keyspace == 2
    talk("MULTI")
    assert session.in_transaction
    talk("SELECT 3")
    assert session.keyspace == 2
    talk("DISCARD")
    assert not session.in_transaction
    talk("RESET")
    assert session.keyspace == 0


def test_keys_of_commands_and_answers_are_remembered(talk):
    talk("MSET a 1 b 2")
    talk("GET missing")
    talk("SET")
    talk("NOSUCH key")
    talk("PUT p 1")
    assert set(talk.session.seen) == {b"a", b"b", b"missing", b"p"}
    other = Talk(talk.session.backend)
    other("KEYS *")
    assert set(other.session.seen) == {b"a", b"b", b"p"}
    third = Talk(talk.session.backend)
    third("SCAN")
    assert set(third.session.seen) == {b"a", b"b", b"p"}


@pytest.mark.parametrize("line", ["FLUSHALL", "flushdb", "SHUTDOWN NOSAVE"])
def test_p2_what_destroys_a_lot_asks_first(backend, line):
    asked: list[str] = []

    def no(question: str) -> bool:
        asked.append(question)
        return False

    talk = Talk(backend, no)
    talk("PUT k v")
    assert talk(line) == ["Error: nothing was done"]
    assert asked[0].startswith(line.split()[0].upper())
    assert talk("GET k") == ["v"]
    if line != "SHUTDOWN NOSAVE":
        assert Talk(backend, lambda question: True)(line) == ["OK"]
        assert talk("DBSIZE") == ["(integer) 0"]


def test_subscribing_shows_the_confirmation_in_a_directory(tmp_path):
    backend = Embedded(str(tmp_path / "d"), 0, create=True)
    talk = Talk(backend)
    assert talk("SUBSCRIBE news") == ["1) subscribe", "2) news", "3) (integer) 1"]
    assert talk("PUBLISH news hello") == [
        "1) message", "2) news", "3) hello", "(integer) 1",
    ]  # fmt: skip
    backend.close()


def test_listening_shows_messages_until_it_is_interrupted(tmp_path):
    with serving(tmp_path) as running:
        host, port = running.address()
        backend = Remote(Target(host, port))
        talk = Talk(backend)
        heard = threading.Event()
        shown = talk.notebook.lines

        def lines(found: Any) -> None:
            found = list(found)
            shown(found)
            heard.set()
            if "3) hello" in found:
                raise KeyboardInterrupt  # as Ctrl-C does

        talk.notebook.lines = lines  # type: ignore[method-assign]

        def publish() -> None:
            assert heard.wait(DEADLINE_S)
            with running.connect() as client:
                client.ask(b"PUBLISH", b"news", b"hello")

        thread = threading.Thread(target=publish)
        thread.start()
        talk.session.execute("SUBSCRIBE news")
        thread.join(DEADLINE_S)
        talk.notebook.lines = shown  # type: ignore[method-assign]
        assert "3) hello" in talk.notebook.out
        assert "(no longer listening)" in talk.notebook.out
        assert talk("PING") == ["PONG"]  # on a new connection
        backend.close()


def test_monitor_shows_what_others_do(tmp_path):
    with serving(tmp_path) as running:
        host, port = running.address()
        remote = Remote(Target(host, port))
        replies = remote.listen([b"MONITOR"])
        assert list(reply_lines(next(replies))) == ["OK"]
        with running.connect() as client:
            client.ask(b"SET", b"k", b"v")
        (line,) = reply_lines(next(replies))
        assert '"SET" "k" "v"' in line
        replies.close()  # type: ignore[attr-defined]
        remote.close()


def test_b2_a_lost_server_is_told_and_a_new_one_is_found(tmp_path):
    with serving(tmp_path) as running:
        host, port = running.address()
        talk = Talk(Remote(Target(host, port)))
        talk("SELECT 5")
        talk("PUT k v")
    (answer,) = talk("GET k")
    assert answer.startswith("Error: cannot connect to 127.0.0.1")
    with serving(tmp_path, resp_port=port):
        assert talk("GET k") == ["v"]  # in the keyspace it was in
        talk.session.backend.close()


def test_shutdown_stops_the_server(tmp_path):
    with serving(tmp_path) as running:
        host, port = running.address()
        talk = Talk(Remote(Target(host, port)), lambda question: True)
        assert talk("SHUTDOWN") == ["The server is stopping."]
        running._thread.join(DEADLINE_S)
        assert not running._thread.is_alive()
        talk.session.backend.close()


def test_a_wrong_server_is_told_at_once():
    with pytest.raises(ConnectionLost):
        Remote(Target("127.0.0.1", 1))


def test_b1_a_failed_log_is_an_error_and_not_an_answer(tmp_path, monkeypatch):
    env = FaultyEnv(posix_env())
    monkeypatch.setattr("marram.cli.backends.posix_env", lambda: env)
    backend = Embedded(str(tmp_path / "d"), 0, create=True)
    talk = Talk(backend)
    talk("PUT a 1")
    env.add(Fault("sync_data", "*logfile*", times=None))
    (answer,) = talk("PUT b 2")
    assert answer.startswith("Error: OUTCOMEUNKNOWN")
    (answer,) = talk("PUT c 3")
    assert answer.startswith("Error: MISCONF")
    assert talk("GET a") == ["1"]
    backend.close()


def test_a_command_that_is_interrupted_leaves_the_shell_usable(tmp_path, monkeypatch):
    backend = Embedded(str(tmp_path / "d"), 0, create=True)
    talk = Talk(backend)
    turn = backend._turns.turn
    calls = 0

    def interrupted(wait_s: float) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        turn(wait_s)

    monkeypatch.setattr(backend._turns, "turn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        talk.session.execute("WAITAOF 1 5 0")  # for replicas that never come
    assert talk("PING") == ["PONG"]
    backend.close()
