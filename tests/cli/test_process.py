"""marram as a process: the entry point, what it loads, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

import marram
from tests.cli.running import DEADLINE_S, process

HIDE = "import sys; sys.modules[{!r}] = None; sys.argv = ['marram'] + {!r}; "
RUN = "from marram.cli.main import main; main()"


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("click", ["--help"], "cli"),
        ("click", ["get", "k"], "cli"),
        ("prompt_toolkit", ["shell"], "cli"),
        ("starlette", ["serve", "--resp-port", "0", "--http-port", "0"], "server"),
    ],
)
def test_without_an_extra_one_line_says_which(tmp_path, module, arguments, extra):
    code = HIDE.format(module, arguments) + RUN
    if module == "prompt_toolkit":
        code = (
            HIDE.format(module, arguments)
            + "sys.stdin.isatty = sys.stdout.isatty = lambda: True; "
            + RUN
        )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        timeout=DEADLINE_S, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"marram[{extra}]" in done.stderr
    assert "pip install" in done.stderr


def test_e3_get_loads_neither_an_event_loop_nor_a_server(tmp_path):
    with marram.open(tmp_path / "d") as db:
        db.put(b"k", b"v")
    code = (
        f"import sys; sys.argv = ['marram', 'get', '--dir', {str(tmp_path / 'd')!r}, 'k']\n"
        "from marram.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )
    assert done.stdout == "v"
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert not loaded & {
        "asyncio", "socket", "ssl", "http", "selectors", "rich", "prompt_toolkit", "starlette",
        "uvicorn", "uvloop", "subprocess",
    }  # fmt: skip
    assert not {
        name for name in done.stderr.split() if name.startswith(("marram.node", "marram.server"))
    }


def test_the_exit_codes_reach_the_shell(tmp_path):
    place = ("--dir", tmp_path / "d")
    assert process("put", *place, "k", "v").code == 0
    done = process("get", *place, "k")
    assert (done.code, done.out, done.err) == (0, b"v", b"")
    done = process("get", *place, "nope")
    assert (done.code, done.out, done.err) == (1, b"", b"key not found\n")
    assert process("get").code == 2
    done = process("shell", *place, stdin=b"PUT a 1\nGET a\n")
    assert (done.code, done.out, done.err) == (0, b"OK\n1\n", b"")


def test_what_the_locale_cannot_write_is_escaped(tmp_path):
    process("put", "--dir", tmp_path / "d", "ü", "☃\x9b")
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = process("scan", "--dir", tmp_path / "d", **ascii_only)
    assert (done.code, done.out, done.err) == (0, b'\\xfc\t"\\u2603\\xc2\\x9b"\n', b"")
    done = process("scan", "--dir", tmp_path / "d", "--json", **ascii_only)
    assert done.out == '{"key": "ü", "value": "☃\\u009b"}\n'.encode()
    latin = {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = process("shell", "--dir", tmp_path / "d", "-c", "GET ü", **latin)
    assert (done.code, done.out, done.err) == (0, b'"\\u2603\\xc2\\x9b"\n', b"")


def test_a_reader_that_stops_reading_is_no_error_message(tmp_path):
    with marram.open(tmp_path / "d") as db:
        db.put_many({b"%06d" % number: b"v" * 100 for number in range(20_000)})
    with subprocess.Popen(
        [sys.executable, "-m", "marram.cli.main", "scan", "--dir", str(tmp_path / "d")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline().startswith(b"000000\t")
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(DEADLINE_S) == 1


def test_an_interrupt_ends_a_piped_shell_quietly(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "marram.cli.main", "shell", "--dir", str(tmp_path / "d")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as running:  # fmt: skip
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdin.write(b"PUT test recovery_works\n")
        running.stdin.flush()
        assert running.stdout.readline() == b"OK\n"
        running.send_signal(signal.SIGINT)
        assert running.wait(DEADLINE_S) == 130
        assert running.stderr.read().strip() == b""
    done = process("get", "--dir", tmp_path / "d", "test")
    assert done.out == b"recovery_works"


def test_what_was_put_survives_sigkill(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "marram.cli.main", "shell", "--dir", str(tmp_path / "d")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as running:  # fmt: skip
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b"PUT foo bar\n")
        running.stdin.flush()
        assert running.stdout.readline() == b"OK\n"
        running.kill()
    assert process("get", "--dir", tmp_path / "d", "foo").out == b"bar"


def test_serve_says_where_it_is_and_stops_when_told(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "marram.cli.main", "serve", "--dir", str(tmp_path / "d"),
         "--resp-port", "0", "--http-port", "off", "--frame-port", "off"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "MARRAM_LOG_LEVEL": "error"},
    ) as running:  # fmt: skip
        assert running.stdout is not None
        ready = running.stdout.readline().split()
        assert ready[:2] == ["marram", "ready"]
        address = dict(word.split("=", 1) for word in ready[2:])["resp"]
        assert process("put", "--connect", address, "k", "v").code == 0
        done = process("bench", "--connect", address, "--requests", "500", "--clients", "5",
                       "--pipeline", "4", "--keys", "50", "--json")  # fmt: skip
        assert done.code == 0, done
        figures = json.loads(done.out)
        assert (figures["requests"], figures["errors"]) == (500, 0)
        running.send_signal(signal.SIGTERM)
        assert running.wait(DEADLINE_S) == 0
