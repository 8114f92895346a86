cdef class Pattern:
    cdef readonly bytes name
    cdef readonly bytes text               # of that event, as it is written between the quotes
    cdef bytes first                       # up to the first of the two that vary
    cdef bytes middle
    cdef bytes last
    cdef bint text_first
    cdef bint has_number

    cdef Py_ssize_t end_of(
        self, const unsigned char* p, Py_ssize_t at, Py_ssize_t n, Py_ssize_t* begin, Py_ssize_t* end
    ) except -2


cdef class Delivered:
    cdef list items
    cdef Pattern pattern
    cdef char* run                         # texts of events that were alike, one behind the other
    cdef Py_ssize_t run_bytes
    cdef Py_ssize_t run_size
    cdef Py_ssize_t run_pieces
    cdef Py_ssize_t text_bytes             # of the runs in `items`
    cdef Py_ssize_t max_text
    cdef readonly Py_ssize_t size          # bytes of `items` kept as they were written, since `expect`

    cdef bint add_alike(self, bytes data, bint framed) except -1
    cdef int put(self, const unsigned char* text, Py_ssize_t n) except -1
    cdef void end_run(self)
    cdef void add(self, bytes data)
    cdef bint much(self) noexcept
