"""Where rows go in batches: the store in a directory, or a server.

Owns the two ways to write many rows with their deadlines; not where they come from (transfer.py,
redis_import.py).

K1  a batch of apply() happens whole or not at all, and is committed when the call returns.
K2  apply_new() overwrites nothing, whatever others write to a server meanwhile.

Threading: one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from marram.coding.batch import PUT, Change
from marram.storage.dump import Row

if TYPE_CHECKING:
    from marram.client.calls import Call
    from marram.client.sync import RemoteDB
    from marram.protocol.replies import Reply
    from marram.storage.db import DB


class Sink(Protocol):
    """Takes rows. max_key_bytes, max_value_bytes: longer ones are refused."""

    max_key_bytes: int
    max_value_bytes: int

    def now_ms(self) -> int:
        """The time that deadlines are measured by, ms since 1970."""
        ...

    def apply(self, rows: list[Row]) -> None:
        """Write one batch, at least one row, all of one keyspace, and wait for it (K1)."""
        ...

    def missing(self, keyspace: int, keys: Sequence[bytes]) -> list[bytes]:
        """Those of the keys that are not there, in their order."""
        ...

    def apply_new(self, rows: list[Row]) -> list[Row]:
        """Write the rows whose keys are not there (K2), and wait; those that were written."""
        ...


class StoreSink:
    """Batches into an open store, which nobody else can write to."""

    def __init__(self, db: DB) -> None:
        self._db = db
        self._store = db.store
        self.max_key_bytes = db.store.options.max_key_bytes
        self.max_value_bytes = db.store.options.max_value_bytes

    def now_ms(self) -> int:
        """The store's time."""
        return self._store.now_ms()

    def apply(self, rows: list[Row]) -> None:
        """Sink's; the rows may be of several keyspaces."""
        changes: list[Change] = [
            (PUT, keyspace, key, value, deadline_ms, type_)
            for keyspace, key, value, deadline_ms, type_ in rows
        ]
        self._store.wait(self._store.append(changes))

    def missing(self, keyspace: int, keys: Sequence[bytes]) -> list[bytes]:
        """Sink's."""
        db = self._db.keyspace(keyspace)
        return [key for key in keys if key not in db]

    def apply_new(self, rows: list[Row]) -> list[Row]:
        """Sink's; one batch."""
        new = set(self.missing(rows[0][0], [row[1] for row in rows]))
        rows = [row for row in rows if row[1] in new]
        if rows:
            self.apply(rows)
        return rows


class ServerSink:
    """Batches to a server; each is of one keyspace."""

    def __init__(self, server: RemoteDB) -> None:
        from marram.client.calls import MAX_KEY_BYTES, MAX_VALUE_BYTES

        self._server = server
        found = server.run(_limits())
        self.max_key_bytes = found.get(b"max-key-bytes", MAX_KEY_BYTES)
        self.max_value_bytes = found.get(b"max-value-bytes", MAX_VALUE_BYTES)

    def now_ms(self) -> int:
        """The server's time."""
        from marram.client import calls

        return self._server.run(calls.time_ms())

    def apply(self, rows: list[Row]) -> None:
        """Sink's."""
        from marram.client.calls import Writes

        writes = Writes()
        for _, key, value, deadline_ms, _ in rows:
            writes.put_until(key, value, deadline_ms)
        self._server.keyspace(rows[0][0]).run(writes.commit_if(0))

    def missing(self, keyspace: int, keys: Sequence[bytes]) -> list[bytes]:
        """Sink's."""
        from marram.client.calls import Call, read_bool

        def read(replies: list[Reply]) -> list[bytes]:
            pairs = zip(keys, replies, strict=True)
            return [key for key, reply in pairs if not read_bool([reply])]

        commands = [(b"EXISTS", key) for key in keys]
        return self._server.keyspace(keyspace).run(Call(commands, read))

    def apply_new(self, rows: list[Row]) -> list[Row]:
        """Sink's; not one batch, as each key has its own condition."""
        from marram.client.calls import Call, read_ok

        commands: list[Sequence[bytes]] = []
        for _, key, value, deadline_ms, _ in rows:
            until = (b"PXAT", b"%d" % deadline_ms) if deadline_ms else ()
            commands.append((b"SET", key, value, b"NX", *until))

        def read(replies: list[Reply]) -> list[Row]:
            for reply in replies:
                read_ok([reply])
            return [row for row, reply in zip(rows, replies, strict=True) if reply is not None]

        return self._server.keyspace(rows[0][0]).run(Call(commands, read, writes=True))


def _limits() -> Call[dict[bytes, int]]:
    """CONFIG GET of the limits; what the server does not tell is left out."""
    from marram.client.calls import Call

    def read(replies: list[Reply]) -> dict[bytes, int]:
        found = replies[0] if isinstance(replies[0], dict) else {}
        return {
            name: int(value)
            for name, value in found.items()
            if isinstance(name, bytes) and isinstance(value, bytes) and value.isdigit()
        }

    return Call([(b"CONFIG", b"GET", b"max-key-bytes", b"max-value-bytes")], read)
