# The types of packing.py.

cimport cython

from marram.coding.checksum cimport crc32_run, number_run
from marram.coding.raw cimport bytes_at, order, put_u32, put_u64, put_view, size_at, view
from marram.storage.sstable.frozen cimport FrozenMap

cdef Py_ssize_t _MOST_BLOCKS, _KEY_RATIO, _LONG_BLOCK, _ENDS, _NUMBER
cdef Py_ssize_t _COLUMNS_AT, _PAYLOAD_AT, _OVERHEAD
cdef unsigned int _HAS_SEQUENCES
cdef unsigned char _KIND

@cython.final
cdef class Packing:
    cdef readonly Py_ssize_t used, key_bytes, value_bytes
    cdef bytearray _data
    cdef unsigned char* _room
    cdef Py_ssize_t _room_bytes, _size, _next, _count
    cdef unsigned int[::1] _checksums
    cdef unsigned long long[::1] _block_rows, _block_sizes

    cpdef Py_ssize_t stop_of(
        self, FrozenMap rows, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t size,
        Py_ssize_t last_size, Py_ssize_t block_bytes,
    ) except -1
    @cython.locals(
        keys="unsigned long long[::1]", values="unsigned long long[::1]",
        places="unsigned int[::1]", wanted=Py_ssize_t,
    )
    cpdef Py_ssize_t fill(
        self, FrozenMap rows, unsigned char keyspace, Py_ssize_t start, Py_ssize_t stop,
        unsigned long long sequence, Py_ssize_t block_bytes, unsigned long long offset,
        unsigned int seed,
    ) except -1
    cdef _make_room(self, Py_ssize_t size)
    @cython.locals(
        first=Py_ssize_t, end=Py_ssize_t, size=Py_ssize_t, at=Py_ssize_t, stop_at=Py_ssize_t,
        key_bytes=Py_ssize_t, value_bytes=Py_ssize_t, checksum="unsigned int",
    )
    cdef Py_ssize_t _fill(
        self, unsigned long long[::1] keys, unsigned long long[::1] values,
        unsigned int[::1] places, unsigned char keyspace, Py_ssize_t start, Py_ssize_t stop,
        unsigned long long sequence, Py_ssize_t block_bytes, unsigned long long offset,
        unsigned int seed,
    ) noexcept nogil
    @cython.locals(
        at=Py_ssize_t, place="unsigned int", key_size=Py_ssize_t, value_size=Py_ssize_t,
        total=Py_ssize_t,
    )
    cdef Py_ssize_t _stop_of(
        self, unsigned long long[::1] keys, unsigned long long[::1] values,
        unsigned int[::1] places, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t size,
        Py_ssize_t last_size, Py_ssize_t block_bytes,
    ) noexcept nogil
    @cython.locals(
        room="unsigned char*", count=Py_ssize_t, at=Py_ssize_t, key_end_at=Py_ssize_t,
        value_end_at=Py_ssize_t, number_at=Py_ssize_t, key_at=Py_ssize_t, value_at=Py_ssize_t,
        key_end=Py_ssize_t, value_end=Py_ssize_t, row=Py_ssize_t, place="unsigned int",
        key="unsigned long long", value="unsigned long long", key_size=Py_ssize_t,
        value_size=Py_ssize_t,
    )
    cdef void _put_columns(
        self, unsigned long long[::1] keys, unsigned long long[::1] values,
        unsigned int[::1] places, unsigned char keyspace, Py_ssize_t start, Py_ssize_t stop,
        unsigned long long sequence, Py_ssize_t key_bytes,
    ) noexcept nogil
    @cython.locals(row=Py_ssize_t, key="unsigned long long", last="unsigned long long")
    cdef bint _note_keys(
        self, unsigned long long[::1] keys, unsigned int[::1] places, unsigned char keyspace,
        Py_ssize_t first, Py_ssize_t start, Py_ssize_t stop,
    ) noexcept nogil

@cython.locals(
    size=Py_ssize_t, last_size=Py_ssize_t, at=Py_ssize_t, total=Py_ssize_t, key=bytes, value=bytes,
)
cpdef tuple block_of(list keys, list values, Py_ssize_t start, Py_ssize_t block_bytes)

@cython.locals(
    count=Py_ssize_t, key_bytes=Py_ssize_t, value_bytes=Py_ssize_t, has_sequences=cython.bint,
    row=Py_ssize_t, key=bytes, value=bytes, number="unsigned long long", number_at=Py_ssize_t,
    key_at=Py_ssize_t, value_at=Py_ssize_t, room="unsigned char*", key_end=Py_ssize_t,
    value_end=Py_ssize_t, made=bytearray,
)
cpdef bytes payload_of(
    unsigned char keyspace, list keys, list values, list sequences, Py_ssize_t start,
    Py_ssize_t stop,
)

@cython.locals(found="unsigned int[::1]", at=Py_ssize_t, key=bytes)
cpdef checksums_of(unsigned char keyspace, list keys)

@cython.locals(
    lowest="unsigned long long", highest="unsigned long long", number="unsigned long long",
    at=Py_ssize_t,
)
cpdef tuple extent_of(list sequences)
