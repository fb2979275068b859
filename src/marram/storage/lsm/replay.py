"""Replaying a log into the lsm engine's memtable.

Owns what recovery does otherwise than LsmEngine.apply(): the memtable's order comes last
(memory/replay.py), and nothing is kept to undo.

Threading: runs alone, in recovery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from marram.coding.batch import (
    DELETE,
    EXPIRE,
    PATCH,
    PUT,
    SINGLE_KEY,
    SINGLE_KEYSPACE,
    Change,
    decode,
    plain_put,
)
from marram.storage.entry import Stored, stored
from marram.storage.log.reader import BatchSink
from marram.storage.lsm.memtable import GONE, Tally
from marram.storage.memory.replay import SpaceReplay

if TYPE_CHECKING:
    from marram.storage.lsm.engine import LsmEngine

_KEY, _KEYSPACE = SINGLE_KEY, SINGLE_KEYSPACE


class LsmReplay(BatchSink):
    """Takes a log's batches for the lsm engine."""

    def __init__(self, engine: LsmEngine) -> None:
        self._engine = engine
        self._look()

    def take(self, buffer: bytes, start: int, stop: int, sequence: int) -> None:
        """Apply the batch in buffer[start:stop]."""
        value_at = plain_put(buffer, start, stop)
        if value_at < 0:
            for change in decode(buffer, start, stop):
                self._apply(change, sequence)
            return
        where = buffer  # compiled, a pointer
        physical: int = self._numbers[where[start + _KEYSPACE]]
        self._set(physical, where[start + _KEY : value_at], where[value_at:stop])

    def finish(self) -> None:
        """Settle the memtable's spaces: the engine is as apply() would have left it."""
        for space in self._spaces:
            space.settle()

    def _look(self) -> None:
        """See what is there to change: again after what changed that."""
        engine = self._engine
        memtable = engine.tree.active  # recovery freezes none
        self._numbers = [space.number for space in engine.spaces]
        self._spaces = [SpaceReplay(space) for space in memtable.spaces]
        self._tallies = list(memtable.tallies)

    def _set(self, physical: int, key: bytes, held: Stored) -> None:
        space: SpaceReplay = self._spaces[physical]
        tally: Tally = self._tallies[physical]
        tally.note(key, space.store(key, held), held)

    def _apply(self, change: Change, sequence: int) -> None:
        kind, keyspace, key, value, number, type_ = change
        if kind == PUT:
            assert value is not None
            self._set(self._numbers[keyspace], key, stored(value, number, type_))
        elif kind == DELETE:
            self._set(self._numbers[keyspace], key, GONE)
        elif kind in (EXPIRE, PATCH):
            # A key that is new to the memtable gets its place in the order there and then.
            self._engine.apply((change,), sequence)
        else:
            self.finish()
            self._engine.apply((change,), sequence)
            self._look()
