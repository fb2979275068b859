"""The history at hand: which batches the logs still have, what they come to, and reading them.

Owns which logs are kept though recovery does not need them (for replicas that are behind), the
history checksum at any position they reach, and reading on from one; not the files' bytes (log/),
nor removing them (generations.py).

The history of a store is its batches in order. Two histories agree up to a position exactly where
the epoch of that batch and the history checksum after it are the same (Mark).

Q1  the kept logs are those that follow one another without a gap, up to the present one.
Q2  what is read is durable, as the store's durability asks, and checked: damage is Corruption with
    file and offset, and nothing from there on is given out.
Q3  a log that recovery needs is never let go; of the others the oldest go first, when they have
    more than replica_log_bytes, or are older than replica_log_age_s and no follower needs them.

Threading: any thread; `_lock` guards which logs there are. A LogTail is one reader's.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from weakref import WeakSet

from marram.coding.checksum import crc32
from marram.env.api import Env, File
from marram.errors import Corruption, InvalidArgument, LogGone
from marram.storage import layout
from marram.storage.commit import CommitQueue, Point
from marram.storage.log.format import LogHeader
from marram.storage.log.tail import Frame, LogScan, Place, chain_within, rest_of
from marram.storage.options import Options

_logger = logging.getLogger("marram.store")

_NOTED_EVERY = 1024 * 1024  # bytes of a log between places that are remembered


class Mark(NamedTuple):
    """A position, and what the history up to it comes to.

    epoch: of the batch `sequence`; chain: the history checksum after it. All 0 before the first.
    """

    epoch: int
    sequence: int
    chain: int


def mark_of(unwritten: tuple[Point, list[bytes], int], sequence: int) -> Mark:
    """The mark of the newest batch that was appended: CommitQueue.unwritten(), and its position."""
    point, pieces, epoch = unwritten
    chain = point[-1]
    for piece in pieces:
        chain = crc32(piece, chain)
    return Mark(epoch, sequence, chain)


class KeptLog:
    """A log of the history."""

    __slots__ = ("end", "ended_ms", "header", "is_trimmed", "places")

    def __init__(self, header: LogHeader) -> None:
        self.header = header
        self.end: int | None = None  # bytes; None for the one being written
        self.ended_ms = 0  # by the store's clock, where it ended
        self.is_trimmed = False  # its file is known to be no longer than that
        self.places: list[Place] = []  # some of those that were passed, ascending

    @property
    def base(self) -> Mark:
        """The position it goes on from."""
        epoch, chain = self.header.history
        return Mark(epoch, self.header.base_sequence, chain)


class History:
    """The history of one open store."""

    def __init__(
        self,
        env: Env,
        directory: str,
        options: Options,
        commit: CommitQueue,
        headers: Sequence[LogHeader],
    ) -> None:
        """headers: of the kept logs, ascending, the present one last (Q1)."""
        self._env = env
        self._directory = directory
        self._limit_bytes = options.replica_log_bytes
        self._limit_ms = options.replica_log_age_s * 1000
        self._commit = commit
        self._lock = threading.Lock()
        self._logs: list[KeptLog] = []  # guarded by _lock, as all below
        self._holds: dict[str, int] = {}
        self._tails: WeakSet[LogTail] = WeakSet()
        self._spoiled: list[int] = []  # damaged, to be removed, with all before them
        self._first_live = 0  # the log that recovery begins with
        self._dropped = 0
        self._dropped_needed = 0
        for header in headers:
            self._follow(header)

    # -- what there is -----------------------------------------------------------------------------

    @property
    def oldest(self) -> int:
        """The position before which the log is gone: all batches after it can be read."""
        with self._lock:
            return self._logs[0].header.base_sequence

    def newest(self) -> Mark:
        """Of the newest batch that is as durable as the options ask."""
        _, _, sequence, epoch, chain = self._commit.point
        return Mark(epoch, sequence, chain)

    def mark(self, sequence: int) -> Mark | None:
        """Of a batch; None where the log at hand does not reach there.

        It may have to read a log up to there. Raises Corruption, OSError.
        """
        if sequence == self.newest().sequence:
            return self.newest()
        try:
            log, limit = self._log_of(sequence)
        except (LogGone, InvalidArgument):
            return None
        if sequence == log.header.base_sequence:
            return log.base
        file = self._open(log)
        if file is None:
            return None
        try:
            scan, frame = self._scan_to(log, file, sequence, limit)
        finally:
            file.close()
        if frame is None:
            return Mark(scan.epoch, sequence, scan.chain)
        try:
            return Mark(frame.epoch, sequence, chain_within(frame, sequence, scan.chain))
        except ValueError as error:
            raise Corruption(str(error), file.path, scan.offset) from None

    def tail(self, after: int) -> LogTail:
        """Read the batches after position `after`, as they become durable.

        Raises LogGone: they are not there any more; InvalidArgument: that is beyond the newest;
        Corruption, OSError.
        """
        log, limit = self._log_of(after)
        file = self._opened(log)
        try:
            scan, _ = self._scan_to(log, file, after, limit)
        except BaseException:
            file.close()
            raise
        tail = LogTail(self, log, scan, after)
        with self._lock:
            self._tails.add(tail)
        return tail

    # -- who needs it ------------------------------------------------------------------------------

    def hold(self, name: str, after: int) -> None:
        """A follower needs the batches after that position; again whenever it got further."""
        with self._lock:
            self._holds[name] = after

    def unhold(self, name: str) -> None:
        """A follower is gone, or needs nothing."""
        with self._lock:
            self._holds.pop(name, None)

    def stats(self) -> dict[str, Any]:
        """Figures: bytes and logs are those kept beyond what recovery needs."""
        with self._lock:
            older = [log for log in self._logs if log.header.number < self._first_live]
            return {
                "oldest_sequence": self._logs[0].header.base_sequence,
                "kept_logs": len(older),
                "kept_bytes": sum(log.end or 0 for log in older),
                "limit_bytes": self._limit_bytes,
                "limit_age_s": self._limit_ms // 1000,
                "followers": dict(sorted(self._holds.items())),
                "dropped_logs": self._dropped,
                "dropped_while_needed": self._dropped_needed,
            }

    # -- for generations.py ------------------------------------------------------------------------

    @contextlib.contextmanager
    def switching(self, header: LogHeader) -> Iterator[None]:
        """Around the moment from which writers go on in another log, which may fail."""
        with self._lock:
            yield
            self._follow(header)

    @contextlib.contextmanager
    def restarting(self, header: LogHeader) -> Iterator[list[int]]:
        """Around the moment from which another history, that begins with that log, is the one here.

        Gives the numbers of all logs there were.
        """
        with self._lock:
            yield [*self._spoiled, *(log.header.number for log in self._logs)]
            self._logs = []
            self._spoiled = []
            self._first_live = header.number
            self._follow(header)

    def has_overdue(self, now_ms: int) -> bool:
        """Whether release() would let go of a log for its age."""
        with self._lock:
            log = self._logs[0]
            return log.header.number < self._first_live and self._is_overdue(log, now_ms)

    def release(self, first_live: int, now_ms: int) -> list[int]:
        """Let go of what is not to be kept (Q3); returns the numbers of logs to remove.

        first_live: the log that recovery begins with.
        """
        with self._lock:
            self._first_live = first_live
            removed, self._spoiled = self._spoiled, []
            kept_bytes = sum(log.end or 0 for log in self._logs if log.header.number < first_live)
            while self._logs[0].header.number < first_live:
                log = self._logs[0]
                if kept_bytes <= self._limit_bytes and not self._is_overdue(log, now_ms):
                    break
                kept_bytes -= log.end or 0
                removed.append(log.header.number)
                self._count_dropped(log)
                del self._logs[0]
        return removed

    def let_go(self, numbers: Sequence[int]) -> None:
        """These logs were removed: nobody keeps their space."""
        with self._lock:
            tails = [tail for tail in self._tails if tail._log.header.number in numbers]
        for tail in tails:
            with tail._lock:
                if tail._log.header.number in numbers:
                    tail._let_file_go()

    def untrimmed(self) -> list[tuple[int, int]]:
        """(number, end) of logs kept for replicas whose files may be longer; each is told once."""
        with self._lock:
            found = [
                log
                for log in self._logs
                if log.header.number < self._first_live and not log.is_trimmed
            ]
            for log in found:
                log.is_trimmed = True
            return [(log.header.number, log.end or 0) for log in found]

    # -- for LogTail -------------------------------------------------------------------------------

    def _limit_of(self, log: KeptLog) -> int:
        """Up to where a log may be read, bytes. Under _lock. Raises LogGone."""
        if log not in self._logs:
            raise _gone(log.header.base_sequence)
        if log.end is not None:
            return log.end
        number, end, *_ = self._commit.point
        return end if number == log.header.number else 0

    def _following(self, log: KeptLog) -> tuple[int, KeptLog | None]:
        """(up to where a log may be read, the next one if it ended). Raises LogGone."""
        with self._lock:
            limit = self._limit_of(log)
            ended = log.end is not None
            return limit, self._logs[self._logs.index(log) + 1] if ended else None

    def _passed(self, log: KeptLog, scan: LogScan) -> None:
        """Remember a place now and then, so that the next who looks for one near it finds it."""
        last = log.places[-1].offset if log.places else 0
        if scan.offset - last >= _NOTED_EVERY:
            place = scan.place
            with self._lock:
                if not log.places or log.places[-1].offset < place.offset:
                    log.places.append(place)

    def _spoil(self, log: KeptLog, error: Corruption) -> None:
        """A kept log is damaged: it, and those before it, are of no use to anybody (Q1)."""
        with self._lock:
            if log not in self._logs or log.header.number >= self._first_live:
                return  # recovery needs it: it is for the next opening, or verify, to say
            at = self._logs.index(log) + 1
            self._spoiled += [gone.header.number for gone in self._logs[:at]]
            del self._logs[:at]
        _logger.error("a log that was kept for replicas is dropped: %s", error)

    def _opened(self, log: KeptLog) -> File:
        """A log's file. Raises LogGone: it was removed meanwhile."""
        file = self._open(log)
        if file is None:
            raise _gone(log.header.base_sequence)
        return file

    def _open(self, log: KeptLog) -> File | None:
        """A log's file; None where it was removed meanwhile."""
        try:
            return self._env.open(layout.log_path(self._directory, log.header.number))
        except FileNotFoundError:
            return None

    # -- private -----------------------------------------------------------------------------------

    def _follow(self, header: LogHeader) -> None:
        """Add a log behind those there are."""
        if self._logs:
            last = self._logs[-1]
            last.end = header.previous_end
            last.ended_ms = 0 if header.start is None else header.start.time_ms
        self._logs.append(KeptLog(header))

    def _log_of(self, sequence: int) -> tuple[KeptLog, int]:
        """(the log that goes on from a position, up to where it may be read).

        Raises LogGone; InvalidArgument: the position is beyond the newest.
        """
        with self._lock:
            if sequence > self.newest().sequence:
                raise InvalidArgument(f"there is no batch {sequence} yet")
            bases = [log.header.base_sequence for log in self._logs]
            at = bisect_right(bases, sequence) - 1
            if at < 0:
                raise _gone(sequence)
            return self._logs[at], self._limit_of(self._logs[at])

    def _scan_to(
        self, log: KeptLog, file: File, sequence: int, limit: int
    ) -> tuple[LogScan, Frame | None]:
        """Find a position: (a scan that is there, None), or, where it is within a frame, (a scan
        whose place is before that frame, the frame)."""
        with self._lock:
            at = bisect_right(log.places, sequence, key=lambda place: place.sequence)
            place = log.places[at - 1] if at else None
        scan = LogScan(file, log.header, place)
        try:
            while scan.sequence < sequence:
                before = scan.place
                frame = scan.next(limit)
                if frame is None:
                    raise Corruption(
                        f"the log ends at batch {scan.sequence}", file.path, scan.offset
                    )
                if frame.last_sequence > sequence:
                    return LogScan(file, log.header, before), frame
                self._passed(log, scan)
        except Corruption as error:
            self._spoil(log, error)
            raise
        return scan, None

    def _is_overdue(self, log: KeptLog, now_ms: int) -> bool:
        """Whether the oldest log is older than the limit, and no follower needs it."""
        return bool(
            self._limit_ms and now_ms - log.ended_ms >= self._limit_ms and not self._needing(log)
        )

    def _needing(self, log: KeptLog) -> list[str]:
        """Who goes on from within the oldest log, which is not the only one."""
        stop = self._logs[1].header.base_sequence
        return [
            name
            for name, position in self._holds.items()
            if log.header.base_sequence <= position < stop
        ]

    def _count_dropped(self, log: KeptLog) -> None:
        needed_by = self._needing(log)
        self._dropped += 1
        if needed_by:
            self._dropped_needed += 1
            _logger.warning(
                "logfile.%d is more than replica_log_bytes allows and goes, though it is needed by "
                "%s: they will take a copy of everything",
                log.header.number, ", ".join(sorted(needed_by)),
            )  # fmt: skip


