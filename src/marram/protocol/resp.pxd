cimport cython

cdef bint _COMPILED
cdef bytes _CRLF
cdef bytes _NULL_2
cdef bytes _NULL_3
cdef Py_ssize_t _TABLE_SIZE
cdef Py_ssize_t _FAST_BYTES
cdef int _ASTERISK
cdef int _DOLLAR
cdef int _CR
cdef int _LF
cdef int _ZERO
cdef int _NINE
cdef tuple _BULK_HEADS
cdef tuple _BULK_LINES
cdef tuple _INTEGERS
cdef dict _BULK_SIZES
cdef dict _ARRAY_COUNTS
cdef dict _COUNT_LINES


cdef class RequestParser:
    cdef public object error
    cdef object _limits
    cdef Py_ssize_t _max_line
    cdef bint _large
    cdef list _args
    cdef Py_ssize_t _missing_args
    cdef Py_ssize_t _request_bytes
    cdef object _bulk
    cdef bytearray _tail
    cdef bint _held
    cdef bint _authenticated
    cdef Py_ssize_t _max_args
    cdef Py_ssize_t _max_bulk
    cdef Py_ssize_t _fast_below

    @cython.locals(commands=list, at=Py_ssize_t)
    cpdef list feed(self, bytes data)

    cdef _choose_path(self)

    @cython.locals(commands=list, at=Py_ssize_t)
    cdef list _feed_slowly(self, bytes data)

    cdef _walk(self, bytes data, Py_ssize_t at, list commands)

    @cython.locals(stop=Py_ssize_t)
    cdef Py_ssize_t _read_count(self, bytes data, Py_ssize_t at) except -1

    @cython.locals(
        end=Py_ssize_t, start=Py_ssize_t, stop=Py_ssize_t, max_line=Py_ssize_t, args=list
    )
    cdef Py_ssize_t _read_args(self, bytes data, Py_ssize_t at) except -1

    cdef Py_ssize_t _fill_bulk(self, bulk, bytes data, Py_ssize_t at) except -1

    @cython.locals(stop=Py_ssize_t)
    cdef Py_ssize_t _read_inline(self, bytes data, Py_ssize_t at) except -1

    cdef Py_ssize_t _keep_line(self, bytes data, Py_ssize_t at, too_big) except -1
    cdef Py_ssize_t _refuse(self, bytes data, Py_ssize_t at, message) except -1
    cdef _hold(self, data)
    cdef Py_ssize_t _fail(self, bytes data, message) except -1
    cdef _drop(self)


@cython.locals(
    text="const unsigned char*", end=Py_ssize_t, taken=Py_ssize_t, at=Py_ssize_t,
    first=Py_ssize_t, stop=Py_ssize_t, count=Py_ssize_t, size=Py_ssize_t, index=Py_ssize_t,
    args=list, name=bytes,
)
cpdef Py_ssize_t take_by_scanning(bytes data, list commands) except -1

@cython.locals(other="const unsigned char*", index=Py_ssize_t)
cdef bint _repeats(const unsigned char* text, Py_ssize_t at, Py_ssize_t size, bytes name) except -1

cpdef bytes encode(reply, int protocol)

@cython.locals(size=Py_ssize_t, start=Py_ssize_t, head=bytes)
cpdef Py_ssize_t encode_into(list out, reply, int protocol) except -1

cdef _write(list out, reply, int protocol, int depth)
