"""The bytes are those of docs/formats/sstable.md, and tables of old stay readable for ever."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re

import pytest

from marram.storage.sstable.block import decode_map, encode_map
from marram.storage.sstable.filter import probe_of
from marram.storage.sstable.ranges import RangeDeletion
from marram.storage.sstable.writer import TOMBSTONE, Row
from tests.storage.sstable.tables import handles_of, make_table, needs_zstd, open_table, read_all

ROOT = pathlib.Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "formats" / "sstable.md"
GOLDEN = ROOT / "tests" / "golden" / "sstable-v1.sst"
GOLDEN_ZSTD = ROOT / "tests" / "golden" / "sstable-v1-zstd.sst"
GOLDEN_WITH_FILTER = ROOT / "tests" / "golden" / "sstable-v1-filter-ranges.sst"

_HEX_LINE = re.compile(r"    ([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+)(?: |$)", re.MULTILINE)


def test_the_documents_example_is_what_the_writer_writes() -> None:
    example = b""
    for offset, part in _HEX_LINE.findall(DOCUMENT.read_text()):
        assert int(offset, 16) == len(example)
        example += bytes.fromhex(part)
    rows = [(0, b"apple", b"red", 0, 0), (0, b"pear", b"green", 1_700_000_000_000, 0)]

    data, info = make_table(rows, properties={"epoch": 1})

    assert data == example
    assert info.size_bytes == 583
    assert read_all(open_table(example, verify=True)) == [(row, 0) for row in rows]


def golden_rows() -> list[tuple[Row, int]]:
    """What the golden table holds: every kind of row, in blocks of every kind."""
    versions: list[tuple[Row, int]] = []
    for n in range(200):
        noise = hashlib.sha256(b"%d" % n).digest()
        versions.append(((0, b"noise-%04d" % n, noise, 0, 0), 0))
    for n in range(300):
        versions.append(((1, b"text-%04d" % n, b"the same again " * (n % 4), 0, 0), 0))
    versions.append(((1, b"text-large", bytes(20_000), 0, 0), 0))
    for n in range(40):
        for sequence in (n + 100, n + 50, n):
            deadline_ms = 1_700_000_000_000 + n if sequence % 3 == 0 else 0
            row: Row = (9, b"key-%02d" % n, b"version %d" % sequence, deadline_ms, n % 2)
            if sequence % 5 == 4:
                row = (9, b"key-%02d" % n, b"", deadline_ms, TOMBSTONE)
            versions.append((row, sequence))
    versions.append(((255, b"", b"the empty key", 2**64 - 1, 254), 2**63 - 1))
    return versions


def test_the_golden_table_is_readable_for_ever() -> None:
    versions = golden_rows()
    if os.environ.get("MARRAM_WRITE_GOLDEN"):
        data, _ = make_table(
            [row for row, _ in versions],
            [sequence for _, sequence in versions],
            {"engine": b"memory", "epoch": 3, "sequence": 12345, "time_ms": -1},
            compression="zlib",
            block_bytes=2048,
        )
        GOLDEN.write_bytes(data)
    data = GOLDEN.read_bytes()

    table = open_table(data, verify=True)

    assert read_all(table) == versions
    assert table.get(9, b"key-07") == versions[200 + 301 + 21][0]
    assert table.get(9, b"key-07", at=20) == versions[200 + 301 + 23][0]
    assert table.properties["engine"] == b"memory"
    assert [table.properties[name] for name in ("epoch", "sequence", "time_ms")] == [3, 12345, -1]
    assert {data[handle.offset + 1] for handle in handles_of(data)} == {0, 1}  # plain and zlib


def test_the_golden_table_with_a_filter_and_ranges_is_readable_for_ever() -> None:
    versions = golden_rows()
    ranges = (
        RangeDeletion(0, b"", b"noise", 7),
        RangeDeletion(9, b"key-10", None, 90),
        RangeDeletion(9, b"key-10", b"key-20", 60),
        RangeDeletion(255, b"", None, 2**63 - 1),
    )
    if os.environ.get("MARRAM_WRITE_GOLDEN"):
        data, _ = make_table(
            [row for row, _ in versions],
            [sequence for _, sequence in versions],
            ranges=ranges,
            compression="zlib",
            block_bytes=2048,
            filter_bits_per_key=10,
        )
        GOLDEN_WITH_FILTER.write_bytes(data)
    data = GOLDEN_WITH_FILTER.read_bytes()

    table = open_table(data, verify=True)

    assert read_all(table) == versions
    assert table.ranges == ranges
    assert all(table.get(*row[:2]) is not None for row, _ in versions)
    absent = [probe_of(0, b"absent-%04d" % n) for n in range(1000)]
    assert sum(map(table.may_contain, absent)) < 20


@needs_zstd
def test_the_golden_table_with_zstd_is_readable_for_ever() -> None:
    versions = golden_rows()
    if os.environ.get("MARRAM_WRITE_GOLDEN"):
        data, _ = make_table(
            [row for row, _ in versions],
            [sequence for _, sequence in versions],
            compression="zstd",
            compression_level=3,
            block_bytes=2048,
            filter_bits_per_key=10,
        )
        GOLDEN_ZSTD.write_bytes(data)
    data = GOLDEN_ZSTD.read_bytes()

    assert read_all(open_table(data, verify=True)) == versions
    assert {data[handle.offset + 1] for handle in handles_of(data)} == {0, 2}  # plain and zstd


@pytest.mark.parametrize(
    "pairs", [{}, {"a": 0}, {"b": b"", "a": -1}, {"é": b"\xff" * 300, "x" * 65535: 2**63 - 1}]
)
def test_b1_maps_come_back_as_they_were(pairs: dict[str, int | bytes]) -> None:
    assert decode_map(memoryview(encode_map(pairs))) == pairs
