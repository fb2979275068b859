cpdef stored(object value, object deadline_ms, object type_)
cpdef entry_of(object held)
cpdef bint is_expired(object held, object now_ms) except -1
cpdef deadline_of(object held)
cpdef string_of(object held)
