cdef class View:
    cdef object _engine
    cdef object _settling
    cdef public Py_ssize_t keyspace
    cdef public long long now_ms
    cdef public long long reads_at
    cdef public list expired

    cpdef begin(self, long long now_ms)
    cpdef string(self, key)
    cpdef stored(self, key)
    cpdef entry(self, key)
    cpdef bint exists(self, key)
    cpdef View at(self, Py_ssize_t keyspace)
    cdef _note(self, key)
    cdef _note_all(self)


cdef class _Sibling(View):
    cdef View _origin
