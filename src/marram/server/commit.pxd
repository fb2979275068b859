cimport cython

from marram.storage.commit cimport CommitQueue


cdef class Waiter:
    cdef public long long waits_at

    cpdef release(self, long long committed)
    cpdef fail(self)
    cpdef give_up(self, long long first, long long last)


cdef class Committer:
    cdef readonly CommitQueue queue
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

    @cython.locals(committed="long long")
    cpdef hold(self, Waiter waiter)

    cdef _arm(self)

    @cython.locals(committed="long long", waiter=Waiter, waiting=list)
    cdef _release(self)

    @cython.locals(waiter=Waiter, waiting=list)
    cdef _fail(self)


cdef class _Future(Waiter):
    cdef Committer committer
    cdef readonly object future
