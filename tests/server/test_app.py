"""The server as a process: starting, refusing to start, signals, limits of the system."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import marram
from marram.env import posix_env
from marram.env.faulty import Fault, FaultyEnv
from marram.errors import Locked
from marram.protocol.replies import ErrorReply, Simple
from marram.server.app import Server, StartFailed, serve
from marram.server.config import ServerConfig
from marram.server.screen import lines
from tests.server.serving import Client, GatedEnv, Running, config_for, serving, wire

OK = Simple("OK")
RUN = """
import os, sys
from marram.errors import InvalidArgument
from marram.server.app import serve
from marram.server.config import load
sys.exit(serve(load(dict(word.split("=", 1) for word in sys.argv[1:]), os.environ)))
"""


class Process:
    """A server in a process of its own."""

    def __init__(self, *options: str, environ: dict[str, str] | None = None, **popen: Any) -> None:
        ports = [f"{name}_port=0" for name in ("resp", "http", "frame")]
        self.child = subprocess.Popen(
            [sys.executable, "-c", RUN, *ports, *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **(environ or {})}, **popen,
        )  # fmt: skip

    def ready(self) -> dict[str, str]:
        """The ready line's fields."""
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if not line.startswith("marram ready "):
            raise AssertionError(f"not ready: {line!r} {self.child.communicate()[1]}")
        return dict(word.split("=", 1) for word in line.split()[2:])

    def connect(self, fields: dict[str, str], name: str = "resp") -> Client:
        host, _, port = fields[name].rpartition(":")
        return Client((host, int(port)))

    def end(self) -> tuple[int, str, str]:
        """Exit code, the rest of stdout, and stderr."""
        out, err = self.child.communicate(timeout=30)
        return self.child.returncode, out, err


@contextlib.contextmanager
def process(directory: Path, *options: str, **how: Any) -> Iterator[Process]:
    running = Process(f"dir={directory}", *options, **how)
    try:
        yield running
    finally:
        running.child.kill()
        running.child.communicate()


# -- starting --------------------------------------------------------------------------------------


def test_s1_one_ready_line_once_every_listener_accepts(tmp_path: Path) -> None:
    with process(tmp_path / "data") as running:
        fields = running.ready()
        assert list(fields) == ["dir", "engine", "resp", "http", "frame"]
        assert fields["dir"] == str(tmp_path / "data")
        assert fields["engine"] == "memory"
        for name in ("resp", "http", "frame"):
            running.connect(fields, name).socket.close()
        lock = json.loads((tmp_path / "data" / "LOCK").read_text())
        assert lock["pid"] == running.child.pid
        assert f"resp={fields['resp']}" in lock["address"]
        running.child.send_signal(signal.SIGTERM)
        code, out, err = running.end()
        assert (code, out) == (0, "")
        assert [json.loads(line)["event"] for line in err.splitlines()] == [
            "ready", "stopping", "stopped",
        ]  # fmt: skip


def test_a_listener_that_is_off_is_not_named(tmp_path: Path) -> None:
    with process(tmp_path / "data", "http_port=off", "frame_port=off") as running:
        assert list(running.ready()) == ["dir", "engine", "resp"]


def refused(capsys: pytest.CaptureFixture[str], config: ServerConfig) -> tuple[int, str]:
    """Exit code and the one line of a server that does not start."""
    code = serve(config)
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("marram: ")
    return code, line


def test_s3_a_second_owner_is_told_who_the_first_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with process(tmp_path / "data") as running:
        fields = running.ready()
        code, line = refused(capsys, config_for(tmp_path))
        assert code == 1
        assert f"in use by pid {running.child.pid}" in line
        assert f"resp={fields['resp']}" in line


