"""The asyncio client: many tasks, one connection."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import marram
from marram.protocol.resp_client import encode_command
from tests.client.faces import url_of
from tests.client.test_local_aio import run, turns
from tests.client.test_sync import GREETING
from tests.server.serving import DEADLINE_S, Running, config_for, serving

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def url_at(server: asyncio.Server) -> str:
    """Where a server of this loop is."""
    return f"marram://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@contextlib.asynccontextmanager
async def fake(script: Script) -> AsyncIterator[str]:
    """A server that greets, then does what the script says; gives its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"SELECT\r\n$1\r\n0\r\n")
            writer.write(GREETING)
            await reader.readuntil(b"PING\r\n")
            writer.write(b"+PONG\r\n")
            await script(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield url_at(server)


def test_tasks_share_one_connection(tmp_path):
    async def main(running: Running) -> None:
        async with marram.connect_async(url_of(running)) as db:
            await asyncio.gather(*(db.put(b"%d" % n, b"v%d" % n) for n in range(500)))
            values = await asyncio.gather(*(db.get(b"%d" % n) for n in range(500)))
            assert values == [b"v%d" % n for n in range(500)]
            assert running.call(lambda server: len(server.clients.connections)) == 1

    with serving(tmp_path) as running:
        run(lambda: main(running))


def test_s1_a_cancelled_call_takes_its_reply_with_it(tmp_path):
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"$1\r\na\r\n")
        await reader.readuntil(b"$1\r\nb\r\n")
        writer.write(b"$1\r\nA\r\n$1\r\nB\r\n")
        await reader.read()

    async def main() -> None:
        async with fake(script) as url, marram.connect_async(url) as db:
            first = asyncio.create_task(db.get(b"a"))
            await turns(3)
            first.cancel()
            assert await db.get(b"b") == b"B"

    run(main)


def test_r1_a_write_whose_connection_breaks_is_in_doubt():
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"$1\r\nv\r\n")

    async def main() -> None:
        async with fake(script) as url, marram.connect_async(url) as db:
            with pytest.raises(marram.OutcomeUnknown):
                await db.put(b"k", b"v")

    run(main)


def test_r2_calls_after_a_restart_go_to_the_new_server(tmp_path):
    async def main() -> None:
        with Running(config_for(tmp_path)) as running:
            port = running.address()[1]
            db = await marram.connect_async(url_of(running))
            await db.put(b"k", b"1")
            await asyncio.to_thread(running.stop)
        with Running(config_for(tmp_path, resp_port=port)):
            await db.put(b"k", b"2")
            assert await db.get(b"k") == b"2"
            await db.close()

    run(main)


def test_r2_a_read_whose_connection_breaks_is_sent_again_once():
    seen = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"$1\r\nk\r\n")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        await reader.readuntil(b"SELECT\r\n$1\r\n0\r\n")
        writer.write(GREETING)
        if seen == 1:
            await reader.readuntil(b"PING\r\n")
            writer.write(b"+PONG\r\n")
        await reader.readuntil(b"$1\r\nk\r\n")
        if seen == 2:
            writer.write(b"$1\r\n2\r\n")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            url = url_at(server)
            async with marram.connect_async(url) as db:
                assert await db.get(b"k") == b"2"
                assert seen == 2
                with pytest.raises(marram.ConnectionLost):
                    await db.get(b"k")

    run(main)


def test_a_silent_server_fails_every_call_that_waits():
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        async with fake(script) as url, marram.connect_async(url, timeout_s=0.3) as db:
            results = await asyncio.gather(
                db.get(b"a"), db.put(b"b", b"c"), db.get(b"d"), return_exceptions=True
            )
            kinds = [type(result) for result in results]
            assert kinds == [marram.ConnectionLost, marram.OutcomeUnknown, marram.ConnectionLost]
            assert "no answer in time" in str(results[0])

    run(main)


@pytest.mark.parametrize("answer", [b"?\r\n", b"+OK\r\n+OK\r\n"])
def test_bytes_that_are_no_answer_end_the_connection(answer):
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"$1\r\nk\r\n")
        writer.write(answer)
        await reader.read()

    async def main() -> None:
        async with fake(script) as url, marram.connect_async(url) as db:
            with pytest.raises(marram.ProtocolError):
                await db.get(b"k")
            assert db.line._stream.closed  # type: ignore[union-attr]

    run(main)


