"""Runs merges in a helper process, so that they do not take the interpreter from those it serves.

Owns both ends: the Runner, which starts the helper at first need and keeps it, and main(), the
helper's loop; and the messages between them. Not what a merge does (compaction.py).

W1  a merge gives the same Outcome, but for the tables' stamps, or raises the same error, in the
    helper and inline.
W2  where run() raises, no file of the merge is left, even where the helper was killed: it is waited
    for first, then whatever has one of the task's numbers is removed.
W3  nobody waits for a helper that does not answer but the thread in run(), and close() ends that.
W4  the helper ends with its parent, in the middle of a merge, too (env/posix.py, P2): it tells
    how far it is every TELL_MS, which fails then.

Where the env starts no processes merges run inline, in the thread that called run(). So they do
where the helper is of another version, because marram was replaced on disk meanwhile, and once it
died twice in a row: whatever it was, a third time is not better.

The helper takes 45 to 70 ms to start, 16 MB at rest (12 of its own), and 27 MB in merges of tables
of 32 MB. Beside it a loop in the parent that reads a dict keeps its p99 (5.0 us, 4.8 us alone), and
the merge its 3.5 s; inline they share the interpreter, and the same merge takes 33 s.

A message is a frame: its length, u32 little-endian, and JSON; bytes in it are strings of as many
characters below 256, tables are version edits (edit.py). The helper begins with a *hello*, and then
answers each task with *progress* messages, and one *outcome* or *error*. It is of the same
version, so the messages are no format.

Threading: run() by one thread at a time; close() by any.
"""

from __future__ import annotations

import json
import logging
import struct
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby
from typing import Any

from marram import __version__, errors
from marram.env.api import Channel, Child, Env
from marram.env.posix import parent_channel, posix_env
from marram.errors import Closed, Corruption, Error
from marram.storage.layout import blob_number, table_number, tables_path
from marram.storage.lsm import compaction
from marram.storage.lsm.compaction import Cancelled, Outcome, Task
from marram.storage.lsm.edit import decode_edit, encode_edit
from marram.storage.lsm.job import Boundary, Job
from marram.storage.lsm.version import TableMeta, VersionEdit
from marram.storage.sstable.writer import TableOptions

TELL_MS = 50
"""How often the helper tells its progress; so also how soon a cancelled merge ends."""

MAX_MESSAGE_BYTES = 1 << 30
"""No message is longer. A task has some bytes a table, an outcome some for each expired key."""

_MODULE = "marram.storage.lsm.worker"
_DEATHS = 2
_LENGTH = struct.Struct("<I")
_BYTES = "latin-1"

# Errors of ours that are made of nothing but their text.
_ERRORS: dict[str, type[Error]] = {
    kind.__name__: kind
    for kind in (
        errors.Closed,
        errors.InvalidArgument,
        errors.InvalidType,
        errors.StoreFailed,
        errors.StoreFull,
        errors.UnsupportedFormat,
    )
}

_logger = logging.getLogger("marram.store")


