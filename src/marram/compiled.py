"""The compiled leaves: which modules they are, and whether they run compiled.

The modules in MODULES are hot. Each is plain Python that Cython also compiles (setup.py), with the
types of its inner loops in a .pxd file beside it, which the interpreter never sees: one source,
equal behaviour, tested both ways. They know each other's C types, so all of them run compiled or
none: where no compiler was at hand, or one could not be built, they run interpreted.

Importing this module obeys the environment:

    MARRAM_PURE=1               run them interpreted, also where compiled ones are there
    MARRAM_REQUIRE_COMPILED=1   ImportError where one of them is not compiled

Owns that choice and the list, which setup.py reads; not what any of the modules does.

Threading: constants; the choice is made once, before any of the modules is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Final

MODULES: Final = (
    "marram.coding.batch",
    "marram.coding.checksum",
    "marram.coding.fields",
    "marram.commands.counters",
    "marram.commands.spec",
    "marram.commands.strings",
    "marram.commands.values",
    "marram.env.arenas",
    "marram.env.ticks",
    "marram.node.node",
    "marram.node.rows",
    "marram.node.session",
    "marram.protocol.replies",
    "marram.protocol.resp",
    "marram.server.commit",
    "marram.server.connection",
    "marram.server.frames",
    "marram.server.resp",
    "marram.storage.append",
    "marram.storage.arguments",
    "marram.storage.clock",
    "marram.storage.commit",
    "marram.storage.db",
    "marram.storage.entry",
    "marram.storage.frames",
    "marram.storage.log.format",
    "marram.storage.log.reader",
    "marram.storage.log.tail",
    "marram.storage.log.writer",
    "marram.storage.lsm.cache",
    "marram.storage.lsm.chain",
    "marram.storage.lsm.engine",
    "marram.storage.lsm.memtable",
    "marram.storage.lsm.merge",
    "marram.storage.lsm.overlay",
    "marram.storage.lsm.pin",
    "marram.storage.lsm.replay",
    "marram.storage.lsm.space",
    "marram.storage.lsm.tables",
    "marram.storage.lsm.version",
    "marram.storage.lsm.window",
    "marram.storage.memory.engine",
    "marram.storage.memory.order",
    "marram.storage.memory.pins",
    "marram.storage.memory.replay",
    "marram.storage.memory.sorting",
    "marram.storage.memory.space",
    "marram.storage.points",
    "marram.storage.putting",
    "marram.storage.snapshot",
    "marram.storage.sstable.block",
    "marram.storage.sstable.filter",
    "marram.storage.sstable.format",
    "marram.storage.sstable.frozen",
    "marram.storage.sstable.packing",
    "marram.storage.sstable.reader",
    "marram.storage.sstable.writer",
    "marram.storage.store",
    "marram.storage.view",
)
"""Every compiled leaf by its name."""

VARIABLES: Final = ("MARRAM_PURE", "MARRAM_REQUIRE_COMPILED")
"""What this module reads of the environment."""

_PACKAGE: Final = os.path.dirname(__file__)


def _path(module: str) -> str:
    """Where a module's file is, without its ending."""
    return os.path.join(_PACKAGE, *module.split(".")[1:])


def is_built(module: str) -> bool:
    """Whether a compiled form of the module is there."""
    return any(os.path.exists(_path(module) + suffix) for suffix in EXTENSION_SUFFIXES)


def state() -> str:
    """How the leaves run: "compiled" or "interpreted"."""
    return "compiled" if _runs_compiled else "interpreted"


class _SourceFinder:
    """Finds the .py of a leaf where the import system would prefer the compiled form."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What sys.meta_path asks for."""
        if name not in MODULES:
            return None
        source = _path(name) + ".py"
        spec = ModuleSpec(name, SourceFileLoader(name, source), origin=source)
        spec.has_location = True
        return spec


def _switch(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def _choose() -> bool:
    """Whether they run compiled; sees to it that none does where not all can."""
    missing = [module for module in MODULES if not is_built(module)]
    pure = _switch("MARRAM_PURE")
    if _switch("MARRAM_REQUIRE_COMPILED") and (pure or missing):
        why = "MARRAM_PURE is set" if pure else f"not built: {', '.join(missing)}"
        raise ImportError(f"MARRAM_REQUIRE_COMPILED: {why}")
    if pure or missing:
        sys.meta_path.insert(0, _SourceFinder)
        return False
    return True


_runs_compiled: Final = _choose()
