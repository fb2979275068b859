cimport cython
from libc.stdint cimport int64_t

from marram.coding.batch cimport encode_put
from marram.storage.commit cimport CommitQueue, Group
from marram.storage.frames cimport Puts, puts_of
from marram.storage.putting cimport TakesPuts


@cython.final
cdef class Appender:
    cdef public object engine
    cdef public CommitQueue commit
    cdef public object lock
    cdef public object closed
    cdef public bint holds_back
    cdef readonly str read_only
    cdef public object stalls
    cdef object _env
    cdef object _memory_limit
    cdef object _generations
    cdef bint _limited
    cdef bint _pressed
    cdef object _dropped
    cdef object _acquire
    cdef object _release

    cpdef check_open(self)

    cpdef int64_t append(self, object changes) except -1

    @cython.locals(batch=bytes, group=Group)
    cpdef int64_t append_locked(self, object changes) except -1

    cpdef int64_t append_put(self, Py_ssize_t keyspace, bytes key, bytes value) except -1

    cpdef int64_t put(self, Py_ssize_t keyspace, bytes key, bytes value) except -1

    @cython.locals(commit=CommitQueue, batch=bytes, group=Group)
    cdef int64_t _put(self, Py_ssize_t keyspace, bytes key, bytes value, bint at_once) except -1

    @cython.locals(taker=TakesPuts)
    cdef _apply_put(self, Py_ssize_t keyspace, bytes key, object held, int64_t sequence)

    @cython.locals(change=tuple)
    cdef _apply(self, object changes, int64_t sequence)

    @cython.locals(puts=Puts, commit=CommitQueue)
    cpdef int64_t append_frame(self, object frame) except -1

    @cython.locals(commit=CommitQueue, group=Group)
    cdef int64_t _enter_frame(self, object frame, Puts puts, list changes) except -1

    cpdef check_writable(self, object changes)

    cpdef reserve(self, Py_ssize_t size_bytes)

    cpdef release_dropped(self)

