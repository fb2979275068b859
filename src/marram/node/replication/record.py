"""What a store remembers of its role: the file `role` in its directory.

Owns the file: whom the store follows, and whether it was deposed; not what follows from it
(role.py). A store without the file is nobody's replica.

    {"upstream": "host:port", "deposed_by": 0}

upstream: "" for none. deposed_by: an epoch above the store's that somebody told it of, 0 for none:
it takes no writes until it is promoted anew.

J1  writing it is atomic and durable: a crash leaves the old record or the new one.
J2  a file that cannot be read stops the start: guessing could make a second primary.

Threading: callers serialize.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from marram.env.api import Env
from marram.errors import Corruption
from marram.storage.layout import NEW_ROLE, ROLE

_SIZE_MAX = 4096


@dataclass(frozen=True, slots=True)
class Record:
    """A store's role; see above."""

    upstream: str = ""
    deposed_by: int = 0


def read_record(env: Env, directory: str) -> Record:
    """The record of a store; of one that has none, the empty one. Raises Corruption, OSError."""
    path = f"{directory}/{ROLE}"
    if not env.exists(path):
        return Record()
    file = env.open(path)
    try:
        data = file.read(_SIZE_MAX, 0)
    finally:
        file.close()
    try:
        fields = json.loads(data)
        upstream, deposed_by = fields["upstream"], fields["deposed_by"]
    except (ValueError, KeyError, TypeError):
        raise Corruption("this is no record of a role", path) from None
    if not isinstance(upstream, str) or not isinstance(deposed_by, int):
        raise Corruption("this is no record of a role", path)
    return Record(upstream, deposed_by)


def write_record(env: Env, directory: str, record: Record) -> None:
    """Replace a store's record, durably (J1). Raises OSError."""
    path, new_path = f"{directory}/{ROLE}", f"{directory}/{NEW_ROLE}"
    if env.exists(new_path):  # left by a crash
        env.remove(new_path)
    if record == Record():
        if env.exists(path):
            env.remove(path)
            env.sync_dir(directory)
        return
    text = json.dumps({"upstream": record.upstream, "deposed_by": record.deposed_by})
    file = env.open(new_path, write=True, create=True)
    try:
        file.write(text.encode(), 0)
        file.sync()
    finally:
        file.close()
    env.rename(new_path, path)
    env.sync_dir(directory)
