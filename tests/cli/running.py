"""The command line, run inside the test's process or as a process of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import Any, NamedTuple

from marram.cli.app import run

DEADLINE_S = 30


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """stdout as text."""
        return self.out.decode()

    @property
    def error(self) -> str:
        """stderr, which is one line at most."""
        text = self.err.decode()
        assert text.count("\n") <= 1, text
        return text.rstrip("\n")


class Cli:
    """Runs command lines in this process."""

    def __init__(self, monkeypatch: Any, capture: Any) -> None:
        self._monkeypatch = monkeypatch
        self._capture = capture

    def __call__(self, *arguments: object, stdin: bytes = b"") -> Done:
        source = io.TextIOWrapper(io.BytesIO(stdin))
        self._monkeypatch.setattr("sys.stdin", source)
        self._capture.readouterr()
        code = run([str(argument) for argument in arguments])
        sys.stdout.flush()
        out, err = self._capture.readouterr()
        return Done(code, out, err)

    def ok(self, *arguments: object, stdin: bytes = b"") -> str:
        """stdout of a command that must succeed."""
        done = self(*arguments, stdin=stdin)
        assert (done.code, done.err) == (0, b""), done
        return done.text


def process(*arguments: object, stdin: bytes = b"", **environment: str) -> Done:
    """Run the command line as a process."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "marram.cli.main", *map(str, arguments)],
        input=stdin, capture_output=True, timeout=DEADLINE_S, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)
