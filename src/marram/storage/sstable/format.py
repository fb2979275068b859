"""The table file around its blocks (docs/formats/sstable.md): header, sealed blocks, footer.

Owns packing, sealing and checking; not what blocks hold (block.py) and not files (writer.py,
reader.py).

T1  a block's checksum covers its place: file number, offset and store id are its seed, so that a
    block read back from any other place, file or store fails.
T2  the file header's layout and checksum are the same in every format version. A damaged version
    field therefore reads as damage, and an intact newer version as UnsupportedFormat.
T3  no length is believed before the checksum over it was right, and no block inflates to more
    than its header says, nor than its kind of compression could have made of its bytes.

zstd is Python 3.14's own, or the package backports.zstd, looked for only where a writer asks for it
or a block needs it.

What is wrong with the bytes is raised as ValueError: the caller knows the path and the offset.
Threading: pure functions.
"""

from __future__ import annotations

import importlib
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

from marram.coding.checksum import KIND_CRC32, crc32, place_seed
from marram.errors import UnsupportedFormat

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

if not cython.compiled:  # else they are inlined
    from marram.coding.raw import first_of, u32s

MAGIC = b"marramST"
FOOTER_MAGIC = b"marramSE"
FORMAT_VERSION = 1

# magic, format version u16, checksum kind u8, zero u8, store id, file number u64, checksum u32
_HEADER = struct.Struct("<8sHBB16sQI")
HEADER_SIZE = _HEADER.size

# directory offset u64 and size u32, format version u16, checksum kind u8, zero u8, file size u64,
# file number u64, store id, magic, checksum u32
_FOOTER = struct.Struct("<QIHBBQQ16s8sI")
FOOTER_SIZE = _FOOTER.size

# kind u8, compression u8, stored bytes u32, raw bytes u32; then the stored bytes, checksum u32
_BLOCK = struct.Struct("<BBII")
_U32 = struct.Struct("<I")
_CHECKSUM_SIZE = _U32.size
BLOCK_OVERHEAD = _BLOCK.size + _CHECKSUM_SIZE
MAX_PAYLOAD = 2**32 - 1 - BLOCK_OVERHEAD
"""The most a block can hold, bytes: its whole size has to fit a u32."""

# Block kinds. Never reuse a number.
DATA = 1
INDEX = 2
PROPERTIES = 3
DIRECTORY = 4
FILTER = 5
RANGES = 6
BLOB = 7

# Compressions. Never reuse a number.
_NONE = 0
_ZLIB = 1
_ZSTD = 2

COMPRESSION_LEVELS = {"none": range(1, 10), "zlib": range(1, 10), "zstd": range(1, 20)}
"""What a writer can be told, and the levels each has; "none" passes over its level.

Higher levels of zstd have windows of more than 8 MiB, which readers refuse.
"""

# One byte of deflate makes at most 1032 bytes (a 258-byte match in two bits); a block of zstd takes
# four bytes at least, and makes 128 KiB at most.
_DEFLATE_RATIO = 1032
_ZSTD_RATIO = 32 * 1024
# What RFC 8878 asks every reader to grant, and what no level above goes beyond.
_ZSTD_WINDOW_LOG = 23
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_MODULES = ("compression.zstd", "backports.zstd")


class Place(NamedTuple):
    """Which file this is: its own number, and the 16-byte id of the store it belongs to."""

    number: int
    store_id: bytes

    def seed(self, offset: int) -> int:
        """Where the checksum of the bytes at `offset` starts from (T1)."""
        return place_seed(self.number, offset, self.store_id)


class Handle(NamedTuple):
    """Where a block is: [offset, offset + size) of the file, bytes, its seal included."""

    offset: int
    size: int

    @property
    def stop(self) -> int:
        """Where the next block starts."""
        return self.offset + self.size


_HANDLE = struct.Struct("<QI")


def pack_handle(handle: Handle) -> bytes:
    """A handle as the directory holds it."""
    return _HANDLE.pack(*handle)


def unpack_handle(data: bytes) -> Handle:
    """A handle from the directory."""
    if len(data) != _HANDLE.size:
        raise ValueError(f"a handle of {len(data)} bytes")
    return Handle(*_HANDLE.unpack(data))


def pack_header(place: Place, magic: bytes = MAGIC) -> bytes:
    """The file's first HEADER_SIZE bytes. magic: of another kind of file made of sealed blocks."""
    fields = _HEADER.pack(
        magic, FORMAT_VERSION, KIND_CRC32, 0, place.store_id, place.number, 0
    )[:-_CHECKSUM_SIZE]  # fmt: skip
    return fields + _U32.pack(crc32(fields))


