"""A blob gives back what was put into it, or Corruption; rows get pointers and values back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.env.memory import MemoryEnv
from marram.errors import Corruption
from marram.storage.layout import blob_path, tables_path
from marram.storage.lsm.blob import (
    POINTER,
    POINTER_SIZE,
    Blob,
    BlobWriter,
    pointer_of,
)
from marram.storage.lsm.blobs import Collector, OpenBlobs, References, separated
from marram.storage.lsm.version import BLOB_FOOTER_SIZE as FOOTER_SIZE
from marram.storage.lsm.version import BlobRef
from marram.storage.sstable.block import TOMBSTONE, VersionRow
from marram.storage.sstable.format import BLOCK_OVERHEAD, HEADER_SIZE
from marram.storage.sstable.writer import TableOptions

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "blob-v1.blob"
STORE_ID = bytes(range(16))
DIR = "/data/db"
PLAIN, ZLIB = TableOptions(), TableOptions(compression="zlib")


def made(
    values: list[bytes], options: TableOptions = PLAIN, seed: int = 1
) -> tuple[MemoryEnv, BlobRef, list[bytes]]:
    """A disk with blob 7, what is known of it, and the pointers to its values."""
    env = MemoryEnv(seed=seed)
    env.make_dir(tables_path(DIR))
    writer = BlobWriter(env, DIR, lambda: 7, STORE_ID, options)
    pointers = [writer.add(value) for value in values]
    ref = writer.finish()
    assert ref is not None
    return env, ref, pointers


def opened(env: MemoryEnv, ref: BlobRef, store_id: bytes = STORE_ID) -> Blob:
    return Blob(env.open(blob_path(DIR, ref.number)), ref, store_id)


# -- the file -----------------------------------------------------------------------------------


def golden_values() -> list[bytes]:
    return [b"x" * 100, bytes(range(256)), b"", b"last"]


def test_the_golden_blob_is_readable_for_ever() -> None:
    env, ref, pointers = made(golden_values(), ZLIB)
    if os.environ.get("MARRAM_WRITE_GOLDEN"):
        GOLDEN.write_bytes(env.contents(blob_path(DIR, 7)))
    data = GOLDEN.read_bytes()
    env.put_file(blob_path(DIR, 7), data)

    blob = opened(env, ref)

    assert data[:8] == b"marramBL"
    assert [blob.value(pointer_of(pointer)) for pointer in pointers] == golden_values()
    assert blob.verify() == 4


def test_the_worked_example_of_the_document() -> None:
    env, ref, pointers = made([b"hello" * 20])
    data = env.contents(blob_path(DIR, 7))

    assert (HEADER_SIZE, BLOCK_OVERHEAD, FOOTER_SIZE, POINTER_SIZE) == (40, 14, 72, 24)
    assert ref[:2] == (7, 226)
    assert ref[3:] == (1, 114)
    assert pointers == [bytes.fromhex("0700000000000000 2800000000000000 72000000 64000000")]
    assert data[40:50] == bytes.fromhex("07 00 64000000 64000000")
    assert data[50:150] == b"hello" * 20


@pytest.mark.parametrize("options", [PLAIN, ZLIB])
@given(values=st.lists(st.binary(max_size=300), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_values_come_back_one_by_one_and_together(
    values: list[bytes], options: TableOptions
) -> None:
    env, ref, packed = made(values, options)
    blob = opened(env, ref)
    pointers = [pointer_of(pointer) for pointer in packed]

    assert [blob.value(pointer) for pointer in pointers] == values
    assert blob.values(pointers) == values
    assert blob.verify() == ref.rows == len(values)
    assert ref.live_bytes == ref.data_bytes == sum(p.stored_bytes for p in pointers)


def test_a_blob_larger_than_a_read_is_verified() -> None:
    values = [b"a" * 10, b"b" * 3_000_000, b"c" * 700_000, b"d" * 700_000, b"e"]
    env, ref, pointers = made(values)

    assert opened(env, ref).verify() == 5
    assert opened(env, ref).value(pointer_of(pointers[1])) == values[1]


def test_l1_no_flipped_bit_is_served() -> None:
    values = [b"one" * 9, b"two" * 9]
    env, ref, packed = made(values)
    path = blob_path(DIR, 7)
    data = env.contents(path)
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        env.put_file(path, bytes(flipped))
        with pytest.raises(Corruption, match=path):
            opened(env, ref).verify()
        for pointer, value in zip(packed, values, strict=True):
            try:
                assert opened(env, ref).value(pointer_of(pointer)) == value
            except Corruption as error:
                assert path in str(error)


def test_l3_a_blob_cut_short_or_longer_is_refused() -> None:
    env, ref, _ = made([b"value" * 20])
    path = blob_path(DIR, 7)
    data = env.contents(path)
    for size in range(len(data)):
        env.put_file(path, data[:size])
        with pytest.raises(Corruption):
            opened(env, ref)
    env.put_file(path, data + b"\0")
    with pytest.raises(Corruption):
        opened(env, ref)


def test_l3_a_blob_of_another_store_number_or_course_is_refused() -> None:
    env, ref, _ = made([b"value" * 20])
    other, other_ref, _ = made([b"VALUE" * 20], seed=2)
    path = blob_path(DIR, 7)

    with pytest.raises(Corruption, match="belongs to another store"):
        opened(env, ref, bytes(16))
    env.put_file(blob_path(DIR, 8), env.contents(path))
    with pytest.raises(Corruption, match="is number 7"):
        opened(env, ref._replace(number=8))
    assert other_ref[:2] == ref[:2]
    env.put_file(path, other.contents(path))
    with pytest.raises(Corruption, match="stamp"):
        opened(env, ref)


@pytest.mark.parametrize(
    "change", [{"offset": 10**6}, {"offset": 41}, {"value_bytes": 99}, {"stored_bytes": 113}]
)
def test_a_wrong_pointer_finds_no_value(change: dict[str, int]) -> None:
    env, ref, packed = made([b"value" * 20])
    blob = opened(env, ref)
    with pytest.raises(Corruption):
        blob.value(pointer_of(packed[0])._replace(**change))


@pytest.mark.parametrize("data", [b"", b"x" * 23, b"x" * 25, bytes(24)])
def test_what_is_no_pointer_is_corruption(data: bytes) -> None:
    with pytest.raises(Corruption):
        pointer_of(data)


def test_l2_a_blob_without_values_is_no_file() -> None:
    env = MemoryEnv()
    env.make_dir(tables_path(DIR))
    writer = BlobWriter(env, DIR, lambda: 7, STORE_ID, PLAIN)

    assert writer.finish() is None
    assert env.list_dir(tables_path(DIR)) == []


def test_an_abandoned_blob_is_removed() -> None:
    env = MemoryEnv()
    env.make_dir(tables_path(DIR))
    writer = BlobWriter(env, DIR, lambda: 7, STORE_ID, PLAIN)
    writer.add(b"x" * 100)
    writer.abandon()

    assert env.list_dir(tables_path(DIR)) == []


def test_verify_compares_with_what_the_footer_says() -> None:
    env = MemoryEnv()
    env.make_dir(tables_path(DIR))
    writer = BlobWriter(env, DIR, lambda: 7, STORE_ID, PLAIN)
    writer.add(b"x" * 100)
    writer._records += 1
    ref = writer.finish()
    assert ref is not None

    with pytest.raises(Corruption, match="the footer says 2"):
        opened(env, ref).verify()


# -- the ways of rows ---------------------------------------------------------------------------


def row(key: bytes, value: bytes, type_: int = 0, deadline_ms: int = 0) -> VersionRow:
    return (0, key, value, deadline_ms, type_, 5)


def test_only_values_at_the_threshold_are_separated() -> None:
    env, _, _ = made([b"x"])
    writer = BlobWriter(env, DIR, lambda: 8, STORE_ID, PLAIN)
    rows = [row(b"a", b"v" * 99), row(b"b", b"v" * 100, 3, 77), row(b"c", b"", TOMBSTONE)]

    found = separated(rows, writer, 100)
    ref = writer.finish()

    assert found[0] is rows[0]
    assert found[2] is rows[2]
    assert found[1][3:] == (77, 3 | POINTER, 5)
    assert len(found[1][2]) == POINTER_SIZE
    assert ref is not None
    references = References()
    references.count(found)
    assert references.refs({8: ref}) == (ref,)


def test_rows_below_the_threshold_are_passed_as_they_are() -> None:
    env, _, _ = made([b"x"])
    rows = [row(b"a", b"v" * 99), row(b"b", b"")]

    assert separated(rows, BlobWriter(env, DIR, lambda: 8, STORE_ID, PLAIN), 100) is rows


def test_a_type_that_leaves_no_room_for_the_mark_is_refused() -> None:
    env, _, _ = made([b"x"])
    with pytest.raises(ValueError, match="type 200"):
        separated([row(b"a", b"v" * 99, 200)], BlobWriter(env, DIR, lambda: 8, STORE_ID, PLAIN), 10)


def test_a_collector_moves_what_points_into_its_blobs_alone() -> None:
    env, ref, packed = made([b"one" * 50, b"two" * 50])
    kept = packed[1].replace(b"\x07", b"\x09", 1)  # as if into blob 9
    rows = [row(b"a", packed[0], POINTER), row(b"b", kept, POINTER), row(b"c", b"plain")]
    target = BlobWriter(env, DIR, lambda: 8, STORE_ID, PLAIN)
    collector = Collector(OpenBlobs(env, DIR, STORE_ID, 1), {7: ref}, target)

    found = [moved for portion in collector.rows(rows) for moved in portion]
    new = target.finish()

    assert found[1:] == rows[1:]
    assert new is not None
    assert opened(env, new).value(pointer_of(found[0][2])) == b"one" * 50
