"""One contract, four faces: embedded and remote, blocking and asynchronous, do the same."""

from __future__ import annotations

import inspect
import threading
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import marram
from marram.client import aio_views, local_aio, views
from marram.client.aio import AsyncRemoteDB
from marram.client.local_aio import AsyncDB
from marram.client.sync import RemoteDB
from tests.client.faces import FACES, opened
from tests.server.serving import DEADLINE_S

BINARY = bytes(range(256)) + b"\r\n$5\r\n"


ON_LSM = ("DB", "AsyncDB", "RemoteDB")


@pytest.fixture(
    scope="module",
    params=[(face, {}) for face in FACES]
    + [(face, {"engine": "lsm", "memtable_bytes": 10_000}) for face in ON_LSM],
    ids=[*FACES, *(f"{face}-lsm" for face in ON_LSM)],
)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    face, options = request.param
    with opened(face, tmp_path_factory.mktemp("store"), **options) as db:
        yield db


@pytest.fixture
def db(store: Any) -> Any:
    """An empty keyspace."""
    store.clear()
    return store


def filled(db: Any, count: int = 10) -> dict[bytes, bytes]:
    pairs = {b"k%05d" % number: b"v%d" % number for number in range(count)}
    db.put_many(pairs)
    return pairs


# -- points ----------------------------------------------------------------------------------------


def test_get_gives_what_put_stored_and_the_default_where_nothing_is(db):
    assert db.get(b"k") is None
    assert db.get(b"k", default=b"d") == b"d"
    assert db.get(b"k", 7) == 7
    assert db.put(b"k", b"v") is None
    assert db.get(b"k") == b"v"
    assert db.get(b"k", default=b"d") == b"v"
    db.put(b"k", b"")
    assert db.get(b"k", default=b"d") == b""


def test_keys_and_values_are_any_bytes(db):
    db.put(BINARY, BINARY)
    assert db.get(BINARY) == BINARY
    assert list(db.scan()) == [(BINARY, BINARY)]
    big = BINARY * 8000  # 2 MB: several reads of a socket
    db.put(b"big", big)
    assert db.get(b"big") == big


def test_bytes_like_objects_are_taken_as_bytes(db):
    db.put(bytearray(b"k"), memoryview(b"v"))
    assert db.get(b"k") == b"v"
    assert type(db.get(memoryview(b"k"))) is bytes


def test_delete_says_whether_the_key_was_there(db):
    db.put(b"k", b"v")
    assert db.delete(b"k") is True
    assert db.delete(b"k") is False
    assert db.contains(b"k") is False


@pytest.mark.parametrize("key", ["text", 5, None])
def test_a_key_that_is_not_bytes_is_refused(db, key):
    for call in (db.get, db.delete, db.contains, db.ttl, lambda k: db.put(k, b"v")):
        with pytest.raises(marram.InvalidType):
            call(key)
    with pytest.raises(marram.InvalidType, match=r"key\.encode\(\)"):
        db.put("text", b"v")


def test_a_bad_argument_is_refused_and_changes_nothing(db):
    before = db.position()
    bad = marram.InvalidArgument
    for call in (
        lambda: db.put(b"", b"v"),
        lambda: db.put(b"k", "text"),
        lambda: db.put(b"k", b"v", ttl=0),
        lambda: db.put(b"k", b"v", ttl=-1.0),
        lambda: db.put(b"k", b"v", ttl=float("nan")),
        lambda: db.put(b"k", b"v", ttl="10"),
        lambda: db.expire(b"k", 0),
        lambda: db.put_many({b"k": b"v", b"": b"v"}),
        lambda: db.put_many({b"k": None}),
        lambda: db.compare_and_set(b"k", "text", b"v"),
        lambda: list(db.scan(prefix="text")),
        lambda: list(db.scan(limit=-1)),
        lambda: list(db.scan(limit=True)),
        lambda: db.keyspace(16),
        lambda: db.keyspace(True),
    ):
        with pytest.raises(bad):
            call()
    assert db.count() == 0
    assert db.position() == before


