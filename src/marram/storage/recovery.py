"""From files to a store: create a directory's first generation, or recover what is there.

Owns the order of recovery and what it removes; not the formats it reads (log/, sstable/).

V1  recovery yields a prefix of the commit order that holds every synced batch (P1, P2).
V2  a torn tail is cut, durably, before anything new is written, and the cut is reported.
V3  any damage stops recovery with file and offset, and nothing has been changed by then (P3).
V4  recovery interrupted anywhere and started again gives the same store.
V5  a directory with anything in it that is not ours is never made into a store.
V6  logs from before the generation are kept where they are of one history with its own, without a
    gap; they never decide what is recovered, nor whether.

Threading: runs alone, under the directory's lock.
"""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from marram.env.api import Env, File
from marram.errors import Corruption, NotAStore
from marram.storage import engines, layout
from marram.storage.engine import Engine, Origin
from marram.storage.lock import CloseNote
from marram.storage.log.format import FILE_HEADER_SIZE, LogHeader, LogStart
from marram.storage.log.reader import LogReader, ends_before, read_log_header
from marram.storage.log.writer import LogWriter
from marram.storage.options import Options
from marram.storage.sstable.block import Row

_logger = logging.getLogger("marram.recovery")


@dataclass(slots=True)
class Recovered:
    """What recovery found, and did."""

    engine: Engine
    store_id: bytes
    generation: int
    logs: list[int]  # numbers of the live logs, ascending; the last one is written to
    kept: list[LogHeader]  # of the logs kept for replicas, and of the live ones, ascending
    log: LogWriter
    last_sequence: int
    epoch: int
    time_ms: int
    live_log_bytes: int  # in the logs before the last
    replayed_batches: int = 0
    cut_bytes: int = 0
    removed: list[str] = field(default_factory=list)


def create_store(env: Env, directory: str, options: Options) -> None:
    """Make a new, empty store: durable when this returns. Raises OSError."""
    for name in env.list_dir(directory):
        if layout.is_ours(name) and not (
            name in (layout.LOCK, layout.TABLES) or layout.is_diverged(name)
        ):
            env.remove(f"{directory}/{name}")  # left by a creation that a crash cut short
    origin = Origin(env.random_bytes(16), epoch=1, sequence=0, time_ms=env.wall_ms())
    write_first_generation(env, directory, options, origin, [])


def write_first_generation(
    env: Env,
    directory: str,
    options: Options,
    origin: Origin,
    slices: Iterable[list[Row]],
    epoch: int = 0,
) -> None:
    """Make generation 0 of a store from rows in order: durable when this returns.

    options.engine: of the store; None for the memory engine. epoch: as start_first_log() has it.
    """
    engines.write_first(env, directory, options, origin, slices)
    start_first_log(env, directory, origin, epoch)


def start_first_log(env: Env, directory: str, origin: Origin, epoch: int = 0) -> None:
    """Make logfile.0 and then `version`: what has a checkpoint.0 becomes a store. Durable.

    epoch: of the store, where it is above that of its last batch.
    """
    header = header_at(origin, 0, max(epoch, origin.epoch))
    LogWriter.create(env, directory, header, 0).close()
    layout.switch_version(env, directory, 0)


def header_at(origin: Origin, number: int, epoch: int) -> LogHeader:
    """Of a log that goes on from there, and follows no other. epoch: of the store."""
    start = LogStart(origin.epoch if origin.sequence else 0, origin.chain, origin.time_ms)
    return LogHeader(origin.store_id, number, 0, origin.sequence, epoch, start)


def is_store(env: Env, directory: str) -> bool:
    """Whether the directory holds a store. Raises NotAStore where neither yes nor no is safe."""
    names = env.list_dir(directory)
    if layout.VERSION in names:
        return True
    foreign = [name for name in names if not layout.is_ours(name) and name != "lost+found"]
    if foreign:
        raise NotAStore(
            f"{directory} holds other files ({', '.join(foreign[:3])}) and no store; "
            "give an empty or a new directory"
        )
    found = layout.numbered(names)
    later = [n for n in found["checkpoint"] + found["logfile"] if n > 0]
    if later or _has_frames(env, directory, found["logfile"]):
        # A store that lost its version file is not an empty directory: do not make a new one in it.
        raise Corruption("the file is missing", f"{directory}/{layout.VERSION}")
    return False


