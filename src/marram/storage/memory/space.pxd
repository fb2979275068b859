cimport cython
from libc.stdint cimport int64_t

from marram.storage.memory.order cimport KeyOrder


@cython.final
cdef class Space:
    cdef public dict map
    cdef public KeyOrder order
    cdef public dict history
    cdef public set ghosts
    cdef public int64_t data_bytes
    cdef public Py_ssize_t volatile
    cdef int64_t _birth_at
    cdef tuple _birth
    cdef dict _buckets
    cdef list _bucket_heap

    cpdef get(self, object key)

    @cython.locals(found=list, kept=list)
    cpdef list keys(self, bytes start, bytes stop, Py_ssize_t limit, bint reverse)

    @cython.locals(held=dict)
    cpdef list rows(self, bytes start, bytes stop, Py_ssize_t limit, bint reverse)

    @cython.locals(link=tuple)
    cpdef get_at(self, object key, int64_t position)

    @cython.locals(rows=list, row=tuple, onward=bytes, size=Py_ssize_t)
    cpdef tuple rows_at(
        self, bytes start, bytes stop, Py_ssize_t limit, int64_t position, object now_ms, bint reverse
    )

    @cython.locals(keys=list, rows=list, key=bytes)
    cdef tuple _rows_then(
        self, bytes start, bytes stop, Py_ssize_t limit, int64_t position, object now_ms, bint reverse
    )

    @cython.locals(held=dict, key=bytes, value=bytes, at=Py_ssize_t, total=int64_t)
    cdef _load_plain(self, list keys, list values)

    cpdef put(self, bytes key, object held, int64_t sequence, int64_t pinned)

    cpdef delete(self, bytes key, int64_t sequence, int64_t pinned)

    cpdef expire(self, bytes key, object deadline_ms, int64_t sequence, int64_t pinned)

    cpdef patch(self, bytes key, object offset, bytes data, int64_t sequence, int64_t pinned)

    @cython.locals(link=tuple)
    cdef _remember(self, bytes key, object before, int64_t sequence, int64_t pinned)

    cdef _account(self, bytes key, object entry)

    cdef _forget(self, bytes key, object entry)
