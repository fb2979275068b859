"""The upstream's end of a link: who is let in, what is sent, and how much of it."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marram.coding.batch import encode, put
from marram.replication import effects as fx
from marram.replication.credentials import NO_PROOF, Greeting, Secret, prove_replica, prove_upstream
from marram.replication.lag import Timeline
from marram.replication.messages import (
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
    weight_of,
)
from marram.replication.primary import Feed, FeedOptions, Host, Phase, Standing
from tests.replication.model_store import Frame
from tests.replication.wire import messages

MS = 1_000_000
STORE, RUN, NODE = b"store-----------", b"run-of-upstream-", b"node------------"
NONCE, THEIR_NONCE, THEIR_RUN = b"n" * 16, b"m" * 16, b"run-of-replica--"
SECRET = Secret(b"scrypt$14$8$1$c2FsdA==", b"digest")
GREETING = Greeting(THEIR_NONCE, THEIR_RUN, NONCE, RUN)
HELLO = Hello(1, 1, THEIR_NONCE, THEIR_RUN)
OLDEST, NEWEST = Mark(1, 10, 111), Mark(3, 100, 999)
HERE = Mark(2, 50, 555)
STANDING = Standing(100, 100, 1_700_000_000_000)
OPTIONS = FeedOptions(window_bytes=1000, chunk_bytes=200)


def host(**changes: Any) -> Host:
    fields = {"store_id": STORE, "run_id": RUN, "epoch": 3, "is_primary": True,
              "is_verified": True, "primary": "p:6379", **changes}  # fmt: skip
    return Host(**fields)


def login(newest: Mark = HERE, **changes: Any) -> Login:
    fields = {"proof": NO_PROOF, "store_id": STORE, "node_id": NODE, "epoch": 2, "newest": newest,
              "oldest": 5, "window_bytes": 1000, "address": "r:7381", **changes}  # fmt: skip
    return Login(**fields)


def greeted(secret: Secret | None = None, **changes: Any) -> Feed:
    options = changes.pop("options", OPTIONS)
    feed = Feed(host(**changes), options, secret, Timeline(100, 0), 0)
    feed.hello(HELLO, NONCE, 0)
    return feed


def judged(theirs: Login, here: Mark | None, **changes: Any) -> tuple[Feed, list[fx.Effect]]:
    """A feed that has looked the replica's newest place up, and what it does then."""
    feed = greeted(**changes)
    _, find = feed.receive(theirs, 0)
    assert find == fx.FindMarks((theirs.newest.sequence,))
    return feed, feed.found([here], OLDEST, NEWEST, 0)


def tailing(after: Mark = HERE, **changes: Any) -> Feed:
    feed, _ = judged(login(after), after, **changes)
    feed.receive(Ready(), 0)
    feed.tail_opened(STANDING, 0)
    return feed


def syncing(**changes: Any) -> Feed:
    feed, _ = judged(login(NEWEST._replace(sequence=0), store_id=NO_STORE), None, **changes)
    feed.receive(Ready(), 0)
    feed.pinned(NEWEST, 3, STANDING, 0)
    return feed


def sent(effects: list[fx.Effect]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, fx.Send)]


def refusal(effects: list[fx.Effect]) -> Code:
    """The link was refused, and closed after that, and nothing else."""
    said, close = effects[-2:]
    assert isinstance(said, fx.Send)
    assert isinstance(said.message, Refusal)
    assert isinstance(close, fx.Close)
    return said.message.code


def batch(size: int) -> bytes:
    return encode([put(0, b"k", b"v" * size)])


def frame(first: int, *batches: bytes, epoch: int = 3) -> Frame:
    return Frame(first, len(batches), epoch, 1000, b"".join(batches))


# -- who is let in ---------------------------------------------------------------------------------


def test_hello_is_answered_by_a_challenge() -> None:
    feed = Feed(host(), OPTIONS, SECRET, Timeline(0, 0), 0)
    assert sent(feed.hello(HELLO, NONCE, 0)) == [Challenge(1, NONCE, RUN, SECRET.parameters)]


