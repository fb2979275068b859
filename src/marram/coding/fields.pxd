# C types of fields.py.
cimport cython

ctypedef const unsigned char* chars

@cython.locals(where=chars, number=cython.uint)
cpdef unsigned int u32(bytes data, Py_ssize_t at) except? 1

@cython.locals(number=cython.ulonglong)
cpdef unsigned long long u64(bytes data, Py_ssize_t at) except? 1
