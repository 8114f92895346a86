cdef class RetryBudget:
    cdef public long long requests
    cdef public long long retries
    cdef readonly object _marks
