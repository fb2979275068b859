"""Verify: read every byte that counts and say what is wrong with it, and change nothing.

Owns the walk over the files and the report; the checks themselves are the formats' own.

Threading: verify_store beside writers (it reads the log up to where it is whole);
verify_directory on a store nobody has open.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from marram.env.api import Env, File
from marram.errors import Corruption, Error, UnsupportedFormat
from marram.storage import engines, layout
from marram.storage.checkpoint import origin_of
from marram.storage.engine import Origin, Progress
from marram.storage.lock import CloseNote, DirectoryLock
from marram.storage.log.format import LogHeader
from marram.storage.log.reader import LogReader, read_log_header
from marram.storage.recovery import check_origin
from marram.storage.sstable.reader import Table
from marram.storage.store import Store

if TYPE_CHECKING:
    from marram.storage.lsm.version import TableMeta


def tables_of(env: Env, directory: str, generation: int, store_id: bytes) -> list[str] | None:
    """The names of the tables and blobs that checkpoint.N lists; None where it lists none.

    Raises Corruption, OSError.
    """
    if engines.engine_of(env, directory, generation) != engines.LSM:
        return None
    from marram.storage.lsm import verify as tree

    _, tables, blobs = tree.listed(env, directory, generation, store_id)
    return [f"{meta.number}.sst" for meta in tables] + [f"{ref.number}.blob" for ref in blobs]


@dataclass(slots=True)
class Report:
    """What was read and what is wrong.

    checked: (file name, bytes) in the order read; problems: one sentence each, with file and
    offset; batches: in the logs; rows: in the checkpoint and the tables; torn_tail_bytes: after
    the last whole frame, which the next opening will cut; orphans: tables and blobs that a crash
    left and nothing lists, which it will remove.
    """

    checked: list[tuple[str, int]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    rows: int = 0
    batches: int = 0
    torn_tail_bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_store(store: Store, progress: Progress | None = None) -> Report:
    """Check the files of an open store."""
    pin = None
    try:
        with store.generations.held(), store.engine.held():
            pin = store.snapshot()  # so that no table goes while the files are read
            log = store.commit.log
            limits = {log.number: log.end}
            known = store.engine.files() | store.arriving_files()
            walk = _Walk(store.env, store.directory, progress, limits, None, known)
            walk.run()
        walk.tables()
    finally:
        if pin is not None:
            store.release(pin)
    return walk.report


def verify_directory(env: Env, directory: str, progress: Progress | None = None) -> Report:
    """Check the files of a store that is not open. Raises Locked, NotAStore's like OSError."""
    lock = DirectoryLock.acquire(env, directory)
    try:
        walk = _Walk(env, directory, progress, {}, lock.read_note(), frozenset())
        walk.run()
        walk.tables()
        return walk.report
    finally:
        lock.release()


