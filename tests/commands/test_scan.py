"""SCAN and its cursors: C1-C4, whatever is written meanwhile."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from marram.commands.scan import ScanCursors
from marram.protocol.replies import ErrorReply
from tests.differential.inprocess import InProcess


@pytest.fixture
def server() -> InProcess:
    return InProcess()


def walk(server: InProcess, *options: bytes) -> list[bytes]:
    """A full iteration."""
    found: list[bytes] = []
    cursor = b"0"
    while True:
        cursor, keys = server.ask(b"SCAN", cursor, *options)
        found += keys
        if cursor == b"0":
            return found


# -- the iteration ---------------------------------------------------------------------------------


def test_an_undisturbed_iteration_gives_every_key_once_in_order(server: InProcess) -> None:
    keys = [b"key:%03d" % number for number in range(300)]
    for key in keys:
        server.ask(b"SET", key, b"")
    assert walk(server) == keys
    assert walk(server, b"COUNT", b"7") == keys
    assert walk(server, b"COUNT", b"300") == keys


def test_count_bounds_the_keys_examined(server: InProcess) -> None:
    for number in range(30):
        server.ask(b"SET", b"%02d" % number, b"")
    cursor, keys = server.ask(b"SCAN", b"0")
    assert (len(keys), cursor != b"0") == (10, True)
    assert len(server.ask(b"SCAN", b"0", b"COUNT", b"4")[1]) == 4
    assert server.ask(b"SCAN", b"0", b"COUNT", b"4", b"MATCH", b"*9")[1] == []


def test_no_count_makes_one_call_examine_everything(server: InProcess) -> None:
    for number in range(10_001):
        server.ask(b"SET", b"%05d" % number, b"")
    cursor, keys = server.ask(b"SCAN", b"0", b"COUNT", b"%d" % (2**63 - 1))
    assert (len(keys), cursor != b"0") == (10_000, True)


def test_a_prefix_is_jumped_to(server: InProcess) -> None:
    for number in range(5000):
        server.ask(b"SET", b"a:%d" % number, b"")
    server.ask(b"MSET", b"b:1", b"", b"b:2", b"", b"c", b"")
    assert server.ask(b"SCAN", b"0", b"MATCH", b"b:*") == [b"0", [b"b:1", b"b:2"]]
    assert server.ask(b"SCAN", b"0", b"MATCH", b"c") == [b"0", [b"c"]]
    assert server.ask(b"SCAN", b"0", b"MATCH", b"d") == [b"0", []]


def test_type_filters(server: InProcess) -> None:
    server.ask(b"MSET", b"a", b"", b"b", b"")
    assert server.ask(b"SCAN", b"0", b"TYPE", b"STRING") == [b"0", [b"a", b"b"]]
    assert server.ask(b"SCAN", b"0", b"TYPE", b"list") == [b"0", []]
    assert server.ask(b"SCAN", b"0", b"MATCH", b"a", b"TYPE", b"list") == [b"0", []]


@pytest.mark.parametrize("cursor", [b"x", b"1x", b" 1", b"18446744073709551616", b"9" * 99, b"--1"])
def test_bad_cursors_are_refused(server: InProcess, cursor: bytes) -> None:
    assert server.ask(b"SCAN", cursor) == ErrorReply("ERR invalid cursor")


@pytest.mark.parametrize(
    "options", [b"COUNT", b"COUNT 0", b"COUNT -1", b"MATCH", b"foo 1", b"TYPE"]
)
def test_bad_options_are_refused(server: InProcess, options: bytes) -> None:
    assert server.ask(b"SCAN", b"0", *options.split()) == ErrorReply("ERR syntax error")


def test_c2_an_unknown_cursor_starts_from_the_beginning(server: InProcess) -> None:
    server.ask(b"MSET", *(item for n in range(30) for item in (b"%02d" % n, b"")))
    first = server.ask(b"SCAN", b"0")
    assert server.ask(b"SCAN", b"12345") == first
    server.keyspace = 1
    server.ask(b"SET", b"other", b"")
    assert server.ask(b"SCAN", first[0]) == [b"0", [b"other"]]


def test_c3_a_cursor_may_be_used_again(server: InProcess) -> None:
    server.ask(b"MSET", *(item for n in range(30) for item in (b"%02d" % n, b"")))
    cursor, _ = server.ask(b"SCAN", b"0")
    second = server.ask(b"SCAN", cursor)
    assert server.ask(b"SCAN", cursor) == second
    assert server.ask(b"SCAN", b"0")[0] == cursor


# -- the cursors -----------------------------------------------------------------------------------


def test_c4_cursors_are_bounded_in_number_and_bytes() -> None:
    few = ScanCursors(max_cursors=3)
    numbers = [few.cursor(0, b"%d" % number) for number in range(5)]
    assert len(few) == 3
    assert [few.key(0, number) for number in numbers] == [None, None, b"2", b"3", b"4"]
    small = ScanCursors(max_bytes=100)
    numbers = [small.cursor(0, b"%d" % number * 40) for number in range(5)]
    assert (len(small), small.size_bytes) == (2, 80)
    # One key larger than everything allowed is kept all the same, or nobody could go on.
    number = small.cursor(0, b"x" * 1000)
    assert (len(small), small.key(0, number)) == (1, b"x" * 1000)


def test_c4_cursors_fit_a_signed_integer_and_are_not_zero() -> None:
    cursors = ScanCursors()
    assert all(0 < cursors.cursor(0, b"%d" % number) < 2**63 for number in range(10_000))


def test_the_least_recently_used_cursor_goes_first() -> None:
    cursors = ScanCursors(max_cursors=2)
    first, second = cursors.cursor(0, b"1"), cursors.cursor(0, b"2")
    assert cursors.key(0, first) == b"1"
    cursors.cursor(0, b"3")
    assert (cursors.key(0, first), cursors.key(0, second)) == (b"1", None)


def test_c3_two_places_never_share_a_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    class SameDigest:
        def __init__(self, *_: object, **__: object) -> None: ...
        def digest(self) -> bytes:
            return b"\xff" * 8

    monkeypatch.setattr("marram.commands.scan.blake2b", SameDigest)
    cursors = ScanCursors()
    numbers = [cursors.cursor(0, b"a"), cursors.cursor(0, b"b"), cursors.cursor(1, b"a")]
    assert numbers == [2**63 - 1, 1, 2]
    assert [cursors.key(0, number) for number in numbers] == [b"a", b"b", None]
    assert cursors.cursor(0, b"b") == 1
    assert cursors.size_bytes == 3


def test_a_seed_changes_the_numbers() -> None:
    assert ScanCursors(seed=b"x").cursor(0, b"k") != ScanCursors().cursor(0, b"k")


# -- C1 under concurrent writes --------------------------------------------------------------------

# Some keys are others and a few zero bytes: nothing lies between them.
KEYS = st.builds(
    lambda n, zeros: b"k%02d" % n + bytes(zeros), st.integers(0, 15), st.integers(0, 3)
)


class Iteration:
    """One client's SCAN: what it has to see until its end."""

    def __init__(self, present: set[bytes]) -> None:
        self.cursor = b"0"
        self.required = set(present)
        self.seen: set[bytes] = set()
        self.steps = 0


