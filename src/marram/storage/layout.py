"""The names in a store's directory, and the version switch.

Owns file names and the one atomic step that moves a store from a generation to the next; not what
the files hold.

    LOCK           who owns the directory (lock.py)
    version        the active generation, decimal
    newVersion     written and synced first, then renamed over version
    checkpoint.N   what generation N starts from (storage/sstable)
    logfile.N      the log after checkpoint.N (storage/log); older ones are kept for replicas
    tables/N.sst   sorted tables of the lsm engine (storage/sstable)
    tables/N.blob  its large values (storage/lsm/blob.py)
    role           whom the store follows as a replica; none: nobody (node/replication/record.py)
    diverged-E-F-T.log  batches F to T of epoch E that the primary does not have (aside.py)

L1  after a crash at any call, `version` holds the old number or the new one, whole.
L2  nothing is removed that the durable `version` still needs.

Threading: callers serialize (open, checkpoint and close never overlap).
"""

from __future__ import annotations

import re

from marram.env.api import Env
from marram.errors import Corruption

LOCK = "LOCK"
VERSION = "version"
NEW_VERSION = "newVersion"
ROLE = "role"
NEW_ROLE = "newRole"
TABLES = "tables"

_NUMBERED = re.compile(r"(checkpoint|logfile)\.(0|[1-9][0-9]{0,17})\Z")
_TABLE = re.compile(r"(0|[1-9][0-9]{0,17})\.sst\Z")
_BLOB = re.compile(r"(0|[1-9][0-9]{0,17})\.blob\Z")
_DIVERGED = re.compile(r"diverged-[0-9]{1,19}-[0-9]{1,19}-[0-9]{1,19}\.log\Z")
_NUMBER = re.compile(rb"(0|[1-9][0-9]{0,17})\n\Z")


def checkpoint_path(directory: str, generation: int) -> str:
    """Where checkpoint.N is."""
    return f"{directory}/checkpoint.{generation}"


def log_path(directory: str, number: int) -> str:
    """Where logfile.N is."""
    return f"{directory}/logfile.{number}"


def tables_path(directory: str) -> str:
    """The folder of the sorted tables."""
    return f"{directory}/{TABLES}"


def table_path(directory: str, number: int) -> str:
    """Where table N is."""
    return f"{directory}/{TABLES}/{number}.sst"


def table_number(name: str) -> int | None:
    """The number of a table by its file name; None for a name that is no table's."""
    match = _TABLE.match(name)
    return int(match[1]) if match else None


def blob_path(directory: str, number: int) -> str:
    """Where blob N is."""
    return f"{directory}/{TABLES}/{number}.blob"


def blob_number(name: str) -> int | None:
    """The number of a blob by its file name; None for a name that is no blob's."""
    match = _BLOB.match(name)
    return int(match[1]) if match else None


def diverged_path(directory: str, epoch: int, first: int, last: int) -> str:
    """Where the batches [first, last] that were set aside are; epoch: of the last of them."""
    return f"{directory}/diverged-{epoch}-{first}-{last}.log"


def is_diverged(name: str) -> bool:
    """Whether a file of that name holds batches that were set aside. No store needs it."""
    return _DIVERGED.match(name) is not None


def numbered(names: list[str]) -> dict[str, list[int]]:
    """The generation numbers in a listing: {"checkpoint": [...], "logfile": [...]}, ascending."""
    found: dict[str, list[int]] = {"checkpoint": [], "logfile": []}
    for name in names:
        match = _NUMBERED.match(name)
        if match:
            found[match[1]].append(int(match[2]))
    return {kind: sorted(numbers) for kind, numbers in found.items()}


def is_ours(name: str) -> bool:
    """Whether a file of that name belongs to a store."""
    return (
        name in (LOCK, VERSION, NEW_VERSION, TABLES, ROLE, NEW_ROLE)
        or _NUMBERED.match(name) is not None
        or is_diverged(name)
    )


def read_version(env: Env, directory: str) -> int:
    """The active generation. Raises FileNotFoundError, Corruption."""
    path = f"{directory}/{VERSION}"
    file = env.open(path)
    try:
        text = file.read(32, 0)
    finally:
        file.close()
    match = _NUMBER.match(text)
    if match is None:
        raise Corruption(f"the generation number is {text!r}", path, 0)
    return int(match[1])


def switch_version(env: Env, directory: str, generation: int) -> None:
    """Make `generation` the active one, atomically and durably (L1).

    Everything the generation needs must be durable before.
    """
    new_path = f"{directory}/{NEW_VERSION}"
    if env.exists(new_path):  # left by a crash between its creation and the rename
        env.remove(new_path)
    file = env.open(new_path, write=True, create=True)
    try:
        file.write(b"%d\n" % generation, 0)
        file.sync()
    finally:
        file.close()
    env.rename(new_path, f"{directory}/{VERSION}")
    # The directory too: a crash may otherwise lose the rename while what it replaced is removed.
    env.sync_dir(directory)
