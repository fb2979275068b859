"""Backups and checks of a store that a real server has open."""

from __future__ import annotations

import asyncio
import pathlib
import subprocess
import sys
import threading

import pytest

import marram
from tests.e2e.process import ServerProcess


def test_a_hot_backup_is_one_moment_while_writers_go_on(tmp_path: pathlib.Path) -> None:
    with ServerProcess(tmp_path / "db", "--backup-dir", str(tmp_path / "backups")) as server:
        (tmp_path / "backups").mkdir()
        url = f"marram://127.0.0.1:{server.ports['resp']}"
        with marram.connect(url) as db:
            db.put_many((b"%05d" % n, b"v" * 50) for n in range(5000))
            stop = threading.Event()

            def write() -> None:
                # Each batch keeps `a` and `z`, at both ends of the order, equal.
                number = 0
                while not stop.is_set():
                    number += 1
                    db.put_many({b"a": b"%d" % number, b"z": b"%d" % number})

            writer = threading.Thread(target=write)
            writer.start()
            positions = [db.backup(f"copy-{number}") for number in range(3)]
            report = db.verify()
            stop.set()
            writer.join()

    assert report.ok
    assert positions == sorted(set(positions))
    for number, position in enumerate(positions):
        with marram.open(tmp_path / "backups" / f"copy-{number}", create=False) as copy:
            assert copy.position == position
            assert copy.get(b"a") == copy.get(b"z")
            assert len(list(copy.scan(prefix=b"0"))) == 5000
            assert copy.verify().ok


def test_backup_and_verify_from_asyncio_and_from_the_command_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / "backups").mkdir()

    async def work(url: str) -> bool:
        async with await marram.connect_async(url) as db:
            await db.put(b"k", b"v")
            await db.backup("async")
            return (await db.verify()).ok

    with ServerProcess(tmp_path / "db", "--backup-dir", str(tmp_path / "backups")) as server:
        address = f"127.0.0.1:{server.ports['resp']}"
        assert asyncio.run(work(f"marram://{address}"))
        for words in (["backup", "cli"], ["verify"]):
            done = subprocess.run(
                [sys.executable, "-m", "marram.cli.main", *words, "--connect", address],
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, "")
    for name in ("async", "cli"):
        with marram.open(tmp_path / "backups" / name, create=False) as copy:
            assert dict(copy) == {b"k": b"v"}


def test_a_server_without_a_backup_directory_refuses(tmp_path: pathlib.Path) -> None:
    with (
        ServerProcess(tmp_path / "db") as server,
        marram.connect(f"marram://127.0.0.1:{server.ports['resp']}") as db,
        pytest.raises(marram.ServerError, match="--backup-dir"),
    ):
        db.backup("name")
