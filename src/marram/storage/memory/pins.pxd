cimport cython
from libc.stdint cimport int64_t


@cython.final
cdef class Pins:
    cdef public int64_t newest
    cdef list _positions
    cdef Py_ssize_t _trimmed_size
