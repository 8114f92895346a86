cdef class Dial:
    cdef object _pool
    cdef object _caller
    cdef tuple _unsent
    cdef int _fd
    cdef object _work
    cdef object _waited
    cdef object _timer
    cdef object __weakref__

    cpdef begin(self, double within_s)
    cpdef made(self, connection)
    cdef bint _send(self) except -1
    cdef _begin_late(self)
    cdef _adopt(self)
    cdef _drop_socket(self)
    cdef _failure(self, error)
    cdef _stop_timer(self)
    cdef _stop(self)
