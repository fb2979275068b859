"""env/arenas.py: what the interpreter holds lies in huge pages, and comes and goes as ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from marram import compiled

_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")

# Some objects from before, 64 MB of others from after, and back; with figures in MB.
_PROGRAM = """
import gc
from marram.env.arenas import use_huge_pages

def figure(name):
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith(name):
            return int(line.split()[1]) // 1024

before = [b"%0100d" % n for n in range(50_000)]
used = use_huge_pages()
after = {n: b"%0100d" % n for n in range(450_000)}
print(used, figure("AnonHugePages"), figure("Rss"))
assert all(value == b"%0100d" % n for n, value in after.items())
assert before == [after[n] for n in range(50_000)]
del before
after.clear()
gc.collect()
print(figure("Rss"))
again = [b"%0100d" % n for n in range(450_000)]
print(figure("Rss"))
"""


def test_objects_lie_in_huge_pages_and_their_memory_comes_back() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    used, huge_mb, full_mb, empty_mb, again_mb = answer.stdout.split()

    assert used == str(compiled.state() == "compiled" and sys.platform == "linux")
    assert int(empty_mb) < int(full_mb) - 40, "given back"
    assert int(again_mb) < int(full_mb) + 20, "taken again"
    if used == "True":
        if not _SETTING.exists() or "[never]" in _SETTING.read_text():
            pytest.skip("the kernel has no huge pages for anybody")
        assert int(huge_mb) > 30
