"""The log's bytes (docs/formats/log.md): one file header, then frames.

Owns packing, unpacking and checking of headers; not files (writer.py, reader.py) and not what a
batch means (coding/batch.py). A manifest is framed in the same way (lsm/manifest.py): what differs
is its FileKind.

The history checksum is the CRC-32 that runs over the bytes of all batches since the store began. It
goes on over the borders of groups and logs, so stores that hold the same batches have the same one,
however they got them.

F1  a frame's checksums cover its place: store id, file number and offset are mixed in, and the kind
    of file too, so a frame of another file, another store or another offset fails.
F2  a frame's header is checked before its length is believed.
F3  a log says what history it goes on from, in its first frame (LogStart), and its marks say how
    far it got: so logs that do not belong together are found out without reading them.

Threading: pure functions.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from marram.coding.checksum import KIND_CRC32, crc32, place_seed

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

if not cython.compiled:  # else they are C's
    from marram.coding.checksum import crc32_run
    from marram.coding.raw import put_u32, put_u64

# magic, format version u16, checksum kind u8, zero u8, store id, file number u64,
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

_SIZE_MAX = 0xFFFFFFFF

# Again, as compiled code has them without a look-up by name.
_HEADER_SIZE, _CHECKSUM_KIND = FRAME_HEADER_SIZE, KIND_CRC32
_MAGIC = int.from_bytes(FRAME_MAGIC, "little")

# Frame kinds, of all files together. Never reuse a number; 3 and 4 are the manifest's.
KIND_BATCHES = 1
KIND_MARK = 2  # holds nothing: it only carries the promise that everything before it is synced
KIND_HISTORY = 5  # likewise, and says what history there is before it; a log begins with one


class FileKind(NamedTuple):
    """What tells one kind of framed file from another.

    name: in messages. magic: the file's first 8 bytes. version: the newest format version that is
    known. frames: the frame kinds it may have. scope: mixed into its frames' checksums, behind the
    store id, so that a frame of another kind of file fails (F1).
    """

    name: str
    magic: bytes
    version: int
    frames: tuple[int, ...]
    scope: bytes


# The log's scope is empty: it was there first. Version 2 is version 1 with KIND_HISTORY.
LOG = FileKind("log", b"marramLG", 2, (KIND_BATCHES, KIND_MARK, KIND_HISTORY), b"")

# epoch of the last batch u64, history checksum u32
_HISTORY = struct.Struct("<QI")
HISTORY_SIZE = _HISTORY.size
START_SIZE = FILE_HEADER_SIZE + FRAME_HEADER_SIZE + HISTORY_SIZE
"""Of a log's header and first frame together, which are written and believed together."""


class LogStart(NamedTuple):
    """What history a log goes on from.

    epoch: of the last batch before the log, 0 where there is none; chain: the history checksum
    there; time_ms: the store's clock when the log was made.
    """

    epoch: int
    chain: int
    time_ms: int


class LogHeader(NamedTuple):
    """What the start of a log file says; a manifest has the same fields.

    previous_end: length of the previous log, bytes, all of it synced before this one was made; 0
    where there is none. base_sequence: the last sequence number before this log. start: None in a
    log of format 1, and in a manifest.
    """

    store_id: bytes
    number: int
    previous_end: int
    base_sequence: int
    epoch: int
    start: LogStart | None = None

    @property
    def history(self) -> tuple[int, int]:
        """(epoch of the last batch before the log, history checksum there).

        A log of format 1 does not know the checksum: it begins anew with 0.
        """
        if self.start is not None:
            return self.start.epoch, self.start.chain
        return (self.epoch if self.base_sequence else 0), 0


class FrameHeader(NamedTuple):
    """What the start of a frame says. synced: the file was durable up to this offset, bytes."""

    payload_size: int
    kind: int
    batch_count: int
    first_sequence: int
    epoch: int
    time_ms: int
    synced: int
    payload_checksum: int


def pack_header(header: LogHeader, kind: FileKind = LOG) -> bytes:
    """The file header's bytes, without the first frame (pack_start)."""
    version = kind.version if header.start is not None else 1
    fields = _FILE.pack(kind.magic, version, KIND_CRC32, 0, *header[:5], 0)[:_FILE_CHECKED]
    return fields + _U32.pack(crc32(fields, header.number & 0xFFFFFFFF))


def unpack_header(data: bytes, file_kind: FileKind = LOG) -> tuple[LogHeader | None, int]:
    """(header, format version); the header is None where the bytes are no intact header.

    A format version above file_kind.version comes with an intact header only: the checksum is in
    the same place in every version, so damage to the version field reads as damage.
    """
    if len(data) < FILE_HEADER_SIZE:
        return None, 0
    magic, version, kind, zero, store_id, number, end, sequence, epoch, checksum = _FILE.unpack(
        data[:FILE_HEADER_SIZE]
    )
    if magic != file_kind.magic or crc32(data[:_FILE_CHECKED], number & 0xFFFFFFFF) != checksum:
        return None, 0
    if version <= file_kind.version and (kind != KIND_CRC32 or zero):
        return None, 0
    return LogHeader(store_id, number, end, sequence, epoch), version


def pack_start(header: LogHeader) -> bytes:
    """A log's header and first frame, as the file begins; of format 1 the header alone."""
    if header.start is None:
        return pack_header(header)
    epoch, chain, time_ms = header.start
    frame = pack_frame(
        pack_history(epoch, chain), KIND_HISTORY, 0, header.base_sequence + 1, header.epoch,
        time_ms, 0, FILE_HEADER_SIZE, place_of(header, LOG),
    )  # fmt: skip
    return pack_header(header) + frame