# -- deadlines -------------------------------------------------------------------------------------


def test_ttl_tells_the_seconds_left(db):
    db.put(b"k", b"v", ttl=100)
    assert 90 < db.ttl(b"k") <= 100
    db.put(b"k", b"v")
    assert db.ttl(b"k") is None
    with pytest.raises(marram.NotFound):
        db.ttl(b"missing")


def test_expire_and_persist_set_and_drop_the_deadline(db):
    assert db.expire(b"k", 50) is False
    assert db.persist(b"k") is False
    db.put(b"k", b"v")
    assert db.persist(b"k") is False
    assert db.expire(b"k", 50) is True
    assert 40 < db.ttl(b"k") <= 50
    assert db.persist(b"k") is True
    assert db.ttl(b"k") is None


def test_a_key_past_its_deadline_is_gone_everywhere(db):
    db.put(b"a", b"v")
    db.put(b"k", b"v", ttl=0.05)
    deadline = time.monotonic() + DEADLINE_S
    while db.get(b"k") is not None:
        assert time.monotonic() < deadline
    assert not db.contains(b"k")
    assert list(db.scan()) == [(b"a", b"v")]
    assert db.compare_and_set(b"k", None, b"new")


# -- conditions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "expected", "new", "done"),
    [
        (None, None, b"n", True),
        (None, None, None, True),
        (None, b"x", b"n", False),
        (None, b"x", None, False),
        (b"x", None, b"n", False),
        (b"x", None, None, False),
        (b"x", b"x", b"n", True),
        (b"x", b"x", None, True),
        (b"x", b"y", b"n", False),
        (b"x", b"y", None, False),
        (b"", b"", b"n", True),
        (b"", None, b"n", False),
    ],
)
def test_compare_and_set_changes_what_is_as_expected(db, held, expected, new, done):
    if held is not None:
        db.put(b"k", held)
    assert db.compare_and_set(b"k", expected, new) is done
    assert db.get(b"k") == (new if done else held)


def test_compare_and_set_drops_the_deadline(db):
    db.put(b"k", b"v", ttl=100)
    assert db.compare_and_set(b"k", b"v", b"w")
    assert db.ttl(b"k") is None


def test_pop_takes_a_value_out(db):
    db.put(b"k", b"v")
    assert db.pop(b"k") == b"v"
    assert db.pop(b"k", b"d") == b"d"
    assert db.pop(b"k", None) is None
    with pytest.raises(marram.NotFound):
        db.pop(b"k")


def test_popitem_takes_the_first_pair(db):
    filled(db, 2)
    assert db.popitem() == (b"k00000", b"v0")
    assert db.popitem() == (b"k00001", b"v1")
    with pytest.raises(marram.NotFound):
        db.popitem()


def test_setdefault_gives_what_is_there_or_sets_it(db):
    assert db.setdefault(b"k", b"v") == b"v"
    assert db.setdefault(b"k", b"w") == b"v"
    assert db.setdefault(b"e") == b""
    assert db.get(b"k") == b"v"


# -- many ------------------------------------------------------------------------------------------


def test_put_many_is_one_batch_and_takes_pairs_or_a_mapping(db):
    before = db.position()
    db.put_many([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])
    assert db.position().sequence == before.sequence + 1
    db.put_many({b"c": b"4"}, ttl=100)
    assert list(db.scan()) == [(b"a", b"3"), (b"b", b"2"), (b"c", b"4")]
    assert db.ttl(b"a") is None
    assert 90 < db.ttl(b"c") <= 100
    db.put_many({})
    db.put_many([], ttl=5)
    assert db.position().sequence == before.sequence + 2


def test_get_many_keeps_the_order_of_the_keys(db):
    filled(db, 3)
    assert db.get_many([b"k00002", b"nope", b"k00000", b"k00002"]) == [b"v2", None, b"v0", b"v2"]
    assert db.get_many([]) == []
    pairs = filled(db, 25_000)  # more than one command's worth
    assert db.get_many(pairs) == list(pairs.values())


