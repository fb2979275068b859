from cpython.exc cimport PyErr_SetFromErrno
from libc.stdint cimport int64_t
from posix.time cimport clock_gettime, timespec

cdef int _BOOT_CLOCK

cdef inline int64_t clock_gettime_ns(int clock) except -1:
    cdef timespec now
    if clock_gettime(clock, &now):
        PyErr_SetFromErrno(OSError)
        return -1
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec

cpdef int64_t boot_ns() except -1
