cdef enum:
    EMPTY = 0        # no body at all
    LENGTH = 1       # Content-Length
    CHUNKED = 2      # Transfer-Encoding: chunked
    UNTIL_CLOSE = 3  # the end of the connection is the end of the body


# RFC 9110 section 5.6.2: 1 for the characters of a header's name.
cdef unsigned char[256] TOKEN


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

    cpdef hide(self, bytes secret)


cdef class HeadReader:
    cdef readonly bytes unparsed
    cdef int informational

    cdef void reset(self)
    cdef tuple read(self, bytes data)


cpdef tuple parse_head(bytes data)
