cimport cython


@cython.freelist(64)
cdef class Outcome:
    cdef readonly object reply
    cdef readonly list changes


@cython.freelist(64)
cdef class Put:
    cdef readonly object reply
    cdef readonly Py_ssize_t keyspace
    cdef readonly bytes key
    cdef readonly bytes value
