"""Reading a log beside its writer: frame after frame, up to where it is known to be whole.

Owns validation without a verdict: below its limit everything was promised, so whatever is wrong
there is damage; not which logs there are and how far they reach (storage/history.py).

L1  a frame is returned only if both checksums match, it continues the sequence, and the history
    checksum is right wherever the log says what it is.
L2  nothing beyond the limit is read, and no more at a time than was asked for, or one frame.

Threading: one reader; the file may grow meanwhile.
"""

from __future__ import annotations

from typing import NamedTuple

from marram.coding.checksum import crc32, number_seed, place_start, reseeded
from marram.env.api import File
from marram.errors import Corruption
from marram.storage.log.format import (
    FILE_HEADER_SIZE,
    FRAME_HEADER_SIZE,
    KIND_HISTORY,
    LOG,
    FrameHeader,
    LogHeader,
    place_of,
    unpack_frame_header,
    unpack_history,
)
from marram.storage.log.reader import end_of

_READ_MAX = 1024 * 1024


class Frame(NamedTuple):
    """Batches that shared a sync. payload: their bytes (coding/batch.py), one after another.

    chain: the history checksum behind them, by somebody who compared it with the payload; None:
    nobody has.
    """

    first_sequence: int
    count: int  # type: ignore[assignment]  # of tuple, which a frame is not used as
    epoch: int
    time_ms: int
    payload: bytes
    chain: int | None = None

    @property
    def last_sequence(self) -> int:
        """Of its batches."""
        return self.first_sequence + self.count - 1


class Place(NamedTuple):
    """Between two frames of a log: the offset there, and the last batch before it."""

    offset: int
    sequence: int
    epoch: int
    chain: int


class LogScan:
    """The frames of one log, from a place on."""

    def __init__(self, file: File, header: LogHeader, place: Place | None = None) -> None:
        """place: where to begin; None for the log's beginning."""
        self.file = file
        if place is None:
            place = Place(FILE_HEADER_SIZE, header.base_sequence, *header.history)
        self.offset, self.sequence, self.epoch, self.chain = place
        self._place = place_start(*place_of(header, LOG))  # of the file
        self._window = b""
        self._window_at = 0

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(self.offset, self.sequence, self.epoch, self.chain)

    def next(self, limit: int, room: int | None = None, ahead: int = _READ_MAX) -> Frame | None:
        """The next frame of batches; None at the limit, or where it has more than `room` bytes.

        limit: up to where the log is known to be whole; ahead: how much will be wanted, bytes.
        Raises Corruption, OSError.
        """
        while self.offset < limit:
            seed = number_seed(self.offset, self._place)
            header = self._header(limit, ahead, seed)
            size, kind, count, first, epoch, time_ms, _, checksum = header
            if count and room is not None and size > room:
                return None
            payload = self._payload(size, seed, checksum)
            self._check(kind, first, payload)
            self.offset += FRAME_HEADER_SIZE + size
            if count:
                self.chain = reseeded(payload, checksum, seed, self.chain)
                self.epoch = epoch
                self.sequence += count
                return Frame(first, count, epoch, time_ms, payload, self.chain)
        return None

    # -- private -----------------------------------------------------------------------------------

    def _header(self, limit: int, ahead: int, seed: int) -> FrameHeader:
        """The header of the frame at `offset`."""
        left = limit - self.offset
        if left < FRAME_HEADER_SIZE:
            raise self._damaged("a frame is cut short")
        ahead = min(left, max(ahead, 0) + FRAME_HEADER_SIZE, _READ_MAX)
        data, at = self._bytes(self.offset, FRAME_HEADER_SIZE, ahead)
        header = unpack_frame_header(data, at, self.offset, seed, LOG.frames)
        if header is None or header.payload_size > left - FRAME_HEADER_SIZE:
            raise self._damaged("a frame is damaged, in a part of the log that was synced")
        return header

    def _payload(self, size: int, seed: int, checksum: int) -> bytes:
        """The payload of the frame at `offset`."""
        data, at = self._bytes(self.offset + FRAME_HEADER_SIZE, size, size)
        payload = data[at : at + size]
        if crc32(payload, seed) != checksum:
            raise self._damaged("a frame is damaged, in a part of the log that was synced")
        return payload

    def _check(self, kind: int, first: int, payload: bytes) -> None:
        """Compare a frame with what came before it (L1)."""
        if first != self.sequence + 1:
            raise self._damaged(f"batch {first} follows {self.sequence}")
        if kind == KIND_HISTORY and unpack_history(payload) != (self.epoch, self.chain):
            raise self._damaged(
                f"the history up to batch {self.sequence} is not the one that was written"
            )

    def _bytes(self, offset: int, size: int, ahead: int) -> tuple[bytes, int]:
        """A buffer that holds [offset, offset + size), and where in it; reads `ahead` if it has to.

        What was read stays as it is: nothing below the limit changes any more.
        """
        at = offset - self._window_at
        if at < 0 or at + size > len(self._window):
            self._window = self.file.read(max(size, ahead), offset)
            self._window_at = offset
            at = 0
        return self._window, at

    def _damaged(self, message: str) -> Corruption:
        return Corruption(message, self.file.path, self.offset)


def rest_of(frame: Frame, sequence: int) -> Frame:
    """The part of a frame behind that batch, which is before its last. Raises ValueError."""
    skipped = sequence - frame.first_sequence + 1
    if skipped <= 0:
        return frame
    payload = frame.payload[end_of(frame.payload, skipped) :]
    return frame._replace(first_sequence=sequence + 1, count=frame.count - skipped, payload=payload)


def chain_within(frame: Frame, sequence: int, chain: int) -> int:
    """The history checksum after that batch of a frame; chain: before the frame.

    Raises ValueError.
    """
    end = end_of(frame.payload, sequence - frame.first_sequence + 1)
    folded: int = crc32(frame.payload[:end], chain)
    return folded
