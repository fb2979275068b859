cimport cython

from marram.storage.commit cimport CommitQueue
from marram.storage.memory.engine cimport MemoryEngine
from marram.storage.memory.space cimport Space


cdef class View:
    cdef object _engine
    cdef object _settling
    cdef CommitQueue _commit
    cdef MemoryEngine _memory
    cdef public Py_ssize_t keyspace
    cdef public long long now_ms
    cdef public long long reads_at
    cdef public list expired

    cpdef begin(self, long long now_ms)
    cdef bint _is_unsettled(self) except -1
    @cython.locals(space=Space)
    cdef _held(self, bytes key)
    cpdef string(self, key)
    cpdef stored(self, key)
    cpdef entry(self, key)
    cpdef bint exists(self, key)
    cpdef View at(self, Py_ssize_t keyspace)
    cdef _note(self, key)
    cdef _note_all(self)


cdef class _Sibling(View):
    cdef View _origin
