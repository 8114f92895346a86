cdef class Gaps:
    cdef double total
    cdef unsigned int[32] counts

    cdef void reset(self) noexcept
    cdef void skip(self, long long together) noexcept
    cdef void note(self, double gap, long long together) noexcept
