"""Verify: read every byte that counts and say what is wrong with it, and change nothing.

Owns the walk over the files and the report; the checks themselves are the formats' own.

Threading: verify_store beside writers (it reads the log up to where it is whole);
verify_directory on a store nobody has open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from marram.env.api import Env, File
from marram.errors import Corruption, Error, UnsupportedFormat
from marram.storage import layout
from marram.storage.generations import Progress
from marram.storage.lock import CloseNote, DirectoryLock
from marram.storage.log.format import LogHeader
from marram.storage.log.reader import LogReader, read_log_header
from marram.storage.sstable.reader import Table
from marram.storage.store import Store


@dataclass(slots=True)
class Report:
    """What was read and what is wrong.

    checked: (file name, bytes) in the order read; problems: one sentence each, with file and
    offset; batches: in the logs; rows: in the checkpoint; torn_tail_bytes: after the last whole
    frame, which the next opening will cut.
    """

    checked: list[tuple[str, int]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rows: int = 0
    batches: int = 0
    torn_tail_bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_store(store: Store, progress: Progress | None = None) -> Report:
    """Check the files of an open store."""
    with store.generations.held():
        store.check_open()
        log = store.commit.log
        limits = {log.number: log.end}
        return _Walk(store.env, store.directory, progress, limits, None).run()


def verify_directory(env: Env, directory: str, progress: Progress | None = None) -> Report:
    """Check the files of a store that is not open. Raises Locked, NotAStore's like OSError."""
    lock = DirectoryLock.acquire(env, directory)
    try:
        return _Walk(env, directory, progress, {}, lock.read_note()).run()
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
    ) -> None:
        self._env = env
        self._directory = directory
        self._progress = progress
        self._limits = limits
        self._note = note
        self._report = Report()
        self._done = 0
        self._total = 0

    def run(self) -> Report:
        """Check version, checkpoint and logs, and that they fit together."""
        report = self._report
        try:
            generation = layout.read_version(self._env, self._directory)
        except FileNotFoundError:
            report.problems.append(f"{self._directory}/{layout.VERSION}: the file is missing")
            return report
        except Corruption as error:
            report.problems.append(str(error))
            return report
        found = layout.numbered(self._env.list_dir(self._directory))
        logs = [number for number in found["logfile"] if number >= generation]
        if generation not in logs:
            path = layout.log_path(self._directory, generation)
            report.problems.append(f"{path}: the file is missing")
        headers = [header for number in logs if (header := self._header(number)) is not None]
        self._total = sum(self._size(layout.log_path(self._directory, n)) for n in logs)
        checkpoint = layout.checkpoint_path(self._directory, generation)
        self._total += self._size(checkpoint)
        if headers:
            store_id = headers[0].store_id
            self._check(checkpoint, lambda file: self._table(file, generation, store_id))
        for index, header in enumerate(headers):
            following = headers[index + 1] if index + 1 < len(headers) else None
            self._check(
                layout.log_path(self._directory, header.number),
                lambda file, h=header, f=following: self._log(file, h, f),  # type: ignore[misc]
            )
        return report

    def _check(self, path: str, check: Callable[[File], None]) -> None:
        try:
            file = self._env.open(path)
        except OSError as error:
            self._report.problems.append(f"{path}: {error.strerror or error}")
            return
        size = 0
        try:
            size = file.size()
            check(file)
        except (Corruption, UnsupportedFormat) as error:
            self._report.problems.append(str(error))
        except (OSError, Error) as error:
            self._report.problems.append(f"{path}: {error}")
        finally:
            file.close()
        self._report.checked.append((path.rpartition("/")[2], size))
        self._done += size
        if self._progress is not None:
            self._progress(self._done, max(self._done, self._total))

    def _table(self, file: File, generation: int, store_id: bytes) -> None:
        table = Table.open(file, generation, store_id)
        table.verify()
        self._report.rows += table.row_count

    def _log(self, file: File, header: LogHeader, following: LogHeader | None) -> None:
        promised = 0 if following is None else following.previous_end
        if self._note is not None and self._note.log_number == header.number:
            promised = max(promised, self._note.end)
        reader = LogReader(file, header, promised, self._limits.get(header.number))
        for _ in reader:
            self._report.batches += 1
        if following is None:
            self._report.torn_tail_bytes = reader.tail
        elif following.base_sequence != reader.last_sequence:
            raise Corruption(
                f"the log ends at batch {reader.last_sequence}, the next one begins after "
                f"{following.base_sequence}",
                file.path,
                reader.end,
            )

    def _header(self, number: int) -> LogHeader | None:
        path = layout.log_path(self._directory, number)
        try:
            file = self._env.open(path)
            try:
                header = read_log_header(file)
            finally:
                file.close()
        except (OSError, Error) as error:
            self._report.problems.append(str(error))
            return None
        if header is not None and header.number != number:
            self._report.problems.append(f"{path}: it is logfile.{header.number} by its header")
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
