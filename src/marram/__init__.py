"""marram: a durable key/value store; diskcache's ergonomics, Redis's protocol, etcd's guarantees.

    import marram

    with marram.open("data") as db:
        db[b"greeting"] = b"hello"      # durable when this line is done
        print(db[b"greeting"])

`open` gives the embedded store, `connect` the same methods over a server, `open_async` and
`connect_async` the same for asyncio. Importing this loads no network code and nothing outside the
standard library; what needs more is loaded when it is first used.

Threading: every handle says for itself; embedded ones may be shared between threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marram import compiled as _compiled  # noqa: F401 - first: it chooses how what follows runs
from marram.errors import (
    Behind,
    Closed,
    Conflict,
    ConnectionLost,
    Corruption,
    Error,
    Forked,
    InvalidArgument,
    InvalidType,
    Locked,
    NoReplicas,
    NotAStore,
    NotFound,
    NotLeader,
    OutcomeUnknown,
    ProtocolError,
    ReadOnly,
    ServerError,
    StoreFailed,
    StoreFull,
    UnsupportedFormat,
)

if TYPE_CHECKING:
    from marram.client.aio import AsyncRemoteDB as AsyncRemoteDB
    from marram.client.aio import connect_async as connect_async
    from marram.client.levels import Acks as Acks
    from marram.client.local_aio import AsyncDB as AsyncDB
    from marram.client.local_aio import open_async as open_async
    from marram.client.sync import RemoteDB as RemoteDB
    from marram.client.sync import connect as connect
    from marram.storage.db import DB as DB
    from marram.storage.db import open_db as open
    from marram.storage.entry import WrongType as WrongType
    from marram.storage.options import Options as Options
    from marram.storage.snapshot import Snapshot as Snapshot
    from marram.storage.store import Position as Position
    from marram.storage.transaction import Batch as Batch
    from marram.storage.transaction import Transaction as Transaction

__version__ = "0.1.0"

_LAZY = {
    "Acks": ("marram.client.levels", "Acks"),
    "open": ("marram.storage.db", "open_db"),
    "DB": ("marram.storage.db", "DB"),
    "Batch": ("marram.storage.transaction", "Batch"),
    "Snapshot": ("marram.storage.snapshot", "Snapshot"),
    "Transaction": ("marram.storage.transaction", "Transaction"),
    "Options": ("marram.storage.options", "Options"),
    "Position": ("marram.storage.store", "Position"),
    "WrongType": ("marram.storage.entry", "WrongType"),
    "RemoteDB": ("marram.client.sync", "RemoteDB"),
    "AsyncRemoteDB": ("marram.client.aio", "AsyncRemoteDB"),
    "AsyncDB": ("marram.client.local_aio", "AsyncDB"),
    "connect": ("marram.client.sync", "connect"),
    "connect_async": ("marram.client.aio", "connect_async"),
    "open_async": ("marram.client.local_aio", "open_async"),
}

__all__ = [
    "DB",
    "Acks",
    "AsyncDB",
    "AsyncRemoteDB",
    "Batch",
    "Behind",
    "Closed",
    "Conflict",
    "ConnectionLost",
    "Corruption",
    "Error",
    "Forked",
    "InvalidArgument",
    "InvalidType",
    "Locked",
    "NoReplicas",
    "NotAStore",
    "NotFound",
    "NotLeader",
    "Options",
    "OutcomeUnknown",
    "Position",
    "ProtocolError",
    "ReadOnly",
    "RemoteDB",
    "ServerError",
    "Snapshot",
    "StoreFailed",
    "StoreFull",
    "Transaction",
    "UnsupportedFormat",
    "WrongType",
    "__version__",
    "connect",
    "connect_async",
    "open",
    "open_async",
]


def __getattr__(name: str) -> Any:
    found = _LAZY.get(name)
    if found is None:
        raise AttributeError(f"module 'marram' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(found[0]), found[1])
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
