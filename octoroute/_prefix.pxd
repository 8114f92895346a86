"""What `_pick.pyx` asks of the table of prefixes."""

cimport cython
from libc.stdint cimport int32_t, uint64_t

cdef enum:
    WAYS = 8                         # words in a bucket: one cache line


@cython.final
cdef class PrefixIndex:
    cdef readonly uint64_t evicted
    cdef Py_buffer _view
    cdef uint64_t *_words
    cdef uint64_t _mask
    cdef int32_t find(self, uint64_t hash, int32_t *slots) noexcept
    cdef void put(self, uint64_t hash, int32_t slot) noexcept
