cdef enum:
    EMPTY = 0        # no body at all
    LENGTH = 1       # Content-Length
    CHUNKED = 2      # Transfer-Encoding: chunked
    UNTIL_CLOSE = 3  # the end of the connection is the end of the body


cdef class Head:
    cdef readonly int status
    cdef readonly bytes reason
    cdef readonly list headers
    cdef readonly bytes end_to_end
    cdef readonly int framing
    cdef readonly long long length
    cdef readonly bint keep_alive
    cdef readonly bint event_stream
    cdef readonly bint json


cdef class Framing:
    cdef readonly int kind
    cdef readonly bint done
    cdef readonly bint at_boundary
    cdef readonly long long chunks
    cdef readonly long long payload_bytes
    cdef long long left
    cdef int state
    cdef int digits
    cdef Py_ssize_t extra
    cdef unsigned char last
    cdef unsigned char before_last
    cdef unsigned char before_that

    cdef void reset(self, int kind, long long length) noexcept
    cdef Py_ssize_t advance(
        self, const unsigned char* p, Py_ssize_t n, Py_ssize_t* settled, list payload
    ) except -1
    cdef void saw(self, const unsigned char* p, Py_ssize_t n) noexcept
    cdef bint between_events(self) noexcept


cpdef tuple parse_head(bytes data)
