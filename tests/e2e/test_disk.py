"""Real disks that fill up, reach a limit, or lose power."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

import marram
from marram.errors import OutcomeUnknown, StoreFailed, StoreFull
from tests.e2e.disks import mount, small_disk, umount

__all__ = ["small_disk"]

# FS_IOC_SHUTDOWN with "no log flush": the file system stops as if the power had gone.
_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2


def test_a_full_disk_refuses_writes_and_takes_them_again_when_there_is_room(
    small_disk: pathlib.Path,
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 200_000)
    with marram.open(small_disk / "db") as db:
        written = 0
        with pytest.raises(StoreFull, match="No space left"):
            while True:
                db.put(b"%06d" % written, b"v" * 1000)
                written += 1
        assert written > 50
        assert db.get(b"%06d" % written) is None
        with pytest.raises(StoreFull):
            db.checkpoint()  # no room for that either
        assert db.get(b"000000") == b"v" * 1000

        ballast.unlink()
        db.put(b"%06d" % written, b"v" * 1000)
        written += 1
    with marram.open(small_disk / "db") as db:
        assert len(db) == written
        assert db.verify().ok


def test_a_file_size_limit_is_a_full_disk(tmp_path: pathlib.Path) -> None:
    code = """
import resource, sys, marram
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
db = marram.open(sys.argv[1])
n = 0
try:
    while True:
        db.put(b"%06d" % n, b"v" * 1000)
        n += 1
except marram.StoreFull:
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
db.put(b"later", b"1")
db.close()
print(n)
"""
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "db")],
        capture_output=True,
        text=True,
        check=True,
    )
    written = int(out.stdout)
    assert written > 50
    with marram.open(tmp_path / "db") as db:
        assert len(db) == written + 1


@pytest.fixture
def ext4(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """An ext4 file system in a file, mounted at tmp_path/disk."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    path = tmp_path / "disk"
    path.mkdir()
    mount("-o", "loop", str(image), str(path))
    yield path
    umount(path)


def _cut_power(path: pathlib.Path) -> None:
    """Lose everything that was not synced, then mount again."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EPERM):
            pytest.skip(f"this kernel cannot cut the power of a mount: {error}")
        raise
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_p1_acknowledged_writes_survive_a_power_cut_on_ext4(
    ext4: pathlib.Path, tmp_path: pathlib.Path, checkpoint: bool
) -> None:
    expected: dict[bytes, bytes] = {}
    for cut in range(6):
        db = marram.open(ext4 / "db")
        assert dict(db) == expected
        for number in range(40):
            key, value = b"%d:%d" % (cut, number), b"v" * (number * 37 % 500)
            db.put(key, value)
            expected[key] = value
            if checkpoint and number == 20:
                db.checkpoint()
        _cut_power(ext4)
        with pytest.raises((StoreFailed, OutcomeUnknown)):
            db.put(b"after the cut", b"lost")
        db.close()
        umount(ext4)
        mount("-o", "loop", str(tmp_path / "image"), str(ext4))
    with marram.open(ext4 / "db") as db:
        assert dict(db) == expected


def test_durability_interval_loses_at_most_its_interval_to_a_power_cut(
    ext4: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    interval_s, slack_s = 0.1, 0.05  # the slack: between a put's own clock and this one
    db = marram.open(ext4 / "db", durability="interval", interval_ms=int(interval_s * 1000))
    acknowledged: list[float] = []
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        db.put(b"%08d" % len(acknowledged), b"v" * 100)
        acknowledged.append(time.monotonic())
    _cut_power(ext4)
    with contextlib.suppress(StoreFailed):  # it cannot sync any more, and says so
        db.close()
    umount(ext4)
    mount("-o", "loop", str(tmp_path / "image"), str(ext4))

    with marram.open(ext4 / "db") as again:
        kept = len(again)
        assert list(again) == [b"%08d" % n for n in range(kept)], "a prefix"
    lost = acknowledged[kept:]
    assert kept > 100
    assert not lost or lost[-1] - lost[0] <= interval_s + slack_s, f"{len(lost)} lost"
