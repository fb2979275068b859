cdef class StoreClock:
    cdef object _monotonic_ns
    cdef long long _anchor_ms
    cdef long long _anchor_ns
    cdef readonly long long ahead_ms

    cpdef long long now_ms(self)
