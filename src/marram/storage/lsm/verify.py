"""Verify a tree: its manifest, and every block of the tables and blobs that the manifest lists.

Owns what is asked of both; the checks are the formats' own, the walk is storage/verify.py's.

Threading: pure reading; the caller keeps the files there.
"""

from __future__ import annotations

from marram.env.api import Env, File
from marram.errors import Corruption
from marram.storage.engine import Origin
from marram.storage.lsm import manifest
from marram.storage.lsm.blob import Blob
from marram.storage.lsm.blobs import References
from marram.storage.lsm.compaction import check_table
from marram.storage.lsm.version import BlobRef, TableMeta
from marram.storage.sstable.reader import Table


def listed(
    env: Env, directory: str, generation: int, store_id: bytes
) -> tuple[Origin, list[TableMeta], list[BlobRef]]:
    """The state, tables and blobs of a manifest. Raises Corruption; overlaps are one (version.py,
    V1 to V3)."""
    loaded = manifest.load(env, directory, generation, store_id)
    version = loaded.version
    return (
        loaded.origin,
        [table for level in version.levels for table in level.tables],
        [version.blobs[number] for number in sorted(version.blobs)],
    )


def check_listed(file: File, meta: TableMeta, store_id: bytes) -> int:
    """Read all of a table; returns how many rows it has. Raises Corruption, UnsupportedFormat."""
    table = Table.open(file, meta.number, store_id, verify=True)
    check_table(table, meta, file.path)
    references = References()
    try:
        for rows in table.versions():
            references.count(rows)
        found = references.refs({ref.number: ref for ref in meta.blobs})
    except (KeyError, ValueError) as error:
        raise Corruption(f"what the rows point into: {error}", file.path) from error
    if found != meta.blobs:
        raise Corruption("the rows do not point into blobs as the manifest says", file.path)
    return table.row_count


def check_blob(file: File, ref: BlobRef, store_id: bytes) -> None:
    """Read all of a blob. Raises Corruption, UnsupportedFormat."""
    Blob(file, ref, store_id).verify()
