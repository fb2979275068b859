"""What a look-up beside a batch may see, over every engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import marram
from marram.coding.batch import Change, delete_range, put
from marram.env.memory import MemoryEnv
from marram.storage.options import ENGINES

DIRECTORY = "/data/db"


class Stepped(list[Change]):
    """Changes; whoever applies them is held up between the first and the second."""

    def __init__(self, changes: list[Change], between: Callable[[], None]) -> None:
        super().__init__(changes)
        self._between = between

    def __iter__(self) -> Iterator[Change]:
        for change in super().__iter__():
            yield change
            self._between()


class AnnouncedLock:
    """A lock that says when it is asked for."""

    def __init__(self, inner: Any, asked: threading.Event) -> None:
        self._inner = inner
        self._asked = asked

    def __enter__(self) -> None:
        self._asked.set()
        self._inner.acquire()

    def __exit__(self, *exc: object) -> None:
        self._inner.release()


@pytest.mark.parametrize("read", ["get", "get_many", "ttl"])
@pytest.mark.parametrize("engine", ENGINES)
def test_c6_a_look_up_sees_a_batch_whole_or_not_at_all(engine: str, read: str) -> None:
    """A key that a batch deletes and puts again is missing in between, in the map."""
    db = marram.open(DIRECTORY, env=MemoryEnv(), engine=engine)
    db.put(b"k", b"1")
    looks = {
        "get": lambda: db.get(b"k"),
        "get_many": lambda: db.get_many([b"k"])[0],
        "ttl": lambda: "no deadline" if db.ttl(b"k") is None else "one",
    }
    seen: list[Any] = []
    looked = threading.Event()

    def look() -> None:
        seen.append(looks[read]())
        looked.set()

    reader = threading.Thread(target=look, daemon=True)

    def read_in_between() -> None:
        if not reader.ident and db.store.engine.spaces[0].get(b"k") is None:
            reader.start()
            # It has read what is there in between, and told it, or it asks for the lock.
            assert looked.wait(10)

    lock = db.store.lock
    db.store.lock = AnnouncedLock(lock, looked)  # type: ignore[assignment]
    db.commit(Stepped([delete_range(0, b"k", b"l"), put(0, b"k", b"2")], read_in_between))
    reader.join(10)
    db.store.lock = lock

    assert seen == ["no deadline" if read == "ttl" else b"2"]
    db.close()
