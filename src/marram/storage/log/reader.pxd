# C types of reader.py. Offsets and sizes of files are below 2**63; what a frame says is not.
cimport cython
from marram.coding.batch cimport batch_end, decode
from marram.coding.checksum cimport crc32_short, number_seed
from marram.coding.fields cimport u32, u64

cdef Py_ssize_t _READ_SIZE
cdef Py_ssize_t _HEADER_SIZE
cdef unsigned int _MAGIC
cdef unsigned int _CRC32
cdef unsigned int _MARK
cdef unsigned int _HISTORY
cdef Py_ssize_t _HISTORY_SIZE
cdef Py_ssize_t _CHECKED
cdef bint _COMPILED

cdef class FrameReader:
    cdef object _file
    cdef object _kind
    cdef unsigned int _kinds
    cdef Py_ssize_t _size
    cdef object _number
    cdef object _owner
    cdef unsigned int _place
    cdef object _promised
    cdef bytes _window
    cdef Py_ssize_t _window_at
    cdef public Py_ssize_t end
    cdef public Py_ssize_t tail
    cdef unsigned int _frame_kind
    cdef unsigned int _count
    cdef unsigned long long _first
    cdef unsigned long long _frame_epoch
    cdef unsigned long long _frame_ms
    cdef unsigned long long _synced
    cdef unsigned int _checksum
    cdef Py_ssize_t _start
    cdef Py_ssize_t _stop

    @cython.locals(start=Py_ssize_t, left=Py_ssize_t, at=Py_ssize_t, seed=cython.uint, size=Py_ssize_t)
    cdef bint _next(self) except -1
    @cython.locals(window=bytes, numbers=cython.uint, kind=cython.uint)
    cdef bint _take_header(self, Py_ssize_t at, Py_ssize_t start, unsigned int seed) except -1
    @cython.locals(at=Py_ssize_t)
    cdef Py_ssize_t _reach(self, Py_ssize_t offset, Py_ssize_t size) except -1

cdef class BatchSink:
    cpdef take(self, bytes buffer, Py_ssize_t start, Py_ssize_t stop, long long sequence)

cdef class _Decoded(BatchSink):
    cdef public list batches
    cdef object _epoch
    cdef object _time_ms

cdef class LogReader(FrameReader):
    cdef public long long last_sequence
    cdef public unsigned long long epoch
    cdef public unsigned long long time_ms
    cdef public unsigned long long batch_epoch
    cdef public unsigned int chain
    cdef public object noted_chain
    cdef long long _chain_at

    cdef bint _enter(self) except -1
    @cython.locals(wanted=cython.longlong)
    cdef int _fold(self) except -1
    @cython.locals(count=Py_ssize_t)
    cpdef Py_ssize_t replay(self, BatchSink sink, long long after) except -1
    @cython.locals(
        sequence=cython.longlong, window=bytes, at=Py_ssize_t, stop=Py_ssize_t, end=Py_ssize_t,
        handed=Py_ssize_t, _=cython.uint,
    )
    cdef Py_ssize_t _take_apart(self, BatchSink sink, long long after) except -1
