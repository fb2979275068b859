"""Results on a terminal: tables by rich.

Owns the look; the figures are the results' (results.py). Printed to a file, a table is as wide as
it has to be, without colours.

Threading: the main thread.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from marram.bench.compare_embedded import PHASES, SECONDS
from marram.bench.compare_servers import met
from marram.bench.measure_replication import COST_MAX, shared_cores

_WIDTH = 200  # where there is no terminal
_ABOUT = ("cpu", "cpus", "load_average", "file_system", "kernel", "python", "commit", "command")


def print_result(result: Mapping[str, Any]) -> None:
    """A result of any kind, on stdout."""
    terminal = sys.stdout.isatty()
    console = Console(highlight=False, width=None if terminal else _WIDTH)
    for name in _ABOUT:
        console.print(f"{name}: {result['about'].get(name, '')}", markup=False, soft_wrap=True)
    versions = ", ".join(f"{name} {text}".strip() for name, text in versions_of(result).items())
    console.print(f"versions: {versions}", markup=False, soft_wrap=True)
    console.print(f"durability: {result['about']['durability']}", markup=False, soft_wrap=True)
    console.print()
    _PRINTERS[result["kind"]](console, result)


def versions_of(result: Mapping[str, Any]) -> dict[str, str]:
    """What was measured, by name."""
    found: dict[str, str] = result["about"]["versions"]
    return found


def short(ratio: float) -> str:
    """Two digits, or none where they say nothing."""
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:,.0f}"


def spread_text(found: Mapping[str, float]) -> str:
    """A median, and from where to where."""
    return f"{short(found['median'])} ({short(found['min'])}-{short(found['max'])})"


# -- a load ----------------------------------------------------------------------------------------


def load_line(result: Mapping[str, Any]) -> str:
    """What was asked, in a line."""
    settings = result["settings"]
    low, high = settings["size_bytes"]
    size = f"{low}" if low == high else f"{low} to {high}"
    mix = ", ".join(f"{share:.4g} {name}" for name, share in settings["mix"].items())
    rate = settings["rate_per_s"]
    how = f"open loop at {rate:,.0f}/s" if rate else "closed loop"
    return (
        f"{settings['clients']} clients, pipeline {settings['pipeline']}, {how}; {mix}; "
        f"{settings['records']:,} records, {settings['distribution']}, {size} byte values"
    )


def _print_load(console: Console, result: Mapping[str, Any]) -> None:
    console.print(load_line(result), markup=False, soft_wrap=True)
    if result["fill"]:
        filled = result["fill"]
        console.print(
            f"load phase: {filled['records']:,} records in {filled['seconds']:.2f} s:"
            f" {filled['records_per_s']:,.0f} records/s"
        )
    console.print(
        f"{result['requests']:,} requests in {result['seconds']:.2f} s:"
        f" {result['requests_per_s']:,.0f} requests/s; {result['misses']:,} misses"
    )
    names = list(result["latency_ms"])
    table = Table("latency, ms", "requests", *names)
    for column in table.columns[1:]:
        column.justify = "right"
    rows = [("all", result["requests"], result["latency_ms"])]
    if len(result["kinds"]) > 1:
        rows += [
            (name, one["requests"], one["latency_ms"]) for name, one in result["kinds"].items()
        ]
    for name, count, latency in rows:
        table.add_row(name, f"{count:,}", *(f"{latency[key]:,.3f}" for key in names))
    console.print(table)


# -- servers ---------------------------------------------------------------------------------------


def _print_server(console: Console, result: Mapping[str, Any]) -> None:
    settings = result["settings"]
    names = settings["order"]
    others = [name for name in names if name != "marram"]
    console.print(
        f"medians of {settings['pairs']} alternating runs of each; ratios marram / other, pair by"
        f" pair: median (min-max){'; QUICK: figures are no evidence' if settings['quick'] else ''}"
    )
    table = Table("work", "unit", *names)
    for name in others:
        table.add_column(f"marram / {name}")
    table.add_column("target")
    table.add_column("p99 ms")
    for column in table.columns[2:]:
        column.justify = "right"
    for row in result["rows"]:
        cells: list[str | Text] = [f"{row['medians'][name]:,.6g}" for name in names]
        for name in others:
            style = "green" if met(row, name) else "red"
            cells.append(Text(spread_text(row["ratios"][name]), style=style))
        sign = ">=" if row["better"] == "higher" else "<="
        p99 = " / ".join(f"{row['p99_ms'][name]:.2f}" for name in names if name in row["p99_ms"])
        table.add_row(row["title"], row["unit"], *cells, f"{sign} {row['target']:g}", p99 or "-")
    console.print(table)
    missed = [row["name"] for row in result["rows"] if others and not met(row, others[0])]
    reached = len(result["rows"]) - len(missed)
    console.print(
        f"{reached} of {len(result['rows'])} targets against {others[0]} met"
        + (f"; missed: {', '.join(missed)}" if missed else "")
    )


# -- embedded stores -------------------------------------------------------------------------------


def medians(rounds: Sequence[Mapping[str, Any]], name: str, phase: str) -> float | None:
    """The median of a store's phase; None where it has none."""
    figures = [one[name][phase] for one in rounds if phase in one[name]]
    return statistics.median(figures) if figures else None


