cimport cython

from marram.coding.raw cimport close_gap, head, insert_into, let_go, open_gap, order, resized

cdef bint _HAS_HEADS
cdef Py_ssize_t _PATIENCE

@cython.final
cdef class Run:
    cdef public list keys
    cdef public list values
    cdef public Py_ssize_t unread
    cdef bytes _common
    cdef unsigned long long* _heads
    cdef Py_ssize_t _room

    @cython.locals(
        keys=list, low=Py_ssize_t, high=Py_ssize_t, middle=Py_ssize_t, beside=int,
        heads="unsigned long long*", mine="unsigned long long", other=bytes
    )
    cpdef Py_ssize_t find(self, bytes key) except -1

    @cython.locals(size=Py_ssize_t)
    cpdef insert(self, Py_ssize_t at, bytes key, object held=*)

    cpdef extend(self, list keys)

    cpdef remove(self, Py_ssize_t at)

    cpdef replace(self, Py_ssize_t at, bytes key)

    @cython.locals(values=list)
    cpdef Run split(self, Py_ssize_t at)

    @cython.locals(
        keys=list, size=Py_ssize_t, at=Py_ssize_t, heads="unsigned long long*", common=bytes,
        key=bytes
    )
    cdef _index(self)

    @cython.locals(room=Py_ssize_t)
    cdef _make_room(self, Py_ssize_t size)


cdef int _compare(bytes key, bytes common)

@cython.locals(size=Py_ssize_t, at=Py_ssize_t)
cdef bytes _shared(bytes first, bytes last)


@cython.final
cdef class KeyOrder:
    cdef list _blocks
    cdef Run _lasts
    cdef Py_ssize_t _size
    cdef Py_ssize_t _block_keys
    cdef readonly Py_ssize_t _followed
    cdef bint _has_values

    cpdef refill(self, list ascending)

    @cython.locals(block=Run)
    cpdef let_go(self)

    @cython.locals(part=Py_ssize_t, at=Py_ssize_t, blocks=list, lasts=Run, block=Run)
    cpdef append_many(self, list ascending)

    @cython.locals(at=Py_ssize_t, size=Py_ssize_t, half=Py_ssize_t, lasts=Run, blocks=list, block=Run)
    cpdef add(self, bytes key, object held=*)

    @cython.locals(at=Py_ssize_t, block=Run, values=list)
    cdef _add_last(self, bytes key, object held)

    @cython.locals(block=Run, values=list)
    cpdef follow(self, bytes key, object held)

    cdef _let_go(self, Run block)

    @cython.locals(at=Py_ssize_t, size=Py_ssize_t, index=Py_ssize_t, block=Run)
    cpdef remove(self, bytes key)

    @cython.locals(block=Run, first=Py_ssize_t, last=Py_ssize_t, found=list)
    cpdef list forward(self, bytes start, bytes stop, Py_ssize_t limit)

    @cython.locals(block=Run, first=Py_ssize_t, last=Py_ssize_t, found=list)
    cpdef list backward(self, bytes start, bytes stop, Py_ssize_t limit)

    @cython.locals(
        spans=list, block=Run, first=Py_ssize_t, last=Py_ssize_t, at=Py_ssize_t, keys=list,
        values=list, rows=list, found=list
    )
    cpdef list rows(self, bytes start, bytes stop, Py_ssize_t limit, bint reverse, dict held)

    @cython.locals(
        blocks=list, at=Py_ssize_t, first=Py_ssize_t, last=Py_ssize_t, spans=list, block=Run
    )
    cdef list _spans(self, bytes start, bytes stop, Py_ssize_t limit)

    @cython.locals(
        blocks=list, at=Py_ssize_t, begin=Py_ssize_t, end=Py_ssize_t, spans=list, block=Run
    )
    cdef list _spans_back(self, bytes start, bytes stop, Py_ssize_t limit)

    @cython.locals(size=Py_ssize_t, block=Run)
    cpdef bytes at(self, Py_ssize_t index)
