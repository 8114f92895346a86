cdef class Outbox:
    cdef object _loop
    cdef list _waiting
    cdef long long _posted_ns

    cpdef post(self, transport, tuple pieces)
