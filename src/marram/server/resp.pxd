cimport cython
from marram.node.node cimport Node
from marram.node.session cimport Session
from marram.protocol.resp cimport RequestParser, encode, encode_into
from marram.server.connection cimport Connection
from marram.storage.commit cimport CommitQueue


cdef class RespConnection(Connection):
    cdef RequestParser _parser
    cdef bint _authenticated

    @cython.locals(
        node=Node, session=Session, out=list, size=Py_ssize_t, replies=Py_ssize_t,
        waits="long long", position="long long", queue=CommitQueue,
    )
    cpdef _run(self, list requests)

    cdef _look_at_parser(self)
    cdef _reply(self, reply, long long position)
