"""bench: a load generator, and marram beside what else there is.

Owns the options, the live display and where results go; the measuring is marram.bench's.

    marram bench [load]       put a load on a server, or on one of its own
    marram bench server       beside redis-server and valkey-server
    marram bench embedded     beside embedded stores, in one process
    marram bench replication  a primary and its replicas
    marram bench plot         results, drawn again

Exit codes: 0 measured; 1 something failed, or the server answered with errors, or did not keep up
with --rate by far, or lost a write that it had promised to keep; 2 bad usage.

Threading: the main thread; workers are processes.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any, TypeVar

import click

from marram.bench.keys import DISTRIBUTIONS, THETA
from marram.bench.target import PROTOCOLS, Place, parse_place
from marram.cli.options import json_option, print_json
from marram.errors import InvalidArgument
from marram.storage.options import DURABILITIES, ENGINES

if TYPE_CHECKING:
    from marram.bench.generator import Load, Progress
    from marram.bench.workload import Workload

R = TypeVar("R")

EXIT_ERRORS = 1
_DEFAULT = "load"
_COMMAND = "marram.bench.command"
_SIZE = 64
_SHOWN_EVERY_S = 1.0


class _Bench(click.Group):
    """A group whose first word may be left out: `marram bench --clients 5` is a load."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_COMMAND] = shlex.join(["marram", "bench", *args])
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Bench)
def bench() -> None:
    """Measure: put a load on a server, or compare.

    Without a command it is `load`, whose options `marram bench load --help` lists.
    """


def _output_options(function: Callable[..., R]) -> Callable[..., R]:
    """Give a command --json, --output and --plot, as `as_json`, `output` and `plot`."""
    decorated = click.option("--plot", metavar="FILE.png", help="Draw the result.")(function)
    decorated = click.option("--output", metavar="FILE.json", help="Keep the result.")(decorated)
    return json_option(decorated)


def _directory_option(function: Callable[..., R]) -> Callable[..., R]:
    return click.option(
        "--dir", "directory", metavar="DIR", type=click.Path(exists=True, file_okay=False),
        help="Where the data is kept for a while: on the disk to be measured [the system's].",
    )(function)  # fmt: skip


def _command_line() -> str:
    found: str = click.get_current_context().meta[_COMMAND]
    return found


def _note(text: str) -> None:
    """What goes on, for whoever waits."""
    click.echo(text, err=True)


def _finish(result: dict[str, Any], as_json: bool, output: str | None, plot: str | None) -> None:
    """Keep, draw and print a result."""
    from marram.bench.results import write_result

    if output:
        write_result(result, output)
    if plot:
        from marram.bench.plot import save_plot

        save_plot([result], plot)
    if as_json:
        print_json(result)
    else:
        from marram.bench.report import print_result

        print_result(result)


# -- load ------------------------------------------------------------------------------------------


class _Sizes(click.ParamType[tuple[int, int]]):
    """Bytes, or a range of them: 100 or 100-2000."""

    name = "N|N-M"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """The smallest and the largest."""
        if isinstance(value, tuple):
            return value
        low, dash, high = str(value).partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            self.fail(f"{value!r} is no number of bytes and no range of two", param, ctx)
        return int(low), int(high) if dash else int(low)