def test_clear_empties_one_keyspace(db):
    other = db.keyspace(5)
    other.put(b"k", b"5")
    filled(db)
    assert db.count() == 10
    db.clear()
    assert db.count() == 0
    assert list(db.scan()) == []
    assert other.get(b"k") == b"5"
    other.clear()


def test_keyspaces_hold_different_keys(db):
    other = db.keyspace(3)
    other.clear()
    db.put(b"k", b"0")
    other.put(b"k", b"3")
    other.put(b"o", b"3")
    assert db.get(b"k") == b"0"
    assert list(other.scan()) == [(b"k", b"3"), (b"o", b"3")]
    assert other.keyspace(0).get(b"k") == b"0"
    with other.transaction() as t:
        assert t.get(b"k") == b"3"
        t.put(b"t", b"3")
    assert db.get(b"t") is None
    assert other.count() == 3
    other.clear()


# -- scans -----------------------------------------------------------------------------------------

KEYS = st.binary(min_size=1, max_size=3)
BOUNDS = st.none() | st.binary(max_size=3)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    model=st.dictionaries(KEYS, st.binary(max_size=3), max_size=30),
    prefix=st.binary(max_size=2),
    start=BOUNDS,
    stop=BOUNDS,
    reverse=st.booleans(),
    limit=st.none() | st.integers(0, 12),
)
def test_scan_gives_what_a_sorted_dict_gives(db, model, prefix, start, stop, reverse, limit):
    db.clear()
    db.put_many(model)
    expected = [
        (key, value)
        for key, value in sorted(model.items(), reverse=reverse)
        if key.startswith(prefix)
        and (start is None or key >= start)
        and (stop is None or key < stop)
    ][:limit]
    assert list(db.scan(prefix, start, stop, reverse, limit)) == expected


def test_a_scan_of_many_chunks_gives_everything_once(db):
    pairs = filled(db, 5_000)
    assert list(db.scan()) == list(pairs.items())
    assert list(db.scan(reverse=True)) == list(pairs.items())[::-1]
    assert list(db.scan(limit=2_345)) == list(pairs.items())[:2_345]
    assert db.keys() == list(pairs)
    chunks = list(db.scan_chunks(chunk=700, limit=1500))
    assert all(1 <= len(rows) <= 700 for rows in chunks)
    assert [pair for rows in chunks for pair in rows] == list(pairs.items())[:1500]
    assert [row for rows in chunks for row in rows] == list(pairs.items())[:1500]


def test_a_scan_shows_one_position_whatever_is_written_meanwhile(db):
    pairs = filled(db, 3_000)
    scan = db.scan()
    found = [next(scan)]
    db.put(b"k00000a", b"later")
    db.put(b"k02999", b"changed")
    db.delete(b"k02500")
    found += list(scan)
    assert found == list(pairs.items())


def test_a_scan_given_up_half_way_leaves_everything_in_order(db):
    pairs = filled(db, 3_000)
    for _ in range(40):  # more than a server lets a connection have
        scan = db.scan()
        assert next(scan) == (b"k00000", b"v0")
        del scan
    assert list(db.scan()) == list(pairs.items())


# -- batches ---------------------------------------------------------------------------------------


def test_a_batch_is_one_step_in_its_order(db):
    filled(db, 3)
    before = db.position()
    with db.batch() as batch:
        batch.put(b"a", b"1")
        batch.put(b"a", b"2", ttl=100)
        batch.delete(b"k00000")
        batch.put(b"k00001", b"x")
        batch.delete(b"missing")
        assert len(batch) == 5
        assert db.get(b"a") is None
    assert db.position().sequence == before.sequence + 1
    assert list(db.scan()) == [(b"a", b"2"), (b"k00001", b"x"), (b"k00002", b"v2")]
    assert 90 < db.ttl(b"a") <= 100


def test_a_batch_whose_context_fails_does_nothing(db):
    with pytest.raises(ZeroDivisionError), db.batch() as batch:
        batch.put(b"a", b"1")
        raise ZeroDivisionError
    assert db.count() == 0


