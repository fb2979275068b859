# C types of frames.py.
cimport cython
from marram.coding.batch cimport batch_end, decode, plain_put
from marram.coding.fields cimport chars

cdef Py_ssize_t _KEY
cdef Py_ssize_t _KEYSPACE

@cython.final
cdef class Puts:
    cdef readonly Py_ssize_t keyspace
    cdef readonly list keys
    cdef readonly list values

    cdef bint add(self, list changes) except -1

@cython.locals(
    count=cython.longlong, payload=bytes, where=chars, puts=Puts, size=Py_ssize_t, at=Py_ssize_t,
    end=Py_ssize_t, value_at=Py_ssize_t, _=cython.longlong,
)
cpdef Puts puts_of(object frame)

@cython.locals(changes=list, at=Py_ssize_t, end=Py_ssize_t, payload=bytes)
cpdef list changes_of(object frame)

cdef tuple _checked(object frame)
