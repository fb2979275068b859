"""The command table: every command by name.

Owns the collection of the families' rows and the look-up; not the rows themselves.

T1  a name is there once; subcommands are under their container, not here.

Threading: immutable after import.
"""

from __future__ import annotations

from itertools import chain
from typing import Final

from marram.commands import (
    bitfield,
    bitmaps,
    connection,
    counters,
    expiry,
    keys,
    lcs,
    ordered,
    pubsub,
    replication,
    scan,
    server,
    snapshots,
    strings,
    transactions,
)
from marram.commands.spec import Command

# connection.ROWS and server.ROWS bring those of the modules they are split into.
_FAMILIES: Final[tuple[tuple[Command, ...], ...]] = (
    strings.ROWS,
    counters.ROWS,
    lcs.ROWS,
    bitmaps.ROWS,
    bitfield.ROWS,
    keys.ROWS,
    expiry.ROWS,
    scan.ROWS,
    ordered.ROWS,
    snapshots.ROWS,
    transactions.ROWS,
    pubsub.ROWS,
    connection.ROWS,
    replication.ROWS,
    server.ROWS,
)

TABLE: Final[dict[bytes, Command]] = {
    row.name.encode("ascii"): row for row in chain.from_iterable(_FAMILIES)
}
"""Every command by its name in lower case."""

assert len(TABLE) == sum(map(len, _FAMILIES)), "T1"


def lookup(name: bytes) -> Command | None:
    """The row of a command, its name in any case, or None."""
    return TABLE.get(name) or TABLE.get(name.lower())