def test_an_empty_batch_is_nothing(db):
    before = db.position()
    with db.batch():
        pass
    assert db.position() == before


def test_a_batch_refuses_bad_arguments_at_once(db):
    with db.batch() as batch:
        with pytest.raises(marram.InvalidArgument):
            batch.put(b"", b"v")
        with pytest.raises(marram.InvalidType):
            batch.put(b"k", 5)
        with pytest.raises(marram.InvalidArgument):
            batch.put(b"k", b"v", ttl=0)
        with pytest.raises(marram.InvalidType):
            batch.delete("k")
    assert db.count() == 0


@pytest.mark.parametrize(
    ("start", "stop", "left"),
    [
        (b"k00003", b"k00006", [0, 1, 2, 6, 7, 8, 9]),
        (b"k00007", None, [0, 1, 2, 3, 4, 5, 6]),
        (b"", b"k00002", [2, 3, 4, 5, 6, 7, 8, 9]),
        (b"", None, []),
        (b"", b"", list(range(10))),
        (b"k00005", b"k00005", list(range(10))),
        (b"z", b"a", list(range(10))),
    ],
)
def test_delete_range_removes_a_half_open_range(db, start, stop, left):
    filled(db)
    with db.batch() as batch:
        batch.delete_range(start, stop)
        batch.put(b"~", b"after")
    assert db.keys() == [b"k%05d" % number for number in left] + [b"~"]


# -- snapshots -------------------------------------------------------------------------------------


def test_a_snapshot_stays_as_it_is(db):
    pairs = filled(db, 3)
    with db.snapshot() as snapshot:
        position = snapshot.position
        db.put(b"k00000", b"changed")
        db.delete(b"k00001")
        db.put(b"new", b"v")
        assert snapshot.get(b"k00000") == b"v0"
        assert snapshot.get(b"new") is None
        assert snapshot.get(b"new", b"d") == b"d"
        assert snapshot.get_many([b"k00001", b"new"]) == [b"v1", None]
        assert list(snapshot.scan()) == list(pairs.items())
        assert list(snapshot.scan(b"k", reverse=True, limit=1)) == [(b"k00002", b"v2")]
        assert snapshot.position == position
        assert position < db.position()
    assert db.get(b"k00000") == b"changed"


def test_a_closed_snapshot_refuses(db):
    with db.snapshot() as snapshot:
        pass
    snapshot.close()
    with pytest.raises(marram.InvalidArgument, match="closed"):
        snapshot.get(b"k")
    with pytest.raises(marram.InvalidArgument, match="closed"):
        list(snapshot.scan())


def test_many_snapshots_at_once_each_show_their_own(db):
    held = []
    for number in range(40):
        db.put(b"k", b"%d" % number)
        opening = db.snapshot()
        held.append((opening, opening.__enter__()))
    for number, (opening, snapshot) in enumerate(held):
        assert snapshot.get(b"k") == b"%d" % number
        opening.__exit__(None, None, None)


# -- transactions ----------------------------------------------------------------------------------


def test_a_transaction_sees_its_own_writes_and_commits_them_together(db):
    filled(db, 5)
    before = db.position()
    with db.transaction() as t:
        assert t.get(b"k00001") == b"v1"
        t.put(b"k00001", b"mine")
        t.put(b"k00001a", b"new")
        t.delete(b"k00003")
        t.put(b"z", b"last")
        assert t.get(b"k00001") == b"mine"
        assert t.get(b"k00003") is None
        assert t.get(b"k00003", b"d") == b"d"
        seen = [
            (b"k00000", b"v0"),
            (b"k00001", b"mine"),
            (b"k00001a", b"new"),
            (b"k00002", b"v2"),
            (b"k00004", b"v4"),
            (b"z", b"last"),
        ]
        assert list(t.scan()) == seen
        assert list(t.scan(reverse=True)) == seen[::-1]
        assert list(t.scan(limit=3)) == seen[:3]
        assert list(t.scan(b"k00001")) == seen[1:3]
        assert list(t.scan(start=b"k00004", stop=b"y")) == seen[4:5]
        assert db.get(b"z") is None
    assert list(db.scan()) == seen
    assert db.position().sequence == before.sequence + 1


