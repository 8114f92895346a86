cimport cython

from octoroute._poller cimport Poller
from octoroute.upstream.outbox cimport Outbox


cdef class Pool:
    cdef public str label
    cdef public Outbox outbox
    cdef public Poller poller
    cdef public str host
    cdef public object port
    cdef public object tls
    cdef public bytes address
    cdef public str server_name
    cdef public double connect_s
    cdef public object clock
    cdef public list idle
    cdef public object probation
    cdef public str after_stream
    cdef public double learnt_at
    cdef public str kind
    cdef public tuple secrets
    cdef public object opened
    cdef public bint closed
    cdef public set doubted
    cdef public double doubted_at
    cdef object _look
    cdef object __weakref__

    @cython.locals(now=double, idle=list)
    cpdef take(self)

    cpdef dial(self, long long deadline_ns, caller, tuple request=*)

    @cython.locals(now=double)
    cpdef give(self, connection)

    cdef _keep(self, connection)
    cdef _pass_probation(self, double now)
