"""The embedded store on an event loop: who waits for the disk, and who does not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import marram
from marram.env import posix_env
from marram.env.faulty import Fault, FaultyEnv
from tests.server.serving import DEADLINE_S, GatedEnv


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine function on a loop of its own, within the deadline."""

    async def main() -> Any:
        async with asyncio.timeout(DEADLINE_S):
            return await work()

    return asyncio.run(main())


async def turns(count: int = 20) -> None:
    """Let the loop turn a few times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def acquired(semaphore: threading.Semaphore) -> None:
    """Wait for a thread without blocking the loop."""
    assert await asyncio.to_thread(semaphore.acquire, True, DEADLINE_S)


def test_k1_writes_that_arrive_together_share_a_sync(tmp_path):
    async def main() -> None:
        async with marram.open_async(tmp_path / "d") as db:
            before = (await db.stats())["log"]["groups"]
            await asyncio.gather(*(db.put(b"%d" % n, b"v") for n in range(500)))
            assert await db.count() == 500
            assert (await db.stats())["log"]["groups"] - before == 1

    run(main)


def test_a1_while_a_sync_runs_the_loop_goes_on_and_settled_keys_are_read(tmp_path):
    env = GatedEnv()

    async def main() -> None:
        async with marram.open_async(tmp_path / "d", env=env) as db:
            await db.put(b"settled", b"1")
            env.close_gate()
            writing = asyncio.create_task(db.put(b"k", b"2"))
            await acquired(env.waiting)
            assert await db.get(b"settled") == b"1"
            assert await db.get(b"missing") is None
            reading = asyncio.create_task(db.get(b"k"))
            scanning = asyncio.create_task(first_of(db.scan()))
            await turns()
            # What a crash could still undo is not shown.
            assert not writing.done()
            assert not reading.done()
            assert not scanning.done()
            env.open_gate()
            await writing
            assert await reading == b"2"
            assert await scanning == (b"k", b"2")

    async def first_of(rows: Any) -> Any:
        return await anext(rows)

    run(main)


def test_a_refusal_that_tells_of_an_unsettled_state_waits_as_well(tmp_path):
    env = GatedEnv()

    async def main() -> None:
        async with marram.open_async(tmp_path / "d", env=env) as db:
            await db.put(b"k", b"1")
            env.close_gate()
            deleting = asyncio.create_task(db.delete(b"k"))
            await acquired(env.waiting)
            asking = asyncio.create_task(db.ttl(b"k"))
            await turns()
            assert not asking.done()
            env.open_gate()
            assert await deleting
            with pytest.raises(marram.NotFound):
                await asking

    run(main)


def test_k2_a_write_that_is_cancelled_is_done_and_disturbs_nobody(tmp_path):
    env = GatedEnv()

    async def main() -> None:
        async with marram.open_async(tmp_path / "d", env=env) as db:
            env.close_gate()
            first = asyncio.create_task(db.put(b"a", b"1"))
            await acquired(env.waiting)
            others = [asyncio.create_task(db.put(b"%d" % n, b"v")) for n in range(10)]
            await turns()
            first.cancel()
            others[3].cancel()
            await turns()
            env.open_gate()
            results = await asyncio.gather(first, *others, return_exceptions=True)
            assert [isinstance(r, asyncio.CancelledError) for r in results].count(True) == 2
            assert await db.count() == 11
            assert await db.get(b"3") == b"v"

    run(main)


def test_k3_after_a_failed_sync_every_waiter_is_in_doubt(tmp_path):
    env = FaultyEnv(posix_env())

    async def main() -> None:
        db = await marram.open_async(tmp_path / "d", env=env)
        await db.put(b"before", b"1")
        env.add(Fault("sync_data", "*logfile*", times=None))
        results = await asyncio.gather(
            *(db.put(b"%d" % n, b"v") for n in range(5)), return_exceptions=True
        )
        assert [type(result) for result in results] == [marram.OutcomeUnknown] * 5
        with pytest.raises(marram.StoreFailed):
            await db.put(b"after", b"1")
        assert await db.get(b"before") == b"1"
        await db.close()

    run(main)
    with marram.open(tmp_path / "d") as db:
        assert db[b"before"] == b"1"


def test_threads_may_use_the_store_beside_the_loop(tmp_path):
    async def main() -> None:
        async with marram.open_async(tmp_path / "d") as db:
            blocking = db.blocking

            def work() -> None:
                for number in range(100):
                    blocking.put(b"t%d" % number, b"v")

            thread = asyncio.create_task(asyncio.to_thread(work))
            for number in range(100):
                await db.put(b"l%d" % number, b"v")
            await thread
            assert await db.count() == 200

    run(main)


@pytest.mark.parametrize("durability", ["interval", "none"])
def test_without_a_sync_no_thread_is_asked(tmp_path, durability):
    async def main() -> None:
        async with marram.open_async(tmp_path / "d", durability=durability) as db:
            for number in range(100):
                await db.put(b"%d" % number, b"v")
            await db.sync()
            assert (await db.stats())["unsettled_batches"] == 0

    run(main)
    with marram.open(tmp_path / "d") as db:
        assert len(db) == 100


def test_opening_a_locked_directory_says_so(tmp_path):
    async def main() -> None:
        async with marram.open_async(tmp_path / "d"):
            with pytest.raises(marram.Locked, match=str(os.getpid())):
                await marram.open_async(tmp_path / "d")
            with pytest.raises(marram.InvalidArgument, match="unknown option"):
                await marram.open_async(tmp_path / "d", durabilty="sync")

    run(main)


def test_an_opening_that_is_cancelled_gives_the_directory_up(tmp_path):
    async def main() -> None:
        opening = asyncio.ensure_future(opened())
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        # It is opened all the same, in its thread, and closed at once.
        while "closed" not in note():
            await asyncio.sleep(0.001)
        while True:
            with contextlib.suppress(marram.Locked):  # the lock goes right after the note
                async with marram.open_async(tmp_path / "d"):
                    return
            await asyncio.sleep(0.001)

    def note() -> str:
        with contextlib.suppress(FileNotFoundError):
            return (tmp_path / "d" / "LOCK").read_text()
        return ""

    async def opened() -> Any:
        return await marram.open_async(tmp_path / "d")

    run(main)


def test_checkpoint_backup_and_verify_run_beside_the_loop(tmp_path):
    async def main() -> None:
        async with marram.open_async(tmp_path / "d") as db:
            await db.put(b"k", b"v")
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    ticks += 1
                    await asyncio.sleep(0)

            ticking = asyncio.create_task(tick())
            told: list[tuple[int, int]] = []
            await db.checkpoint(lambda done, total: told.append((done, total)))
            position = await db.backup(tmp_path / "copy")
            assert position == await db.position()
            report = await db.verify()
            assert report.ok
            ticking.cancel()
            assert ticks > 3
            assert told[-1] == (1, 1)

    run(main)
    with marram.open(Path(tmp_path / "copy"), create=False) as db:
        assert dict(db) == {b"k": b"v"}


def test_a_loop_that_ends_without_closing_leaves_a_store_that_opens(tmp_path):
    async def main() -> None:
        db = await marram.open_async(tmp_path / "d")
        await db.put(b"k", b"v")
        kept.append(db)

    kept: list[Any] = []
    run(main)
    kept[0].blocking.close()
    with marram.open(tmp_path / "d") as db:
        assert db[b"k"] == b"v"


def test_a_handle_is_not_pickled(tmp_path):
    async def main() -> None:
        async with marram.open_async(tmp_path / "d") as db:
            with pytest.raises(marram.Error, match="pass the path"):
                pickle.dumps(db)
            assert repr(db).startswith("<marram.AsyncDB")

    run(main)


class Pressed:
    """An engine that is as late as it is told."""

    def __init__(self, inner: Any, pressure: list[float]) -> None:
        self._inner = inner
        self._pressure = pressure

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def throttle(self) -> float:
        return self._pressure.pop() if self._pressure else 0.0


def test_a_writer_waits_for_the_engine_and_the_loop_goes_on(tmp_path: Path) -> None:
    async def work() -> None:
        async with marram.open_async(tmp_path / "d") as db:
            store = db._store
            assert store.holds_back is False
            pressure = [1.0, 1.0, 1.0]
            store.engine = Pressed(store.engine, pressure)  # type: ignore[assignment]
            turns = 0

            async def others() -> None:
                nonlocal turns
                while pressure:
                    turns += 1
                    await asyncio.sleep(0)

            await asyncio.gather(db.put(b"k", b"v"), others())
            assert not pressure
            assert turns > 1
            assert (await db.stats())["stalls"]["count"] == 1

    asyncio.run(work())