class Runner:
    """Runs merges, one at a time, in a helper process where there can be one."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._lock = threading.Lock()
        self._child: Child | None = None  # guarded by _lock
        self._closed = False  # guarded by _lock
        self._inline = False  # guarded by _lock
        self._deaths = 0  # in a row; of the thread in run()
        self._greeted = False  # whether the child said hello; of the thread in run()

    def run(
        self,
        task: Task,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """As compaction.run(), but in the helper progress and cancelled are used every TELL_MS.

        Raises Closed: it was, before; Cancelled: by cancelled() or close(); besides what
        compaction.run() raises.
        """
        while (child := self._get_child()) is not None:
            try:
                answer = self._ask(child, task, progress, cancelled)
            except _Died as death:
                self._after_death(child, task, death)
                continue
            except BaseException:
                self._drop(child)
                _remove_outputs(self._env, task)
                raise
            if isinstance(answer, Exception):
                raise answer
            return answer
        return compaction.run(
            self._env, task, progress=progress, cancelled=lambda: self._closed or cancelled()
        )

    def close(self) -> None:
        """End the helper, and a merge that is under way: its run() raises Cancelled. Idempotent."""
        with self._lock:
            self._closed = True
            child, self._child = self._child, None
        if child is not None:
            child.kill()

    @property
    def pid(self) -> int | None:
        """The helper's process id, None while there is none."""
        child = self._child
        return child.pid if child is not None else None

    def _get_child(self) -> Child | None:
        """The helper, started where it is not; None: run inline. Raises Closed."""
        with self._lock:
            if self._closed:
                raise Closed("compactions have ended")
            if self._inline or self._child is not None:
                return self._child
            try:
                self._child = self._env.spawn(_MODULE)
            except OSError as error:  # no memory, or no more processes
                _logger.warning("no helper process, compacting in this one: %s", error)
                return None  # the next merge may have more luck
            self._greeted = False
            self._inline = self._child is None
            return self._child

    def _ask(
        self,
        child: Child,
        task: Task,
        progress: Callable[[int, int], None] | None,
        cancelled: Callable[[], bool],
    ) -> Outcome | Exception:
        """Run a task in the helper; returns what it raised there. Raises _Died, Cancelled."""
        if cancelled():
            raise Cancelled
        if not self._greeted:
            self._greet(_receive(child))
        _send(child, {"task": _pack_task(task)})
        while True:
            message = _receive(child)
            if (told := message.get("progress")) is not None:
                if cancelled():
                    raise Cancelled
                if progress is not None:
                    progress(*told)
                continue
            self._deaths = 0
            if "outcome" in message:
                return _unpack_outcome(message["outcome"])
            return _unpack_error(message["error"])

    def _greet(self, hello: dict[str, Any]) -> None:
        if hello.get("hello") != __version__:
            self._deaths = _DEATHS  # it would be no other the next time
            raise _Died(f"it is {hello.get('hello')}, this is {__version__}")
        self._greeted = True

    def _after_death(self, child: Child, task: Task, death: _Died) -> None:
        """Clean up after a helper that died. Raises Cancelled where close() did it."""
        self._drop(child)
        _remove_outputs(self._env, task)
        with self._lock:
            if self._closed:
                raise Cancelled from None
            self._deaths += 1
            self._inline = self._deaths >= _DEATHS
            _logger.warning(
                "the compaction process died (%s); %s",
                death,
                "compacting in this process from now on" if self._inline else "starting another",
            )

    def _drop(self, child: Child) -> None:
        """End the helper and forget it."""
        with self._lock:
            if self._child is child:
                self._child = None
        child.kill()


def main() -> None:
    """The helper process: run tasks until the parent is gone."""
    channel = parent_channel()
    with suppress(_Died):
        serve(posix_env(), channel)


def serve(env: Env, channel: Channel) -> None:
    """Answer tasks. Raises _Died when the other end is gone; what was begun is removed then."""
    _send(channel, {"hello": __version__})
    while True:
        task = _unpack_task(_receive(channel)["task"])
        told_ns = env.monotonic_ns()

        def tell(read_bytes: int, written_bytes: int) -> None:
            nonlocal told_ns
            now_ns = env.monotonic_ns()
            if now_ns - told_ns >= TELL_MS * 1_000_000:
                told_ns = now_ns
                _send(channel, {"progress": [read_bytes, written_bytes]})

        answer: dict[str, Any]
        try:
            answer = {"outcome": _pack_outcome(compaction.run(env, task, progress=tell))}
        except _Died:
            raise
        except Exception as error:
            answer = {"error": _pack_error(error)}
        _send(channel, answer)


class _Died(Exception):
    """The process at the other end is gone, or does not make sense."""


def _remove_outputs(env: Env, task: Task) -> None:
    """Remove what has one of the task's numbers; nothing else has (compaction.Task)."""
    numbers = range(task.first_number, task.first_number + task.numbers)
    # What cannot be removed is a stray: opening the store removes it.
    with suppress(OSError):
        for name in env.list_dir(tables_path(task.directory)):
            if table_number(name) in numbers or blob_number(name) in numbers:
                with suppress(OSError):
                    env.remove(f"{tables_path(task.directory)}/{name}")


# -- messages -------------------------------------------------------------------------------------


def _send(channel: Channel, message: dict[str, Any]) -> None:
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    data = text.encode(errors="surrogatepass")  # of paths that are no UTF-8
    try:
        channel.send(_LENGTH.pack(len(data)) + data)
    except (EOFError, OSError) as error:
        raise _Died(str(error) or type(error).__name__) from error


