"""Reading a log back: every whole frame in order, then the verdict on how it ends.

Owns frame validation and the verdict; not what is done about it (storage/recovery.py).

R1  a batch is returned only if both checksums of its frame match and it continues the sequence.
R2  bytes that some promise says were synced are never taken for a torn tail: a promise is a later
    frame's `synced`, the next log's `previous_end`, or the clean close noted in LOCK. Damage there
    is Corruption with file and offset.
R3  memory is bounded by the largest intact frame; a length is believed only after its checksum.

Source of R2: Pebble's sync chunks. Without a promise a bad last frame is a torn tail, so damage
to the very last group before a crash is the one case that cannot be told apart.

Threading: one reader, of a file nobody writes (or of its prefix below `limit`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from marram.coding.batch import Change, batch_end, decode
from marram.coding.checksum import crc32, place_seed
from marram.env.api import File
from marram.errors import Corruption, UnsupportedFormat
from marram.storage.log.format import (
    FILE_HEADER_SIZE,
    FORMAT_VERSION,
    FRAME_HEADER_SIZE,
    FRAME_MAGIC,
    FrameHeader,
    LogHeader,
    unpack_frame_header,
    unpack_log_header,
)

_READ_SIZE = 1024 * 1024


class Batch(NamedTuple):
    """One batch out of the log."""

    sequence: int
    epoch: int
    time_ms: int
    changes: list[Change]


def read_log_header(file: File) -> LogHeader | None:
    """The header of a log file, or None for one that was never finished: no header, all zeros.

    Raises Corruption: a damaged header over frames; UnsupportedFormat: a newer version.
    """
    data = file.read(FILE_HEADER_SIZE, 0)
    header, version = unpack_log_header(data)
    if header is None:
        # A log's header is durable before its first frame is written: so a file without one holds
        # nothing unless it was damaged.
        if _all_zero(file, FILE_HEADER_SIZE):
            return None
        raise Corruption("the log's header is damaged", file.path, 0)
    if version > FORMAT_VERSION:
        raise UnsupportedFormat(
            f"{file.path}: log format {version}; this marram reads up to {FORMAT_VERSION}"
        )
    if version < 1:
        raise Corruption(f"log format {version}", file.path, 8)
    return header


class LogReader:
    """Iterate a log's batches; then `end` and `tail` tell how it ended.

    promised: the offset some promise from outside says was synced, bytes.
    limit: read no further than this (a log still being written), bytes.
    """

    def __init__(
        self, file: File, header: LogHeader, promised: int = 0, limit: int | None = None
    ) -> None:
        self._file = file
        self._size = file.size() if limit is None else limit
        self._number = header.number
        self._store_id = header.store_id
        self._promised = promised
        self._window = b""
        self._window_at = 0
        self.last_sequence = header.base_sequence
        self.epoch = header.epoch
        self.time_ms = 0
        self.end = FILE_HEADER_SIZE  # the end of the last whole frame
        self.tail = 0  # bytes that are not zero after it: what a cut takes away

    def __iter__(self) -> Iterator[Batch]:
        """The batches in order. Raises Corruption."""
        while True:
            header = self._frame_header(self.end)
            payload = None if header is None else self._payload(header)
            if header is None or payload is None:
                self._judge_tail()
                return
            self.time_ms = max(self.time_ms, header.time_ms)
            self.epoch = header.epoch
            start = self.end
            yield from self._batches(header, payload, start)
            self.end = start + FRAME_HEADER_SIZE + header.payload_size

    def _batches(self, header: FrameHeader, payload: bytes, start: int) -> Iterator[Batch]:
        """Take a frame apart. Its checksums match, so anything odd inside is Corruption."""
        if header.first_sequence != self.last_sequence + 1:
            raise Corruption(
                f"batch {header.first_sequence} follows {self.last_sequence}",
                self._file.path,
                start,
            )
        at = 0
        for _ in range(header.batch_count):
            try:
                end = batch_end(payload, at, len(payload))
                changes = decode(payload, at, end)
            except ValueError as error:
                where = start + FRAME_HEADER_SIZE + at
                raise Corruption(str(error), self._file.path, where) from None
            at = end
            self.last_sequence += 1
            yield Batch(self.last_sequence, header.epoch, header.time_ms, changes)
        if at != len(payload):
            raise Corruption("bytes after the last batch", self._file.path, start)

    # -- how it ends -----------------------------------------------------------------------------

    def _judge_tail(self) -> None:
        """Decide what the first bad frame is (R2). Raises Corruption."""
        if self._promised > self.end:
            raise Corruption(
                f"a frame is damaged or missing; the log was synced up to {self._promised}",
                self._file.path,
                self.end,
            )
        at = self.end
        last_nonzero = at
        while at < self._size:
            # Overlap the reads by a header, so that none is missed at a seam.
            data = self._file.read(min(_READ_SIZE, self._size - at) + FRAME_HEADER_SIZE, at)
            stripped = data.rstrip(b"\0")
            if stripped:
                last_nonzero = at + len(stripped)
                self._search_promise(stripped + b"\0" * FRAME_HEADER_SIZE, at)
            at += _READ_SIZE
        self.tail = max(0, min(last_nonzero, self._size) - self.end)

    def _search_promise(self, data: bytes, base: int) -> None:
        found = data.find(FRAME_MAGIC)
        while found >= 0:
            offset = base + found
            seed = place_seed(self._number, offset, self._store_id)
            header = unpack_frame_header(data, found, offset, seed)
            if header is not None and header.synced > self.end:
                raise Corruption(
                    f"a frame is damaged; the frame at {offset} says the log was synced "
                    f"up to {header.synced}",
                    self._file.path,
                    self.end,
                )
            found = data.find(FRAME_MAGIC, found + 1)

    # -- bytes -----------------------------------------------------------------------------------

    def _frame_header(self, offset: int) -> FrameHeader | None:
        if self._size - offset < FRAME_HEADER_SIZE:
            return None
        data, at = self._bytes(offset, FRAME_HEADER_SIZE)
        seed = place_seed(self._number, offset, self._store_id)
        return unpack_frame_header(data, at, offset, seed)

    def _payload(self, header: FrameHeader) -> bytes | None:
        start = self.end + FRAME_HEADER_SIZE
        if header.payload_size > self._size - start:
            return None
        data, at = self._bytes(start, header.payload_size)
        payload = data[at : at + header.payload_size]
        seed = place_seed(self._number, self.end, self._store_id)
        return payload if crc32(payload, seed) == header.payload_checksum else None

    def _bytes(self, offset: int, size: int) -> tuple[bytes, int]:
        """A buffer that holds [offset, offset + size) where the file does, and where in it."""
        at = offset - self._window_at
        if at < 0 or at + size > len(self._window):
            self._window = self._file.read(max(size, _READ_SIZE), offset)
            self._window_at = offset
            at = 0
        return self._window, at


def _all_zero(file: File, start: int) -> bool:
    size = file.size()
    for at in range(start, size, _READ_SIZE):
        if file.read(_READ_SIZE, at).strip(b"\0"):
            return False
    return True
