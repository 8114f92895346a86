cdef class UsageFilter:
    cdef list kept                   # the beginning of an event whose end has not come
    cdef readonly Py_ssize_t kept_bytes
    cdef readonly bint inside        # an event is so large that its beginning went out already

    cdef bytes advance(self, list pieces, bint done)
