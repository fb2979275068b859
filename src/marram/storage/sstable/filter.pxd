# The types of filter.py.

cimport cython

from marram.coding.raw cimport u32, u32s, u64, u64s, view

cdef u64 _MULTIPLIER, _HASH_MASK
cdef bytes _STEPS
cdef const u32* _STEP
cdef u32 _ONES
cdef Py_ssize_t _FEW_BYTES

@cython.locals(checksum=u32, at=Py_ssize_t)
cdef u32 _checksum(u32 keyspace, bytes key) except? 0

@cython.locals(number=u64)
cpdef probe_of(u32 keyspace, bytes key)

cdef class Filter:
    cdef bytes _payload
    cdef const u64* _words
    cdef u64 _count
    cdef readonly list lines
    cdef readonly object memory_bytes

    @cython.locals(number=u64, at=Py_ssize_t, word=int)
    cpdef bint may_contain(self, probe) except -1

@cython.locals(found="unsigned int[::1]", at=Py_ssize_t)
cdef _checksums(u32 keyspace, keys)

cdef class FilterBuilder:
    cdef object _checksums

@cython.locals(words="unsigned long long[::1]", hashed="const unsigned int[::1]", keys=Py_ssize_t,
               lines=u64, one=u64, number=u64, key=Py_ssize_t, at=Py_ssize_t, word=int)
cpdef bytes words_of(checksums, Py_ssize_t count)
