cimport cython

cdef class StoreClock:
    cdef object _env
    cdef tuple _anchor
    cdef readonly long long ahead_ms

    @cython.locals(anchor=tuple, anchor_ms="long long", anchor_ns="long long")
    cpdef long long now_ms(self)
