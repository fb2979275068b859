"""Random histories against a dict: every face gives the same answers, whatever the order."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

import marram
from tests.client.faces import FACES, opened

EXAMPLES = int(os.environ.get("MARRAM_TEST_EXAMPLES", "12"))

KEYS = st.sampled_from([b"a", b"ab", b"abc", b"b", b"ba", b"\x00", b"\xff", b"a\xff"])
VALUES = st.binary(max_size=3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, VALUES),
        st.tuples(st.just("delete"), KEYS),
        st.tuples(st.just("delete_range"), KEYS, st.none() | KEYS),
    ),
    max_size=5,
)


def apply(model: dict[bytes, bytes], steps: list[tuple[Any, ...]]) -> None:
    """What a batch of steps does to a dict."""
    for name, key, *rest in steps:
        if name == "put":
            model[key] = rest[0]
        elif name == "delete":
            model.pop(key, None)
        else:
            for held in [k for k in model if k >= key and (rest[0] is None or k < rest[0])]:
                del model[held]


class History(RuleBasedStateMachine):
    """One history; `db` is set by the test."""

    db: Any
    snapshots = Bundle("snapshots")

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[bytes, bytes] = {}
        self.left_open: list[Any] = []

    @initialize()
    def begin(self) -> None:
        self.db.clear()

    @rule(key=KEYS, value=VALUES)
    def put(self, key: bytes, value: bytes) -> None:
        self.db.put(key, value)
        self.model[key] = value

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        assert self.db.delete(key) == (self.model.pop(key, None) is not None)

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        assert self.db.get(key) == self.model.get(key)
        assert self.db.contains(key) == (key in self.model)

    @rule(keys=st.lists(KEYS, max_size=4))
    def get_many(self, keys: list[bytes]) -> None:
        assert self.db.get_many(keys) == [self.model.get(key) for key in keys]

    @rule(pairs=st.dictionaries(KEYS, VALUES, max_size=4))
    def put_many(self, pairs: dict[bytes, bytes]) -> None:
        self.db.put_many(pairs)
        self.model.update(pairs)

    @rule(key=KEYS, expected=st.none() | VALUES, new=st.none() | VALUES)
    def compare_and_set(self, key: bytes, expected: bytes | None, new: bytes | None) -> None:
        done = self.model.get(key) == expected
        assert self.db.compare_and_set(key, expected, new) == done
        if done:
            self.model.pop(key, None)
            if new is not None:
                self.model[key] = new

    @rule(key=KEYS)
    def pop(self, key: bytes) -> None:
        assert self.db.pop(key, None) == self.model.pop(key, None)

    @rule(steps=STEPS, fail=st.booleans())
    def batch(self, steps: list[tuple[Any, ...]], fail: bool) -> None:
        with contextlib.suppress(ZeroDivisionError), self.db.batch() as batch:
            for name, *args in steps:
                getattr(batch, name)(*args)
            if fail:
                raise ZeroDivisionError
        if not fail:
            apply(self.model, steps)

    @rule(
        reads=st.lists(KEYS, max_size=2),
        steps=STEPS,
        theirs=st.lists(st.tuples(KEYS, VALUES), max_size=2),
    )
    def transaction(
        self, reads: list[bytes], steps: list[tuple[Any, ...]], theirs: list[tuple[bytes, bytes]]
    ) -> None:
        steps = [step for step in steps if step[0] != "delete_range"]
        before = dict(self.model)
        try:
            with self.db.transaction() as t:
                for key in reads:
                    assert t.get(key) == before.get(key)
                for key, value in theirs:
                    self.db.put(key, value)
                    self.model[key] = value
                for name, *args in steps:
                    getattr(t, name)(*args)
                mine = dict(before)
                apply(mine, steps)
                for key in {step[1] for step in steps}:
                    assert t.get(key) == mine.get(key)
        except marram.Conflict:
            assert steps and {key for key, _ in theirs} & set(reads)
        else:
            assert not (steps and {key for key, _ in theirs} & set(reads))
            apply(self.model, steps)

    @rule(target=snapshots)
    def open_snapshot(self) -> Any:
        if len(self.left_open) == 5:
            return multiple()
        opening = self.db.snapshot()
        entered = opening.__enter__()
        self.left_open.append(opening)
        return opening, entered, dict(self.model)

    @rule(held=snapshots, key=KEYS)
    def read_snapshot(self, held: Any, key: bytes) -> None:
        _, snapshot, model = held
        assert snapshot.get(key) == model.get(key)
        assert list(snapshot.scan()) == sorted(model.items())

    @rule(held=consumes(snapshots))
    def close_snapshot(self, held: Any) -> None:
        held[0].__exit__(None, None, None)
        self.left_open.remove(held[0])

    @rule()
    def clear(self) -> None:
        self.db.clear()
        self.model.clear()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert list(self.db.scan()) == sorted(self.model.items())
        assert self.db.count() == len(self.model)

    def teardown(self) -> None:
        for opening in self.left_open:
            opening.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("face", "options"),
    [(face, {}) for face in FACES]
    + [(face, {"engine": "lsm", "memtable_bytes": 1000}) for face in ("DB", "AsyncDB")],
)
def test_every_history_has_the_answers_of_a_dict(face: str, options: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as directory, opened(face, Path(directory), **options) as db:
        machine = type("Machine", (History,), {"db": db})
        run_state_machine_as_test(
            machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=25, deadline=None)
        )
