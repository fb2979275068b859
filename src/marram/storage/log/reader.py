"""Reading a log back: every whole frame in order, then the verdict on how it ends.

Owns frame validation and the verdict (FrameReader: a manifest is read by it as well), and taking
the log's frames apart; not what is done about a verdict (storage/recovery.py).

R1  a batch is returned only if both checksums of its frame match and it continues the sequence.
R2  bytes that some promise says were synced are never taken for a torn tail: a promise is a later
    frame's `synced`, the next log's `previous_end`, or the clean close noted in LOCK. Damage there
    is Corruption with file and offset.
R3  memory is bounded by the largest intact frame; a length is believed only after its checksum.
R4  what the log says of its history (KIND_HISTORY) is what its batches come to.

Source of R2: Pebble's sync chunks. Without a promise a bad last frame is a torn tail, so damage
to the very last group before a crash is the one case that cannot be told apart.

Threading: one reader, of a file nobody writes (or of its prefix below `limit`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from marram.coding.batch import Change, batch_end, decode
from marram.coding.checksum import crc32, place_seed
from marram.env.api import File
from marram.errors import Corruption, UnsupportedFormat
from marram.storage.log.format import (
    FILE_HEADER_SIZE,
    FRAME_HEADER_SIZE,
    FRAME_MAGIC,
    HISTORY_SIZE,
    KIND_HISTORY,
    KIND_MARK,
    LOG,
    FileKind,
    FrameHeader,
    LogHeader,
    place_of,
    unpack_frame_header,
    unpack_header,
    unpack_history,
    unpack_start,
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
    header, version = _read_header(file, LOG)
    if header is None or version < 2:
        return header
    start = unpack_start(header, file.read(FRAME_HEADER_SIZE + HISTORY_SIZE, FILE_HEADER_SIZE))
    if start is None:
        # Written and synced with the header, before anything else.
        if _all_zero(file, FILE_HEADER_SIZE):
            return None
        raise Corruption("the log's first frame is damaged", file.path, FILE_HEADER_SIZE)
    return header._replace(start=start)


def read_header(file: File, kind: FileKind) -> LogHeader | None:
    """The header of any kind of framed file, likewise; of a log without what follows it."""
    return _read_header(file, kind)[0]


def _read_header(file: File, kind: FileKind) -> tuple[LogHeader | None, int]:
    """(header, format version)."""
    data = file.read(FILE_HEADER_SIZE, 0)
    header, version = unpack_header(data, kind)
    if header is None:
        # A log's header is durable before its first frame is written: so a file without one holds
        # nothing unless it was damaged.
        if _all_zero(file, FILE_HEADER_SIZE):
            return None, 0
        raise Corruption(f"the {kind.name}'s header is damaged", file.path, 0)
    if version > kind.version:
        raise UnsupportedFormat(
            f"{file.path}: {kind.name} format {version}; this marram reads up to {kind.version}"
        )
    if version < 1:
        raise Corruption(f"{kind.name} format {version}", file.path, 8)
    return header, version


class FrameReader:
    """A file's frames; then `end` and `tail` tell how it ended.

    promised: the offset some promise from outside says was synced, bytes.
    limit: read no further than this (a file still being written), bytes.
    """

    def __init__(
        self,
        file: File,
        kind: FileKind,
        header: LogHeader,
        promised: int = 0,
        limit: int | None = None,
    ) -> None:
        self._file = file
        self._kind = kind
        self._size = file.size() if limit is None else limit
        self._number, self._owner = place_of(header, kind)
        self._promised = promised
        self._window = b""
        self._window_at = 0
        self.end = FILE_HEADER_SIZE  # the end of the last whole frame
        self.tail = 0  # bytes that are not zero after it: what a cut takes away

    def frames(self) -> Iterator[tuple[FrameHeader, bytes]]:
        """Whole frames in order, each with its payload, then the verdict. Raises Corruption.

        While a frame is out, `end` is where it starts.
        """
        while (frame := self._frame()) is not None:
            yield frame
            self.end += FRAME_HEADER_SIZE + frame[0].payload_size
        self._judge_tail()

    # -- how it ends -----------------------------------------------------------------------------

    def _judge_tail(self) -> None:
        """Decide what the first bad frame is (R2). Raises Corruption."""
        if self._promised > self.end:
            raise Corruption(
                f"a frame is damaged or missing; the {self._kind.name} was synced "
                f"up to {self._promised}",
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
            seed = place_seed(self._number, offset, self._owner)
            header = unpack_frame_header(data, found, offset, seed, self._kind.frames)
            if header is not None and header.synced > self.end:
                raise Corruption(
                    f"a frame is damaged; the frame at {offset} says the {self._kind.name} was "
                    f"synced up to {header.synced}",
                    self._file.path,
                    self.end,
                )
            found = data.find(FRAME_MAGIC, found + 1)

    # -- bytes -----------------------------------------------------------------------------------

    def _frame(self) -> tuple[FrameHeader, bytes] | None:
        """The frame at `end`; None where none is whole."""
        start = self.end
        left = self._size - start - FRAME_HEADER_SIZE
        if left < 0:
            return None
        data, at = self._bytes(start, FRAME_HEADER_SIZE)
        seed = place_seed(self._number, start, self._owner)
        header = unpack_frame_header(data, at, start, seed, self._kind.frames)
        if header is None or header.payload_size > left:
            return None
        size = header.payload_size
        data, at = self._bytes(start + FRAME_HEADER_SIZE, size)
        payload = data[at : at + size]
        return (header, payload) if crc32(payload, seed) == header.payload_checksum else None

    def _bytes(self, offset: int, size: int) -> tuple[bytes, int]:
        """A buffer that holds [offset, offset + size) where the file does, and where in it."""
        at = offset - self._window_at
        if at < 0 or at + size > len(self._window):
            self._window = self._file.read(max(size, _READ_SIZE), offset)
            self._window_at = offset
            at = 0
        return self._window, at


class LogReader(FrameReader):
    """Iterate a log's batches; then `end` and `tail` tell how it ended.

    promised, limit: as FrameReader has them. chain_at: the history checksum after that batch is
    wanted as well, in `noted_chain`; None there where the log has not got it.
    """

    def __init__(
        self,
        file: File,
        header: LogHeader,
        promised: int = 0,
        limit: int | None = None,
        chain_at: int = -1,
    ) -> None:
        super().__init__(file, LOG, header, promised, limit)
        self.last_sequence = header.base_sequence
        self.epoch = header.epoch
        self.time_ms = 0
        self.batch_epoch, self.chain = header.history  # of the last batch
        self._chain_at = chain_at
        self.noted_chain = self.chain if chain_at == header.base_sequence else None

    def __iter__(self) -> Iterator[Batch]:
        """The batches in order. Raises Corruption."""
        for header, payload in self.frames():
            self.time_ms = max(self.time_ms, header.time_ms)
            # A replica's frames have their own epoch, and may follow a mark of a higher one.
            self.epoch = max(self.epoch, header.epoch)
            if header.kind == KIND_HISTORY:
                self._check_history(header, payload)
                continue
            if header.batch_count:
                self._fold(header, payload)
            yield from self._batches(header, payload, self.end)

    def _fold(self, header: FrameHeader, payload: bytes) -> None:
        """Bring the history checksum to the end of a frame."""
        wanted = self._chain_at - header.first_sequence + 1
        if 0 < wanted <= header.batch_count:
            with suppress(ValueError):  # what is wrong is told where the frame is taken apart
                self.noted_chain = crc32(payload[: end_of(payload, wanted)], self.chain)
        self.chain = crc32(payload, self.chain)
        self.batch_epoch = header.epoch

    def _check_history(self, header: FrameHeader, payload: bytes) -> None:
        """Compare what the log says of its history with what was read (R4)."""
        found = (self.last_sequence + 1, self.batch_epoch, self.chain)
        if (header.first_sequence, *unpack_history(payload)) != found:
            raise Corruption(
                f"the history up to batch {self.last_sequence} is not the one that was written",
                self._file.path,
                self.end,
            )

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


def ends_before(file: File, header: LogHeader, following: LogHeader) -> bool:
    """Whether a log, by its last frame, ends where `following` says that it begins.

    Reads that frame only. Raises OSError.
    """
    if header.store_id != following.store_id:
        return False
    kind, payload_size = (KIND_MARK, 0) if header.start is None else (KIND_HISTORY, HISTORY_SIZE)
    offset = following.previous_end - FRAME_HEADER_SIZE - payload_size
    data = file.read(FRAME_HEADER_SIZE + payload_size, max(offset, 0))
    number, owner = place_of(header, LOG)
    seed = place_seed(number, offset, owner)
    frame = unpack_frame_header(data, 0, offset, seed, (kind,))
    if frame is None or frame.first_sequence != following.base_sequence + 1:
        return False
    payload = data[FRAME_HEADER_SIZE:]
    if crc32(payload, seed) != frame.payload_checksum:
        return False
    return kind == KIND_MARK or unpack_history(payload) == following.history


def end_of(payload: bytes, count: int) -> int:
    """Where the first `count` batches of a frame's payload end. Raises ValueError: it has less."""
    at = 0
    for _ in range(count):
        at = batch_end(payload, at, len(payload))
    return at


def _all_zero(file: File, start: int) -> bool:
    size = file.size()
    for at in range(start, size, _READ_SIZE):
        if file.read(_READ_SIZE, at).strip(b"\0"):
            return False
    return True
