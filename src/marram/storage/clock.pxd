cimport cython
from libc.stdint cimport int64_t

cdef class StoreClock:
    cdef long long _anchor_ms
    cdef long long _anchor_ns
    cdef object _monotonic_ns
    cdef public long long ahead_ms

    @cython.locals(elapsed_ns="long long")
    cpdef int64_t now_ms(self) except? -1
