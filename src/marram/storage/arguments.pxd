cimport cython

@cython.locals(usable=bytes)
cpdef bytes check_key(object key, Py_ssize_t max_bytes)

@cython.locals(usable=bytes)
cpdef bytes check_value(object value, Py_ssize_t max_bytes)

cpdef bytes to_bytes(object given, str what)
