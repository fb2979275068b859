"""COMPACT's work: compacting on demand, and pausing what an engine does of its own accord.

Owns which engine can do what, and how that is told; the compactions are the engine's.

Threading: the thread that owns the node; run() in env's threads.
"""

from __future__ import annotations

from typing import Any

from marram.commands.spec import CommandError
from marram.errors import Interrupted
from marram.storage.engine import Range
from marram.storage.store import Store

NO_TABLES = "the memory engine has no tables to compact"
PAUSED = "compactions are paused; COMPACT RESUME lets them go on"


class Compaction:
    """One store's."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._progress = (0, 0)
        self._is_running = False

    def check(self) -> None:
        """Whether run() would be refused now. Raises CommandError."""
        compactor = self._store.engine.compactor
        if compactor is not None and compactor.paused:
            raise CommandError(f"ERR {PAUSED}")

    def run(self, where: Range | None) -> str:
        """Compact everything, or a range; returns what was done, for people. Blocks.

        Raises CommandError, and what Store.compact() raises.
        """
        store = self._store
        if store.engine.compactor is None:
            store.checkpoint()
            return f"OK (a checkpoint: {NO_TABLES})"
        self._progress = (0, 0)
        self._is_running = True
        try:
            self._compact(where)
        finally:
            self._is_running = False
        return "OK"

    def set_paused(self, paused: bool) -> None:
        """Pause or resume what the engine does of its own accord. Raises CommandError."""
        compactor = self._store.engine.compactor
        if compactor is None:
            raise CommandError(f"ERR {NO_TABLES}: nothing runs that could be paused")
        if paused:
            compactor.pause()
        else:
            compactor.resume()

    def status(self) -> dict[bytes, Any]:
        """What runs, and what is owed; bytes and rows of tables."""
        found: dict[bytes, Any] = {b"engine": self._store.engine.name.encode()}
        lsm = self._store.engine.stats().get("lsm")
        if lsm is None:
            return found
        done, total = self._progress if self._is_running else (0, 0)
        found |= {
            b"requested": int(self._is_running),
            b"requested_done_bytes": done,
            b"requested_total_bytes": total,
            b"debt_bytes": lsm.get("compaction_debt_bytes", 0),
            b"level0_depth": lsm.get("level0_depth", 0),
        }
        for name, value in lsm.get("compaction", {}).items():
            found[name.encode()] = value.encode() if isinstance(value, str) else int(value)
        return found

    def _compact(self, where: Range | None) -> None:
        try:
            self._store.compact(where, self._tell)
        except Interrupted as error:
            raise CommandError(f"ERR {PAUSED}") from error

    def _tell(self, done: int, total: int) -> None:
        self._progress = (done, total)
