"""A histogram of the time between the chunks of one stream, filled without a Python call.

One per connection; merged into the metric when the stream ends. The bounds are the process's, set once.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memset

cdef double[32] bounds
cdef int bound_count = 0


def set_gap_bounds(upper):
    """Upper bounds, seconds, ascending: at most 31. Raises ValueError."""
    global bound_count
    if len(upper) > 31:
        raise ValueError("at most 31 bounds")
    bound_count = len(upper)
    for i in range(bound_count):
        bounds[i] = upper[i]


cdef class Gaps:
    def __cinit__(self):
        self.reset()

    cdef void reset(self) noexcept:
        self.total = 0.0
        memset(self.counts, 0, sizeof(self.counts))

    cdef void skip(self, long long together) noexcept:
        """Chunks that came with the one before them: nothing lay between."""
        if together > 0:
            self.counts[0] += <unsigned int> together

    cdef void note(self, double gap, long long together) noexcept:
        """A read came `gap` seconds after the one before, with `together` chunks; those after the first
        count as nil.
        """
        cdef int i = 0
        while i < bound_count and gap > bounds[i]:
            i += 1
        self.counts[i] += 1
        self.total += gap
        self.skip(together - 1)

    def read(self):
        """(native uint32 per bucket, one more than there are bounds; sum in seconds)"""
        counts = PyBytes_FromStringAndSize(<char*> self.counts, (bound_count + 1) * sizeof(unsigned int))
        return counts, self.total
