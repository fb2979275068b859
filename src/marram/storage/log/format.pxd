cimport cython

from marram.coding.checksum cimport crc32_run, place_seed
from marram.coding.raw cimport put_u32, put_u64

cdef Py_ssize_t _FRAME_CHECKED
cdef Py_ssize_t _HEADER_SIZE
cdef Py_ssize_t _SIZE_MAX
cdef unsigned int _CHECKSUM_KIND
cdef unsigned int _MAGIC

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

# Not checked: `memory` has room for a header.
cdef void put_head(
    unsigned char* memory,
    unsigned int size,
    unsigned char kind,
    unsigned int batch_count,
    unsigned long long first_sequence,
    unsigned long long epoch,
    unsigned long long time_ms,
    unsigned long long synced,
    unsigned int seed,
    unsigned int payload_sum,
) noexcept
