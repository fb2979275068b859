"""INFO's text as figures, under the names that DB.stats() uses.

Owns the way from the one to the other; the fields of INFO are the node's (node/info.py).

Threading: pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_INTEGER = re.compile(r"-?[0-9]{1,19}")
_DECIMAL = re.compile(r"-?[0-9]{1,19}\.[0-9]{1,19}")

STATS_COMMAND = (
    b"INFO", b"server", b"memory", b"marram", b"lsm", b"stats", b"clients", b"keyspace",
    b"replication",
)  # fmt: skip
"""The command whose answer store_figures() can read."""


def info_sections(text: bytes) -> dict[str, dict[str, Any]]:
    """INFO's text as figures by section, numbers as numbers."""
    sections: dict[str, dict[str, Any]] = {}
    section: dict[str, Any] = {}
    for line in text.decode("utf-8", "replace").splitlines():
        if line.startswith("#"):
            section = sections.setdefault(line[1:].strip().lower(), {})
        elif ":" in line:
            name, _, value = line.partition(":")
            section[name] = _number(value)
    return sections


def store_figures(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """INFO's figures under the names of DB.stats()."""
    own = sections.get("marram", {})
    keyspaces = {
        name.removeprefix("db"): _keyspace_figures(str(text))
        for name, text in sections.get("keyspace", {}).items()
    }
    grouped = {
        group: {name: own[given] for name, given in names.items() if given in own}
        for group, names in _GROUPS.items()
    }
    return {
        "num_keys": sum(figures["keys"] for figures in keyspaces.values()),
        "data_bytes": own.get("data_bytes", sections.get("memory", {}).get("used_memory_dataset")),
        **{name: own.get(name) for name in ("engine", "durability", "generation")},
        "unsettled_batches": own.get("unsettled_batches"),
        "expired_keys": sections.get("stats", {}).get("expired_keys"),
        "failure": own.get("store_failure") or None,
        "keyspaces": keyspaces,
        **grouped,
        **_replication_figures(sections.get("replication", {})),
        **({"lsm": _lsm_figures(sections["lsm"])} if "lsm" in sections else {}),
        "server": {
            "marram_version": sections.get("server", {}).get("marram_version"),
            "uptime_s": sections.get("server", {}).get("uptime_in_seconds"),
            "clients": sections.get("clients", {}).get("connected_clients"),
        },
    }


_GROUPS: Mapping[str, Mapping[str, str]] = {
    "position": {"epoch": "epoch", "sequence": "committed_sequence"},
    "log": {
        "number": "log_number",
        "bytes": "log_bytes",
        "groups": "commit_groups",
        "batches": "commit_batches",
    },
    "sync": {"count": "sync_count", "mean_us": "sync_mean_us", "max_us": "sync_max_us"},
    "checkpoint": {
        "count": "checkpoints",
        "running": "checkpoint_running",
        "last_error": "checkpoint_last_error",
    },
    "stalls": {"count": "stall_count", "ms": "stall_ms"},
    "recovery": {
        "replayed_batches": "recovery_replayed_batches",
        "cut_bytes": "recovery_cut_bytes",
    },
}


_LEVEL = re.compile(r"level([0-9]{1,3})")
_LSM_GROUPS = ("memtable", "memory", "block_cache", "table_cache", "compaction")
_LSM_FLAT = frozenset(("compaction_debt_bytes",))


def _lsm_figures(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section of the lsm engine, nested as DB.stats()["lsm"] is."""
    levels: list[dict[str, Any]] = []
    found: dict[str, Any] = {"levels": levels}
    for name, value in section.items():
        level = _LEVEL.fullmatch(name)
        if level is not None:
            parts = (part.partition("=")[::2] for part in str(value).split(","))
            levels.append({"level": int(level[1]), **{key: _number(text) for key, text in parts}})
            continue
        group = next((group for group in _LSM_GROUPS if name.startswith(f"{group}_")), None)
        if group is None or name in _LSM_FLAT:
            found[name] = value
        else:
            found.setdefault(group, {})[name.removeprefix(f"{group}_")] = value
    return found


_REDIS_ONLY = re.compile(r"master_failover_state|master_repl.*|second_repl.*|repl_backlog_.*")


def _replication_figures(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section about replication, without what is there for Redis's tools alone."""
    found = {name: value for name, value in section.items() if not _REDIS_ONLY.fullmatch(name)}
    return {"replication": found} if found else {}


def _keyspace_figures(text: str) -> dict[str, int]:
    """ "keys=3,expires=1,..." as figures."""
    parts = dict(part.partition("=")[::2] for part in text.split(","))
    found = {"keys": parts.get("keys", ""), "volatile_keys": parts.get("expires", "")}
    return {name: int(text) if _INTEGER.fullmatch(text) else 0 for name, text in found.items()}


def _number(text: str) -> int | float | str:
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text
