cdef class Dial:
    cdef object _pool
    cdef object _caller
    cdef object _work
    cdef object _waited
    cdef object _timer
    cdef object __weakref__

    cpdef begin(self, double within_s)
    cpdef made(self, connection)
    cdef _stop_timer(self)
    cdef _stop(self)
