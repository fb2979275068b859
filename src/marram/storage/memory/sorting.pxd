# C types of sorting.py. Counts are below 2**32.
cimport cython
from marram.coding.fields cimport chars

cdef bint _COMPILED
cdef Py_ssize_t _FEW
cdef Py_ssize_t _WORD
cdef Py_ssize_t _STARTS

@cython.locals(
    count=Py_ssize_t, skip=Py_ssize_t, at=Py_ssize_t, words="unsigned long long[::1]",
    places="unsigned int[::1]", place=Py_ssize_t, other_words="unsigned long long[::1]",
    other_places="unsigned int[::1]", starts="unsigned long long[::1]",
)
cpdef sort_keys(list keys)

@cython.locals(first=bytes, key=bytes, size=Py_ssize_t, at=Py_ssize_t, where=chars, other=chars)
cdef Py_ssize_t _shared(list keys) except -1

@cython.locals(where=chars, word=cython.ulonglong, at=Py_ssize_t, missing=Py_ssize_t)
cdef unsigned long long _word(bytes key, Py_ssize_t skip) except? 1

@cython.locals(at=Py_ssize_t, word=cython.ulonglong, byte=Py_ssize_t, is_there=cython.bint)
cdef void sort_words(
    unsigned long long[::1] words, unsigned int[::1] places,
    unsigned long long[::1] other_words, unsigned int[::1] other_places,
    unsigned long long[::1] starts, Py_ssize_t start, Py_ssize_t stop,
) noexcept nogil

@cython.locals(
    at=Py_ssize_t, word=cython.ulonglong, base=Py_ssize_t, total=cython.ulonglong,
    number=cython.ulonglong, slot=Py_ssize_t, target=Py_ssize_t,
)
cdef void _deal(
    unsigned long long[::1] words, unsigned int[::1] places,
    unsigned long long[::1] other_words, unsigned int[::1] other_places,
    unsigned long long[::1] starts, Py_ssize_t byte, Py_ssize_t start, Py_ssize_t stop,
) noexcept nogil

@cython.locals(
    count=Py_ssize_t, start=Py_ssize_t, stop=Py_ssize_t, word=cython.ulonglong, same=list,
)
cdef _sort_equals(list keys, unsigned long long[::1] words)
