"""Where the shared table is, for the cores that read loads from it."""

cimport cython
from libc.stdint cimport int32_t

from octoroute._bells cimport Bells
from octoroute._slots cimport Fleet, Slot


@cython.final
cdef class FleetState:
    cdef readonly int32_t slots
    cdef readonly int32_t workers
    cdef readonly object gates       # a byte per slot, then per server, 1 = full: what a Selector looks at
    cdef readonly Bells bells        # for workers in which requests wait
    cdef int32_t _worker
    cdef Py_buffer _view
    cdef Fleet _fleet
    cdef Slot *_at(self, int32_t slot) except NULL
    cdef bint _acquire(self, int32_t slot) noexcept
    cdef bint _release(self, int32_t slot, int32_t worker) noexcept
