"""Runs a folder's tests on both engines: its conftest.py imports the two functions from here.

    from tests.node.engines import engine, pytest_generate_tests

A test whose module has a World runs on memory and on lsm, there with a flush, and what compactions
that makes due, whenever background work runs.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node import harness

MEMORY_ALONE = {
    # Count generations, of which lsm makes one whenever background work runs here.
    "test_a_checkpoint_answers_when_it_is_done",
    "test_u2_who_asks_during_a_checkpoint_gets_one_of_its_own",
    "test_bgsave_starts_one",
    "test_debug_describes_and_reloads",
    # Look at the files of the memory engine; test_compact.py looks at those of lsm.
    "test_verify_tells_what_it_read",
    "test_verify_finds_damage_under_a_running_store",
    # What is said of one engine alone: its memory limit, what it deletes by itself.
    "test_the_memory_limit_refuses_what_adds_and_allows_what_frees",
    "test_u3_a_tick_deletes_expired_keys_within_its_budget",
    "test_a_tick_on_a_full_disk_complains_once",
    "test_t3_what_cannot_be_flushed_is_refused_and_not_waited_for",
    # A flush or a compaction takes expired rows out of the files without a batch in the log.
    "test_n3_the_deletion_of_an_expired_key_is_logged_and_waited_for",
    # Count what is hidden and still held: in tables that is the compactions' affair.
    "test_active_expiry_can_be_turned_off",
    "test_keys_do_not_expire_during_a_pause",
    "test_a_replica_hides_what_expired_by_the_primarys_clock_and_deletes_nothing",
    "test_the_primary_deletes_what_expired_on_both",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Both engines, where a test has anything to do with one."""
    if hasattr(metafunc.module, "World") and metafunc.function.__name__ not in MEMORY_ALONE:
        metafunc.parametrize("engine", list(harness.ENGINES), indirect=True)


@pytest.fixture(autouse=True)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The engine of each World that says nothing else."""
    name = getattr(request, "param", "memory")
    harness.defaults.update(harness.ENGINES[name])
    yield name
    harness.defaults.clear()