def test_s3_what_cannot_be_opened_or_bound_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, config_for(tmp_path, create=False)) == (
        1, f"marram: {tmp_path}/data does not exist",
    )  # fmt: skip
    foreign = tmp_path / "foreign"
    (foreign / "data").mkdir(parents=True)
    (foreign / "data" / "letters.txt").write_text("dear")
    code, line = refused(capsys, config_for(foreign))
    assert code == 1
    assert (foreign / "data" / "letters.txt").read_text() == "dear"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, line = refused(capsys, config_for(tmp_path, resp_port=port))
        assert code == 1
        assert f"cannot listen on 127.0.0.1:{port} for resp: Address already in use" in line
    code, line = refused(capsys, config_for(tmp_path, host="no such host", password="x"))
    assert code == 1
    # Nothing of a failed start is left: the store can be opened at once.
    with marram.open(tmp_path / "data") as db:
        assert len(db) == 0


def test_s3_a_newer_format_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with marram.open(tmp_path / "data") as db:
        db[b"k"] = b"v"
    (tmp_path / "data" / "version").write_text("not a number")
    code, _ = refused(capsys, config_for(tmp_path))
    assert code == 1
    assert (tmp_path / "data" / "version").read_text() == "not a number"


def test_g4_an_open_address_without_a_password_is_bad_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("resp_port", "http_port", "frame_port"):
        ports = {"resp_port": "off", "http_port": "off", "frame_port": "off", name: 0}
        code, line = refused(capsys, config_for(tmp_path, host="0.0.0.0", **ports))
        assert code == 2
        assert "without a password" in line
    assert not (tmp_path / "data").exists()


def test_a_store_is_unlocked_when_start_fails_in_a_running_process(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        _, port = running.address()
        other = tmp_path / "other"
        with pytest.raises(StartFailed), Running(config_for(other, resp_port=port)):
            pass
        with pytest.raises(Locked), serving(tmp_path):
            pass
        with serving(other) as second, second.connect() as client:
            assert client.ask(b"PING") == Simple("PONG")


# -- stopping --------------------------------------------------------------------------------------


class Load:
    """Clients that write until the server goes, and what it acknowledged to them."""

    def __init__(self, connect: Any, clients: int = 6) -> None:
        self.acknowledged: set[bytes] = set()
        self._some = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(connect(), number))
            for number in range(clients)
        ]
        for thread in self._threads:
            thread.start()
        assert self._some.wait(20)

    def _write(self, client: Client, number: int) -> None:
        with client, contextlib.suppress(ConnectionError):
            for turn in range(10**6):
                keys = [b"%d-%d-%d" % (number, turn, index) for index in range(10)]
                client.send(b"".join(wire(b"SET", key, key) for key in keys))
                for key in keys:
                    if client.reply() != OK:
                        return
                    self.acknowledged.add(key)
                if turn > 5:
                    self._some.set()

    def join(self) -> set[bytes]:
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        return self.acknowledged


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("durability", ["sync", "none"])
def test_s2_whatever_ends_it_what_was_acknowledged_is_there(
    tmp_path: Path, how: signal.Signals, durability: str
) -> None:
    with process(tmp_path / "data", f"durability={durability}") as running:
        fields = running.ready()
        load = Load(lambda: running.connect(fields))
        running.child.send_signal(how)
        acknowledged = load.join()
        code, _, err = running.end()
        assert code == (-signal.SIGKILL if how == signal.SIGKILL else 0), err
    with marram.open(tmp_path / "data") as db:
        assert acknowledged <= set(db)
        assert all(db[key] == key for key in acknowledged)


def test_s2_replies_in_flight_leave_and_running_commands_finish(tmp_path: Path) -> None:
    def blocked(server: Server) -> bool:
        return any(connection.session.blocked for connection in server.clients.connections)

    env = GatedEnv()
    with (
        serving(tmp_path, env, http_port=0) as running,
        running.connect() as client,
        running.connect() as idle,
    ):
        assert idle.ask(b"PING") == Simple("PONG")
        env.close_gate()
        client.send(wire(b"SET", b"k", b"v") + wire(b"CHECKPOINT") + wire(b"SET", b"after", b"1"))
        while not running.call(blocked):
            pass
        running.call(Server.request_stop)
        assert idle.rest() == b""
        env.open_gate()
        assert client.rest() == b"+OK\r\n+OK\r\n"  # the command behind it was never run
    with marram.open(tmp_path / "data") as db:
        assert b"after" not in db


