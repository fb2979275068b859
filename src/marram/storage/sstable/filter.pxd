# The types of filter.py.

cimport cython

from marram.storage.sstable.raw cimport u64, u64s

cdef unsigned long long _MULTIPLIER, _HASH_MASK

@cython.locals(number=u64)
cpdef probe_of(keyspace, bytes key)

cdef class Filter:
    cdef bytes _payload
    cdef const u64* _words
    cdef u64 _count
    cdef readonly list lines
    cdef readonly object memory_bytes

    @cython.locals(number=u64, at=Py_ssize_t, word=int)
    cpdef bint may_contain(self, probe) except -1

cdef class FilterBuilder:
    cdef object _checksums

@cython.locals(words="unsigned long long[::1]", hashed="const unsigned int[::1]", keys=Py_ssize_t,
               lines=u64, one=u64, number=u64, key=Py_ssize_t, at=Py_ssize_t, word=int)
cpdef bytes words_of(checksums, Py_ssize_t count)
