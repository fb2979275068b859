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

    @cython.locals(low=Py_ssize_t, high=Py_ssize_t)
    cpdef bint load(self) except -1
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
    cdef list _rows

    @cython.locals(found=list, rows=list, first=_Row, second=_Row, row=_Row, ordered=int,
                   at=Py_ssize_t)
    cpdef list take(self, Py_ssize_t most)
    cdef int _order(self, _Row left, _Row right) except? -2
    @cython.locals(rows=list, row=_Row, following=_Row)
    cdef _place(self, Py_ssize_t at)
