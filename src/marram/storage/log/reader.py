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
from marram.coding.checksum import (
    KIND_CRC32,
    crc32,
    crc32_short,
    number_seed,
    place_seed,
    place_start,
)
from marram.coding.fields import u32, u64
from marram.compiled import state
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

_COMPILED = state() == "compiled"

_READ_SIZE = 1024 * 1024

# What _next() needs of the format, in names whose types are known to C (reader.pxd).
_HEADER_SIZE = FRAME_HEADER_SIZE
_CHECKED = _HEADER_SIZE - 4  # bytes of a frame's header that its checksum covers
_MAGIC = int.from_bytes(FRAME_MAGIC, "little")
_CRC32, _MARK = KIND_CRC32, KIND_MARK
_HISTORY, _HISTORY_SIZE = KIND_HISTORY, HISTORY_SIZE
_SEQUENCE_LIMIT = 2**63  # sequence numbers are below it


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
        self._kinds = sum(1 << number for number in kind.frames)  # a bit for each
        self._size = file.size() if limit is None else limit
        self._number, self._owner = place_of(header, kind)
        self._place = place_start(self._number, self._owner)
        self._promised = promised
        self._window = b""
        self._window_at = 0
        self.end = FILE_HEADER_SIZE  # the end of the last whole frame
        self.tail = 0  # bytes that are not zero after it: what a cut takes away
        # The frame at `end`, once _next() has found one: its fields, and where its payload is in
        # the window.
        self._frame_kind = 0
        self._count = 0
        self._first = 0
        self._frame_epoch = 0
        self._frame_ms = 0
        self._synced = 0
        self._checksum = 0
        self._start = 0
        self._stop = 0

    def frames(self) -> Iterator[tuple[FrameHeader, bytes]]:
        """Whole frames in order, each with its payload, then the verdict. Raises Corruption.

        While a frame is out, `end` is where it starts.
        """
        while self._next():
            size = self._stop - self._start
            header = FrameHeader(
                size, self._frame_kind, self._count, self._first, self._frame_epoch,
                self._frame_ms, self._synced, self._checksum,
            )  # fmt: skip
            yield header, self._window[self._start : self._stop]
            self.end += _HEADER_SIZE + size
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

    def _next(self) -> bool:
        """Take the frame at `end` into the fields; False where none is whole.

        Hot: 0.1 us a frame, where an object for each of its parts took 2.5.
        """
        start = self.end
        left = self._size - start - _HEADER_SIZE
        if left < 0:
            return False
        at = self._reach(start, _HEADER_SIZE)
        seed = number_seed(start, self._place)
        if not self._take_header(at, start, seed):
            return False
        size = self._stop  # of the payload, so far
        if size > left:
            return False
        self._start = self._reach(start + _HEADER_SIZE, size)
        self._stop = self._start + size
        if self._stop > len(self._window):
            return False  # the file ended sooner than it said
        return crc32_short(self._window, self._start, self._stop, seed) == self._checksum

    def _take_header(self, at: int, start: int, seed: int) -> bool:
        """Take the fields of the frame header at window[at:]; False where none is intact.

        `_stop` is the payload's size then. seed: of its place. What an intact one is says
        format.unpack_frame_header(); compiled, the same is read in place.
        """
        window = self._window
        if not _COMPILED:
            header = unpack_frame_header(window, at, start, seed, self._kind.frames)
            if header is None:
                return False
            (
                self._stop, self._frame_kind, self._count, self._first, self._frame_epoch,
                self._frame_ms, self._synced, self._checksum,
            ) = header  # fmt: skip
            return True
        if len(window) - at < _HEADER_SIZE or u32(window, at) != _MAGIC:
            return False
        if crc32_short(window, at, at + _CHECKED, seed) != u32(window, at + _CHECKED):
            return False
        numbers = u32(window, at + 8)  # kind, checksum kind, and 16 bits of zeros
        kind = numbers & 0xFF
        self._frame_kind = kind
        self._stop = u32(window, at + 4)
        self._count = u32(window, at + 12)
        self._first = u64(window, at + 16)
        self._frame_epoch = u64(window, at + 24)
        self._frame_ms = u64(window, at + 32)
        self._synced = u64(window, at + 40)
        self._checksum = u32(window, at + 48)
        if numbers >> 8 != _CRC32 or kind >= 32 or not self._kinds >> kind & 1:
            return False
        if self._synced > start:
            return False
        if kind == _HISTORY:
            return self._stop == _HISTORY_SIZE and self._count == 0
        return kind != _MARK or (self._stop == 0 and self._count == 0)

    def _reach(self, offset: int, size: int) -> int:
        """Have [offset, offset + size) in the window, where the file does; where it is there."""
        at = offset - self._window_at
        if at < 0 or at + size > len(self._window):
            self._window = self._file.read(max(size, _READ_SIZE), offset)
            self._window_at = offset
            at = 0
        return at


