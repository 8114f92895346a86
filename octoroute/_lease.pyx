"""One request's place at an endpoint: counted when it is taken, given back exactly once."""

from types import GenericAlias

cimport cython
from libc.stdint cimport int32_t

from octoroute._state cimport FleetState


@cython.final
@cython.auto_pickle(False)
@cython.no_gc                    # nothing that a lease refers to refers back
@cython.freelist(256)
cdef class Lease:
    """A place at `endpoint`, given back by the first `release`, else with the last reference."""

    __class_getitem__ = classmethod(GenericAlias)
    cdef readonly object endpoint
    cdef FleetState _state
    cdef int32_t _slot
    cdef int32_t _worker
    cdef bint _held

    @staticmethod
    def take(FleetState state not None, int32_t slot, endpoint):
        """One on `endpoint`, which has that slot; None, and no count, where the slot is at its capacity."""
        cdef Lease lease
        state._at(slot)
        if not state._acquire(slot):
            return None
        lease = Lease.__new__(Lease)
        lease.endpoint = endpoint
        lease._state = state
        lease._slot = slot
        lease._worker = state._worker
        lease._held = True
        return lease

    def release(self):
        """Give the place back; a second call does nothing."""
        if self._held:
            self._held = False
            self._state._release(self._slot, self._worker)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.release()

    def __dealloc__(self):
        # A lease that crossed a fork is still its first process's to give back.
        if self._held and self._state._worker == self._worker:
            self._state._release(self._slot, self._worker)
