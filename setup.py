"""Build the compiled leaves: the modules listed in src/marram/compiled.py, where that is possible.

Everything else about the package is in pyproject.toml. Environment:

    MARRAM_PURE=1               build none of them
    MARRAM_REQUIRE_COMPILED=1   fail where one cannot be built; without it the package goes on in
                                plain Python, which is slower and the same in all else

In a checkout, `python setup.py build_ext --inplace` builds what has changed (`make build`).
"""

import ast
import os
import sys
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


def _leaves() -> list[str]:
    """The module names in compiled.py, which is read and not run."""
    for node in ast.parse(Path("src/marram/compiled.py").read_text()).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "MODULES":
            assert node.value is not None
            return list(ast.literal_eval(node.value))
    raise SystemExit("src/marram/compiled.py lists no MODULES")


_DIRECTIVES = {
    "language_level": 3,
    # What is written for mypy is no promise to C: bytes may be a memoryview, int may be a bool.
    "annotation_typing": False,
}


def _switch(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def _extensions() -> list[Extension]:
    if _switch("MARRAM_PURE"):
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        if _switch("MARRAM_REQUIRE_COMPILED"):
            raise
        print("marram: Cython is missing, going on in plain Python", file=sys.stderr)
        return []
    leaves = [
        Extension(
            module,
            [f"src/{module.replace('.', '/')}.py"],
            extra_compile_args=["-O2", "-g0", "-w"],  # -w: nobody reads what C thinks of Cython
            optional=not _switch("MARRAM_REQUIRE_COMPILED"),
        )
        for module in _leaves()
    ]
    extensions: list[Extension] = cythonize(
        leaves,
        build_dir="build/cython",
        compiler_directives=_DIRECTIVES,
        nthreads=os.cpu_count() or 1,
        quiet=True,
    )
    return extensions


class _Build(build_ext):
    """build_ext, on all processors."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = os.cpu_count() or 1

    def run(self) -> Any:
        if self.extensions:
            super().run()


if __name__ == "__main__":
    setup(ext_modules=_extensions(), cmdclass={"build_ext": _Build})
