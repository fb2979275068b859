"""One source, two ways to run: the list of leaves is whole, and the environment decides."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from marram import compiled

# Types, and what goes with them, that are inlined into leaves: its module serves the others.
INLINED = {"marram.coding.raw"}

SOURCE = Path(__file__).parents[2] / "src"

# How each leaf was loaded, by a process that only imports them.
_FILES = """
import importlib, json, sys
from marram import compiled
files = [importlib.import_module(name).__file__ for name in compiled.MODULES]
json.dump([compiled.state(), files], sys.stdout)
"""


def run(code: str, source: Path = SOURCE, **switches: str) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if k not in compiled.VARIABLES}
    environ |= {"PYTHONPATH": str(source), **switches}
    return subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False
    )


def loaded(source: Path = SOURCE, **switches: str) -> tuple[str, list[str]]:
    done = run(_FILES, source, **switches)
    assert done.returncode == 0, done.stderr
    state, files = json.loads(done.stdout)
    return state, files


def built() -> bool:
    return all(map(compiled.is_built, compiled.MODULES))


needs_a_build = pytest.mark.skipif(not built(), reason="the leaves were not compiled here")


def test_every_leaf_is_a_module() -> None:
    for module in compiled.MODULES:
        assert (SOURCE / module.replace(".", "/")).with_suffix(".py").exists(), module


def test_every_file_of_types_belongs_to_a_leaf() -> None:
    typed = {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in SOURCE.rglob("*.pxd")
    }
    assert typed <= {*compiled.MODULES} | INLINED


def test_only_leaves_ask_the_compiler() -> None:
    # Anywhere else the answer is always no: those ask compiled.state().
    asking = {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for path in SOURCE.rglob("*.py")
        if "cython.compiled" in path.read_text()
    }
    assert asking <= {*compiled.MODULES} | {"marram.interpreted"}


def test_the_list_is_sorted_and_has_no_twins() -> None:
    assert list(compiled.MODULES) == sorted(set(compiled.MODULES))


@needs_a_build
def test_what_was_compiled_is_used() -> None:
    state, files = loaded()
    assert state == "compiled"
    assert all(file.endswith(tuple(EXTENSION_SUFFIXES)) for file in files)


def test_marram_pure_runs_the_sources() -> None:
    state, files = loaded(MARRAM_PURE="1")
    assert state == "interpreted"
    assert all(file.endswith(".py") for file in files)


def test_a_switch_of_0_is_none() -> None:
    assert loaded(MARRAM_PURE="0")[0] == ("compiled" if built() else "interpreted")


def test_marram_require_compiled_accepts_nothing_less(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(SOURCE, plain, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    done = run("import marram", plain, MARRAM_REQUIRE_COMPILED="1")
    assert done.returncode == 1
    assert f"not built: {', '.join(compiled.MODULES)}" in done.stderr
    done = run("import marram", MARRAM_PURE="1", MARRAM_REQUIRE_COMPILED="1")
    assert "ImportError: MARRAM_REQUIRE_COMPILED: MARRAM_PURE is set" in done.stderr


@needs_a_build
def test_where_one_is_missing_none_is_used(tmp_path: Path) -> None:
    partly = tmp_path / "partly"
    shutil.copytree(SOURCE, partly, ignore=shutil.ignore_patterns("__pycache__"))
    missing = compiled.MODULES[-1].replace(".", "/")
    for path in partly.glob(f"{missing}.*.so"):
        path.unlink()
    state, files = loaded(partly)
    assert state == "interpreted"
    assert all(file.endswith(".py") for file in files)
    done = run("import marram", partly, MARRAM_REQUIRE_COMPILED="1")
    assert f"not built: {compiled.MODULES[-1]}" in done.stderr


def _declared(pxd: str) -> dict[str, set[str]]:
    """Class -> the names its `cdef class` declares, and those of the classes it derives from."""
    found: dict[str, set[str]] = {}
    name = ""
    for written in pxd.splitlines():
        line = written.partition("#")[0].rstrip()
        opened = re.match(r"cdef class (\w+)(?:\((\w+)\))?:", line)
        if opened:
            name = opened[1]
            found[name] = {f"<{opened[2]}>"} if opened[2] else set()
        elif line and not line.startswith((" ", "\t")):
            name = ""
        elif name and line.strip():
            found[name] |= set(re.findall(r"\w+", line))
    return found


def test_a_leaf_declares_every_attribute_it_sets() -> None:
    """The interpreter would not mind; the compiled class has no room for what is not declared."""
    classes: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.pxd"):
        classes |= _declared(path.read_text())
    for path in SOURCE.rglob("*.pxd"):
        mine = _declared(path.read_text())
        for node in ast.walk(ast.parse(path.with_suffix(".py").read_text())):
            if not isinstance(node, ast.ClassDef) or node.name not in mine:
                continue
            known = set(mine[node.name])
            bases = [name for name in known if name.startswith("<")]
            while bases:
                inherited = classes.get(bases.pop().strip("<>"), set())
                bases += [name for name in inherited if name.startswith("<")]
                known |= inherited
            known |= {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            for target in ast.walk(node):
                if (
                    isinstance(target, ast.Attribute)
                    and isinstance(target.ctx, ast.Store)
                    and isinstance(target.value, ast.Name)
                    and target.value.id == "self"
                ):
                    assert target.attr in known, f"{path.name}: {node.name}.{target.attr}"
