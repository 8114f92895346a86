cdef class Sender:
    cdef object transport
    cdef int fd                  # -1: everything goes by the transport
    cdef public bint waiting     # the transport may hold bytes that have to go out first

    cdef put(self, bytes data)
    cpdef forget(self)
