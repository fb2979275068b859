cimport cython

from marram.coding.checksum cimport crc32_short, place_seed

cdef bint _BY_NUMBER
cdef bytes _BLANK
cdef Py_ssize_t _FRAME_CHECKED

cpdef frame_of(
    bytes payload,
    unsigned char kind,
    unsigned int batch_count,
    unsigned long long first_sequence,
    unsigned long long epoch,
    unsigned long long time_ms,
    unsigned long long synced,
    unsigned int seed,
    unsigned int payload_sum,
)

@cython.locals(header=bytearray)
cpdef frame_head(
    Py_ssize_t size,
    unsigned char kind,
    unsigned int batch_count,
    unsigned long long first_sequence,
    unsigned long long epoch,
    unsigned long long time_ms,
    unsigned long long synced,
    unsigned int seed,
    unsigned int payload_sum,
)

# Not checked: `header` has `at + size` bytes.
@cython.locals(place=Py_ssize_t)
cdef void _put_number(
    unsigned char* header, Py_ssize_t at, Py_ssize_t size, unsigned long long number
) noexcept