def recover(env: Env, directory: str, note: CloseNote | None, options: Options) -> Recovered:
    """Bring the store in `directory` back.

    note: what the last clean close promised. Raises Corruption, UnsupportedFormat, OSError;
    InvalidArgument: options.engine is another one than the store's.
    """
    generation = layout.read_version(env, directory)
    found = layout.numbered(env.list_dir(directory))
    logs = [number for number in found["logfile"] if number >= generation]
    if not logs or logs[0] != generation:
        raise Corruption("the file is missing", layout.log_path(directory, generation))
    headers, _ = log_headers(env, directory, logs)
    logs = [header.number for header in headers]
    kept: list[LogHeader] = []
    if options.replica_log_bytes:
        older = [number for number in found["logfile"] if number < generation]
        kept = kept_headers(env, directory, headers[0], older)
    with uncollected():
        engine, origin = engines.load(env, directory, generation, headers[0].store_id, options)
        state = replay_logs(env, directory, engine, origin, headers, note)
    # Everything was read and found good: from here on the directory is changed (V3).
    log = _continue_log(env, directory, headers[-1], state)
    removed = engine.resume()
    strays = [layout.NEW_VERSION] if env.exists(f"{directory}/{layout.NEW_VERSION}") else []
    wanted = {header.number for header in (*kept, *headers)}
    strays += [f"logfile.{n}" for n in found["logfile"] if n not in wanted]
    strays += [f"checkpoint.{n}" for n in found["checkpoint"] if n != generation]
    for name in strays:
        env.remove(f"{directory}/{name}")
    env.sync_dir(directory)
    return Recovered(
        engine=engine,
        store_id=headers[0].store_id,
        generation=generation,
        logs=logs,
        kept=[*kept, *headers],
        log=log,
        last_sequence=state.sequence,
        epoch=state.epoch,
        time_ms=state.time_ms,
        live_log_bytes=state.earlier_log_bytes,
        replayed_batches=state.batches,
        cut_bytes=state.cut_bytes,
        removed=[*strays, *removed],
    )


def log_headers(env: Env, directory: str, numbers: list[int]) -> tuple[list[LogHeader], list[int]]:
    """Headers of the live logs, and the number of one that a crash left unfinished.

    That is one whose own creation was cut short, or one of another history, which follows none of
    these, and was to take their place (install.py).
    """
    headers: list[LogHeader] = []
    for number in numbers:
        path = layout.log_path(directory, number)
        file = env.open(path)
        try:
            header = read_log_header(file)
        finally:
            file.close()
        if header is None:
            if number == numbers[-1] and headers:
                return headers, [number]
            raise Corruption("the log's header is missing", path, 0)
        if header.number != number:
            raise Corruption(f"the file is logfile.{header.number} by its header", path, 0)
        if headers and not header.previous_end and number == numbers[-1]:
            return headers, [number]
        if headers and header.store_id != headers[0].store_id:
            raise Corruption("the file belongs to another store", path, 0)
        headers.append(header)
    return headers, []


def kept_headers(env: Env, directory: str, first: LogHeader, numbers: list[int]) -> list[LogHeader]:
    """Headers of the logs before a generation's `first` that lead up to it, ascending (V6).

    Only their ends are read. Logs of another history, or from before a gap, are left by crashes;
    others that do not lead there are warned of. Raises UnsupportedFormat.
    """
    found: list[LogHeader] = []
    following = first
    for number in reversed(numbers):
        if not following.previous_end or number != following.number - 1:
            break
        path = layout.log_path(directory, number)
        try:
            file = env.open(path)
            try:
                header = read_log_header(file)
                fits = (
                    header is not None
                    and header.number == number
                    and ends_before(file, header, following)
                )
            finally:
                file.close()
        except (OSError, Corruption) as error:
            _logger.warning("a log that was kept for replicas is dropped: %s", error)
            break
        if header is None or not fits:
            _logger.warning("%s was kept for replicas and is dropped: the next log does not follow "
                            "on it", path)  # fmt: skip
            break
        found.append(header)
        following = header
    return found[::-1]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector from running, for as long as a store is loaded.

    Loading makes no garbage, but may make many objects that the collector looks at, time and again.
    Hot: 200,000 keys with deadlines out of a log, 0.35 M/s rather than 0.22.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def replay_logs(
    env: Env,
    directory: str,
    engine: Engine,
    origin: Origin,
    headers: list[LogHeader],
    note: CloseNote | None,
) -> Replay:
    """Bring an engine that starts from `origin` to the end of the logs; changes no file.

    note: what the last clean close promised. Raises Corruption, OSError.
    """
    state = Replay(env, directory, engine, origin)
    for index, header in enumerate(headers):
        promised = headers[index + 1].previous_end if index + 1 < len(headers) else 0
        if note is not None and note.log_number == header.number:
            promised = max(promised, note.end)
        state.replay(header, promised, is_last=index + 1 == len(headers))
    state.finish()
    return state


