"""The entry point `marram`.

Owns what must work before anything else does: without the extras it says which one to install.

Threading: the main thread.
"""

from __future__ import annotations

import io
import sys

# What the extras bring, by the name that an import fails with.
_EXTRAS = {
    "click": "cli",
    "prompt_toolkit": "cli",
    "rich": "cli",
    "starlette": "server",
    "uvicorn": "server",
    "prometheus_client": "server",
    "matplotlib": "bench",
}


def main() -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A key that the locale cannot write is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    try:
        from marram.cli.app import run
    except ModuleNotFoundError as error:
        sys.exit(_missing(error))
    try:
        code = run(sys.argv[1:])
    except ModuleNotFoundError as error:
        code = _missing(error)
    sys.exit(code)


def _missing(error: ModuleNotFoundError) -> int:
    """Say what to install. Raises the error again where it is not about an extra."""
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRAS:
        raise error
    extra = _EXTRAS[package]
    print(f'Error: {package} is not installed: pip install "marram[{extra}]"', file=sys.stderr)
    return 1


if __name__ == "__main__":
    main()
