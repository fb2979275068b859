"""The operating system behind one door: files, locks, clocks, randomness, background threads.

    api.py      the protocols, and what every implementation promises (E1-E4)
    posix.py    the machine
    memory.py   a simulated disk whose power can fail (tests, simulations)
    faulty.py   any env, with errors on chosen calls (tests)

Only the protocols and the machine are loaded here; import the other two by module.
"""

from __future__ import annotations

from marram.env.api import Env, File, FileLock, Task
from marram.env.posix import PosixEnv, posix_env

__all__ = ["Env", "File", "FileLock", "PosixEnv", "Task", "posix_env"]
