cdef Py_ssize_t event_end(const unsigned char* p, Py_ssize_t at, Py_ssize_t n) noexcept
cpdef bytes first_data_event(bytes payload)
cpdef bint names(bytes data, bytes member) except -1
cpdef Py_ssize_t last_event_end(bytes payload)