def test_a_transaction_conflicts_where_a_key_it_read_was_written(db):
    filled(db, 2)
    with pytest.raises(marram.Conflict), db.transaction() as t:
        t.get(b"k00000")
        db.put(b"k00000", b"theirs")
        t.put(b"k00001", b"mine")
    assert db.get(b"k00000") == b"theirs"
    assert db.get(b"k00001") == b"v1"
    db.put(b"still", b"works")


def test_a_transaction_conflicts_where_a_missing_key_it_read_was_made(db):
    with pytest.raises(marram.Conflict), db.transaction() as t:
        assert t.get(b"k") is None
        db.put(b"k", b"theirs")
        t.put(b"k", b"mine")
    assert db.get(b"k") == b"theirs"


def test_a_transaction_conflicts_where_a_range_it_read_was_written(db):
    filled(db, 3)
    with pytest.raises(marram.Conflict), db.transaction() as t:
        list(t.scan(b"k"))
        db.put(b"k00001a", b"theirs")
        t.put(b"x", b"mine")
    with db.transaction() as t:
        list(t.scan(b"k"))
        db.put(b"other", b"elsewhere")
        t.put(b"x", b"mine")
    assert db.get(b"x") == b"mine"


def test_a_transaction_that_only_writes_or_only_reads_never_conflicts(db):
    filled(db, 2)
    with db.transaction() as t:
        t.get(b"k00000")
        db.put(b"k00000", b"theirs")
    with db.transaction() as t:
        db.put(b"k00001", b"theirs")
        t.put(b"k00001", b"mine")
    assert db.get(b"k00001") == b"mine"


def test_a_transaction_reads_what_was_there_at_its_start(db):
    filled(db, 2)
    with db.transaction() as t:
        db.put(b"k00000", b"theirs")
        assert t.get(b"k00000") == b"v0"
        assert list(t.scan()) == [(b"k00000", b"v0"), (b"k00001", b"v1")]


def test_a_transaction_left_by_an_exception_writes_nothing(db):
    with pytest.raises(ZeroDivisionError), db.transaction() as t:
        t.put(b"k", b"v")
        raise ZeroDivisionError
    assert db.count() == 0


def test_a_transaction_sets_deadlines(db):
    with db.transaction() as t:
        t.put(b"k", b"v", ttl=100)
        t.put(b"l", b"v")
    assert 90 < db.ttl(b"k") <= 100
    assert db.ttl(b"l") is None


# -- the store -------------------------------------------------------------------------------------


def test_positions_grow_with_every_write(db):
    first = db.position()
    db.put(b"k", b"v")
    second = db.position()
    assert first < second
    assert second.epoch == first.epoch


def test_stats_tell_the_keys_and_a_checkpoint_starts_a_generation(db):
    filled(db, 7)
    before = db.stats()
    assert before["num_keys"] == 7
    assert before["durability"] == "sync"
    assert before["keyspaces"]["0"]["keys"] == 7
    db.checkpoint()
    after = db.stats()
    assert after["generation"] == before["generation"] + 1
    assert after["checkpoint"]["count"] == before["checkpoint"]["count"] + 1
    assert after["position"]["sequence"] == db.position().sequence
    db.sync()
    assert db.count() == 7


@pytest.mark.parametrize("face", FACES)
def test_a_closed_handle_refuses_everything_and_closes_again(face, tmp_path):
    with opened(face, tmp_path) as db:
        db.put(b"k", b"v")
        db.close()
        db.close()
        for call in (
            lambda: db.get(b"k"),
            lambda: db.put(b"k", b"v"),
            lambda: db.count(),
            lambda: list(db.scan()),
            lambda: db.stats(),
            lambda: db.checkpoint(),
        ):
            with pytest.raises(marram.Closed):
                call()


