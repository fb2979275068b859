# The types of cache.py.

cimport cython

from marram.storage.sstable.block cimport DataBlock, Kept
from marram.storage.sstable.reader cimport BlockStore, Table

cdef Py_ssize_t _ENTRY_BYTES
cdef Py_ssize_t _ROW_BYTES
cdef Py_ssize_t _OFFER_MASK

cdef class _Clock:
    cdef readonly dict entries
    cdef readonly Py_ssize_t bytes
    cdef object _ring
    cdef Py_ssize_t _evictions

    cdef add(self, id_, Kept entry)
    @cython.locals(entries=dict, entry=Kept, _=Py_ssize_t)
    cdef evict(self)
    cdef remove(self, ids)
    cpdef _check(self)

cdef Py_ssize_t _cost(Kept entry) except -1

cdef class BlockCache(BlockStore):
    cdef readonly Py_ssize_t capacity_bytes
    cdef object _lock
    cdef _Clock _clock
    cdef dict _blocks
    cdef Py_ssize_t _hits, _misses

    @cython.locals(block=DataBlock)
    cpdef DataBlock get(self, block_id)
    cpdef put(self, block_id, DataBlock block)

cdef class RowCache:
    cdef readonly object capacity_bytes, levels
    cdef readonly dict young, old
    cdef public Py_ssize_t hits, misses
    cdef object _lock
    cdef Py_ssize_t _bytes, _old_bytes

    cpdef offer(self, bytes row, held)
    @cython.locals(size=Py_ssize_t, half=Py_ssize_t)
    cpdef put(self, bytes row, held)

cdef class TableCache:
    cdef readonly object capacity_bytes, max_tables
    cdef object _env, _path_of, _check_table, _store_id, _block_cache, _lock
    cdef _Clock _clock
    cdef dict _tables
    cdef readonly dict open_tables
    cdef bint _closed
    cdef Py_ssize_t _hits, _misses

    @cython.locals(table=Table)
    cpdef Table get(self, number)
