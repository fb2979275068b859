"""LOCK: one owner a directory (P5), and the note a clean close leaves for the next one.

Owns the lock file and its text; the locking itself is the env's.

K1  acquire() fails at once while any handle anywhere holds the directory, and says who.
K2  the closing note is believed only with its checksum; without one there is no promise.

The text is one line of JSON: who owns the directory ("pid", "host", "started_ms", "address"), or,
after a clean close, "closed": how far its last log was synced. The note can only understate: a log
never shrinks below what was synced, so a stale note is still true.

Threading: callers serialize.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from marram.coding.checksum import crc32
from marram.env.api import Env, FileLock
from marram.errors import Locked
from marram.storage.layout import LOCK

_TEXT_MAX = 4096


class CloseNote(NamedTuple):
    """What a clean close promises: that log was synced up to `end` bytes."""

    log_number: int
    end: int


class DirectoryLock:
    """The lock of one open store."""

    def __init__(self, env: Env, lock: FileLock) -> None:
        self._env = env
        self._lock = lock
        self._owner: dict[str, object] = {}

    @classmethod
    def acquire(cls, env: Env, directory: str) -> DirectoryLock:
        """Lock the directory. Raises Locked, naming the owner."""
        path = f"{directory}/{LOCK}"
        try:
            return cls(env, env.lock(path))
        except BlockingIOError:
            raise _locked(env, directory, path) from None

    def read_note(self) -> CloseNote | None:
        """The note of the last clean close, where there is an intact one."""
        fields = _parse(self._lock.file.read(_TEXT_MAX, 0))
        note = fields.get("closed")
        if not isinstance(note, list) or len(note) != 3:
            return None
        number, end, checksum = note
        if not (isinstance(number, int) and isinstance(end, int)):
            return None
        return CloseNote(number, end) if checksum == crc32(b"%d %d" % (number, end)) else None

    def write_owner(self, address: str | None = None) -> None:
        """Say who owns the directory, and where it is served."""
        self._owner = {
            "pid": self._env.pid(),
            "host": self._env.hostname(),
            "started_ms": self._owner.get("started_ms", self._env.wall_ms()),
            "address": address,
        }
        self._write(self._owner)

    def write_note(self, note: CloseNote) -> None:
        """Leave the note of a clean close, durably. Raises OSError."""
        checksum = crc32(b"%d %d" % note)
        self._write({"closed": [note.log_number, note.end, checksum]})
        self._lock.file.sync()

    def release(self) -> None:
        """Give the directory up; idempotent."""
        self._lock.release()

    def _write(self, fields: dict[str, object]) -> None:
        text = json.dumps(fields).encode() + b"\n"
        self._lock.file.write(text, 0)
        self._lock.file.truncate(len(text))


def _parse(text: bytes) -> dict[str, object]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):  # never written, or damaged: a courtesy, not a need
        return {}
    return fields if isinstance(fields, dict) else {}


def _locked(env: Env, directory: str, path: str) -> Locked:
    try:
        file = env.open(path)
    except OSError:
        return Locked(f"{directory} is in use by another handle")
    try:
        fields = _parse(file.read(_TEXT_MAX, 0))
    finally:
        file.close()
    pid = fields.get("pid")
    address = fields.get("address")
    if not isinstance(pid, int):
        return Locked(f"{directory} is in use by another handle")
    where = f"this process, pid {pid}" if pid == env.pid() else f"pid {pid}"
    host = fields.get("host")
    if host != env.hostname():
        where += f" on {host}"
    message = f"{directory} is in use by {where}"
    if isinstance(address, str) and address:
        return Locked(f"{message}, which serves it at {address}", pid, address)
    return Locked(message, pid)
