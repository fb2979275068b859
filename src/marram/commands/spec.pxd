cimport cython

cdef bint _COMPILED
cdef Py_ssize_t _DIGITS_SHORT
cdef long long _NO_INTEGER

@cython.locals(size=Py_ssize_t, at=Py_ssize_t, number="long long", is_negative=bint)
cpdef long long short_integer(bytes text) except? -1

cpdef integer(bytes text, str error=*)


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
