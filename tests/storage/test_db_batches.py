"""What a look-up beside a batch may see, over every engine."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import marram
from marram.coding.batch import delete_range, put
from marram.env.memory import MemoryEnv
from marram.storage.memory.space import Space
from marram.storage.options import ENGINES

DIRECTORY = "/data/db"


@pytest.mark.parametrize("read", ["get", "get_many", "ttl"])
@pytest.mark.parametrize("engine", ENGINES)
def test_c6_a_look_up_sees_a_batch_whole_or_not_at_all(
    engine: str, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that a batch deletes and puts again is missing in between, in the map."""
    db = marram.open(DIRECTORY, env=MemoryEnv(), engine=engine)
    db.put(b"k", b"1")
    looks = {
        "get": lambda: db.get(b"k"),
        "get_many": lambda: db.get_many([b"k"])[0],
        "ttl": lambda: "no deadline" if db.ttl(b"k") is None else "one",
    }
    seen: list[Any] = []
    looked, space_get, space_put = threading.Event(), Space.get, Space.put
    reader = threading.Thread(target=lambda: seen.append(looks[read]()), daemon=True)

    def put_in_between(self: Space, *args: Any) -> Any:
        if not reader.ident:
            reader.start()
            # It has read what is there in between, or waits for the lock that is held here.
            looked.wait(0.2)
        return space_put(self, *args)

    def get(self: Space, key: bytes) -> Any:
        found = space_get(self, key)
        looked.set()
        return found

    monkeypatch.setattr(Space, "put", put_in_between)
    monkeypatch.setattr(Space, "get", get)
    db.commit([delete_range(0, b"k", b"l"), put(0, b"k", b"2")])
    reader.join(10)

    assert seen == ["no deadline" if read == "ttl" else b"2"]
    db.close()
