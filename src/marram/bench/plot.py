"""Results as pictures: PNG by matplotlib, with what was measured on printed below each.

Owns the look of all kinds of results; loads may share one picture. A picture says hardware,
versions, durability and the exact command, so that it means something where it is shown alone.

Threading: one thread at a time; no global state of matplotlib's is used.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from marram.bench.compare_embedded import PHASES, UNCOMPARED
from marram.bench.histogram import Histogram
from marram.bench.report import load_line, medians, versions_of
from marram.bench.results import spread
from marram.errors import InvalidArgument

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of Okabe and Ito's palette, which the colour-blind can tell apart; marram's own comes first.
_OURS, _MISSED, _PEER = "#0072B2", "#D55E00", "#999999"
_COLOURS = (_OURS, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#000000")
_FOOT_COLUMNS = 130
_FOOT_SIZE = 7
_FOOT_LINE_INCH = 0.14
_DPI = 130
_LEAST_SPAN_S = 0.1
_NINES = (0, 90, 99, 99.9, 99.99, 99.999)


def save_plot(results: Sequence[Mapping[str, Any]], path: str) -> None:
    """Draw one result, or several loads together, into a PNG.

    Raises InvalidArgument: these do not go into one picture; OSError; ModuleNotFoundError: no
    matplotlib.
    """
    if not results:
        raise InvalidArgument("nothing to draw")
    kinds = {result["kind"] for result in results}
    if len(results) > 1 and kinds != {"load"}:
        raise InvalidArgument("only loads go into one picture; draw the others one by one")
    kind = results[0]["kind"]
    figure = _draw_loads(results) if kind == "load" else _DRAWERS[kind](results[0])
    _foot(figure, results)
    figure.savefig(path, format="png", dpi=_DPI)


def footer(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines below a picture; what all results share is said once."""
    lines: list[str] = []
    for result in results:
        about = result["about"]
        memory = about.get("memory_bytes")
        room = f", {memory / 2**30:.0f} GiB" if memory else ""
        versions = [f"{name} {text}".strip() for name, text in versions_of(result).items()]
        python = f"Python {about['python']}, Linux {about['kernel']}"
        commit = f" (commit {about['commit']})" if about.get("commit") else ""
        for line in (
            f"{about['cpus']} x {about['cpu']}{room}; {about['file_system']}; {python}",
            f"{', '.join(versions)}{commit}; {about['started']}",
            f"durability: {about['durability']}",
            f"$ {about['command']}",
        ):
            lines += [one for one in textwrap.wrap(line, _FOOT_COLUMNS) if one not in lines]
    return lines


def _new(width: float, height: float, lines: int) -> Figure:
    """A figure, inches, with room below for so many lines."""
    from matplotlib.figure import Figure

    room = (lines + 1.5) * _FOOT_LINE_INCH
    figure = Figure(figsize=(width, height + room), layout="constrained")
    share = room / (height + room)
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(rect=(0, share, 1, 1 - share))  # type: ignore[call-arg]
    return figure


def _foot(figure: Figure, results: Sequence[Mapping[str, Any]]) -> None:
    height = figure.get_size_inches()[1]
    for number, line in enumerate(reversed(footer(results))):
        figure.text(
            0.01, (number + 0.8) * _FOOT_LINE_INCH / height, line, fontsize=_FOOT_SIZE,
            family="monospace", color="#444444",
        )  # fmt: skip


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


# -- loads -----------------------------------------------------------------------------------------