def unpack_start(header: LogHeader, data: bytes) -> LogStart | None:
    """What the first frame of a log of format 2 says; None where it is not whole.

    data: the bytes behind the header.
    """
    seed = place_seed(header.number, FILE_HEADER_SIZE, place_of(header, LOG)[1])
    frame = unpack_frame_header(data, 0, FILE_HEADER_SIZE, seed, (KIND_HISTORY,))
    payload = data[FRAME_HEADER_SIZE : FRAME_HEADER_SIZE + HISTORY_SIZE]
    if frame is None or crc32(payload, seed) != frame.payload_checksum:
        return None
    if frame.first_sequence != header.base_sequence + 1:
        return None
    return LogStart(*unpack_history(payload), frame.time_ms)


def pack_history(epoch: int, chain: int) -> bytes:
    """The payload of a KIND_HISTORY frame: epoch of the last batch, history checksum."""
    return _HISTORY.pack(epoch, chain)


def unpack_history(payload: bytes) -> tuple[int, int]:
    """(epoch of the last batch, history checksum): HISTORY_SIZE bytes."""
    epoch, chain = _HISTORY.unpack(payload)
    return epoch, chain


def place_of(header: LogHeader, kind: FileKind) -> tuple[int, bytes]:
    """What the frames of a file mix into their checksums beside their offset (F1)."""
    return header.number, header.store_id + kind.scope


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
    """A frame's bytes, for `offset` of the file that place_of() gave `place` for."""
    seed = place_seed(place[0], offset, place[1])
    checksum = crc32(payload, seed)
    numbers = (kind, batch_count, first_sequence, epoch, time_ms, synced, seed, checksum)
    return bytes(frame_of(payload, *numbers))


def frame_of(
    payload: bytes,
    kind: int,
    batch_count: int,
    first_sequence: int,
    epoch: int,
    time_ms: int,
    synced: int,
    seed: int,
    payload_sum: int,
) -> bytes | bytearray:
    """pack_frame(), for the place whose seed it is (F1); payload_sum: crc32(payload, seed)."""
    head = frame_head(
        len(payload), kind, batch_count, first_sequence, epoch, time_ms, synced, seed, payload_sum
    )
    return head + payload


def frame_head(
    size: int,
    kind: int,
    batch_count: int,
    first_sequence: int,
    epoch: int,
    time_ms: int,
    synced: int,
    seed: int,
    payload_sum: int,
) -> bytes | bytearray:
    """The header of a frame_of() whose payload has `size` bytes."""
    if size > _SIZE_MAX:
        raise OverflowError(f"a frame of {size} bytes")
    if cython.compiled:
        header = bytearray(_HEADER_SIZE)
        put_head(
            header, size, kind, batch_count, first_sequence, epoch, time_ms, synced, seed,
            payload_sum,
        )  # fmt: skip
        return header
    fields = _FRAME.pack(
        FRAME_MAGIC, size, kind, KIND_CRC32, 0, batch_count, first_sequence, epoch,
        time_ms, synced, payload_sum, 0,
    )[:_FRAME_CHECKED]  # fmt: skip
    return fields + _U32.pack(crc32(fields, seed))


def put_head(
    memory: bytearray | memoryview,
    size: int,
    kind: int,
    batch_count: int,
    first_sequence: int,
    epoch: int,
    time_ms: int,
    synced: int,
    seed: int,
    payload_sum: int,
) -> None:
    """frame_head(), stored where the caller has room for it. Only ever compiled.

    Hot: struct packs a header in 0.4 us, eleven boxed numbers included; number by number C takes
    0.01.
    """
    put_u32(memory, 0, _MAGIC)
    put_u32(memory, 4, size)
    put_u32(memory, 8, kind | _CHECKSUM_KIND << 8)
    put_u32(memory, 12, batch_count)
    put_u64(memory, 16, first_sequence)
    put_u64(memory, 24, epoch)
    put_u64(memory, 32, time_ms)
    put_u64(memory, 40, synced)
    put_u32(memory, 48, payload_sum)
    put_u32(memory, 52, crc32_run(memory, 0, _FRAME_CHECKED, seed))


def unpack_frame_header(
    data: bytes, at: int, offset: int, seed: int, kinds: tuple[int, ...] = LOG.frames
) -> FrameHeader | None:
    """The frame header at data[at:], which lies at `offset` of its file; None where none is intact.

    seed: place_seed of that offset; kinds: the frame kinds that its file may have.
    """
    if len(data) - at < FRAME_HEADER_SIZE or not data.startswith(FRAME_MAGIC, at):
        return None
    fields = _FRAME.unpack_from(data, at)
    if crc32(data[at : at + _FRAME_CHECKED], seed) != fields[11]:
        return None
    _, size, kind, checksum_kind, zero, count, first, epoch, time_ms, synced, payload_sum, _ = (
        fields
    )
    known = kind in kinds and checksum_kind == KIND_CRC32 and zero == 0
    if not known or synced > offset or (kind == KIND_MARK and (size or count)):
        return None
    if kind == KIND_HISTORY and (size != HISTORY_SIZE or count):
        return None
    return FrameHeader(size, kind, count, first, epoch, time_ms, synced, payload_sum)
