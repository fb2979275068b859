# The types of engine.py.

cimport cython
from libc.stdint cimport int64_t

from marram.storage.lsm.memtable cimport Memtable, Tally
from marram.storage.lsm.tables cimport Tables
from marram.storage.lsm.version cimport Version
from marram.storage.memory.space cimport Space

cdef class Tree:
    cdef readonly Memtable active
    cdef readonly tuple frozen
    cdef readonly Version version

cdef class LsmEngine:
    cdef public object base, budget, compactor, count_asked, counting, course, directory, env
    cdef public object flushed_bytes, generation, next_table, now_ms, options, store_id
    cdef public list spaces
    cdef public Tables tables
    cdef public Tree tree
    cdef readonly object _edits  # tests look whether it is held
    cdef object _listed_spaces, _loaded, _manifest, _origin, _prepared
    cdef tuple _numbers

    @cython.locals(memtable=Memtable, tally=Tally)
    cpdef put(self, Py_ssize_t keyspace, bytes key, held, sequence)
    @cython.locals(
        memtable=Memtable, physical=Py_ssize_t, space=Space, tally=Tally, pinned=int64_t,
        at=Py_ssize_t, key=bytes,
    )
    cpdef put_many(self, Py_ssize_t keyspace, list keys, list values, int64_t sequence)
    cpdef behind(self, Tree tree, Py_ssize_t number, Py_ssize_t physical, bytes key,
                 bint with_value=*)
    @cython.locals(tree=Tree)
    cpdef snapshot(self, position)
    @cython.locals(memtable=Memtable, tally=Tally)
    cdef _set(self, Py_ssize_t physical, bytes key, held, sequence)