@pytest.mark.parametrize("face", ["DB", "RemoteDB"])
def test_threads_share_a_handle(face, tmp_path):
    workers, times = 6, 25
    with opened(face, tmp_path) as db:
        db.put(b"n", b"0")

        def work() -> None:
            for _ in range(times):
                while True:
                    held = db.get(b"n")
                    if db.compare_and_set(b"n", held, b"%d" % (int(held) + 1)):
                        break

        threads = [threading.Thread(target=work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        assert db.get(b"n") == b"%d" % (workers * times)


def test_what_was_written_is_there_after_reopening(tmp_path):
    for face in FACES:
        with opened(face, tmp_path) as db:
            db.put(face.encode(), b"v")
    with opened("DB", tmp_path) as db:
        assert db.keys() == sorted(face.encode() for face in FACES)


@pytest.mark.parametrize("face", ["DB", "RemoteDB"])
def test_the_blocking_faces_are_mappings(face, tmp_path):
    with opened(face, tmp_path) as found:
        check_mapping(found._db)


def check_mapping(db: Any) -> None:
    db[b"a"] = b"1"
    db.update({b"b": b"2"})
    assert db[b"a"] == b"1"
    assert b"a" in db
    assert len(db) == 2
    assert list(db) == [b"a", b"b"]
    assert list(reversed(db)) == [b"b", b"a"]
    assert dict(db.items()) == {b"a": b"1", b"b": b"2"}
    assert list(db.values()) == [b"1", b"2"]
    del db[b"a"]
    with pytest.raises(KeyError):
        del db[b"a"]
    with pytest.raises(KeyError):
        db[b"a"]
    with pytest.raises(marram.InvalidArgument):
        db.update(a=b"1")
    assert db
    assert hash(db)
    assert db != {}
    with db.snapshot() as snapshot:
        assert snapshot[b"b"] == b"2"
        assert b"a" not in snapshot
        assert list(snapshot) == [b"b"]
        with pytest.raises(marram.NotFound):
            snapshot[b"a"]
    with db.transaction() as t:
        t[b"c"] = b"3"
        assert t[b"c"] == b"3"
        assert b"c" in t
        del t[b"b"]
        with pytest.raises(marram.NotFound):
            del t[b"b"]
        with pytest.raises(marram.NotFound):
            t[b"b"]
    assert list(db) == [b"c"]


# -- the faces side by side ------------------------------------------------------------------------

OF_THE_DIRECTORY = {"store", "number", "commit"}
"""What only makes sense where the store is in this process."""
SYNC_ONLY = {"keys", "values", "items", "update"}
"""What a mapping has; the asynchronous faces are none."""


def methods(kind: type) -> dict[str, Any]:
    return {
        name: inspect.signature(member).parameters
        for name, member in inspect.getmembers(kind)
        if not name.startswith("_") and callable(member)
    }


@pytest.mark.parametrize("other", [RemoteDB, AsyncDB, AsyncRemoteDB])
def test_every_face_has_the_methods_of_the_embedded_store(other):
    wanted = methods(marram.DB)
    found = methods(other)
    missing = set(wanted) - set(found) - OF_THE_DIRECTORY
    assert missing == (set() if other is RemoteDB else SYNC_ONLY)
    for name in set(wanted) & set(found) - {"backup", "verify", "checkpoint", "compact"}:
        assert list(found[name]) == list(wanted[name]), name


@pytest.mark.parametrize("name", ["Batch", "Snapshot", "Transaction"])
def test_what_the_faces_hand_out_has_the_same_methods(name):
    wanted = methods(getattr(marram, name)) if hasattr(marram, name) else {}
    for module, prefix in ((views, "Remote"), (local_aio, "Async"), (aio_views, "AsyncRemote")):
        found = methods(getattr(module, prefix + name))
        missing = set(wanted) - set(found) - {"scan_chunks", "entries", "pin"}
        assert not missing, (prefix, missing)
        for method in set(wanted) & set(found):
            assert list(found[method]) == list(wanted[method]), method
