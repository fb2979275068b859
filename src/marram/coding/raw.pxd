# raw.py as C: see there.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from cpython.object cimport PyObject
from libc.string cimport memcmp, memcpy, memmove

cdef extern from *:
    """
    #if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "compiled leaves read little-endian numbers in place; run them interpreted here"
    #endif
    typedef unsigned int __attribute__((aligned(1), may_alias)) marram_u32;
    typedef unsigned long long __attribute__((aligned(1), may_alias)) marram_u64;
    #define marram_object(place) ((PyObject*)(size_t)(place))
    #define marram_bytes(place) ((const unsigned char*)PyBytes_AS_STRING(marram_object(place)))
    #define marram_size(place) (Py_SIZE(marram_object(place)))
    """
    # As they are in files: anywhere, not only where C would put them.
    ctypedef unsigned int u32 "marram_u32"
    ctypedef unsigned long long u64 "marram_u64"
    const unsigned char* bytes_at "marram_bytes"(unsigned long long place) noexcept nogil
    Py_ssize_t size_at "marram_size"(unsigned long long place) noexcept nogil

# Of bytes, or of a memoryview of bytes that stands for them one by one.
cdef inline const unsigned char* first_of(data) except NULL:
    if type(data) is bytes:
        return <const unsigned char*>PyBytes_AS_STRING(data)
    if type(data) is memoryview:
        return <const unsigned char*>PyMemoryView_GET_BUFFER(data).buf
    raise TypeError(type(data))

cdef inline const unsigned char* view(
    const unsigned char* data, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    return data + start

cdef inline const u32* u32s(const unsigned char* data, Py_ssize_t at, Py_ssize_t count) noexcept nogil:
    return <const u32*>(data + at)

cdef inline const u64* u64s(const unsigned char* data, Py_ssize_t at, Py_ssize_t count) noexcept nogil:
    return <const u64*>(data + at)

cdef inline int order(
    const unsigned char* left, Py_ssize_t left_size,
    const unsigned char* right, Py_ssize_t right_size,
) noexcept nogil:
    cdef int found = memcmp(left, right, left_size if left_size < right_size else right_size)
    if found:
        return found
    return (left_size > right_size) - (left_size < right_size)

cdef inline bytes joined(unsigned char first, bytes rest):
    cdef Py_ssize_t size = len(rest)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, size + 1)
    PyBytes_AS_STRING(made)[0] = first
    memcpy(PyBytes_AS_STRING(made) + 1, PyBytes_AS_STRING(rest), size)
    return made

cdef inline bytes headed(const unsigned char* head, Py_ssize_t head_size, bytes key, bytes value):
    cdef Py_ssize_t key_size = len(key), value_size = len(value)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, head_size + key_size + value_size)
    cdef char* at = PyBytes_AS_STRING(made)
    memcpy(at, head, head_size)
    memcpy(at + head_size, PyBytes_AS_STRING(key), key_size)
    memcpy(at + head_size + key_size, PyBytes_AS_STRING(value), value_size)
    return made

cdef inline bytes blank(Py_ssize_t size):
    return PyBytes_FromStringAndSize(NULL, size)

cdef inline Py_ssize_t write(bytes made, Py_ssize_t at, bytes data) noexcept:
    memcpy(PyBytes_AS_STRING(made) + at, PyBytes_AS_STRING(data), len(data))
    return at + len(data)

cdef inline Py_ssize_t write_u32(bytes made, Py_ssize_t at, unsigned int number) noexcept:
    (<u32*>(PyBytes_AS_STRING(made) + at))[0] = number
    return at + 4

cdef inline Py_ssize_t write_u64(bytes made, Py_ssize_t at, unsigned long long number) noexcept:
    (<u64*>(PyBytes_AS_STRING(made) + at))[0] = number
    return at + 8

cdef inline void open_gap(unsigned int[::1] numbers, Py_ssize_t at, Py_ssize_t count) noexcept:
    if count > at:
        memmove(&numbers[at] + 1, &numbers[at], (count - at) * sizeof(unsigned int))

cdef inline void close_gap(unsigned int[::1] numbers, Py_ssize_t at, Py_ssize_t count) noexcept:
    if count > at:
        memmove(&numbers[at], &numbers[at] + 1, (count - at) * sizeof(unsigned int))

cdef inline list u32_list(const u32* numbers, Py_ssize_t start, Py_ssize_t stop):
    cdef Py_ssize_t at
    cdef list found = []
    for at in range(start, stop):
        found.append(numbers[at])
    return found

cdef inline list u64_list(const u64* numbers, Py_ssize_t start, Py_ssize_t stop):
    cdef Py_ssize_t at
    cdef list found = []
    for at in range(start, stop):
        found.append(numbers[at])
    return found

cdef inline unsigned long long address(object held) noexcept:
    return <size_t><PyObject*>held

cdef inline object object_at(unsigned long long place):
    return <object><PyObject*><size_t>place

cdef inline void put_u32(unsigned char* buffer, Py_ssize_t at, unsigned int number) noexcept nogil:
    (<u32*>(buffer + at))[0] = number

cdef inline void put_u64(
    unsigned char* buffer, Py_ssize_t at, unsigned long long number
) noexcept nogil:
    (<u64*>(buffer + at))[0] = number

cdef inline void put_bytes(
    unsigned char* buffer, Py_ssize_t at, const unsigned char* data, Py_ssize_t size
) noexcept nogil:
    memcpy(buffer + at, data, size)
