from octoroute.exchange cimport Outcome, Plan, RequestView
from octoroute.snapshot cimport Snapshot
from octoroute.upstream.forward cimport Forwarding


cdef class ActiveRequest:
    cdef public RequestView view
    cdef public object client
    cdef public object gateway
    cdef public Snapshot snapshot
    cdef public Outcome outcome
    cdef public Plan plan
    cdef object _done
    cdef object _visit
    cdef Forwarding _forwarding
    cdef object _task
    cdef object _stand_ins
    cdef object _error

    cpdef start(self)
    cpdef cancel(self)
    cdef _admit(self, Plan plan)
    cdef _forward(self, Plan plan)
    cpdef _forwarded(self, error)
    cdef bint _fall_back(self, error) except -1
    cdef _end(self, error)
    cdef bint _settled(self, error) except -1