class _Walk:
    """One pass over a store's files."""

    def __init__(
        self,
        env: Env,
        directory: str,
        progress: Progress | None,
        limits: dict[int, int],
        note: CloseNote | None,
        known: Set[str],
    ) -> None:
        self._env = env
        self._directory = directory
        self._progress = progress
        self._limits = limits
        self._note = note
        self._known = known  # files that are there for a reason the manifest does not tell
        self.report = Report()
        self._listed: list[tuple[str, Callable[[File], None]]] = []
        self._origin: Origin | None = None  # what the checkpoint says that it holds
        self._done = 0
        self._total = 0

    def run(self) -> None:
        """Check version, checkpoint and logs, and that they fit together."""
        report = self.report
        try:
            generation = layout.read_version(self._env, self._directory)
        except FileNotFoundError:
            report.problems.append(f"{self._directory}/{layout.VERSION}: the file is missing")
            return
        except Corruption as error:
            report.problems.append(str(error))
            return
        names = self._env.list_dir(self._directory)
        found = layout.numbered(names)
        logs = [number for number in found["logfile"] if number >= generation]
        if generation not in logs:
            path = layout.log_path(self._directory, generation)
            report.problems.append(f"{path}: the file is missing")
        headers = [header for number in logs if (header := self._header(number)) is not None]
        if len(headers) > 1 and not headers[-1].previous_end:
            del headers[-1]  # of an installation that a crash cut short
        if headers:
            older = [number for number in found["logfile"] if number < generation]
            headers[:0] = self._kept(headers[0], older)
        self._total = sum(self._size(layout.log_path(self._directory, h.number)) for h in headers)
        checkpoint = layout.checkpoint_path(self._directory, generation)
        self._total += self._size(checkpoint)
        if headers:
            self._state(generation, checkpoint, headers[0].store_id)
        for index, header in enumerate(headers):
            following = headers[index + 1] if index + 1 < len(headers) else None
            begins = header.number == generation
            self._check(
                layout.log_path(self._directory, header.number),
                lambda file, h=header, f=following, b=begins: self._log(file, h, f, b),  # type: ignore[misc]
            )
        for name in names:
            if layout.is_diverged(name):
                self._check(f"{self._directory}/{name}", _read_aside)

    def tables(self) -> None:
        """Check the tables that the checkpoint lists, if it does."""
        for path, read in self._listed:
            self._check(path, read)

    def _check(self, path: str, check: Callable[[File], None]) -> None:
        try:
            file = self._env.open(path)
        except OSError as error:
            self.report.problems.append(f"{path}: {error.strerror or error}")
            return
        size = 0
        try:
            size = file.size()
            check(file)
        except (Corruption, UnsupportedFormat) as error:
            self.report.problems.append(str(error))
        except (OSError, Error) as error:
            self.report.problems.append(f"{path}: {error}")
        finally:
            file.close()
        self.report.checked.append((path.rpartition("/")[2], size))
        self._done += size
        if self._progress is not None:
            self._progress(self._done, max(self._done, self._total))

    def _table(self, file: File, generation: int, store_id: bytes) -> None:
        table = Table.open(file, generation, store_id)
        table.verify()
        self._origin = origin_of(table, file.path, store_id)
        self.report.rows += table.row_count

    def _state(self, generation: int, checkpoint: str, store_id: bytes) -> None:
        """Check checkpoint.N and, where it lists tables, those."""
        try:
            is_listing = engines.engine_of(self._env, self._directory, generation) == engines.LSM
        except (OSError, Error) as error:
            self.report.problems.append(str(error))
            return
        if is_listing:
            self._check(checkpoint, lambda _: self._listing(generation, store_id))
        else:
            self._check(checkpoint, lambda file: self._table(file, generation, store_id))

    def _listing(self, generation: int, store_id: bytes) -> None:
        """Check a manifest; note the tables it lists, and the files that nobody lists."""
        from marram.storage.lsm import verify as tree

        origin, metas, blobs = tree.listed(self._env, self._directory, generation, store_id)
        self._origin = origin
        for meta in metas:
            self._total += meta.size_bytes
            path = layout.table_path(self._directory, meta.number)
            self._listed.append((path, partial(self._listed_table, meta, store_id)))
        for ref in blobs:
            self._total += ref.size_bytes
            path = layout.blob_path(self._directory, ref.number)
            self._listed.append((path, partial(tree.check_blob, ref=ref, store_id=store_id)))
        known = {path.rpartition("/")[2] for path, _ in self._listed} | self._known
        names = self._env.list_dir(layout.tables_path(self._directory))
        self.report.orphans += [f"{layout.TABLES}/{name}" for name in names if name not in known]

    def _listed_table(self, meta: TableMeta, store_id: bytes, file: File) -> None:
        from marram.storage.lsm.verify import check_listed

        self.report.rows += check_listed(file, meta, store_id)

    def _kept(self, first: LogHeader, numbers: list[int]) -> list[LogHeader]:
        """Headers of the logs before `first` that are kept for replicas, ascending.

        What lies before a gap, or before an installation, is left by a crash, and no problem.
        """
        found: list[LogHeader] = []
        following = first
        for number in reversed(numbers):
            if not following.previous_end or number != following.number - 1:
                break
            header = self._header(number)
            if header is None:
                break
            found.append(header)
            following = header
        return found[::-1]

    def _log(
        self, file: File, header: LogHeader, following: LogHeader | None, begins: bool
    ) -> None:
        """Check a log. begins: it is the generation's first."""
        promised = 0 if following is None else following.previous_end
        if self._note is not None and self._note.log_number == header.number:
            promised = max(promised, self._note.end)
        origin = self._origin if begins else None
        reader = LogReader(
            file, header, promised, self._limits.get(header.number),
            chain_at=-1 if origin is None else origin.sequence,
        )  # fmt: skip
        for _ in reader:
            self.report.batches += 1
        if origin is not None:
            check_origin(reader, origin, file.path)
        if following is None:
            self.report.torn_tail_bytes = reader.tail
        elif following.base_sequence != reader.last_sequence:
            raise Corruption(
                f"the log ends at batch {reader.last_sequence}, the next one begins after "
                f"{following.base_sequence}",
                file.path,
                reader.end,
            )
        elif following.start is not None and following.history != (
            reader.batch_epoch,
            reader.chain,
        ):
            raise Corruption("the next log goes on from another history", file.path, reader.end)

    def _header(self, number: int) -> LogHeader | None:
        path = layout.log_path(self._directory, number)
        try:
            file = self._env.open(path)
            try:
                header = read_log_header(file)
            finally:
                file.close()
        except (OSError, Error) as error:
            self.report.problems.append(str(error))
            return None
        if header is not None and header.number != number:
            self.report.problems.append(f"{path}: it is logfile.{header.number} by its header")
            return None
        return header

    def _size(self, path: str) -> int:
        try:
            file = self._env.open(path)
        except OSError:
            return 0  # reported where the file is checked
        try:
            return file.size()
        finally:
            file.close()


def _read_aside(file: File) -> None:
    """Check batches that were set aside (aside.py). Raises Corruption."""
    header = read_log_header(file)
    if header is None:
        raise Corruption("the log's header is missing", file.path, 0)
    for _ in LogReader(file, header):
        pass
