"""Small lsm stores on a simulated disk, for tests of the engine's modules."""

from __future__ import annotations

from typing import Any

import marram
from marram.env.api import Env
from marram.env.memory import MemoryEnv
from marram.storage.db import DB
from marram.storage.lsm.engine import LsmEngine

DIRECTORY = "/data/db"
TABLES = f"{DIRECTORY}/tables"


def open_lsm(env: Env | None = None, **options: Any) -> DB:
    """A store of the lsm engine; background work waits for env.run_background()."""
    return marram.open(DIRECTORY, env=env or MemoryEnv(), engine="lsm", **options)


def engine_of(db: DB) -> LsmEngine:
    """Its engine."""
    engine = db.store.engine
    assert isinstance(engine, LsmEngine)
    return engine


def flush(db: DB, **values: bytes) -> None:
    """Write keys, and flush them into a table of their own."""
    db.put_many({key.encode(): value for key, value in values.items()})
    db.checkpoint()


def listed(db: DB) -> list[str]:
    """The names of the tables of the present version."""
    levels = engine_of(db).tree.version.levels
    return sorted(f"{table.number}.sst" for level in levels for table in level.tables)
