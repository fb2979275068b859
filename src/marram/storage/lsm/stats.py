"""The lsm engine's figures, as stats() gives them.

Owns names and units; the numbers are their owners'.

Threading: any thread; figures may be a moment old.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marram.storage.lsm.cache import CacheStats

if TYPE_CHECKING:
    from marram.storage.lsm.engine import LsmEngine


def describe(engine: LsmEngine) -> dict[str, Any]:
    """Levels, amplification, caches, memory, compaction; nested, plain values."""
    tree, budget = engine.tree, engine.budget
    blocks, tables = engine.tables.stats()
    rows = engine.tables.row_stats()
    memtable_bytes = sum(memtable.memory_bytes() for memtable in tree.memtables)
    blobs_held = tree.version.blobs.values()
    deepest = max((n for n, level in enumerate(tree.version.levels) if level.tables), default=0)
    return {
        "levels": [
            {
                "level": n,
                "tables": len(level.tables),
                "bytes": level.size_bytes,
                "rows": level.rows,
                "tombstones": level.tombstones,
                "range_deletions": level.range_deletions,
            }
            for n, level in enumerate(tree.version.levels)
            if level.tables
        ],
        "tables": len(tree.version),
        "obsolete_tables": len(engine.tables.obsolete()),
        "table_bytes": tree.version.size_bytes,
        "blobs": {
            "files": len(blobs_held),
            "bytes": sum(ref.size_bytes for ref in blobs_held),
            "values": sum(ref.rows for ref in blobs_held),
            "live_bytes": sum(ref.live_bytes for ref in blobs_held),
            "garbage_ratio": _ratio(
                sum(ref.garbage_bytes for ref in blobs_held),
                sum(ref.data_bytes for ref in blobs_held),
            ),
        },
        "space_amplification": _ratio(
            tree.version.size_bytes + tree.version.blob_bytes,
            sum(
                table.size_bytes + table.blob_bytes for table in tree.version.levels[deepest].tables
            ),
        ),
        "memtable": {
            "bytes": memtable_bytes,
            "limit_bytes": budget.memtable_bytes,
            "frozen": len(tree.frozen),
        },
        "memory": {
            "limit_bytes": budget.total_bytes,
            "bytes": engine.memory_bytes(),
        },
        "block_cache": _cache(blocks),
        "row_cache": _cache(rows),
        "table_cache": _cache(tables),
        **_compaction(engine),
    }


def _compaction(engine: LsmEngine) -> dict[str, Any]:
    flushed = engine.flushed_bytes
    compactor = engine.compactor
    if compactor is None:
        return {"flushed_bytes": flushed, "write_amplification": 0.0}
    figures, pressure = compactor.figures, compactor.pressure()
    running = compactor.running
    return {
        "flushed_bytes": flushed,
        "write_amplification": _ratio(flushed + figures.written_bytes, flushed),
        "compaction_debt_bytes": pressure.debt_bytes,
        "level0_depth": pressure.level0_depth,
        "throttle": round(pressure.throttle, 3),
        "compaction": {
            "running": "" if running is None else f"{running.kind} {running.reason}",
            "paused": compactor.paused,
            "merges": figures.merges,
            "moves": figures.moves,
            "drops": figures.drops,
            "read_bytes": figures.read_bytes,
            "written_bytes": figures.written_bytes,
            "rows_read": figures.rows_read,
            "rows_written": figures.rows_written,
            "expired_rows": figures.expired_rows,
            "failures": figures.failures,
            "error": compactor.error,
        },
    }


def _cache(stats: CacheStats) -> dict[str, Any]:
    return {
        "bytes": stats.bytes,
        "limit_bytes": stats.capacity_bytes,
        "entries": stats.entries,
        "hits": stats.hits,
        "misses": stats.misses,
        "evictions": stats.evictions,
        "hit_ratio": round(_ratio(stats.hits, stats.hits + stats.misses), 4),
    }


def _ratio(part: float, whole: float) -> float:
    return round(part / whole, 4) if whole else 0.0
