"""What both engines are to the writing side: something that takes a single PUT.

Owns that one call, which compiled code makes by its C type; all else of an engine is engine.py's.
Apart from both, because a store of the one engine never loads the other (engines.py).

Threading: under the store's lock.
"""

from __future__ import annotations

from marram.storage.entry import Stored


class TakesPuts:
    """The base of the engines."""

    __slots__ = ()

    def put(self, keyspace: int, key: bytes, held: Stored, sequence: int) -> None:
        """apply() of a single PUT, without the tuple; an engine does, this one forgets it."""
