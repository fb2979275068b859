# The types of chain.py.

cimport cython

from marram.storage.lsm.window cimport Window
from marram.storage.sstable.block cimport DataBlock
from marram.coding.raw cimport order, view

cdef class Row:
    cdef object _source
    cdef bint _reverse
    cdef DataBlock _block
    cdef list _keys, _held, _rows
    cdef Py_ssize_t _row, _left
    cdef Py_ssize_t age, size
    cdef int keyspace
    cdef const unsigned char* key
    cdef Row following

    @cython.locals(low=Py_ssize_t, high=Py_ssize_t)
    cdef bint load(self) except -1
    cdef bint advance(self) except -1
    @cython.locals(block=DataBlock, keys=list, held_column=list)
    cdef show(self, list rows, now_ms)
    @cython.locals(block=DataBlock, count=Py_ssize_t, left=Py_ssize_t)
    cdef bint show_rest(self, list rows, now_ms, Py_ssize_t most) except -1
    cdef bint is_plain(self) except -1
    @cython.locals(block=DataBlock)
    cdef give(self, list keys, list values, list sequences)
    cdef tuple version(self)
    cdef tuple _version(self)
    @cython.locals(block=DataBlock, key=bytes, start=Py_ssize_t, stop=Py_ssize_t)
    cdef _point(self)

cdef class Chain:
    cdef bint _reverse, _is_taken, _several
    cdef Row _first

    @cython.locals(first=Row, second=Row, ordered=int)
    cdef Row next(self)
    @cython.locals(found=list, row=Row)
    cpdef list show(self, now_ms, Py_ssize_t most)
    @cython.locals(row=Row, keyspace=int, keys=list, values=list, sequences=list, rows=list)
    cpdef Window window(self, Py_ssize_t most)
    @cython.locals(first=Row)
    cdef _pass_first(self)
    @cython.locals(first=Row)
    cdef _add(self, Row row)
    @cython.locals(following=Row)
    cdef _put(self, Row row, Row before)
    cdef int _order(self, Row left, Row right) except? -2
