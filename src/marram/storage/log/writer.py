"""The log being written: preallocated space, frames, syncs.

Owns one open file of frames, where its next frame goes and up to where it is synced (FrameWriter:
a manifest is written by it as well), and the log's space; not the order of commits
(storage/commit.py), and not when to start the next log.

W1  space is reserved before a frame is written, so a full disk refuses a write and never tears it.
W2  after sync() every frame written before it is durable; `synced` says up to where.
W3  after an OSError from write() or sync() the log is in doubt: the caller must stop (P4).
W4  `chain` and `batch_epoch` are those of the last batch written: the history checksum is folded
    a frame at a time, when it is written.
W5  a window (env/api.py) lies within reserved space and behind `end`, and is given up before the
    file is cut or closed: memory whose file has ended is death by SIGBUS. `_memory` is the same
    window for compiled code, where it is a machine's: a view of it, so that it cannot be given up
    while that is there.

Threading: write() and sync() by one thread at a time; reserve() by another at the same time.
"""

from __future__ import annotations

from marram.coding.checksum import crc32_short, number_seed, place_start, reseeded
from marram.env.api import Env, File, Window
from marram.storage.layout import log_path
from marram.storage.log.format import (
    FRAME_HEADER_SIZE,
    HISTORY_SIZE,
    KIND_BATCHES,
    KIND_HISTORY,
    KIND_MARK,
    LOG,
    START_SIZE,
    FileKind,
    LogHeader,
    frame_head,
    frame_of,
    pack_history,
    pack_start,
    place_of,
)

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

if not cython.compiled:  # else they are C's
    from marram.coding.raw import place, put_bytes
    from marram.storage.log.format import put_head

GROW_MIN = 64 * 1024
GROW_MAX = 16 * 1024 * 1024

# Beside batches: two frames' headers, of the group being written and the open one, and a mark.
_SPARE = 2 * FRAME_HEADER_SIZE + HISTORY_SIZE
_FRAME_SIZE = FRAME_HEADER_SIZE  # again, which compiled code has without a look-up by name

# Hot: a record of 192 bytes is stored through a window in 0.1 us, by pwrite() in 1.5, which lets go
# of the interpreter as well: beside a busy thread it gets that back a time slice later.
_WINDOW = 256 * 1024
_WINDOW_MIN = 8 * 1024


class FrameWriter:
    """A file of frames, open for appending."""

    __slots__ = (
        "_checksum",
        "_memory",
        "_place",
        "_seed",
        "_window",
        "_window_start",
        "_window_stop",
        "end",
        "file",
        "header",
        "synced",
    )

    def __init__(self, file: File, kind: FileKind, header: LogHeader, end: int) -> None:
        """Continue `file` at `end`; everything before it is durable."""
        self.file = file
        self.header = header
        self.end = end
        self.synced = end
        self._place = place_start(*place_of(header, kind))
        self._seed = self._checksum = 0  # of the last frame's payload
        self._window: Window | None = None
        self._memory: memoryview | None = None
        self._window_start = 0  # where it is in the file, bytes
        self._window_stop = 0

    def write_frame(
        self, payload: bytes, kind: int, count: int, first: int, epoch: int, time_ms: int
    ) -> None:
        """Append one frame. Raises OSError (W3).

        kind: of frame; count: of what is in it, first: the number of the first of them.
        """
        seed = number_seed(self.end, self._place)
        checksum = crc32_short(payload, 0, len(payload), seed)
        self._seed = seed
        self._checksum = checksum
        stop = self.end + _FRAME_SIZE + len(payload)
        if cython.compiled and self._memory is not None and stop <= self._window_stop:
            at = self.end - self._window_start
            assert at >= 0 and stop - self._window_start <= len(self._memory), "W5"
            memory = place(self._memory, at)
            put_head(
                memory, len(payload), kind, count, first, epoch, time_ms, self.synced, seed,
                checksum,
            )  # fmt: skip
            put_bytes(memory, _FRAME_SIZE, payload)
            self.end = stop
            return
        self._add(
            frame_of(payload, kind, count, first, epoch, time_ms, self.synced, seed, checksum)
        )

    def _add(self, frame: bytes | bytearray) -> None:
        """Have a frame's bytes in the file, behind those before. Raises OSError (W3)."""
        stop = self.end + len(frame)
        if stop <= self._window_stop:
            assert self._window is not None
            self._window[self.end - self._window_start : stop - self._window_start] = frame
        else:
            self._store(frame)
        self.end = stop

    def sync(self) -> None:
        """Make what was written durable (W2). Raises OSError (W3)."""
        end = self.end
        self.file.sync_data()
        self.synced = max(self.synced, end)

    def close(self) -> None:
        """Close the file; what was not synced is not made durable."""
        self._leave_window()
        self.file.close()

    def _store(self, frame: bytes | bytearray) -> None:
        """Write a frame that no window has room for."""
        self.file.write(frame, self.end)

    def _leave_window(self) -> None:
        window, self._window = self._window, None
        self._memory = None
        self._window_start = self._window_stop = 0
        if window is not None:
            window.release()