class LogTail:
    """The batches after a position, a frame at a time; History.tail() makes it.

    One reader's; close() it. It goes on over switches of the log and of generations.
    """

    def __init__(self, history: History, log: KeptLog, scan: LogScan, after: int) -> None:
        """scan: at the frame that `after` is within, or behind it."""
        self._history = history
        self._lock = threading.Lock()  # guards all below: a log may be taken away meanwhile
        self._log = log
        self._scan = scan
        self._file: File | None = scan.file
        self._after = after
        self._error: Corruption | LogGone | None = None  # what the next read() is told

    @property
    def position(self) -> int:
        """The last batch that was given out, or the one it began after."""
        return max(self._after, self._scan.sequence)

    def read(self, max_bytes: int) -> list[Frame]:
        """The next frames, in order: of max_bytes together at most, or one that has more.

        [] at the present end. The first may be a part of the one that was written, where reading
        began within it. Raises LogGone: retention took what comes next; Corruption: what comes next
        is damaged; OSError.
        """
        frames: list[Frame] = []
        with self._lock:
            if self._error is not None:
                raise self._error
            try:
                self._fill(frames, max_bytes)
            except (Corruption, LogGone, OSError) as error:
                if not frames:
                    raise
                # What came before it is good. An OSError comes again by itself.
                self._error = None if isinstance(error, OSError) else error
        return frames

    def close(self) -> None:
        """Let go of the file; idempotent."""
        with self._lock:
            self._let_file_go()
        self._history._tails.discard(self)

    def _fill(self, frames: list[Frame], left: int) -> None:
        """Take frames until there is no room, or none is left. Under _lock."""
        while True:
            limit, following = self._history._following(self._log)
            left = self._read_log(limit, left, frames)
            if following is None:
                return
            if self._scan.offset < limit:
                self._let_file_go()  # nobody holds the space of a log that may be removed
                return
            self._go_on(following)

    def _read_log(self, limit: int, left: int, frames: list[Frame]) -> int:
        """Take frames of the present log; returns how much room is left."""
        scan = self._scan
        if scan.offset < limit and self._file is None:
            self._file = scan.file = self._history._opened(self._log)
        try:
            while scan.offset < limit:
                frame = scan.next(limit, left if frames else None, left)
                if frame is None:
                    break
                if frame.first_sequence <= self._after:
                    frame = self._rest(frame)
                frames.append(frame)
                left -= len(frame.payload)
                self._history._passed(self._log, scan)
        except Corruption as error:
            self._history._spoil(self._log, error)
            raise
        return left

    def _rest(self, frame: Frame) -> Frame:
        """What of the first frame was asked for. Raises Corruption."""
        try:
            return rest_of(frame, self._after)
        except ValueError as error:
            raise Corruption(str(error), self._scan.file.path, self._scan.offset) from None

    def _go_on(self, following: KeptLog) -> None:
        """The present log is at its end: begin with the next one. Raises Corruption, LogGone."""
        base = following.base
        scan = self._scan
        known = following.header.start is not None
        if scan.sequence != base.sequence or (
            known and (scan.epoch, scan.chain) != (base.epoch, base.chain)
        ):
            error = Corruption(
                f"the log ends at batch {scan.sequence}, and the next one goes on from elsewhere",
                scan.file.path, scan.offset,
            )  # fmt: skip
            self._history._spoil(self._log, error)
            raise error
        file = self._history._opened(following)
        self._let_file_go()
        self._log = following
        self._file = file
        self._scan = LogScan(file, following.header)

    def _let_file_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _gone(position: int) -> LogGone:
    return LogGone(f"the log does not go back to position {position} any more")