def test_nobody_there_is_connection_lost():
    async def main() -> None:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        with pytest.raises(marram.ConnectionLost, match="cannot connect"):
            await marram.connect_async(f"marram://127.0.0.1:{port}")

    run(main)


def test_a_wrong_password_is_refused(tmp_path):
    async def main(running: Running) -> None:
        host, port = running.address()
        with pytest.raises(marram.ServerError, match="WRONGPASS"):
            await marram.connect_async(f"marram://:wrong@{host}:{port}")
        async with marram.connect_async(f"marram://:right@{host}:{port}") as db:
            await db.put(b"k", b"v")
            assert "right" not in repr(db)

    with serving(tmp_path, password="right") as running:
        run(lambda: main(running))


def test_more_scans_at_once_than_a_connection_may_have_snapshots(tmp_path):
    async def main(running: Running) -> None:
        async with marram.connect_async(url_of(running)) as db:
            await db.put_many({b"%05d" % n: b"" for n in range(2500)})

            async def scan() -> int:
                return len([row async for row in db.scan()])

            assert await asyncio.gather(*(scan() for _ in range(50))) == [2500] * 50
            assert await open_snapshots(db) == 0

    with serving(tmp_path) as running:
        run(lambda: main(running))


async def open_snapshots(db: Any) -> int:
    from marram.client.calls import Call
    from marram.client.figures import info_sections

    def read(replies: list[Any]) -> int:
        return int(info_sections(replies[0].data)["marram"]["open_snapshots"])

    return int(await db.run(Call([(b"INFO", b"marram")], read)))


def test_v1_snapshots_that_are_dropped_or_cancelled_are_closed(tmp_path):
    async def main(running: Running) -> None:
        async with marram.connect_async(url_of(running)) as db:
            await db.put_many({b"%05d" % n: b"" for n in range(2500)})
            rows = db.scan()
            assert await anext(rows) == (b"00000", b"")
            snapshot = await db.snapshot()
            opening = asyncio.ensure_future(opened(db))
            await turns(2)
            opening.cancel()
            del rows, snapshot
            async with asyncio.timeout(DEADLINE_S):
                while await open_snapshots(db):
                    pass
            assert opening.cancelled()

    async def opened(db: Any) -> Any:
        return await db.snapshot()

    with serving(tmp_path) as running:
        run(lambda: main(running))


def test_s4_a_server_that_takes_nothing_holds_callers_back():
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        while True:
            await reader.readexactly(len(encode_command([b"SET", b"k", value])))
            writer.write(b"+OK\r\n")

    release = asyncio.Event()
    value = b"x" * (1 << 20)

    async def main() -> None:
        async with fake(script) as url, marram.connect_async(url) as db:
            db.line._stream._transport.set_write_buffer_limits(1024)  # type: ignore[union-attr]
            writes = [asyncio.create_task(db.put(b"k", value)) for _ in range(20)]
            while db.line._stream._writable is None:  # type: ignore[union-attr]
                await asyncio.sleep(0)
            await turns()
            buffered = db.line._stream._transport.get_write_buffer_size()  # type: ignore[union-attr]
            late = asyncio.create_task(db.put(b"k", value))
            await turns()
            assert not late.done()
            assert db.line._stream._transport.get_write_buffer_size() <= buffered  # type: ignore[union-attr]
            release.set()
            await asyncio.gather(*writes, late)

    run(main)


def test_a_handle_is_not_pickled(tmp_path):
    async def main(running: Running) -> None:
        async with marram.connect_async(url_of(running)) as db:
            with pytest.raises(marram.Error, match="pass the URL"):
                pickle.dumps(db)

    with serving(tmp_path) as running:
        run(lambda: main(running))


def test_uvloop_works_as_well(tmp_path):
    uvloop = pytest.importorskip("uvloop")

    async def main(running: Running) -> None:
        async with marram.connect_async(url_of(running)) as db:
            await db.put(b"k", b"v")
            assert [row async for row in db.scan()] == [(b"k", b"v")]
        async with marram.open_async(tmp_path / "other") as db:
            await db.put(b"k", b"v")

    with serving(tmp_path) as running, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(running))
