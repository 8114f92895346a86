cdef class RequestView:
    cdef public str request_id
    cdef public str path
    cdef public bytes body
    cdef public dict fields
    cdef public str model
    cdef public bint stream
    cdef public str importance
    cdef public str task_type
    cdef public str tenant
    cdef public bytes headers
    cdef public long long read_ns
    cdef public tuple tiers
    cdef public str session
    cdef public tuple lengths


cpdef Py_ssize_t length_of(str text, tuple lengths) except -1


cdef class Target:
    cdef readonly str tier
    cdef readonly str name


cdef class Plan:
    cdef readonly Target target
    cdef readonly str strategy
    cdef readonly str reason
    cdef readonly double routing_ms
    cdef readonly object facts
    cdef readonly tuple warnings
    cdef readonly bytes lines
    cdef bytes _why


cdef class Outcome:
    cdef public int status
    cdef public str result
    cdef public str endpoint
    cdef public int attempts
    cdef public list failures
    cdef public str hedge
    cdef public tuple beside
    cdef public str unretried
    cdef public list recoveries
    cdef public double ttft_s
    cdef public double overhead_s
    cdef public double duration_s
    cdef public long long bytes_out
    cdef public long long chunks
    cdef public long long prompt_tokens
    cdef public long long completion_tokens
    cdef public str error
    cdef public bytes tail
    cdef public bytes gap_counts
    cdef public double gap_sum_s
    cdef public int earlier_attempts
    cdef public double waited_s
    cdef public int charged
