"""Tables made in memory: as the writer makes them, and as no writer would."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

import pytest

from marram.coding.checksum import crc32
from marram.env.memory import MemoryEnv
from marram.errors import UnsupportedFormat
from marram.storage.sstable.block import encode_index, encode_map, encode_rows, stored_key
from marram.storage.sstable.format import (
    DATA,
    DIRECTORY,
    INDEX,
    PROPERTIES,
    Compressor,
    Handle,
    Place,
    load_zstd,
    pack_footer,
    pack_handle,
    pack_header,
    seal_block,
)
from marram.storage.sstable.ranges import RangeDeletion
from marram.storage.sstable.reader import Table
from marram.storage.sstable.writer import Row, TableInfo, TableOptions, TableWriter

NUMBER = 7
STORE_ID = bytes(range(16))
PLACE = Place(NUMBER, STORE_ID)
PATH = "/db/7.sst"


def have_zstd() -> bool:
    """Whether blocks can be compressed with zstd here."""
    try:
        load_zstd()
    except UnsupportedFormat:
        return False
    return True


needs_zstd = pytest.mark.skipif(not have_zstd(), reason="no zstd in this Python, nor the package")
ZSTD = pytest.param("zstd", marks=needs_zstd)


def make_table(
    rows: Sequence[Row],
    sequences: Sequence[int] | None = None,
    properties: Mapping[str, int | bytes] | None = None,
    place: Place = PLACE,
    ranges: Iterable[RangeDeletion] = (),
    **options: int | str,
) -> tuple[bytes, TableInfo]:
    """A table's bytes, and what finish() said of it. options: of TableOptions."""
    env = MemoryEnv()
    env.make_dir("/db")
    file = env.open(PATH, write=True, create=True)
    writer = TableWriter(file, *place, TableOptions(**options))  # type: ignore[arg-type]
    writer.add_many(rows, sequences)
    info = writer.finish(properties or {}, ranges)
    return env.contents(PATH), info


def open_table(data: bytes, place: Place = PLACE, *, verify: bool = False) -> Table:
    """The table in `data`."""
    env = MemoryEnv()
    env.put_file(PATH, data)
    return Table.open(env.open(PATH), *place, verify=verify)


def read_all(table: Table, *, reverse: bool = False) -> list[tuple[Row, int]]:
    """Every row with its sequence number."""
    return [(row[:5], row[5]) for rows in table.versions(reverse=reverse) for row in rows]


def handles_of(data: bytes) -> list[Handle]:
    """The blocks of an intact table, in the order of the file; the directory is the last."""
    blocks, at = [], 40
    while at < len(data) - 60:
        size = 14 + int.from_bytes(data[at + 2 : at + 6], "little")
        blocks.append(Handle(at, size))
        at += size
    return blocks


def sealed(
    kind: int, compression: int, raw_size: int, body: bytes, stored_size: int | None = None
) -> memoryview:
    """A block with a right checksum, seed 5."""
    stored_size = len(body) if stored_size is None else stored_size
    block = struct.pack("<BBII", kind, compression, stored_size, raw_size) + body
    return memoryview(block + struct.pack("<I", crc32(block, 5)))


class Forgery:
    """A table put together block by block, with right checksums and any content."""

    def __init__(self) -> None:
        self.data = pack_header(PLACE)
        self.last_keys: list[bytes] = []
        self.rows: list[int] = []
        self.sizes: list[int] = []
        self.properties: dict[str, int | bytes] = {}
        self.handles: dict[str, Handle] = {}

    def block(self, kind: int, *payload: bytes, packer: Compressor | None = None) -> Handle:
        parts = seal_block(kind, payload, PLACE, len(self.data), packer)
        handle = Handle(len(self.data), sum(map(len, parts)))
        self.data += b"".join(parts)
        return handle

    def add(self, rows: Sequence[Row], sequences: Sequence[int] | None = None) -> None:
        """A data block with rows in whatever order, entered in the index."""
        keyspaces, keys, values, deadlines, types = zip(*rows, strict=True)
        numbers = sequences or [0] * len(rows)
        payload = encode_rows(keyspaces[0], keys, values, deadlines, types, numbers)
        self.sizes.append(self.block(DATA, *payload).size)
        self.last_keys.append(stored_key(keyspaces[-1], keys[-1]))
        self.rows.append(len(rows))
        totals = self.properties
        totals.setdefault("table.smallest", stored_key(keyspaces[0], keys[0]))
        totals["table.largest"] = self.last_keys[-1]
        for name, number in (
            ("table.rows", len(rows)),
            ("table.key_bytes", sum(map(len, keys))),
            ("table.value_bytes", sum(map(len, values))),
            ("table.tombstones", types.count(255)),
        ):
            totals[name] = int(totals.get(name, 0)) + number
        totals["table.min_sequence"] = min(int(totals.get("table.min_sequence", 2**62)), *numbers)
        totals["table.max_sequence"] = max(int(totals.get("table.max_sequence", 0)), *numbers)

    def named(self) -> None:
        """Index and properties."""
        index = encode_index(self.last_keys, self.rows, self.sizes)
        self.handles["index"] = self.block(INDEX, *index)
        self.handles["properties"] = self.block(PROPERTIES, encode_map(self.properties))

    def finish(self) -> bytes:
        """The directory and the footer; all the bytes."""
        if not self.handles:
            self.named()
        entries = {name: pack_handle(handle) for name, handle in self.handles.items()}
        directory = self.block(DIRECTORY, encode_map(entries))
        return self.data + pack_footer(directory, PLACE)
