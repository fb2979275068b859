# The types of space.py.

cimport cython

from marram.storage.lsm.engine cimport LsmEngine, Tree
from marram.storage.lsm.memtable cimport Memtable, RangeSet

cdef class LsmSpace:
    cdef LsmEngine _engine
    cdef readonly Py_ssize_t number

    @cython.locals(engine=LsmEngine, tree=Tree, active=Memtable)
    cpdef get(self, bytes key)
    @cython.locals(engine=LsmEngine, tree=Tree, active=Memtable)
    cpdef list get_many(self, keys)
