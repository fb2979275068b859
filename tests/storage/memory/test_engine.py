"""storage/memory/engine.py and space.py: snapshots pin, undo restores, counters hold."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from marram.coding.batch import Change, delete, delete_range, expire, patch, put, swap
from marram.storage.entry import deadline_of, entry_of
from marram.storage.memory.engine import MemoryEngine, Snapshot

keys = st.sampled_from([b"a", b"b", b"bb", b"c", b"d"])
spaces = st.integers(0, 2)
deadlines = st.sampled_from([0, 0, 500, 1000, 5000])
changes = st.one_of(
    st.builds(put, spaces, keys, st.binary(max_size=4), deadlines),
    st.builds(put, spaces, keys, st.binary(max_size=4), deadlines),
    st.builds(delete, spaces, keys),
    st.builds(expire, spaces, keys, deadlines),
    st.builds(patch, spaces, keys, st.integers(0, 6), st.binary(max_size=3)),
    st.builds(delete_range, spaces, keys | st.just(b""), st.none() | keys),
    st.builds(swap, spaces, spaces),
)

Model = list[dict[bytes, tuple[bytes, int]]]


def apply_to_model(model: Model, change: Change) -> None:
    kind, keyspace, key, value, number, _ = change
    here = model[keyspace]
    if kind == 1:
        here[key] = (value or b"", number)
    elif kind == 2:
        here.pop(key, None)
    elif kind == 3:
        if key in here:
            here[key] = (here[key][0], number)
    elif kind == 4:
        old, deadline = here.get(key, (b"", 0))
        grown = bytearray(old.ljust(number, b"\0"))
        grown[number : number + len(value or b"")] = value or b""
        here[key] = (bytes(grown), deadline)
    elif kind == 5:
        for k in [k for k in here if k >= key and (value is None or k < value)]:
            del here[k]
    else:
        model[keyspace], model[number] = model[number], model[keyspace]


def state_of(engine: MemoryEngine) -> Model:
    return [
        {k: (entry_of(v).value, deadline_of(v)) for k, v in space.map.items()}
        for space in engine.spaces[:3]
    ]


def snapshot_state(snapshot: Snapshot) -> Model:
    out: Model = []
    for keyspace in range(3):
        rows: list[Any] = []
        start: bytes | None = b""
        while start is not None:
            part, start = snapshot.chunk(keyspace, start, None, 2, 0)
            rows += part
        backward: list[Any] = []
        stop: bytes | None = None
        while True:
            part, stop = snapshot.chunk(keyspace, b"", stop, 2, 0, reverse=True)
            backward += part
            if stop is None:
                break
        assert backward == rows[::-1]
        assert [k for k, _ in rows] == sorted(k for k, _ in rows)
        out.append({k: (entry_of(v).value, deadline_of(v)) for k, v in rows})
    return out


class EngineMachine(RuleBasedStateMachine):
    """Random batches, snapshots and undone batches against dicts."""

    snapshots = Bundle("snapshots")

    def __init__(self) -> None:
        super().__init__()
        self.engine = MemoryEngine()
        self.model: Model = [{}, {}, {}]
        self.sequence = 0

    @rule(batch=st.lists(changes, min_size=1, max_size=4))
    def apply(self, batch: list[Change]) -> None:
        self.sequence += 1
        self.engine.apply(batch, self.sequence)
        for change in batch:
            apply_to_model(self.model, change)

    @rule(batch=st.lists(changes, min_size=1, max_size=4))
    def e3_a_reverted_batch_leaves_no_trace(self, batch: list[Change]) -> None:
        undo = self.engine.apply(batch, self.sequence + 1)
        self.engine.revert(undo, self.sequence + 1)

    @rule(target=snapshots)
    def pin(self) -> Any:
        snapshot = self.engine.snapshot(self.sequence)
        return snapshot, [dict(space) for space in self.model]

    @rule(pinned=snapshots)
    def a_snapshot_shows_its_position(self, pinned: Any) -> None:
        snapshot, then = pinned
        assert snapshot_state(snapshot) == then
        for keyspace in range(3):
            for key in (b"a", b"b", b"bb", b"c", b"d"):
                held = snapshot.get(keyspace, key)
                assert (key in then[keyspace]) == (held is not None)

    @rule(pinned=consumes(snapshots))
    def release(self, pinned: Any) -> None:
        self.engine.release(pinned[0])

    @rule(now=st.sampled_from([0, 499, 500, 1000, 1500, 9000]))
    def due_keys_are_past_their_deadline(self, now: int) -> None:
        for space, model in zip(self.engine.spaces, self.model, strict=False):
            due = space.due(now, 100)
            expired = {k for k, (_, d) in model.items() if 0 < d <= now}
            assert set(due) <= expired
            assert space.expired_count(now) == len(expired)

    @invariant()
    def matches_the_model(self) -> None:
        assert state_of(self.engine) == self.model
        for space in self.engine.spaces[:3]:
            space._check()
        if not self.engine._pins:
            assert not any(s.history or s.ghosts for s in self.engine.spaces)


TestEngine = EngineMachine.TestCase
TestEngine.settings = settings(max_examples=60, stateful_step_count=40)


def test_old_versions_are_trimmed_while_newer_snapshots_live() -> None:
    engine = MemoryEngine()
    engine.put(0, b"k", b"0", 1)
    pins = [engine.snapshot(1)]
    for sequence in range(2, 20_000):
        engine.put(0, b"%d" % sequence, b"x", sequence)
        engine.put(0, b"k", b"%d" % sequence, sequence)
        if sequence % 1000 == 0:
            pins.append(engine.snapshot(sequence))
            engine.release(pins.pop(0))

    assert len(engine.spaces[0].history) < 10_000
    assert pins[0].get(0, b"k") == b"%d" % pins[0].position


def test_s3_keys_that_are_new_since_a_pin_share_one_link() -> None:
    engine = MemoryEngine()
    engine.put(0, b"old", b"0", 1)
    first = engine.snapshot(1)
    engine.apply([put(0, b"a", b"1")], 5)
    engine.apply([put(0, b"b", b"2"), put(0, b"old", b"2")], 6)
    second = engine.snapshot(6)
    engine.apply([put(0, b"c", b"3"), delete(0, b"a")], 9)

    history = engine.spaces[0].history
    assert history[b"b"] is not history[b"c"]
    assert history[b"b"] == (2, None, None)
    assert [first.get(0, key) for key in (b"a", b"b", b"c", b"old")] == [None, None, None, b"0"]
    assert [second.get(0, key) for key in (b"a", b"b", b"c", b"old")] == [b"1", b"2", None, b"2"]
    assert all(engine.changed_since(first, [(0, key)], []) for key in (b"a", b"b", b"c", b"old"))
    assert [engine.changed_since(second, [(0, key)], []) for key in (b"a", b"b", b"c")] == [
        True, False, True,
    ]  # fmt: skip


def test_s3_an_undone_batch_takes_the_link_of_its_new_keys_along() -> None:
    engine = MemoryEngine()
    pin = engine.snapshot(1)
    engine.apply([put(0, b"kept", b"1")], 2)
    undo = engine.apply([put(0, b"gone", b"2"), put(0, b"kept", b"2")], 3)
    engine.revert(undo, 3)

    space = engine.spaces[0]
    assert list(space.history) == [b"kept"]
    assert not space.ghosts
    assert not engine.changed_since(pin, [(0, b"gone")], [])
    assert engine.changed_since(pin, [(0, b"kept")], [])


def test_every_due_key_shows_once_its_bucket_is_past() -> None:
    engine = MemoryEngine()
    engine.apply([put(0, b"%d" % i, b"v", 1000 + i) for i in range(1000)], 1)
    found: set[bytes] = set()
    while due := engine.spaces[0].due(10_000, 64):
        found |= set(due)
        engine.apply([delete(0, key) for key in due], 2)

    assert len(found) == 1000
    assert len(engine.spaces[0]) == 0
