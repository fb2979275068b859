cimport cython
from libc.stdint cimport int64_t

from marram.env.ticks cimport boot_ns

cdef long long _MS_NS
cdef object _BOOT_NS

cpdef int64_t ask(object monotonic_ns) except? -1


cdef class StoreClock:
    cdef object _env
    cdef tuple _anchor
    cdef public long long ahead_ms

    @cython.locals(anchor_ms="long long", anchor_ns="long long", now_ns="long long")
    cpdef int64_t now_ms(self) except? -1
