# The types of engine.py.

cimport cython
from libc.stdint cimport int64_t

from marram.storage.lsm.memtable cimport Memtable, Tally
from marram.storage.lsm.space cimport LsmSpace
from marram.storage.lsm.tables cimport Tables
from marram.storage.lsm.version cimport Version
from marram.storage.memory.space cimport Space
from marram.storage.putting cimport TakesPuts

cdef class Tree:
    cdef readonly Memtable active
    cdef readonly tuple frozen
    cdef readonly Version version

cdef class LsmEngine(TakesPuts):
    cdef public object base, budget, compactor, count_asked, counting, course, directory, env
    cdef public object flushed_bytes, generation, next_table, now_ms, options, store_id
    cdef public list spaces
    cdef public Tables tables
    cdef public Tree tree
    cdef readonly object _edits  # tests look whether it is held
    cdef object _listed_spaces, _loaded, _manifest, _origin, _prepared
    cdef tuple _numbers

    @cython.locals(space=LsmSpace)
    cpdef put(self, Py_ssize_t keyspace, bytes key, object held, int64_t sequence)
    @cython.locals(
        memtable=Memtable, physical=Py_ssize_t, space=Space, tally=Tally, pinned=int64_t,
        at=Py_ssize_t, key=bytes,
    )
    cpdef put_many(self, Py_ssize_t keyspace, list keys, list values, int64_t sequence)
    cpdef behind(self, Tree tree, Py_ssize_t number, Py_ssize_t physical, bytes key,
                 bint with_value=*)
    @cython.locals(tree=Tree)
    cpdef snapshot(self, position)
    cdef _set(self, Py_ssize_t physical, bytes key, held, int64_t sequence)
    @cython.locals(memtable=Memtable, space=Space, tally=Tally)
    cdef _hold(self, Py_ssize_t physical, bytes key, held, int64_t sequence)