class Scans(RuleBasedStateMachine):
    """Several iterations while keys come, go and expire, cursors are evicted, servers restart."""

    def __init__(self) -> None:
        super().__init__()
        self.server = InProcess(now_ms=1)
        self.server.cursors = ScanCursors(max_cursors=3)
        self.present: set[bytes] = set()
        self.iterations: list[Iteration] = []

    @rule(key=KEYS)
    def insert(self, key: bytes) -> None:
        self.server.ask(b"SET", key, b"v")
        self.present.add(key)

    @rule(keys=st.lists(KEYS, max_size=8))
    def delete(self, keys: list[bytes]) -> None:
        for key in keys:
            self.server.ask(b"DEL", key)
            self._gone(key)

    @rule(key=KEYS)
    def expire(self, key: bytes) -> None:
        self.server.ask(b"SET", key, b"v", b"PX", b"1")
        self.server.now_ms += 1
        self._gone(key)

    def _gone(self, key: bytes) -> None:
        self.present.discard(key)
        for iteration in self.iterations:
            iteration.required.discard(key)

    @rule()
    def begin(self) -> None:
        self.iterations.append(Iteration(self.present))

    @rule()
    def restart(self) -> None:
        self.server.cursors = ScanCursors(max_cursors=3, seed=b"another")

    @precondition(lambda self: self.iterations)
    @rule(data=st.data(), count=st.integers(1, 9))
    def step(self, data: st.DataObject, count: int) -> None:
        iteration = data.draw(st.sampled_from(self.iterations))
        self._step(iteration, count)

    @precondition(lambda self: self.iterations)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        iteration = data.draw(st.sampled_from(self.iterations))
        while iteration in self.iterations:
            self._step(iteration, 5)

    def _step(self, iteration: Iteration, count: int) -> None:
        iteration.steps += 1
        assert iteration.steps < 1000, "an iteration does not end"
        cursor, keys = self.server.ask(b"SCAN", iteration.cursor, b"COUNT", b"%d" % count)
        assert set(keys) <= self.present, "a key that does not exist"
        iteration.seen |= set(keys)
        iteration.cursor = cursor
        if cursor == b"0":
            assert iteration.required <= iteration.seen, "C1"
            self.iterations.remove(iteration)

    @invariant()
    def bounded(self) -> None:
        assert len(self.server.cursors) <= 3


TestScans = Scans.TestCase
TestScans.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
