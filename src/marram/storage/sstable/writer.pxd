# The types of writer.py.

cimport cython

from marram.coding.raw cimport order, view

cdef Py_ssize_t ENDS_SIZE

cdef class _Pending:
    cdef list _deadlines, _types
    cdef readonly list keys, sequences, sizes, values
    cdef public object keyspace
    cdef readonly Py_ssize_t bytes

@cython.locals(key_bytes=Py_ssize_t, value_bytes=Py_ssize_t, largest=Py_ssize_t, sizes=list,
               at=Py_ssize_t, key_size=Py_ssize_t, value_size=Py_ssize_t, size=Py_ssize_t,
               key=bytes, value=bytes)
cdef tuple _sizes_of(list keys, list values)

@cython.locals(last=bytes, key=bytes, at=Py_ssize_t)
cpdef bint ascend(list keys) except -1
