from libc.stdint cimport int64_t


cdef class TakesPuts:
    cpdef put(self, Py_ssize_t keyspace, bytes key, object held, int64_t sequence)
