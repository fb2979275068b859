cimport cython
from libc.stdint cimport int64_t

from marram.storage.memory.pins cimport Pins
from marram.storage.memory.space cimport Space
from marram.storage.putting cimport TakesPuts


cdef class MemoryEngine(TakesPuts):
    cdef public list spaces
    cdef public int64_t pinned
    cdef readonly Pins _pins
    cdef int64_t _limit_bytes

    @cython.locals(space=Space)
    cpdef put(self, Py_ssize_t keyspace, bytes key, object held, int64_t sequence)

    @cython.locals(space=Space, pinned=int64_t, at=Py_ssize_t)
    cpdef put_many(self, Py_ssize_t keyspace, list keys, list values, int64_t sequence)

    @cython.locals(space=Space, pinned=int64_t, undo=list)
    cpdef apply(self, object changes, int64_t sequence)

    @cython.locals(space=Space)
    cdef _delete_range(
        self, Py_ssize_t keyspace, bytes start, bytes stop, int64_t sequence, list undo
    )


@cython.final
cdef class Snapshot:
    cdef readonly Pins pins
    cdef public int64_t position
    cdef public tuple spaces
