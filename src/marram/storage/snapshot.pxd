cimport cython

@cython.locals(row=tuple)
cdef list _strings(list rows)
