"""What commands on strings share: reading one with its deadline, and the size limit.

Owns the limit on a string's size and its refusal; not the store's own limits on keys and values,
which the node checks against the keys a row names and the changes a handler gives.

Threading: pure functions.
"""

from __future__ import annotations

from typing import Final

from marram.coding.batch import TYPE_STRING, Change, delete, patch, put
from marram.commands.spec import CommandError
from marram.storage.entry import Entry, WrongType
from marram.storage.view import View

MAX_STRING_BYTES: Final = 512 << 20
"""How long a command may make a string, bytes; Redis's default for proto-max-bulk-len."""

TOO_LONG: Final = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"


def string_entry(view: View, key: bytes) -> Entry | None:
    """The string at `key` with its deadline, or None. Raises WrongType."""
    entry = view.entry(key)
    if entry is not None and entry[2] != TYPE_STRING:
        raise WrongType
    return entry


def check_size(size_bytes: int) -> None:
    """Refuse a string of that size before anything is built. Raises CommandError."""
    if size_bytes > MAX_STRING_BYTES:
        raise CommandError(TOO_LONG)


def write(view: View, key: bytes, value: bytes, deadline_ms: int) -> list[Change]:
    """Store a string; one whose deadline has passed already is not stored but removed.

    So no value enters the log that no reader may ever see.
    """
    if 0 < deadline_ms <= view.now_ms:
        return [delete(view.keyspace, key)]
    return [put(view.keyspace, key, value, deadline_ms)]


def overwrite(view: View, key: bytes, held: Entry | None, offset: int, data: bytes) -> list[Change]:
    """Write `data` into a string from byte `offset` on, zero-filling a gap.

    held: what is there. Empty data still grows the string to `offset`. The log gets the data
    alone, whatever the size of the string.
    """
    keyspace = view.keyspace
    if held is None:
        # PUT first: a PATCH would build on what a key past its deadline still holds.
        if offset == 0:
            return [put(keyspace, key, data)]
        return [put(keyspace, key, b""), patch(keyspace, key, offset, data)]
    return [patch(keyspace, key, offset, data)]
