cimport cython

cdef Py_ssize_t _SHORT
cdef Py_ssize_t _QUICK_FROM
cdef unsigned int _ONES
cdef unsigned int _HIGHEST
cdef unsigned long long _PACKED_MAX
cdef unsigned int _TABLES[2048]
cdef unsigned int _MULTIPLES[128]
cdef bint _has_multiples
cdef unsigned int[::1] _SQUARES
cdef unsigned int _POLYNOMIAL
cdef unsigned long long _last_size
cdef unsigned int _last_power

cpdef unsigned int crc32_short(
    object data, Py_ssize_t start, Py_ssize_t stop, unsigned int seed
) except? 0xFFFFFFFF

# Not checked: the caller knows that data has `stop` bytes.
@cython.locals(value="unsigned int")
cdef unsigned int crc32_run(
    const unsigned char* data, Py_ssize_t at, Py_ssize_t stop, unsigned int seed
) noexcept nogil

@cython.locals(
    power="unsigned int", exponent="unsigned int", rest="unsigned long long",
    size="unsigned long long"
)
cpdef unsigned int reseeded(
    bytes data, unsigned int checksum, unsigned int seed, unsigned int other
) except? 0xFFFFFFFF

@cython.locals(
    value="unsigned int", bit=cython.int, first=cython.int, digit=cython.int, lowest=cython.int
)
cdef void _set_multiples(unsigned int power) noexcept

@cython.locals(product="unsigned int", first=cython.int)
cdef unsigned int _multiple(unsigned int number) noexcept

@cython.locals(product="unsigned int")
cdef unsigned int _product(unsigned int left, unsigned int right) noexcept

cpdef unsigned int place_seed(object file_number, object offset, bytes store_id) except? 0xFFFFFFFF

cpdef unsigned int place_start(object file_number, bytes store_id) except? 0xFFFFFFFF

cpdef unsigned int number_seed(
    unsigned long long offset, unsigned int start
) except? 0xFFFFFFFF

@cython.locals(
    value="unsigned int", digits="unsigned long long", rest="unsigned long long", size=Py_ssize_t
)
cdef unsigned int number_run(unsigned long long offset, unsigned int start) noexcept nogil
