"""What a store can be told, and what it was told wrong.

Owns the options' names, defaults and validation; not where they come from (arguments, files,
environment: server/config.py).

Threading: frozen values.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from typing import Any

from marram.errors import InvalidArgument, UnsupportedFormat

ENGINES = ("memory", "lsm")
DURABILITIES = ("sync", "interval", "none")
COMPRESSIONS = ("none", "zlib", "zstd")

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Options:
    """How a store behaves.

    engine: where the map lives: "memory", or "lsm", which keeps it in sorted tables on disk; None
        for whichever an existing store has, and "memory" for a new one.
    durability: when a write is acknowledged. "sync": after its log frame is on disk; "interval":
        after it is with the operating system, and what that has not written out yet was written
        within interval_ms: where the disk takes longer, writers wait;
        "none": after it is with the operating system. All three survive the death of the process.
    interval_ms: for durability "interval", milliseconds, >= 1.
    create: make the store where the directory holds none.
    max_key_bytes, max_value_bytes: what put() accepts; at least 1.
    checkpoint_log_bytes, checkpoint_log_ratio: a checkpoint is due when the log has both that many
        bytes and that many times the live data; 0 bytes turns background checkpoints off.
    replica_log_bytes: how much of the log, from before the last checkpoint, is kept for replicas
        that are behind, bytes; 0 for none. One that needs more takes a copy of everything.
    replica_log_age_s: ... and for how long at most, seconds, where no connected replica needs it;
        0 for no limit.
    compression: "none", "zlib" or "zstd", for the blocks of checkpoints and tables. "zstd" needs
        Python 3.14, or the package backports.zstd, wherever the store is opened.
    mapped_log: with durability "interval" and "none", write the log through memory mapped to its
        file, where the file system is one that is safe for it (ext4, xfs, tmpfs); else by a call.
    memory_limit: bytes, 0 for none. For the memory engine: of keys and values (with their overhead,
        estimated) above which writes that add data are refused. For the lsm engine: the one budget
        that memtables, block cache and open tables share; by default 512 MiB.
    memtable_bytes: lsm: how much is collected in memory before it is flushed to a table; 0 for an
        eighth of the budget, but 64 MiB at most.
    filter_bits_per_key: lsm: what tables spend on telling that a key is not there, 0 to 64 bits.
    blob_bytes: lsm: values of that size and more go to files of their own, beside the tables, which
        compactions need not rewrite; 0 for none, else at least 64.
    compaction_rate: lsm: bytes a second that compactions may read and write together; 0 for as
        many as the disk takes.
    max_open_tables: lsm: table files held open at most, and as many files of large values.
    """

    engine: str | None = None
    durability: str = "sync"
    interval_ms: int = 1000
    create: bool = True
    max_key_bytes: int = 64 * KIB
    max_value_bytes: int = 512 * MIB
    checkpoint_log_bytes: int = 64 * MIB
    checkpoint_log_ratio: float = 1.0
    replica_log_bytes: int = 0
    replica_log_age_s: int = 0
    compression: str = "none"
    mapped_log: bool = True
    memory_limit: int = 0
    memtable_bytes: int = 0
    filter_bits_per_key: int = 10
    blob_bytes: int = 4 * KIB
    compaction_rate: int = 0
    max_open_tables: int = 1000

    def __post_init__(self) -> None:
        if self.engine is not None:
            _one_of("engine", self.engine, ENGINES)
        _one_of("durability", self.durability, DURABILITIES)
        _one_of("compression", self.compression, COMPRESSIONS)
        if self.compression == "zstd":
            _check_zstd("compression")
        _at_least("interval_ms", self.interval_ms, 1)
        _at_least("max_key_bytes", self.max_key_bytes, 1)
        _at_least("max_value_bytes", self.max_value_bytes, 1)
        _at_least("checkpoint_log_bytes", self.checkpoint_log_bytes, 0)
        _at_least("checkpoint_log_ratio", self.checkpoint_log_ratio, 0)
        _at_least("replica_log_bytes", self.replica_log_bytes, 0)
        _at_least("replica_log_age_s", self.replica_log_age_s, 0)
        _at_least("memory_limit", self.memory_limit, 0)
        _at_least("memtable_bytes", self.memtable_bytes, 0)
        _at_least("filter_bits_per_key", self.filter_bits_per_key, 0)
        _at_least("blob_bytes", self.blob_bytes, 0)
        _at_least("compaction_rate", self.compaction_rate, 0)
        _at_least("max_open_tables", self.max_open_tables, 1)
        if 0 < self.blob_bytes < 64:
            raise InvalidArgument("blob_bytes must be 0 or at least 64")
        if self.filter_bits_per_key > 64:
            raise InvalidArgument("filter_bits_per_key must be at most 64")
        if self.max_key_bytes > 16 * MIB:
            raise InvalidArgument("max_key_bytes must be at most 16777216")
        if self.max_value_bytes >= 2**32 - 32 * MIB:
            raise InvalidArgument("max_value_bytes must be below 4 GiB")

    @property
    def sync_within_ns(self) -> int:
        """Within what time all that is not synced was written; 0 where that is not bounded."""
        return self.interval_ms * 1_000_000 if self.durability == "interval" else 0


def options_from(values: dict[str, Any]) -> Options:
    """Options from keyword arguments. Raises InvalidArgument naming an unknown one."""
    known = [field.name for field in fields(Options)]
    for name in values:
        if name not in known:
            raise InvalidArgument(f"unknown option {name!r}{_suggestion(name, known)}")
    return Options(**values)


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        choices = ", ".join(allowed)
        hint = _suggestion(str(value), list(allowed))
        raise InvalidArgument(f"unknown {name} {value!r}{hint} (choose from: {choices})")


def _check_zstd(name: str) -> None:
    """Refuse "zstd" for option `name` where it cannot be had."""
    from marram.storage.sstable.format import load_zstd

    try:
        load_zstd()
    except UnsupportedFormat as error:
        raise InvalidArgument(f"{name} 'zstd': {error}") from error


def _at_least(name: str, value: float, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= minimum:
        raise InvalidArgument(f"{name} must be a number of at least {minimum}, not {value!r}")


def _suggestion(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
