cimport cython

from octoroute.balance.endpoint cimport Endpoint


cdef class Group:
    cdef public str label
    cdef public tuple endpoints
    cdef public double slow_start_s
    cdef public double trust_s
    cdef public str policy
    cdef public frozenset replicated
    cdef public object facts
    cdef object _state
    cdef list _slots
    cdef dict _index
    cdef object _selector
    cdef object _loads
    cdef object _choose
    cdef long long _generation
    cdef double _now
    cdef bint _ramping
    cdef list _ring_weights

    @cython.locals(index=int, endpoint=Endpoint)
    cpdef pick(self, tried=*, bytes facts=*)