@bench.command("load")
@click.option(
    "--connect",
    "address",
    metavar="URL",
    help="HOST:PORT, marram://, redis://, http:// or frame:// [a server of its own].",
)
@click.option(
    "--ask-password",
    is_flag=True,
    help="Ask for the server's password; MARRAM_PASSWORD is used otherwise.",
)
@_directory_option
@click.option("--durability", type=click.Choice(DURABILITIES), help="Of its own server [sync].")
@click.option("--engine", type=click.Choice(ENGINES), help="Of its own server [memory].")
@click.option("--protocol", type=click.Choice(PROTOCOLS), help="Of its own server [resp].")
@click.option(
    "--ycsb",
    metavar="A-F",
    type=click.Choice(list("abcdef"), case_sensitive=False),
    help="A core workload: its mix, distribution and 1000 byte values.",
)
@click.option("--clients", type=click.IntRange(1, 10_000), default=50, help="Connections [50].")
@click.option(
    "--pipeline",
    type=click.IntRange(1, 10_000),
    default=1,
    help="Requests under way on each connection [1].",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    help="That share the load; more than one where a server outruns one [1].",
)
@click.option("--requests", type=click.IntRange(1, 10**10), help="How many in all [100000].")
@click.option(
    "--seconds",
    type=click.FloatRange(0, 10**6, min_open=True),
    help="How long, instead of --requests.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, 10**8, min_open=True),
    metavar="PER_SECOND",
    help="Open loop: requests are due evenly at this rate, and their time counts from "
    "when they were due [as fast as they are answered].",
)
@click.option("--size", "sizes", type=_Sizes(), help=f"Bytes of a value [{_SIZE}].")
@click.option(
    "--read-ratio",
    type=click.FloatRange(0, 1),
    help="Reads among the requests; the others are writes [0.5].",
)
@click.option(
    "--keys",
    type=click.IntRange(1, 10**9),
    default=10_000,
    help="Records that there are at first [10000].",
)
@click.option(
    "--distribution",
    type=click.Choice(DISTRIBUTIONS),
    help="Which records are asked for [uniform].",
)
@click.option(
    "--theta",
    type=click.FloatRange(0, 10, min_open=True),
    default=THETA,
    help=f"How skewed zipfian and latest are [{THETA}].",
)
@click.option(
    "--no-fill", is_flag=True, help="The records are there already: leave out putting them."
)
@click.option("--seed", type=int, default=1, help="Of everything drawn [1].")
@_output_options  # fmt: skip
def load(
    address: str | None, ask_password: bool, directory: str | None, durability: str | None,
    engine: str | None, protocol: str | None, as_json: bool, output: str | None, plot: str | None,
    **options: Any,
) -> int:  # fmt: skip
    """Put a load on a server: throughput and latency.

    Without --connect it starts a server of its own on an empty store, and stops it afterwards.
    With --connect it overwrites the keys key:000000000000 and following.
    """
    from marram.bench.generator import run_load
    from marram.bench.results import load_result

    workload = _workload(options)
    with ExitStack() as stack:
        if address is None:
            own = (engine or "memory", durability or "sync", protocol or "resp")
            place, about = stack.enter_context(_own_server(directory, *own))
        else:
            if directory or durability or engine or protocol:
                raise click.UsageError(
                    "--dir, --durability, --engine and --protocol are for a server of its own; "
                    "--connect names one that runs"
                )
            place, about = _named_server(address, ask_password)
        plan = _load(place, workload, options)
        told = stack.enter_context(_live(plan))
        measured = run_load(plan, told)
    _finish(load_result(plan, measured, about), as_json, output, plot)
    for count, what in (
        (measured.errors, f"error replies, the last one: {measured.last_error}"),
        (measured.unsent, "requests were given up: the server does not keep up with the rate"),
    ):
        if count:
            click.echo(f"Error: {count} {what}", err=True)
    return EXIT_ERRORS if measured.errors or measured.unsent else 0


def _workload(options: dict[str, Any]) -> Workload:
    from marram.bench.workload import YCSB, YCSB_BYTES, Workload

    ratio, ycsb = options["read_ratio"], options["ycsb"]
    size: tuple[int, int] = options["sizes"] or ((YCSB_BYTES if ycsb else _SIZE),) * 2
    values: dict[str, Any] = {
        "records": options["keys"], "theta": options["theta"],
        "size_min": size[0], "size_max": size[1],
    }  # fmt: skip
    if ycsb:
        if ratio is not None:
            raise click.UsageError("--ycsb says what the mix is; leave out --read-ratio")
        values |= YCSB[ycsb.lower()]
    else:
        ratio = 0.5 if ratio is None else ratio
        values |= {"read": ratio, "update": 1 - ratio}
    if options["distribution"]:
        values["distribution"] = options["distribution"]
    try:
        return Workload(**values)
    except InvalidArgument as error:
        raise click.UsageError(str(error)) from None


def _load(place: Place, workload: Workload, options: dict[str, Any]) -> Load:
    from marram.bench.generator import Load

    requests, seconds = options["requests"], options["seconds"]
    if requests is None and seconds is None:
        requests = 100_000
    try:
        return Load(
            place, workload, options["clients"], options["pipeline"], requests, seconds,
            options["rate"], options["processes"], options["seed"], not options["no_fill"],
        )  # fmt: skip
    except InvalidArgument as error:
        raise click.UsageError(str(error)) from None