class BatchSink:
    """What takes the batches of a log, still encoded; this one only checks them."""

    def take(self, buffer: bytes, start: int, stop: int, sequence: int) -> None:
        """Take the batch in buffer[start:stop], which ends there by its own size.

        Raises ValueError: it is malformed.
        """
        decode(buffer, start, stop)

    def finish(self) -> None:
        """There are no more."""


class _Decoded(BatchSink):
    """Keeps them, decoded."""

    def __init__(self, epoch: int, time_ms: int) -> None:
        self.batches: list[Batch] = []
        self._epoch = epoch
        self._time_ms = time_ms

    def take(self, buffer: bytes, start: int, stop: int, sequence: int) -> None:
        changes = decode(buffer, start, stop)
        self.batches.append(Batch(sequence, self._epoch, self._time_ms, changes))


class LogReader(FrameReader):
    """Iterate a log's batches, or replay() them; then `end` and `tail` tell how it ended.

    promised, limit: as FrameReader has them. chain_at: the history checksum after that batch is
    wanted as well, in `noted_chain`; None there where the log has not got it. Raises Corruption:
    the header's sequence number is beyond all.
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
        if header.base_sequence >= _SEQUENCE_LIMIT:
            raise Corruption(f"sequence number {header.base_sequence}", file.path, 0)
        self.last_sequence = header.base_sequence
        self.epoch = header.epoch
        self.time_ms = 0
        self.batch_epoch, self.chain = header.history  # of the last batch
        self._chain_at = chain_at
        self.noted_chain = self.chain if chain_at == header.base_sequence else None

    def __iter__(self) -> Iterator[Batch]:
        """The batches in order. Raises Corruption."""
        while self._next():
            if self._enter():
                frame = _Decoded(self._frame_epoch, self._frame_ms)
                self._take_apart(frame, 0)
                yield from frame.batches
            self.end += _HEADER_SIZE + self._stop - self._start
        self._judge_tail()

    def replay(self, sink: BatchSink, after: int) -> int:
        """Hand the batches that come after sequence number `after` to `sink`, in order.

        Returns how many. Raises Corruption, and what the sink raises but ValueError.
        """
        count = 0
        while self._next():
            if self._enter():
                count += self._take_apart(sink, after)
            self.end += _HEADER_SIZE + self._stop - self._start
        self._judge_tail()
        return count

    def _enter(self) -> bool:
        """Note what the present frame says; whether there is more in it."""
        self.time_ms = max(self.time_ms, self._frame_ms)
        # A replica's frames have their own epoch, and may follow a mark of a higher one.
        self.epoch = max(self.epoch, self._frame_epoch)
        if self._frame_kind == _HISTORY:
            self._check_history()
            return False
        if self._count:
            self._fold()
        return True

    def _fold(self) -> None:
        """Bring the history checksum to the end of the frame."""
        wanted = self._chain_at - self._first + 1
        if 0 < wanted <= self._count:
            payload = self._window[self._start : self._stop]
            with suppress(ValueError):  # what is wrong is told where the frame is taken apart
                self.noted_chain = crc32(payload[: end_of(payload, wanted)], self.chain)
        self.chain = crc32_short(self._window, self._start, self._stop, self.chain)
        self.batch_epoch = self._frame_epoch

    def _check_history(self) -> None:
        """Compare what the log says of its history with what was read (R4)."""
        payload = self._window[self._start : self._stop]
        found = (self.last_sequence + 1, self.batch_epoch, self.chain)
        if (self._first, *unpack_history(payload)) != found:
            raise Corruption(
                f"the history up to batch {self.last_sequence} is not the one that was written",
                self._file.path,
                self.end,
            )

    def _take_apart(self, sink: BatchSink, after: int) -> int:
        """Hand a frame's batches over. Its checksums match, so anything odd in it is Corruption."""
        sequence = self.last_sequence
        if self._first != sequence + 1:
            raise Corruption(f"batch {self._first} follows {sequence}", self._file.path, self.end)
        window, at, stop = self._window, self._start, self._stop
        handed = 0
        for _ in range(self._count):
            try:
                end = batch_end(window, at, stop)
                if sequence >= after:
                    sink.take(window, at, end, sequence + 1)
                    handed += 1
                else:
                    decode(window, at, end)
            except ValueError as error:
                where = self.end + _HEADER_SIZE + at - self._start
                raise Corruption(str(error), self._file.path, where) from None
            at = end
            sequence += 1
            self.last_sequence = sequence
        if at != stop:
            raise Corruption("bytes after the last batch", self._file.path, self.end)
        return handed


def ends_before(file: File, header: LogHeader, following: LogHeader) -> bool:
    """Whether a log, by its last frame, ends where `following` says that it begins.

    Reads that frame only. Raises OSError.
    """
    if header.store_id != following.store_id:
        return False
    kind, payload_size = (KIND_MARK, 0) if header.start is None else (KIND_HISTORY, HISTORY_SIZE)
    offset = following.previous_end - FRAME_HEADER_SIZE - payload_size
    if offset < FILE_HEADER_SIZE:
        return False
    data = file.read(FRAME_HEADER_SIZE + payload_size, offset)
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