@pytest.mark.parametrize(("oldest", "newest"), [(2, 9), (0, 0)])
def test_an_unknown_version_is_refused(oldest: int, newest: int) -> None:
    feed = Feed(host(), OPTIONS, None, Timeline(0, 0), 0)
    effects = feed.hello(Hello(oldest, newest, THEIR_NONCE, THEIR_RUN), NONCE, 0)
    assert refusal(effects) is Code.UNKNOWN_VERSION


def test_a_newer_replica_that_speaks_this_version_too_is_let_in() -> None:
    feed = Feed(host(), OPTIONS, None, Timeline(0, 0), 0)
    assert isinstance(sent(feed.hello(Hello(1, 9, THEIR_NONCE, THEIR_RUN), NONCE, 0))[0], Challenge)


def test_a_server_is_not_its_own_replica() -> None:
    feed = Feed(host(), OPTIONS, None, Timeline(0, 0), 0)
    assert refusal(feed.hello(Hello(1, 1, THEIR_NONCE, RUN), NONCE, 0)) is Code.SELF


def test_a_second_greeting_is_refused() -> None:
    assert refusal(greeted().hello(HELLO, NONCE, 0)) is Code.MALFORMED


def test_f1_the_right_password_is_let_in_and_answered_by_the_own_proof() -> None:
    feed = greeted(SECRET)
    feed.receive(login(proof=prove_replica(SECRET.digest, GREETING)), 0)
    (welcome,) = sent(feed.found([HERE], OLDEST, NEWEST, 0))
    assert welcome.proof == prove_upstream(SECRET.digest, GREETING)


@pytest.mark.parametrize(
    "proof",
    [
        NO_PROOF,
        prove_replica(b"another", GREETING),
        prove_upstream(SECRET.digest, GREETING),  # our own, sent back
        prove_replica(SECRET.digest, Greeting(THEIR_NONCE, THEIR_RUN, b"o" * 16, RUN)),  # replayed
    ],
)
def test_f1_a_wrong_password_is_refused_after_a_while(proof: bytes) -> None:
    feed = greeted(SECRET)
    effects = feed.receive(login(proof=proof, epoch=99), 0)
    assert effects == []  # nor is its epoch believed
    wait = feed.deadline_ns
    assert wait == OPTIONS.wrong_password_ns
    assert feed.receive(Ready(), 1) == []
    assert feed.tick(STANDING, wait - 1) == []
    assert refusal(feed.tick(STANDING, wait)) is Code.WRONG_PASSWORD


def test_a_foreign_store_is_refused() -> None:
    assert refusal(greeted().receive(login(store_id=b"x" * 16), 0)) is Code.FOREIGN_STORE


def test_f6_an_epoch_above_ours_is_refused_and_reported() -> None:
    effects = greeted().receive(login(epoch=4), 0)
    assert effects[0] == fx.HigherEpoch(4)
    assert refusal(effects) is Code.LOWER_EPOCH


def test_f6_a_replica_that_refuses_our_epoch_is_reported() -> None:
    effects = tailing().receive(Refusal(Code.LOWER_EPOCH, 7, "deposed"), 0)
    assert effects[0] == fx.HigherEpoch(7)
    assert isinstance(effects[-1], fx.Close)


def test_f1_a_strangers_refusal_deposes_nobody() -> None:
    effects = greeted(SECRET).receive(Refusal(Code.LOWER_EPOCH, 7, "deposed"), 0)
    assert [type(effect) for effect in effects] == [fx.Close]


def test_f5_a_replica_that_heard_nothing_of_its_own_upstream_feeds_nobody() -> None:
    feed = greeted(is_primary=False, is_verified=False)
    assert refusal(feed.receive(login(), 0)) is Code.BEHIND


def test_a_silent_stranger_is_dropped_but_not_before_its_time() -> None:
    feed = Feed(host(), OPTIONS, None, Timeline(0, 0), 5 * MS)
    assert feed.tick(STANDING, 5 * MS + OPTIONS.silence_ns) == []
    assert feed.deadline_ns == 5 * MS + OPTIONS.silence_ns + 1
    assert refusal(feed.tick(STANDING, feed.deadline_ns)) is Code.SILENT