def check_header(data: bytes, place: Place, expected: bytes = MAGIC, what: str = "table") -> None:
    """Check that a file which starts with `data` is the table `place`.

    expected, what: the magic, and the word for it, of another kind of file.

    Raises UnsupportedFormat: an intact header of a format this version does not know.
    """
    if len(data) < HEADER_SIZE:
        raise ValueError("the file header is cut short")
    magic, version, kind, zero, store_id, number, checksum = _HEADER.unpack_from(data)
    if magic != expected:
        raise ValueError(f"this is not a {what}")
    # Not seeded with the place: a foreign file should be called foreign, not damaged.
    if crc32(data[: HEADER_SIZE - _CHECKSUM_SIZE]) != checksum:
        raise ValueError("wrong checksum of the file header")
    if version > FORMAT_VERSION or kind != KIND_CRC32:
        raise UnsupportedFormat(f"a {what} of format version {version}, checksum kind {kind}")
    if version != FORMAT_VERSION or zero:
        raise ValueError(f"unknown fields in the file header: version {version}, zero {zero}")
    if store_id != place.store_id:
        raise ValueError(f"the {what} belongs to another store")
    if number != place.number:
        raise ValueError(f"the {what} is number {number} by its header, not {place.number}")


def pack_footer(directory: Handle, place: Place) -> bytes:
    """The file's last FOOTER_SIZE bytes, which follow the directory."""
    fields = _FOOTER.pack(
        *directory, FORMAT_VERSION, KIND_CRC32, 0, directory.stop + FOOTER_SIZE, place.number,
        place.store_id, FOOTER_MAGIC, 0,
    )[:-_CHECKSUM_SIZE]  # fmt: skip
    return fields + _U32.pack(crc32(fields, place.seed(directory.stop)))


def unpack_footer(data: bytes, file_size: int, place: Place) -> Handle:
    """Where the directory is, from the last FOOTER_SIZE bytes of a file whose header was right."""
    if len(data) != FOOTER_SIZE:
        raise ValueError("the footer is cut short")
    offset, size, version, kind, zero, end, number, store_id, magic, checksum = _FOOTER.unpack(data)
    seed = place.seed(file_size - FOOTER_SIZE)
    if magic != FOOTER_MAGIC or crc32(data[:-_CHECKSUM_SIZE], seed) != checksum:
        raise ValueError("no intact footer at the end of the file")
    if (version, kind, zero, end) != (FORMAT_VERSION, KIND_CRC32, 0, file_size) or (
        (number, store_id) != place
    ):
        raise ValueError("the footer does not fit its file")
    directory = Handle(offset, size)
    if offset < HEADER_SIZE or size < BLOCK_OVERHEAD or directory.stop + FOOTER_SIZE != file_size:
        raise ValueError(f"the directory cannot be {size} bytes at {offset}")
    return directory


class Compressor(NamedTuple):
    """How a writer compresses: the kind, by its number, and what does it. One thread's."""

    kind: int
    compress: Callable[[bytes], bytes]


def compressor(name: str, level: int) -> Compressor | None:
    """What compresses as COMPRESSION_LEVELS has it; None for "none".

    Raises UnsupportedFormat: there is no zstd here.
    """
    if name == "zlib":
        return Compressor(_ZLIB, partial(zlib.compress, level=level))
    if name == "zstd":
        # One for all blocks: twice as fast as one each (level 3, 32 KiB), and the same bytes.
        packer = load_zstd().ZstdCompressor(level)
        return Compressor(_ZSTD, partial(packer.compress, mode=packer.FLUSH_FRAME))
    return None


@cache
def load_zstd() -> Any:
    """The module that has zstd, with the names of Python 3.14's compression.zstd.

    Raises UnsupportedFormat: there is none, and what to install.
    Cached, for an import that fails takes longer than a block.
    """
    for name in _ZSTD_MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise UnsupportedFormat(
        "zstd needs Python 3.14 or the package backports.zstd: pip install 'marram[zstd]'"
    )


