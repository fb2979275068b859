"""The replica's end of a link: whom it believes, what it takes over, what it acknowledges."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.coding.batch import delete, encode, put
from marram.replication import effects as fx
from marram.replication.credentials import NO_PROOF, Greeting, prove_replica, prove_upstream
from marram.replication.messages import (
    GREETING_FRAME_BYTES,
    NO_STORE,
    Ack,
    Agreed,
    Batches,
    Challenge,
    Code,
    Compare,
    Heartbeat,
    Hello,
    Login,
    Mark,
    Plan,
    Preparing,
    Ready,
    Refusal,
    Rows,
    SnapshotBegin,
    SnapshotEnd,
    Welcome,
)
from marram.replication.replica import Follower, FollowerOptions, Own, State
from tests.replication.wire import messages

MS = 1_000_000
STORE, NODE, RUN, UPSTREAM = (
    b"store-----------",
    b"n" * 16,
    b"run-of-replica--",
    b"run-of-upstream-",
)
NONCE, THEIR_NONCE = b"m" * 16, b"u" * 16
GREETING = Greeting(NONCE, RUN, THEIR_NONCE, UPSTREAM)
TIP = Mark(2, 50, 555)
OWN = Own(STORE, 2, TIP, 10)
EMPTY = Own(NO_STORE, 1, Mark(0, 0, 0), 0)
CHALLENGE = Challenge(1, THEIR_NONCE, UPSTREAM, b"")
OPTIONS = FollowerOptions(window_bytes=1000, ack_bytes=300, retry_ns=100 * MS)


def welcome(plan: Plan = Plan.TAIL, aside: int | None = None, **changes: Any) -> Welcome:
    fields = {"proof": NO_PROOF, "store_id": STORE, "epoch": 2, "newest": Mark(2, 90, 9),
              "plan": plan, "aside": aside, "primary": "p:6379", "heartbeat_ms": 1000,
              **changes}  # fmt: skip
    return Welcome(**fields)


def connected(own: Own = OWN, *, has_password: bool = False) -> Follower:
    follower = Follower(NODE, RUN, OPTIONS, has_password=has_password, address="r:7381")
    assert follower.start(0) == [fx.Connect()]
    assert follower.connected(own, NONCE, 0) == [fx.Send(Hello(1, 1, NONCE, RUN))]
    return follower


def logged_in(own: Own = OWN) -> Follower:
    follower = connected(own)
    follower.receive(CHALLENGE, 0)
    return follower


def streaming() -> Follower:
    follower = logged_in()
    follower.receive(welcome(), 0)
    assert follower.state is State.STREAMING
    return follower


def syncing(own: Own = EMPTY) -> Follower:
    follower = logged_in(own)
    follower.receive(welcome(Plan.FULL), 0)
    follower.epoch_raised(2, 0)
    follower.receive(SnapshotBegin(Mark(2, 80, 8), 1000, 3), 0)
    assert follower.state is State.SYNCING
    return follower


def sent(effects: list[fx.Effect]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, fx.Send)]


def refusal(effects: list[fx.Effect]) -> Code:
    """The link was refused and closed, and nothing else was done."""
    said, *aborted, close = effects
    assert isinstance(said, fx.Send)
    assert isinstance(said.message, Refusal)
    assert aborted in ([], [fx.AbortInstall()])
    assert isinstance(close, fx.Close)
    return said.message.code


def batches(first: int, *sizes: int, tip: Mark = TIP, epoch: int = 2, **changes: Any) -> Batches:
    payload = b"".join(encode([put(0, b"k", b"v" * size)]) for size in sizes)
    fields = {"first": first, "count": len(sizes), "epoch": epoch, "time_ms": 1000,
              "committed": first - 1, "chain": zlib.crc32(payload, tip.chain),
              "payload": payload, **changes}  # fmt: skip
    return Batches(**fields)


# -- the handshake ---------------------------------------------------------------------------------


def test_a_login_says_what_the_replica_has() -> None:
    follower = connected()
    (login,) = sent(follower.receive(CHALLENGE, 0))
    assert login == Login(NO_PROOF, STORE, NODE, 2, TIP, 10, 1000, "r:7381")


def test_the_password_is_proved_and_the_upstreams_proof_is_asked_for() -> None:
    follower = connected(has_password=True)
    challenge = Challenge(1, THEIR_NONCE, UPSTREAM, b"scrypt$14$8$1$c2FsdA==")
    assert follower.receive(challenge, 0) == [fx.Derive(challenge.parameters)]
    (login,) = sent(follower.derived(b"digest", 1))
    assert login.proof == prove_replica(b"digest", GREETING)
    effects = follower.receive(welcome(proof=prove_upstream(b"digest", GREETING)), 2)
    assert sent(effects) == [Ready()]


@pytest.mark.parametrize(
    "proof", [NO_PROOF, prove_upstream(b"another", GREETING), prove_replica(b"digest", GREETING)]
)
def test_r1_an_upstream_that_cannot_prove_itself_changes_nothing(proof: bytes) -> None:
    follower = connected(has_password=True)
    follower.receive(Challenge(1, THEIR_NONCE, UPSTREAM, b"scrypt$14$8$1$c2FsdA=="), 0)
    follower.derived(b"digest", 1)
    effects = follower.receive(welcome(Plan.FULL, 0, proof=proof, epoch=9), 2)
    assert refusal(effects) is Code.WRONG_PASSWORD


@pytest.mark.parametrize(("has_password", "parameters"), [(True, b""), (False, b"scrypt$14$8$1$x")])
def test_a_password_that_one_side_only_has_is_refused(
    has_password: bool, parameters: bytes
) -> None:
    follower = connected(has_password=has_password)
    effects = follower.receive(Challenge(1, THEIR_NONCE, UPSTREAM, parameters), 0)
    assert refusal(effects) is Code.WRONG_PASSWORD


def test_another_version_is_refused() -> None:
    assert refusal(connected().receive(Challenge(2, THEIR_NONCE, UPSTREAM, b""), 0)) is (
        Code.UNKNOWN_VERSION
    )


def test_a_replica_pointed_at_itself_is_refused() -> None:
    assert refusal(connected().receive(Challenge(1, THEIR_NONCE, RUN, b""), 0)) is Code.SELF


def test_r2_a_lower_epoch_is_refused_and_told_ours() -> None:
    effects = logged_in().receive(welcome(epoch=1), 0)
    assert refusal(effects) is Code.LOWER_EPOCH
    assert sent(effects)[0].epoch == 2


def test_a_foreign_store_is_refused() -> None:
    assert refusal(logged_in().receive(welcome(store_id=b"x" * 16), 0)) is Code.FOREIGN_STORE


def test_an_empty_store_becomes_any_store_but_by_a_full_sync_only() -> None:
    assert refusal(logged_in(EMPTY).receive(welcome(), 0)) is Code.MALFORMED
    effects = logged_in(EMPTY).receive(welcome(Plan.FULL, epoch=1), 0)
    assert sent(effects) == [Ready()]


def test_marks_are_compared_and_the_last_one_in_common_answered() -> None:
    follower = logged_in()
    marks = (Mark(1, 20, 1), Mark(1, 30, 2), Mark(2, 40, 3))
    assert follower.receive(Compare(marks), 0) == [fx.FindMarks((20, 30, 40))]
    assert sent(follower.found([Mark(1, 20, 1), Mark(1, 30, 2), Mark(2, 40, 9)], 1)) == [Agreed(1)]
    follower.receive(Compare(marks), 2)
    assert sent(follower.found([None, Mark(1, 30, 9), None], 3)) == [Agreed(None)]


# -- becoming ready --------------------------------------------------------------------------------


def test_r2_a_higher_epoch_is_durable_before_ready() -> None:
    follower = logged_in()
    assert follower.receive(welcome(epoch=5), 0) == [fx.RaiseEpoch(5)]
    assert follower.state is State.PREPARING
    assert follower.epoch_raised(4, 1) == []
    assert sent(follower.epoch_raised(5, 1)) == [Ready()]


def test_r6_own_batches_are_set_aside_before_ready() -> None:
    follower = logged_in()
    assert follower.receive(welcome(Plan.FULL, 42, epoch=3), 0) == [fx.RaiseEpoch(3)]
    assert follower.epoch_raised(3, 1) == [fx.SetAside(42)]
    assert sent(follower.was_set_aside(42, 2)) == [Ready()]


def test_where_there_is_nothing_of_its_own_nothing_is_set_aside() -> None:
    assert sent(logged_in().receive(welcome(Plan.FULL, 50), 0)) == [Ready()]


def test_while_it_prepares_the_upstream_hears_of_it() -> None:
    follower = logged_in()
    follower.receive(welcome(Plan.FULL, 42), 0)
    for step in range(1, 60):
        now = step * 1000 * MS
        assert follower.receive(Heartbeat(90, 90, 1000, 0, 0, 0), now) == []
        assert sent(follower.tick(now)) == [Preparing()]


def test_what_could_not_be_made_durable_ends_the_link() -> None:
    follower = logged_in()
    follower.receive(welcome(epoch=5), 0)
    assert refusal(follower.failed("the disk is full", 1, is_hopeless=True)) is Code.FAILED
    assert "full" in follower.trouble


# -- the tail --------------------------------------------------------------------------------------


def test_r3_batches_that_continue_the_history_are_appended() -> None:
    follower = streaming()
    one = batches(51, 10, 10)
    assert follower.receive(one, 0) == [fx.Append((one,)), fx.Committed(50)]
    assert follower.tip == Mark(2, 52, one.chain)
    two = batches(53, 10, tip=follower.tip)
    assert follower.receive(two, 0)[0] == fx.Append((two,))


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (batches(52, 10), Code.GAP),
        (batches(50, 10), Code.GAP),
        (batches(51, 10, count=0), Code.GAP),
        (batches(51, 10, chain=1), Code.DIVERGED),
        (batches(51, 10, tip=Mark(2, 50, 556)), Code.DIVERGED),
        (batches(51, 10, epoch=1), Code.LOWER_EPOCH),
        (batches(51, 10, epoch=3), Code.MALFORMED),
    ],
)
def test_r3_anything_else_ends_the_link_by_name(message: Batches, code: Code) -> None:
    assert refusal(streaming().receive(message, 0)) is code


def test_r3_a_batch_that_comes_twice_ends_the_link() -> None:
    follower = streaming()
    follower.receive(batches(51, 10), 0)
    assert refusal(follower.receive(batches(51, 10), 0)) is Code.GAP


def test_r4_only_what_the_shell_called_durable_is_acknowledged_so() -> None:
    follower = streaming()
    follower.receive(batches(51, 10, 10), 0)
    assert follower.appended(52, 1) == []
    assert sent(follower.synced(51, 2)) == [Ack(52, 51, len(batches(51, 10, 10).payload) + 64)]
    assert follower.synced(51, 3) == []
    (ack,) = sent(follower.synced(52, 4))
    assert (ack.received, ack.durable) == (52, 52)


def test_a_sync_that_is_reported_first_counts_once_the_batches_are_applied() -> None:
    follower = streaming()
    follower.receive(batches(51, 10), 0)
    assert follower.synced(51, 1) == []
    (ack,) = sent(follower.appended(51, 2))
    assert (ack.received, ack.durable) == (51, 51)


def test_what_is_consumed_is_acknowledged_before_the_window_is_full() -> None:
    follower = streaming()
    tip, number, acks = TIP, 51, []
    for _ in range(20):
        message = batches(number, 50, tip=tip)
        follower.receive(message, 0)
        tip, number = follower.tip, number + 1
        acks += sent(follower.appended(number - 1, 0))
    assert acks
    assert acks[-1].consumed - acks[0].consumed <= 20 * (len(message.payload) + 64)
    assert all(b.consumed - a.consumed <= 500 for a, b in pairwise(acks))


def test_r7_an_upstream_that_passes_the_window_is_refused() -> None:
    follower = streaming()
    tip = TIP
    for number in range(51, 54):
        assert sent(follower.receive(batches(number, 200, tip=tip), 0)) == []
        tip = follower.tip
    assert refusal(follower.receive(batches(54, 200, tip=tip), 0)) is Code.MALFORMED


def test_r7_a_message_larger_than_the_window_may_come_alone() -> None:
    follower = streaming()
    assert isinstance(follower.receive(batches(51, 5000), 0)[0], fx.Append)
    assert refusal(follower.receive(batches(52, 5, tip=follower.tip), 0)) is Code.MALFORMED


def test_readers_see_no_more_than_is_committed_from_the_first_batch_on() -> None:
    follower = logged_in()
    effects = follower.receive(welcome(), 0)
    assert fx.Committed(0) in effects
    beat = Heartbeat(90, 48, 5000, 0, 10, 20)
    assert follower.receive(beat, 0) == [fx.FollowTime(5000), fx.Committed(48)]
    assert follower.receive(beat, 1) == [fx.FollowTime(5000)]
    assert follower.behind.bytes == 10
    assert follower.behind.seconds == 0.02


def test_what_is_committed_stays_known_but_not_of_what_is_not_here() -> None:
    follower = streaming()
    follower.receive(Heartbeat(90, 70, 5000, 0, 0, 0), 0)
    assert follower.committed == 70
    follower.lost("gone", 0)
    assert follower.committed == 70
    assert follower.deadline_ns is not None
    follower.tick(follower.deadline_ns)
    follower.connected(OWN, NONCE, follower.deadline_ns or 0)
    assert follower.committed == TIP.sequence  # another upstream may have another batch 51


def test_a_full_sync_forgets_what_was_committed_before() -> None:
    follower = Follower(NODE, RUN, OPTIONS, committed=50)
    follower.start(0)
    follower.connected(OWN, NONCE, 0)
    follower.receive(CHALLENGE, 0)
    follower.receive(welcome(Plan.FULL), 0)
    follower.receive(SnapshotBegin(Mark(2, 80, 8), 1000, 0), 0)
    follower.receive(SnapshotEnd(0, 0), 0)
    assert follower.committed == 50  # the old state is still served
    assert follower.installed(0)[0] == fx.Committed(0)


def test_a_lost_message_shows_in_the_next_heartbeat() -> None:
    follower = streaming()
    follower.receive(batches(51, 10), 0)
    assert refusal(follower.receive(Heartbeat(90, 50, 5000, 2, 0, 0), 1)) is Code.GAP


def test_the_upstream_hears_of_the_replica_regularly() -> None:
    follower = streaming()
    assert follower.deadline_ns == 1000 * MS
    assert sent(follower.tick(1000 * MS)) == [Ack(50, 50, 0)]
    assert follower.tick(1500 * MS) == []


def test_a_silent_upstream_is_left() -> None:
    follower = streaming()
    assert refusal(follower.tick(OPTIONS.silence_ns + 1)) is Code.SILENT


def test_payloads_are_taken_only_once_the_upstream_is_known() -> None:
    follower = connected()
    assert follower.frame_limit_bytes == GREETING_FRAME_BYTES
    follower.receive(CHALLENGE, 0)
    assert follower.frame_limit_bytes == GREETING_FRAME_BYTES
    follower.receive(welcome(), 0)
    assert follower.frame_limit_bytes == OPTIONS.max_frame_bytes


# -- a full sync -----------------------------------------------------------------------------------

ROWS = [encode([put(0, b"a", b"1"), put(0, b"b", b"2", 77)]), encode([put(3, b"c", b"3")])]


def test_r5_a_full_sync_is_installed_and_acknowledged_when_it_is_in_place() -> None:
    follower = logged_in(EMPTY)
    follower.receive(welcome(Plan.FULL), 0)
    follower.epoch_raised(2, 0)
    mark = Mark(2, 80, 8)
    assert follower.receive(SnapshotBegin(mark, 1000, 3), 0) == [
        fx.BeginInstall(STORE, 2, mark, 1000)
    ]
    assert follower.receive(Rows(0, ROWS[0]), 0) == [
        fx.InstallRows([(0, b"a", b"1", 0, 0), (0, b"b", b"2", 77, 0)])
    ]
    follower.rows_added(0)
    assert follower.receive(Rows(1, ROWS[1]), 0) == [fx.InstallRows([(3, b"c", b"3", 0, 0)])]
    (ack,) = sent(follower.tick(1000 * MS))
    assert (ack.received, ack.durable) == (0, 0)
    end = SnapshotEnd(2, zlib.crc32(b"".join(ROWS)))
    assert follower.receive(end, 0) == [fx.FinishInstall()]
    effects = follower.installed(1)
    assert effects[0] == fx.Committed(0)
    (ack,) = sent(effects)
    assert (ack.received, ack.durable) == (80, 80)
    assert ack.consumed == sum(map(len, ROWS)) + 4 * 64

    more = batches(81, 10, tip=mark)
    assert follower.receive(more, 2)[0] == fx.Append((more,))


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Rows(1, ROWS[0]), Code.GAP),
        (Rows(0, encode([delete(0, b"a")])), Code.MALFORMED),
        (Rows(0, b"garbage"), Code.MALFORMED),
        (SnapshotEnd(1, 0), Code.GAP),
        (SnapshotEnd(0, 1), Code.GAP),
        (batches(81, 10), Code.MALFORMED),
    ],
)
def test_r5_what_is_no_snapshot_is_aborted(message: Any, code: Code) -> None:
    effects = syncing().receive(message, 0)
    assert fx.AbortInstall() in effects
    assert refusal(effects) is code


def test_r5_a_damaged_row_is_found_at_the_end() -> None:
    follower = syncing()
    follower.receive(Rows(0, encode([put(0, b"a", b"X"), put(0, b"b", b"2", 77)])), 0)
    effects = follower.receive(SnapshotEnd(1, zlib.crc32(ROWS[0])), 0)
    assert refusal(effects) is Code.GAP
    assert fx.AbortInstall() in effects


@pytest.mark.parametrize("how", ["lost", "stop", "refused", "silent", "full disk"])
def test_r5_whatever_ends_the_link_aborts_the_sync(how: str) -> None:
    follower = syncing()
    effects = {
        "lost": lambda: follower.lost("gone", 1),
        "stop": follower.stop,
        "refused": lambda: follower.receive(Refusal(Code.RESTART, 2, "x"), 1),
        "silent": lambda: follower.tick(OPTIONS.silence_ns + 1),
        "full disk": lambda: follower.failed("no room", 1, is_hopeless=True),
    }[how]()
    assert fx.AbortInstall() in effects


def test_rows_are_acknowledged_so_that_more_may_come() -> None:
    follower = syncing()
    acks = []
    for number in range(20):
        effects = follower.receive(Rows(number, encode([put(0, b"k%02d" % number, b"v" * 100)])), 0)
        assert isinstance(effects[0], fx.InstallRows)
        acks += sent(follower.rows_added(0))
    assert len(acks) >= 5


# -- trying again ----------------------------------------------------------------------------------


def waits(follower: Follower, now: int) -> int:
    assert follower.state is State.WAITING
    assert follower.deadline_ns is not None
    return follower.deadline_ns - now


def test_tries_come_at_growing_intervals_and_not_all_at_once() -> None:
    now, seen = 0, []
    follower = Follower(NODE, RUN, OPTIONS)
    follower.start(0)
    for _ in range(12):
        follower.lost("refused", now)
        seen.append(waits(follower, now) / MS)
        now += waits(follower, now)
        assert follower.tick(now - 1) == []
        assert follower.tick(now) == [fx.Connect()]
    for expected, wait in zip([100, 200, 400, 800, 1600], seen, strict=False):
        assert expected / 2 <= wait <= expected
    assert 5000 <= seen[-1] <= 10_000
    other = Follower(NODE, b"another run-----", OPTIONS)
    other.start(0)
    other.lost("refused", 0)
    assert waits(other, 0) / MS != seen[0]


def test_a_link_that_fails_at_its_first_batch_is_not_tried_at_once_for_ever() -> None:
    now, seen = 0, []
    follower = Follower(NODE, RUN, OPTIONS)
    follower.start(0)
    for _ in range(4):
        follower.connected(OWN, NONCE, now)
        follower.receive(CHALLENGE, now)
        follower.receive(welcome(), now)
        follower.receive(batches(51, 10), now)
        follower.failed("no", now)
        assert "no" in follower.trouble
        seen.append(waits(follower, now) / MS)
        now += waits(follower, now)
        follower.tick(now)
        assert "no" in follower.trouble
    for expected, wait in zip([100, 200, 400, 800], seen, strict=True):
        assert expected / 2 <= wait <= expected


def test_a_link_that_works_ends_its_trouble() -> None:
    follower = streaming()
    follower.trouble = "earlier"
    follower.receive(batches(51, 10), 0)
    assert follower.trouble
    follower.appended(51, 0)
    assert not follower.trouble


def test_a_link_that_streamed_is_tried_again_soon() -> None:
    follower = streaming()
    assert follower.is_verified
    follower.lost("gone", 0)
    assert waits(follower, 0) <= 100 * MS
    assert follower.trouble == "gone"
    assert follower.is_verified


def test_a_later_epoch_is_not_vouched_for_before_the_history_is_known_to_be_of_it() -> None:
    follower = streaming()
    follower.lost("gone", 0)
    follower.tick(follower.deadline_ns or 0)
    follower.connected(OWN, NONCE, 0)
    follower.receive(CHALLENGE, 0)
    assert follower.is_verified, "of its own epoch it still is"
    assert follower.receive(welcome(Plan.FULL, 40, epoch=3), 0) == [fx.RaiseEpoch(3)]
    assert not follower.is_verified
    follower.epoch_raised(3, 0)
    follower.was_set_aside(40, 0)
    assert not follower.is_verified
    follower.lost("gone", 0)
    assert not follower.is_verified, "the epoch stays, and so does the doubt"


def test_a_replica_refuses_an_upstream_that_follows_it() -> None:
    follower = logged_in()
    effects = follower.receive(welcome(epoch=3, route=(UPSTREAM, b"x" * 16, RUN)), 0)
    assert refusal(effects) is Code.SELF
    assert "circle" in follower.trouble
    assert not follower.route
    assert waits(follower, 0) >= 5000 * MS


def test_a_replica_takes_over_the_route_of_its_upstream() -> None:
    follower = logged_in()
    follower.receive(welcome(route=(UPSTREAM, b"x" * 16)), 0)
    assert follower.route == (UPSTREAM, b"x" * 16)


@pytest.mark.parametrize("code", [Code.SELF, Code.FOREIGN_STORE, Code.WRONG_PASSWORD])
def test_what_only_an_operator_can_mend_is_not_tried_again_soon(code: Code) -> None:
    follower = connected()
    follower.receive(Refusal(code, 2, "for this reason"), 0)
    assert waits(follower, 0) >= 5000 * MS
    assert follower.trouble == f"{code.name}: for this reason"


def test_another_server_is_named_as_such() -> None:
    follower = connected()
    effects = follower.not_marram("no marram server answers there", 0)
    assert [type(effect) for effect in effects] == [fx.Close]
    assert "no marram" in follower.trouble
    assert waits(follower, 0) >= 5000 * MS


def test_a_connection_that_does_not_come_is_given_up() -> None:
    follower = Follower(NODE, RUN, OPTIONS)
    follower.start(0)
    effects = follower.tick(OPTIONS.silence_ns + 1)
    assert [type(effect) for effect in effects] == [fx.Close]
    assert follower.connected(OWN, NONCE, OPTIONS.silence_ns + 2) == []


def test_too_large_a_frame_is_refused_by_name() -> None:
    effects = streaming().malformed(Code.TOO_LARGE, "a frame of 2000000000 bytes", 0)
    assert refusal(effects) is Code.TOO_LARGE


def test_one_that_was_stopped_stays_so() -> None:
    follower = streaming()
    assert [type(effect) for effect in follower.stop()] == [fx.Close]
    assert follower.deadline_ns is None
    assert follower.stop() == []
    assert follower.tick(10**12) == []
    assert follower.lost("gone", 1) == []
    assert follower.receive(batches(51, 10), 1) == []
    assert follower.failed("x", 1) == []


INSTALLED = 6


def report(follower: Follower, outcome: int, now: int) -> list[fx.Effect]:
    """One of the things a shell may report, at a time when it was not asked for, maybe."""
    reports: list[Callable[[], list[fx.Effect]]] = [
        lambda: follower.found([], now),
        lambda: follower.epoch_raised(2, now),
        lambda: follower.was_set_aside(42, now),
        lambda: follower.appended(60, now),
        lambda: follower.synced(60, now),
        lambda: follower.rows_added(now),
        lambda: follower.installed(now),
        lambda: follower.derived(b"x", now),
    ]
    return reports[outcome]() if outcome < len(reports) else []


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 4),
    st.lists(st.tuples(messages, st.integers(0, 10**10), st.integers(0, 9)), max_size=12),
)
def test_no_message_breaks_a_follower(stage: int, said: list[tuple[Any, int, int]]) -> None:
    follower = (connected, logged_in, lambda: logged_in(EMPTY), streaming, syncing)[stage]()
    now, is_installing = 0, follower.state is State.SYNCING
    for message, later, outcome in said:
        now += later
        effects = [*follower.receive(message, now), *follower.tick(now)]
        if not isinstance(message, Compare):
            done = report(follower, outcome, now)
            effects += done
            if outcome == INSTALLED and done:
                is_installing = False
        for effect in effects:
            if isinstance(effect, fx.BeginInstall):
                is_installing = True
            if isinstance(effect, fx.AbortInstall):
                assert is_installing
                is_installing = False
            if isinstance(effect, fx.Close):
                assert not is_installing
