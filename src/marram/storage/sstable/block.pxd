# The types of block.py.

cimport cython

from marram.coding.raw cimport first_of, joined, order, u32, u32_list, u32s, u64, u64_list, u64s, view

cpdef bytes stored_key(unsigned char keyspace, bytes key)

cdef Py_ssize_t _END_LIMIT

@cython.locals(ends="unsigned int[::1]", end=Py_ssize_t, at=Py_ssize_t)
cdef bytes _packed_ends(items)

cdef class Kept:
    cdef public Py_ssize_t memory_bytes
    cdef public bint recent

cdef class DataBlock(Kept):
    cdef object _payload
    cdef list _key_list
    cdef readonly Py_ssize_t count
    cdef readonly int keyspace
    cdef readonly bint is_plain
    cdef bint _has_types, _has_deadlines, _has_sequences, _is_ordered
    cdef const unsigned char* keys
    cdef const unsigned char* values
    cdef const u32* key_ends
    cdef const u32* value_ends
    cdef const unsigned char* _types
    cdef const u64* _deadlines
    cdef const u64* _sequences

    @cython.locals(count=Py_ssize_t, types=Py_ssize_t, deadlines=Py_ssize_t, sequences=Py_ssize_t,
                   data="const unsigned char*", at=Py_ssize_t, key_at=Py_ssize_t,
                   value_at=Py_ssize_t)
    cdef _take_columns(self, payload)
    cpdef list_keys(self)
    @cython.locals(start=Py_ssize_t)
    cpdef bytes key(self, Py_ssize_t row)
    @cython.locals(start=Py_ssize_t)
    cpdef bytes value(self, Py_ssize_t row)
    cpdef u64 sequence(self, Py_ssize_t row) except? 1
    cpdef tuple version(self, Py_ssize_t row)
    @cython.locals(row=Py_ssize_t, keys=list)
    cpdef look(self, bytes key)
    cpdef list rows(self, Py_ssize_t start, Py_ssize_t stop)
    cpdef list versions(self, Py_ssize_t start, Py_ssize_t stop)
    cpdef tuple columns(self, Py_ssize_t start, Py_ssize_t stop)
    @cython.locals(found=list, row=Py_ssize_t, key_at=Py_ssize_t, value_at=Py_ssize_t,
                   key_stop=Py_ssize_t, value_stop=Py_ssize_t)
    cpdef list pairs(self, Py_ssize_t start, Py_ssize_t stop)
    cpdef check_order(self, Py_ssize_t start, Py_ssize_t stop)
    cpdef Py_ssize_t seek(self, bytes bound) except -1
    @cython.locals(row=Py_ssize_t, last=u64)
    cpdef Py_ssize_t find(self, bytes key, at=*) except -2
    @cython.locals(low=Py_ssize_t, high=Py_ssize_t, middle=Py_ssize_t, start=Py_ssize_t,
                   stop=Py_ssize_t, size=Py_ssize_t)
    cdef Py_ssize_t _seek_key(self, bytes key) except -1
    @cython.locals(start=Py_ssize_t, stop=Py_ssize_t, size=Py_ssize_t)
    cdef bint _is_key(self, Py_ssize_t row, bytes key) except -1
    @cython.locals(begin=Py_ssize_t, row=Py_ssize_t, size=Py_ssize_t, last_size=Py_ssize_t)
    cdef bint _ascends(self, Py_ssize_t start, Py_ssize_t stop) except -1
    @cython.locals(keys=list, values=list, ascends=bint)
    cdef tuple _columns(self, Py_ssize_t start, Py_ssize_t stop)

cdef class Index:
    cdef bytes _payload, _offset_bytes
    cdef list _last_keys
    cdef readonly Py_ssize_t count, memory_bytes
    cdef readonly object total_rows
    cdef const unsigned char* _keys
    cdef const u32* _ends
    cdef const u32* _rows
    cdef const u64* _offsets

    cpdef bytes last_key(self, Py_ssize_t number)
    cpdef Py_ssize_t row_count(self, Py_ssize_t number) except -1
    cpdef Py_ssize_t offset(self, Py_ssize_t number) except -1
    @cython.locals(high=Py_ssize_t, middle=Py_ssize_t, start=Py_ssize_t, stop=Py_ssize_t,
                   size=Py_ssize_t)
    cpdef Py_ssize_t find(self, bytes wanted, Py_ssize_t low=*) except -1
    @cython.locals(middle=Py_ssize_t)
    cpdef Py_ssize_t find_offset(self, Py_ssize_t offset, Py_ssize_t low, Py_ssize_t high) except -1
    cpdef bint is_in(self, Py_ssize_t number, int keyspace) except -1
    @cython.locals(start=Py_ssize_t, number=Py_ssize_t, size=Py_ssize_t, last_size=Py_ssize_t)
    cdef bint _ascends(self) except -1

@cython.locals(row=Py_ssize_t)
cdef _check_ends(const u32* ends, Py_ssize_t count)
@cython.locals(found=list, row=Py_ssize_t, low=Py_ssize_t, high=Py_ssize_t)
cdef list _slices(const unsigned char* data, const u32* ends, Py_ssize_t start, Py_ssize_t stop)
