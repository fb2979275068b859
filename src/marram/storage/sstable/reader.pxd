# The types of reader.py.

cimport cython

from marram.coding.checksum cimport number_seed
from marram.storage.sstable.block cimport DataBlock, Index, Kept, stored_key
from marram.storage.sstable.filter cimport Filter
from marram.storage.sstable.format cimport unseal_block

cdef class BlockStore:
    cpdef DataBlock get(self, block_id)
    cpdef put(self, block_id, DataBlock block)

cdef class _Source:
    cdef object _file, _tail
    cdef readonly object place
    cdef readonly Py_ssize_t size

    @cython.locals(at=Py_ssize_t)
    cpdef read(self, Py_ssize_t offset, Py_ssize_t size)

cdef class Table(Kept):
    cdef object _file, _first_id
    cdef _Source _source
    cdef unsigned int _file_seed
    cdef bint _closed
    cdef BlockStore _kept
    cdef Index _index
    cdef Filter _filter
    cdef list _lines
    cdef Py_ssize_t _line_count
    cdef readonly object number, properties, row_count, size_bytes
    cdef readonly tuple ranges
    cdef readonly bytes smallest, largest

    cpdef bint may_contain(self, probe) except -1
    @cython.locals(index=Index, block=DataBlock, number=Py_ssize_t, row=Py_ssize_t)
    cpdef find(self, bytes wanted, probe, at=*)
    @cython.locals(index=Index, number=Py_ssize_t)
    cpdef look(self, bytes wanted, bytes key, probe)
    @cython.locals(index=Index, block=DataBlock, found=list, number=Py_ssize_t,
                   current=Py_ssize_t, at=Py_ssize_t, row=bytes)
    cpdef list look_many(self, wanted, probes)
    cdef _check_open(self)
    @cython.locals(index=Index)
    cdef Py_ssize_t _group_stop(self, Py_ssize_t first, Py_ssize_t end, Py_ssize_t read_bytes) except -1
    @cython.locals(index=Index)
    cdef Py_ssize_t _group_start(self, Py_ssize_t first, Py_ssize_t end, Py_ssize_t read_bytes) except -1
    @cython.locals(block=DataBlock)
    cdef DataBlock _kept_block(self, Py_ssize_t number)
    @cython.locals(offset=Py_ssize_t, size=Py_ssize_t)
    cdef DataBlock _read_block(self, Py_ssize_t number)
    cdef DataBlock _decode_block(self, Py_ssize_t number, data, bint is_copied)
    @cython.locals(block=DataBlock, index=Index)
    cdef DataBlock _checked_block(
        self, Py_ssize_t number, data, Py_ssize_t offset, bint is_copied
    )

@cython.locals(index=Index)
cdef bytes _last_of(Index index)
