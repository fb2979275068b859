cimport cython

from marram.coding.checksum cimport crc32_short, number_seed, reseeded
from marram.coding.raw cimport place, put_bytes
from marram.storage.log.format cimport frame_head, frame_of, put_head

cdef Py_ssize_t _SPARE
cdef Py_ssize_t _FRAME_SIZE
cdef Py_ssize_t _WINDOW
cdef Py_ssize_t _WINDOW_MIN


cdef class FrameWriter:
    cdef public object file
    cdef public object header
    cdef public long long end
    cdef public long long synced
    cdef unsigned int _place
    cdef unsigned int _seed
    cdef unsigned int _checksum
    cdef object _window
    cdef unsigned char[::1] _memory
    cdef long long _window_start
    cdef long long _window_stop

    @cython.locals(
        stop="long long", seed="unsigned int", checksum="unsigned int", at="long long",
        memory="unsigned char*"
    )
    cpdef write_frame(
        self, bytes payload, unsigned char kind, unsigned int count, unsigned long long first,
        unsigned long long epoch, unsigned long long time_ms
    )

    @cython.locals(stop="long long")
    cdef _add(self, object frame)

    @cython.locals(end="long long")
    cpdef sync(self)

    @cython.locals(size=Py_ssize_t)
    cdef _store(self, object frame)

    cdef _leave_window(self)


cdef class LogWriter(FrameWriter):
    cdef public long long number
    cdef public unsigned long long batch_epoch
    cdef public unsigned int chain
    cdef public long long max_step
    cdef public bint is_mapped
    cdef readonly long long _allocated

    @cython.locals(wanted="long long", grow="long long", size="long long")
    cpdef bint reserve(self, long long pending) except -1

    @cython.locals(payload=bytes)
    cpdef write(
        self, list batches, unsigned long long first_sequence, unsigned long long epoch,
        unsigned long long time_ms, unsigned int count=*
    )

    @cython.locals(
        seed="unsigned int", checksum="unsigned int", size=Py_ssize_t, at=Py_ssize_t, piece=bytes
    )
    cpdef write_known(
        self, list pieces, unsigned long long first_sequence, unsigned long long epoch,
        unsigned long long time_ms, unsigned int count, list chains
    )

    cpdef write_one(
        self, bytes batch, unsigned long long sequence, unsigned long long epoch,
        unsigned long long time_ms
    )

    cdef _fold(self, bytes payload, unsigned long long epoch)

    cpdef bint fits(self, Py_ssize_t size_bytes) except -1

    @cython.locals(size="long long")
    cdef _move_window(self)