def seal_block(
    kind: int,
    parts: Sequence[bytes],
    place: Place,
    offset: int,
    packer: Compressor | None = None,
) -> list[bytes]:
    """A block for `offset`, as parts to write one after the other.

    parts: the payload, at most MAX_PAYLOAD bytes together. packer: None not to compress; what does
    not shrink by an eighth is stored as it is, for the sake of its readers.
    """
    raw_size = stored_size = sum(map(len, parts))
    if raw_size > MAX_PAYLOAD:
        raise ValueError(f"a block cannot hold {raw_size} bytes")
    compression = _NONE
    if packer is not None:
        packed = packer.compress(b"".join(parts))
        if len(packed) <= raw_size - raw_size // 8:
            compression, parts, stored_size = packer.kind, [packed], len(packed)
    sealed = [_BLOCK.pack(kind, compression, stored_size, raw_size), *parts]
    checksum = place.seed(offset)
    for part in sealed:
        checksum = crc32(part, checksum)
    sealed.append(_U32.pack(checksum))
    return sealed


def block_size(data: memoryview) -> int:
    """How large the block is that starts `data`, by its header; nothing has checked that yet."""
    if len(data) < BLOCK_OVERHEAD:
        raise ValueError(f"{len(data)} bytes are too few for a block")
    size: int = _BLOCK.unpack_from(data)[2]
    return size + BLOCK_OVERHEAD


def unseal_block(data: memoryview, kind: int | None, seed: int) -> memoryview:
    """The payload of the block that fills `data`; it may point into `data`.

    kind: which it must be, or None for any. seed: place.seed of its offset. Raises
    UnsupportedFormat: it is intact, but compressed in an unknown way, or with zstd where there is
    none.
    """
    size = len(data)
    if size < BLOCK_OVERHEAD:
        raise ValueError(f"{size} bytes are too few for a block")
    body_end = size - _CHECKSUM_SIZE
    if cython.compiled:
        head = first_of(data)
        checksum = u32s(head, body_end, 1)[0]
        found, compression = head[0], head[1]
        stored_size, raw_size = u32s(head, 2, 1)[0], u32s(head, 6, 1)[0]
    else:
        (checksum,) = _U32.unpack_from(data, body_end)
        found, compression, stored_size, raw_size = _BLOCK.unpack_from(data)
    if crc32(data[:body_end], seed) != checksum:
        raise ValueError("wrong checksum of a block")
    if kind is not None and found != kind:
        raise ValueError(f"a block of kind {found}, not {kind}")
    if stored_size != size - BLOCK_OVERHEAD:
        raise ValueError(f"a block of {size} bytes says that it stores {stored_size}")
    body = data[_BLOCK.size : body_end]
    if compression == _NONE:
        if raw_size != stored_size:
            raise ValueError(f"{stored_size} plain bytes cannot stand for {raw_size}")
        return body
    if compression == _ZLIB:
        return memoryview(_inflate(body, raw_size))
    if compression == _ZSTD:
        return memoryview(_inflate_zstd(body, raw_size))
    raise UnsupportedFormat(f"a block of compression kind {compression}")


def _inflate(body: memoryview, raw_size: int) -> bytes:
    """`body` inflated, which must give exactly raw_size bytes (T3)."""
    if raw_size > len(body) * _DEFLATE_RATIO:
        raise ValueError(f"{len(body)} bytes cannot inflate to {raw_size}")
    inflater = zlib.decompressobj()
    try:
        # One byte more than wanted: zlib then runs into the end of the stream, and checks it.
        raw = inflater.decompress(body, raw_size + 1)
    except zlib.error as error:
        raise ValueError(f"a block does not inflate: {error}") from error
    if len(raw) != raw_size or not inflater.eof or inflater.unused_data:
        raise ValueError(f"a block does not inflate to {raw_size} bytes exactly")
    return raw


def _inflate_zstd(body: memoryview, raw_size: int) -> bytes:
    """`body`, one frame of zstd, inflated, which must give exactly raw_size bytes (T3)."""
    if raw_size > len(body) * _ZSTD_RATIO:
        raise ValueError(f"{len(body)} bytes cannot inflate to {raw_size}")
    if body[:4] != _ZSTD_MAGIC:  # or it might be a frame that is there to be skipped
        raise ValueError("a block does not inflate: it is no frame of zstd")
    zstd = load_zstd()
    try:
        # The frame says itself what it makes: asked before anything is made of it.
        if zstd.get_frame_info(body).decompressed_size != raw_size:
            raise ValueError(f"a block does not inflate to {raw_size} bytes, by its frame")
        limit = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
        inflater = zstd.ZstdDecompressor(options=limit)
        # A frame can lie: one byte more than wanted, as above, and never all that it makes.
        raw: bytes = inflater.decompress(body, raw_size + 1)
    except zstd.ZstdError as error:
        raise ValueError(f"a block does not inflate: {error}") from error
    if len(raw) != raw_size or not inflater.eof or inflater.unused_data:
        raise ValueError(f"a block does not inflate to {raw_size} bytes exactly")
    return raw
