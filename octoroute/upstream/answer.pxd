from octoroute._http1 cimport Head
from octoroute.upstream.connection cimport Connection


cdef class Answer:
    cdef readonly Head head
    cdef readonly bytes body
