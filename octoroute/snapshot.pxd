cdef class Terms:
    cdef readonly int attempts
    cdef readonly long long timeout_ns
    cdef readonly long long idle_ns
    cdef readonly double backoff_s
    cdef readonly double retry_budget
    cdef readonly object hedge_s
    cdef readonly double hedge_budget
    cdef readonly int failures
    cdef readonly bint resume
    cdef readonly long long resume_bytes
    cdef readonly long long stall_ns
    cdef readonly double hope_s
    cdef readonly long long retry_after_s
    cdef readonly bint why_headers


cdef class Snapshot:
    cdef readonly object config
    cdef readonly tuple endpoints
    cdef readonly dict groups
    cdef readonly object routing
    cdef readonly dict terms
    cdef readonly dict fallbacks