class LogWriter(FrameWriter):
    """One log file, open for appending."""

    __slots__ = ("_allocated", "batch_epoch", "chain", "is_mapped", "max_step", "number")

    def __init__(
        self,
        file: File,
        header: LogHeader,
        end: int,
        allocated: int,
        history: tuple[int, int] | None = None,
    ) -> None:
        """Continue `file` at `end`; everything before it is durable.

        history: (epoch of the last batch, history checksum) there; None: as the log begins.
        """
        super().__init__(file, LOG, header, end)
        self.number = header.number
        self.batch_epoch, self.chain = header.history if history is None else history
        self.max_step = GROW_MAX  # it grows by no more at a time, bytes
        self.is_mapped = False  # write through windows, where the file can be; set it at any time
        self._allocated = allocated

    @classmethod
    def create(cls, env: Env, directory: str, header: LogHeader, reserve: int) -> LogWriter:
        """Make the log of that number, durable with its name. Raises OSError; leaves a stray then.

        reserve: bytes of frames that must fit without growing it.
        """
        return cls.create_at(env, directory, log_path(directory, header.number), header, reserve)

    @classmethod
    def create_at(
        cls, env: Env, directory: str, path: str, header: LogHeader, reserve: int
    ) -> LogWriter:
        """create(), of a log with another name in the directory."""
        file = env.open(path, write=True, create=True, exclusive=True)
        try:
            allocated = START_SIZE + max(GROW_MIN, reserve)
            file.allocate(0, allocated)
            start = pack_start(header)
            file.write(start, 0)
            file.sync()
            env.sync_dir(directory)
        except BaseException:
            file.close()
            raise
        return cls(file, header, len(start), allocated)

    def reserve(self, pending: int) -> bool:
        """Make room for `pending` bytes of batches beyond `end` (W1); returns whether it grew.

        Raises OSError (ENOSPC and the like) with nothing changed: the log goes on as it is.
        """
        wanted = self.end + pending + _SPARE
        if wanted <= self._allocated:
            return False
        grow = min(max(GROW_MIN, self._allocated), self.max_step)
        size = max(wanted - self._allocated, grow)
        self.file.allocate(self._allocated, size)
        self._allocated += size
        return True

    def write(
        self,
        batches: list[bytes],
        first_sequence: int,
        epoch: int,
        time_ms: int,
        count: int = 0,
    ) -> None:
        """Write one frame holding a commit group. Raises OSError (W3).

        count: of the batches, where they are in fewer pieces; 0 for as many as pieces.
        """
        payload = batches[0] if len(batches) == 1 else b"".join(batches)
        self.write_frame(
            payload, KIND_BATCHES, count or len(batches), first_sequence, epoch, time_ms
        )
        self._fold(payload, epoch)

    def write_known(
        self,
        pieces: list[bytes],
        first_sequence: int,
        epoch: int,
        time_ms: int,
        count: int,
        chains: list[int],
    ) -> None:
        """write(), where the history checksum before the batches is known, and behind each piece.

        chains: these. The frame's checksum follows from them without a look at the batches, which
        somebody else has checked. Raises OSError (W3).
        """
        if chains[0] != self.chain:
            self.write(pieces, first_sequence, epoch, time_ms, count)
            return
        seed = checksum = number_seed(self.end, self._place)
        size = 0
        for at in range(len(pieces)):
            piece = pieces[at]
            checksum = reseeded(piece, chains[at + 1], chains[at], checksum)
            size += len(piece)
        head = frame_head(
            size, KIND_BATCHES, count, first_sequence, epoch, time_ms, self.synced, seed, checksum
        )
        self._add(b"".join([head, *pieces]))
        self.chain = chains[len(pieces)]
        self.batch_epoch = epoch

    def write_one(self, batch: bytes, sequence: int, epoch: int, time_ms: int) -> None:
        """write(), of one batch. Raises OSError (W3)."""
        self.write_frame(batch, KIND_BATCHES, 1, sequence, epoch, time_ms)
        self._fold(batch, epoch)

    def _fold(self, payload: bytes, epoch: int) -> None:
        """Take the batches of the frame just written into the history checksum (W4)."""
        self.chain = reseeded(payload, self._checksum, self._seed, self.chain)
        self.batch_epoch = epoch

    def mark(self, last_sequence: int, epoch: int, time_ms: int) -> None:
        """Write a frame without batches that promises everything before it. Raises OSError (W3)."""
        if self.header.start is None:  # format 1 goes on as such
            self.write_frame(b"", KIND_MARK, 0, last_sequence + 1, epoch, time_ms)
        else:
            history = pack_history(self.batch_epoch, self.chain)
            self.write_frame(history, KIND_HISTORY, 0, last_sequence + 1, epoch, time_ms)

    def trim(self) -> None:
        """Give the unused reservation back; for a log that ends here. Raises OSError (W3)."""
        self._leave_window()
        self.file.truncate(self.end)
        self.file.sync()
        self._allocated = self.synced = self.end

    def fits(self, size_bytes: int) -> bool:
        """Whether a frame of one batch is written by storing it in memory, which never blocks."""
        return self.end + _FRAME_SIZE + size_bytes <= self._window_stop

    def _store(self, frame: bytes | bytearray) -> None:
        size = len(frame)
        if self.is_mapped and size <= _WINDOW // 8:
            self._move_window()
            if self._window is not None and self.end + size <= self._window_stop:
                self._window[0:size] = frame
                return
        self.file.write(frame, self.end)

    def _move_window(self) -> None:
        """Have a window from `end` on, where there is room for one. Raises OSError (W3)."""
        self._leave_window()
        size = min(_WINDOW, self._allocated - self.end)
        if size < _WINDOW_MIN:
            return  # the log is about to grow
        self._window = self.file.window(self.end, size)
        if self._window is None:
            self.is_mapped = False
            return
        self._window_start = self.end
        self._window_stop = self.end + size
        if cython.compiled and type(self._window) is memoryview:
            self._memory = self._window