@contextmanager
def _own_server(
    directory: str | None, engine: str, durability: str, protocol: str
) -> Iterator[tuple[Place, dict[str, Any]]]:
    """A server on an empty store, which is removed with it; and what it is."""
    from marram.bench.machine import hardware
    from marram.bench.programs import Marram

    program = Marram(engine, protocol)
    with TemporaryDirectory(prefix="marram-bench-", dir=directory) as scratch:
        about = {
            **hardware(scratch, _command_line()),
            "versions": {f"marram ({engine})": program.version()},
            "durability": durability,
        }
        with program.running(scratch, durability) as running:
            yield running.place, about


def _named_server(address: str, ask_password: bool) -> tuple[Place, dict[str, Any]]:
    """The server that --connect names; and what it says it is."""
    from marram.bench.asked import describe
    from marram.bench.machine import hardware

    if ask_password:
        password = click.prompt("Password", hide_input=True, err=True)
    else:
        password = os.environ.get("MARRAM_PASSWORD", "")
    try:
        place = parse_place(address, password)
    except InvalidArgument as error:
        raise click.BadParameter(str(error), param_hint="'--connect'") from None
    return place, {**hardware(".", _command_line()), **describe(place)}


@contextmanager
def _live(plan: Load) -> Iterator[Progress | None]:
    """How far it is and how fast, on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[rate]}"),
    )  # fmt: skip
    # Drawn by told() and once a second: a thread that draws would be in the latencies more often.
    with Progress(
        *columns, console=Console(stderr=True), transient=True, auto_refresh=False
    ) as progress:
        tasks: dict[str, TaskID] = {}
        totals = {"fill": plan.workload.records, "load": plan.total or plan.seconds}
        shown = 0.0

        def told(title: str, done: int, seconds: float) -> None:
            nonlocal shown
            if title not in tasks:
                tasks[title] = progress.add_task(title, total=totals[title], rate="")
                shown = 0.0
            if seconds - shown < _SHOWN_EVERY_S:
                return
            shown = seconds
            by_time = title == "load" and plan.total is None
            rate = f"{done / seconds:,.0f}/s"
            progress.update(tasks[title], completed=seconds if by_time else done, rate=rate)
            progress.refresh()

        yield told


# -- comparisons -----------------------------------------------------------------------------------


@bench.command("server")
@click.option("--only", multiple=True, metavar="NAME", help="Rows, such as 'set-*' [all].")
@click.option(
    "--against",
    multiple=True,
    metavar="NAME",
    help="redis-server, valkey-server [all that are installed].",
)
@click.option("--pairs", type=click.IntRange(1, 1000), default=5, help="Runs of each server [5].")
@click.option("--quick", is_flag=True, help="A tenth of everything: to see that it works.")
@click.option("--engine", type=click.Choice(ENGINES), default="memory", help="marram's [memory].")
@click.option("--list", "list_only", is_flag=True, help="Print the rows' names and stop.")
@_directory_option
@_output_options  # fmt: skip
def server(
    only: tuple[str, ...], against: tuple[str, ...], pairs: int, quick: bool, engine: str,
    list_only: bool, directory: str | None, as_json: bool, output: str | None, plot: str | None,
) -> None:  # fmt: skip
    """Compare with redis-server and valkey-server.

    In alternating runs under equal durability; what counts is the ratio, pair by pair.
    """
    from marram.bench import compare_servers, programs

    try:
        work = compare_servers.chosen_work(only)
        if list_only:
            for one in work:
                click.echo(f"{one.name:20} {one.title}")
            return
        found, notes = programs.peers()
        chosen = compare_servers.peers_or_raise(found, against)
    except InvalidArgument as error:
        raise click.UsageError(str(error)) from None
    for text in notes if not against else ():
        _note(text)
    _warn_of_memory_disk(directory)
    plan = compare_servers.Plan(work, pairs, quick, engine, directory)
    result = compare_servers.compare(plan, chosen, _command_line(), _note)
    _finish(result, as_json, output, plot)


@bench.command("embedded")
@click.option("--keys", type=int, default=200_000, help="Rows of 16 + 100 bytes [200000].")
@click.option("--rounds", type=int, default=3, help="Of all stores [3].")
@click.option(
    "--memory-mb",
    type=click.IntRange(16, 1 << 20),
    default=256,
    help="That a store may use, where that can be set [256].",
)
@click.option(
    "--engines",
    default="",
    metavar="NAME,NAME",
    help="Such as marram-lsm,lmdb,dict [all that are installed].",
)
@click.option("--quick", is_flag=True, help="A tenth of everything: to see that it works.")
@_directory_option
@_output_options  # fmt: skip
def embedded(
    keys: int, rounds: int, memory_mb: int, engines: str, quick: bool, directory: str | None,
    as_json: bool, output: str | None, plot: str | None,
) -> None:  # fmt: skip
    """Compare with embedded stores, in one process.

    marram's engines beside lmdb, rocksdict, plyvel, sqlite3, diskcache and a dict, in alternating
    rounds; what is not installed is left out. Every answer is checked.
    """
    from marram.bench import compare_embedded
    from marram.bench.stores import MIB, make_stores

    try:
        stores, notes = make_stores(memory_mb * MIB, [name for name in engines.split(",") if name])
        plan = compare_embedded.Plan(keys, rounds, memory_mb * MIB, directory)
        plan = plan.quick() if quick else plan
    except InvalidArgument as error:
        raise click.UsageError(str(error)) from None
    for text in notes if not engines else ():
        _note(text)
    _warn_of_memory_disk(directory)
    result = compare_embedded.compare(plan, stores, _command_line(), _note)
    _finish(result, as_json, output, plot)


@bench.command("replication")
@click.option("--replicas", type=int, default=2, help="At most, in one set-up [2].")
@click.option("--rounds", type=int, default=3, help="Of each set-up and each failover [3].")
@click.option("--seconds", type=float, default=2, help="Of one run of a set-up [2].")
@click.option("--clients", type=int, default=50, help="Connections of a load [50].")
@click.option(
    "--size",
    "size_bytes",
    type=click.IntRange(0, 1 << 20),
    default=100,
    help="Bytes of a value [100].",
)
@click.option(
    "--rate",
    type=float,
    default=5000,
    metavar="PER_SECOND",
    help="Of the open loop that lags are sampled under [5000].",
)
@click.option("--lag-seconds", type=float, default=8, help="How long that takes [8].")
@click.option(
    "--catch-up",
    type=int,
    default=300_000,
    help="Writes that a replica misses and then catches up with [300000].",
)
@click.option(
    "--only",
    "parts",
    multiple=True,
    metavar="PART",
    help="throughput, levels, lag, failover, catch-up [all].",
)
@click.option("--engine", type=click.Choice(ENGINES), default="memory", help="Of all [memory].")
@click.option(
    "--durability", type=click.Choice(DURABILITIES), default="sync", help="Of all [sync]."
)
@click.option("--quick", is_flag=True, help="A tenth of everything, once: to see that it works.")
@_directory_option
@_output_options  # fmt: skip
def replication(
    parts: tuple[str, ...], quick: bool, directory: str | None, as_json: bool,
    output: str | None, plot: str | None, **options: Any,
) -> int:  # fmt: skip
    """Measure a primary and its replicas, all on this machine.

    What replicas cost the primary, what each ack level costs, how far replicas are behind, a
    failover after kill -9, and how fast a replica that was away catches up. It starts all servers
    itself. Exit code 1 where a write was lost that its ack level was to keep.
    """
    from marram.bench import measure_replication as measuring

    try:
        plan = measuring.Plan(directory=directory, parts=parts or measuring.PARTS, **options)
    except InvalidArgument as error:
        raise click.UsageError(str(error)) from None
    _warn_of_memory_disk(directory)
    result = measuring.measure(plan.quick() if quick else plan, _command_line(), _note)
    _finish(result, as_json, output, plot)
    lost = measuring.lost_writes(result)
    for line in lost:
        click.echo(f"Error: {line}", err=True)
    return EXIT_ERRORS if lost else 0


def _warn_of_memory_disk(directory: str | None) -> None:
    from marram.bench.machine import on_disk

    place = directory or gettempdir()
    if not on_disk(place):
        _note(f"NOTE: {place} is kept in memory: syncs cost nothing there; name a disk by --dir")


# -- pictures --------------------------------------------------------------------------------------


@bench.command("plot")
@click.argument("results", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--plot", metavar="FILE.png", help="One picture of all, which have to be loads.")
def plot_results(results: tuple[str, ...], plot: str | None) -> None:
    """Draw results that were kept with --output.

    RESULT.json becomes RESULT.png.
    """
    from marram.bench.plot import save_plot
    from marram.bench.results import read_result

    found = [(path, read_result(path)) for path in results]
    if plot:
        save_plot([result for _, result in found], plot)
        click.echo(plot)
        return
    for path, result in found:
        target = str(Path(path).with_suffix(".png"))
        save_plot([result], target)
        click.echo(target)
