"""The log's bytes (docs/formats/log.md): one file header, then frames.

Owns packing, unpacking and checking of headers; not files (writer.py, reader.py) and not what a
batch means (coding/batch.py).

F1  a header's checksum covers its place: store id, log number and offset are mixed in, so a frame
    of another log, another store or another offset fails.
F2  a frame's header is checked before its length is believed.

Threading: pure functions.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from marram.coding.checksum import KIND_CRC32, crc32, place_seed

MAGIC = b"marramLG"
FORMAT_VERSION = 1

# magic, format version u16, checksum kind u8, zero u8, store id, log number u64,
# end of the previous log u64, last sequence number before this log u64, epoch u64, checksum u32
_FILE = struct.Struct("<8sHBB16sQQQQI")
FILE_HEADER_SIZE = _FILE.size
_FILE_CHECKED = FILE_HEADER_SIZE - 4

FRAME_MAGIC = b"\xf5mF\x01"
# magic, payload length u32, kind u8, checksum kind u8, zero u16, batch count u32,
# first sequence u64, epoch u64, time ms u64, synced offset u64, payload checksum u32, checksum u32
_FRAME = struct.Struct("<4sIBBHIQQQQII")
FRAME_HEADER_SIZE = _FRAME.size
_FRAME_CHECKED = FRAME_HEADER_SIZE - 4
_U32 = struct.Struct("<I")

KIND_BATCHES = 1
KIND_MARK = 2  # no batches: it only carries the promise that everything before it is synced


class LogHeader(NamedTuple):
    """What the start of a log file says.

    previous_end: length of the previous log, bytes, all of it synced before this one was made; 0
    where there is none. base_sequence: the last sequence number before this log.
    """

    store_id: bytes
    number: int
    previous_end: int
    base_sequence: int
    epoch: int


class FrameHeader(NamedTuple):
    """What the start of a frame says. synced: the log was durable up to this offset, bytes."""

    payload_size: int
    kind: int
    batch_count: int
    first_sequence: int
    epoch: int
    time_ms: int
    synced: int
    payload_checksum: int


def pack_log_header(header: LogHeader) -> bytes:
    """The file header's bytes."""
    fields = _FILE.pack(MAGIC, FORMAT_VERSION, KIND_CRC32, 0, *header, 0)[:_FILE_CHECKED]
    return fields + _U32.pack(crc32(fields, header.number & 0xFFFFFFFF))


def unpack_log_header(data: bytes) -> tuple[LogHeader | None, int]:
    """(header, format version); the header is None where the bytes are no intact header.

    A format version above FORMAT_VERSION comes with an intact header only: the checksum is in the
    same place in every version, so damage to the version field reads as damage.
    """
    if len(data) < FILE_HEADER_SIZE:
        return None, 0
    magic, version, kind, zero, store_id, number, end, sequence, epoch, checksum = _FILE.unpack(
        data[:FILE_HEADER_SIZE]
    )
    if magic != MAGIC or crc32(data[:_FILE_CHECKED], number & 0xFFFFFFFF) != checksum:
        return None, 0
    if version == FORMAT_VERSION and (kind != KIND_CRC32 or zero):
        return None, 0
    return LogHeader(store_id, number, end, sequence, epoch), version


def pack_frame(
    payload: bytes,
    kind: int,
    batch_count: int,
    first_sequence: int,
    epoch: int,
    time_ms: int,
    synced: int,
    offset: int,
    place: tuple[int, bytes],
) -> bytes:
    """A frame's bytes, for `offset` of the log `place` = (number, store id)."""
    seed = place_seed(place[0], offset, place[1])
    fields = _FRAME.pack(
        FRAME_MAGIC, len(payload), kind, KIND_CRC32, 0, batch_count, first_sequence, epoch,
        time_ms, synced, crc32(payload, seed), 0,
    )[:_FRAME_CHECKED]  # fmt: skip
    return b"".join((fields, _U32.pack(crc32(fields, seed)), payload))


def unpack_frame_header(data: bytes, at: int, offset: int, seed: int) -> FrameHeader | None:
    """The frame header at data[at:], which lies at `offset` of its log; None where none is intact.

    seed: place_seed of that offset.
    """
    if len(data) - at < FRAME_HEADER_SIZE or not data.startswith(FRAME_MAGIC, at):
        return None
    fields = _FRAME.unpack_from(data, at)
    if crc32(data[at : at + _FRAME_CHECKED], seed) != fields[11]:
        return None
    _, size, kind, checksum_kind, zero, count, first, epoch, time_ms, synced, payload_sum, _ = (
        fields
    )
    known = kind in (KIND_BATCHES, KIND_MARK) and checksum_kind == KIND_CRC32 and zero == 0
    if not known or synced > offset or (kind == KIND_MARK and (size or count)):
        return None
    return FrameHeader(size, kind, count, first, epoch, time_ms, synced, payload_sum)