# -- whose history is ours -------------------------------------------------------------------------


def test_f3_a_replica_whose_history_is_a_prefix_gets_the_tail() -> None:
    feed, effects = judged(login(), HERE)
    assert effects[0] == fx.Hold(50)
    assert sent(effects) == [
        Welcome(NO_PROOF, STORE, 3, NEWEST, Plan.TAIL, None, "p:6379", 1000, (RUN,))
    ]
    assert feed.receive(Ready(), 0) == [fx.Acked(50, 50), fx.OpenTail(50)]


def test_an_empty_store_gets_a_full_sync_and_has_nothing_to_set_aside() -> None:
    _, effects = judged(login(Mark(0, 0, 0), store_id=NO_STORE), None)
    (welcome,) = sent(effects)
    assert (welcome.plan, welcome.aside) == (Plan.FULL, None)


@pytest.mark.parametrize(("epoch", "aside"), [(1, None), (0, 5)])
def test_f3_a_replica_from_before_the_log_gets_a_full_sync(epoch: int, aside: int | None) -> None:
    # Within the reign that wrote our oldest batch it can have nothing that we do not have.
    _, effects = judged(login(Mark(epoch, 7, 1)), None)
    (welcome,) = sent(effects)
    assert (welcome.plan, welcome.aside) == (Plan.FULL, aside)


def parted(theirs: Login, common: int, **changes: Any) -> tuple[Feed, list[fx.Effect]]:
    """A feed whose replica has the same history up to `common`, after they have compared."""
    feed, effects = judged(theirs, None, **changes)
    while isinstance(effects[-1], fx.FindMarks):
        places = effects[-1].sequences
        marks = [Mark(1, place, place) for place in places]
        (compare,) = sent(feed.found(marks, OLDEST, NEWEST, 0))
        assert compare == Compare(tuple(marks))
        agreeing = [index for index, place in enumerate(places) if place <= common]
        effects = feed.receive(Agreed(agreeing[-1] if agreeing else None), 0)
    return feed, effects


@pytest.mark.parametrize("common", [10, 42, 49])
def test_f3_a_diverged_replica_is_told_what_to_set_aside(common: int) -> None:
    _, effects = parted(login(), common)
    (welcome,) = sent(effects)
    assert (welcome.plan, welcome.aside) == (Plan.FULL, common)


def test_f3_histories_that_part_before_both_logs_are_set_aside_whole() -> None:
    _, effects = parted(login(), 9)
    (welcome,) = sent(effects)
    assert (welcome.plan, welcome.aside) == (Plan.FULL, 5)


@pytest.mark.parametrize("sequence", [101, 10_000])
def test_f3_a_replica_that_is_ahead_of_its_primary_is_told_so(sequence: int) -> None:
    _, effects = parted(login(Mark(3, sequence, 1), epoch=3), 100)
    (welcome,) = sent(effects)
    assert (welcome.plan, welcome.aside) == (Plan.FULL, 100)


def test_a_replica_that_feeds_others_sends_nobody_back_who_is_ahead_of_it() -> None:
    _, effects = parted(login(Mark(3, 120, 1), epoch=3), 100, is_primary=False)
    assert refusal(effects) is Code.BEHIND


def test_a_replica_that_feeds_others_knows_another_history_by_its_epochs() -> None:
    # Batch 100 is of epoch 3 here: what is of epoch 2 behind it is another history.
    _, effects = parted(login(Mark(2, 120, 1), oldest=110), 100, is_primary=False)
    (welcome,) = sent(effects)
    assert (welcome.plan, welcome.aside) == (Plan.FULL, 110)


def test_a_replica_that_feeds_others_cannot_tell_where_there_is_nothing_to_compare() -> None:
    _, effects = judged(login(Mark(3, 120, 1), oldest=110, epoch=3), None, is_primary=False)
    assert refusal(effects) is Code.BEHIND


