"""Verify a tree: its manifest, and every block of a table that the manifest lists.

Owns what is asked of both; the checks are the formats' own, the walk is storage/verify.py's.

Threading: pure reading; the caller keeps the files there.
"""

from __future__ import annotations

from marram.env.api import Env, File
from marram.storage.lsm import manifest
from marram.storage.lsm.compaction import check_table
from marram.storage.lsm.version import TableMeta
from marram.storage.sstable.reader import Table


def listed(env: Env, directory: str, generation: int, store_id: bytes) -> list[TableMeta]:
    """The tables of a manifest. Raises Corruption; overlaps are one (version.py, V1 to V3)."""
    version = manifest.load(env, directory, generation, store_id).version
    return [table for level in version.levels for table in level.tables]


def check_listed(file: File, meta: TableMeta, store_id: bytes) -> int:
    """Read all of a table; returns how many rows it has. Raises Corruption, UnsupportedFormat."""
    table = Table.open(file, meta.number, store_id, verify=True)
    check_table(table, meta, file.path)
    return table.row_count
