cdef class RequestHead:
    cdef readonly str path
    cdef readonly str request_id
    cdef readonly bytes forwarded
    cdef readonly Py_ssize_t body_at
    cdef readonly Py_ssize_t length
    cdef bytes _head
    cdef bint _has_own          # a header that is the gateway's business

    cpdef get(self, str name)


cdef class Body:
    cdef readonly Py_ssize_t missing
    cdef Py_ssize_t length
    cdef bytes whole

    cpdef Py_ssize_t add(self, bytes data, Py_ssize_t at=*) except -1
    cpdef place(self)
    cpdef grew(self, Py_ssize_t count)
    cpdef take(self)


cpdef RequestHead read_head(bytes data)
