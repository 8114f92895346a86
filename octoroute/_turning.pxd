from octoroute._transport cimport Receiver


cdef class TurningPoints(Receiver):
    cpdef on_head(self)
    cpdef on_held(self)
    cpdef on_end(self)
    cpdef on_failure(self, str reason)
    cpdef on_quiet(self)
    cpdef on_overdue(self)
    cpdef on_silence(self, long long silence_ns)
    cpdef on_delivered(self)
    cpdef on_error_word(self, bytes data)
    cpdef on_idle_lost(self)
