cimport cython
from marram.commands.spec cimport Outcome, Put
from marram.node.rows cimport Row
from marram.node.session cimport Session
from marram.storage.append cimport Appender
from marram.storage.clock cimport StoreClock
from marram.storage.view cimport View


cdef class Traffic:
    cdef public long long received_bytes
    cdef public long long sent_bytes
    cdef public long long rejected_connections

    cpdef reset(self)


cdef class Node:
    cdef public object store
    cdef public object settings
    cdef public object env
    cdef public object on_shutdown
    cdef public Session session
    cdef public long long waits_for
    cdef public long long now_ms
    cdef public bint closed
    cdef readonly object rows
    cdef readonly object clients
    cdef readonly object channels
    cdef readonly object transactions
    cdef readonly object logins
    cdef readonly object snapshots
    cdef readonly object parameters
    cdef readonly object slowlog
    cdef readonly object latency
    cdef readonly object monitors
    cdef readonly object upkeep
    cdef readonly object loop
    cdef readonly object replication
    cdef readonly Traffic traffic
    cdef readonly dict errors
    cdef readonly str run_id
    cdef public object peak_bytes
    cdef public object expired_before
    cdef object _started_ns
    cdef object _rates
    cdef list _views
    cdef dict _spellings
    cdef dict _watched
    cdef Py_ssize_t _max_key_bytes
    cdef bint _check_values
    cdef object _context
    cdef StoreClock _clock
    cdef public object _append
    cdef Appender _appender
    cdef bint _time_all
    cdef readonly bint _guarded

    cpdef select(self, Session session, Py_ssize_t keyspace)
    cpdef begin_turn(self)

    @cython.locals(
        row=Row, view=View, put=Put, outcome=Outcome, changes=list, key=bytes, count=Py_ssize_t,
        position="long long",
    )
    cpdef execute(self, Session session, list args)

    cdef _execute_fully(self, Session session, list args)

    @cython.locals(row=Row, sub=Row)
    cdef _check_and_run(self, Session session, list args)

    cdef _check(self, Session session, Row row, list args)
    @cython.locals(arg=bytes, size=Py_ssize_t)
    cdef bint _may_hold_no_key(self, list args) except -1

    cdef _reject(self, Session session, Row row, refusal)
    cpdef run(self, Session session, Row row, list args)

    @cython.locals(view=View)
    cdef _call(self, Session session, Row row, list args)

    cdef _write(self, View view, list changes)
    cdef _bury(self, View view)
    cdef list _burials(self, View view)
    cdef _apply(self, list changes)
    cdef _check_sizes(self, list changes)
    cpdef depend_on(self, long long position)
    cdef _refused(self, Row row, View view, error)
    cdef _error(self, refusal)
