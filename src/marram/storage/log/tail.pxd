# C types of tail.py. Offsets and sizes of files are below 2**63.
cimport cython
from marram.coding.checksum cimport number_seed, place_start, reseeded


cdef class LogScan:
    cdef public object file
    cdef readonly long long offset
    cdef readonly long long sequence
    cdef readonly unsigned long long epoch
    cdef readonly unsigned int chain
    cdef unsigned int _place
    cdef bytes _window
    cdef long long _window_at

    @cython.locals(
        seed="unsigned int", checksum="unsigned int", size="long long", count="long long",
        payload=bytes,
    )
    cpdef next(self, long long limit, object room=*, long long ahead=*)

    @cython.locals(left="long long", data=bytes, at="long long")
    cdef _header(self, long long limit, long long ahead, unsigned int seed)

    @cython.locals(data=bytes, at="long long", payload=bytes)
    cdef bytes _payload(self, long long size, unsigned int seed, unsigned int checksum)

    cdef _check(self, object kind, object first, bytes payload)

    @cython.locals(at="long long")
    cdef tuple _bytes(self, long long offset, long long size, long long ahead)

    cdef _damaged(self, str message)
