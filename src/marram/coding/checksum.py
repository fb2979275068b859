"""Checksums of everything on disk, tagged with their kind so that the kind can change.

Owns the choice of algorithm; a file or frame stores the kind byte beside the checksum.
CRC-32 (IEEE) through zlib; isal computes the same values faster where it is installed.
Threading: pure functions.
"""

from __future__ import annotations

try:
    from isal.isal_zlib import crc32  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    from zlib import crc32

__all__ = ["KIND_CRC32", "crc32", "file_seed", "place_seed"]

KIND_CRC32 = 1
"""The only kind there is so far. Never reuse a number."""


def place_seed(file_number: int, offset: int, store_id: bytes) -> int:
    """A CRC seed that binds a checksum to its place.

    file_number: the file's own number; offset: where the checked bytes start in it, bytes;
    store_id: 16 bytes. A block that is read back from any other place, file or store then fails,
    even though its bytes are intact.
    """
    seed: int = crc32(b"%d" % offset, file_seed(file_number, store_id))
    return seed


def file_seed(file_number: int, store_id: bytes) -> int:
    """What place_seed() of every offset in a file begins with: seed crc32 of b"%d" % offset."""
    seed: int = crc32(b"%d:" % file_number, crc32(store_id))
    return seed