def _print_embedded(console: Console, result: Mapping[str, Any]) -> None:
    names, rounds = list(result["stores"]), result["rounds"]
    for name, store in result["stores"].items():
        console.print(f"{name} {store['version']}".rstrip() + f": {store['note']}", markup=False)
    table = Table("medians", *names, title=f"{len(rounds)} rounds of each", title_justify="left")
    for phase, unit in PHASES.items():
        found = [medians(rounds, name, phase) for name in names]
        digits = 3 if unit == SECONDS else 0
        cells = ["-" if one is None else f"{one:,.{digits}f}" for one in found]
        table.add_row(f"{phase} {unit}", *cells)
    _right(table)
    console.print(table)
    for ours in (name for name in names if name.startswith("marram-")):
        others = [name for name in names if name != ours]
        title = (
            f"{ours} / each other, round by round: median (min-max); of s and MB, less is better"
        )
        table = Table("", *others, title=title, title_justify="left")
        for phase, unit in PHASES.items():
            found_ratios = [result["ratios"][f"{ours} / {name}"].get(phase) for name in others]
            if any(found_ratios):
                cells = ["-" if one is None else spread_text(one) for one in found_ratios]
                table.add_row(f"{phase} {unit}", *cells)
        _right(table)
        console.print(table)


# -- a primary and its replicas --------------------------------------------------------------------


def _print_replication(console: Console, result: Mapping[str, Any]) -> None:
    settings = result["settings"]
    if settings["quick"]:
        console.print("QUICK: figures are no evidence")
    told = shared_cores(result["about"]["cpus"], settings["replicas"])
    if told:
        console.print(told, markup=False, soft_wrap=True)
    if result["set_ups"]:
        _print_set_ups(console, result)
    if result["lag"]:
        _print_lag(console, result["lag"])
    if result["failover"]:
        _print_failover(console, result["failover"])
    if result["catch_up"]:
        table = Table("catching up", "MB", "s", "MB/s", "writes/s", "by")
        for row in result["catch_up"]:
            table.add_row(
                f"{row['writes']:,} writes of {row['size_bytes']} bytes", f"{row['mb']:,.1f}",
                f"{row['seconds']:.2f}", f"{row['mb_per_s']:,.1f}", f"{row['writes_per_s']:,.0f}",
                row["by"],
            )  # fmt: skip
        _right(table)
        console.print(table)


def _print_set_ups(console: Console, result: Mapping[str, Any]) -> None:
    settings = result["settings"]
    title = (
        f"SET, {settings['clients']} clients, {settings['size_bytes']} byte values: medians of"
        f" {settings['rounds']}; ratios round by round: median (min-max)"
    )
    table = Table(
        "set-up", "requests/s", "p50 ms", "p99 ms", "cpu ms / 1,000: primary", "each replica",
        "requests/s / alone", "primary's cpu / alone", "requests/s / local",
        title=title, title_justify="left",
    )  # fmt: skip
    for row in result["set_ups"]:
        found, ratios = row["medians"], row["ratios"]
        cells = [
            f"{found['requests_per_s']:,.0f}", f"{found['p50_ms']:.2f}", f"{found['p99_ms']:.2f}",
            f"{found['primary_cpu_ms']:.2f}",
            f"{found['replica_cpu_ms']:.2f}" if row["replicas"] else "-",
        ]  # fmt: skip
        for against, figure in (
            ("alone", "requests_per_s"), ("alone", "primary_cpu_ms"), ("local", "requests_per_s"),
        ):  # fmt: skip
            cells.append(spread_text(ratios[against][figure]) if against in ratios else "-")
        table.add_row(row["name"], *cells)
    _right(table)
    console.print(table)
    costs = cost_of_one(result)
    if costs is not None:
        lost, more = costs
        console.print(
            f"one asynchronous replica costs {lost:.0%} of the throughput (aim: at most"
            f" {COST_MAX:.0%}: {'met' if lost <= COST_MAX else 'missed'}) and {more:+.0%} of the"
            " primary's processor time a request",
            soft_wrap=True,
        )


def cost_of_one(result: Mapping[str, Any]) -> tuple[float, float] | None:
    """What one asynchronous replica costs a primary; None: it was not measured.

    (the share of the throughput that is lost, the share of processor time a request that is added)
    """
    for row in result["set_ups"]:
        if (row["replicas"], row["acks"]) == (1, 0) and "alone" in row["ratios"]:
            ratios = row["ratios"]["alone"]
            lost, more = (ratios[one]["median"] for one in ("requests_per_s", "primary_cpu_ms"))
            return 1 - lost, more - 1
    return None


def _print_lag(console: Console, lag: Mapping[str, Any]) -> None:
    names = ("p50", "p90", "p99", "max")
    title = (
        f"open loop, {lag['rate_per_s']:,.0f}/s due and {lag['requests_per_s']:,.0f}/s answered,"
        f" {lag['unsent']:,} given up; {lag['samples']:,} samples"
    )
    table = Table("lag, ms", *names, title=title, title_justify="left")
    for name, text in (("seen_ms", "as a client sees it"), ("reported_ms", "as it is reported")):
        table.add_row(text, *(f"{lag[name][key]:,.2f}" for key in names))
    _right(table)
    console.print(table)


def _print_failover(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    titles = ("noticed", "promoted", "first write", "first write at the level")
    title = (
        f"primary killed under load, {len(rows[0]['rounds'])} times: ms since then, median (max)"
    )
    table = Table("level", *titles, "acknowledged", "lost", title=title, title_justify="left")
    for row in rows:
        times = (row[f"{name}_ms"] for name in ("noticed", "promoted", "written", "leveled"))
        cells = ["-" if one is None else f"{one['median']:.1f} ({one['max']:.1f})" for one in times]
        style = "red" if row["acks"] and row["lost"] else ""
        lost = Text(f"{row['lost']:,}", style=style)
        table.add_row(row["level"], *cells, f"{row['acknowledged']:,}", lost)
    _right(table)
    console.print(table)


def _right(table: Table) -> None:
    for column in table.columns[1:]:
        column.justify = "right"


_PRINTERS = {
    "load": _print_load,
    "server": _print_server,
    "embedded": _print_embedded,
    "replication": _print_replication,
}
