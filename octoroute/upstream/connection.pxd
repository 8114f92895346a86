from octoroute._relay cimport Relay


cdef class Connection(Relay):
    cdef public object pool
    cdef public object dial
    cdef public object client
    cdef public object promise
    cdef public str reason
    cdef public object rescue
    cdef public long long silence_ns
    cdef public bint was_reused
    cdef public bint carried_stream
    cdef public double idle_since

    cpdef ask(
        self, tuple request, client, long long deadline_ns, long long idle_ns, long long ping_ns, promise
    )
    cpdef settle(self, verdict, str reason=*)
    cpdef on_head(self)
    cpdef on_held(self)
    cdef bint _lives(self) except -1
    cdef str _unlikely(self)
    cdef _start(self)
    cdef bint _breaks(self, bytes payload) except -1
    cpdef on_end(self)
    cpdef on_failure(self, str reason)
    cpdef on_overdue(self)
    cpdef on_quiet(self)
    cpdef on_silence(self, long long silence_ns)
    cpdef on_delivered(self)
    cpdef on_error_word(self, bytes data)
    cpdef on_idle_lost(self)
    cpdef client_gone(self)
    cpdef close(self)
    cpdef release(self)
