"""bench: put a load on a server and say how it did.

Owns the options, a server of its own where none is named, and the report; the load is load.py's.

Threading: the main thread; its own server is another process.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import click

from marram.cli.load import Load, Measured, Progress, run_load
from marram.cli.options import json_option, make_place, print_json
from marram.client.url import Target, parse_address
from marram.errors import Error

_PERCENTILES = (50.0, 95.0, 99.0, 99.9, 100.0)
_STOP_TIMEOUT_S = 20


@click.command()
@click.option("--connect", "address", metavar="HOST:PORT", help="A server [one of its own].")
@click.option("--ask-password", is_flag=True, help="Ask for the server's password.")
@click.option(
    "--durability",
    type=click.Choice(("sync", "interval", "none")),
    default="sync",
    help="Of a server of its own [sync].",
)
@click.option(
    "--dir",
    "directory",
    metavar="DIR",
    help="Where a server of its own keeps its data for a while [the system's].",
)
@click.option("--clients", type=click.IntRange(1, 10_000), default=50, help="Connections [50].")
@click.option(
    "--pipeline",
    type=click.IntRange(1, 10_000),
    default=1,
    help="Requests under way on each connection [1].",
)
@click.option(
    "--requests", type=click.IntRange(1, 10**9), default=100_000, help="How many in all [100000]."
)
@click.option("--size", type=click.IntRange(0, 64 << 20), default=64, help="Bytes of a value [64].")
@click.option(
    "--read-ratio",
    type=click.FloatRange(0, 1),
    default=0.5,
    help="GETs among the requests; the others are SETs [0.5].",
)
@click.option(
    "--keys", type=click.IntRange(1, 10**7), default=10_000, help="Different keys [10000]."
)
@json_option
def bench(
    address: str | None,
    ask_password: bool,
    durability: str,
    directory: str | None,
    as_json: bool,
    **sizes: Any,
) -> None:
    """Measure throughput and latency.

    With GETs and SETs over RESP.

    Without --connect it starts a server of its own on an empty store, and stops it afterwards.
    With --connect it overwrites the keys key:000000000000 and following.
    """
    load = Load(
        sizes["clients"], sizes["pipeline"], sizes["requests"], sizes["size"],
        sizes["read_ratio"], sizes["keys"],
    )  # fmt: skip
    with ExitStack() as stack:
        if address is None:
            target = stack.enter_context(_own_server(directory, durability))
        else:
            target = make_place(None, address, 0, ask_password).target()
        told = stack.enter_context(_live(load.requests))
        measured = run_load(target, load, told)
    if as_json:
        print_json(_figures(load, measured))
    else:
        _report(load, measured)


@contextmanager
def _own_server(directory: str | None, durability: str) -> Iterator[Target]:
    """A server on an empty store, which is removed with it."""
    with TemporaryDirectory(prefix="marram-bench-", dir=directory) as place:
        command = [
            sys.executable, "-m", "marram.cli.main", "serve", "--dir", f"{place}/data",
            "--resp-port", "0", "--http-port", "off", "--frame-port", "off",
            "--durability", durability, "--log-level", "error",
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                ready = process.stdout.readline().split()
                if ready[:2] != ["marram", "ready"]:
                    raise Error("the server did not start")
                words = dict(word.partition("=")[::2] for word in ready[2:])
                yield parse_address(words["resp"])
            finally:
                process.terminate()
                process.wait(_STOP_TIMEOUT_S)


@contextmanager
def _live(requests: int) -> Iterator[Progress | None]:
    """Requests a second on stderr while it runs, on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("bench", total=requests, rate="")

        def told(done: int, seconds: float) -> None:
            rate = f"{done / seconds:,.0f} requests/s" if seconds else ""
            progress.update(task, completed=done, rate=rate)

        yield told


def _figures(load: Load, measured: Measured) -> dict[str, Any]:
    latency = {
        "max" if percent == 100 else f"p{percent:g}": round(measured.percentile_ms(percent), 3)
        for percent in _PERCENTILES
    }
    return {
        "clients": load.clients,
        "pipeline": load.pipeline,
        "size_bytes": load.size_bytes,
        "read_ratio": load.read_ratio,
        "keys": load.keys,
        "requests": measured.requests,
        "errors": measured.errors,
        "seconds": round(measured.seconds, 3),
        "requests_per_s": round(measured.requests_per_s, 1),
        "latency_ms": latency,
    }


def _report(load: Load, measured: Measured) -> None:
    figures = _figures(load, measured)
    click.echo(
        f"{load.clients} clients, pipeline {load.pipeline}, {load.size_bytes} byte values, "
        f"{load.read_ratio:.0%} reads, {load.keys} keys"
    )
    click.echo(
        f"{measured.requests:,} requests in {measured.seconds:.2f} s: "
        f"{measured.requests_per_s:,.0f} requests/s"
    )
    latency = figures["latency_ms"]
    click.echo("latency, ms: " + "  ".join(f"{name} {value:g}" for name, value in latency.items()))
    if measured.errors:
        click.echo(f"Error: {measured.errors} error replies", err=True)
