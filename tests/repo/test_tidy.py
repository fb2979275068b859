"""House rules that a reader relies on, as tests (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

FUNCTION_LINES_MAX = 70  # without its docstring
FILE_LINES_MAX = 800
BANNED_NAMES = {"utils", "util", "common", "helpers", "core", "manager", "base", "misc"}


def name_of(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_says_what_it_owns(path: pathlib.Path) -> None:
    text = path.read_text()
    docstring = ast.get_docstring(ast.parse(text)) or ""
    assert docstring, "no docstring"
    if text.count("\n") > 60:
        assert len(docstring.splitlines()) >= 3, "what it owns, its rules, its threading"
        assert "hreading" in docstring, "the header says nothing about threads"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_functions_and_files_stay_short(path: pathlib.Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= FILE_LINES_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            start = node.lineno
            if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                start += (body[0].end_lineno or 0) - body[0].lineno + 1
            lines = (node.end_lineno or 0) - start + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_room_without_a_meaning(path: pathlib.Path) -> None:
    assert path.stem not in BANNED_NAMES
    assert path.parent.name not in BANNED_NAMES


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=name_of)
def test_nothing_is_left_for_later_or_run_blindly(path: pathlib.Path) -> None:
    text = path.read_text()
    if path != pathlib.Path(__file__):
        assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError", text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec"), f"line {node.lineno}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
            )
            assert not {"pickle", "marshal", "shelve"} & set(modules) or path in TESTS


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_public_name_is_documented(path: pathlib.Path) -> None:
    missing = []

    def visit(body: list[ast.stmt], owner: str, documented_elsewhere: bool) -> None:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if node.name.startswith("_"):
                continue
            decorators = {getattr(d, "id", getattr(d, "attr", "")) for d in node.decorator_list}
            excused = documented_elsewhere or "overload" in decorators or "setter" in decorators
            if not ast.get_docstring(node) and not excused:
                missing.append(f"{owner}{node.name}")
            if isinstance(node, ast.ClassDef):
                # A class that implements an interface says nothing twice.
                visit(node.body, f"{node.name}.", _implements(node))

    visit(ast.parse(path.read_text()).body, "", False)
    assert not missing


def _implements(node: ast.ClassDef) -> bool:
    text = (ast.get_docstring(node) or "").lower()
    return bool(node.bases) or "env.api" in text or node.name.endswith(("Env", "File"))


def test_importing_marram_loads_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import marram; marram.open; "
        "print('\\n'.join(set(sys.modules) - before))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in out.stdout.split()}
    assert not loaded & {"asyncio", "socket", "ssl", "http", "selectors", "multiprocessing"}
    foreign = {n for n in loaded if n not in sys.stdlib_module_names and n != "marram"}
    # A compiled leaf brings two modules that are Cython's book-keeping and have no file.
    foreign = {n for n in foreign if n != "cython_runtime" and not n.startswith("_cython_")}
    assert foreign <= {"isal"}, f"third-party modules: {foreign}"


def test_nothing_names_a_registry_host_or_a_machine_path() -> None:
    hosts = re.compile(
        "py" + r"pi\.org|files\.python" + r"hosted|regis" + r"try\.npmjs|/wo" + "rk/"
    )
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    for name in tracked:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".txt", ".yml", "") and path.is_file():
            assert not hosts.search(path.read_text(errors="replace")), name
