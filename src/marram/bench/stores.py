"""Embedded stores behind one face, each used from Python as its users would.

Owns how they are opened so that all promise the same and may use the same memory (the table is in
docs/benchmarks.md), and what is no store of its own: which of them are installed.

Threading: put() from any thread; everything else from one.
"""

from __future__ import annotations

import importlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from itertools import islice
from typing import Any, TypeVar

import marram
from marram.bench.machine import marram_version
from marram.errors import InvalidArgument
from marram.storage.options import ENGINES

T = TypeVar("T")
Pair = tuple[bytes, bytes]

TRANSACTION = 1000
"""Puts, and gets, a transaction in lmdb, sqlite and diskcache where nothing is synced."""
MIB = 1024 * 1024
_MEMTABLE_BYTES_MAX = 64 * MIB
_MAP_BYTES = 64 << 30
_SQLITE_PAGE_BYTES = 4096
_SQLITE_OFF, _SQLITE_FULL = 0, 2


class Store:
    """What the work needs of a store. Lists in and out, so that a call costs little a key."""

    name = ""
    package = ""
    """What to install for it; "" where it comes with Python."""
    persistent = True
    ordered = True
    """Whether rows() come in key order."""
    seeks = True
    """Whether rows_from() is there."""
    note = "single puts"

    def __init__(self, memory_bytes: int) -> None:
        """Take the settings; open() does the rest. Raises ImportError where it is not there."""
        self.memory_bytes = memory_bytes
        self.memtable_bytes = min(memory_bytes // 8, _MEMTABLE_BYTES_MAX)
        self.cache_bytes = memory_bytes - 2 * self.memtable_bytes
        self.db: Any = None

    def version(self) -> str:
        """Of the package, and of the library below it where it tells."""
        return metadata.version(self.name)

    def open(self, directory: str, synced: bool) -> None:
        """Open, or make, the store in `directory`; synced: put() returns once it is on disk."""
        raise TypeError(directory, synced)

    def put_all(self, pairs: Iterable[Pair]) -> None:
        """Put all, as a user would who needs no sync."""
        put = self.db.put
        for key, value in pairs:
            put(key, value)

    def put(self, key: bytes, value: bytes) -> None:
        """Put one and return once it is on disk; from any thread."""
        self.db.put(key, value)

    def get_all(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """The values, None for a missing one."""
        get = self.db.get
        return [get(key) for key in keys]

    def rows(self) -> Iterator[Pair]:
        """All, in key order."""
        raise TypeError

    def rows_from(self, key: bytes, count: int) -> list[Pair]:
        """The first `count` at or after `key`."""
        raise TypeError(key, count)

    def close(self) -> None:
        """Close it; open() may follow."""
        self.db.close()
        self.db = None


class Marram(Store):
    """One of marram's engines."""

    def __init__(self, memory_bytes: int, engine: str) -> None:
        super().__init__(memory_bytes)
        self.engine = engine
        self.name = f"marram-{engine}"

    def version(self) -> str:
        return marram_version()

    def open(self, directory: str, synced: bool) -> None:
        options: dict[str, Any] = {}
        if self.engine != "memory":
            options["memory_limit"] = self.memory_bytes
        durability = "sync" if synced else "none"
        self.db = marram.open(directory, engine=self.engine, durability=durability, **options)

    def rows(self) -> Iterator[Pair]:
        return self.db.scan()  # type: ignore[no-any-return]

    def rows_from(self, key: bytes, count: int) -> list[Pair]:
        return list(self.db.scan(start=key, limit=count))


class Rocks(Store):
    """RocksDB by rocksdict."""

    name = package = "rocksdict"

    def __init__(self, memory_bytes: int) -> None:
        super().__init__(memory_bytes)
        self.module = importlib.import_module("rocksdict")

    def open(self, directory: str, synced: bool) -> None:
        module = self.module
        blocks = module.BlockBasedOptions()
        blocks.set_block_cache(module.Cache(self.cache_bytes))
        blocks.set_bloom_filter(10, False)
        options = module.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(blocks)
        options.set_write_buffer_size(self.memtable_bytes)
        options.set_compression_type(module.DBCompressionType.none())
        self.db = module.Rdict(directory, options)
        if synced:
            write = module.WriteOptions()
            write.sync = True
            self.db.set_write_options(write)

    def rows(self) -> Iterator[Pair]:
        return self.db.items()  # type: ignore[no-any-return]

    def rows_from(self, key: bytes, count: int) -> list[Pair]:
        return list(islice(self.db.items(from_key=key), count))


class Level(Store):
    """LevelDB by plyvel."""

    name = package = "plyvel"

    def __init__(self, memory_bytes: int) -> None:
        super().__init__(memory_bytes)
        self.module = importlib.import_module("plyvel")

    def open(self, directory: str, synced: bool) -> None:
        del synced  # asked for with each put
        self.db = self.module.DB(
            directory,
            create_if_missing=True,
            write_buffer_size=self.memtable_bytes,
            lru_cache_size=self.cache_bytes,
            bloom_filter_bits=10,
            compression=None,
        )

    def put(self, key: bytes, value: bytes) -> None:
        self.db.put(key, value, sync=True)

    def rows(self) -> Iterator[Pair]:
        return iter(self.db)

    def rows_from(self, key: bytes, count: int) -> list[Pair]:
        with self.db.iterator(start=key) as rows:
            return list(islice(rows, count))


class Lmdb(Store):
    """LMDB by lmdb."""

    name = package = "lmdb"
    note = f"puts and gets in transactions of {TRANSACTION}, but sync1 and sync16"

    def __init__(self, memory_bytes: int) -> None:
        super().__init__(memory_bytes)
        self.module = importlib.import_module("lmdb")

    def version(self) -> str:
        return f"{super().version()} (LMDB {'.'.join(map(str, self.module.version()))})"

    def open(self, directory: str, synced: bool) -> None:
        self.db = self.module.open(directory, map_size=_MAP_BYTES, sync=synced, metasync=synced)

    def put_all(self, pairs: Iterable[Pair]) -> None:
        for some in transactions(pairs):
            with self.db.begin(write=True) as writing:
                put = writing.put
                for key, value in some:
                    put(key, value)

    def put(self, key: bytes, value: bytes) -> None:
        with self.db.begin(write=True) as writing:
            writing.put(key, value)

    def get_all(self, keys: Iterable[bytes]) -> list[bytes | None]:
        values: list[bytes | None] = []
        for some in transactions(keys):
            with self.db.begin() as reading:
                get = reading.get
                values += [get(key) for key in some]
        return values

    def rows(self) -> Iterator[Pair]:
        with self.db.begin() as reading, reading.cursor() as cursor:
            yield from cursor

    def rows_from(self, key: bytes, count: int) -> list[Pair]:
        with self.db.begin() as reading, reading.cursor() as cursor:
            return list(islice(cursor, count)) if cursor.set_range(key) else []


class Sqlite(Store):
    """sqlite, a table of two columns by key; one connection, which threads take in turn."""

    name = "sqlite3"
    note = Lmdb.note

    def __init__(self, memory_bytes: int) -> None:
        super().__init__(memory_bytes)
        self.lock = threading.Lock()

    def version(self) -> str:
        return sqlite3.sqlite_version

    def open(self, directory: str, synced: bool) -> None:
        path = os.path.join(directory, "rows.sqlite")
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.db.execute(f"PRAGMA cache_size = -{self.memory_bytes // 1024}")
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute(f"PRAGMA synchronous = {'FULL' if synced else 'OFF'}")
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID"
        )

    def put_all(self, pairs: Iterable[Pair]) -> None:
        execute = self.db.execute
        for some in transactions(pairs):
            execute("BEGIN")
            for pair in some:
                execute("REPLACE INTO rows VALUES (?, ?)", pair)
            execute("COMMIT")

    def put(self, key: bytes, value: bytes) -> None:
        with self.lock:
            self.db.execute("REPLACE INTO rows VALUES (?, ?)", (key, value))

    def get_all(self, keys: Iterable[bytes]) -> list[bytes | None]:
        execute, values = self.db.execute, []
        for some in transactions(keys):
            execute("BEGIN")
            for key in some:
                row = execute("SELECT value FROM rows WHERE key = ?", (key,)).fetchone()
                values.append(None if row is None else row[0])
            execute("COMMIT")
        return values

    def rows(self) -> Iterator[Pair]:
        return self.db.execute("SELECT key, value FROM rows ORDER BY key")  # type: ignore[no-any-return]

    def rows_from(self, key: bytes, count: int) -> list[Pair]:
        query = "SELECT key, value FROM rows WHERE key >= ? ORDER BY key LIMIT ?"
        return self.db.execute(query, (key, count)).fetchall()  # type: ignore[no-any-return]


class Diskcache(Store):
    """diskcache: sqlite below, a file for each large value; nothing is evicted here."""

    name = package = "diskcache"
    seeks = False
    note = Lmdb.note

    def __init__(self, memory_bytes: int) -> None:
        super().__init__(memory_bytes)
        self.module = importlib.import_module("diskcache")

    def open(self, directory: str, synced: bool) -> None:
        self.db = self.module.Cache(
            directory,
            eviction_policy="none",
            size_limit=1 << 50,
            cull_limit=0,
            sqlite_cache_size=self.memory_bytes // _SQLITE_PAGE_BYTES,
            sqlite_synchronous=_SQLITE_FULL if synced else _SQLITE_OFF,
        )

    def put_all(self, pairs: Iterable[Pair]) -> None:
        put = self.db.set
        for some in transactions(pairs):
            with self.db.transact():
                for key, value in some:
                    put(key, value)

    def put(self, key: bytes, value: bytes) -> None:
        self.db.set(key, value, retry=True)

    def get_all(self, keys: Iterable[bytes]) -> list[bytes | None]:
        get, values = self.db.get, []
        for some in transactions(keys):
            with self.db.transact():
                values += [get(key) for key in some]
        return values

    def rows(self) -> Iterator[Pair]:
        get = self.db.get
        return ((key, get(key)) for key in self.db.iterkeys())


class Dict(Store):
    """Python's own."""

    name = "dict"
    persistent = False
    ordered = False
    seeks = False
    note = "reference: in memory only"

    def version(self) -> str:
        return ""

    def open(self, directory: str, synced: bool) -> None:
        del directory, synced
        self.db = {}

    def put_all(self, pairs: Iterable[Pair]) -> None:
        db = self.db
        for key, value in pairs:
            db[key] = value

    def rows(self) -> Iterator[Pair]:
        return iter(self.db.items())

    def close(self) -> None:
        self.db = None


def transactions(work: Iterable[T]) -> Iterator[list[T]]:
    """`work` in lists of TRANSACTION."""
    rest = iter(work)
    while some := list(islice(rest, TRANSACTION)):
        yield some


OTHERS: tuple[type[Store], ...] = (Rocks, Level, Lmdb, Sqlite, Diskcache, Dict)


def make_stores(memory_bytes: int, wanted: Sequence[str]) -> tuple[list[Store], list[str]]:
    """Those that are installed, marram's engines first, and a note for each that is not.

    wanted: names; all where there are none. Raises InvalidArgument: a name is none, or is not
    installed.
    """
    names = [*(f"marram-{engine}" for engine in ENGINES), *(kind.name for kind in OTHERS)]
    for name in wanted:
        if name not in names:
            raise InvalidArgument(f"no store is called {name!r}; there are {', '.join(names)}")
    made: list[Store] = [Marram(memory_bytes, engine) for engine in ENGINES]
    notes = []
    for kind in OTHERS:
        try:
            made.append(kind(memory_bytes))
        except ImportError:
            how = f"{kind.name} is not installed (pip install {kind.package})"
            if kind.name in wanted:
                raise InvalidArgument(how) from None
            notes.append(f"left out: {how}")
    return [store for store in made if not wanted or store.name in wanted], notes
