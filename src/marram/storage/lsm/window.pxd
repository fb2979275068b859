# The types of window.py.

cdef class Window:
    cdef readonly Py_ssize_t keyspace
    cdef readonly list keys, values
    cdef readonly object deadlines, types, sequences
    cdef list _rows
