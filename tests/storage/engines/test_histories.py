"""One random history over every option set: the answers of a dict, and the same everywhere.

    MARRAM_HISTORY_OPERATIONS=200000 MARRAM_HISTORY_SEED=7 pytest tests/storage/engines

runs that many steps in all, shared among the option sets. A failure prints the seed, the option
set, the step and a shorter history that fails as well.
"""

from __future__ import annotations

import functools
import os
import time
from typing import Any

import pytest

from tests.storage.engines.model import Bounds, State
from tests.storage.engines.option_sets import OPTION_SETS, never_varied
from tests.storage.engines.runner import HistoryFailed, run
from tests.storage.engines.shrinking import shrink
from tests.storage.engines.steps import KEYS, Step, steps_of

OPERATIONS = int(os.environ.get("MARRAM_HISTORY_OPERATIONS", "20000"))
SEED = int(os.environ.get("MARRAM_HISTORY_SEED", "1"))
SHRINK_S = float(os.environ.get("MARRAM_HISTORY_SHRINK_S", "30"))

STEPS_MAX = 2000  # a history; more operations make more histories
STEPS_EACH = max(1, OPERATIONS // len(OPTION_SETS))
HISTORIES = -(-STEPS_EACH // STEPS_MAX)
STEPS = -(-STEPS_EACH // HISTORIES)
REFERENCE = "memory-plain"


@functools.cache
def digest_of(name: str, seed: int) -> int:
    """The digest of the answers of a history over an option set; fails with a short history."""
    options, steps = OPTION_SETS[name], steps_of(seed, STEPS)
    try:
        return run(steps, options)
    except HistoryFailed as failure:
        told = f"seed {seed}, option set {name!r} {options}: {failure}"
        short = _shortened(steps[: failure.index + 1], options)
    raise AssertionError(told + "\n" + short)


def _shortened(steps: list[Step], options: dict[str, Any]) -> str:
    last: list[HistoryFailed] = []

    def fails(tried: list[Step]) -> bool:
        try:
            run(tried, options)
        except HistoryFailed as failure:
            last[:] = [failure]
            return True
        return False

    until = time.monotonic() + SHRINK_S
    short = shrink(steps, fails, lambda: time.monotonic() < until)
    lines = [f"    {step}" for step in short]
    return "\n".join(["fails as well, with these alone:", *lines, f"  {last[-1] if last else ''}"])


@pytest.mark.timeout(120 + OPERATIONS // 100)
@pytest.mark.parametrize("name", OPTION_SETS)
def test_every_option_set_gives_the_same_answers(name: str) -> None:
    # Without sync on every write a power cut takes different batches in different sets: there the
    # model alone is the judge.
    is_comparable = OPTION_SETS[name].get("durability", "sync") == "sync"
    for seed in range(SEED, SEED + HISTORIES):
        digest = digest_of(name, seed)
        if is_comparable:
            assert digest == digest_of(REFERENCE, seed), f"seed {seed}: not as {REFERENCE}"


def test_every_option_is_varied_by_some_set() -> None:
    assert not never_varied(), "options in no set of option_sets.py"


def test_a_history_is_a_function_of_its_seed() -> None:
    assert steps_of(5, 300) == steps_of(5, 300)
    assert steps_of(5, 300) != steps_of(6, 300)
    assert len({step.kind for step in steps_of(5, 3000)}) > 35
    assert len(set(KEYS)) == len(KEYS) > 190


def test_a_failing_history_is_shortened_to_what_it_takes() -> None:
    steps = steps_of(1, 400)
    needed = [step for step in steps if step.kind == "put"][20:23]

    short = shrink(steps, lambda tried: all(step in tried for step in needed), lambda: True)

    assert short == needed


def test_the_model_knows_ranges_and_deadlines() -> None:
    space = {b"a": (b"1", 0), b"a\xff": (b"2", 50), b"b": (b"3", 0), b"\xff\xff": (b"4", 0)}
    state = State((space, *State().spaces[1:]))

    assert state.scan(0, 49, Bounds(b"a")) == [(b"a", b"1"), (b"a\xff", b"2")]
    assert state.scan(0, 50, Bounds(b"a")) == [(b"a", b"1")]
    assert state.scan(0, 50, Bounds(b"\xff")) == [(b"\xff\xff", b"4")]
    assert state.scan(0, 50, Bounds(b"", b"a\0", b"\xff\xff", True)) == [(b"b", b"3")]
    assert state.scan(0, 50, Bounds(reverse=True, limit=1)) == [(b"\xff\xff", b"4")]
    assert (state.count(0, 49), state.count(0, 50)) == (4, 3)
