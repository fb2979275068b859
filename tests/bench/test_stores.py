"""Embedded stores behind one face: each that is installed does the whole work right."""

from __future__ import annotations

from pathlib import Path

import pytest

from marram.bench import stores
from marram.bench.compare_embedded import PHASES, Plan, Work, WrongAnswer, compare, run
from marram.bench.stores import MIB, OTHERS, Dict, make_stores
from marram.errors import InvalidArgument

TINY = Plan(keys=200, rounds=2, reads=150, cold_reads=20, seeks=5, sync_puts=16)
NAMES = ["marram-memory", "marram-lsm", *(kind.name for kind in OTHERS)]


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Background work is short after so few rows, and the garbage is pytest's."""
    monkeypatch.setattr("marram.bench.machine.SETTLED_S", 0.05)
    monkeypatch.setattr("gc.collect", lambda: 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_store_answers_right_in_every_phase(tmp_path: Path, name):
    installed = {store.name for store in make_stores(64 * MIB, [])[0]}
    if name not in installed:
        pytest.skip(f"{name} is not installed")
    (store,), _ = make_stores(64 * MIB, [name])
    found = run(store, Work(TINY), str(tmp_path), print)
    expected = set(PHASES)
    if not store.persistent:
        expected -= {"settle", "size", "open", "readcold", "sync1", "sync16"}
    if not store.seeks:
        expected -= {"seek100"}
    assert set(found) == expected
    assert all(figure >= 0 for figure in found.values())
    assert found["fillrandom"] > 0


@pytest.mark.parametrize(
    ("method", "answer"),
    [("get_all", lambda self, keys: [b"wrong" for _ in keys]), ("rows", lambda self: iter(()))],
)
def test_e2_a_store_that_answers_wrong_is_no_result(tmp_path, monkeypatch, method, answer):
    monkeypatch.setattr(Dict, method, answer)
    with pytest.raises(WrongAnswer, match="dict: "):
        run(Dict(64 * MIB), Work(TINY), str(tmp_path), print)


def test_e1_rounds_alternate_and_ratios_are_theirs(tmp_path):
    said: list[str] = []
    chosen, _ = make_stores(64 * MIB, ["marram-memory", "sqlite3", "dict"])
    plan = Plan(keys=200, rounds=2, directory=str(tmp_path), reads=50, cold_reads=5, seeks=2,
                sync_puts=16)  # fmt: skip
    result = compare(plan, chosen, "marram bench embedded", said.append)
    turns = [line.split(": ")[1].split(",")[0] for line in said if line.startswith("round")]
    assert turns == ["marram-memory", "sqlite3", "dict"] * 2
    assert [set(one) for one in result["rounds"]] == [set(turns)] * 2
    found = result["ratios"]["marram-memory / sqlite3"]["readrandom"]
    ratios = [
        one["marram-memory"]["readrandom"] / one["sqlite3"]["readrandom"]
        for one in result["rounds"]
    ]
    assert (found["min"], found["max"]) == (min(ratios), max(ratios))
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_missing_is_left_out_with_a_note(monkeypatch):
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(stores.importlib, "import_module", missing)
    made, notes = make_stores(64 * MIB, [])
    assert [store.name for store in made] == ["marram-memory", "marram-lsm", "sqlite3", "dict"]
    assert notes[0] == "left out: rocksdict is not installed (pip install rocksdict)"
    assert len(notes) == 4
    with pytest.raises(InvalidArgument, match="lmdb is not installed"):
        make_stores(64 * MIB, ["lmdb"])


def test_a_store_that_nobody_knows_is_refused():
    with pytest.raises(InvalidArgument, match="no store is called 'oracle'"):
        make_stores(64 * MIB, ["oracle"])


@pytest.mark.parametrize("values", [{"keys": 99}, {"rounds": 0}, {"sync_puts": 15}, {"reads": 0}])
def test_what_is_no_plan_is_refused(values):
    with pytest.raises(InvalidArgument):
        Plan(**values)
