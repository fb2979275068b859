# The types of memtable.py.

cimport cython

from marram.storage.memory.pins cimport Pins

cdef class RangeSet:
    cdef readonly tuple deletions
    cdef object _coverage

cdef class Tally:
    cdef public Py_ssize_t keys, volatile
    cdef dict _map
    cdef set _sure
    cdef public bint cleared, vague

    @cython.locals(found=list, missing=Py_ssize_t)
    cpdef list unsure(self)
    cpdef bint is_unsure(self, bytes key) except -1
    cpdef make_sure(self, bytes key)
    cpdef note(self, bytes key, before, after)
    cpdef forget(self, bytes key, before)

cdef class Memtable:
    cdef public object base, last, leaned_ms
    cdef readonly Pins pins
    cdef public list spaces, tallies
    cdef public RangeSet ranges

    cpdef get(self, Py_ssize_t keyspace, bytes key)
