cimport cython
from libc.stdint cimport int64_t

from marram.storage.append cimport Appender
from marram.storage.arguments cimport check_key, check_value, to_bytes
from marram.storage.commit cimport CommitQueue
from marram.storage.memory.engine cimport MemoryEngine
from marram.storage.memory.space cimport Space


cdef class Points:
    cdef readonly object _store
    cdef Appender _appender
    cdef CommitQueue _commit
    cdef readonly Py_ssize_t _keyspace
    cdef readonly Py_ssize_t _max_key
    cdef readonly Py_ssize_t _max_value


@cython.locals(memory=MemoryEngine, space=Space)
cpdef newest(Appender appender, Py_ssize_t keyspace, bytes key)

@cython.locals(commit=CommitQueue, position=int64_t)
cpdef settled(object store, Py_ssize_t keyspace, bytes key, object held, int64_t committed)

cpdef live(object store, Py_ssize_t keyspace, bytes key)
