"""Driving commit groups: who writes them, who is told, with a clockless loop and a real store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from marram.coding.batch import put
from marram.env import posix_env
from marram.env.faulty import Fault, FaultyEnv
from marram.env.memory import MemoryEnv
from marram.env.posix import PosixFile
from marram.errors import OutcomeUnknown
from marram.server.commit import Committer, Waiter
from marram.storage.options import Options
from marram.storage.store import Store
from tests.server.serving import GatedEnv


class Listener(Waiter):
    """A waiter that notes what it is told."""

    def __init__(self, waits_at: int, told: list[tuple[str, int]]) -> None:
        super().__init__(waits_at)
        self._told = told

    def release(self, committed: int) -> None:
        self._told.append(("released", self.waits_at))

    def fail(self) -> None:
        self._told.append(("failed", self.waits_at))

    def give_up(self, first: int, last: int) -> None:
        self._told.append(("given up", self.waits_at))


def on_a_store(
    directory: Path,
    scenario: Callable[[Store, Committer], Coroutine[Any, Any, None]],
    env: Any = None,
    **options: Any,
) -> None:
    """Run a scenario with a store and its committer."""

    async def main() -> None:
        the_env = env or posix_env()
        store = Store.open(str(directory / "data"), the_env, Options(**options))
        committer = Committer(store, posix_env(), asyncio.get_running_loop())
        try:
            await asyncio.wait_for(scenario(store, committer), 20)
        finally:
            if isinstance(env, GatedEnv):
                env.open_gate()
            committer.close()
            store.close()

    asyncio.run(main())


def write(store: Store, key: bytes = b"k") -> int:
    return store.append([put(0, key, b"v")])


def test_m1_waiters_are_released_in_order_once_committed(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []

    async def scenario(store: Store, committer: Committer) -> None:
        for _ in range(3):
            committer.hold(Listener(write(store), told))
        assert not told
        await committer.wait(store.last)
        assert told == [("released", 1), ("released", 2), ("released", 3)]
        assert store.commit.groups == 1

    on_a_store(tmp_path, scenario)


@pytest.mark.parametrize("durability", ["interval", "none"])
def test_without_a_sync_a_group_is_written_by_the_loop(tmp_path: Path, durability: str) -> None:
    async def scenario(store: Store, committer: Committer) -> None:
        position = write(store)
        committer.wake()
        await asyncio.sleep(0)
        assert store.committed == position

    on_a_store(tmp_path, scenario, durability=durability)


def test_m3_a_client_alone_is_synced_on_the_loop_and_two_are_not(tmp_path: Path) -> None:
    threads: list[str] = []

    env = MemoryEnv(threads=True)

    def note(operation: str, path: str) -> None:
        if operation == "sync_data":
            threads.append(threading.current_thread().name)

    async def scenario(store: Store, committer: Committer) -> None:
        env.on_call = note

        async def turn(client: object) -> str:
            committer.note(client)
            position = write(store)
            committer.wake()
            await committer.wait(position)
            return threads[-1]

        one, two = object(), object()
        assert "marram-commit" in await turn(one)
        for _ in range(10):
            last = await turn(one)
        assert last == "MainThread"
        assert "marram-commit" in await turn(two)
        assert "marram-commit" in await turn(one)

    on_a_store(tmp_path, scenario, env)


def test_what_arrives_during_a_sync_shares_the_next_group(tmp_path: Path) -> None:
    env = GatedEnv()

    async def scenario(store: Store, committer: Committer) -> None:
        env.close_gate()
        first = write(store)
        waits = [asyncio.ensure_future(committer.wait(first))]
        while store.commit.pending_bytes:
            await asyncio.sleep(0)
        waits += [asyncio.ensure_future(committer.wait(write(store))) for _ in range(20)]
        await asyncio.sleep(0)
        assert store.committed == 0
        env.open_gate()
        await asyncio.gather(*waits)
        assert store.commit.groups == 2

    on_a_store(tmp_path, scenario, env)


def test_what_another_thread_commits_releases_waiters_too(tmp_path: Path) -> None:
    async def scenario(store: Store, committer: Committer) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(50):
            position = write(store)
            elsewhere = loop.run_in_executor(None, store.wait, position)
            await committer.wait(position)
            assert store.committed >= position
            await elsewhere

    on_a_store(tmp_path, scenario)


def test_a_position_committed_between_look_and_hold_is_released(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []

    async def scenario(store: Store, committer: Committer) -> None:
        position = write(store)
        store.wait(position)  # as another thread would, just before hold()
        committer.hold(Listener(position, told))
        while not told:
            await asyncio.sleep(0)
        assert told == [("released", position)]

    on_a_store(tmp_path, scenario)


def test_checkpoints_beside_writers_hold_nobody_up_for_ever(tmp_path: Path) -> None:
    async def scenario(store: Store, committer: Committer) -> None:
        done = asyncio.Event()

        async def writer(number: int) -> None:
            while not done.is_set():
                await committer.wait(write(store, b"k%d" % number))

        writers = [asyncio.ensure_future(writer(number)) for number in range(5)]
        for _ in range(5):
            await asyncio.to_thread(store.checkpoint)
        done.set()
        await asyncio.gather(*writers)
        assert store.stats()["checkpoint"]["count"] == 5

    on_a_store(tmp_path, scenario)


@pytest.mark.parametrize("alone", [False, True])
def test_m2_a_failure_fails_everyone_who_waits_or_will(tmp_path: Path, alone: bool) -> None:
    env = FaultyEnv(posix_env())
    told: list[tuple[str, int]] = []

    async def scenario(store: Store, committer: Committer) -> None:
        for number in range(12):
            committer.note(committer if alone else number)
            await committer.wait(write(store))
        env.add(Fault("sync_data", "*logfile*", times=None))
        settled = store.committed
        committer.hold(Listener(settled, told))
        committer.hold(Listener(write(store), told))
        with pytest.raises(OutcomeUnknown):
            await committer.wait(store.last)
        assert told == [("released", settled), ("failed", settled + 1)]
        committer.hold(Listener(store.last, told))
        assert told[-1] == ("failed", settled + 1)
        with pytest.raises(OutcomeUnknown):
            await committer.wait(store.last)
        await committer.wait(settled)
        assert committer.failed

    on_a_store(tmp_path, scenario, env)


def test_with_a_bound_groups_are_written_and_waiters_wait_for_it(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    advanced: list[int] = []

    async def scenario(store: Store, committer: Committer) -> None:
        durable = asyncio.Event()

        def on_advance() -> None:
            advanced.append(store.commit.durable)
            if store.commit.durable == 2:
                durable.set()

        committer.on_advance = on_advance
        store.commit.set_bound(0)
        for _ in range(2):
            committer.hold(Listener(write(store), told))
        await durable.wait()
        assert (store.committed, told) == (0, [])
        store.commit.set_bound(1)
        committer.advance()
        assert told == [("released", 1)]
        store.commit.set_bound(None)
        committer.advance()
        assert told == [("released", 1), ("released", 2)]
        assert advanced == sorted(advanced)

    on_a_store(tmp_path, scenario)


def test_who_is_given_up_is_told_and_the_others_wait_on(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []

    async def scenario(store: Store, committer: Committer) -> None:
        store.commit.set_bound(0)
        for _ in range(3):
            committer.hold(Listener(write(store), told))
        futures = [asyncio.ensure_future(committer.wait(position)) for position in (1, 2)]
        await asyncio.sleep(0)
        committer.give_up(2, 2)
        # A listener of another position than was meant looks for itself whether it is.
        assert told == [("given up", 1), ("given up", 2)]
        with pytest.raises(OutcomeUnknown, match="still replicating"):
            await futures[1]
        store.commit.set_bound(None)
        committer.advance()  # all of it may be durable already
        await futures[0]
        await committer.wait(3)
        assert told[-1] == ("released", 3)

    on_a_store(tmp_path, scenario)


def test_a_stream_is_never_synced_on_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[str] = set()

    async def scenario(store: Store, committer: Committer) -> None:
        sync_data = PosixFile.sync_data

        def noted(file: PosixFile) -> None:
            threads.add(threading.current_thread().name)
            sync_data(file)

        monkeypatch.setattr(PosixFile, "sync_data", noted)
        for _ in range(20):
            committer.note_stream()
            position = write(store)
            committer.wake()
            await committer.wait(position)
        assert threads
        assert all("marram-commit" in name for name in threads)

    on_a_store(tmp_path, scenario)
