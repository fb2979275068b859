# The types of pin.py.

from marram.storage.lsm.memtable cimport Memtable, RangeSet
from marram.storage.lsm.tables cimport Tables
from marram.storage.lsm.version cimport Version

cdef class LsmPin:
    cdef readonly tuple _frozen  # tests look whether it was let go
    cdef RangeSet _ranges
    cdef Tables _tables
    cdef Version _version
    cdef readonly Memtable memtable
    cdef readonly tuple numbers, spaces
    cdef readonly object position, course

    cpdef let_go(self)
    cpdef get(self, Py_ssize_t keyspace, bytes key)
    cdef _behind(self, Py_ssize_t physical, bytes key)
