"""The scanner's steps, for cores that look into a body. `i` is where to begin in the `n` bytes at `p`."""

cdef Py_ssize_t skip_space(const unsigned char* p, Py_ssize_t i, Py_ssize_t n) noexcept
cdef Py_ssize_t skip_string(const unsigned char* p, Py_ssize_t i, Py_ssize_t n) noexcept
cdef Py_ssize_t skip_value(const unsigned char* p, Py_ssize_t i, Py_ssize_t n) noexcept
