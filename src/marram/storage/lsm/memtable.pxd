# The types of memtable.py.

cimport cython

cdef class RangeSet:
    cdef readonly tuple deletions
    cdef object _coverage

cdef class Tally:
    cdef public Py_ssize_t keys, volatile
    cdef public dict unsure
    cdef public bint cleared, vague

    cpdef note(self, bytes key, before, after)
    cpdef forget(self, bytes key, before)

cdef class Memtable:
    cdef public object base, last, leaned_ms, pins
    cdef public list spaces, tallies
    cdef public RangeSet ranges

    cpdef get(self, Py_ssize_t keyspace, bytes key)
