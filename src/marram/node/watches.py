"""WATCH: which sessions' transactions a batch of changes spoils.

Owns the registry from keys to sessions and what counts as touching a key; not MULTI and EXEC.

K1  a change touches a watched key if it writes it, whatever it writes, and whoever does; removing
    a key that does not exist touches nothing.
K2  an expiry is no change: the deletion of a key past its deadline touches nobody. Instead a
    session remembers the deadline that WATCH saw, and `spoiled()` looks at the clock. (Any later
    change of the deadline is a write, K1.)
K3  with nobody watching, `by_key` is empty and a writer pays one truth test.

Threading: the thread that owns the node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from marram.coding.batch import DELETE, DELETE_RANGE, EXPIRE, SWAP, Change
from marram.node.session import Session
from marram.storage.entry import deadline_of, is_expired
from marram.storage.view import ReadableSpace


class Watches:
    """Who watches what."""

    __slots__ = ("by_key",)

    def __init__(self) -> None:
        self.by_key: dict[tuple[int, bytes], set[Session]] = {}

    def add(
        self, session: Session, keyspace: int, key: bytes, space: ReadableSpace, now_ms: int
    ) -> None:
        """Watch a key; watching it twice changes nothing, as in Redis."""
        place = (keyspace, key)
        if place in session.watched:
            return
        held = space.get(key)
        stale = held is None or is_expired(held, now_ms)
        session.watched[place] = 0 if held is None or stale else deadline_of(held)
        self.by_key.setdefault(place, set()).add(session)

    def drop(self, session: Session) -> None:
        """Forget all that a session watches, and whether it was touched."""
        for place in session.watched:
            watchers = self.by_key[place]
            watchers.discard(session)
            if not watchers:
                del self.by_key[place]
        session.watched.clear()
        session.touched = False

    def spoiled(self, session: Session, now_ms: int) -> bool:
        """Whether a watched key was written, or has expired, since WATCH (K1, K2)."""
        return session.touched or any(
            0 < deadline_ms <= now_ms for deadline_ms in session.watched.values()
        )

    def touched_by(
        self, changes: Iterable[Change], spaces: Sequence[ReadableSpace], now_ms: int
    ) -> set[Session]:
        """Whose watched keys `changes` would touch. Before they are applied."""
        found: set[Session] = set()
        for kind, keyspace, key, value, number, _ in changes:
            if kind == SWAP:
                places = [
                    (at, name)
                    for at, name in self.by_key
                    if at in (keyspace, number)
                    and (
                        _lives(spaces[keyspace], name, now_ms)
                        or _lives(spaces[number], name, now_ms)
                    )
                ]
            elif kind == DELETE_RANGE:
                places = [
                    (at, name)
                    for at, name in self.by_key
                    if at == keyspace
                    and name >= key
                    and (value is None or name < value)
                    and _lives(spaces[keyspace], name, now_ms)
                ]
            elif (keyspace, key) not in self.by_key or (
                kind in (DELETE, EXPIRE) and not _lives(spaces[keyspace], key, now_ms)
            ):
                continue
            else:
                places = [(keyspace, key)]
            for place in places:
                found |= self.by_key[place]
        return found


def _lives(space: ReadableSpace, key: bytes, now_ms: int) -> bool:
    held = space.get(key)
    return held is not None and not is_expired(held, now_ms)
