cdef class Delivered:
    cdef list pieces
    cdef readonly Py_ssize_t size

    cdef void add(self, bytes data)


cdef bint names_error(bytes data)
cpdef Py_ssize_t last_event_end(bytes payload)
