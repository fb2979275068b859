# The types of format.py.

cimport cython

from marram.coding.raw cimport first_of, u32, u32s

cdef Py_ssize_t _CHECKSUM_SIZE
cdef int _NONE, _ZLIB, _ZSTD

@cython.locals(size=Py_ssize_t, body_end=Py_ssize_t, head="const unsigned char*", checksum=u32,
               found=int, compression=int, stored_size=Py_ssize_t, raw_size=Py_ssize_t)
cpdef unseal_block(data, kind, unsigned int seed)
