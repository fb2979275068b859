"""For every test: a compiled leaf that is older than its source tests yesterday's code."""

from __future__ import annotations

from pathlib import Path

import pytest

from marram import compiled


def pytest_configure(config: pytest.Config) -> None:
    if compiled.state() != "compiled":
        return
    for module in compiled.MODULES:
        place = Path(compiled.__file__).parent.joinpath(*module.split(".")[1:])
        sources = [place.with_suffix(suffix) for suffix in (".py", ".pxd")]
        changed = max(path.stat().st_mtime_ns for path in sources if path.exists())
        if any(
            built.stat().st_mtime_ns < changed for built in place.parent.glob(f"{place.name}.*.so")
        ):
            pytest.exit(f"{module} was changed and not compiled again: make build", returncode=3)