def test_a_replica_that_feeds_others_knows_another_history_that_differs_everywhere() -> None:
    _, effects = parted(login(Mark(3, 120, 1), oldest=90, epoch=3), 80, is_primary=False)
    (welcome,) = sent(effects)
    assert (welcome.plan, welcome.aside) == (Plan.FULL, 90)


def test_a_replica_that_feeds_others_knows_another_history_where_it_sees_it() -> None:
    _, effects = parted(login(Mark(3, 120, 1), epoch=3), 60, is_primary=False)
    (welcome,) = sent(effects)
    assert (welcome.plan, welcome.aside) == (Plan.FULL, 60)


def test_an_index_of_no_mark_is_refused() -> None:
    feed, effects = judged(login(), None)
    assert isinstance(effects[-1], fx.FindMarks)
    feed.found([Mark(1, place, 0) for place in effects[-1].sequences], OLDEST, NEWEST, 0)
    assert refusal(feed.receive(Agreed(31 + 1), 0)) is Code.MALFORMED


def test_a_log_that_is_cut_during_the_comparison_ends_the_link() -> None:
    feed, effects = judged(login(), None)
    assert isinstance(effects[-1], fx.FindMarks)
    marks = [None, *(Mark(1, place, 0) for place in effects[-1].sequences[1:])]
    assert refusal(feed.found(marks, OLDEST, NEWEST, 0)) is Code.LOG_GONE


# -- the tail --------------------------------------------------------------------------------------


def test_f2_batches_go_out_as_they_are_in_the_log() -> None:
    feed = tailing()
    one, two = batch(10), batch(20)
    effects = feed.frames([frame(51, one, two)], STANDING, 0)
    chain = zlib.crc32(one + two, HERE.chain)
    assert sent(effects) == [Batches(51, 2, 3, 1000, 100, chain, one + two)]
    assert feed.sent == Mark(3, 52, chain)
    assert effects[-1] == fx.ReadTail(200)


def test_a_large_frame_goes_out_in_parts_cut_between_batches() -> None:
    feed = tailing()
    feed.window.size_bytes = 5000
    batches = [batch(size) for size in (60, 60, 150, 10, 300, 10)]
    messages = sent(feed.frames([frame(51, *batches)], STANDING, 0))
    assert [(m.first, m.count) for m in messages] == [(51, 2), (53, 1), (54, 1), (55, 1), (56, 1)]
    assert b"".join(m.payload for m in messages) == b"".join(batches)
    assert messages[-1].chain == zlib.crc32(b"".join(batches), HERE.chain)


def test_small_frames_go_out_as_one_but_none_of_another_epoch() -> None:
    feed = tailing()
    sizes = (10, 10, 10, 100, 20, 20)
    frames = [
        Frame(51 + index, 1, 2 if index < 2 else 3, 1000 + index, batch(size))
        for index, size in enumerate(sizes)
    ]
    messages = sent(feed.frames(frames, STANDING, 0))
    assert [(m.first, m.count, m.epoch, m.time_ms) for m in messages] == [
        (51, 2, 2, 1001), (53, 3, 3, 1004), (56, 1, 3, 1005),
    ]  # fmt: skip
    assert b"".join(m.payload for m in messages) == b"".join(f.payload for f in frames)


def test_f4_nothing_passes_the_window() -> None:
    feed = tailing()
    effects = feed.frames([frame(51, *[batch(150)] * 6)], STANDING, 0)
    out = [weight_of(m) for m in sent(effects)]
    assert sum(out) <= 1000 < sum(out) + out[0]
    assert not any(isinstance(effect, fx.ReadTail) for effect in effects)

    effects = feed.receive(Ack(50, 50, out[0]), 1)
    assert len(sent(effects)) == 1


def test_f4_a_batch_larger_than_the_window_waits_until_it_may_go_alone() -> None:
    feed = tailing()
    effects = feed.frames([frame(51, batch(10)), frame(52, batch(5000))], STANDING, 0)
    (small,) = sent(effects)
    (large,) = sent(feed.receive(Ack(51, 50, weight_of(small)), 1))
    assert len(large.payload) > 5000
    assert sent(feed.advanced(STANDING, 2)) == []