def _receive(channel: Channel) -> dict[str, Any]:
    try:
        (size,) = _LENGTH.unpack(channel.receive(_LENGTH.size))
        if size > MAX_MESSAGE_BYTES:
            raise _Died(f"a message of {size} bytes")
        message = json.loads(channel.receive(size))
    except (EOFError, OSError) as error:
        raise _Died(str(error) or type(error).__name__) from error
    except ValueError as error:
        raise _Died(f"no message: {error}") from error
    if not isinstance(message, dict):
        raise _Died(f"no message: {message!r:.100}")
    return message


def _pack_task(task: Task) -> dict[str, Any]:
    job, options = task.job, task.options
    inputs = tuple((level, table) for level, tables in job.inputs for table in tables)
    return {
        "directory": task.directory,
        "store_id": _text(task.store_id),
        "first_number": task.first_number,
        "numbers": task.numbers,
        "expired_ms": task.expired_ms,
        "rate_bytes_s": task.rate_bytes_s,
        "options": [getattr(options, name) for name in TableOptions.__slots__],
        "kind": job.kind,
        "reason": job.reason,
        "inputs": _pack_tables(inputs),
        "output_level": job.output_level,
        "target_bytes": job.target_bytes,
        "grandparent_bytes": job.grandparent_bytes,
        "boundaries": [[_text(boundary.key), boundary.size_bytes] for boundary in job.boundaries],
        "below": [[_text(start), _text(stop)] for start, stop in job.below],
        "collect": list(job.collect),
    }


def _unpack_task(message: dict[str, Any]) -> Task:
    inputs = groupby(_unpack_tables(message["inputs"]), key=lambda entry: entry[0])
    job = Job(
        message["kind"],
        message["reason"],
        tuple((level, tuple(table for _, table in entries)) for level, entries in inputs),
        message["output_level"],
        message["target_bytes"],
        message["grandparent_bytes"],
        tuple(Boundary(_bytes(key), size_bytes) for key, size_bytes in message["boundaries"]),
        tuple((_bytes(start), _bytes(stop)) for start, stop in message["below"]),
        tuple(message["collect"]),
    )
    return Task(
        message["directory"],
        _bytes(message["store_id"]),
        job,
        message["first_number"],
        message["numbers"],
        message["expired_ms"],
        TableOptions(*message["options"]),
        message["rate_bytes_s"],
    )


def _pack_outcome(outcome: Outcome) -> list[Any]:
    return [
        _pack_tables(tuple((0, table) for table in outcome.tables)),
        [_text(key) for key in outcome.gone],
        [outcome.rows_read, outcome.rows_written, outcome.bytes_read, outcome.bytes_written],
    ]


def _unpack_outcome(message: list[Any]) -> Outcome:
    tables, gone, counts = message
    return Outcome(
        tuple(table for _, table in _unpack_tables(tables)), tuple(map(_bytes, gone)), *counts
    )


def _pack_error(error: Exception) -> dict[str, Any]:
    packed: dict[str, Any] = {
        "kind": type(error).__name__,
        "text": str(error),
        "trace": "".join(traceback.format_exception(error)),
    }
    if isinstance(error, Corruption):
        packed |= {"kind": "Corruption", "path": error.path, "offset": error.offset}
    elif isinstance(error, OSError) and error.errno is not None:
        packed |= {"kind": "OSError", "errno": error.errno, "strerror": error.strerror}
        packed["path"] = error.filename if isinstance(error.filename, str) else None
    return packed


def _unpack_error(packed: dict[str, Any]) -> Exception:
    """The error that was packed; RuntimeError for a kind that only a bug raises."""
    kind, text = packed["kind"], packed["text"]
    error: Exception
    if kind == "Corruption":
        error = Corruption(text)  # the text has path and offset in it
        error.path, error.offset = packed["path"], packed["offset"]
    elif kind == "OSError" and "errno" in packed:
        error = OSError(packed["errno"], packed["strerror"], packed["path"])
    elif kind == "MemoryError":
        error = MemoryError(text)
    elif kind in _ERRORS:
        error = _ERRORS[kind](text)
    else:
        error = RuntimeError(f"{kind} in the compaction process: {text}")
    error.add_note(f"in the compaction process:\n{packed['trace']}")
    return error


def _pack_tables(entries: tuple[tuple[int, TableMeta], ...]) -> str:
    return _text(encode_edit(VersionEdit(entries)))


def _unpack_tables(message: str) -> tuple[tuple[int, TableMeta], ...]:
    return decode_edit(_bytes(message)).added


def _text(data: bytes) -> str:
    return data.decode(_BYTES)


def _bytes(text: str) -> bytes:
    return text.encode(_BYTES)
