cdef class Committer:
    cdef readonly object queue
    cdef public object on_advance
    cdef object _store
    cdef object _loop
    cdef list _waiting
    cdef bint _armed
    cdef bint _writing
    cdef object _client
    cdef bint _client_changed
    cdef Py_ssize_t _alone
    cdef object _jobs
    cdef object _task

    cpdef note(self, client)
    cpdef wake(self)
    cpdef hold(self, waiter)
    cdef _arm(self)
    cdef _release(self)
    cdef _fail(self)


cdef class _Future:
    cdef readonly object waits_at
    cdef readonly object future
