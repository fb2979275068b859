"""Disks of a test's own."""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest


def mount(*arguments: str) -> None:
    """Mount something, or skip with the reason."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


def umount(path: pathlib.Path) -> None:
    """Take it away."""
    subprocess.run(["umount", str(path)], capture_output=True, check=True)


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of 600 KiB."""
    path = tmp_path / "small"
    path.mkdir()
    mount("-t", "tmpfs", "-o", "size=600k", "tmpfs", str(path))
    yield path
    umount(path)
