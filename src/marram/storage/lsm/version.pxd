# The types of version.py.

cimport cython

from marram.coding.raw cimport order, view

cdef class Level:
    cdef list _bytes_before, _slots, _starts, _stops
    cdef readonly bint ordered
    cdef readonly tuple tables
    cdef readonly object covered_bytes, expirable_rows, range_deletions, rows, size_bytes, tombstones

    @cython.locals(at=Py_ssize_t)
    cpdef holding(self, bytes key)
    @cython.locals(at=Py_ssize_t)
    cpdef slots(self, bytes key)
    @cython.locals(at=Py_ssize_t, size=Py_ssize_t, found=list, start=bytes, stop=bytes)
    cdef list _slots_around(self, bytes key)

cdef class Version:
    cdef object __weakref__
    cdef readonly tuple levels, occupied
    cdef readonly object blobs
    cdef dict _level_of

@cython.locals(low=Py_ssize_t, high=Py_ssize_t, middle=Py_ssize_t, size=Py_ssize_t, found=bytes)
cdef Py_ssize_t _first_after(list keys, bytes key) except -1
