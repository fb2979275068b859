"""A store's directory before it is opened: there or to be made, and never somebody else's.

Owns making it, durably with its name; not what is in it (recovery.py).

Threading: callers race at most to make the same directory, which is fine.
"""

from __future__ import annotations

from marram.env.api import Env
from marram.errors import NotAStore
from marram.storage import recovery
from marram.storage.options import Options


def prepare_directory(env: Env, directory: str, options: Options) -> None:
    """Make the directory where it is missing and that is wanted; leave a foreign one untouched.

    Raises NotAStore, OSError.
    """
    if not env.exists(directory):
        if not options.create:
            raise NotAStore(f"{directory} does not exist")
        _make_directory(env, directory)
        return
    try:
        holds_store = recovery.is_store(env, directory)  # before LOCK is made in it
    except NotADirectoryError:
        raise NotAStore(f"{directory} is not a directory") from None
    if not holds_store and not options.create:
        raise NotAStore(f"{directory} holds no store")


def _make_directory(env: Env, directory: str) -> None:
    """Make the directory and its name durable, missing parents included."""
    missing = []
    path = directory
    while path and not env.exists(path):
        missing.append(path)
        path = path.rpartition("/")[0]
    env.make_dir(directory)
    for made in reversed(missing):
        env.sync_dir(made.rpartition("/")[0] or "/")