def test_s2_what_takes_too_long_is_cut_off(tmp_path: Path) -> None:
    with process(tmp_path / "data", "shutdown_timeout_s=0.2") as running:
        fields = running.ready()
        with running.connect(fields) as client:
            client.send(wire(b"WAIT", b"1", b"0"))
            with running.connect(fields) as other:
                while b"flags=b" not in other.ask(b"CLIENT", b"LIST"):
                    pass
            running.child.send_signal(signal.SIGTERM)
            assert client.rest() == b""
        assert running.end()[0] == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with process(tmp_path / "data", "shutdown_timeout_s=1000") as running:
        fields = running.ready()
        with running.connect(fields) as client, running.connect(fields) as other:
            client.send(wire(b"WAIT", b"1", b"0"))
            while b"flags=b" not in other.ask(b"CLIENT", b"LIST"):
                pass
            running.child.send_signal(signal.SIGTERM)
            assert other.rest() == b""
            running.child.send_signal(signal.SIGTERM)
            assert running.end()[0] == 1


def test_sighup_ends_nothing(tmp_path: Path) -> None:
    with process(tmp_path / "data") as running:
        fields = running.ready()
        running.child.send_signal(signal.SIGHUP)
        with running.connect(fields) as client:
            assert client.ask(b"PING") == Simple("PONG")


def test_shutdown_by_command(tmp_path: Path) -> None:
    with process(tmp_path / "data") as running:
        with running.connect(running.ready()) as client:
            assert client.ask(b"SET", b"k", b"v") == OK
            client.command(b"SHUTDOWN", b"SAVE")
            assert client.rest() == b""
        assert running.end()[0] == 0
    assert (tmp_path / "data" / "version").read_text().strip() == "1"


def test_a_failed_store_shows_in_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env = FaultyEnv(posix_env())
    start = Server.start

    async def start_and_stop_on_a_bad_disk(server: Server) -> None:
        server.env = env
        await start(server)
        env.add(Fault("sync_data", "*logfile*", times=None))
        server.request_stop()

    monkeypatch.setattr(Server, "start", start_and_stop_on_a_bad_disk)
    assert serve(config_for(tmp_path)) == 1
    assert "marram: the store failed" in capsys.readouterr().err


# -- the system's limits ---------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_running_out_of_descriptors_refuses_some_and_harms_nobody(
    tmp_path: Path, loop: str
) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    options = (f"loop={loop}", "maxclients=1000", "http_port=off")
    with process(tmp_path / "data", *options, preexec_fn=few) as running:
        fields = running.ready()
        with running.connect(fields) as good:
            crowd = [running.connect(fields) for _ in range(150)]
            for client in crowd:
                with contextlib.suppress(OSError):
                    client.send(wire(b"PING"))
            assert good.ask(b"SET", b"k", b"v") == OK
            for client in crowd:
                client.socket.close()
            while True:
                with running.connect(fields) as late, contextlib.suppress(ConnectionError):
                    if late.ask(b"GET", b"k") == b"v":
                        break
        running.child.send_signal(signal.SIGTERM)
        assert running.end()[0] == 0


# -- secrets ---------------------------------------------------------------------------------------


