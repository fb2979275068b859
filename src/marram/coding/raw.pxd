# raw.py as C: see there.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from cpython.object cimport PyObject
from cpython.mem cimport PyMem_Free, PyMem_Realloc
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
    #define marram_swapped __builtin_bswap64
    """
    # As they are in files: anywhere, not only where C would put them.
    ctypedef unsigned int u32 "marram_u32"
    ctypedef unsigned long long u64 "marram_u64"
    const unsigned char* bytes_at "marram_bytes"(unsigned long long place) noexcept nogil
    Py_ssize_t size_at "marram_size"(unsigned long long place) noexcept nogil
    unsigned long long swapped "marram_swapped"(unsigned long long number) nogil
    PyObject** PySequence_Fast_ITEMS(list items)

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

cdef inline unsigned char* place(unsigned char[::1] memory, Py_ssize_t at) noexcept:
    return &memory[0] + at

cdef inline void put_u32(unsigned char* data, Py_ssize_t at, unsigned int number) noexcept nogil:
    (<u32*>(data + at))[0] = number

cdef inline void put_u64(
    unsigned char* data, Py_ssize_t at, unsigned long long number
) noexcept nogil:
    (<u64*>(data + at))[0] = number

cdef inline void put_bytes(unsigned char* data, Py_ssize_t at, bytes given) noexcept:
    memcpy(data + at, PyBytes_AS_STRING(given), len(given))

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

cdef inline unsigned long long head(
    const unsigned char* data, Py_ssize_t size, Py_ssize_t skip
) noexcept nogil:
    cdef Py_ssize_t at
    cdef unsigned long long found = 0
    if size - skip >= 8:
        return swapped((<const u64*>(data + skip))[0])
    for at in range(skip, skip + 8):
        found = found << 8 | (data[at] if at < size else 0)
    return found

cdef inline void insert_into(list items, Py_ssize_t at, object item) except *:
    cdef Py_ssize_t size = len(items)
    cdef PyObject** where
    items.append(item)
    where = PySequence_Fast_ITEMS(items)
    memmove(where + at + 1, where + at, (size - at) * sizeof(PyObject*))
    where[at] = <PyObject*>item

cdef inline unsigned long long* resized(unsigned long long* numbers, Py_ssize_t count) except NULL:
    cdef void* made = PyMem_Realloc(numbers, count * sizeof(unsigned long long))
    if made == NULL:
        raise MemoryError()
    return <unsigned long long*>made

cdef inline void let_go(unsigned long long* numbers) noexcept:
    PyMem_Free(numbers)

cdef inline void open_gap(unsigned long long* numbers, Py_ssize_t at, Py_ssize_t count) noexcept:
    if count > at:
        memmove(numbers + at + 1, numbers + at, (count - at) * sizeof(unsigned long long))

cdef inline void close_gap(unsigned long long* numbers, Py_ssize_t at, Py_ssize_t count) noexcept:
    if count > at:
        memmove(numbers + at, numbers + at + 1, (count - at) * sizeof(unsigned long long))

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

cdef inline void put_view(
    unsigned char* buffer, Py_ssize_t at, const unsigned char* data, Py_ssize_t size
) noexcept nogil:
    memcpy(buffer + at, data, size)
