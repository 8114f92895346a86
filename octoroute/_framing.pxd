cdef Py_ssize_t chunk_begin(const unsigned char* p, Py_ssize_t n, Py_ssize_t* size) noexcept


cdef class Framing:
    cdef readonly int kind
    cdef readonly bint done
    cdef readonly bint at_boundary
    cdef readonly bint events_cut
    cdef readonly long long chunks
    cdef readonly long long payload_bytes
    cdef long long left
    cdef Py_ssize_t seen              # payload bytes of the last piece
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
    cdef Py_ssize_t whole_chunk(self, const unsigned char* p, Py_ssize_t n) noexcept
    cdef int behind_size(self, unsigned char c) except -1
    cdef int in_trailer(self, bint valid) except -1
    cdef void saw(self, const unsigned char* p, Py_ssize_t n) noexcept
    cdef bint between_events(self) noexcept
