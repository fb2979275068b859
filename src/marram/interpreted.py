"""What a leaf that runs interpreted sees in place of `cython`, the compiler's own module.

A few places cannot be fast both ways in one form: compiled code reads bytes in place, interpreted
code has them cut and compared by calls that are C already. Such a leaf begins with

    if False:  # seen by the compiler only
        import cython
    else:
        from marram import interpreted as cython

and then asks `cython.compiled`, which the compiler answers while it compiles: of an `if` it keeps
one branch. Both branches do the same, and the leaf's tests run both ways.

Threading: constants.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Final

compiled: Final = False
"""Whether the code that asks was compiled."""

nogil: Final = nullcontext()
"""Compiled, the block under it runs without the interpreter's lock."""
