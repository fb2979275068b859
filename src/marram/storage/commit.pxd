cimport cython
from libc.stdint cimport int64_t

from marram.storage.clock cimport StoreClock, ask
from marram.storage.log.writer cimport LogWriter


@cython.final
cdef class Group:
    cdef CommitQueue _commit
    cdef public int64_t first
    cdef public int64_t last
    cdef public list batches
    cdef public list runs
    cdef public Py_ssize_t size_bytes
    cdef public set keys
    cdef public bint everything

    @cython.locals(commit=CommitQueue, log=LogWriter)
    cpdef write(self)

    cdef _sync(self, LogWriter log, CommitQueue commit, int64_t started_ns)

    cdef _write_runs(self, LogWriter log, list runs)


@cython.final
cdef class Turn:
    cdef int64_t sequence
    cdef object gate
    cdef bint is_local
    cdef bint is_lost
    cdef bint is_writing


@cython.final
cdef class CommitQueue:
    cdef public object lock
    cdef public LogWriter log
    cdef public int64_t last
    cdef public int64_t durable
    cdef public int64_t committed
    cdef tuple _point
    cdef long long _number
    cdef long long _end
    cdef unsigned long long _epoch
    cdef unsigned int _chain
    cdef public int64_t epoch
    cdef public int64_t stepwise
    cdef public int64_t groups
    cdef public bint sync_each
    cdef public int64_t sync_within_ns
    cdef public int64_t synced_ns
    cdef StoreClock _clock
    cdef public object monotonic_ns
    cdef public object failure
    cdef public object sync_times
    cdef Group _open
    cdef Group _writing
    cdef object _bound
    cdef object _held
    cdef object _taker
    cdef tuple _tip
    cdef readonly list _sleepers

    cpdef int64_t now_ms(self) except? -1

    cpdef note_sync(self, int64_t began_ns)

    cdef bint _has_to_sync(self) except -1

    cpdef bint reserve(self, Py_ssize_t size_bytes) except -1

    @cython.locals(group=Group)
    cpdef Group enter(self, bytes batch)

    @cython.locals(sequence=int64_t)
    cpdef bint enter_through(self, bytes batch) except -1

    @cython.locals(log=LogWriter)
    cpdef settle_through(self)

    @cython.locals(found=set, size=Py_ssize_t)
    cpdef note_puts(self, Group group, list keys)

    @cython.locals(keys=set, change=tuple, is_wide=bint, added=Py_ssize_t)
    cpdef note_keys(self, Group group, object changes)

    @cython.locals(group=Group, writing=Group)
    cpdef int64_t settles_at(self, bytes key) except -1

    cpdef Group take(self)

    @cython.locals(log=LogWriter)
    cpdef complete(self, Group group, object error)

    @cython.locals(turn=Turn, group=Group, deadline_ns=int64_t)
    cpdef wait(self, long long sequence, object timeout_s=*, bint locally=*)

    @cython.locals(group=Group)
    cdef Group _take(self, object taker)

    @cython.locals(turn=Turn)
    cdef _lose_after(self, int64_t sequence)

    cdef bint _is_reached(self, Turn turn)

    @cython.locals(is_reached=bint)
    cdef Group _begin(self, Turn turn)

    cdef _check_hope(self, Turn turn)

    cdef _sleep(self, Turn turn)

    cdef _await_gate(self, Turn turn, int64_t deadline_ns)

    cdef bint _advance(self) except -1

    cdef _hold(self, Group group)

    @cython.locals(sleepers=list, asleep=list, is_failed=bint, leader=Turn, turn=Turn)
    cdef _wake(self)

    @cython.locals(leader=Turn, turn=Turn)
    cdef Turn _find_leader(self)

    cdef _abandon(self, Turn turn, object error)

    cpdef _fail(self, object error)


cdef _open_gate(Turn turn)