@pytest.mark.parametrize(("theirs", "ours"), [(300, 1000), (1000, 300)])
def test_f4_the_smaller_window_counts(theirs: int, ours: int) -> None:
    feed, _ = judged(
        login(window_bytes=theirs), HERE, options=FeedOptions(window_bytes=ours, chunk_bytes=200)
    )
    assert feed.window.size_bytes == 300


def test_at_the_end_of_the_log_it_is_read_again_only_when_there_is_more() -> None:
    feed = tailing()
    assert feed.frames([], STANDING, 0) == []
    assert feed.tick(STANDING, 1) == []
    assert feed.advanced(STANDING._replace(newest=101), 2) == [fx.ReadTail(200)]
    assert feed.advanced(STANDING._replace(newest=102), 3) == []  # one reading at a time


def test_a_reading_that_came_to_the_newest_batch_is_the_last_one() -> None:
    feed = tailing()
    behind = STANDING._replace(newest=53)
    assert feed.frames([frame(51, batch(1), batch(1))], behind, 0)[-1] == fx.ReadTail(200)
    effects = feed.frames([frame(53, batch(1))], behind, 1)
    assert [type(effect) for effect in effects] == [fx.Send]
    assert feed.tick(behind, 2) == []
    assert feed.advanced(behind._replace(newest=54), 3) == [fx.ReadTail(200)]


def test_what_became_durable_during_a_reading_is_read_next() -> None:
    feed = tailing()
    feed.frames([], STANDING, 0)
    feed.advanced(STANDING._replace(newest=101), 1)
    feed.advanced(STANDING._replace(newest=102), 2)
    assert feed.frames([], STANDING, 3) == [fx.ReadTail(200)]


def test_nothing_is_read_before_the_log_is_open() -> None:
    feed, _ = judged(login(), HERE)
    feed.receive(Ready(), 0)
    assert feed.advanced(STANDING._replace(newest=120), 1) == []
    assert feed.tail_opened(STANDING, 2)[-1] == fx.ReadTail(200)


def test_a_log_that_is_gone_ends_the_link_by_name() -> None:
    assert refusal(tailing().log_gone()) is Code.LOG_GONE


def test_a_damaged_log_ends_the_link_by_name() -> None:
    assert refusal(tailing().failed("logfile.3 @ 700: damaged")) is Code.FAILED


def test_acknowledgements_are_reported_and_hold_the_log() -> None:
    feed = tailing()
    feed.frames([frame(51, batch(1), batch(1))], STANDING, 0)
    assert feed.receive(Ack(52, 51, 0), 1)[:2] == [fx.Acked(52, 51), fx.Hold(51)]
    assert (feed.received, feed.durable) == (52, 51)
    # One that was overtaken takes nothing back, and is no news.
    assert feed.receive(Ack(51, 50, 0), 2) == []
    assert (feed.received, feed.durable) == (52, 51)


@pytest.mark.parametrize("ack", [Ack(53, 51, 0), Ack(51, 52, 0), Ack(52, 52, 1 << 20)])
def test_what_was_not_sent_cannot_be_acknowledged(ack: Ack) -> None:
    feed = tailing()
    feed.frames([frame(51, batch(1), batch(1))], STANDING, 0)
    assert refusal(feed.receive(ack, 1)) is Code.MALFORMED


def test_heartbeats_tell_how_things_stand() -> None:
    timeline = Timeline(50, 0)
    timeline.note(100, 5000, 1 * MS)
    feed = Feed(host(), OPTIONS, None, timeline, 0)
    feed.hello(HELLO, NONCE, 0)
    feed.receive(login(), 0)
    feed.found([HERE], OLDEST, NEWEST, 0)
    feed.receive(Ready(), 0)
    feed.tail_opened(STANDING._replace(committed=50), 0)
    assert feed.deadline_ns <= 1000 * MS
    assert sent(feed.tick(STANDING, 1000 * MS)) == [
        Heartbeat(100, 100, STANDING.time_ms, 0, 5000, 999)
    ]
    assert sent(feed.tick(STANDING, 1001 * MS)) == []


