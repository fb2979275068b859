# C types of batch.py. Sizes are below 2**32, so sums of a few of them fit a long long.
cimport cython
from marram.coding.fields cimport chars, u32, u64
from marram.coding.raw cimport blank, headed, put_bytes, put_u32, put_u64

cdef bint _COMPILED
cdef unsigned int _BATCH_SIZE
cdef unsigned int _CHANGE_SIZE
cdef unsigned int _NUMBER_SIZE
cdef unsigned int _SINGLE_SIZE
cdef unsigned int _SINGLE_OVERHEAD
cdef unsigned int _FLAG_NUMBER
cdef unsigned int _FLAG_UNBOUNDED
cdef unsigned int _PUT
cdef unsigned int _DELETE_RANGE
cdef unsigned int _SWAP
cdef unsigned int _KEYSPACES
cdef unsigned int _BUT_KEYSPACE
cdef long long _LONGEST
cdef unsigned char _HEAD[20]

@cython.locals(key_size=Py_ssize_t, value_size=Py_ssize_t, size=cython.longlong)
cpdef bytes encode_put(long keyspace, bytes key, bytes value)

@cython.locals(size=cython.longlong)
cpdef bytes encode(changes)

@cython.locals(
    size=cython.longlong, kind=cython.long, keyspace=cython.long, type_=cython.long, key=bytes,
    value=bytes, number=cython.ulonglong,
)
cdef long long _encoded_size(changes) except -1

@cython.locals(
    made=bytes, at=Py_ssize_t, kind=cython.uint, keyspace=cython.uint, type_=cython.uint,
    flags=cython.uint, key=bytes, value=bytes, body=bytes, number=cython.ulonglong,
)
cdef bytes _written(changes, Py_ssize_t size)

cdef void _set_change(unsigned int numbers, unsigned int key_size, unsigned int value_size) noexcept
@cython.locals(place=Py_ssize_t)
cdef void _set_word(Py_ssize_t at, unsigned int number) noexcept

@cython.locals(size=cython.longlong, end=cython.longlong)
cpdef Py_ssize_t batch_end(bytes buffer, Py_ssize_t start, Py_ssize_t limit) except -1

@cython.locals(
    numbers=cython.uint, key_size=cython.longlong, value_size=cython.longlong,
    keyspace=cython.uint, value_at=cython.longlong, is_plain=cython.bint,
)
cpdef Py_ssize_t plain_put(bytes buffer, Py_ssize_t start, Py_ssize_t end) except -2

@cython.locals(
    count=cython.longlong, at=cython.longlong, stop=cython.longlong, where=chars,
    kind=cython.uint, keyspace=cython.uint, type_=cython.uint, flags=cython.uint,
    key_size=cython.longlong, value_size=cython.longlong, number=cython.ulonglong, key=bytes,
    changes=list, _=cython.longlong,
)
cpdef list decode(bytes buffer, Py_ssize_t start, Py_ssize_t end)

cdef bint _check(
    unsigned int kind, unsigned int keyspace, unsigned long long number, unsigned int flags
) except -1
