"""Huge pages for what the interpreter holds: a key among many is then found in less time.

Owns where CPython gets the arenas from that small objects lie in; not what lies in them, and not
the memory that C libraries take, nor large tables of dicts (the C library's malloc has them).

A look-up reads a hash table, a key and a value, each somewhere in memory. With pages of 4 KiB the
processor's table of pages covers a few MiB, so nearly every such read costs a walk through the
kernel's tables first, and on a virtual machine the host's as well: of a million keys of 16 + 100
bytes a dict look-up that reads the value takes 0.96 us, and 0.69 with pages of 2 MiB. Redis does
not want them, because it forks to write a snapshot, and would copy 2 MiB for each byte written
meanwhile. Nothing forks here.

N1  an arena that was there before goes on as it is, and is given back in the same way.
N2  where the kernel has no huge page at hand, or is told never to use any, pages are small, and
    nothing else differs.

Threading: the interpreter asks for arenas with its lock held.
"""

from __future__ import annotations

if False:  # seen by the compiler only
    import cython
else:
    from marram import interpreted as cython

if not cython.compiled:

    def replace_arenas() -> int:
        """Nothing: it takes C."""
        return 0


def use_huge_pages() -> bool:
    """Have the interpreter ask for huge pages from now on; whether it does.

    For a process that is a store's own: it is the whole process's memory that is so. False where
    this module is not compiled, and on other systems than Linux.
    """
    return bool(replace_arenas())
