"""The lsm engine's figures as a picture: levels as bars, caches, what compactions did and owe.

Owns the picture; the figures are stats()["lsm"], of a directory or of a server.

Threading: pure functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from marram.cli.render import line_text, size_text

_BAR_COLUMNS = 30
_HEADER = ("level", "tables", "size", "rows", "tombstones")


def levels_lines(
    lsm: Mapping[str, Any], stalls: Mapping[str, Any] | None = None, *, block: str = "#"
) -> Iterator[str]:
    """The picture as indented lines. block: what bars are made of."""
    yield "  levels:"
    yield from _levels(lsm.get("levels", []), block)
    for name in ("block_cache", "table_cache"):
        if name in lsm:
            yield f"  {name.replace('_', ' ')}: {_cache(lsm[name], block)}"
    yield from _memory(lsm, block)
    yield (
        f"  amplification: {_ratio(lsm.get('write_amplification'))} writing, "
        f"{_ratio(lsm.get('space_amplification'))} of space"
    )
    yield from _compaction(lsm)
    if stalls:
        count, ms = stalls.get("count", 0), stalls.get("ms", 0)
        yield f"  writers held back: {_times(count)}" + (f", {ms:,} ms in all" if count else "")


def _levels(levels: list[Mapping[str, Any]], block: str) -> Iterator[str]:
    if not levels:
        yield "    no tables yet: what was written is in the log and in memory"
        return
    most = max(level["bytes"] for level in levels)
    rows = [_HEADER, *(_cells(level) for level in levels)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    for number, row in enumerate(rows):
        cells = "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        bar = _bar(levels[number - 1]["bytes"], most, block) if number else ""
        yield f"    {cells}  {bar}".rstrip()


def _cells(level: Mapping[str, Any]) -> tuple[str, ...]:
    deleted = f"{level['tombstones']:,}"
    if level.get("range_deletions"):
        deleted += f" + {level['range_deletions']:,} ranges"
    return (
        str(level["level"]), f"{level['tables']:,}", size_text(level["bytes"]),
        f"{level['rows']:,}", deleted,
    )  # fmt: skip


def _bar(part: float, whole: float, block: str) -> str:
    if part <= 0 or whole <= 0:
        return ""
    return block * max(1, round(_BAR_COLUMNS * min(1.0, part / whole)))


def _cache(cache: Mapping[str, Any], block: str) -> str:
    asked = cache.get("hits", 0) + cache.get("misses", 0)
    held = f"{size_text(cache.get('bytes', 0))} of {size_text(cache.get('limit_bytes', 0))}"
    if not asked:
        return f"nothing asked yet, {held}"
    ratio = cache.get("hits", 0) / asked
    return f"{ratio:.1%} of {asked:,} found, {held}  {_bar(ratio, 1.0, block)}".rstrip()


def _memory(lsm: Mapping[str, Any], block: str) -> Iterator[str]:
    memtable, memory = lsm.get("memtable"), lsm.get("memory")
    if memtable:
        size, limit = memtable["bytes"], memtable["limit_bytes"]
        frozen = memtable.get("frozen", 0)
        also = f", {frozen} being flushed" if frozen else ""
        bar = _bar(size, limit, block)
        yield f"  memtable: {size_text(size)} of {size_text(limit)}{also}  {bar}".rstrip()
    if memory:
        yield f"  memory: {size_text(memory['bytes'])} of {size_text(memory['limit_bytes'])}"


def _compaction(lsm: Mapping[str, Any]) -> Iterator[str]:
    compaction = lsm.get("compaction")
    if compaction is None:
        return
    running = line_text(str(compaction.get("running") or ""))
    if compaction.get("paused"):
        running = "paused"
    done = sum(compaction.get(name, 0) for name in ("merges", "moves", "drops"))
    did = (
        f"{done:,} done, {size_text(compaction.get('read_bytes', 0))} read, "
        f"{size_text(compaction.get('written_bytes', 0))} written"
    )
    yield f"  compactions: {running or 'none running'}; {did if done else 'none done'}"
    debt = lsm.get("compaction_debt_bytes", 0)
    throttle = lsm.get("throttle", 0)
    yield f"  debt: {size_text(debt) if debt else 'none'}" + (
        f", holding writers back by {throttle:.0%}" if throttle else ""
    )
    if compaction.get("error"):
        yield f"  compactions failed: {line_text(str(compaction['error']))}"


def _ratio(value: float | None) -> str:
    return f"{value:.2f}" if value else "-"


def _times(count: int) -> str:
    return "never" if not count else "once" if count == 1 else f"{count:,} times"
