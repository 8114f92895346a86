cdef class Outbox:
    cdef object _loop
    cdef list _waiting

    cpdef post(self, transport, tuple pieces)
