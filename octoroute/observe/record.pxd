cimport cython

from octoroute.exchange cimport Outcome, Plan, RequestView, Target


cdef class _Tier:
    cdef dict durations
    cdef dict requests
    cdef object invocations
    cdef object first_token
    cdef object inter_token
    cdef object prompt_tokens
    cdef object completion_tokens


cdef class Recorder:
    cdef object _registry
    cdef object _recent
    cdef object _format
    cdef object _write
    cdef object _now
    cdef dict _tiers
    cdef dict _routing_ms
    cdef object _overhead
    cdef object _attempts
    cdef object _retries
    cdef object _unretried
    cdef object _hedges
    cdef object _recoveries
    cdef object _broken
    cdef object _failures

    cpdef record(self, RequestView view, Plan plan, Outcome outcome)

    @cython.locals(tier=_Tier, outside=_Tier, name=str, ended=str)
    cdef _count(self, Plan plan, Outcome outcome)

    cdef _count_failures(self, str tier, Outcome outcome)
    cdef tuple _entry(self, RequestView view, Plan plan, Outcome outcome)
