# C types of replay.py.
cimport cython
from marram.coding.batch cimport decode, plain_put
from marram.coding.fields cimport chars
from marram.storage.log.reader cimport BatchSink
from marram.storage.lsm.memtable cimport Tally
from marram.storage.memory.replay cimport SpaceReplay

cdef Py_ssize_t _KEY
cdef Py_ssize_t _KEYSPACE

cdef class LsmReplay(BatchSink):
    cdef object _engine
    cdef list _numbers
    cdef list _spaces
    cdef list _tallies

    @cython.locals(value_at=Py_ssize_t, where=chars, physical=Py_ssize_t)
    cpdef take(self, bytes buffer, Py_ssize_t start, Py_ssize_t stop, long long sequence)
    @cython.locals(space=SpaceReplay, tally=Tally)
    cdef _set(self, Py_ssize_t physical, bytes key, held)
    cdef _apply(self, tuple change, long long sequence)
