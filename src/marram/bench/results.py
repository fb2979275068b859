"""Results as JSON: one envelope for every kind, so that they can be kept, compared and drawn again.

    {"marram_bench": 1, "kind": "load" | "embedded" | "server" | "replication",
     "about": {"cpu", "cpus", "memory_bytes", "file_system", "kernel", "python", "marram", "commit",
               "command", "started", "versions": {name: version}, "durability": text},
     "settings": {...}, ...}

Owns the envelope, its check and the figures of a load; each comparison adds its own members
(docs/benchmarks.md).

R1  a result says what it was measured on and by which command; a password is never in it.
R2  read_result() takes what write_result() wrote, and refuses everything else with a reason.

Threading: pure functions, but for the two that use a file.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from marram.bench.generator import Load, Measured
from marram.bench.histogram import Histogram
from marram.bench.workload import KINDS
from marram.errors import InvalidArgument

FORMAT = 1
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9, 99.99)
MEMBERS = {  # of each kind, beside the envelope's
    "load": ("target", "requests", "seconds", "requests_per_s", "latency_ms", "histogram"),
    "embedded": ("stores", "units", "rounds", "ratios"),
    "server": ("programs", "rows"),
    "replication": ("set_ups", "lag", "failover", "catch_up"),
}
ABOUT = ("cpu", "cpus", "file_system", "kernel", "python", "command", "started", "versions",
         "durability")  # fmt: skip

_SECRET = re.compile(r"(://)[^@/\s]*:[^@/\s]*@")


def masked(text: str) -> str:
    """A command line without the passwords of its URLs (R1)."""
    return _SECRET.sub(r"\1***@", text)


def envelope(
    kind: str, about: Mapping[str, Any], settings: Mapping[str, Any], **members: Any
) -> dict[str, Any]:
    """A result."""
    return {
        "marram_bench": FORMAT,
        "kind": kind,
        "about": {**about, "command": masked(about["command"])},
        "settings": dict(settings),
        **members,
    }


def check(result: Any) -> dict[str, Any]:
    """The result, if it is one. Raises InvalidArgument: what is wrong with it."""
    if not isinstance(result, dict) or "marram_bench" not in result:
        raise InvalidArgument("this is no result of marram bench")
    if result["marram_bench"] != FORMAT:
        raise InvalidArgument(f"a result of format {result['marram_bench']}; this reads {FORMAT}")
    kind = result.get("kind")
    if kind not in MEMBERS:
        raise InvalidArgument(f"a result of an unknown kind, {kind!r}")
    for name in ("about", "settings", *MEMBERS[kind]):
        if name not in result:
            raise InvalidArgument(f"a result of kind {kind!r} without {name!r}")
    missing = [name for name in ABOUT if name not in result["about"]]
    if missing:
        raise InvalidArgument(f"a result that does not say its {', '.join(missing)}")
    return result


def write_result(result: Mapping[str, Any], path: str) -> None:
    """Keep a result. Raises OSError."""
    text = json.dumps(result, indent=1)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text + "\n")


def read_result(path: str) -> dict[str, Any]:
    """A result that was kept. Raises OSError, InvalidArgument."""
    with open(path, encoding="utf-8") as file:
        try:
            return check(json.load(file))
        except ValueError as error:  # JSON's and InvalidArgument
            raise InvalidArgument(f"{path}: {error}") from None


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range of some figures, of at least one."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


# -- a load ----------------------------------------------------------------------------------------


def load_result(load: Load, measured: Measured, about: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a load."""
    overall, workload = measured.overall, load.workload
    kinds = {
        name: {"requests": one.count, "latency_ms": latency_ms(one)}
        for name, one in zip(KINDS, measured.latencies, strict=True)
        if one.count
    }
    shares = dict(zip(KINDS, workload.shares, strict=True))
    settings = {
        "clients": load.clients,
        "pipeline": load.depth,
        "processes": load.processes,
        "seed": load.seed,
        "records": workload.records,
        "distribution": workload.distribution,
        "theta": workload.theta,
        "size_bytes": [workload.size_min, workload.size_max],
        "mix": {name: share for name, share in shares.items() if share},
        "rate_per_s": load.rate,
    }
    filled: dict[str, Any] | None = None
    if measured.fill_s:
        filled = {
            "records": workload.records,
            "seconds": round(measured.fill_s, 3),
            "records_per_s": round(workload.records / measured.fill_s, 1),
        }
    return envelope(
        "load", about, settings,
        target=str(load.place),
        requests=measured.requests,
        errors=measured.errors,
        last_error=measured.last_error,
        misses=measured.misses,
        unsent=measured.unsent,
        seconds=round(measured.seconds, 3),
        requests_per_s=round(measured.requests_per_s, 1),
        latency_ms=latency_ms(overall),
        kinds=kinds,
        fill=filled,
        timeline=[[round(seconds, 3), done] for seconds, done in measured.timeline],
        histogram=overall.as_json(),
    )  # fmt: skip


def latency_ms(found: Histogram) -> dict[str, float]:
    """The usual figures of a histogram, milliseconds."""
    figures = {f"p{percent:g}": found.percentile(percent) for percent in PERCENTILES}
    figures = {"min": found.minimum, **figures, "max": found.maximum, "mean": found.mean}  # type: ignore[dict-item]
    return {name: round(value / 1e6, 4) for name, value in figures.items()}