def test_g3_the_password_is_nowhere_to_be_seen(tmp_path: Path) -> None:
    secret = "canary-7f3a"
    environ = {"MARRAM_PASSWORD": secret, "MARRAM_LOG_LEVEL": "debug"}
    with process(tmp_path / "data", environ=environ) as running:
        fields = running.ready()
        with running.connect(fields) as client, running.connect(fields) as watcher:
            assert client.ask(b"AUTH", b"x" + secret.encode()).code == "WRONGPASS"
            assert client.ask(b"AUTH", secret.encode()) == OK
            watcher.ask(b"AUTH", secret.encode())
            watcher.ask(b"CONFIG", b"SET", b"slowlog-log-slower-than", b"0")
            watcher.ask(b"MONITOR")
            client.ask(b"AUTH", secret.encode())
            client.ask(b"HELLO", b"3", b"AUTH", b"default", secret.encode())
            client.ask(b"CONFIG", b"SET", b"requirepass", secret.encode())
            seen = [repr(client.ask(*words)) for words in (
                (b"SLOWLOG", b"GET"), (b"INFO", b"everything"), (b"CONFIG", b"GET", b"*"),
                (b"CLIENT", b"LIST"), (b"ACL", b"LIST"),
            )]  # fmt: skip
            client.send(secret.encode() + b'"\r\n')
        command = Path(f"/proc/{running.child.pid}/cmdline").read_bytes().decode()
        running.child.send_signal(signal.SIGTERM)
        code, out, err = running.end()
        assert code == 0
        for text in (*seen, command, out, err):
            assert secret not in text
    for file in (tmp_path / "data").iterdir():
        assert secret.encode() not in file.read_bytes()


def test_errors_of_clients_do_not_reach_the_terminal_raw(tmp_path: Path) -> None:
    with process(tmp_path / "data", "log_format=human") as running:
        fields = running.ready()
        with running.connect(fields) as client:
            client.send(b"*1\r\n\x1b[31mevil\r\n")
            client.rest()
        running.child.send_signal(signal.SIGTERM)
        assert "\x1b" not in running.end()[2]


# -- what people see -------------------------------------------------------------------------------


def test_the_screen_has_lines_to_copy(tmp_path: Path) -> None:
    addresses = {"resp": "127.0.0.1:7379", "http": "[::1]:7380"}
    text = lines(ServerConfig(), addresses, "/srv/data", {"num_keys": 1234})
    assert "redis-cli -h 127.0.0.1 -p 7379 SET" in text
    assert "curl http://[::1]:7380/v1/kv/greeting" in text
    assert "marram shell --connect 127.0.0.1:7379" in text
    assert "/srv/data (1,234 keys; a write is answered once it is on disk)" in text
    assert not re.search(r"\s$", text.rstrip("\n").replace("\n\n", "\n"), re.MULTILINE)


def test_the_screen_shows_the_levels_of_lsm() -> None:
    lsm = {
        "levels": [{"level": 0, "tables": 1, "bytes": 1536}, {"level": 6, "tables": 4, "bytes": 1}],
        "memtable": {"limit_bytes": 64 << 20},
        "memory": {"limit_bytes": 512 << 20},
        "compaction_debt_bytes": 5 << 20,
        "throttle": 0.25,
    }
    text = lines(ServerConfig(), {}, "/srv/data", {"num_keys": 1, "lsm": lsm})
    assert "level 0: 1 table, 1.5 KiB; level 6: 4 tables, 1 bytes" in text
    assert "memtables of 64.0 MiB, 512.0 MiB of memory in all" in text
    assert "5.0 MiB to compact; writers are held back 25%" in text
    empty = lines(ServerConfig(), {}, "/d", {"num_keys": 0, "lsm": {**lsm, "levels": []}})
    assert "no tables yet" in empty


def test_on_a_terminal_the_ready_line_comes_first(tmp_path: Path) -> None:
    main, other = os.openpty()
    options = [f"dir={tmp_path / 'data'}", "http_port=0", "resp_port=0", "frame_port=off"]
    child = subprocess.Popen(
        [sys.executable, "-c", RUN, *options], stdout=other, stderr=subprocess.DEVNULL
    )
    os.close(other)
    try:
        seen = b""
        while b"Ctrl-C" not in seen:
            seen += os.read(main, 4096)
        assert seen.startswith(b"marram ready dir=")
        assert b"redis-cli" in seen
    finally:
        child.terminate()
        assert child.wait(20) == 0
        os.close(main)


def test_wrong_passwords_are_answered_as_such(tmp_path: Path) -> None:
    with serving(tmp_path, password="x") as running, running.connect() as client:
        assert isinstance(client.ask(b"AUTH", b"y"), ErrorReply)
