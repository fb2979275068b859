from marram.node.rows cimport Row
from marram.storage.view cimport View


cdef class Session:
    cdef readonly object id
    cdef readonly str address
    cdef readonly str local_address
    cdef public object push
    cdef public object close
    cdef readonly long long created_ms
    cdef public long long last_ms
    cdef public Row last_row
    cdef public object buffers
    cdef public object on_authenticated
    cdef public bint authenticated
    cdef public Py_ssize_t failed_logins
    cdef public long long depends_on
    cdef public bytes lib_name
    cdef public bytes lib_version
    cdef public bint no_evict
    cdef public bint no_touch
    cdef public bint monitoring
    cdef public object blocked
    cdef public dict channels
    cdef public dict patterns
    cdef public dict snapshots
    cdef public object next_snapshot
    cdef public dict watched
    cdef public bint touched
    cdef public list queue
    cdef public Py_ssize_t queue_bytes
    cdef public bint queue_refused
    cdef public Py_ssize_t keyspace
    cdef public View view
    cdef public bytes name
    cdef public int protocol
    cdef public int reply_mode
    cdef public object acks
    cdef readonly bint guarded

    cpdef update(self)
