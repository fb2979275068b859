from marram.server.connection cimport Connection


cdef class FrameConnection(Connection):
    cdef object _parser
    cdef object _max_frame_bytes
    cdef object _stats
    cdef bint _has_asked

    cdef _set_frame_limit(self)