def test_committed_travels_with_batches_and_by_itself_when_it_moves_later() -> None:
    feed = tailing()
    waiting = STANDING._replace(newest=101, committed=100)
    (batches,) = sent(feed.frames([frame(51, *[batch(1)] * 2)], waiting, 0))
    assert batches.committed == 100
    feed.receive(Ack(52, 52, 0), 1)
    assert sent(feed.advanced(waiting, 2)) == []


def test_a_replica_hears_at_once_of_what_it_has_and_what_is_committed_now() -> None:
    feed = tailing()
    low = STANDING._replace(newest=52, committed=50)
    feed.frames([frame(51, batch(1), batch(1))], low, 0)
    feed.frames([], low, 0)
    (beat,) = sent(feed.advanced(low._replace(committed=51), 1))
    assert isinstance(beat, Heartbeat)
    assert beat.committed == 51


def test_no_heartbeat_goes_before_a_reading_which_tells_what_is_committed_anyway() -> None:
    feed = tailing()
    low = STANDING._replace(newest=52, committed=50)
    feed.frames([frame(51, batch(1), batch(1))], low, 0)
    high = STANDING._replace(newest=53, committed=52)
    assert feed.advanced(high, 1) == [fx.ReadTail(200)]
    (batches,) = sent(feed.frames([frame(53, batch(1))], high, 2))
    assert isinstance(batches, Batches)
    assert batches.committed == 52
    higher = high._replace(newest=54, committed=53)
    assert feed.advanced(higher, 3) == [fx.ReadTail(200)]
    (beat,) = sent(feed.frames([], higher, 4))
    assert isinstance(beat, Heartbeat)
    assert beat.committed == 53


def test_a_silent_replica_is_dropped() -> None:
    feed = tailing()
    feed.receive(Ack(50, 50, 0), 10 * MS)
    assert refusal(feed.tick(STANDING, 10 * MS + OPTIONS.silence_ns + 1)) is Code.SILENT


# -- a full sync -----------------------------------------------------------------------------------


def rows(*keys: bytes, size: int = 5) -> list[fx.Row]:
    return [(0, key, b"v" * size, 0, 0) for key in keys]


def test_a_full_sync_sends_the_rows_and_then_the_tail_from_their_position() -> None:
    feed, _ = judged(login(Mark(0, 0, 0), store_id=NO_STORE), None)
    assert feed.receive(Ready(), 0) == [fx.PinState()]
    effects = feed.pinned(NEWEST, 3, STANDING, 0)
    assert effects == [
        fx.Hold(100), fx.Send(SnapshotBegin(NEWEST, STANDING.time_ms, 3)), fx.ReadRows(200),
    ]  # fmt: skip
    payloads = []
    for number, keys in enumerate(((b"a", b"b"), (b"c",))):
        message, more = feed.rows(rows(*keys), 0)
        assert isinstance(message, fx.Send)
        assert message.message == Rows(number, encode([put(0, key, b"vvvvv") for key in keys]))
        payloads.append(message.message.payload)
        assert more == fx.ReadRows(200)
    end = SnapshotEnd(2, zlib.crc32(b"".join(payloads)))
    assert feed.rows([], 0) == [fx.ReleaseState(), fx.Send(end)]

    assert feed.receive(Ack(0, 0, 64), 1) == []  # not there yet
    effects = feed.receive(Ack(100, 100, feed.window.sent), 2)
    assert effects == [fx.OpenTail(100), fx.Acked(100, 100), fx.Hold(100)]
    beat, read = feed.tail_opened(STANDING, 3)
    assert isinstance(beat, fx.Send)  # so that the replica knows what of it is committed
    assert isinstance(beat.message, Heartbeat)
    assert read == fx.ReadTail(200)


