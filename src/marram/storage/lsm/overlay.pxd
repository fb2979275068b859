# The types of overlay.py.

cimport cython

from marram.storage.sstable.block cimport DataBlock
from marram.storage.sstable.raw cimport order, view

cdef class _Row:
    cdef object _source
    cdef bint _reverse
    cdef DataBlock _block
    cdef list _keys, _held
    cdef Py_ssize_t _row, _left
    cdef Py_ssize_t age, size
    cdef const unsigned char* key
    cdef _Row following

    @cython.locals(low=Py_ssize_t, high=Py_ssize_t)
    cdef bint load(self) except -1
    cdef bint advance(self) except -1
    @cython.locals(block=DataBlock)
    cdef show(self, list rows, now_ms)
    @cython.locals(block=DataBlock, count=Py_ssize_t)
    cdef bint show_rest(self, list rows, now_ms, Py_ssize_t most) except -1
    @cython.locals(block=DataBlock, key=bytes, start=Py_ssize_t, stop=Py_ssize_t)
    cdef _point(self)

cdef class _Merge:
    cdef object _now_ms
    cdef bint _reverse
    cdef _Row _first

    @cython.locals(found=list, first=_Row, second=_Row, ordered=int)
    cpdef list take(self, Py_ssize_t most)
    @cython.locals(first=_Row)
    cdef _add(self, _Row row)
    @cython.locals(following=_Row)
    cdef _put(self, _Row row, _Row before)
    cdef int _order(self, _Row left, _Row right) except? -2
