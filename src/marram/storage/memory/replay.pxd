# C types of replay.py.
cimport cython
from marram.coding.batch cimport decode, plain_put
from marram.coding.fields cimport chars
from marram.storage.log.reader cimport BatchSink
from marram.storage.memory.sorting cimport sort_keys

cdef Py_ssize_t _KEY
cdef Py_ssize_t _KEYSPACE
cdef Py_ssize_t _ONE_BY_ONE

@cython.final
cdef class SpaceReplay:
    cdef object _space
    cdef dict _map
    cdef list _added
    cdef bint _has_gone
    cdef Py_ssize_t _grown

    @cython.locals(held=dict, size=Py_ssize_t)
    cpdef put(self, bytes key, bytes value)
    cpdef store(self, bytes key, held)
    cpdef bint ensure(self, bytes key) except -1
    @cython.locals(keys=list, held=dict, count=Py_ssize_t, merged=list)
    cpdef settle(self)

cdef class MemoryReplay(BatchSink):
    cdef object _engine
    cdef list _spaces

    @cython.locals(value_at=Py_ssize_t, where=chars, space=SpaceReplay)
    cpdef take(self, bytes buffer, Py_ssize_t start, Py_ssize_t stop, long long sequence)
    @cython.locals(space=SpaceReplay)
    cdef _apply(self, tuple change, long long sequence)