def test_a_snapshot_of_nothing_is_not_taken_for_installed_before_its_end() -> None:
    feed, _ = judged(login(Mark(0, 0, 0), store_id=NO_STORE), None)
    feed.receive(Ready(), 0)
    feed.pinned(Mark(0, 0, 0), 0, STANDING._replace(newest=0), 0)
    feed.rows([], 0)
    assert feed.receive(Ack(0, 0, 64), 1) == []
    assert feed.receive(Ack(0, 0, 128), 2)[:2] == [fx.OpenTail(0), fx.Acked(0, 0)]


def test_nothing_counts_as_acknowledged_during_a_full_sync() -> None:
    feed = syncing()
    assert feed.receive(Ack(100, 100, 0), 1) == []
    assert (feed.received, feed.durable) == (0, 0)


def test_f4_rows_stay_within_the_window() -> None:
    feed = syncing()
    effects: list[fx.Effect] = [fx.ReadRows(0)]
    count = 0
    while effects and isinstance(effects[-1], fx.ReadRows):
        effects = feed.rows(rows(b"k%d" % count, size=100), 0)
        count += 1
    assert feed.window.sent <= 1000
    assert feed.receive(Ack(0, 0, feed.window.sent), 1)[-1] == fx.ReadRows(200)


def test_a_full_sync_is_throttled() -> None:
    feed = syncing(options=FeedOptions(window_bytes=1000, chunk_bytes=200, sync_rate=100))
    (message,) = feed.rows(rows(b"k", size=300), 0)
    assert isinstance(message, fx.Send)
    wait = feed.deadline_ns
    assert wait > 2000 * MS or wait == 1000 * MS  # the next heartbeat may come first
    feed.receive(Ack(0, 0, feed.window.sent), 1)
    for now in range(1000 * MS, 3000 * MS, 500 * MS):
        feed.receive(Ack(0, 0, 0), now)
        assert fx.ReadRows(200) not in feed.tick(STANDING, now)
    assert fx.ReadRows(200) in feed.tick(STANDING, 3400 * MS)


def test_a_state_that_is_pinned_too_late_is_released() -> None:
    feed, _ = judged(login(Mark(0, 0, 0), store_id=NO_STORE), None)
    feed.receive(Ready(), 0)
    assert feed.lost()[0] == fx.ReleaseState()
    assert feed.pinned(NEWEST, 3, STANDING, 0) == [fx.ReleaseState()]


def test_a_replica_may_take_its_time_to_become_ready() -> None:
    feed, _ = judged(login(), HERE)
    for step in range(1, 60):
        now = step * 1000 * MS
        assert feed.receive(Preparing(), now) == []
        assert [type(m) for m in sent(feed.tick(STANDING, now))] == [Heartbeat]


def test_a_ready_that_was_lost_is_noticed() -> None:
    feed, _ = judged(login(), HERE)
    assert refusal(feed.receive(Ack(50, 50, 0), 1)) is Code.MALFORMED


# -- the end ---------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 4),
    st.lists(st.tuples(messages, st.integers(0, 10**10)), max_size=12),
)
def test_f7_no_message_breaks_a_feed_and_after_its_end_it_is_quiet(
    stage: int, said: list[tuple[Any, int]]
) -> None:
    feed = (
        greeted,
        lambda: greeted(SECRET),
        lambda: judged(login(), HERE)[0],
        tailing,
        syncing,
    )[stage]()
    now, is_over = 0, False
    for message, later in said:
        now += later
        effects = [*feed.receive(message, now), *feed.tick(STANDING, now)]
        assert not (is_over and effects)
        is_over = is_over or any(isinstance(effect, fx.Close) for effect in effects)
        assert is_over is (feed.phase is Phase.CLOSED)
    feed.lost()
    late = [feed.found([HERE], OLDEST, NEWEST, now), feed.tail_opened(STANDING, now),
            feed.frames([frame(51, batch(1))], STANDING, now), feed.rows(rows(b"a"), now),
            feed.advanced(STANDING, now), feed.tick(STANDING, now), feed.log_gone(),
            feed.failed("x"), feed.stop(Code.RESTART, "x"), feed.lost()]  # fmt: skip
    assert late == [[]] * len(late)
