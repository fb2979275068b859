# The types of tables.py.

cimport cython

from marram.storage.lsm.cache cimport BlockCache, RowCache, TableCache
from marram.storage.lsm.version cimport Level, Version
from marram.storage.sstable.block cimport stored_key
from marram.storage.sstable.filter cimport probe_of
from marram.storage.sstable.reader cimport Table

cdef class Tables:
    cdef object _env, _directory, _lock, _metas, _obsolete, _open_blobs, _removing, _versions
    cdef BlockCache _blocks
    cdef TableCache _cache
    cdef RowCache _row_cache

    cpdef Table get(self, meta)
    @cython.locals(wanted=bytes, rows=RowCache)
    cpdef newest(self, Version version, Py_ssize_t keyspace, bytes key)
    cpdef find(self, Version version, Py_ssize_t keyspace, bytes key, bint with_value=*)
    @cython.locals(level=Level, table=Table, open_tables=dict)
    cdef _find(self, Version version, bytes wanted, Py_ssize_t keyspace, bytes key)
    cdef _valued(self, Version version, held)
    cdef RowCache _new_rows(self, Version version)