def _draw_loads(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Latency by percentile, and throughput as time went."""
    figure = _new(10, 4.4, len(footer(results)))
    left, right = figure.subplots(1, 2)
    for number, result in enumerate(results):
        colour = _COLOURS[number % len(_COLOURS)]
        name = f"{result['target']}, {result['requests_per_s']:,.0f}/s"
        _latency_curve(left, Histogram.from_json(result["histogram"]), colour, name)
        _rate_curve(right, result["timeline"], colour, name)
    left.set_xlabel("percentile")
    left.set_ylabel("latency, ms")
    left.set_yscale("log")
    left.set_xscale("log")
    left.set_xticks([_nines(percent) for percent in _NINES], [f"{one:g}" for one in _NINES])
    left.minorticks_off()
    left.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    left.grid(True, alpha=0.3)
    right.set_xlabel("seconds")
    right.set_ylabel("requests/s")
    right.set_ylim(bottom=0)
    right.grid(True, alpha=0.3)
    left.legend(fontsize=8)
    for axes in (left, right):
        _plain(axes)
    figure.suptitle(load_line(results[0]) if len(results) == 1 else "marram bench load", fontsize=9)
    return figure


def _nines(percent: float) -> float:
    """Where a percentile is on the axis: each nine takes as much room."""
    return 1 / (1 - percent / 100)


def _latency_curve(axes: Axes, found: Histogram, colour: str, name: str) -> None:
    finest = 1 - 1 / (2 * max(1, found.count))  # beyond, no value was recorded
    steps = 300
    span = math.log10(1 / (1 - finest))
    percents = [100 * (1 - 10 ** (-span * step / steps)) for step in range(steps + 1)]
    values = [max(found.percentile(percent), 1) / 1e6 for percent in percents]
    axes.plot([_nines(percent) for percent in percents], values, color=colour, label=name)


def _rate_curve(axes: Axes, timeline: Sequence[Sequence[float]], colour: str, name: str) -> None:
    points, before = [], (0.0, 0.0)
    for seconds, done in timeline:
        # The last look comes soon after the one before it: a rate of so short a time says nothing.
        if seconds - before[0] >= _LEAST_SPAN_S:
            points.append((seconds, (done - before[1]) / (seconds - before[0])))
            before = (seconds, done)
    axes.plot([one for one, _ in points], [rate for _, rate in points], color=colour, label=name)


# -- servers ---------------------------------------------------------------------------------------


def _draw_server(result: Mapping[str, Any]) -> Figure:
    """A bar for each row and peer: the ratio, its range, and the target."""
    rows = result["rows"]
    others = [name for name in result["settings"]["order"] if name != "marram"]
    height = 1.2 + (0.14 + 0.22 * len(others)) * max(1, len(rows))
    figure = _new(11, height, len(footer([result])))
    axes = figure.subplots()
    for at, row in enumerate(rows):
        for number, name in enumerate(others):
            _ratio_bar(axes, row, name, at, number, len(others))
        target = [row["target"]] * 2
        axes.plot(target, [at - 0.42, at + 0.42], color="#000000", linewidth=1.2, linestyle=":")
    titles = [
        row["title"] + ("" if row["better"] == "higher" else "\n(less is better)") for row in rows
    ]
    axes.set_yticks(range(len(rows)), titles, fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.axvline(1, color="#000000", linewidth=0.8)
    axes.set_xlim(left=0)
    axes.set_xlabel("marram / other: median and range of the pairs; dotted: the target", fontsize=8)
    _plain(axes)
    quick = " (quick run: no evidence)" if result["settings"]["quick"] else ""
    figure.suptitle(f"marram beside {' and '.join(others)}{quick}", fontsize=11)
    return figure


def _ratio_bar(
    axes: Axes, row: Mapping[str, Any], name: str, at: int, number: int, count: int
) -> None:
    """The bar of peer `number` of `count` in row `at`, and its figures beside the axes."""
    ratio, each = row["ratios"][name], 0.8 / count
    better = ratio["median"] >= 1 if row["better"] == "higher" else ratio["median"] <= 1
    y = at + (number - (count - 1) / 2) * each
    reach = [[ratio["median"] - ratio["min"]], [ratio["max"] - ratio["median"]]]
    axes.barh(
        y, ratio["median"], height=each * 0.9, color=_OURS if better else _MISSED,
        alpha=1 - 0.35 * number, xerr=reach, error_kw={"ecolor": "#333333", "capsize": 2},
    )  # fmt: skip
    ours, theirs = (_amount(row["medians"][one], row["unit"]) for one in ("marram", name))
    axes.text(
        1.01, y, f"{ratio['median']:.2f} x   {ours} : {theirs} {name}", fontsize=7, va="center",
        transform=axes.get_yaxis_transform(),
    )  # fmt: skip


def _amount(value: float, unit: str) -> str:
    if unit == "1/s":
        return f"{value:,.0f}/s"
    return f"{value:,.4g} {unit}"


# -- embedded stores -------------------------------------------------------------------------------


def _draw_embedded(result: Mapping[str, Any]) -> Figure:
    """A panel for each phase, a bar for each store."""
    names, rounds = list(result["stores"]), result["rounds"]
    phases = [
        phase
        for phase in PHASES
        if phase not in UNCOMPARED and any(phase in one[name] for one in rounds for name in names)
    ]
    columns = 3
    lines = -(-len(phases) // columns)
    each = 0.5 + 0.19 * len(names)
    figure = _new(11, 0.6 + each * lines, len(footer([result])))
    panels = figure.subplots(lines, columns, squeeze=False).flat
    for phase, axes in zip(phases, panels, strict=False):  # phases first: they end first
        found = [medians(rounds, name, phase) for name in names]
        colours = [_OURS if name.startswith("marram") else _PEER for name in names]
        # A dict would make all the others short: its bar is cut, its figure is not.
        stores = [one or 0 for name, one in zip(names, found, strict=True) if name != "dict"]
        longest = max(stores, default=0) * 1.05 or 1
        bars = [min(one or 0, longest) for one in found]
        axes.barh(range(len(names)), bars, color=colours, height=0.75)
        for at, one in enumerate(found):
            label = "-" if one is None else _amount(one, PHASES[phase])
            axes.annotate(
                label, (bars[at], at), xytext=(3, 0), textcoords="offset points", va="center",
                fontsize=7,
            )  # fmt: skip
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.invert_yaxis()
        axes.set_xlim(0, longest * 1.35)
        axes.set_xticks([])
        less = "" if PHASES[phase] == "1/s" else " (less is better)"
        axes.set_title(phase + less, fontsize=9, loc="left")
        _plain(axes)
        axes.spines["bottom"].set_visible(False)
    for axes in [*panels]:
        axes.set_axis_off()
    keys = result["settings"]["keys"]
    times = "1 round" if len(rounds) == 1 else f"median of {len(rounds)} rounds"
    figure.suptitle(f"{keys:,} rows of 16 + 100 bytes, {times}", fontsize=11)
    return figure


# -- a primary and its replicas --------------------------------------------------------------------


def _draw_replication(result: Mapping[str, Any]) -> Figure:
    """A panel for each part that was measured."""
    panels: list[Callable[[Axes], None]] = []
    rows = result["set_ups"]
    if rows:
        panels += [
            partial(_draw_medians, rows=rows, figure="requests_per_s", title="SET, requests/s"),
            partial(
                _draw_medians, rows=rows, figure="primary_cpu_ms",
                title="primary: processor ms for 1,000 requests (less is better)",
            ),
        ]  # fmt: skip
    if result["lag"]:
        panels.append(partial(_draw_lag, lag=result["lag"]))
    if result["failover"]:
        panels.append(partial(_draw_failover, rows=result["failover"]))
    if result["catch_up"]:
        panels.append(partial(_draw_catch_up, rows=result["catch_up"]))
    lines = max(1, -(-len(panels) // 2))
    figure = _new(12, 0.5 + 2.9 * lines, len(footer([result])))
    places = figure.subplots(lines, 2, squeeze=False).flat
    for draw, axes in zip(panels, places, strict=False):  # panels first: they end first
        draw(axes)
        _plain(axes)
    for axes in places:
        axes.set_axis_off()
    settings = result["settings"]
    quick = " (quick run: no evidence)" if settings["quick"] else ""
    figure.suptitle(
        f"a primary and its replicas on one machine of {result['about']['cpus']} cores{quick}",
        fontsize=11,
    )
    return figure


def _draw_medians(axes: Axes, rows: Sequence[Mapping[str, Any]], figure: str, title: str) -> None:
    found = [spread([one[figure] for one in row["rounds"]]) for row in rows]
    reach = [[one["median"] - one["min"] for one in found],
             [one["max"] - one["median"] for one in found]]  # fmt: skip
    bars = [one["median"] for one in found]
    colours = [_PEER if not row["replicas"] else _OURS for row in rows]
    axes.barh(
        range(len(rows)), bars, color=colours, xerr=reach,
        error_kw={"ecolor": "#333333", "capsize": 2},
    )  # fmt: skip
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=7)
    axes.invert_yaxis()
    _label_bars(
        axes,
        [one["max"] for one in found],
        [f"{one:,.0f}" if one >= 1000 else f"{one:,.4g}" for one in bars],
    )
    axes.set_title(f"{title}: median and range", fontsize=8, loc="left")


def _label_bars(axes: Axes, ends: Sequence[float], labels: Sequence[str]) -> None:
    """Write what horizontal bars come to behind their ends, and make room for that."""
    for at, (end, label) in enumerate(zip(ends, labels, strict=True)):
        axes.annotate(
            label, (end, at), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7
        )
    axes.set_xlim(0, (max(ends) or 1) * 1.25)


def _draw_lag(axes: Axes, lag: Mapping[str, Any]) -> None:
    for number, (name, text) in enumerate((("seen", "seen by a client"), ("reported", "reported"))):
        found = Histogram.from_json(lag["histograms"][name])
        _latency_curve(axes, found, _COLOURS[number], text)
    axes.set_xscale("log")
    axes.set_xticks([_nines(percent) for percent in _NINES], [f"{one:g}" for one in _NINES])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.grid(True, alpha=0.3)
    axes.legend(fontsize=7)
    axes.set_title(
        f"lag by percentile, ms, at {lag['rate_per_s']:,.0f} SETs/s", fontsize=8, loc="left"
    )


def _draw_failover(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    ends = [row["written_ms"]["median"] for row in rows]
    axes.barh(range(len(rows)), ends, color=_OURS)
    labels = [
        f"{end:,.1f} ms; {row['lost']:,} of {row['acknowledged']:,} lost"
        for end, row in zip(ends, rows, strict=True)
    ]
    axes.set_yticks(range(len(rows)), [row["level"] for row in rows], fontsize=7)
    axes.invert_yaxis()
    _label_bars(axes, ends, labels)
    axes.set_xlim(0, max(ends) * 1.8)
    axes.set_title("from kill -9 to the first write of the new primary", fontsize=8, loc="left")


def _draw_catch_up(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    ends = [row["mb_per_s"] for row in rows]
    axes.barh(range(len(rows)), ends, color=_OURS)
    names = [f"{row['writes']:,} x\n{row['size_bytes']} bytes" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=7)
    axes.invert_yaxis()
    _label_bars(axes, ends, [f"{row['mb_per_s']:,.1f} MB/s by {row['by']}" for row in rows])
    axes.set_xlim(0, max(ends) * 1.6)
    axes.set_title("a replica that was away catches up, MB/s", fontsize=8, loc="left")


_DRAWERS = {
    "server": _draw_server,
    "embedded": _draw_embedded,
    "replication": _draw_replication,
}
