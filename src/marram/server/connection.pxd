cimport cython
from marram.node.node cimport Node, Traffic
from marram.node.session cimport Session
from marram.server.commit cimport Committer, Waiter
from marram.storage.commit cimport CommitQueue


cdef class Connection(Waiter):
    cdef readonly Session session
    cdef object _clients
    cdef Node _node
    cdef Committer _committer
    cdef CommitQueue _queue
    cdef Traffic _traffic
    cdef object _transport
    cdef int _stalled
    cdef bint _reading
    cdef bint _eof
    cdef list _todo
    cdef list _out
    cdef Py_ssize_t _out_bytes
    cdef long long _out_position
    cdef bint _flushing
    cdef list _held
    cdef Py_ssize_t _held_bytes
    cdef Py_ssize_t _age_s
    cdef Py_ssize_t _idle_s
    cdef Py_ssize_t _slow_s

    cpdef _run(self, list requests)
    cpdef bytes _in_doubt(self, Py_ssize_t replies, why=*)
    cpdef bytes _too_many(self)
    cpdef _push(self, reply, long long position)
    cpdef _limits(self)
    @cython.locals(held=list, first=tuple, position="long long", data=bytes)
    cpdef release(self, long long committed)
    @cython.locals(held=list, parts=list, position="long long", data=bytes)
    cdef _write_held(self, long long committed)
    cpdef give_up(self, long long first, long long last)

    cpdef unsent_bytes(self)

    @cython.locals(out=list, data=bytes)
    cdef _flush(self, long long waits=*, Py_ssize_t size=*, Py_ssize_t replies=*)

    cdef _write(self, bytes data)


    cdef _hold(self, long long position, bytes data, Py_ssize_t replies)
    cdef _queue_push(self, bytes data, long long position)
    cdef _stall(self, int reason)
    cpdef _resume(self, int reason)
    cpdef _go_on(self, list todo)
    cdef _deferred_over(self)
    cdef _end_turn(self, list rest)
    cdef _close_if_done(self)
    cpdef _idle_limit_s(self)
    cdef _check_output(self)
    cdef _cut_off(self)
    cpdef _unparsed_bytes(self)
