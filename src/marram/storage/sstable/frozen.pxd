# The types of frozen.py. Counts are below 2**32.

cimport cython

from marram.coding.raw cimport address, bytes_at, object_at, order, size_at
from marram.storage.memory.sorting cimport sort_words

cdef Py_ssize_t _SLICE_ROWS, _FEW, _WORD
cdef int _DEPTH

@cython.final
cdef class FrozenMap:
    cdef dict _held
    cdef unsigned char[::1] _plain
    cdef readonly Py_ssize_t count, plain_count
    cdef unsigned long long[::1] keys, values
    cdef unsigned int[::1] places

    cpdef bytes key(self, Py_ssize_t row)
    @cython.locals(keys=list, held=list, row=Py_ssize_t, place="unsigned int", key=bytes)
    cpdef tuple columns(self, Py_ssize_t start, Py_ssize_t stop)
    @cython.locals(row=Py_ssize_t)
    cpdef Py_ssize_t plain_stop(self, Py_ssize_t start) except -1
    @cython.locals(
        keys="unsigned long long[::1]", values="unsigned long long[::1]",
        plain="unsigned char[::1]", places="unsigned int[::1]", at=Py_ssize_t, found=Py_ssize_t,
    )
    cdef _find(self, Py_ssize_t least_bytes, pause)
    @cython.locals(
        keys="unsigned long long[::1]", places="unsigned int[::1]", count=Py_ssize_t,
        words="unsigned long long[::1]", other_words="unsigned long long[::1]",
        other_places="unsigned int[::1]", starts="unsigned long long[::1]",
    )
    cdef _sort(self)

@cython.locals(skip=Py_ssize_t, at=Py_ssize_t, first=Py_ssize_t)
cdef void _sort(
    unsigned long long[::1] keys, unsigned int[::1] places, unsigned long long[::1] words,
    unsigned int[::1] other_places, unsigned long long[::1] other_words,
    unsigned long long[::1] starts, Py_ssize_t start, Py_ssize_t stop, int depth,
) noexcept nogil

@cython.locals(
    first="const unsigned char*", other="const unsigned char*", size=Py_ssize_t, same=Py_ssize_t,
    at=Py_ssize_t,
)
cdef Py_ssize_t _shared(
    unsigned long long[::1] keys, unsigned int[::1] places, Py_ssize_t start, Py_ssize_t stop,
) noexcept nogil

@cython.locals(
    key="const unsigned char*", size=Py_ssize_t, word="unsigned long long", at=Py_ssize_t,
)
cdef unsigned long long _word(unsigned long long place, Py_ssize_t skip) noexcept nogil

@cython.locals(count=Py_ssize_t, top=Py_ssize_t, last=Py_ssize_t, moved="unsigned int")
cdef void _heap_sort(
    unsigned long long[::1] keys, unsigned int[::1] places, Py_ssize_t start, Py_ssize_t stop,
) noexcept nogil

@cython.locals(moved="unsigned int", child=Py_ssize_t)
cdef void _sift(
    unsigned long long[::1] keys, unsigned int[::1] places, Py_ssize_t start, Py_ssize_t top,
    Py_ssize_t count,
) noexcept nogil

cdef int _order(unsigned long long left, unsigned long long right) noexcept nogil
