"""Every error marram raises, one tree.

    Error
    ├── InvalidArgument (ValueError)   the caller's mistake; nothing changed
    │   └── InvalidType (TypeError)    e.g. str where bytes are wanted
    ├── NotFound (KeyError)            db[key] of a missing key
    ├── NotAStore                      the directory is not, or not yet, a store
    ├── UnsupportedFormat              written by a newer marram; nothing was touched
    ├── Locked                         another handle owns the directory
    ├── Closed                         the handle was closed
    │   └── Forked                     the handle belongs to the parent process
    ├── Conflict                       an optimistic transaction lost its race; retry it
    ├── ReadOnly                       this handle or node does not take writes
    │   └── NotLeader                  ... another node does; `address` names it where known
    ├── NoReplicas                     fewer replicas than the write has to reach; nothing changed
    ├── Behind                         a replica is not at the position that was asked for
    ├── StoreFull                      no room could be reserved; nothing was written, retry later
    ├── StoreFailed                    a durable write failed earlier; only reopening heals it
    │   └── OutcomeUnknown             ... and it was yours: it may or may not have happened
    ├── LogGone                        the log does not reach back so far: take a full copy
    ├── Interrupted                    told to stop half-way; what was done stays, nothing is lost
    ├── Corruption                     bytes on disk are not what was written
    ├── ProtocolError                  a peer's bytes are not the protocol
    ├── ServerError                    a server answered with an error of its own
    └── ConnectionLost                 the connection broke (a write in flight: OutcomeUnknown)

Imports nothing, so every layer may raise these. Threading: plain exceptions.
"""

from __future__ import annotations


class Error(Exception):
    """Base of all of marram's errors."""


class InvalidArgument(Error, ValueError):
    """An argument is out of range or malformed; nothing was changed."""


class InvalidType(InvalidArgument, TypeError):
    """An argument has the wrong type, for instance str where bytes are wanted."""


class NotFound(Error, KeyError):
    """The key is not in the store."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which reads badly in a message.
        return Exception.__str__(self)


class NotAStore(Error):
    """The directory holds no store (and creating one was not asked for, or would mix files)."""


class UnsupportedFormat(Error):
    """A file was written in a format this version does not know; nothing was touched."""


class Locked(Error):
    """Another handle, in this process or another, owns the directory.

    owner_pid: process id of the owner, or None where the lock file does not tell.
    owner_address: where the owner serves this directory ("resp=127.0.0.1:7379"), or None.
    """

    def __init__(
        self, message: str, owner_pid: int | None = None, owner_address: str | None = None
    ) -> None:
        super().__init__(message)
        self.owner_pid = owner_pid
        self.owner_address = owner_address


class Closed(Error):
    """The handle was closed."""


class Forked(Closed):
    """The handle was opened before fork(); open the directory anew in the child."""


class Conflict(Error):
    """Something the transaction read was changed by another writer; run it again."""


class ReadOnly(Error):
    """This handle or node does not take writes."""


class NotLeader(ReadOnly):
    """Another node takes the writes; `address` names it where it is known."""

    def __init__(self, message: str, address: str | None = None) -> None:
        super().__init__(message)
        self.address = address


class NoReplicas(Error):
    """Fewer replicas are connected than the write has to reach; nothing was written."""


class Behind(Error):
    """The server, a replica maybe, is not at the position that a read asked for."""


class StoreFull(Error):
    """Room for the write could not be reserved; nothing was written, and a retry may succeed."""


class StoreFailed(Error):
    """A durable write, sync, rename or close failed earlier; only reopening the store heals it."""


class OutcomeUnknown(StoreFailed):
    """The failure hit this very write: it may or may not survive the next recovery."""


class LogGone(Error):
    """The log that somebody wants to go on from is not there any more; only the whole state is."""


class Interrupted(Error):
    """Long work was told to stop before its end; what it did so far stays, and nothing is lost."""


class Corruption(Error):
    """Bytes on disk are not the bytes that were written.

    path: the file; offset: where in it, bytes, or None where the whole file is meant.
    """

    def __init__(self, message: str, path: str | None = None, offset: int | None = None) -> None:
        where = "" if path is None else f"{path}: " if offset is None else f"{path} @ {offset}: "
        super().__init__(where + message)
        self.path = path
        self.offset = offset


class ProtocolError(Error):
    """A peer sent bytes that are not the protocol; the connection cannot go on."""


class ServerError(Error):
    """A server answered with an error; `code` is its first word (ERR, WRONGTYPE, ...)."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message.split(" ", 1)[0]


class ConnectionLost(Error):
    """The connection to the server broke."""
