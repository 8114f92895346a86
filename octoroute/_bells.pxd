"""The bells of a fleet's workers, for the core that rings them."""

from cpython.buffer cimport Py_buffer
from libc.stdint cimport int32_t, uint8_t, uint32_t


cdef class Bells:
    cdef readonly int32_t workers
    cdef int *_descriptor            # [worker]
    cdef uint32_t *_anybody          # how many workers wait
    cdef uint8_t *_waits             # [worker]: a bit for each queue of it that somebody waits in
    cdef Py_buffer _view
    cdef int32_t _checked(self, int32_t worker, int32_t queue=*) except -1
    cdef bint anybody(self) noexcept
    cdef void ring(self, int32_t but) noexcept
