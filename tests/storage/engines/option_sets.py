"""The option sets that one history runs over; every one of them must give the same answers.

Owns the sets. A set of an engine that this version does not have is left out, and so is an option
that it does not know: sets may be written before what they set.

Threading: values.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from marram.errors import InvalidArgument
from marram.storage.options import ENGINES, Options

OptionSet = dict[str, Any]

KIB = 1024

_CHECKPOINTS = {"checkpoint_log_bytes": 2 * KIB, "checkpoint_log_ratio": 0.0}
_NO_CHECKPOINTS = {"checkpoint_log_bytes": 0}

_MEMORY: dict[str, OptionSet] = {
    "plain": {},
    "no-checkpoints": _NO_CHECKPOINTS,
    "checkpoints": _CHECKPOINTS,
    "checkpoints-zlib": {**_CHECKPOINTS, "compression": "zlib"},
    "no-kept-logs": {**_CHECKPOINTS, "replica_log_bytes": 0},
    "few-kept-logs": {**_CHECKPOINTS, "replica_log_bytes": 4 * KIB, "replica_log_age_s": 1},
    "checkpoints-by-ratio": {"checkpoint_log_bytes": 8 * KIB, "checkpoint_log_ratio": 0.5},
    "limit-never-met": {"memory_limit": 1 << 40},
    "kept-logs": {**_CHECKPOINTS, "replica_log_bytes": 8 * KIB, "replica_log_age_s": 1000},
    "interval": {"durability": "interval"},
    "interval-checkpoints": {"durability": "interval", **_CHECKPOINTS},
    "none": {"durability": "none", **_NO_CHECKPOINTS},
    "none-checkpoints-zlib": {
        "durability": "none", **_CHECKPOINTS, "compression": "zlib",
    },
    "none-not-mapped": {"durability": "none", "mapped_log": False, **_CHECKPOINTS},
}  # fmt: skip

_TINY = {"memtable_bytes": 4 * KIB}
_TINY_LEVELS = {
    "level0_trigger": 2,
    "base_bytes": 16 * KIB,
    "table_bytes": 4 * KIB,
    "grandparent_bytes": 16 * KIB,
    "job_bytes": 64 * KIB,
    "multiplier": 2,
}

_LSM: dict[str, OptionSet] = {
    "plain": {},
    "tiny": _TINY,
    "tiny-levels": {**_TINY, **_TINY_LEVELS},
    "one-table-on-level-0": {**_TINY, **_TINY_LEVELS, "level0_trigger": 1},
    "wide-levels": {**_TINY, **_TINY_LEVELS, "multiplier": 10, "table_bytes": 2 * KIB},
    "no-memory": {"memory_limit": 0, "cache_bytes": 0, **_TINY},
    "little-memory": {"memory_limit": 64 * KIB, "cache_bytes": 8 * KIB, **_TINY, **_TINY_LEVELS},
    "no-cache": {"cache_bytes": 0, **_TINY, **_TINY_LEVELS},
    "little-cache": {"cache_bytes": 4 * KIB, "memtable_bytes": 32 * KIB},
    "no-filters": {"filter_bits_per_key": 0, **_TINY, **_TINY_LEVELS},
    "filters": {"filter_bits_per_key": 10, **_TINY, **_TINY_LEVELS},
    "poor-filters": {"filter_bits_per_key": 1, "memtable_bytes": 8 * KIB},
    "zlib": {"compression": "zlib", "memtable_bytes": 16 * KIB, **_TINY_LEVELS},
    "zstd": {"compression": "zstd", "memtable_bytes": 16 * KIB, **_TINY_LEVELS},
    "not-compressed": {"compression": "none", **_TINY, **_TINY_LEVELS},
    "small-blocks": {"block_bytes": 256, "memtable_bytes": 64 * KIB, **_TINY_LEVELS},
    "few-open-tables": {"max_open_tables": 1, **_TINY},
    "slow-compactions": {"compaction_rate": 1 << 20, "memtable_bytes": 8 * KIB},
    "kept-logs": {"replica_log_bytes": 64 * KIB, **_TINY},
    "tables-zlib": {"compression": "zlib", **_TINY},
    "tables-zstd": {"compression": "zstd", **_TINY},
    "middling": {"memtable_bytes": 256 * KIB},
    "no-kept-logs": {"replica_log_bytes": 0, **_TINY, **_TINY_LEVELS},
    "few-kept-logs": {"replica_log_bytes": 4 * KIB, "replica_log_age_s": 1, **_TINY},
    "much-garbage-allowed": {"garbage_ratio": 1.0, **_TINY, **_TINY_LEVELS},
    "no-garbage-allowed": {"garbage_ratio": 0.05, **_TINY, **_TINY_LEVELS},
    "blobs": {"blob_bytes": 64, **_TINY, **_TINY_LEVELS},
    "blobs-of-many": {"blob_bytes": 64, "memtable_bytes": 32 * KIB, **_TINY_LEVELS},
    "blobs-few-open-zlib": {
        "blob_bytes": 100,
        "max_open_tables": 1,
        "compression": "zlib",
        **_TINY,
    },
    "interval": {"durability": "interval", **_TINY, **_TINY_LEVELS},
    "none": {"durability": "none", **_TINY, **_TINY_LEVELS},
    "none-not-mapped": {"durability": "none", "mapped_log": False, **_TINY},
    "none-middling": {"durability": "none", "memtable_bytes": 64 * KIB},
}

_NOT_VARIED = {"engine", "create", "interval_ms", "max_key_bytes", "max_value_bytes"}
"""Options that change no file and no answer within their limits."""


def usable(wanted: OptionSet) -> OptionSet | None:
    """Those of the options that this version knows; None where it cannot run the set."""
    if wanted["engine"] not in ENGINES:
        return None
    known = {field.name for field in fields(Options)}
    chosen = {name: value for name, value in wanted.items() if name in known}
    try:
        Options(**chosen)
    except InvalidArgument:
        if "zstd" in chosen.values():
            return None  # needs what this machine may not have
        raise
    return chosen


def _all() -> dict[str, OptionSet]:
    chosen: dict[str, OptionSet] = {}
    for engine, sets in (("memory", _MEMORY), ("lsm", _LSM)):
        for name, options in sets.items():
            found = usable({"engine": engine, **options})
            if found is not None and found not in chosen.values():
                chosen[f"{engine}-{name}"] = found
    return chosen


OPTION_SETS = _all()


def never_varied() -> set[str]:
    """Options that no set sets; a new option belongs into some."""
    varied = {name for sets in (_MEMORY, _LSM) for options in sets.values() for name in options}
    return {field.name for field in fields(Options)} - varied - _NOT_VARIED