class Replay:
    """Applies logs to an engine, in order; replay_logs() makes one, and these are its results."""

    def __init__(self, env: Env, directory: str, engine: Engine, origin: Origin) -> None:
        self._env = env
        self._directory = directory
        self._sink = engine.replay()
        self.sequence = origin.sequence
        self.epoch = origin.epoch
        self.time_ms = origin.time_ms
        self.batches = 0
        self.end = FILE_HEADER_SIZE  # of the last log
        self.history: tuple[int, int] | None = None  # there: epoch of the last batch, checksum
        self.cut_bytes = 0
        self.earlier_log_bytes = 0
        self._origin = origin

    def replay(self, header: LogHeader, promised: int, *, is_last: bool) -> None:
        """Apply one log. Raises Corruption."""
        path = layout.log_path(self._directory, header.number)
        if header.base_sequence > self.sequence:
            raise Corruption(
                f"the log starts after {header.base_sequence}, the state before it ends "
                f"at {self.sequence}",
                path,
                0,
            )
        if header.start is not None and self.history not in (None, header.history):
            raise Corruption("the log goes on from another history than the one before", path, 0)
        file: File = self._env.open(path)
        try:
            reader = LogReader(file, header, promised, chain_at=self._origin.sequence)
            # The log may begin a little before the checkpoint's position: skip what it has.
            self.batches += reader.replay(self._sink, self.sequence)
        finally:
            file.close()
        if self.history is None:
            check_origin(reader, self._origin, path)
        self.sequence = max(self.sequence, reader.last_sequence)
        self.epoch = max(self.epoch, reader.epoch)
        self.time_ms = max(self.time_ms, reader.time_ms)
        self.history = (reader.batch_epoch, reader.chain)
        if is_last:
            self.end = reader.end
            self.cut_bytes = reader.tail
        else:
            self.earlier_log_bytes += reader.end
            if reader.last_sequence < self.sequence or reader.end < promised:
                raise Corruption("the log ends too early", path, reader.end)

    def finish(self) -> None:
        """There are no more logs."""
        self._sink.finish()


def check_origin(reader: LogReader, origin: Origin, path: str) -> None:
    """Check that a generation's first log, which was read, goes over the state it starts from.

    reader: made with chain_at=origin.sequence. Raises Corruption.
    """
    if reader.noted_chain is None:
        raise Corruption(
            f"the log ends at batch {reader.last_sequence}, the state before it at "
            f"{origin.sequence}",
            path,
            reader.end,
        )
    if origin.chain not in (0, reader.noted_chain):
        raise Corruption("the log and the state before it are of different histories", path, 0)


def _continue_log(env: Env, directory: str, header: LogHeader, state: Replay) -> LogWriter:
    """Open the last log for appending, its torn tail cut (V2)."""
    path = layout.log_path(directory, header.number)
    file = env.open(path, write=True)
    if state.cut_bytes:
        _logger.warning(
            "cut a torn tail: %s @ %d, %d bytes that were never acknowledged as durable",
            path, state.end, state.cut_bytes,
        )  # fmt: skip
    if file.size() != state.end:
        # Stale frames must not be there to follow a new, shorter one: so cut, and durably.
        file.truncate(state.end)
        file.sync()
    return LogWriter(file, header, state.end, state.end, state.history)


def _has_frames(env: Env, directory: str, numbers: list[int]) -> bool:
    for number in numbers:
        file = env.open(layout.log_path(directory, number))
        try:
            header = read_log_header(file)
            if header is not None and any(True for _ in LogReader(file, header)):
                return True
        finally:
            file.close()
    return False
