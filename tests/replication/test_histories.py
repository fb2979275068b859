"""The whole of replication, from seeds: what world.py says must hold, holds, whatever goes wrong.

    MARRAM_REPLICATION_HISTORIES=100000 MARRAM_REPLICATION_SEED=7 pytest tests/replication

runs that many histories, from that seed on. A failure names the seed and the store it ran on; see
it alone with World(seed, engine).run(). Bugs that are planted here, by replacing a part, have to be
found by the same histories.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest

from marram.replication.effects import Effect, LogFrame
from marram.replication.primary import Feed
from marram.replication.replica import Follower
from tests.replication.model_store import Frame, ModelStore, split
from tests.replication.world import World

HISTORIES = int(os.environ.get("MARRAM_REPLICATION_HISTORIES", "10000"))
SEED = int(os.environ.get("MARRAM_REPLICATION_SEED", "1"))
PARTS = 25
PLANTED_MAX = 1500  # histories in which a planted bug has to show itself

# Seeds that fail where a bug that was found by such histories is put back, and what it was.
FOUND: list[tuple[int, str | None]] = [
    (0, None),  # the upstream's own silence counted before the first message
    (37, None),  # a lost Ready: both ends waited for ever
    (230, None),  # synced() came before appended(): never acknowledged
    (34, None),  # a primary that was reopened told replicas all it found was committed
    (46, None),  # a replica of a replica waited for ever for what was another history
    (1700, None),  # a failover with one replica lost, away from a living primary
    (1990, None),  # a deposed primary, its epoch raised, fed its tail to a replica that knew better
    (2659, None),  # an epoch raised over batches that were not written yet
]


def engine_of(seed: int) -> str | None:
    """Most histories run on the model, every seventh on each of the real engines."""
    return {5: "memory", 6: "lsm"}.get(seed % 7)


def run(seed: int, engine: str | None, **planted: Any) -> Counter[str]:
    world = World(seed, engine=engine, **planted)
    try:
        world.run()
    except Exception as error:
        raise AssertionError(f"World({seed}, engine={engine!r}): {error!r}") from error
    return world.counts


@pytest.mark.slow
@pytest.mark.timeout(120 + HISTORIES // 50)
@pytest.mark.parametrize("part", range(PARTS))
def test_replicas_agree_and_nothing_acknowledged_is_lost(part: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(SEED + part, SEED + HISTORIES, PARTS):
        counts += run(seed, engine_of(seed))
    if HISTORIES >= 100 * PARTS:
        # The histories must go on meeting everything, or they say nothing.
        for what in (
            "acked", "kept", "read on a replica", "crash", "lost for ever", "failover",
            "promotion", "deposed", "set aside", "full sync", "full sync cut short",
            "end: LOG_GONE", "end: LOWER_EPOCH", "end: GAP", "end: BEHIND", "end: DISPLACED",
        ):  # fmt: skip
            assert counts[what] >= 3, f"{what}: {counts[what]} times"


@pytest.mark.parametrize(("seed", "engine"), FOUND)
def test_what_failed_once_holds_now(seed: int, engine: str | None) -> None:
    run(seed, engine)


@pytest.mark.parametrize("engine", [None, "memory", "lsm"])
def test_a_history_is_a_function_of_its_seed(engine: str | None) -> None:
    one, other = World(11, engine=engine), World(11, engine=engine)
    one.run()
    other.run()
    assert one.counts == other.counts
    assert one.loop.ran == other.loop.ran
    assert one.nodes["a"].tip == other.nodes["a"].tip


# -- planted bugs ----------------------------------------------------------------------------------


class AcksBeforeSync(Follower):
    """Says of everything it applied that it is on disk."""

    def appended(self, last: int, now_ns: int) -> list[Effect]:
        return [*super().appended(last, now_ns), *super().synced(last, now_ns)]


class ResumesOneLate(Feed):
    """Leaves the first batch of the tail out, and numbers the others as if it had not been."""

    def _queue(self, frame: LogFrame) -> None:
        skipped = getattr(self, "skipped", 0)
        batches = list(split(Frame(0, frame.count, 0, 0, frame.payload)))
        if not skipped and self.sent.sequence:
            self.skipped = skipped = 1
            del batches[0]
        if batches:
            first = frame.first_sequence - skipped + (frame.count - len(batches))
            payload = b"".join(batches)
            super()._queue(Frame(first, len(batches), frame.epoch, frame.time_ms, payload))


class ForgetsItsEpoch(ModelStore):
    """Raises its epoch in memory only."""

    def raise_epoch(self, epoch: int) -> None:
        self._close_frame()
        self.epoch = epoch


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "planted",
    [
        pytest.param({"follower": AcksBeforeSync}, id="ack before sync"),
        pytest.param({"feed": ResumesOneLate}, id="resume one record late"),
        pytest.param(
            # Not by looking at the epoch itself, but at what comes of it.
            {"store_class": ForgetsItsEpoch, "checks_epochs": False}, id="epoch not durable",
        ),
    ],
)  # fmt: skip
def test_a_planted_bug_is_found(planted: dict[str, Any]) -> None:
    for seed in range(PLANTED_MAX):
        try:
            World(seed, **planted).run()
        except AssertionError:
            return
    pytest.fail(f"not found in {PLANTED_MAX} histories")
