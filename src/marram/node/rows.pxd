cdef class Row:
    cdef readonly object command
    cdef readonly str name
    cdef public object run
    cdef readonly bint control
    cdef readonly Py_ssize_t least
    cdef readonly Py_ssize_t most
    cdef readonly bint writes
    cdef readonly bint may_write
    cdef readonly bint no_auth
    cdef readonly bint no_multi
    cdef readonly bint run_in_multi
    cdef readonly bint subscriber_mode
    cdef readonly bint shown
    cdef readonly bint slow_logged
    cdef readonly bint lookup
    cdef readonly bint fast
    cdef readonly bint timed
    cdef readonly bint has_keys
    cdef readonly bint measured_to_end
    cdef readonly dict subs
    cdef readonly bint reveals
    cdef readonly bint may_be_plain
    cdef public bint plain
    cdef public long long calls
    cdef public long long misses
    cdef public long long more_lookups
    cdef public long long rejected
    cdef public long long failed
    cdef public long long timed_calls
    cdef public long long usec
    cdef public list histogram_us

    cpdef record(self, long long elapsed_us)
